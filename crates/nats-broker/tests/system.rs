//! What the broker answers itself and tells of itself, against nats-server's answers: same subjects, numbers of answers, fields,
//! types; same words of errors.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::monitored::{compare, leave_a_request_open, monitored};
use common::notes::Notes;
use common::{DEADLINE, Raw, connect_as, golden_lines, start_with};
use nats_broker::{
    AccountConfig, Broker, BrokerConfig, Grant, Observer, Permissions, ServiceExport, ServiceImport,
    StaticAuthenticator,
};
use serde_json::Value;

/// An observer that can reload, and notes slow consumers.
#[derive(Debug, Default)]
struct Reloadable(Notes);

impl Observer for Reloadable {
    fn reload_requested(&self) -> Result<(), String> {
        self.0.push("reload".to_owned());
        Ok(())
    }

    fn slow_consumer(&self, cid: u64, grant: Option<&Grant>, reason: &str) {
        let user = grant.and_then(|grant| grant.user.as_deref()).unwrap_or("-");
        self.0.push(format!("slow {cid} {user} {reason}"));
    }
}

/// A message: subject and payload, whatever headers it has.
async fn next(raw: &mut Raw) -> (String, Vec<u8>) {
    let line = raw.line().await;
    let words: Vec<&str> = line.split(' ').collect();
    assert!(words[0] == "MSG" || words[0] == "HMSG", "no message: {line}");
    let size: usize = words.last().unwrap().parse().unwrap();
    while raw.received().len() < size + 2 {
        assert!(raw.read_more(DEADLINE).await, "{line}");
    }
    let mut content = raw.take(size + 2);
    content.truncate(size);
    (words[1].to_owned(), content)
}

/// Answers that the system user gets, in the order of its requests.
async fn answers(sys: &mut Raw, subject: &str, body: &str) -> Vec<Value> {
    let ask =
        |subject: &str, inbox: &str, body: &str| format!("PUB {subject} _INBOX.s.{inbox} {}\r\n{body}\r\n", body.len());
    sys.send(ask(subject, "asked", body)).await;
    // One answer is made after another: what comes before this one is all there is.
    sys.send(ask("$SYS.REQ.SERVER.PING.IDZ", "fence", "")).await;
    let mut answers = Vec::new();
    loop {
        let (subject, content) = next(sys).await;
        match &*subject {
            "_INBOX.s.asked" => answers.push(serde_json::from_slice(&content).unwrap()),
            "_INBOX.s.fence" => return answers,
            // The listener to all requests.
            request => assert!(request.starts_with("$SYS.REQ."), "{request}"),
        }
    }
}

/// Pages about the insides of a program: ours has others.
const INSIDES: [&str; 2] = ["EXPVARZ", "IPQUEUESZ"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_requests() {
    let observer = Arc::new(Reloadable::default());
    let (broker, mut clients) = monitored(observer.clone()).await;
    leave_a_request_open(&mut clients).await;
    let mut failures = Vec::new();
    let mut rows = 0;
    for row in golden_lines("system/requests.jsonl") {
        let subject = row["subject"].as_str().unwrap().replace("<server id>", broker.server_id());
        let body = row["body"].as_str().unwrap();
        let ours = answers(&mut clients[0], &subject, body).await;
        assert_eq!(ours.len() as u64, row["replies"].as_u64().unwrap(), "{subject} {body}");
        if let Some(ours) = ours.first() {
            let wanted = &row["reply"];
            assert_eq!(ours["error"], wanted["error"], "{subject} {body}");
            if INSIDES.iter().any(|word| subject.ends_with(word)) {
                assert!(ours["data"].is_object());
            } else {
                compare(&format!("{subject} {body}"), ours, wanted, &mut failures);
            }
        }
        rows += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(rows, 68);
    assert!(observer.0.has("reload"));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_ping_filters() {
    let (broker, mut clients) = monitored(Arc::new(common::Unobserved)).await;
    let mut rows = 0;
    for row in golden_lines("system/ping-filters.jsonl") {
        let body = row["body"].as_str().unwrap();
        let identities = answers(&mut clients[0], "$SYS.REQ.SERVER.PING.IDZ", body).await;
        assert_eq!(identities.len() as u64, row["IDZ_answers"].as_u64().unwrap(), "{body}");
        let pings = answers(&mut clients[0], "$SYS.REQ.SERVER.PING", body).await;
        assert_eq!(pings.len() as u64, row["PING_answers"].as_u64().unwrap(), "{body}");
        let error = pings.first().and_then(|ping| ping.get("error")).map(|error| format!("\"error\":{error}"));
        assert_eq!(error.as_deref(), row["error"].as_str(), "{body}");
        rows += 1;
    }
    assert_eq!(rows, 15);
    broker.shutdown().await;
}

async fn login(addr: SocketAddr, user: &str) -> Raw {
    let mut raw = Raw::connect(addr).await;
    raw.send(connect_as(user, "x")).await;
    raw.send("SUB _INBOX.> 1\r\n").await;
    raw.sync().await;
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_requests_of_other_accounts() {
    let (broker, _clients) = monitored(Arc::new(common::Unobserved)).await;
    let mut rows = 0;
    for row in golden_lines("system/user-account-requests.jsonl") {
        let mut raw = login(broker.local_addr(0).unwrap(), row["user"].as_str().unwrap()).await;
        let subject = row["subject"].as_str().unwrap_or("$SYS.REQ.USER.INFO");
        let subject = subject.replace("<server id>", broker.server_id());
        raw.send(format!("PUB {subject} _INBOX.x 0\r\n\r\n")).await;
        let (_, content) = next(&mut raw).await;
        let text = String::from_utf8(content).unwrap();
        if row["kind"] == "HMSG" {
            assert_eq!(text, format!("NATS/1.0 503\r\nNats-Subject: {subject}\r\n\r\n"));
        } else {
            let ours: Value = serde_json::from_str(&text).unwrap();
            if let Some(wanted) = row["reply"].as_object() {
                let mut failures = Vec::new();
                compare(&subject, &ours, &wanted.clone().into(), &mut failures);
                assert!(failures.is_empty(), "{}", failures.join("\n"));
            } else if subject.ends_with("CONNZ") {
                // The recorded text is cut off; the other two in this account.
                assert_eq!(ours["data"]["num_connections"], 2, "{text}");
            } else {
                let accounts = ours["data"]["account_statz"].as_array().unwrap();
                assert!(accounts.len() == 1 && accounts[0]["acc"] == "A", "{text}");
            }
        }
        rows += 1;
    }
    assert_eq!(rows, 10);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_events() {
    let (broker, mut clients) = monitored(Arc::new(common::Unobserved)).await;
    let addr = broker.local_addr(0).unwrap();
    let mut watch = login(addr, "sys").await;
    watch.send("SUB $SYS.SERVER.> 2\r\nSUB $SYS.ACCOUNT.> 3\r\n").await;
    watch.sync().await;
    for user in ["a", "b", "sys"] {
        drop(login(addr, user).await);
    }
    let mut evil = Raw::connect(addr).await;
    evil.send(connect_as("a", "wrong")).await;
    evil.rest().await;
    let mut ours: Vec<(String, Value)> = Vec::new();
    let mut rows = 0;
    let mut failures = Vec::new();
    for row in golden_lines("system/events.jsonl") {
        let subject = row["subject"].as_str().unwrap().replace("<server id>", broker.server_id());
        // Each at most once a moment: wait until it was told of.
        while !ours.iter().any(|(known, _)| *known == subject) {
            let (subject, content) = next(&mut watch).await;
            ours.push((subject, serde_json::from_slice(&content).unwrap()));
        }
        let (_, event) = ours.iter().find(|(known, _)| *known == subject).unwrap();
        let mut event = event.clone();
        // Known for connections that have answered a PING, or asked for one.
        if let Some(client) = event.get_mut("client").and_then(Value::as_object_mut) {
            client.shift_remove("rtt");
        }
        let mut wanted = row["body"].clone();
        if let Some(client) = wanted.get_mut("client").and_then(Value::as_object_mut) {
            client.shift_remove("rtt");
        }
        assert_eq!(event["type"], row["body"]["type"], "{subject}");
        assert_eq!(event["reason"], row["body"]["reason"], "{subject}");
        compare(&subject, &event, &wanted, &mut failures);
        rows += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(rows, 25);
    clients[0].sync().await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_requests_find_nobody_and_long_bodies_are_not_kept() {
    let (broker, _clients) = monitored(Arc::new(common::Unobserved)).await;
    let mut sys = login(broker.local_addr(0).unwrap(), "sys").await;
    sys.send("UNSUB 1\r\nSUB _INBOX.> 1\r\n").await;
    // The listener to all requests goes: it would count as somebody.
    drop(_clients);
    while broker.monitor().varz().connections > 1 {
        tokio::task::yield_now().await;
    }
    let long = "x".repeat((64 << 10) + 1);
    for (subject, body) in [
        ("$SYS.REQ.SERVER.PING.NOPE", ""),
        ("$SYS.REQ.SERVER.NOSUCH.VARZ", ""),
        ("$SYS.REQ.SERVER.PING.KICK", "{\"cid\":1}"),
        ("$SYS.REQ.FOO", ""),
        ("$SYS.REQ.SERVER.PING.VARZ", &*long),
    ] {
        sys.send(format!("PUB {subject} _INBOX.x {}\r\n{body}\r\n", body.len())).await;
        let (_, content) = next(&mut sys).await;
        assert!(content.starts_with(b"NATS/1.0 503"), "{subject}");
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_reach_one_connection_and_only_from_the_system_account() {
    let (broker, mut clients) = monitored(Arc::new(common::Unobserved)).await;
    let addr = broker.local_addr(0).unwrap();
    let mut a = Raw::connect(addr).await;
    a.send("CONNECT {\"verbose\":false,\"protocol\":1,\"user\":\"a\",\"pass\":\"x\"}\r\nPING\r\n").await;
    a.expect("PONG\r\n").await;
    let info = a.line().await;
    let info: Value = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
    let body = format!("{{\"cid\":{}}}", info["client_id"]);
    let order = |word: &str| format!("$SYS.REQ.SERVER.{}.{word}", broker.server_id());
    // Not from elsewhere.
    let kick = order("KICK");
    clients[2].send(format!("PUB {kick} {}\r\n{body}\r\n", body.len())).await;
    clients[2].sync().await;
    a.sync().await;
    let told = answers(&mut clients[0], &order("LDM"), &body).await;
    assert!(told[0].as_object().unwrap().keys().eq(["server"]), "{told:?}");
    let info = a.line().await;
    assert!(info.contains("\"ldm\":true"), "{info}");
    a.sync().await;
    let told = answers(&mut clients[0], &order("KICK"), &body).await;
    assert!(told[0].as_object().unwrap().keys().eq(["server"]), "{told:?}");
    assert_eq!(a.rest().await, "", "no word of it");
    let closed = answers(&mut clients[0], "$SYS.REQ.SERVER.PING.CONNZ", "{\"state\":1,\"sort\":\"stop\"}").await;
    assert!(closed[0]["data"]["connections"].as_array().unwrap().iter().any(|entry| entry["reason"] == "Kicked"));
    let refused = answers(&mut clients[0], &order("RELOAD"), "").await;
    assert_eq!(refused[0]["error"]["code"], 500, "an embedder that cannot reload says so: {refused:?}");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_says_so() {
    let (broker, _clients) = monitored(Arc::new(common::Unobserved)).await;
    let mut watch = login(broker.local_addr(0).unwrap(), "sys").await;
    watch.send("SUB $SYS.SERVER.*.LAMEDUCK 2\r\nSUB $SYS.SERVER.*.SHUTDOWN 3\r\n").await;
    watch.sync().await;
    let going = broker.clone();
    let lame = tokio::spawn(async move { going.lame_duck().await });
    for word in ["LAMEDUCK", "SHUTDOWN"] {
        let (subject, content) = next(&mut watch).await;
        assert_eq!(subject, format!("$SYS.SERVER.{}.{word}", broker.server_id()));
        let server: Value = serde_json::from_slice(&content).unwrap();
        assert_eq!(server["id"], broker.server_id());
        if word == "LAMEDUCK" {
            let broker = broker.clone();
            tokio::spawn(async move { broker.shutdown().await });
        }
    }
    lame.await.unwrap();
}

fn stats(broker: &Broker, name: &str) -> nats_broker::AccountStats {
    broker.account_stats().into_iter().find(|stats| stats.name == name).unwrap()
}

/// Figures of accounts hold what ended connections have carried, each once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn account_figures_keep_what_ended_connections_have_carried() {
    let observer = Arc::new(Reloadable::default());
    let users = StaticAuthenticator::new().user("u", "x", "U", Permissions::unlimited()).user(
        "v",
        "x",
        "V",
        Permissions::unlimited(),
    );
    let config = BrokerConfig { max_pending: 1 << 20, max_payload: 1 << 20, ..BrokerConfig::default() };
    let accounts = vec![AccountConfig::new("U"), AccountConfig::new("V")];
    let broker = start_with(config, accounts, Arc::new(users), Vec::new(), observer.clone());
    let addr = broker.local_addr(0).unwrap();
    let mut one = login(addr, "u").await;
    one.send("SUB x 2\r\nPUB x 3\r\nabc\r\nPUB x 3\r\nabc\r\nPUB nobody 4\r\nabcd\r\n").await;
    assert_eq!((next(&mut one).await.1, next(&mut one).await.1), (b"abc".to_vec(), b"abc".to_vec()));
    one.sync().await;
    let check = |connections, total| {
        let stats = stats(&broker, "U");
        assert_eq!((stats.in_msgs, stats.in_bytes, stats.out_msgs, stats.out_bytes), (3, 10, 2, 6));
        assert_eq!((stats.connections, stats.total_connections, stats.slow_consumers), (connections, total, 0));
    };
    check(1, 1);
    // Into another account: what was carried before stays where it was.
    one.send(connect_as("v", "x")).await;
    one.send("PUB nobody 1\r\nx\r\n").await;
    one.sync().await;
    check(0, 1);
    let v = stats(&broker, "V");
    assert_eq!((v.in_msgs, v.in_bytes, v.out_msgs, v.connections, v.total_connections), (1, 1, 0, 1, 1));
    drop(one);
    while stats(&broker, "V").connections > 0 {
        tokio::task::yield_now().await;
    }
    check(0, 1);
    let v = stats(&broker, "V");
    assert_eq!((v.in_msgs, v.in_bytes, v.total_connections), (1, 1, 1));
    // A slow consumer is told of and counted for its account.
    let mut stuck = login(addr, "u").await;
    stuck.send("SUB flood 5\r\n").await;
    stuck.sync().await;
    let mut publisher = login(addr, "u").await;
    let message = format!("PUB flood 500000\r\n{}\r\n", "x".repeat(500_000));
    while !observer.0.has("slow") {
        publisher.send(&message).await;
        publisher.sync().await;
    }
    observer.0.wait_for("slow 2 u Slow Consumer (Pending Bytes)").await;
    while stats(&broker, "U").slow_consumers == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stats(&broker, "U").slow_consumers, 1);
    assert_eq!(broker.monitor().varz().in_msgs, stats(&broker, "U").in_msgs + 1);
    broker.shutdown().await;
}

/// What the system account exports can be asked for over an import, under another name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_may_import_requests_from_the_system_account() {
    let users = StaticAuthenticator::new().user("a", "x", "A", Permissions::unlimited());
    let identity = "$SYS.REQ.SERVER.PING.IDZ";
    let accounts = vec![
        AccountConfig::new("SYS").export(ServiceExport::new(identity)),
        AccountConfig::new("A").import(ServiceImport::new("SYS", identity).to("who")),
    ];
    let config = BrokerConfig { system_account: Some("SYS".into()), ..BrokerConfig::default() };
    let broker = start_with(config, accounts, Arc::new(users), Vec::new(), Arc::new(common::Unobserved));
    let mut raw = login(broker.local_addr(0).unwrap(), "a").await;
    raw.send("PUB who _INBOX.x 0\r\n\r\n").await;
    let (subject, content) = next(&mut raw).await;
    assert_eq!(subject, "_INBOX.x");
    let told: Value = serde_json::from_slice(&content).unwrap();
    assert_eq!(told["id"], broker.server_id());
    broker.shutdown().await;
}

/// Bodies of any kind are answered with an error or not at all, and the next request as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_any_kind_do_no_harm() {
    let (broker, mut clients) = monitored(Arc::new(common::Unobserved)).await;
    let id = broker.server_id().to_owned();
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let bodies =
        ["{", "\"", "{\"cid\":-1}", "{\"cid\":1e300}", "{\"limit\":18446744073709551615}", "{\"state\":99}", &*deep];
    for word in ["STATSZ", "CONNZ", "SUBSZ", "ACCOUNTZ", "HEALTHZ", "JSZ", "KICK", "LDM", "RELOAD", "PROFILEZ"] {
        for body in bodies {
            let subject = format!("$SYS.REQ.SERVER.{id}.{word}");
            assert!(answers(&mut clients[0], &subject, body).await.len() <= 1, "{word} {body}");
        }
    }
    for word in ["CONNZ", "SUBSZ", "STATZ", "INFO", "JSZ", "LEAFZ", "CONNS"] {
        for body in bodies {
            assert!(answers(&mut clients[0], &format!("$SYS.REQ.ACCOUNT.PING.{word}"), body).await.len() <= 1);
        }
    }
    broker.shutdown().await;
}
