//! The broker of the recorded monitoring pages, and the comparison of shapes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nats_broker::{
    AccountConfig, Broker, BrokerConfig, MappingTarget, Observer, Permissions, ResponseBudget, ServiceExport,
    ServiceImport, StaticAuthenticator, StreamExport, StreamImport, SubjectMapping, SubjectRules,
};
use serde_json::Value;

use super::{Raw, connect_as, start_with};

/// `monitoring.conf`: three clients in three accounts and one failed login.
pub async fn monitored(observer: Arc<dyn Observer>) -> (Broker, Vec<Raw>) {
    let accounts = vec![
        AccountConfig::new("SYS"),
        AccountConfig {
            mappings: vec![SubjectMapping {
                source: "m".into(),
                targets: vec![MappingTarget { subject: "n".into(), weight: 100 }],
            }],
            ..AccountConfig::new("A").export(ServiceExport::new("svc")).export(StreamExport::new("st.>"))
        },
        AccountConfig::new("B")
            .import(ServiceImport::new("A", "svc").to("lsvc"))
            .import(StreamImport::new("A", "st.>").to("p.st.>")),
    ];
    let free = Permissions::unlimited;
    let list = |filters: &[&str]| filters.iter().map(|filter| (*filter).to_owned()).collect::<Vec<_>>();
    let restricted = Permissions {
        publish: SubjectRules { allow: Some(list(&["a.>", "$SYS.REQ.USER.INFO"])), deny: list(&["a.b"]) },
        subscribe: SubjectRules { allow: Some(list(&["_INBOX.>", "a.>"])), deny: list(&["a.c"]) },
        responses: Some(ResponseBudget { max: Some(2), ttl: Some(Duration::from_secs(3)) }),
    };
    let users = StaticAuthenticator::new()
        .user("sys", "x", "SYS", free())
        .user("a", "x", "A", free())
        .user("a2", "x", "A", restricted)
        .user("b", "x", "B", free());
    let config = BrokerConfig {
        server_name: "mon1".into(),
        server_tags: vec!["az1".into(), "role:test".into()],
        system_account: Some("SYS".into()),
        monitor_addr: Some("127.0.0.1:8222".parse().unwrap()),
        ..BrokerConfig::default()
    };
    let broker = start_with(config, accounts, Arc::new(users), Vec::new(), observer);
    let addr = broker.local_addr(0).unwrap();
    let mut clients = Vec::new();
    for (user, name, subs) in [
        ("sys", "sysclient", "SUB _INBOX.s.> 1\r\nSUB $SYS.REQ.> 2\r\n"),
        ("a", "cli-a", "SUB svc 1\r\nSUB q.* g 2\r\nSUB _INBOX.a.> 3\r\n"),
        ("b", "cli-b", "SUB in 1\r\nSUB p.> 2\r\n"),
    ] {
        let mut raw = Raw::connect(addr).await;
        raw.send(format!(
            "CONNECT {{\"verbose\":false,\"user\":\"{user}\",\"pass\":\"x\",\"name\":\"{name}\",\"lang\":\"python\",\
             \"version\":\"1.0\"}}\r\n{subs}"
        ))
        .await;
        raw.sync().await;
        clients.push(raw);
    }
    clients[1].send("PUB q.x 4\r\nabcd\r\n").await;
    clients[1].expect("MSG q.x 2 4\r\nabcd\r\n").await;
    let mut evil = Raw::connect(addr).await;
    evil.send(connect_as("evil", "x")).await;
    evil.rest().await;
    // The refused connection must have been put away before the pages are looked at.
    while broker.monitor().varz().connections > 3 {
        tokio::task::yield_now().await;
    }
    (broker, clients)
}

/// Client `b` asks over its service import, and `a` does not answer: an open request.
pub async fn leave_a_request_open(clients: &mut [Raw]) {
    clients[2].send("PUB lsvc in 1\r\nx\r\n").await;
    let got = clients[1].line().await;
    assert!(got.starts_with("MSG svc 1 _R_.") || got.starts_with("HMSG svc 1 _R_."), "{got}");
    while clients[1].line().await != "x" {}
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Fields that ours leaves out, or that depend on what happened before.
const NOT_OURS: &[&str] = &["feature_flags", "http_req_stats"];
/// Fields whose own fields are names of something, not words of the protocol.
const BY_NAME: &[&str] = &["responses"];

/// Compares field names and types; of arrays the first elements.
pub fn compare(at: &str, ours: &Value, golden: &Value, failures: &mut Vec<String>) {
    if type_name(ours) != type_name(golden) {
        failures.push(format!("{at}: {} is not {}", type_name(ours), type_name(golden)));
        return;
    }
    match (ours, golden) {
        (Value::Object(ours), Value::Object(golden)) => {
            let keys = |map: &serde_json::Map<String, Value>| -> BTreeSet<String> {
                map.keys().filter(|key| !NOT_OURS.contains(&key.as_str())).cloned().collect()
            };
            let (left, right) = (keys(ours), keys(golden));
            for key in left.symmetric_difference(&right) {
                // Clients of the reference's recording named other things than ours.
                if !["name", "lang", "version", "ver", "qgroup"].contains(&key.as_str()) {
                    failures.push(format!("{at}.{key} is on one side only"));
                }
            }
            for key in left.intersection(&right) {
                let at = format!("{at}.{key}");
                let first = |value: &Value| value.as_object().and_then(|map| map.values().next()).cloned();
                if BY_NAME.contains(&key.as_str()) {
                    compare(&at, &first(&ours[key]).unwrap(), &first(&golden[key]).unwrap(), failures);
                } else {
                    compare(&at, &ours[key], &golden[key], failures);
                }
            }
        }
        (Value::Array(ours), Value::Array(golden)) => {
            // Open connections are compared with open ones, ended with ended ones.
            let has_ended = |entry: &Value| entry.get("stop").is_some();
            let like = |ours: &Value| golden.iter().find(|golden| has_ended(golden) == has_ended(ours));
            if let Some((ours, golden)) = ours.first().and_then(|ours| Some((ours, like(ours)?))) {
                compare(&format!("{at}[0]"), ours, golden, failures);
            } else if ours.is_empty() != golden.is_empty() {
                failures.push(format!("{at}: {} and {} elements", ours.len(), golden.len()));
            }
        }
        _ => {}
    }
}
