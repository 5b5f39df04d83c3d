//! Reports of how long services took, beyond what was recorded in `wire-accounts.jsonl`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::notes::{client, users};
use common::{Raw, start};
use nats_broker::{
    AccountConfig, Broker, BrokerConfig, LatencySampling, Permissions, ServiceExport, ServiceImport, ServiceLatency,
};
use serde_json::Value;

fn measured(subject: &str, sampling: LatencySampling) -> ServiceExport {
    let latency = Some(ServiceLatency { subject: format!("lat.{subject}"), sampling });
    ServiceExport { latency, ..ServiceExport::new(subject) }
}

/// A answers, B passes on to C.
fn broker() -> Broker {
    let all = LatencySampling::Percent(100);
    let slow = ServiceExport { response_threshold: Duration::from_millis(200), ..measured("slow", all) };
    let accounts = vec![
        AccountConfig::new("A")
            .export(measured("svc", all))
            .export(measured("hdr", LatencySampling::Headers))
            .export(slow),
        AccountConfig::new("B")
            .import(ServiceImport::new("A", "svc"))
            .import(ServiceImport { share: true, ..ServiceImport::new("A", "hdr") })
            .import(ServiceImport::new("A", "slow"))
            .export(measured("svc", all)),
        AccountConfig::new("C").import(ServiceImport::new("B", "svc")),
    ];
    let free = Permissions::unlimited;
    let users = users(&["a"]).user("b", "x", "B", free()).user("c", "x", "C", free());
    start(BrokerConfig::default(), accounts, Arc::new(users))
}

/// Who answers, and a reader of the reports of its account.
async fn exporter(broker: &Broker, user: &str) -> (Raw, Raw) {
    let (mut responder, mut reports) = (client(broker, user).await, client(broker, user).await);
    responder.send("SUB svc 1\r\nSUB hdr 2\r\nSUB slow 3\r\n").await;
    reports.send("SUB lat.> 9\r\n").await;
    responder.sync().await;
    reports.sync().await;
    (responder, reports)
}

async fn report(reports: &mut Raw, subject: &str) -> Value {
    let head = reports.line().await;
    assert!(head.starts_with(&format!("MSG {subject} 9 ")), "{head}");
    serde_json::from_str(&reports.line().await).unwrap()
}

/// Reads a request and gives its reply subject.
async fn request(responder: &mut Raw) -> String {
    let head = responder.line().await;
    let reply = head.split(' ').nth(3).unwrap().to_owned();
    while !responder.line().await.is_empty() {}
    responder.line().await;
    reply
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_gets_no_answer_is_reported_too() {
    let broker = broker();
    let (mut a, mut reports) = exporter(&broker, "a").await;
    let mut b = client(&broker, "b").await;
    b.send("PUB svc 0\r\n\r\nPUB slow in 0\r\n\r\n").await;
    let refused = report(&mut reports, "lat.svc").await;
    assert_eq!((&refused["status"], &refused["description"]), (&400.into(), &"Bad Request".into()));
    let late = report(&mut reports, "lat.slow").await;
    assert_eq!((&late["status"], &late["description"]), (&504.into(), &"Service Timeout".into()));
    assert_eq!((&late["total"], late.get("responder")), (&0.into(), None));
    // Too late now, and not reported twice.
    request(&mut a).await;
    let reply = request(&mut a).await;
    a.send(format!("PUB {reply} 0\r\n\r\n")).await;
    a.sync().await;
    reports.sync().await;
    // One after the other, also behind a look that found nothing more to wait for.
    b.send("PUB slow in 0\r\n\r\n").await;
    assert_eq!(report(&mut reports, "lat.slow").await["status"], 504);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_choose_and_are_reported() {
    let broker = broker();
    let (mut a, mut reports) = exporter(&broker, "a").await;
    let mut b = client(&broker, "b").await;
    for (header, is_sampled) in [("X-B3-Sampled: 0", false), ("x-b3-sampled: 1", true)] {
        let block = format!("NATS/1.0\r\n{header}\r\n\r\n");
        b.send(format!("HPUB hdr in {0} {0}\r\n{block}\r\n", block.len())).await;
        let reply = request(&mut a).await;
        assert_eq!(reply.ends_with(".T"), is_sampled, "{reply}");
        a.send(format!("PUB {reply} 2\r\nok\r\n")).await;
    }
    let report = report(&mut reports, "lat.hdr").await;
    assert_eq!(report["header"], serde_json::json!({"X-B3-Sampled": ["1"]}));
    assert_eq!((&report["requestor"]["user"], &report["responder"]["user"]), (&"b".into(), &"a".into()));
    let number = |value: &Value| value.as_u64().unwrap();
    let parts = number(&report["service"]) + number(&report["system"]);
    let away = number(&report["requestor"]["rtt"]) + number(&report["responder"]["rtt"]);
    assert_eq!(number(&report["total"]), parts + away);
    reports.sync().await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_on_the_way_who_measures_gets_a_report() {
    let broker = broker();
    let (mut a, mut reports) = exporter(&broker, "a").await;
    let mut passed_on = client(&broker, "b").await;
    passed_on.send("SUB lat.> 9\r\n").await;
    passed_on.sync().await;
    let mut c = client(&broker, "c").await;
    c.send("SUB in 1\r\nPUB svc in 0\r\n\r\n").await;
    let reply = request(&mut a).await;
    a.send(format!("PUB {reply} 2\r\nok\r\n")).await;
    c.expect("MSG in 1 2\r\nok\r\n").await;
    for raw in [&mut reports, &mut passed_on] {
        let report = report(raw, "lat.svc").await;
        assert_eq!((&report["status"], &report["requestor"]["acc"]), (&200.into(), &"C".into()));
        assert_eq!(report["responder"]["acc"], "A");
        raw.sync().await;
    }
    broker.shutdown().await;
}
