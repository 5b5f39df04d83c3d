//! What the broker tells of connections that come and go.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{Raw, connect_as, start};
use nats_broker::{AccountConfig, Broker, BrokerConfig, Permissions, StaticAuthenticator, StreamExport, StreamImport};
use serde_json::Value;

const ENDS: &str = "$SYS.ACCOUNT.A.DISCONNECT";

fn broker() -> Broker {
    let free = Permissions::unlimited;
    let users = StaticAuthenticator::new().user("sys", "x", "SYS", free()).user("a", "x", "A", free()).user(
        "b",
        "x",
        "B",
        free(),
    );
    let only_a = StreamExport { accounts: Some(vec!["A".into()]), ..StreamExport::new(ENDS) };
    let accounts = vec![
        AccountConfig::new("SYS").export(only_a),
        AccountConfig::new("A").import(StreamImport::new("SYS", ENDS).drop_reply()),
        AccountConfig::new("B"),
    ];
    let config = BrokerConfig { system_account: Some("SYS".into()), ..BrokerConfig::default() };
    start(config, accounts, Arc::new(users))
}

async fn login(broker: &Broker, user: &str, name: &str) -> Raw {
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    let hello = format!(
        r#"CONNECT {{"verbose":false,"user":"{user}","pass":"x","name":"{name}","lang":"python","version":"1.0"}}"#
    );
    raw.send(format!("{hello}\r\n")).await;
    raw.sync().await;
    raw
}

/// The next message: its subject and its JSON.
async fn next(raw: &mut Raw) -> (String, Value) {
    let line = raw.line().await;
    let subject = line.split(' ').nth(1).unwrap_or_else(|| panic!("no message: {line}")).to_owned();
    let body = raw.line().await;
    (subject, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_told_of_when_it_comes_and_when_it_ends() {
    let broker = broker();
    let mut sys = login(&broker, "sys", "watch").await;
    sys.send("SUB $SYS.ACCOUNT.A.* 1\r\n").await;
    sys.sync().await;
    let mut client = login(&broker, "a", "cli-a").await;
    client.send("SUB x 1\r\nPUB x 3\r\nabc\r\n").await;
    client.expect("MSG x 1 3\r\nabc\r\n").await;
    drop(client);
    let ours = [next(&mut sys).await, next(&mut sys).await];
    assert_eq!(ours.each_ref().map(|(subject, _)| &**subject), ["$SYS.ACCOUNT.A.CONNECT", ENDS]);
    let end = &ours[1].1;
    assert_eq!((&end["sent"]["msgs"], &end["received"]["bytes"]), (&1.into(), &3.into()), "as the client sees it");
    assert_eq!((&end["reason"], &end["client"]["name"]), (&"Client Closed".into(), &"cli-a".into()));
    assert_eq!(ours[0].1["client"]["id"], end["client"]["id"]);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_hears_what_it_imports_and_nothing_else() {
    let broker = broker();
    let mut a = login(&broker, "a", "listener").await;
    let mut b = login(&broker, "b", "listener").await;
    for raw in [&mut a, &mut b] {
        raw.send("SUB $SYS.> 1\r\n").await;
        raw.sync().await;
    }
    // Refused connections belong to no account.
    let mut evil = Raw::connect(broker.local_addr(0).unwrap()).await;
    evil.send(connect_as("evil", "x")).await;
    evil.rest().await;
    drop(login(&broker, "b", "of b").await);
    drop(login(&broker, "a", "of a").await);
    let (subject, advisory) = next(&mut a).await;
    assert_eq!((&*subject, &advisory["client"]["name"]), (ENDS, &"of a".into()));
    // Nothing came to the other account meanwhile: what follows is the first thing it gets.
    b.send("SUB y 2\r\nPUB y 1\r\nz\r\n").await;
    b.expect("MSG y 2 1\r\nz\r\n").await;
    broker.shutdown().await;
}
