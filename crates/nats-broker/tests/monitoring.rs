//! The monitoring pages and INFO against nats-server's: same fields, same types.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::monitored::{compare, leave_a_request_open, monitored};
use common::testdata;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_have_the_fields_and_types_of_the_reference() {
    let (broker, mut clients) = monitored(Arc::new(common::Unobserved)).await;
    leave_a_request_open(&mut clients).await;
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
            // The page of links has a text of its own.
            if status != 200 {
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
    assert_eq!(files, 46);
    serving.abort();
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_count_what_happened() {
    let (broker, _clients) = monitored(Arc::new(common::Unobserved)).await;
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
