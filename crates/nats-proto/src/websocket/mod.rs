//! WebSocket frames around the NATS protocol: [`Decoder`] for what clients send, [`Encoder`] for what a broker sends
//! (spec 07 §9, RFC 6455, RFC 7692). Bytes in, bytes out; the HTTP request before the first frame is not read here.
//!
//! Message boundaries mean nothing to NATS: operations may be split anywhere over frames, so payloads are strung together
//! as they come. Messages are compressed each for itself (`no_context_takeover` on both sides), so that a quiet connection
//! needs no memory for it.

mod decode;
mod deflate;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{Bounds, Control, Decoder};
pub use deflate::{Deflater, Inflater};
pub use encode::{Encoder, write_close, write_control, write_masked};

/// A piece of a message that began in an earlier frame.
pub const CONTINUATION: u8 = 0x0;
/// A message that is text; its bytes count like those of a binary one.
pub const TEXT: u8 = 0x1;
/// A binary message.
pub const BINARY: u8 = 0x2;
/// The peer ends the connection.
pub const CLOSE: u8 = 0x8;
/// The peer wants a [`PONG`] with the same payload.
pub const PING: u8 = 0x9;
/// The answer to a [`PING`].
pub const PONG: u8 = 0xA;

/// First byte of a frame: the last one of its message.
pub const FINAL: u8 = 0x80;
/// First byte of a frame: the message is compressed.
pub const COMPRESSED: u8 = 0x40;

/// Longest payload of a control frame.
pub const MAX_CONTROL: usize = 125;

/// Close codes (RFC 6455 §7.4.1).
pub mod code {
    /// The purpose is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The broker goes away, or gives the connection up.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// A payload is not what it should be.
    pub const INVALID_PAYLOAD: u16 = 1007;
    /// The peer did what it may not.
    pub const POLICY_VIOLATION: u16 = 1008;
    /// A message is too large.
    pub const TOO_LARGE: u16 = 1009;
    /// Something unforeseen.
    pub const INTERNAL_ERROR: u16 = 1011;
}

/// The peer broke the rules of WebSocket; the connection must end with a close frame of this code and text. Texts are those of
/// nats-server where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Violation {
    /// One of [`code`].
    pub code: u16,
    /// What was wrong.
    pub text: &'static str,
}

impl Violation {
    const fn protocol(text: &'static str) -> Self {
        Self { code: code::PROTOCOL_ERROR, text }
    }
}
