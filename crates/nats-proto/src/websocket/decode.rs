//! Frames of clients.

use super::{BINARY, CLOSE, COMPRESSED, CONTINUATION, FINAL, Inflater, MAX_CONTROL, PING, PONG, TEXT, Violation, code};

/// Longest header of a masked frame: two bytes, a length of eight, a key of four.
const LONGEST_HEADER: usize = 14;

/// How much comes out of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most bytes of one compressed message, compressed or not.
    pub message: usize,
    /// So much output in one call is enough: the decoder makes a pause at the end of a frame.
    pub pause: usize,
}

/// A control frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control<'a> {
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// An answer, asked for or not.
    Pong(&'a [u8]),
    /// The last frame: to be answered by a close frame with the same payload. Nothing is read behind it.
    Close {
        /// Why, when the peer says so.
        code: Option<u16>,
        /// Code and text as they came.
        payload: &'a [u8],
    },
}

/// Takes the frames of one client apart, in pieces of any size. Owns no memory between messages, except for the beginning of
/// a compressed one or of a control frame.
#[derive(Debug, Default)]
pub struct Decoder {
    may_inflate: bool,
    /// The beginning of a frame header.
    header: [u8; LONGEST_HEADER],
    header_len: u8,
    /// The frame whose payload comes.
    frame: Option<Frame>,
    /// A message has begun and its last frame is still to come.
    in_message: bool,
    /// That message is compressed.
    is_compressed: bool,
    is_over: bool,
    /// Payload of the compressed message or of the control frame under way.
    held: Box<Held>,
}

#[derive(Debug, Default)]
struct Held {
    compressed: Vec<u8>,
    control: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: u8,
    is_final: bool,
    left: u64,
    key: [u8; 4],
    /// Where in the key the next byte of the payload is.
    at: usize,
}

impl Decoder {
    /// A decoder; with `may_inflate` clients may send compressed messages.
    pub fn new(may_inflate: bool) -> Self {
        Self { may_inflate, ..Self::default() }
    }

    /// Takes bytes of the client, appends what they carry to `out` and shows control frames to `control`, in the order in which
    /// they came. Gives the number of bytes it has used: all, unless there is enough output to be worked through first
    /// ([`Bounds::pause`]), or the client has closed.
    ///
    /// # Errors
    /// The client broke the rules. What came before is in `out`; the decoder must not be used again.
    pub fn decode(
        &mut self,
        input: &[u8],
        bounds: Bounds,
        inflater: &mut Inflater,
        out: &mut Vec<u8>,
        mut control: impl FnMut(Control<'_>),
    ) -> Result<usize, Violation> {
        let (start, limit) = (out.len(), bounds.message);
        let mut at = 0;
        while at < input.len() && !self.is_over {
            let Some(mut frame) = self.frame else {
                at += self.take_header(&input[at..])?;
                // A frame without payload is complete with its header.
                if self.frame.is_some_and(|frame| frame.left == 0) {
                    self.finish_frame(limit, inflater, out, &mut control)?;
                }
                continue;
            };
            let count = usize::try_from(frame.left).unwrap_or(usize::MAX).min(input.len() - at);
            let piece = &input[at..at + count];
            if is_control(frame.opcode) {
                unmask(piece, frame.key, frame.at, &mut self.held.control);
            } else if self.is_compressed {
                let compressed = &mut self.held.compressed;
                if compressed.len() + count > limit {
                    return Err(Violation { code: code::TOO_LARGE, text: "a compressed message is too large" });
                }
                unmask(piece, frame.key, frame.at, compressed);
            } else {
                unmask(piece, frame.key, frame.at, out);
            }
            at += count;
            frame.left -= count as u64;
            frame.at = (frame.at + count) % 4;
            self.frame = Some(frame);
            if frame.left == 0 {
                self.finish_frame(limit, inflater, out, &mut control)?;
                if out.len() - start >= bounds.pause {
                    break;
                }
            }
        }
        Ok(at)
    }

    /// Takes bytes of a header and gives their number. A complete one begins a frame.
    fn take_header(&mut self, input: &[u8]) -> Result<usize, Violation> {
        let mut used = 0;
        loop {
            let have = usize::from(self.header_len);
            let need = header_len(&self.header[..have]);
            if have >= need {
                break;
            }
            let count = (need - have).min(input.len() - used);
            if count == 0 {
                return Ok(used);
            }
            self.header[have..have + count].copy_from_slice(&input[used..used + count]);
            self.header_len += count as u8;
            used += count;
            if have < 2 && self.header_len >= 2 {
                self.check(self.header[0], self.header[1])?;
            }
        }
        let end = usize::from(std::mem::take(&mut self.header_len));
        let header = &self.header[..end];
        let left = match header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
            127 => header[2..10].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
            length => u64::from(length),
        };
        if left >> 63 != 0 {
            return Err(Violation::protocol("a frame is too long"));
        }
        let mut key = [0; 4];
        key.copy_from_slice(&header[end - 4..]);
        let (opcode, is_final) = (header[0] & 0x0f, header[0] & FINAL != 0);
        if !is_control(opcode) {
            if opcode != CONTINUATION {
                self.is_compressed = header[0] & COMPRESSED != 0;
            }
            self.in_message = !is_final;
        }
        self.frame = Some(Frame { opcode, is_final, left, key, at: 0 });
        Ok(used)
    }

    /// Judges the first two bytes of a frame.
    fn check(&self, first: u8, second: u8) -> Result<(), Violation> {
        let opcode = first & 0x0f;
        let protocol = |text| Err(Violation::protocol(text));
        if first & 0x30 != 0 {
            return protocol("RSV2 and RSV3 must be clear");
        }
        if second & 0x80 == 0 {
            return protocol("mask bit missing");
        }
        if first & COMPRESSED != 0 {
            if !self.may_inflate {
                return protocol("compressed frame received without negotiated permessage-deflate");
            }
            if opcode != TEXT && opcode != BINARY {
                return protocol("only the first frame of a message can be marked as compressed");
            }
        }
        match opcode {
            CONTINUATION if !self.in_message => protocol("continuation frame outside of a message"),
            TEXT | BINARY if self.in_message => protocol("a message begins before the last one has ended"),
            CONTINUATION | TEXT | BINARY => Ok(()),
            CLOSE | PING | PONG if first & FINAL == 0 => protocol("control frame does not have final bit set"),
            CLOSE | PING | PONG if usize::from(second & 0x7f) > MAX_CONTROL => {
                protocol("control frame length bigger than maximum allowed of 125 bytes")
            }
            CLOSE | PING | PONG => Ok(()),
            _ => protocol("unknown opcode"),
        }
    }

    /// The payload of a frame is complete.
    fn finish_frame(
        &mut self,
        limit: usize,
        inflater: &mut Inflater,
        out: &mut Vec<u8>,
        control: &mut impl FnMut(Control<'_>),
    ) -> Result<(), Violation> {
        let Some(frame) = self.frame.take() else { return Ok(()) };
        if !is_control(frame.opcode) {
            if frame.is_final && self.is_compressed {
                let message = std::mem::take(&mut self.held.compressed);
                inflater.inflate(&message, limit, out)?;
            }
            return Ok(());
        }
        let payload = std::mem::take(&mut self.held.control);
        match frame.opcode {
            PING => control(Control::Ping(&payload)),
            PONG => control(Control::Pong(&payload)),
            _ => {
                self.is_over = true;
                let code = match *payload.as_slice() {
                    [] => None,
                    [_] => return Err(Violation::protocol("close frame payload cannot be 1 byte")),
                    [high, low, ..] => Some(u16::from_be_bytes([high, low])),
                };
                if std::str::from_utf8(payload.get(2..).unwrap_or_default()).is_err() {
                    let text = "invalid utf8 body in close frame";
                    return Err(Violation { code: code::INVALID_PAYLOAD, text });
                }
                control(Control::Close { code, payload: &payload });
            }
        }
        Ok(())
    }
}

fn is_control(opcode: u8) -> bool {
    opcode & 0x8 != 0
}

/// Length of a header that begins like this, as far as it can be told.
fn header_len(begin: &[u8]) -> usize {
    let Some(second) = begin.get(1) else { return 2 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + 4
}

/// Appends the bytes under the mask.
fn unmask(masked: &[u8], key: [u8; 4], at: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(masked);
    let mut turned = key;
    turned.rotate_left(at % 4);
    super::encode::mask(&mut out[start..], turned);
}
