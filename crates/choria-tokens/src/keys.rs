//! Keys that sign and verify tokens: RSA of at least 2048 bits or Ed25519 (spec 01 §13.3).

use std::fmt;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::keyfile::{KeyFileError, Seed, read_bounded};

/// Smallest RSA modulus that is accepted, in bits.
const MIN_RSA_BITS: usize = 2048;

/// Why key material cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The content is none of the accepted forms.
    #[error("unsupported key in {origin}: {problem}")]
    Unsupported {
        /// Where the key came from: a path or `text`.
        origin: String,
        /// What was found and what is accepted.
        problem: String,
    },
}

/// A public key that verifies tokens.
#[derive(Clone)]
pub struct VerificationKey {
    decoding: DecodingKey,
    ed25519: bool,
    id: [u8; 8],
    origin: String,
}

impl VerificationKey {
    /// Reads `path`: a PEM certificate or `PUBLIC KEY` holding an RSA key, or 64 hex characters of an Ed25519 key;
    /// white space around the hex form is tolerated.
    ///
    /// # Errors
    /// When the file cannot be read or holds none of these.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        Self::parse(&read_bounded(path)?, &path.display().to_string())
    }

    /// The same from text already in memory.
    ///
    /// # Errors
    /// When the text is none of the accepted forms.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        Self::parse(text, "text")
    }

    /// A configuration value of a signer list: 64 hex characters are the key itself, everything else is a path.
    ///
    /// # Errors
    /// As [`VerificationKey::from_file`].
    pub fn from_path_or_hex(value: &str) -> Result<Self, KeyError> {
        if value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit()) {
            Self::from_text(value)
        } else {
            Self::from_file(value)
        }
    }

    /// An Ed25519 public key.
    pub fn from_ed25519(public: [u8; 32]) -> Self {
        let (id, origin) = (key_id(&public), hex::encode(public));
        Self { decoding: DecodingKey::from_ed_der(&public), ed25519: true, id, origin }
    }

    fn parse(text: &str, origin: &str) -> Result<Self, KeyError> {
        let unsupported =
            |problem: &str| KeyError::Unsupported { origin: origin.to_owned(), problem: problem.to_owned() };
        if !text.contains("-----BEGIN ") {
            let public = decode_hex32(text.trim()).ok_or_else(|| {
                unsupported("expected a PEM certificate, a PEM PUBLIC KEY, or 64 hex characters of an Ed25519 key")
            })?;
            return Ok(Self { origin: origin.to_owned(), ..Self::from_ed25519(public) });
        }
        let block = pem::parse(text).map_err(|_| unsupported("the PEM block is damaged"))?;
        let rsa = match block.tag() {
            "CERTIFICATE" => {
                let (_, certificate) = x509_parser::parse_x509_certificate(block.contents())
                    .map_err(|_| unsupported("the certificate is damaged"))?;
                rsa_public(certificate.public_key())
            }
            "PUBLIC KEY" => {
                let (_, spki) = SubjectPublicKeyInfo::from_der(block.contents())
                    .map_err(|_| unsupported("the public key is damaged"))?;
                rsa_public(&spki)
            }
            tag => return Err(unsupported(&format!("PEM block {tag}, expected CERTIFICATE or PUBLIC KEY"))),
        };
        let rsa = rsa.map_err(|problem| unsupported(&problem))?;
        Ok(Self::from_rsa(&rsa, origin))
    }

    /// A key in its PKCS#1 form.
    fn from_rsa(public: &[u8], origin: &str) -> Self {
        let (id, origin) = (key_id(public), origin.to_owned());
        Self { decoding: DecodingKey::from_rsa_der(public), ed25519: false, id, origin }
    }

    /// A name of the key itself, wherever it was read from: 16 hex characters.
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }

    /// True for an Ed25519 key, false for RSA.
    pub fn is_ed25519(&self) -> bool {
        self.ed25519
    }

    /// `Ed25519` or `RSA`.
    pub fn kind(&self) -> &'static str {
        if self.ed25519 { "Ed25519" } else { "RSA" }
    }

    /// Where the key came from, for messages.
    pub(crate) fn describe(&self) -> String {
        self.origin.clone()
    }

    pub(crate) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey").field("kind", &self.kind()).field("origin", &self.origin).finish()
    }
}

/// A private key that signs tokens. Its `Debug` shows the kind only.
pub struct SigningKey {
    encoding: EncodingKey,
    public: VerificationKey,
}

impl SigningKey {
    /// Reads `path`: PEM `RSA PRIVATE KEY` or `PRIVATE KEY` holding an RSA key, or a 64 character hex Ed25519 seed.
    ///
    /// # Errors
    /// When the file cannot be read or holds none of these; texts never quote the content.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let text = zeroize::Zeroizing::new(read_bounded(path)?);
        Self::parse(&text, &path.display().to_string())
    }

    /// The same from text already in memory.
    ///
    /// # Errors
    /// When the text is none of the accepted forms.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        Self::parse(text, "text")
    }

    /// A key from an Ed25519 seed.
    pub fn from_seed(seed: Seed) -> Self {
        Self { encoding: EncodingKey::from_ed_der(&seed.pkcs8()), public: VerificationKey::from_ed25519(seed.public()) }
    }

    fn parse(text: &str, origin: &str) -> Result<Self, KeyError> {
        let unsupported =
            |problem: &str| KeyError::Unsupported { origin: origin.to_owned(), problem: problem.to_owned() };
        if !text.contains("-----BEGIN ") {
            let seed = Seed::from_hex(text).ok_or_else(|| {
                unsupported("expected a PEM RSA private key or the 64 hex characters of an Ed25519 seed")
            })?;
            let mut key = Self::from_seed(seed);
            key.public.origin = origin.to_owned();
            return Ok(key);
        }
        let block = pem::parse(text).map_err(|_| unsupported("the PEM block is damaged"))?;
        let pair = match block.tag() {
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(block.contents()),
            "PRIVATE KEY" => RsaKeyPair::from_pkcs8(block.contents()),
            tag => return Err(unsupported(&format!("PEM block {tag}, expected RSA PRIVATE KEY or PRIVATE KEY"))),
        }
        .map_err(|_| unsupported("the block does not hold an RSA private key of 2048 bits or more"))?;
        let encoding = EncodingKey::from_rsa_pem(text.as_bytes())
            .map_err(|_| unsupported("the block does not hold an RSA private key of 2048 bits or more"))?;
        let public = pair.public_key().as_ref();
        Ok(Self { encoding, public: VerificationKey::from_rsa(public, origin) })
    }

    /// The public half.
    pub fn verification_key(&self) -> VerificationKey {
        self.public.clone()
    }

    /// True for an Ed25519 key, false for RSA.
    pub fn is_ed25519(&self) -> bool {
        self.public.ed25519
    }

    /// What the token header will say: `EdDSA` or `RS256`.
    pub fn algorithm_name(&self) -> &'static str {
        if self.public.ed25519 { "EdDSA" } else { "RS256" }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        if self.public.ed25519 { Algorithm::EdDSA } else { Algorithm::RS256 }
    }

    pub(crate) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kind", &self.public.kind()).field("origin", &self.public.origin).finish()
    }
}

fn key_id(public: &[u8]) -> [u8; 8] {
    let mut id = [0; 8];
    id.copy_from_slice(&digest(&SHA256, public).as_ref()[..8]);
    id
}

/// The PKCS#1 form of an RSA public key, with its size checked.
fn rsa_public(spki: &SubjectPublicKeyInfo<'_>) -> Result<Vec<u8>, String> {
    use x509_parser::public_key::PublicKey;
    match spki.parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() >= MIN_RSA_BITS => Ok(spki.subject_public_key.data.to_vec()),
        Ok(PublicKey::RSA(key)) => {
            Err(format!("RSA key of {} bits, at least {MIN_RSA_BITS} are needed", key.key_size()))
        }
        _ => Err("the key is not RSA; Ed25519 keys are given as 64 hex characters".to_owned()),
    }
}

pub(crate) fn decode_hex32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}
