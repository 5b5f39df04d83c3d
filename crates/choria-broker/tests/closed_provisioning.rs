//! The provisioning account is closed: DESIGN §6, seen from the wire.
#![allow(clippy::unwrap_used)]

#[path = "common/lab.rs"]
mod lab;
#[path = "common/raw.rs"]
mod raw;

use std::time::Duration;

use choria_protocol::lifecycle::{Event, Kind, PROVISION_MODE_SERVER};
use choria_protocol::{ids, v1};
use choria_security::tls;
use futures_util::StreamExt as _;
use lab::{DEADLINE, Lab};
use raw::Raw;
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);

fn startup(identity: &str) -> String {
    Event {
        kind: Kind::Startup { version: "0.30.2".into() },
        id: ids::event_id(),
        identity: identity.into(),
        component: PROVISION_MODE_SERVER.into(),
        timestamp: lab::unix_now(),
    }
    .to_cloud_event()
}

fn registration(sender: &str) -> String {
    let request = v1::Request {
        message: "{}".into(),
        envelope: v1::RequestEnvelope {
            request_id: ids::request_id(),
            sender_id: sender.into(),
            caller_id: format!("choria={sender}"),
            collective: "provisioning".into(),
            agent: "registration".into(),
            ttl: 60,
            time: lab::unix_now(),
            filter: Default::default(),
        },
    };
    let headers = v1::Headers { mc_sender: Some(sender.into()), ..Default::default() };
    String::from_utf8(v1::encode_request(&v1::SecureRequest::unsigned(request.to_text()), &headers)).unwrap()
}

fn publish(subject: &str, payload: &str) -> String {
    format!("PUB {subject} {}\r\n{payload}\r\n", payload.len())
}

#[tokio::test]
async fn design6_a_holder_of_the_shared_token_hears_only_its_own_name() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let token = lab.token(HOUR);
    let mut victim = Raw::node(broker.client_addr, "n1.example.net", &token).await;
    let mut thief = Raw::node(broker.client_addr, "n2.example.net", &token).await;
    assert_eq!(victim.account.as_deref(), Some("provisioning"));

    for own in [
        "provisioning.node.n1.example.net",
        "provisioning.broadcast.agent.discovery",
        "provisioning.broadcast.agent.rpcutil",
        "provisioning.broadcast.agent.choria_util",
        "provisioning.broadcast.agent.choria_provision",
    ] {
        assert_eq!(victim.ask(&format!("SUB {own} 1\r\n")).await, Vec::<String>::new(), "{own}");
    }
    for foreign in [
        "provisioning.node.n1.example.net",
        "provisioning.node.>",
        "provisioning.node.*",
        "provisioning.node.*.example.net",
        "provisioning.>",
        "provisioning.*.n1.example.net",
        "provisioning.reply.>",
        "provisioning.registration.>",
        "provisioning.broadcast.agent.>",
        "provisioning.broadcast.agent.*",
        "provisioning.broadcast.agent.shell",
        "choria.lifecycle.>",
        "choria.lifecycle.event.startup.server",
        "choria.>",
        "*.*.*.*.*",
        ">",
        "_INBOX.>",
        "$SYS.>",
    ] {
        let expected = format!("-ERR 'Permissions Violation for Subscription to \"{foreign}\"'");
        assert_eq!(thief.ask(&format!("SUB {foreign} 9\r\n")).await, [expected]);
        let queued = thief.ask(&format!("SUB {foreign} thieves 9\r\n")).await;
        assert!(queued.len() == 1 && queued[0].starts_with("-ERR 'Permissions Violation"), "{queued:?}");
    }

    // The provisioner's request reaches the node it is meant for and nobody else.
    let provisioner = lab::provisioner(&broker, &lab.member("provisioner.choria")).await.unwrap();
    provisioner
        .publish_with_reply("provisioning.node.n1.example.net", "provisioning.reply.secret.1", "for n1".into())
        .await
        .unwrap();
    provisioner.flush().await.unwrap();
    let message = victim.message().await;
    assert_eq!((message.payload.as_str(), message.reply.as_deref()), ("for n1", Some("provisioning.reply.secret.1")));
    assert_eq!(thief.ask("").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_node_publishes_only_what_provisioning_needs() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let mut node = Raw::node(broker.client_addr, "n1.example.net", &lab.token(HOUR)).await;
    for refused in [
        "provisioning.node.n2.example.net",
        "provisioning.broadcast.agent.choria_provision",
        "choria.lifecycle.event.startup.server",
        "choria.lifecycle.event.shutdown.provisioner",
        "choria.lifecycle.x",
        "mcollective.broadcast.agent.discovery",
        "choria.machine.transition",
        "$SYS.REQ.USER.INFO",
        "foo",
    ] {
        let expected = format!("-ERR 'Permissions Violation for Publish to \"{refused}\"'");
        assert_eq!(node.ask(&publish(refused, "x")).await, [expected]);
    }
    assert_eq!(node.ask(&publish("provisioning.reply.abc.1", "x")).await, Vec::<String>::new());
}

#[tokio::test]
async fn design6_a_node_announces_only_itself() {
    let lab = Lab::new();
    let broker = lab.start(&lab::stats()).await;
    let provisioner = lab::provisioner(&broker, &lab.member("provisioner.choria")).await.unwrap();
    let mut heard = provisioner.subscribe(">").await.unwrap();
    provisioner.flush().await.unwrap();
    let mut node = Raw::node(broker.client_addr, "n1.example.net", &lab.token(HOUR)).await;

    let event = "choria.lifecycle.event.startup.provision_mode_server";
    let data = "provisioning.registration.data";
    for (subject, payload, reason) in [
        (event, startup("n2.example.net"), "forged_event"),
        (event, "{}".to_owned(), "unreadable_event"),
        (data, registration("n2.example.net"), "forged_registration"),
        (data, startup("n1.example.net"), "unreadable_registration"),
    ] {
        let expected = format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'");
        assert_eq!(node.ask(&publish(subject, &payload)).await, [expected], "{payload}");
        let series = format!("choria_broker_violations{{reason=\"{reason}\",identity=\"{}\"}}", lab::IDENTITY);
        assert_eq!(lab::metric(&broker, &series).await, 1, "{series}");
    }
    let own = [(event, startup("n1.example.net")), (data, registration("n1.example.net"))];
    for (subject, payload) in &own {
        assert_eq!(node.ask(&publish(subject, payload)).await, Vec::<String>::new());
    }
    // Only the node's own words were heard.
    for (subject, payload) in own {
        let message = tokio::time::timeout(DEADLINE, heard.next()).await.unwrap().unwrap();
        assert_eq!((message.subject.as_str(), std::str::from_utf8(&message.payload).unwrap()), (subject, &*payload));
    }
}

#[tokio::test]
async fn design6_second_claimant_is_refused_while_holder_lives() {
    let lab = Lab::new();
    let broker = lab.start(&lab::stats()).await;
    let token = lab.token(HOUR);
    let auditor = lab::member(&broker, &lab.member("auditor.mcollective"), "auditor").await.unwrap();
    let mut events = auditor.subscribe("choria.lifecycle.event.refused.broker").await.unwrap();
    auditor.flush().await.unwrap();

    let holder = lab::node(&broker, "n1.example.net", &token).await.unwrap();
    let mut inbox = holder.subscribe("provisioning.node.n1.example.net").await.unwrap();
    holder.flush().await.unwrap();
    for name in ["n1.example.net", "N1.example.NET"] {
        let mut second = Raw::anonymous(broker.client_addr).await;
        let refused = second.connect(json!({"name": name, "auth_token": token})).await;
        assert_eq!(refused, Err("-ERR 'Authorization Violation'".to_owned()));
        let event = tokio::time::timeout(DEADLINE, events.next()).await.unwrap().unwrap();
        let event: Value = serde_json::from_slice(&event.payload).unwrap();
        assert_eq!(event["protocol"], "io.choria.lifecycle.v1.refused");
        assert_eq!((&event["identity"], &event["component"]), (&json!("n1.example.net"), &json!("broker")));
        assert_eq!(event["reason"], "claim_held");
        assert!(event["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{event}");
    }
    let refused = format!("choria_broker_refused{{reason=\"claim_held\",identity=\"{}\"}}", lab::IDENTITY);
    assert_eq!(lab::metric(&broker, &refused).await, 2);

    // The holder was not disturbed.
    let provisioner = lab::provisioner(&broker, &lab.member("provisioner.choria")).await.unwrap();
    provisioner.publish("provisioning.node.n1.example.net", "still you".into()).await.unwrap();
    provisioner.flush().await.unwrap();
    assert_eq!(tokio::time::timeout(DEADLINE, inbox.next()).await.unwrap().unwrap().payload, "still you");
}

/// Whoever holds the token could else have a certificate made for the name of a machine that is in the fleet.
#[tokio::test]
async fn design6_the_name_of_a_living_member_is_not_to_be_had() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let token = lab.token(HOUR);
    let material = lab.member("n1.example.net");
    let server = lab::member(&broker, &material, "n1.example.net").await.unwrap();
    let mut thief = Raw::anonymous(broker.client_addr).await;
    let refused = thief.connect(json!({"name": "N1.example.net", "auth_token": token})).await;
    assert_eq!(refused, Err("-ERR 'Authorization Violation'".to_owned()));

    // The same certificate under another name is a client's connection and keeps nobody away.
    server.drain().await.unwrap();
    let client = lab::member(&broker, &material, "n1.example.net-client").await.unwrap();
    lab::until("the server has left", async || broker.broker().connections("choria").len() == 1).await;
    let node = Raw::node(broker.client_addr, "n1.example.net", &token).await;
    assert_eq!(node.account.as_deref(), Some("provisioning"));
    // Nor is a member kept away by somebody who waits under its name.
    let back = lab::member(&broker, &material, "n1.example.net").await.unwrap();
    back.flush().await.unwrap();
    client.flush().await.unwrap();
}

#[tokio::test]
async fn design6_second_claimant_takes_over_from_a_dead_holder() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let token = lab.token(HOUR);
    let mut dead = Raw::node(broker.client_addr, "n1.example.net", &token).await;
    // It never answers the broker's PING; the newcomer gets its place.
    let second = lab::node(&broker, "n1.example.net", &token).await.unwrap();
    let mut inbox = second.subscribe("provisioning.node.n1.example.net").await.unwrap();
    second.flush().await.unwrap();
    dead.until_closed().await;

    let provisioner = lab::provisioner(&broker, &lab.member("provisioner.choria")).await.unwrap();
    provisioner.publish("provisioning.node.n1.example.net", "welcome".into()).await.unwrap();
    provisioner.flush().await.unwrap();
    assert_eq!(tokio::time::timeout(DEADLINE, inbox.next()).await.unwrap().unwrap().payload, "welcome");
}

#[tokio::test]
async fn a_name_is_free_again_when_its_holder_leaves() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let token = lab.token(HOUR);
    for _ in 0..3 {
        let mut node = Raw::node(broker.client_addr, "n1.example.net", &token).await;
        assert_eq!(node.ask("SUB provisioning.node.n1.example.net 1\r\n").await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn design6_a_connection_ends_with_its_token() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let mut node = Raw::node(broker.client_addr, "n1.example.net", &lab.token(Duration::from_secs(3))).await;
    assert_eq!(node.until_closed().await, ["-ERR 'User Authentication Expired'"]);
}

#[tokio::test]
async fn design6_nodes_must_give_a_name_unless_the_compatibility_setting_is_on() {
    let lab = Lab::new();
    let broker = lab.start(&lab::stats()).await;
    let token = lab.token(HOUR);
    for (name, reason) in [("", "node_name_missing"), ("a.>", "node_name_invalid"), ("a b", "node_name_invalid")] {
        let mut node = Raw::anonymous(broker.client_addr).await;
        let refused = node.connect(json!({"name": name, "auth_token": token})).await;
        assert_eq!(refused, Err("-ERR 'Authorization Violation'".to_owned()), "{name:?}");
        let series = format!("choria_broker_refused{{reason=\"{reason}\",identity=\"{}\"}}", lab::IDENTITY);
        assert!(lab::metric(&broker, &series).await > 0, "{series}");
    }

    let odd = Lab::new();
    let broker = odd.start("plugin.choria.network.provisioning.allow_unbound_nodes = true\n").await;
    let mut node = Raw::anonymous(broker.client_addr).await;
    node.connect(json!({"auth_token": odd.token(HOUR)})).await.unwrap();
    assert_eq!(node.ask("SUB provisioning.node.> 1\r\n").await, Vec::<String>::new());
    let refused = node.ask("SUB provisioning.reply.> 1\r\n").await;
    assert_eq!(refused, ["-ERR 'Permissions Violation for Subscription to \"provisioning.reply.>\"'"]);
}

#[tokio::test]
async fn a_provisioned_node_must_not_keep_sending_its_provisioning_token() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let config = tls::client_config(&lab.member("n1.example.net")).unwrap();
    let mut node = Raw::open(broker.client_addr, config.clone()).await.unwrap();
    let refused = node.connect(json!({"name": "n1.example.net", "auth_token": lab.token(HOUR)})).await;
    assert_eq!(refused, Err("-ERR 'Authorization Violation'".to_owned()));
    let mut node = Raw::open(broker.client_addr, config).await.unwrap();
    node.connect(json!({"name": "n1.example.net", "auth_token": ""})).await.unwrap();
    assert_eq!(node.account.as_deref(), Some("choria"));
}

/// A node that is gone need not be waited for: the broker tells the provisioner, in the words of a NATS server, and nobody else.
#[tokio::test]
async fn the_provisioner_alone_hears_that_a_node_is_gone() {
    const ENDS: &str = "$SYS.ACCOUNT.provisioning.DISCONNECT";
    let lab = Lab::new();
    let broker = lab.start("").await;
    let token = lab.token(HOUR);
    let provisioner = lab::provisioner(&broker, &lab.member("provisioner.choria")).await.unwrap();
    let mut gone = provisioner.subscribe(ENDS).await.unwrap();
    provisioner.flush().await.unwrap();
    let mut neighbour = Raw::node(broker.client_addr, "n2.example.net", &token).await;
    assert!(!neighbour.ask(&format!("SUB {ENDS} 1\r\n")).await.is_empty(), "a node may not listen");
    let member = lab::member(&broker, &lab.member("web1.example.net"), "web1.example.net").await.unwrap();
    let mut fleet = member.subscribe("$SYS.>").await.unwrap();
    member.flush().await.unwrap();

    // One that the broker does not let in was never there.
    let mut stranger = Raw::anonymous(broker.client_addr).await;
    assert!(stranger.connect(json!({"auth_token": "x", "name": "n3.example.net"})).await.is_err());
    drop(Raw::node(broker.client_addr, "n1.example.net", &token).await);
    let told = tokio::time::timeout(DEADLINE, gone.next()).await.unwrap().unwrap();
    let advisory: Value = serde_json::from_slice(&told.payload).unwrap();
    assert_eq!(advisory["type"], "io.nats.server.advisory.v1.client_disconnect");
    assert_eq!(
        (&advisory["client"]["name"], &advisory["client"]["acc"]),
        (&"n1.example.net".into(), &"provisioning".into())
    );
    assert!(!told.payload.windows(token.len()).any(|bytes| bytes == token.as_bytes()), "and no secret");
    assert_eq!(told.reply, None);

    // The fleet heard nothing of it: what is published now is the first that comes.
    member.publish("$SYS.test", "x".into()).await.unwrap();
    assert_eq!(tokio::time::timeout(DEADLINE, fleet.next()).await.unwrap().unwrap().subject.as_str(), "$SYS.test");
}
