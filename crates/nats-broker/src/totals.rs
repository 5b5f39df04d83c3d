//! What accounts have carried. Connections count for themselves; those that ended are added up here when they leave, those that
//! live are added when somebody asks. Nothing on the path of a message is shared.

use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustc_hash::FxHashMap;

use crate::broker::Broker;
use crate::conn::Conn;
use crate::shared::Shared;

/// How reasons of slow consumers begin.
pub(crate) const SLOW_CONSUMER: &str = "Slow Consumer";

/// Messages and bytes of both directions, seen from the broker. Bytes are those of headers and payloads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) in_msgs: u64,
    pub(crate) in_bytes: u64,
    pub(crate) out_msgs: u64,
    pub(crate) out_bytes: u64,
}

impl Traffic {
    /// What a connection has carried so far.
    pub(crate) fn of(conn: &Conn) -> Self {
        let outbox = conn.outbox.lock();
        let (out_msgs, out_bytes) = (outbox.messages, outbox.bytes);
        drop(outbox);
        Self {
            in_msgs: conn.in_messages.load(Ordering::Relaxed),
            in_bytes: conn.in_bytes.load(Ordering::Relaxed),
            out_msgs,
            out_bytes,
        }
    }

    /// What came on top of `earlier`.
    fn since(self, earlier: Self) -> Self {
        Self {
            in_msgs: self.in_msgs.saturating_sub(earlier.in_msgs),
            in_bytes: self.in_bytes.saturating_sub(earlier.in_bytes),
            out_msgs: self.out_msgs.saturating_sub(earlier.out_msgs),
            out_bytes: self.out_bytes.saturating_sub(earlier.out_bytes),
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.in_msgs += other.in_msgs;
        self.in_bytes += other.in_bytes;
        self.out_msgs += other.out_msgs;
        self.out_bytes += other.out_bytes;
    }
}

/// What is kept of an account's past.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Past {
    pub(crate) traffic: Traffic,
    /// Logins.
    pub(crate) connections: u64,
    /// Connections that were ended because they did not take what they subscribed to.
    pub(crate) slow_consumers: u64,
}

/// The past of all accounts by name. It is kept with the list of connections, so that a connection is seen either there or here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub(crate) accounts: FxHashMap<Arc<str>, Past>,
    /// Of connections that never had an account.
    pub(crate) others: Past,
}

impl Totals {
    fn past(&mut self, account: Option<&Arc<str>>) -> &mut Past {
        match account {
            Some(name) => self.accounts.entry(Arc::clone(name)).or_default(),
            None => &mut self.others,
        }
    }

    /// A connection has got an account.
    pub(crate) fn entered(&mut self, account: &Arc<str>) {
        self.past(Some(account)).connections += 1;
    }

    /// A connection has no place in its account any more: it ended, or goes to another one.
    pub(crate) fn left(&mut self, account: Option<&Arc<str>>, conn: &Conn) {
        let now = Traffic::of(conn);
        let mut rare = conn.rare.lock();
        let is_slow = rare.close.as_ref().is_some_and(|reason| reason.starts_with(SLOW_CONSUMER));
        let before = rare.counted.replace(Box::new(now)).map(|before| *before).unwrap_or_default();
        drop(rare);
        let past = self.past(account);
        past.traffic += now.since(before);
        past.slow_consumers += u64::from(is_slow);
    }
}

/// Figures of one account since the broker's start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccountStats {
    /// Name of the account.
    pub name: String,
    /// Present connections.
    pub connections: usize,
    /// Present subscriptions, those of receivers inside the broker's process included.
    pub subscriptions: usize,
    /// Messages that its clients have published.
    pub in_msgs: u64,
    /// Their headers and payloads in bytes.
    pub in_bytes: u64,
    /// Messages that its clients got.
    pub out_msgs: u64,
    /// Their headers and payloads in bytes.
    pub out_bytes: u64,
    /// Connections that were ended because they did not take what they had subscribed to.
    pub slow_consumers: u64,
    /// Logins, those of ended connections included.
    pub total_connections: u64,
}

impl Shared {
    /// A connection goes to another account: what it carried so far counts for the old one.
    pub(crate) fn change_account(&self, conn: &Conn, old: u32) {
        let name = Arc::clone(&self.live().accounts[old as usize].name);
        self.roster.lock().totals.left(Some(&name), conn);
    }

    /// The connections, and the past of those that are not among them.
    pub(crate) fn conns_and_totals(&self) -> (Vec<Arc<Conn>>, Totals) {
        let roster = self.roster.lock();
        (roster.all.values().cloned().collect(), roster.totals.clone())
    }

    /// What all connections have carried that are or were.
    pub(crate) fn traffic(&self) -> Traffic {
        let (conns, totals) = self.conns_and_totals();
        let mut sum = totals.others.traffic;
        for past in totals.accounts.values() {
            sum += past.traffic;
        }
        for conn in conns {
            sum += unaccounted(&conn);
        }
        sum
    }
}

/// What a connection has carried in the account that it is in.
fn unaccounted(conn: &Conn) -> Traffic {
    let now = Traffic::of(conn);
    let before = conn.rare.lock().counted.as_deref().copied().unwrap_or_default();
    now.since(before)
}

/// Figures of all accounts, in the order of the configuration.
pub(crate) fn account_stats(shared: &Shared) -> Vec<AccountStats> {
    let (conns, mut totals) = shared.conns_and_totals();
    let mut present: FxHashMap<u32, Traffic> = FxHashMap::default();
    for conn in &conns {
        let account = conn.rare.lock().account;
        if let Some(account) = account {
            *present.entry(account).or_default() += unaccounted(conn);
        }
    }
    let figures = |(number, account): (usize, &crate::account::Account)| {
        let past = totals.accounts.remove(&account.name).unwrap_or_default();
        let mut traffic = past.traffic;
        traffic += present.get(&(number as u32)).copied().unwrap_or_default();
        AccountStats {
            name: account.name.to_string(),
            connections: account.state.connections.load(Ordering::Relaxed),
            subscriptions: account.state.index.read().len(),
            in_msgs: traffic.in_msgs,
            in_bytes: traffic.in_bytes,
            out_msgs: traffic.out_msgs,
            out_bytes: traffic.out_bytes,
            slow_consumers: past.slow_consumers,
            total_connections: past.connections,
        }
    };
    let live = shared.live();
    live.accounts.iter().enumerate().filter(|(_, account)| !account.is_removed).map(figures).collect()
}

impl Broker {
    /// Figures of every account since the start, ended connections included, in the order of the configuration. Adds up
    /// all connections when it is called: meant for a look now and then, not for every message.
    pub fn account_stats(&self) -> Vec<AccountStats> {
        account_stats(&self.shared)
    }
}
