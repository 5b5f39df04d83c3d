//! A broker with real files, real TLS and a port of its own, and clients of every kind.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions};
use choria_broker::{Handle, Options, Service, StartError};
use choria_config::{BuildSettings, Config, Environment, Mode};
use choria_security::ca::{CertificateAuthority, IssueRequest, Usage};
use choria_security::keys::{KeyKind, PrivateKey, write_private_key};
use choria_security::tls::{self, TlsMaterial};
use choria_tokens::{ProvisioningRequest, Seed, SigningKey, issue_provisioning};

/// Nothing in these tests takes longer unless it hangs.
pub const DEADLINE: Duration = Duration::from_secs(20);
pub const CLIENT_PASSWORD: &str = "provisioner password";
pub const SYSTEM_PASSWORD: &str = "system password";
pub const IDENTITY: &str = "broker.example.net";

pub use choria_testkit::unix_now;

/// Files of one network in a directory of their own.
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub ca: CertificateAuthority,
    /// The key of `ca`, for certificates that it would never issue itself.
    pub ca_key: String,
    pub signer: SigningKey,
}

impl Lab {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Old enough that a certificate of yesterday can be made.
        let (ca, ca_key) = CertificateAuthority::generate("Test CA", KeyKind::P256, unix_now() - 7 * 86_400).unwrap();
        let seed = Seed::from_bytes([9; 32]);
        let public = hex::encode(seed.public());
        let signer = SigningKey::from_seed(seed);
        let lab = Self { dir, ca, ca_key: ca_key.to_string(), signer };
        std::fs::write(lab.path("ca.pem"), lab.ca.certificate_pem()).unwrap();
        std::fs::write(lab.path("signer.public"), public).unwrap();
        lab.issue(&lab.ca, IDENTITY, IssueRequest::new(IDENTITY, KeyKind::P256));
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate and key of `ca` under `name`.pem and `name`.key.
    pub fn issue(&self, ca: &CertificateAuthority, name: &str, mut request: IssueRequest) -> TlsMaterial {
        request.ip_addresses = vec!["127.0.0.1".parse().unwrap()];
        let issued = ca.issue(&request, unix_now()).unwrap();
        self.store(name, &issued.certificate.pem, &issued.key)
    }

    pub fn store(&self, name: &str, certificate: &str, key: &PrivateKey) -> TlsMaterial {
        let (pem, key_file) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(&pem, certificate).unwrap();
        let _ = std::fs::remove_file(&key_file);
        write_private_key(&key_file, key).unwrap();
        TlsMaterial::new(pem, key_file, self.path("ca.pem"))
    }

    pub fn member(&self, name: &str) -> TlsMaterial {
        let request = IssueRequest { usage: Usage::Client, ..IssueRequest::new(name, KeyKind::P256) };
        self.issue(&self.ca, name, request)
    }

    pub fn token(&self, validity: Duration) -> String {
        let request = ProvisioningRequest {
            urls: "nats://broker.example.net:4222".into(),
            validity: Some(validity),
            ..ProvisioningRequest::new("s3cret")
        };
        issue_provisioning(&request, &self.signer, unix_now()).unwrap()
    }

    /// The configuration file of an x509 network with provisioning, and `extra` lines.
    pub fn write_config(&self, extra: &str) -> PathBuf {
        let dir = self.dir.path().display();
        let text = format!(
            "identity = {IDENTITY}\n\
             plugin.security.provider = file\n\
             plugin.security.file.certificate = {dir}/{IDENTITY}.pem\n\
             plugin.security.file.key = {dir}/{IDENTITY}.key\n\
             plugin.security.file.ca = {dir}/ca.pem\n\
             plugin.choria.broker_network = true\n\
             plugin.choria.network.listen_address = 127.0.0.1\n\
             plugin.choria.network.client_port = -1\n\
             plugin.choria.network.provisioning.client_password = {CLIENT_PASSWORD}\n\
             plugin.choria.network.provisioning.signer_cert = {dir}/signer.public\n\
             plugin.choria.network.system.user = system\n\
             plugin.choria.network.system.password = {SYSTEM_PASSWORD}\n\
             {extra}"
        );
        let file = self.path("broker.conf");
        std::fs::write(&file, text).unwrap();
        file
    }

    pub fn service(&self, extra: &str, options: Options) -> Result<Service, StartError> {
        let environment = Environment::fixed(IDENTITY);
        let config = Config::load(self.write_config(extra), Mode::Broker, &environment).unwrap();
        Service::with_options(&config, &BuildSettings::default(), options, environment)
    }

    pub async fn start(&self, extra: &str) -> Handle {
        self.service(extra, Options::default()).unwrap().start().await.unwrap()
    }
}

/// Options that fail instead of trying again, so that a refusal is seen.
pub fn options(config: Arc<rustls::ClientConfig>, name: &str) -> ConnectOptions {
    ConnectOptions::new()
        .name(name)
        .require_tls(true)
        .tls_client_config((*config).clone())
        .connection_timeout(DEADLINE)
        .max_reconnects(1)
}

/// A member of the fleet.
pub async fn member(broker: &Handle, material: &TlsMaterial, name: &str) -> Result<Client, ConnectErrorKind> {
    connect(broker, options(tls::client_config(material).unwrap(), name)).await
}

/// The provisioner.
pub async fn provisioner(broker: &Handle, material: &TlsMaterial) -> Result<Client, ConnectErrorKind> {
    let options = options(tls::client_config(material).unwrap(), "provisioner");
    connect(broker, options.user_and_password("provisioner".into(), CLIENT_PASSWORD.into())).await
}

/// An unprovisioned node: TLS without any verification, the token, its name.
pub async fn node(broker: &Handle, name: &str, token: &str) -> Result<Client, ConnectErrorKind> {
    connect(broker, options(tls::anonymous_client_config(), name).token(token.to_owned())).await
}

pub async fn connect(broker: &Handle, options: ConnectOptions) -> Result<Client, ConnectErrorKind> {
    let address = broker.client_addr.to_string();
    tokio::time::timeout(DEADLINE, options.connect(address)).await.expect("connect hangs").map_err(|e| e.kind())
}

/// Waits for something to become true.
pub async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    choria_testkit::wait_until_async(DEADLINE, what, condition).await;
}

/// A configuration line that puts the statistics on a free port, which must be known before the start.
pub fn stats() -> String {
    format!("plugin.choria.stats_port = {}\n", choria_testkit::free_port())
}

/// GET over plain HTTP/1.1; status line and body.
pub async fn get(address: std::net::SocketAddr, path: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The value of one Prometheus series, 0 when it does not exist.
pub async fn metric(broker: &Handle, series: &str) -> u64 {
    let (_, text) = get(broker.stats_addr.expect("statistics are on"), "/choria/prometheus").await;
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0, |value| value.trim().parse().unwrap())
}
