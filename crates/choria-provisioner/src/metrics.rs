//! Counters, gauges and timings in Prometheus text form (spec 04 §9).
//!
//! Names, types and labels are the original's, word for word, so that its dashboard works: counters have no
//! `_total`, summaries have no quantiles. What is ours in addition is a separate metric. Everything lives in
//! one struct that is shared by reference; nothing is global.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::queue::Counts;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds several.
    pub fn add_many(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: usize) {
        self.0.store(i64::try_from(value).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Nodes by what they are doing. Every known node is in one of them.
#[derive(Debug, Default)]
pub struct NodeGauges {
    queued: Gauge,
    probing: Gauge,
    silent: Gauge,
    engaged: Gauge,
    resting: Gauge,
    waiting_to_be_seen: Gauge,
    settling: Gauge,
}

impl NodeGauges {
    /// Sets all.
    pub fn set(&self, counts: &Counts) {
        let Counts { queued, probing, silent, engaged, resting, waiting_to_be_seen, settling } = *counts;
        for (gauge, value) in [
            (&self.queued, queued),
            (&self.probing, probing),
            (&self.silent, silent),
            (&self.engaged, engaged),
            (&self.resting, resting),
            (&self.waiting_to_be_seen, waiting_to_be_seen),
            (&self.settling, settling),
        ] {
            gauge.set(value);
        }
    }

    fn all(&self) -> [(&'static str, &Gauge); 7] {
        [
            ("engaged", &self.engaged),
            ("probing", &self.probing),
            ("queued", &self.queued),
            ("resting", &self.resting),
            ("settling", &self.settling),
            ("silent", &self.silent),
            ("waiting_to_be_seen", &self.waiting_to_be_seen),
        ]
    }
}

/// A moment since which something lasts, if it does.
#[derive(Debug, Default)]
pub struct Since(Mutex<Option<Instant>>);

impl Since {
    /// It lasts since then, or not.
    pub fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn seconds(&self) -> f64 {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(0.0, |since| since.elapsed().as_secs_f64())
    }
}

/// Sum and count of durations.
#[derive(Debug, Default)]
pub struct Summary {
    nanoseconds: AtomicU64,
    count: AtomicU64,
}

impl Summary {
    /// Adds one duration.
    pub fn observe(&self, elapsed: Duration) {
        self.nanoseconds.fetch_add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many durations were added.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Their sum in seconds.
    pub fn seconds(&self) -> f64 {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)).as_secs_f64()
    }
}

/// Upper bounds of the phase histogram, in seconds.
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Durations sorted into buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    all: Summary,
}

impl Histogram {
    fn observe(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if let Some(index) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[index].fetch_add(1, Ordering::Relaxed);
        }
        self.all.observe(elapsed);
    }
}

/// A part of the way of a node, for the latency histogram `choria_provisioner_phase_time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the first sight of a node to its first request.
    Queued,
    /// From the first request until everything for the helper is there.
    Gather,
    /// Waiting for a free helper.
    HelperWait,
    /// From the helper's answer to the node's answer to `configure`.
    Configure,
    /// Until the node acknowledged `restart`.
    Restart,
    /// From `restart` to the startup event as a fleet member.
    Join,
    /// From the first sight to the acknowledged `restart`.
    Total,
}

impl Phase {
    /// All phases in the order of the flow.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Gather, Self::HelperWait, Self::Configure, Self::Restart, Self::Join, Self::Total];

    fn label(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Gather => "gather",
            Self::HelperWait => "helper_wait",
            Self::Configure => "configure",
            Self::Restart => "restart",
            Self::Join => "join",
            Self::Total => "total",
        }
    }
}

/// Series of one metric that differ in one label. Values of labels come from closed sets in our own code,
/// never from a peer, so the number of series is bounded.
type Labelled<T> = Mutex<BTreeMap<&'static str, T>>;

/// All metrics of one provisioner.
#[derive(Debug, Default)]
pub struct Metrics {
    site: String,
    rpc_time: Labelled<Summary>,
    rpc_errors: Labelled<Counter>,
    refused: Labelled<Counter>,
    phases: [Histogram; Phase::ALL.len()],
    /// `helper_time`: per helper run.
    pub helper_time: Summary,
    /// `helper_errors`: helper failures.
    pub helper_errors: Counter,
    /// `helper_shutdown_requests`: shutdowns that the node confirmed.
    pub helper_shutdown_requests: Counter,
    /// `discovered`: nodes added by discovery.
    pub discovered: Counter,
    /// `event_discovered`: nodes added by events.
    pub event_discovered: Counter,
    /// `registration_discovered`: nodes added by registration data; ours.
    pub registration_discovered: Counter,
    /// `discover_cycles`: discovery cycles run.
    pub discover_cycles: Counter,
    /// `discovery_errors`: failed cycles.
    pub discovery_errors: Counter,
    /// `provision_errors`: failed attempts, deferrals included.
    pub provision_errors: Counter,
    /// `provisioned`: successes; shutdowns are among them, as in the original.
    pub provisioned: Counter,
    /// `deferred`: attempts that the helper put off; ours.
    pub deferred: Counter,
    /// `absent`: attempts that ended because nobody listened under the node's name; ours.
    pub absent: Counter,
    /// `verified`: nodes seen as fleet members after `restart`; ours.
    pub verified: Counter,
    /// `verify_missing`: nodes that were not seen in time; ours.
    pub verify_missing: Counter,
    /// `returned`: nodes that came back into provisioning right after `restart`; ours.
    pub returned: Counter,
    /// `busy_workers`: helper calls running.
    pub busy_workers: Gauge,
    /// `work_queue_entries`: nodes waiting for their first request.
    pub work_queue_entries: Gauge,
    /// `waiting_nodes`: known nodes, settling ones included.
    pub waiting_nodes: Gauge,
    /// `nodes_in_flight`: nodes in the flow; ours.
    pub nodes_in_flight: Gauge,
    /// `helper_waiting`: nodes waiting for a free helper, or for `helper_rate` or `ca_rate`; ours.
    pub helper_waiting: Gauge,
    /// `nodes{state}`: known nodes by what they are doing; ours.
    pub nodes: NodeGauges,
    /// `oldest_waiting_seconds`: how long the node that is next has waited; ours.
    pub oldest_waiting: Since,
    /// `connected`: 1 while the connection to the broker is up; ours.
    pub connected: Gauge,
    /// `paused`: 1 while paused.
    pub paused: Gauge,
    /// `choria_connector_connection_closed`.
    pub connection_closed: Counter,
    /// `choria_connector_errors`.
    pub connector_errors: Counter,
    /// `choria_connector_initial_connection_attempts`.
    pub initial_connection_attempts: Counter,
    /// `choria_connector_reconnections`.
    pub reconnections: Counter,
    /// `choria_connector_initial_connect_time`.
    pub initial_connect_time: Summary,
    /// `choria_protocol_valid{version="1"}`.
    pub protocol_valid: Counter,
    /// `choria_protocol_invalid{version="1"}`.
    pub protocol_invalid: Counter,
}

impl Metrics {
    /// Metrics with this value of label `site`.
    pub fn new(site: impl Into<String>) -> Self {
        Self { site: site.into(), ..Self::default() }
    }

    /// One try of an action took so long. `rpc` is `agent#action`.
    pub fn rpc_time(&self, rpc: &'static str, elapsed: Duration) {
        lock(&self.rpc_time).entry(rpc).or_default().observe(elapsed);
    }

    /// All tries of an action failed.
    pub fn rpc_error(&self, rpc: &'static str) {
        lock(&self.rpc_errors).entry(rpc).or_default().add();
    }

    /// A node, reply, event or helper answer was refused for this reason.
    pub fn refuse(&self, reason: &'static str) {
        lock(&self.refused).entry(reason).or_default().add();
    }

    /// How often something was refused for this reason.
    pub fn refused(&self, reason: &str) -> u64 {
        lock(&self.refused).get(reason).map_or(0, Counter::get)
    }

    /// How often something was refused, by reason.
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        lock(&self.refused).iter().map(|(reason, count)| (*reason, count.get())).collect()
    }

    /// A node spent so long in a phase.
    pub fn phase(&self, phase: Phase, elapsed: Duration) {
        let index = Phase::ALL.iter().position(|p| *p == phase).unwrap_or(0);
        self.phases[index].observe(elapsed);
    }

    /// Everything in Prometheus text form, sorted by name.
    pub fn render(&self) -> String {
        let mut page = Page { text: String::with_capacity(8192), site: escape(&self.site) };
        self.render_connection(&mut page);
        self.render_provisioner(&mut page);
        page.text
    }

    fn render_connection(&self, page: &mut Page) {
        page.plain("choria_connector_connection_closed", self.connection_closed.get());
        page.plain("choria_connector_errors", self.connector_errors.get());
        page.head("choria_connector_initial_connect_time", "summary");
        page.summary("choria_connector_initial_connect_time", "", &self.initial_connect_time);
        page.plain("choria_connector_initial_connection_attempts", self.initial_connection_attempts.get());
        page.plain("choria_connector_reconnections", self.reconnections.get());
        let versions: [(&str, u64); 4] = [
            ("error", 0),
            ("invalid", self.protocol_invalid.get()),
            ("json_parse_failures", 0),
            ("valid", self.protocol_valid.get()),
        ];
        for (name, value) in versions {
            let name = format!("choria_protocol_{name}");
            page.head(&name, "counter");
            page.line(&name, "{version=\"1\"}", value);
            page.line(&name, "{version=\"2\"}", 0);
        }
    }

    fn render_provisioner(&self, page: &mut Page) {
        page.counter("absent", &self.absent);
        page.gauge("busy_workers", &self.busy_workers);
        page.gauge("connected", &self.connected);
        page.counter("deferred", &self.deferred);
        page.counter("discover_cycles", &self.discover_cycles);
        page.counter("discovered", &self.discovered);
        page.counter("discovery_errors", &self.discovery_errors);
        page.counter("event_discovered", &self.event_discovered);
        page.counter("helper_errors", &self.helper_errors);
        page.counter("helper_shutdown_requests", &self.helper_shutdown_requests);
        page.head("choria_provisioner_helper_time", "summary");
        let site = format!("{{site=\"{}\"}}", page.site);
        page.summary("choria_provisioner_helper_time", &site, &self.helper_time);
        page.gauge("helper_waiting", &self.helper_waiting);
        page.states(&self.nodes);
        page.gauge("nodes_in_flight", &self.nodes_in_flight);
        page.seconds("oldest_waiting_seconds", self.oldest_waiting.seconds());
        page.gauge("paused", &self.paused);
        page.phases(&self.phases);
        page.counter("provision_errors", &self.provision_errors);
        page.counter("provisioned", &self.provisioned);
        page.labelled("refused", "reason", &lock(&self.refused));
        page.counter("registration_discovered", &self.registration_discovered);
        page.counter("returned", &self.returned);
        page.labelled("rpc_errors", "rpc", &lock(&self.rpc_errors));
        page.rpc_times(&lock(&self.rpc_time));
        page.counter("verified", &self.verified);
        page.counter("verify_missing", &self.verify_missing);
        page.gauge("waiting_nodes", &self.waiting_nodes);
        page.gauge("work_queue_entries", &self.work_queue_entries);
    }
}

/// A map whose writer panicked is still a map of numbers.
fn lock<T>(map: &Labelled<T>) -> MutexGuard<'_, BTreeMap<&'static str, T>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Page {
    text: String,
    site: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str) {
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }

    fn plain(&mut self, name: &str, value: u64) {
        self.head(name, "counter");
        self.line(name, "", value);
    }

    fn counter(&mut self, name: &str, counter: &Counter) {
        let name = format!("choria_provisioner_{name}");
        self.head(&name, "counter");
        let labels = format!("{{site=\"{}\"}}", self.site);
        self.line(&name, &labels, counter.get());
    }

    fn gauge(&mut self, name: &str, gauge: &Gauge) {
        let name = format!("choria_provisioner_{name}");
        self.head(&name, "gauge");
        let labels = format!("{{site=\"{}\"}}", self.site);
        self.line(&name, &labels, gauge.get());
    }

    fn seconds(&mut self, name: &str, value: f64) {
        let name = format!("choria_provisioner_{name}");
        self.head(&name, "gauge");
        let labels = format!("{{site=\"{}\"}}", self.site);
        self.line(&name, &labels, value);
    }

    fn states(&mut self, nodes: &NodeGauges) {
        let name = "choria_provisioner_nodes";
        self.head(name, "gauge");
        for (state, gauge) in nodes.all() {
            let labels = format!("{{site=\"{}\",state=\"{state}\"}}", self.site);
            self.line(name, &labels, gauge.get());
        }
    }

    fn summary(&mut self, name: &str, labels: &str, summary: &Summary) {
        self.line(&format!("{name}_sum"), labels, summary.seconds());
        self.line(&format!("{name}_count"), labels, summary.count());
    }

    fn labelled(&mut self, name: &str, label: &str, map: &BTreeMap<&'static str, Counter>) {
        if map.is_empty() {
            return;
        }
        let name = format!("choria_provisioner_{name}");
        self.head(&name, "counter");
        for (value, counter) in map {
            let labels = format!("{{{label}=\"{value}\",site=\"{}\"}}", self.site);
            self.line(&name, &labels, counter.get());
        }
    }

    fn rpc_times(&mut self, map: &BTreeMap<&'static str, Summary>) {
        if map.is_empty() {
            return;
        }
        self.head("choria_provisioner_rpc_time", "summary");
        for (rpc, summary) in map {
            let labels = format!("{{rpc=\"{rpc}\",site=\"{}\"}}", self.site);
            self.summary("choria_provisioner_rpc_time", &labels, summary);
        }
    }

    fn phases(&mut self, phases: &[Histogram]) {
        let name = "choria_provisioner_phase_time";
        self.head(name, "histogram");
        for (phase, histogram) in Phase::ALL.iter().zip(phases) {
            let phase = phase.label();
            let mut total = 0;
            for (bound, bucket) in BUCKETS.iter().zip(&histogram.buckets) {
                total += bucket.load(Ordering::Relaxed);
                let labels = format!("{{phase=\"{phase}\",site=\"{}\",le=\"{bound}\"}}", self.site);
                self.line(&format!("{name}_bucket"), &labels, total);
            }
            let labels = format!("{{phase=\"{phase}\",site=\"{}\",le=\"+Inf\"}}", self.site);
            self.line(&format!("{name}_bucket"), &labels, histogram.all.count());
            let labels = format!("{{phase=\"{phase}\",site=\"{}\"}}", self.site);
            self.summary(name, &labels, &histogram.all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_gauges_and_summaries_render_as_the_original_does() {
        let metrics = Metrics::new("lab");
        metrics.provisioned.add();
        metrics.rpc_time("choria_provision#jwt", Duration::from_millis(250));
        metrics.rpc_error("choria_provision#restart");
        metrics.waiting_nodes.set(2);
        let page = metrics.render();
        for line in [
            "# TYPE choria_provisioner_provisioned counter",
            "choria_provisioner_provisioned{site=\"lab\"} 1",
            "choria_provisioner_waiting_nodes{site=\"lab\"} 2",
            "# TYPE choria_provisioner_rpc_time summary",
            "choria_provisioner_rpc_time_sum{rpc=\"choria_provision#jwt\",site=\"lab\"} 0.25",
            "choria_provisioner_rpc_time_count{rpc=\"choria_provision#jwt\",site=\"lab\"} 1",
            "choria_provisioner_rpc_errors{rpc=\"choria_provision#restart\",site=\"lab\"} 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::new("");
        metrics.phase(Phase::Gather, Duration::from_millis(2));
        metrics.phase(Phase::Gather, Duration::from_secs(100));
        let page = metrics.render();
        assert!(page.contains("phase_time_bucket{phase=\"gather\",site=\"\",le=\"0.0025\"} 1\n"), "{page}");
        assert!(page.contains("phase_time_bucket{phase=\"gather\",site=\"\",le=\"60\"} 1\n"), "{page}");
        assert!(page.contains("phase_time_bucket{phase=\"gather\",site=\"\",le=\"+Inf\"} 2\n"), "{page}");
    }

    #[test]
    fn a_site_cannot_break_out_of_its_label() {
        let page = Metrics::new("a\"b\n").render();
        assert!(page.contains("{site=\"a\\\"b\\n\"}"), "{page}");
    }
}
