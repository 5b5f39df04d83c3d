//! New settings, accounts and rights for a running broker (spec 07 §6, table Reload): as a whole or not at all.
//!
//! First everything is checked, then [`Live`] is exchanged in one step, then every connection is judged again. A
//! connection that logs in meanwhile looks by itself whether it was overtaken ([`catch_up`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use nats_proto::encode;

use crate::auth::{Authenticator, Grant, PublishGuard, Refusal};
use crate::broker::Broker;
use crate::config::{AccountConfig, BrokerConfig, StartError};
use crate::conn::{Conn, flag};
use crate::live::Live;
use crate::permission::{Delivery, may_subscribe};
use crate::session::quoted;
use crate::shared::Shared;
use crate::subscription::{Sink, Special, Subscription};

/// What takes the place of what [`Broker::start`] was given.
pub struct Reload {
    /// Settings. Those that hold for the life of a broker must be as they were, see [`ReloadError::NotSupported`].
    pub config: BrokerConfig,
    /// Accounts. One that is missing ends its connections; one of the same name keeps subscriptions and requests.
    pub accounts: Vec<AccountConfig>,
    /// Judges the connections that are there ([`Authenticator::reconsider`]) and those that come.
    pub authenticator: Arc<dyn Authenticator>,
    /// Guards, in place of all that were there.
    pub guards: Vec<Arc<dyn PublishGuard>>,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").field("config", &self.config).field("accounts", &self.accounts).finish_non_exhaustive()
    }
}

/// What a reload did to those who were connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Connections that were ended: refused, moved to another account, or too many.
    pub connections_ended: usize,
    /// Connections whose grant changed.
    pub connections_changed: usize,
    /// Subscriptions that were taken away from connections that stayed.
    pub subscriptions_removed: usize,
}

/// Why nothing was reloaded. The broker runs on as before.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Something changed that needs a restart. In nats-server's words.
    #[error("config reload not supported for {name}: old={old}, new={new}")]
    NotSupported {
        /// nats-server's name of the setting.
        name: &'static str,
        /// Its value since the start.
        old: String,
        /// The refused value.
        new: String,
    },
    /// The new settings could not start a broker either.
    #[error(transparent)]
    Invalid(#[from] StartError),
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    Stopping,
}

impl Broker {
    /// Exchanges settings, accounts, authenticator and guards while the broker runs.
    ///
    /// Limits hold from the next command on, exports, imports and mappings for existing subscriptions. TLS settings hold for
    /// new connections. Each connection is judged again: subscriptions that it may no longer have are removed with
    /// `-ERR 'Permissions Violation for Subscription to "subject" (sid "1")'`; who may no longer be here, or belongs into
    /// another account, gets `-ERR 'Authorization Violation'` and is closed, as the [`crate::Observer`] is told. Lowering
    /// `max_connections` ends those that came last.
    ///
    /// # Errors
    /// See [`ReloadError`]; then everything is as it was.
    pub fn reload(&self, new: Reload) -> Result<Reloaded, ReloadError> {
        let shared = &self.shared;
        let Reload { config, accounts, authenticator, guards } = new;
        // Embedders are asked without any lock, so what was built may be built on something older by now.
        let live = loop {
            if shared.stop.is_cancelled() {
                return Err(ReloadError::Stopping);
            }
            let before = shared.live.load_full();
            refuse_fixed(&before.config, &config)?;
            let live = Live::new(config.clone(), &accounts, Arc::clone(&authenticator), &guards, Some(&before))?;
            let live = Arc::new(live);
            if Arc::ptr_eq(&shared.live.compare_and_swap(&before, Arc::clone(&live)), &before) {
                break live;
            }
        };
        shared.hub.max_pending.store(live.config.max_pending, Ordering::Relaxed);
        shared.hub.write_deadline_ms.store(live.config.write_deadline.as_millis() as u64, Ordering::Relaxed);
        for (running, listener) in shared.listeners().iter().zip(&live.config.listen) {
            running.set_tls(listener.tls.clone());
        }
        let mut reloaded = Reloaded::default();
        end_removed_accounts(shared, &live);
        for conn in shared.all_conns() {
            judge(shared, &conn, &mut reloaded);
        }
        end_surplus(shared, live.config.max_connections, &mut reloaded);
        Ok(reloaded)
    }
}

/// Refuses changes of what holds for the life of a broker.
fn refuse_fixed(old: &BrokerConfig, new: &BrokerConfig) -> Result<(), ReloadError> {
    fn same<T: PartialEq + std::fmt::Display>(name: &'static str, old: T, new: T) -> Result<(), ReloadError> {
        if old == new {
            return Ok(());
        }
        Err(ReloadError::NotSupported { name, old: old.to_string(), new: new.to_string() })
    }
    same("ServerName", &old.server_name, &new.server_name)?;
    same("Listeners", old.listen.len(), new.listen.len())?;
    for (old, new) in old.listen.iter().zip(&new.listen) {
        match (&old.websocket, &new.websocket) {
            (None, None) => {
                same("Host", old.addr.ip(), new.addr.ip())?;
                same("Port", old.addr.port(), new.addr.port())?;
            }
            (Some(before), Some(after)) if before == after => same("Websocket", old.addr, new.addr)?,
            _ => same("Websocket", format!("{:?}", old.websocket), format!("{:?}", new.websocket))?,
        }
    }
    let text = |account: &Option<String>| account.clone().unwrap_or_default();
    same("SystemAccount", text(&old.system_account), text(&new.system_account))?;
    let port = |addr: Option<std::net::SocketAddr>| addr.map_or(0, |addr| addr.port());
    same("HTTPPort", port(old.monitor_addr), port(new.monitor_addr))?;
    same("NoHeaderSupport", !old.headers, !new.headers)?;
    same("MaxSubs", old.max_subscriptions, new.max_subscriptions)?;
    Ok(())
}

/// Receivers inside this process that listened in an account which is gone see the end of their stream.
fn end_removed_accounts(shared: &Shared, live: &Live) {
    for account in live.accounts.iter().filter(|account| account.is_removed) {
        let mut local = Vec::new();
        account.state.index.read().for_each(|sub| {
            if sub.conn().is_none() {
                local.push(Arc::clone(sub));
            }
        });
        for sub in local {
            shared.end_subscription(&sub);
        }
    }
}

/// Ends those that came last when there are more than may be, as nats-server does.
fn end_surplus(shared: &Shared, most: usize, reloaded: &mut Reloaded) {
    let staying: Vec<Arc<Conn>> = shared.all_conns().into_iter().filter(|conn| !conn.has(flag::CLOSING)).collect();
    for conn in staying.iter().skip(most) {
        let refusal = Refusal {
            reason: "max_connections",
            detail: format!("the limit was lowered to {most} connections"),
            claimed: None,
        };
        shared.observer.refused(conn.remote, &refusal);
        conn.fail("maximum connections exceeded", "Maximum Connections Exceeded");
        reloaded.connections_ended += 1;
    }
}

/// To be called when a connection has got a grant that was asked for in `generation`: when the broker was reloaded since then,
/// the connection is judged by what is in force now.
pub(crate) fn catch_up(shared: &Shared, conn: &Arc<Conn>, generation: u64) {
    if shared.live().generation != generation {
        judge(shared, conn, &mut Reloaded::default());
    }
}

/// Asks the authenticator what has become of a connection's grant, and carries it out.
fn judge(shared: &Shared, conn: &Arc<Conn>, reloaded: &mut Reloaded) {
    loop {
        let live = shared.live.load_full();
        let rare = conn.rare.lock();
        let (Some(account), Some(present)) = (rare.account, rare.grant.clone()) else { return };
        drop(rare);
        if conn.has(flag::CLOSING) {
            return;
        }
        match reconsider(&live, account, conn.cid, &present) {
            Err(refusal) => {
                tracing::debug!(cid = conn.cid, remote = ?conn.remote, %refusal, "connection ended by a reload");
                shared.observer.refused(conn.remote, &refusal);
                conn.fail("Authorization Violation", "Authentication Failure");
                reloaded.connections_ended += 1;
                return;
            }
            Ok(grant) if grant == *present => {}
            Ok(grant) => match regrant(shared, conn, &present, Arc::new(grant)) {
                Some(removed) => {
                    reloaded.connections_changed += 1;
                    reloaded.subscriptions_removed += removed;
                }
                // It has logged in anew meanwhile.
                None => continue,
            },
        }
        if Arc::ptr_eq(&*shared.live(), &live) {
            return;
        }
    }
}

/// The grant that takes the place of the present one.
fn reconsider(live: &Live, account: u32, cid: u64, present: &Grant) -> Result<Grant, Refusal> {
    let refuse = |detail: String| {
        let claimed = present.claim.as_ref().map(|claim| claim.key.clone()).or_else(|| present.user.clone());
        Err(Refusal { reason: "rights_changed", detail, claimed })
    };
    let grant = live.authenticator.reconsider(cid, present)?;
    if live.account_number(&grant.account) != Some(account) {
        let (old, new) = (&present.account, &grant.account);
        return refuse(if old == new {
            format!("account {old:?} is no longer configured")
        } else {
            format!("the connection belongs into account {new:?} now, not {old:?}")
        });
    }
    if grant.claim != present.claim || grant.presence != present.presence {
        return refuse("the name of the connection has changed, which takes a new login".to_owned());
    }
    Ok(grant)
}

/// Puts a changed grant in force and gives the number of subscriptions removed. `None`: the present one was not it any more.
fn regrant(shared: &Shared, conn: &Arc<Conn>, present: &Arc<Grant>, grant: Arc<Grant>) -> Option<usize> {
    let mut rare = conn.rare.lock();
    if !rare.grant.as_ref().is_some_and(|now| Arc::ptr_eq(now, present)) {
        return None;
    }
    rare.grant = Some(Arc::clone(&grant));
    if grant.permissions.responses != present.permissions.responses {
        rare.budgets = None;
    }
    drop(rare);
    conn.set(flag::REGRANTED);
    let removed = sweep(shared, conn, &grant);
    if grant.expires_at != present.expires_at
        && let Some(at) = grant.expires_at
    {
        shared.hub.timers.expire_in(at.duration_since(SystemTime::now()).unwrap_or_default(), conn.cid);
    }
    conn.wake();
    Some(removed)
}

/// Removes the subscriptions that a grant does not allow, and gives their number; the others are delivered by its deny list.
pub(crate) fn sweep(shared: &Shared, conn: &Arc<Conn>, grant: &Arc<Grant>) -> usize {
    let subs: Vec<Arc<Subscription>> = conn.rare.lock().subs.iter().cloned().collect();
    let mut removed = 0;
    for sub in subs {
        match may_subscribe(grant, &sub.filter, sub.queue().map(|queue| &**queue)) {
            None => {
                if shared.end_subscription(&sub) {
                    removed += 1;
                    let text = removal(&sub);
                    conn.append(|out| encode::error(out, &text));
                }
            }
            Some(Delivery::All) if sub.filtered_by().is_none() => {}
            Some(delivery) => refilter(shared, conn, &sub, (delivery == Delivery::Filtered).then_some(grant)),
        }
    }
    if removed > 0 {
        conn.flush();
    }
    removed
}

/// What the client is told of a subscription that it may no longer have.
fn removal(sub: &Subscription) -> String {
    let (filter, sid) = (quoted(&sub.filter), String::from_utf8_lossy(sub.sid.as_bytes()));
    let using = sub.queue().map(|queue| format!(" using queue \"{}\"", quoted(queue))).unwrap_or_default();
    format!("Permissions Violation for Subscription to \"{filter}\"{using} (sid \"{}\")", quoted(&sid))
}

/// Puts a subscription with another filter of deliveries in the place of one.
fn refilter(shared: &Shared, conn: &Arc<Conn>, sub: &Arc<Subscription>, grant: Option<&Arc<Grant>>) {
    let special = Special { queue: sub.queue().cloned(), filtered_by: grant.cloned() };
    let sink = Sink::Client(Arc::clone(conn));
    let fresh = Subscription::new(sink, sub.sid.clone(), sub.account, Arc::clone(&sub.filter), special);
    let fresh = Arc::new(fresh);
    let live = shared.live();
    let mut index = live.accounts[sub.account as usize].state.index.write();
    // Deliveries are counted under this lock: none is lost, none counted twice.
    let outbox = conn.outbox.lock();
    if !index.remove(sub) {
        return;
    }
    fresh.max.store(sub.max.load(Ordering::Relaxed), Ordering::Relaxed);
    fresh.delivered.store(sub.delivered.load(Ordering::Relaxed), Ordering::Relaxed);
    index.add(&fresh);
    drop(outbox);
    drop(index);
    let mut rare = conn.rare.lock();
    // Again, behind an UNSUB that came in between.
    fresh.max.store(sub.max.load(Ordering::Relaxed), Ordering::Relaxed);
    if rare.subs.remove_same(sub) {
        rare.subs.insert(fresh);
    } else {
        // Unsubscribed meanwhile.
        drop(rare);
        shared.end_subscription(&fresh);
    }
}
