//! The recorded permission rows: which subjects each kind of connection may subscribe and publish.
#![allow(clippy::unwrap_used)]

#[path = "common/golden.rs"]
mod golden;

use std::collections::{BTreeMap, BTreeSet};

use choria_broker::policy::{ConnectFacts, Origin, PolicyGrant, Tls, decide};
use golden::{CLIENT_PASSWORD, NOW, SYSTEM_PASSWORD, Tokens};
use nats_broker::SubjectRules;
use nats_proto::subject;
use serde::Deserialize;
use serde_json::Value;

const NODE: &str = "node1.example.net";

/// How a recorded kind is made with the policy function; `None` when it needs a v2 token or an issuer network.
fn grant(tokens: &Tokens, kind: &str) -> Option<PolicyGrant> {
    let base = ConnectFacts {
        origin: Origin::Client,
        remote: Some("127.0.0.1:40000".parse().unwrap()),
        tls: Tls::Verified,
        verified_names: &[],
        name: Some(NODE),
        user: None,
        password: None,
        token: None,
    };
    let inside = ConnectFacts { remote: Some("127.0.0.2:40000".parse().unwrap()), ..base.clone() };
    let (network, facts) = match kind {
        "provisioning server (token)" => {
            ("x509", ConnectFacts { tls: Tls::Unverified, token: Some(tokens.named("prov")), ..base })
        }
        "provisioner (user and password)" => {
            ("x509", ConnectFacts { user: Some("provisioner"), password: Some(CLIENT_PASSWORD), ..base })
        }
        "system user" => ("x509", ConnectFacts { user: Some("system"), password: Some(SYSTEM_PASSWORD), ..base }),
        "certificate, plain x509 network" => ("x509", base),
        "certificate, client_hosts set, address outside" => ("client-hosts", base),
        "certificate, client_hosts set, address inside" => ("client-hosts", inside),
        "certificate, deny_server_connections, client_hosts, outside" => ("deny-servers-x509", base),
        "certificate, deny_server_connections, client_hosts, inside" => ("deny-servers-x509", inside),
        "certificate, plain network, deny_server_connections" => {
            let mut inputs = tokens.network("x509").unwrap();
            inputs.deny_server_connections = true;
            return Some(decide(&inputs, &base, NOW).unwrap());
        }
        _ => return None,
    };
    Some(decide(&tokens.network(network).unwrap(), &facts, NOW).unwrap())
}

fn may_subscribe(rules: &SubjectRules, filter: &str) -> bool {
    let covered = |by: &String| subject::is_subset(filter, by);
    rules.allow.as_ref().is_none_or(|allow| allow.iter().any(covered)) && !rules.deny.iter().any(covered)
}

fn may_publish(rules: &SubjectRules, literal: &str) -> bool {
    let matched = |filter: &String| subject::matches(filter, literal);
    rules.allow.as_ref().is_none_or(|allow| allow.iter().any(matched)) && !rules.deny.iter().any(matched)
}

#[derive(Deserialize)]
struct Tried {
    subjects_tried: Vec<String>,
}

#[derive(Deserialize)]
struct Row {
    kind: String,
    account: String,
    sub_allowed: Value,
    pub_allowed: Value,
}

fn subjects(value: &Value, all: &[String]) -> BTreeSet<String> {
    match value {
        Value::String(word) => {
            assert_eq!(word, "all");
            all.iter().cloned().collect()
        }
        list => serde_json::from_value(list.clone()).unwrap(),
    }
}

/// What we take away from or add to the recorded lists, on purpose: kind, subscribe or publish, the subjects that change.
fn ours(
    kind: &str,
    sub: &mut BTreeSet<String>,
    publish: &mut BTreeSet<String>,
    all: &[String],
    literal: &[String],
) -> bool {
    match kind {
        // DESIGN §6: only its own name, only its own event family.
        "provisioning server (token)" => {
            assert!(sub.remove("provisioning.node.>"));
            assert!(publish.remove("choria.lifecycle.event.startup.x"));
            assert!(publish.remove("choria.lifecycle.event.governor.x"));
        }
        // Spec 02, sharp edge 4: a listed address is a client.
        "certificate, client_hosts set, address inside"
        | "certificate, deny_server_connections, client_hosts, inside" => {
            *sub = all.iter().cloned().collect();
            *publish = literal.iter().cloned().collect();
        }
        _ => return false,
    }
    true
}

#[test]
fn golden_permissions() {
    let tokens = Tokens::load();
    let text = golden::text("permissions.jsonl");
    let mut lines = text.lines();
    let all = serde_json::from_str::<Tried>(lines.next().unwrap()).unwrap().subjects_tried;
    let literal: Vec<String> = all.iter().filter(|s| subject::is_valid_publish(s)).cloned().collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        let row: Row = serde_json::from_str(line).unwrap();
        let Some(grant) = grant(&tokens, &row.kind) else {
            *counts.entry("needs a client or server token, or an issuer network (protocol v2)").or_default() += 1;
            continue;
        };
        assert_eq!(grant.account.name(), row.account, "{}", row.kind);
        let (mut sub, mut publish) = (subjects(&row.sub_allowed, &all), subjects(&row.pub_allowed, &literal));
        let differs = ours(&row.kind, &mut sub, &mut publish, &all, &literal);
        *counts.entry(if differs { "run, differs on purpose" } else { "run" }).or_default() += 1;

        let filter = |subjects: &[String], allowed: &dyn Fn(&str) -> bool| -> BTreeSet<String> {
            subjects.iter().filter(|s| allowed(s)).cloned().collect()
        };
        let rules = &grant.permissions;
        assert_eq!(filter(&all, &|s| may_subscribe(&rules.subscribe, s)), sub, "{}: subscribe", row.kind);
        assert_eq!(filter(&literal, &|s| may_publish(&rules.publish, s)), publish, "{}: publish", row.kind);
    }
    let expected = BTreeMap::from([
        ("needs a client or server token, or an issuer network (protocol v2)", 37),
        ("run", 6),
        ("run, differs on purpose", 3),
    ]);
    assert_eq!(counts, expected);
}

#[derive(Deserialize)]
struct Effective {
    kind: String,
    data: EffectiveData,
}

#[derive(Deserialize)]
struct EffectiveData {
    user: String,
    account: String,
    permissions: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

fn effective(rules: &SubjectRules) -> BTreeMap<String, BTreeSet<String>> {
    let mut lists = BTreeMap::new();
    if let Some(allow) = &rules.allow {
        lists.insert("allow".to_owned(), allow.iter().cloned().collect());
    }
    if !rules.deny.is_empty() {
        lists.insert("deny".to_owned(), rules.deny.iter().cloned().collect());
    }
    lists
}

#[test]
fn golden_effective_permissions() {
    let tokens = Tokens::load();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in golden::lines::<Effective>("effective-permissions.jsonl") {
        let Some(grant) = grant(&tokens, &row.kind) else {
            *counts.entry("needs a client or server token, or an issuer network (protocol v2)").or_default() += 1;
            continue;
        };
        assert_eq!(grant.account.name(), row.data.account, "{}", row.kind);
        assert_eq!(grant.user.as_deref().unwrap_or(""), row.data.user, "{}", row.kind);
        let (publish, subscribe) = (effective(&grant.permissions.publish), effective(&grant.permissions.subscribe));
        if row.kind == "certificate, client_hosts set, address inside" {
            *counts.entry("run, differs on purpose").or_default() += 1;
            assert_eq!((publish, subscribe), (BTreeMap::new(), BTreeMap::new()), "a listed address has no limits");
            continue;
        }
        *counts.entry("run").or_default() += 1;
        assert_eq!(publish, row.data.permissions["publish"], "{}", row.kind);
        assert_eq!(subscribe, row.data.permissions["subscribe"], "{}", row.kind);
    }
    let expected = BTreeMap::from([
        ("needs a client or server token, or an issuer network (protocol v2)", 22),
        ("run", 5),
        ("run, differs on purpose", 1),
    ]);
    assert_eq!(counts, expected);
}

/// What original unprovisioned servers really sent passes the guard; the same under another name does not.
#[test]
fn messages_of_original_servers_pass_the_identity_guard() {
    use choria_broker::guard::{FORGED_EVENT, FORGED_REGISTRATION, IdentityGuard};
    use nats_broker::PublishGuard as _;

    let mut checked = BTreeMap::from([("event", 0), ("registration", 0)]);
    let mut check = |kind: &'static str, subject: &str, payload: &[u8], forged| {
        let guard = |tag| IdentityGuard.check("provisioning", Some(tag), subject, payload);
        assert_eq!(guard("t1.lab.test"), Ok(()), "{subject}");
        assert_eq!(guard("t2.lab.test"), Err(forged), "{subject}");
        *checked.get_mut(kind).unwrap() += 1;
    };
    for event in golden::lines::<Value>("lifecycle-events.jsonl") {
        if event["data"]["component"] == "provision_mode_server" {
            let kind = event["type"].as_str().unwrap().rsplit_once('.').unwrap().1.to_owned();
            let subject = format!("choria.lifecycle.event.{kind}.provision_mode_server");
            check("event", &subject, event.to_string().as_bytes(), FORGED_EVENT);
        }
    }
    for file in ["registration-v1.json", "registration-secure-v1.json"] {
        let row: Value = serde_json::from_str(&golden::text(file)).unwrap();
        let (subject, message) = (row["subject"].as_str().unwrap(), row["message"].as_str().unwrap());
        check("registration", subject, message.as_bytes(), FORGED_REGISTRATION);
    }
    assert_eq!(checked, BTreeMap::from([("event", 5), ("registration", 2)]));
}
