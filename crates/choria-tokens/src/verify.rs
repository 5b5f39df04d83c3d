//! Strict validation of tokens, and reading without validation where the original does so too.

use crate::claims::{ClientClaims, ProvisioningClaims, ServerClaims};
use crate::jwt::Parts;
use crate::{PURPOSE_CLIENT, PURPOSE_SERVER, VerificationKey};

/// Longest token text that is looked at. Tokens travel in CONNECT and in `jwt` replies; real ones are below 4 KiB,
/// the room above is for `extensions`.
pub const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// Why a token was refused. No variant holds the token or a secret of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is no token.
    #[error("no JWT received")]
    Missing,
    /// The text is longer than [`MAX_TOKEN_BYTES`].
    #[error("token of {bytes} bytes is larger than the {MAX_TOKEN_BYTES} bytes allowed")]
    TooLarge {
        /// Size of the refused text.
        bytes: usize,
    },
    /// The text is not a token or its claims have wrong types.
    #[error("token is malformed: {0}")]
    Malformed(String),
    /// The header names an algorithm that is never accepted, among them `none` and every `HS`.
    #[error("token algorithm {algorithm} is not allowed, only RS256, RS384, RS512 and EdDSA are")]
    Algorithm {
        /// What the header said, shortened to printable characters.
        algorithm: String,
    },
    /// The algorithm does not fit the configured key.
    #[error("token is signed with {algorithm} but the configured verification key is {key}")]
    KeyType {
        /// Algorithm of the token.
        algorithm: String,
        /// Kind of the key, `RSA` or `Ed25519`.
        key: &'static str,
    },
    /// The signature was not made by the configured signer.
    #[error("token signature is invalid: it was not made by the signer configured in {key}")]
    Signature {
        /// Where the verification key came from.
        key: String,
    },
    /// `exp` has passed.
    #[error("token is expired: exp {exp}, now {now}")]
    Expired {
        /// Expiry of the token, Unix seconds.
        exp: i64,
        /// The time it was checked at.
        now: i64,
    },
    /// `nbf` is not reached yet.
    #[error("token is not valid yet: nbf {nbf}, now {now}; check the clocks")]
    NotYetValid {
        /// Start of validity, Unix seconds.
        nbf: i64,
        /// The time it was checked at.
        now: i64,
    },
    /// Neither `purpose` nor `sub` fits.
    #[error("not a {expected} token")]
    Purpose {
        /// What was wanted: `provisioning`, `client` or `server`.
        expected: &'static str,
    },
    /// The token has a trust chain signature but its issuer is no chain issuer.
    #[error(
        "token has a trust chain signature (tcs) but its issuer is not a chain issuer (C-...), the organization issuer has to sign it directly"
    )]
    ChainIssuer,
    /// The chain issuer of the token has expired, or the token does not say when it does.
    #[error("the chain issuer of the token is expired: issexp {}, now {now}", issexp.map_or("missing".to_owned(), |t| t.to_string()))]
    ChainExpired {
        /// Expiry of the issuer as the token tells it.
        issexp: Option<i64>,
        /// The time it was checked at.
        now: i64,
    },
    /// The token was signed by a chain issuer, which only protocol v2 knows.
    #[error("token is signed by a chain issuer, which cannot be verified yet")]
    ChainSigned,
}

impl TokenError {
    /// A short word for metrics and events, one per kind of refusal.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooLarge { .. } => "too_large",
            Self::Malformed(_) => "malformed",
            Self::Algorithm { .. } => "algorithm",
            Self::KeyType { .. } => "key_type",
            Self::Signature { .. } => "signature",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Purpose { .. } => "purpose",
            Self::ChainIssuer => "chain_issuer",
            Self::ChainExpired { .. } => "chain_expired",
            Self::ChainSigned => "chain_signed",
        }
    }
}

/// Validates a provisioning token: algorithm, key type, signature, `exp`, `nbf`, purpose and the rules about `tcs`
/// (spec 04 §6.3). `now` is in Unix seconds, there is no leeway; a missing `exp` is accepted as in the original.
///
/// # Errors
/// The first check that fails. Claims are looked at only after the signature is known to be good.
pub fn verify_provisioning(token: &str, key: &VerificationKey, now: i64) -> Result<ProvisioningClaims, TokenError> {
    let parts = parse(token)?;
    parts.verify(key)?;
    let claims: ProvisioningClaims = parts.claims()?;
    check_times(claims.exp, claims.nbf, now)?;
    if !claims.is_provisioning() {
        return Err(TokenError::Purpose { expected: "provisioning" });
    }
    if !claims.tcs.is_empty() {
        if !claims.iss.starts_with("C-") {
            return Err(TokenError::ChainIssuer);
        }
        if claims.issexp.is_none_or(|issexp| now >= issexp) {
            return Err(TokenError::ChainExpired { issexp: claims.issexp, now });
        }
    }
    Ok(claims)
}

/// Validates a client token that the organization issuer signed directly.
///
/// # Errors
/// As [`verify_provisioning`]; leaves of a trust chain are refused with [`TokenError::ChainSigned`].
pub fn verify_client(token: &str, key: &VerificationKey, now: i64) -> Result<ClientClaims, TokenError> {
    let parts = parse(token)?;
    let claims: ClientClaims = parts.claims()?;
    refuse_chain(&claims.standard.iss)?;
    parts.verify(key)?;
    check_times(claims.standard.exp, claims.standard.nbf, now)?;
    if claims.standard.purpose != PURPOSE_CLIENT {
        return Err(TokenError::Purpose { expected: "client" });
    }
    Ok(claims)
}

/// Validates a server token that the organization issuer signed directly.
///
/// # Errors
/// As [`verify_client`].
pub fn verify_server(token: &str, key: &VerificationKey, now: i64) -> Result<ServerClaims, TokenError> {
    let parts = parse(token)?;
    let claims: ServerClaims = parts.claims()?;
    refuse_chain(&claims.standard.iss)?;
    parts.verify(key)?;
    check_times(claims.standard.exp, claims.standard.nbf, now)?;
    if claims.standard.purpose != PURPOSE_SERVER {
        return Err(TokenError::Purpose { expected: "server" });
    }
    Ok(claims)
}

/// Reads a provisioning token without checking anything but its form, as a node does with its own (spec 03 §6.1).
///
/// # Errors
/// When the text is no token or its claims have wrong types.
pub fn read_provisioning_unverified(token: &str) -> Result<ProvisioningClaims, TokenError> {
    parse(token)?.claims()
}

/// Reads a client token without checking it, for viewing.
///
/// # Errors
/// As [`read_provisioning_unverified`].
pub fn read_client_unverified(token: &str) -> Result<ClientClaims, TokenError> {
    parse(token)?.claims()
}

/// Reads a server token without checking it, for viewing.
///
/// # Errors
/// As [`read_provisioning_unverified`].
pub fn read_server_unverified(token: &str) -> Result<ServerClaims, TokenError> {
    parse(token)?.claims()
}

/// The purpose a token claims, unverified; `sub` counts when there is no `purpose` (spec 01 §13.1).
///
/// # Errors
/// When the text is no token.
pub fn peek_purpose(token: &str) -> Result<String, TokenError> {
    let claims = parse(token)?.raw_claims()?;
    let text = |name: &str| claims.get(name).and_then(|value| value.as_str()).unwrap_or_default();
    Ok(if text("purpose").is_empty() { text("sub").to_owned() } else { text("purpose").to_owned() })
}

/// Splits a token after removing the line ends that files carry around it.
pub(crate) fn parse(token: &str) -> Result<Parts<'_>, TokenError> {
    let token = token.trim_matches(['\r', '\n']);
    if token.is_empty() {
        return Err(TokenError::Missing);
    }
    Parts::parse(token)
}

fn refuse_chain(iss: &str) -> Result<(), TokenError> {
    if iss.starts_with("C-") { Err(TokenError::ChainSigned) } else { Ok(()) }
}

fn check_times(exp: Option<i64>, nbf: Option<i64>, now: i64) -> Result<(), TokenError> {
    if let Some(exp) = exp
        && now >= exp
    {
        return Err(TokenError::Expired { exp, now });
    }
    if let Some(nbf) = nbf
        && now < nbf
    {
        return Err(TokenError::NotYetValid { nbf, now });
    }
    Ok(())
}
