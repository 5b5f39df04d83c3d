//! The monitoring pages and INFO against nats-server's: same fields, same types.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{Raw, connect_as, start, testdata};
use nats_broker::{
    AccountConfig, Broker, BrokerConfig, Permissions, ServiceExport, ServiceImport, StaticAuthenticator, StreamExport,
    StreamImport,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// `monitoring.conf`: three clients in three accounts and one failed login.
async fn monitored() -> (Broker, Vec<Raw>) {
    let accounts = vec![
        AccountConfig::new("SYS"),
        AccountConfig::new("A").export(ServiceExport::new("svc")).export(StreamExport::new("st.>")),
        AccountConfig::new("B")
            .import(ServiceImport::new("A", "svc").to("lsvc"))
            .import(StreamImport::new("A", "st.>").to("p.st.>")),
    ];
    let free = Permissions::unlimited;
    let users = StaticAuthenticator::new().user("sys", "x", "SYS", free()).user("a", "x", "A", free()).user(
        "b",
        "x",
        "B",
        free(),
    );
    let config = BrokerConfig {
        server_name: "mon1".into(),
        system_account: Some("SYS".into()),
        monitor_addr: Some("127.0.0.1:8222".parse().unwrap()),
        ..BrokerConfig::default()
    };
    let broker = start(config, accounts, Arc::new(users));
    let addr = broker.local_addr(0).unwrap();
    let mut clients = Vec::new();
    for (user, name, subs) in [
        ("sys", "sysclient", "SUB _INBOX.s.> 1\r\nSUB $SYS.REQ.> 2\r\n"),
        ("a", "cli-a", "SUB svc 1\r\nSUB q.* g 2\r\nSUB _INBOX.a.> 3\r\n"),
        ("b", "cli-b", "SUB in 1\r\nSUB p.> 2\r\n"),
    ] {
        let mut raw = Raw::connect(addr).await;
        raw.send(format!(
            "CONNECT {{\"verbose\":false,\"user\":\"{user}\",\"pass\":\"x\",\"name\":\"{name}\",\"lang\":\"python\",\
             \"version\":\"1.0\"}}\r\n{subs}"
        ))
        .await;
        raw.sync().await;
        clients.push(raw);
    }
    clients[1].send("PUB q.x 4\r\nabcd\r\n").await;
    clients[1].expect("MSG q.x 2 4\r\nabcd\r\n").await;
    let mut evil = Raw::connect(addr).await;
    evil.send(connect_as("evil", "x")).await;
    evil.rest().await;
    // The refused connection must have been put away before the pages are looked at.
    while broker.monitor().varz().connections > 3 {
        tokio::task::yield_now().await;
    }
    (broker, clients)
}

/// One HTTP GET: status, headers, body.
async fn get(addr: std::net::SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Fields that ours leaves out, or that depend on what the reference was told and ours was not.
const NOT_OURS: &[&str] = &["tags", "feature_flags", "http_req_stats"];

/// Compares field names and types; of arrays the first elements.
fn compare(at: &str, ours: &Value, golden: &Value, failures: &mut Vec<String>) {
    if type_name(ours) != type_name(golden) {
        failures.push(format!("{at}: {} is not {}", type_name(ours), type_name(golden)));
        return;
    }
    match (ours, golden) {
        (Value::Object(ours), Value::Object(golden)) => {
            let keys = |map: &serde_json::Map<String, Value>| -> BTreeSet<String> {
                map.keys().filter(|key| !NOT_OURS.contains(&key.as_str())).cloned().collect()
            };
            let (left, right) = (keys(ours), keys(golden));
            for key in left.symmetric_difference(&right) {
                // Clients of the reference's recording named other things than ours.
                if !["name", "lang", "version", "qgroup"].contains(&key.as_str()) {
                    failures.push(format!("{at}.{key} is on one side only"));
                }
            }
            for key in left.intersection(&right) {
                compare(&format!("{at}.{key}"), &ours[key], &golden[key], failures);
            }
        }
        (Value::Array(ours), Value::Array(golden)) => {
            // Open connections are compared with open ones, ended with ended ones.
            let has_ended = |entry: &Value| entry.get("stop").is_some();
            let like = |ours: &Value| golden.iter().find(|golden| has_ended(golden) == has_ended(ours));
            if let Some((ours, golden)) = ours.first().and_then(|ours| Some((ours, like(ours)?))) {
                compare(&format!("{at}[0]"), ours, golden, failures);
            } else if ours.is_empty() != golden.is_empty() {
                failures.push(format!("{at}: {} and {} elements", ours.len(), golden.len()));
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_have_the_fields_and_types_of_the_reference() {
    let (broker, _clients) = monitored().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = broker.monitoring_router();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut files = 0;
    let mut failures = Vec::new();
    for file in std::fs::read_dir(testdata("monitoring")).unwrap() {
        let golden: Value = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        // The failed login is the only ended connection here and has another number.
        let path = golden["path"].as_str().unwrap();
        let (status, head, body) = get(addr, path).await;
        assert_eq!(Value::from(status), golden["status"], "{path}: {body}");
        if let Some(text) = golden["body"].as_str() {
            // The text behind a missing page is the framework's.
            if status == 400 {
                assert_eq!(body, text, "{path}");
            }
        } else {
            assert!(head.contains("content-type: application/json"), "{path}: {head}");
            assert!(head.contains("access-control-allow-origin: *"), "{path}: {head}");
            let ours: Value = serde_json::from_str(&body).unwrap();
            compare(path, &ours, &golden["body"], &mut failures);
        }
        files += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(files, 27);
    serving.abort();
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_count_what_happened() {
    let (broker, _clients) = monitored().await;
    let monitor = broker.monitor();
    let varz = serde_json::to_value(monitor.varz()).unwrap();
    for (key, value) in [
        ("connections", 3),
        ("total_connections", 4),
        ("in_msgs", 1),
        ("in_bytes", 4),
        ("out_msgs", 1),
        ("out_bytes", 4),
        ("subscriptions", 7),
        ("slow_consumers", 0),
    ] {
        assert_eq!(varz[key], value, "{key}");
    }
    let query = nats_broker::monitor::ConnzQuery {
        auth: true,
        state: nats_broker::monitor::ConnzState::All,
        ..Default::default()
    };
    let connz = monitor.connz(&query).unwrap();
    let users: Vec<&str> = connz.connections.iter().map(|entry| entry.authorized_user.as_str()).collect();
    assert_eq!(users, ["sys", "a", "b", ""]);
    assert_eq!(connz.connections[3].reason.as_deref(), Some("Authentication Failure"));
    assert_eq!(monitor.healthz().status, "ok");
    broker.shutdown().await;
    assert_eq!(monitor.healthz().status, "error");
    assert_eq!(monitor.varz().connections, 0);
}
