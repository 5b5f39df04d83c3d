//! TLS of the real program from files, by flags and by configuration, and users that certificates name.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, unreachable_pub)]
mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use common::{DEADLINE, Raw, Running, output, rows};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Files as the recording had them: `ca.pem`, `srv`, `cli` with an e-mail name, `other` of nobody.
struct Pki<'a> {
    dir: &'a Path,
    issuer: Issuer<'static, KeyPair>,
}

impl<'a> Pki<'a> {
    fn new(dir: &'a Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ca");
        std::fs::write(dir.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let pki = Self { dir, issuer: Issuer::new(params, key) };
        pki.issue("srv", ExtendedKeyUsagePurpose::ServerAuth, SanType::DnsName("localhost".try_into().unwrap()));
        let email = SanType::Rfc822Name("cli@x.test".try_into().unwrap());
        pki.issue("cli", ExtendedKeyUsagePurpose::ClientAuth, email.clone());
        let (params, key) = pki.params("other", ExtendedKeyUsagePurpose::ClientAuth, email);
        pki.write("other", &params.self_signed(&key).unwrap().pem(), &key);
        pki
    }

    fn params(&self, name: &str, usage: ExtendedKeyUsagePurpose, san: SanType) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.subject_alt_names = vec![san];
        (params, KeyPair::generate().unwrap())
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose, san: SanType) {
        let (params, key) = self.params(name, usage, san);
        self.write(name, &params.signed_by(&key, &self.issuer).unwrap().pem(), &key);
    }

    fn write(&self, name: &str, pem: &str, key: &KeyPair) {
        std::fs::write(self.dir.join(format!("{name}.pem")), pem).unwrap();
        std::fs::write(self.dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// A client that trusts the CA and may show a certificate.
    fn client(&self, identity: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.dir.join("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = vec![CertificateDer::from_pem_file(self.dir.join(format!("{name}.pem"))).unwrap()];
                let key = PrivateKeyDer::from_pem_file(self.dir.join(format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        })
    }
}

const CONNECT: &[u8] = b"CONNECT {\"verbose\":true,\"pedantic\":false,\"protocol\":1}\r\nPING\r\n";

/// INFO in clear text, then TLS, then these bytes; what comes until `wanted` is there or the connection is over.
fn talk(addr: SocketAddr, config: Arc<ClientConfig>, sent: &[u8], wanted: &str) -> Result<String, String> {
    let (raw, _) = Raw::connect(addr);
    let socket = raw.stream;
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    over_tls(socket, config, sent, wanted)
}

fn over_tls(socket: TcpStream, config: Arc<ClientConfig>, sent: &[u8], wanted: &str) -> Result<String, String> {
    let session = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    let mut text = String::new();
    let result = stream.write_all(sent).and_then(|()| {
        let mut buffer = [0; 4096];
        while !text.contains(wanted) {
            match stream.read(&mut buffer)? {
                0 => break,
                count => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
            }
        }
        Ok(())
    });
    match result {
        Err(error) if text.is_empty() => Err(error.to_string()),
        _ => Ok(text),
    }
}

#[test]
fn golden_users_by_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let mut ran = 0;
    for row in rows("tls.jsonl") {
        let Some(case) = row["case"].as_str().unwrap().strip_prefix("tls-verify-and-map/") else { continue };
        let config = row["config"].as_str().unwrap().replace("<dir>", dir.path().to_str().unwrap());
        let mut program = Running::configured(dir.path(), &config);
        let addr = program.clients();
        ran += 1;
        let denied = "-ERR 'Permissions Violation for Publish to \"no\"'\r\n";
        let sent = [CONNECT, b"PUB ok 0\r\n\r\nPUB no 0\r\n\r\n"].concat();
        match case {
            "info" => {
                let (_, info) = Raw::connect(addr);
                for (key, wanted) in row["info"].as_object().unwrap() {
                    assert_eq!(info.get(key), Some(wanted), "{key}");
                }
            }
            "plain-connect-after-info" => {
                let (mut raw, _) = Raw::connect(addr);
                raw.send(CONNECT);
                // The recording has nothing but the end; a TLS alert is no NATS.
                assert!(!raw.end().contains("PONG"));
            }
            "upgrade-with-cert" => {
                let text = talk(addr, pki.client(Some("cli")), &sent, denied).unwrap();
                let (info, rest) =
                    text.split_once("PONG\r\n").map(|(_, rest)| rest.split_once("\r\n").unwrap()).unwrap();
                assert!(info.starts_with("INFO {") && info.contains("\"connect_info\":true"), "{text}");
                assert_eq!(rest, row["result"].as_str().unwrap().rsplit_once("<INFO-CONNECT>\r\n").unwrap().1);
            }
            "upgrade-no-cert" => {
                let error = talk(addr, pki.client(None), &sent, denied).unwrap_err();
                assert!(error.contains("CertificateRequired"), "{error}");
            }
            "upgrade-with-foreign-cert" => {
                talk(addr, pki.client(Some("other")), &sent, denied).unwrap_err();
            }
            unknown => panic!("{unknown}"),
        }
    }
    assert_eq!(ran, 5);
}

#[test]
fn a_certificate_that_names_nobody_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    pki.issue("lost", ExtendedKeyUsagePurpose::ClientAuth, SanType::DnsName("lost.test".try_into().unwrap()));
    let config = "tls { cert_file: srv.pem, key_file: srv.key, ca_file: ca.pem, verify_and_map: true }\n\
                  authorization { users: [{user: \"cli@x.test\"}, {user: \"CN=lost2\"}] }";
    let mut program = Running::configured(dir.path(), config);
    let text = talk(program.clients(), pki.client(Some("lost")), CONNECT, "'\r\n").unwrap();
    assert_eq!(text, "-ERR 'Authorization Violation'\r\n");
    // The subject serves when no other name does.
    std::fs::write(dir.path().join("test.conf"), config.replace("CN=lost2", "CN=lost")).unwrap();
    program.signal(Signal::SIGHUP);
    program.wait_for("Reloaded server configuration");
    let text = talk(program.clients(), pki.client(Some("lost")), CONNECT, "PONG\r\n").unwrap();
    assert!(text.starts_with("+OK\r\nPONG\r\n"), "{text}");
}

#[test]
fn only_pinned_keys_are_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    pki.issue("second", ExtendedKeyUsagePurpose::ClientAuth, SanType::DnsName("x.test".try_into().unwrap()));
    let certificate = CertificateDer::from_pem_file(dir.path().join("cli.pem")).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    let pin: String = Sha256::digest(parsed.public_key().raw).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = format!(
        "tls {{ cert_file: srv.pem, key_file: srv.key, ca_file: ca.pem, verify: true, pinned_certs: [\"{pin}\"] }}"
    );
    let mut program = Running::configured(dir.path(), &config);
    assert!(talk(program.clients(), pki.client(Some("cli")), CONNECT, "PONG\r\n").unwrap().contains("PONG"));
    talk(program.clients(), pki.client(Some("second")), CONNECT, "PONG\r\n").unwrap_err();
}

#[test]
fn flags_make_tls() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let files = ["--tlscert", "srv.pem", "--tlskey", "srv.key", "--tlscacert", "ca.pem"];
    let mut tls = Running::start(dir.path(), &[&["--tls"][..], &files].concat());
    let (_, info) = Raw::connect(tls.clients());
    assert_eq!((&info["tls_required"], info.get("tls_verify")), (&Value::Bool(true), None));
    assert!(talk(tls.clients(), pki.client(None), CONNECT, "PONG\r\n").unwrap().contains("PONG"));
    let mut verifying = Running::start(dir.path(), &[&["--tlsverify"][..], &files].concat());
    let addr = verifying.clients();
    assert_eq!(Raw::connect(addr).1["tls_verify"], true);
    assert!(talk(addr, pki.client(Some("cli")), CONNECT, "PONG\r\n").unwrap().contains("PONG"));
    talk(addr, pki.client(None), CONNECT, "PONG\r\n").unwrap_err();
}

#[test]
fn a_reload_takes_new_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Pki::new(dir.path());
    let mut program =
        Running::configured(dir.path(), "tls { cert_file: srv.pem, key_file: srv.key }\nhttps: 127.0.0.1:-1");
    let second = Pki::new(dir.path());
    let client = second.client(None);
    talk(program.clients(), Arc::clone(&client), CONNECT, "PONG\r\n").unwrap_err();
    program.signal(Signal::SIGHUP);
    program.wait_for("Reloaded server configuration");
    assert!(talk(program.clients(), Arc::clone(&client), CONNECT, "PONG\r\n").unwrap().contains("PONG"));
    // Monitoring shows the new one, too.
    let monitor = program.address("Starting https monitor on ");
    let socket = TcpStream::connect(monitor).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let page = over_tls(socket, client, b"GET /varz HTTP/1.0\r\n\r\n", "server_id").unwrap();
    assert!(page.contains(" 200 OK") && page.contains("\"server_id\""), "{page}");
    // What cannot be used keeps the old one.
    std::fs::write(dir.path().join("srv.key"), "nothing").unwrap();
    program.signal(Signal::SIGHUP);
    program.wait_for("Failed to reload server configuration: test.conf:1:");
    assert!(talk(program.clients(), second.client(None), CONNECT, "PONG\r\n").unwrap().contains("PONG"));
}

#[test]
fn who_must_show_a_certificate_needs_something_else_in_clear_text() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let tls = "tls { cert_file: srv.pem, key_file: srv.key, ca_file: ca.pem, verify: true }\nallow_non_tls: true\n";
    let mut open = Running::configured(dir.path(), tls);
    let (mut raw, _) = Raw::connect(open.clients());
    raw.send(CONNECT);
    assert_eq!(raw.end(), "-ERR 'Authorization Violation'\r\n");
    let (mut raw, _) = Raw::connect(open.clients());
    raw.send(b"PING\r\n");
    assert_eq!(raw.end(), "-ERR 'Authorization Violation'\r\n");
    assert!(talk(open.clients(), pki.client(Some("cli")), CONNECT, "PONG\r\n").unwrap().contains("PONG"));
    let mut closed = Running::configured(dir.path(), &format!("{tls}authorization {{ user: u, password: p }}"));
    let (mut raw, _) = Raw::connect(closed.clients());
    raw.send(b"CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"p\"}\r\nPING\r\n");
    assert_eq!(raw.line(), "PONG");
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_setting() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    pki.issue("second", ExtendedKeyUsagePurpose::ServerAuth, SanType::DnsName("localhost".try_into().unwrap()));
    std::fs::write(dir.path().join("empty.pem"), "").unwrap();
    for (tls, place, text) in [
        ("cert_file: nope.pem, key_file: srv.key", "c.conf:1:", "nope.pem"),
        ("cert_file: empty.pem, key_file: srv.key", "c.conf:1:", "it holds no certificate"),
        ("cert_file: srv.pem, key_file: second.key", "c.conf:1:", "do not fit"),
        ("cert_file: srv.pem", "c.conf:1:", "key"),
        ("cert_file: srv.pem, key_file: srv.key, verify: true", "c.conf:1:", "ca_file"),
        ("cert_file: srv.pem, key_file: srv.key, verify: true, ca_file: empty.pem", "c.conf:1:", "empty.pem"),
    ] {
        std::fs::write(dir.path().join("c.conf"), format!("tls {{ {tls} }}")).unwrap();
        let said = output(dir.path(), &["-t", "-c", "c.conf"]);
        let is_right = said.code == Some(1) && said.stderr.contains(place) && said.stderr.contains(text);
        assert!(is_right, "{tls}: {said:?}");
    }
    let said = output(dir.path(), &["-p", "-1", "--tls"]);
    assert!(said.code == Some(1) && said.stderr.contains("--tlscert"), "{said:?}");
}
