//! Both ways of serving sockets do the same.

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::{DEADLINE, Raw, start};
use nats_broker::{
    AccountConfig, Authenticator, Broker, BrokerConfig, ConnectRequest, Grant, IoEngine, OpenAuthenticator, Refusal,
};
use tokio::task::JoinSet;

const ENGINES: [IoEngine; 2] = [IoEngine::Threads, IoEngine::Runtime];

fn broker(engine: IoEngine) -> Broker {
    let config = BrokerConfig { io_engine: engine, ..BrokerConfig::default() };
    start(config, vec![AccountConfig::new("$G")], Arc::new(OpenAuthenticator::default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_floods_arrive_whole_and_in_order() {
    const PAIRS: usize = 12;
    const MESSAGES: usize = 5_000;
    for engine in ENGINES {
        let broker = broker(engine);
        let addr = broker.local_addr(0).unwrap();
        let mut pairs = JoinSet::new();
        for pair in 0..PAIRS {
            pairs.spawn(async move {
                let mut subscriber = Raw::connect(addr).await;
                subscriber.send(&format!("CONNECT {{\"verbose\":false}}\r\nSUB flood.{pair} 1\r\nPING\r\n")).await;
                subscriber.expect("PONG\r\n").await;
                let mut publisher = Raw::connect(addr).await;
                let mut bytes = String::from("CONNECT {\"verbose\":false}\r\n");
                let mut expected = String::new();
                for number in 0..MESSAGES {
                    let payload = format!("{number:>width$}", width = 1 + number % 600);
                    bytes += &format!("PUB flood.{pair} {}\r\n{payload}\r\n", payload.len());
                    expected += &format!("MSG flood.{pair} 1 {}\r\n{payload}\r\n", payload.len());
                }
                publisher.send(&bytes).await;
                subscriber.expect(&expected).await;
            });
        }
        while let Some(pair) = pairs.join_next().await {
            pair.unwrap();
        }
        broker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_and_kick_end_connections() {
    for engine in ENGINES {
        let broker = broker(engine);
        let addr = broker.local_addr(0).unwrap();
        let (mut kicked, mut other) = (Raw::connect(addr).await, Raw::connect(addr).await);
        for raw in [&mut kicked, &mut other] {
            raw.send("CONNECT {\"verbose\":false}\r\nPING\r\n").await;
            raw.expect("PONG\r\n").await;
        }
        assert!(broker.kick(broker.connections("$G")[0].cid, "Kicked"));
        kicked.rest().await;
        broker.shutdown().await;
        other.rest().await;
    }
}

/// Panics for one user.
#[derive(Debug)]
struct Fragile;

#[async_trait]
impl Authenticator for Fragile {
    async fn authenticate(&self, request: ConnectRequest) -> Result<Grant, Refusal> {
        assert_ne!(request.connect.user, "doom", "as ordered by the test");
        Ok(Grant::new("$G"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_the_authenticator_costs_its_connection_only() {
    for engine in ENGINES {
        let config = BrokerConfig { io_engine: engine, ..BrokerConfig::default() };
        let broker = start(config, vec![AccountConfig::new("$G")], Arc::new(Fragile));
        let addr = broker.local_addr(0).unwrap();
        for _ in 0..3 {
            let mut doomed = Raw::connect(addr).await;
            doomed.send("CONNECT {\"user\":\"doom\"}\r\n").await;
            doomed.rest().await;
        }
        let mut fine = Raw::connect(addr).await;
        fine.send("CONNECT {\"verbose\":false,\"user\":\"fine\"}\r\nPING\r\n").await;
        fine.expect("PONG\r\n").await;
        assert_eq!(broker.connections("$G").len(), 1, "{engine:?}");
        broker.shutdown().await;
    }
}

#[test]
fn a_runtime_that_ends_takes_the_connections_along() {
    for engine in ENGINES {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let socket = runtime.block_on(async {
            let config = BrokerConfig { io_engine: engine, ..BrokerConfig::default() };
            let broker = start(config, vec![AccountConfig::new("$G")], Arc::new(OpenAuthenticator::default()));
            let addr = broker.local_addr(0).unwrap();
            std::net::TcpStream::connect(addr).unwrap()
        });
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        runtime.shutdown_timeout(Duration::from_secs(5));
        let mut rest = Vec::new();
        // INFO, if it was accepted at all, then the end.
        let read = std::io::Read::read_to_end(&mut &socket, &mut rest);
        let is_over = match &read {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        assert!(is_over, "{engine:?}: {read:?}");
    }
}
