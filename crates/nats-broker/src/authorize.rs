//! From CONNECT to rights, and giving them back at the end.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use nats_proto::Connect;
use tokio::time::Instant;

use crate::advisories;
use crate::auth::{ConnectRequest, ConnectionKind, Grant, Refusal, TlsPeer};
use crate::conn::flag;
use crate::monitor::ClosedConnection;
use crate::reload;
use crate::session::Session;
use crate::totals::SLOW_CONSUMER;

const VIOLATION: &str = "Authorization Violation";
const FAILURE: &str = "Authentication Failure";

/// Asks the authenticator about a CONNECT and puts its answer in force. `false`: the connection is over.
pub(crate) async fn authorize(session: &mut Session, connect: Connect, deadline: Instant, nonce: Option<&str>) -> bool {
    if !is_acceptable(session, &connect) {
        return false;
    }
    let generation = session.shared.live().generation;
    let Some(grant) = ask(session, &connect, deadline, nonce).await else {
        advisories::note_refused(&session.conn, &connect);
        return false;
    };
    let Some((account, grant)) = admit(session, grant).await else {
        advisories::note_refused(&session.conn, &connect);
        return false;
    };
    let is_login = !session.is_connected || session.grant().is_none_or(|(now, _)| now != account);
    retire(session, account, &grant);
    session.set_rights(account, Arc::clone(&grant));
    session.accept_connect(&connect);
    let shared = &session.shared;
    if let Some(name) = &grant.presence {
        shared.claims.appear(account, name, &session.conn);
    }
    if is_login {
        shared.roster.lock().totals.entered(&shared.live().accounts[account as usize].name);
    }
    shared.observer.connected(session.conn.cid, &grant);
    advisories::connected(shared, &session.conn, account, &grant);
    reload::catch_up(shared, &session.conn, generation);
    if let Some(left) = grant.expires_at.and_then(|at| at.duration_since(SystemTime::now()).ok()) {
        shared.hub.timers.expire_in(left, session.conn.cid);
    }
    true
}

/// Options that no authenticator needs to see to be refused.
fn is_acceptable(session: &Session, connect: &Connect) -> bool {
    if connect.protocol != 0 && connect.protocol != 1 {
        session.tell_violation("CONNECT names a protocol version that does not exist");
        session.conn.fail("invalid client protocol", "Bad Client Protocol Version");
        return false;
    }
    if connect.no_responders && !(connect.headers && session.shared.live().config.headers) {
        session.tell_violation("CONNECT asks for no_responders without headers");
        session.conn.fail("no responders requires headers support", "No Responders Requires Headers");
        return false;
    }
    if connect.new_account || !connect.account.is_empty() {
        let refusal = Refusal {
            reason: "account_field",
            detail: "CONNECT names an account, which only the broker chooses".to_owned(),
            claimed: None,
        };
        session.refuse(&refusal, VIOLATION, FAILURE);
        return false;
    }
    true
}

async fn ask(session: &Session, connect: &Connect, deadline: Instant, nonce: Option<&str>) -> Option<Grant> {
    let conn = &session.conn;
    let tls = conn.outbox.lock().tls.as_ref().map(|tls| TlsPeer { verified_chain: tls.peer_chain() });
    let request = ConnectRequest {
        cid: conn.cid,
        kind: if conn.has(flag::WEBSOCKET) { ConnectionKind::WebSocket } else { ConnectionKind::Client },
        listener: session.listener,
        remote: conn.remote,
        tls,
        nonce: nonce.map(str::to_owned),
        connect: connect.clone(),
    };
    let authenticator = Arc::clone(&session.shared.live().authenticator);
    let answer = authenticator.authenticate(request);
    let answer = tokio::select! {
        answer = tokio::time::timeout_at(deadline, answer) => answer,
        () = poll_fn(|cx| conn.poll_closing(cx)) => return None,
    };
    match answer {
        Ok(Ok(grant)) => Some(grant),
        Ok(Err(refusal)) => {
            session.refuse(&refusal, VIOLATION, FAILURE);
            None
        }
        Err(_) => {
            let refusal = Refusal {
                reason: "auth_timeout",
                detail: "the authenticator did not answer in time".to_owned(),
                claimed: Some(connect.name.clone()).filter(|name| !name.is_empty()),
            };
            session.refuse(&refusal, "Authentication Timeout", "Authentication Timeout");
            None
        }
    }
}

/// Checks what the broker itself knows about a grant: account, time, claim, account limit.
async fn admit(session: &Session, grant: Grant) -> Option<(u32, Arc<Grant>)> {
    let shared = &session.shared;
    let conn = &session.conn;
    let claimed = grant.claim.as_ref().map(|claim| claim.key.clone());
    let refuse = |reason, detail| {
        session.refuse(&Refusal { reason, detail, claimed: claimed.clone() }, VIOLATION, FAILURE);
    };
    let Some(account) = shared.account_number(&grant.account) else {
        refuse("unknown_account", format!("the grant names account {:?}, which is not configured", grant.account));
        return None;
    };
    if grant.expires_at.is_some_and(|at| at <= SystemTime::now()) {
        refuse("expired", "the grant was over before it began".to_owned());
        return None;
    }
    if let Some(claim) = &grant.claim {
        let first = claim.yields_to.as_deref().and_then(|account| shared.account_number(account));
        let taken = tokio::select! {
            taken = shared.claims.take(account, first, claim, conn) => taken,
            () = poll_fn(|cx| conn.poll_closing(cx)) => return None,
        };
        if let Err(held) = taken {
            let detail = format!("{:?} is held by connection {}, which answered a PING", claim.key, held.holder);
            refuse("claim_held", detail);
            return None;
        }
    }
    let live = shared.live();
    let has_place = session.grant().is_some_and(|(now, _)| now == account);
    let runtime = &live.accounts[account as usize];
    let entered = has_place
        || runtime
            .state
            .connections
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < runtime.max_connections).then_some(now + 1))
            .is_ok();
    if !entered {
        if let Some(claim) = &grant.claim {
            shared.claims.release(account, &claim.key, conn);
        }
        let refusal = Refusal {
            reason: "account_connections",
            detail: format!("account {} is full with {} connections", runtime.name, runtime.max_connections),
            claimed,
        };
        session.refuse(&refusal, "maximum account active connections exceeded", "Maximum Account Connections Exceeded");
        return None;
    }
    Some((account, Arc::new(grant)))
}

/// Ends what a connection had before a further CONNECT.
fn retire(session: &Session, account: u32, grant: &Grant) {
    let Some((old_account, old)) = session.grant() else {
        return;
    };
    let shared = &session.shared;
    // The first CONNECT keeps subscriptions that were made before it in the same account.
    if session.is_connected || old_account != account {
        shared.end_subscriptions(&session.conn);
    }
    if old_account != account {
        shared.change_account(&session.conn, old_account);
        shared.live().accounts[old_account as usize].state.connections.fetch_sub(1, Ordering::AcqRel);
    }
    if let Some(claim) = &old.claim
        && (old_account != account || grant.claim.as_ref().is_none_or(|new| new.key != claim.key))
    {
        shared.claims.release(old_account, &claim.key, &session.conn);
    }
    if let Some(name) = &old.presence {
        shared.claims.disappear(old_account, name, &session.conn);
    }
    if session.is_connected {
        shared.observer.disconnected(session.conn.cid, old, "Authenticated Again");
    }
}

/// Takes an ending connection out of everything.
pub(crate) fn leave(session: &Session) {
    let shared = &session.shared;
    let conn = &session.conn;
    let subscriptions = conn.rare.lock().subs.len();
    shared.end_subscriptions(conn);
    let account = session.grant().map(|(account, _)| account);
    if !shared.depart(conn, account) && account.is_none() {
        // Never admitted, or crowded out. One that is crowded out while it logs in has something to give back.
        return;
    }
    let reason = conn.rare.lock().close.clone().unwrap_or_default();
    if reason.starts_with(SLOW_CONSUMER) {
        shared.observer.slow_consumer(conn.cid, session.grant().map(|(_, grant)| &**grant), &reason);
    }
    if let Some((account, grant)) = session.grant() {
        shared.live().accounts[account as usize].state.connections.fetch_sub(1, Ordering::AcqRel);
        if session.is_connected {
            // Before its name is free, so that whoever takes the name next is heard of after this.
            advisories::disconnected(shared, conn, account, grant, &reason);
        }
        if let Some(claim) = &grant.claim {
            shared.claims.release(account, &claim.key, conn);
        }
        if let Some(name) = &grant.presence {
            shared.claims.disappear(account, name, conn);
        }
        if session.is_connected {
            shared.observer.disconnected(conn.cid, grant, &reason);
        }
    } else if reason == FAILURE {
        advisories::refused(shared, conn, &reason);
    }
    let most = shared.live().config.max_closed_connections;
    if most > 0 {
        let entry = Arc::new(ClosedConnection::new(shared, conn, subscriptions));
        let mut closed = shared.closed.lock();
        if closed.len() >= most {
            closed.pop_front();
        }
        closed.push_back(entry);
    }
}
