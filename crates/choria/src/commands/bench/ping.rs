//! `choria bench ping`: how soon a whole fleet answers.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::idle::start_members;
use super::nodes::Nodes;
use super::place::{self, Storage};
use super::processes::Usage;
use super::run::{self, PerPart};
use crate::cli::BenchPing;
use crate::exit::{Exit, Failure, Outcome};
use crate::lab::{HelperPlan, Layout, Parts, Purpose, start};
use crate::print::bench as print;
use crate::process;

/// One measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Document {
    /// Nodes.
    pub nodes: usize,
    /// Processors of the machine.
    pub cores: usize,
    /// From the first node's start until all were connected and announced.
    pub connect_seconds: f64,
    /// Each ping.
    pub rounds: Vec<Round>,
    /// Answers that were missing, of all rounds together.
    pub lost: u64,
    /// From the request to the last answer, the median of the rounds.
    pub all_answered_seconds: f64,
    /// Processor time for each node and round, in microseconds; the client has a process of its own, which is not in it.
    pub cpu_us_per_answer: PerPart<f64>,
    /// Resident memory at the end.
    pub rss_bytes: PerPart<u64>,
    /// Where the files were.
    pub storage: Storage,
}

/// One ping.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    /// Answers.
    pub replies: u64,
    /// From the request to the last answer.
    pub seconds: f64,
    /// From the start of the client's process to its end.
    pub process_seconds: f64,
}

/// Runs the benchmark.
pub(crate) fn run(args: &BenchPing, debug: bool) -> Outcome {
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

async fn measured(args: &BenchPing, layout: &Layout, shutdown: &CancellationToken) -> Result<Document, Failure> {
    let mut parts = Parts::default();
    parts.0.push(start::broker(layout)?);
    start::wait_for_broker(layout, &mut parts, shutdown).await?;
    // While the nodes answer, the broker has little to do: they get all processors.
    let threads = cores().to_string();
    let mut nodes = start_members(args.key, layout, args.json, &["--threads", &threads])?;
    let limit = Duration::from_secs(60) + Duration::from_millis(100) * args.nodes;
    let deadline = Instant::now() + args.timeout.unwrap_or(limit);
    if !nodes.until(&mut parts, deadline, shutdown, |counts| counts.members).await? {
        return Err(
            Failure::new("not all nodes are connected in time").hint("give it a longer --timeout, or fewer --nodes")
        );
    }
    run::pause(args.settle, shutdown).await?;
    let before = run::usage(&parts, Some(&nodes));
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        let round = ping(layout, args.nodes, shutdown).await?;
        if !args.json {
            say(number, &round);
        }
        rounds.push(round);
        parts.check()?;
    }
    let after = run::usage(&parts, Some(&nodes));
    finish(args, layout, nodes, parts, (rounds, before, after), shutdown).await
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

async fn finish(
    args: &BenchPing,
    layout: &Layout,
    nodes: Nodes,
    mut parts: Parts,
    (rounds, before, after): (Vec<Round>, PerPart<Usage>, PerPart<Usage>),
    shutdown: &CancellationToken,
) -> Result<Document, Failure> {
    let report = nodes.report(shutdown).await?;
    parts.stop();
    let answers: u64 = rounds.iter().map(|round| round.replies).sum();
    let each = |after: &Usage, before: &Usage| {
        after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / answers.max(1) as f64
    };
    let mut times: Vec<f64> = rounds.iter().map(|round| round.seconds).collect();
    times.sort_by(f64::total_cmp);
    Ok(Document {
        nodes: layout.nodes.len(),
        cores: cores(),
        connect_seconds: report.seconds,
        lost: u64::from(args.nodes) * rounds.len() as u64 - answers,
        all_answered_seconds: times.get(times.len() / 2).copied().unwrap_or_default(),
        rounds,
        cpu_us_per_answer: PerPart {
            broker: each(&after.broker, &before.broker),
            nodes: each(&after.nodes, &before.nodes),
            ..PerPart::default()
        },
        rss_bytes: after.map(|usage| usage.rss),
        storage: Storage::of(&layout.directory),
    })
}

/// One `choria ping` as people run it, in a process of its own.
async fn ping(layout: &Layout, nodes: u32, shutdown: &CancellationToken) -> Result<Round, Failure> {
    let began = Instant::now();
    let output = tokio::process::Command::new(process::executable()?)
        .args(["ping", "--json", "--config", "client/client.conf", "--timeout", "30", "--expect", &nodes.to_string()])
        .current_dir(&layout.directory)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::select! {
        output = output => output?,
        () = shutdown.cancelled() => return Err(super::interrupted()),
    };
    let process_seconds = began.elapsed().as_secs_f64();
    let document: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
        let told = String::from_utf8_lossy(&output.stderr);
        Failure::new(format!("choria ping gave no document ({error}): {}", told.trim()))
    })?;
    let figure = |name: &str| document["statistics"][name].as_f64().unwrap_or_default();
    Ok(Round { replies: figure("replies") as u64, seconds: figure("max_ms") / 1e3, process_seconds })
}

fn say(number: u32, round: &Round) {
    // Nobody is left to be told when the terminal is gone.
    let _ = writeln!(std::io::stderr(), "ping {number}: {} answers in {:.3} s", round.replies, round.seconds);
}

fn show(args: &BenchPing, document: &Document) -> Outcome {
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(document)?)?;
    } else {
        write!(out, "{}", print::ping(document))?;
    }
    out.flush()?;
    Ok(if document.lost == 0 { Exit::Ok } else { Exit::Failed })
}
