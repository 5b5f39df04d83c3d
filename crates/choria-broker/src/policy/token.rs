//! Tokens as the policy sees them: what one claims to be, and whether a provisioning token is good.

use choria_tokens::{
    PURPOSE_CLIENT, PURPOSE_PROVISIONING, PURPOSE_SERVER, TokenError, VerificationKey, peek_purpose,
    verify_provisioning,
};

use super::Reason;

/// What a token says of itself, before anything is verified. It only chooses the rule that judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Client,
    Server,
    Provisioning,
    Other,
    Unreadable,
}

impl Purpose {
    /// For messages: "the token is ...".
    pub(super) fn article(self) -> &'static str {
        match self {
            Self::Client => "a client token",
            Self::Server => "a server token",
            Self::Provisioning => "a provisioning token",
            Self::Other => "a token of another purpose",
            Self::Unreadable => "an unreadable token",
        }
    }
}

pub(super) fn purpose(token: &str) -> Purpose {
    match peek_purpose(token).as_deref() {
        Ok(PURPOSE_CLIENT) => Purpose::Client,
        Ok(PURPOSE_SERVER) => Purpose::Server,
        Ok(PURPOSE_PROVISIONING) => Purpose::Provisioning,
        Ok(_) => Purpose::Other,
        Err(_) => Purpose::Unreadable,
    }
}

/// Verifies a provisioning token and returns the unix second at which its connection must end: the earlier of `exp`
/// and `issexp` (spec 01 §13.1). A token without `exp` would make a shared secret good for ever and is refused.
pub(super) fn verify(token: &str, signer: &VerificationKey, now: i64) -> Result<i64, (Reason, String)> {
    let claims = verify_provisioning(token, signer, now).map_err(|error| {
        let reason = match error {
            TokenError::Missing | TokenError::TooLarge { .. } | TokenError::Malformed(_) => Reason::MalformedToken,
            TokenError::Algorithm { .. } => Reason::AlgorithmNotAllowed,
            TokenError::KeyType { .. } => Reason::KeyTypeMismatch,
            TokenError::Signature { .. } => Reason::TokenSignatureWrong,
            TokenError::Expired { .. } | TokenError::ChainExpired { .. } => Reason::TokenExpired,
            TokenError::NotYetValid { .. } => Reason::TokenNotYetValid,
            TokenError::Purpose { .. } => Reason::WrongPurpose,
            TokenError::ChainIssuer | TokenError::ChainSigned => Reason::ChainNotSupported,
        };
        (reason, format!("provisioning token refused: {error}"))
    })?;
    ends_at(claims.exp, claims.issexp).ok_or_else(|| {
        (
            Reason::TokenWithoutExpiry,
            "provisioning token without exp; issue one that ends, it is a secret that every new node shares".to_owned(),
        )
    })
}

fn ends_at(exp: Option<i64>, issexp: Option<i64>) -> Option<i64> {
    exp.map(|exp| issexp.map_or(exp, |issexp| issexp.min(exp)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_ends_with_the_earlier_of_token_and_issuer() {
        assert_eq!(ends_at(Some(10), None), Some(10));
        assert_eq!(ends_at(Some(10), Some(7)), Some(7));
        assert_eq!(ends_at(Some(10), Some(12)), Some(10));
        assert_eq!(ends_at(None, Some(12)), None);
        assert_eq!(ends_at(None, None), None);
    }
}
