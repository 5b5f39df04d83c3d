//! CA certificates change while requests arrive: never half, never to "anything goes".
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::sync::Arc;

use choria_security::ca::{CertificateAuthority, IssueRequest};
use choria_security::keys::KeyKind;
use choria_security::patterns::{DEFAULT_ALLOWED, DEFAULT_PRIVILEGED, Patterns};
use choria_security::sign::{RequestSigner, Signature};
use choria_security::trust::{Authorities, TrustError, TrustStore};
use choria_security::verify::RequestVerifier;

const NOW: i64 = 1_795_219_200;

fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::generate(name, KeyKind::P256, NOW).unwrap().0
}

fn signature(ca: &CertificateAuthority) -> Signature {
    let issued = ca.issue(&IssueRequest::new("bob.mcollective", KeyKind::Rsa2048), NOW).unwrap();
    RequestSigner::from_pem(&issued.certificate.pem, &issued.key).unwrap().sign("text").unwrap()
}

#[test]
fn design6_an_emptied_ca_file_lets_nobody_in_and_keeps_the_good_set() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let (ours, evil, next) = (authority("ours"), authority("evil"), authority("next"));
    fs::write(&path, ours.certificate_pem()).unwrap();
    let trust = Arc::new(TrustStore::load(&path).unwrap());
    let verifier = RequestVerifier::new(
        trust,
        Patterns::new(DEFAULT_ALLOWED).unwrap(),
        Patterns::new(DEFAULT_PRIVILEGED).unwrap(),
    );
    let (good, forged, later) = (signature(&ours), signature(&evil), signature(&next));
    let accepted = |signature: &Signature| {
        verifier.verify_parts("text", &signature.signature, &signature.pubcert, "choria=bob.mcollective", NOW).is_ok()
    };
    assert!(accepted(&good) && !accepted(&forged));

    let half = &ours.certificate_pem()[..ours.certificate_pem().len() / 2];
    let two_and_a_half = format!("{}{half}", evil.certificate_pem());
    let with_key = format!("{}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", evil.certificate_pem());
    let no_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for broken in ["", "\n", "no certificate", half, &two_and_a_half, &with_key, no_der] {
        fs::write(&path, broken).unwrap();
        verifier.refresh().unwrap_err();
        assert!(!verifier.refresh().unwrap(), "the same content is told once");
        assert!(accepted(&good) && !accepted(&forged), "{broken:?}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(verifier.refresh(), Err(TrustError::File(_))));
    assert!(accepted(&good) && !accepted(&forged));

    fs::write(&path, format!("comment\n{}{}", ours.certificate_pem(), next.certificate_pem())).unwrap();
    assert!(verifier.refresh().unwrap());
    assert!(accepted(&good) && accepted(&later) && !accepted(&forged));
    fs::write(&path, next.certificate_pem()).unwrap();
    assert!(verifier.refresh().unwrap());
    assert!(!accepted(&good) && accepted(&later));
}

#[test]
fn a_store_never_starts_without_a_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    assert!(matches!(TrustStore::load(&path), Err(TrustError::File(_))));
    fs::write(&path, "").unwrap();
    let error = TrustStore::load(&path).unwrap_err();
    assert!(error.to_string().ends_with("ca.pem holds no CA certificate"), "{error}");
}

#[test]
fn a_ca_outside_its_own_validity_vouches_for_nobody() {
    let set = Authorities::from_pem(authority("ours").certificate_pem()).unwrap();
    assert_eq!(set.anchors_at(NOW).len(), 1);
    assert_eq!(set.anchors_at(NOW - 301).len(), 0);
    assert_eq!(set.anchors_at(NOW + 11 * 365 * 24 * 3600).len(), 0);
    assert_eq!(set.anchors_at(i64::MIN).len(), 0);
}
