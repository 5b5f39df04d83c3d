//! Cutting what a broker sends out of a byte stream: for light clients and for tests.

use memchr::memchr;

/// One thing that a broker sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerOp<'a> {
    /// INFO with its unread argument.
    Info(&'a [u8]),
    /// MSG or HMSG.
    Message {
        /// Subject.
        subject: &'a [u8],
        /// Subscription.
        sid: &'a [u8],
        /// Reply subject.
        reply: Option<&'a [u8]>,
        /// Length of the header block in `content`; 0 = none.
        header_len: usize,
        /// Headers and payload.
        content: &'a [u8],
    },
    /// PING.
    Ping,
    /// PONG.
    Pong,
    /// +OK.
    Ok,
    /// -ERR with its text, without the quotes.
    Error(&'a [u8]),
}

/// The broker sent what no broker sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker sent a line that is not part of the protocol")]
pub struct BadServerOp;

/// Reads the operation at the start of `input`: the operation and its length, or `None` when it is not whole yet.
///
/// # Errors
/// Not a line of the protocol, or a message of more than `max_payload` bytes.
pub fn parse(input: &[u8], max_payload: usize) -> Result<Option<(ServerOp<'_>, usize)>, BadServerOp> {
    let Some(at) = memchr(b'\n', input) else {
        return if input.len() > 1_048_576 { Err(BadServerOp) } else { Ok(None) };
    };
    let next = at + 1;
    let line = input[..at].strip_suffix(b"\r").unwrap_or(&input[..at]);
    let verb_end = line.iter().position(|byte| *byte == b' ' || *byte == b'\t').unwrap_or(line.len());
    let argument = line[verb_end..].trim_ascii();
    let op = match &line[..verb_end] {
        b"MSG" => return message(input, argument, next, false, max_payload),
        b"HMSG" => return message(input, argument, next, true, max_payload),
        b"INFO" => ServerOp::Info(argument),
        b"PING" => ServerOp::Ping,
        b"PONG" => ServerOp::Pong,
        b"+OK" => ServerOp::Ok,
        b"-ERR" => {
            let text = argument.strip_prefix(b"'").unwrap_or(argument);
            ServerOp::Error(text.strip_suffix(b"'").unwrap_or(text))
        }
        _ => return Err(BadServerOp),
    };
    Ok(Some((op, next)))
}

fn message<'a>(
    input: &'a [u8],
    argument: &'a [u8],
    next: usize,
    has_headers: bool,
    max_payload: usize,
) -> Result<Option<(ServerOp<'a>, usize)>, BadServerOp> {
    let mut parts = [&argument[..0]; 5];
    let mut count = 0;
    for part in argument.split(|byte| *byte == b' ' || *byte == b'\t').filter(|part| !part.is_empty()) {
        *parts.get_mut(count).ok_or(BadServerOp)? = part;
        count += 1;
    }
    let sizes = if has_headers { 2 } else { 1 };
    let reply = match count.checked_sub(sizes) {
        Some(2) => None,
        Some(3) => Some(parts[2]),
        _ => return Err(BadServerOp),
    };
    let total = number(parts[count - 1])?;
    let header_len = if has_headers { number(parts[count - 2])? } else { 0 };
    if total > max_payload || header_len > total {
        return Err(BadServerOp);
    }
    let end = next + total;
    if input.len() < end + 2 {
        return Ok(None);
    }
    if &input[end..end + 2] != b"\r\n" {
        return Err(BadServerOp);
    }
    let content = &input[next..end];
    Ok(Some((ServerOp::Message { subject: parts[0], sid: parts[1], reply, header_len, content }, end + 2)))
}

fn number(digits: &[u8]) -> Result<usize, BadServerOp> {
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(BadServerOp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_broker_sends() {
        let (op, length) = parse(b"HMSG a.b 7 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPING\r\n", 100).unwrap().unwrap();
        assert_eq!(
            op,
            ServerOp::Message {
                subject: b"a.b",
                sid: b"7",
                reply: Some(b"r"),
                header_len: 12,
                content: b"NATS/1.0\r\n\r\nhi"
            }
        );
        assert_eq!(length, 36);
        assert_eq!(parse(b"-ERR 'Stale Connection'\r\n", 1).unwrap().unwrap().0, ServerOp::Error(b"Stale Connection"));
        assert_eq!(parse(b"MSG a 1 5\r\nhell", 100).unwrap(), None);
        for bad in
            [&b"MSG a 1\r\n"[..], b"MSG a 1 200\r\n", b"HMSG a 1 9 4\r\nabcd\r\n", b"HELO\r\n", b"MSG a 1 1\r\nabc"]
        {
            assert!(parse(bad, 100).is_err(), "{bad:?}");
        }
    }
}
