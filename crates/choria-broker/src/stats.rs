//! The statistics over HTTP (spec 02 §9): `/choria/`, `/choria/prometheus` and the monitoring pages of the network broker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use choria_config::BuildSettings;
use nats_broker::Broker;
use serde::Serialize;

use crate::metrics::{Metrics, NetworkFigures};
use crate::process::ProcessFigures;

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the pages show.
pub(crate) struct Pages {
    pub(crate) broker: Broker,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) build: BuildSettings,
    pub(crate) identity: String,
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) started: Instant,
}

/// `/choria/`: keys and order of the original.
#[derive(Serialize)]
struct Instance<'a> {
    build: Build<'a>,
    system: System,
    config_file: String,
    identity: &'a str,
}

#[derive(Serialize)]
struct Build<'a> {
    version: &'a str,
    sha: &'a str,
    build_date: &'a str,
    license: &'a str,
    tls: bool,
    secure: bool,
    /// The language's version in the original; readers expect a text here.
    go: &'a str,
    max_broker_clients: usize,
}

#[derive(Serialize)]
struct System {
    rss: u64,
    cpu_percent: f64,
    cpu_cores: usize,
}

/// The router of the whole statistics port.
pub(crate) fn router(pages: Arc<Pages>) -> Router {
    let monitoring = pages.broker.monitoring_router();
    Router::new()
        .route("/choria/prometheus", get(prometheus))
        .route("/choria/metrics", get(prometheus))
        .route("/choria", get(instance))
        .route("/choria/", get(instance))
        .route("/choria/{*rest}", get(instance))
        .with_state(pages)
        .merge(monitoring)
}

async fn prometheus(State(pages): State<Arc<Pages>>) -> Response {
    pages.metrics.accounts(&pages.broker.account_stats());
    let text = pages.metrics.render(&network_figures(&pages.broker), &ProcessFigures::read());
    ([(CONTENT_TYPE, PROMETHEUS)], text).into_response()
}

async fn instance(State(pages): State<Arc<Pages>>) -> Response {
    let figures = ProcessFigures::read();
    let instance = Instance {
        build: Build {
            version: &pages.build.version,
            sha: &pages.build.sha,
            build_date: &pages.build.build_date,
            license: "Apache-2.0",
            tls: pages.build.tls,
            secure: pages.build.secure,
            go: "rust",
            max_broker_clients: pages.build.max_broker_clients,
        },
        system: System {
            rss: figures.resident,
            cpu_percent: cpu_percent(figures.cpu, pages.started.elapsed()),
            cpu_cores: std::thread::available_parallelism().map_or(1, usize::from),
        },
        config_file: pages.config_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        identity: &pages.identity,
    };
    let text = serde_json::to_string(&instance).expect("a struct of texts and numbers has a JSON form");
    ([(CONTENT_TYPE, TEXT)], text).into_response()
}

/// CPU use since the start, rounded to a tenth.
fn cpu_percent(used: Duration, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        return 0.0;
    }
    (used.as_secs_f64() / elapsed.as_secs_f64() * 1000.0).round() / 10.0
}

fn network_figures(broker: &Broker) -> NetworkFigures {
    let varz = broker.monitor().varz();
    NetworkFigures {
        connections: varz.connections as u64,
        total_connections: varz.total_connections,
        in_msgs: varz.in_msgs,
        out_msgs: varz.out_msgs,
        in_bytes: varz.in_bytes,
        out_bytes: varz.out_bytes,
        slow_consumers: varz.slow_consumers,
        subscriptions: varz.subscriptions as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_use_is_a_share_of_the_time_since_start() {
        assert!((cpu_percent(Duration::from_millis(500), Duration::from_secs(2)) - 25.0).abs() < 1e-9);
        assert!(cpu_percent(Duration::from_secs(1), Duration::ZERO).abs() < 1e-9);
    }
}
