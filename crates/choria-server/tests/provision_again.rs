//! A provisioner that is killed leaves nodes in the middle; the next one begins anew with them. Whenever such a node starts
//! again, what is on its disk must fit together.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use choria_protocol::rpc::PING_PAYLOAD;
use choria_security::ca::SigningPolicy;
use choria_security::cert;
use choria_security::keys::PrivateKey;
use choria_server::provision::configure::ProviderCheck;
use choria_server::{Server, ServerSettings};
use choria_testkit::TestCa;
use common::{Lab, NOW};
use serde_json::{Value, json};

const TOKEN: &str = "toomanysecrets";
const NODE: &str = "t1.lab.test";
const LEAVING: &str = "This server is configured and about to restart";

async fn gencsr(lab: &Lab) -> Value {
    let reply = lab.call("choria_provision", "gencsr", json!({"token": TOKEN, "cn": NODE})).await.unwrap();
    assert_eq!(reply.statuscode, 0, "{}", reply.statusmsg);
    reply.data
}

async fn configure(lab: &Lab, ca: &TestCa, csr: &Value) {
    let reply = lab.call("choria_provision", "configure", configuration(lab, ca, &sign(ca, csr))).await.unwrap();
    assert_eq!(reply.statuscode, 0, "{}", reply.statusmsg);
}

/// Input of `configure` with this certificate.
fn configuration(lab: &Lab, ca: &TestCa, certificate: &str) -> Value {
    let ssl = lab.path().join("ssl");
    let config = json!({
        "plugin.choria.server.provision": "false",
        "identity": NODE,
        "plugin.security.provider": "file",
        "plugin.security.file.certificate": ssl.join("certificate.pem"),
        "plugin.security.file.key": ssl.join("private.pem"),
        "plugin.security.file.ca": ssl.join("ca.pem"),
    });
    json!({
        "token": TOKEN, "config": config.to_string(), "ssldir": ssl,
        "certificate": certificate, "ca": ca.certificate_pem(),
    })
}

/// A certificate for a request.
fn sign(ca: &TestCa, csr: &Value) -> String {
    ca.authority().sign_csr(csr["csr"].as_str().unwrap(), &SigningPolicy::new(NODE), NOW).unwrap().pem
}

async fn answers_discovery(lab: &Lab) -> bool {
    let ask = lab.ask("discovery", PING_PAYLOAD.to_owned());
    lab.exchange(&ask.secure(), &lab.next_reply_subject()).await.is_some()
}

/// Certificate and key on disk belong together, and a start now is one of a fleet member.
fn assert_starts_as_member(root: &Path) {
    let key = PrivateKey::load(root.join("ssl/private.pem")).unwrap();
    let certificate = fs::read_to_string(root.join("ssl/certificate.pem")).unwrap();
    assert!(cert::first_from_pem(&certificate).unwrap().belongs_to(&key));
    let environment = common::environment(root, NODE);
    let settings = ServerSettings::load(Path::new("server.conf"), None, &environment, NOW).unwrap();
    assert!(!settings.is_provisioning());
    Server::builder(settings).build().unwrap();
}

/// DESIGN §6, atomic configuration: until `configure`, a new request means a new key; afterwards the key stays that of the
/// certificate, and once `restart` is under way nothing changes any more.
#[tokio::test(start_paused = true)]
async fn design6_a_second_provisioner_does_not_take_the_key_from_under_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let ca = TestCa::at(directory.path().join("pki"), NOW);
    let lab = Lab::provisioning(directory, ProviderCheck::Required).await;
    let first = gencsr(&lab).await;
    let second = gencsr(&lab).await;
    assert_ne!(first["public_key"], second["public_key"], "nothing relies on the first key");
    configure(&lab, &ca, &second).await;
    assert_starts_as_member(lab.path());

    let third = gencsr(&lab).await;
    assert_eq!(third["public_key"], second["public_key"]);
    assert_starts_as_member(lab.path());
    let reply = lab.call("choria_provision", "restart", json!({"token": TOKEN, "splay": 3600})).await.unwrap();
    assert_eq!(reply.statuscode, 0, "{}", reply.statusmsg);
    for action in ["jwt", "gencsr", "gen25519", "configure"] {
        let reply = lab.call("choria_provision", action, json!({"token": TOKEN})).await.unwrap();
        assert_eq!((reply.statuscode, reply.statusmsg.as_str()), (1, LEAVING), "{action}");
    }
    assert_starts_as_member(lab.path());
}

/// The answer was lost, say with the broker, and the provisioner asks again: what was done is not done twice.
#[tokio::test(start_paused = true)]
async fn the_same_configure_again_is_answered_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let ca = TestCa::at(directory.path().join("pki"), NOW);
    let lab = Lab::provisioning(directory, ProviderCheck::Required).await;
    let csr = gencsr(&lab).await;
    let (input, other) = (configuration(&lab, &ca, &sign(&ca, &csr)), configuration(&lab, &ca, &sign(&ca, &csr)));
    let file = || fs::metadata(lab.path().join("ssl/certificate.pem")).unwrap().ino();
    let first = lab.call("choria_provision", "configure", input.clone()).await.unwrap();
    let written = file();
    let second = lab.call("choria_provision", "configure", input).await.unwrap();
    assert_eq!((second.statuscode, &second.data), (0, &first.data), "{}", second.statusmsg);
    assert_eq!(file(), written);
    assert_eq!(lab.events(), ["provisioned.provision_mode_server"]);
    // Another certificate is another configuration.
    let third = lab.call("choria_provision", "configure", other).await.unwrap();
    assert_eq!(third.statuscode, 0, "{}", third.statusmsg);
    assert_ne!(file(), written);
    assert_eq!(lab.events(), ["provisioned.provision_mode_server"]);
    assert_starts_as_member(lab.path());
}

/// Whoever takes over from a provisioner that was killed learns that only the restart is missing.
#[tokio::test(start_paused = true)]
async fn a_configured_node_says_so_until_it_is_about_to_restart() {
    let directory = tempfile::tempdir().unwrap();
    let ca = TestCa::at(directory.path().join("pki"), NOW);
    let lab = Lab::provisioning(directory, ProviderCheck::Required).await;
    let jwt = async || lab.call("choria_provision", "jwt", json!({"token": TOKEN})).await.unwrap();
    let csr = gencsr(&lab).await;
    assert!(jwt().await.data.get("configured").is_none());
    configure(&lab, &ca, &csr).await;
    assert_eq!(jwt().await.data["configured"], true);
    assert!(answers_discovery(&lab).await);
    let reply = lab.call("choria_provision", "restart", json!({"token": TOKEN, "splay": 3600})).await.unwrap();
    assert_eq!(reply.statuscode, 0, "{}", reply.statusmsg);
    assert_eq!(jwt().await.statusmsg, LEAVING);
    // Whoever restarted it may ask again: the answer may have been lost.
    let reply = lab.call("choria_provision", "restart", json!({"token": TOKEN, "splay": 1})).await.unwrap();
    assert_eq!(reply.statuscode, 0, "{}", reply.statusmsg);
    assert!(!answers_discovery(&lab).await);
}

/// The same for the seed of servers that use tokens.
#[tokio::test(start_paused = true)]
async fn a_seed_in_force_stays_too() {
    let directory = tempfile::tempdir().unwrap();
    let ca = TestCa::at(directory.path().join("pki"), NOW);
    let lab = Lab::provisioning(directory, ProviderCheck::Required).await;
    let seed = async |nonce: &str| {
        let input = json!({"token": TOKEN, "nonce": nonce});
        let reply = lab.call("choria_provision", "gen25519", input).await.unwrap();
        assert_eq!(reply.statuscode, 0, "{}", reply.statusmsg);
        reply.data
    };
    let (first, second) = (seed("a").await, seed("b").await);
    assert_ne!(first["public_key"], second["public_key"]);
    let csr = gencsr(&lab).await;
    configure(&lab, &ca, &csr).await;
    fs::write(lab.path().join("server.jwt"), "token of this seed").unwrap();
    let third = seed("c").await;
    assert_eq!(third["public_key"], second["public_key"]);
    assert_ne!(third["signature"], second["signature"], "the nonce is signed anew");
    assert!(lab.path().join("server.jwt").exists(), "and its token stays");
}
