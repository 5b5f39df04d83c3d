//! The files of a whole network: authority, certificates, tokens, configurations. Nothing is started here.
//!
//! ```text
//! <directory>/
//!   pki/       ca.pem, broker, provisioner, client and node certificates, ca/ (the authority)
//!   broker.conf, provisioner.yaml, provisioner.conf, client.conf, provisioning.jwt
//!   nodes/<identity>/server.conf
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Files, TestCa, TokenSigner};

/// Secret in the provisioning token, `cht`.
pub const PROVISIONING_SECRET: &str = "toomanysecrets";
/// Password of the user `provisioner`.
pub const PROVISIONER_PASSWORD: &str = "provisioner-password";
/// Certname of the client.
pub const CLIENT_NAME: &str = "tester.mcollective";

/// A network's files in a temporary directory.
#[derive(Debug)]
pub struct Lab {
    directory: PathBuf,
    ca: TestCa,
    signer: TokenSigner,
    // Removed when the lab is dropped; absent when the caller owns the directory.
    _temporary: Option<TempDir>,
}

impl Lab {
    /// A lab in a temporary directory, with an RS256 token signer as x509 networks have it.
    pub fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory can be made");
        let mut lab = Self::in_directory(temporary.path());
        lab._temporary = Some(temporary);
        lab
    }

    /// A lab in `directory`, which the caller keeps.
    pub fn in_directory(directory: impl AsRef<Path>) -> Self {
        let directory = directory.as_ref().to_owned();
        let ca = TestCa::in_directory(directory.join("pki"));
        let signer = TokenSigner::rsa(&ca);
        Self { directory, ca, signer, _temporary: None }
    }

    /// Where everything is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The authority.
    pub fn ca(&self) -> &TestCa {
        &self.ca
    }

    /// The signer of provisioning tokens.
    pub fn signer(&self) -> &TokenSigner {
        &self.signer
    }

    /// Writes `broker.conf`: TLS on `port` of 127.0.0.1, the provisioning account on, statistics on `stats_port` (0 for
    /// none). `extra` lines come last and win.
    pub fn broker_config(&self, port: u16, stats_port: u16, extra: &str) -> PathBuf {
        let text = format!(
            "identity = localhost\nplugin.choria.broker_network = true\nplugin.choria.network.listen_address = 127.0.0.1\n\
             plugin.choria.network.client_port = {port}\nplugin.choria.stats_address = 127.0.0.1\n\
             plugin.choria.stats_port = {stats_port}\nplugin.choria.network.provisioning.signer_cert = {}\n\
             plugin.choria.network.provisioning.client_password = {PROVISIONER_PASSWORD}\n{}{extra}",
            self.signer.verification_file().display(),
            self.ca.broker().config_lines()
        );
        self.write("broker.conf", &text)
    }

    /// Writes `client.conf` of the client `tester.mcollective`; run it with [`Lab::client_environment`].
    pub fn client_config(&self, port: u16, extra: &str) -> PathBuf {
        self.member_config("client.conf", &self.ca.client(CLIENT_NAME), CLIENT_NAME, port, extra)
    }

    /// The variable that makes the client act under its certificate's name.
    pub fn client_environment() -> (&'static str, &'static str) {
        ("MCOLLECTIVE_CERTNAME", CLIENT_NAME)
    }

    /// Writes `provisioner.conf`, the Choria configuration of the provisioner.
    pub fn provisioner_choria_config(&self, port: u16, extra: &str) -> PathBuf {
        self.member_config("provisioner.conf", &self.ca.provisioner(), "provisioner.mcollective", port, extra)
    }

    /// Writes `provisioner.yaml` with the features `jwt` and `pki`; `helper` is the helper's command line. `extra` lines
    /// come last.
    pub fn provisioner_config(&self, helper: &str, extra: &str) -> PathBuf {
        let text = format!(
            "interval: 1m\ncontrol_socket: ''\nlogfile: {}\nloglevel: debug\nhelper: \"{helper}\"\ntoken: {PROVISIONING_SECRET}\n\
             broker_provisioning_password: {PROVISIONER_PASSWORD}\njwt_verify_cert: {}\nfeatures:\n  jwt: true\n  pki: true\n{extra}",
            self.directory.join("provisioner.log").display(),
            self.signer.verification_file().display()
        );
        self.write("provisioner.yaml", &text)
    }

    /// Writes `provisioning.jwt` leading to a broker on `port` of localhost.
    pub fn provisioning_token(&self, port: u16) -> PathBuf {
        let request = TokenSigner::request(PROVISIONING_SECRET, &format!("nats://localhost:{port}"));
        self.signer.write(self.directory.join("provisioning.jwt"), &request)
    }

    /// The configuration path of an unprovisioned node; its directory is made, the file is not.
    pub fn node_config(&self, identity: &str) -> PathBuf {
        let directory = self.directory.join("nodes").join(identity);
        fs::create_dir_all(&directory).expect("a node directory can be made");
        directory.join("server.conf")
    }

    /// Writes the configuration of a node that is a member already.
    pub fn member_node_config(&self, identity: &str, port: u16, extra: &str) -> PathBuf {
        let path = self.node_config(identity);
        let text = self.member_text(&self.ca.node(identity), identity, port, extra);
        fs::write(&path, text).expect("a node configuration can be written");
        path
    }

    fn member_config(&self, file: &str, files: &Files, identity: &str, port: u16, extra: &str) -> PathBuf {
        self.write(file, &self.member_text(files, identity, port, extra))
    }

    fn member_text(&self, files: &Files, identity: &str, port: u16, extra: &str) -> String {
        format!(
            "identity = {identity}\nplugin.choria.use_srv = false\nplugin.choria.middleware_hosts = localhost:{port}\n\
             loglevel = info\n{}{extra}",
            files.config_lines()
        )
    }

    fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.directory.join(file);
        fs::write(&path, text).expect("a configuration file can be written");
        path
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}
