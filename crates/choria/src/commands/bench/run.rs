//! One run: starts the parts, waits for the nodes, and takes the measures at the right moments.

use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdout;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use choria_emulator::{Counts, Report};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::processes::{self, Usage};
use crate::exit::Failure;
use crate::lab::parts::Start;
use crate::lab::{Layout, Part, Parts, start};

/// How often the provisioner is asked for its figures while it is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// How long after the last member the provisioner may take to have seen it, and a node to fall back: what is configured
/// twice shows in this time.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the nodes may take to say goodbye and report.
const REPORT: Duration = Duration::from_secs(30);
/// How long the provisioner may take to connect.
const PROVISIONER_START: Duration = Duration::from_secs(20);

/// What to run.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The lab.
    pub layout: &'a Layout,
    /// Word for the kind of keys.
    pub key: &'a str,
    /// Nodes started per second.
    pub rate: Option<f64>,
    /// Start the provisioner when all nodes wait.
    pub wait_all_first: bool,
    /// Longest time until all are members.
    pub limit: Duration,
    /// Tell nobody how far it is.
    pub quiet: bool,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// When the clock began, in Unix seconds: the first node's start, or the provisioner's.
    pub clock: f64,
    /// What the nodes saw.
    pub report: Report,
    /// Used when the clock began.
    pub before: Parts3<Usage>,
    /// Used when all were members.
    pub after: Parts3<Usage>,
    /// The provisioner's own figures.
    pub metrics: Metrics,
}

/// One value for each part.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Parts3<T> {
    /// The broker's.
    pub broker: T,
    /// The provisioner's, without its helper.
    pub provisioner: T,
    /// Of all nodes together.
    pub nodes: T,
    /// Of the provisioner's helper processes.
    pub helper: T,
}

/// Runs it.
pub(crate) async fn run(plan: &Plan<'_>, shutdown: &CancellationToken) -> Result<Measured, Failure> {
    let layout = plan.layout;
    let mut parts = Parts::default();
    parts.0.push(start::broker(layout)?);
    start::wait_for_broker(layout, &mut parts, shutdown).await?;
    if !plan.wait_all_first {
        parts.0.push(provisioner(layout, shutdown).await?);
    }
    let mut nodes = Nodes::start(plan)?;
    let deadline = Instant::now() + plan.limit;
    let mut clock = None;
    let mut before = Parts3::default();
    if plan.wait_all_first {
        nodes.until(plan, &mut parts, deadline, shutdown, |counts| counts.waiting).await?;
        before = usage(&parts, &nodes);
        clock = Some(unix_now());
        // The connection is part of what is measured: a provisioner that starts finds everybody waiting.
        parts.0.push(start::provisioner(layout)?);
    }
    let all = nodes.until(plan, &mut parts, deadline, shutdown, |counts| counts.members).await?;
    if all {
        settle(layout, &mut parts, shutdown).await?;
    }
    let after = usage(&parts, &nodes);
    let metrics = Metrics::parse(&start::page(layout.ports.metrics, "/metrics").unwrap_or_default());
    let report = nodes.report(shutdown).await?;
    let clock = clock.unwrap_or_else(|| began(&report));
    drop(nodes);
    parts.stop();
    Ok(Measured { clock, report, before, after, metrics })
}

/// When the first node began to start, in Unix seconds.
fn began(report: &Report) -> f64 {
    let first = report.samples.iter().filter_map(|sample| sample.started).fold(f64::INFINITY, f64::min);
    if first.is_finite() { report.began + first / 1e3 } else { report.began }
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Starts the provisioner and waits until it is connected.
async fn provisioner(layout: &Layout, shutdown: &CancellationToken) -> Result<Part, Failure> {
    let mut part = start::provisioner(layout)?;
    let deadline = Instant::now() + PROVISIONER_START;
    loop {
        part.check()?;
        let connected = start::page(layout.ports.metrics, "/metrics")
            .is_ok_and(|page| Metrics::parse(&page).value("choria_connector_initial_connect_time_count") >= 1.0);
        if connected {
            return Ok(part);
        }
        if Instant::now() >= deadline {
            return Err(part.explain("does not connect to the broker"));
        }
        pause(LOOK, shutdown).await?;
    }
}

/// Waits until the provisioner has seen the last one come home, or a moment at most.
async fn settle(layout: &Layout, parts: &mut Parts, shutdown: &CancellationToken) -> Result<(), Failure> {
    let deadline = Instant::now() + SETTLE;
    while Instant::now() < deadline {
        parts.check()?;
        pause(LOOK * 4, shutdown).await?;
    }
    let _ = layout;
    Ok(())
}

async fn pause(time: Duration, shutdown: &CancellationToken) -> Result<(), Failure> {
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        () = shutdown.cancelled() => Err(Failure::new("interrupted before every node was a fleet member")),
    }
}

fn usage(parts: &Parts, nodes: &Nodes) -> Parts3<Usage> {
    let of = |index: usize| parts.0.get(index).map(|part| processes::usage(part.id())).unwrap_or_default();
    let helper = parts.0.get(1).map(|part| processes::descendants(part.id())).unwrap_or_default();
    Parts3 { broker: of(0), provisioner: of(1), nodes: processes::usage(nodes.part.id()), helper }
}

/// The emulator's process.
struct Nodes {
    part: Part,
    lines: mpsc::Receiver<String>,
    counts: Counts,
    report: Option<Report>,
}

impl Nodes {
    fn start(plan: &Plan<'_>) -> Result<Self, Failure> {
        let layout = plan.layout;
        let token = layout.path("token/provisioning.jwt").display().to_string();
        let (nodes, names) = (layout.nodes.len().to_string(), layout.nodes.pattern());
        let mut arguments = vec![
            "emulate",
            "--nodes",
            &nodes,
            "--names",
            &names,
            "--dir",
            "nodes",
            "--provisioning-jwt",
            &token,
            "--key",
            plan.key,
            "--json",
            "--samples",
            "--follow",
        ];
        let rate = plan.rate.map(|rate| rate.to_string());
        if let Some(rate) = &rate {
            arguments.extend(["--rate", rate.as_str()]);
        }
        let mut part = Part::start(&Start {
            name: "nodes",
            arguments: &arguments,
            directory: &layout.directory,
            log: "nodes.log",
            variables: &[],
            answers: true,
        })?;
        let stdout = part.answers().ok_or_else(|| part.explain("has no output"))?;
        // A line for each look, and one at the end: they are read at once.
        let (sender, lines) = mpsc::channel(64);
        std::thread::Builder::new().name("nodes".to_owned()).spawn(move || forward(stdout, &sender))?;
        Ok(Self { part, lines, counts: Counts::default(), report: None })
    }

    /// Waits until the count that `which` picks is that of all nodes. False when the time is over before.
    async fn until(
        &mut self,
        plan: &Plan<'_>,
        parts: &mut Parts,
        deadline: Instant,
        shutdown: &CancellationToken,
        which: fn(&Counts) -> usize,
    ) -> Result<bool, Failure> {
        let all = plan.layout.nodes.len();
        let mut look = tokio::time::interval(LOOK * 4);
        while which(&self.counts) < all {
            tokio::select! {
                line = self.lines.recv() => match line {
                    Some(line) => self.read(&line)?,
                    None => {
                        self.part.check()?;
                        return Err(self.part.explain("said goodbye too early"));
                    }
                },
                _ = look.tick() => {
                    parts.check()?;
                    if !plan.quiet {
                        say(&self.counts);
                    }
                    if Instant::now() >= deadline || self.counts.failed == all {
                        return Ok(false);
                    }
                }
                () = shutdown.cancelled() => return Err(Failure::new("interrupted before every node was a fleet member")),
            }
        }
        Ok(true)
    }

    fn read(&mut self, line: &str) -> Result<(), Failure> {
        let value: Value = serde_json::from_str(line)?;
        if value.get("samples").is_some() {
            self.report = Some(serde_json::from_value(value)?);
        } else {
            self.counts = serde_json::from_value(value)?;
        }
        Ok(())
    }

    /// Lets the nodes end, and reads what they saw.
    async fn report(&mut self, shutdown: &CancellationToken) -> Result<Report, Failure> {
        self.part.release();
        let deadline = tokio::time::Instant::now() + REPORT;
        loop {
            if let Some(report) = self.report.take() {
                return Ok(report);
            }
            tokio::select! {
                line = self.lines.recv() => match line {
                    Some(line) => self.read(&line)?,
                    None => return Err(self.part.explain("ended without a report")),
                },
                () = tokio::time::sleep_until(deadline) => return Err(self.part.explain("does not end")),
                () = shutdown.cancelled() => return Err(Failure::new("interrupted")),
            }
        }
    }
}

fn forward(stdout: ChildStdout, sender: &mpsc::Sender<String>) {
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { return };
        if sender.blocking_send(line).is_err() {
            return;
        }
    }
}

fn say(counts: &Counts) {
    let _ = writeln!(
        std::io::stderr(),
        "{} started, {} waiting, {} configured, {} of {} members",
        counts.started,
        counts.waiting,
        counts.configured,
        counts.members,
        counts.nodes
    );
}
