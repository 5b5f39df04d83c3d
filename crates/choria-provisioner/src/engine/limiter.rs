//! Keeps one kind of message from filling the log.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

const WINDOW: Duration = Duration::from_secs(1);

/// Lets a few messages of each kind pass per second and counts the rest.
#[derive(Debug, Default)]
pub(super) struct LogLimiter {
    kinds: FxHashMap<&'static str, (Instant, u32)>,
}

impl LogLimiter {
    /// Whether a message of this kind may be logged now, and how many were held back before it.
    pub(super) fn allow(&mut self, kind: &'static str, now: Instant) -> Option<u32> {
        let (since, held_back) = self.kinds.entry(kind).or_insert((now, 0));
        if *held_back > 0 && now.saturating_duration_since(*since) < WINDOW {
            *held_back += 1;
            return None;
        }
        let before = held_back.saturating_sub(1);
        *since = now;
        *held_back = 1;
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_per_kind_and_second_passes() {
        let start = Instant::now();
        let mut limiter = LogLimiter::default();
        assert_eq!(limiter.allow("a", start), Some(0));
        assert_eq!(limiter.allow("b", start), Some(0));
        for _ in 0..5 {
            assert_eq!(limiter.allow("a", start), None);
        }
        assert_eq!(limiter.allow("a", start + WINDOW), Some(5));
    }
}
