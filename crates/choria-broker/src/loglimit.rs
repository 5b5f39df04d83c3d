//! How many log lines and events one kind of trouble may make.
//!
//! Refusals are caused from outside: without a limit a peer with a loop fills the disk. Counters are exact, lines
//! are samples that say how many were left out.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

/// A burst and a rate per key. The keys are a small fixed set of reasons, so the map does not grow.
#[derive(Debug)]
pub(crate) struct LogLimit {
    burst: u32,
    per_second: f64,
    buckets: Mutex<HashMap<&'static str, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Duration,
    suppressed: u64,
}

impl LogLimit {
    /// `burst` lines at once, then `per_second` lines a second, for each key.
    pub(crate) fn new(burst: u32, per_second: f64) -> Self {
        Self { burst, per_second, buckets: Mutex::new(HashMap::new()) }
    }

    /// Whether a line of `key` may be written `now` (time since any fixed moment): `Some` with the number of lines
    /// left out since the last one, or `None`.
    pub(crate) fn allow(&self, key: &'static str, now: Duration) -> Option<u64> {
        let full = f64::from(self.burst);
        let mut buckets = self.buckets.lock();
        let bucket = buckets.entry(key).or_insert(Bucket { left: full, at: now, suppressed: 0 });
        let waited = now.saturating_sub(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + waited * self.per_second).min(full);
        bucket.at = now.max(bucket.at);
        if bucket.left < 1.0 {
            bucket.suppressed += 1;
            return None;
        }
        bucket.left -= 1.0;
        Some(std::mem::take(&mut bucket.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_rate_per_key_and_the_rest_is_counted() {
        let limit = LogLimit::new(2, 1.0);
        let at = Duration::from_millis;
        assert_eq!(limit.allow("a", at(0)), Some(0));
        assert_eq!(limit.allow("a", at(0)), Some(0));
        for _ in 0..5 {
            assert_eq!(limit.allow("a", at(10)), None);
        }
        assert_eq!(limit.allow("b", at(10)), Some(0), "keys do not share");
        assert_eq!(limit.allow("a", at(1100)), Some(5), "the next line tells what was left out");
        assert_eq!(limit.allow("a", at(1100)), None);
        assert_eq!(limit.allow("a", at(60_000)), Some(1));
        assert_eq!(limit.allow("a", at(60_000)), Some(0), "the burst is full again, not more");
        assert_eq!(limit.allow("a", at(60_000)), None);
    }
}
