//! Memory and processor time of this process, where the system tells (Linux: `/proc/self`); 0 elsewhere.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serializer;

/// Length of a clock tick in `/proc/PID/stat`: 100 per second on every Linux this runs on.
const TICK: Duration = Duration::from_millis(10);
/// Shortest time over which the load is measured; who asks more often gets the last value again.
const SPAN: Duration = Duration::from_secs(1);

/// Resident memory of this process in bytes.
pub(super) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    value.and_then(|value| value.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Processor time since the start, user and system: fields 14 and 15, counted behind the command name, which may hold
/// blanks and brackets.
fn cpu_time(stat: &str) -> Duration {
    let Some((_, fields)) = stat.rsplit_once(") ") else { return Duration::ZERO };
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    used: Duration,
    percent: f64,
}

/// Measures the processor load of this process between two looks.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    last: Mutex<Sample>,
}

impl Default for CpuMeter {
    fn default() -> Self {
        let sample = Sample { at: Instant::now(), used: used(), percent: 0.0 };
        Self { last: Mutex::new(sample) }
    }
}

fn used() -> Duration {
    cpu_time(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default())
}

impl CpuMeter {
    /// Load since the last look in percent of one processor, to a tenth.
    pub(super) fn percent(&self) -> f64 {
        let mut last = self.last.lock();
        let span = last.at.elapsed();
        if span >= SPAN {
            let used = used();
            let percent = used.saturating_sub(last.used).as_secs_f64() / span.as_secs_f64() * 100.0;
            *last = Sample { at: Instant::now(), used, percent: (percent * 10.0).round() / 10.0 };
        }
        last.percent
    }
}

/// Writes a number without fraction as an integer, as Go does.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub(super) fn as_go<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && (0.0..1e15).contains(value) {
        return serializer.serialize_u64(*value as u64);
    }
    serializer.serialize_f64(*value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 250 30 0 0 20 0 4 0 100 1 1";
        assert_eq!(cpu_time(stat), Duration::from_millis(2800));
        assert_eq!(cpu_time(""), Duration::ZERO);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes() > 0);
        assert!(CpuMeter::default().percent() >= 0.0);
    }
}
