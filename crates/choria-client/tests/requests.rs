//! Requests over a network of scripted nodes: who is asked, what they get, and which answers count.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use choria_client::sign::Unsigned;
use choria_client::{
    Batches, Broadcast, Caller, Client, ClientOptions, ConnectError, Outcome, Progress, RequestError, RpcReply,
    RpcRequest, Targets, Wait,
};
use choria_config::{Config, Environment, Mode};
use choria_connector::{Connector, ConnectorError, Message, Status, Subscription, UnsubscribeGuard};
use choria_protocol::filter::Filter;
use choria_protocol::rpc::ReplyBody;
use choria_protocol::{subjects, v1};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the nodes send back for one published message: subject and payload.
type Script = Box<dyn Fn(&str, &v1::DecodedRequest) -> Vec<(String, Vec<u8>)> + Send + Sync>;

struct Network {
    script: Script,
    subscriptions: Mutex<HashMap<String, mpsc::Sender<Message>>>,
    published: Mutex<Vec<(String, Bytes, Instant)>>,
    status: watch::Sender<Status>,
}

impl Network {
    fn new(script: impl Fn(&str, &v1::DecodedRequest) -> Vec<(String, Vec<u8>)> + Send + Sync + 'static) -> Arc<Self> {
        let (status, _) = watch::channel(Status::Connected { server: "nats://b1:4222".to_owned() });
        Arc::new(Self {
            script: Box::new(script),
            subscriptions: Mutex::default(),
            published: Mutex::default(),
            status,
        })
    }

    fn published(&self) -> Vec<(String, Bytes, Instant)> {
        self.published.lock().unwrap().clone()
    }

    fn subjects(&self) -> Vec<String> {
        self.published().into_iter().map(|(subject, ..)| subject).collect()
    }
}

#[async_trait]
impl Connector for Network {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), ConnectorError> {
        self.published.lock().unwrap().push((subject.to_owned(), payload.clone(), Instant::now()));
        let request = v1::decode_request(&payload).unwrap();
        for (subject, payload) in (self.script)(subject, &request) {
            let subscription = self.subscriptions.lock().unwrap().get(&subject).cloned();
            if let Some(sender) = subscription {
                sender.try_send(Message { subject, reply: None, payload: payload.into(), status: None }).unwrap();
            }
        }
        Ok(())
    }

    async fn subscribe(&self, subject: &str, _: Option<&str>, _: usize) -> Result<Subscription, ConnectorError> {
        let (sender, receiver) = mpsc::channel(1000);
        self.subscriptions.lock().unwrap().insert(subject.to_owned(), sender);
        Ok(Subscription::new(receiver, UnsubscribeGuard::new(|| {})))
    }

    async fn flush(&self) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    async fn close(&self) {}
}

fn client(network: &Arc<Network>) -> Client {
    let caller = Caller {
        caller_id: "choria=rip.mcollective".to_owned(),
        identity: "rip.mcollective".to_owned(),
        collectives: vec!["mcollective".to_owned(), "acme".to_owned()],
        ttl: 60,
        require_filter: false,
    };
    let connection: Arc<dyn Connector> = Arc::clone(network) as Arc<dyn Connector>;
    Client::new(connection, Arc::new(Unsigned), caller, CancellationToken::new())
}

/// The right answer of one node.
fn reply(request: &v1::DecodedRequest, sender: &str, message: &str) -> (String, Vec<u8>) {
    let asked = &request.request.envelope;
    let reply = v1::Reply::to_request(asked, sender, asked.time, message.to_owned());
    let wire = v1::encode_reply(&reply, &v1::Headers::default());
    (request.transport.headers.reply_to.clone().unwrap(), wire)
}

fn body(code: u8, message: &str, data: Value) -> String {
    ReplyBody { action: "ping".to_owned(), statuscode: code, statusmsg: message.to_owned(), data }.to_text()
}

fn ok_body() -> String {
    body(0, "OK", json!({"pong": 1}))
}

/// The node that a directed subject names.
fn node_of(subject: &str) -> String {
    subject.split_once(".node.").unwrap().1.to_owned()
}

fn rpc(nodes: &[&str]) -> RpcRequest {
    RpcRequest {
        agent: "rpcutil".to_owned(),
        action: "ping".to_owned(),
        data: Map::new(),
        targets: Targets::Nodes(nodes.iter().map(|&node| node.to_owned()).collect()),
        collective: None,
        timeout: Duration::from_secs(10),
        batches: None,
        discover_time: Duration::from_secs(2),
    }
}

fn everybody() -> Broadcast {
    Broadcast { filter: Filter::default(), collective: None, wait: Wait::fixed(Duration::from_secs(2)), expect: None }
}

#[tokio::test(start_paused = true)]
async fn ping_counts_each_node_once_and_waits_its_whole_time() {
    let network = Network::new(|_, request| ["n1", "n2", "n1"].map(|node| reply(request, node, "pong")).to_vec());
    let mut seen = Vec::new();
    let started = Instant::now();
    let stats = client(&network).ping(&everybody(), |reply| seen.push(reply.sender.clone())).await.unwrap();
    assert_eq!(seen, ["n1", "n2"]);
    assert_eq!(stats.replies, 2);
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    assert_eq!(network.subjects(), ["mcollective.broadcast.agent.discovery"]);
}

#[tokio::test(start_paused = true)]
async fn ping_ends_when_enough_have_answered() {
    let network = Network::new(|_, request| ["n1", "n2", "n3"].map(|node| reply(request, node, "pong")).to_vec());
    let started = Instant::now();
    let request = Broadcast { expect: Some(2), ..everybody() };
    let stats = client(&network).ping(&request, |_| {}).await.unwrap();
    assert_eq!((stats.replies, started.elapsed()), (2, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_sliding_wait_ends_after_the_last_answer() {
    let network = Network::new(|_, request| vec![reply(request, "n1", "pong")]);
    let started = Instant::now();
    let request = Broadcast { wait: Wait::sliding(Duration::from_secs(2)), ..everybody() };
    client(&network).ping(&request, |_| {}).await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn ping_in_another_collective_gets_its_answers_there() {
    let network = Network::new(|_, _| Vec::new());
    let request = Broadcast { collective: Some("acme".to_owned()), ..everybody() };
    client(&network).ping(&request, |_| {}).await.unwrap();
    assert_eq!(network.subjects(), ["acme.broadcast.agent.discovery"]);
    let (_, wire, _) = network.published().remove(0);
    let reply_to = v1::decode_request(&wire).unwrap().transport.headers.reply_to.unwrap();
    assert!(reply_to.starts_with("acme.reply.37bdf08389145a56c13096c178802d3b."), "{reply_to}");

    let unknown = Broadcast { collective: Some("other".to_owned()), ..everybody() };
    let error = client(&network).ping(&unknown, |_| {}).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot set collective to 'other'"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn literal_identities_need_no_network() {
    let network = Network::new(|_, _| Vec::new());
    let mut filter = Filter::default();
    ["b", "a", "b"].into_iter().for_each(|name| filter.add_identity(name));
    filter.add_agent("rpcutil");
    let found = client(&network).discover(&Broadcast { filter, ..everybody() }).await.unwrap();
    assert_eq!((found.nodes, found.assumed), (vec!["b".to_owned(), "a".to_owned()], true));
    assert!(network.published().is_empty());
}

/// DESIGN §6 "One signature for many nodes": one document, unchanged for every target.
#[tokio::test(start_paused = true)]
async fn design6_every_node_gets_the_identical_document() {
    let network = Network::new(|subject, request| vec![reply(request, &node_of(subject), &ok_body())]);
    let finished = client(&network).rpc(&rpc(&["n1", "n2", "n3"]), |_| {}).await.unwrap();
    let published = network.published();
    assert_eq!(network.subjects(), ["mcollective.node.n1", "mcollective.node.n2", "mcollective.node.n3"]);
    assert!(published.iter().all(|(_, wire, _)| *wire == published[0].1));
    let request = v1::decode_request(&published[0].1).unwrap();
    assert_eq!(request.request.envelope.filter.agent, ["rpcutil"]);
    assert_eq!(request.transport.headers.seen_by.len(), 1);
    assert_eq!(finished.stats.outcome(true), Outcome::AllOk);
    assert_eq!((finished.stats.ok, finished.stats.discovered, finished.stats.responses), (3, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn directed_requests_to_another_collective_are_answered_in_the_main_one() {
    let network = Network::new(|subject, request| vec![reply(request, &node_of(subject), &ok_body())]);
    let request = RpcRequest { collective: Some("acme".to_owned()), ..rpc(&["n1"]) };
    client(&network).rpc(&request, |_| {}).await.unwrap();
    let (subject, wire, _) = network.published().remove(0);
    let reply_to = v1::decode_request(&wire).unwrap().transport.headers.reply_to.unwrap();
    assert_eq!(subject, "acme.node.n1");
    assert!(reply_to.starts_with("mcollective.reply."), "{reply_to}");
}

#[tokio::test(start_paused = true)]
async fn silent_unasked_and_repeated_answers_are_told_apart() {
    let network = Network::new(|subject, request| match node_of(subject).as_str() {
        "n1" => vec![reply(request, "n1", &ok_body()), reply(request, "n1", &ok_body())],
        "n2" => vec![reply(request, "n2", &body(1, "no", json!({}))), reply(request, "stranger", &ok_body())],
        _ => Vec::new(),
    });
    let mut replies = Vec::new();
    let started = Instant::now();
    let finished = client(&network)
        .rpc(&rpc(&["n1", "n2", "n3"]), |progress| {
            if let Progress::Reply(reply) = progress {
                replies.push((reply.sender.clone(), reply.code));
            }
        })
        .await
        .unwrap();
    assert_eq!(replies, [("n1".to_owned(), 0), ("n2".to_owned(), 1)]);
    let stats = finished.stats;
    assert_eq!((stats.ok, stats.failed, stats.responses, stats.discovered), (1, 1, 2, 3));
    assert_eq!(stats.no_responses, ["n3"]);
    assert_eq!(stats.unexpected_responses, ["n1", "stranger"]);
    assert_eq!(stats.outcome(true), Outcome::Partial);
    assert_eq!(started.elapsed(), Duration::from_secs(10), "n3 is waited for");
}

/// DESIGN §6: all of sender, request id and agent are compared; a reply that does not decode is a failed one.
#[tokio::test(start_paused = true)]
async fn design6_replies_to_other_requests_do_not_count_and_undecodable_ones_failed() {
    let network = Network::new(|subject, request| {
        let node = node_of(subject);
        let mut other_id = request.clone();
        other_id.request.envelope.request_id = "0123456789abcdef0123456789abcdef".to_owned();
        let mut other_agent = request.clone();
        other_agent.request.envelope.agent = "puppet".to_owned();
        let garbage = (request.transport.headers.reply_to.clone().unwrap(), b"{\"protocol\":null".to_vec());
        match node.as_str() {
            "n1" => vec![reply(&other_id, "n1", &ok_body()), reply(&other_agent, "n1", &ok_body()), garbage],
            _ => vec![reply(request, &node, "no json")],
        }
    });
    let mut replies: Vec<RpcReply> = Vec::new();
    let finished = client(&network)
        .rpc(&rpc(&["n1", "n2"]), |progress| {
            if let Progress::Reply(reply) = progress {
                replies.push(reply.clone());
            }
        })
        .await
        .unwrap();
    assert_eq!(finished.stats.no_responses, ["n1"]);
    assert_eq!((finished.stats.ok, finished.stats.failed), (0, 1));
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].code, RpcReply::UNDECODABLE);
    assert!(replies[0].message.contains("could not be decoded"), "{}", replies[0].message);
}

#[tokio::test(start_paused = true)]
async fn nobody_answering_is_an_outcome_of_its_own() {
    let network = Network::new(|_, _| Vec::new());
    let finished = client(&network).rpc(&rpc(&["n1"]), |_| {}).await.unwrap();
    assert_eq!(finished.stats.outcome(true), Outcome::NoReplies);
    let service = RpcRequest { targets: Targets::Service, ..rpc(&[]) };
    let finished = client(&network).rpc(&service, |_| {}).await.unwrap();
    assert_eq!(finished.stats.outcome(false), Outcome::Nobody);
    assert_eq!(network.subjects()[1], "mcollective.broadcast.service.rpcutil");
}

#[tokio::test(start_paused = true)]
async fn a_service_needs_one_answer_and_gets_no_filter() {
    let network = Network::new(|_, request| vec![reply(request, "s1", &ok_body())]);
    let started = Instant::now();
    let service = RpcRequest { targets: Targets::Service, ..rpc(&[]) };
    let finished = client(&network).rpc(&service, |_| {}).await.unwrap();
    let (_, wire, _) = network.published().remove(0);
    assert!(v1::decode_request(&wire).unwrap().request.envelope.filter.is_empty());
    assert_eq!((finished.stats.responses, finished.stats.discovered), (1, 1));
    assert_eq!(started.elapsed(), Duration::ZERO);
}

/// Spec 05 §11: 7 nodes in batches of 3 are 3, 3, 1 with two pauses; the request id stays.
#[tokio::test(start_paused = true)]
async fn batches_follow_each_other_with_pauses() {
    let network = Network::new(|subject, request| vec![reply(request, &node_of(subject), &ok_body())]);
    let nodes = ["n1", "n2", "n3", "n4", "n5", "n6", "n7"];
    let batches = Some(Batches { size: 3, sleep: Duration::from_secs(2) });
    let started = Instant::now();
    let finished = client(&network).rpc(&RpcRequest { batches, ..rpc(&nodes) }, |_| {}).await.unwrap();
    assert_eq!(finished.stats.ok, 7);
    let seconds: Vec<u64> = network.published().iter().map(|(.., at)| (*at - started).as_secs()).collect();
    assert_eq!(seconds, [0, 0, 0, 2, 2, 2, 4]);
    let ids: Vec<String> = network
        .published()
        .iter()
        .map(|(_, wire, _)| v1::decode_request(wire).unwrap().request.envelope.request_id)
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[tokio::test(start_paused = true)]
async fn replies_can_go_elsewhere() {
    let network = Network::new(|_, _| Vec::new());
    let id = client(&network).rpc_reply_to(&rpc(&["n1"]), "choria.adapter.elk").await.unwrap();
    let (_, wire, _) = network.published().remove(0);
    let request = v1::decode_request(&wire).unwrap();
    assert_eq!(request.transport.headers.reply_to.as_deref(), Some("choria.adapter.elk"));
    assert_eq!(request.request.envelope.request_id, id);
    assert!(network.subscriptions.lock().unwrap().is_empty(), "nobody listens for replies");
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_keeps_what_arrived() {
    let network = Network::new(|subject, request| match node_of(subject).as_str() {
        "n1" => vec![reply(request, "n1", &ok_body())],
        _ => Vec::new(),
    });
    let cancel = CancellationToken::new();
    let connection: Arc<dyn Connector> = Arc::clone(&network) as Arc<dyn Connector>;
    let client = Client::new(connection, Arc::new(Unsigned), client(&network).caller().clone(), cancel.clone());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cancel.cancel();
    });
    let started = Instant::now();
    let finished = client.rpc(&rpc(&["n1", "n2"]), |_| {}).await.unwrap();
    assert!(finished.interrupted);
    assert_eq!(finished.stats.ok, 1);
    assert_eq!(started.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn requests_that_cannot_be_sent_are_refused() {
    let network = Network::new(|_, _| Vec::new());
    let error = client(&network).rpc(&rpc(&[]), |_| {}).await.unwrap_err();
    assert!(matches!(error, RequestError::NoTargets));
    let error = client(&network).rpc(&rpc(&["n1", "n.>"]), |_| {}).await.unwrap_err();
    assert!(matches!(&error, RequestError::Identity(name) if name == "n.>"), "{error}");
    let caller = Caller { require_filter: true, ..client(&network).caller().clone() };
    let connection: Arc<dyn Connector> = Arc::clone(&network) as Arc<dyn Connector>;
    let careful = Client::new(connection, Arc::new(Unsigned), caller, CancellationToken::new());
    let error = careful.ping(&everybody(), |_| {}).await.unwrap_err();
    assert!(matches!(error, RequestError::FilterRequired));
    assert!(network.published().is_empty());
}

/// DESIGN §6 (Client): a broker that is down ends a command within its connection timeout, with the reason.
#[tokio::test]
async fn design6_a_broker_that_is_down_ends_the_wait_with_the_reason() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let lab = choria_testkit::TestCa::new();
    let files = lab.client("tester.mcollective");
    let text = format!(
        "identity = tester.mcollective\nplugin.choria.use_srv = 0\nplugin.choria.middleware_hosts = 127.0.0.1:{port}\n{}",
        files.config_lines()
    );
    let environment = Environment::fixed("tester.mcollective");
    let config = Config::from_text(&text, Mode::Broker, &environment).unwrap();
    let options = ClientOptions { connect_timeout: Duration::from_millis(300), ..ClientOptions::default() };
    let error = Client::connect(&config, options).await.unwrap_err();
    let ConnectError::NoBroker { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.contains(&format!("127.0.0.1:{port}")) && reason.contains("refused"), "{reason}");
}

/// Reply subjects of spec 05 §11.
#[test]
fn reply_subjects() {
    assert_eq!(
        subjects::reply("mcollective", "choria=rip.mcollective", "abc"),
        "mcollective.reply.37bdf08389145a56c13096c178802d3b.abc"
    );
}
