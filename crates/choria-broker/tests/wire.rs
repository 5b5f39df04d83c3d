//! `wire-errors.jsonl`: what a Choria broker says on the wire when something is wrong.
#![allow(clippy::unwrap_used)]

#[path = "common/golden.rs"]
mod golden;
#[path = "common/lab.rs"]
mod lab;
#[path = "common/raw.rs"]
mod raw;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use choria_security::tls;
use lab::Lab;
use raw::Raw;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const VIOLATION: &str = "-ERR 'Authorization Violation'";

/// Rows that this file tests, by their `case`.
const TESTED: [&str; 22] = [
    "TCP connection, nothing sent",
    "TCP connection, CONNECT sent without TLS",
    "TLS handshake before INFO was read",
    "TLS 1.1",
    "TLS without certificate, no CONNECT, idle",
    "TLS without certificate, SUB/PUB without CONNECT",
    "CONNECT refused",
    "second CONNECT with bad credentials on an accepted connection",
    "CONNECT with field account",
    "CONNECT with no_responders but headers false",
    "CONNECT that is not JSON",
    "CONNECT argument longer than 4096 bytes",
    "unknown verb",
    "PUB of 1048577 bytes",
    "pedantic, SUB foo..bar",
    "pedantic, PUB foo.*",
    "PUB outside the publish list",
    "SUB outside the subscribe list",
    "SUB with a queue outside the list",
    "PUB with reply $JS.ACK.x, _R_.x or _GR_.x",
    "400 violations on one connection",
    "request, nobody listening",
];

/// Rows tested elsewhere or not a wire fact of this crate, with the reason.
const ELSEWHERE: [(&str, &str); 3] = [
    ("token expires while connected", "closed_provisioning.rs: design6_a_connection_ends_with_its_token"),
    ("broker stops (SIGTERM)", "reload_and_shutdown.rs: clients_see_the_end_of_the_stream"),
    ("first PING from the broker", "a matter of nats-broker, whose tests have it"),
];

#[test]
fn every_row_is_tested_or_named() {
    let rows: Vec<Value> = golden::lines("wire-errors.jsonl");
    let cases: BTreeSet<&str> = rows.iter().map(|row| row["case"].as_str().unwrap()).collect();
    let known: BTreeSet<&str> = TESTED.iter().copied().chain(ELSEWHERE.iter().map(|(case, _)| *case)).collect();
    assert_eq!(cases, known);
    assert_eq!(rows.len(), TESTED.len() + ELSEWHERE.len());
}

async fn start(lab: &Lab) -> choria_broker::Handle {
    lab.start("plugin.choria.network.tls_timeout = 300ms\nplugin.choria.network.auth_timeout = 300ms\n").await
}

/// What is left to read until the broker closes or resets.
async fn rest(socket: &mut tokio::net::TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(lab::DEADLINE, socket.read_to_end(&mut bytes)).await.expect("not closed in time");
    // A reset is as good as an end here.
    let _ = read;
    bytes
}

#[tokio::test]
async fn before_tls() {
    let lab = Lab::new();
    let broker = start(&lab).await;

    let (mut silent, info) = raw::dial(broker.client_addr).await;
    assert_eq!(info["tls_required"], true);
    let answer = rest(&mut silent).await;
    // A TLS alert record may be sent; never a line of the protocol.
    assert!(!String::from_utf8_lossy(&answer).contains("-ERR"), "{answer:?}");

    let (mut clear, _) = raw::dial(broker.client_addr).await;
    clear.write_all(b"CONNECT {}\r\nPING\r\n").await.unwrap();
    let answer = rest(&mut clear).await;
    assert!(!String::from_utf8_lossy(&answer).contains("-ERR"), "{answer:?}");

    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let socket = tokio::net::TcpStream::connect(broker.client_addr).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(tls::anonymous_client_config());
    assert!(connector.connect(name, socket).await.is_err(), "INFO comes first");

    // A TLS 1.1 ClientHello: record 3.1, handshake 3.2, one suite, one signature algorithm, one curve.
    let (mut old, _) = raw::dial(broker.client_addr).await;
    let mut hello = vec![0x03, 0x02];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    hello.extend([0, 16, 0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 29]);
    let mut record = vec![22, 3, 1, 0, (hello.len() + 4) as u8, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    old.write_all(&record).await.unwrap();
    let answer = rest(&mut old).await;
    assert_eq!((answer[0], answer[5], answer[6]), (21, 2, 70), "fatal alert protocol_version: {answer:?}");
}

#[tokio::test]
async fn design6_connect_is_required_within_the_auth_deadline() {
    let lab = Lab::new();
    let broker = start(&lab).await;
    let mut idle = Raw::anonymous(broker.client_addr).await;
    assert_eq!(idle.info["auth_required"], true);
    assert_eq!(idle.until_closed().await, ["-ERR 'Authentication Timeout'"]);
    for operation in ["SUB foo 1\r\n", "PUB foo 1\r\nx\r\n", "PING\r\n"] {
        let mut early = Raw::anonymous(broker.client_addr).await;
        early.send(operation).await;
        assert_eq!(early.until_closed().await, [VIOLATION], "{operation}");
    }
}

#[tokio::test]
async fn bad_connects() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let member = lab.member("m.mcollective");

    for (fields, answer) in [
        (json!({"user": "provisioner", "pass": "wrong"}), VIOLATION),
        (json!({"account": "choria"}), VIOLATION),
        (json!({"headers": false}), "-ERR 'no responders requires headers support'"),
    ] {
        let mut raw = Raw::open(broker.client_addr, tls::client_config(&member).unwrap()).await.unwrap();
        assert_eq!(raw.connect(fields.clone()).await, Err(answer.to_owned()), "{fields}");
        assert_eq!(raw.until_closed().await, Vec::<String>::new(), "{fields}");
    }

    let mut raw = Raw::member(broker.client_addr, &member).await;
    let again = raw.ask("CONNECT {\"user\":\"provisioner\",\"pass\":\"wrong\"}\r\n").await;
    assert_eq!(again, [VIOLATION, "EOF"]);

    let mut raw = Raw::open(broker.client_addr, tls::client_config(&member).unwrap()).await.unwrap();
    raw.send("CONNECT this is not JSON\r\n").await;
    assert_eq!(raw.until_closed().await, Vec::<String>::new());

    // The original ends at 4096 bytes, which keeps large tokens out (spec 02, sharp edge 7); ours takes 64 KiB.
    let mut raw = Raw::open(broker.client_addr, tls::client_config(&member).unwrap()).await.unwrap();
    raw.connect(json!({"name": "x".repeat(60_000)})).await.unwrap();
    let mut raw = Raw::open(broker.client_addr, tls::client_config(&member).unwrap()).await.unwrap();
    let answer = raw.connect(json!({"name": "x".repeat(70_000)})).await;
    assert_eq!(answer, Err("-ERR 'maximum control line exceeded'".to_owned()));
}

#[tokio::test]
async fn bad_operations() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let member = lab.member("m.mcollective");

    let mut raw = Raw::member(broker.client_addr, &member).await;
    assert_eq!(raw.ask("NONSENSE foo\r\n").await, ["-ERR 'Unknown Protocol Operation'", "EOF"]);

    let mut raw = Raw::member(broker.client_addr, &member).await;
    raw.send("PUB foo 1048577\r\n").await;
    assert_eq!(raw.until_closed().await, ["-ERR 'Maximum Payload Violation'"]);

    let mut raw = Raw::open(broker.client_addr, tls::client_config(&member).unwrap()).await.unwrap();
    raw.connect(json!({"pedantic": true})).await.unwrap();
    assert_eq!(raw.ask("SUB foo..bar 1\r\n").await, ["-ERR 'Invalid Subject'"]);
    assert_eq!(raw.ask("PUB foo.* 1\r\nx\r\n").await, ["-ERR 'Invalid Publish Subject'"]);
    for reply in ["$JS.ACK.x", "_R_.x", "_GR_.x"] {
        let expected = format!("-ERR 'Permissions Violation for Publish with Reply of \"{reply}\"'");
        assert_eq!(raw.ask(&format!("PUB foo {reply} 1\r\nx\r\n")).await, [expected]);
    }

    let asked = raw.ask("SUB in.box 7\r\nPUB no.body in.box 1\r\nx\r\n").await;
    assert!(asked[0].starts_with("HMSG in.box 7 "), "{asked:?}");
    assert!(asked.iter().any(|line| line.starts_with("NATS/1.0 503")), "{asked:?}");
    assert!(asked.iter().any(|line| line == "Nats-Subject: no.body"), "{asked:?}");
}

#[tokio::test]
async fn permission_errors_leave_the_connection_open() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let mut node = Raw::node(broker.client_addr, "n1", &lab.token(Duration::from_secs(600))).await;
    let queued = node.ask("SUB foo workers 1\r\n").await;
    assert_eq!(queued, ["-ERR 'Permissions Violation for Subscription to \"foo\" using queue \"workers\"'"]);
    let violations = "PUB foo 1\r\nx\r\nSUB bar 1\r\n".repeat(200);
    let answers = node.ask(&violations).await;
    assert_eq!(answers.len(), 400);
    for pair in answers.chunks(2) {
        assert_eq!(pair[0], "-ERR 'Permissions Violation for Publish to \"foo\"'");
        assert_eq!(pair[1], "-ERR 'Permissions Violation for Subscription to \"bar\"'");
    }
    assert_eq!(node.ask("").await, Vec::<String>::new());
}

/// `info.json`: what INFO shows, and what it does not.
#[tokio::test]
async fn info_tells_what_clients_need() {
    let lab = Lab::new();
    let broker = lab.start("plugin.choria.network.public_url = b.example.net:4444\n").await;
    let raw = Raw::member(broker.client_addr, &lab.member("m.mcollective")).await;
    let info = &raw.info;
    assert_eq!((&info["server_name"], &info["cluster"]), (&json!(lab::IDENTITY), &json!("CHORIA")));
    assert_eq!((&info["host"], &info["port"]), (&json!("b.example.net"), &json!(4444)));
    assert_eq!((&info["tls_required"], &info["headers"]), (&json!(true), &json!(true)));
    assert_eq!((&info["proto"], &info["max_payload"]), (&json!(1), &json!(1_048_576)));
    for absent in ["tls_verify", "nonce", "jetstream"] {
        assert!(info.get(absent).is_none(), "{absent}: {info}");
    }
    assert_eq!(raw.account.as_deref(), Some("choria"));

    let broker = lab.start("").await;
    let (_, info) = raw::dial(broker.client_addr).await;
    assert_eq!(info["host"], lab::IDENTITY);
    assert_eq!(info["port"], broker.client_addr.port());
}

#[tokio::test]
async fn a_storm_of_refusals_does_not_stop_a_member() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let member = lab.member("m.mcollective");
    let storm = tokio::spawn(async move {
        let end = Instant::now() + Duration::from_millis(300);
        while Instant::now() < end {
            let (mut socket, _) = raw::dial(broker.client_addr).await;
            let _ = socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        }
        broker
    });
    let broker = storm.await.unwrap();
    let mut raw = Raw::member(broker.client_addr, &member).await;
    assert_eq!(raw.ask("").await, Vec::<String>::new());
}
