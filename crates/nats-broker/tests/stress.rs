//! Many at once: nothing is lost, nothing is left behind.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{CONNECT, DEADLINE, Raw, open_broker};
use nats_proto::server_op::{ServerOp, parse};

/// Waits until the broker has neither connections nor subscriptions.
async fn until_empty(broker: &nats_broker::Broker) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let varz = broker.monitor().varz();
        if varz.connections == 0 && varz.subscriptions == 0 {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} connections and {} subscriptions stayed",
            varz.connections,
            varz.subscriptions
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn comings_and_goings_leave_nothing_behind() {
    let broker = open_broker();
    let addr = broker.local_addr(0).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        tasks.spawn(async move {
            for round in 0..40 {
                let mut raw = Raw::connect(addr).await;
                let mut lines = String::from(CONNECT);
                for sub in 0..30 {
                    lines.push_str(&format!("SUB s.{}.{sub} {sub}\r\nSUB s.*.{sub} q{} w{sub}\r\n", task % 3, sub % 2));
                }
                lines.push_str("SUB > all\r\nUNSUB all 5\r\n");
                for publish in 0..50 {
                    lines.push_str(&format!("PUB s.{}.{} in.1 3\r\nabc\r\n", round % 3, publish % 30));
                    if publish % 7 == 0 {
                        lines.push_str(&format!("UNSUB {}\r\nUNSUB w{} 3\r\n", publish % 30, publish % 30));
                    }
                }
                raw.send(lines).await;
                if round % 3 != 0 {
                    // Others leave with all of it still on its way.
                    raw.send("PING\r\n").await;
                    loop {
                        assert!(raw.read_more(DEADLINE).await);
                        if raw.received().windows(6).any(|six| six == b"PONG\r\n") {
                            break;
                        }
                    }
                }
            }
        });
    }
    tokio::time::timeout(DEADLINE * 3, tasks.join_all()).await.unwrap();
    until_empty(&broker).await;
    broker.shutdown().await;
}

/// Several publishers against a reader that stops now and then: its socket is full, others write for it, its own
/// task goes on, and still every publisher's messages come whole and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_message_of_every_publisher_arrives_in_order() {
    const PUBLISHERS: usize = 4;
    const MESSAGES: usize = 6000;
    let broker = open_broker();
    let addr = broker.local_addr(0).unwrap();
    let mut reader = Raw::connect(addr).await;
    reader.send(CONNECT).await;
    reader.send("SUB o.* 1\r\n").await;
    reader.sync().await;
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..PUBLISHERS {
        tasks.spawn(async move {
            let mut raw = Raw::connect(addr).await;
            raw.send(CONNECT).await;
            for block in 0..MESSAGES / 100 {
                let lines: String = (0..100)
                    .map(|line| {
                        let number = block * 100 + line;
                        let size = 6 + number % 1500;
                        format!("PUB o.{publisher} {size}\r\n{number:06}{}\r\n", "x".repeat(size - 6))
                    })
                    .collect();
                raw.send(lines).await;
            }
            raw.sync().await;
        });
    }
    let mut next = [0; PUBLISHERS];
    let mut pending = Vec::new();
    let mut reads = 0;
    while next.iter().sum::<usize>() < PUBLISHERS * MESSAGES {
        reads += 1;
        if reads % 64 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(reader.read_more(DEADLINE).await, "got {next:?}");
        let count = reader.received().len();
        pending.extend(reader.take(count));
        let mut at = 0;
        while let Some((op, length)) = parse(&pending[at..], 1 << 20).unwrap() {
            let ServerOp::Message { subject, content, .. } = op else { panic!("{op:?}") };
            let publisher: usize = std::str::from_utf8(&subject[2..]).unwrap().parse().unwrap();
            let number: usize = std::str::from_utf8(&content[..6]).unwrap().parse().unwrap();
            assert_eq!(number, next[publisher], "publisher {publisher}");
            next[publisher] += 1;
            at += length;
        }
        pending.drain(..at);
    }
    tokio::time::timeout(DEADLINE, tasks.join_all()).await.unwrap();
    drop(reader);
    until_empty(&broker).await;
    broker.shutdown().await;
}
