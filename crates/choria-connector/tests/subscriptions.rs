//! Several subjects with one queue.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use choria_connector::{ConnectOptions, Connector, ConnectorError, NatsConnector, ServerSource, Target, Wanted};
use nats_broker::{AccountConfig, Broker, BrokerConfig, Listener, Observer, OpenAuthenticator};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);

struct Quiet;
impl Observer for Quiet {}

async fn connected() -> (Broker, NatsConnector) {
    let addr: SocketAddr = ([127, 0, 0, 1], 0).into();
    let config = BrokerConfig { listen: vec![Listener::plain(addr)], ..BrokerConfig::default() };
    let open = Arc::new(OpenAuthenticator::default());
    let broker = Broker::start(config, vec![AccountConfig::new("$G")], open, Vec::new(), Arc::new(Quiet)).unwrap();
    let target = Target::parse(&format!("127.0.0.1:{}", broker.local_addr(0).unwrap().port())).unwrap();
    let options = ConnectOptions::new(ServerSource::Static(vec![target]));
    let connector = NatsConnector::connect(options, &CancellationToken::new()).await.unwrap();
    (broker, connector)
}

#[tokio::test]
async fn messages_of_all_subjects_come_in_order() {
    let (broker, connector) = connected().await;
    let wanted = [Wanted::new("a.*"), Wanted::in_queue("b", "workers"), Wanted::new("c")];
    let mut all = connector.subscribe_all(&wanted, 16).await.unwrap();
    for subject in ["c", "a.1", "b", "a.2", "other", "c"] {
        connector.publish(subject, Bytes::from_static(b"x")).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(timeout(DEADLINE, all.next()).await.unwrap().unwrap().subject);
    }
    assert_eq!(seen, ["c", "a.1", "b", "a.2", "c"]);

    drop(all);
    connector.publish("c", Bytes::from_static(b"x")).await.unwrap();
    connector.flush().await.unwrap();
    assert_eq!(connector.stats().in_msgs, 5, "nothing is subscribed any more");
    connector.close().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn one_bad_subject_subscribes_nothing() {
    let (broker, connector) = connected().await;
    let bad = connector.subscribe_all(&[Wanted::new("good"), Wanted::new("a..b")], 16).await;
    assert_eq!(bad.unwrap_err(), ConnectorError::InvalidSubject("a..b".to_owned()));
    let bad = connector.subscribe_all(&[Wanted::new("good"), Wanted::in_queue("b", "two words")], 16).await;
    assert_eq!(bad.unwrap_err(), ConnectorError::InvalidSubject("two words".to_owned()));
    connector.publish("good", Bytes::from_static(b"x")).await.unwrap();
    connector.flush().await.unwrap();
    assert_eq!(connector.stats().in_msgs, 0);
    connector.close().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn what_nobody_reads_is_dropped_beyond_the_bound() {
    let (broker, connector) = connected().await;
    let _all = connector.subscribe_all(&[Wanted::new("a"), Wanted::new("b")], 3).await.unwrap();
    for subject in ["a", "b", "a", "b", "a"] {
        connector.publish(subject, Bytes::from_static(b"x")).await.unwrap();
    }
    connector.flush().await.unwrap();
    assert_eq!(connector.stats().dropped, 2);
    connector.close().await;
    broker.shutdown().await;
}
