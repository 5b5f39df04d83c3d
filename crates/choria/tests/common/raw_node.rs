//! An unprovisioned node that speaks protocol v1 itself, so that it can answer anything at any time.
#![allow(dead_code, clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use choria_connector::{ConnectOptions, Connector, NatsConnector, ServerSource, Target, TokenSource};
use choria_protocol::lifecycle::{self, Event, Kind};
use choria_protocol::rpc::{ReplyBody, RequestBody};
use choria_protocol::v1::{self, Headers, Reply};
use choria_protocol::{ids, subjects};
use choria_security::csr;
use choria_security::keys::{KeyKind, PrivateKey};
use choria_security::tls;
use choria_testkit::unix_now;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::common::Fleet;

/// A connection as an unprovisioned node of this name makes it.
pub(crate) async fn connect(fleet: &Fleet, name: &str, token: &Path) -> Result<NatsConnector, String> {
    let target = Target::parse(&format!("127.0.0.1:{}", fleet.port)).unwrap();
    let mut options = ConnectOptions::new(ServerSource::Static(vec![target]));
    options.name = name.to_owned();
    options.token = TokenSource::File(token.to_owned());
    options.tls = Some(tls::anonymous_client_config());
    options.give_up_after = Some(Duration::from_secs(6));
    NatsConnector::connect(options, &CancellationToken::new()).await.map_err(|error| error.to_string())
}

/// A request that reached the node.
pub(crate) struct Asked {
    pub(crate) identity: String,
    pub(crate) action: String,
    /// How often this action was asked for, this time included.
    pub(crate) times: usize,
    request: v1::Request,
}

impl Asked {
    /// A reply with status 0 and this data.
    pub(crate) fn reply(&self, data: Value) -> Vec<u8> {
        let body = ReplyBody { action: self.action.clone(), statuscode: 0, statusmsg: "OK".into(), data };
        self.wrap(body.to_text())
    }

    /// A reply with this message.
    pub(crate) fn wrap(&self, message: String) -> Vec<u8> {
        let reply = Reply::to_request(&self.request.envelope, &self.identity, unix_now(), message);
        v1::encode_reply(&reply, &Headers { mc_sender: Some(self.identity.clone()), ..Headers::default() })
    }
}

/// What a node says, each after a while.
pub(crate) type Says = Vec<(Duration, Vec<u8>)>;

/// Makes a node's answers; it is given what an honest node would answer.
pub(crate) type Manner = Box<dyn Fn(&Asked, Vec<u8>) -> Says + Send + Sync>;

/// Says it at once.
pub(crate) fn now(bytes: Vec<u8>) -> Says {
    vec![(Duration::ZERO, bytes)]
}

/// A node.
pub(crate) struct RawNode {
    pub(crate) identity: String,
    pub(crate) connector: Arc<NatsConnector>,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl RawNode {
    /// Connects, listens, and answers in this manner.
    pub(crate) async fn start(fleet: &Fleet, identity: &str, token: &Path, manner: Manner) -> Self {
        let connector = Arc::new(connect(fleet, identity, token).await.unwrap());
        let mut requests = connector.subscribe(&subjects::node("provisioning", identity), None, 100).await.unwrap();
        connector.flush().await.unwrap();
        let asked: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
        let honest = Honest::new(identity, std::fs::read_to_string(token).unwrap());
        let (counts, publisher, identity) = (Arc::clone(&asked), Arc::clone(&connector), identity.to_owned());
        let node = Self { identity: identity.clone(), connector, asked };
        tokio::spawn(async move {
            while let Some(message) = requests.next().await {
                let decoded = v1::decode_request(&message.payload).unwrap();
                let body = RequestBody::parse(decoded.request.message.as_bytes()).unwrap();
                let times = {
                    let mut counts = counts.lock().unwrap();
                    let times = counts.entry(body.action.clone()).or_default();
                    *times += 1;
                    *times
                };
                let identity = identity.clone();
                let asked = Asked { identity, action: body.action, times, request: decoded.request };
                let to = decoded.transport.headers.reply_to.unwrap();
                let answer = asked.reply(honest.data(&asked.action));
                for (after, payload) in manner(&asked, answer) {
                    let (publisher, to) = (Arc::clone(&publisher), to.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        let _ = publisher.publish(&to, payload.into()).await;
                    });
                }
            }
        });
        node
    }

    /// Publishes its startup event.
    pub(crate) async fn announce(&self) {
        let event = Event {
            kind: Kind::Startup { version: "1".into() },
            id: ids::event_id(),
            identity: self.identity.clone(),
            component: lifecycle::PROVISION_MODE_SERVER.to_owned(),
            timestamp: unix_now(),
        };
        self.connector.publish(&event.subject(), event.to_cloud_event().into()).await.unwrap();
        self.connector.flush().await.unwrap();
    }

    /// How often it was asked for an action.
    pub(crate) fn asked(&self, action: &str) -> usize {
        self.asked.lock().unwrap().get(action).copied().unwrap_or(0)
    }
}

/// What a good node knows.
struct Honest {
    token: String,
    csr: String,
}

impl Honest {
    fn new(identity: &str, token: String) -> Self {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        Self { token, csr: csr::create(&key, &csr::Subject::common_name(identity)).unwrap() }
    }

    fn data(&self, action: &str) -> Value {
        match action {
            "jwt" => json!({"jwt": self.token.trim(), "ecdh_public": ""}),
            "inventory" => json!({"version": "1", "facts": {"dc": "ams"}, "upgradable": false}),
            "gencsr" => json!({"csr": self.csr, "public_key": "", "ssldir": "/etc/choria/ssl"}),
            _ => json!({"message": "done"}),
        }
    }
}
