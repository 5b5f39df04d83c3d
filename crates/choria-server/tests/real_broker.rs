//! The main flow of one node over a real broker and TLS: waits with a token, is asked, gets a certificate and a
//! configuration, starts again as a member over mutual TLS, answers a signed ping.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use choria_config::Environment;
use choria_connector::{ConnectOptions, Connector, NatsConnector, ServerSource, Subscription, Target};
use choria_protocol::filter::Filter;
use choria_protocol::ids;
use choria_protocol::lifecycle::Event;
use choria_protocol::rpc::ReplyBody;
use choria_protocol::v1::{self, Headers, Request, RequestEnvelope, SecureRequest};
use choria_security::ca::SigningPolicy;
use choria_security::sign::RequestSigner;
use choria_security::tls;
use choria_server::{Exit, Server, ServerSettings};
use choria_testkit::{TestCa, unix_now};
use common::token;
use nats_broker::{AccountConfig, Broker, BrokerConfig, Listener, Observer, Permissions, StaticAuthenticator};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);

struct Quiet;
impl Observer for Quiet {}

struct Network {
    ca: TestCa,
    broker: Broker,
    port: u16,
    /// What the node puts into CONNECT while it waits.
    token: String,
    directory: tempfile::TempDir,
}

fn network() -> Network {
    let ca = TestCa::new();
    let directory = tempfile::tempdir().unwrap();
    // The port must be known before the token that names it.
    let port = choria_testkit::free_port();
    let mut claims = common::provisioning_claims();
    claims["chu"] = json!(format!("nats://localhost:{port}"));
    let token = token(&claims);
    let all = Permissions::unlimited();
    let authenticator = StaticAuthenticator::new()
        .token(&token, "provisioning", all.clone())
        .user("provisioner", "secret", "provisioning", all.clone())
        .user("member", "secret", "choria", all);
    let addr = ([127, 0, 0, 1], port).into();
    let listener = Listener::tls(addr, tls::server_config(&ca.broker().material()).unwrap());
    let config = BrokerConfig { listen: vec![listener], ..BrokerConfig::default() };
    let accounts = vec![AccountConfig::new("provisioning"), AccountConfig::new("choria")];
    let broker = Broker::start(config, accounts, Arc::new(authenticator), Vec::new(), Arc::new(Quiet)).unwrap();
    Network { ca, broker, port, token, directory }
}

impl Network {
    fn environment(&self) -> Environment {
        common::environment(self.directory.path(), "n1.lab.test")
    }

    fn settings(&self) -> ServerSettings {
        ServerSettings::load(Path::new("server.conf"), None, &self.environment(), unix_now()).unwrap()
    }

    async fn client(&self, user: &str) -> NatsConnector {
        let target = Target::parse(&format!("localhost:{}", self.port)).unwrap();
        let mut options = ConnectOptions::new(ServerSource::Static(vec![target]));
        options.tls = Some(tls::client_config(&self.ca.client("tester.mcollective").material()).unwrap());
        (options.user, options.password) = (Some(user.into()), Some("secret".into()));
        NatsConnector::connect(options, &CancellationToken::new()).await.unwrap()
    }
}

/// Someone who asks one node.
struct Asker {
    connector: NatsConnector,
    replies: Subscription,
    signer: Option<RequestSigner>,
    collective: &'static str,
}

impl Asker {
    async fn new(connector: NatsConnector, collective: &'static str, signer: Option<RequestSigner>) -> Self {
        let replies = connector.subscribe(&format!("{collective}.reply.>"), None, 64).await.unwrap();
        connector.flush().await.unwrap();
        Self { connector, replies, signer, collective }
    }

    async fn exchange(&mut self, agent: &str, payload: String) -> String {
        let request = Request {
            message: payload,
            envelope: RequestEnvelope {
                request_id: ids::request_id(),
                sender_id: "tester.mcollective".into(),
                caller_id: "choria=tester.mcollective".into(),
                collective: self.collective.into(),
                agent: agent.into(),
                ttl: 60,
                time: unix_now(),
                filter: Filter::default(),
            },
        };
        let text = request.to_text();
        let secure = match &self.signer {
            None => SecureRequest::unsigned(text),
            Some(signer) => {
                let signed = signer.sign(&text).unwrap();
                SecureRequest { message: text, signature: signed.signature, pubcert: signed.pubcert }
            }
        };
        let reply_to = format!("{}.reply.test.{}", self.collective, request.envelope.request_id);
        let headers = Headers { reply_to: Some(reply_to), ..Headers::default() };
        let node = format!("{}.node.n1.lab.test", self.collective);
        self.connector.publish(&node, Bytes::from(v1::encode_request(&secure, &headers))).await.unwrap();
        let message = timeout(DEADLINE, self.replies.next()).await.unwrap().unwrap();
        v1::decode_reply(&message.payload).unwrap().reply.message
    }

    async fn call(&mut self, agent: &str, action: &str, data: Value) -> Value {
        let payload = json!({"agent": agent, "action": action, "data": data}).to_string();
        let reply = ReplyBody::parse(self.exchange(agent, payload).await.as_bytes()).unwrap();
        assert_eq!(reply.statuscode, 0, "{agent}#{action}: {}", reply.statusmsg);
        reply.data
    }
}

async fn event(events: &mut Subscription, kind: &str) -> Event {
    loop {
        let message = timeout(DEADLINE, events.next()).await.unwrap().unwrap();
        let event = Event::parse(&message.payload).unwrap();
        if event.kind.name() == kind {
            return event;
        }
    }
}

fn start(settings: ServerSettings, shutdown: &CancellationToken) -> JoinHandle<Exit> {
    let server = Server::builder(settings).build().unwrap();
    let shutdown = shutdown.clone();
    tokio::spawn(async move { server.run(shutdown).await.unwrap() })
}

#[tokio::test]
async fn an_unconfigured_node_becomes_a_member() {
    let network = network();
    let provisioner = network.client("provisioner").await;
    let mut events = provisioner.subscribe("choria.lifecycle.event.>", None, 64).await.unwrap();
    let mut asker = Asker::new(provisioner, "provisioning", None).await;

    // Born with a token that does not work yet: it waits, says so, and starts over when there is a good one.
    let token_file = network.directory.path().join("provisioning.jwt");
    fs::write(&token_file, "not yet").unwrap();
    let shutdown = CancellationToken::new();
    let waiting = start(network.settings(), &shutdown);
    fs::write(&token_file, &network.token).unwrap();
    assert_eq!(timeout(DEADLINE, waiting).await.unwrap().unwrap(), Exit::Restart);

    let node = start(network.settings(), &shutdown);
    let startup = event(&mut events, "startup").await;
    assert_eq!((startup.identity.as_str(), startup.component.as_str()), ("n1.lab.test", "provision_mode_server"));

    let secret = "toomanysecrets";
    let jwt = asker.call("choria_provision", "jwt", json!({"token": secret})).await;
    assert_eq!(jwt["jwt"], network.token.as_str());
    let inventory = asker.call("rpcutil", "inventory", json!({})).await;
    assert_eq!(inventory["agents"], json!(["choria_provision", "choria_util", "discovery", "rpcutil"]));
    let csr = asker.call("choria_provision", "gencsr", json!({"token": secret, "cn": "n1.lab.test"})).await;
    let policy = SigningPolicy::new("n1.lab.test");
    let issued = network.ca.authority().sign_csr(csr["csr"].as_str().unwrap(), &policy, unix_now()).unwrap();
    let ssl = Path::new(csr["ssldir"].as_str().unwrap()).to_owned();
    let config = json!({
        "plugin.choria.server.provision": "false",
        "identity": "n1.lab.test",
        "plugin.choria.middleware_hosts": format!("localhost:{}", network.port),
        "plugin.nats.user": "member",
        "plugin.nats.pass": "secret",
        "plugin.security.provider": "file",
        "plugin.security.file.certificate": ssl.join("certificate.pem"),
        "plugin.security.file.key": ssl.join("private.pem"),
        "plugin.security.file.ca": ssl.join("ca.pem"),
        "rpcauthorization": "0",
    });
    let input = json!({
        "token": secret, "config": config.to_string(), "certificate": issued.pem,
        "ca": network.ca.certificate_pem(), "ssldir": ssl,
    });
    let written = asker.call("choria_provision", "configure", input).await;
    let file = network.directory.path().join("server.conf");
    assert_eq!(written["message"], format!("Wrote 11 lines to {}", file.display()));
    assert_eq!(event(&mut events, "provisioned").await.identity, "n1.lab.test");
    let restart = asker.call("choria_provision", "restart", json!({"token": secret, "splay": 1})).await;
    assert_eq!(restart["message"], "Restarting Choria Server after 2s");
    assert_eq!(event(&mut events, "shutdown").await.component, "provision_mode_server");
    assert_eq!(timeout(DEADLINE, node).await.unwrap().unwrap(), Exit::Restart);

    // What the program does on Exit::Restart: the same start again.
    let member = network.client("member").await;
    let mut events = member.subscribe("choria.lifecycle.event.>", None, 64).await.unwrap();
    let client = network.ca.client("tester.mcollective");
    let signer = RequestSigner::from_files(&client.certificate, &client.key, "key").unwrap();
    let mut asker = Asker::new(member, "mcollective", Some(signer)).await;
    let settings = network.settings();
    assert!(!settings.is_provisioning());
    let node = start(settings, &shutdown);
    assert_eq!(event(&mut events, "startup").await.component, "server");
    assert_eq!(asker.exchange("discovery", "cGluZw==".into()).await, "pong");
    let info = asker.call("choria_util", "info", json!({})).await;
    assert_eq!(info["connected_server"], format!("nats://localhost:{}", network.port));
    assert_eq!(info["secure_protocol"], true);

    shutdown.cancel();
    assert_eq!(event(&mut events, "shutdown").await.component, "server");
    assert_eq!(timeout(DEADLINE, node).await.unwrap().unwrap(), Exit::Stopped);
    network.broker.shutdown().await;
}

#[tokio::test]
async fn a_server_that_never_connects_still_stops_and_tells_why() {
    let network = network();
    let status = network.directory.path().join("status.json");
    let node = network.ca.node("n1.lab.test");
    let text = format!(
        "identity = n1.lab.test\nplugin.choria.server.provision = false\nplugin.choria.middleware_hosts = localhost:{}\n\
         plugin.choria.status_file_path = {}\n{}",
        choria_testkit::free_port(),
        status.display(),
        node.config_lines()
    );
    fs::write(network.directory.path().join("server.conf"), text).unwrap();
    let shutdown = CancellationToken::new();
    let server = start(network.settings(), &shutdown);
    choria_testkit::wait_until_async(DEADLINE, "the reason in the status file", async || {
        fs::read_to_string(&status).is_ok_and(|text| text.contains("connection refused (is a broker running"))
    })
    .await;
    shutdown.cancel();
    assert_eq!(timeout(DEADLINE, server).await.unwrap().unwrap(), Exit::Stopped);
}
