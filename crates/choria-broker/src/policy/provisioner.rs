//! The provisioner: user `provisioner` with the password of the provisioning account (spec 02 §5.2 P).

use super::{Account, ConnectFacts, PolicyGrant, PolicyInputs, PolicyRefusal, Reason, Tls};
use nats_broker::Permissions;

/// The user name that asks for the provisioner's rights.
pub const USER: &str = "provisioner";

/// On an x509 network the provisioner proves a certificate of our CA and the password; a token it sends along is ignored.
pub(super) fn decide(inputs: &PolicyInputs, facts: &ConnectFacts<'_>) -> Result<PolicyGrant, PolicyRefusal> {
    let Some(provisioning) = &inputs.provisioning else {
        return Err(facts.refuse(
            Reason::ProvisioningDisabled,
            "user \"provisioner\" and plugin.choria.network.provisioning.client_password is not set".to_owned(),
        ));
    };
    let password = facts
        .password
        .filter(|p| !p.is_empty())
        .ok_or_else(|| facts.refuse(Reason::PasswordMissing, "user \"provisioner\" without a password".to_owned()))?;
    if !provisioning.client_password.matches(password) {
        return Err(facts.refuse(Reason::WrongPassword, "wrong password for user \"provisioner\"".to_owned()));
    }
    if facts.tls != Tls::Verified {
        return Err(facts.refuse(
            Reason::ProvisionerNeedsVerifiedTls,
            "user \"provisioner\" without a client certificate of our CA".to_owned(),
        ));
    }
    Ok(PolicyGrant::new(Account::Provisioning, Some(USER.to_owned()), Permissions::unlimited()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, inputs};
    use super::super::{Origin, decide};
    use super::*;

    #[test]
    fn table() {
        let inputs = inputs();
        let disabled = PolicyInputs { provisioning: None, ..inputs.clone() };
        let good =
            ConnectFacts { tls: Tls::Verified, user: Some(USER), password: Some("provisioner-secret"), ..facts() };
        let grant = decide(&inputs, &good, 0).unwrap();
        assert_eq!(grant.account, Account::Provisioning);
        assert_eq!(grant.permissions, Permissions::unlimited());
        assert_eq!((grant.claim, grant.tag), (None, None), "the provisioner is not a node");

        let with_token = ConnectFacts { token: Some("anything"), ..good.clone() };
        assert!(decide(&inputs, &with_token, 0).is_ok(), "its token is ignored");

        let refused = [
            (&disabled, good.clone(), Reason::ProvisioningDisabled),
            (&inputs, ConnectFacts { password: None, ..good.clone() }, Reason::PasswordMissing),
            (&inputs, ConnectFacts { password: Some(""), ..good.clone() }, Reason::PasswordMissing),
            (&inputs, ConnectFacts { password: Some("no"), ..good.clone() }, Reason::WrongPassword),
            (&inputs, ConnectFacts { tls: Tls::Unverified, ..good.clone() }, Reason::ProvisionerNeedsVerifiedTls),
            (
                &inputs,
                ConnectFacts { tls: Tls::Clear, origin: Origin::InProcess, ..good },
                Reason::ProvisionerNeedsVerifiedTls,
            ),
        ];
        for (inputs, facts, reason) in refused {
            let refusal = decide(inputs, &facts, 0).unwrap_err();
            assert_eq!(refusal.reason, reason, "{facts:?}");
            assert!(!refusal.detail.contains("secret"), "{}", refusal.detail);
        }
    }
}
