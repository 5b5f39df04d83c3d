//! What the broker tells of itself and of its accounts, in the system account: `$SYS.SERVER.<id>.…` and
//! `$SYS.ACCOUNT.<account>.SERVER.CONNS`. It costs nothing while nobody listens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rand::Rng;
use rand::distr::Alphanumeric;
use rustc_hash::FxHashSet;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ServerObject;
use crate::monitor::{AccountStatz, Statsz, account_statz, rfc3339, statsz};
use crate::shared::Shared;

/// When the figures of the broker are told first and how long the next few take; then every [`LONGEST_WAIT`].
const FIRST_WAITS: [u64; 5] = [250, 1000, 2000, 4000, 8000];
/// Time between two reports of the broker's figures.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Shortest time between two reports of how many connections accounts have: each adds up all of them.
const CONNS_PAUSE: Duration = Duration::from_millis(100);

/// What waits to be told.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Accounts whose connections have become more or fewer.
    changed: Mutex<FxHashSet<u32>>,
    bell: Notify,
}

/// Figures of the broker.
#[derive(Debug, Serialize)]
pub(super) struct StatszMessage {
    pub(super) server: ServerObject,
    pub(super) statsz: Statsz,
}

/// How many connections an account has. Key order is that of nats-server.
#[derive(Debug, Serialize)]
pub(super) struct ConnsMessage {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    timestamp: String,
    server: ServerObject,
    #[serde(flatten)]
    figures: AccountStatz,
}

impl ConnsMessage {
    pub(super) fn new(shared: &Shared, figures: AccountStatz) -> Self {
        let now = SystemTime::now();
        Self {
            kind: "io.nats.server.advisory.v1.account_connections",
            id: event_id(),
            timestamp: rfc3339(now),
            server: shared.server_object(now),
            figures,
        }
    }
}

/// A unique text in the form of nats-server's ids.
pub(crate) fn event_id() -> String {
    rand::rng().sample_iter(Alphanumeric).take(22).map(char::from).collect()
}

/// The subjects of an account's number of connections.
fn conns_subjects(account: &str) -> [String; 2] {
    [format!("$SYS.SERVER.ACCOUNT.{account}.CONNS"), format!("$SYS.ACCOUNT.{account}.SERVER.CONNS")]
}

/// An account has more or fewer connections.
pub(crate) fn connections_changed(shared: &Shared, account: u32) {
    let Some(system) = shared.live().system_account() else { return };
    let name = Arc::clone(&shared.live().accounts[account as usize].name);
    if conns_subjects(&name).iter().any(|subject| shared.is_heard(system, subject)) {
        let events = &shared.system.events;
        events.changed.lock().insert(account);
        events.bell.notify_one();
    }
}

/// Tells in the system account that this broker is about to go: `word` is `SHUTDOWN` or `LAMEDUCK`.
pub(crate) fn going(shared: &Shared, word: &str) {
    let Some(system) = shared.live().system_account() else { return };
    let subject = format!("$SYS.SERVER.{}.{word}", shared.server_id);
    if shared.is_heard(system, &subject)
        && let Ok(content) = serde_json::to_vec(&shared.server_object(SystemTime::now()))
    {
        shared.tell(system, &subject, &content);
    }
}

/// When what is due.
pub(super) struct Pulse {
    statsz_at: Instant,
    waits: std::iter::Copied<std::slice::Iter<'static, u64>>,
    conns_from: Instant,
}

/// What to tell now.
pub(super) struct Beat {
    statsz: bool,
    conns: Vec<u32>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        let mut waits = FIRST_WAITS.iter().copied();
        let first = waits.next().map_or(LONGEST_WAIT, Duration::from_millis);
        Self { statsz_at: Instant::now() + first, waits, conns_from: Instant::now() }
    }

    /// Waits until something is to be told.
    pub(super) async fn due(&self, shared: &Shared) {
        let events = &shared.system.events;
        let changed = async {
            while events.changed.lock().is_empty() {
                events.bell.notified().await;
            }
            tokio::time::sleep_until(self.conns_from).await;
        };
        tokio::select! {
            () = tokio::time::sleep_until(self.statsz_at) => {}
            () = changed => {}
        }
    }

    /// Takes what is due.
    pub(super) fn take(&mut self, shared: &Shared) -> Beat {
        let now = Instant::now();
        let statsz = now >= self.statsz_at;
        if statsz {
            self.statsz_at = now + self.waits.next().map_or(LONGEST_WAIT, Duration::from_millis);
        }
        let mut conns = Vec::new();
        if now >= self.conns_from {
            conns.extend(shared.system.events.changed.lock().drain());
            if !conns.is_empty() {
                self.conns_from = now + CONNS_PAUSE;
            }
        }
        Beat { statsz, conns }
    }
}

impl Beat {
    pub(super) fn carry_out(self, shared: &Shared) {
        let Some(system) = shared.live().system_account() else { return };
        if self.statsz {
            let subject = format!("$SYS.SERVER.{}.STATSZ", shared.server_id);
            if shared.is_heard(system, &subject) {
                let message = StatszMessage { server: shared.server_object(SystemTime::now()), statsz: statsz(shared) };
                if let Ok(content) = serde_json::to_vec(&message) {
                    shared.tell(system, &subject, &content);
                }
            }
        }
        if self.conns.is_empty() {
            return;
        }
        let live = shared.live();
        let chosen: Vec<&str> = self.conns.iter().map(|number| &*live.accounts[*number as usize].name).collect();
        for figures in account_statz(shared, Some(&chosen), true) {
            let subjects = conns_subjects(&figures.acc);
            let Ok(content) = serde_json::to_vec(&ConnsMessage::new(shared, figures)) else { continue };
            for subject in subjects {
                shared.tell(system, &subject, &content);
            }
        }
    }
}
