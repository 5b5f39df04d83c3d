//! `permessage-deflate` without context takeover: every message for itself, so that one state serves all connections of a
//! thread.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Violation, code};

/// What a message ends with before it is compressed into a frame, and what is left out there.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Output is made in steps of about this size.
const STEP: usize = 16 << 10;

/// Decompresses messages. Holds about 40 KiB once it was used; may be shared by any number of connections.
#[derive(Debug, Default)]
pub struct Inflater {
    state: Option<Box<Decompress>>,
}

impl Inflater {
    /// Appends the content of one message to `out`.
    ///
    /// # Errors
    /// It is not a compressed message, or holds more than `limit` bytes; `out` is as it was.
    pub fn inflate(&mut self, message: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Violation> {
        let start = out.len();
        let outcome = self.inflate_some(message, limit, out);
        if outcome.is_err() {
            out.truncate(start);
        }
        outcome
    }

    fn inflate_some(&mut self, message: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Violation> {
        if message.is_empty() {
            return Ok(());
        }
        let state = self.state.get_or_insert_with(|| Box::new(Decompress::new(false)));
        state.reset(false);
        let start = out.len();
        for part in [message, &TAIL] {
            let mut left = part;
            loop {
                out.reserve(STEP.min(limit + 1 - (out.len() - start).min(limit)));
                let (read, written) = (state.total_in(), state.total_out());
                let status = state.decompress_vec(left, out, FlushDecompress::Sync);
                let status = status
                    .map_err(|_| Violation { code: code::INVALID_PAYLOAD, text: "a compressed message is damaged" })?;
                if out.len() - start > limit {
                    return Err(Violation { code: code::TOO_LARGE, text: "a compressed message is too large" });
                }
                let used = usize::try_from(state.total_in() - read).unwrap_or(left.len());
                left = &left[used.min(left.len())..];
                if status == Status::StreamEnd {
                    // A last block ends the message, whatever the peer sent behind it.
                    return Ok(());
                }
                let is_stuck = used == 0 && state.total_out() == written;
                if is_stuck || (left.is_empty() && out.len() < out.capacity()) {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Compresses messages. Holds about 300 KiB once it was used; may be shared by any number of connections.
#[derive(Debug, Default)]
pub struct Deflater {
    state: Option<Box<Compress>>,
}

impl Deflater {
    /// Appends the payload of a compressed message to `out`.
    pub fn deflate(&mut self, content: &[u8], out: &mut Vec<u8>) {
        // Speed counts: it is done for every subscriber.
        let state = self.state.get_or_insert_with(|| Box::new(Compress::new(Compression::fast(), false)));
        state.reset();
        let mut left = content;
        loop {
            out.reserve((left.len() / 2).clamp(64, STEP));
            let before = state.total_in();
            let status = state.compress_vec(left, out, FlushCompress::Sync);
            let used = usize::try_from(state.total_in() - before).unwrap_or(left.len());
            left = &left[used.min(left.len())..];
            // An error would mean a misuse of the state, which a reset rules out.
            if status.is_err() || (left.is_empty() && out.len() < out.capacity()) {
                break;
            }
        }
        if out.ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        }
    }
}
