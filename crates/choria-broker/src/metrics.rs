//! The broker's Prometheus metrics (spec 02 §9), kept in a recorder of their own: no global state, so several
//! brokers can live in one process.
//!
//! Names, labels and types of the `choria_network_*` family and of `choria_build_info` are the original's, word for
//! word. Ours are named `choria_broker_*` and count what the original never counted (spec 02, sharp edge 31).

use std::time::SystemTime;

use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use nats_broker::AccountStats;

use crate::policy::Account;
use crate::process::{ProcessFigures, unix_seconds};
use crate::reload::Reloaded;
use crate::tls_failure::TlsFailure;

/// Connections refused, or ended because their right was gone, by reason.
pub(crate) const REFUSED: &str = "choria_broker_refused";
/// TLS handshakes that failed, by cause.
pub(crate) const TLS_FAILURES: &str = "choria_broker_tls_failures";
/// Connections accepted, by account.
pub(crate) const ACCEPTED: &str = "choria_broker_accepted";
/// Publishes and subscriptions refused after CONNECT, by reason.
pub(crate) const VIOLATIONS: &str = "choria_broker_violations";
/// Connections ended because they read too slowly, by account and cause.
pub(crate) const SLOW_CONSUMERS: &str = "choria_broker_slow_consumers";
/// Claims of a node's name, by result: `granted`, `held`, `released`, `taken_over`.
pub(crate) const CLAIMS: &str = "choria_broker_claims";
/// Reloads of the configuration, by result: `done`, `failed`.
pub(crate) const RELOADS: &str = "choria_broker_reloads";
/// Unix time of the last reload, by result; 0 while there was none.
pub(crate) const RELOADED_AT: &str = "choria_broker_reload_time_seconds";
/// Connections that a reload had an effect on: `ended`, `changed`.
pub(crate) const RELOAD_CONNECTIONS: &str = "choria_broker_reload_connections";
/// Events about refusals that were left out because there were too many.
pub(crate) const EVENTS_DROPPED: &str = "choria_broker_events_dropped";

/// Help texts of our own counters and gauges.
const HELP: [(&str, &str); 10] = [
    (REFUSED, "Connections refused, or ended because their right to be here was gone"),
    (TLS_FAILURES, "TLS handshakes that failed"),
    (ACCEPTED, "Connections accepted"),
    (VIOLATIONS, "Messages and subscriptions refused"),
    (SLOW_CONSUMERS, "Connections ended because they did not take what they had subscribed to"),
    (CLAIMS, "Claims of the name of an unprovisioned node"),
    (RELOADS, "Reloads of the configuration"),
    (RELOADED_AT, "When the configuration was last reloaded, in seconds since 1970; 0 for never"),
    (RELOAD_CONNECTIONS, "Connections that a reload ended, or whose rights it changed"),
    (EVENTS_DROPPED, "Events about refusals left out because there were too many"),
];

/// Name of a gauge and where its value comes from.
type NetworkGauge = (&'static str, fn(&NetworkFigures) -> f64);

/// The gauges of spec 02 §9 that a broker without streams and leafnodes has.
const NETWORK_GAUGES: [NetworkGauge; 11] = [
    ("choria_network_connections", |f| float(f.connections)),
    ("choria_network_total_connections", |f| float(f.total_connections)),
    ("choria_network_routes", |_| 0.0),
    ("choria_network_remotes", |_| 0.0),
    ("choria_network_leafnode_remotes", |_| 0.0),
    ("choria_network_in_msgs", |f| float(f.in_msgs)),
    ("choria_network_out_msgs", |f| float(f.out_msgs)),
    ("choria_network_in_bytes", |f| float(f.in_bytes)),
    ("choria_network_out_bytes", |f| float(f.out_bytes)),
    ("choria_network_slow_consumers", |f| float(f.slow_consumers)),
    ("choria_network_subscriptions", |f| float(f.subscriptions)),
];

/// Name and help of a series by account, and where its value comes from.
type AccountSeries = (&'static str, &'static str, fn(&AccountStats) -> u64);

/// What each account holds at the moment.
const ACCOUNT_GAUGES: [AccountSeries; 2] = [
    ("choria_broker_account_connections", "Open connections of an account", |a| a.connections as u64),
    ("choria_broker_account_subscriptions", "Subscriptions in an account", |a| a.subscriptions as u64),
];

/// What each account has carried since the start, the connections that ended included.
const ACCOUNT_COUNTERS: [AccountSeries; 4] = [
    ("choria_broker_account_in_msgs", "Messages received from connections of an account", |a| a.in_msgs),
    ("choria_broker_account_in_bytes", "Bytes of headers and payload received from an account", |a| a.in_bytes),
    ("choria_broker_account_out_msgs", "Messages sent to connections of an account", |a| a.out_msgs),
    ("choria_broker_account_out_bytes", "Bytes of headers and payload sent to an account", |a| a.out_bytes),
];

/// What the network broker counts, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NetworkFigures {
    /// Open connections.
    pub(crate) connections: u64,
    /// Connections since the start.
    pub(crate) total_connections: u64,
    /// Messages received.
    pub(crate) in_msgs: u64,
    /// Messages sent.
    pub(crate) out_msgs: u64,
    /// Payload bytes received.
    pub(crate) in_bytes: u64,
    /// Payload bytes sent.
    pub(crate) out_bytes: u64,
    /// Connections closed because they read too slowly.
    pub(crate) slow_consumers: u64,
    /// Subscriptions.
    pub(crate) subscriptions: u64,
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus values are floats; 2^53 messages are far away")]
const fn float(value: u64) -> f64 {
    value as f64
}

/// The metrics of one broker.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    identity: String,
    started: SystemTime,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Where a metric was registered; the Prometheus recorder does not look at it.
static METADATA: Metadata<'static> = Metadata::new("choria_broker", Level::INFO, None);

impl Metrics {
    /// Makes the recorder and the series that must exist before anything happened, so that rates start at zero.
    pub(crate) fn new(identity: &str, version: &str, sha: &str, started: SystemTime) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        for (name, help) in HELP {
            // The recorder makes no difference between counters and gauges here.
            recorder.describe_counter(KeyName::from(name), None, help.into());
        }
        for (name, help, _) in ACCOUNT_GAUGES.into_iter().chain(ACCOUNT_COUNTERS) {
            recorder.describe_counter(KeyName::from(name), None, help.into());
        }
        let metrics = Self { recorder, handle, identity: identity.to_owned(), started };
        metrics.counter("choria_build_info", &[("version", version), ("sha", sha), ("identity", identity)]).absolute(1);
        for reason in crate::policy::Reason::ALL {
            metrics.labelled(REFUSED, "reason", reason.as_str()).increment(0);
        }
        for result in ["granted", "held", "released", "taken_over"] {
            metrics.labelled(CLAIMS, "result", result).increment(0);
        }
        for cause in TlsFailure::ALL {
            metrics.labelled(TLS_FAILURES, "cause", cause.as_str()).increment(0);
        }
        for result in ["done", "failed"] {
            metrics.labelled(RELOADS, "result", result).increment(0);
            metrics.gauge(RELOADED_AT, &[("result", result), ("identity", identity)]).set(0.0);
        }
        for effect in ["ended", "changed"] {
            metrics.labelled(RELOAD_CONNECTIONS, "effect", effect).increment(0);
        }
        metrics.counter(EVENTS_DROPPED, &[("identity", identity)]).increment(0);
        metrics
    }

    fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
        let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        Key::from_parts(name, labels)
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.register_counter(&Self::key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.register_gauge(&Self::key(name, labels), &METADATA)
    }

    fn labelled(&self, name: &'static str, label: &'static str, value: &str) -> Counter {
        self.counter(name, &[(label, value), ("identity", &self.identity)])
    }

    /// A connection was refused.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.labelled(REFUSED, "reason", reason).increment(1);
    }

    /// A connection was accepted.
    pub(crate) fn accepted(&self, account: &str) {
        self.labelled(ACCEPTED, "account", account).increment(1);
    }

    /// A publish or subscription was refused.
    pub(crate) fn violation(&self, reason: &'static str) {
        self.labelled(VIOLATIONS, "reason", reason).increment(1);
    }

    /// A name was claimed, with this result.
    pub(crate) fn claim(&self, result: &'static str) {
        self.labelled(CLAIMS, "result", result).increment(1);
    }

    /// A TLS handshake failed.
    pub(crate) fn tls_failure(&self, cause: TlsFailure) {
        self.labelled(TLS_FAILURES, "cause", cause.as_str()).increment(1);
    }

    /// A connection was ended because it read too slowly; without an account it had none yet.
    pub(crate) fn slow_consumer(&self, account: Option<&str>, cause: &str) {
        let labels = [("account", account.unwrap_or("none")), ("cause", cause), ("identity", &self.identity)];
        self.counter(SLOW_CONSUMERS, &labels).increment(1);
    }

    /// The configuration was read again, or could not be.
    pub(crate) fn reload(&self, reloaded: Option<&Reloaded>, now: SystemTime) {
        let result = if reloaded.is_some() { "done" } else { "failed" };
        self.labelled(RELOADS, "result", result).increment(1);
        self.gauge(RELOADED_AT, &[("result", result), ("identity", &self.identity)]).set(unix_seconds(now));
        if let Some(reloaded) = reloaded {
            for (effect, count) in [("ended", reloaded.connections_ended), ("changed", reloaded.connections_changed)] {
                self.labelled(RELOAD_CONNECTIONS, "effect", effect).increment(count as u64);
            }
        }
    }

    /// An event about a refusal was left out.
    pub(crate) fn event_dropped(&self) {
        self.counter(EVENTS_DROPPED, &[("identity", &self.identity)]).increment(1);
    }

    /// The figures of the accounts there are. One that is gone keeps what it carried, and holds nothing any more.
    pub(crate) fn accounts(&self, accounts: &[AccountStats]) {
        let labels = |account: &'static str| [("account", account), ("identity", self.identity.as_str())];
        for account in Account::ALL.map(Account::name) {
            let figures = accounts.iter().find(|figures| figures.name == account);
            for (name, _, value) in ACCOUNT_GAUGES {
                self.gauge(name, &labels(account)).set(figures.map_or(0.0, |figures| float(value(figures))));
            }
            for (name, _, value) in ACCOUNT_COUNTERS {
                self.counter(name, &labels(account)).absolute(figures.map_or(0, value));
            }
        }
    }

    /// The text of `/choria/prometheus`, with the gauges of this moment.
    pub(crate) fn render(&self, network: &NetworkFigures, process: &ProcessFigures) -> String {
        let identity = [("identity", self.identity.as_str())];
        for (name, value) in NETWORK_GAUGES {
            self.gauge(name, &identity).set(value(network));
        }
        self.handle.run_upkeep();
        self.handle.render() + &process_text(process, self.started)
    }
}

/// The `process_*` family, written by hand: counters of the recorder are whole numbers, CPU seconds are not.
fn process_text(process: &ProcessFigures, started: SystemTime) -> String {
    let series = [
        ("process_cpu_seconds_total", "counter", process.cpu.as_secs_f64()),
        ("process_max_fds", "gauge", float(process.max_files)),
        ("process_open_fds", "gauge", float(process.open_files)),
        ("process_resident_memory_bytes", "gauge", float(process.resident)),
        ("process_start_time_seconds", "gauge", unix_seconds(started)),
        ("process_virtual_memory_bytes", "gauge", float(process.virtual_size)),
    ];
    let lines = series.map(|(name, kind, value)| format!("# TYPE {name} {kind}\n{name} {value}\n"));
    lines.concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn metrics() -> Metrics {
        Metrics::new("broker.example.net", "1.2.3", "abc", SystemTime::UNIX_EPOCH)
    }

    fn render(metrics: &Metrics) -> String {
        let network = NetworkFigures { connections: 3, in_bytes: 5923, ..Default::default() };
        metrics.render(&network, &ProcessFigures { cpu: Duration::from_millis(140), ..Default::default() })
    }

    #[test]
    fn series_exist_before_anything_happened() {
        let text = render(&metrics());
        for line in [
            "# TYPE choria_build_info counter",
            r#"choria_build_info{version="1.2.3",sha="abc",identity="broker.example.net"} 1"#,
            "# TYPE choria_network_connections gauge",
            r#"choria_network_connections{identity="broker.example.net"} 3"#,
            r#"choria_network_in_bytes{identity="broker.example.net"} 5923"#,
            r#"choria_broker_refused{reason="wrong_password",identity="broker.example.net"} 0"#,
            r#"choria_broker_claims{result="held",identity="broker.example.net"} 0"#,
            "# TYPE process_cpu_seconds_total counter",
            "process_cpu_seconds_total 0.14",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} missing in\n{text}");
        }
    }

    #[test]
    fn counters_count_by_reason() {
        let metrics = metrics();
        metrics.refused("wrong_password");
        metrics.refused("wrong_password");
        metrics.refused("auth_timeout");
        metrics.violation("forged_event");
        let text = render(&metrics);
        for line in [
            r#"choria_broker_refused{reason="wrong_password",identity="broker.example.net"} 2"#,
            r#"choria_broker_refused{reason="auth_timeout",identity="broker.example.net"} 1"#,
            r#"choria_broker_violations{reason="forged_event",identity="broker.example.net"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} missing in\n{text}");
        }
    }
}
