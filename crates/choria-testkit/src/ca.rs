//! A certificate authority for tests.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use choria_security::ca::{CertificateAuthority, IssueRequest, Issued};
use choria_security::keys::{KeyKind, write_private_key};
use choria_security::tls::TlsMaterial;
use tempfile::TempDir;

use crate::unix_now;

/// Certificate, key and CA files of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Certificate file.
    pub certificate: PathBuf,
    /// Key file.
    pub key: PathBuf,
    /// CA file.
    pub ca: PathBuf,
}

impl Files {
    /// The same as material for TLS.
    pub fn material(&self) -> TlsMaterial {
        TlsMaterial::new(&self.certificate, &self.key, &self.ca)
    }

    /// Configuration lines of the `file` security provider.
    pub fn config_lines(&self) -> String {
        format!(
            "plugin.security.provider = file\nplugin.security.file.certificate = {}\nplugin.security.file.key = {}\n\
             plugin.security.file.ca = {}\n",
            self.certificate.display(),
            self.key.display(),
            self.ca.display()
        )
    }
}

/// A certificate authority in a directory of its own; certificates written to files are valid for a day.
#[derive(Debug)]
pub struct TestCa {
    authority: CertificateAuthority,
    directory: PathBuf,
    now: i64,
    // Removes the directory when the last user is gone; absent when the caller owns it.
    _temporary: Option<TempDir>,
}

impl TestCa {
    /// A new authority in a temporary directory.
    pub fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory can be made");
        let mut ca = Self::in_directory(temporary.path());
        ca._temporary = Some(temporary);
        ca
    }

    /// A new authority whose files live in `directory`, which the caller keeps.
    pub fn in_directory(directory: impl AsRef<Path>) -> Self {
        Self::at(directory, unix_now())
    }

    /// The same at an injected time, Unix seconds.
    pub fn at(directory: impl AsRef<Path>, now: i64) -> Self {
        let directory = directory.as_ref().to_owned();
        fs::create_dir_all(&directory).expect("the directory of the authority can be made");
        let authority = CertificateAuthority::create(directory.join("ca"), "Test CA", KeyKind::P256, now)
            .expect("an authority can be made in an empty directory");
        fs::write(directory.join("ca.pem"), authority.certificate_pem()).expect("the CA file can be written");
        Self { authority, directory, now, _temporary: None }
    }

    /// The authority itself.
    pub fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// Where all files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory that [`CertificateAuthority::load`] understands.
    pub fn authority_directory(&self) -> PathBuf {
        self.directory.join("ca")
    }

    /// The CA certificate file.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The CA certificate.
    pub fn certificate_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// Files of a broker reached as `localhost`, 127.0.0.1 or ::1.
    pub fn broker(&self) -> Files {
        let mut request = IssueRequest::new("localhost", KeyKind::P256);
        request.ip_addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        self.files("broker", &request)
    }

    /// Files of a person or program that makes requests; RSA, as v1 signatures need it. `name` is the certname, for
    /// example `lisa.mcollective`.
    pub fn client(&self, name: &str) -> Files {
        self.files(name, &IssueRequest::new(name, KeyKind::Rsa2048))
    }

    /// Files of a provisioner, `provisioner.mcollective`, RSA.
    pub fn provisioner(&self) -> Files {
        self.client("provisioner.mcollective")
    }

    /// Files of a managed node; P-256, as provisioned nodes have it.
    pub fn node(&self, identity: &str) -> Files {
        self.files(identity, &IssueRequest::new(identity, KeyKind::P256))
    }

    /// Issues exactly what is asked for, without writing files.
    pub fn issue(&self, request: &IssueRequest) -> Issued {
        self.authority.issue(request, self.now).expect("the test authority can issue what tests ask for")
    }

    /// Issues, valid for a day, and writes `<file>.pem` and `<file>-key.pem`.
    pub fn files(&self, file: &str, request: &IssueRequest) -> Files {
        let issued = self.issue(&IssueRequest { validity: Duration::from_secs(24 * 3600), ..request.clone() });
        let files = Files {
            certificate: self.directory.join(format!("{file}.pem")),
            key: self.directory.join(format!("{file}-key.pem")),
            ca: self.ca_file(),
        };
        fs::write(&files.certificate, &issued.certificate.pem).expect("a certificate file can be written");
        write_private_key(&files.key, &issued.key).expect("a key file can be written");
        files
    }
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}
