//! How fast nodes are provisioned: counts of the last minute by second and of the last hour by minute.

use std::time::{Duration, Instant};

/// Counts per slot of a ring; a slot of the past is emptied when time comes around to it.
#[derive(Debug)]
struct Ring<const N: usize> {
    slots: [u32; N],
    width: Duration,
    /// Number of the newest slot since the beginning.
    newest: u64,
}

impl<const N: usize> Ring<N> {
    fn new(width: Duration) -> Self {
        Self { slots: [0; N], width, newest: 0 }
    }

    /// Moves on to the slot of this time.
    fn turn(&mut self, age: Duration) {
        let number = u64::try_from(age.as_millis() / self.width.as_millis()).unwrap_or(u64::MAX);
        let steps = number.saturating_sub(self.newest);
        let size = N as u64;
        for step in 1..=steps.min(size) {
            self.slots[index::<N>(self.newest + step)] = 0;
        }
        self.newest = self.newest.max(number);
    }

    fn sum(&self, last: usize) -> u64 {
        let newest = self.newest;
        (0..last.min(N) as u64)
            .filter_map(|back| newest.checked_sub(back))
            .map(|n| u64::from(self.slots[index::<N>(n)]))
            .sum()
    }
}

fn index<const N: usize>(number: u64) -> usize {
    usize::try_from(number % N as u64).unwrap_or(0)
}

/// Counts of the last minute and hour.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    seconds: Ring<60>,
    minutes: Ring<60>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, seconds: Ring::new(Duration::from_secs(1)), minutes: Ring::new(Duration::from_secs(60)) }
    }

    /// One more.
    pub(super) fn count(&mut self, now: Instant) {
        self.turn(now);
        let second = index::<60>(self.seconds.newest);
        let minute = index::<60>(self.minutes.newest);
        self.seconds.slots[second] = self.seconds.slots[second].saturating_add(1);
        self.minutes.slots[minute] = self.minutes.slots[minute].saturating_add(1);
    }

    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        self.seconds.turn(age);
        self.minutes.turn(age);
    }

    /// Those of the last 60 seconds, those of the last 60 minutes, and how many per second there were in the last ten.
    pub(super) fn read(&mut self, now: Instant) -> (u64, u64, f64) {
        self.turn(now);
        // Whole seconds only: the one under way is too short to judge by.
        let age = now.saturating_duration_since(self.began).as_secs().clamp(1, 10);
        let whole = self.seconds.sum(1 + usize::try_from(age).unwrap_or(10)) - self.seconds.sum(1);
        #[expect(clippy::cast_precision_loss, reason = "counts of ten seconds are small")]
        let rate = whole as f64 / age as f64;
        (self.seconds.sum(60), self.minutes.sum(60), rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_slide() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(start);
        assert_eq!(pace.read(start), (0, 0, 0.0));
        for second in 0..20 {
            for _ in 0..5 {
                pace.count(at(second));
            }
        }
        assert_eq!(pace.read(at(20)), (100, 100, 5.0));
        assert_eq!(pace.read(at(65)).0, 70, "the first six seconds are out");
        assert_eq!(pace.read(at(85)), (0, 100, 0.0));
        assert_eq!(pace.read(at(3599)).1, 100);
        assert_eq!(pace.read(at(3660)).1, 0);
        pace.count(at(1_000_000));
        assert_eq!(pace.read(at(1_000_000)), (1, 1, 0.0));
    }

    #[test]
    fn a_young_pace_is_judged_by_its_own_age() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..6 {
            pace.count(start);
        }
        assert_eq!(pace.read(start + Duration::from_secs(2)).2, 3.0);
    }
}
