//! Handshakes between our own ends, in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use choria_security::ca::{CertificateAuthority, IssueRequest};
use choria_security::keys::{KeyKind, write_private_key};
use choria_security::tls::{
    TlsMaterial, anonymous_client_config, certificate_names, client_config, server_config,
    server_config_without_client_certificates,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// An authority with files in a directory.
struct Pki {
    directory: tempfile::TempDir,
    ca: CertificateAuthority,
}

impl Pki {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::create(directory.path().join("ca"), "Test CA", KeyKind::P256, now()).unwrap();
        fs::write(directory.path().join("ca.pem"), ca.certificate_pem()).unwrap();
        Self { directory, ca }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn issue(&self, name: &str, kind: KeyKind, at: i64) -> TlsMaterial {
        let mut request = IssueRequest::new(name, kind);
        request.ip_addresses = vec!["127.0.0.1".parse().unwrap()];
        let issued = self.ca.issue(&request, at).unwrap();
        let (certificate, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}-key.pem")));
        fs::write(&certificate, &issued.certificate.pem).unwrap();
        write_private_key(&key, &issued.key).unwrap();
        TlsMaterial::new(certificate, key, self.path("ca.pem"))
    }

    fn member(&self, name: &str) -> TlsMaterial {
        self.issue(name, KeyKind::P256, now())
    }
}

/// Runs a handshake to its end.
fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let mut client = ClientConnection::new(client, ServerName::try_from(name.to_owned()).unwrap())?;
    let mut server = ServerConnection::new(server)?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut read = wire.as_slice();
        while !read.is_empty() {
            server.read_tls(&mut read).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut read = wire.as_slice();
        while !read.is_empty() {
            client.read_tls(&mut read).unwrap();
            client.process_new_packets()?;
        }
        if !client.is_handshaking() && !server.is_handshaking() && !client.wants_write() && !server.wants_write() {
            return Ok((client, server));
        }
    }
    panic!("the handshake did not end");
}

#[test]
fn members_are_verified_and_strangers_without_certificate_are_let_in_unverified() {
    let pki = Pki::new();
    let server = server_config(&pki.member("localhost")).unwrap();
    for kind in [KeyKind::P256, KeyKind::Ed25519, KeyKind::Rsa2048] {
        let client = client_config(&pki.issue("n1.example.net", kind, now())).unwrap();
        for name in ["localhost", "127.0.0.1"] {
            let (client, server) = handshake(Arc::clone(&client), Arc::clone(&server), name).unwrap();
            assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
            assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
            assert_eq!(certificate_names(&server.peer_certificates().unwrap()[0]), ["n1.example.net"]);
        }
    }
    let (_, unverified) = handshake(anonymous_client_config(), server, "whatever").unwrap();
    assert!(unverified.peer_certificates().is_none());
}

#[test]
fn certificates_of_another_ca_end_the_handshake_on_both_sides() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let server = server_config(&ours.member("localhost")).unwrap();
    let mut foreign = theirs.member("n1.example.net");
    foreign.ca = Some(ours.path("ca.pem"));
    assert!(handshake(client_config(&foreign).unwrap(), server, "localhost").is_err());
    let client = client_config(&ours.member("n1.example.net")).unwrap();
    assert!(handshake(client, server_config(&theirs.member("localhost")).unwrap(), "localhost").is_err());
}

#[test]
fn names_and_dates_of_the_broker_are_checked() {
    let pki = Pki::new();
    let client = client_config(&pki.member("n1.example.net")).unwrap();
    let server = server_config(&pki.member("localhost")).unwrap();
    assert!(handshake(Arc::clone(&client), server, "broker.example.net").is_err());

    let old = CertificateAuthority::generate("old", KeyKind::P256, now() - 1000 * 24 * 3600).unwrap().0;
    let issued = old.issue(&IssueRequest::new("localhost", KeyKind::P256), now() - 1000 * 24 * 3600).unwrap();
    fs::write(pki.path("old-ca.pem"), old.certificate_pem()).unwrap();
    fs::write(pki.path("old.pem"), issued.certificate.pem).unwrap();
    write_private_key(pki.path("old-key.pem"), &issued.key).unwrap();
    let material = TlsMaterial::new(pki.path("old.pem"), pki.path("old-key.pem"), pki.path("old-ca.pem"));
    let client = client_config(&material).unwrap();
    let error = handshake(client, server_config(&material).unwrap(), "localhost").unwrap_err();
    assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
}

#[test]
fn a_broker_with_verification_off_verifies_nobody() {
    let pki = Pki::new();
    let server = server_config_without_client_certificates(&pki.member("localhost")).unwrap();
    let client = client_config(&pki.member("n1.example.net")).unwrap();
    let (_, server) = handshake(client, server, "localhost").unwrap();
    assert!(server.peer_certificates().is_none());
    let mut no_ca = pki.member("localhost");
    no_ca.ca = None;
    let (_, server) = handshake(anonymous_client_config(), server_config(&no_ca).unwrap(), "localhost").unwrap();
    assert!(server.peer_certificates().is_none());
}

#[test]
fn an_anonymous_client_still_wants_proof_that_the_server_holds_its_key() {
    #[derive(Debug)]
    struct Imposter(Arc<rustls::sign::CertifiedKey>);
    impl rustls::server::ResolvesServerCert for Imposter {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let pki = Pki::new();
    let chain = |material: &TlsMaterial| {
        use rustls::pki_types::pem::PemObject;
        let text = fs::read(material.certificate.as_ref().unwrap()).unwrap();
        vec![rustls::pki_types::CertificateDer::from_pem_slice(&text).unwrap()]
    };
    let key = |material: &TlsMaterial| {
        use rustls::pki_types::pem::PemObject;
        let text = fs::read(material.key.as_ref().unwrap()).unwrap();
        rustls::pki_types::PrivateKeyDer::from_pem_slice(&text).unwrap()
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = |certificate: &TlsMaterial, held: &TlsMaterial| {
        let signing = provider.key_provider.load_private_key(key(held)).unwrap();
        let resolver = Imposter(Arc::new(rustls::sign::CertifiedKey::new(chain(certificate), signing)));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Arc::new(builder.with_cert_resolver(Arc::new(resolver)))
    };
    let (real, other) = (pki.member("localhost"), pki.member("other.example.net"));
    handshake(anonymous_client_config(), server(&real, &real), "localhost").unwrap();
    assert!(handshake(anonymous_client_config(), server(&real, &other), "localhost").is_err());
}

/// A broker whose certificate has no SAN extension, as old Puppet CAs make them.
fn sanless(directory: &Path, common_name: &str) -> TlsMaterial {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let path = |name: &str| directory.join(name);
    fs::write(path("ca.pem"), ca.pem()).unwrap();
    fs::write(path("leaf.pem"), leaf.pem()).unwrap();
    fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    TlsMaterial::new(path("leaf.pem"), path("key.pem"), path("ca.pem"))
}

#[test]
fn certificates_without_san_need_the_setting_and_still_their_name_and_ca() {
    let directory = tempfile::tempdir().unwrap();
    let material = sanless(directory.path(), "Broker.example.net");
    let server = server_config(&material).unwrap();
    let client = |legacy, ca: Option<PathBuf>| {
        let ca = ca.or_else(|| material.ca.clone());
        client_config(&TlsMaterial { ca, legacy_certificates: legacy, ..TlsMaterial::default() }).unwrap()
    };
    assert!(handshake(client(false, None), Arc::clone(&server), "broker.example.net").is_err());
    handshake(client(true, None), Arc::clone(&server), "broker.example.net").unwrap();
    assert!(handshake(client(true, None), Arc::clone(&server), "other.example.net").is_err());
    let pki = Pki::new();
    assert!(handshake(client(true, Some(pki.path("ca.pem"))), server, "broker.example.net").is_err());
    // With a SAN the common name counts for nothing, also in this mode.
    let with_san = server_config(&pki.member("localhost")).unwrap();
    let legacy = client(true, Some(pki.path("ca.pem")));
    handshake(Arc::clone(&legacy), Arc::clone(&with_san), "localhost").unwrap();
    assert!(handshake(legacy, with_san, "broker.example.net").is_err());
}

#[test]
fn no_session_is_kept_for_resumption() {
    let pki = Pki::new();
    let server = server_config(&pki.member("localhost")).unwrap();
    assert_eq!(server.send_tls13_tickets, 0);
    assert!(!server.ticketer.enabled() && !server.session_storage.can_cache());
}

#[test]
fn unusable_material_is_refused_with_the_file() {
    let pki = Pki::new();
    let good = pki.member("localhost");
    let refused = |change: &dyn Fn(&mut TlsMaterial)| {
        let mut material = good.clone();
        change(&mut material);
        server_config(&material).unwrap_err().to_string()
    };
    let write = |name: &str, text: &str| {
        fs::write(pki.path(name), text).unwrap();
        Some(pki.path(name))
    };
    let other = pki.member("other.example.net");
    assert!(refused(&|m| m.key.clone_from(&other.key)).contains("does not belong to the certificate"));
    assert!(
        refused(&|m| m.certificate = write("empty.pem", ""))
            .contains("empty.pem is unusable: there is no PEM certificate")
    );
    assert!(refused(&|m| m.key = write("empty-key.pem", "x")).contains("no unencrypted PEM private key"));
    assert!(refused(&|m| m.ca = write("empty-ca.pem", "")).contains("empty-ca.pem holds no CA certificate"));
    assert!(refused(&|m| m.ca = Some("/nowhere/ca.pem".into())).contains("could not read /nowhere/ca.pem"));
    assert!(refused(&|m| m.cipher_suites = vec!["TLS_FANCY".into()]).contains("plugin.security.cipher_suites"));
    assert_eq!(refused(&|m| m.certificate = None), "the certificate of the private key is not configured");
    let client = client_config(&TlsMaterial::default()).unwrap_err().to_string();
    assert_eq!(client, "the CA is not configured");
}
