//! The bridge from the network broker to the policy: one CONNECT in, facts out of it, the decision back.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use choria_security::cert::CertificateFacts;
use nats_broker::{Authenticator, ConnectRequest, ConnectionKind, ExclusiveClaim, Grant, Refusal};

use crate::policy::{
    self, Account, ConnectFacts, Origin, PolicyGrant, PolicyInputs, PolicyRefusal, Present, Reason, Standing, Tls,
};
use crate::trust::ClientAuthorities;

/// How long the holder of a node's name has to show that it lives when another connection claims the name.
const CLAIM_PROBE: Duration = Duration::from_secs(2);

/// Year 2106, which stands for every later one.
const FAR_FUTURE: Duration = Duration::from_secs(u32::MAX as u64);

/// Answers CONNECTs with [`policy::decide`]. A reload makes another one, which judges the connections that are there with
/// [`policy::reconsider`].
#[derive(Debug)]
pub(crate) struct PolicyAuthenticator {
    inputs: PolicyInputs,
    authorities: ClientAuthorities,
}

impl PolicyAuthenticator {
    pub(crate) fn new(inputs: PolicyInputs, authorities: ClientAuthorities) -> Self {
        Self { inputs, authorities }
    }

    pub(crate) fn decide(&self, request: &ConnectRequest, now: i64) -> Result<Grant, Refusal> {
        let names = certificate_names(request);
        let facts = facts(request, &names);
        let authority = self.authority(request, &facts, now)?;
        let grant = policy::decide(&self.inputs, &facts, now).map_err(into_refusal)?;
        let standing = Standing::of(&self.inputs, &facts, authority.as_deref());
        Ok(into_grant(grant, standing.as_ref()))
    }

    /// The authority behind the peer's certificate, when it showed one.
    fn authority(
        &self,
        request: &ConnectRequest,
        facts: &ConnectFacts<'_>,
        now: i64,
    ) -> Result<Option<String>, Refusal> {
        let Some(peer) = request.tls.as_ref().filter(|peer| peer.is_verified()) else { return Ok(None) };
        let authority = self.authorities.behind(&peer.verified_chain, now);
        if authority.is_some() {
            return Ok(authority);
        }
        Err(Refusal {
            reason: Reason::CaNotTrusted.as_str(),
            detail: "the CA of its certificate was trusted when it began to connect and is not any more".to_owned(),
            claimed: facts.claimed().map(str::to_owned),
        })
    }
}

#[async_trait]
impl Authenticator for PolicyAuthenticator {
    async fn authenticate(&self, request: ConnectRequest) -> Result<Grant, Refusal> {
        self.decide(&request, unix_now())
    }

    fn reconsider(&self, _cid: u64, present: &Grant) -> Result<Grant, Refusal> {
        let claimed = present.tag.as_deref().or(present.presence.as_deref()).or(present.user.as_deref());
        let Some(standing) = present.proof.as_deref().and_then(|proof| proof.parse::<Standing>().ok()) else {
            return Err(Refusal {
                reason: Reason::NoCredentials.as_str(),
                detail: "nothing is known of how it logged in".to_owned(),
                claimed: claimed.map(str::to_owned),
            });
        };
        let about = Present { user: present.user.as_deref(), node: present.tag.as_deref(), claimed };
        let permissions = policy::reconsider(&self.inputs, self.authorities.ids(), &standing, about);
        Ok(Grant { permissions: permissions.map_err(into_refusal)?, ..present.clone() })
    }
}

fn into_refusal(refusal: PolicyRefusal) -> Refusal {
    Refusal { reason: refusal.reason.as_str(), detail: refusal.detail, claimed: refusal.claimed }
}

pub(crate) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn certificate_names(request: &ConnectRequest) -> Vec<String> {
    let leaf = request.tls.as_ref().and_then(|tls| tls.verified_chain.first());
    let facts = leaf.and_then(|leaf| CertificateFacts::from_der(leaf).ok());
    facts.map(|facts| facts.common_names.into_iter().chain(facts.dns_names).collect()).unwrap_or_default()
}

fn facts<'a>(request: &'a ConnectRequest, names: &'a [String]) -> ConnectFacts<'a> {
    let connect = &request.connect;
    // CONNECT makes no difference between an absent and an empty field.
    let given = |text: &'a str| Some(text).filter(|text| !text.is_empty());
    ConnectFacts {
        origin: match request.kind {
            ConnectionKind::Client | ConnectionKind::WebSocket => Origin::Client,
            ConnectionKind::InProcess => Origin::InProcess,
        },
        remote: request.remote,
        tls: match &request.tls {
            None => Tls::Clear,
            Some(peer) if peer.is_verified() => Tls::Verified,
            Some(_) => Tls::Unverified,
        },
        verified_names: names,
        name: given(&connect.name),
        user: given(&connect.user),
        password: given(&connect.pass),
        token: given(&connect.auth_token),
    }
}

fn into_grant(grant: PolicyGrant, standing: Option<&Standing>) -> Grant {
    let expires_at = grant.expires_at.map(|second| {
        let second = u64::try_from(second).unwrap_or(0);
        // A time beyond what the system can express never comes.
        UNIX_EPOCH.checked_add(Duration::from_secs(second)).unwrap_or_else(|| UNIX_EPOCH + FAR_FUTURE)
    });
    Grant {
        account: grant.account.name().to_owned(),
        user: grant.user,
        permissions: grant.permissions,
        expires_at,
        claim: grant.claim.map(|key| ExclusiveClaim {
            key,
            probe: CLAIM_PROBE,
            yields_to: Some(Account::Choria.name().to_owned()),
        }),
        presence: grant.presence,
        tag: grant.tag.map(Arc::from),
        proof: standing.map(|standing| Arc::from(standing.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use nats_broker::TlsPeer;

    use super::*;
    use crate::policy::testing::inputs;

    fn request(connect: nats_proto::Connect) -> ConnectRequest {
        ConnectRequest {
            cid: 1,
            kind: ConnectionKind::Client,
            listener: 0,
            remote: Some("192.0.2.1:9".parse().unwrap()),
            tls: Some(TlsPeer::default()),
            nonce: None,
            connect,
        }
    }

    #[test]
    fn a_connect_becomes_facts() {
        let empty = request(nats_proto::Connect::default());
        let facts = facts(&empty, &[]);
        assert_eq!((facts.origin, facts.tls, facts.remote), (Origin::Client, Tls::Unverified, empty.remote));
        assert_eq!((facts.name, facts.user, facts.password, facts.token), (None, None, None, None));

        let full = request(nats_proto::Connect {
            name: "n1".into(),
            user: "u".into(),
            pass: "p".into(),
            auth_token: "t".into(),
            jwt: "ignored".into(),
            ..Default::default()
        });
        let full = ConnectRequest { kind: ConnectionKind::InProcess, tls: None, remote: None, ..full };
        let facts = super::facts(&full, &[]);
        assert_eq!((facts.origin, facts.tls, facts.remote), (Origin::InProcess, Tls::Clear, None));
        assert_eq!(
            (facts.name, facts.user, facts.password, facts.token),
            (Some("n1"), Some("u"), Some("p"), Some("t"))
        );
    }

    #[test]
    fn grants_and_refusals_keep_what_matters() {
        let granted = PolicyGrant {
            account: Account::Provisioning,
            user: None,
            permissions: policy::permissions::bound_node("n1"),
            expires_at: Some(1_795_170_575),
            claim: Some("n1".into()),
            presence: None,
            tag: Some("n1".into()),
        };
        let grant = into_grant(granted, Some(&Standing::Token { signer: "00ff".into() }));
        assert_eq!(grant.proof.as_deref(), Some("token 00ff"));
        assert_eq!(grant.account, "provisioning");
        assert_eq!(grant.expires_at, Some(UNIX_EPOCH + Duration::from_secs(1_795_170_575)));
        let claim =
            ExclusiveClaim { key: "n1".into(), probe: Duration::from_secs(2), yields_to: Some("choria".into()) };
        assert_eq!(grant.claim, Some(claim));
        assert_eq!(grant.tag.as_deref(), Some("n1"));

        for (second, never) in [(i64::MAX, true), (i64::MIN, false)] {
            let grant = PolicyGrant { expires_at: Some(second), ..policy_grant() };
            let expires = into_grant(grant, None).expires_at.unwrap();
            assert_eq!(expires > SystemTime::now(), never, "{second}");
        }

        let authenticator = authenticator(inputs());
        let connect = nats_proto::Connect { user: "provisioner".into(), pass: "no".into(), ..Default::default() };
        let refusal = authenticator.decide(&request(connect), 0).unwrap_err();
        assert_eq!((refusal.reason, refusal.claimed.as_deref()), ("wrong_password", Some("provisioner")));
    }

    fn policy_grant() -> PolicyGrant {
        PolicyGrant {
            account: Account::Choria,
            user: None,
            permissions: Default::default(),
            expires_at: None,
            claim: None,
            presence: None,
            tag: None,
        }
    }

    fn authenticator(inputs: PolicyInputs) -> PolicyAuthenticator {
        PolicyAuthenticator::new(inputs, ClientAuthorities::default())
    }

    #[test]
    fn a_successor_judges_what_was_granted_before() {
        let system = nats_proto::Connect { user: "system".into(), pass: "system-secret".into(), ..Default::default() };
        let in_process = ConnectRequest { kind: ConnectionKind::InProcess, tls: None, remote: None, ..request(system) };
        let granted = authenticator(inputs()).decide(&in_process, 0).unwrap();
        assert_eq!(granted.account, "system");
        assert_eq!(authenticator(inputs()).reconsider(1, &granted).unwrap(), granted);

        let successor = authenticator(PolicyInputs { system: None, ..inputs() });
        let refusal = successor.reconsider(1, &granted).unwrap_err();
        assert_eq!((refusal.reason, refusal.claimed.as_deref()), ("user_changed", Some("system")));
        assert_eq!(successor.decide(&in_process, 0).unwrap().account, "choria");

        for proof in [None, Some("gibberish".into())] {
            let unknown = Grant { proof, ..granted.clone() };
            assert_eq!(authenticator(inputs()).reconsider(1, &unknown).unwrap_err().reason, "no_credentials");
        }
    }
}
