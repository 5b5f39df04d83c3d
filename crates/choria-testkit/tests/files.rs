//! What the helpers make is what the rooms below accept.
#![allow(clippy::unwrap_used, reason = "tests")]

use choria_security::provider::FileProvider;
use choria_security::tls;
use choria_testkit::lab::{Lab, PROVISIONING_SECRET};
use choria_testkit::{TestCa, TokenSigner, unix_now};
use choria_tokens::{VerificationKey, verify_provisioning};

#[test]
fn every_member_gets_files_that_tls_accepts() {
    let ca = TestCa::new();
    tls::server_config(&ca.broker().material()).unwrap();
    for files in [ca.broker(), ca.client("lisa.mcollective"), ca.provisioner(), ca.node("n1.example.net")] {
        tls::client_config(&files.material()).unwrap();
    }
    let provider = FileProvider::new("x", "lisa.mcollective", ca.client("lisa.mcollective").material());
    provider.request_signer().unwrap();
}

#[test]
fn tokens_verify_with_the_files_beside_them() {
    let ca = TestCa::new();
    for signer in [TokenSigner::rsa(&ca), TokenSigner::ed25519(ca.directory())] {
        let key = VerificationKey::from_file(signer.verification_file()).unwrap();
        let claims = verify_provisioning(&signer.token("s", "nats://localhost:4222"), &key, unix_now()).unwrap();
        assert!(claims.cht.matches("s") && claims.chpd);
    }
}

#[test]
fn a_lab_has_all_files() {
    let lab = Lab::new();
    for path in [
        lab.broker_config(4222, 0, ""),
        lab.client_config(4222, ""),
        lab.provisioner_choria_config(4222, ""),
        lab.provisioner_config("/bin/true", ""),
        lab.provisioning_token(4222),
        lab.member_node_config("n1.example.net", 4222, ""),
    ] {
        assert!(path.exists(), "{}", path.display());
    }
    let token = std::fs::read_to_string(lab.provisioning_token(4222)).unwrap();
    let claims = verify_provisioning(&token, &lab.signer().verification_key(), unix_now()).unwrap();
    assert!(claims.cht.matches(PROVISIONING_SECRET));
    assert_eq!(claims.broker_urls(), ["nats://localhost:4222"]);
}
