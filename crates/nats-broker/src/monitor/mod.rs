//! What the broker tells of itself: values in nats-server's shapes and an HTTP router for them (spec 07 §8).

mod absent;
mod accountz;
mod accstatz;
mod connz;
mod http;
mod process;
mod subsz;
mod varz;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

pub(crate) use absent::{expvarz, gatewayz, jsz, leafz, routez};
pub use accountz::{AccountInfo, Accountz, ExportInfo, ImportInfo, MappedTo, SublistStats};
pub(crate) use accountz::{account_info, accountz};
pub use accstatz::{AccountStatz, Accstatz, Amount, DirectionStatz};
pub(crate) use accstatz::{Statsz, account_statz, accstatz, statsz};
pub(crate) use connz::{ClosedConnection, connz, connz_of_unknown};
pub use connz::{Connz, ConnzEntry, ConnzQuery, ConnzSort, ConnzState, ConnzSubs, SubDetail};
pub(crate) use process::CpuMeter;
pub(crate) use subsz::subsz;
pub use subsz::{Subsz, SubszQuery};
pub(crate) use varz::varz;
pub use varz::{KindCounts, Varz};

use crate::broker::Broker;
use crate::shared::Shared;

/// A monitoring query with a value that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not a number.
    #[error("Error decoding {kind} for '{key}': strconv.{function}: parsing {value:?}: invalid syntax")]
    Number {
        /// Type of the parameter.
        kind: &'static str,
        /// Name of the parameter.
        key: &'static str,
        /// Function of the reference that reports it; clients match the whole text.
        function: &'static str,
        /// What was given.
        value: String,
    },
    /// Not a truth value.
    #[error("Error decoding boolean for '{key}': strconv.ParseBool: parsing {value:?}: invalid syntax")]
    Boolean {
        /// Name of the parameter.
        key: &'static str,
        /// What was given.
        value: String,
    },
    /// Unknown `state`.
    #[error("Error decoding state for {0}")]
    State(String),
    /// Unknown `sort`.
    #[error("invalid sorting option: {0}")]
    Sort(String),
    /// `test` with a wildcard.
    #[error("invalid test subject, must be valid publish subject: {0}")]
    TestSubject(String),
    /// `sort` by something that only ended connections have.
    #[error("sort by {0} only valid on closed connections")]
    SortOfClosed(&'static str),
    /// There is no such account.
    #[error("Account {0} does not exist")]
    Account(String),
    /// Health of a stream without its account.
    #[error("\"account\" must not be empty when checking stream health")]
    StreamWithoutAccount,
    /// `filter_subject` without `acc`.
    #[error("filter by subject only valid with account filtering")]
    FilterWithoutAccount,
}

/// Health of the broker.
#[derive(Debug, Clone, Serialize)]
pub struct Healthz {
    /// `ok`, or `error`.
    pub status: &'static str,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Looks into a running broker. Cheap to clone; keeps the broker's state alive.
#[derive(Clone)]
pub struct Monitor {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("server_id", &self.shared.server_id).finish_non_exhaustive()
    }
}

impl Monitor {
    /// `/varz`: settings and totals.
    pub fn varz(&self) -> Varz {
        varz(&self.shared)
    }

    /// `/connz`: connections.
    ///
    /// # Errors
    /// A subject filter without an account.
    pub fn connz(&self, query: &ConnzQuery) -> Result<Connz, QueryError> {
        connz(&self.shared, query)
    }

    /// `/subsz`: subscriptions.
    ///
    /// # Errors
    /// A test subject with a wildcard.
    pub fn subsz(&self, query: &SubszQuery) -> Result<Subsz, QueryError> {
        subsz(&self.shared, query)
    }

    /// `/accountz`: the names of the accounts, or how one of them is wired.
    ///
    /// # Errors
    /// There is no such account.
    pub fn accountz(&self, acc: Option<&str>) -> Result<Accountz, QueryError> {
        accountz(&self.shared, acc)
    }

    /// `/accstatz`: figures of all accounts, of those without connections only when `unused`.
    pub fn accstatz(&self, unused: bool) -> Accstatz {
        accstatz(&self.shared, None, unused)
    }

    /// `/healthz`: whether the broker takes connections.
    pub fn healthz(&self) -> Healthz {
        healthz(&self.shared)
    }

    /// Counts a request for `/varz`.
    fn count_request(&self, path: &'static str) {
        *self.shared.http_requests.lock().entry(path).or_insert(0) += 1;
    }
}

pub(crate) fn healthz(shared: &Shared) -> Healthz {
    if shared.stop.is_cancelled() {
        return Healthz { status: "error", error: Some("the broker is shutting down".to_owned()) };
    }
    Healthz { status: "ok", error: None }
}

impl Broker {
    /// Monitoring values.
    pub fn monitor(&self) -> Monitor {
        Monitor { shared: Arc::clone(&self.shared) }
    }

    /// nats-server's monitoring pages and a page that links to them, to be served wherever the embedder likes; other paths are
    /// 404. Whoever can reach it sees names, addresses and subjects of all clients.
    pub fn monitoring_router(&self) -> axum::Router {
        http::router(self.monitor())
    }
}

/// A time as RFC 3339 with nanoseconds, UTC.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| time.to_string()).unwrap_or_default()
}

/// A span in nats-server's form for uptime and idle: `1d2h3m4s`.
fn uptime(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let mut out = String::new();
    for (value, unit) in [(days / 365, 'y'), (days % 365, 'd'), (hours, 'h'), (minutes, 'm')] {
        if value > 0 || !out.is_empty() {
            out.push_str(&format!("{value}{unit}"));
        }
    }
    out.push_str(&format!("{}s", seconds % 60));
    out
}

/// A span in Go's form: `877µs`, `9.344ms`, `1.5s`.
fn go_duration(micros: u64) -> String {
    let scaled = |divisor: u64, unit: &str| {
        let fraction = format!("{:0width$}", micros % divisor, width = divisor.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{}{dot}{fraction}{unit}", micros / divisor)
    };
    match micros {
        0 => "0s".to_owned(),
        1..1_000 => format!("{micros}µs"),
        1_000..1_000_000 => scaled(1_000, "ms"),
        _ if micros < 60_000_000 => scaled(1_000_000, "s"),
        _ => format!("{}m{}", micros / 60_000_000, go_duration(micros % 60_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_nats_server_does() {
        for (seconds, text) in
            [(0, "0s"), (27, "27s"), (61, "1m1s"), (3600, "1h0m0s"), (90_061, "1d1h1m1s"), (365 * 86_400, "1y0d0h0m0s")]
        {
            assert_eq!(uptime(Duration::from_secs(seconds)), text);
        }
        for (micros, text) in [
            (0, "0s"),
            (877, "877µs"),
            (9_344, "9.344ms"),
            (43_000, "43ms"),
            (1_500_000, "1.5s"),
            (2_000_050, "2.00005s"),
            (61_000_000, "1m1s"),
        ] {
            assert_eq!(go_duration(micros), text);
        }
    }
}
