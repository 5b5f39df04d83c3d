//! Nodes that come as fleet members: what a provisioner would have left on their disks.

use std::path::Path;

use choria_security::atomic::{self, FileError};
use choria_security::ca::{CaError, CertificateAuthority, IssueRequest};
use choria_security::keys::{self, KeyKind};

use crate::options::Membership;

/// Why a member could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The authority.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A directory.
    #[error("could not make {path}: {source}")]
    Directory {
        /// The directory.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// Makes members of one fleet.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    authority: CertificateAuthority,
    membership: &'a Membership,
    key: KeyKind,
    now: i64,
}

impl<'a> Members<'a> {
    pub(crate) fn new(membership: &'a Membership, key: KeyKind, now: i64) -> Result<Self, MemberError> {
        let authority = CertificateAuthority::load(&membership.authority)?;
        Ok(Self { authority, membership, key, now })
    }

    /// Writes key, certificate, CA and configuration of one node below `directory`.
    pub(crate) fn make(&self, identity: &str, directory: &Path) -> Result<(), MemberError> {
        let ssl = directory.join("ssl");
        std::fs::create_dir_all(&ssl)
            .map_err(|source| MemberError::Directory { path: ssl.display().to_string(), source })?;
        let issued = self.authority.issue(&IssueRequest::new(identity, self.key), self.now)?;
        keys::write_private_key(ssl.join("private.pem"), &issued.key)?;
        atomic::write_file(ssl.join("certificate.pem"), issued.certificate.pem.as_bytes(), 0o644)?;
        atomic::write_file(ssl.join("ca.pem"), self.authority.certificate_pem().as_bytes(), 0o644)?;
        // Last: a directory with a configuration is complete.
        atomic::write_file(directory.join("server.conf"), self.configuration(identity, &ssl).as_bytes(), 0o600)?;
        Ok(())
    }

    fn configuration(&self, identity: &str, ssl: &Path) -> String {
        let collectives = match self.membership.collectives.as_slice() {
            [] => "mcollective".to_owned(),
            list => list.join(","),
        };
        let ssl = ssl.display();
        format!(
            "identity = {identity}\n\
             collectives = {collectives}\n\
             plugin.choria.server.provision = false\n\
             plugin.choria.middleware_hosts = {}\n\
             plugin.choria.use_srv = false\n\
             plugin.security.provider = file\n\
             plugin.security.file.certificate = {ssl}/certificate.pem\n\
             plugin.security.file.key = {ssl}/private.pem\n\
             plugin.security.file.ca = {ssl}/ca.pem\n",
            self.membership.brokers.join(","),
        )
    }
}
