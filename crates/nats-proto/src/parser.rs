//! Cutting the operations of a client out of a byte stream (spec 07 §3).
//!
//! The parser keeps no state and copies nothing: it looks at the bytes it is given and answers with one
//! operation whose parts are slices of them, or says how many bytes must be there before it can. The caller
//! keeps the unfinished rest and offers it again with more behind it; a stream cut at any byte gives the
//! same operations. Limits are checked as early as the bytes allow: a line is refused as soon as it is too
//! long, a payload before any of it has arrived.

use memchr::memchr;

/// Sizes in bytes that a client must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest argument of a line: from the first non-blank after the verb to the line end.
    pub max_control_line: usize,
    /// Longest CONNECT argument, and longest line of any kind with its blanks.
    pub max_connect_line: usize,
    /// Largest message, headers and payload.
    pub max_payload: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_control_line: 4096, max_connect_line: 65_536, max_payload: 1_048_576 }
    }
}

/// Cuts operations out of bytes. Holds only the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parser {
    /// The limits; may change between two calls.
    pub limits: Limits,
}

/// What the bytes begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole operation.
    Op {
        /// The operation.
        op: ClientOp<'a>,
        /// Bytes that it took.
        consumed: usize,
    },
    /// The operation is not whole yet.
    Incomplete {
        /// Number of bytes, counted from the first one given, that must at least be there. Never larger than
        /// the limits allow one operation to be.
        needed: usize,
    },
    /// The client broke the protocol; the connection must end.
    Violation(Violation),
}

/// How a client broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Not a verb that clients send, or a message without CRLF at its end.
    #[error("unknown protocol operation")]
    UnknownOperation,
    /// A line longer than allowed.
    #[error("maximum control line exceeded")]
    ControlLine,
    /// A message larger than allowed.
    #[error("maximum payload violation")]
    MaxPayload,
    /// Missing, surplus or malformed arguments. The reference closes without a word.
    #[error("malformed arguments")]
    Arguments,
}

/// One operation of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOp<'a> {
    /// PUB or HPUB.
    Publish(Publish<'a>),
    /// SUB.
    Subscribe {
        /// The filter, unchecked.
        subject: &'a [u8],
        /// Queue group.
        queue: Option<&'a [u8]>,
        /// The client's name of the subscription: any bytes without blank.
        sid: &'a [u8],
    },
    /// UNSUB.
    Unsubscribe {
        /// The subscription.
        sid: &'a [u8],
        /// Deliveries after which it ends, counted from its start; `None` = at once.
        max: Option<u64>,
    },
    /// PING.
    Ping,
    /// PONG.
    Pong,
    /// CONNECT with its unread argument.
    Connect(&'a [u8]),
    /// INFO or +OK, which brokers ignore.
    Ignored,
}

/// A message to publish. `content` is the header block, when there is one, followed by the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Subject, unchecked.
    pub subject: &'a [u8],
    /// Reply subject, unchecked.
    pub reply: Option<&'a [u8]>,
    /// Length of the header block; never 0.
    pub header_len: Option<usize>,
    /// Headers and payload.
    pub content: &'a [u8],
    /// Whether the verb was HPUB, which a client may only use after `headers:true`.
    pub is_hpub: bool,
    /// The bytes from the reply subject or size on to the CRLF behind the payload, when they can stand unchanged
    /// behind `MSG subject sid ` or `HMSG subject sid `.
    pub tail: Option<&'a [u8]>,
}

impl<'a> Publish<'a> {
    /// The header block; empty when there is none.
    pub fn headers(&self) -> &'a [u8] {
        &self.content[..self.header_len.unwrap_or(0)]
    }

    /// The payload without headers.
    pub fn payload(&self) -> &'a [u8] {
        &self.content[self.header_len.unwrap_or(0)..]
    }
}

/// Outcome of comparing the input with a verb.
enum Verb {
    Whole,
    Partial,
    Other,
}

fn verb(input: &[u8], name: &[u8]) -> Verb {
    let seen = input.len().min(name.len());
    if !input[..seen].eq_ignore_ascii_case(&name[..seen]) {
        Verb::Other
    } else if seen == name.len() {
        Verb::Whole
    } else {
        Verb::Partial
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// A line behind its verb.
struct Line {
    /// First byte of the argument.
    start: usize,
    /// One past the argument.
    end: usize,
    /// First byte behind the line end.
    next: usize,
}

/// Up to five blank-separated arguments as ranges of the input.
#[derive(Default)]
struct Arguments {
    ranges: [(usize, usize); 5],
    count: usize,
    /// The arguments are separated by one blank each and fill the line.
    tight: bool,
}

impl Parser {
    /// A parser with these limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits }
    }

    /// Reads the operation at the start of `input`.
    pub fn parse<'a>(&self, input: &'a [u8]) -> Parsed<'a> {
        let Some(first) = input.first() else {
            return Parsed::Incomplete { needed: 1 };
        };
        match first {
            b'P' | b'p' => self.parse_p(input),
            b'H' | b'h' => self.with_arguments(input, b"HPUB", |line| self.publish(input, &line, true)),
            b'S' | b's' => self.with_arguments(input, b"SUB", |line| subscribe(input, &line)),
            b'U' | b'u' => self.with_arguments(input, b"UNSUB", |line| unsubscribe(input, &line)),
            b'C' | b'c' => self.connect(input),
            b'I' | b'i' => self.with_arguments(input, b"INFO", |line| info(input, &line)),
            b'+' => self.without_arguments(input, b"+OK", ClientOp::Ignored),
            b'-' => self.with_arguments(input, b"-ERR", |_| Parsed::Violation(Violation::Arguments)),
            _ => Parsed::Violation(Violation::UnknownOperation),
        }
    }

    fn parse_p<'a>(&self, input: &'a [u8]) -> Parsed<'a> {
        match input.get(1) {
            None => Parsed::Incomplete { needed: 5 },
            Some(b'U' | b'u') => self.with_arguments(input, b"PUB", |line| self.publish(input, &line, false)),
            Some(b'I' | b'i') => self.without_arguments(input, b"PING", ClientOp::Ping),
            Some(b'O' | b'o') => self.without_arguments(input, b"PONG", ClientOp::Pong),
            Some(_) => Parsed::Violation(Violation::UnknownOperation),
        }
    }

    /// A verb that must be followed by a blank.
    fn with_arguments<'a>(&self, input: &'a [u8], name: &[u8], read: impl FnOnce(Line) -> Parsed<'a>) -> Parsed<'a> {
        match verb(input, name) {
            Verb::Other => return Parsed::Violation(Violation::UnknownOperation),
            Verb::Partial => return Parsed::Incomplete { needed: name.len() + 2 },
            Verb::Whole => {}
        }
        match input.get(name.len()) {
            None => Parsed::Incomplete { needed: name.len() + 2 },
            Some(byte) if is_blank(*byte) => match self.line(input, name.len() + 1, self.limits.max_control_line) {
                Ok(line) => read(line),
                Err(answer) => answer,
            },
            Some(_) => Parsed::Violation(Violation::UnknownOperation),
        }
    }

    /// A verb whose arguments nobody reads.
    fn without_arguments<'a>(&self, input: &'a [u8], name: &[u8], op: ClientOp<'a>) -> Parsed<'a> {
        match verb(input, name) {
            Verb::Other => return Parsed::Violation(Violation::UnknownOperation),
            Verb::Partial => return Parsed::Incomplete { needed: name.len() + 2 },
            Verb::Whole => {}
        }
        match memchr(b'\n', &input[name.len()..]) {
            Some(at) => Parsed::Op { op, consumed: name.len() + at + 1 },
            None if input.len() > self.limits.max_connect_line => Parsed::Violation(Violation::ControlLine),
            None => Parsed::Incomplete { needed: input.len() + 1 },
        }
    }

    fn connect<'a>(&self, input: &'a [u8]) -> Parsed<'a> {
        const NAME: &[u8] = b"CONNECT";
        match verb(input, NAME) {
            Verb::Other => return Parsed::Violation(Violation::UnknownOperation),
            Verb::Partial => return Parsed::Incomplete { needed: NAME.len() + 2 },
            Verb::Whole => {}
        }
        match self.line(input, NAME.len(), self.limits.max_connect_line) {
            Ok(line) => Parsed::Op { op: ClientOp::Connect(&input[line.start..line.end]), consumed: line.next },
            Err(answer) => answer,
        }
    }

    /// Finds the line end and checks the length of the argument.
    fn line<'a>(&self, input: &'a [u8], from: usize, longest: usize) -> Result<Line, Parsed<'a>> {
        let mut start = from;
        while start < input.len() && is_blank(input[start]) {
            start += 1;
        }
        let Some(at) = memchr(b'\n', &input[start..]) else {
            let mut length = input.len() - start;
            if input.last() == Some(&b'\r') && length > 0 {
                length -= 1;
            }
            // Leading blanks do not count as argument, but an endless row of them must not be kept either.
            let all = self.limits.max_connect_line.max(longest) + from;
            if length > longest || input.len() > all + 1 {
                return Err(Parsed::Violation(Violation::ControlLine));
            }
            return Err(Parsed::Incomplete { needed: input.len() + 1 });
        };
        let next = start + at + 1;
        let mut end = next - 1;
        if end > start && input[end - 1] == b'\r' {
            end -= 1;
        }
        if end - start > longest {
            return Err(Parsed::Violation(Violation::ControlLine));
        }
        Ok(Line { start, end, next })
    }

    fn publish<'a>(&self, input: &'a [u8], line: &Line, is_hpub: bool) -> Parsed<'a> {
        let Some(found) = PublishLine::read(input, line, is_hpub) else {
            return Parsed::Violation(Violation::Arguments);
        };
        if found.total > self.limits.max_payload {
            return Parsed::Violation(Violation::MaxPayload);
        }
        if found.header_len > found.total {
            return Parsed::Violation(Violation::Arguments);
        }
        let end = line.next + found.total;
        match (input.get(end), input.get(end + 1)) {
            (Some(b'\r'), Some(b'\n')) => {}
            (None, _) | (Some(b'\r'), None) => return Parsed::Incomplete { needed: end + 2 },
            _ => return Parsed::Violation(Violation::UnknownOperation),
        }
        let header_len = (found.header_len > 0).then_some(found.header_len);
        let publish = Publish {
            subject: &input[found.subject.0..found.subject.1],
            reply: found.reply.map(|(from, to)| &input[from..to]),
            header_len,
            content: &input[line.next..end],
            is_hpub,
            tail: (found.canonical && header_len.is_some() == is_hpub).then(|| &input[found.tail..end + 2]),
        };
        Parsed::Op { op: ClientOp::Publish(publish), consumed: end + 2 }
    }
}

/// The arguments of PUB or HPUB.
struct PublishLine {
    subject: (usize, usize),
    reply: Option<(usize, usize)>,
    header_len: usize,
    total: usize,
    /// Where the reply or, without one, the first size begins.
    tail: usize,
    canonical: bool,
}

impl PublishLine {
    fn read(input: &[u8], line: &Line, is_hpub: bool) -> Option<Self> {
        let arguments = split(input, line);
        let sizes = if is_hpub { 2 } else { 1 };
        let reply = match arguments.count.checked_sub(sizes)? {
            1 => None,
            2 => Some(arguments.ranges[1]),
            _ => return None,
        };
        let (total_from, total_to) = arguments.ranges[arguments.count - 1];
        let total = size(&input[total_from..total_to])?;
        let mut canonical = arguments.tight && is_plain_number(&input[total_from..total_to]);
        let mut header_len = 0;
        if is_hpub {
            let (from, to) = arguments.ranges[arguments.count - 2];
            header_len = size(&input[from..to])?;
            canonical &= is_plain_number(&input[from..to]);
        }
        // The line must end with CRLF to be passed on as it is.
        canonical &= line.next - line.end == 2;
        Some(Self { subject: arguments.ranges[0], reply, header_len, total, tail: arguments.ranges[1].0, canonical })
    }
}

/// Splits a line at its blanks. More than five arguments count as five.
fn split(input: &[u8], line: &Line) -> Arguments {
    let mut arguments = Arguments { tight: true, ..Arguments::default() };
    let mut at = line.start;
    while at < line.end {
        let from = at;
        while at < line.end && !is_blank(input[at]) {
            at += 1;
        }
        if arguments.count < arguments.ranges.len() {
            arguments.ranges[arguments.count] = (from, at);
            arguments.count += 1;
        }
        let gap = at;
        while at < line.end && is_blank(input[at]) {
            at += 1;
        }
        let width = at - gap;
        // Nothing behind the last argument, exactly one blank behind every other.
        arguments.tight &= if at == line.end { width == 0 } else { width == 1 && input[gap] == b' ' };
    }
    arguments
}

/// A size: 1 to 9 decimal digits.
fn size(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    let mut value = 0_usize;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + usize::from(digit - b'0');
    }
    Some(value)
}

/// Whether the digits are how we would write the number: no leading zero.
fn is_plain_number(digits: &[u8]) -> bool {
    digits.len() == 1 || digits.first() != Some(&b'0')
}

fn subscribe<'a>(input: &'a [u8], line: &Line) -> Parsed<'a> {
    let arguments = split(input, line);
    let part = |index: usize| {
        let (from, to) = arguments.ranges[index];
        &input[from..to]
    };
    let (queue, sid) = match arguments.count {
        2 => (None, part(1)),
        3 => (Some(part(1)), part(2)),
        _ => return Parsed::Violation(Violation::Arguments),
    };
    Parsed::Op { op: ClientOp::Subscribe { subject: part(0), queue, sid }, consumed: line.next }
}

fn unsubscribe<'a>(input: &'a [u8], line: &Line) -> Parsed<'a> {
    let arguments = split(input, line);
    let part = |index: usize| {
        let (from, to) = arguments.ranges[index];
        &input[from..to]
    };
    let max = match arguments.count {
        1 => None,
        // Anything but a positive number counts as "at once".
        2 => size(part(1)).filter(|max| *max > 0).map(|max| max as u64),
        _ => return Parsed::Violation(Violation::Arguments),
    };
    Parsed::Op { op: ClientOp::Unsubscribe { sid: part(0), max }, consumed: line.next }
}

fn info<'a>(input: &'a [u8], line: &Line) -> Parsed<'a> {
    match serde_json::from_slice::<serde::de::IgnoredAny>(&input[line.start..line.end]) {
        Ok(_) => Parsed::Op { op: ClientOp::Ignored, consumed: line.next },
        Err(_) => Parsed::Violation(Violation::Arguments),
    }
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
