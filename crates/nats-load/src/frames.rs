//! Counts messages of one length in a stream of reads, at the cost of a look at the first bytes of each.

use crate::peer::{refused, unexpected};
use crate::target::LoadError;

/// Marks a payload that begins with the time when it was sent; no other begins so.
pub const STAMP: u8 = b'@';
/// Bytes of a stamp: the mark and nanoseconds in decimal digits.
pub const STAMPED: usize = 16;

/// What one read brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whole messages.
    pub messages: u64,
    /// Whether the server asked for a sign of life.
    pub pings: u64,
    /// The last time stamp in it, in nanoseconds of the sender's clock.
    pub stamp: Option<u64>,
}

/// A stream in which every message has `length` bytes, its line and line ends included, and its payload from `payload` on.
#[derive(Debug)]
pub struct Frames {
    length: usize,
    payload: usize,
    /// What is missing of a message whose end has not come, and needs no look.
    skip: usize,
    /// The beginning of something that has not come whole.
    part: Vec<u8>,
}

impl Frames {
    /// For messages of this subject, subscription id and payload size; `reply` is the reply subject's length, 0 without one.
    pub fn new(subject: usize, sid: usize, reply: usize, size: usize) -> Self {
        // MSG subject sid [reply] size
        let reply = if reply == 0 { 0 } else { reply + 1 };
        let payload = 4 + subject + 1 + sid + 1 + reply + size.to_string().len() + 2;
        Self { length: payload + size + 2, payload, skip: 0, part: Vec::new() }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The server sent an error, or something else than messages of this length and PING.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<Seen, LoadError> {
        let mut seen = Seen::default();
        if !self.part.is_empty() {
            let mut whole = std::mem::take(&mut self.part);
            whole.extend_from_slice(bytes);
            self.walk(&whole, &mut seen)?;
            return Ok(seen);
        }
        let skipped = self.skip.min(bytes.len());
        bytes = &bytes[skipped..];
        self.skip -= skipped;
        if skipped > 0 && self.skip == 0 {
            seen.messages += 1;
        }
        self.walk(bytes, &mut seen)?;
        Ok(seen)
    }

    fn walk(&mut self, mut bytes: &[u8], seen: &mut Seen) -> Result<(), LoadError> {
        // Enough to see what it is and the stamp of it.
        let head = (self.payload + STAMPED).min(self.length);
        while let Some(first) = bytes.first() {
            if *first == b'M' && bytes.len() >= head {
                if bytes[self.payload - 1] != b'\n' {
                    return Err(unexpected(bytes));
                }
                seen.stamp = stamp(&bytes[self.payload..head]).or(seen.stamp);
                if bytes.len() < self.length {
                    self.skip = self.length - bytes.len();
                    return Ok(());
                }
                seen.messages += 1;
                bytes = &bytes[self.length..];
                continue;
            }
            if *first == b'M' {
                self.part = bytes.to_vec();
                return Ok(());
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.part = bytes.to_vec();
                return Ok(());
            };
            match &bytes[..=end] {
                b"PING\r\n" => seen.pings += 1,
                b"PONG\r\n" | b"+OK\r\n" => {}
                line if line.starts_with(b"INFO ") => {}
                line => return Err(refused(line).unwrap_or_else(|| unexpected(line))),
            }
            bytes = &bytes[end + 1..];
        }
        Ok(())
    }
}

fn stamp(payload: &[u8]) -> Option<u64> {
    let digits = payload.strip_prefix(&[STAMP])?.get(..STAMPED - 1)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Writes a stamp to the beginning of a payload; nothing where there is no room.
pub fn put_stamp(payload: &mut [u8], nanoseconds: u64) {
    if let Some(place) = payload.get_mut(..STAMPED) {
        place[0] = STAMP;
        let mut rest = nanoseconds;
        for digit in place[1..].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &str) -> String {
        format!("MSG load.a 1 {}\r\n{payload}\r\n", payload.len())
    }

    fn stream() -> Vec<u8> {
        let mut stamped = *b"0123456789abcdefghi";
        put_stamp(&mut stamped, 1_234_567);
        [message("x".repeat(19).as_str()), message(std::str::from_utf8(&stamped).unwrap()), "PING\r\n".to_owned()]
            .concat()
            .into_bytes()
    }

    #[test]
    fn messages_count_however_the_stream_is_cut() {
        let whole = stream().repeat(3);
        for piece in 1..whole.len() {
            let mut frames = Frames::new("load.a".len(), 1, 0, 19);
            let (mut messages, mut pings, mut stamp) = (0, 0, None);
            for bytes in whole.chunks(piece) {
                let seen = frames.feed(bytes).unwrap();
                messages += seen.messages;
                pings += seen.pings;
                stamp = seen.stamp.or(stamp);
            }
            assert_eq!((messages, pings, stamp), (6, 3, Some(1_234_567)), "in pieces of {piece}");
        }
    }

    #[test]
    fn small_payloads_have_no_stamp() {
        let mut frames = Frames::new("load.a".len(), 1, 0, 3);
        let mut payload = *b"abc";
        put_stamp(&mut payload, 7);
        assert_eq!(&payload, b"abc");
        assert_eq!(frames.feed(message("abc").as_bytes()).unwrap(), Seen { messages: 1, pings: 0, stamp: None });
        let mut empty = Frames::new("load.a".len(), 1, 0, 0);
        assert_eq!(empty.feed(message("").repeat(2).as_bytes()).unwrap().messages, 2);
    }

    #[test]
    fn what_is_no_message_of_the_load_is_an_error_with_its_text() {
        let mut frames = Frames::new("load.a".len(), 1, 0, 3);
        let error = frames.feed(b"-ERR 'Slow Consumer'\r\n").unwrap_err();
        assert_eq!(error.to_string(), "the server answered \"Slow Consumer\"");
        let error = frames.feed(message("abcd").as_bytes()).unwrap_err();
        assert!(error.to_string().contains("where a message of the load was expected"), "{error}");
    }
}
