//! One run of the benchmark of provisioning: starts the parts, waits, and takes the measures at the right moments.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use choria_emulator::Report;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::nodes::Nodes;
use super::processes::{self, Usage};
use crate::exit::Failure;
use crate::lab::{Layout, Part, Parts, start};

/// How often the provisioner is asked for its figures while it is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// How long after the last member the parts are watched on: a node that is configured a second time, or falls back into
/// provisioning, does so within this time, and the provisioner has seen all of them come home.
const SETTLE: Duration = Duration::from_secs(3);
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
    pub before: PerPart<Usage>,
    /// Used when all were members.
    pub after: PerPart<Usage>,
    /// The provisioner's own figures.
    pub metrics: Metrics,
}

/// One figure for each part.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(crate) struct PerPart<T> {
    /// The broker.
    pub broker: T,
    /// The provisioner, without its helper.
    pub provisioner: T,
    /// All nodes together.
    pub nodes: T,
    /// The helper's processes.
    pub helper: T,
}

impl<T> PerPart<T> {
    /// The same with each figure changed.
    pub(crate) fn map<U>(&self, change: impl Fn(&T) -> U) -> PerPart<U> {
        PerPart {
            broker: change(&self.broker),
            provisioner: change(&self.provisioner),
            nodes: change(&self.nodes),
            helper: change(&self.helper),
        }
    }
}

impl PerPart<f64> {
    /// Of all parts together.
    pub(crate) fn sum(&self) -> f64 {
        self.broker + self.provisioner + self.nodes + self.helper
    }
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
    let mut before = usage(&parts, None);
    let mut nodes = nodes(plan)?;
    let deadline = Instant::now() + plan.limit;
    let mut clock = None;
    if plan.wait_all_first {
        nodes.until(&mut parts, deadline, shutdown, |counts| counts.waiting).await?;
        before = usage(&parts, Some(&nodes));
        clock = Some(unix_now());
        // It starts and connects while the clock runs: that is part of what is measured here.
        parts.0.push(start::provisioner(layout)?);
    }
    let all = nodes.until(&mut parts, deadline, shutdown, |counts| counts.members).await?;
    let after = usage(&parts, Some(&nodes));
    if all {
        settle(&mut parts, shutdown).await?;
    }
    let page = start::page(layout.ports.metrics, "/metrics");
    let metrics = page.map(|page| Metrics::parse(&page)).map_err(|error| {
        Failure::new(format!("could not read the provisioner's metrics from port {}: {error}", layout.ports.metrics))
    })?;
    let report = nodes.report(shutdown).await?;
    parts.stop();
    let clock = clock.unwrap_or_else(|| began(&report));
    Ok(Measured { clock, report, before, after, metrics })
}

fn nodes(plan: &Plan<'_>) -> Result<Nodes, Failure> {
    let token = plan.layout.path("token/provisioning.jwt").display().to_string();
    let mut more = vec!["--provisioning-jwt", token.as_str(), "--key", plan.key];
    let rate = plan.rate.map(|rate| rate.to_string());
    if let Some(rate) = &rate {
        more.extend(["--rate", rate.as_str()]);
    }
    Nodes::start(plan.layout, &more, plan.quiet)
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
pub(crate) async fn provisioner(layout: &Layout, shutdown: &CancellationToken) -> Result<Part, Failure> {
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

/// Watches on for a while.
async fn settle(parts: &mut Parts, shutdown: &CancellationToken) -> Result<(), Failure> {
    pause(SETTLE, shutdown).await?;
    parts.check()
}

/// Waits, unless interrupted.
pub(crate) async fn pause(time: Duration, shutdown: &CancellationToken) -> Result<(), Failure> {
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        () = shutdown.cancelled() => Err(super::interrupted()),
    }
}

/// What all parts used so far; broker and provisioner are the first of them.
pub(crate) fn usage(parts: &Parts, nodes: Option<&Nodes>) -> PerPart<Usage> {
    let of = |index: usize| parts.0.get(index).map(|part| processes::usage(part.id())).unwrap_or_default();
    PerPart {
        broker: of(0),
        provisioner: of(1),
        nodes: nodes.map(Nodes::usage).unwrap_or_default(),
        helper: parts.0.get(1).map(|part| processes::descendants(part.id())).unwrap_or_default(),
    }
}
