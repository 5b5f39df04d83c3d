//! Requests with a reply subject of NATS: whoever asks learns at once that nobody is there.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use choria_connector::{ConnectOptions, Connector, ConnectorError, NO_RESPONDERS, NatsConnector, ServerSource, Target};
use nats_broker::{AccountConfig, Broker, BrokerConfig, Listener, Observer, OpenAuthenticator};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);

struct Quiet;
impl Observer for Quiet {}

async fn connected() -> (Broker, NatsConnector) {
    let config = BrokerConfig { listen: vec![Listener::plain(([127, 0, 0, 1], 0).into())], ..BrokerConfig::default() };
    let authenticator = Arc::new(OpenAuthenticator::new("a"));
    let broker =
        Broker::start(config, vec![AccountConfig::new("a")], authenticator, Vec::new(), Arc::new(Quiet)).unwrap();
    let target = Target::parse(&format!("nats://{}", broker.local_addr(0).unwrap())).unwrap();
    let options = ConnectOptions::new(ServerSource::Static(vec![target]));
    let connector = NatsConnector::connect(options, &CancellationToken::new()).await.unwrap();
    (broker, connector)
}

#[tokio::test]
async fn nobody_there_is_told_on_the_reply_subject() {
    let (broker, connector) = connected().await;
    let mut replies = connector.subscribe("replies.>", None, 100).await.unwrap();
    connector.request("nobody.here", "replies.1", Bytes::from_static(b"x")).await.unwrap();
    let told = timeout(DEADLINE, replies.next_or_status()).await.unwrap().unwrap();
    assert_eq!((&*told.subject, told.status, told.payload.len()), ("replies.1", Some(NO_RESPONDERS), 0));

    let mut somebody = connector.subscribe("somebody.*", None, 100).await.unwrap();
    assert!(connector.try_publish("somebody.a", Some("replies.2"), b"y").unwrap());
    let asked = timeout(DEADLINE, somebody.next()).await.unwrap().unwrap();
    assert_eq!((asked.reply.as_deref(), &asked.payload[..]), (Some("replies.2"), &b"y"[..]));

    // Readers that do not ask for it do not see the broker's words.
    connector.request("nobody.here", "replies.3", Bytes::new()).await.unwrap();
    connector.publish("replies.4", Bytes::from_static(b"z")).await.unwrap();
    let message = timeout(DEADLINE, replies.next()).await.unwrap().unwrap();
    assert_eq!((&*message.subject, message.status), ("replies.4", None));
    connector.request("nobody.here", "replies.5", Bytes::new()).await.unwrap();
    connector.flush().await.unwrap();
    assert!(replies.try_next().is_none());

    for (subject, reply) in [("a..b", "r"), ("a", "r.*"), ("a", "")] {
        let bad = connector.request(subject, reply, Bytes::new()).await;
        assert!(matches!(bad, Err(ConnectorError::InvalidSubject(_))), "{subject} {reply}");
        assert!(matches!(connector.try_publish(subject, Some(reply), b""), Err(ConnectorError::InvalidSubject(_))));
    }
    connector.close().await;
    assert!(connector.try_publish("a", None, b"").is_err());
    broker.shutdown().await;
}
