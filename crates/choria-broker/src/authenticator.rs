//! The bridge from the network broker to the policy: one CONNECT in, facts out of it, the decision back.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use choria_security::cert::CertificateFacts;
use nats_broker::{Authenticator, ConnectRequest, ConnectionKind, ExclusiveClaim, Grant, Refusal};

use crate::policy::{self, Account, ConnectFacts, Origin, PolicyGrant, PolicyInputs, Tls};

/// How long the holder of a node's name has to show that it lives when another connection claims the name.
const CLAIM_PROBE: Duration = Duration::from_secs(2);

/// Year 2106, which stands for every later one.
const FAR_FUTURE: Duration = Duration::from_secs(u32::MAX as u64);

/// Answers CONNECTs with [`policy::decide`]. The inputs can be replaced while connections come and go.
#[derive(Debug)]
pub(crate) struct PolicyAuthenticator {
    inputs: ArcSwap<PolicyInputs>,
}

impl PolicyAuthenticator {
    pub(crate) fn new(inputs: PolicyInputs) -> Self {
        Self { inputs: ArcSwap::from_pointee(inputs) }
    }

    /// Decides by `inputs` from now on. Open connections stay as they are.
    pub(crate) fn replace(&self, inputs: PolicyInputs) {
        self.inputs.store(Arc::new(inputs));
    }

    pub(crate) fn decide(&self, request: &ConnectRequest, now: i64) -> Result<Grant, Refusal> {
        let names = certificate_names(request);
        let facts = facts(request, &names);
        policy::decide(&self.inputs.load(), &facts, now).map(into_grant).map_err(|refusal| Refusal {
            reason: refusal.reason.as_str(),
            detail: refusal.detail,
            claimed: refusal.claimed,
        })
    }
}

#[async_trait]
impl Authenticator for PolicyAuthenticator {
    async fn authenticate(&self, request: ConnectRequest) -> Result<Grant, Refusal> {
        self.decide(&request, unix_now())
    }
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

fn into_grant(grant: PolicyGrant) -> Grant {
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
        proof: None,
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
        let grant = into_grant(PolicyGrant {
            account: Account::Provisioning,
            user: None,
            permissions: policy::permissions::bound_node("n1"),
            expires_at: Some(1_795_170_575),
            claim: Some("n1".into()),
            presence: None,
            tag: Some("n1".into()),
        });
        assert_eq!(grant.account, "provisioning");
        assert_eq!(grant.expires_at, Some(UNIX_EPOCH + Duration::from_secs(1_795_170_575)));
        let claim =
            ExclusiveClaim { key: "n1".into(), probe: Duration::from_secs(2), yields_to: Some("choria".into()) };
        assert_eq!(grant.claim, Some(claim));
        assert_eq!(grant.tag.as_deref(), Some("n1"));

        for (second, never) in [(i64::MAX, true), (i64::MIN, false)] {
            let grant = PolicyGrant { expires_at: Some(second), ..policy_grant() };
            let expires = into_grant(grant).expires_at.unwrap();
            assert_eq!(expires > SystemTime::now(), never, "{second}");
        }

        let authenticator = PolicyAuthenticator::new(inputs());
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

    #[test]
    fn replaced_inputs_judge_the_next_connection() {
        let authenticator = PolicyAuthenticator::new(inputs());
        let system = nats_proto::Connect { user: "system".into(), pass: "system-secret".into(), ..Default::default() };
        let in_process = ConnectRequest { kind: ConnectionKind::InProcess, tls: None, remote: None, ..request(system) };
        assert_eq!(authenticator.decide(&in_process, 0).unwrap().account, "system");
        authenticator.replace(PolicyInputs { system: None, ..inputs() });
        assert_eq!(authenticator.decide(&in_process, 0).unwrap().account, "choria");
    }
}
