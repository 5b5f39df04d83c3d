//! The built-in authority: what it makes, what it signs, what it refuses.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use choria_security::ca::{CA_FILE, CA_KEY_FILE, CaError, CertificateAuthority, IssueRequest, SigningPolicy, Usage};
use choria_security::cert::{CertificateFacts, first_from_pem};
use choria_security::csr::{self, Subject};
use choria_security::keys::{KeyError, KeyKind, PrivateKey, PublicKeyKind, write_private_key};
use x509_parser::prelude::{FromDer, X509Certificate};

const NOW: i64 = 1_795_219_200;
const DAY: i64 = 24 * 3600;
const IDENTITY: &str = "n1.example.net";

fn authority(kind: KeyKind) -> CertificateAuthority {
    CertificateAuthority::generate("Test CA", kind, NOW).unwrap().0
}

fn request(kind: KeyKind) -> (PrivateKey, String) {
    let key = PrivateKey::generate(kind).unwrap();
    let text = csr::create(&key, &Subject::common_name(IDENTITY)).unwrap();
    (key, text)
}

#[test]
fn an_authority_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("new/ca");
    let made = CertificateAuthority::create(&directory, "Test CA", KeyKind::P256, NOW).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(CA_FILE), mode(CA_KEY_FILE), mode("")), (0o644, 0o600, 0o700));
    }
    let loaded = CertificateAuthority::load(&directory).unwrap();
    assert_eq!(loaded.certificate_pem(), made.certificate_pem());
    let facts = loaded.facts();
    assert_eq!((facts.subject.as_str(), facts.is_ca, facts.key), ("CN=Test CA", true, PublicKeyKind::P256));
    assert_eq!((facts.not_before, facts.not_after), (NOW - 300, NOW + 3650 * DAY));
    let again = CertificateAuthority::create(&directory, "Test CA", KeyKind::P256, NOW).unwrap_err();
    assert!(matches!(again, CaError::Exists(_)), "{again}");
    assert_eq!(fs::read_to_string(directory.join(CA_FILE)).unwrap(), made.certificate_pem());

    let (_, text) = request(KeyKind::P256);
    let certificate = loaded.sign_csr(&text, &SigningPolicy::new(IDENTITY), NOW).unwrap();
    assert_issued_by(&certificate.der, made.certificate_pem());
}

#[test]
fn every_kind_of_authority_signs_every_kind_of_key() {
    let kinds = [KeyKind::P256, KeyKind::Ed25519, KeyKind::Rsa2048];
    let requests: Vec<_> = kinds.into_iter().map(request).collect();
    for ca_kind in kinds {
        let ca = authority(ca_kind);
        for (key, text) in &requests {
            let certificate = ca.sign_csr(text, &SigningPolicy::new(IDENTITY), NOW).unwrap();
            let facts = first_from_pem(&certificate.pem).unwrap();
            assert!(facts.belongs_to(key));
            assert_eq!(facts.key, key.kind());
            assert_issued_by(&certificate.der, ca.certificate_pem());
        }
    }
}

/// Verifies the signature and the chain with the library that TLS uses.
fn assert_issued_by(der: &[u8], ca_pem: &str) {
    let ca = pem::parse(ca_pem).unwrap().into_contents().into();
    let anchor = webpki::anchor_from_trusted_cert(&ca).unwrap();
    let leaf = der.into();
    let leaf = webpki::EndEntityCert::try_from(&leaf).unwrap();
    let time = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(NOW).unwrap()));
    for usage in [webpki::KeyUsage::client_auth(), webpki::KeyUsage::server_auth()] {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            std::slice::from_ref(&anchor),
            &[],
            time,
            usage,
            None,
            None,
        )
        .unwrap();
    }
}

#[test]
fn only_the_policy_decides_what_a_nodes_certificate_says() {
    let ca = authority(KeyKind::P256);
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let subject = Subject { organization: "Nobody Inc".into(), country: "XX".into(), ..Subject::common_name(IDENTITY) };
    let text = csr::create(&key, &subject).unwrap();
    let policy = SigningPolicy {
        validity: Duration::from_secs(3600),
        dns_names: vec!["alias.example.net".into(), IDENTITY.into()],
        ..SigningPolicy::new(IDENTITY)
    };
    let certificate = ca.sign_csr(&text, &policy, NOW).unwrap();
    let facts = CertificateFacts::from_der(&certificate.der).unwrap();
    assert_eq!(facts.subject, "CN=n1.example.net");
    assert_eq!(facts.dns_names, [IDENTITY, "alias.example.net"]);
    assert_eq!(facts.names(), [IDENTITY, "alias.example.net"]);
    assert_eq!((facts.not_before, facts.not_after), (NOW - 300, NOW + 3600));
    assert!(!facts.is_ca && facts.is_valid_at(NOW) && !facts.is_valid_at(NOW + 3601));
    assert_eq!((&certificate.serial, certificate.not_after), (&facts.serial, facts.not_after));
    let (_, parsed) = X509Certificate::from_der(&certificate.der).unwrap();
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.any && !usage.code_signing);
}

#[test]
fn refused_requests_are_not_signed_and_say_why() {
    let ca = authority(KeyKind::P256);
    let (_, text) = request(KeyKind::P256);
    let refused = |text: &str, policy: &SigningPolicy| ca.sign_csr(text, policy, NOW).unwrap_err();
    assert_eq!(refused(&text, &SigningPolicy::new("n2.example.net")).reason(), "common_name");
    assert_eq!(refused("hello", &SigningPolicy::new(IDENTITY)).reason(), "not_pem");
    let denied_alias = SigningPolicy { dns_names: vec!["x.MCOLLECTIVE".into()], ..SigningPolicy::new(IDENTITY) };
    assert_eq!(refused(&text, &denied_alias).reason(), "denied_name");
    let odd_alias = SigningPolicy { dns_names: vec!["a b".into()], ..SigningPolicy::new(IDENTITY) };
    assert_eq!(refused(&text, &odd_alias).reason(), "name");
}

#[test]
fn certificates_never_outlive_their_authority() {
    let ca = authority(KeyKind::P256);
    let (_, text) = request(KeyKind::P256);
    let end = ca.facts().not_after;
    let late = ca.sign_csr(&text, &SigningPolicy::new(IDENTITY), end - DAY).unwrap();
    assert_eq!(late.not_after, end);
    for now in [end + 1, NOW - 301] {
        let error = ca.sign_csr(&text, &SigningPolicy::new(IDENTITY), now).unwrap_err();
        assert!(matches!(error, CaError::Outdated { .. }), "{error}");
    }
}

#[test]
fn serial_numbers_are_random() {
    let ca = authority(KeyKind::P256);
    let (_, text) = request(KeyKind::P256);
    let serials: HashSet<String> =
        (0..100).map(|_| ca.sign_csr(&text, &SigningPolicy::new(IDENTITY), NOW).unwrap().serial).collect();
    assert_eq!(serials.len(), 100);
    assert!(serials.iter().all(|serial| serial.len() == 32));
}

#[test]
fn issued_identities_have_the_usages_asked_for() {
    let ca = authority(KeyKind::P256);
    for (usage, client, server) in
        [(Usage::ClientAndServer, true, true), (Usage::Client, true, false), (Usage::Server, false, true)]
    {
        let mut request = IssueRequest::new("bob.mcollective", KeyKind::P256);
        request.usage = usage;
        request.ip_addresses = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let issued = ca.issue(&request, NOW).unwrap();
        let (_, parsed) = X509Certificate::from_der(&issued.certificate.der).unwrap();
        let seen = parsed.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((seen.client_auth, seen.server_auth), (client, server));
        let facts = first_from_pem(&issued.certificate.pem).unwrap();
        assert_eq!(facts.ip_addresses, request.ip_addresses);
        assert!(facts.belongs_to(&issued.key));
    }
}

#[test]
fn damaged_authorities_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    CertificateAuthority::create(&one, "One", KeyKind::P256, NOW).unwrap();
    let other = CertificateAuthority::create(&two, "Two", KeyKind::P256, NOW).unwrap();
    let refused = || CertificateAuthority::load(&one).unwrap_err().to_string();
    fs::copy(two.join(CA_KEY_FILE), one.join(CA_KEY_FILE)).unwrap();
    assert!(refused().contains("the key does not belong to the certificate"), "{}", refused());
    let issued = other.issue(&IssueRequest::new("bob.mcollective", KeyKind::P256), NOW).unwrap();
    fs::write(one.join(CA_FILE), &issued.certificate.pem).unwrap();
    write_private_key(one.join(CA_KEY_FILE), &issued.key).unwrap();
    assert!(refused().contains("not a CA certificate"), "{}", refused());
    fs::write(one.join(CA_FILE), "").unwrap();
    assert!(refused().contains("ca.pem: there is no PEM certificate"), "{}", refused());
    fs::remove_file(one.join(CA_KEY_FILE)).unwrap();
    assert!(refused().contains("could not read"), "{}", refused());
}

#[test]
fn key_files_have_the_form_choria_expects() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("private.pem");
    for (kind, label, public) in [
        (KeyKind::Rsa2048, "-----BEGIN RSA PRIVATE KEY-----\n", PublicKeyKind::Rsa { bits: 2048 }),
        (KeyKind::P256, "-----BEGIN PRIVATE KEY-----\n", PublicKeyKind::P256),
        (KeyKind::Ed25519, "-----BEGIN PRIVATE KEY-----\n", PublicKeyKind::Ed25519),
    ] {
        let key = PrivateKey::generate(kind).unwrap();
        write_private_key(&path, &key).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(label) && text.ends_with("PRIVATE KEY-----\n") && !text.contains('\r'), "{kind:?}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        if kind == KeyKind::Ed25519 {
            // Version 1 of PKCS#8, 48 bytes: older OpenSSL reads nothing else.
            assert_eq!(pem::parse(&text).unwrap().contents().len(), 48);
        }
        let loaded = PrivateKey::load(&path).unwrap();
        assert_eq!((loaded.kind(), loaded.public_der()), (public, key.public_der()));
        assert_eq!(*loaded.to_pem(), text);
        assert!(loaded.public_pem().starts_with("-----BEGIN PUBLIC KEY-----\n"));
        assert!(!format!("{loaded:?}").contains("serialized"));
    }
    let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let error = PrivateKey::from_pem(encrypted).unwrap_err();
    assert!(matches!(error, KeyError::Unusable { problem: "the key is encrypted, decrypt it first", .. }), "{error}");
    for text in ["", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        assert!(matches!(PrivateKey::from_pem(text), Err(KeyError::Unusable { .. })));
    }
}
