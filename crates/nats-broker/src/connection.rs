//! The async shell of one connection: greeting, reading, waiting for the authenticator, ending.
//!
//! Reading and everything that follows from it happen inside one poll, with buffers that belong to the thread,
//! so an idle connection owns nothing but its state.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nats_proto::Connect;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Instant;

use crate::auth::Refusal;
use crate::authorize::authorize;
use crate::conn::{Conn, Link, flag};
use crate::handshake::shake_hands;
use crate::outbox::Outbox;
use crate::route::{STALL, Tick};
use crate::session::{Next, Session};
use crate::shared::Shared;
use crate::timers::Timer;
use crate::tls::LARGEST_RECORD;

/// Most bytes taken from a socket in one read.
const CHUNK: usize = 64 << 10;
/// Full reads in a row after which others come first. Each turn wakes another thread, so not after every one.
const FULL_READS: u32 = 4;
/// A chunk behind the longest unfinished line, with room to spare.
const PLAIN: usize = 192 << 10;
/// How long a publisher waits in one go for targets that are far behind.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
/// How long an ended connection may still drain, so that its last words are not lost to a reset.
const LINGER: Duration = Duration::from_millis(250);

/// Memory of one thread, used by whichever connection is being served.
pub(crate) struct Worker {
    pub(crate) cipher: Box<[u8]>,
    pub(crate) plain: Box<[u8]>,
    tick: Tick,
}

thread_local! {
    pub(crate) static WORKER: RefCell<Worker> = RefCell::new(Worker {
        cipher: vec![0; CHUNK + LARGEST_RECORD].into(),
        plain: vec![0; PLAIN].into(),
        tick: Tick::new(rand::random()),
    });
}

/// What one look at the connection gave.
enum Step {
    /// Go on; after a full read others come first.
    Again { was_full: bool },
    /// Targets are far behind: read no more for a moment.
    Stalled(SmallVec<[Arc<Conn>; 2]>),
    /// CONNECT came.
    Authenticate(Box<Connect>),
    /// The connection is over.
    Closed,
}

/// Bytes that do not make a whole operation yet.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    /// How many there must at least be.
    needed: usize,
}

impl Tail {
    /// A message too large for the thread's buffer gets memory of exactly its size.
    fn is_large(&self) -> bool {
        self.needed > CHUNK && !self.bytes.is_empty()
    }

    fn keep(&mut self, rest: &[u8], needed: usize) {
        self.needed = needed;
        self.bytes = Vec::new();
        if !rest.is_empty() {
            self.bytes.reserve_exact(if needed > CHUNK { needed } else { rest.len() });
            self.bytes.extend_from_slice(rest);
        }
    }
}

/// The read side of a connection.
pub(crate) struct Reader {
    half: OwnedReadHalf,
    tail: Tail,
    has_tls: bool,
    /// Look at the tail again before reading.
    resume: bool,
}

/// Serves one accepted socket until it ends. What is set up here is not part of the future, which lives as long as
/// the connection and is kept small.
pub(crate) fn serve(
    shared: &Arc<Shared>,
    socket: TcpStream,
    remote: SocketAddr,
    listener: usize,
) -> impl Future<Output = ()> + Send + use<> {
    let tls_config = shared.listeners().get(listener).and_then(|listener| listener.tls.load_full());
    // Nagle's algorithm would hold back every small answer.
    let _ = socket.set_nodelay(true);
    let (half, write_half) = socket.into_split();
    let conn = Arc::new(Conn::new(
        shared.next_cid(),
        Some(remote),
        Link::Tcp(write_half),
        Arc::clone(&shared.hub),
        Outbox::default(),
    ));
    let live = shared.live();
    let is_newcomer = tls_config.is_some() || live.authenticator.auth_required();
    let is_admitted = shared.admit(&conn, is_newcomer);
    let session = Session::new(Arc::clone(shared), Arc::clone(&conn), listener);
    let nonce = live.authenticator.wants_nonce().then(new_nonce);
    let line = session.info(nonce.clone(), tls_config.is_some()).to_line();
    conn.append(|out| out.extend_from_slice(&line));
    conn.flush();
    if !is_admitted {
        let refusal = Refusal {
            reason: "max_connections",
            detail: format!("the limit of {} connections is reached", live.config.max_connections),
            claimed: None,
        };
        session.refuse(&refusal, "maximum connections exceeded", "Maximum Connections Exceeded");
    }
    let mut served = Served {
        has_left: false,
        session,
        reader: Reader { half, tail: Tail::default(), has_tls: false, resume: false },
        nonce: nonce.map(String::into_boxed_str),
    };
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

struct Served {
    /// Whether the connection was taken out of everything.
    has_left: bool,
    session: Session,
    reader: Reader,
    nonce: Option<Box<str>>,
}

impl Served {
    /// TLS handshake and the wait for an account; `false` when the connection is over.
    async fn establish(&mut self, tls_config: Option<Arc<rustls::ServerConfig>>) -> bool {
        let shared = Arc::clone(&self.session.shared);
        if let Some(config) = tls_config {
            self.reader.has_tls = true;
            let conn = Arc::clone(&self.session.conn);
            if let Err(detail) = shake_hands(&mut self.reader, &conn, &shared, config).await {
                let refusal = Refusal { reason: "tls_failure", detail, claimed: None };
                tracing::debug!(cid = self.session.conn.cid, remote = ?self.session.conn.remote, %refusal, "TLS handshake failed");
                shared.observer.refused(self.session.conn.remote, &refusal);
                // An alert was sent if the peer can read one; more words it would not understand.
                self.session.conn.outbox.lock().abandon();
                self.session.conn.close("TLS Handshake Failure");
                return false;
            }
        }
        self.reader.resume = true;
        if !shared.live().authenticator.auth_required() {
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
                Ok(Step::Authenticate(connect)) => {
                    self.reader.resume = true;
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
                Step::Authenticate(connect) => {
                    self.reader.resume = true;
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
        conn.end_output();
        let reader = &mut self.reader;
        let is_over = tokio::time::timeout(LINGER, async {
            while conn.has(flag::WANTS_WRITE) {
                if poll_fn(|cx| reader.half.as_ref().poll_write_ready(cx)).await.is_err() {
                    return;
                }
                conn.resume_writing();
            }
            let mut sink = [0; 2048];
            loop {
                let mut buffer = ReadBuf::new(&mut sink);
                match poll_fn(|cx| Pin::new(&mut reader.half).poll_read(cx, &mut buffer)).await {
                    Ok(()) if !buffer.filled().is_empty() => {}
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

/// Waits until the targets have caught up, but not for long: beyond that the bound of their outboxes counts.
async fn pause(conn: &Conn, targets: SmallVec<[Arc<Conn>; 2]>) {
    let hub = &conn.hub;
    hub.stalled.fetch_add(1, Ordering::Relaxed);
    let deadline = Instant::now() + LONGEST_PAUSE;
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

impl Reader {
    /// One read into `to`; 0 = the peer is gone.
    pub(crate) fn poll_read(&mut self, to: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(to);
        ready!(Pin::new(&mut self.half).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes what the socket was too full for; `false`: the connection is over.
    pub(crate) fn poll_output(&self, conn: &Conn, cx: &mut Context<'_>) -> bool {
        while conn.has(flag::WANTS_WRITE) {
            match self.half.as_ref().poll_write_ready(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => conn.resume_writing(),
                Poll::Ready(Err(_)) => {
                    conn.close("Write Error");
                    return false;
                }
            }
        }
        true
    }

    /// Keeps plain bytes that came along with the end of the handshake.
    pub(crate) fn keep_early(&mut self, plain: &[u8]) {
        self.tail.bytes.extend_from_slice(plain);
    }

    /// Reads once and works through what came.
    fn poll_step(&mut self, session: &mut Session, cx: &mut Context<'_>) -> Poll<Step> {
        session.conn.register(cx);
        if session.conn.has(flag::CLOSING) || !self.poll_output(&session.conn, cx) {
            return Poll::Ready(Step::Closed);
        }
        if session.conn.has(flag::REGRANTED) {
            session.renew();
        }
        WORKER.with_borrow_mut(|worker| self.poll_input(session, worker, cx))
    }

    fn poll_input(&mut self, session: &mut Session, worker: &mut Worker, cx: &mut Context<'_>) -> Poll<Step> {
        let Worker { cipher, plain, tick } = worker;
        let is_large = self.tail.is_large();
        let kept = if is_large { 0 } else { self.tail.bytes.len() };
        let mut input = ReadOutcome::default();
        if !std::mem::take(&mut self.resume) {
            let longest = if is_large {
                (self.tail.needed - self.tail.bytes.len()).clamp(1, CHUNK)
            } else {
                CHUNK.min(PLAIN - kept)
            };
            input = ready!(self.poll_bytes(&session.conn, cipher, &mut plain[kept..], longest, cx));
            if input.failed {
                return Poll::Ready(Step::Closed);
            }
        }
        tick.now = session.shared.hub.timers.now();
        note_input(session, tick.now);
        let fed;
        if is_large {
            self.tail.bytes.extend_from_slice(&plain[..input.read]);
            if self.tail.bytes.len() < self.tail.needed {
                return Poll::Ready(if input.closed { Step::Closed } else { Step::Again { was_full: true } });
            }
            let bytes = std::mem::take(&mut self.tail.bytes);
            fed = session.feed(&bytes, tick);
            self.tail.keep(&bytes[fed.consumed..], needed(&fed.next));
        } else {
            plain[..kept].copy_from_slice(&self.tail.bytes);
            let all = &plain[..kept + input.read];
            fed = session.feed(all, tick);
            self.tail.keep(&all[fed.consumed..], needed(&fed.next));
        }
        let mut stalled = SmallVec::new();
        tick.finish(&session.shared, &mut stalled);
        Poll::Ready(match fed.next {
            Next::Close => Step::Closed,
            _ if input.closed => {
                session.conn.close("Client Closed");
                Step::Closed
            }
            Next::Authenticate(connect) => Step::Authenticate(connect),
            Next::Read { .. } if stalled.is_empty() => Step::Again { was_full: input.read >= CHUNK / 2 },
            Next::Read { .. } => Step::Stalled(stalled),
        })
    }

    /// Reads plain bytes, through TLS when there is some.
    fn poll_bytes(
        &mut self,
        conn: &Conn,
        cipher: &mut [u8],
        plain: &mut [u8],
        longest: usize,
        cx: &mut Context<'_>,
    ) -> Poll<ReadOutcome> {
        let kept = match self.has_tls {
            true => conn.outbox.lock().tls.as_ref().map_or(0, |tls| tls.kept()),
            false => 0,
        };
        let to = if self.has_tls { &mut cipher[kept..] } else { &mut plain[..longest] };
        let read = match ready!(self.poll_read(to, cx)) {
            Ok(0) => {
                conn.close("Client Closed");
                return Poll::Ready(ReadOutcome { failed: true, ..ReadOutcome::default() });
            }
            Ok(read) => read,
            Err(_) => {
                conn.close("Read Error");
                return Poll::Ready(ReadOutcome { failed: true, ..ReadOutcome::default() });
            }
        };
        if !self.has_tls {
            return Poll::Ready(ReadOutcome { read, ..ReadOutcome::default() });
        }
        let mut outbox = conn.outbox.lock();
        let Some(tls) = &mut outbox.tls else {
            return Poll::Ready(ReadOutcome { failed: true, ..ReadOutcome::default() });
        };
        let ingested = tls.ingest(&mut cipher[..kept + read], kept, plain);
        let wants_write = tls.wants_write();
        drop(outbox);
        if wants_write {
            conn.flush();
        }
        Poll::Ready(match ingested {
            Ok(ingested) => ReadOutcome { read: ingested.plain, closed: ingested.closed, failed: false },
            Err(_) => {
                conn.close("TLS Error");
                ReadOutcome { failed: true, ..ReadOutcome::default() }
            }
        })
    }
}

/// What a read gave.
#[derive(Debug, Clone, Copy, Default)]
struct ReadOutcome {
    read: usize,
    /// The peer said goodbye behind these bytes.
    closed: bool,
    failed: bool,
}

fn needed(next: &Next) -> usize {
    match next {
        Next::Read { needed } => *needed,
        Next::Authenticate(_) | Next::Close => 0,
    }
}

/// The connection lives: whoever probes it is told.
fn note_input(session: &Session, now: u64) {
    let conn = &session.conn;
    conn.last_in.store(now, Ordering::Relaxed);
    conn.reads.fetch_add(1, Ordering::Release);
    if conn.has(flag::PROBED) && conn.clear(flag::PROBED) {
        session.shared.claims.heard(conn.cid);
    }
}
