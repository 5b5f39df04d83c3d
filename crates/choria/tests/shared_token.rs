//! Whoever holds the fleet's provisioning token is one more unprovisioned node, and nothing beyond that.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/raw_node.rs"]
mod raw_node;

use choria_connector::Connector;
use choria_testkit::wait_until_async;
use common::{Fleet, PATIENCE};
use raw_node::connect;

const VICTIM: &str = "victim.example.net";

/// DESIGN §6, first and second row: a holder of the shared token can neither take a living node's name, nor read its
/// traffic, nor answer for it, nor get a certificate for its name.
#[tokio::test(flavor = "multi_thread")]
async fn design6_a_holder_of_the_shared_token_gets_nothing_of_another_node() {
    let fleet = Fleet::new();
    let mut broker = fleet.broker();
    let token = fleet.lab.provisioning_token(fleet.port);
    let mut victim = fleet.node(VICTIM);
    victim.wait_for("connected to");

    // The name is taken while its holder lives.
    let refused = connect(&fleet, VICTIM, &token).await.expect_err("a second claimant is refused");
    assert!(refused.contains("Authorization Violation"), "{refused}");
    broker.wait_for("claim_held");
    victim.assert_alive();

    // Under a name of its own it hears nothing that is meant for others.
    let thief = connect(&fleet, "thief.example.net", &token).await.unwrap();
    let subjects = [
        "provisioning.node.victim.example.net",
        "provisioning.node.>",
        "provisioning.reply.>",
        "choria.lifecycle.event.>",
    ];
    let mut stolen = Vec::new();
    for subject in subjects {
        stolen.push(thief.subscribe(subject, None, 1000).await.unwrap());
    }
    thief.flush().await.unwrap();
    broker.wait_for("thief.example.net");

    // It forges the victim's startup event, too. The victim is provisioned all the same, by itself.
    let forged = br#"{"protocol":"io.choria.lifecycle.v1.startup","id":"1","identity":"victim.example.net","component":"provision_mode_server","timestamp":1,"version":"1"}"#;
    let startup = "choria.lifecycle.event.startup.provision_mode_server";
    thief.publish(startup, forged.as_slice().into()).await.unwrap();
    thief.flush().await.unwrap();
    let _provisioner = fleet.provisioner("");
    wait_until_async(PATIENCE, "the victim is a member", async || {
        let config = std::fs::read_to_string(fleet.lab.node_config(VICTIM)).unwrap_or_default();
        config.contains("plugin.security.file.certificate")
    })
    .await;
    tokio::task::block_in_place(|| fleet.wait_for_members(&[VICTIM]));

    for (subject, stolen) in subjects.iter().zip(&mut stolen) {
        assert!(stolen.try_next().is_none(), "the thief got a message on {subject}");
    }
    let certificate = fleet.lab.node_config(VICTIM).with_file_name("ssl").join("certificate.pem");
    let key = choria_security::keys::PrivateKey::load(certificate.with_file_name("private.pem")).unwrap();
    let facts = choria_security::cert::first_from_pem(&std::fs::read_to_string(certificate).unwrap()).unwrap();
    assert!(facts.belongs_to(&key), "the certificate is for the key that never left the victim");
    assert_eq!(fleet.helper_calls(), 1, "the helper was asked once, for the victim alone");
}
