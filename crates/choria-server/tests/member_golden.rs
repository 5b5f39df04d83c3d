//! A fleet member against `golden/server/{rpc-replies,lifecycle-events,status-samples}.jsonl`, with signed requests.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use choria_protocol::rpc::ReplyBody;
use choria_protocol::v1::{self, Headers};
use choria_rpc::{Agent, Call, Metadata, Reply};
use choria_server::{Exit, ServerSettings};
use choria_testkit::golden::{self, member};
use choria_testkit::{TestCa, wait_until};
use common::{Lab, MEMBER, NOW, member_with};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Rows of agents and plugins that this version does not have: no reply, or an answer that says so.
fn is_later(row: &Value) -> bool {
    let source = row["input"]["source"].as_str();
    row["agent"] == "scout" || matches!(source, Some("scout" | "machine_state"))
}

/// Inputs that the original's agents take although their DDL does not (its clients refuse them before sending).
const NOT_IN_THE_DDL: &[(&str, &str)] = &[
    ("get_fact", "{}"),
    ("get_fact", r#"{"fact":""}"#),
    ("get_facts", r#"{"facts":""}"#),
    ("get_facts", r#"{"facts":"a b"}"#),
    ("get_facts", r#"{"facts":",,os.family"}"#),
    ("get_config_item", r#"{"item":""}"#),
    ("get_config_item", "{}"),
    ("get_data", "{}"),
    ("machine_transition", "{}"),
];

/// Fields that say which program and which run it is.
const OWN_FIELDS: &[&str] = &[
    "pong",
    "threads",
    "starttime",
    "pid",
    "go_version",
    "goroutines",
    "client_version",
    "client_flavour",
    "client_stats",
    "path",
    "version",
    "choria_version",
    "configfile",
    "built",
    "commit",
    "uptime",
    "total",
    "passed",
    "replies",
    "validated",
    "events",
    "cpus",
    "connector_tls",
    "secure",
    "author",
    "url",
    "description",
];

/// Removes what differs by nature, keeping that it is there.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let own = OWN_FIELDS.contains(&key.as_str());
                (key.clone(), if own { json!("(own)") } else { shape(value) })
            })
            .collect(),
        Value::Array(list) => list.iter().map(shape).collect(),
        other => other.clone(),
    }
}

/// The recording's node hosts an external agent and Scout, and its classes file's blank line counts as a class.
fn without_later(value: &Value) -> Value {
    match value {
        Value::Array(list) => list
            .iter()
            .filter(|item| {
                let name = item.get("name").or(Some(item)).and_then(Value::as_str);
                !matches!(name, Some("parrot" | "scout" | "machine_state" | ""))
            })
            .map(without_later)
            .collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), without_later(value))).collect(),
        other => other.clone(),
    }
}

fn normal(value: &Value) -> Value {
    let mut value = shape(&without_later(value));
    if let Some(map) = value.as_object_mut() {
        for count in ["agents_count", "classes_count"] {
            map.entry(count).and_modify(|value| *value = json!("(counted)"));
        }
    }
    value
}

#[tokio::test(start_paused = true)]
async fn every_recorded_rpc_reply() {
    let fleet = member_with("rpcauthorization = false\nrpcaudit = true\n", Vec::new()).await;
    let rows = golden::lines("server/rpc-replies.jsonl");
    let (mut compared, mut later, mut refused) = (0, 0, 0);
    for row in &rows {
        let (agent, action) = (member(row, "agent"), member(row, "action"));
        let shown = format!("{agent}#{action} {}", row["input"]);
        if agent == "scout" || row["reply"].is_null() {
            later += 1;
            assert!(
                !fleet.lab.connector.subjects().contains(&format!("mcollective.broadcast.agent.{agent}")),
                "{shown}"
            );
            assert_eq!(fleet.call(agent, action, &row["input"]).await, None, "{shown}");
            continue;
        }
        let reply = fleet.call(agent, action, &row["input"]).await.unwrap_or_else(|| panic!("{shown}: no reply"));
        if is_later(row) {
            later += 1;
            assert_eq!((reply.statuscode, reply.statusmsg.as_str()), (1, "Unknown data plugin"), "{shown}");
            continue;
        }
        let input = row["input"].to_string();
        if NOT_IN_THE_DDL.iter().any(|(name, inputs)| *name == action && *inputs == input) {
            refused += 1;
            let text = &reply.statusmsg;
            assert!(reply.statuscode == 4 && text.starts_with("Validation failed: "), "{shown}: {text}");
            continue;
        }
        assert_eq!(u64::from(reply.statuscode), row["reply"]["statuscode"].as_u64().unwrap(), "{shown}");
        assert_eq!(reply.statusmsg, member(&row["reply"], "statusmsg"), "{shown}");
        assert_eq!(reply.action, action, "{shown}");
        compare(&shown, &reply, row);
        compared += 1;
    }
    assert_eq!((compared, refused, later, rows.len()), (45, NOT_IN_THE_DDL.len(), 9, 63));
}

fn compare(shown: &str, reply: &ReplyBody, row: &Value) {
    let expected = normal(&row["reply"]["data"]);
    let found = normal(&reply.data);
    // Paths of the recording.
    let root = "/tmp/choria-lab-server/";
    if let Some(path) = expected["value"].as_str().filter(|text| text.starts_with(root)) {
        let file = path.rsplit('/').next().unwrap();
        let ours = found["value"].as_str().unwrap();
        let same = ours.rsplit('/').next().unwrap() == file || ours.ends_with("n1.lab.test-key.pem");
        assert!(same, "{shown}: {ours} for {path}");
        return;
    }
    assert_eq!(found, expected, "{shown}");
}

#[tokio::test(start_paused = true)]
async fn secrets_do_not_leave_through_get_config_item() {
    let extra = "rpcauthorization = false\nplugin.nats.user = u\nplugin.nats.pass = very secret\n";
    let fleet = member_with(extra, Vec::new()).await;
    let reply = fleet.call("rpcutil", "get_config_item", &json!({"item": "plugin.nats.pass"})).await.unwrap();
    assert_eq!(reply.data["value"], "(hidden)");
    let reply = fleet.call("rpcutil", "get_data", &json!({"source": "config_item", "query": "plugin.nats.pass"})).await;
    assert_eq!(reply.unwrap().data["value"], "(hidden)");
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_every_known_action_is_refused() {
    let fleet = member_with("", Vec::new()).await;
    let reply = fleet.call("rpcutil", "ping", &json!({})).await.unwrap();
    assert_eq!(
        (reply.statuscode, reply.statusmsg.as_str()),
        (1, "You are not authorized to call this agent or action")
    );
    let reply = fleet.call("rpcutil", "nosuch", &json!({})).await.unwrap();
    assert_eq!((reply.statuscode, reply.statusmsg.as_str()), (2, "Unknown action nosuch for agent rpcutil"));
}

#[tokio::test(start_paused = true)]
async fn policies_decide_and_calls_are_audited() {
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit.log");
    fs::create_dir(directory.path().join("policies")).unwrap();
    let policy = "policy default deny\nallow\tchoria=tester.mcollective\tget_fact\t*\t*\n";
    fs::write(directory.path().join("policies/rpcutil.policy"), policy).unwrap();
    let fleet = common::member_in(directory, "rpcaudit = true\n", Vec::new()).await;
    let allowed = fleet.call("rpcutil", "get_fact", &json!({"fact": "os.family"})).await.unwrap();
    assert_eq!((allowed.statuscode, &allowed.data["value"]), (0, &json!("RedHat")));
    assert_eq!(fleet.call("rpcutil", "ping", &json!({})).await.unwrap().statuscode, 1);
    let lines = fs::read_to_string(&audit).unwrap();
    let line: Value = serde_json::from_str(lines.trim_end()).unwrap();
    let golden = &golden::lines("server/audit-log.jsonl")[0];
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&line), keys(golden));
    for key in ["caller", "sender", "agent", "action", "data"] {
        assert_eq!(line[key], golden[key], "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn subjects_of_a_member() {
    let fleet = member_with("", Vec::new()).await;
    let mut expected = Vec::new();
    for collective in ["mcollective", "sub"] {
        for agent in ["choria_util", "discovery", "rpcutil"] {
            expected.push(format!("{collective}.broadcast.agent.{agent}"));
        }
        expected.push(format!("{collective}.node.n1.lab.test"));
    }
    assert_eq!(fleet.lab.connector.subjects(), expected);
}

#[tokio::test(start_paused = true)]
async fn discovery_answers_pong() {
    let fleet = member_with("", Vec::new()).await;
    let pong = async |payload: &str| {
        let secure = fleet.ask("discovery", payload.to_owned()).secure();
        let bytes = fleet.lab.exchange(&secure, &fleet.lab.next_reply_subject()).await?;
        Some(v1::decode_reply(&bytes).unwrap().reply.message)
    };
    assert_eq!(pong("cGluZw==").await.as_deref(), Some("pong"));
    assert_eq!(pong("\"xpingx\"").await.as_deref(), Some("pong"));
    assert_eq!(pong("hello").await, None);
    // Plain `ping` is valid base64 of something else.
    assert_eq!(pong("ping").await, None);
}

#[tokio::test(start_paused = true)]
async fn design6_a_replayed_request_is_answered_once() {
    let fleet = member_with("rpcauthorization = false\n", Vec::new()).await;
    let payload = json!({"agent": "rpcutil", "action": "ping", "data": {}}).to_string();
    let secure = fleet.ask("rpcutil", payload).secure();
    assert!(fleet.lab.send_secure(&secure, "mcollective.reply.a").await.is_some());
    assert!(fleet.lab.send_secure(&secure, "mcollective.reply.b").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn design6_headers_null_leaves_the_server_running() {
    let fleet = member_with("rpcauthorization = false\n", Vec::new()).await;
    let secure = fleet.ask("rpcutil", json!({"agent": "rpcutil", "action": "ping"}).to_string()).secure();
    let wire = String::from_utf8(v1::encode_request(&secure, &Headers::default())).unwrap();
    let null = wire.replace("\"headers\":{}", "\"headers\":null");
    assert_ne!(null, wire);
    for bad in [null.as_str(), "", "{", "[]", "\u{0}"] {
        fleet.lab.connector.deliver("mcollective.node.n1.lab.test", bad.to_owned().into_bytes()).await;
    }
    assert_eq!(fleet.call("rpcutil", "ping", &json!({})).await.unwrap().statuscode, 0);
    let stats = fleet.call("rpcutil", "daemon_stats", &json!({})).await.unwrap();
    assert_eq!(stats.data["unvalidated"], 5);
}

struct Slow(Metadata);

#[async_trait]
impl Agent for Slow {
    fn metadata(&self) -> &Metadata {
        &self.0
    }
    fn actions(&self) -> Vec<String> {
        vec!["sleep".into(), "large".into()]
    }
    async fn call(&self, call: Call) -> Reply {
        if call.action == "large" {
            return Reply::ok(json!({"text": "x".repeat(2 * 1024 * 1024)}));
        }
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Reply::ok(json!({}))
    }
}

fn slow() -> Arc<dyn Agent> {
    Arc::new(Slow(Metadata {
        license: "Apache-2.0".into(),
        author: "tests".into(),
        timeout: 4,
        name: "slow".into(),
        version: "1.0.0".into(),
        url: "https://example.net".into(),
        description: "takes its time".into(),
        provider: None,
        service: false,
    }))
}

#[tokio::test(start_paused = true)]
async fn a_timeout_and_an_oversized_reply_are_answered_with_code_5() {
    let fleet = member_with("rpcauthorization = false\n", vec![slow()]).await;
    let reply = fleet.call("slow", "sleep", &json!({})).await.unwrap();
    assert_eq!(reply.statuscode, 5);
    assert!(reply.statusmsg == "agent did not answer within 4s", "{}", reply.statusmsg);
    assert_eq!(reply.action, "sleep");
    let reply = fleet.call("slow", "large", &json!({})).await.unwrap();
    assert_eq!(reply.statuscode, 5);
    assert!(reply.statusmsg.contains("the broker takes 1048576"), "{}", reply.statusmsg);
}

#[tokio::test(start_paused = true)]
async fn calls_are_bounded_and_a_busy_node_still_answers_pings() {
    let fleet = member_with("rpcauthorization = false\n", vec![slow()]).await;
    let payload = json!({"agent": "slow", "action": "sleep", "data": {}}).to_string();
    for number in 0..32 {
        let headers = Headers { reply_to: Some(format!("ignored.{number}")), ..Headers::default() };
        let wire = v1::encode_request(&fleet.ask("slow", payload.clone()).secure(), &headers);
        fleet.lab.connector.deliver("mcollective.node.n1.lab.test", wire).await;
    }
    let reply = fleet.call("rpcutil", "ping", &json!({})).await.unwrap();
    assert_eq!(reply.statuscode, 5, "{}", reply.statusmsg);
    assert!(reply.statusmsg.contains("runs 32 requests already"), "{}", reply.statusmsg);
    let secure = fleet.ask("discovery", "cGluZw==".into()).secure();
    assert!(fleet.lab.exchange(&secure, "mcollective.reply.ping").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_running_request_gets_its_moment_at_shutdown() {
    let fleet = member_with("rpcauthorization = false\n", vec![slow()]).await;
    let headers = Headers { reply_to: Some("mcollective.reply.slow".into()), ..Headers::default() };
    let payload = json!({"agent": "slow", "action": "sleep", "data": {}}).to_string();
    let wire = v1::encode_request(&fleet.ask("slow", payload).secure(), &headers);
    fleet.lab.connector.deliver("mcollective.node.n1.lab.test", wire).await;
    let (_, exit) = fleet.lab.stop().await;
    assert_eq!(exit, Exit::Stopped);
}

/// Same fields in the same order; ids and times are fresh; component and version as configured.
#[tokio::test(start_paused = true)]
async fn lifecycle_events_have_the_shape_of_the_recordings() {
    let golden = golden::lines("server/lifecycle-events.jsonl");
    let fields = |event: &Value| -> Vec<String> {
        let inner = event["data"].as_object().unwrap();
        event.as_object().unwrap().keys().chain(inner.keys()).cloned().collect()
    };
    let sample = |kind: &str, component: &str| {
        let found = golden
            .iter()
            .find(|event| member(event, "type").ends_with(kind) && event["data"]["component"] == component);
        found.unwrap_or_else(|| panic!("no {kind} of {component}"))
    };
    let directory = tempfile::tempdir().unwrap();
    let lab = Lab::provisioning(directory, choria_server::provision::configure::ProviderCheck::Embedded).await;
    let wanted = sample("startup", "provision_mode_server");
    assert_eq!(fields(&lab.startup), fields(wanted));
    assert_eq!(lab.startup["data"]["version"], wanted["data"]["version"]);
    let input = json!({"token": "toomanysecrets", "config": "{\"plugin.choria.server.provision\":\"0\"}"});
    lab.call("choria_provision", "configure", input).await.unwrap();
    let (_, bytes) = lab.connector.take(|subject, _| subject.contains(".provisioned.")).await.unwrap();
    let provisioned: Value = serde_json::from_slice(&bytes).unwrap();
    let wanted = sample("provisioned", "provision_mode_server");
    assert_eq!(fields(&provisioned), fields(wanted));
    assert_eq!(provisioned["data"]["id"], provisioned["id"]);
    assert_eq!(provisioned["subject"], wanted["subject"]);
    assert_eq!(provisioned["type"], wanted["type"]);

    let fleet = member_with("", Vec::new()).await;
    assert_eq!(fields(&fleet.lab.startup), fields(sample("startup", "server")));
    let connector = Arc::clone(&fleet.lab.connector);
    fleet.lab.shutdown.cancel();
    let (subject, bytes) = connector.take(|subject, _| subject.contains(".shutdown.")).await.unwrap();
    assert_eq!(subject, "choria.lifecycle.event.shutdown.server");
    let shutdown: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(fields(&shutdown), fields(sample("shutdown", "server")));
}

#[tokio::test(start_paused = true)]
async fn alive_events_are_made_fresh_each_time() {
    let fleet = member_with("", Vec::new()).await;
    let mut seen = Vec::new();
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    for event in fleet.lab.connector.take_events() {
        if event.kind.name() == "alive" {
            assert!(!seen.contains(&event.id), "the same id twice");
            seen.push(event.id);
        }
    }
    assert!(seen.len() >= 5, "{} alive events in three hours", seen.len());
}

#[tokio::test(start_paused = true)]
async fn legacy_lifecycle_format_is_the_inner_object() {
    let fleet = member_with("plugin.choria.legacy_lifecycle_format = 1\n", Vec::new()).await;
    let connector = Arc::clone(&fleet.lab.connector);
    fleet.lab.shutdown.cancel();
    let (_, bytes) = connector.take(|subject, _| subject.contains(".shutdown.")).await.unwrap();
    let event: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(event["protocol"], "io.choria.lifecycle.v1.shutdown");
}

fn status_of(directory: &TempDir) -> Value {
    serde_json::from_slice(&fs::read(directory.path().join("status.json")).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn status_files_have_the_fields_of_the_recordings() {
    let samples = golden::lines("server/status-samples.jsonl");
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("status.json");
    let fleet = member_with(&format!("plugin.choria.status_file_path = {}\n", path.display()), Vec::new()).await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    wait_until(Duration::from_secs(5), "the status file", || path.exists());
    let status = status_of(&directory);
    let sample = &samples[0]["status"];
    for recorded in &samples {
        assert_eq!(keys(&status), keys(&recorded["status"]));
    }
    assert_eq!(keys(&status["stats"]), keys(&sample["stats"]));
    assert_eq!(status["connected_server"], "nats://localhost:25200");
    assert_eq!(status["provisioning_mode"], false);
    assert!(member(&status, "certificate_expires").starts_with("2026-11-"), "{status}");
    assert_eq!(status["token_expires"], sample["token_expires"]);
    // While it is away, the reason is there too, and every write is a whole new file.
    let reason = "TLS with b:4222 failed".to_owned();
    fleet.lab.connector.set_status(choria_connector::Status::Disconnected { reason: reason.clone() });
    tokio::time::sleep(Duration::from_secs(31)).await;
    let status = status_of(&directory);
    assert_eq!((status["connected_server"].as_str(), status["connection_error"].as_str()), (Some(""), Some(&*reason)));
}

#[tokio::test(start_paused = true)]
async fn reload_restarts_only_with_a_good_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let ca = TestCa::at(directory.path().join("pki"), NOW);
    let good = format!("{MEMBER}{}", ca.node("n1.lab.test").config_lines());
    let file = directory.path().join("server.conf");
    fs::write(&file, &good).unwrap();
    let environment = common::environment(directory.path(), "mx.lab.test");
    let settings = ServerSettings::load(Path::new("server.conf"), None, &environment, NOW).unwrap();
    let connector = common::FakeConnector::new();
    let builder = choria_server::Server::builder(settings).connector(connector.clone());
    let server = builder.build().unwrap();
    let reload = server.reload();
    let task = tokio::spawn(server.run(tokio_util::sync::CancellationToken::new()));
    connector.take(|subject, _| subject.contains(".startup.")).await.unwrap();

    fs::write(&file, format!("{good}ttl = soon\n")).unwrap();
    reload.notify_one();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!task.is_finished(), "a bad configuration must not end the server");

    fs::write(&file, &good).unwrap();
    reload.notify_one();
    let exit = tokio::time::timeout(common::DEADLINE, task).await.unwrap().unwrap().unwrap();
    assert_eq!(exit, Exit::Restart);
}
