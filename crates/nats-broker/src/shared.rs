//! The running broker: everything that its connections, timers and handles share.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use parking_lot::Mutex;
use rand::Rng;
use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Observer, Refusal};
use crate::claims::Claims;
use crate::conn::{Conn, Hub};
use crate::io::Engine;
use crate::live::Live;
use crate::monitor::{ClosedConnection, CpuMeter};
use crate::resumption::with_tickets;
use crate::subscription::Subscription;
use crate::sys::System;
use crate::totals::Totals;
use crate::turns::Turns;

/// A listening socket as it runs.
#[derive(Debug)]
pub(crate) struct RunningListener {
    pub(crate) addr: SocketAddr,
    /// TLS for connections from now on.
    pub(crate) tls: ArcSwapOption<rustls::ServerConfig>,
}

impl RunningListener {
    pub(crate) fn new(addr: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        Self { addr, tls: ArcSwapOption::new(tls.map(with_tickets)) }
    }

    /// New TLS settings. Sessions that began under the old ones are not resumed.
    pub(crate) fn set_tls(&self, tls: Option<Arc<rustls::ServerConfig>>) {
        self.tls.store(tls.map(with_tickets));
    }
}

/// The connections.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    pub(crate) all: FxHashMap<u64, Arc<Conn>>,
    /// Those of them that have not logged in yet; the oldest has the smallest number.
    newcomers: BTreeSet<u64>,
    /// What those have carried that are gone.
    pub(crate) totals: Totals,
}

impl Roster {
    /// Takes a connection out; `false`: it was not in.
    pub(crate) fn remove(&mut self, cid: u64) -> bool {
        self.newcomers.remove(&cid);
        self.all.remove(&cid).is_some()
    }
}

/// The running broker.
pub(crate) struct Shared {
    /// Settings, accounts and authenticator, replaced as a whole.
    pub(crate) live: ArcSwap<Live>,
    pub(crate) server_id: String,
    pub(crate) server_name: String,
    pub(crate) started: SystemTime,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) hub: Arc<Hub>,
    /// What serves the connections.
    pub(crate) engine: Engine,
    pub(crate) claims: Claims,
    pub(crate) roster: Mutex<Roster>,
    /// Who may compute handshakes.
    pub(crate) turns: Arc<Turns>,
    pub(crate) closed: Mutex<VecDeque<Arc<ClosedConnection>>>,
    pub(crate) total_connections: AtomicU64,
    next_cid: AtomicU64,
    pub(crate) system_sequence: AtomicU64,
    pub(crate) listeners: OnceLock<Vec<RunningListener>>,
    pub(crate) tasks: TaskTracker,
    /// The tasks of connections.
    pub(crate) connections: TaskTracker,
    /// The tasks that accept connections.
    pub(crate) acceptors: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// Ends the listeners.
    pub(crate) accepting: CancellationToken,
    pub(crate) is_lame_duck: AtomicBool,
    pub(crate) http_requests: Mutex<std::collections::BTreeMap<&'static str, u64>>,
    pub(crate) cpu: CpuMeter,
    pub(crate) system: System,
}

impl Shared {
    pub(crate) fn new(
        live: Live,
        observer: Arc<dyn Observer>,
        hub: Arc<Hub>,
        engine: Engine,
        server_id: String,
    ) -> Self {
        let config = &live.config;
        let stop = CancellationToken::new();
        let server_name = if config.server_name.is_empty() { server_id.clone() } else { config.server_name.clone() };
        Self {
            server_id,
            server_name,
            started: SystemTime::now(),
            observer,
            hub,
            engine,
            claims: Claims::default(),
            roster: Mutex::default(),
            // Outside a runtime there is nobody to take turns with.
            turns: Turns::new(Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers())),
            closed: Mutex::new(VecDeque::new()),
            total_connections: AtomicU64::new(0),
            next_cid: AtomicU64::new(0),
            system_sequence: AtomicU64::new(0),
            listeners: OnceLock::new(),
            tasks: TaskTracker::new(),
            connections: TaskTracker::new(),
            acceptors: TaskTracker::new(),
            accepting: stop.child_token(),
            stop,
            is_lame_duck: AtomicBool::new(false),
            http_requests: Mutex::default(),
            cpu: CpuMeter::default(),
            system: System::default(),
            live: ArcSwap::from_pointee(live),
        }
    }

    pub(crate) fn listeners(&self) -> &[RunningListener] {
        self.listeners.get().map_or(&[], Vec::as_slice)
    }

    /// What is in force now. Not to be held across a wait: load it anew behind one.
    pub(crate) fn live(&self) -> Guard<Arc<Live>> {
        self.live.load()
    }

    /// A connection id, unique in this broker's life.
    pub(crate) fn next_cid(&self) -> u64 {
        self.next_cid.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn account_number(&self, name: &str) -> Option<u32> {
        self.live().account_number(name)
    }

    pub(crate) fn conn(&self, cid: u64) -> Option<Arc<Conn>> {
        self.roster.lock().all.get(&cid).cloned()
    }

    /// All connections, oldest first.
    pub(crate) fn all_conns(&self) -> Vec<Arc<Conn>> {
        let mut all: Vec<Arc<Conn>> = self.roster.lock().all.values().cloned().collect();
        all.sort_unstable_by_key(|conn| conn.cid);
        all
    }

    /// Adds a connection; a newcomer has yet to shake hands or to log in. When there are too many, the newcomer that has
    /// been at it for longest has to go; `false`: all have logged in, there is no room.
    pub(crate) fn admit(&self, conn: &Arc<Conn>, is_newcomer: bool) -> bool {
        self.total_connections.fetch_add(1, Ordering::Relaxed);
        let most = self.live().config.max_connections;
        let mut roster = self.roster.lock();
        let mut crowded_out = None;
        if roster.all.len() >= most {
            let Some(oldest) = roster.newcomers.pop_first() else { return false };
            crowded_out = roster.all.remove(&oldest);
        }
        roster.all.insert(conn.cid, Arc::clone(conn));
        if is_newcomer {
            roster.newcomers.insert(conn.cid);
        }
        drop(roster);
        if let Some(conn) = crowded_out {
            self.crowd_out(&conn, &format!("the limit of {most} connections is reached"));
        }
        true
    }

    /// Makes room for others when there are no file descriptors: ends the newcomer that has been at it for longest.
    pub(crate) fn make_room(&self) {
        let mut roster = self.roster.lock();
        let oldest = roster.newcomers.pop_first();
        let conn = oldest.and_then(|oldest| roster.all.remove(&oldest));
        drop(roster);
        if let Some(conn) = conn {
            self.crowd_out(&conn, "there are no more file descriptors");
        }
    }

    /// Ends a connection that never logged in, without last words: its socket is needed.
    fn crowd_out(&self, conn: &Conn, why: &str) {
        let waited = conn.started.elapsed().unwrap_or_default();
        let refusal = Refusal {
            reason: "crowded_out",
            detail: format!("{why} and this one had not logged in for {waited:.1?}"),
            claimed: None,
        };
        self.observer.refused(conn.remote, &refusal);
        conn.close("Crowded Out");
        conn.shut_socket();
    }

    /// A connection has logged in.
    pub(crate) fn settle(&self, cid: u64) {
        self.roster.lock().newcomers.remove(&cid);
    }

    /// Takes a connection out and keeps what it has carried; `false`: it was not in.
    pub(crate) fn depart(&self, conn: &Conn, account: Option<u32>) -> bool {
        let name = account.map(|number| Arc::clone(&self.live().accounts[number as usize].name));
        let mut roster = self.roster.lock();
        let was_in = roster.remove(conn.cid);
        if was_in || name.is_some() {
            roster.totals.left(name.as_ref(), conn);
        }
        was_in
    }

    /// Takes a subscription out of the index and of its connection's table; `false`: somebody else has ended it before.
    pub(crate) fn end_subscription(&self, sub: &Arc<Subscription>) -> bool {
        let removed = self.live().accounts[sub.account as usize].state.index.write().remove(sub);
        if let Some(conn) = sub.conn() {
            conn.rare.lock().subs.remove_same(sub);
        }
        removed
    }

    /// Takes all subscriptions of a connection out.
    pub(crate) fn end_subscriptions(&self, conn: &Arc<Conn>) {
        let subs = conn.rare.lock().subs.take_all();
        let Some(first) = subs.first() else { return };
        let live = self.live();
        let mut index = live.accounts[first.account as usize].state.index.write();
        for sub in &subs {
            index.remove(sub);
        }
    }

    /// Host and port that clients are told.
    pub(crate) fn advertised(&self, listener: usize) -> (String, u16) {
        let live = self.live();
        let own = live.config.listen.get(listener);
        // WebSocket clients must not be sent to the address of the others.
        let of_all = live.config.client_advertise.as_ref().filter(|_| own.is_none_or(|own| own.websocket.is_none()));
        if let Some(advertise) = own.and_then(|own| own.advertise.as_ref()).or(of_all) {
            return match advertise.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
                Some((host, Ok(port))) => (host.trim_matches(['[', ']']).to_owned(), port),
                _ => (advertise.clone(), self.listeners().get(listener).map_or(0, |listener| listener.addr.port())),
            };
        }
        match self.listeners().get(listener) {
            Some(listener) => (listener.addr.ip().to_string(), listener.addr.port()),
            None => (String::new(), 0),
        }
    }

    pub(crate) fn host(&self) -> String {
        self.advertised(0).0
    }
}

/// `N` and 55 random characters: the form of nats-server's ids.
pub(crate) fn new_server_id() -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut random = rand::rng();
    let mut id = String::with_capacity(56);
    id.push('N');
    id.extend((0..55).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])));
    id
}
