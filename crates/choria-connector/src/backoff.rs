//! Choria's back-off tables and their jitter (spec 03 §3).
//!
//! The tables are facts of the wire: fleets are tuned to the load that they produce when a broker returns.

use std::time::Duration;

use rand::Rng;

/// Milliseconds between tries of the first connection: 10 steps from 0.5 s to 5 s.
///
/// Eleven entries are listed because the original counts tries from 1 and never uses entry 0.
pub const FIVE_SEC: Backoff = Backoff { table: &FIVE };

/// Milliseconds between passes over the server list of a connection that was up: 44 steps from 0.5 s to 20 s.
pub const TWENTY_SEC: Backoff = Backoff { table: &TWENTY };

const FIVE: [u32; 11] = [500, 750, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000];

const TWENTY: [u32; 44] = [
    500, 750, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000, 5500, 5750, 6000, 6500, 7000, 7500, 8000, 8500,
    9000, 9500, 10000, 10500, 10750, 11000, 11500, 12000, 12500, 13000, 13500, 14000, 14500, 15000, 15500, 15750,
    16000, 16500, 17000, 17500, 18000, 18500, 19000, 19500, 20000,
];

/// One table of delays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    table: &'static [u32],
}

impl Backoff {
    /// A table of an embedder's own, in milliseconds. An empty table never waits.
    pub const fn custom(table: &'static [u32]) -> Self {
        Self { table }
    }

    /// The delay without jitter after failed try number `attempt`, which counts from 1. Stays at the last entry.
    pub fn base(&self, attempt: u32) -> Duration {
        let last = self.table.len().saturating_sub(1);
        let index = usize::try_from(attempt).unwrap_or(last).min(last);
        Duration::from_millis(self.table.get(index).copied().unwrap_or(0).into())
    }

    /// The delay to sleep after failed try number `attempt`, with jitter drawn from `rng`.
    pub fn delay(&self, attempt: u32, rng: &mut impl Rng) -> Duration {
        jittered(self.base(attempt), rng)
    }
}

/// Half of `base` plus a uniform part of `base`: 0.5 to 1.5 times of it, in whole milliseconds.
pub fn jittered(base: Duration, rng: &mut impl Rng) -> Duration {
    let millis = u64::try_from(base.as_millis()).unwrap_or(u64::MAX / 2);
    if millis == 0 {
        return Duration::ZERO;
    }
    Duration::from_millis(millis / 2 + rng.random_range(0..millis))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn tables_hold_the_figures_of_the_original() {
        let sum = |table: &[u32]| table.iter().map(|&ms| u64::from(ms)).sum::<u64>();
        assert_eq!(FIVE.len(), 11);
        assert_eq!(sum(&FIVE), 28_250);
        assert_eq!(TWENTY.len(), 44);
        assert!(TWENTY.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!((TWENTY[43], TWENTY[23], TWENTY[12]), (20_000, 10_750, 5_750));
    }

    /// Spec 03 §16: windows of the first tries and of the last entry.
    #[test]
    fn conformance_windows() {
        let mut rng = StdRng::seed_from_u64(7);
        let cases = [
            (FIVE_SEC, 1, 375, 1124),
            (FIVE_SEC, 9, 2250, 6749),
            (FIVE_SEC, 10, 2500, 7499),
            (FIVE_SEC, 4000, 2500, 7499),
            (TWENTY_SEC, 1, 375, 1124),
            (TWENTY_SEC, 43, 10_000, 29_999),
            (TWENTY_SEC, u32::MAX, 10_000, 29_999),
        ];
        for (table, attempt, low, high) in cases {
            for _ in 0..500 {
                let millis = table.delay(attempt, &mut rng).as_millis();
                assert!((low..=high).contains(&millis), "try {attempt}: {millis} not in {low}..={high}");
            }
        }
    }

    #[test]
    fn empty_table_does_not_wait() {
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(Backoff::custom(&[]).delay(3, &mut rng), Duration::ZERO);
    }
}
