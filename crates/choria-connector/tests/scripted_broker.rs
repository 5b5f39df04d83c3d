//! The client against a broker that is played line by line: reconnects, refusals, permission errors, limits.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use choria_connector::backoff::Backoff;
use choria_connector::{
    ConnectError, ConnectOptions, Connector, ConnectorError, NatsConnector, Probe, ServerSource, Stage, Status, Target,
    TokenSource,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(10);
const QUICK: Backoff = Backoff::custom(&[10]);

struct Peer {
    stream: BufReader<TcpStream>,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
        let mut peer = Self { stream: BufReader::new(stream) };
        peer.send("INFO {\"max_payload\":64}\r\n").await;
        peer
    }

    /// Accepts and lets the client in. Answers with its CONNECT line.
    async fn welcome(listener: &TcpListener) -> (Self, String) {
        let mut peer = Self::accept(listener).await;
        let connect = peer.line().await;
        assert_eq!(peer.line().await, "PING");
        peer.send("PONG\r\n").await;
        (peer, connect)
    }

    async fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(DEADLINE, self.stream.read_line(&mut line)).await.unwrap().unwrap();
        line.trim_end().to_owned()
    }
}

async fn listen() -> (TcpListener, ConnectOptions) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    let mut options = ConnectOptions::new(ServerSource::Static(vec![target]));
    options.initial_backoff = QUICK;
    options.reconnect_backoff = QUICK;
    (listener, options)
}

async fn reached(connector: &NatsConnector, wanted: impl FnMut(&Status) -> bool) -> Status {
    timeout(DEADLINE, connector.status().wait_for(wanted)).await.unwrap().unwrap().clone()
}

#[tokio::test]
async fn authorization_errors_are_retried_with_a_token_that_is_read_anew() {
    let (listener, mut options) = listen().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("provisioning.jwt");
    std::fs::write(&file, "first").unwrap();
    options.token = TokenSource::File(file.clone());
    let cancel = CancellationToken::new();
    let connector = NatsConnector::start(options, &cancel);

    let mut peer = Peer::accept(&listener).await;
    assert!(peer.line().await.contains(r#""auth_token":"first""#));
    std::fs::write(&file, "second\n").unwrap();
    peer.send("-ERR 'Authorization Violation'\r\n").await;
    drop(peer);
    let status = reached(&connector, |status| matches!(status, Status::Connecting { last_error: Some(_) })).await;
    let Status::Connecting { last_error: Some(error) } = status else { unreachable!("waited for it") };
    assert!(error.contains("Authorization Violation (the broker does not accept"), "{error}");

    let (_peer, connect) = Peer::welcome(&listener).await;
    assert!(connect.contains(r#""auth_token":"second""#), "{connect}");
    reached(&connector, |status| matches!(status, Status::Connected { .. })).await;
}

#[tokio::test]
async fn messages_flow_and_subscriptions_come_back_after_a_loss() {
    let (listener, options) = listen().await;
    let cancel = CancellationToken::new();
    let connector = NatsConnector::start(options, &cancel);
    assert!(matches!(connector.publish("a.b", Bytes::from_static(b"x")).await, Err(ConnectorError::NotConnected(_))));
    let mut subscription = connector.subscribe("in.>", Some("group"), 8).await.unwrap();
    let other = connector.subscribe("gone", None, 8).await.unwrap();
    drop(other);

    let (mut peer, _) = Peer::welcome(&listener).await;
    assert_eq!(peer.line().await, "SUB in.> group 1");
    reached(&connector, |status| matches!(status, Status::Connected { .. })).await;
    connector.publish("out", Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(peer.line().await, "PUB out 5");
    assert_eq!(peer.line().await, "hello");
    // A permission error is told and counted, and nothing stops.
    peer.send("-ERR 'Permissions Violation for Publish to \"out\"'\r\nMSG in.x 1 reply.to 2\r\nhi\r\n").await;
    let message = timeout(DEADLINE, subscription.next()).await.unwrap().unwrap();
    assert_eq!(
        (message.subject.as_str(), message.reply.as_deref(), &message.payload[..]),
        ("in.x", Some("reply.to"), &b"hi"[..])
    );
    assert_eq!(connector.stats().broker_errors, 1);

    let flush = tokio::spawn({
        let connector = Arc::new(connector);
        let held = Arc::clone(&connector);
        async move {
            held.flush().await.unwrap();
            connector
        }
    });
    assert_eq!(peer.line().await, "PING");
    peer.send("PONG\r\n").await;
    let connector = timeout(DEADLINE, flush).await.unwrap().unwrap();
    drop(peer);

    let (mut peer, _) = Peer::welcome(&listener).await;
    assert_eq!(peer.line().await, "SUB in.> group 1");
    peer.send("PING\r\nMSG in.y 1 0\r\n\r\n").await;
    assert_eq!(peer.line().await, "PONG");
    assert_eq!(timeout(DEADLINE, subscription.next()).await.unwrap().unwrap().subject, "in.y");
    assert_eq!(connector.stats().reconnects, 1);
    drop(subscription);
    assert_eq!(peer.line().await, "UNSUB 1");
}

#[tokio::test]
async fn limits_are_errors_before_anything_is_sent() {
    let (listener, options) = listen().await;
    let cancel = CancellationToken::new();
    let connector = NatsConnector::start(options, &cancel);
    let (_peer, _) = Peer::welcome(&listener).await;
    reached(&connector, |status| matches!(status, Status::Connected { .. })).await;
    let large = Bytes::from(vec![0; 65]);
    assert_eq!(connector.publish("a", large).await, Err(ConnectorError::TooLarge { size: 65, limit: 64 }));
    for subject in ["a b", "a.*", "", "a\r\nPUB b 0\r\n"] {
        let refused = connector.publish(subject, Bytes::new()).await;
        assert_eq!(refused, Err(ConnectorError::InvalidSubject(subject.to_owned())));
    }
    assert!(connector.subscribe("a..b", None, 1).await.is_err());
    assert!(connector.subscribe("a", Some("q q"), 1).await.is_err());
}

#[tokio::test]
async fn a_full_subscription_drops_the_newest_and_counts() {
    let (listener, options) = listen().await;
    let cancel = CancellationToken::new();
    let connector = NatsConnector::start(options, &cancel);
    let mut subscription = connector.subscribe("in", None, 2).await.unwrap();
    let (mut peer, _) = Peer::welcome(&listener).await;
    assert_eq!(peer.line().await, "SUB in 1");
    for number in 0..5 {
        peer.send(&format!("MSG in 1 1\r\n{number}\r\n")).await;
    }
    peer.send("PING\r\n").await;
    assert_eq!(peer.line().await, "PONG");
    assert_eq!(&subscription.next().await.unwrap().payload[..], b"0");
    assert_eq!(&subscription.next().await.unwrap().payload[..], b"1");
    assert!(subscription.try_next().is_none());
    assert_eq!(connector.stats().dropped, 3);
}

#[tokio::test]
async fn giving_up_tells_the_last_failure() {
    let (listener, mut options) = listen().await;
    drop(listener);
    options.give_up_after = Some(Duration::from_millis(300));
    let ended = NatsConnector::connect(options, &CancellationToken::new()).await;
    let Err(ConnectError::GaveUp(text)) = ended else { panic!("{ended:?}") };
    assert!(text.contains("connection refused (is a broker running"), "{text}");
}

#[tokio::test]
async fn a_broker_without_tls_gets_no_credentials() {
    let (listener, mut options) = listen().await;
    let roots = rustls::RootCertStore::empty();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    options.tls = Some(Arc::new(tls.with_root_certificates(roots).with_no_client_auth()));
    options.token = TokenSource::Text("secret".into());
    let connector = NatsConnector::start(options, &CancellationToken::new());
    let mut peer = Peer::accept(&listener).await;
    assert_eq!(peer.line().await, "", "nothing is sent before the connection ends");
    let status = reached(&connector, |status| matches!(status, Status::Connecting { last_error: Some(_) })).await;
    assert!(format!("{status:?}").contains("does not offer TLS"), "{status:?}");
}

#[tokio::test]
async fn close_flushes_then_ends_subscriptions() {
    let (listener, options) = listen().await;
    let connector = Arc::new(NatsConnector::start(options, &CancellationToken::new()));
    let mut subscription = connector.subscribe("in", None, 2).await.unwrap();
    let (mut peer, _) = Peer::welcome(&listener).await;
    assert_eq!(peer.line().await, "SUB in 1");
    reached(&connector, |status| matches!(status, Status::Connected { .. })).await;
    connector.publish("bye", Bytes::new()).await.unwrap();
    let closing = tokio::spawn({
        let connector = Arc::clone(&connector);
        async move { connector.close().await }
    });
    assert_eq!(peer.line().await, "PUB bye 0");
    assert_eq!(peer.line().await, "");
    assert_eq!(peer.line().await, "PING");
    peer.send("PONG\r\n").await;
    timeout(DEADLINE, closing).await.unwrap().unwrap();
    assert!(timeout(DEADLINE, subscription.next()).await.unwrap().is_none());
    assert_eq!(connector.publish("x", Bytes::new()).await, Err(ConnectorError::Closed));
    assert!(matches!(connector.subscribe("x", None, 1).await, Err(ConnectorError::Closed)));
}

/// How far a try came is known for every peer that is no broker of ours.
#[tokio::test]
async fn failures_know_their_stage() {
    let (listener, mut options) = listen().await;
    let address = listener.local_addr().unwrap().to_string();
    let target = Target::parse(&address).unwrap();
    options.handshake_timeout = Duration::from_millis(100);
    for (says, stage, text) in [
        (None, Stage::Greeting, "did not finish the handshake"),
        (Some("HTTP/1.1 400 Bad Request\r\n\r\n"), Stage::Greeting, "does not speak NATS"),
        (Some("INFO {}\r\n"), Stage::Connect, "did not finish the handshake"),
        (Some("INFO {\"tls_required\":true}\r\n"), Stage::Tls, "requires TLS"),
        (Some("-ERR 'maximum connections exceeded'\r\n"), Stage::Connect, "maximum connections"),
    ] {
        let peer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            if let Some(text) = says {
                stream.write_all(text.as_bytes()).await.unwrap();
            }
            stream
        };
        let (tried, _stream) = tokio::join!(Probe::connect(&target, &options), peer);
        let failure = tried.unwrap_err();
        assert_eq!(failure.stage(), stage, "{says:?}: {failure}");
        assert!(failure.to_string().contains(text), "{says:?}: {failure}");
    }
    let named = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"INFO {\"server_name\":\"b.example.net\"}\r\n").await.unwrap();
        stream
    };
    let (name, _stream) = tokio::join!(Probe::greet(&target, &options), named);
    assert_eq!(name.unwrap(), "b.example.net");
    drop(listener);
    assert_eq!(Probe::connect(&target, &options).await.unwrap_err().stage(), Stage::Dial);
}
