//! Certificate, CA and key of one `configure` call as one set that fits together.

use std::path::{Path, PathBuf};

use choria_security::cert::{self, CertificateFacts};
use choria_security::chain;
use choria_security::keys::PrivateKey;
use choria_security::transfer::{TransferError, TransferKey, decrypt_key};
use choria_security::trust::Authorities;
use zeroize::Zeroizing;

use super::journal::{Content, Replacement};
use super::plan::read_regular;
use super::request::ConfigureRequest;
use crate::files::{Files, exists, is_dir};

/// The set that a request brings.
#[derive(Debug)]
pub(super) struct TlsSet {
    directory: PathBuf,
    certificate: String,
    facts: CertificateFacts,
    ca: String,
    key: Option<PrivateKey>,
    /// The key was there, and is the certificate's.
    is_whole: bool,
}

impl TlsSet {
    /// Reads and checks the set. `Ok(None)` when the request brings none. Texts follow the original's
    /// `TLS Setup Failed: `.
    pub(super) fn read(
        files: &dyn Files,
        request: &ConfigureRequest,
        base: &Path,
        transfer: Option<&TransferKey>,
        now: i64,
    ) -> Result<Option<Self>, String> {
        let given = [
            ("certificate", !request.certificate.is_empty()),
            ("ca", !request.ca.is_empty()),
            ("ssldir", !request.ssldir.is_empty()),
        ];
        // A node that made a request always gets its directory back, also without a certificate.
        if !given[0].1 && !given[1].1 && request.key.is_empty() {
            return Ok(None);
        }
        if let Some((missing, _)) = given.iter().find(|(_, given)| !given) {
            return Err(format!("certificate, ca and ssldir belong together and {missing} is missing"));
        }
        let key = match (request.key.is_empty(), transfer) {
            (true, _) => None,
            (false, None) => return Err(undecrypted(&TransferError::NoPrivateKey)),
            (false, Some(own)) => {
                Some(decrypt_key(&request.key, own, &request.ecdh_public).map_err(|error| undecrypted(&error))?)
            }
        };
        let authorities =
            Authorities::from_pem(&request.ca).map_err(|error| format!("the CA cannot be used: {error}"))?;
        let facts = cert::first_from_pem(&request.certificate)
            .map_err(|error| format!("the certificate cannot be used: {error}"))?;
        chain::check_client_chain(&request.certificate, &authorities, now)
            .map_err(|error| format!("the certificate cannot be used: {error}"))?;
        let mut set = Self {
            directory: base.join(&request.ssldir),
            certificate: request.certificate.clone(),
            facts,
            ca: request.ca.clone(),
            key,
            is_whole: false,
        };
        set.is_whole = set.check_key(files)?;
        if exists(files, &set.directory) && !is_dir(files, &set.directory) {
            return Err(format!("could not create ssl directory {}: it is a file", set.directory.display()));
        }
        Ok(Some(set))
    }

    /// The key must be the certificate's: the one that came, else the one `gencsr` made. False when there is none yet.
    fn check_key(&self, files: &dyn Files) -> Result<bool, String> {
        let mismatch = |origin: &str| Err(format!("the certificate is not for {origin}"));
        match &self.key {
            Some(key) if !self.facts.belongs_to(key) => mismatch("the private key that came with it"),
            Some(_) => Ok(true),
            None => {
                let path = self.path("private.pem");
                if !exists(files, &path) {
                    return Ok(false);
                }
                let text = Zeroizing::new(read_regular(files, &path)?);
                let key = PrivateKey::from_pem(&text).map_err(|error| format!("{}: {error}", path.display()))?;
                if self.facts.belongs_to(&key) {
                    return Ok(true);
                }
                mismatch(&format!("the private key in {}", path.display()))
            }
        }
    }

    /// Whether these three paths are those of the set, so that everything about them has been checked.
    pub(super) fn is(&self, certificate: &Path, key: &Path, ca: &Path) -> bool {
        let paths = [("certificate.pem", certificate), ("private.pem", key), ("ca.pem", ca)];
        self.is_whole && paths.iter().all(|(name, path)| self.path(name) == **path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The text that `path` will hold, if it is one of ours.
    pub(super) fn text(&self, path: &Path) -> Option<String> {
        if path == self.path("certificate.pem") {
            Some(self.certificate.clone())
        } else if path == self.path("ca.pem") {
            Some(self.ca.clone())
        } else {
            None
        }
    }

    /// The key that `path` will hold, if it came with the request.
    pub(super) fn key(&self, path: &Path) -> Option<&PrivateKey> {
        self.key.as_ref().filter(|_| path == self.path("private.pem"))
    }

    pub(super) fn replacements(&self) -> Vec<Replacement> {
        let put = |name, content| Replacement { target: self.path(name), content };
        let mut list = vec![
            put("certificate.pem", Content::file(self.certificate.as_bytes(), 0o644)),
            put("ca.pem", Content::file(self.ca.as_bytes(), 0o644)),
        ];
        if let Some(key) = &self.key {
            list.push(put("private.pem", Content::file(key.to_pem().as_bytes(), 0o600)));
            // The request was for another key.
            list.push(put("csr.pem", Content::Absent));
        }
        list
    }
}

fn undecrypted(error: &TransferError) -> String {
    format!("could not decrypt private key: {error}")
}
