//! The document of `choria bench provisioning`.

use std::collections::BTreeMap;

use choria_emulator::{Quantiles, Report, Sample};
use serde::Serialize;

use super::place::Storage;
use super::run::{Measured, PerPart};
use crate::cli::{BenchHelper, BenchProvisioning};
use crate::lab::Layout;

/// What every node waits between `restart` and its next start, whatever the machine can do (spec 03 §7.5).
const RESTART_PAUSE: f64 = 2.0;

/// One measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Document {
    /// Nodes.
    pub nodes: usize,
    /// Processors of the machine; broker, provisioner, helper and nodes share them.
    pub cores: usize,
    /// Kind of the nodes' keys.
    pub key: String,
    /// How the provisioner decided.
    pub helper: &'static str,
    /// From the beginning of the clock to the last node's being a member.
    pub seconds: f64,
    /// Nodes per second of work: `seconds` without the pause before each restart, but not less than what the processors
    /// took.
    pub rate_per_s: f64,
    /// Of each node, from its start (or the provisioner's) to its being a member.
    pub latency_ms: Quantiles,
    /// Parts of the way, in milliseconds.
    pub phases: BTreeMap<String, Quantiles>,
    /// Processor time.
    pub cpu_seconds: PerPart<f64>,
    /// Processor time for each node.
    pub cpu_ms_per_node: PerPart<f64>,
    /// Largest resident memory.
    pub peak_rss_bytes: PerPart<u64>,
    /// Nodes that are no members at the end.
    pub lost: usize,
    /// Nodes that were configured more than once, or fell back into provisioning.
    pub duplicated: usize,
    /// When the clock begins.
    pub clock: &'static str,
    /// What every node waits before its restart.
    pub restart_pause_s: f64,
    /// From the beginning of the clock to the end, all waiting included: nodes over `seconds`.
    pub rate_with_pause_per_s: f64,
    /// Nodes per second that the processors could do if they were never idle: an upper bound.
    pub rate_cpu_bound_per_s: f64,
    /// Connections of nodes that were lost.
    pub disconnects: u64,
    /// Why nodes ended.
    pub failures: BTreeMap<String, usize>,
    /// What the provisioner counted.
    pub provisioner: Counted,
    /// Where the files were.
    pub storage: Storage,
    /// Where figures come from that are not exact.
    pub notes: Vec<&'static str>,
    /// What emulated nodes leave out.
    pub left_out: Vec<String>,
}

/// The provisioner's own counters.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Counted {
    /// Nodes that acknowledged `restart`.
    pub provisioned: f64,
    /// Nodes that it saw come home.
    pub verified: f64,
    /// Failed attempts.
    pub provision_errors: f64,
    /// Refusals.
    pub refused: f64,
}

impl Document {
    /// Puts together what was measured.
    pub(crate) fn new(args: &BenchProvisioning, layout: &Layout, measured: &Measured) -> Self {
        let Measured { clock, report, before, after, metrics } = measured;
        let nodes = layout.nodes.len();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (seconds, latency_ms) = times(report, *clock);
        let cpu = after.map(|usage| usage.cpu.as_secs_f64());
        let busy = cpu.sum() - before.map(|usage| usage.cpu.as_secs_f64()).sum();
        let count = nodes as f64;
        let work = (seconds - RESTART_PAUSE).max(busy / cores as f64).max(f64::EPSILON);
        let mut phases = metrics.quantiles("choria_provisioner_phase_time", "phase");
        phases.extend(report.phases.clone());
        Self {
            nodes,
            cores,
            key: report.key.clone(),
            helper: match args.helper {
                BenchHelper::Builtin => "builtin",
                BenchHelper::Exec => "exec",
                BenchHelper::Persistent => "persistent",
            },
            seconds: round(seconds, 3),
            rate_per_s: round(count / work, 1),
            latency_ms,
            phases,
            cpu_seconds: cpu.map(|seconds| round(*seconds, 2)),
            cpu_ms_per_node: cpu.map(|seconds| round(seconds * 1e3 / count, 3)),
            peak_rss_bytes: after.map(|usage| usage.peak_rss),
            lost: nodes - report.samples.iter().filter(|sample| sample.is_member).count(),
            duplicated: report.duplicated,
            clock: if args.wait_all_first {
                "starts with the provisioner, when all nodes wait"
            } else {
                "starts with the first node, when broker and provisioner are ready"
            },
            restart_pause_s: RESTART_PAUSE,
            rate_with_pause_per_s: round(count / seconds.max(f64::EPSILON), 1),
            rate_cpu_bound_per_s: round(count * cores as f64 / cpu.sum().max(0.01), 1),
            disconnects: report.disconnects,
            failures: report.failures.clone(),
            provisioner: Counted {
                provisioned: metrics.value("choria_provisioner_provisioned"),
                verified: metrics.value("choria_provisioner_verified"),
                provision_errors: metrics.value("choria_provisioner_provision_errors"),
                refused: metrics.value("choria_provisioner_refused"),
            },
            storage: Storage::of(&layout.directory),
            notes: vec![
                "phases without node_ in front are the provisioner's histogram: interpolated inside its buckets",
                "cpu_seconds is user and system time of whole processes until all nodes are members, their start included",
            ],
            left_out: report.left_out.clone(),
        }
    }
}

/// From the beginning of the clock to the last member, and each node's own time.
fn times(report: &Report, clock: f64) -> (f64, Quantiles) {
    let clock_ms = (clock - report.began) * 1e3;
    let took = |sample: &Sample| Some(sample.member? - sample.started?.max(clock_ms));
    let last = report.samples.iter().filter_map(|sample| sample.member).fold(clock_ms, f64::max);
    let quantiles = Quantiles::of(report.samples.iter().filter_map(took).collect()).unwrap_or_default();
    ((last - clock_ms) / 1e3, quantiles)
}

fn round(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}
