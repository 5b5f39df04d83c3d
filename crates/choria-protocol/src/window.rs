//! Message age and replays. The original accepts any ttl and serves the same bytes again and again (spec 01 §4);
//! here the ttl has a ceiling and each signed request is served once (DESIGN §6).

use std::collections::{BTreeSet, HashSet};

use sha2::{Digest, Sha256};

/// Largest ttl a server honours unless configured otherwise, in seconds. The original's client never asks for more
/// (spec 01 §4, batches of cached transports).
pub const DEFAULT_MAX_TTL: i64 = 18_000;

/// Requests remembered unless configured otherwise; about 60 bytes each, taken only when needed.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// Why a message is not served now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Older than its ttl.
    #[error("message from {time} with ttl {ttl} has expired, it is {now} now")]
    Expired {
        /// Unix seconds of the message.
        time: i64,
        /// Its ttl in seconds.
        ttl: i64,
        /// Unix seconds now.
        now: i64,
    },
    /// Further in the future than its ttl.
    #[error("message from {time} with ttl {ttl} is from the future, it is {now} now: compare the clocks")]
    FromTheFuture {
        /// Unix seconds of the message.
        time: i64,
        /// Its ttl in seconds.
        ttl: i64,
        /// Unix seconds now.
        now: i64,
    },
    /// A ttl that is not positive, or above the ceiling.
    #[error("ttl {ttl} is outside 1 to {limit} seconds")]
    Ttl {
        /// The message's ttl in seconds.
        ttl: i64,
        /// Largest allowed.
        limit: i64,
    },
    /// The same request was served already.
    #[error("request was seen before")]
    Replayed,
    /// More requests within their ttl than can be remembered. Refusing is the only way not to serve one twice.
    #[error("{capacity} requests are within their ttl, no more can be remembered")]
    Full {
        /// How many are remembered.
        capacity: usize,
    },
}

impl WindowError {
    /// A short, constant word for the cause, for counters and tests.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "ttl_expired",
            Self::FromTheFuture { .. } => "from_the_future",
            Self::Ttl { .. } => "ttl_out_of_range",
            Self::Replayed => "replayed",
            Self::Full { .. } => "replay_window_full",
        }
    }
}

/// Judges the age of messages: `now - ttl < time < now + ttl`, strict at both ends (spec 01 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TtlCheck {
    max_ttl: i64,
}

impl Default for TtlCheck {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_TTL)
    }
}

impl TtlCheck {
    /// Accepts ttls up to `max_ttl` seconds.
    pub fn new(max_ttl: i64) -> Self {
        Self { max_ttl }
    }

    /// Judges a message of `time` with `ttl` at `now`, all in (unix) seconds.
    ///
    /// # Errors
    /// [`WindowError::Ttl`], [`WindowError::Expired`] or [`WindowError::FromTheFuture`].
    pub fn check(&self, time: i64, ttl: i64, now: i64) -> Result<(), WindowError> {
        if ttl < 1 || ttl > self.max_ttl {
            return Err(WindowError::Ttl { ttl, limit: self.max_ttl });
        }
        if time <= now.saturating_sub(ttl) {
            return Err(WindowError::Expired { time, ttl, now });
        }
        if time >= now.saturating_add(ttl) {
            return Err(WindowError::FromTheFuture { time, ttl, now });
        }
        Ok(())
    }
}

/// Remembers served requests until their ttl has passed, so that none is served twice.
///
/// A request is known by its signed text: batches of one request share the id but are signed anew (spec 01 §4), so they
/// are different requests, while the same text with a differently wrapped signature is not. Ask only after the signature
/// was verified, or strangers can fill the memory.
#[derive(Debug, Clone)]
pub struct SeenRequests {
    capacity: usize,
    known: HashSet<[u8; 16]>,
    by_expiry: BTreeSet<(i64, [u8; 16])>,
}

impl Default for SeenRequests {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

impl SeenRequests {
    /// Remembers at most `capacity` requests.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, known: HashSet::new(), by_expiry: BTreeSet::new() }
    }

    /// Records the request whose signed text is `message`. `time` and `ttl` have passed [`TtlCheck::check`] at `now`.
    ///
    /// # Errors
    /// [`WindowError::Replayed`] if it was recorded before and could still be valid, [`WindowError::Full`] when the memory
    /// holds only requests that could still be valid.
    pub fn insert(&mut self, message: &str, time: i64, ttl: i64, now: i64) -> Result<(), WindowError> {
        // A message is valid while now < time + ttl, so an entry with that expiry can go when it is reached.
        while let Some(&(expiry, key)) = self.by_expiry.first() {
            if expiry > now {
                break;
            }
            self.by_expiry.pop_first();
            self.known.remove(&key);
        }
        let digest = Sha256::digest(message.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        if self.known.contains(&key) {
            return Err(WindowError::Replayed);
        }
        if self.known.len() >= self.capacity {
            return Err(WindowError::Full { capacity: self.capacity });
        }
        self.known.insert(key);
        self.by_expiry.insert((time.saturating_add(ttl), key));
        Ok(())
    }

    /// Requests remembered now.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_795_169_492;

    #[test]
    fn age_is_judged_strictly_at_both_ends() {
        let check = TtlCheck::default();
        for (offset, reason) in [
            (0, None),
            (-59, None),
            (-58, None),
            (59, None),
            (-60, Some("ttl_expired")),
            (-61, Some("ttl_expired")),
            (60, Some("from_the_future")),
            (61, Some("from_the_future")),
        ] {
            assert_eq!(check.check(NOW + offset, 60, NOW).err().map(|e| e.reason()), reason, "{offset}");
        }
    }

    #[test]
    fn design6_ttl_has_a_ceiling() {
        let check = TtlCheck::default();
        for ttl in [0, -1, i64::MIN, DEFAULT_MAX_TTL + 1, 1_000_000_000, 100_000_000_000, i64::MAX] {
            assert_eq!(check.check(NOW, ttl, NOW).unwrap_err().reason(), "ttl_out_of_range", "{ttl}");
        }
        assert!(check.check(NOW, DEFAULT_MAX_TTL, NOW).is_ok());
        assert!(TtlCheck::new(60).check(NOW, 61, NOW).is_err());
    }

    #[test]
    fn design6_replays_do_not_run_twice() {
        let mut seen = SeenRequests::default();
        assert_eq!(seen.insert("a", NOW, 60, NOW), Ok(()));
        assert_eq!(seen.insert("a", NOW, 60, NOW + 59), Err(WindowError::Replayed));
        assert_eq!(seen.insert("b", NOW, 60, NOW + 59), Ok(()), "a batch signed anew is another request");
        assert_eq!(seen.len(), 2);
        // From now on the age check refuses it, so it need not be remembered.
        assert!(TtlCheck::default().check(NOW, 60, NOW + 60).is_err());
        assert_eq!(seen.insert("c", NOW + 60, 60, NOW + 60), Ok(()));
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn a_request_from_the_near_future_is_remembered_long_enough() {
        let mut seen = SeenRequests::default();
        assert_eq!(seen.insert("a", NOW + 59, 60, NOW), Ok(()));
        assert!(TtlCheck::default().check(NOW + 59, 60, NOW + 118).is_ok());
        assert_eq!(seen.insert("a", NOW + 59, 60, NOW + 118), Err(WindowError::Replayed));
    }

    #[test]
    fn a_full_memory_refuses_rather_than_forgets() {
        let mut seen = SeenRequests::new(2);
        assert_eq!(seen.insert("a", NOW, 60, NOW), Ok(()));
        assert_eq!(seen.insert("b", NOW, 30, NOW), Ok(()));
        assert_eq!(seen.insert("c", NOW, 60, NOW), Err(WindowError::Full { capacity: 2 }));
        assert_eq!(seen.insert("a", NOW, 60, NOW), Err(WindowError::Replayed));
        assert_eq!(seen.insert("c", NOW + 30, 60, NOW + 30), Ok(()));
    }

    proptest! {
        #[test]
        fn nothing_valid_is_served_twice(steps in proptest::collection::vec((0..6u8, -40..40i64, 30..90i64, 0..40i64), 1..60)) {
            let (check, mut seen, mut served) = (TtlCheck::default(), SeenRequests::default(), HashSet::new());
            let mut now = NOW;
            for (id, offset, ttl, advance) in steps {
                now += advance;
                let time = NOW + offset;
                let text = format!("{id}/{time}/{ttl}");
                if check.check(time, ttl, now).is_ok() && seen.insert(&text, time, ttl, now).is_ok() {
                    prop_assert!(served.insert(text));
                }
            }
        }
    }
}
