//! What waits to be written to one connection.
//!
//! Producers append rendered protocol lines under a small lock; whoever flushes takes the bytes out, releases
//! the lock and writes. A drained outbox owns no buffer: buffers live in a small pool per thread, so that an
//! idle connection costs nothing and the next target finds the memory warm in the cache (spec 07 §22.3).

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::framing::Framing;
use crate::tls::Tls;

/// While the socket is full, output is kept in pieces of about this size instead of one growing buffer.
const PIECE: usize = 64 << 10;
/// Buffers above this size are not kept for reuse.
const LARGEST_POOLED: usize = 256 << 10;
/// Buffers kept per thread.
const POOLED: usize = 16;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer from this thread's pool, or a new one.
pub(crate) fn take_buffer(at_least: usize) -> Vec<u8> {
    let pooled = POOL.with_borrow_mut(Vec::pop);
    match pooled {
        Some(mut buffer) => {
            buffer.reserve(at_least);
            buffer
        }
        None => Vec::with_capacity(at_least.max(512)),
    }
}

/// Gives a buffer back to this thread's pool.
pub(crate) fn give_buffer(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > LARGEST_POOLED {
        return;
    }
    buffer.clear();
    POOL.with_borrow_mut(|pool| {
        if pool.len() < POOLED {
            pool.push(buffer);
        }
    });
}

/// Bytes on their way into the socket, already encrypted when the connection has TLS.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub(crate) bytes: Vec<u8>,
    /// How many of them the socket has taken.
    pub(crate) sent: usize,
}

impl Piece {
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.sent
    }
}

/// Output that a full socket has not taken yet.
#[derive(Debug, Default)]
struct Backlog {
    /// A piece that the socket took in part; goes first.
    rest: Option<Piece>,
    /// Plain pieces behind it.
    pieces: VecDeque<Vec<u8>>,
    /// Their length together.
    bytes: usize,
}

/// Output of one connection. All fields are guarded by the connection's lock.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Newest plain bytes.
    buffer: Vec<u8>,
    /// Length of the piece that is being written right now.
    in_flight: usize,
    /// What is older; only while the socket is full or somebody writes.
    backlog: Option<Box<Backlog>>,
    /// Whether the connection stands on some producer's list of targets to flush.
    pub(crate) touched: bool,
    /// Whether someone writes right now; others only append.
    pub(crate) writing: bool,
    /// Whether the socket is full; the connection's own task waits for room.
    pub(crate) blocked: bool,
    /// Whether a timer watches the write deadline.
    pub(crate) watched: bool,
    /// Whether the connection takes nothing any more.
    pub(crate) gone: bool,
    /// When the socket last took a byte while it was full, in milliseconds of the broker's clock.
    pub(crate) blocked_since: u64,
    /// Messages delivered.
    pub(crate) messages: u64,
    /// Bytes of headers and payload delivered.
    pub(crate) bytes: u64,
    /// TLS session, when the connection has one.
    pub(crate) tls: Option<Box<Tls>>,
    /// Frames around the output, when the client speaks WebSocket.
    pub(crate) framing: Option<Box<Framing>>,
}

impl Outbox {
    /// Bytes that wait.
    pub(crate) fn pending(&self) -> usize {
        let backlog = |backlog: &Backlog| backlog.bytes + backlog.rest.as_ref().map_or(0, Piece::left);
        self.in_flight + self.buffer.len() + self.backlog.as_deref().map_or(0, backlog)
    }

    /// Bytes that were appended since the last flush and can be written at once.
    pub(crate) fn fresh(&self) -> usize {
        self.buffer.len()
    }

    /// Room for `need` more bytes, in the buffer to append them to.
    pub(crate) fn room(&mut self, need: usize) -> &mut Vec<u8> {
        if self.buffer.capacity() == 0 {
            self.buffer = take_buffer(need);
        } else if (self.blocked || self.writing) && self.buffer.len() >= PIECE {
            let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE.max(need)));
            let backlog = self.backlog.get_or_insert_default();
            backlog.bytes += full.len();
            backlog.pieces.push_back(full);
        } else {
            self.buffer.reserve(need);
        }
        &mut self.buffer
    }

    /// The next piece for the socket, in frames and encrypted if need be. `None` when there is nothing to write. It counts
    /// as waiting until the next one is taken or it is put back.
    ///
    /// # Errors
    /// The TLS session is broken.
    pub(crate) fn take_piece(&mut self) -> Result<Option<Piece>, rustls::Error> {
        let piece = self.next_piece()?;
        self.in_flight = piece.as_ref().map_or(0, Piece::left);
        Ok(piece)
    }

    fn next_piece(&mut self) -> Result<Option<Piece>, rustls::Error> {
        let mut older = None;
        if let Some(backlog) = &mut self.backlog {
            if let Some(rest) = backlog.rest.take() {
                return Ok(Some(rest));
            }
            older = backlog.pieces.pop_front();
            match &older {
                Some(piece) => backlog.bytes -= piece.len(),
                None => self.backlog = None,
            }
        }
        let mut plain = older.unwrap_or_else(|| std::mem::take(&mut self.buffer));
        if let Some(framing) = &mut self.framing {
            plain = framing.frame(plain);
        }
        let Some(tls) = &mut self.tls else {
            return Ok((!plain.is_empty()).then_some(Piece { bytes: plain, sent: 0 }));
        };
        if plain.is_empty() && !tls.wants_write() {
            give_buffer(plain);
            return Ok(None);
        }
        let mut cipher = take_buffer(plain.len() + 512);
        tls.encrypt(&plain, &mut cipher)?;
        give_buffer(plain);
        Ok(Some(Piece { bytes: cipher, sent: 0 }))
    }

    /// Puts a piece back that the socket did not take whole.
    pub(crate) fn put_back(&mut self, piece: Piece) {
        self.in_flight = 0;
        self.backlog.get_or_insert_default().rest = Some(piece);
    }

    /// Stops taking output and frees what waits.
    pub(crate) fn abandon(&mut self) {
        self.gone = true;
        self.in_flight = 0;
        self.buffer = Vec::new();
        self.backlog = None;
        self.tls = None;
        self.framing = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_a_full_socket_is_kept_in_order_and_in_pieces() {
        let mut outbox = Outbox { blocked: true, ..Outbox::default() };
        let mut sent = Vec::new();
        for number in 0..30_000_u32 {
            let line = format!("{number} ");
            sent.extend_from_slice(line.as_bytes());
            outbox.room(line.len()).extend_from_slice(line.as_bytes());
        }
        assert_eq!(outbox.pending(), sent.len());
        assert!(outbox.backlog.as_ref().is_some_and(|backlog| backlog.pieces.len() > 1));
        let first = outbox.take_piece().unwrap().unwrap();
        outbox.put_back(Piece { sent: 3, ..first });
        assert_eq!(outbox.pending(), sent.len() - 3);
        let mut seen = sent[..3].to_vec();
        while let Some(piece) = outbox.take_piece().unwrap() {
            seen.extend_from_slice(&piece.bytes[piece.sent..]);
        }
        assert_eq!(seen, sent);
        assert_eq!(outbox.pending(), 0);
    }
}
