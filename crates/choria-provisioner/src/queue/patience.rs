//! How long a started node may be silent and still count as worked on.
//!
//! On an idle network nodes answer within milliseconds, in a wave they wait for one another. So what is patient enough is
//! learnt from the nodes that do answer: a few times what nine of ten of them take.

use std::time::Duration;

/// What nine of ten take until something was learnt.
const FIRST: f64 = 0.125;
/// Times that.
const FACTOR: f64 = 8.0;
const LEAST: f64 = 0.1;
const MOST: f64 = 5.0;
/// Steps of the estimate. Their ratio makes it the nine-tenths quantile, whatever single nodes do: one answer moves it by a
/// fifth at most, so to stretch it far more than every tenth answer must be slow.
const UP: f64 = 1.2;
const DOWN: f64 = 0.98;

#[derive(Debug)]
pub(super) struct Patience {
    /// Seconds in which nine of ten answer.
    usual: f64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { usual: FIRST }
    }
}

impl Patience {
    pub(super) fn learn(&mut self, took: Duration) {
        let factor = if took.as_secs_f64() > self.usual { UP } else { DOWN };
        self.usual = (self.usual * factor).clamp(LEAST / FACTOR, MOST / FACTOR);
    }

    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs_f64(self.usual * FACTOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(times: impl IntoIterator<Item = f64>) -> f64 {
        let mut patience = Patience::default();
        times.into_iter().for_each(|seconds| patience.learn(Duration::from_secs_f64(seconds)));
        patience.grace().as_secs_f64()
    }

    #[test]
    fn an_idle_network_makes_impatient_and_a_wave_patient() {
        assert_eq!(after([]), 1.0);
        assert!((after([0.005; 1000]) - LEAST).abs() < 1e-9);
        assert!((after([1.6; 100]) - MOST).abs() < 1e-9);
        let wave = after((0..10_000).map(|index| f64::from(index % 100) / 250.0));
        assert!((2.2..4.0).contains(&wave), "nine of ten within 0.36s: {wave}");
    }

    #[test]
    fn few_slow_nodes_change_little() {
        let attacked = after((0..10_000).map(|index| if index % 20 == 0 { 60.0 } else { 0.005 }));
        assert!(attacked < 0.2, "{attacked}");
    }
}
