//! What the broker does for its embedder: deadlines, guards, imports, slow consumers, handles.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use common::configs::allow;
use common::notes::{Notes, accounts, client, users};
use common::{CONNECT, DEADLINE, Raw, connect_as, open_broker, start, start_with};
use nats_broker::{
    AccountConfig, Authenticator, Broker, BrokerConfig, ConnectRequest, Grant, Observer, OpenAuthenticator,
    Permissions, PublishGuard, Refusal, RefusalReason, StaticAuthenticator, StreamExport, StreamImport,
};
use nats_proto::HeaderMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn design6_nothing_runs_before_connect() {
    let notes = Arc::new(Notes::default());
    let broker = start_with(BrokerConfig::default(), accounts(), Arc::new(users(&["u"])), vec![], notes.clone());
    let mut listener = client(&broker, "u").await;
    listener.send("SUB > 1\r\n").await;
    listener.sync().await;
    // Also while the message is still on its way: nothing of it is kept.
    for line in ["PUB a 1\r\nx\r\n", "SUB a 1\r\n", "PUB a 1000000\r\n", "PING\r\n", "C", "FROB", "CONNEC "] {
        let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
        if line == "C" {
            raw.send("C").await;
            raw.send("ANCEL\r\n").await;
        } else {
            raw.send(line).await;
        }
        assert_eq!(raw.rest().await, "-ERR 'Authorization Violation'\r\n", "{line:?}");
    }
    notes.wait_for("refused no_connect").await;
    listener.sync().await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn design6_a_silent_connection_ends_at_the_auth_deadline() {
    let notes = Arc::new(Notes::default());
    let config = BrokerConfig { auth_timeout: Duration::from_millis(200), ..BrokerConfig::default() };
    let broker = start_with(config, accounts(), Arc::new(users(&["u"])), vec![], notes.clone());
    for partial in ["", "CONNECT {\"user\":\"u\",\"pa"] {
        let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
        raw.send(partial).await;
        assert_eq!(raw.rest().await, "-ERR 'Authentication Timeout'\r\n");
    }
    notes.wait_for("refused auth_timeout").await;
    broker.shutdown().await;
}

/// Never answers.
struct Silent;

#[async_trait]
impl Authenticator for Silent {
    async fn authenticate(&self, _request: ConnectRequest) -> Result<Grant, Refusal> {
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authenticator_that_does_not_answer_is_not_waited_for_longer() {
    let config = BrokerConfig { auth_timeout: Duration::from_millis(200), ..BrokerConfig::default() };
    let broker = start(config, accounts(), Arc::new(Silent));
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    raw.send(CONNECT).await;
    assert_eq!(raw.rest().await, "-ERR 'Authentication Timeout'\r\n");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn design6_a_connection_ends_when_its_grant_expires() {
    let notes = Arc::new(Notes::default());
    let expiring = users(&["short", "past"])
        .with_grant("short", |grant| grant.expires_at = Some(SystemTime::now() + Duration::from_millis(300)))
        .with_grant("past", |grant| grant.expires_at = Some(SystemTime::now() - Duration::from_secs(1)));
    let broker = start_with(BrokerConfig::default(), accounts(), Arc::new(expiring), vec![], notes.clone());
    let mut raw = client(&broker, "short").await;
    assert_eq!(raw.rest().await, "-ERR 'User Authentication Expired'\r\n");
    notes.wait_for("disconnected 1 Authentication Expired").await;
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    raw.send(connect_as("past", "x")).await;
    assert_eq!(raw.rest().await, "-ERR 'Authorization Violation'\r\n");
    notes.wait_for("refused expired").await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn design6_reply_subject_is_dropped_at_the_import() {
    let accounts = vec![
        AccountConfig::new("P").export(StreamExport::new("life.>")),
        AccountConfig::new("A")
            .import(StreamImport::new("P", "life.>").drop_reply())
            .import(StreamImport::new("P", "life.x").to("kept.x")),
    ];
    let authenticator = users(&["a"]).user("p", "x", "P", Permissions::unlimited());
    let broker = start(BrokerConfig::default(), accounts, Arc::new(authenticator));
    let mut fleet = client(&broker, "a").await;
    fleet.send("SUB life.> 1\r\nSUB kept.> 2\r\n").await;
    fleet.sync().await;
    let mut node = client(&broker, "p").await;
    node.send("PUB life.x steal.me 2\r\nhi\r\nHPUB life.y steal.me 18 20\r\nNATS/1.0\r\nK: v\r\n\r\nhi\r\n").await;
    node.sync().await;
    fleet.expect("MSG life.x 1 2\r\nhi\r\nMSG kept.x 2 steal.me 2\r\nhi\r\n").await;
    fleet.expect("HMSG life.y 1 18 20\r\nNATS/1.0\r\nK: v\r\n\r\nhi\r\n").await;
    // Never the other way.
    node.send("SUB > 1\r\n").await;
    node.sync().await;
    fleet.send("PUB life.x 1\r\nx\r\n").await;
    fleet.expect("MSG life.x 1 1\r\nx\r\n").await;
    fleet.sync().await;
    node.sync().await;
    broker.shutdown().await;
}

/// Lets only messages through whose payload is the connection's tag.
struct OwnTagOnly;

impl PublishGuard for OwnTagOnly {
    fn guarded(&self) -> Vec<(String, String)> {
        vec![("A".into(), "event.>".into())]
    }

    fn check(&self, account: &str, tag: Option<&str>, _subject: &str, payload: &[u8]) -> Result<(), RefusalReason> {
        assert_eq!(account, "A");
        if tag.is_none_or(|tag| tag.as_bytes() == payload) { Ok(()) } else { Err("forged_identity") }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn design6_a_publish_guard_refuses_messages_with_another_identity() {
    let notes = Arc::new(Notes::default());
    let tagged = users(&["free", "node"]).with_grant("node", |grant| grant.tag = Some("n1".into()));
    let tagged = tagged.with_grant("free", |grant| grant.tag = None);
    let guard: Arc<dyn PublishGuard> = Arc::new(OwnTagOnly);
    let broker = start_with(BrokerConfig::default(), accounts(), Arc::new(tagged), vec![guard], notes.clone());
    let mut listener = client(&broker, "free").await;
    listener.send("SUB > 1\r\n").await;
    listener.sync().await;
    let mut node = client(&broker, "node").await;
    // The guard sees the payload without headers, and each message of a run for itself.
    node.send(
        "PUB event.a 2\r\nn1\r\nPUB event.a 2\r\nn2\r\nHPUB event.a 12 14\r\nNATS/1.0\r\n\r\nn1\r\nPUB other 2\r\nn2\r\n",
    )
    .await;
    node.send("PING\r\n").await;
    node.expect("-ERR 'Permissions Violation for Publish to \"event.a\"'\r\nPONG\r\n").await;
    listener.expect("MSG event.a 1 2\r\nn1\r\nHMSG event.a 1 12 14\r\nNATS/1.0\r\n\r\nn1\r\n").await;
    listener.expect("MSG other 1 2\r\nn2\r\n").await;
    notes.wait_for("violation 2 forged_identity event.a").await;
    listener.send("PUB event.a 2\r\nn9\r\n").await;
    listener.expect("MSG event.a 1 2\r\nn9\r\n").await;
    broker.shutdown().await;
}

/// Peers that break the protocol are cut off, some of them without a word as in the reference; the observer hears of each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_breaks_the_protocol_is_told_to_the_observer() {
    for (bytes, claimed) in [
        (&b"CONNECT {\"pass\":[\"hunter2\"]}\r\n"[..], "-"),
        (b"CONNECT {\"protocol\":7}\r\n", "-"),
        (b"CONNECT {\"user\":\"u\",\"pass\":\"x\",\"headers\":false,\"no_responders\":true}\r\n", "-"),
        (b"CONNECT {\"user\":\"u\",\"pass\":\"x\",\"name\":\"n1\"}\r\nPUB a -5\r\n", "n1"),
        (b"CONNECT {\"user\":\"u\",\"pass\":\"x\",\"name\":\"n1\"}\r\nPUB a 0\r\n\r\nNONSENSE\r\n", "n1"),
        (b"CONNECT {\"user\":\"u\",\"pass\":\"x\",\"name\":\"n1\"}\r\nPUB a 9999999\r\n", "n1"),
        (b"CONNECT {\"user\":\"u\",\"pass\":\"x\",\"name\":\"n1\",\"headers\":false}\r\nPUB a 0\r\n\r\nHPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n", "n1"),
    ] {
        let shown = String::from_utf8_lossy(bytes);
        let notes = Arc::new(Notes::default());
        let broker =
            start_with(BrokerConfig::default(), accounts(), Arc::new(users(&["u"])), vec![], notes.clone());
        let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
        raw.send(bytes).await;
        let _ = raw.rest().await;
        notes.wait_for(&format!("refused protocol_violation {claimed}")).await;
        let told = notes.0.lock().unwrap().iter().filter(|note| note.starts_with("refused")).count();
        assert_eq!(told, 1, "{shown}");
        broker.shutdown().await;
    }
}

/// Publishes from inside the callbacks, as an embedder that turns refusals into events does.
#[derive(Default)]
struct Echoing(Mutex<Option<Broker>>);

impl Observer for Echoing {
    fn violation(&self, _cid: u64, _grant: &Grant, what: RefusalReason, subject: &str) {
        if let Some(broker) = &*self.0.lock().unwrap() {
            broker.publish("A", "violations", None, None, format!("{what} {subject}").as_bytes()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_may_publish_from_its_callbacks() {
    let observer = Arc::new(Echoing::default());
    let limited = users(&["free"]).user("limited", "x", "A", allow(&["ok"], &["ok"]));
    let broker = start_with(BrokerConfig::default(), accounts(), Arc::new(limited), vec![], observer.clone());
    *observer.0.lock().unwrap() = Some(broker.clone());
    let mut listener = client(&broker, "free").await;
    listener.send("SUB > 1\r\n").await;
    listener.sync().await;
    let mut limited = client(&broker, "limited").await;
    limited.send("PUB ok 0\r\n\r\nPUB bad 0\r\n\r\nSUB bad 1\r\nPING\r\n").await;
    limited
        .expect(
            "-ERR 'Permissions Violation for Publish to \"bad\"'\r\n\
             -ERR 'Permissions Violation for Subscription to \"bad\"'\r\nPONG\r\n",
        )
        .await;
    listener.expect("MSG ok 1 0\r\n\r\nMSG violations 1 11\r\npublish bad\r\n").await;
    listener.expect("MSG violations 1 13\r\nsubscribe bad\r\n").await;
    *observer.0.lock().unwrap() = None;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_does_not_read_is_dropped_and_nobody_else_suffers() {
    let notes = Arc::new(Notes::default());
    let config = BrokerConfig { max_pending: 2 << 20, ..BrokerConfig::default() };
    let broker = start_with(config, accounts(), Arc::new(users(&["u"])), vec![], notes.clone());
    let mut stuck = client(&broker, "u").await;
    stuck.send("SUB flood 1\r\n").await;
    stuck.sync().await;
    let mut fine = client(&broker, "u").await;
    fine.send("SUB flood 1\r\n").await;
    fine.sync().await;
    let mut publisher = client(&broker, "u").await;
    let message = format!("PUB flood 100000\r\n{}\r\n", "x".repeat(100_000));
    let reader = tokio::spawn(async move {
        let mut seen = 0;
        while seen < 400 {
            let line = fine.line().await;
            assert_eq!(line, "MSG flood 1 100000");
            while fine.received().len() < 100_002 {
                assert!(fine.read_more(DEADLINE).await);
            }
            fine.take(100_002);
            seen += 1;
        }
    });
    for _ in 0..400 {
        publisher.send(&message).await;
    }
    publisher.sync().await;
    reader.await.unwrap();
    notes.wait_for("disconnected 1 Slow Consumer (Pending Bytes)").await;
    assert_eq!(broker.monitor().varz().slow_consumers, 1);
    let rest = stuck.rest().await;
    assert!(!rest.contains("-ERR"), "a slow consumer is closed without a word");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_without_reading_is_dropped_before_its_answers_fill_memory() {
    let notes = Arc::new(Notes::default());
    let config = BrokerConfig { max_pending: 1 << 20, ..BrokerConfig::default() };
    let broker = start_with(config, accounts(), Arc::new(users(&["u"])), vec![], notes.clone());
    let mut greedy = client(&broker, "u").await;
    let pings = "PING\r\n".repeat(50_000);
    for _ in 0..100 {
        if tokio::time::timeout(DEADLINE, greedy.send(&pings)).await.is_err() || notes.has("disconnected") {
            break;
        }
    }
    notes.wait_for("disconnected 1 Slow Consumer (Pending Bytes)").await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_takes_nothing_ends_at_the_write_deadline() {
    let notes = Arc::new(Notes::default());
    let config = BrokerConfig { write_deadline: Duration::from_millis(300), ..BrokerConfig::default() };
    let broker = start_with(config, accounts(), Arc::new(users(&["u"])), vec![], notes.clone());
    let mut stuck = client(&broker, "u").await;
    stuck.send("SUB flood 1\r\n").await;
    stuck.sync().await;
    let payload = vec![b'x'; 1 << 20];
    for _ in 0..24 {
        broker.publish("A", "flood", None, None, &payload).unwrap();
    }
    notes.wait_for("disconnected 1 Slow Consumer (Write Deadline)").await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_answers_no_ping_is_stale() {
    let notes = Arc::new(Notes::default());
    let config = BrokerConfig { ping_interval: Duration::from_millis(150), ..BrokerConfig::default() };
    let broker = start_with(config, accounts(), Arc::new(users(&["u"])), vec![], notes.clone());
    let mut lively = client(&broker, "u").await;
    let mut silent = client(&broker, "u").await;
    let answering = tokio::spawn(async move {
        loop {
            let line = lively.line().await;
            assert_eq!(line, "PING");
            lively.send("PONG\r\n").await;
        }
    });
    assert_eq!(silent.rest().await, "PING\r\nPING\r\n-ERR 'Stale Connection'\r\n");
    notes.wait_for("disconnected 2 Stale Connection").await;
    assert_eq!(broker.connections("A").len(), 1);
    answering.abort();
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_and_a_large_connect_pass() {
    let broker = start(BrokerConfig::default(), accounts(), Arc::new(users(&["u"])));
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    let name = "n".repeat(60_000);
    raw.send(format!("CONNECT {{\"verbose\":false,\"user\":\"u\",\"pass\":\"x\",\"name\":\"{name}\"}}\r\n")).await;
    raw.sync().await;
    raw.send("SUB big 1\r\n").await;
    for size in [65_534, 65_536, 200_000, 1_048_576] {
        let payload = "y".repeat(size);
        raw.send(format!("PUB big {size}\r\n{payload}\r\nPUB big 1\r\nz\r\n")).await;
        raw.expect(format!("MSG big 1 {size}\r\n{payload}\r\nMSG big 1 1\r\nz\r\n")).await;
    }
    raw.send("PUB big 1048577\r\n").await;
    assert_eq!(raw.rest().await, "-ERR 'Maximum Payload Violation'\r\n");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_words_survive_unread_input() {
    let broker = open_broker();
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    // Much more than the broker will ever read of it.
    raw.send(format!("PUB a 2000000\r\n{}", "x".repeat(300_000))).await;
    assert_eq!(raw.rest().await, "-ERR 'Maximum Payload Violation'\r\n");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_and_replies_that_break_other_clients_are_refused() {
    let broker = open_broker();
    let mut listener = Raw::connect(broker.local_addr(0).unwrap()).await;
    listener.send(CONNECT).await;
    listener.send("SUB > 1\r\n").await;
    listener.sync().await;
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    raw.send(CONNECT).await;
    for bad in [&b"PUB a\xff 0\r\n\r\n"[..], b"PUB a r\xfe 0\r\n\r\n", b"PUB a r\rx 0\r\n\r\n", b"PUB a\x01 0\r\n\r\n"]
    {
        raw.send(bad).await;
        raw.expect("-ERR 'Invalid Publish Subject'\r\n").await;
    }
    raw.send(b"SUB a\xff 1\r\n").await;
    raw.expect("-ERR 'Invalid Subject'\r\n").await;
    raw.sync().await;
    listener.sync().await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_info_tells_a_connection_who_it_is() {
    let rights = allow(&["$SYS.REQ.USER.INFO", "a.>"], &["_INBOX.>"]);
    let expiring = StaticAuthenticator::new()
        .user("u", "x", "A", rights)
        .with_grant("u", |grant| grant.expires_at = Some(SystemTime::now() + Duration::from_secs(3600)));
    let broker = start(BrokerConfig::default(), accounts(), Arc::new(expiring));
    let mut raw = client(&broker, "u").await;
    raw.send("SUB _INBOX.1 1\r\nPUB $SYS.REQ.USER.INFO _INBOX.1 0\r\n\r\n").await;
    let head = raw.line().await;
    assert!(head.starts_with("MSG _INBOX.1 1 "), "{head}");
    let answer: serde_json::Value = serde_json::from_str(&raw.line().await).unwrap();
    let data = &answer["data"];
    assert_eq!(data["user"], "u");
    assert_eq!((&data["account"], &data["account_name"]), (&"A".into(), &"A".into()));
    assert_eq!(data["permissions"]["publish"]["allow"], serde_json::json!(["$SYS.REQ.USER.INFO", "a.>"]));
    assert!(data["permissions"]["publish"].get("deny").is_none());
    let left = data["expires"].as_u64().unwrap();
    assert!(left > 3_500_000_000_000 && left <= 3_600_000_000_000);
    for key in ["name", "host", "id", "ver", "jetstream", "flags", "seq", "time"] {
        assert!(answer["server"].get(key).is_some(), "{key}");
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedder_publishes_and_subscribes_inside() {
    let broker = open_broker();
    let mut all = broker.subscribe("$G", "in.>", 10).unwrap();
    let mut tiny = broker.subscribe("$G", "in.>", 1).unwrap();
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    raw.send(CONNECT).await;
    raw.send("SUB out 1\r\nHPUB in.a r 18 20\r\nNATS/1.0\r\nK: v\r\n\r\nhi\r\nPUB in.b 1\r\nx\r\n").await;
    raw.sync().await;
    let first = all.recv().await.unwrap();
    assert_eq!((first.subject.as_str(), first.reply.as_deref(), &first.payload[..]), ("in.a", Some("r"), &b"hi"[..]));
    assert_eq!(first.headers.get("K"), Some("v"));
    assert_eq!(all.recv().await.unwrap().subject, "in.b");
    assert_eq!(tiny.recv().await.unwrap().subject, "in.a");
    assert_eq!((tiny.dropped(), all.dropped()), (1, 0));
    let mut headers = HeaderMap::new();
    headers.append("K", "v").unwrap();
    broker.publish("$G", "out", Some("r"), Some(&headers), b"hi").unwrap();
    raw.expect("HMSG out 1 r 18 20\r\nNATS/1.0\r\nK: v\r\n\r\nhi\r\n").await;
    for (account, subject, reply) in
        [("$G", "a.*", None), ("$G", "a..b", None), ("$G", "a", Some("b c")), ("X", "a", None)]
    {
        assert!(broker.publish(account, subject, reply, None, b"").is_err(), "{account} {subject}");
    }
    assert!(broker.publish("$G", "a", None, None, &vec![0; 1_048_577]).is_err());
    assert!(broker.subscribe("$G", "a..b", 1).is_err() && broker.subscribe("X", "a", 1).is_err());
    drop(tiny);
    // One subscription of the client and one inside are left.
    assert_eq!(broker.monitor().varz().subscriptions, 2);
    let (before, connections) = (broker.connections("$G"), broker.connections("nope"));
    assert_eq!((before.len(), connections.len()), (1, 0));
    assert_eq!(before[0].subscriptions, ["out"]);
    broker.shutdown().await;
    assert!(all.recv().await.is_none(), "receivers see the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kick_and_shutdown_end_connections_without_an_error_line() {
    let notes = Arc::new(Notes::default());
    let broker = start_with(BrokerConfig::default(), accounts(), Arc::new(users(&["u"])), vec![], notes.clone());
    let addr = broker.local_addr(0).unwrap();
    let mut kicked = client(&broker, "u").await;
    let mut stays = client(&broker, "u").await;
    assert!(broker.kick(1, "Kicked"));
    assert!(!broker.kick(99, "Kicked"));
    assert_eq!(kicked.rest().await, "");
    notes.wait_for("disconnected 1 Kicked").await;
    stays.sync().await;
    broker.shutdown().await;
    assert_eq!(stays.rest().await, "");
    notes.wait_for("disconnected 2 Server Shutdown").await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "nobody listens any more");
    // A second call finds nothing to do.
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_connects_are_told_with_their_reason() {
    let notes = Arc::new(Notes::default());
    let nowhere = users(&["u"]).user("lost", "x", "Z", Permissions::unlimited());
    let broker = start_with(BrokerConfig::default(), accounts(), Arc::new(nowhere), vec![], notes.clone());
    for (user, pass, reason) in [
        ("u", "wrong", "refused bad_password u"),
        ("nobody", "x", "refused unknown_user nobody"),
        ("lost", "x", "refused unknown_account"),
        ("", "", "refused no_credentials"),
    ] {
        let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
        raw.send(connect_as(user, pass)).await;
        assert_eq!(raw.rest().await, "-ERR 'Authorization Violation'\r\n");
        notes.wait_for(reason).await;
    }
    assert!(!notes.has("connected"));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_connect_may_change_account_and_rights() {
    let accounts = vec![AccountConfig::new("A"), AccountConfig::new("B")];
    let authenticator = users(&["a"]).user("b", "x", "B", allow(&["x"], &["x"]));
    let broker = start(BrokerConfig::default(), accounts, Arc::new(authenticator));
    let mut raw = client(&broker, "a").await;
    raw.send("SUB anything 1\r\n").await;
    raw.sync().await;
    assert_eq!(broker.connections("A")[0].subscriptions, ["anything"]);
    raw.send(connect_as("b", "x")).await;
    raw.send("SUB anything 1\r\nPING\r\n").await;
    raw.expect("-ERR 'Permissions Violation for Subscription to \"anything\"'\r\nPONG\r\n").await;
    assert_eq!((broker.connections("A").len(), broker.connections("B").len()), (0, 1));
    assert!(broker.connections("B")[0].subscriptions.is_empty());
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_cannot_listen_says_where() {
    let broker = open_broker();
    let taken = broker.local_addr(0).unwrap();
    let config = BrokerConfig { listen: vec![nats_broker::Listener::plain(taken)], ..BrokerConfig::default() };
    let error = Broker::start(
        config,
        vec![AccountConfig::new("$G")],
        Arc::new(OpenAuthenticator::default()),
        vec![],
        Arc::new(Notes::default()),
    )
    .unwrap_err();
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    broker.shutdown().await;
}

#[test]
fn a_broker_outside_a_runtime_says_so() {
    let error = Broker::start(
        BrokerConfig::default(),
        Vec::new(),
        Arc::new(OpenAuthenticator::default()),
        vec![],
        Arc::new(Notes::default()),
    )
    .unwrap_err();
    assert!(matches!(error, nats_broker::StartError::NoRuntime), "{error}");
}
