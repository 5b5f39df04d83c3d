//! Every crafted request of `testdata/protocol/v1`, delivered to a running server of the recording's name, facts and
//! policies: what comes back, and whether anything ran. The rooms below judge the same files one layer each; this is
//! the whole way. Rows that differ are named here and explained in `docs/differences`.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use choria_protocol::rpc::ReplyBody;
use choria_protocol::v1;
use choria_security::patterns::{DEFAULT_ALLOWED, DEFAULT_PRIVILEGED, Patterns};
use choria_security::trust::TrustStore;
use choria_security::verify::RequestVerifier;
use choria_server::{Clock, ServerSettings};
use choria_testkit::golden;
use common::Lab;
use serde_json::Value;

const NODE: &str = "node0.lab.test";

/// What we do instead.
#[derive(Debug, Clone, Copy)]
enum Ours {
    /// No reply, and nothing runs.
    Refused,
    /// The action runs and is answered.
    Served,
    /// An answer with this status and this start of the text.
    Answered(u8, &'static str),
}

use Ours::{Answered, Refused, Served};

/// Rows where we do something else than the original.
const DIFFERENT: &[(&str, Ours)] = &[
    ("1024-bit-rsa", Refused),
    ("callerid-prefix-up", Refused),
    ("callerid-with-trailing-at-sign-and-text", Refused),
    ("callerid-with-trailing-text", Refused),
    ("certificate-that-is-a-ca", Refused),
    ("collective-subc-on-mcollective-subject", Refused),
    ("compound-two-true-one-false", Refused),
    ("data-string", Answered(4, "Could not process request: ")),
    ("discovery-on-broadcast-rpcutil-subject", Refused),
    ("duplicate-callerid-key-last-is-own", Refused),
    ("ec-certificate-of-an-allowed-name", Refused),
    ("filter-without-agent-key", Served),
    ("headers-missing", Refused),
    ("headers-null", Refused),
    ("privileged-by-unescaped-dot-any-callerid", Refused),
    ("privileged-name-in-a-san-any-callerid", Refused),
    ("replay-2-same-request-id-and-bytes", Refused),
    ("reply-to-missing", Refused),
    ("reply-to-missing-nats-reply-set", Refused),
    ("reply-to-with-crlf", Refused),
    ("reply-to-with-space", Refused),
    ("reply-to-with-wildcard", Refused),
    ("requestid-32-odd-characters", Refused),
    ("required-input-missing", Answered(4, "Validation failed: input 'fact' is required")),
    ("transport-keys-in-other-case", Refused),
    ("ttl-1e11-overflow-of-nanoseconds", Refused),
    ("ttl-1e9-with-20-year-old-time", Refused),
    ("unsigned-headers-null", Refused),
];

fn rows(folder: &str) -> Vec<(String, Value)> {
    let mut rows: Vec<(String, Value)> = fs::read_dir(golden::path(&format!("protocol/v1/{folder}")))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

/// The server that the requests were sent to, at the moment when they were judged.
async fn member(now: i64) -> Lab {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let config = format!(
        "identity = {NODE}\ncollectives = mcollective, subc\nplugin.choria.use_srv = false\n\
         plugin.choria.middleware_hosts = localhost:25200\nplugin.choria.server.provision = false\n\
         plugin.yaml = {0}/facts.json\nrpcauthorization = true\nrpcaudit = true\nplugin.rpcaudit.logfile = {0}/audit.log\n",
        root.display()
    );
    fs::write(root.join("server.conf"), config).unwrap();
    fs::write(root.join("facts.json"), r#"{"country": "mt", "serial": 17, "load": 1.9}"#).unwrap();
    fs::create_dir(root.join("policies")).unwrap();
    for agent in ["rpcutil", "choria_util"] {
        fs::write(root.join(format!("policies/{agent}.policy")), "policy default allow\n").unwrap();
    }
    let environment = common::environment(root, NODE);
    let settings = ServerSettings::load(Path::new("server.conf"), None, &environment, now).unwrap();
    assert!(!settings.is_provisioning());
    let trust = Arc::new(TrustStore::load(golden::path("protocol/v1/keys/ca.pem")).unwrap());
    let (allowed, privileged) = (Patterns::new(DEFAULT_ALLOWED).unwrap(), Patterns::new(DEFAULT_PRIVILEGED).unwrap());
    let verifier = RequestVerifier::new(trust, allowed, privileged);
    Lab::start(directory, settings, |builder| builder.clock(Clock::new(move || now)).verifier(verifier)).await
}

/// The token that the recorded server held: it is in one of its replies.
fn recorded_token() -> String {
    let row = golden::json("protocol/v1/crafted-provisioning/unsigned-jwt-action-right-token.json");
    let reply: Value = serde_json::from_str(row["replies"][0]["payload_text"].as_str().unwrap()).unwrap();
    reply["data"]["jwt"].as_str().unwrap().to_owned()
}

/// The same while it waits to be provisioned.
async fn provisioning(now: i64) -> Lab {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::write(root.join("provisioning.jwt"), recorded_token()).unwrap();
    fs::write(root.join("server.conf"), format!("identity = {NODE}\n")).unwrap();
    let environment = common::environment(root, NODE);
    let settings = ServerSettings::load(Path::new("server.conf"), None, &environment, now).unwrap();
    assert!(settings.is_provisioning());
    Lab::start(directory, settings, |builder| builder.clock(Clock::new(move || now))).await
}

/// What became of one delivery.
#[derive(Debug)]
struct Outcome {
    /// Subject and payload of the reply.
    reply: Option<(String, String)>,
    /// Lines of the audit log: calls that were let through to an agent.
    ran: usize,
}

async fn deliver(lab: &Lab, row: &Value) -> Outcome {
    let audit = lab.path().join("audit.log");
    let lines = || fs::read_to_string(&audit).map_or(0, |text| text.lines().count());
    let before = lines();
    let wire = row["wire"].as_str().unwrap().to_owned();
    lab.connector.deliver(row["subject"].as_str().unwrap(), wire.into_bytes()).await;
    let reply =
        lab.connector.take(|subject, _| !subject.starts_with("choria.lifecycle.")).await.map(|(subject, bytes)| {
            let reply = v1::decode_reply(&bytes).unwrap().reply;
            assert_eq!(reply.envelope.sender_id, NODE);
            (subject, reply.message)
        });
    Outcome { reply, ran: lines() - before }
}

fn is_ping(row: &Value) -> bool {
    row["replies"][0]["payload_text"] == "pong"
}

/// Whether a reply says what the recorded one says. Values that name program, run or file are compared by name only.
fn assert_as_recorded(name: &str, reply: &str, row: &Value) {
    let recorded = row["replies"][0]["payload_text"].as_str().unwrap();
    if is_ping(row) {
        assert_eq!(reply, recorded, "{name}");
        return;
    }
    let ours = ReplyBody::parse(reply.as_bytes()).unwrap();
    let theirs = ReplyBody::parse(recorded.as_bytes()).unwrap();
    assert_eq!((ours.statuscode, ours.action), (theirs.statuscode, theirs.action), "{name}");
    // Behind this are words of a JSON library.
    let fixed = |text: &str| text.split("SimpleRPC Request: ").next().unwrap().to_owned();
    assert_eq!(fixed(&ours.statusmsg), fixed(&theirs.statusmsg), "{name}");
    let (mut ours, theirs) = (ours.data.as_object().unwrap().clone(), theirs.data.as_object().unwrap().clone());
    // Ours in addition: it lets a provisioner ask all nodes for their requests with one signature.
    if theirs.contains_key("jwt") {
        assert_eq!(ours.remove("identity_csr"), Some(true.into()), "{name}");
    }
    let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&ours), keys(&theirs), "{name}");
    for (key, value) in &theirs {
        // The node's own file of facts is not part of the data; the key for transfers is a new one each time.
        if !["pong", "facts", "ecdh_public"].contains(&key.as_str()) {
            assert_eq!(&ours[key], value, "{name}: {key}");
        }
    }
}

async fn judge(name: &str, row: &Value, lab: &Lab, audited: bool) -> &'static str {
    if row["case"].as_str().unwrap().starts_with("replay 2") {
        let first = deliver(lab, row).await;
        assert!(first.reply.is_some() && first.ran == 1, "{name}: the first one is served");
    }
    let outcome = deliver(lab, row).await;
    let shown = format!("{name}: {outcome:?}");
    let different = DIFFERENT.iter().find(|(row, _)| *row == name).map(|(_, ours)| *ours);
    match (different, row["original"].as_str().unwrap()) {
        (Some(Refused), original) => {
            assert_ne!(original, "refused", "{name} does not differ");
            assert!(outcome.reply.is_none() && outcome.ran == 0, "{shown}");
            "refused, unlike the original"
        }
        (Some(Served), original) => {
            assert_ne!(original, "replied", "{name} does not differ");
            let (_, reply) = outcome.reply.unwrap();
            assert_eq!((ReplyBody::parse(reply.as_bytes()).unwrap().statuscode, outcome.ran), (0, 1), "{shown}");
            "served, unlike the original"
        }
        (Some(Answered(code, text)), original) => {
            assert_eq!(original, "replied", "{name}");
            let body = ReplyBody::parse(outcome.reply.as_ref().unwrap().1.as_bytes()).unwrap();
            assert!(body.statuscode == code && body.statusmsg.starts_with(text), "{shown}");
            "answered otherwise"
        }
        (None, "refused") => {
            assert!(outcome.reply.is_none() && outcome.ran == 0, "{shown}");
            "refused"
        }
        (None, "replied") => {
            let (subject, reply) = outcome.reply.as_ref().unwrap_or_else(|| panic!("{shown}"));
            assert_eq!(subject, row["replies"][0]["subject"].as_str().unwrap(), "{name}");
            assert_as_recorded(name, reply, row);
            let ok = !is_ping(row) && ReplyBody::parse(reply.as_bytes()).unwrap().statuscode == 0;
            assert_eq!(outcome.ran, usize::from(ok && audited), "{shown}");
            "replied"
        }
        (None, "executed, reply sent to the given subject") => {
            assert!(outcome.reply.is_some() && outcome.ran == 1, "{shown}");
            "replied"
        }
        (None, other) => panic!("{name}: {other} needs an entry"),
    }
}

#[tokio::test(start_paused = true)]
async fn design6_every_crafted_request_on_its_whole_way() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, row) in rows("crafted") {
        if name == "headers-null-to-the-federation-broker-unsigned" {
            // A server subscribes no such subject; the bytes are judged in choria-protocol.
            *counts.entry("for a federation broker").or_default() += 1;
            continue;
        }
        let lab = member(row["judged_at"].as_i64().unwrap()).await;
        *counts.entry(judge(&name, &row, &lab, true).await).or_default() += 1;
        // Whatever it was, the server goes on.
        assert!(!lab.task.is_finished(), "{name}");
    }
    let expected = BTreeMap::from([
        ("answered otherwise", 2),
        ("for a federation broker", 1),
        ("refused", 63),
        ("refused, unlike the original", 24),
        ("replied", 34),
        ("served, unlike the original", 1),
    ]);
    assert_eq!(counts, expected);
}

#[tokio::test(start_paused = true)]
async fn every_crafted_request_to_a_server_that_waits() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, row) in rows("crafted-provisioning") {
        let lab = provisioning(row["judged_at"].as_i64().unwrap()).await;
        *counts.entry(judge(&name, &row, &lab, false).await).or_default() += 1;
        assert!(!lab.task.is_finished(), "{name}");
    }
    let expected = BTreeMap::from([("refused", 4), ("refused, unlike the original", 1), ("replied", 7)]);
    assert_eq!(counts, expected);
}

#[test]
fn every_difference_names_a_row() {
    let names: BTreeSet<String> =
        ["crafted", "crafted-provisioning"].into_iter().flat_map(rows).map(|(name, _)| name).collect();
    for (name, _) in DIFFERENT {
        assert!(names.contains(*name), "there is no row {name}");
    }
}
