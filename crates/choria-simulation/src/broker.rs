//! The broker: the real decision who may connect and what they may do, and the real check of what nodes say about
//! themselves, over a model of connections, subscriptions and accounts.

use std::collections::BTreeMap;

use choria_broker::guard::IdentityGuard;
use choria_broker::policy::{self, Account, ConnectFacts, Origin, PolicyGrant, PolicyInputs, Tls};
use nats_broker::PublishGuard;
use nats_proto::subject;

use crate::material::PASSWORD;

/// Largest message.
const MAX_PAYLOAD: usize = 1024 * 1024;

/// Events of fleet members that cross into the provisioning account.
const FLEET_EVENTS: [&str; 2] = ["choria.lifecycle.event.startup.server", "choria.lifecycle.event.shutdown.server"];

/// Where the broker tells that a connection of the provisioning account has ended.
pub(crate) const DISCONNECTS: &str = "$SYS.ACCOUNT.provisioning.DISCONNECT";

/// Whoever can hold a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    Machine(usize),
    Provisioner(usize),
    Hostile(usize),
}

/// Number of a connection.
pub(crate) type ConnectionId = u64;

/// How a party proves itself.
pub(crate) enum Proof<'a> {
    /// A provisioning token.
    Token(&'a str),
    /// A certificate of an authority that the broker trusts, verified by the caller.
    Certificate,
    /// The provisioner's certificate and password.
    Password,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) party: Party,
    pub(crate) grant: PolicyGrant,
    filters: Vec<String>,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    TooLarge,
    NotAllowed,
    Forged,
    NotConnected,
}

/// The broker.
#[derive(Debug)]
pub(crate) struct Broker {
    inputs: PolicyInputs,
    guarded: bool,
    pub(crate) up: bool,
    connections: BTreeMap<ConnectionId, Connection>,
    next: ConnectionId,
}

impl Broker {
    /// A broker that is up. `guarded`: it checks who may announce whom and that one name has one holder.
    pub(crate) fn new(inputs: PolicyInputs, guarded: bool) -> Self {
        Self { inputs, guarded, up: true, connections: BTreeMap::new(), next: 1 }
    }

    /// A new connection of `name`. `holder_lives` says whether the party of another connection that claims the same name
    /// would answer a ping; if not, that connection ends and is returned.
    pub(crate) fn connect(
        &mut self,
        party: Party,
        name: &str,
        proof: &Proof<'_>,
        now: i64,
        holder_lives: impl Fn(Party, ConnectionId) -> bool,
    ) -> Result<(ConnectionId, Option<(Party, ConnectionId)>), String> {
        if !self.up {
            return Err("the broker is down".to_owned());
        }
        let token = if let Proof::Token(token) = proof { Some(*token) } else { None };
        let is_provisioner = matches!(proof, Proof::Password);
        let names = if token.is_some() { Vec::new() } else { vec![name.to_owned()] };
        let facts = ConnectFacts {
            origin: Origin::Client,
            remote: Some(([127, 0, 0, 1], 40_000).into()),
            tls: if token.is_some() { Tls::Unverified } else { Tls::Verified },
            verified_names: &names,
            name: Some(name),
            user: is_provisioner.then_some("provisioner"),
            password: is_provisioner.then_some(PASSWORD),
            token,
        };
        let grant = policy::decide(&self.inputs, &facts, now).map_err(|refusal| refusal.reason.as_str().to_owned())?;
        let mut replaced = None;
        if let Some(claim) = grant.claim.as_ref().filter(|_| self.guarded) {
            let named = |name: &Option<String>| name.as_ref() == Some(claim);
            let is_member = |(id, other): (&ConnectionId, &Connection)| {
                named(&other.grant.presence) && holder_lives(other.party, *id)
            };
            if self.connections.iter().any(is_member) {
                return Err("a member of this name is there".to_owned());
            }
            if let Some((&holder, other)) = self.connections.iter().find(|(_, other)| named(&other.grant.claim)) {
                if holder_lives(other.party, holder) {
                    return Err("claim_held".to_owned());
                }
                replaced = Some((other.party, holder));
                self.connections.remove(&holder);
            }
        }
        let id = self.next;
        self.next += 1;
        self.connections.insert(id, Connection { party, grant, filters: Vec::new() });
        Ok((id, replaced))
    }

    /// Ends a connection. Whoever does not know of it yet notices later.
    pub(crate) fn close(&mut self, id: ConnectionId) -> Option<Connection> {
        self.connections.remove(&id)
    }

    /// All connections end.
    pub(crate) fn stop(&mut self) -> Vec<(ConnectionId, Party)> {
        self.up = false;
        std::mem::take(&mut self.connections).into_iter().map(|(id, connection)| (id, connection.party)).collect()
    }

    pub(crate) fn connections_of(&self, party: Party) -> Vec<ConnectionId> {
        self.connections.iter().filter(|(_, connection)| connection.party == party).map(|(id, _)| *id).collect()
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// Subscribes; a filter that is not allowed is an error.
    pub(crate) fn subscribe(&mut self, id: ConnectionId, filter: &str) -> Result<(), NotTaken> {
        let connection = self.connections.get_mut(&id).ok_or(NotTaken::NotConnected)?;
        let rules = &connection.grant.permissions.subscribe;
        let allowed =
            rules.allow.as_ref().is_none_or(|allow| allow.iter().any(|entry| subject::is_subset(filter, entry)));
        if !allowed || rules.deny.iter().any(|entry| subject::overlaps(entry, filter)) {
            return Err(NotTaken::NotAllowed);
        }
        connection.filters.push(filter.to_owned());
        Ok(())
    }

    /// Who listens to what the broker itself says in the provisioning account.
    pub(crate) fn listeners(&self, subject: &str) -> Vec<ConnectionId> {
        let hears = |other: &Connection| {
            other.grant.account == Account::Provisioning
                && other.filters.iter().any(|filter| subject::matches(filter, subject))
        };
        self.connections.iter().filter(|(_, other)| hears(other)).map(|(id, _)| *id).collect()
    }

    /// Takes a message. Returns who gets it.
    pub(crate) fn publish(
        &self,
        id: ConnectionId,
        subject: &str,
        payload: &[u8],
    ) -> Result<Vec<ConnectionId>, NotTaken> {
        let sender = self.connections.get(&id).ok_or(NotTaken::NotConnected)?;
        if payload.len() > MAX_PAYLOAD {
            return Err(NotTaken::TooLarge);
        }
        let rules = &sender.grant.permissions.publish;
        let named = |entries: &[String]| entries.iter().any(|entry| subject::matches(entry, subject));
        if !rules.allow.as_ref().is_none_or(|allow| named(allow)) || named(&rules.deny) {
            return Err(NotTaken::NotAllowed);
        }
        let account = sender.grant.account;
        let is_guarded =
            |(name, filter): &(String, String)| name == account.name() && subject::matches(filter, subject);
        if self.guarded
            && IdentityGuard.guarded().iter().any(is_guarded)
            && IdentityGuard.check(account.name(), sender.grant.tag.as_deref(), subject, payload).is_err()
        {
            return Err(NotTaken::Forged);
        }
        let crosses = account == Account::Choria && FLEET_EVENTS.contains(&subject);
        let hears = |other: &Connection| {
            let same = other.grant.account == account || (crosses && other.grant.account == Account::Provisioning);
            same && other.filters.iter().any(|filter| subject::matches(filter, subject))
        };
        Ok(self.connections.iter().filter(|(_, other)| hears(other)).map(|(id, _)| *id).collect())
    }
}
