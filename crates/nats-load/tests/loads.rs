//! Every load against a broker in the same process.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use nats_broker::{AccountConfig, Broker, BrokerConfig, Listener, Observer, OpenAuthenticator};
use nats_load::connections::Connections;
use nats_load::flow::{Flow, Subscriptions};
use nats_load::request::Requests;
use nats_load::{LoadError, Target};

struct Unobserved;

impl Observer for Unobserved {}

fn broker() -> (Broker, Target) {
    let listen = vec![Listener::plain("127.0.0.1:0".parse().unwrap())];
    let config = BrokerConfig { listen, ..BrokerConfig::default() };
    let open = Arc::new(OpenAuthenticator::default());
    let broker = Broker::start(config, vec![AccountConfig::new("$G")], open, Vec::new(), Arc::new(Unobserved)).unwrap();
    let port = broker.local_addr(0).unwrap().port();
    let patience = Duration::from_secs(20);
    (broker, Target { host: "127.0.0.1".to_owned(), port, tls: None, login: Default::default(), patience })
}

fn flow() -> Flow {
    Flow { publishers: 1, subscribers: 1, subjects: 1, subscriptions: Subscriptions::One, size: 128, messages: 5000 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_of_a_flow_arrives_at_every_subscriber() {
    let (broker, target) = broker();
    let flows = [
        flow(),
        Flow { subscribers: 20, ..flow() },
        Flow { publishers: 10, size: 1, ..flow() },
        Flow { subjects: 3000, size: 16, ..flow() },
        Flow { subjects: 300, subscriptions: Subscriptions::Each, size: 0, ..flow() },
    ];
    for flow in flows {
        let before = broker.monitor().varz().out_msgs;
        let report = flow.run(&target, || {}).await.unwrap();
        assert_eq!(report.messages, 5000 * flow.subscribers as u64, "{flow:?}");
        assert_eq!(report.latency_us.is_some(), flow.size >= 16, "{flow:?}");
        // The broker counts a moment after it wrote.
        let deadline = Instant::now() + target.patience;
        while broker.monitor().varz().out_msgs - before != report.messages {
            assert!(Instant::now() < deadline, "{flow:?}: {} delivered", broker.monitor().varz().out_msgs - before);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered() {
    let (_broker, target) = broker();
    let requests = Requests { pairs: 3, requests: 50, size: 16, pause: Duration::ZERO };
    let report = requests.run(&target, || {}).await.unwrap();
    assert_eq!(report.messages, 150);
    let latency = report.latency_us.unwrap();
    assert!(latency.p50 <= latency.p99 && latency.p99 <= latency.p999);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_stay_as_long_as_they_are_held() {
    let (broker, target) = broker();
    let held = Connections { count: 100, subscriptions: 13 }.open(&target).await.unwrap();
    assert_eq!((held.peers.len(), held.report.messages), (100, 100));
    let varz = broker.monitor().varz();
    assert_eq!((varz.connections, varz.subscriptions), (100, 1300));
}

#[tokio::test]
async fn what_cannot_be_is_said() {
    let (_broker, target) = broker();
    let error = Flow { publishers: 0, ..flow() }.run(&target, || {}).await.unwrap_err();
    assert!(matches!(error, LoadError::Plan(_)), "{error}");
    let nobody = Target { port: 1, ..target };
    let error = flow().run(&nobody, || {}).await.unwrap_err();
    assert!(error.to_string().starts_with("no connection to 127.0.0.1:1: "), "{error}");
}
