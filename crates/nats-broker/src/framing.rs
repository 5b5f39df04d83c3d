//! The output side of a WebSocket connection: what stands between the outbox and TLS or the socket (spec 07 §9).

use std::cell::RefCell;

use nats_proto::websocket::{CLOSE, Deflater, Encoder, PONG, code, write_close, write_control};

use crate::outbox::{give_buffer, take_buffer};

/// Answers to pings that wait while the socket is full. More are left out: only the last one has to be answered.
const MOST_ANSWERS: usize = 4 << 10;

thread_local! {
    /// Compression of this thread, and memory for its output.
    static DEFLATER: RefCell<(Deflater, Vec<u8>)> = RefCell::default();
}

/// How the output of one connection is put into frames.
#[derive(Debug)]
pub(crate) struct Framing {
    encoder: Encoder,
    /// Whole frames, or the answer to the HTTP request, that go before the next message.
    own: Vec<u8>,
    /// The close frame, which goes behind everything.
    finale: Option<Vec<u8>>,
    /// The close frame was sent, or will not be.
    is_over: bool,
}

impl Framing {
    /// Frames behind the answer to the HTTP request.
    pub(crate) fn new(encoder: Encoder, answer: Vec<u8>) -> Self {
        Self { encoder, own: answer, finale: None, is_over: false }
    }

    /// Puts output into frames, control frames that wait before it. Without output nothing else waits: then the close frame
    /// goes. Empty when there is nothing to send.
    pub(crate) fn frame(&mut self, content: Vec<u8>) -> Vec<u8> {
        if self.is_over || (content.is_empty() && self.own.is_empty() && self.finale.is_none()) {
            give_buffer(content);
            return Vec::new();
        }
        let mut out = take_buffer(content.len() + 16);
        out.append(&mut self.own);
        self.own = Vec::new();
        if !content.is_empty() {
            DEFLATER.with_borrow_mut(|(deflater, scratch)| self.encoder.encode(&content, deflater, scratch, &mut out));
        } else if let Some(finale) = self.finale.take() {
            out.extend_from_slice(&finale);
            self.is_over = true;
        }
        give_buffer(content);
        out
    }

    /// Answers a ping.
    pub(crate) fn pong(&mut self, payload: &[u8]) {
        if self.own.len() < MOST_ANSWERS {
            write_control(PONG, payload, &mut self.own);
        }
    }

    /// Ends with the close frame that the client sent.
    pub(crate) fn echo_close(&mut self, payload: &[u8]) {
        let mut frame = Vec::new();
        write_control(CLOSE, payload, &mut frame);
        self.finale.get_or_insert(frame);
    }

    /// Ends with a close frame of this code and text, unless another end was set before.
    pub(crate) fn close(&mut self, code: u16, text: &str) {
        self.finale.get_or_insert_with(|| {
            let mut frame = Vec::new();
            write_close(code, text, &mut frame);
            frame
        });
    }

    /// Ends with the close frame that fits the reason for which a connection ended.
    pub(crate) fn close_for(&mut self, reason: &str) {
        if let Some(code) = code_of(reason) {
            self.close(code, reason);
        }
    }
}

/// The close code for a reason. `None`: the connection ends without a close frame, as with nats-server.
fn code_of(reason: &str) -> Option<u16> {
    Some(match reason {
        "" | "Client Closed" | "Read Error" | "Write Error" | "TLS Error" | "Parse Error" | "Protocol Violation" => {
            return None;
        }
        "Server Shutdown" | "Stale Connection" => code::GOING_AWAY,
        "Bad Client Protocol Version" => code::PROTOCOL_ERROR,
        "Maximum Message Payload Exceeded" => code::TOO_LARGE,
        "Authentication Failure"
        | "Authentication Timeout"
        | "Authentication Expired"
        | "Maximum Connections Exceeded"
        | "Maximum Account Connections Exceeded"
        | "Maximum Control Line Exceeded" => code::POLICY_VIOLATION,
        _ => code::INTERNAL_ERROR,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_frames_go_first_and_the_close_frame_last() {
        let mut framing = Framing::new(Encoder::default(), b"101\r\n\r\n".to_vec());
        framing.pong(b"p");
        framing.close_for("Authentication Failure");
        framing.close_for("Server Shutdown");
        assert_eq!(framing.frame(b"-ERR".to_vec()), b"101\r\n\r\n\x8a\x01p\x82\x04-ERR");
        assert_eq!(framing.frame(Vec::new()), b"\x88\x18\x03\xf0Authentication Failure");
        framing.pong(b"p");
        assert_eq!(framing.frame(b"late".to_vec()), b"");
    }

    #[test]
    fn a_flood_of_pings_is_not_remembered() {
        let mut framing = Framing::new(Encoder::default(), Vec::new());
        for _ in 0..100_000 {
            framing.pong(&[b'p'; 125]);
        }
        assert!(framing.own.len() < MOST_ANSWERS + 200);
    }
}
