//! `/varz`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{rfc3339, uptime};
use crate::config::BrokerConfig;
use crate::shared::Shared;

/// Counts per kind of connection; only clients exist here.
#[derive(Debug, Clone, Default, Serialize)]
pub struct KindCounts {
    /// Clients.
    pub clients: u64,
    /// Always 0.
    pub routes: u64,
    /// Always 0.
    pub gateways: u64,
    /// Always 0.
    pub leafs: u64,
}

/// Settings and totals of a broker, with the names and types of nats-server.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /varz")]
pub struct Varz {
    pub server_id: String,
    pub server_name: String,
    pub version: String,
    pub proto: i64,
    pub git_commit: String,
    pub go: String,
    pub host: String,
    pub port: u16,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub auth_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls_required: bool,
    /// A client certificate is wanted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls_verify: bool,
    pub max_connections: usize,
    /// Per connection; 0 = no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_subscriptions: usize,
    /// Nanoseconds.
    pub ping_interval: u64,
    pub ping_max: u32,
    pub http_host: String,
    pub http_port: u16,
    pub http_base_path: String,
    pub https_port: u16,
    /// Seconds.
    pub auth_timeout: Value,
    pub max_control_line: usize,
    pub max_payload: usize,
    pub max_pending: usize,
    pub cluster: Map<String, Value>,
    pub gateway: Map<String, Value>,
    pub leaf: Map<String, Value>,
    pub mqtt: Map<String, Value>,
    pub websocket: Map<String, Value>,
    pub jetstream: Map<String, Value>,
    /// Seconds.
    pub tls_timeout: Value,
    /// Nanoseconds.
    pub write_deadline: u64,
    pub start: String,
    pub now: String,
    pub uptime: String,
    /// Resident memory in bytes; 0 where it cannot be told.
    pub mem: u64,
    pub cores: usize,
    pub gomaxprocs: usize,
    /// Load between two looks that are at least a second apart, in percent of one processor; 0 where it cannot be told.
    #[serde(serialize_with = "super::process::as_go")]
    pub cpu: f64,
    pub connections: usize,
    pub total_connections: u64,
    pub routes: u64,
    pub remotes: u64,
    pub leafnodes: u64,
    pub in_msgs: u64,
    pub in_bytes: u64,
    pub in_client_msgs: u64,
    pub in_client_bytes: u64,
    pub out_msgs: u64,
    pub out_bytes: u64,
    pub out_client_msgs: u64,
    pub out_client_bytes: u64,
    pub slow_consumers: u64,
    pub stale_connections: u64,
    pub stalled_clients: u64,
    pub subscriptions: usize,
    pub http_req_stats: BTreeMap<&'static str, u64>,
    pub config_load_time: String,
    pub config_digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    pub feature_flags: Map<String, Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system_account: String,
    pub slow_consumer_stats: KindCounts,
    pub stale_connection_stats: KindCounts,
    pub disk_io_wait_stats: BTreeMap<&'static str, u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// Settings of the first WebSocket listener; empty without one.
fn websocket(shared: &Shared, config: &BrokerConfig) -> Map<String, Value> {
    let mut group = Map::new();
    let mut listeners = shared.listeners().iter().zip(&config.listen);
    let first = listeners.find_map(|(running, listener)| Some((running, listener, listener.websocket.as_ref()?)));
    let Some((running, listener, settings)) = first else { return group };
    let timeout = settings.handshake_timeout;
    let timeout = if timeout.is_zero() { config.tls_timeout } else { timeout };
    group.insert("host".to_owned(), json!(running.addr.ip()));
    group.insert("port".to_owned(), json!(running.addr.port()));
    if let Some(advertise) = &listener.advertise {
        group.insert("advertise".to_owned(), json!(advertise));
    }
    group.insert("handshake_timeout".to_owned(), json!(timeout.as_nanos() as u64));
    for (key, is_set) in [
        ("no_tls", listener.tls.is_none()),
        ("same_origin", settings.same_origin),
        ("compression", settings.compression),
    ] {
        if is_set {
            group.insert(key.to_owned(), json!(true));
        }
    }
    if !settings.allowed_origins.is_empty() {
        group.insert("allowed_origins".to_owned(), json!(settings.allowed_origins));
    }
    group
}

/// Whole seconds as integer, others with their fraction, as Go writes them.
fn seconds(span: std::time::Duration) -> Value {
    if span.subsec_nanos() == 0 { json!(span.as_secs()) } else { json!(span.as_secs_f64()) }
}

pub(crate) fn varz(shared: &Shared) -> Varz {
    let live = shared.live();
    let config = &live.config;
    let traffic = shared.traffic();
    let now = SystemTime::now();
    let (host, port) = shared.advertised(0);
    let listener = shared.listeners().first();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let clients = |count: u64| KindCounts { clients: count, ..KindCounts::default() };
    let slow = shared.hub.slow_consumers.load(Ordering::Relaxed);
    let stale = shared.hub.stale_connections.load(Ordering::Relaxed);
    let mut cluster = Map::new();
    if let Some(name) = &config.cluster_name {
        cluster.insert("name".to_owned(), json!(name));
    }
    Varz {
        server_id: shared.server_id.clone(),
        server_name: shared.server_name.clone(),
        version: config.version.clone(),
        proto: 1,
        git_commit: String::new(),
        go: "rust".to_owned(),
        host,
        port,
        auth_required: live.authenticator.auth_required(),
        tls_required: listener.is_some_and(|listener| listener.tls.load().is_some()),
        tls_verify: config.listen.first().is_some_and(|listener| listener.tls_verify),
        max_connections: config.max_connections,
        max_subscriptions: config.max_subscriptions,
        ping_interval: config.ping_interval.as_nanos() as u64,
        ping_max: config.ping_max,
        http_host: config.monitor_addr.map(|addr| addr.ip().to_string()).unwrap_or_default(),
        http_port: config.monitor_addr.map_or(0, |addr| addr.port()),
        http_base_path: String::new(),
        https_port: 0,
        auth_timeout: seconds(config.auth_timeout),
        max_control_line: config.max_control_line,
        max_payload: config.max_payload,
        max_pending: config.max_pending,
        cluster,
        gateway: Map::new(),
        leaf: Map::new(),
        mqtt: Map::new(),
        websocket: websocket(shared, config),
        jetstream: Map::new(),
        tls_timeout: seconds(config.tls_timeout),
        write_deadline: config.write_deadline.as_nanos() as u64,
        start: rfc3339(shared.started),
        now: rfc3339(now),
        uptime: uptime(now.duration_since(shared.started).unwrap_or_default()),
        mem: super::process::resident_bytes(),
        cores,
        gomaxprocs: cores,
        cpu: shared.cpu.percent(),
        connections: shared.roster.lock().all.len(),
        total_connections: shared.total_connections.load(Ordering::Relaxed),
        routes: 0,
        remotes: 0,
        leafnodes: 0,
        in_msgs: traffic.in_msgs,
        in_bytes: traffic.in_bytes,
        in_client_msgs: traffic.in_msgs,
        in_client_bytes: traffic.in_bytes,
        out_msgs: traffic.out_msgs,
        out_bytes: traffic.out_bytes,
        out_client_msgs: traffic.out_msgs,
        out_client_bytes: traffic.out_bytes,
        slow_consumers: slow,
        stale_connections: stale,
        stalled_clients: shared.hub.stalled.load(Ordering::Relaxed),
        subscriptions: live.accounts.iter().map(|account| account.state.index.read().len()).sum(),
        http_req_stats: shared.http_requests.lock().clone(),
        config_load_time: rfc3339(live.loaded),
        config_digest: String::new(),
        tags: config.server_tags.clone(),
        feature_flags: Map::new(),
        system_account: config.system_account.clone().unwrap_or_default(),
        slow_consumer_stats: clients(slow),
        stale_connection_stats: clients(stale),
        disk_io_wait_stats: ["waiters", "waits", "wait_time", "max_wait_time"]
            .into_iter()
            .map(|key| (key, 0))
            .collect(),
    }
}
