//! Many at once: nothing is lost, nothing is left behind.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{CONNECT, DEADLINE, Raw, open_broker, start};
use nats_broker::{
    AccountConfig, BrokerConfig, OpenAuthenticator, Permissions, Reload, StaticAuthenticator, SubjectRules,
};
use nats_proto::server_op::{ServerOp, parse};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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
    let mut tasks = JoinSet::new();
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
    let mut tasks = JoinSet::new();
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

/// Users `u0`…`u9` of account A, who may hear everything, or all but what is secret.
fn ten_users(may_hear_secrets: bool) -> StaticAuthenticator {
    let deny = if may_hear_secrets { vec![] } else { vec!["secret.>".to_owned()] };
    let rights = Permissions { subscribe: SubjectRules { allow: None, deny }, ..Permissions::default() };
    (0..10)
        .fold(StaticAuthenticator::new(), |users, number| users.user(&format!("u{number}"), "x", "A", rights.clone()))
}

/// Comes, subscribes, publishes, changes its mind and goes, until told to stop; gives the last connection.
async fn restless(addr: std::net::SocketAddr, user: String, stop: CancellationToken) -> Raw {
    let mut round = 0_u32;
    loop {
        let mut raw = Raw::connect(addr).await;
        raw.send(common::connect_as(&user, "x")).await;
        raw.send("SUB > 1\r\nSUB secret.x 2\r\nSUB secret.* q 3\r\nSUB *.x 4\r\nUNSUB 4 1000000\r\n").await;
        for _ in 0..20 {
            round += 1;
            raw.send("PUB secret.x 2\r\nhi\r\nPUB ok.x 2\r\nhi\r\nSUB secret.y 5\r\n").await;
            raw.send(format!("UNSUB 5\r\nUNSUB {}\r\nSUB *.x 4\r\nPING\r\n", 1 + round % 4)).await;
            while !raw.received().windows(6).any(|six| six == b"PONG\r\n") {
                assert!(raw.read_more(DEADLINE).await, "{}", String::from_utf8_lossy(raw.received()));
            }
            let waiting = raw.received().len();
            raw.take(waiting);
        }
        raw.send("SUB > 11\r\nSUB secret.x 12\r\nSUB secret.> q 13\r\n").await;
        if stop.is_cancelled() {
            return raw;
        }
    }
}

/// However logins, subscriptions and reloads meet: what counts in the end are the last rights, and nothing stays behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rights_that_change_all_the_time_are_the_last_ones_in_the_end() {
    // Room for those that are still going.
    const MOST: usize = 100;
    let accounts = || vec![AccountConfig { max_connections: Some(MOST), ..AccountConfig::new("A") }];
    let broker = start(BrokerConfig::default(), accounts(), Arc::new(ten_users(true)));
    let addr = broker.local_addr(0).unwrap();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        tasks.spawn(restless(addr, format!("u{number}"), stop.clone()));
    }
    let reload = |may_hear_secrets| {
        let config = BrokerConfig { listen: vec![common::loopback()], ..BrokerConfig::default() };
        let authenticator = Arc::new(ten_users(may_hear_secrets));
        broker.reload(Reload { config, accounts: accounts(), authenticator, guards: vec![] }).unwrap()
    };
    for round in 0..300 {
        assert_eq!(reload(round % 2 == 0).connections_ended, 0);
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let mut staying = tokio::time::timeout(DEADLINE * 3, tasks.join_all()).await.unwrap();
    for raw in &mut staying {
        raw.send("SUB mark 99\r\nPING\r\n").await;
        while !raw.received().ends_with(b"PONG\r\n") {
            assert!(raw.read_more(DEADLINE).await);
        }
        let waiting = raw.received().len();
        raw.take(waiting);
    }
    // Everything is allowed for a moment, then no longer.
    reload(true);
    for raw in &mut staying {
        raw.send("SUB > 21\r\nSUB secret.x 22\r\nSUB secret.> q 23\r\nPING\r\n").await;
        while !raw.received().ends_with(b"PONG\r\n") {
            assert!(raw.read_more(DEADLINE).await);
        }
    }
    reload(false);
    for info in broker.connections("A") {
        assert!(!info.subscriptions.iter().any(|filter| filter.starts_with("secret")), "{info:?}");
    }
    broker.publish("A", "secret.x", None, None, b"hi").unwrap();
    broker.publish("A", "mark", None, None, b"").unwrap();
    for raw in &mut staying {
        while !raw.received().windows(8).any(|seen| seen == b"MSG mark") {
            assert!(raw.read_more(DEADLINE).await);
        }
        let text = String::from_utf8_lossy(raw.received()).into_owned();
        assert!(!text.contains("MSG secret"), "{text}");
    }
    drop(staying);
    until_empty(&broker).await;
    // The account counts right: exactly so many may come.
    let mut raws = Vec::new();
    for _ in 0..MOST {
        let mut raw = Raw::connect(addr).await;
        raw.send(common::connect_as("u1", "x")).await;
        raw.sync().await;
        raws.push(raw);
    }
    let mut raw = Raw::connect(addr).await;
    raw.send(common::connect_as("u1", "x")).await;
    assert_eq!(raw.rest().await, "-ERR 'maximum account active connections exceeded'\r\n");
    broker.shutdown().await;
}

/// A crowd sends more in one round than the subscriber may have waiting, and it reads as fast as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_publishers_does_not_drown_a_subscriber_that_reads() {
    const PUBLISHERS: usize = 64;
    const EACH: usize = 24;
    const PAYLOAD: usize = 60 << 10;
    let config = BrokerConfig { max_pending: 12 << 20, ..BrokerConfig::default() };
    let broker = start(config, vec![AccountConfig::new("$G")], Arc::new(OpenAuthenticator::default()));
    let addr = broker.local_addr(0).unwrap();
    let mut subscriber = Raw::connect(addr).await;
    subscriber.send(format!("{CONNECT}SUB storm 1\r\n")).await;
    subscriber.sync().await;
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        publishers.spawn(async move {
            let mut raw = Raw::connect(addr).await;
            let message = format!("PUB storm {PAYLOAD}\r\n{}\r\n", "x".repeat(PAYLOAD));
            raw.send(format!("{CONNECT}{}", message.repeat(EACH))).await;
            raw.sync().await;
        });
    }
    let wanted = PUBLISHERS * EACH * (format!("MSG storm 1 {PAYLOAD}\r\n\r\n").len() + PAYLOAD);
    let mut got = 0;
    while got < wanted {
        assert!(subscriber.read_more(DEADLINE).await, "{got} of {wanted} bytes; over: {}", subscriber.is_over());
        let length = subscriber.received().len();
        got += length;
        subscriber.take(length);
    }
    while let Some(publisher) = publishers.join_next().await {
        publisher.unwrap();
    }
    assert_eq!(broker.monitor().varz().slow_consumers, 0);
    broker.shutdown().await;
}
