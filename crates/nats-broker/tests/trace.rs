//! Traces of single messages, against nats-server's.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::monitored::compare;
use common::{DEADLINE, Raw, connect_as, golden_lines, start, start_with};
use nats_broker::{
    AccountConfig, Broker, BrokerConfig, MappingTarget, Permissions, PublishGuard, RefusalReason, ServiceExport,
    ServiceImport, StaticAuthenticator, StreamExport, StreamImport, SubjectMapping, SubjectRules,
};
use serde_json::Value;

/// `trace.conf` without the account's own destination for sampled messages.
fn accounts() -> (Vec<AccountConfig>, StaticAuthenticator) {
    let mapping =
        SubjectMapping { source: "m".into(), targets: vec![MappingTarget { subject: "n".into(), weight: 100 }] };
    let a = AccountConfig {
        mappings: vec![mapping],
        ..AccountConfig::new("A").export(StreamExport::new("s.>")).export(ServiceExport::new("svc"))
    };
    let b = AccountConfig::new("B").import(StreamImport::new("A", "s.>")).import(ServiceImport::new("A", "svc"));
    let deny = |filter: &str| SubjectRules { allow: None, deny: vec![filter.to_owned()] };
    let limited = Permissions { publish: deny("no.>"), subscribe: deny("no.x"), responses: None };
    let free = Permissions::unlimited;
    let users = StaticAuthenticator::new().user("a", "x", "A", free()).user("lim", "x", "A", limited).user(
        "b",
        "x",
        "B",
        free(),
    );
    (vec![a, b], users)
}

fn broker() -> Broker {
    let (accounts, users) = accounts();
    start(BrokerConfig::default(), accounts, Arc::new(users))
}

async fn login(addr: SocketAddr, user: &str, lines: &str) -> Raw {
    let mut raw = Raw::connect(addr).await;
    raw.send(connect_as(user, "x")).await;
    raw.send(lines).await;
    raw.sync().await;
    raw
}

fn hpub(subject: &str, headers: &[(&str, &str)], reply: &str) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let block = format!("NATS/1.0\r\n{lines}\r\n");
    format!("HPUB {subject} {reply}{} {}\r\n{block}x\r\n", block.len(), block.len() + 1)
}

/// Everything that came, behind an own PING.
async fn received(raw: &mut Raw) -> String {
    raw.send("PING\r\n").await;
    while !raw.received().ends_with(b"PONG\r\n") {
        assert!(raw.read_more(DEADLINE).await);
    }
    let count = raw.received().len();
    String::from_utf8(raw.take(count)).unwrap().strip_suffix("PONG\r\n").unwrap().to_owned()
}

/// The traces among what came.
fn traces(text: &str) -> Vec<Value> {
    text.split("\r\n").filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is the same in every recording: reply subjects and round trips are not.
fn without_chance(text: &str) -> String {
    let pattern = regex::Regex::new(r#"_R_\.\w{6}\.\w{6} \d+ \d+|"rtt":\d+"#).unwrap();
    pattern.replace_all(text, "").into_owned()
}

fn same_words(ours: &Value, wanted: &Value) {
    assert_eq!(ours["request"], wanted["request"]);
    let events = |trace: &Value| {
        let list = trace["events"].as_array().unwrap().iter();
        let word = |event: &Value, key: &str| event.get(key).cloned().unwrap_or_default();
        let keys = ["type", "acc", "subj", "sub", "queue", "from", "to", "error"];
        list.map(|event| keys.map(|key| word(event, key))).collect::<Vec<_>>()
    };
    assert_eq!(events(ours), events(wanted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_trace() {
    let broker = broker();
    let addr = broker.local_addr(0).unwrap();
    let (mut rows, mut left_out) = (0, 0);
    for row in golden_lines("trace.jsonl") {
        let case = row["case"].as_str().unwrap();
        if case == "traceparent-sampled" {
            // A destination that the account sets for messages of others.
            left_out += 1;
            continue;
        }
        let user = row["publisher"].as_str().unwrap();
        let mut watch = login(addr, if user == "b" { "b" } else { "a" }, "SUB tr.> 9\r\nSUB acc.trace 9\r\n").await;
        let mut subscribers = Vec::new();
        for subscriber in row["subscribers"].as_array().unwrap() {
            subscribers.push(login(addr, subscriber[0].as_str().unwrap(), subscriber[1].as_str().unwrap()).await);
        }
        let mut publisher = login(addr, user, "").await;
        let headers: Vec<(&str, &str)> = row["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|header| (header[0].as_str().unwrap(), header[1].as_str().unwrap()))
            .collect();
        let reply = if case == "service-import" { "in " } else { "" };
        publisher.send(hpub(row["subject"].as_str().unwrap(), &headers, reply)).await;
        let told = format!("{}PONG\r\n", received(&mut publisher).await);
        assert_eq!(told, row["publisher_receives"].as_str().unwrap(), "{case}");
        for (subscriber, wanted) in subscribers.iter_mut().zip(row["subscribers_receive"].as_array().unwrap()) {
            let got = without_chance(&received(subscriber).await);
            assert_eq!(got, without_chance(wanted[1].as_str().unwrap()), "{case}");
        }
        let ours = traces(&received(&mut watch).await);
        let wanted = row["trace_events"].as_array().unwrap();
        assert_eq!(ours.len(), wanted.len(), "{case}: {ours:?}");
        for (ours, wanted) in ours.iter().zip(wanted) {
            let mut failures = Vec::new();
            compare(case, ours, &wanted["event"], &mut failures);
            assert!(failures.is_empty(), "{}", failures.join("\n"));
            same_words(ours, &wanted["event"]);
        }
        rows += 1;
        // The next case has its own listeners.
        drop((watch, publisher, subscribers));
        while broker.monitor().varz().connections > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!((rows, left_out), (14, 1));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_only_where_its_publisher_may_publish() {
    struct Guard;
    impl PublishGuard for Guard {
        fn guarded(&self) -> Vec<(String, String)> {
            vec![("A".into(), "guarded.>".into())]
        }

        fn check(&self, _: &str, _: Option<&str>, _: &str, _: &[u8]) -> Result<(), RefusalReason> {
            Ok(())
        }
    }
    let (accounts, users) = accounts();
    let guards: Vec<Arc<dyn PublishGuard>> = vec![Arc::new(Guard)];
    let broker = start_with(BrokerConfig::default(), accounts, Arc::new(users), guards, Arc::new(common::Unobserved));
    let addr = broker.local_addr(0).unwrap();
    let mut watch = login(addr, "a", "SUB no.> 1\r\nSUB guarded.> 1\r\nSUB q 1\r\n").await;
    let mut publisher = login(addr, "lim", "").await;
    for to in ["no.t", "guarded.t"] {
        publisher.send(hpub("q", &[("Nats-Trace-Dest", to)], "")).await;
        let told = received(&mut publisher).await;
        assert_eq!(told, format!("-ERR 'Permissions Violation for Publish to \"{to}\"'\r\n"));
    }
    assert_eq!(received(&mut watch).await, "", "neither the trace nor the message");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_listens_is_told_as_ever() {
    let broker = broker();
    let addr = broker.local_addr(0).unwrap();
    let mut raw = Raw::connect(addr).await;
    raw.send(
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true,\"echo\":false,\"user\":\"a\",\"pass\":\"x\"}\r\n\
         SUB in 1\r\nSUB q 2\r\n",
    )
    .await;
    raw.sync().await;
    let mut watch = login(addr, "a", "SUB tr.> 9\r\n").await;
    raw.send(hpub("q", &[("Nats-Trace-Dest", "tr.d"), ("Nats-Trace-Only", "1")], "in ")).await;
    let told = received(&mut raw).await;
    assert!(told.starts_with("HMSG in 1 ") && told.contains("503"), "{told}");
    let trace = traces(&received(&mut watch).await).remove(0);
    assert_eq!(trace["events"][1]["error"], "Not delivered because of no echo");
    broker.shutdown().await;
}
