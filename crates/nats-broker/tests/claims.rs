//! Names that only one live connection may hold.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::notes::{Notes, accounts, client, users};
use common::{DEADLINE, Raw, connect_as, start_with};
use nats_broker::{AccountConfig, BrokerConfig, ExclusiveClaim, Permissions, StaticAuthenticator};

fn claiming(probe: Duration) -> StaticAuthenticator {
    users(&["node"]).with_grant("node", |grant| {
        grant.claim = Some(ExclusiveClaim { key: "node.example.net".into(), probe, yields_to: None });
    })
}

/// Whoever is present in the other account under the name comes first, and is never closed for a claim.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn design6_a_claim_yields_to_who_is_present_in_another_account() {
    let notes = Arc::new(Notes::default());
    let claim = ExclusiveClaim {
        key: "node.example.net".into(),
        probe: Duration::from_millis(150),
        yields_to: Some("A".into()),
    };
    let users = StaticAuthenticator::new()
        .user("member", "x", "A", Permissions::unlimited())
        .with_grant("member", |grant| grant.presence = Some("node.example.net".into()))
        .user("waiting", "x", "B", Permissions::unlimited())
        .with_grant("waiting", |grant| grant.claim = Some(claim.clone()));
    let two = vec![AccountConfig::new("A"), AccountConfig::new("B")];
    let broker = start_with(BrokerConfig::default(), two, Arc::new(users), vec![], notes.clone());
    // Two members of one name are none of the claim's business.
    let mut members = [client(&broker, "member").await, client(&broker, "member").await];
    let mut newcomer = Raw::connect(broker.local_addr(0).unwrap()).await;
    newcomer.send(connect_as("waiting", "x")).await;
    members[0].expect("PING\r\n").await;
    members[0].send("PONG\r\n").await;
    assert_eq!(newcomer.rest().await, "-ERR 'Authorization Violation'\r\n");
    notes.wait_for("refused claim_held node.example.net").await;
    // Neither answers any more: the claim is granted, and they stay.
    let mut next = client(&broker, "waiting").await;
    next.sync().await;
    members[0].expect("PING\r\n").await;
    members[1].expect("PING\r\n").await;
    members[1].sync().await;
    drop((next, members));
    notes.wait_for("disconnected 1 ").await;
    notes.wait_for("disconnected 2 ").await;
    // Nobody is present any more, so nobody is asked.
    let mut last = client(&broker, "waiting").await;
    last.sync().await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn design6_second_claimant_is_refused_while_holder_lives() {
    let notes = Arc::new(Notes::default());
    let broker = start_with(BrokerConfig::default(), accounts(), Arc::new(claiming(DEADLINE)), vec![], notes.clone());
    let mut holder = client(&broker, "node").await;
    holder.send("SUB work 1\r\n").await;
    holder.sync().await;
    for _ in 0..3 {
        let mut newcomer = Raw::connect(broker.local_addr(0).unwrap()).await;
        newcomer.send(connect_as("node", "x")).await;
        holder.expect("PING\r\n").await;
        holder.send("PONG\r\n").await;
        assert_eq!(newcomer.rest().await, "-ERR 'Authorization Violation'\r\n");
    }
    notes.wait_for("refused claim_held node.example.net").await;
    holder.sync().await;
    // Two newcomers at once: one PONG is an answer to both.
    let mut newcomers = Vec::new();
    for _ in 0..2 {
        let mut newcomer = Raw::connect(broker.local_addr(0).unwrap()).await;
        newcomer.send(connect_as("node", "x")).await;
        newcomers.push(newcomer);
    }
    holder.expect("PING\r\nPING\r\n").await;
    holder.send("PONG\r\n").await;
    for newcomer in &mut newcomers {
        assert_eq!(newcomer.rest().await, "-ERR 'Authorization Violation'\r\n");
    }
    // Once the holder has left, the name is free.
    drop(holder);
    notes.wait_for("disconnected 1 ").await;
    let mut next = client(&broker, "node").await;
    next.sync().await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn design6_second_claimant_takes_over_from_a_dead_holder() {
    let notes = Arc::new(Notes::default());
    let authenticator = Arc::new(claiming(Duration::from_millis(150)));
    let broker = start_with(BrokerConfig::default(), accounts(), authenticator, vec![], notes.clone());
    let mut dead = client(&broker, "node").await;
    dead.send("SUB work 1\r\n").await;
    dead.sync().await;
    let mut next = client(&broker, "node").await;
    next.send("SUB work 1\r\n").await;
    next.sync().await;
    notes.wait_for("disconnected 1 Claim Taken Over").await;
    assert_eq!(dead.rest().await, "PING\r\n");
    broker.publish("A", "work", None, None, b"x").unwrap();
    next.expect("MSG work 1 1\r\nx\r\n").await;
    assert_eq!(broker.connections("A").len(), 1);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_that_gives_up_leaves_the_claim_alone() {
    let notes = Arc::new(Notes::default());
    let broker = start_with(BrokerConfig::default(), accounts(), Arc::new(claiming(DEADLINE)), vec![], notes.clone());
    let mut holder = client(&broker, "node").await;
    let mut newcomer = Raw::connect(broker.local_addr(0).unwrap()).await;
    newcomer.send(connect_as("node", "x")).await;
    holder.expect("PING\r\n").await;
    assert!(broker.kick(2, "test"));
    newcomer.rest().await;
    holder.send("PONG\r\n").await;
    holder.sync().await;
    // A second CONNECT of the holder itself is no second claimant.
    holder.send(connect_as("node", "x")).await;
    holder.sync().await;
    assert!(!notes.has("refused"));
    broker.shutdown().await;
}
