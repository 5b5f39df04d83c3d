//! The system user: account `system` for monitoring tools (spec 02 §5.2 step 3).

use super::{Account, ConnectFacts, Origin, PolicyGrant, PolicyRefusal, Reason, Secret, Tls, token};
use nats_broker::Permissions;

/// The configured login of account `system`.
#[derive(Debug, Clone)]
pub struct SystemUser {
    /// `plugin.choria.network.system.user`.
    pub user: String,
    /// `plugin.choria.network.system.password`; absent: the user is known and always refused.
    pub password: Option<Secret>,
}

impl SystemUser {
    /// Whether a peer that calls itself `user` means this login.
    pub(super) fn is(&self, user: Option<&str>) -> bool {
        user == Some(self.user.as_str())
    }
}

pub(super) fn decide(system: &SystemUser, facts: &ConnectFacts<'_>) -> Result<PolicyGrant, PolicyRefusal> {
    let trusted = facts.origin == Origin::InProcess || facts.tls == Tls::Verified;
    if !trusted {
        return Err(untrusted(facts));
    }
    let accepted = match (&system.password, facts.password) {
        (Some(secret), Some(password)) => secret.matches(password),
        _ => false,
    };
    if !accepted {
        return Err(facts.refuse(Reason::WrongPassword, format!("wrong password for system user {:?}", system.user)));
    }
    Ok(PolicyGrant::new(Account::System, Some(system.user.clone()), Permissions::unlimited()))
}

/// Without a certificate only a client token with the right permission would do, which needs a signer of client tokens.
fn untrusted(facts: &ConnectFacts<'_>) -> PolicyRefusal {
    if facts.tls == Tls::Clear {
        return facts.refuse(Reason::TlsRequired, "the system user may not log in over clear text".to_owned());
    }
    let Some(token) = facts.token else {
        return facts.refuse(
            Reason::TokenMissing,
            "the system user needs a certificate of our CA, or a client token".to_owned(),
        );
    };
    match token::purpose(token) {
        token::Purpose::Client => facts.refuse(
            Reason::NoClientSigner,
            "the system user offered a client token and no signer of client tokens is configured".to_owned(),
        ),
        token::Purpose::Unreadable => {
            facts.refuse(Reason::MalformedToken, "the system user's token cannot be read".to_owned())
        }
        other => facts.refuse(
            Reason::WrongPurpose,
            format!("the system user's token is {}, not a client token", other.article()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, inputs};
    use super::super::{PolicyInputs, decide};
    use super::*;

    #[test]
    fn table() {
        let inputs = inputs();
        let base = ConnectFacts { user: Some("system"), password: Some("system-secret"), ..facts() };
        let verified = ConnectFacts { tls: Tls::Verified, ..base.clone() };
        let in_process = ConnectFacts { tls: Tls::Clear, origin: Origin::InProcess, remote: None, ..base.clone() };
        for accepted in [verified.clone(), in_process] {
            let grant = decide(&inputs, &accepted, 0).unwrap();
            assert_eq!((grant.account, grant.user.as_deref()), (Account::System, Some("system")));
            assert_eq!(grant.permissions, Permissions::unlimited());
        }
        let refused = [
            (ConnectFacts { password: Some("wrong"), ..verified.clone() }, Reason::WrongPassword),
            (ConnectFacts { password: Some(""), ..verified.clone() }, Reason::WrongPassword),
            (ConnectFacts { password: None, ..verified.clone() }, Reason::WrongPassword),
            (base.clone(), Reason::TokenMissing),
            (ConnectFacts { token: Some("xxx"), ..base.clone() }, Reason::MalformedToken),
            (ConnectFacts { tls: Tls::Clear, ..base }, Reason::TlsRequired),
        ];
        for (facts, reason) in refused {
            assert_eq!(decide(&inputs, &facts, 0).unwrap_err().reason, reason, "{facts:?}");
        }

        let no_password = PolicyInputs { system: Some(SystemUser { user: "system".into(), password: None }), ..inputs };
        assert_eq!(decide(&no_password, &verified, 0).unwrap_err().reason, Reason::WrongPassword);
    }
}
