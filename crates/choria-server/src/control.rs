//! How agents ask the server to end: restart, shutdown.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::server::Exit;

/// An end that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// When.
    pub at: Instant,
    /// How.
    pub exit: Exit,
}

/// Asks the server to end. The first wish counts; later ones learn when it will be.
#[derive(Debug, Clone)]
pub struct Control {
    sender: watch::Sender<Option<Scheduled>>,
}

impl Default for Control {
    fn default() -> Self {
        Self { sender: watch::Sender::new(None) }
    }
}

impl Control {
    /// Ends the server `delay` after `now`, unless it ends already. Answers how long it will still take.
    pub fn end_in(&self, now: std::time::Instant, delay: Duration, exit: Exit) -> Duration {
        let now = Instant::from_std(now);
        let mut remaining = delay;
        self.sender.send_if_modified(|scheduled| match scheduled {
            Some(earlier) => {
                remaining = earlier.at.saturating_duration_since(now);
                false
            }
            None => {
                *scheduled = Some(Scheduled { at: now + delay, exit });
                true
            }
        });
        remaining
    }

    /// The wish, as it comes.
    pub fn watch(&self) -> watch::Receiver<Option<Scheduled>> {
        self.sender.subscribe()
    }
}
