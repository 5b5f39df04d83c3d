//! The shared side of a connection: what producers, timers and monitoring may touch.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_util::task::AtomicWaker;
use nats_proto::encode;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::auth::Grant;
use crate::io::Socket;
use crate::outbox::{Outbox, Piece, give_buffer};
use crate::responses::Budgets;
use crate::route::STALL;
use crate::subscription::SubTable;
use crate::timers::{Timer, Timers};
use crate::totals::Traffic;

/// Why a connection ended, in nats-server's words where it has some.
pub(crate) type CloseReason = Cow<'static, str>;

/// Option and state bits of a connection.
pub(crate) mod flag {
    /// The client wants its own messages.
    pub(crate) const ECHO: u32 = 1;
    /// The client understands HMSG.
    pub(crate) const HEADERS: u32 = 1 << 1;
    /// Every operation is confirmed.
    pub(crate) const VERBOSE: u32 = 1 << 2;
    /// Publish subjects are checked.
    pub(crate) const PEDANTIC: u32 = 1 << 3;
    /// The client wants 503.
    pub(crate) const NO_RESPONDERS: u32 = 1 << 4;
    /// CONNECT was accepted.
    pub(crate) const CONNECTED: u32 = 1 << 5;
    /// The task must end the connection.
    pub(crate) const CLOSING: u32 = 1 << 6;
    /// The socket is full; the task must wait for room.
    pub(crate) const WANTS_WRITE: u32 = 1 << 7;
    /// A newcomer waits to see whether this connection lives.
    pub(crate) const PROBED: u32 = 1 << 8;
    /// The grant lets the connection answer what it was asked.
    pub(crate) const BUDGETED: u32 = 1 << 9;
    /// A publisher waits for this connection to catch up.
    pub(crate) const STALLING: u32 = 1 << 10;
    /// The rights were changed from outside: the task must take them over.
    pub(crate) const REGRANTED: u32 = 1 << 11;
    /// The task must tell the client that the broker is going.
    pub(crate) const LAME_DUCK: u32 = 1 << 12;
    /// The client speaks WebSocket.
    pub(crate) const WEBSOCKET: u32 = 1 << 13;
    /// Options of CONNECT.
    pub(crate) const OPTIONS: u32 = ECHO | HEADERS | VERBOSE | PEDANTIC | NO_RESPONDERS;
}

/// What all connections of a broker share.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) timers: Timers,
    pub(crate) max_pending: AtomicUsize,
    pub(crate) write_deadline_ms: AtomicU64,
    pub(crate) slow_consumers: AtomicU64,
    pub(crate) stale_connections: AtomicU64,
    pub(crate) stalled: AtomicU64,
    /// Told when a connection that publishers wait for has caught up.
    pub(crate) caught_up: Notify,
}

/// The write side of the transport.
#[derive(Debug)]
pub(crate) enum Link {
    Tcp(Arc<Socket>),
    /// No socket: the engine under test, output stays in the outbox.
    #[cfg(test)]
    Detached,
}

/// Who is connected; what monitoring shows.
#[derive(Debug, Default, Clone)]
pub(crate) struct About {
    pub(crate) name: Box<str>,
    /// Who a login that was refused said to be; empty for others, whose grant names them.
    pub(crate) refused_user: Box<str>,
    pub(crate) lang: Box<str>,
    pub(crate) version: Box<str>,
    pub(crate) tls: Option<(rustls::ProtocolVersion, rustls::CipherSuite)>,
}

impl About {
    /// TLS version as nats-server writes it; empty without TLS.
    pub(crate) fn tls_version(&self) -> &'static str {
        match self.tls {
            Some((rustls::ProtocolVersion::TLSv1_3, _)) => "1.3",
            Some((rustls::ProtocolVersion::TLSv1_2, _)) => "1.2",
            _ => "",
        }
    }

    /// Cipher suite as nats-server writes it; empty without TLS.
    pub(crate) fn tls_cipher_suite(&self) -> String {
        self.tls.map(|(_, suite)| format!("{suite:?}").replace("TLS13_", "TLS_")).unwrap_or_default()
    }
}

/// Parts that only rare operations need.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    pub(crate) subs: SubTable,
    pub(crate) grant: Option<Arc<Grant>>,
    pub(crate) account: Option<u32>,
    pub(crate) about: Option<Box<About>>,
    pub(crate) close: Option<CloseReason>,
    pub(crate) budgets: Option<Box<Budgets>>,
    /// What was counted for an account that the connection was in before.
    pub(crate) counted: Option<Box<Traffic>>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) cid: u64,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) started: SystemTime,
    link: Link,
    pub(crate) hub: Arc<Hub>,
    pub(crate) outbox: Mutex<Outbox>,
    waker: AtomicWaker,
    flags: AtomicU32,
    pub(crate) in_messages: AtomicU64,
    pub(crate) in_bytes: AtomicU64,
    /// Number of reads that gave bytes.
    pub(crate) reads: AtomicU64,
    /// When the last byte came, in milliseconds of the broker's clock.
    pub(crate) last_in: AtomicU64,
    pub(crate) pings_out: AtomicU32,
    /// Publishers that wait for this connection to catch up.
    pub(crate) crowd: AtomicU32,
    pub(crate) ping_sent: AtomicU64,
    /// Round trip in microseconds; 0 = not known.
    pub(crate) rtt_us: AtomicU64,
    pub(crate) rare: Mutex<Rare>,
}

impl Conn {
    pub(crate) fn new(cid: u64, remote: Option<SocketAddr>, link: Link, hub: Arc<Hub>, outbox: Outbox) -> Self {
        let now = hub.timers.now();
        Self {
            cid,
            remote,
            started: SystemTime::now(),
            link,
            hub,
            outbox: Mutex::new(outbox),
            waker: AtomicWaker::new(),
            // What a client that never sends CONNECT gets.
            flags: AtomicU32::new(flag::ECHO | flag::VERBOSE | flag::PEDANTIC),
            in_messages: AtomicU64::new(0),
            in_bytes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            last_in: AtomicU64::new(now),
            pings_out: AtomicU32::new(0),
            crowd: AtomicU32::new(0),
            ping_sent: AtomicU64::new(now),
            rtt_us: AtomicU64::new(0),
            rare: Mutex::new(Rare::default()),
        }
    }

    pub(crate) fn has(&self, bits: u32) -> bool {
        self.flags.load(Ordering::Acquire) & bits != 0
    }

    /// nats-server's word for the protocol that the client speaks.
    pub(crate) fn client_type(&self) -> &'static str {
        if self.has(flag::WEBSOCKET) { "websocket" } else { "nats" }
    }

    pub(crate) fn flags(&self) -> u32 {
        self.flags.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, bits: u32) {
        self.flags.fetch_or(bits, Ordering::AcqRel);
    }

    /// Clears bits and says whether any of them was set.
    pub(crate) fn clear(&self, bits: u32) -> bool {
        self.flags.fetch_and(!bits, Ordering::AcqRel) & bits != 0
    }

    /// Replaces the CONNECT options.
    pub(crate) fn set_options(&self, options: u32) {
        let _ = self.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            Some((now & !flag::OPTIONS) | (options & flag::OPTIONS))
        });
    }

    /// Makes the connection's task look at the flags.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Ends the connection; the first reason counts. What is queued is still written as far as the socket takes it.
    pub(crate) fn close(&self, reason: impl Into<CloseReason>) {
        self.rare.lock().close.get_or_insert_with(|| reason.into());
        self.set(flag::CLOSING);
        self.waker.wake();
    }

    /// Ends the connection with a word to the client.
    pub(crate) fn fail(&self, text: &str, reason: impl Into<CloseReason>) {
        self.append(|out| encode::error(out, text));
        self.flush();
        self.close(reason);
    }

    /// Remembers the task to wake; call before looking at the flags.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Waits until the connection must end.
    pub(crate) fn poll_closing(&self, cx: &Context<'_>) -> Poll<()> {
        self.register(cx);
        if self.has(flag::CLOSING) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Appends to the outbox; `true` when the caller must flush it in the end because nobody else will.
    pub(crate) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut outbox = self.outbox.lock();
        if outbox.gone {
            return false;
        }
        write(outbox.room(64));
        let is_new = !std::mem::replace(&mut outbox.touched, true);
        if outbox.pending() <= self.hub.max_pending.load(Ordering::Relaxed) {
            return is_new;
        }
        // It asks and asks and never reads the answers.
        drop(outbox);
        self.drop_slow("Slow Consumer (Pending Bytes)");
        false
    }

    /// Writes what waits as far as the socket takes it and says how much still waits. Whoever comes while another
    /// writes only leaves its bytes.
    pub(crate) fn flush(&self) -> usize {
        let mut outbox = self.outbox.lock();
        outbox.touched = false;
        if outbox.writing || outbox.blocked || outbox.gone {
            return outbox.pending();
        }
        outbox.writing = true;
        loop {
            let mut piece = match outbox.take_piece() {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(_) => {
                    outbox.writing = false;
                    outbox.abandon();
                    drop(outbox);
                    self.close("TLS Error");
                    return 0;
                }
            };
            drop(outbox);
            let piece_length = piece.left();
            let outcome = self.write(&mut piece);
            outbox = self.outbox.lock();
            match outcome {
                Ok(()) => {
                    give_buffer(piece.bytes);
                    self.tell_caught_up(outbox.pending().saturating_sub(piece_length));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.block(&mut outbox, piece);
                    break;
                }
                Err(_) => {
                    outbox.writing = false;
                    outbox.abandon();
                    drop(outbox);
                    self.close("Write Error");
                    return 0;
                }
            }
        }
        outbox.writing = false;
        outbox.pending()
    }

    /// Lets the publishers go on that wait for this connection, when little enough is left to write.
    fn tell_caught_up(&self, left: usize) {
        if left <= STALL / 2 && self.has(flag::STALLING) && self.clear(flag::STALLING) {
            self.hub.caught_up.notify_waiters();
        }
    }

    /// The socket is full: the connection's task continues when there is room, a timer watches that it comes.
    fn block(&self, outbox: &mut Outbox, piece: Piece) {
        let now = self.hub.timers.now();
        outbox.put_back(piece);
        outbox.blocked = true;
        outbox.blocked_since = now;
        if !std::mem::replace(&mut outbox.watched, true) {
            self.hub.timers.at(now + self.hub.write_deadline_ms.load(Ordering::Relaxed), self.cid, Timer::Write);
        }
        self.set(flag::WANTS_WRITE);
        self.waker.wake();
    }

    fn write(&self, piece: &mut Piece) -> io::Result<()> {
        match &self.link {
            Link::Tcp(socket) => {
                while piece.sent < piece.bytes.len() {
                    match socket.try_write(&piece.bytes[piece.sent..])? {
                        0 => return Err(io::ErrorKind::WriteZero.into()),
                        sent => piece.sent += sent,
                    }
                }
                Ok(())
            }
            #[cfg(test)]
            Link::Detached => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// The socket has room again.
    pub(crate) fn resume_writing(&self) {
        self.clear(flag::WANTS_WRITE);
        self.outbox.lock().blocked = false;
        self.tell_caught_up(self.flush());
    }

    /// Looks whether the socket has been full for too long; `true` = too long.
    pub(crate) fn is_past_write_deadline(&self, now: u64) -> bool {
        let mut outbox = self.outbox.lock();
        if !outbox.blocked || outbox.gone {
            outbox.watched = false;
            return false;
        }
        let due = outbox.blocked_since + self.hub.write_deadline_ms.load(Ordering::Relaxed);
        if due <= now {
            return true;
        }
        self.hub.timers.at(due, self.cid, Timer::Write);
        false
    }

    /// Ends a connection that does not take what it subscribed to. What waits is freed at once.
    pub(crate) fn drop_slow(&self, reason: &'static str) {
        self.hub.slow_consumers.fetch_add(1, Ordering::Relaxed);
        self.outbox.lock().abandon();
        self.close(reason);
    }

    /// Closes the socket for both directions and refuses further output.
    pub(crate) fn shut_socket(&self) {
        self.outbox.lock().abandon();
        match &self.link {
            Link::Tcp(socket) => socket.shutdown(std::net::Shutdown::Both),
            #[cfg(test)]
            Link::Detached => {}
        }
    }

    /// Tells the peer that nothing more will come, but still reads. `false`: not yet, something is still being written.
    pub(crate) fn end_output(&self) -> bool {
        let reason = self.rare.lock().close.clone();
        if let Some(framing) = &mut self.outbox.lock().framing {
            framing.close_for(reason.as_deref().unwrap_or_default());
        }
        self.flush();
        let mut outbox = self.outbox.lock();
        // Whoever writes at this moment may still find more to write.
        if outbox.writing || self.has(flag::WANTS_WRITE) {
            return false;
        }
        if let Some(tls) = &mut outbox.tls {
            tls.close_notify();
        }
        drop(outbox);
        self.flush();
        match &self.link {
            Link::Tcp(socket) => socket.shutdown(std::net::Shutdown::Write),
            #[cfg(test)]
            Link::Detached => {}
        }
        true
    }
}
