//! The monitor port: `/metrics` for everyone, `/status`, `/pause` and `/resume` for this machine only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::handle::Handle;
use crate::metrics::Metrics;

/// Binds the monitor port: one address, or all of them (IPv6 and IPv4 where the system allows both).
///
/// # Errors
/// When the port is in use or may not be bound.
pub(crate) async fn bind(address: Option<IpAddr>, port: u16) -> std::io::Result<TcpListener> {
    if let Some(address) = address {
        return TcpListener::bind((address, port)).await;
    }
    match TcpListener::bind((IpAddr::from(Ipv6Addr::UNSPECIFIED), port)).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), port)).await,
    }
}

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    handle: Handle,
}

/// Serves until `shutdown`.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>, handle: Handle, shutdown: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(render))
        .route("/status", get(status))
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .with_state(Shared { metrics, handle })
        .into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await {
        tracing::error!("the monitor port failed: {error}");
    }
}

async fn render(State(shared): State<Shared>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, shared.metrics.render()).into_response()
}

async fn status(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = only_local(peer, &headers) {
        return refusal.into_response();
    }
    answer(&shared.metrics)
}

async fn pause(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = only_local(peer, &headers) {
        return refusal.into_response();
    }
    shared.handle.pause().await;
    answer(&shared.metrics)
}

async fn resume(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = only_local(peer, &headers) {
        return refusal.into_response();
    }
    shared.handle.resume().await;
    answer(&shared.metrics)
}

/// Control is for people on this machine, and not for web pages that their browser shows.
fn only_local(peer: SocketAddr, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    if !peer.ip().to_canonical().is_loopback() {
        return Err((StatusCode::FORBIDDEN, "only from this machine\n"));
    }
    if headers.contains_key(header::ORIGIN) {
        return Err((StatusCode::FORBIDDEN, "not from a browser\n"));
    }
    Ok(())
}

fn answer(metrics: &Metrics) -> Response {
    let body = json!({
        "paused": metrics.paused.get() != 0,
        "queued": metrics.work_queue_entries.get(),
        "waiting": metrics.waiting_nodes.get(),
        "in_flight": metrics.nodes_in_flight.get(),
        "busy_workers": metrics.busy_workers.get(),
        "provisioned": metrics.provisioned.get(),
        "provision_errors": metrics.provision_errors.get(),
    });
    ([(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_is_for_loopback_without_a_browser() {
        let plain = HeaderMap::new();
        for local in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(only_local(local.parse().unwrap(), &plain).is_ok(), "{local}");
        }
        for remote in ["10.0.0.1:1", "[fe80::1]:1", "[::ffff:10.0.0.1]:1"] {
            assert!(only_local(remote.parse().unwrap(), &plain).is_err(), "{remote}");
        }
        let mut browser = HeaderMap::new();
        browser.insert(header::ORIGIN, "http://localhost".parse().unwrap());
        assert!(only_local("127.0.0.1:1".parse().unwrap(), &browser).is_err());
    }
}
