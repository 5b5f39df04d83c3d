//! Tokens of the operator mode: `header.claims.signature`, each in base64url without padding, signed with an nkey.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::users::nkey;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JwtError {
    #[error("not a JWT of three parts")]
    Form,
    #[error("its {0} cannot be read")]
    Part(&'static str),
    #[error("its algorithm {0:?} is neither ed25519-nkey nor ed25519")]
    Algorithm(String),
    #[error("its signature is not one of its issuer")]
    Signature,
    #[error("it is a token for {found:?}, not for {wanted:?}")]
    Kind { found: String, wanted: &'static str },
    #[error("its version {0} does not fit its algorithm")]
    Version(u32),
}

#[derive(Deserialize)]
struct Header {
    typ: String,
    alg: String,
}

/// What all tokens say about themselves.
#[derive(Debug, Clone, Deserialize)]
#[serde(bound = "T: Default + Deserialize<'de>")]
pub(crate) struct Claims<T> {
    /// Public key that signed.
    pub(crate) iss: String,
    /// Public key that the token is about.
    pub(crate) sub: String,
    /// When it was issued, in seconds.
    #[serde(default)]
    pub(crate) iat: i64,
    /// When it ends, in seconds; 0 = never.
    #[serde(default)]
    pub(crate) exp: i64,
    /// When it begins, in seconds; 0 = at once.
    #[serde(default)]
    pub(crate) nbf: i64,
    /// Name for people.
    #[serde(default)]
    pub(crate) name: String,
    /// What it says about its subject. Operators of version 1 say nothing.
    #[serde(default)]
    pub(crate) nats: T,
}

impl<T> Claims<T> {
    /// Whether the token counts at a time in seconds.
    pub(crate) fn is_valid_at(&self, now: i64) -> bool {
        (self.exp == 0 || now < self.exp) && (self.nbf == 0 || self.nbf <= now)
    }
}

/// The part that tells what a token is: within `nats`, or beside it in version 1.
#[derive(Deserialize)]
struct Kind {
    iss: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    nats: InnerKind,
}

#[derive(Default, Deserialize)]
struct InnerKind {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    version: u32,
}

/// Reads a token and checks that its issuer signed it. Whether the issuer is to be believed is another question, as is the
/// time.
///
/// In version 2 the signature is about header and claims, in version 1, which has another algorithm in its header, about the
/// claims only.
pub(crate) fn read<T: Default + DeserializeOwned>(token: &str, kind: &'static str) -> Result<Claims<T>, JwtError> {
    let token = token.trim();
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(JwtError::Form);
    };
    let decode = |text: &str, what: &'static str| URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtError::Part(what));
    let parsed: Header = serde_json::from_slice(&decode(header, "header")?).map_err(|_| JwtError::Part("header"))?;
    let (signed, is_first) = match parsed.alg.as_str() {
        "ed25519-nkey" => (&token[..header.len() + 1 + claims.len()], false),
        "ed25519" => (claims, true),
        _ => return Err(JwtError::Algorithm(parsed.alg)),
    };
    if !parsed.typ.eq_ignore_ascii_case("jwt") {
        return Err(JwtError::Part("header"));
    }
    let text = decode(claims, "claims")?;
    let what: Kind = serde_json::from_slice(&text).map_err(|_| JwtError::Part("claims"))?;
    if !nkey::is_signed_raw(&what.iss, signed.as_bytes(), &decode(signature, "signature")?) {
        return Err(JwtError::Signature);
    }
    let found = if is_first { what.kind } else { what.nats.kind };
    if found != kind {
        return Err(JwtError::Kind { found, wanted: kind });
    }
    if what.nats.version != if is_first { 0 } else { 2 } {
        return Err(JwtError::Version(what.nats.version));
    }
    serde_json::from_slice(&text).map_err(|_| JwtError::Part("claims"))
}

/// The token inside a file that may have lines around it (`-----BEGIN NATS OPERATOR JWT-----`).
pub(crate) fn undecorated(text: &str) -> &str {
    let mut lines = text.lines().map(str::trim);
    let begins = |line: &str| line.starts_with("-----BEGIN") && line.contains("JWT");
    match lines.by_ref().find(|line| begins(line)) {
        Some(_) => lines.find(|line| !line.is_empty()).unwrap_or_default(),
        None => text.trim(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::claims::{AccountClaims, UserClaims};
    use super::*;

    /// Tokens come from clients before anybody knows them.
    fn try_all(token: &str) {
        assert!(read::<UserClaims>(token, "user").is_err());
        assert!(read::<AccountClaims>(token, "account").is_err());
    }

    proptest! {
        #[test]
        fn texts_that_nobody_signed_are_refused(text in ".{0,200}", parts in prop::array::uniform3("[A-Za-z0-9_=-]{0,80}")) {
            try_all(&text);
            try_all(&parts.join("."));
        }

        #[test]
        fn claims_of_any_form_are_refused_without_a_signature(claims in "[{}\\[\\]\"a-z:0-9,]{0,100}", signature in prop::collection::vec(any::<u8>(), 0..80)) {
            let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
            try_all(&format!("{header}.{}.{}", URL_SAFE_NO_PAD.encode(&claims), URL_SAFE_NO_PAD.encode(&signature)));
            // With a key of a known form, so that the signature is looked at.
            let signed = format!("{{\"iss\":\"UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK\",\"sub\":\"x\",\"nats\":{{\"type\":\"user\",\"version\":2,\"pub\":{claims:?}}}}}");
            try_all(&format!("{header}.{}.{}", URL_SAFE_NO_PAD.encode(&signed), URL_SAFE_NO_PAD.encode(&signature)));
        }
    }

    #[test]
    fn lines_around_a_token_are_left_out() {
        assert_eq!(
            undecorated("-----BEGIN NATS OPERATOR JWT-----\neyJ.a.b\n------END NATS OPERATOR JWT------\n"),
            "eyJ.a.b"
        );
        assert_eq!(undecorated(" eyJ.a.b\n"), "eyJ.a.b");
        assert_eq!(undecorated("-----BEGIN NATS OPERATOR JWT-----"), "");
    }
}
