//! The connection decision as one pure function: configuration, facts of one CONNECT and the time in;
//! account, rights and expiry out (spec 02 §5-6, DESIGN §2 rule 4).
//!
//! It knows no socket, clock or file, so the same function can answer a nats-server's auth callout.
//! One module per kind of connection:
//!
//! | Module | Who |
//! |---|---|
//! | `fleet` | a verified certificate, an in-process connection, clear text in insecure mode |
//! | `system_user` | account `system` |
//! | [`provisioner`] | user `provisioner` |
//! | [`node`] | an unprovisioned node with its provisioning token |
//!
//! [`reconsider`] answers for connections that are there when the configuration is replaced.
//!
//! Client and server tokens (protocol v2) get modules of their own beside these; until then such a token is
//! refused with a reason that says so.

mod fleet;
mod hosts;
pub mod node;
pub mod permissions;
pub mod provisioner;
mod reason;
mod secret;
mod standing;
mod system_user;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;

use choria_tokens::VerificationKey;
use nats_broker::Permissions;

pub use hosts::{BadHost, ClientHosts};
pub use reason::Reason;
pub use secret::Secret;
pub use standing::{NoStanding, Present, Standing, reconsider};
pub use system_user::SystemUser;

/// What the configuration says about who may connect.
#[derive(Debug, Clone, Default)]
pub struct PolicyInputs {
    /// `--disable-tls`: peers in clear text are fleet members without any proof, and nothing that needs a secret works.
    pub insecure_clear_text: bool,
    /// The provisioning account; present when `plugin.choria.network.provisioning.client_password` is set.
    pub provisioning: Option<ProvisioningInputs>,
    /// The login of account `system`.
    pub system: Option<SystemUser>,
    /// `plugin.choria.network.client_hosts`.
    pub client_hosts: ClientHosts,
    /// `plugin.choria.network.deny_server_connections`.
    pub deny_server_connections: bool,
}

/// What the configuration says about the provisioning account.
#[derive(Debug, Clone)]
pub struct ProvisioningInputs {
    /// `plugin.choria.network.provisioning.client_password`.
    pub client_password: Secret,
    /// The key of `plugin.choria.network.provisioning.signer_cert`; without it no node gets in.
    pub signer: Option<Arc<VerificationKey>>,
    /// `plugin.choria.network.provisioning.allow_unbound_nodes`: nodes whose CONNECT name is missing or cannot be an
    /// identity get the wide rights of the original instead of a refusal.
    pub allow_unbound_nodes: bool,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client over the network.
    Client,
    /// This process itself.
    InProcess,
}

/// What TLS proved about the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// No TLS.
    Clear,
    /// TLS without a client certificate of our CA.
    Unverified,
    /// TLS with a client certificate of our CA.
    Verified,
}

/// What is known of one CONNECT. Borrowed from the request; `None` stands for absent **and** for empty fields
/// where the original makes no difference (token, user).
#[derive(Clone)]
pub struct ConnectFacts<'a> {
    /// Network or in-process.
    pub origin: Origin,
    /// The peer's address.
    pub remote: Option<SocketAddr>,
    /// What TLS proved.
    pub tls: Tls,
    /// Names of the verified certificate, common name and alternative names.
    pub verified_names: &'a [String],
    /// CONNECT `name`.
    pub name: Option<&'a str>,
    /// CONNECT `user`.
    pub user: Option<&'a str>,
    /// CONNECT `pass`.
    pub password: Option<&'a str>,
    /// CONNECT `auth_token`; the field `jwt` is ignored as the original does.
    pub token: Option<&'a str>,
}

impl std::fmt::Debug for ConnectFacts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectFacts")
            .field("origin", &self.origin)
            .field("remote", &self.remote)
            .field("tls", &self.tls)
            .field("verified_names", &self.verified_names)
            .field("name", &self.name)
            .field("user", &self.user)
            .field("password", &self.password.map(|_| "..."))
            .field("token", &self.token.map(|_| "..."))
            .finish()
    }
}

impl ConnectFacts<'_> {
    /// The name the peer goes by in messages: its CONNECT name, else its certificate's first name, else its user.
    pub fn claimed(&self) -> Option<&str> {
        self.name.or_else(|| self.verified_names.first().map(String::as_str)).or(self.user)
    }

    /// The CONNECT name when the certificate proves it, as that of a server does.
    fn proven_name(&self) -> Option<&str> {
        let name = self.name.filter(|_| self.tls == Tls::Verified)?;
        self.verified_names.iter().any(|proven| proven.eq_ignore_ascii_case(name)).then_some(name)
    }

    fn refuse(&self, reason: Reason, detail: String) -> PolicyRefusal {
        PolicyRefusal { reason, detail, claimed: self.claimed().map(str::to_owned) }
    }
}

/// Two names that differ only in case are one node: host names and certificate names are compared that way.
fn claim_key(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// The accounts of a Choria broker (spec 02 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Account {
    /// Monitoring tools.
    System,
    /// Every fleet server and client.
    Choria,
    /// Unprovisioned nodes and the provisioner.
    Provisioning,
}

impl Account {
    /// Every account that there can be.
    pub const ALL: [Self; 3] = [Self::System, Self::Choria, Self::Provisioning];

    /// The account's name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Choria => "choria",
            Self::Provisioning => "provisioning",
        }
    }
}

/// An accepted CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyGrant {
    /// Where the connection lands.
    pub account: Account,
    /// The user shown in monitoring; never a secret.
    pub user: Option<String>,
    /// Its subjects.
    pub permissions: Permissions,
    /// Unix second at which the connection ends: the earlier of the token's `exp` and `issexp`.
    pub expires_at: Option<i64>,
    /// A name that only one live connection may hold, and none while a fleet member of that name is there.
    pub claim: Option<String>,
    /// The name of the fleet member that this connection is.
    pub presence: Option<String>,
    /// The identity that this connection is bound to; guarded messages must carry it.
    pub tag: Option<String>,
}

impl PolicyGrant {
    fn new(account: Account, user: Option<String>, permissions: Permissions) -> Self {
        Self { account, user, permissions, expires_at: None, claim: None, presence: None, tag: None }
    }
}

/// A refused CONNECT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct PolicyRefusal {
    /// Countable reason.
    pub reason: Reason,
    /// One sentence for the log, without any secret.
    pub detail: String,
    /// Name that the peer claimed.
    pub claimed: Option<String>,
}

/// Decides about one CONNECT at unix second `now`.
///
/// # Errors
/// The refusal with its reason. The peer must only learn `Authorization Violation`.
pub fn decide(inputs: &PolicyInputs, facts: &ConnectFacts<'_>, now: i64) -> Result<PolicyGrant, PolicyRefusal> {
    let clear_text = facts.origin == Origin::Client && facts.tls == Tls::Clear;
    if clear_text && !inputs.insecure_clear_text {
        return Err(facts.refuse(Reason::TlsRequired, "clear text connection to a broker with TLS".to_owned()));
    }
    if facts.user == Some(provisioner::USER) {
        return provisioner::decide(inputs, facts);
    }
    if let Some(system) = inputs.system.as_ref().filter(|system| system.is(facts.user)) {
        return system_user::decide(system, facts);
    }
    if facts.origin == Origin::InProcess {
        return Ok(fleet::grant(inputs, facts));
    }
    match (facts.token, facts.tls) {
        (None, Tls::Verified) => Ok(fleet::grant(inputs, facts)),
        (None, Tls::Clear) => Ok(fleet::grant(inputs, facts)),
        (None, Tls::Unverified) => Err(no_credentials(inputs, facts)),
        (Some(_), Tls::Clear) => {
            Err(facts.refuse(Reason::TlsRequired, "a token is not accepted over clear text".to_owned()))
        }
        (Some(token), Tls::Verified | Tls::Unverified) => with_token(inputs, facts, token, now),
    }
}

fn no_credentials(inputs: &PolicyInputs, facts: &ConnectFacts<'_>) -> PolicyRefusal {
    let (reason, hint) = match inputs.provisioning {
        Some(_) => (Reason::NoCredentials, ""),
        None => (Reason::ProvisioningDisabled, ", and this broker has no provisioning account"),
    };
    facts.refuse(reason, format!("neither a client certificate of our CA nor a token{hint}"))
}

/// A verified certificate is no fallback for a token: whoever sends one is judged by it (spec 02 §5.2).
fn with_token(
    inputs: &PolicyInputs,
    facts: &ConnectFacts<'_>,
    token: &str,
    now: i64,
) -> Result<PolicyGrant, PolicyRefusal> {
    match token::purpose(token) {
        token::Purpose::Client => Err(facts.refuse(
            Reason::NoClientSigner,
            "a client token and no signer of client tokens is configured".to_owned(),
        )),
        token::Purpose::Server => Err(facts.refuse(
            Reason::NoServerSigner,
            "a server token and no signer of server tokens is configured".to_owned(),
        )),
        purpose if facts.tls == Tls::Verified => Err(facts.refuse(
            Reason::TokenOverVerifiedTls,
            format!(
                "{} next to a verified client certificate; a provisioned node must not keep sending its provisioning token",
                purpose.article()
            ),
        )),
        _ => node::decide(inputs, facts, token, now),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A broker configuration and a CONNECT to vary in tables.

    use super::*;

    pub(crate) fn inputs() -> PolicyInputs {
        PolicyInputs {
            insecure_clear_text: false,
            provisioning: Some(ProvisioningInputs {
                client_password: Secret::new("provisioner-secret").unwrap(),
                signer: None,
                allow_unbound_nodes: false,
            }),
            system: Some(SystemUser { user: "system".into(), password: Secret::new("system-secret") }),
            client_hosts: ClientHosts::default(),
            deny_server_connections: false,
        }
    }

    pub(crate) fn facts() -> ConnectFacts<'static> {
        ConnectFacts {
            origin: Origin::Client,
            remote: Some("127.0.0.1:40000".parse().unwrap()),
            tls: Tls::Unverified,
            verified_names: &[],
            name: Some("n1.example.net"),
            user: None,
            password: None,
            token: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{facts, inputs};
    use super::*;

    #[test]
    fn clear_text_needs_the_insecure_mode_and_gets_nothing_secret() {
        let insecure = PolicyInputs { insecure_clear_text: true, provisioning: None, ..inputs() };
        let clear = ConnectFacts { tls: Tls::Clear, ..facts() };
        assert_eq!(decide(&inputs(), &clear, 0).unwrap_err().reason, Reason::TlsRequired);
        assert_eq!(decide(&insecure, &clear, 0).unwrap().account, Account::Choria);

        let refused = [
            (ConnectFacts { token: Some("xxx"), ..clear.clone() }, Reason::TlsRequired),
            (
                ConnectFacts { user: Some("system"), password: Some("system-secret"), ..clear.clone() },
                Reason::TlsRequired,
            ),
            (
                ConnectFacts { user: Some("provisioner"), password: Some("provisioner-secret"), ..clear },
                Reason::ProvisioningDisabled,
            ),
        ];
        for (facts, reason) in refused {
            assert_eq!(decide(&insecure, &facts, 0).unwrap_err().reason, reason, "{facts:?}");
        }
    }

    #[test]
    fn a_refusal_names_who_was_refused() {
        let certificate = vec!["n2.example.net".to_owned()];
        let cases = [
            (facts(), Some("n1.example.net")),
            (ConnectFacts { name: None, verified_names: &certificate, ..facts() }, Some("n2.example.net")),
            (ConnectFacts { name: None, user: Some("u"), ..facts() }, Some("u")),
            (ConnectFacts { name: None, ..facts() }, None),
        ];
        for (facts, expected) in cases {
            assert_eq!(facts.claimed(), expected);
        }
        assert_eq!(decide(&inputs(), &facts(), 0).unwrap_err().claimed.as_deref(), Some("n1.example.net"));
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let facts = ConnectFacts { password: Some("hunter2"), token: Some("ey.hunter3"), ..facts() };
        assert!(!format!("{facts:?} {:?}", inputs()).contains("hunter"));
    }

    #[test]
    fn reasons_are_distinct() {
        let mut texts: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Reason::ALL.len());
    }

    mod properties {
        use proptest::option::of;
        use proptest::prelude::*;

        use super::*;

        proptest! {
            /// Whatever a stranger writes into CONNECT, it never panics and never opens an account.
            #[test]
            fn strangers_get_nowhere(
                name in of(".*"),
                user in of("provisioner|system|.*"),
                password in of(".*"),
                token in of(".+|[A-Za-z0-9_-]{1,40}\\.[A-Za-z0-9_-]{1,40}\\.[A-Za-z0-9_-]{0,40}"),
                now in any::<i64>(),
            ) {
                let key = choria_tokens::SigningKey::from_seed(choria_tokens::Seed::from_bytes([3; 32]));
                let mut inputs = inputs();
                inputs.provisioning.as_mut().unwrap().signer = Some(Arc::new(key.verification_key()));
                let facts = ConnectFacts {
                    name: name.as_deref(),
                    user: user.as_deref(),
                    password: password.as_deref(),
                    token: token.as_deref(),
                    ..facts()
                };
                prop_assert!(decide(&inputs, &facts, now).is_err());
            }
        }
    }
}
