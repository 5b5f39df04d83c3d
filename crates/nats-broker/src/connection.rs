//! The async shell of one connection: greeting, serving, waiting for the authenticator, ending.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::auth::Refusal;
use crate::authorize::authorize;
use crate::conn::{Conn, Link, flag};
use crate::io::Socket;
use crate::opening::greets_first;
use crate::outbox::Outbox;
use crate::reader::{Reader, Step};
use crate::route::STALL;
use crate::session::Session;
use crate::shared::Shared;
use crate::timers::Timer;

/// Full reads in a row after which others come first. Each turn wakes another thread, so not after every one.
const FULL_READS: u32 = 4;
/// How long a publisher waits in one go for targets that are far behind.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
/// From this many publishers on, a pause for one target gets no longer.
const LARGEST_CROWD: u32 = 32;
/// How long an ended connection may still drain, so that its last words are not lost to a reset.
const LINGER: Duration = Duration::from_millis(250);

/// Serves one accepted socket until it ends. What is set up here is not part of the future, which lives as long as
/// the connection and is kept small.
pub(crate) fn serve(
    shared: &Arc<Shared>,
    socket: Arc<Socket>,
    remote: SocketAddr,
    listener: usize,
) -> impl Future<Output = ()> + Send + use<> {
    let running = shared.listeners().get(listener);
    let tls_config = running.and_then(|listener| listener.tls.load_full());
    let conn = Arc::new(Conn::new(
        shared.next_cid(),
        Some(remote),
        Link::Tcp(Arc::clone(&socket)),
        Arc::clone(&shared.hub),
        Outbox::default(),
    ));
    let live = shared.live();
    let config = live.config.listen.get(listener);
    let greets_first = config.is_none_or(|listener| greets_first(listener, tls_config.is_some()));
    let has_handshake = tls_config.is_some() || config.is_some_and(|listener| listener.websocket.is_some());
    let is_newcomer = has_handshake || live.authenticator.auth_required_on(listener);
    let is_admitted = shared.admit(&conn, is_newcomer);
    let session = Session::new(Arc::clone(shared), Arc::clone(&conn), listener);
    let nonce = live.authenticator.wants_nonce().then(new_nonce);
    let mut served = Served {
        has_left: false,
        has_greeted: false,
        session,
        reader: Reader::new(socket),
        nonce: nonce.map(String::into_boxed_str),
    };
    if greets_first {
        served.greet();
    }
    if !is_admitted {
        if !greets_first {
            // There is no TLS yet to say it in.
            conn.outbox.lock().abandon();
        }
        let refusal = Refusal {
            reason: "max_connections",
            detail: format!("the limit of {} connections is reached", live.config.max_connections),
            claimed: None,
        };
        served.session.refuse(&refusal, "maximum connections exceeded", "Maximum Connections Exceeded");
    }
    async move {
        if is_admitted && Box::pin(served.establish(tls_config)).await {
            served.session.shared.settle(served.session.conn.cid);
            served.run().await;
        }
        Box::pin(served.finish()).await;
    }
}

/// 11 random bytes as nats-server offers them.
fn new_nonce() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 11]>())
}

/// A connection as its task holds it.
pub(crate) struct Served {
    /// Whether the connection was taken out of everything.
    has_left: bool,
    /// Whether INFO was sent.
    pub(crate) has_greeted: bool,
    pub(crate) session: Session,
    pub(crate) reader: Reader,
    nonce: Option<Box<str>>,
}

impl Served {
    /// Sends INFO.
    pub(crate) fn greet(&mut self) {
        self.has_greeted = true;
        let line = self.session.info(self.nonce.as_deref().map(str::to_owned)).to_line();
        self.session.conn.append(|out| out.extend_from_slice(&line));
        self.session.conn.flush();
    }

    /// Everything up to an account; `false` when the connection is over.
    async fn establish(&mut self, tls_config: Option<Arc<rustls::ServerConfig>>) -> bool {
        let shared = Arc::clone(&self.session.shared);
        if !self.open(tls_config).await {
            return false;
        }
        self.reader.resume = true;
        if !shared.live().authenticator.auth_required_on(self.session.listener) {
            return true;
        }
        let timeout = shared.live().config.auth_timeout;
        let deadline = Instant::now() + timeout;
        while !self.session.has_rights() {
            let step = tokio::time::timeout_at(deadline, self.step()).await;
            match step {
                Err(_) => {
                    let refusal = Refusal {
                        reason: "auth_timeout",
                        detail: format!("no CONNECT within {timeout:?}"),
                        claimed: None,
                    };
                    self.session.refuse(&refusal, "Authentication Timeout", "Authentication Timeout");
                    return false;
                }
                Ok(Step::Closed) => return false,
                Ok(Step::Authenticate(mut connect)) => {
                    self.reader.resume = true;
                    self.reader.fill_credentials(&mut connect);
                    if !authorize(&mut self.session, *connect, deadline, self.nonce.as_deref()).await {
                        return false;
                    }
                }
                Ok(Step::Again { .. } | Step::Stalled(_)) => {}
            }
        }
        true
    }

    async fn step(&mut self) -> Step {
        poll_fn(|cx| self.reader.poll_step(&mut self.session, cx)).await
    }

    /// The established connection.
    async fn run(&mut self) {
        let shared = Arc::clone(&self.session.shared);
        let interval = shared.live().config.ping_interval.as_millis() as u64;
        // A little spread keeps a mass reconnect from being answered with a mass of PINGs.
        let first = interval.min(2000 + self.session.conn.cid % 200);
        shared.hub.timers.at(shared.hub.timers.now() + first, self.session.conn.cid, Timer::Ping);
        let mut full = 0;
        loop {
            match self.step().await {
                Step::Again { was_full: false } => full = 0,
                Step::Again { was_full: true } => {
                    full += 1;
                    if full == FULL_READS {
                        full = 0;
                        tokio::task::yield_now().await;
                    }
                }
                Step::Stalled(targets) => Box::pin(pause(&self.session.conn, targets)).await,
                Step::Authenticate(mut connect) => {
                    self.reader.resume = true;
                    self.reader.fill_credentials(&mut connect);
                    let deadline = Instant::now() + shared.live().config.auth_timeout;
                    if !Box::pin(authorize(&mut self.session, *connect, deadline, self.nonce.as_deref())).await {
                        return;
                    }
                }
                Step::Closed => return,
            }
        }
    }

    /// Takes the connection out of everything and lets its last words drain.
    async fn finish(&mut self) {
        let conn = Arc::clone(&self.session.conn);
        self.leave("Client Closed");
        let reader = &mut self.reader;
        let is_over = tokio::time::timeout(LINGER, async {
            while !conn.end_output() {
                if !conn.has(flag::WANTS_WRITE) {
                    // Another thread is in the middle of a write.
                    tokio::task::yield_now().await;
                    continue;
                }
                if poll_fn(|cx| reader.socket.poll_write_ready(cx)).await.is_err() {
                    return;
                }
                conn.resume_writing();
            }
            let mut sink = [0; 2048];
            loop {
                match poll_fn(|cx| reader.socket.poll_read(&mut sink, cx)).await {
                    Ok(read) if read > 0 => {}
                    _ => return,
                }
            }
        });
        let _ = is_over.await;
        conn.shut_socket();
    }

    fn leave(&mut self, reason: &'static str) {
        self.session.conn.close(reason);
        if !std::mem::replace(&mut self.has_left, true) {
            crate::authorize::leave(&self.session);
        }
    }
}

impl Drop for Served {
    /// Whatever ends the task, the connection does not stay behind in the broker.
    fn drop(&mut self) {
        if !self.has_left {
            self.leave("Internal Error");
            self.session.conn.shut_socket();
        }
    }
}

/// Publishers in the pause for one connection; counts itself out however the pause ends.
struct Crowd<'a>(&'a [Arc<Conn>]);

impl<'a> Crowd<'a> {
    /// Joins the crowds of these targets, and says how large the largest is.
    fn join(targets: &'a [Arc<Conn>]) -> (Self, u32) {
        let sizes = targets.iter().map(|target| target.crowd.fetch_add(1, Ordering::Relaxed) + 1);
        let largest = sizes.fold(1, u32::max);
        (Self(targets), largest)
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        for target in self.0 {
            target.crowd.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Waits until the targets have caught up, but not for long: beyond that the bound of their outboxes counts. The more
/// publishers wait for one target the longer each of them does, so that all together send it no more than one would.
async fn pause(conn: &Conn, targets: SmallVec<[Arc<Conn>; 2]>) {
    let hub = &conn.hub;
    hub.stalled.fetch_add(1, Ordering::Relaxed);
    let (_crowd, size) = Crowd::join(&targets);
    let deadline = Instant::now() + LONGEST_PAUSE * size.min(LARGEST_CROWD);
    loop {
        let caught_up = hub.caught_up.notified();
        tokio::pin!(caught_up);
        caught_up.as_mut().enable();
        let is_behind = targets.iter().any(|target| {
            target.set(flag::STALLING);
            let outbox = target.outbox.lock();
            !outbox.gone && outbox.pending() > STALL / 2
        });
        if !is_behind || tokio::time::timeout_at(deadline, caught_up).await.is_err() {
            return;
        }
    }
}
