//! A real server on a connection that the test plays: messages in, messages out, no network.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "every test file uses its own part")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use choria_config::{BuildSettings, Environment};
use choria_connector::{Connector, ConnectorError, Message, Status, Subscription, UnsubscribeGuard};
use choria_protocol::lifecycle::Event;
use choria_protocol::rpc::ReplyBody;
use choria_protocol::v1::{self, Headers, Request, RequestEnvelope, SecureRequest};
use choria_protocol::{filter::Filter, ids};
use choria_rpc::Agent;
use choria_security::sign::RequestSigner;
use choria_server::provision::configure::ProviderCheck;
use choria_server::{Clock, Exit, Server, ServerBuilder, ServerError, ServerSettings};
use choria_testkit::TestCa;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything; virtual time in tests that pause the clock.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A time inside the validity of the golden tokens and certificates.
pub const NOW: i64 = 1_795_170_400;

/// A broker without wire.
pub struct FakeConnector {
    subscriptions: Mutex<HashMap<String, Vec<mpsc::Sender<Message>>>>,
    published: Mutex<Vec<(String, Bytes)>>,
    changed: Notify,
    status: watch::Sender<Status>,
    pub max_payload: usize,
}

impl FakeConnector {
    pub fn new() -> Arc<Self> {
        let connected = Status::Connected { server: "nats://localhost:25200".into() };
        Arc::new(Self {
            subscriptions: Mutex::default(),
            published: Mutex::default(),
            changed: Notify::new(),
            status: watch::Sender::new(connected),
            max_payload: 1024 * 1024,
        })
    }

    pub fn set_status(&self, status: Status) {
        self.status.send_replace(status);
    }

    /// Hands a message to whoever subscribed its subject. Panics if nobody did.
    pub async fn deliver(&self, subject: &str, payload: impl Into<Bytes>) {
        let senders = self.subscriptions.lock().unwrap().get(subject).cloned();
        let senders = senders.unwrap_or_else(|| panic!("nobody subscribed {subject}: {:?}", self.subjects()));
        let payload = payload.into();
        for sender in senders {
            let message = Message { subject: subject.into(), reply: None, payload: payload.clone(), status: None };
            sender.send(message).await.unwrap();
        }
    }

    pub fn subjects(&self) -> Vec<String> {
        let mut subjects: Vec<String> = self.subscriptions.lock().unwrap().keys().cloned().collect();
        subjects.sort();
        subjects
    }

    /// Takes the first published message that `wanted` accepts, waiting for it.
    pub async fn take(&self, wanted: impl Fn(&str, &[u8]) -> bool) -> Option<(String, Bytes)> {
        let found = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                {
                    let mut published = self.published.lock().unwrap();
                    if let Some(at) = published.iter().position(|(subject, bytes)| wanted(subject, bytes)) {
                        return published.remove(at);
                    }
                }
                changed.await;
            }
        };
        timeout(DEADLINE, found).await.ok()
    }

    /// Takes all lifecycle events that were published, as `type.component`.
    pub fn take_events(&self) -> Vec<Event> {
        let mut published = self.published.lock().unwrap();
        let (events, rest) = std::mem::take(&mut *published)
            .into_iter()
            .partition(|(subject, _): &(String, Bytes)| subject.starts_with("choria.lifecycle."));
        *published = rest;
        events.into_iter().map(|(_, bytes)| Event::parse(&bytes).unwrap()).collect()
    }
}

#[async_trait]
impl Connector for FakeConnector {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), ConnectorError> {
        if payload.len() > self.max_payload {
            return Err(ConnectorError::TooLarge { size: payload.len(), limit: self.max_payload });
        }
        self.published.lock().unwrap().push((subject.to_owned(), payload));
        self.changed.notify_waiters();
        Ok(())
    }

    async fn subscribe(&self, subject: &str, _: Option<&str>, capacity: usize) -> Result<Subscription, ConnectorError> {
        let (sender, receiver) = mpsc::channel(capacity);
        self.subscriptions.lock().unwrap().entry(subject.to_owned()).or_default().push(sender);
        self.changed.notify_waiters();
        Ok(Subscription::new(receiver, UnsubscribeGuard::new(|| {})))
    }

    async fn flush(&self) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    async fn close(&self) {
        self.status.send_replace(Status::Closed);
    }
}

/// Who asks, and what the request looks like.
pub struct Ask<'a> {
    pub collective: &'a str,
    pub agent: &'a str,
    pub payload: String,
    pub caller: &'a str,
    pub sender: &'a str,
    pub ttl: i64,
    pub time: i64,
    pub filter: Filter,
    pub signer: Option<&'a RequestSigner>,
}

impl Ask<'_> {
    pub fn request(&self) -> Request {
        Request {
            message: self.payload.clone(),
            envelope: RequestEnvelope {
                request_id: ids::request_id(),
                sender_id: self.sender.to_owned(),
                caller_id: self.caller.to_owned(),
                collective: self.collective.to_owned(),
                agent: self.agent.to_owned(),
                ttl: self.ttl,
                time: self.time,
                filter: self.filter.clone(),
            },
        }
    }

    pub fn secure(&self) -> SecureRequest {
        let text = self.request().to_text();
        match self.signer {
            None => SecureRequest::unsigned(text),
            Some(signer) => {
                let signed = signer.sign(&text).unwrap();
                SecureRequest { message: text, signature: signed.signature, pubcert: signed.pubcert }
            }
        }
    }
}

/// A running server.
pub struct Lab {
    pub directory: TempDir,
    pub connector: Arc<FakeConnector>,
    pub identity: String,
    pub collective: String,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<Exit, ServerError>>,
    /// The startup event as it was published.
    pub startup: serde_json::Value,
    replies: std::cell::Cell<u32>,
}

/// An unsigned token with these claims: a node does not verify its own.
pub fn token(claims: &serde_json::Value) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.{}",
        part(&serde_json::json!({"alg": "RS256", "typ": "JWT"})),
        part(claims),
        URL_SAFE_NO_PAD.encode("sig")
    )
}

pub fn provisioning_claims() -> serde_json::Value {
    serde_json::json!({
        "cht": "toomanysecrets", "chs": false, "chu": "nats://localhost:25200", "chpd": true,
        "purpose": "choria_provisioning", "sub": "choria_provisioning", "exp": 2_110_530_370_i64,
    })
}

/// An environment of one directory: build with a relative token path, fixed host name.
pub fn environment(directory: &Path, host: &str) -> Environment {
    let build = BuildSettings {
        version: "0.30.2".into(),
        provision_jwt_file: Some(PathBuf::from("provisioning.jwt")),
        ..BuildSettings::default()
    };
    Environment::fixed(host).with_working_directory(directory).with_build_settings(build)
}

impl Lab {
    /// A server that waits to be provisioned, as in the golden sequences: identity `t1.lab.test`, a configuration with
    /// one line, and a token in place.
    pub async fn provisioning(directory: TempDir, provider: ProviderCheck) -> Self {
        let root = directory.path().to_owned();
        if !root.join("server.conf").exists() {
            std::fs::write(root.join("server.conf"), "old = 1\n").unwrap();
        }
        if !root.join("provisioning.jwt").exists() {
            std::fs::write(root.join("provisioning.jwt"), token(&provisioning_claims())).unwrap();
        }
        let environment = environment(&root, "t1.lab.test");
        let settings = ServerSettings::load(Path::new("server.conf"), None, &environment, NOW).unwrap();
        assert!(settings.is_provisioning());
        Self::start(directory, settings, move |builder| builder.provider_check(provider)).await
    }

    pub async fn start(
        directory: TempDir,
        settings: ServerSettings,
        change: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let connector = FakeConnector::new();
        let (identity, provisioning) = (settings.identity(), settings.is_provisioning());
        let collective = if provisioning { "provisioning" } else { "mcollective" }.to_owned();
        let builder = Server::builder(settings).connector(connector.clone()).clock(Clock::new(|| NOW));
        let server = change(builder).build().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(server.run(shutdown.clone()));
        let started = connector.take(|subject, _| subject.starts_with("choria.lifecycle.event.startup.")).await;
        let (_, bytes) = started.expect("the server starts");
        let startup = serde_json::from_slice(&bytes).unwrap();
        Self { directory, connector, identity, collective, shutdown, task, startup, replies: std::cell::Cell::new(0) }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn ask<'a>(&'a self, agent: &'a str, payload: String) -> Ask<'a> {
        Ask {
            collective: &self.collective,
            agent,
            payload,
            caller: "choria=provisioner.choria",
            sender: "provisioner.choria",
            ttl: 60,
            time: NOW,
            filter: Filter::default(),
            signer: None,
        }
    }

    pub fn next_reply_subject(&self) -> String {
        self.replies.set(self.replies.get() + 1);
        format!("{}.reply.caller.{}", self.collective, self.replies.get())
    }

    /// Sends a request to the node and waits for its reply.
    pub async fn send(&self, ask: &Ask<'_>) -> Option<ReplyBody> {
        let reply_to = self.next_reply_subject();
        self.send_secure(&ask.secure(), &reply_to).await
    }

    pub async fn send_secure(&self, secure: &SecureRequest, reply_to: &str) -> Option<ReplyBody> {
        let bytes = self.exchange(secure, reply_to).await?;
        let reply = v1::decode_reply(&bytes).unwrap();
        assert_eq!(reply.reply.envelope.sender_id, self.identity);
        Some(ReplyBody::parse(reply.reply.message.as_bytes()).unwrap())
    }

    pub async fn exchange(&self, secure: &SecureRequest, reply_to: &str) -> Option<Bytes> {
        let headers = Headers { reply_to: Some(reply_to.to_owned()), ..Headers::default() };
        let node = format!("{}.node.{}", self.collective, self.identity);
        self.connector.deliver(&node, v1::encode_request(secure, &headers)).await;
        let (_, bytes) = self.connector.take(|subject, _| subject == reply_to).await?;
        Some(bytes)
    }

    /// Calls an action.
    pub async fn call(&self, agent: &str, action: &str, data: serde_json::Value) -> Option<ReplyBody> {
        let payload = serde_json::json!({"agent": agent, "action": action, "data": data}).to_string();
        self.send(&self.ask(agent, payload)).await
    }

    /// Names of the lifecycle events since the last look, as `type.component`. Alive events come when they come.
    pub fn events(&self) -> Vec<String> {
        let events = self.connector.take_events();
        events
            .iter()
            .filter(|event| event.kind.name() != "alive")
            .map(|event| format!("{}.{}", event.kind.name(), event.component))
            .collect()
    }

    /// Stops the server and gives back its directory.
    pub async fn stop(self) -> (TempDir, Exit) {
        self.shutdown.cancel();
        let exit = timeout(DEADLINE, self.task).await.unwrap().unwrap().unwrap();
        (self.directory, exit)
    }
}

/// A member, and someone who may ask it.
pub struct Fleet {
    pub lab: Lab,
    pub signer: RequestSigner,
}

/// Configuration of a member, without its certificate.
pub const MEMBER: &str = "collectives = mcollective, sub\nidentity = n1.lab.test\nplugin.choria.use_srv = false\n\
                     plugin.choria.middleware_hosts = localhost:25200\nplugin.choria.server.provision = false\n";

/// A member with the recordings' facts and classes.
pub async fn member_with(extra: &str, agents: Vec<Arc<dyn Agent>>) -> Fleet {
    member_in(tempfile::tempdir().unwrap(), extra, agents).await
}

/// The same in a directory that may hold a provisioning token.
pub async fn member_in(directory: TempDir, extra: &str, agents: Vec<Arc<dyn Agent>>) -> Fleet {
    let ca = TestCa::at(directory.path().join("pki"), NOW);
    let node = ca.node("n1.lab.test");
    let text = format!(
        "{MEMBER}{}plugin.yaml = {}\nclassesfile = {}\nplugin.rpcaudit.logfile = {}\n{extra}",
        node.config_lines(),
        choria_testkit::golden::path("server/facts.yaml").display(),
        choria_testkit::golden::path("server/classes.txt").display(),
        directory.path().join("audit.log").display(),
    );
    std::fs::write(directory.path().join("server.conf"), text).unwrap();
    let environment = environment(directory.path(), "mx.lab.test");
    let settings = ServerSettings::load(Path::new("server.conf"), None, &environment, NOW).unwrap();
    let client = ca.client("tester.mcollective");
    let signer = RequestSigner::from_files(&client.certificate, &client.key, "key").unwrap();
    let lab = Lab::start(directory, settings, |builder| {
        agents.into_iter().fold(builder, |builder, agent| builder.agent(agent))
    })
    .await;
    Fleet { lab, signer }
}

impl Fleet {
    pub fn ask<'a>(&'a self, agent: &'a str, payload: String) -> Ask<'a> {
        let mut ask = self.lab.ask(agent, payload);
        (ask.caller, ask.sender) = ("choria=tester.mcollective", "tester.mcollective");
        ask.signer = Some(&self.signer);
        ask
    }

    pub async fn call(&self, agent: &str, action: &str, data: &serde_json::Value) -> Option<ReplyBody> {
        let payload = serde_json::json!({"agent": agent, "action": action, "data": data}).to_string();
        self.lab.send(&self.ask(agent, payload)).await
    }
}
