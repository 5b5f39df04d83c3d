//! Making provisioning tokens (spec 01 §13.2, §15).

use std::time::Duration;

use aws_lc_rs::rand;
use serde_json::{Map, Value};
use svix_ksuid::{Ksuid, KsuidLike};

use crate::claims::{ProvisioningClaims, ProvisioningUseError};
use crate::{DEFAULT_ISSUER, DEFAULT_ORGANIZATION, PURPOSE_PROVISIONING, Secret, SigningKey, jwt};

/// Validity of a provisioning token when none is asked for: one year.
pub const DEFAULT_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a new provisioning token should say.
#[derive(Debug, Clone)]
pub struct ProvisioningRequest {
    /// `cht`: token guarding the provisioning agent.
    pub token: Secret,
    /// `chs`: keep protocol security on while provisioning.
    pub secure: bool,
    /// `chu`: comma separated broker URLs; exactly one of this and `srv_domain`.
    pub urls: String,
    /// `chsrv`: SRV domain.
    pub srv_domain: String,
    /// `chpd`: provision by default.
    pub provision_default: bool,
    /// `chrd`: registration data file.
    pub registration: String,
    /// `chf`: facts file.
    pub facts: String,
    /// `chusr`: broker user.
    pub username: String,
    /// `chpwd`: broker password.
    pub password: Secret,
    /// `extensions`.
    pub extensions: Option<Map<String, Value>>,
    /// `ou`.
    pub organization: String,
    /// `v2`: use protocol v2.
    pub protocol_v2: bool,
    /// `update`: allow upgrades.
    pub update: bool,
    /// How long the token is valid; none writes no `exp`, as tokens of 2019 had it.
    pub validity: Option<Duration>,
    /// `iss`.
    pub issuer: String,
}

impl ProvisioningRequest {
    /// A request with the original's defaults: secure, no target yet, valid for one year.
    pub fn new(token: impl Into<Secret>) -> Self {
        Self {
            token: token.into(),
            secure: true,
            urls: String::new(),
            srv_domain: String::new(),
            provision_default: false,
            registration: String::new(),
            facts: String::new(),
            username: String::new(),
            password: Secret::default(),
            extensions: None,
            organization: DEFAULT_ORGANIZATION.to_owned(),
            protocol_v2: false,
            update: false,
            validity: Some(DEFAULT_VALIDITY),
            issuer: DEFAULT_ISSUER.to_owned(),
        }
    }
}

/// Why a token was not made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A node could not use such a token.
    #[error(transparent)]
    Unusable(#[from] ProvisioningUseError),
    /// The time of issue is before the first possible token id, or the validity overflows.
    #[error("cannot issue a token at unix time {now} that is valid for {validity:?}")]
    Time {
        /// Time of issue.
        now: i64,
        /// Asked validity.
        validity: Option<Duration>,
    },
    /// The random source failed.
    #[error("the system random source failed")]
    Random,
    /// Signing failed.
    #[error("could not sign the token: {0}")]
    Sign(String),
}

/// Makes and signs a provisioning token; RSA keys sign RS256, Ed25519 keys EdDSA. `now` is in Unix seconds.
///
/// # Errors
/// When the request breaks the rules of [`ProvisioningClaims::check_node_use`], or signing fails.
pub fn issue_provisioning(request: &ProvisioningRequest, key: &SigningKey, now: i64) -> Result<String, IssueError> {
    let mut payload = [0; 16];
    rand::fill(&mut payload).map_err(|_| IssueError::Random)?;
    issue_provisioning_with(request, key, now, payload)
}

/// [`issue_provisioning`] with the random half of the token id handed in.
///
/// # Errors
/// As [`issue_provisioning`].
pub fn issue_provisioning_with(
    request: &ProvisioningRequest,
    key: &SigningKey,
    now: i64,
    id_payload: [u8; 16],
) -> Result<String, IssueError> {
    let time = || IssueError::Time { now, validity: request.validity };
    let exp = match request.validity {
        Some(validity) => {
            Some(i64::try_from(validity.as_secs()).ok().and_then(|seconds| now.checked_add(seconds)).ok_or_else(time)?)
        }
        None => None,
    };
    let claims = ProvisioningClaims {
        cht: request.token.clone(),
        chs: request.secure,
        chu: request.urls.clone(),
        chsrv: request.srv_domain.clone(),
        chpd: request.provision_default,
        chrd: request.registration.clone(),
        chf: request.facts.clone(),
        chusr: request.username.clone(),
        chpwd: request.password.clone(),
        extensions: request.extensions.clone(),
        ou: request.organization.clone(),
        v2: request.protocol_v2,
        update: request.update,
        purpose: PURPOSE_PROVISIONING.to_owned(),
        iss: request.issuer.clone(),
        sub: PURPOSE_PROVISIONING.to_owned(),
        exp,
        nbf: Some(now),
        iat: Some(now),
        jti: token_id(now, &id_payload).ok_or_else(time)?,
        ..ProvisioningClaims::default()
    };
    claims.check_node_use()?;
    jwt::encode(&claims, key).map_err(IssueError::Sign)
}

/// The KSUID of a token issued at `now` (spec 01 §3): 4 bytes of time since 1400000000 and 16 random bytes.
fn token_id(now: i64, payload: &[u8; 16]) -> Option<String> {
    let raw = u32::try_from(now.checked_sub(1_400_000_000)?).ok()?;
    Some(Ksuid::new_raw(raw, Some(payload)).to_base62())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_ids_match_the_known_vectors() {
        let mut payload = [0; 16];
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte = u8::try_from(index).unwrap();
        }
        assert_eq!(token_id(1_750_000_000, &payload).unwrap(), "2yY8AATu7KbCbVb9ooR0UM9Dpt9");
        for byte in &mut payload {
            *byte += 16;
        }
        assert_eq!(token_id(1_750_000_100, &payload).unwrap(), "2yY8Mk6iuEgtG2howtKUcBHVWMJ");
        assert_eq!(token_id(1_399_999_999, &payload), None);
        assert_eq!(token_id(i64::MIN, &payload), None);
    }

    #[test]
    fn unusable_requests_are_refused() {
        let key = SigningKey::from_seed(crate::Seed::from_bytes([1; 32]));
        let issue = |request: &ProvisioningRequest| issue_provisioning(request, &key, 1_795_219_200);
        assert!(matches!(
            issue(&ProvisioningRequest::new("t")),
            Err(IssueError::Unusable(ProvisioningUseError::NoTarget))
        ));
        let both =
            ProvisioningRequest { urls: "nats://a:1".into(), srv_domain: "a".into(), ..ProvisioningRequest::new("t") };
        assert!(matches!(issue(&both), Err(IssueError::Unusable(ProvisioningUseError::BothTargets))));
        let none = ProvisioningRequest { urls: "nats://a:1".into(), ..ProvisioningRequest::new("") };
        assert!(matches!(issue(&none), Err(IssueError::Unusable(ProvisioningUseError::NoAuthToken))));
        let forever = ProvisioningRequest {
            urls: "nats://a:1".into(),
            validity: Some(Duration::MAX),
            ..ProvisioningRequest::new("t")
        };
        assert!(matches!(issue(&forever), Err(IssueError::Time { .. })));
    }
}
