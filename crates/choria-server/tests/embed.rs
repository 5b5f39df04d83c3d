//! The embedding example, run: a program's own agent answers a signed request over a real broker.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../examples/embed.rs"]
#[allow(unreachable_pub, reason = "an example is its own program")]
mod embed;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use choria_config::Environment;
use choria_connector::{ConnectOptions, Connector, NatsConnector, ServerSource, Target};
use choria_protocol::filter::Filter;
use choria_protocol::ids;
use choria_protocol::rpc::ReplyBody;
use choria_protocol::v1::{self, Headers, Request, RequestEnvelope, SecureRequest};
use choria_security::sign::RequestSigner;
use choria_security::tls;
use choria_server::Exit;
use choria_testkit::{TestCa, unix_now};
use nats_broker::{AccountConfig, Broker, BrokerConfig, Listener, Observer, OpenAuthenticator};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);

struct Quiet;
impl Observer for Quiet {}

struct Caller {
    connection: NatsConnector,
    signer: RequestSigner,
}

impl Caller {
    async fn call(&self, action: &str, data: Value) -> ReplyBody {
        let reply_to = format!("mcollective.reply.test.{}", ids::request_id());
        let mut replies = self.connection.subscribe(&reply_to, None, 4).await.unwrap();
        let request = Request {
            message: json!({"agent": "thermostat", "action": action, "data": data}).to_string(),
            envelope: RequestEnvelope {
                request_id: ids::request_id(),
                sender_id: "tester.mcollective".into(),
                caller_id: "choria=tester.mcollective".into(),
                collective: "mcollective".into(),
                agent: "thermostat".into(),
                ttl: 60,
                time: unix_now(),
                filter: Filter::default(),
            },
        };
        let message = request.to_text();
        let signed = self.signer.sign(&message).unwrap();
        let secure = SecureRequest { message, signature: signed.signature, pubcert: signed.pubcert };
        let headers = Headers { reply_to: Some(reply_to), ..Headers::default() };
        let wire = Bytes::from(v1::encode_request(&secure, &headers));
        self.connection.publish("mcollective.broadcast.agent.thermostat", wire).await.unwrap();
        let message = timeout(DEADLINE, replies.next()).await.unwrap().unwrap();
        let reply = v1::decode_reply(&message.payload).unwrap();
        ReplyBody::parse(reply.reply.message.as_bytes()).unwrap()
    }
}

#[tokio::test]
async fn an_agent_of_the_embedding_program_answers() {
    let ca = TestCa::new();
    let addr: SocketAddr = ([127, 0, 0, 1], 0).into();
    let listener = Listener::tls(addr, tls::server_config(&ca.broker().material()).unwrap());
    let config = BrokerConfig { listen: vec![listener], ..BrokerConfig::default() };
    let account = vec![AccountConfig::new("$G")];
    let open = Arc::new(OpenAuthenticator::default());
    let broker = Broker::start(config, account, open, Vec::new(), Arc::new(Quiet)).unwrap();
    let port = broker.local_addr(0).unwrap().port();

    let file = ca.directory().join("server.conf");
    let text = format!(
        "identity = house.example.net\nplugin.choria.middleware_hosts = localhost:{port}\n{}",
        ca.node("house.example.net").config_lines()
    );
    fs::write(&file, text).unwrap();
    fs::create_dir(ca.directory().join("policies")).unwrap();
    let policy = "policy default deny\nallow\tchoria=tester.mcollective\t*\t*\t*\n";
    fs::write(ca.directory().join("policies/thermostat.policy"), policy).unwrap();

    let target = Target::parse(&format!("localhost:{port}")).unwrap();
    let mut options = ConnectOptions::new(ServerSource::Static(vec![target]));
    let files = ca.client("tester.mcollective");
    options.tls = Some(tls::client_config(&files.material()).unwrap());
    let connection = NatsConnector::connect(options, &CancellationToken::new()).await.unwrap();
    let signer = RequestSigner::from_files(&files.certificate, &files.key, "key").unwrap();
    let mut started = connection.subscribe("choria.lifecycle.event.startup.server", None, 4).await.unwrap();
    connection.flush().await.unwrap();

    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let environment = Environment::fixed("house.example.net");
    let program = tokio::spawn(async move { embed::run(&file, &environment, stop).await.map_err(|e| e.to_string()) });
    timeout(DEADLINE, started.next()).await.unwrap().unwrap();

    let caller = Caller { connection, signer };
    assert_eq!(caller.call("get", json!({})).await.data, json!({"degrees": 20}));
    assert_eq!(caller.call("set", json!({"degrees": 23})).await.data, json!({"degrees": 23}));
    let refused = caller.call("set", json!({"degrees": 99})).await;
    assert_eq!((refused.statuscode, refused.statusmsg.as_str()), (4, "99 degrees are not between 5 and 30"));
    assert_eq!(caller.call("melt", json!({})).await.statuscode, 2);

    shutdown.cancel();
    assert_eq!(timeout(DEADLINE, program).await.unwrap().unwrap().unwrap(), Exit::Stopped);
    broker.shutdown().await;
}
