//! Signing of protocol v1 requests: RSASSA-PKCS1-v1_5 with SHA-256 over the request text (spec 01 §2).
//!
//! RSA and nothing else: an original server that meets an EC certificate of an allowed name dies (DESIGN section 6), so a
//! signer with any other key is refused when it is made, which is at start.

use std::fmt;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::atomic::{self, FileError};
use crate::cert::{self, CertificateError};
use crate::keys::{KeyError, PrivateKey, PublicKeyKind};

/// Largest certificate file that is read.
pub(crate) const MAX_CERTIFICATE_FILE: u64 = 256 * 1024;

/// Why a signer could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The key is not RSA.
    #[error(
        "protocol v1 requests can only be signed with an RSA key, the key in {setting} is {kind}: enrol with an RSA-2048 key, receivers refuse or even crash on others"
    )]
    NotRsa {
        /// The configuration key that names the file.
        setting: String,
        /// What was found.
        kind: PublicKeyKind,
    },
    /// Key and certificate do not belong together.
    #[error("the key in {setting} does not belong to the certificate {certificate}")]
    Mismatch {
        /// The configuration key that names the key file.
        setting: String,
        /// The certificate file.
        certificate: String,
    },
}

/// A signature as it travels in the secure layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// std64 of the signature, no line ends.
    pub signature: String,
    /// PEM text of the signer's certificate, exactly as in its file.
    pub pubcert: String,
}

/// Signing failed; the library gives no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("could not sign the request")]
pub struct SignError;

/// Signs requests. The key is parsed once, one signature costs about a quarter of a millisecond.
pub struct RequestSigner {
    key: RsaKeyPair,
    pubcert: String,
    random: SystemRandom,
}

impl RequestSigner {
    /// Reads certificate and key. `setting` is the configuration key of the key file, for messages.
    ///
    /// # Errors
    /// When a file is unusable, the key is not RSA, or they do not belong together.
    pub fn from_files(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
        setting: &str,
    ) -> Result<Self, SignerError> {
        let certificate = certificate.as_ref();
        let pubcert = atomic::read_text(certificate, MAX_CERTIFICATE_FILE)?;
        Self::build(&pubcert, &PrivateKey::load(key)?, setting, &certificate.display().to_string())
    }

    /// The same from PEM texts.
    ///
    /// # Errors
    /// As [`RequestSigner::from_files`].
    pub fn from_pem(certificate: &str, key: &PrivateKey) -> Result<Self, SignerError> {
        Self::build(certificate, key, "the private key", "given")
    }

    fn build(pubcert: &str, key: &PrivateKey, setting: &str, file: &str) -> Result<Self, SignerError> {
        let not_rsa = || SignerError::NotRsa { setting: setting.to_owned(), kind: key.kind() };
        let pair = RsaKeyPair::from_der(key.rsa_der().ok_or_else(not_rsa)?).map_err(|_| not_rsa())?;
        let facts = cert::first_from_pem(pubcert)?;
        if !key.matches(&facts.public_der) {
            return Err(SignerError::Mismatch { setting: setting.to_owned(), certificate: file.to_owned() });
        }
        Ok(Self { key: pair, pubcert: pubcert.to_owned(), random: SystemRandom::new() })
    }

    /// Signs the exact text of a request.
    ///
    /// # Errors
    /// When the cryptographic library fails; not seen in practice.
    pub fn sign(&self, message: &str) -> Result<Signature, SignError> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &self.random, message.as_bytes(), &mut signature).map_err(|_| SignError)?;
        Ok(Signature { signature: STANDARD.encode(signature), pubcert: self.pubcert.clone() })
    }

    /// The certificate that goes with every signature.
    pub fn pubcert(&self) -> &str {
        &self.pubcert
    }
}

impl fmt::Debug for RequestSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSigner").finish_non_exhaustive()
    }
}
