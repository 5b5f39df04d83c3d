//! Starting, holding and stopping a broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use nats_proto::subject::{is_valid_filter, is_valid_publish};
use nats_proto::{HeaderMap, encode};
use smallvec::SmallVec;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::auth::{Authenticator, Observer, PublishGuard};
use crate::config::{AccountConfig, BrokerConfig, StartError};
use crate::conn::{Conn, Hub, flag};
use crate::descriptors;
use crate::io::Engine;
use crate::latency::report_unanswered;
use crate::live::Live;
use crate::local::{LocalSink, LocalSubscription};
use crate::route::{Message, Router, Run, Tick};
use crate::shared::{RunningListener, Shared, new_server_id};
use crate::subscription::{Sid, Sink, Special, Subscription};
use crate::timers::{Timer, Timers};

/// Connections that may wait to be accepted: a whole fleet reconnects at once.
const BACKLOG: i32 = 4096;
/// How long nobody is accepted when the system refuses to.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a stopping broker waits for its connections to drain.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A handle to a running broker. Clones refer to the same broker; it runs until [`Broker::shutdown`].
#[derive(Clone)]
pub struct Broker {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("server_id", &self.shared.server_id).finish_non_exhaustive()
    }
}

/// Why a message or subscription from inside was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// There is no such account.
    #[error("there is no account {0:?}")]
    UnknownAccount(String),
    /// Not a subject or filter.
    #[error("{0:?} is not a valid subject")]
    BadSubject(String),
    /// More than `max_payload`.
    #[error("a message of {size} bytes is larger than max_payload {max}")]
    TooLarge {
        /// Size of headers and payload.
        size: usize,
        /// The limit.
        max: usize,
    },
}

/// One connection, as [`Broker::connections`] lists it.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Connection id.
    pub cid: u64,
    /// Address of the peer.
    pub remote: Option<SocketAddr>,
    /// Connection name from CONNECT.
    pub name: String,
    /// User from the grant.
    pub user: Option<String>,
    /// Tag from the grant.
    pub tag: Option<Arc<str>>,
    /// When it was accepted.
    pub started: SystemTime,
    /// Its subscriptions.
    pub subscriptions: Vec<String>,
}

impl Broker {
    /// Opens the listeners and starts serving on the current tokio runtime.
    ///
    /// Raises the limit of open files of this process as far as it may be, and warns when `max_connections` do not fit.
    /// TLS sessions are resumed by tickets unless a listener's settings say `send_tls13_tickets: 0`: a resumed session shows
    /// the authenticator the certificates of the first one, provided that they have not expired.
    ///
    /// # Errors
    /// A listener cannot be opened, or the accounts do not fit together; nothing runs then.
    pub fn start(
        config: BrokerConfig,
        accounts: Vec<AccountConfig>,
        authenticator: Arc<dyn Authenticator>,
        guards: Vec<Arc<dyn PublishGuard>>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(StartError::NoRuntime);
        }
        let live = Live::new(config, &accounts, authenticator, &guards, None)?;
        let config = &live.config;
        let hub = Arc::new(Hub {
            timers: Timers::new(),
            max_pending: AtomicUsize::new(config.max_pending),
            write_deadline_ms: AtomicU64::new(config.write_deadline.as_millis() as u64),
            slow_consumers: AtomicU64::new(0),
            stale_connections: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            caught_up: tokio::sync::Notify::new(),
        });
        let mut sockets = Vec::new();
        let mut listeners = Vec::new();
        for listener in &config.listen {
            let failed = |source| StartError::Listen { addr: listener.addr, source };
            let socket = listen(listener.addr).map_err(failed)?;
            let addr = socket.local_addr().map_err(failed)?;
            listeners.push(RunningListener::new(addr, listener.tls.clone()));
            sockets.push(socket);
        }
        descriptors::prepare(config.max_connections);
        let engine = Engine::start(config.io_engine).map_err(StartError::Engine)?;
        let shared = Arc::new(Shared::new(live, observer, hub, engine, new_server_id()));
        shared.listeners.set(listeners).expect("the listeners are set once");
        shared.tasks.spawn(watch_timers(Arc::clone(&shared)));
        shared.tasks.spawn(crate::sys::serve(Arc::clone(&shared)));
        for (number, socket) in sockets.into_iter().enumerate() {
            shared.acceptors.spawn(accept(Arc::clone(&shared), socket, number));
        }
        Ok(Self { shared })
    }

    /// The address of a listener, by its position in the configuration.
    pub fn local_addr(&self, listener: usize) -> Option<SocketAddr> {
        self.shared.listeners().get(listener).map(|listener| listener.addr)
    }

    /// The generated id of this broker.
    pub fn server_id(&self) -> &str {
        &self.shared.server_id
    }

    /// New TLS settings for connections from now on; established ones keep theirs, and sessions that began under the old ones
    /// are not resumed. `false`: no such listener, or one
    /// without TLS, which never gets it later.
    pub fn set_tls(&self, listener: usize, config: Arc<rustls::ServerConfig>) -> bool {
        match self.shared.listeners().get(listener) {
            Some(listener) if listener.tls.load().is_some() => {
                listener.set_tls(Some(config));
                true
            }
            _ => false,
        }
    }

    /// Publishes from inside: no permissions, no guards, no 503.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub fn publish(
        &self,
        account: &str,
        subject: &str,
        reply: Option<&str>,
        headers: Option<&HeaderMap>,
        payload: &[u8],
    ) -> Result<(), LocalError> {
        let live = self.shared.live();
        let number = live.account_number(account).ok_or_else(|| LocalError::UnknownAccount(account.to_owned()))?;
        if !is_valid_publish(subject) {
            return Err(LocalError::BadSubject(subject.to_owned()));
        }
        if let Some(reply) = reply
            && !is_valid_publish(reply)
        {
            return Err(LocalError::BadSubject(reply.to_owned()));
        }
        let mut content = Vec::new();
        if let Some(headers) = headers.filter(|headers| !headers.is_empty()) {
            headers.write_to(&mut content);
        }
        let header_len = content.len();
        content.extend_from_slice(payload);
        let max = live.config.max_payload;
        if content.len() > max {
            return Err(LocalError::TooLarge { size: content.len(), max });
        }
        let mut tail = Vec::with_capacity(content.len() + 48);
        encode::message_tail(&mut tail, reply.map(str::as_bytes), (header_len > 0).then_some(header_len), &content);
        let message = Message { reply, header_len, content: &content, tail: &tail };
        // A tick of its own: observers and guards may publish while a connection is being served.
        let mut tick = Tick::new(rand::random());
        tick.now = self.shared.hub.timers.now();
        let mut router = Router { shared: &self.shared, live: &live, tick: &mut tick, source: None, echo: true };
        let mapped = router.mapped(number, subject);
        // A cut that leaves nothing of a token leaves nobody who could listen.
        let subject = mapped.as_deref().unwrap_or(subject);
        if is_valid_publish(subject) {
            let run = Run { subject, messages: std::slice::from_ref(&message) };
            router.route(number, &mut None, &run, 1);
        }
        tick.finish(&self.shared, &mut SmallVec::new());
        Ok(())
    }

    /// Subscribes from inside. At most `capacity` messages wait for the reader; more are dropped and counted.
    ///
    /// # Errors
    /// See [`LocalError`].
    pub fn subscribe(&self, account: &str, filter: &str, capacity: usize) -> Result<LocalSubscription, LocalError> {
        let live = self.shared.live();
        let number = live.account_number(account).ok_or_else(|| LocalError::UnknownAccount(account.to_owned()))?;
        if !is_valid_filter(filter) {
            return Err(LocalError::BadSubject(filter.to_owned()));
        }
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let dropped = Arc::new(AtomicU64::new(0));
        let mut index = live.accounts[number as usize].state.index.write();
        let sink = Sink::Local(Box::new(LocalSink { sender, dropped: Arc::clone(&dropped) }));
        let subscription =
            Arc::new(Subscription::new(sink, Sid::new(b""), number, index.intern(filter), Special::default()));
        index.add(&subscription);
        drop(index);
        Ok(LocalSubscription {
            receiver,
            dropped,
            subscription: Arc::downgrade(&subscription),
            shared: Arc::downgrade(&self.shared),
        })
    }

    /// Ends a connection; `false` when there is none of this id. The reason shows in monitoring and to the observer.
    pub fn kick(&self, cid: u64, reason: &str) -> bool {
        let Some(conn) = self.shared.conn(cid) else {
            return false;
        };
        conn.close(reason.to_owned());
        true
    }

    /// The connections of an account, oldest first.
    pub fn connections(&self, account: &str) -> Vec<ConnectionInfo> {
        let Some(number) = self.shared.account_number(account) else {
            return Vec::new();
        };
        let conns = self.shared.all_conns();
        conns.iter().filter_map(|conn| connection_info(conn, number)).collect()
    }

    /// Stops accepting, ends all connections after what waits for them was written, and returns when all is done.
    pub async fn shutdown(&self) {
        if !self.shared.stop.is_cancelled() {
            crate::sys::events::going(&self.shared, "SHUTDOWN");
        }
        self.shared.stop.cancel();
        for conn in self.shared.all_conns() {
            conn.close("Server Shutdown");
        }
        self.end_local_subscriptions();
        let trackers = [&self.shared.acceptors, &self.shared.connections, &self.shared.tasks];
        let all_ended = async {
            for tracker in trackers {
                tracker.close();
                tracker.wait().await;
            }
        };
        if tokio::time::timeout(STOP_DEADLINE, all_ended).await.is_err() {
            tracing::warn!("connections did not end within {STOP_DEADLINE:?}");
        }
        self.shared.engine.stop();
    }

    /// Receivers inside this process see the end of their stream.
    fn end_local_subscriptions(&self) {
        for account in &self.shared.live().accounts {
            let mut local = Vec::new();
            account.state.index.read().for_each(|sub| {
                if sub.conn().is_none() {
                    local.push(Arc::clone(sub));
                }
            });
            for sub in local {
                self.shared.end_subscription(&sub);
            }
        }
    }
}

fn connection_info(conn: &Arc<Conn>, account: u32) -> Option<ConnectionInfo> {
    let rare = conn.rare.lock();
    if rare.account != Some(account) {
        return None;
    }
    Some(ConnectionInfo {
        cid: conn.cid,
        remote: conn.remote,
        name: rare.about.as_ref().map(|about| about.name.to_string()).unwrap_or_default(),
        user: rare.grant.as_ref().and_then(|grant| grant.user.clone()),
        tag: rare.grant.as_ref().and_then(|grant| grant.tag.clone()),
        started: conn.started,
        subscriptions: rare.subs.iter().map(|sub| sub.filter.to_string()).collect(),
    })
}

fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Restarts must not wait for old connections to time out.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, number: usize) {
    let mut failures: u64 = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.accepting.cancelled() => return,
        };
        match accepted {
            Ok((socket, remote)) => {
                // A listener on `::` gives clients of IPv4 addresses of IPv6, which no rule about networks would know.
                let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
                if failures > 0 {
                    tracing::info!(failures, "connections are accepted again");
                    failures = 0;
                }
                if let Err(error) = welcome(&shared, socket, remote, number) {
                    tracing::warn!(%error, %remote, "cannot serve a connection");
                }
            }
            Err(error) => {
                // Mostly out of file descriptors: who waits stays in the queue of the listener until others end. Told once,
                // not ten times a second.
                if failures == 0 {
                    let limit = descriptors::descriptor_limit().unwrap_or_default();
                    tracing::warn!(%error, limit, "cannot accept connections; raise the limit of open files if that is it");
                }
                failures += 1;
                if descriptors::are_used_up(&error) {
                    shared.make_room();
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn welcome(shared: &Arc<Shared>, socket: TcpStream, remote: SocketAddr, listener: usize) -> std::io::Result<()> {
    let socket = socket.into_std()?;
    // Nagle's algorithm would hold back every small answer.
    let _ = socket.set_nodelay(true);
    let socket = shared.engine.adopt(socket)?;
    let task = crate::connection::serve(shared, Arc::clone(&socket), remote, listener);
    shared.engine.spawn(&shared.connections, &socket, task)
}

/// Carries out the deadlines of established connections.
async fn watch_timers(shared: Arc<Shared>) {
    let mut due = Vec::new();
    loop {
        tokio::select! {
            () = shared.hub.timers.due(&mut due) => {}
            () = shared.stop.cancelled() => return,
        }
        let now = shared.hub.timers.now();
        for (cid, timer) in due.drain(..) {
            if timer == Timer::Unanswered {
                report_unanswered(&shared, cid as u32);
                continue;
            }
            let Some(conn) = shared.conn(cid).filter(|conn| !conn.has(flag::CLOSING)) else { continue };
            match timer {
                Timer::Ping => ping(&shared, &conn, now),
                Timer::Write => {
                    if conn.is_past_write_deadline(now) {
                        conn.drop_slow("Slow Consumer (Write Deadline)");
                    }
                }
                Timer::Expiry => expire(&shared, &conn),
                Timer::Unanswered => {}
            }
        }
    }
}

/// Asks a silent client whether it lives, or ends it when it did not answer often enough.
fn ping(shared: &Shared, conn: &Conn, now: u64) {
    let live = shared.live();
    let interval = live.config.ping_interval.as_millis() as u64;
    shared.hub.timers.at(now + interval, conn.cid, Timer::Ping);
    let is_silent = now.saturating_sub(conn.last_in.load(Ordering::Relaxed)) >= interval;
    let lacks_round_trip = conn.rtt_us.load(Ordering::Relaxed) == 0 && conn.has(flag::CONNECTED);
    if !is_silent {
        conn.pings_out.store(0, Ordering::Relaxed);
        if !lacks_round_trip {
            return;
        }
    }
    if conn.pings_out.load(Ordering::Relaxed) + 1 > live.config.ping_max {
        shared.hub.stale_connections.fetch_add(1, Ordering::Relaxed);
        conn.fail("Stale Connection", "Stale Connection");
        return;
    }
    conn.pings_out.fetch_add(1, Ordering::Relaxed);
    conn.ping_sent.store(now, Ordering::Relaxed);
    conn.append(|out| out.extend_from_slice(encode::PING));
    conn.flush();
}

fn expire(shared: &Shared, conn: &Conn) {
    // A further CONNECT may have brought a later end.
    let expires_at = conn.rare.lock().grant.as_ref().and_then(|grant| grant.expires_at);
    let Some(at) = expires_at else { return };
    match at.duration_since(SystemTime::now()) {
        Ok(left) if !left.is_zero() => shared.hub.timers.expire_in(left, conn.cid),
        _ => conn.fail("User Authentication Expired", "Authentication Expired"),
    }
}
