//! What processes used, as the kernel counts it: `/proc/PID/stat` and `/proc/PID/status`.

use std::fs;
use std::time::Duration;

/// Processor time and memory of one process, or of several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Resident memory now (VmRSS), in bytes.
    pub rss: u64,
    /// Largest resident memory so far (VmHWM), in bytes.
    pub peak_rss: u64,
}

/// The part of `/proc/PID/stat` that matters.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own: u64,
    /// Of children that have ended and were waited for.
    ended: u64,
}

/// What a process used so far; nothing when there is no such process.
pub(crate) fn usage(pid: u32) -> Usage {
    let cpu = stat(pid).map_or(Duration::ZERO, |stat| ticks(stat.own));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    Usage { cpu, rss: bytes(&status, "VmRSS:"), peak_rss: bytes(&status, "VmHWM:") }
}

/// What the children of a process and theirs used so far, those that have ended included.
pub(crate) fn descendants(pid: u32) -> Usage {
    let mut total = Usage { cpu: stat(pid).map_or(Duration::ZERO, |stat| ticks(stat.ended)), ..Usage::default() };
    let processes: Vec<(u32, u32)> =
        all().into_iter().filter_map(|id| stat(id).map(|stat| (id, stat.parent))).collect();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for (id, _) in processes.iter().filter(|(_, of)| *of == parent) {
            let own = usage(*id);
            total.cpu += own.cpu + stat(*id).map_or(Duration::ZERO, |stat| ticks(stat.ended));
            total.rss += own.rss;
            total.peak_rss += own.peak_rss;
            parents.push(*id);
        }
    }
    total
}

fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name of the program stands in brackets and may hold anything, so counting begins after the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: number(11)? + number(12)?,
        ended: number(13)? + number(14)?,
    })
}

fn bytes(status: &str, what: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// The kernel counts for programs in hundredths of a second on every architecture it runs Rust on.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_read_right() {
        let text = "42 (a b) c) S 7 42 42 0 -1 4194560 1 2 3 4 250 50 30 20 20 0 4 0 99 1 2";
        assert_eq!(parse_stat(text), Some(Stat { parent: 7, own: 300, ended: 50 }));
        assert_eq!(parse_stat("garbage"), None);
        assert_eq!(bytes("VmPeak:\t  99 kB\nVmHWM:\t    1024 kB\n", "VmHWM:"), 1024 * 1024);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(usage(std::process::id()).peak_rss > 100_000);
        assert_eq!(usage(u32::MAX), Usage::default());
    }
}
