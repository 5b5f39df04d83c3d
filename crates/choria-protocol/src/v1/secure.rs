//! The layer that protects a request (signature) or a reply (hash).

use sha2::{Digest, Sha256};

use crate::base64_text;
use crate::json::push_string;
use crate::tree::{self, At};
use crate::v1::{Error, Layer, Problem};

const REQUEST_PROTOCOL: &str = "choria:secure:request:1";
const REPLY_PROTOCOL: &str = "choria:secure:reply:1";

/// Literal signature and certificate of requests made with protocol security off (spec 01 §2.1).
pub const INSECURE: &str = "insecure";
/// Certificate text of registration requests made without a certificate; its base64 is the signature (spec 01 §2.1).
pub const INSECURE_REGISTRATION: &str = "insecure registration";

/// How a request claims to be protected, told from the literal texts (spec 01 §2.1). `insecure` is valid base64 too, so
/// this must be asked before the signature is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureKind {
    /// Carries a signature.
    Signed,
    /// Made with protocol security off.
    Insecure,
    /// Registration of a node that has no usable certificate.
    InsecureRegistration,
}

/// Signed wrapper of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecureRequest {
    /// The request as received, the text that is signed.
    pub message: String,
    /// std64 of the signature, or a literal of spec 01 §2.1.
    pub signature: String,
    /// PEM text of the caller's certificate, possibly followed by intermediates.
    pub pubcert: String,
}

impl SecureRequest {
    /// A request of a sender whose protocol security is off.
    pub fn unsigned(message: String) -> Self {
        Self { message, signature: INSECURE.to_owned(), pubcert: INSECURE.to_owned() }
    }

    /// A registration request of a node that has no certificate to sign with.
    pub fn unsigned_registration(message: String) -> Self {
        Self {
            message,
            signature: base64_text::encode(INSECURE_REGISTRATION.as_bytes()),
            pubcert: INSECURE_REGISTRATION.to_owned(),
        }
    }

    /// Reads the bytes of [`super::Transport::data`].
    ///
    /// # Errors
    /// [`Error::NotJson`] or [`Error::Schema`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let document = tree::parse(Layer::SecureRequest, bytes)?;
        let root = At::root(Layer::SecureRequest, &document);
        let fields = root.object(&["protocol", "message", "signature", "pubcert"])?;
        check_protocol(&fields.required("protocol")?, REQUEST_PROTOCOL)?;
        let text = |name| -> Result<String, Error> { Ok(fields.required(name)?.non_empty()?.to_owned()) };
        Ok(Self { message: text("message")?, signature: text("signature")?, pubcert: text("pubcert")? })
    }

    /// The layer's JSON.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out =
            String::with_capacity(self.message.len() * 5 / 4 + self.pubcert.len() + self.signature.len() + 128);
        push_head(&mut out, REQUEST_PROTOCOL, &self.message);
        out.push_str(",\"signature\":");
        push_string(&mut out, &self.signature);
        out.push_str(",\"pubcert\":");
        push_string(&mut out, &self.pubcert);
        out.push('}');
        out.into_bytes()
    }

    /// What kind of protection the texts claim.
    pub fn kind(&self) -> SignatureKind {
        if self.signature == INSECURE && self.pubcert == INSECURE {
            SignatureKind::Insecure
        } else if self.pubcert == INSECURE_REGISTRATION {
            SignatureKind::InsecureRegistration
        } else {
            SignatureKind::Signed
        }
    }

    /// The signature's bytes.
    ///
    /// # Errors
    /// [`Error::NotBase64`].
    pub fn signature_bytes(&self) -> Result<Vec<u8>, Error> {
        base64_text::decode(&self.signature).ok_or(Error::NotBase64("signature"))
    }
}

/// Hashed wrapper of a reply. The hash finds damage, it proves nothing about the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecureReply {
    /// The reply as received, the text that is hashed.
    pub message: String,
    /// std64 of the SHA-256 of `message`.
    pub hash: String,
}

impl SecureReply {
    /// Wraps a reply's text.
    pub fn seal(message: String) -> Self {
        let hash = base64_text::encode(&Sha256::digest(message.as_bytes()));
        Self { message, hash }
    }

    /// Reads the bytes of [`super::Transport::data`] and checks the hash.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::Schema`], [`Error::NotBase64`] or [`Error::HashMismatch`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let document = tree::parse(Layer::SecureReply, bytes)?;
        let root = At::root(Layer::SecureReply, &document);
        let fields = root.object(&["protocol", "message", "hash"])?;
        check_protocol(&fields.required("protocol")?, REPLY_PROTOCOL)?;
        let message = fields.required("message")?.non_empty()?.to_owned();
        let hash = fields.required("hash")?.non_empty()?.to_owned();
        let expected = base64_text::decode(&hash).ok_or(Error::NotBase64("hash"))?;
        if Sha256::digest(message.as_bytes()).as_slice() != expected {
            return Err(Error::HashMismatch);
        }
        Ok(Self { message, hash })
    }

    /// The layer's JSON.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = String::with_capacity(self.message.len() * 5 / 4 + 128);
        push_head(&mut out, REPLY_PROTOCOL, &self.message);
        out.push_str(",\"hash\":");
        push_string(&mut out, &self.hash);
        out.push('}');
        out.into_bytes()
    }
}

/// `{"protocol":"...","message":"..."`, how the secure and the inner layers begin.
pub(super) fn push_head(out: &mut String, protocol: &str, message: &str) {
    out.push_str("{\"protocol\":\"");
    out.push_str(protocol);
    out.push_str("\",\"message\":");
    push_string(out, message);
}

pub(super) fn check_protocol(at: &At<'_, '_>, expected: &'static str) -> Result<(), Error> {
    if at.text()? == expected { Ok(()) } else { Err(at.error(Problem::NotAllowed(expected))) }
}
