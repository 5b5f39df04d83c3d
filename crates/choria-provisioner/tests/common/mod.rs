//! A broker in this process, nodes that are answered for by one connection, and a provisioner with real helpers.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use choria_config::{BuildSettings, Config, Environment, Mode};
use choria_connector::{ConnectOptions, Connector, NatsConnector, ServerSource, Target};
use choria_protocol::lifecycle::{self, Event, Kind};
use choria_protocol::rpc::{PONG, ReplyBody, RequestBody};
use choria_protocol::v1::{self, Headers, Reply};
use choria_protocol::{ids, subjects};
use choria_provisioner::config::ProvisionerConfig;
use choria_provisioner::{Handle, Provisioner, RunError};
use choria_testkit::{TestCa, TokenSigner, wait_until_async};
use nats_broker::{AccountConfig, Broker, BrokerConfig, Listener, Permissions, StaticAuthenticator};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const SECRET: &str = "toomanysecrets";

/// A helper that provisions everybody.
pub(crate) const GOOD_HELPER: &str =
    "cat > /dev/null; echo '{\"configuration\":{\"plugin.choria.server.provision\":\"false\",\"a\":\"b\"}}'";
/// The same, persistent.
pub(crate) const GOOD_POOL: &str =
    "while read -r line; do echo '{\"configuration\":{\"plugin.choria.server.provision\":\"false\"}}'; done";

struct Quiet;
impl nats_broker::Observer for Quiet {}

pub(crate) struct Network {
    pub(crate) broker: Broker,
    pub(crate) addr: SocketAddr,
}

impl Network {
    pub(crate) async fn start(addr: SocketAddr) -> Self {
        let config = BrokerConfig { listen: vec![Listener::plain(addr)], ..BrokerConfig::default() };
        let users = StaticAuthenticator::new()
            .user("provisioner", "pw", "provisioning", Permissions::unlimited())
            .user("nodes", "pw", "provisioning", Permissions::unlimited());
        let accounts = vec![AccountConfig::new("provisioning")];
        let broker = Broker::start(config, accounts, Arc::new(users), Vec::new(), Arc::new(Quiet)).unwrap();
        let addr = broker.local_addr(0).unwrap();
        Self { broker, addr }
    }

    pub(crate) async fn new() -> Self {
        Self::start("127.0.0.1:0".parse().unwrap()).await
    }
}

/// What a node answers; `None`: nothing. Bytes are sent as they are.
pub(crate) type Answer = Box<dyn Fn(&str, &str) -> Option<Result<Value, Vec<u8>>> + Send + Sync>;

/// What happened to the nodes, by identity.
pub(crate) type Seen = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

/// Answers for every node that it announces.
pub(crate) struct Swarm {
    connector: Arc<NatsConnector>,
    pub(crate) seen: Seen,
    waiting: Arc<Mutex<Vec<String>>>,
}

impl Swarm {
    /// `answer` is asked with identity and action.
    pub(crate) async fn new(addr: SocketAddr, answer: Answer) -> Self {
        let target = Target::new(&addr.ip().to_string(), addr.port()).unwrap();
        let mut options = ConnectOptions::new(ServerSource::Static(vec![target]));
        options.user = Some("nodes".into());
        options.password = Some("pw".into());
        let connector = Arc::new(NatsConnector::connect(options, &CancellationToken::new()).await.unwrap());
        let mut directed = connector.subscribe("provisioning.node.>", None, 10_000).await.unwrap();
        let mut discovery = connector.subscribe("provisioning.broadcast.agent.discovery", None, 100).await.unwrap();
        let (seen, waiting) = (Seen::default(), Arc::new(Mutex::new(Vec::<String>::new())));
        let (all, publisher) = (Arc::clone(&seen), Arc::clone(&connector));
        tokio::spawn(async move {
            while let Some(message) = directed.next().await {
                let identity = message.subject.strip_prefix("provisioning.node.").unwrap().to_owned();
                let request = v1::decode_request(&message.payload).unwrap();
                let body = RequestBody::parse(request.request.message.as_bytes()).unwrap();
                all.lock().unwrap().entry(identity.clone()).or_default().push(body.action.clone());
                let Some(answer) = answer(&identity, &body.action) else { continue };
                let payload = match answer {
                    Err(bytes) => bytes,
                    Ok(data) => {
                        let reply = ReplyBody { action: body.action, statuscode: 0, statusmsg: "OK".into(), data };
                        reply_to(&request.request, &identity, reply.to_text())
                    }
                };
                let to = request.transport.headers.reply_to.unwrap();
                let _ = publisher.publish(&to, Bytes::from(payload)).await;
            }
        });
        let (publisher, nodes) = (Arc::clone(&connector), Arc::clone(&waiting));
        tokio::spawn(async move {
            while let Some(message) = discovery.next().await {
                let request = v1::decode_request(&message.payload).unwrap();
                let to = request.transport.headers.reply_to.clone().unwrap();
                let names = nodes.lock().unwrap().clone();
                for name in names {
                    let payload = reply_to(&request.request, &name, PONG.into());
                    let _ = publisher.publish(&to, Bytes::from(payload)).await;
                }
            }
        });
        connector.flush().await.unwrap();
        Self { connector, seen, waiting }
    }

    pub(crate) async fn good(addr: SocketAddr, world: &World) -> Self {
        let token = world.token.clone();
        Self::new(addr, Box::new(move |_, action| Some(Ok(good_data(action, &token))))).await
    }

    /// The node waits; discovery finds it.
    pub(crate) fn waits(&self, identity: &str) {
        self.waiting.lock().unwrap().push(identity.into());
    }

    pub(crate) async fn announce(&self, identity: &str) {
        self.event(Kind::Startup { version: "1".into() }, identity, lifecycle::PROVISION_MODE_SERVER).await;
    }

    pub(crate) async fn event(&self, kind: Kind, identity: &str, component: &str) {
        let event =
            Event { kind, id: ids::event_id(), identity: identity.into(), component: component.into(), timestamp: 1 };
        self.connector.publish(&event.subject(), Bytes::from(event.to_cloud_event())).await.unwrap();
    }

    pub(crate) async fn publish(&self, subject: &str, payload: &[u8]) {
        self.connector.publish(subject, Bytes::copy_from_slice(payload)).await.unwrap();
    }

    pub(crate) async fn listen(&self, subject: &str) -> choria_connector::Subscription {
        let subscription = self.connector.subscribe(subject, None, 1000).await.unwrap();
        self.connector.flush().await.unwrap();
        subscription
    }

    pub(crate) fn asked(&self, identity: &str) -> Vec<String> {
        self.seen.lock().unwrap().get(identity).cloned().unwrap_or_default()
    }
}

fn reply_to(request: &v1::Request, identity: &str, message: String) -> Vec<u8> {
    let reply = Reply::to_request(&request.envelope, identity, request.envelope.time, message);
    v1::encode_reply(&reply, &Headers { mc_sender: Some(identity.into()), ..Headers::default() })
}

/// Data of a good reply.
pub(crate) fn good_data(action: &str, token: &str) -> Value {
    match action {
        "jwt" => json!({"jwt": token, "ecdh_public": ""}),
        "inventory" => json!({"version": "0.30.2", "facts": {"dc": "ams"}, "upgradable": false}),
        _ => json!({"message": "done"}),
    }
}

/// Keys, a token, a directory.
pub(crate) struct World {
    pub(crate) ca: TestCa,
    pub(crate) signer: TokenSigner,
    pub(crate) token: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let ca = TestCa::new();
        let signer = TokenSigner::ed25519(ca.directory());
        let token = signer.token(SECRET, "nats://localhost:4222");
        Self { ca, signer, token }
    }

    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.ca.directory().join(name);
        // A new file each time: one that is being run cannot be written to.
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Writes the provisioner's file; `extra` lines come last.
    pub(crate) fn config_file(&self, helper: &Path, extra: &str) -> PathBuf {
        let text = format!(
            "interval: 1m\nsite: lab\ncontrol_socket: ''\nhelper: {}\ntoken: {SECRET}\nchoria_insecure: true\nbroker_provisioning_password: pw\n\
             jwt_verify_cert: {}\nfeatures: {{jwt: true}}\n{extra}",
            helper.display(),
            self.signer.verification_file().display()
        );
        let path = self.ca.directory().join("provisioner.yaml");
        fs::write(&path, text).unwrap();
        path
    }
}

/// A running provisioner.
pub(crate) struct Running {
    pub(crate) handle: Handle,
    pub(crate) shutdown: CancellationToken,
    pub(crate) reload: Arc<Notify>,
    pub(crate) task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(crate) async fn start(config: &Path, addr: SocketAddr) -> Self {
        let running = Self::start_unconnected(config, addr);
        let mut connected = running.handle.connected();
        tokio::time::timeout(DEADLINE, connected.wait_for(|up| *up)).await.unwrap().unwrap();
        running
    }

    pub(crate) fn start_unconnected(config: &Path, addr: SocketAddr) -> Self {
        let config = ProvisionerConfig::load(config).unwrap();
        let text = format!("identity = provisioner.choria\nplugin.choria.middleware_hosts = {addr}\n");
        let choria = Config::from_text(&text, Mode::Server, &Environment::fixed("unused")).unwrap();
        let provisioner = Provisioner::new(config, &choria, &BuildSettings::default()).unwrap();
        let (handle, shutdown, reload) = (provisioner.handle(), CancellationToken::new(), Arc::new(Notify::new()));
        let task = tokio::spawn(provisioner.run(shutdown.clone(), Arc::clone(&reload)));
        Self { handle, shutdown, reload, task }
    }

    pub(crate) async fn wait(&self, what: &str, condition: impl Fn(&choria_provisioner::metrics::Metrics) -> bool) {
        wait_until_async(DEADLINE, what, async || condition(self.handle.metrics())).await;
    }

    pub(crate) async fn provisioned(&self, count: u64) {
        self.wait(&format!("{count} provisioned"), |metrics| metrics.provisioned.get() == count).await;
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap().unwrap();
    }

    /// One HTTP request to the monitor port; returns status line and body.
    pub(crate) async fn http(&self, method: &str, path: &str, headers: &str) -> (String, String) {
        let addr = SocketAddr::from(([127, 0, 0, 1], self.handle.monitor_addr().unwrap().port()));
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        tokio::time::timeout(DEADLINE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }
}

/// The subject on which every node of a caller is asked for its own.
pub(crate) fn reply_wildcard() -> String {
    subjects::replies_of("provisioning", "choria=provisioner.choria")
}
