//! What a server is stricter in than the original, as far as no recorded row shows it.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::path::Path;

use choria_protocol::v1::{self, SecureRequest, SignatureKind};
use choria_security::ca::IssueRequest;
use choria_security::csr;
use choria_security::keys::{KeyKind, PublicKeyKind};
use choria_server::provision::configure::ProviderCheck;
use choria_server::{Clock, Exit, Server, ServerSettings};
use choria_testkit::{TestCa, unix_now, wait_until_async};
use common::{DEADLINE, Lab, MEMBER, NOW, token};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A token that cannot be used leads to no broker at all; the log and the status file say what is waited for.
#[tokio::test]
async fn design6_waiting_for_a_token_is_told_in_the_status_file() {
    let directory = tempfile::tempdir().unwrap();
    let status = directory.path().join("status.json");
    let text = format!(
        "identity = n1.lab.test\nplugin.choria.server.provision = true\nplugin.choria.status_file_path = {}\n",
        status.display()
    );
    fs::write(directory.path().join("server.conf"), text).unwrap();
    fs::write(directory.path().join("provisioning.jwt"), "garbage").unwrap();
    let environment = common::environment(directory.path(), "mx.lab.test");
    let settings = ServerSettings::load(Path::new("server.conf"), None, &environment, unix_now()).unwrap();
    assert!(settings.is_provisioning());
    assert!(settings.notes().iter().any(|note| note.contains("provisioning.jwt")), "{:?}", settings.notes());
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(Server::builder(settings).build().unwrap().run(shutdown.clone()));
    let told = || -> Option<Value> { serde_json::from_slice(&fs::read(&status).ok()?).ok() };
    wait_until_async(DEADLINE, "the reason in the status file", async || {
        told().is_some_and(|status| status["connection_error"].as_str().is_some_and(|text| text.contains("waiting")))
    })
    .await;
    let said = told().unwrap();
    let reason = said["connection_error"].as_str().unwrap();
    assert!(reason.contains("provisioning.jwt cannot be used: token is malformed"), "{reason}");
    assert_eq!(said["provisioning_mode"], true);
    shutdown.cancel();
    assert_eq!(timeout(DEADLINE, server).await.unwrap().unwrap().unwrap(), Exit::Stopped);
}

/// In the original this switch turned the verification of requests off as well.
#[tokio::test(start_paused = true)]
async fn design6_anonymous_tls_does_not_switch_request_verification_off() {
    for switch in ["plugin.security.server_anon_tls", "plugin.security.client_anon_tls"] {
        let directory = tempfile::tempdir().unwrap();
        let ca = TestCa::at(directory.path().join("pki"), NOW);
        let lines = ca.node("n1.lab.test").config_lines();
        let text = format!("{MEMBER}{lines}rpcauthorization = false\n{switch} = true\n");
        fs::write(directory.path().join("server.conf"), text).unwrap();
        let environment = common::environment(directory.path(), "mx.lab.test");
        // A server that does not start serves nobody; one that starts verifies.
        let Ok(settings) = ServerSettings::load(Path::new("server.conf"), None, &environment, NOW) else {
            assert_eq!(switch, "plugin.security.client_anon_tls", "which needs a remote signer");
            continue;
        };
        assert!(!settings.is_provisioning(), "{switch}");
        let lab = Lab::start(directory, settings, |builder| builder).await;
        let ask = lab.ask("rpcutil", json!({"agent": "rpcutil", "action": "ping", "data": {}}).to_string());
        let text = ask.request().to_text();
        for unsigned in [SecureRequest::unsigned(text.clone()), SecureRequest::unsigned_registration(text)] {
            assert_eq!(lab.send_secure(&unsigned, &lab.next_reply_subject()).await, None, "{switch}");
        }
    }
}

/// The first registration message of a member whose key is of this kind.
async fn registration_of(kind: KeyKind) -> SignatureKind {
    let directory = tempfile::tempdir().unwrap();
    let ca = TestCa::at(directory.path().join("pki"), NOW);
    let lines = ca.files("n1.lab.test", &IssueRequest::new("n1.lab.test", kind)).config_lines();
    let text =
        format!("{MEMBER}{lines}registration = inventory_content\nregisterinterval = 5\nregistration_splay = no\n");
    fs::write(directory.path().join("server.conf"), text).unwrap();
    let environment = common::environment(directory.path(), "mx.lab.test");
    let settings = ServerSettings::load(Path::new("server.conf"), None, &environment, NOW).unwrap();
    let lab = Lab::start(directory, settings, |builder| builder.clock(Clock::new(|| NOW))).await;
    let (_, bytes) = lab.connector.take(|subject, _| subject.ends_with(".registration")).await.unwrap();
    v1::decode_request(&bytes).unwrap().secure.kind()
}

/// A v1 signature is RSA or nothing: an original server ends when it meets another certificate.
#[tokio::test(start_paused = true)]
async fn design6_registration_is_unsigned_unless_the_nodes_key_is_rsa() {
    assert_eq!(registration_of(KeyKind::Rsa2048).await, SignatureKind::Signed);
    assert_eq!(registration_of(KeyKind::P256).await, SignatureKind::InsecureRegistration);
    assert_eq!(registration_of(KeyKind::Ed25519).await, SignatureKind::InsecureRegistration);
}

#[tokio::test(start_paused = true)]
async fn design6_nodes_make_p256_keys_unless_their_token_says_otherwise() {
    for (extension, expected) in [
        (json!(null), PublicKeyKind::P256),
        (json!({"key_type": "ed25519"}), PublicKeyKind::Ed25519),
        (json!({"key_type": "rsa"}), PublicKeyKind::Rsa { bits: 2048 }),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut claims = common::provisioning_claims();
        claims["extensions"] = extension.clone();
        fs::write(directory.path().join("provisioning.jwt"), token(&claims)).unwrap();
        let lab = Lab::provisioning(directory, ProviderCheck::Required).await;
        let reply = lab.call("choria_provision", "gencsr", json!({"token": "toomanysecrets"})).await.unwrap();
        let facts = csr::inspect(reply.data["csr"].as_str().unwrap()).unwrap();
        assert_eq!(facts.key, expected, "{extension}");
    }
}
