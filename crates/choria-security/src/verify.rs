//! Verification of protocol v1 requests by their receiver (spec 01 §2.2), with the original's holes closed.
//!
//! What is checked, in this order: the certificate is one, its chain leads to the CA set in force at `now` for client
//! authentication, the caller id fits the certificate, the certificate is allowed, and the signature over the received
//! text was made by the certificate's key. Any failure is a refusal; no input leads to a panic or to "not checked".
//!
//! Stricter than the original (DESIGN section 6, spec 01 sharp edges 2 to 5):
//! - CA certificates are loaded and checked as a whole, an emptied file changes nothing ([`crate::trust`]);
//! - a key that is not RSA of at least 2048 bits is a refusal (an EC certificate ends the original's process);
//! - a caller that is not privileged must be exactly `choria=<certname>`;
//! - a certificate is privileged only when **every** name in it is, so a privileged name hidden among others gives nothing.

use std::sync::Arc;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use choria_protocol::v1::SecureRequest;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::cert::{self, CertificateError, CertificateFacts};
use crate::keys::PublicKeyKind;
use crate::patterns::Patterns;
use crate::text::shown;
use crate::trust::{TrustError, TrustStore};

/// Longest `pubcert` text that is looked at; a leaf with three intermediates is about 8 KiB.
const MAX_PUBCERT: usize = 64 * 1024;
/// Most intermediates that are used for building a chain.
const MAX_INTERMEDIATES: usize = 8;

/// Who made a verified request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Certname of the signer: the name that matched the caller, or the common name of a privileged certificate.
    pub name: String,
    /// True when the signer may speak for any caller.
    pub privileged: bool,
}

/// Why a request was refused. Refused requests get no reply (spec 01 §2.2), so this goes to log and metrics only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// `pubcert` is not a certificate.
    #[error("the request's certificate is unusable: {0}")]
    Certificate(#[from] CertificateError),
    /// `pubcert` is larger than any certificate chain.
    #[error("the request's certificate text has {bytes} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The chain does not lead to the CA, is outside its validity, or lacks the client authentication usage.
    #[error("the certificate of {subject} is not trusted: {problem}")]
    Untrusted {
        /// Subject of the certificate.
        subject: String,
        /// What the chain check said.
        problem: String,
        /// Countable form of it.
        reason: &'static str,
    },
    /// The key in the certificate is not RSA of 2048 to 8192 bits.
    #[error("the key of {subject} is {kind}, protocol v1 signatures need RSA of 2048 to 8192 bits")]
    KeyKind {
        /// Subject of the certificate.
        subject: String,
        /// What kind of key it has.
        kind: PublicKeyKind,
    },
    /// The caller id is not of the form `kind=name`.
    #[error("caller id {caller} is not of the form kind=name")]
    CallerForm {
        /// The caller id, made safe for showing.
        caller: String,
    },
    /// The caller id is not the one this certificate may use.
    #[error("caller id {caller} does not belong to the certificate of {subject}, it must be choria=<certname>")]
    CallerMismatch {
        /// The caller id, made safe for showing.
        caller: String,
        /// Subject of the certificate.
        subject: String,
    },
    /// The certname matches no pattern of the allow list.
    #[error("{name} is not on the allow list")]
    NotAllowed {
        /// The certname.
        name: String,
    },
    /// The signature is no base64.
    #[error("the signature is not base64")]
    SignatureEncoding,
    /// The signature was not made with this certificate's key over this text.
    #[error("the signature of {subject} does not verify")]
    Signature {
        /// Subject of the certificate.
        subject: String,
    },
}

impl VerifyError {
    /// A short word for metrics and events, one per kind of refusal.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "certificate_unusable",
            Self::TooLarge { .. } => "certificate_too_large",
            Self::Untrusted { reason, .. } => reason,
            Self::KeyKind { .. } => "key_kind",
            Self::CallerForm { .. } => "caller_form",
            Self::CallerMismatch { .. } => "caller_mismatch",
            Self::NotAllowed { .. } => "not_allowed",
            Self::SignatureEncoding => "signature_encoding",
            Self::Signature { .. } => "signature",
        }
    }
}

/// Verifies requests against a CA set and two lists of names.
#[derive(Debug, Clone)]
pub struct RequestVerifier {
    trust: Arc<TrustStore>,
    allowed: Patterns,
    privileged: Patterns,
}

impl RequestVerifier {
    /// A verifier with `plugin.choria.security.certname_whitelist` as `allowed` and
    /// `plugin.choria.security.privileged_users` as `privileged`.
    pub fn new(trust: Arc<TrustStore>, allowed: Patterns, privileged: Patterns) -> Self {
        Self { trust, allowed, privileged }
    }

    /// Takes over a changed CA file, see [`TrustStore::refresh`]; cheap enough to be called for every request.
    ///
    /// # Errors
    /// When the changed file is not usable; the last good set stays in force.
    pub fn refresh(&self) -> Result<bool, TrustError> {
        self.trust.refresh()
    }

    /// Verifies a request whose envelope names `caller_id`, at `now` (Unix seconds).
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(&self, request: &SecureRequest, caller_id: &str, now: i64) -> Result<Verified, VerifyError> {
        self.verify_parts(&request.message, &request.signature, &request.pubcert, caller_id, now)
    }

    /// The same from the three texts of the secure layer.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify_parts(
        &self,
        message: &str,
        signature: &str,
        pubcert: &str,
        caller_id: &str,
        now: i64,
    ) -> Result<Verified, VerifyError> {
        if pubcert.len() > MAX_PUBCERT {
            return Err(VerifyError::TooLarge { bytes: pubcert.len() });
        }
        let mut chain = cert::blocks(pubcert)?.into_iter().map(CertificateDer::from);
        let leaf = chain.next().ok_or(CertificateError::NotPem)?;
        let intermediates: Vec<_> = chain.take(MAX_INTERMEDIATES).collect();
        let facts = CertificateFacts::from_der(&leaf)?;

        if !matches!(facts.key, PublicKeyKind::Rsa { bits: 2048..=8192 }) {
            return Err(VerifyError::KeyKind { subject: facts.subject, kind: facts.key });
        }
        self.check_chain(&leaf, &intermediates, &facts, now)?;
        let verified = self.check_caller(&facts, caller_id)?;
        check_signature(message, signature, &facts)?;
        Ok(verified)
    }

    fn check_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        facts: &CertificateFacts,
        now: i64,
    ) -> Result<(), VerifyError> {
        let untrusted = |error: &webpki::Error| VerifyError::Untrusted {
            subject: facts.subject.clone(),
            problem: chain_problem(error).1.to_owned(),
            reason: chain_problem(error).0,
        };
        let anchors = self.trust.current().anchors_at(now);
        let seconds = u64::try_from(now).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        EndEntityCert::try_from(leaf)
            .and_then(|end_entity| {
                end_entity
                    .verify_for_usage(
                        webpki::ALL_VERIFICATION_ALGS,
                        &anchors,
                        intermediates,
                        time,
                        KeyUsage::client_auth(),
                        None,
                        None,
                    )
                    .map(|_| ())
            })
            .map_err(|error| untrusted(&error))
    }

    /// Decides who the caller is allowed to be. Names compare case sensitively, as in the original.
    fn check_caller(&self, facts: &CertificateFacts, caller_id: &str) -> Result<Verified, VerifyError> {
        let form = || VerifyError::CallerForm { caller: shown(caller_id) };
        let (kind, name) = caller_id.split_once('=').ok_or_else(form)?;
        let kind_fits = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_lowercase());
        let name_fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));

        let mut names = facts.common_names.iter().chain(&facts.dns_names).peekable();
        if names.peek().is_some() && names.clone().all(|name| self.privileged.is_match(name)) {
            if !kind_fits || !name_fits {
                return Err(form());
            }
            let name = names.next().map(|name| shown(name)).unwrap_or_default();
            return Ok(Verified { name, privileged: true });
        }
        if !kind_fits || name.is_empty() {
            return Err(form());
        }
        if kind != "choria" || !name_fits || !names.any(|known| known == name) {
            return Err(VerifyError::CallerMismatch { caller: shown(caller_id), subject: facts.subject.clone() });
        }
        if !self.allowed.is_match(name) {
            return Err(VerifyError::NotAllowed { name: name.to_owned() });
        }
        Ok(Verified { name: name.to_owned(), privileged: false })
    }
}

/// Verifies `signature` (std64, line ends tolerated) over the exact bytes of `message`.
fn check_signature(message: &str, signature: &str, facts: &CertificateFacts) -> Result<(), VerifyError> {
    let refused = || VerifyError::Signature { subject: facts.subject.clone() };
    let compact: Vec<u8> = signature.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    let signature = STANDARD.decode(compact).map_err(|_| VerifyError::SignatureEncoding)?;
    let (_, spki) = SubjectPublicKeyInfo::from_der(&facts.public_der).map_err(|_| refused())?;
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &spki.subject_public_key.data)
        .verify(message.as_bytes(), &signature)
        .map_err(|_| refused())
}

/// A countable word and a sentence for a failed chain check.
pub(crate) fn chain_problem(error: &webpki::Error) -> (&'static str, &'static str) {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } => ("certificate_expired", "it has expired"),
        E::CertNotValidYet { .. } => ("certificate_not_yet_valid", "it is not valid yet, check the clocks"),
        E::UnknownIssuer => ("unknown_issuer", "it was not issued by the configured CA"),
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
            ("certificate_usage", "its extended key usage does not include client authentication")
        }
        E::CaUsedAsEndEntity => ("certificate_is_ca", "it is a CA certificate"),
        E::InvalidSignatureForPublicKey => ("unknown_issuer", "its signature was not made by the configured CA"),
        E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            ("certificate_algorithm", "it is signed with an algorithm that is not accepted, SHA-1 for example")
        }
        _ => ("certificate_invalid", "its form or chain is not acceptable"),
    }
}
