//! The client against a real broker over TLS: good and bad certificates, a broker that comes back, permissions.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use choria_connector::backoff::Backoff;
use choria_connector::{
    ConnectOptions, Connector, NatsConnector, Probe, Right, ServerSource, Stage, Status, Target, TokenSource,
};
use choria_security::tls;
use choria_testkit::{Files, TestCa};
use nats_broker::{
    AccountConfig, Authenticator, Broker, BrokerConfig, Listener, Observer, OpenAuthenticator, Permissions,
    StaticAuthenticator, SubjectRules,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);

struct Quiet;
impl Observer for Quiet {}

fn start(ca: &TestCa, port: u16, authenticator: Arc<dyn Authenticator>) -> Broker {
    let addr: SocketAddr = ([127, 0, 0, 1], port).into();
    let listener = Listener::tls(addr, tls::server_config(&ca.broker().material()).unwrap());
    let config = BrokerConfig { listen: vec![listener], ..BrokerConfig::default() };
    Broker::start(config, vec![AccountConfig::new("$G")], authenticator, Vec::new(), Arc::new(Quiet)).unwrap()
}

fn open(ca: &TestCa) -> (Broker, u16) {
    let broker = start(ca, 0, Arc::new(OpenAuthenticator::default()));
    let port = broker.local_addr(0).unwrap().port();
    (broker, port)
}

fn options(port: u16, files: Option<&Files>) -> ConnectOptions {
    let target = Target::parse(&format!("localhost:{port}")).unwrap();
    let mut options = ConnectOptions::new(ServerSource::Static(vec![target]));
    options.tls = Some(match files {
        Some(files) => tls::client_config(&files.material()).unwrap(),
        None => tls::anonymous_client_config(),
    });
    options.initial_backoff = Backoff::custom(&[20]);
    options.reconnect_backoff = Backoff::custom(&[20]);
    options
}

async fn failure(options: ConnectOptions) -> String {
    let connector = NatsConnector::start(options, &CancellationToken::new());
    let mut status = connector.status();
    let failed = status.wait_for(|status| matches!(status, Status::Connecting { last_error: Some(_) }));
    let status = timeout(DEADLINE, failed).await.unwrap().unwrap().clone();
    format!("{status:?}")
}

#[tokio::test]
async fn messages_over_mutual_tls() {
    let ca = TestCa::new();
    let (broker, port) = open(&ca);
    let files = ca.node("n1.example.net");
    let cancel = CancellationToken::new();
    let one = NatsConnector::connect(options(port, Some(&files)), &cancel).await.unwrap();
    let two = NatsConnector::connect(options(port, None), &cancel).await.unwrap();
    let mut subscription = one.subscribe("lab.*", None, 8).await.unwrap();
    one.flush().await.unwrap();
    let large = Bytes::from(vec![b'x'; 300_000]);
    for payload in [Bytes::from_static(b"hello"), large] {
        two.publish("lab.x", payload.clone()).await.unwrap();
        let message = timeout(DEADLINE, subscription.next()).await.unwrap().unwrap();
        assert_eq!((message.subject.as_str(), &message.payload), ("lab.x", &payload));
    }
    assert_eq!(one.stats().in_msgs, 2);
    assert_eq!(*one.status().borrow(), Status::Connected { server: format!("nats://localhost:{port}") });
    two.close().await;
    one.close().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_wrong_ca_is_named_with_what_to_do() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let (_broker, port) = open(&ca);
    let stranger = other.node("n1.example.net");
    let text = failure(options(port, Some(&stranger))).await;
    assert!(text.contains("TLS with localhost") && text.contains("check plugin.security.file.ca"), "{text}");
}

#[tokio::test]
async fn a_refused_certificate_is_named_with_what_to_do() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let (_broker, port) = open(&ca);
    let stranger = other.node("n1.example.net");
    let trusting = Files { ca: ca.ca_file(), ..stranger };
    let text = failure(options(port, Some(&trusting))).await;
    assert!(text.contains("TLS with localhost"), "{text}");
    assert!(
        text.contains("check plugin.security.file.certificate") || text.contains("refused our certificate"),
        "{text}"
    );
}

#[tokio::test]
async fn a_broker_that_comes_back_finds_the_subscriptions_again() {
    let ca = TestCa::new();
    let (broker, port) = open(&ca);
    let files = ca.node("n1.example.net");
    let connector = NatsConnector::connect(options(port, Some(&files)), &CancellationToken::new()).await.unwrap();
    let mut subscription = connector.subscribe("lab.x", None, 8).await.unwrap();
    connector.flush().await.unwrap();
    let mut status = connector.status();
    broker.shutdown().await;
    let gone = status.wait_for(|status| matches!(status, Status::Disconnected { .. }));
    timeout(DEADLINE, gone).await.unwrap().unwrap();
    let broker = start(&ca, port, Arc::new(OpenAuthenticator::default()));
    let back = status.wait_for(|status| matches!(status, Status::Connected { .. }));
    timeout(DEADLINE, back).await.unwrap().unwrap();
    connector.flush().await.unwrap();
    broker.publish("$G", "lab.x", None, None, b"again").unwrap();
    let message = timeout(DEADLINE, subscription.next()).await.unwrap().unwrap();
    assert_eq!(&message.payload[..], b"again");
    assert_eq!(connector.stats().reconnects, 1);
}

#[tokio::test]
async fn permission_errors_stop_nothing_and_a_wrong_token_is_retried() {
    let ca = TestCa::new();
    let rules = |allow: &str| SubjectRules { allow: Some(vec![allow.to_owned()]), deny: Vec::new() };
    let permissions = Permissions { publish: rules("mine.>"), subscribe: rules("mine.>"), ..Permissions::default() };
    let authenticator = Arc::new(StaticAuthenticator::new().token("right", "$G", permissions));
    let broker = start(&ca, 0, authenticator);
    let port = broker.local_addr(0).unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "wrong").unwrap();
    let mut options = options(port, None);
    options.token = TokenSource::File(file.clone());
    let connector = NatsConnector::start(options, &CancellationToken::new());
    let mut status = connector.status();
    let refused = status.wait_for(|status| matches!(status, Status::Connecting { last_error: Some(_) }));
    let text = format!("{:?}", timeout(DEADLINE, refused).await.unwrap().unwrap());
    assert!(text.contains("Authorization Violation"), "{text}");
    std::fs::write(&file, "right\n").unwrap();
    let connected = status.wait_for(|status| matches!(status, Status::Connected { .. }));
    timeout(DEADLINE, connected).await.unwrap().unwrap();

    let _refused = connector.subscribe("theirs.>", None, 1).await.unwrap();
    let mut mine = connector.subscribe("mine.x", None, 1).await.unwrap();
    connector.publish("theirs.x", Bytes::new()).await.unwrap();
    connector.flush().await.unwrap();
    assert_eq!(connector.stats().broker_errors, 2);
    connector.publish("mine.x", Bytes::from_static(b"ok")).await.unwrap();
    assert_eq!(&timeout(DEADLINE, mine.next()).await.unwrap().unwrap().payload[..], b"ok");
    assert!(matches!(*connector.status().borrow(), Status::Connected { .. }));
}

#[tokio::test]
async fn a_probe_learns_its_rights_and_account_one_by_one() {
    let ca = TestCa::new();
    let rules = |allow: &[&str]| SubjectRules {
        allow: Some(allow.iter().map(|&subject| subject.to_owned()).collect()),
        deny: Vec::new(),
    };
    let permissions = Permissions {
        publish: rules(&["mine.>", "$SYS.REQ.USER.INFO"]),
        subscribe: rules(&["mine.>"]),
        ..Permissions::default()
    };
    let authenticator = Arc::new(StaticAuthenticator::new().token("right", "$G", permissions));
    let broker = start(&ca, 0, authenticator);
    let port = broker.local_addr(0).unwrap().port();
    let target = Target::parse(&format!("localhost:{port}")).unwrap();
    let mut options = options(port, None);
    options.token = TokenSource::Text("wrong".into());
    let refused = Probe::connect(&target, &options).await.unwrap_err();
    assert_eq!(refused.stage(), Stage::Connect);
    assert!(refused.to_string().contains("Authorization Violation"), "{refused}");

    options.token = TokenSource::Text("right".into());
    let mut probe = Probe::connect(&target, &options).await.unwrap();
    let mut granted = Vec::new();
    for right in [
        Right::Subscribe("mine.a".into()),
        Right::Subscribe("theirs.a".into()),
        Right::Publish("mine.a".into()),
        Right::Publish("theirs.a".into()),
        Right::Subscribe("not valid".into()),
        Right::Publish("mine.b".into()),
    ] {
        granted.push(probe.ask(&right).await.unwrap());
    }
    assert_eq!((&granted[0], &granted[2], &granted[5]), (&None, &None, &None));
    for (index, word) in [(1, "Subscription"), (3, "Publish"), (4, "not valid")] {
        assert!(granted[index].as_ref().unwrap().contains(word), "{granted:?}");
    }
    let account = probe.request("$SYS.REQ.USER.INFO", "mine.inbox").await.unwrap().unwrap();
    assert!(account.windows(4).any(|part| part == b"\"$G\""), "{account:?}");
    assert_eq!(probe.request("mine.nobody", "theirs.inbox").await.unwrap(), None, "the answer cannot be heard");
}
