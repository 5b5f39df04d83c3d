//! Reading one connection: off the socket, through TLS and WebSocket frames, into the engine.
//!
//! Reading and everything that follows from it happen inside one poll, with buffers that belong to the thread,
//! so an idle connection owns nothing but its state.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use nats_proto::Connect;
use nats_proto::websocket::Inflater;
use smallvec::SmallVec;

use crate::conn::{Conn, flag};
use crate::io::Socket;
use crate::route::Tick;
use crate::session::{Next, Session};
use crate::tls::LARGEST_RECORD;
use crate::unframe::Unframing;
use crate::upgrade::CookieCredentials;

/// Most bytes taken from a socket in one read.
pub(crate) const CHUNK: usize = 64 << 10;
/// A chunk behind the longest unfinished line, with room to spare.
const PLAIN: usize = 192 << 10;

/// Memory of one thread, used by whichever connection is being served.
pub(crate) struct Worker {
    pub(crate) cipher: Box<[u8]>,
    pub(crate) plain: Box<[u8]>,
    /// What came in frames; only used by WebSocket connections.
    pub(crate) unframed: Vec<u8>,
    pub(crate) inflater: Inflater,
    pub(crate) tick: Tick,
}

thread_local! {
    pub(crate) static WORKER: RefCell<Worker> = RefCell::new(Worker {
        cipher: vec![0; CHUNK + LARGEST_RECORD].into(),
        plain: vec![0; PLAIN].into(),
        unframed: Vec::new(),
        inflater: Inflater::default(),
        tick: Tick::new(rand::random()),
    });
}

/// What one look at the connection gave.
pub(crate) enum Step {
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
pub(crate) struct Tail {
    pub(crate) bytes: Vec<u8>,
    /// How many there must at least be.
    pub(crate) needed: usize,
}

impl Tail {
    /// A message too large for the thread's buffer gets memory of exactly its size.
    pub(crate) fn is_large(&self) -> bool {
        self.needed > CHUNK && !self.bytes.is_empty()
    }

    pub(crate) fn keep(&mut self, rest: &[u8], needed: usize) {
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
    pub(crate) socket: Arc<Socket>,
    pub(crate) tail: Tail,
    pub(crate) has_tls: bool,
    /// The state of a WebSocket connection.
    pub(crate) unframing: Option<Box<Unframing>>,
    /// Look at the tail again before reading.
    pub(crate) resume: bool,
}

impl Reader {
    pub(crate) fn new(socket: Arc<Socket>) -> Self {
        Self { socket, tail: Tail::default(), has_tls: false, unframing: None, resume: false }
    }

    /// Looks at the first byte that came without taking it. `None`: the connection is over.
    pub(crate) fn poll_first_byte(&self, conn: &Conn, cx: &mut Context<'_>) -> Poll<Option<u8>> {
        conn.register(cx);
        if conn.has(flag::CLOSING) || !self.poll_output(conn, cx) {
            return Poll::Ready(None);
        }
        let mut byte = [0];
        let peeked = ready!(self.socket.poll_peek(&mut byte, cx));
        Poll::Ready(matches!(peeked, Ok(1)).then_some(byte[0]))
    }

    /// One read into `to`; 0 = the peer is gone.
    pub(crate) fn poll_read(&self, to: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.socket.poll_read(to, cx)
    }

    /// Writes what the socket was too full for; `false`: the connection is over.
    pub(crate) fn poll_output(&self, conn: &Conn, cx: &mut Context<'_>) -> bool {
        while conn.has(flag::WANTS_WRITE) {
            match self.socket.poll_write_ready(cx) {
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

    /// Takes what [`Reader::keep_early`] kept.
    pub(crate) fn take_early(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.tail.bytes)
    }

    /// Appends what comes before there are operations to `to`; `false`: the connection is over.
    pub(crate) fn poll_plain(&mut self, conn: &Conn, to: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<bool> {
        conn.register(cx);
        if conn.has(flag::CLOSING) || !self.poll_output(conn, cx) {
            return Poll::Ready(false);
        }
        WORKER.with_borrow_mut(|worker| {
            let input = ready!(self.poll_bytes(conn, &mut worker.cipher, &mut worker.plain, CHUNK, cx));
            to.extend_from_slice(&worker.plain[..input.read]);
            Poll::Ready(!input.failed && !input.closed)
        })
    }

    /// From here on the client speaks WebSocket. `early`: frames that came with its HTTP request.
    pub(crate) fn speak_websocket(
        &mut self,
        may_inflate: bool,
        early: Vec<u8>,
        cookies: Option<Box<CookieCredentials>>,
    ) {
        self.unframing = Some(Box::new(Unframing::new(may_inflate, early, cookies)));
    }

    /// Puts credentials from cookies where CONNECT has none.
    pub(crate) fn fill_credentials(&self, connect: &mut Connect) {
        if let Some(cookies) = self.unframing.as_ref().and_then(|unframing| unframing.cookies.as_ref()) {
            cookies.fill(connect);
        }
    }

    /// Reads once and works through what came.
    pub(crate) fn poll_step(&mut self, session: &mut Session, cx: &mut Context<'_>) -> Poll<Step> {
        session.conn.register(cx);
        if session.conn.has(flag::CLOSING) || !self.poll_output(&session.conn, cx) {
            return Poll::Ready(Step::Closed);
        }
        if session.conn.has(flag::REGRANTED | flag::LAME_DUCK) {
            if session.conn.has(flag::REGRANTED) {
                session.renew();
            }
            if session.conn.clear(flag::LAME_DUCK) {
                session.tell_lame_duck();
            }
        }
        WORKER.with_borrow_mut(|worker| self.poll_input(session, worker, cx))
    }

    fn poll_input(&mut self, session: &mut Session, worker: &mut Worker, cx: &mut Context<'_>) -> Poll<Step> {
        if self.unframing.is_some() {
            return self.poll_frames(session, worker, cx);
        }
        let Worker { cipher, plain, tick, .. } = worker;
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
    pub(crate) fn poll_bytes(
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
pub(crate) struct ReadOutcome {
    pub(crate) read: usize,
    /// The peer said goodbye behind these bytes.
    pub(crate) closed: bool,
    pub(crate) failed: bool,
}

pub(crate) fn needed(next: &Next) -> usize {
    match next {
        Next::Read { needed } => *needed,
        Next::Authenticate(_) | Next::Close => 0,
    }
}

/// The connection lives: whoever probes it is told.
pub(crate) fn note_input(session: &Session, now: u64) {
    let conn = &session.conn;
    conn.last_in.store(now, Ordering::Relaxed);
    conn.reads.fetch_add(1, Ordering::Release);
    if conn.has(flag::PROBED) && conn.clear(flag::PROBED) {
        session.shared.claims.heard(conn.cid);
    }
}
