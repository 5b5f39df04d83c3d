//! Ways around the rules that were open in brokers of this kind, each by name.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::configs::allow;
use common::notes::{Notes, accounts, client, users};
use common::{Raw, connect_as, loopback, start};
use nats_broker::{
    AccountConfig, Broker, BrokerConfig, OpenAuthenticator, Permissions, Reload, ServiceExport, ServiceImport,
    StreamExport, StreamImport, SubjectRules,
};

fn denied(subscribe: &[&str]) -> Permissions {
    let deny = subscribe.iter().map(|text| (*text).to_owned()).collect();
    Permissions { subscribe: SubjectRules { allow: None, deny }, ..Permissions::default() }
}

fn refusal(filter: &str, queue: Option<&str>) -> String {
    let using = queue.map(|queue| format!(" using queue \"{queue}\"")).unwrap_or_default();
    format!("-ERR 'Permissions Violation for Subscription to \"{filter}\"{using}'\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acting_before_connect_has_no_effect_even_with_a_connect_right_behind_it() {
    let broker = start(BrokerConfig::default(), accounts(), Arc::new(users(&["u"])));
    let mut listener = client(&broker, "u").await;
    listener.send("SUB > 1\r\n").await;
    listener.sync().await;
    for first in ["PUB stolen 0\r\n\r\n", "SUB > 1\r\n", "PING\r\n", "\r\n", "pub x 0\r\n\r\n", "INFO {}\r\n"] {
        let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
        raw.send(format!("{first}{}PUB late 0\r\n\r\n", connect_as("u", "x"))).await;
        assert_eq!(raw.rest().await, "-ERR 'Authorization Violation'\r\n", "{first:?}");
    }
    listener.sync().await;
    assert_eq!(broker.connections("A").len(), 1);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acting_before_connect_ends_when_logins_are_asked_for() {
    // Open at first: operations before CONNECT run in the open account.
    let broker = start(BrokerConfig::default(), accounts(), Arc::new(OpenAuthenticator::new("A")));
    let mut active = Raw::connect(broker.local_addr(0).unwrap()).await;
    let mut silent = Raw::connect(broker.local_addr(0).unwrap()).await;
    active.send("SUB a 1\r\nPING\r\n").await;
    active.expect("+OK\r\nPONG\r\n").await;
    let config = BrokerConfig { listen: vec![loopback()], ..BrokerConfig::default() };
    let authenticator = Arc::new(users(&["u"]));
    let reload = Reload { config, accounts: accounts(), authenticator, guards: vec![] };
    assert_eq!(broker.reload(reload).unwrap().connections_ended, 1);
    assert_eq!(active.rest().await, "-ERR 'Authorization Violation'\r\n");
    silent.send("SUB a 1\r\n").await;
    assert_eq!(silent.rest().await, "-ERR 'Authorization Violation'\r\n");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_subscription_is_no_way_around_a_deny() {
    let rights = denied(&["secret", "a.b", "w.*", "team red", "pool *.bad"]);
    let broker = start(BrokerConfig::default(), accounts(), Arc::new(users(&["p"]).user("s", "x", "A", rights)));
    let mut subscriber = client(&broker, "s").await;
    for (filter, queue) in [
        ("secret", None),
        ("secret", Some("q")),
        ("secret", Some("*")),
        ("secret", Some(">")),
        ("a.b", Some("q")),
        ("w.x", Some("q")),
        ("w.*", Some("q")),
        ("w.>", Some("q")),
        ("team", Some("red")),
        ("pool", Some("x.bad")),
    ] {
        subscriber.send(format!("SUB {filter} {} 9\r\n", queue.unwrap_or_default())).await;
        subscriber.expect(refusal(filter, queue)).await;
    }
    // Wildcards that reach further get everything but what is denied, also as the only member of a group.
    subscriber.send("SUB a.* q 1\r\nSUB > all 2\r\nSUB team blue 3\r\nSUB secret.> q 4\r\n").await;
    subscriber.sync().await;
    let mut publisher = client(&broker, "p").await;
    publisher.send("SUB a.* q 1\r\n").await;
    let messages = "PUB a.b 0\r\n\r\nPUB secret 0\r\n\r\nPUB w.x 0\r\n\r\n";
    publisher.send(messages.repeat(20)).await;
    // The other member of the group gets all that the denied one may not have.
    publisher.expect("MSG a.b 1 0\r\n\r\n".repeat(20)).await;
    publisher.sync().await;
    subscriber.sync().await;
    publisher.send("PUB secret.x 0\r\n\r\n").await;
    publisher.sync().await;
    common::wire::receive(&mut subscriber, b"MSG secret.x 2 0\r\n\r\nMSG secret.x 4 0\r\n\r\n").await.unwrap();
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allow_of_one_level_does_not_admit_what_lies_below() {
    let rights = allow(&[], &["a.*", "*", "deep.*.x"]);
    let broker = start(BrokerConfig::default(), accounts(), Arc::new(users(&["p"]).user("s", "x", "A", rights)));
    let mut subscriber = client(&broker, "s").await;
    for filter in ["a.>", ">", "*.*", "*.>", "a.*.*", "a.b.c", "deep.>", "deep.*.*", "deep.*.>"] {
        for queue in [None, Some("q")] {
            subscriber.send(format!("SUB {filter} {} 9\r\n", queue.unwrap_or_default())).await;
            subscriber.expect(refusal(filter, queue)).await;
        }
    }
    subscriber.send("SUB a.* 1\r\nSUB a.x 2\r\nSUB * 3\r\nSUB deep.y.x 4\r\n").await;
    subscriber.sync().await;
    let mut publisher = client(&broker, "p").await;
    // `>` is an ordinary token where it is published, and opens nothing.
    publisher.send("PUB a.b.c 0\r\n\r\nPUB a.> 0\r\n\r\nPUB deep.y.z 0\r\n\r\n").await;
    publisher.sync().await;
    subscriber.expect("MSG a.> 1 0\r\n\r\n").await;
    subscriber.sync().await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_allow_of_one_level_does_not_admit_what_lies_below() {
    let rights = allow(&["a.*"], &[]);
    let broker = start(BrokerConfig::default(), accounts(), Arc::new(users(&["l"]).user("p", "x", "A", rights)));
    let mut listener = client(&broker, "l").await;
    listener.send("SUB > 1\r\n").await;
    listener.sync().await;
    let mut publisher = client(&broker, "p").await;
    for subject in ["a.b.c", "a", "b.c", "a..b", "a.b."] {
        publisher.send(format!("PUB {subject} 0\r\n\r\n")).await;
        publisher.expect(format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\n")).await;
    }
    listener.sync().await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_request_info_does_not_reach_the_responder() {
    let accounts = vec![
        AccountConfig::new("A").export(ServiceExport::new("svc")),
        AccountConfig::new("B").import(ServiceImport::new("A", "svc")),
    ];
    let users = users(&["a"]).user("b", "x", "B", Permissions::unlimited());
    let broker = start(BrokerConfig::default(), accounts, Arc::new(users));
    let mut responder = client(&broker, "a").await;
    responder.send("SUB svc 1\r\n").await;
    responder.sync().await;
    let mut requester = client(&broker, "b").await;
    let forged = "{\"acc\":\"A\",\"user\":\"admin\"}";
    for block in [
        format!("NATS/1.0\r\nNats-Request-Info: {forged}\r\n\r\n"),
        format!("NATS/1.0\r\nnats-request-info:{forged}\r\nNATS-REQUEST-INFO: {forged}\r\n\r\n"),
        format!("NATS/1.0\r\nNats-Request-Info : {forged}\r\n\r\n"),
        format!("NATS/1.0\r\nA: b\rNats-Request-Info: {forged}\r\n\r\n"),
        format!("NATS/1.0\nNats-Request-Info: {forged}\n\r\n"),
        format!("NATS/1.0\r\nNats-Request-Info: {forged}"),
        format!("Nats-Request-Info: {forged}\r\n\r\n"),
    ] {
        requester.send(format!("HPUB svc {0} {0}\r\n{block}\r\n", block.len())).await;
        let head = responder.line().await;
        let size: usize = head.rsplit(' ').next().unwrap().parse().unwrap();
        while responder.received().len() < size + 2 {
            assert!(responder.read_more(common::DEADLINE).await);
        }
        let content = String::from_utf8(responder.take(size + 2)).unwrap();
        assert!(!content.contains("admin") && content.contains("\"acc\":\"B\""), "{block:?}: {content:?}");
        assert_eq!(content.to_ascii_lowercase().matches("nats-request-info").count(), 1, "{content:?}");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn import_cycles_do_not_start_and_cannot_be_reloaded_into() {
    let service = |name: &str, from: &str| {
        let account = AccountConfig::new(name).export(ServiceExport::new("s.>"));
        account.import(ServiceImport::new(from, "s.x"))
    };
    let stream = |name: &str, from: &str| {
        AccountConfig::new(name).export(StreamExport::new("s.>")).import(StreamImport::new(from, "s.*"))
    };
    let cycles = [
        vec![service("A", "B"), service("B", "A")],
        vec![service("A", "C"), service("B", "A"), service("C", "B")],
        vec![stream("A", "B"), stream("B", "A")],
        vec![stream("A", "C"), stream("B", "A"), stream("C", "B")],
    ];
    let broker = start(BrokerConfig::default(), accounts(), Arc::new(users(&["u"])));
    let mut raw = client(&broker, "u").await;
    for accounts in cycles {
        let open = Arc::new(OpenAuthenticator::new("A"));
        let started =
            Broker::start(BrokerConfig::default(), accounts.clone(), open.clone(), vec![], Arc::new(Notes::default()));
        let error = started.unwrap_err().to_string();
        assert!(error.contains("forms a cycle"), "{error}");
        let config = BrokerConfig { listen: vec![loopback()], ..BrokerConfig::default() };
        let error = broker.reload(Reload { config, accounts, authenticator: open, guards: vec![] }).unwrap_err();
        assert!(error.to_string().contains("forms a cycle"), "{error}");
    }
    raw.sync().await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_by_import_goes_no_further_whatever_is_imported_there() {
    // A chain without a cycle: B hears A, C hears B. What A says is none of C's business.
    let accounts = vec![
        AccountConfig::new("A").export(StreamExport::new(">")),
        AccountConfig::new("B").import(StreamImport::new("A", ">")).export(StreamExport::new(">")),
        AccountConfig::new("C").import(StreamImport::new("B", ">")),
    ];
    let free = Permissions::unlimited;
    let users = users(&["a"]).user("b", "x", "B", free()).user("c", "x", "C", free());
    let broker = start(BrokerConfig::default(), accounts, Arc::new(users));
    let (mut a, mut b, mut c) = (client(&broker, "a").await, client(&broker, "b").await, client(&broker, "c").await);
    for raw in [&mut b, &mut c] {
        raw.send("SUB > 1\r\n").await;
        raw.sync().await;
    }
    a.send("PUB x 0\r\n\r\n").await;
    b.expect("MSG x 1 0\r\n\r\n").await;
    c.sync().await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mappings_do_not_close_an_import_cycle_and_a_second_visit_is_none() {
    let a = || AccountConfig::new("A").export(ServiceExport::new("back")).import(ServiceImport::new("B", "svc"));
    let b =
        || AccountConfig::new("B").export(ServiceExport::new("svc")).import(ServiceImport::new("A", "back").to("out"));
    let with = |account: AccountConfig, source: &str, target: &str| AccountConfig {
        mappings: vec![common::configs::mapping(source, target)],
        ..account
    };
    let users = || users(&["a"]).user("b", "x", "B", Permissions::unlimited());
    for (source, target) in [("back", "svc"), ("*", "svc"), ("back", "{{random(3)}}"), (">", "svc.>")] {
        let accounts = vec![with(a(), source, target), with(b(), "svc", "out")];
        let error =
            Broker::start(BrokerConfig::default(), accounts, Arc::new(users()), vec![], Arc::new(Notes::default()));
        let is_cycle = error.as_ref().is_err_and(|error| error.to_string().contains("forms a cycle"));
        assert_eq!(is_cycle, target != "svc.>", "{source} -> {target}: {error:?}");
    }
    // A request that comes back under another subject ends there.
    let accounts = vec![a(), with(b(), "svc", "out")];
    let broker = start(BrokerConfig::default(), accounts, Arc::new(users()));
    let mut responder = client(&broker, "a").await;
    responder.send("SUB back 1\r\n").await;
    responder.sync().await;
    let mut requester = client(&broker, "a").await;
    requester.send("SUB in 1\r\nPUB svc in 0\r\n\r\n").await;
    let head = responder.line().await;
    let reply = head.split(' ').nth(3).unwrap().to_owned();
    assert!(head.starts_with("HMSG back 1 _R_."), "{head}");
    while !responder.line().await.is_empty() {}
    responder.line().await;
    responder.send(format!("PUB {reply} 2\r\nok\r\n")).await;
    requester.expect("MSG in 1 2\r\nok\r\n").await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_accounts_may_hear_of_each_other_without_reply_subjects() {
    let account = |name: &str, other: &str| {
        let account = AccountConfig::new(name).export(StreamExport::new("life.>"));
        account.import(StreamImport::new(other, "life.>").drop_reply())
    };
    let users = users(&["a"]).user("b", "x", "B", Permissions::unlimited());
    let broker = start(BrokerConfig::default(), vec![account("A", "B"), account("B", "A")], Arc::new(users));
    let (mut a, mut b) = (client(&broker, "a").await, client(&broker, "b").await);
    for raw in [&mut a, &mut b] {
        raw.send("SUB life.> 1\r\n").await;
        raw.sync().await;
    }
    a.send("PUB life.x 0\r\n\r\n").await;
    for raw in [&mut a, &mut b] {
        raw.expect("MSG life.x 1 0\r\n\r\n").await;
        raw.sync().await;
    }
    broker.shutdown().await;
}
