//! `helper_rate` and `ca_rate`: token buckets in front of the helper. Sans-io; nodes keep their order.

use std::time::{Duration, Instant};

/// Fills at a rate, holds one second's worth.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: f64, now: Instant) -> Self {
        Self { rate, tokens: rate.max(1.0), filled: now }
    }

    fn fill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(self.rate.max(1.0));
        self.filled = self.filled.max(now);
    }

    /// When there is one; `None`: now.
    fn ready_at(&mut self, now: Instant) -> Option<Instant> {
        self.fill(now);
        if self.tokens >= 1.0 {
            return None;
        }
        // A millisecond more, so that rounding does not wake us for nothing.
        let wait = Duration::from_secs_f64((1.0 - self.tokens) / self.rate) + Duration::from_millis(1);
        Some(now + wait)
    }
}

/// Both limits. Without them everything passes.
#[derive(Debug)]
pub(super) struct Rates {
    helper: Option<Bucket>,
    ca: Option<Bucket>,
    held: Option<(&'static str, Instant)>,
}

impl Rates {
    /// Limits per second; what is in the buckets is kept when the limit is the same.
    pub(super) fn new(helper: Option<f64>, ca: Option<f64>, now: Instant) -> Self {
        let bucket = |rate: Option<f64>| rate.map(|rate| Bucket::new(rate, now));
        Self { helper: bucket(helper), ca: bucket(ca), held: None }
    }

    /// New limits.
    pub(super) fn set(&mut self, helper: Option<f64>, ca: Option<f64>, now: Instant) {
        for (bucket, rate) in [(&mut self.helper, helper), (&mut self.ca, ca)] {
            if bucket.as_ref().map(|bucket| bucket.rate) != rate {
                *bucket = rate.map(|rate| Bucket::new(rate, now));
            }
        }
        self.held = None;
    }

    /// Whether one more node may be handed to the helper now, with or without a certificate request.
    pub(super) fn allow(&mut self, with_request: bool, now: Instant) -> bool {
        let mut buckets = [("helper_rate", &mut self.helper, true), ("ca_rate", &mut self.ca, with_request)];
        let waits = buckets.iter_mut().filter(|(_, _, counts)| *counts).filter_map(|(name, bucket, _)| {
            let at = bucket.as_mut()?.ready_at(now)?;
            Some((*name, at))
        });
        self.held = waits.max_by_key(|(_, at)| *at);
        if self.held.is_some() {
            return false;
        }
        for (_, bucket, counts) in buckets {
            if let Some(bucket) = bucket.as_mut().filter(|_| counts) {
                bucket.tokens -= 1.0;
            }
        }
        true
    }

    /// What the last node was held back by, and until when.
    pub(super) fn held(&self) -> Option<(&'static str, Instant)> {
        self.held
    }

    /// Nobody waits any more.
    pub(super) fn clear(&mut self) {
        self.held = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_limits_everything_passes() {
        let now = Instant::now();
        let mut rates = Rates::new(None, None, now);
        assert!((0..1000).all(|_| rates.allow(true, now)));
        assert_eq!(rates.held(), None);
    }

    #[test]
    fn over_time_no_more_than_the_rate_passes() {
        for rate in [0.1, 0.5, 1.0, 3.0, 250.0] {
            let start = Instant::now();
            let mut rates = Rates::new(Some(rate), None, start);
            let (mut now, mut passed, end) = (start, 0_u32, start + Duration::from_secs(100));
            while now <= end {
                if rates.allow(false, now) {
                    passed += 1;
                } else {
                    let (name, at) = rates.held().unwrap();
                    assert_eq!(name, "helper_rate");
                    assert!(at > now);
                    now = at;
                }
            }
            let most = 100.0 * rate + rate.max(1.0);
            assert!(f64::from(passed) <= most, "{rate}: {passed}");
            assert!(f64::from(passed) >= 0.9 * 100.0 * rate, "{rate}: {passed}");
        }
    }

    #[test]
    fn only_requests_count_for_the_authority() {
        let now = Instant::now();
        let mut rates = Rates::new(Some(10.0), Some(2.0), now);
        assert!(rates.allow(true, now) && rates.allow(true, now));
        assert!(!rates.allow(true, now));
        assert_eq!(rates.held().unwrap().0, "ca_rate");
        assert!(rates.allow(false, now), "a node without one is not held back");
        assert!(rates.held().is_none());
        assert!(rates.allow(true, now + Duration::from_millis(600)));
    }

    #[test]
    fn a_changed_limit_begins_anew_and_an_unchanged_one_does_not() {
        let now = Instant::now();
        let mut rates = Rates::new(Some(1.0), None, now);
        assert!(rates.allow(true, now) && !rates.allow(true, now));
        rates.set(Some(1.0), None, now);
        assert!(!rates.allow(true, now));
        rates.set(None, None, now);
        assert!(rates.allow(true, now));
    }
}
