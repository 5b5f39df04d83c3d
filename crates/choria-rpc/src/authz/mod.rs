//! Authorization: may this caller do this here (spec 03 §8.2 - §8.4).

mod action_policy;

use choria_filter::NodeView;

use crate::agent::Call;

pub use action_policy::{ActionPolicy, ActionPolicySettings, GroupsFile, PolicyFile, Warning};

/// What a caller who was refused gets to read.
pub const DENIED: &str = "You are not authorized to call this agent or action";

/// One verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Refuse, for this reason. The reason is for the log of the node only.
    Deny(String),
}

/// Decides who may call what.
pub trait Authorizer: Send + Sync {
    /// Judges one call. `node` is the node it came to.
    fn authorize(&self, call: &Call, node: &NodeView<'_>) -> Decision;
}

/// What `rpcauthprovider` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Files of rules, see [`ActionPolicy`].
    ActionPolicy,
}

/// Why an authorization provider cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Known to the original, not here yet.
    #[error("rpcauthprovider {0} is not supported by this version: use action_policy.")]
    NotYet(String),
    /// Nobody knows it. The original starts and denies every request.
    #[error("unsupported authorization provider {0:?}: use action_policy")]
    Unknown(String),
}

impl Provider {
    /// Reads a value of `rpcauthprovider`; letter case does not matter.
    ///
    /// # Errors
    /// [`ProviderError`]: a reason not to start.
    pub fn parse(name: &str) -> Result<Self, ProviderError> {
        match name.to_ascii_lowercase().as_str() {
            "action_policy" => Ok(Self::ActionPolicy),
            known @ ("rego_policy" | "aaasvc" | "aaasvc_policy") => Err(ProviderError::NotYet(known.to_owned())),
            _ => Err(ProviderError::Unknown(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_that_do_not_exist_yet_are_a_reason_not_to_start() {
        assert_eq!(Provider::parse("Action_policy"), Ok(Provider::ActionPolicy));
        for name in ["rego_policy", "Rego_policy", "aaasvc", "aaasvc_policy"] {
            let error = Provider::parse(name).unwrap_err();
            assert!(matches!(error, ProviderError::NotYet(_)), "{name}");
            assert!(error.to_string().contains(&name.to_ascii_lowercase()), "{error}");
        }
        assert!(matches!(Provider::parse("nosuch"), Err(ProviderError::Unknown(_))));
    }
}
