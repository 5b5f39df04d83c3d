//! CA certificates: loaded, checked and swapped as a whole, never failing open (DESIGN section 6).
//!
//! The original reads the CA file again for every request and takes an emptied one for "anything goes". Here the
//! certificates are read once; [`TrustStore::refresh`] looks whether the file changed and replaces the set only when the
//! whole new file is good. Until then the last good set stays in force.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use sha2::{Digest as _, Sha256};

use crate::atomic::{self, FileError};

/// Largest CA file that is read.
const MAX_CA_FILE: u64 = 4 * 1024 * 1024;

/// Why CA certificates were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no certificate.
    #[error("{origin} holds no CA certificate")]
    Empty {
        /// The file, or `text`.
        origin: String,
    },
    /// A PEM block is damaged or is no certificate.
    #[error("{origin} is not a list of PEM certificates: {problem}")]
    Damaged {
        /// The file, or `text`.
        origin: String,
        /// What is wrong.
        problem: String,
    },
}

/// One accepted CA certificate.
#[derive(Debug, Clone)]
struct Authority {
    anchor: TrustAnchor<'static>,
    not_before: i64,
    not_after: i64,
}

/// A set of CA certificates that belongs together.
#[derive(Debug)]
pub struct Authorities {
    authorities: Vec<Authority>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Reads a PEM text; every block must be a certificate and there must be at least one.
    ///
    /// # Errors
    /// When a block is damaged or the text holds none.
    pub fn from_pem(text: &str) -> Result<Self, TrustError> {
        Self::parse(text, "text")
    }

    fn parse(text: &str, origin: &str) -> Result<Self, TrustError> {
        let damaged = |problem: String| TrustError::Damaged { origin: origin.to_owned(), problem };
        let blocks = pem::parse_many(text).map_err(|error| damaged(error.to_string()))?;
        if blocks.len() != text.matches("-----BEGIN ").count() {
            return Err(damaged("a PEM block is cut off".to_owned()));
        }
        let mut set = Self { authorities: Vec::new(), certificates: Vec::new() };
        for (index, block) in blocks.into_iter().enumerate() {
            let number = index + 1;
            if !matches!(block.tag(), "CERTIFICATE" | "TRUSTED CERTIFICATE") {
                return Err(damaged(format!("block {number} is {}", crate::text::shown(block.tag()))));
            }
            set.push(block.into_contents()).map_err(|problem| damaged(format!("block {number}: {problem}")))?;
        }
        if set.authorities.is_empty() {
            return Err(TrustError::Empty { origin: origin.to_owned() });
        }
        Ok(set)
    }

    fn push(&mut self, der: Vec<u8>) -> Result<(), &'static str> {
        let der = CertificateDer::from(der);
        let (rest, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| "not a certificate")?;
        if !rest.is_empty() {
            return Err("bytes follow the certificate");
        }
        let validity = parsed.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|_| "not usable as a CA certificate")?.to_owned();
        self.authorities.push(Authority { anchor, not_before, not_after });
        self.certificates.push(der);
        Ok(())
    }

    /// The certificates, for a TLS root store.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// Names of the authorities, sorted and each once: an authority is its name and its key, so that one whose own
    /// certificate was renewed stays the same. 16 hex characters each.
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.authorities.iter().map(|authority| authority_id(&authority.anchor)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Every trust anchor, as TLS asks them: whether their own certificates are still valid does not matter there.
    pub(crate) fn anchors(&self) -> Vec<TrustAnchor<'static>> {
        self.authorities.iter().map(|authority| authority.anchor.clone()).collect()
    }

    /// The trust anchors whose own certificate is valid at `now`.
    pub fn anchors_at(&self, now: i64) -> Vec<TrustAnchor<'static>> {
        self.authorities
            .iter()
            .filter(|authority| (authority.not_before..=authority.not_after).contains(&now))
            .map(|authority| authority.anchor.clone())
            .collect()
    }
}

/// The name of an authority in [`Authorities::ids`].
pub(crate) fn authority_id(anchor: &TrustAnchor<'_>) -> String {
    let mut digest = Sha256::new();
    digest.update((anchor.subject.len() as u64).to_be_bytes());
    digest.update(&*anchor.subject);
    digest.update(&*anchor.subject_public_key_info);
    hex::encode(&digest.finalize()[..8])
}

/// What a file looked like when it was last read: time of change, size, and the file itself where the system tells.
pub(crate) type Stamp = Option<(SystemTime, u64, u64)>;

/// CA certificates that can be replaced while in use.
#[derive(Debug)]
pub struct TrustStore {
    path: Option<PathBuf>,
    current: ArcSwap<Authorities>,
    // Guards the decision to reload, never held while a request is verified.
    stamp: Mutex<Stamp>,
}

impl TrustStore {
    /// Loads a CA file.
    ///
    /// # Errors
    /// When the file cannot be read or is not a list of certificates.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TrustError> {
        let path = path.as_ref();
        let stamp = stamp(path);
        let current = read(path)?;
        Ok(Self { path: Some(path.to_owned()), current: ArcSwap::from_pointee(current), stamp: Mutex::new(stamp) })
    }

    /// A store of certificates already in memory; [`TrustStore::refresh`] does nothing.
    pub fn fixed(authorities: Authorities) -> Self {
        Self { path: None, current: ArcSwap::from_pointee(authorities), stamp: Mutex::new(None) }
    }

    /// The set in force.
    pub fn current(&self) -> Arc<Authorities> {
        self.current.load_full()
    }

    /// Looks whether the file changed (one `stat`) and takes over its certificates when all of them are good.
    ///
    /// Returns whether the set was replaced.
    ///
    /// # Errors
    /// When the changed file is missing, empty or damaged. The last good set stays in force, and the same content is
    /// reported once only.
    pub fn refresh(&self) -> Result<bool, TrustError> {
        let Some(path) = &self.path else { return Ok(false) };
        let mut known = self.stamp.lock();
        let seen = stamp(path);
        if seen == *known {
            return Ok(false);
        }
        *known = seen;
        self.current.store(Arc::new(read(path)?));
        Ok(true)
    }
}

fn read(path: &Path) -> Result<Authorities, TrustError> {
    Authorities::parse(&atomic::read_text(path, MAX_CA_FILE)?, &path.display().to_string())
}

pub(crate) fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    #[cfg(unix)]
    let file = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let file = 0;
    Some((metadata.modified().ok()?, metadata.len(), file))
}
