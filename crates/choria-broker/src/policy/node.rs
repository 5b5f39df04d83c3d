//! Unprovisioned nodes: a provisioning token over TLS that the node does not verify (spec 02 §5.2 U, §6.1).
//!
//! The account is **closed** (DESIGN §6). The token is a bearer secret shared by a whole fleet, so it proves only
//! "one of ours, not yet enrolled". What a connection may do is bound to the one name that it gives in CONNECT: it
//! hears requests for that name only, announces that name only, and no other live connection may hold the name: neither a
//! second node nor a fleet member, whose certificate it could otherwise have made for itself.

use std::sync::Arc;

use choria_protocol::identity;
use choria_tokens::VerificationKey;
use nats_broker::Permissions;

use super::{
    Account, ConnectFacts, PolicyGrant, PolicyInputs, PolicyRefusal, ProvisioningInputs, Reason, claim_key,
    permissions, token,
};

/// What monitoring shows as user of a connection that authenticated with a shared token (golden `decision-table.jsonl`).
const TOKEN_USER: &str = "[REDACTED]";

pub(super) fn decide(
    inputs: &PolicyInputs,
    facts: &ConnectFacts<'_>,
    token: &str,
    now: i64,
) -> Result<PolicyGrant, PolicyRefusal> {
    let provisioning = inputs.provisioning.as_ref().ok_or_else(|| {
        facts.refuse(
            Reason::ProvisioningDisabled,
            "a provisioning token and plugin.choria.network.provisioning.client_password is not set".to_owned(),
        )
    })?;
    let signer = signer(provisioning, facts)?;
    let expires_at = token::verify(token, signer, now).map_err(|(reason, detail)| facts.refuse(reason, detail))?;

    let user = facts.user.unwrap_or(TOKEN_USER).to_owned();
    let name = match bound_name(facts) {
        Ok(name) => Some(name),
        Err(_) if provisioning.allow_unbound_nodes => None,
        Err(refusal) => return Err(refusal),
    };
    Ok(PolicyGrant {
        expires_at: Some(expires_at),
        claim: name.map(claim_key),
        tag: name.map(str::to_owned),
        ..PolicyGrant::new(Account::Provisioning, Some(user), limits(name))
    })
}

/// What a node may do that is bound to this name, or to none.
pub(super) fn limits(name: Option<&str>) -> Permissions {
    name.map_or_else(permissions::unbound_node, permissions::bound_node)
}

fn signer<'a>(
    provisioning: &'a ProvisioningInputs,
    facts: &ConnectFacts<'_>,
) -> Result<&'a Arc<VerificationKey>, PolicyRefusal> {
    provisioning.signer.as_ref().ok_or_else(|| {
        facts.refuse(
            Reason::ProvisioningDisabled,
            "a provisioning token and plugin.choria.network.provisioning.signer_cert is not set".to_owned(),
        )
    })
}

/// The CONNECT name when it can be an identity and is a valid part of a subject.
fn bound_name<'a>(facts: &ConnectFacts<'a>) -> Result<&'a str, PolicyRefusal> {
    let Some(name) = facts.name.filter(|name| !name.is_empty()) else {
        return Err(facts.refuse(
            Reason::NodeNameMissing,
            "an unprovisioned node must give its identity as connection name; \
             plugin.choria.network.provisioning.allow_unbound_nodes admits nodes that do not"
                .to_owned(),
        ));
    };
    if !identity::is_valid(name) {
        let shown: String = name.chars().take(64).collect();
        return Err(facts.refuse(
            Reason::NodeNameInvalid,
            format!(
                "connection name {shown:?} cannot be an identity: letters, digits, '.', '_' and '-', no empty part, \
                 at most {} bytes",
                identity::MAX_LENGTH
            ),
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use choria_tokens::{ProvisioningRequest, Seed, SigningKey, issue_provisioning};

    use super::super::testing::{facts, inputs};
    use super::*;

    const NOW: i64 = 1_795_170_700;

    /// Inputs whose signer signed the returned token, which is valid for a minute.
    fn signed(allow_unbound_nodes: bool) -> (PolicyInputs, String) {
        let key = SigningKey::from_seed(Seed::from_bytes([7; 32]));
        let request = ProvisioningRequest {
            urls: "nats://b.example.net:4222".into(),
            validity: Some(Duration::from_secs(60)),
            ..ProvisioningRequest::new("s3cret")
        };
        let token = issue_provisioning(&request, &key, NOW).unwrap();
        let mut inputs = inputs();
        let provisioning = inputs.provisioning.as_mut().unwrap();
        provisioning.signer = Some(Arc::new(key.verification_key()));
        provisioning.allow_unbound_nodes = allow_unbound_nodes;
        (inputs, token)
    }

    #[test]
    fn design6_a_node_is_bound_to_the_name_it_connects_with() {
        for allow_unbound_nodes in [false, true] {
            let (inputs, token) = signed(allow_unbound_nodes);
            let facts = ConnectFacts { name: Some("N1.example.net"), ..facts() };
            let grant = decide(&inputs, &facts, &token, NOW).unwrap();
            assert_eq!(grant.account, Account::Provisioning);
            assert_eq!(grant.user.as_deref(), Some("[REDACTED]"));
            assert_eq!(grant.permissions, permissions::bound_node("N1.example.net"));
            assert_eq!(grant.claim.as_deref(), Some("n1.example.net"));
            assert_eq!(grant.tag.as_deref(), Some("N1.example.net"));
            assert_eq!(grant.expires_at, Some(NOW + 60));
        }
    }

    #[test]
    fn nodes_without_a_usable_name_need_the_compatibility_setting() {
        for name in [None, Some("not a name"), Some("a.>")] {
            let facts = ConnectFacts { name, ..facts() };
            let (inputs, token) = signed(false);
            assert!(decide(&inputs, &facts, &token, NOW).is_err(), "{name:?}");
            let (inputs, token) = signed(true);
            let grant = decide(&inputs, &facts, &token, NOW).unwrap();
            assert_eq!(grant.permissions, permissions::unbound_node(), "{name:?}");
            assert_eq!((grant.claim, grant.tag, grant.expires_at), (None, None, Some(NOW + 60)));
        }
    }

    #[test]
    fn a_bad_token_is_told_apart_and_never_shown() {
        let (inputs, token) = signed(true);
        let tampered = format!("{}x", &token[..token.len() - 1]);
        for (token, now, reason) in [
            (&token, NOW + 60, Reason::TokenExpired),
            (&token, NOW - 60, Reason::TokenNotYetValid),
            (&tampered, NOW, Reason::TokenSignatureWrong),
            (&"xxx".to_owned(), NOW, Reason::MalformedToken),
        ] {
            let refusal = decide(&inputs, &facts(), token, now).unwrap_err();
            assert_eq!(refusal.reason, reason, "{refusal}");
            assert!(!refusal.detail.contains(&token[token.len() - 3..]) && !refusal.detail.contains("s3cret"));
        }
    }

    fn named(name: Option<&'static str>) -> ConnectFacts<'static> {
        ConnectFacts { name, ..facts() }
    }

    #[test]
    fn only_names_that_can_be_identities_are_bound() {
        assert_eq!(bound_name(&named(Some("n1.example.net"))).unwrap(), "n1.example.net");
        for missing in [None, Some("")] {
            assert_eq!(bound_name(&named(missing)).unwrap_err().reason, Reason::NodeNameMissing);
        }
        for bad in [".", "a.", "a..b", "*", ">", "a.>", "a b", "a\r\nSUB > 1", "choria demo"] {
            assert_eq!(bound_name(&named(Some(bad))).unwrap_err().reason, Reason::NodeNameInvalid, "{bad:?}");
        }
    }

    #[test]
    fn names_that_differ_in_case_are_one_claim() {
        assert_eq!(claim_key("N1.Example.NET"), claim_key("n1.example.net"));
    }

    #[test]
    fn without_account_or_signer_no_node_gets_in() {
        let no_account = PolicyInputs { provisioning: None, ..inputs() };
        for inputs in [no_account, inputs()] {
            let refusal = decide(&inputs, &facts(), "a.b.c", 0).unwrap_err();
            assert_eq!(refusal.reason, Reason::ProvisioningDisabled);
        }
    }
}
