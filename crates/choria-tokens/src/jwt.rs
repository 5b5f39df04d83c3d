//! The three segments of a JWT: splitting, the header, signatures over the received bytes, encoding.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, crypto};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::claims::{self, parse_date};
use crate::verify::{MAX_TOKEN_BYTES, TokenError};
use crate::{SigningKey, VerificationKey};

/// A token taken apart, nothing verified yet.
pub(crate) struct Parts<'a> {
    /// Header and payload segments with the dot between them, exactly the bytes that were signed.
    signed: &'a str,
    /// Signature segment without line ends.
    signature: String,
    /// Decoded header.
    header: Map<String, Value>,
    /// Decoded payload.
    payload: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// Splits and decodes; line ends inside a segment are skipped and `=` padding is refused (spec 01 §1.1).
    pub(crate) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLarge { bytes: token.len() });
        }
        let mut segments = token.splitn(4, '.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(TokenError::Malformed("a token has three segments separated by dots".into()));
        };
        let signed = &token[..header.len() + 1 + payload.len()];
        let header = decode("header", header)?;
        let Ok(Value::Object(header)) = serde_json::from_slice(&header) else {
            return Err(TokenError::Malformed("the header is not a JSON object".into()));
        };
        let payload = decode("claims", payload)?;
        Ok(Self { signed, signature: without_line_ends(signature), header, payload })
    }

    /// The `alg` of the header, as written.
    pub(crate) fn algorithm_name(&self) -> Option<&str> {
        self.header.get("alg")?.as_str()
    }

    /// Checks the signature; algorithms outside the allow-list and keys of another type are refused before any cryptography.
    pub(crate) fn verify(&self, key: &VerificationKey) -> Result<(), TokenError> {
        let name = self.algorithm_name().ok_or_else(|| TokenError::Malformed("the header has no alg".into()))?;
        let algorithm = match name {
            "RS256" => Algorithm::RS256,
            "RS384" => Algorithm::RS384,
            "RS512" => Algorithm::RS512,
            "EdDSA" => Algorithm::EdDSA,
            other => return Err(TokenError::Algorithm { algorithm: printable(other) }),
        };
        if self.header.contains_key("crit") {
            return Err(TokenError::Malformed("the header has a crit list and no such extension is known".into()));
        }
        if (algorithm == Algorithm::EdDSA) != key.is_ed25519() {
            return Err(TokenError::KeyType { algorithm: name.to_owned(), key: key.kind() });
        }
        match crypto::verify(&self.signature, self.signed.as_bytes(), key.decoding(), algorithm) {
            Ok(true) => Ok(()),
            _ => Err(TokenError::Signature { key: key.describe() }),
        }
    }

    /// Claims as `T`. Errors name the claim, never its value.
    pub(crate) fn claims<T: DeserializeOwned>(&self) -> Result<T, TokenError> {
        // A derived reader would also take an array for a struct, member by member.
        if self.payload.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(TokenError::Malformed("the claims are not a JSON object".into()));
        }
        serde_json::from_slice(&self.payload).map_err(|error| {
            let message = error.to_string();
            if let Some(rest) = message.strip_prefix("duplicate field `") {
                let field = rest.split('`').next().unwrap_or_default();
                return TokenError::Malformed(format!("claim {field} appears twice"));
            }
            match serde_json::from_slice::<Value>(&self.payload) {
                Ok(Value::Object(claims)) => TokenError::Malformed(wrong_type(&claims)),
                _ => TokenError::Malformed("the claims are not a JSON object".into()),
            }
        })
    }

    /// Claims as untyped JSON, for tokens of unknown purpose.
    pub(crate) fn raw_claims(&self) -> Result<Map<String, Value>, TokenError> {
        match serde_json::from_slice(&self.payload) {
            Ok(Value::Object(claims)) => Ok(claims),
            _ => Err(TokenError::Malformed("the claims are not a JSON object".into())),
        }
    }

    /// The header as JSON.
    pub(crate) fn header(&self) -> &Map<String, Value> {
        &self.header
    }
}

/// Finds the claim whose type is wrong; its value may be a secret and stays out of the text.
fn wrong_type(claims: &Map<String, Value>) -> String {
    let wrong = claims.iter().find_map(|(name, value)| {
        let expected = match name.as_str() {
            _ if value.is_null() => return None,
            "chs" | "chpd" | "v2" | "update" => (!value.is_boolean()).then_some("a boolean"),
            "exp" | "nbf" | "iat" | "issexp" => parse_date(value).is_none().then_some("a time in unix seconds"),
            "extensions" | "permissions" | "user_properties" => (!value.is_object()).then_some("an object"),
            "agents" | "collectives" | "pub_subjects" | "sub_subjects" => {
                (!value.as_array().is_some_and(|list| list.iter().all(Value::is_string))).then_some("a list of texts")
            }
            "cht" | "chu" | "chsrv" | "chrd" | "chf" | "chusr" | "chpwd" | "ou" | "purpose" | "tcs" | "public_key"
            | "iss" | "sub" | "jti" | "callerid" | "identity" | "opa_policy" => (!value.is_string()).then_some("text"),
            _ => None,
        };
        expected.map(|expected| format!("claim {name} must be {expected}"))
    });
    wrong.unwrap_or_else(|| "a claim has the wrong type".into())
}

fn decode(what: &str, segment: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(without_line_ends(segment))
        .map_err(|_| TokenError::Malformed(format!("the {what} segment is not url base64 without padding")))
}

fn without_line_ends(segment: &str) -> String {
    segment.chars().filter(|c| !matches!(c, '\r' | '\n')).collect()
}

/// A short printable form of text that a stranger wrote.
fn printable(text: &str) -> String {
    text.chars().take(20).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// Encodes and signs `claims` the way the original does: header `alg` then `typ`, claims in field order, `<`, `>` and
/// `&` escaped (spec 01 §1.1, §13.1).
pub(crate) fn encode<T: Serialize>(claims: &T, key: &SigningKey) -> Result<String, String> {
    let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, key.algorithm_name());
    let claims = claims::to_text(claims).map_err(|error| error.to_string())?;
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature =
        crypto::sign(signed.as_bytes(), key.encoding(), key.algorithm()).map_err(|error| error.to_string())?;
    Ok(format!("{signed}.{signature}"))
}
