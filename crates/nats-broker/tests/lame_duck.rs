//! A broker that is going: who is told, who is closed when.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{CONNECT, DEADLINE, Raw, open_broker, start, testdata};
use nats_broker::{AccountConfig, Broker, BrokerConfig, OpenAuthenticator};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const PROTOCOL_1: &str = "CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n";

fn going(duration: Duration, grace: Duration) -> Broker {
    let config = BrokerConfig {
        lame_duck_duration: duration,
        lame_duck_grace_period: grace,
        auth_timeout: DEADLINE,
        ..BrokerConfig::default()
    };
    start(config, vec![AccountConfig::new("$G")], Arc::new(OpenAuthenticator::default()))
}

/// A client of protocol 1 that has got its second INFO.
async fn client(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    raw.send(PROTOCOL_1).await;
    raw.expect("PONG\r\n").await;
    assert!(raw.line().await.contains("connect_info"));
    raw
}

fn leave(broker: &Broker) -> tokio::task::JoinHandle<()> {
    let broker = broker.clone();
    tokio::spawn(async move { broker.lame_duck().await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_lame_duck() {
    let golden: Value = serde_json::from_slice(&std::fs::read(testdata("reload/lame-duck.json")).unwrap()).unwrap();
    assert_eq!(golden["protocol1_receives"], "<INFO-LDM>\r\n");
    assert_eq!(golden["protocol0_receives"], "");
    assert_eq!(golden["connected_without_connect_receives"], "");
    assert_eq!(golden["new_connection"], "ConnectionRefusedError");
    // In real time, shortened: grace is 300 ms, then five clients within 1.2 s.
    let grace = Duration::from_millis(300);
    let broker = going(Duration::from_millis(1500), grace);
    let addr = broker.local_addr(0).unwrap();
    let mut protocol_1 = client(&broker).await;
    let mut protocol_0 = Raw::connect(addr).await;
    protocol_0.send(CONNECT).await;
    protocol_0.sync().await;
    let mut silent = Raw::connect(addr).await;
    let others = [client(&broker).await, client(&broker).await];
    let begun = Instant::now();
    let going = leave(&broker);
    let info = protocol_1.line().await;
    assert!(info.contains("\"ldm\":true") && !info.contains("connect_info"), "{info}");
    assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    // Existing ones still work, and whoever connected before and logs in now is told as well.
    protocol_1.send("SUB a 1\r\nPUB a 1\r\nx\r\nPING\r\n").await;
    protocol_1.expect("MSG a 1 1\r\nx\r\nPONG\r\n").await;
    protocol_0.sync().await;
    silent.send(PROTOCOL_1).await;
    silent.expect("PONG\r\n").await;
    assert!(silent.line().await.contains("\"ldm\":true"));
    let mut ends = tokio::task::JoinSet::new();
    let told = others.into_iter().map(|raw| (raw, true));
    for (mut raw, is_told) in [(protocol_1, false), (protocol_0, false), (silent, false)].into_iter().chain(told) {
        ends.spawn(async move {
            let rest = raw.rest().await;
            assert_eq!(rest.matches("\"ldm\":true").count(), usize::from(is_told), "{rest}");
            assert!(!rest.contains("-ERR"), "{rest}");
            Instant::now()
        });
    }
    let mut ends = timeout(DEADLINE, ends.join_all()).await.unwrap();
    ends.sort_unstable();
    assert!(ends[0] >= begun + grace, "the first one went before its grace was over");
    assert!(ends[4] - ends[0] >= grace, "all went at once");
    timeout(DEADLINE, going).await.unwrap().unwrap();
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_clients_it_is_over_at_once_and_the_last_client_ends_it() {
    let long = Duration::from_secs(600);
    let broker = going(long, long);
    timeout(DEADLINE, broker.lame_duck()).await.unwrap();
    let broker = going(long, long);
    let raw = client(&broker).await;
    let (first, second) = (leave(&broker), leave(&broker));
    drop(raw);
    timeout(DEADLINE, async { (first.await.unwrap(), second.await.unwrap()) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_the_patience() {
    let long = Duration::from_secs(600);
    let broker = going(long, long);
    let mut raw = client(&broker).await;
    let going = leave(&broker);
    assert!(raw.line().await.contains("\"ldm\":true"));
    broker.shutdown().await;
    assert_eq!(raw.rest().await, "");
    timeout(DEADLINE, going).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_can_be_told_alone() {
    let broker = open_broker();
    let (mut first, mut second) = (client(&broker).await, client(&broker).await);
    let cid = broker.connections("$G")[0].cid;
    assert!(broker.lame_duck_client(cid));
    assert!(!broker.lame_duck_client(cid + 1000));
    let info = first.line().await;
    assert!(info.contains("\"ldm\":true") && info.contains(&format!("\"client_id\":{cid}")), "{info}");
    second.sync().await;
    first.sync().await;
    let mut later = client(&broker).await;
    later.sync().await;
    broker.shutdown().await;
}

/// More clients than there are rounds: all go in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_go_within_the_duration() {
    let broker = going(Duration::from_millis(60), Duration::ZERO);
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(client(&broker).await);
    }
    timeout(DEADLINE, broker.lame_duck()).await.unwrap();
    for mut raw in clients {
        assert!(!raw.rest().await.contains("-ERR"));
    }
}
