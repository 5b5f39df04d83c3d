//! Who may connect: users, tokens, keys, certificates and operator tokens of a configuration (spec 07 §7).
//!
//! [`Users`] answers the broker. Each listener belongs to one [`Realm`]: a set of credentials that count there.
//! A grant's proof names the entry that it came from and a digest of its secret, so that a reload can tell who has still
//! the right to be here without asking for passwords again.

mod certificate;
pub(crate) mod nkey;
mod realm;
mod secret;

use std::sync::Arc;

use async_trait::async_trait;
use nats_broker::{Authenticator, ConnectRequest, Grant, Refusal};

pub(crate) use realm::{Kinds, Realm, User};
pub(crate) use secret::{Secret, hex};

/// The authenticator of a broker that was made from settings.
#[derive(Debug)]
pub(crate) struct Users {
    /// Realms; the first one belongs to clients over TCP.
    realms: Vec<Realm>,
    /// Realm of each listener, by position.
    listeners: Vec<ListenerRules>,
}

/// What counts on one listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListenerRules {
    /// Position of its realm.
    pub(crate) realm: usize,
    /// Clients may stay in clear text although others must show a certificate: those must show something else.
    pub(crate) certificate_may_lack: bool,
}

impl Users {
    pub(crate) fn new(realms: Vec<Realm>, listeners: Vec<ListenerRules>) -> Self {
        Self { realms, listeners }
    }

    fn rules(&self, listener: usize) -> ListenerRules {
        self.listeners.get(listener).copied().unwrap_or(ListenerRules { realm: 0, certificate_may_lack: false })
    }
}

#[async_trait]
impl Authenticator for Users {
    async fn authenticate(&self, request: ConnectRequest) -> Result<Grant, Refusal> {
        let rules = self.rules(request.listener);
        let needs_credentials = rules.certificate_may_lack && request.tls.is_none();
        let Some(realm) = self.realms.get(rules.realm) else {
            return Err(refusal("no_realm", "the listener has no users".to_owned(), &request));
        };
        let mut grant = realm.authenticate(&request, needs_credentials).await?;
        // Entries of one realm say nothing in another one.
        grant.proof = grant.proof.map(|proof| format!("{}/{proof}", rules.realm).into());
        Ok(grant)
    }

    fn wants_nonce(&self) -> bool {
        self.realms.iter().any(Realm::wants_nonce)
    }

    fn auth_required(&self) -> bool {
        self.realms.iter().any(|realm| !realm.is_open())
    }

    fn auth_required_on(&self, listener: usize) -> bool {
        let rules = self.rules(listener);
        // Whoever may lack a certificate must say so in CONNECT.
        rules.certificate_may_lack || self.realms.get(rules.realm).is_none_or(|realm| !realm.is_open())
    }

    fn reconsider(&self, _cid: u64, present: &Grant) -> Result<Grant, Refusal> {
        let gone = || Refusal {
            reason: "credentials_changed",
            detail: "the configuration does not know these credentials any more".to_owned(),
            claimed: present.user.clone(),
        };
        let proof = present.proof.as_deref().ok_or_else(gone)?;
        let (number, rest) = proof.split_once('/').ok_or_else(gone)?;
        let realm = number.parse().ok().and_then(|number: usize| self.realms.get(number)).ok_or_else(gone)?;
        let mut grant = realm.reconsider(rest, present).ok_or_else(gone)?;
        grant.proof = Some(Arc::from(proof));
        Ok(grant)
    }

    fn before_connect_on(&self, listener: usize) -> Option<Grant> {
        let rules = self.rules(listener);
        if rules.certificate_may_lack {
            return None;
        }
        let mut grant = self.realms.get(rules.realm)?.without_credentials()?;
        grant.proof = grant.proof.map(|proof| format!("{}/{proof}", rules.realm).into());
        Some(grant)
    }
}

/// A refusal that names whom the peer claims to be.
pub(crate) fn refusal(reason: &'static str, detail: String, request: &ConnectRequest) -> Refusal {
    let connect = &request.connect;
    let claimed = [&connect.user, &connect.nkey, &connect.name].into_iter().find(|text| !text.is_empty()).cloned();
    Refusal { reason, detail, claimed }
}
