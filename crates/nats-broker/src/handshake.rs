//! The TLS handshake of a newcomer.
//!
//! What the peer sends is taken off the socket as it comes, so that a peer that leaves is seen at once. It is worked
//! through when it is our turn ([`crate::turns`]): only the peer's own time counts against it, not the time that it
//! waits for us.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::conn::{Conn, flag};
use crate::opening::TLS_RECORD;
use crate::reader::{Reader, WORKER};
use crate::resumption::is_in_force;
use crate::shared::Shared;
use crate::tls::Tls;
use crate::turns::Turn;

/// What may wait to be worked through. A flight of a client is far smaller, except for long chains of certificates,
/// whose rest stays in the socket meanwhile.
const LONGEST_WAITING: usize = 16 << 10;

/// A handshake under way.
struct Handshake<'a> {
    reader: &'a mut Reader,
    conn: &'a Conn,
    config: Arc<rustls::ServerConfig>,
    /// Received and not yet worked through.
    received: Vec<u8>,
    /// The peer's first byte was that of a TLS handshake.
    speaks_tls: bool,
    /// We have answered: the peer waits for the rest.
    has_begun: bool,
}

/// Shakes hands.
///
/// # Errors
/// Why there is no TLS: for the log.
pub(crate) async fn shake_hands(
    reader: &mut Reader,
    conn: &Conn,
    shared: &Shared,
    config: Arc<rustls::ServerConfig>,
) -> Result<(), String> {
    let mut deadline = Instant::now() + shared.live().config.tls_timeout;
    let mut handshake = Handshake { reader, conn, config, received: Vec::new(), speaks_tls: false, has_begun: false };
    loop {
        let arrival = tokio::time::timeout_at(deadline, poll_fn(|cx| handshake.poll_arrival(cx))).await;
        arrival.map_err(|_| "the handshake did not end in time")??;
        let asked = Instant::now();
        let turn = handshake.wait_for_turn(shared).await?;
        deadline += asked.elapsed();
        let outcome = handshake.step();
        // Sockets are looked at before the turn goes on, so that what has arrived on the others comes first.
        tokio::task::yield_now().await;
        drop(turn);
        if outcome? {
            break;
        }
    }
    let outbox = conn.outbox.lock();
    let agreed = outbox.tls.as_ref().and_then(|tls| tls.agreed());
    let resumed = outbox.tls.as_ref().filter(|tls| tls.is_resumed()).map(|tls| tls.peer_chain());
    drop(outbox);
    if resumed.is_some_and(|chain| !is_in_force(&chain, SystemTime::now())) {
        return Err("the certificate of a resumed session has expired".to_owned());
    }
    conn.rare.lock().about.get_or_insert_default().tls = agreed;
    Ok(())
}

impl Handshake<'_> {
    /// Takes bytes off the socket. Ready when there are some to work through.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.conn.register(cx);
        if self.conn.has(flag::CLOSING) || !self.reader.poll_output(self.conn, cx) {
            return Poll::Ready(Err("the connection was closed".to_owned()));
        }
        let read = WORKER.with_borrow_mut(|worker| {
            let room = LONGEST_WAITING.saturating_sub(self.received.len());
            if room == 0 {
                return Poll::Ready(Ok(1));
            }
            let read = ready!(self.reader.poll_read(&mut worker.cipher[..room], cx));
            if let Ok(read) = read {
                self.received.extend_from_slice(&worker.cipher[..read]);
            }
            Poll::Ready(read)
        });
        Poll::Ready(match ready!(read) {
            Ok(0) => Err("the peer left".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Waits until it is our turn, unless the peer leaves before.
    async fn wait_for_turn(&mut self, shared: &Shared) -> Result<Turn, String> {
        let mut turn = shared.turns.line_up(self.has_begun);
        loop {
            let is_full = self.received.len() >= LONGEST_WAITING;
            tokio::select! {
                biased;
                arrival = poll_fn(|cx| self.poll_arrival(cx)), if !is_full => arrival?,
                turn = &mut turn => return Ok(turn.expect("turns are handed on, never thrown away")),
            }
        }
    }

    /// Works through what was received; `true` at the end of the handshake.
    fn step(&mut self) -> Result<bool, String> {
        WORKER.with_borrow_mut(|worker| {
            let mut outbox = self.conn.outbox.lock();
            if outbox.gone {
                return Err("the connection was closed".to_owned());
            }
            let tls = match &mut outbox.tls {
                Some(tls) => tls,
                // Not before the first byte: whoever sends nothing shall cost nothing.
                none => {
                    self.speaks_tls = self.received.first() == Some(&TLS_RECORD);
                    let tls = Tls::new(Arc::clone(&self.config)).map_err(|error| error.to_string())?;
                    none.insert(Box::new(tls))
                }
            };
            let kept = tls.kept();
            let end = kept + self.received.len();
            worker.cipher[kept..end].copy_from_slice(&self.received);
            self.received.clear();
            let ingested = tls.ingest(&mut worker.cipher[..end], kept, &mut worker.plain);
            let is_done = !tls.is_handshaking();
            self.has_begun |= tls.wants_write();
            drop(outbox);
            match ingested {
                Ok(ingested) => {
                    self.reader.keep_early(&worker.plain[..ingested.plain]);
                    self.conn.flush();
                    Ok(is_done)
                }
                Err(error) => {
                    // A peer that does not speak TLS at all gets no alert.
                    if self.speaks_tls {
                        self.conn.flush();
                    } else {
                        self.conn.outbox.lock().abandon();
                    }
                    Err(error.to_string())
                }
            }
        })
    }
}
