//! What `choria jwt view` needs: the claims of any token, and whether they were verified.

use std::fmt;

use serde_json::{Map, Value};

use crate::claims::{ClientClaims, ProvisioningClaims, ServerClaims};
use crate::verify::{TokenError, parse, verify_client, verify_provisioning, verify_server};
use crate::{PURPOSE_CLIENT, PURPOSE_PROVISIONING, PURPOSE_SERVER, VerificationKey, peek_purpose};

/// Claims of a token of any purpose.
#[derive(Clone, PartialEq)]
pub enum AnyClaims {
    /// A provisioning token.
    Provisioning(Box<ProvisioningClaims>),
    /// A client token.
    Client(Box<ClientClaims>),
    /// A server token.
    Server(Box<ServerClaims>),
    /// A token of a purpose unknown to Choria.
    Unknown(Map<String, Value>),
}

impl fmt::Debug for AnyClaims {
    /// Claims of unknown purpose are shown by name only: nobody knows which of them are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provisioning(claims) => claims.fmt(f),
            Self::Client(claims) => claims.fmt(f),
            Self::Server(claims) => claims.fmt(f),
            Self::Unknown(claims) => f.debug_set().entries(claims.keys()).finish(),
        }
    }
}

/// A token taken apart for showing it to a person.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// True when the signature and times were checked with a key.
    pub validated: bool,
    /// The header, as written.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: AnyClaims,
}

impl View {
    /// How the original names such a token in the first line of its output (spec 01 §15).
    pub fn title(&self) -> &'static str {
        match self.claims {
            AnyClaims::Provisioning(_) => "Provisioning Token",
            AnyClaims::Client(_) => "Client Identification Token",
            AnyClaims::Server(_) => "Server Token",
            AnyClaims::Unknown(_) => "Unknown Token",
        }
    }

    /// Expiry of the token, Unix seconds: the earlier of `exp` and `issexp`.
    pub fn expires(&self) -> Option<i64> {
        let (exp, issexp) = match &self.claims {
            AnyClaims::Provisioning(claims) => (claims.exp, claims.issexp),
            AnyClaims::Client(claims) => (claims.standard.exp, claims.standard.issexp),
            AnyClaims::Server(claims) => (claims.standard.exp, claims.standard.issexp),
            AnyClaims::Unknown(claims) => (claims.get("exp").and_then(crate::claims::parse_date), None),
        };
        match (exp, issexp) {
            (Some(exp), Some(issexp)) => Some(exp.min(issexp)),
            (exp, issexp) => exp.or(issexp),
        }
    }

    /// True when the token can no longer be used at `now`.
    pub fn is_expired(&self, now: i64) -> bool {
        self.expires().is_some_and(|expires| now >= expires)
    }

    /// Claims as JSON, secrets replaced by `*****`.
    pub fn redacted(&self) -> Value {
        let claims = match &self.claims {
            AnyClaims::Provisioning(claims) => serde_json::to_value(claims),
            AnyClaims::Client(claims) => serde_json::to_value(claims),
            AnyClaims::Server(claims) => serde_json::to_value(claims),
            AnyClaims::Unknown(claims) => Ok(Value::Object(claims.clone())),
        };
        // Claims came from JSON and hold nothing that JSON cannot say.
        let mut claims = claims.unwrap_or(Value::Null);
        for name in ["cht", "chpwd"] {
            if let Some(secret) = claims.get_mut(name)
                && secret != ""
            {
                *secret = Value::String("*****".to_owned());
            }
        }
        claims
    }
}

/// Reads a token of any purpose; with a key it is also validated at `now` (Unix seconds).
///
/// # Errors
/// When the text is no token, or a key was given and the token does not pass.
pub fn view(token: &str, key: Option<&VerificationKey>, now: i64) -> Result<View, TokenError> {
    let parts = parse(token)?;
    let purpose = peek_purpose(token)?;
    let claims = match (purpose.as_str(), key) {
        (PURPOSE_PROVISIONING, Some(key)) => AnyClaims::Provisioning(Box::new(verify_provisioning(token, key, now)?)),
        (PURPOSE_PROVISIONING, None) => AnyClaims::Provisioning(Box::new(parts.claims()?)),
        (PURPOSE_CLIENT, Some(key)) => AnyClaims::Client(Box::new(verify_client(token, key, now)?)),
        (PURPOSE_CLIENT, None) => AnyClaims::Client(Box::new(parts.claims()?)),
        (PURPOSE_SERVER, Some(key)) => AnyClaims::Server(Box::new(verify_server(token, key, now)?)),
        (PURPOSE_SERVER, None) => AnyClaims::Server(Box::new(parts.claims()?)),
        (_, Some(key)) => {
            parts.verify(key)?;
            AnyClaims::Unknown(parts.raw_claims()?)
        }
        (_, None) => AnyClaims::Unknown(parts.raw_claims()?),
    };
    Ok(View { validated: key.is_some(), header: parts.header().clone(), claims })
}
