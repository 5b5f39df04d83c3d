//! Clients that want too much, or take too little, are their own problem.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{CONNECT, DEADLINE, Raw, open_broker, start};
use nats_broker::{AccountConfig, BrokerConfig, OpenAuthenticator};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Quiet pairs beside the flood.
const QUIET: usize = 100;

async fn subscriber(addr: std::net::SocketAddr, subject: &str) -> Raw {
    let mut raw = Raw::connect(addr).await;
    raw.send(format!("{CONNECT}SUB {subject} 1\r\n")).await;
    raw.sync().await;
    raw
}

/// Publishes without pause until it is told to stop, and gives the number of blocks.
async fn flood(addr: std::net::SocketAddr, is_over: Arc<AtomicBool>, blocks: Arc<AtomicUsize>) {
    let mut raw = Raw::connect(addr).await;
    raw.send(CONNECT).await;
    let block = format!("PUB flood 100\r\n{}\r\n", "x".repeat(100)).repeat(2000);
    while !is_over.load(Ordering::Relaxed) {
        raw.send(&block).await;
        blocks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Each pair gets its messages through while the flood goes on: all of them, in order, each before its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_flooding_publisher_does_not_starve_a_hundred_quiet_ones() {
    let broker = open_broker();
    let addr = broker.local_addr(0).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let blocks = Arc::new(AtomicUsize::new(0));
    // Somebody takes the flood, so that it is work for the broker.
    let mut sink = subscriber(addr, "flood").await;
    let done = Arc::clone(&is_over);
    let draining = tokio::spawn(async move {
        while !done.load(Ordering::Relaxed) && sink.read_more(DEADLINE).await {
            let count = sink.received().len();
            sink.take(count);
        }
    });
    let mut pairs = Vec::new();
    for number in 0..QUIET {
        let to = subscriber(addr, &format!("quiet.{number}")).await;
        let mut from = Raw::connect(addr).await;
        from.send(CONNECT).await;
        pairs.push((from, to));
    }
    let flooding = tokio::spawn(flood(addr, Arc::clone(&is_over), Arc::clone(&blocks)));
    let deadline = Instant::now() + DEADLINE;
    while blocks.load(Ordering::Relaxed) < 10 {
        assert!(Instant::now() < deadline, "the flood did not begin");
        tokio::task::yield_now().await;
    }
    let before = blocks.load(Ordering::Relaxed);
    let mut quiet = JoinSet::new();
    for (number, (mut from, mut to)) in pairs.into_iter().enumerate() {
        quiet.spawn(async move {
            for count in 0..20 {
                from.send(format!("PUB quiet.{number} 4\r\n{count:04}\r\n")).await;
                to.expect(format!("MSG quiet.{number} 1 4\r\n{count:04}\r\n")).await;
            }
        });
    }
    timeout(DEADLINE, quiet.join_all()).await.unwrap();
    let during = blocks.load(Ordering::Relaxed) - before;
    is_over.store(true, Ordering::Relaxed);
    timeout(DEADLINE, flooding).await.unwrap().unwrap();
    timeout(DEADLINE, draining).await.unwrap().unwrap();
    assert!(during > 0, "there was no flood while the quiet ones talked");
    broker.shutdown().await;
}

/// Somebody who subscribes and never reads is ended at its pending limit: until then it holds no more than that, others of
/// the same subject get everything, and nobody else is ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wedged_subscriber_costs_at_most_its_pending_limit() {
    const LIMIT: usize = 4 << 20;
    const SIZE: usize = 10_000;
    let config = BrokerConfig { max_pending: LIMIT, write_deadline: DEADLINE * 3, ..BrokerConfig::default() };
    let broker = start(config, vec![AccountConfig::new("$G")], Arc::new(OpenAuthenticator::default()));
    let addr = broker.local_addr(0).unwrap();
    let wedged = subscriber(addr, "a").await;
    let wedged_cid = broker.connections("$G")[0].cid;
    let mut fine = subscriber(addr, "a").await;
    let mut publisher = Raw::connect(addr).await;
    publisher.send(CONNECT).await;
    let message = format!("PUB a {SIZE}\r\n{}\r\n", "x".repeat(SIZE));
    let deadline = Instant::now() + DEADLINE;
    let mut sent = 0;
    while broker.monitor().varz().slow_consumers == 0 {
        assert!(Instant::now() < deadline, "never ended after {sent} messages");
        publisher.send(&message).await;
        publisher.sync().await;
        sent += 1;
        fine.expect(format!("MSG a 1 {SIZE}\r\n{}\r\n", "x".repeat(SIZE))).await;
        let query = nats_broker::monitor::ConnzQuery::default();
        for entry in broker.monitor().connz(&query).unwrap().connections {
            assert!(entry.pending_bytes <= LIMIT + SIZE + 100, "{} bytes wait", entry.pending_bytes);
        }
    }
    while broker.connections("$G").iter().any(|conn| conn.cid == wedged_cid) {
        assert!(Instant::now() < deadline, "the wedged one stays");
        tokio::task::yield_now().await;
    }
    assert_eq!(broker.connections("$G").len(), 2);
    fine.sync().await;
    publisher.sync().await;
    assert_eq!(broker.monitor().varz().slow_consumers, 1);
    drop(wedged);
    broker.shutdown().await;
}

/// A fleet that comes back at once in clear text: all are served at the first try, and messages between others go through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_in_clear_text_is_served_while_others_talk() {
    // Ten thousand outside of tests; here both ends share one process and its processors.
    const HERD: usize = 1500;
    let broker = open_broker();
    let addr = broker.local_addr(0).unwrap();
    let is_done = Arc::new(AtomicBool::new(false));
    let (done, trips) = (Arc::clone(&is_done), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&trips);
    // In a runtime of their own: the herd's side of the sockets must not be what they wait for.
    let talking = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut to = subscriber(addr, "pair").await;
            let mut from = Raw::connect(addr).await;
            from.send(CONNECT).await;
            while !done.load(Ordering::Relaxed) {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                from.send(format!("PUB pair 6\r\n{number:06}\r\n")).await;
                to.expect(format!("MSG pair 1 6\r\n{number:06}\r\n")).await;
            }
        });
    });
    let deadline = Instant::now() + DEADLINE;
    while trips.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < deadline, "the pair did not begin");
        tokio::task::yield_now().await;
    }
    let before = trips.load(Ordering::Relaxed);
    for round in 0..2 {
        let mut herd = JoinSet::new();
        for number in 0..HERD {
            herd.spawn(async move {
                let mut raw = Raw::connect(addr).await;
                raw.send(format!("{CONNECT}SUB node.{number} 1\r\nPUB node.{number} 2\r\nok\r\n")).await;
                raw.expect(format!("MSG node.{number} 1 2\r\nok\r\n")).await;
                raw
            });
        }
        let herd = timeout(DEADLINE, herd.join_all()).await.unwrap();
        assert_eq!(herd.len(), HERD, "round {round}");
    }
    let during = trips.load(Ordering::Relaxed) - before;
    is_done.store(true, Ordering::Relaxed);
    tokio::task::spawn_blocking(move || talking.join().unwrap()).await.unwrap();
    assert!(during >= 100, "only {during} messages went through");
    broker.shutdown().await;
}
