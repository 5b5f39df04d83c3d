//! When a broadcast stops listening: a fixed wait, or one that slides with the replies (spec 05 §4).

use std::time::Duration;

use tokio::time::Instant;

/// How long a broadcast discovery listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The longest wait, counted from the end of publishing.
    pub timeout: Duration,
    /// With a value: once a reply came, the wait ends when no other follows for this long.
    pub quiet: Option<Duration>,
}

impl Wait {
    /// The quiet time of `--discovery-window` and `plugin.choria.discovery.broadcast.windowed_timeout`.
    pub const WINDOW: Duration = Duration::from_millis(300);

    /// Always waits the whole time.
    pub fn fixed(timeout: Duration) -> Self {
        Self { timeout, quiet: None }
    }

    /// Ends [`Self::WINDOW`] after the last reply, at the latest after `timeout`.
    pub fn sliding(timeout: Duration) -> Self {
        Self { timeout, quiet: Some(Self::WINDOW) }
    }

    /// Starts the clock.
    pub fn start(self, now: Instant) -> Window {
        Window { end: now + self.timeout, quiet: self.quiet, deadline: now + self.timeout }
    }
}

/// A running wait. It never lasts longer than [`Wait::timeout`], however many replies come.
#[derive(Debug, Clone)]
pub struct Window {
    end: Instant,
    quiet: Option<Duration>,
    deadline: Instant,
}

impl Window {
    /// Notes a reply.
    pub fn replied(&mut self, now: Instant) {
        if let Some(quiet) = self.quiet {
            self.deadline = (now + quiet).min(self.end);
        }
    }

    /// When to stop, as of now.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_wait_ignores_replies() {
        let now = Instant::now();
        let mut window = Wait::fixed(Duration::from_secs(2)).start(now);
        window.replied(now + Duration::from_millis(10));
        assert_eq!(window.deadline(), now + Duration::from_secs(2));
    }

    #[test]
    fn a_sliding_wait_follows_replies_but_not_past_its_end() {
        let now = Instant::now();
        let mut window = Wait::sliding(Duration::from_secs(2)).start(now);
        assert_eq!(window.deadline(), now + Duration::from_secs(2), "the first reply may take the whole time");
        window.replied(now + Duration::from_millis(100));
        assert_eq!(window.deadline(), now + Duration::from_millis(400));
        window.replied(now + Duration::from_millis(1900));
        assert_eq!(window.deadline(), now + Duration::from_secs(2));
    }
}
