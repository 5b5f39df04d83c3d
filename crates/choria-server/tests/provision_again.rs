//! A provisioner that is killed leaves nodes in the middle; the next one begins anew with them. Whenever such a node starts
//! again, what is on its disk must fit together.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::path::Path;

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

async fn gencsr(lab: &Lab) -> Value {
    let reply = lab.call("choria_provision", "gencsr", json!({"token": TOKEN, "cn": NODE})).await.unwrap();
    assert_eq!(reply.statuscode, 0, "{}", reply.statusmsg);
    reply.data
}

async fn configure(lab: &Lab, ca: &TestCa, csr: &Value) {
    let signed = ca.authority().sign_csr(csr["csr"].as_str().unwrap(), &SigningPolicy::new(NODE), NOW).unwrap();
    let ssl = lab.path().join("ssl");
    let config = json!({
        "plugin.choria.server.provision": "false",
        "identity": NODE,
        "plugin.security.provider": "file",
        "plugin.security.file.certificate": ssl.join("certificate.pem"),
        "plugin.security.file.key": ssl.join("private.pem"),
        "plugin.security.file.ca": ssl.join("ca.pem"),
    });
    let input = json!({
        "token": TOKEN, "config": config.to_string(), "ssldir": ssl,
        "certificate": signed.pem, "ca": ca.certificate_pem(),
    });
    let reply = lab.call("choria_provision", "configure", input).await.unwrap();
    assert_eq!(reply.statuscode, 0, "{}", reply.statusmsg);
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
/// certificate, also when `restart` is under way already.
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
    let fourth = gencsr(&lab).await;
    assert_starts_as_member(lab.path());
    configure(&lab, &ca, &fourth).await;
    assert_starts_as_member(lab.path());
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
