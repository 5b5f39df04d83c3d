//! The input side of a WebSocket connection: frames off, operations into the engine.

use std::task::{Context, Poll, ready};

use nats_proto::websocket::{Bounds, Control, Decoder, Inflater, Violation};
use smallvec::SmallVec;

use crate::conn::Conn;
use crate::reader::{CHUNK, ReadOutcome, Reader, Step, Worker, needed, note_input};
use crate::session::{Next, Session};
use crate::upgrade::CookieCredentials;

/// Most bytes of a compressed message.
const LARGEST_MESSAGE: usize = 64 << 20;
/// Decoded bytes that are worked through before more is decoded.
const PAUSE: usize = 256 << 10;
/// Memory for decoded bytes above this size is given back.
const LARGEST_KEPT: usize = 512 << 10;

/// What a WebSocket connection has beyond others.
#[derive(Debug)]
pub(crate) struct Unframing {
    decoder: Decoder,
    /// Received bytes that were not yet decoded: frames that came early, or behind a large compressed message.
    rest: Vec<u8>,
    /// The client said goodbye or broke the rules, behind what was decoded.
    end: Option<End>,
    /// Credentials that CONNECT may leave out.
    pub(crate) cookies: Option<Box<CookieCredentials>>,
}

#[derive(Debug)]
enum End {
    /// The payload of the client's close frame.
    Closed(Vec<u8>),
    Violation(Violation),
}

impl Unframing {
    pub(crate) fn new(may_inflate: bool, early: Vec<u8>, cookies: Option<Box<CookieCredentials>>) -> Self {
        Self { decoder: Decoder::new(may_inflate), rest: early, end: None, cookies }
    }

    /// Decodes `input` behind what is in `out`, and answers pings.
    fn decode(&mut self, input: &[u8], bounds: Bounds, inflater: &mut Inflater, out: &mut Vec<u8>, conn: &Conn) {
        let (mut has_answer, mut closed) = (false, None);
        let decoded = self.decoder.decode(input, bounds, inflater, out, |control| match control {
            Control::Ping(payload) => {
                if let Some(framing) = &mut conn.outbox.lock().framing {
                    framing.pong(payload);
                    has_answer = true;
                }
            }
            Control::Pong(_) => {}
            Control::Close { payload, .. } => closed = Some(payload.to_vec()),
        });
        if has_answer {
            conn.flush();
        }
        self.end = match decoded {
            Err(violation) => Some(End::Violation(violation)),
            Ok(_) if closed.is_some() => closed.map(End::Closed),
            Ok(used) => {
                self.rest = input[used..].to_vec();
                None
            }
        };
    }
}

/// What may come out of one look. Before somebody has logged in that is no more than CONNECT needs, frame by frame: what comes
/// behind CONNECT may be larger.
fn bounds(session: &Session) -> Bounds {
    let live = session.shared.live();
    let config = &live.config;
    if session.has_rights() {
        Bounds { message: config.max_payload.saturating_mul(8).min(LARGEST_MESSAGE), pause: PAUSE }
    } else {
        Bounds { message: config.max_connect_line.saturating_add(CHUNK), pause: 1 }
    }
}

impl Reader {
    /// As the reading of others, with frames taken off in between.
    pub(crate) fn poll_frames(
        &mut self,
        session: &mut Session,
        worker: &mut Worker,
        cx: &mut Context<'_>,
    ) -> Poll<Step> {
        let Worker { cipher, plain, unframed, inflater, tick } = worker;
        let has_input = self.unframing.as_ref().is_some_and(|unframing| !unframing.rest.is_empty());
        let mut input = ReadOutcome::default();
        // Set when CONNECT was dealt with: what is behind it comes before anything new.
        if !std::mem::take(&mut self.resume) && !has_input {
            input = ready!(self.poll_bytes(&session.conn, cipher, plain, CHUNK, cx));
            if input.failed {
                return Poll::Ready(Step::Closed);
            }
        }
        let Some(unframing) = &mut self.unframing else { return Poll::Ready(Step::Closed) };
        tick.now = session.shared.hub.timers.now();
        note_input(session, tick.now);
        let is_large = self.tail.is_large();
        let mut bytes = std::mem::take(if is_large { &mut self.tail.bytes } else { unframed });
        if !is_large {
            bytes.clear();
            bytes.extend_from_slice(&self.tail.bytes);
        }
        let rest = std::mem::take(&mut unframing.rest);
        let received = if has_input { &rest[..] } else { &plain[..input.read] };
        if unframing.end.is_none() {
            unframing.decode(received, bounds(session), inflater, &mut bytes, &session.conn);
        }
        let goes_on = Step::Again { was_full: input.read >= CHUNK / 2 || !unframing.rest.is_empty() };
        if is_large && bytes.len() < self.tail.needed && unframing.end.is_none() && !input.closed {
            self.tail.bytes = bytes;
            return Poll::Ready(goes_on);
        }
        let fed = session.feed(&bytes, tick);
        self.tail.keep(&bytes[fed.consumed..], needed(&fed.next));
        if bytes.capacity() <= LARGEST_KEPT {
            *unframed = bytes;
        }
        let mut stalled = SmallVec::new();
        tick.finish(&session.shared, &mut stalled);
        Poll::Ready(match fed.next {
            Next::Close => Step::Closed,
            Next::Authenticate(connect) => Step::Authenticate(connect),
            Next::Read { .. } if unframing.end.is_some() || input.closed => {
                end(session, unframing.end.take());
                Step::Closed
            }
            Next::Read { .. } if stalled.is_empty() => goes_on,
            Next::Read { .. } => Step::Stalled(stalled),
        })
    }
}

/// Ends the connection the way the client began to.
fn end(session: &Session, end: Option<End>) {
    let conn = &session.conn;
    match end {
        Some(End::Violation(violation)) => {
            session.tell_violation(violation.text);
            if let Some(framing) = &mut conn.outbox.lock().framing {
                framing.close(violation.code, violation.text);
            }
            conn.close("Protocol Violation");
        }
        Some(End::Closed(payload)) => {
            if let Some(framing) = &mut conn.outbox.lock().framing {
                framing.echo_close(&payload);
            }
            conn.close("Client Closed");
        }
        None => conn.close("Client Closed"),
    }
}
