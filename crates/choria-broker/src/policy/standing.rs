//! What a connection's rights rest on, and what has become of them when the configuration was replaced.
//!
//! A [`Standing`] is noted when a connection is accepted and holds no secret: names of authorities and keys, marks of
//! passwords that mean something in this process only. [`reconsider`] judges it by a newer configuration, as pure as
//! [`decide`](super::decide).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use nats_broker::Permissions;

use super::{ConnectFacts, Origin, PolicyInputs, PolicyRefusal, Reason, Secret, Tls, fleet, node, provisioner};

/// How a connection got its rights. Its text form is one line of words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A fleet member with a certificate of an authority; its address tells servers from clients.
    Certificate {
        /// Name of the authority.
        authority: String,
        /// Address of the peer.
        address: Option<IpAddr>,
    },
    /// A connection inside this process.
    InProcess,
    /// A fleet member without any proof, in insecure mode.
    ClearText {
        /// Address of the peer.
        address: Option<IpAddr>,
    },
    /// The system user.
    System {
        /// Mark of its password.
        password: u64,
        /// Authority of its certificate; none inside this process.
        authority: Option<String>,
    },
    /// The provisioner.
    Provisioner {
        /// Mark of its password.
        password: u64,
        /// Authority of its certificate.
        authority: String,
    },
    /// An unprovisioned node.
    Token {
        /// Name of the key that signed its token.
        signer: String,
    },
}

/// Stands for "none" in the text form.
const NONE: &str = "-";

impl Standing {
    /// What the rights rest on that [`decide`](super::decide) gave for `facts`; `authority` is the one behind the peer's
    /// certificate. `None` where it gives none.
    pub fn of(inputs: &PolicyInputs, facts: &ConnectFacts<'_>, authority: Option<&str>) -> Option<Self> {
        let authority = authority.map(str::to_owned);
        let address = facts.remote.map(|remote| remote.ip());
        if facts.user == Some(provisioner::USER) {
            let password = inputs.provisioning.as_ref()?.client_password.mark();
            return Some(Self::Provisioner { password, authority: authority? });
        }
        if let Some(system) = inputs.system.as_ref().filter(|system| system.is(facts.user)) {
            return Some(Self::System { password: system.password.as_ref()?.mark(), authority });
        }
        match (facts.origin, facts.token, facts.tls) {
            (Origin::InProcess, ..) => Some(Self::InProcess),
            (_, None, Tls::Verified) => Some(Self::Certificate { authority: authority?, address }),
            (_, None, Tls::Clear) => Some(Self::ClearText { address }),
            (_, Some(_), Tls::Unverified) => {
                Some(Self::Token { signer: inputs.provisioning.as_ref()?.signer.as_ref()?.id() })
            }
            _ => None,
        }
    }

    fn authority(&self) -> Option<&str> {
        match self {
            Self::Certificate { authority, .. } | Self::Provisioner { authority, .. } => Some(authority),
            Self::System { authority, .. } => authority.as_deref(),
            Self::InProcess | Self::ClearText { .. } | Self::Token { .. } => None,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |address: &Option<IpAddr>| address.map_or_else(|| NONE.to_owned(), |address| address.to_string());
        match self {
            Self::Certificate { authority, address } => write!(f, "certificate {authority} {}", shown(address)),
            Self::InProcess => f.write_str("process"),
            Self::ClearText { address } => write!(f, "clear {}", shown(address)),
            Self::System { password, authority } => {
                write!(f, "system {password:x} {}", authority.as_deref().unwrap_or(NONE))
            }
            Self::Provisioner { password, authority } => write!(f, "provisioner {password:x} {authority}"),
            Self::Token { signer } => write!(f, "token {signer}"),
        }
    }
}

/// Not the text form of a [`Standing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoStanding;

impl FromStr for Standing {
    type Err = NoStanding;

    fn from_str(text: &str) -> Result<Self, NoStanding> {
        let words: Vec<&str> = text.split(' ').collect();
        let given = |word: &str| (word != NONE).then(|| word.to_owned());
        let mark = |word: &str| u64::from_str_radix(word, 16).map_err(|_| NoStanding);
        let address = |word: &str| match word {
            NONE => Ok(None),
            word => word.parse().map(Some).map_err(|_| NoStanding),
        };
        Ok(match words[..] {
            ["certificate", authority, remote] => {
                Self::Certificate { authority: authority.to_owned(), address: address(remote)? }
            }
            ["process"] => Self::InProcess,
            ["clear", remote] => Self::ClearText { address: address(remote)? },
            ["system", password, authority] => Self::System { password: mark(password)?, authority: given(authority) },
            ["provisioner", password, authority] => {
                Self::Provisioner { password: mark(password)?, authority: authority.to_owned() }
            }
            ["token", signer] => Self::Token { signer: signer.to_owned() },
            _ => return Err(NoStanding),
        })
    }
}

/// What is known of an accepted connection beside its [`Standing`].
#[derive(Debug, Clone, Copy)]
pub struct Present<'a> {
    /// Its user.
    pub user: Option<&'a str>,
    /// The name that an unprovisioned node is bound to.
    pub node: Option<&'a str>,
    /// The name it goes by in a refusal.
    pub claimed: Option<&'a str>,
}

/// What an accepted connection may do from now on, by the present configuration; `authorities` are those that are
/// trusted with the certificates of clients.
///
/// # Errors
/// Why it may not be here any more.
pub fn reconsider(
    inputs: &PolicyInputs,
    authorities: &[String],
    standing: &Standing,
    present: Present<'_>,
) -> Result<Permissions, PolicyRefusal> {
    let refuse = |reason, detail: &str| {
        let detail = format!("{detail}, since the configuration was reloaded");
        Err(PolicyRefusal { reason, detail, claimed: present.claimed.map(str::to_owned) })
    };
    if let Some(authority) = standing.authority()
        && !authorities.iter().any(|trusted| trusted == authority)
    {
        return refuse(Reason::CaNotTrusted, "the CA of its certificate is not trusted any more");
    }
    let same = |secret: Option<&Secret>, mark: u64| secret.is_some_and(|secret| secret.mark() == mark);
    match standing {
        Standing::Certificate { address, .. } | Standing::ClearText { address } => {
            if matches!(standing, Standing::ClearText { .. }) && !inputs.insecure_clear_text {
                return refuse(Reason::TlsRequired, "clear text is not accepted any more");
            }
            if inputs.system.as_ref().is_some_and(|system| system.is(present.user)) {
                return refuse(Reason::UserChanged, "its user name is that of the system user");
            }
            Ok(fleet::limits(inputs, Origin::Client, address.map(|address| SocketAddr::new(address, 0))))
        }
        Standing::InProcess => Ok(fleet::limits(inputs, Origin::InProcess, None)),
        Standing::System { password, .. } => {
            let Some(system) = inputs.system.as_ref().filter(|system| system.is(present.user)) else {
                return refuse(Reason::UserChanged, "its user is not the system user any more");
            };
            if !same(system.password.as_ref(), *password) {
                return refuse(Reason::PasswordChanged, "the password of the system user is another");
            }
            Ok(Permissions::unlimited())
        }
        Standing::Provisioner { password, .. } => {
            let Some(provisioning) = &inputs.provisioning else {
                return refuse(Reason::ProvisioningDisabled, "there is no provisioning account any more");
            };
            if !same(Some(&provisioning.client_password), *password) {
                return refuse(Reason::PasswordChanged, "the password of user \"provisioner\" is another");
            }
            Ok(Permissions::unlimited())
        }
        Standing::Token { signer } => {
            let Some(provisioning) = &inputs.provisioning else {
                return refuse(Reason::ProvisioningDisabled, "there is no provisioning account any more");
            };
            if provisioning.signer.as_ref().is_none_or(|present| present.id() != *signer) {
                return refuse(Reason::SignerChanged, "the signer of its token is not the signer of tokens any more");
            }
            if present.node.is_none() && !provisioning.allow_unbound_nodes {
                return refuse(Reason::NodeNameMissing, "it is bound to no name, which is not allowed any more");
            }
            Ok(node::limits(present.node))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use choria_tokens::{Seed, SigningKey, VerificationKey};

    use super::super::testing::{facts, inputs};
    use super::super::{ClientHosts, SystemUser, permissions};
    use super::*;

    const CA: &str = "00112233445566ff";

    /// What is different, who is trusted, and who is refused for it.
    type Change = (&'static str, PolicyInputs, &'static [&'static str], &'static [(&'static str, Reason)]);

    fn signer(byte: u8) -> Option<Arc<VerificationKey>> {
        Some(Arc::new(SigningKey::from_seed(Seed::from_bytes([byte; 32])).verification_key()))
    }

    fn with_signer(byte: u8) -> PolicyInputs {
        let mut inputs = inputs();
        inputs.provisioning.as_mut().unwrap().signer = signer(byte);
        inputs
    }

    /// One connection of each kind, as the policy would have accepted it.
    fn all() -> Vec<(&'static str, ConnectFacts<'static>)> {
        let verified = ConnectFacts { tls: Tls::Verified, ..facts() };
        let inside = ConnectFacts { origin: Origin::InProcess, tls: Tls::Clear, remote: None, ..facts() };
        vec![
            ("member", verified.clone()),
            ("process", inside.clone()),
            ("clear", ConnectFacts { tls: Tls::Clear, ..facts() }),
            ("system", ConnectFacts { user: Some("system"), ..verified.clone() }),
            ("inner system", ConnectFacts { user: Some("system"), ..inside }),
            ("provisioner", ConnectFacts { user: Some(provisioner::USER), ..verified }),
            ("node", ConnectFacts { token: Some("x"), ..facts() }),
        ]
    }

    fn standing(facts: &ConnectFacts<'_>) -> Standing {
        let authority = (facts.tls == Tls::Verified).then_some(CA);
        Standing::of(&with_signer(1), facts, authority).unwrap()
    }

    fn judge(inputs: &PolicyInputs, authorities: &[&str], facts: &ConnectFacts<'_>) -> Result<Permissions, Reason> {
        let standing: Standing = standing(facts).to_string().parse().unwrap();
        let node = facts.token.and(facts.name);
        let authorities: Vec<_> = authorities.iter().map(|&id| id.to_owned()).collect();
        let present = Present { user: facts.user, node, claimed: node };
        reconsider(inputs, &authorities, &standing, present).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn texts_are_read_back_and_show_no_secret() {
        for (kind, facts) in all() {
            let standing = standing(&facts);
            let text = standing.to_string();
            assert_eq!(text.parse(), Ok(standing), "{kind}");
            assert!(text.len() < 70 && !text.contains("secret"), "{text}");
        }
        let odd = "certificate certificate/x/y process/x clear system/1 system/x/- provisioner/1 token x";
        for text in odd.split(' ').chain([""]) {
            assert_eq!(text.replace('/', " ").parse::<Standing>(), Err(NoStanding), "{text}");
        }
        // Nobody is accepted like this.
        let both = ConnectFacts { tls: Tls::Verified, token: Some("x"), ..facts() };
        assert_eq!(Standing::of(&with_signer(1), &both, Some(CA)), None);
    }

    #[test]
    fn nothing_changes_when_nothing_changed() {
        for (kind, facts) in all() {
            let inputs = PolicyInputs { insecure_clear_text: kind == "clear", ..with_signer(1) };
            let expected = match kind {
                "node" => permissions::bound_node("n1.example.net"),
                _ => Permissions::unlimited(),
            };
            assert_eq!(judge(&inputs, &["other", CA], &facts), Ok(expected), "{kind}");
        }
    }

    #[test]
    fn design6_whose_ground_is_gone_is_refused() {
        let same = || PolicyInputs { insecure_clear_text: true, ..with_signer(1) };
        let system = |user: &str, password: &str| PolicyInputs {
            system: Some(SystemUser { user: user.into(), password: Secret::new(password) }),
            ..same()
        };
        let password = |text: &str| {
            let mut inputs = same();
            inputs.provisioning.as_mut().unwrap().client_password = Secret::new(text).unwrap();
            inputs
        };
        let without_signer = {
            let mut inputs = same();
            inputs.provisioning.as_mut().unwrap().signer = None;
            inputs
        };
        let changes: Vec<Change> = vec![
            (
                "another CA",
                same(),
                &["other"],
                &[
                    ("member", Reason::CaNotTrusted),
                    ("system", Reason::CaNotTrusted),
                    ("provisioner", Reason::CaNotTrusted),
                ],
            ),
            ("TLS", PolicyInputs { insecure_clear_text: false, ..same() }, &[CA], &[("clear", Reason::TlsRequired)]),
            (
                "another signer",
                PolicyInputs { insecure_clear_text: true, ..with_signer(2) },
                &[CA],
                &[("node", Reason::SignerChanged)],
            ),
            ("no signer", without_signer, &[CA], &[("node", Reason::SignerChanged)]),
            (
                "no provisioning",
                PolicyInputs { provisioning: None, ..same() },
                &[CA],
                &[("provisioner", Reason::ProvisioningDisabled), ("node", Reason::ProvisioningDisabled)],
            ),
            ("provisioner's password", password("another"), &[CA], &[("provisioner", Reason::PasswordChanged)]),
            (
                "system password",
                system("system", "another"),
                &[CA],
                &[("system", Reason::PasswordChanged), ("inner system", Reason::PasswordChanged)],
            ),
            (
                "system user",
                system("root", "system-secret"),
                &[CA],
                &[("system", Reason::UserChanged), ("inner system", Reason::UserChanged)],
            ),
            (
                "no system user",
                PolicyInputs { system: None, ..same() },
                &[CA],
                &[("system", Reason::UserChanged), ("inner system", Reason::UserChanged)],
            ),
        ];
        for (what, inputs, authorities, refused) in changes {
            for (kind, facts) in all() {
                let expected = refused.iter().find(|(refused, _)| *refused == kind).map(|(_, reason)| *reason);
                assert_eq!(judge(&inputs, authorities, &facts).err(), expected, "{what}: {kind}");
            }
        }
    }

    #[test]
    fn rights_follow_the_configuration() {
        let listed = PolicyInputs { client_hosts: ClientHosts::parse(&["192.0.2.1"]).unwrap(), ..with_signer(1) };
        let (_, member) = all().swap_remove(0);
        assert_eq!(judge(&listed, &[CA], &member), Ok(permissions::certificate_server()));
        let strict = PolicyInputs { deny_server_connections: true, ..listed };
        assert_eq!(judge(&strict, &[CA], &member), Ok(permissions::deny_all()));

        // Whoever used the name that is now the system user's.
        let named = ConnectFacts { user: Some("root"), ..member };
        let system = Some(SystemUser { user: "root".into(), password: Secret::new("x") });
        assert_eq!(judge(&PolicyInputs { system, ..with_signer(1) }, &[CA], &named), Err(Reason::UserChanged));

        let unbound = ConnectFacts { token: Some("x"), name: None, ..facts() };
        assert_eq!(judge(&with_signer(1), &[CA], &unbound), Err(Reason::NodeNameMissing));
        let mut open = with_signer(1);
        open.provisioning.as_mut().unwrap().allow_unbound_nodes = true;
        assert_eq!(judge(&open, &[CA], &unbound), Ok(permissions::unbound_node()));
    }
}
