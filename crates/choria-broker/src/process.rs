//! What the operating system says about this process, for `/choria/` and the `process_*` metrics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Figures of this process at one moment. Where the system does not tell (no `/proc`) they are zero.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ProcessFigures {
    /// Resident memory in bytes.
    pub(crate) resident: u64,
    /// Virtual memory in bytes.
    pub(crate) virtual_size: u64,
    /// CPU time used since the start, user and system.
    pub(crate) cpu: Duration,
    /// Open file descriptors.
    pub(crate) open_files: u64,
    /// Limit of open file descriptors.
    pub(crate) max_files: u64,
}

/// Length of a clock tick in `/proc/PID/stat`: 100 per second on every Linux this runs on.
const TICK: Duration = Duration::from_millis(10);

impl ProcessFigures {
    /// Reads the figures of this process.
    pub(crate) fn read() -> Self {
        let file = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let status = file("status");
        Self {
            resident: kilobytes(&status, "VmRSS:"),
            virtual_size: kilobytes(&status, "VmSize:"),
            cpu: cpu_time(&file("stat")),
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as u64),
            max_files: max_files(&file("limits")),
        }
    }
}

fn kilobytes(status: &str, key: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key));
    value.and_then(|v| v.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Fields 14 and 15 of `/proc/PID/stat`, counted behind the command name, which may hold blanks and brackets.
fn cpu_time(stat: &str) -> Duration {
    let Some((_, fields)) = stat.rsplit_once(") ") else { return Duration::ZERO };
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
}

fn max_files(limits: &str) -> u64 {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|soft| soft.parse().ok()).unwrap_or(0)
}

/// Seconds since 1970 with fraction, as Prometheus writes times.
pub(crate) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_read() {
        let status = "Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t   1024 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), 1024 * 1024);
        assert_eq!(kilobytes(status, "VmSize:"), 2048 * 1024);
        assert_eq!(kilobytes("", "VmRSS:"), 0);
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 1 0 100 0 0";
        assert_eq!(cpu_time(stat), Duration::from_millis(120));
        assert_eq!(cpu_time("garbage"), Duration::ZERO);
        assert_eq!(max_files("Max open files            1024                 524288               files\n"), 1024);
        assert_eq!(max_files("Max open files            unlimited            unlimited            files\n"), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory_and_files() {
        let figures = ProcessFigures::read();
        assert!(
            figures.resident > 0 && figures.virtual_size >= figures.resident && figures.open_files > 2,
            "{figures:?}"
        );
    }
}
