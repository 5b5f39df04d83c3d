//! Figures that every load gives.

use std::time::Duration;

use serde::Serialize;

/// What came of a load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Messages that arrived; of requests, the answers; of idle connections, how many there were.
    pub messages: u64,
    /// From the first message to the last.
    pub seconds: f64,
    /// Messages that arrived in a second.
    pub messages_per_s: f64,
    /// Payload bytes that arrived in a second.
    pub bytes_per_s: f64,
    /// From sending to arriving, or from asking to the answer, in microseconds; missing where nothing was timed.
    pub latency_us: Option<Quantiles>,
}

impl Report {
    /// The figures of so many messages of one size.
    pub fn new(messages: u64, size: usize, took: Duration, latencies: Vec<u64>) -> Self {
        let seconds = took.as_secs_f64().max(1e-9);
        Self {
            messages,
            seconds: rounded(seconds, 1e6),
            messages_per_s: rounded(messages as f64 / seconds, 1e1),
            bytes_per_s: rounded(messages as f64 * size as f64 / seconds, 1e1),
            latency_us: Quantiles::of(latencies),
        }
    }
}

/// Half, nearly all and all but the worst, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half took no longer.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// 999 of 1000 took no longer.
    pub p999: f64,
}

impl Quantiles {
    /// Of these nanoseconds, in any order; `None` when there are none.
    pub fn of(mut nanoseconds: Vec<u64>) -> Option<Self> {
        nanoseconds.sort_unstable();
        let at = |thousandths: usize| {
            // Nearest rank.
            let rank = (nanoseconds.len() * thousandths).div_ceil(1000).max(1);
            nanoseconds.get(rank - 1).map(|value| rounded(*value as f64 / 1e3, 1e1))
        };
        Some(Self { p50: at(500)?, p99: at(990)?, p999: at(999)? })
    }
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        assert_eq!(Quantiles::of(vec![]), None);
        assert_eq!(Quantiles::of(vec![2500]), Some(Quantiles { p50: 2.5, p99: 2.5, p999: 2.5 }));
        let thousand = (1..=1000).rev().map(|micro| micro * 1000).collect();
        assert_eq!(Quantiles::of(thousand), Some(Quantiles { p50: 500.0, p99: 990.0, p999: 999.0 }));
    }

    #[test]
    fn rates_are_over_the_time() {
        let report = Report::new(500, 128, Duration::from_millis(250), vec![]);
        assert_eq!((report.messages_per_s, report.bytes_per_s, report.latency_us), (2000.0, 256_000.0, None));
    }
}
