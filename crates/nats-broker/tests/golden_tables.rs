//! The tables that nats-server answered: subjects, permissions, queue shares.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::configs::setup;
use common::{CONNECT, Raw, connect_as, golden_lines, open_broker, start, testdata};
use serde_json::Value;

const VERBOSE: &str = "CONNECT {\"verbose\":true,\"pedantic\":false,\"headers\":true}\r\n";
const PEDANTIC: &str = "CONNECT {\"verbose\":true,\"pedantic\":true,\"headers\":true}\r\n";

/// What comes back for a line, up to the PONG behind it; `closed` when the connection ends.
async fn answer(raw: &mut Raw, line: &str) -> String {
    raw.send(line).await;
    raw.send("PING\r\n").await;
    let mut seen = Vec::new();
    loop {
        while !raw.received().contains(&b'\n') {
            if !raw.read_more(common::DEADLINE).await {
                return "closed".to_owned();
            }
        }
        let next = raw.line().await;
        if next == "PONG" {
            return seen.join(" | ");
        }
        seen.push(next);
    }
}

async fn client(broker: &nats_broker::Broker, connect: &str) -> Raw {
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    raw.send(connect).await;
    raw.expect("+OK\r\n").await;
    raw
}

fn has_control(subject: &str) -> bool {
    // A tab or blank ends the subject; what is behind it is another argument.
    subject.split([' ', '\t']).next().unwrap().bytes().any(|byte| byte < b' ' || byte == 0x7f)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_validity() {
    let broker = open_broker();
    let mut rows = 0;
    for row in golden_lines("subjects-validity.jsonl") {
        let subject = row["subject"].as_str().unwrap();
        let golden = |key: &str| row[key].as_str().map(str::to_owned);
        let mut listener = client(&broker, VERBOSE).await;
        assert_eq!(answer(&mut listener, "SUB > 1\r\n").await, "+OK");
        for (connect, suffix) in [(VERBOSE, ""), (PEDANTIC, "_pedantic")] {
            let sub = answer(&mut client(&broker, connect).await, &format!("SUB {subject} 1\r\n")).await;
            let publish = answer(&mut client(&broker, connect).await, &format!("PUB {subject} 1\r\nx\r\n")).await;
            let delivered = answer(&mut listener, "").await;
            let delivered = delivered.strip_prefix("MSG ").map(|line| line.split(" 1 ").next().unwrap().to_owned());
            if has_control(subject) {
                // Ours refuses control characters, the reference hands them to the parsers of others.
                assert_eq!(sub, "-ERR 'Invalid Subject'", "SUB {subject:?}");
                assert_eq!(publish, "-ERR 'Invalid Publish Subject'", "PUB {subject:?}");
                assert_eq!(delivered, None, "{subject:?}");
                continue;
            }
            assert_eq!(Some(sub), golden(&format!("sub{suffix}")), "SUB {subject:?} {suffix}");
            assert_eq!(Some(publish), golden(&format!("pub{suffix}")), "PUB {subject:?} {suffix}");
            assert_eq!(delivered, golden(&format!("pub{suffix}_delivered_to_>")), "{subject:?} {suffix}");
        }
        rows += 1;
    }
    assert_eq!(rows, 83);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_match() {
    let rows = golden_lines("subjects-match.jsonl");
    let patterns: Vec<String> = serde_json::from_value(rows[0]["patterns"].clone()).unwrap();
    let broker = open_broker();
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    raw.send(CONNECT).await;
    for (sid, pattern) in patterns.iter().enumerate() {
        raw.send(format!("SUB {pattern} {sid}\r\n")).await;
    }
    for row in &rows[1..] {
        let subject = row["subject"].as_str().unwrap();
        raw.send(format!("PUB {subject} 0\r\n\r\nPING\r\n")).await;
        let mut got = BTreeSet::new();
        loop {
            let line = raw.line().await;
            if line == "PONG" {
                break;
            }
            if let Some(rest) = line.strip_prefix(&format!("MSG {subject} ")) {
                let sid: usize = rest.split(' ').next().unwrap().parse().unwrap();
                got.insert(patterns[sid].clone());
                assert!(nats_proto::subject::matches(&patterns[sid], subject));
            }
        }
        let expected: BTreeSet<String> = serde_json::from_value(row["matches"].clone()).unwrap();
        assert_eq!(got, expected, "{subject}");
    }
    broker.shutdown().await;
}

/// Rows that ours answers differently: an empty list means none, and a subscription must be a subset of an allow entry.
fn expected_permission(row: &Value) -> String {
    let (user, op) = (row["user"].as_str().unwrap(), row["op"].as_str().unwrap());
    let subscription = |subject: &str, queue: &str| {
        let using = if queue.is_empty() { String::new() } else { format!(" using queue \"{queue}\"") };
        format!("-ERR 'Permissions Violation for Subscription to \"{subject}\"{using}'")
    };
    match (user, op) {
        ("pub-allow-empty-list" | "pub-allow-obj-empty-list", "PUB a") => {
            "-ERR 'Permissions Violation for Publish to \"a\"'".to_owned()
        }
        ("pub-allow-obj-empty-list", "SUB a") => subscription("a", ""),
        ("sub-allow-list", "SUB b.>") => subscription("b.>", ""),
        ("sub-allow-foo-star", "SUB foo.>") => subscription("foo.>", ""),
        ("sub-allow-star", "SUB >") => subscription(">", ""),
        ("sub-queue-wild-subject", "SUB foo.> q1") => subscription("foo.>", "q1"),
        _ => row["reply"].as_str().unwrap().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions() {
    let setup = setup("permissions").unwrap();
    let broker = start(setup.config, setup.accounts, setup.authenticator);
    let mut failures = Vec::new();
    let mut rows = 0;
    for row in golden_lines("permissions.jsonl") {
        let user = row["user"].as_str().unwrap();
        let op = row["op"].as_str().unwrap();
        let connect = format!("CONNECT {{\"verbose\":true,\"pedantic\":false,\"user\":\"{user}\",\"pass\":\"x\"}}\r\n");
        let mut raw = client(&broker, &connect).await;
        let words: Vec<&str> = op.split(' ').collect();
        let line = match words.as_slice() {
            ["PUB", subject] => format!("PUB {subject} 1\r\nx\r\n"),
            ["PUBR", subject, reply] => format!("PUB {subject} {reply} 1\r\nx\r\n"),
            ["SUB", subject] => format!("SUB {subject} 1\r\n"),
            ["SUB", subject, queue] => format!("SUB {subject} {queue} 1\r\n"),
            other => panic!("{other:?}"),
        };
        let got = answer(&mut raw, &line).await;
        let expected = expected_permission(&row);
        if got != expected {
            failures.push(format!("{user} {op}: wanted {expected}, got {got}"));
        }
        rows += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(rows, 160);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_delivery() {
    let setup = setup("permissions").unwrap();
    let broker = start(setup.config, setup.accounts, setup.authenticator);
    let addr = broker.local_addr(0).unwrap();
    let mut admin = Raw::connect(addr).await;
    admin.send(connect_as("admin", "x")).await;
    for row in golden_lines("permissions-delivery.jsonl") {
        let Some(user) = row["user"].as_str() else {
            denied_queue_member(&broker).await;
            continue;
        };
        let mut raw = Raw::connect(addr).await;
        raw.send(connect_as(user, "x")).await;
        let sub = row["sub"].as_str().unwrap();
        raw.send(format!("SUB {sub} 1\r\nPING\r\n")).await;
        let first = raw.line().await;
        // Refused at SUB already: the first by nats-server too, the others for being more than an allow entry.
        let refused = [("sub-deny-wild", "a.>"), ("sub-allow-foo-star", "foo.>"), ("sub-allow-star", ">")];
        if refused.contains(&(user, sub)) {
            assert!(first.starts_with("-ERR 'Permissions Violation for Subscription"), "{user} {sub}: {first}");
            continue;
        }
        assert_eq!(first, "PONG", "{user} {sub}");
        let published: Vec<String> = serde_json::from_value(row["published"].clone()).unwrap();
        for subject in &published {
            admin.send(format!("PUB {subject} 0\r\n\r\n")).await;
        }
        admin.sync().await;
        let delivered: Vec<String> = serde_json::from_value(row["delivered"].clone()).unwrap();
        let expected: String = delivered.iter().map(|subject| format!("MSG {subject} 1 0\r\n\r\n")).collect();
        raw.expect(expected).await;
        raw.sync().await;
    }
    broker.shutdown().await;
}

/// One member of a queue group may not receive a.b: all 200 messages go to the other.
async fn denied_queue_member(broker: &nats_broker::Broker) {
    let addr = broker.local_addr(0).unwrap();
    let mut members = Vec::new();
    for user in ["sub-deny-literal", "admin"] {
        let mut raw = Raw::connect(addr).await;
        raw.send(connect_as(user, "x")).await;
        raw.send("SUB a.* q 1\r\n").await;
        raw.sync().await;
        members.push(raw);
    }
    let mut publisher = Raw::connect(addr).await;
    publisher.send(connect_as("admin", "x")).await;
    publisher.send("PUB a.b 0\r\n\r\n".repeat(200)).await;
    publisher.sync().await;
    members[1].expect("MSG a.b 1 0\r\n\r\n".repeat(200)).await;
    members[0].sync().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_distribution() {
    let text = std::fs::read_to_string(testdata("queue-distribution.json")).unwrap();
    let golden: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    for (name, case) in golden {
        let Some(connections) = case["subscriptions_per_connection_and_count_of_6000"].as_array() else { continue };
        let broker = open_broker();
        let addr = broker.local_addr(0).unwrap();
        let mut raws = Vec::new();
        let mut members: BTreeMap<String, usize> = BTreeMap::new();
        for connection in connections {
            let mut raw = Raw::connect(addr).await;
            raw.send(CONNECT).await;
            for (sid, sub) in connection.as_object().unwrap().keys().enumerate() {
                if let Some((_, queue)) = sub.split_once(' ') {
                    *members.entry(queue.to_owned()).or_default() += 1;
                }
                raw.send(format!("SUB {sub} {sid}\r\n")).await;
            }
            raw.sync().await;
            raws.push(raw);
        }
        let mut publisher = Raw::connect(addr).await;
        publisher.send(CONNECT).await;
        for _ in 0..60 {
            publisher.send("PUB w.1 0\r\n\r\n".repeat(100)).await;
        }
        publisher.sync().await;
        let mut totals: BTreeMap<String, usize> = BTreeMap::new();
        for (raw, connection) in raws.iter_mut().zip(connections) {
            let subs: Vec<&String> = connection.as_object().unwrap().keys().collect();
            let mut counts = vec![0; subs.len()];
            raw.send("PING\r\n").await;
            loop {
                let line = raw.line().await;
                match line.as_str() {
                    "PONG" => break,
                    "" => {}
                    _ => counts[line.split(' ').nth(2).unwrap().parse::<usize>().unwrap()] += 1,
                }
            }
            for (sub, count) in subs.iter().zip(counts) {
                if let Some((_, queue)) = sub.split_once(' ') {
                    let fair = 6000 / members[queue];
                    assert!(count * 100 >= fair * 85 && count * 100 <= fair * 115, "{name} {sub}: {count} of {fair}");
                    *totals.entry(queue.to_owned()).or_default() += count;
                } else {
                    assert_eq!(count, 6000, "{name} {sub}");
                }
            }
        }
        assert!(totals.values().all(|total| *total == 6000), "{name}: {totals:?}");
        assert_eq!(totals.len(), members.len(), "{name}");
        broker.shutdown().await;
    }
}
