//! Private keys: making them, reading them, writing them where Choria expects them.
//!
//! RSA keys are written as PKCS#1 (`RSA PRIVATE KEY`), as Choria does; P-256 and Ed25519 keys as PKCS#8 (`PRIVATE KEY`).

use std::fmt;
use std::path::Path;

use aws_lc_rs::signature::Ed25519KeyPair;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize, SignatureAlgorithm,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::der_parser::ber::BerObjectContent;
use x509_parser::der_parser::der::parse_der;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use crate::atomic::{self, FileError};

/// Largest key file that is read.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// Kinds of keys we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyKind {
    /// ECDSA on the NIST curve P-256; the default for nodes.
    #[default]
    P256,
    /// Ed25519.
    Ed25519,
    /// RSA of 2048 bits; what everybody who signs protocol v1 requests needs.
    Rsa2048,
}

/// Kinds of public keys we meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublicKeyKind {
    /// RSA, with its modulus size.
    Rsa {
        /// Size of the modulus in bits.
        bits: usize,
    },
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// Ed25519.
    Ed25519,
    /// Anything else.
    Other,
}

impl fmt::Display for PublicKeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::P256 => f.write_str("P-256"),
            Self::P384 => f.write_str("P-384"),
            Self::P521 => f.write_str("P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other => f.write_str("an unknown kind"),
        }
    }
}

impl PublicKeyKind {
    /// The kind of a public key in a certificate or request.
    pub(crate) fn of(spki: &SubjectPublicKeyInfo<'_>) -> Self {
        let algorithm = spki.algorithm.oid();
        if *algorithm == oid::OID_SIG_ED25519 {
            return if spki.subject_public_key.data.len() == 32 { Self::Ed25519 } else { Self::Other };
        }
        if *algorithm == oid::OID_PKCS1_RSAENCRYPTION {
            return match spki.parsed() {
                Ok(PublicKey::RSA(key)) => Self::Rsa { bits: modulus_bits(key.modulus) },
                _ => Self::Other,
            };
        }
        if *algorithm != oid::OID_KEY_TYPE_EC_PUBLIC_KEY {
            return Self::Other;
        }
        let curve = spki.algorithm.parameters().and_then(|parameters| parameters.as_oid().ok());
        match curve {
            Some(curve) if curve == oid::OID_EC_P256 => Self::P256,
            Some(curve) if curve == oid::OID_NIST_EC_P384 => Self::P384,
            Some(curve) if curve == oid::OID_NIST_EC_P521 => Self::P521,
            _ => Self::Other,
        }
    }
}

/// Exact size of an RSA modulus; leading zero bytes do not count.
fn modulus_bits(modulus: &[u8]) -> usize {
    let significant = modulus.iter().position(|byte| *byte != 0).map_or(&[][..], |start| &modulus[start..]);
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}

/// Why a private key could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Reading or writing the file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The text holds no private key that is understood.
    #[error("{origin} does not hold a usable private key: {problem}")]
    Unusable {
        /// The file, or `text`.
        origin: String,
        /// What is wrong; never the content.
        problem: &'static str,
    },
    /// Making a key failed.
    #[error("could not generate a {kind:?} key")]
    Generate {
        /// What was asked for.
        kind: KeyKind,
    },
}

/// A private key. Its `Debug` shows the kind only.
pub struct PrivateKey {
    pair: KeyPair,
    kind: PublicKeyKind,
}

impl PrivateKey {
    /// Makes a new key. RSA takes 20 to 200 ms, the others well below one.
    ///
    /// # Errors
    /// When the cryptographic library refuses; not seen in practice.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let pair = match kind {
            KeyKind::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            KeyKind::Ed25519 => return generate_ed25519().ok_or(KeyError::Generate { kind }),
            KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        }
        .map_err(|_| KeyError::Generate { kind })?;
        Self::from_pair(pair).ok_or(KeyError::Generate { kind })
    }

    /// Reads the first private key of a PEM text: PKCS#1, PKCS#8 or SEC1, not encrypted.
    ///
    /// # Errors
    /// When there is none, or it is of a kind or size that is not supported.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::parse(text, "text")
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// As [`PrivateKey::from_pem`], or when the file cannot be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let text = Zeroizing::new(atomic::read_text(path, MAX_KEY_FILE)?);
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, origin: &str) -> Result<Self, KeyError> {
        let unusable = |problem| KeyError::Unusable { origin: origin.to_owned(), problem };
        if text.contains("Proc-Type: 4,ENCRYPTED") || text.contains("BEGIN ENCRYPTED PRIVATE KEY") {
            return Err(unusable("the key is encrypted, decrypt it first"));
        }
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| unusable("there is no PEM private key block"))?;
        // Told the kind, the library need not try all it knows, each with a check of the whole key.
        let pair = match (&der, curve_of(der.secret_der())) {
            (PrivateKeyDer::Pkcs8(der), Some(curve)) => KeyPair::from_pkcs8_der_and_sign_algo(der, curve),
            _ => KeyPair::try_from(&der),
        };
        let pair = pair.map_err(|_| unusable("it must be RSA (2048 to 8192 bits), P-256, P-384 or Ed25519"))?;
        Self::from_pair(pair).ok_or_else(|| unusable("it must be RSA (2048 to 8192 bits), P-256, P-384 or Ed25519"))
    }

    fn from_pair(pair: KeyPair) -> Option<Self> {
        let spki = pair.subject_public_key_info();
        let (_, parsed) = SubjectPublicKeyInfo::from_der(&spki).ok()?;
        let kind = PublicKeyKind::of(&parsed);
        (kind != PublicKeyKind::Other).then_some(Self { pair, kind })
    }

    /// What kind of key it is.
    pub fn kind(&self) -> PublicKeyKind {
        self.kind
    }

    /// The public half as DER `SubjectPublicKeyInfo`.
    pub fn public_der(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// The public half as PEM. RSA keys get the PKCS#1 body under the label `PUBLIC KEY` that the original writes
    /// (spec 03 §7.1), others the usual form.
    pub fn public_pem(&self) -> String {
        let body = match self.kind {
            PublicKeyKind::Rsa { .. } => self.pair.public_key_raw().to_vec(),
            _ => self.public_der(),
        };
        encode_pem("PUBLIC KEY", &body)
    }

    /// The private key as PEM: RSA as PKCS#1 `RSA PRIVATE KEY`, others as PKCS#8 `PRIVATE KEY`.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let der = self.pair.serialized_der();
        let (label, body) = match private_key_label(der) {
            "PRIVATE KEY" => match (self.kind, pkcs8_inner(der)) {
                (PublicKeyKind::Rsa { .. }, Some(inner)) => ("RSA PRIVATE KEY", inner),
                _ => ("PRIVATE KEY", der),
            },
            label => (label, der),
        };
        Zeroizing::new(encode_pem(label, body))
    }

    /// True when `spki` is the public half of this key.
    pub fn matches(&self, spki: &[u8]) -> bool {
        self.public_der() == spki
    }

    /// The PKCS#1 form of an RSA key.
    pub(crate) fn rsa_der(&self) -> Option<&[u8]> {
        let der = self.pair.serialized_der();
        matches!(self.kind, PublicKeyKind::Rsa { .. }).then(|| pkcs8_inner(der).unwrap_or(der))
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    pub(crate) fn into_pair(self) -> KeyPair {
        self.pair
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// An Ed25519 key in the first version of PKCS#8: OpenSSL up to 3.0 cannot read the second, which holds the public key too.
fn generate_ed25519() -> Option<PrivateKey> {
    let pair = Ed25519KeyPair::generate().ok()?;
    let document = pair.to_pkcs8v1().ok()?;
    let der = PrivatePkcs8KeyDer::from(document.as_ref());
    PrivateKey::from_pair(KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).ok()?)
}

/// Makes a new key; [`PrivateKey::generate`] under the name other rooms use.
///
/// # Errors
/// As [`PrivateKey::generate`].
pub fn generate(kind: KeyKind) -> Result<PrivateKey, KeyError> {
    PrivateKey::generate(kind)
}

/// Writes a key file, mode 0600, atomically.
///
/// # Errors
/// When the file cannot be written; an older file is then unchanged.
pub fn write_private_key(path: impl AsRef<Path>, key: &PrivateKey) -> Result<(), FileError> {
    atomic::write_file(path, key.to_pem().as_bytes(), 0o600)
}

/// The PEM label that fits a DER private key: PKCS#8, SEC1 or PKCS#1, told apart by their structure.
pub fn private_key_label(der: &[u8]) -> &'static str {
    match PrivateKeyDer::try_from(der) {
        Ok(PrivateKeyDer::Pkcs8(_)) => "PRIVATE KEY",
        Ok(PrivateKeyDer::Sec1(_)) => "EC PRIVATE KEY",
        _ => "RSA PRIVATE KEY",
    }
}

/// The algorithm of a P-256 or Ed25519 key in PKCS#8.
fn curve_of(der: &[u8]) -> Option<&'static SignatureAlgorithm> {
    let (_, document) = parse_der(der).ok()?;
    let algorithm = document.as_sequence().ok()?.get(1)?.as_sequence().ok()?;
    let name = algorithm.first()?.as_oid().ok()?;
    if *name == oid::OID_SIG_ED25519 {
        return Some(&PKCS_ED25519);
    }
    let curve = algorithm.get(1)?.as_oid().ok()?;
    (*name == oid::OID_KEY_TYPE_EC_PUBLIC_KEY && *curve == oid::OID_EC_P256).then_some(&PKCS_ECDSA_P256_SHA256)
}

/// The key inside a PKCS#8 document.
fn pkcs8_inner(der: &[u8]) -> Option<&[u8]> {
    if private_key_label(der) != "PRIVATE KEY" {
        return None;
    }
    let (rest, document) = parse_der(der).ok()?;
    match document.as_sequence().ok()?.get(2)?.content {
        BerObjectContent::OctetString(inner) if rest.is_empty() => Some(inner),
        _ => None,
    }
}

pub(crate) fn encode_pem(label: &str, body: &[u8]) -> String {
    pem::encode_config(&pem::Pem::new(label, body), pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}
