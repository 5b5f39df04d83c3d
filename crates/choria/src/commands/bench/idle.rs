//! `choria bench idle`: what connected nodes cost that do nothing.

use std::io::Write;
use std::time::{Duration, Instant};

use choria_emulator::{Counts, Report};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::nodes::Nodes;
use super::place::{self, Storage};
use super::processes::Usage;
use super::run::{self, PerPart};
use crate::cli::{BenchIdle, NodeKey};
use crate::exit::{Exit, Failure, Outcome};
use crate::lab::{HelperPlan, Layout, Parts, Purpose, start};
use crate::print::bench as print;

/// One measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Document {
    /// Nodes.
    pub nodes: usize,
    /// `waiting` or `members`.
    pub kind: &'static str,
    /// Processors of the machine.
    pub cores: usize,
    /// Nodes that are not connected at the end.
    pub lost: usize,
    /// From the first node's start until all were connected and announced.
    pub connect_seconds: f64,
    /// Resident memory after the time of rest.
    pub rss_bytes: PerPart<u64>,
    /// The same without what the part used before the first node, for each node.
    pub rss_bytes_per_node: PerPart<u64>,
    /// Largest resident memory.
    pub peak_rss_bytes: PerPart<u64>,
    /// The time of rest.
    pub idle_seconds: f64,
    /// Processor time in that time, in hundredths of one processor.
    pub idle_cpu_percent: PerPart<f64>,
    /// Connections that were lost.
    pub disconnects: u64,
    /// Where the files were.
    pub storage: Storage,
    /// What these figures are.
    pub notes: Vec<&'static str>,
    /// What emulated nodes leave out.
    pub left_out: Vec<String>,
}

/// Runs the benchmark.
pub(crate) fn run(args: &BenchIdle, debug: bool) -> Outcome {
    let measure = |layout: &Layout, shutdown: CancellationToken| {
        let layout = layout.clone();
        async move { measured(args, &layout, &shutdown).await }
    };
    place::run(
        &place::Wish { purpose: Purpose::Bench, nodes: args.nodes, dir: args.dir.as_deref(), debug },
        |layout| Ok(HelperPlan::defers(layout)),
        measure,
        |document| show(args, document),
    )
}

async fn measured(args: &BenchIdle, layout: &Layout, shutdown: &CancellationToken) -> Result<Document, Failure> {
    let mut parts = Parts::default();
    parts.0.push(start::broker(layout)?);
    start::wait_for_broker(layout, &mut parts, shutdown).await?;
    parts.0.push(run::provisioner(layout, shutdown).await?);
    let before = run::usage(&parts, None);
    let mut nodes = start_nodes(args, layout)?;
    let limit = Duration::from_secs(60) + Duration::from_millis(100) * args.nodes;
    let deadline = Instant::now() + args.timeout.unwrap_or(limit);
    let announced: fn(&Counts) -> usize = if args.members { |counts| counts.members } else { |counts| counts.waiting };
    nodes.until(&mut parts, deadline, shutdown, announced).await?;
    run::pause(args.settle, shutdown).await?;
    let (rest, began) = (run::usage(&parts, Some(&nodes)), Instant::now());
    run::pause(args.hold, shutdown).await?;
    let (after, held) = (run::usage(&parts, Some(&nodes)), began.elapsed());
    parts.check()?;
    let report = nodes.report(shutdown).await?;
    parts.stop();
    Ok(document(args, layout, &report, &Taken { before, rest, after, held }))
}

fn start_nodes(args: &BenchIdle, layout: &Layout) -> Result<Nodes, Failure> {
    if args.members {
        return start_members(args.key, layout, args.json, &[]);
    }
    let key = choria_emulator::key_name(args.key.into());
    let token = layout.path("token/provisioning.jwt").display().to_string();
    Nodes::start(layout, &["--key", key, "--provisioning-jwt", &token, "--until", "waiting"], args.json)
}

/// Starts nodes that have their certificates already; `more` are further flags of `choria emulate`.
pub(super) fn start_members(key: NodeKey, layout: &Layout, quiet: bool, more: &[&str]) -> Result<Nodes, Failure> {
    let key = choria_emulator::key_name(key.into());
    let broker = format!("127.0.0.1:{}", layout.ports.broker);
    let authority = layout.authority().display().to_string();
    let arguments = ["--key", key, "--members", "--ca", &authority, "--broker", &broker];
    Nodes::start(layout, &[&arguments, more].concat(), quiet)
}

/// What the parts used at four moments.
struct Taken {
    before: PerPart<Usage>,
    rest: PerPart<Usage>,
    after: PerPart<Usage>,
    held: Duration,
}

fn document(args: &BenchIdle, layout: &Layout, report: &Report, taken: &Taken) -> Document {
    let nodes = layout.nodes.len();
    let held = taken.held.as_secs_f64();
    let rss = taken.after.map(|usage| usage.rss);
    let each = |after: u64, before: u64| after.saturating_sub(before) / nodes as u64;
    let cpu = |after: &Usage, rest: &Usage| {
        let percent = after.cpu.saturating_sub(rest.cpu).as_secs_f64() / held * 100.0;
        (percent * 10.0).round() / 10.0
    };
    let Taken { before, rest, after, .. } = taken;
    Document {
        nodes,
        kind: if args.members { "members" } else { "waiting" },
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        lost: report.lost,
        connect_seconds: report.seconds,
        rss_bytes: rss,
        rss_bytes_per_node: PerPart {
            broker: each(rss.broker, before.broker.rss),
            provisioner: each(rss.provisioner, before.provisioner.rss),
            nodes: each(rss.nodes, 0),
            helper: 0,
        },
        peak_rss_bytes: after.map(|usage| usage.peak_rss),
        idle_seconds: (held * 1e3).round() / 1e3,
        idle_cpu_percent: PerPart {
            broker: cpu(&after.broker, &rest.broker),
            provisioner: cpu(&after.provisioner, &rest.provisioner),
            nodes: cpu(&after.nodes, &rest.nodes),
            helper: 0.0,
        },
        disconnects: report.disconnects,
        storage: Storage::of(&layout.directory),
        notes: vec![
            "rss_bytes_per_node: of broker and provisioner without what they used before the first node, of the nodes with \
             their process",
            "waiting nodes are seen by the provisioner, whose rule puts all of them off; members are none of its business",
        ],
        left_out: report.left_out.clone(),
    }
}

fn show(args: &BenchIdle, document: &Document) -> Outcome {
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(document)?)?;
    } else {
        write!(out, "{}", print::idle(document))?;
    }
    out.flush()?;
    Ok(if document.lost == 0 { Exit::Ok } else { Exit::Failed })
}
