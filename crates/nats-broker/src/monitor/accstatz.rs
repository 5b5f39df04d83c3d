//! `/accstatz`, and figures of accounts and of the broker in the shapes of `$SYS` answers.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde::Serialize;

use super::rfc3339;
use crate::shared::Shared;
use crate::totals::{AccountStats, account_stats};

/// Messages and bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Amount {
    /// Messages.
    pub msgs: u64,
    /// Headers and payloads in bytes.
    pub bytes: u64,
}

/// Messages and bytes of one direction, and how much of it went between brokers: nothing does here.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /accstatz")]
pub struct DirectionStatz {
    pub msgs: u64,
    pub bytes: u64,
    pub gateways: Amount,
    pub routes: Amount,
    pub leafs: Amount,
}

/// Figures of one account.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /accstatz")]
pub struct AccountStatz {
    pub acc: String,
    pub name: String,
    pub conns: usize,
    pub leafnodes: usize,
    /// Connections of all kinds that are there now.
    pub total_conns: usize,
    pub num_subscriptions: usize,
    /// What its clients got.
    pub sent: DirectionStatz,
    /// What its clients have published.
    pub received: DirectionStatz,
    pub slow_consumers: u64,
}

impl From<AccountStats> for AccountStatz {
    fn from(stats: AccountStats) -> Self {
        let direction = |msgs, bytes| DirectionStatz { msgs, bytes, ..DirectionStatz::default() };
        Self {
            acc: stats.name.clone(),
            name: stats.name,
            conns: stats.connections,
            leafnodes: 0,
            total_conns: stats.connections,
            num_subscriptions: stats.subscriptions,
            sent: direction(stats.out_msgs, stats.out_bytes),
            received: direction(stats.in_msgs, stats.in_bytes),
            slow_consumers: stats.slow_consumers,
        }
    }
}

/// Figures of accounts.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /accstatz")]
pub struct Accstatz {
    pub server_id: String,
    pub now: String,
    pub account_statz: Vec<AccountStatz>,
}

/// Figures of some accounts, `None` = of all; of those without connections only when `unused`.
pub(crate) fn account_statz(shared: &Shared, chosen: Option<&[&str]>, unused: bool) -> Vec<AccountStatz> {
    let is_chosen = |name: &str| chosen.is_none_or(|chosen| chosen.contains(&name));
    let figures = account_stats(shared).into_iter();
    figures
        .filter(|stats| is_chosen(&stats.name) && (unused || stats.connections > 0))
        .map(AccountStatz::from)
        .collect()
}

pub(crate) fn accstatz(shared: &Shared, chosen: Option<&[&str]>, unused: bool) -> Accstatz {
    Accstatz {
        server_id: shared.server_id.clone(),
        now: rfc3339(SystemTime::now()),
        account_statz: account_statz(shared, chosen, unused),
    }
}

/// Figures of the broker, as told every ten seconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Statsz {
    start: String,
    mem: u64,
    cores: usize,
    #[serde(serialize_with = "super::process::as_go")]
    cpu: f64,
    connections: usize,
    total_connections: u64,
    active_accounts: usize,
    subscriptions: usize,
    sent: Amount,
    sent_to_clients: Amount,
    received: Amount,
    received_from_clients: Amount,
    slow_consumers: u64,
    active_servers: usize,
    gomaxprocs: usize,
}

pub(crate) fn statsz(shared: &Shared) -> Statsz {
    let traffic = shared.traffic();
    let sent = Amount { msgs: traffic.out_msgs, bytes: traffic.out_bytes };
    let received = Amount { msgs: traffic.in_msgs, bytes: traffic.in_bytes };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let live = shared.live();
    let is_active = |account: &&crate::account::Account| account.state.connections.load(Ordering::Relaxed) > 0;
    Statsz {
        start: rfc3339(shared.started),
        mem: super::process::resident_bytes(),
        cores,
        cpu: shared.cpu.percent(),
        connections: shared.roster.lock().all.len(),
        total_connections: shared.total_connections.load(Ordering::Relaxed),
        active_accounts: live.accounts.iter().filter(is_active).count(),
        subscriptions: live.accounts.iter().map(|account| account.state.index.read().len()).sum(),
        sent,
        sent_to_clients: sent,
        received,
        received_from_clients: received,
        slow_consumers: shared.hub.slow_consumers.load(Ordering::Relaxed),
        active_servers: 1,
        gomaxprocs: cores,
    }
}
