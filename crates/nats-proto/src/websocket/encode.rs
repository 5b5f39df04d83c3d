//! Frames of a broker, and those of a client for tests and tools.

use super::{BINARY, CLOSE, COMPRESSED, CONTINUATION, Deflater, FINAL, MAX_CONTROL};

/// Up to this size a message is not worth compressing.
const SMALL: usize = 64;

/// How what a broker sends is put into frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encoder {
    /// The client takes compressed messages.
    pub may_deflate: bool,
    /// Largest payload of a frame; `None` = no limit.
    pub max_frame: Option<usize>,
}

impl Encoder {
    /// Appends `content` in one message, or in several where frames are limited. `scratch` is memory to be used again.
    pub fn encode(&self, content: &[u8], deflater: &mut Deflater, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        if self.may_deflate && content.len() > SMALL {
            scratch.clear();
            deflater.deflate(content, scratch);
            if scratch.len() < content.len() {
                return self.fragment(scratch, out);
            }
        }
        let longest = self.max_frame.unwrap_or(usize::MAX).max(1);
        for piece in content.chunks(longest) {
            write_header(FINAL | BINARY, piece.len(), 0, out);
            out.extend_from_slice(piece);
        }
    }

    /// A compressed message, in fragments where frames are limited.
    fn fragment(&self, message: &[u8], out: &mut Vec<u8>) {
        let longest = self.max_frame.unwrap_or(usize::MAX).max(1);
        let mut pieces = message.chunks(longest).peekable();
        let mut first = COMPRESSED | BINARY;
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { FINAL } else { 0 };
            write_header(first | last, piece.len(), 0, out);
            out.extend_from_slice(piece);
            first = CONTINUATION;
        }
    }
}

/// Appends a control frame of a broker. Payload beyond the 125 bytes that are allowed is left out.
pub fn write_control(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(MAX_CONTROL)];
    write_header(FINAL | opcode, payload.len(), 0, out);
    out.extend_from_slice(payload);
}

/// Appends a close frame of a broker. Text that does not fit is left out.
pub fn write_close(code: u16, text: &str, out: &mut Vec<u8>) {
    let mut end = text.len().min(MAX_CONTROL - 2);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let payload = [&code.to_be_bytes()[..], &text.as_bytes()[..end]].concat();
    write_control(CLOSE, &payload, out);
}

/// Appends a frame of a client: `first` is its first byte, [`FINAL`] and [`COMPRESSED`] as may be and the opcode.
pub fn write_masked(first: u8, key: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
    write_header(first, payload.len(), 0x80, out);
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..], key);
}

fn write_header(first: u8, length: usize, mask_bit: u8, out: &mut Vec<u8>) {
    out.push(first);
    match length {
        0..=125 => out.push(mask_bit | length as u8),
        126..=0xffff => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Puts bytes under a mask, or takes them out of it.
pub(super) fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}
