//! Appending protocol lines to a buffer.

/// PING line.
pub const PING: &[u8] = b"PING\r\n";
/// PONG line.
pub const PONG: &[u8] = b"PONG\r\n";
/// The confirmation of verbose mode.
pub const OK: &[u8] = b"+OK\r\n";

/// Appends a number in decimal.
pub fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends `-ERR 'text'`.
pub fn error(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"-ERR '");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"'\r\n");
}

/// Appends what follows `MSG subject sid `: reply, size, payload. With `header_len` it is the tail of an HMSG and
/// `content` holds headers and payload.
pub fn message_tail(out: &mut Vec<u8>, reply: Option<&[u8]>, header_len: Option<usize>, content: &[u8]) {
    if let Some(reply) = reply {
        out.extend_from_slice(reply);
        out.push(b' ');
    }
    if let Some(header_len) = header_len {
        number(out, header_len as u64);
        out.push(b' ');
    }
    number(out, content.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
}

/// Appends a whole PUB or, with headers, HPUB. `content` holds headers and payload.
pub fn publish(out: &mut Vec<u8>, subject: &str, reply: Option<&str>, header_len: Option<usize>, content: &[u8]) {
    out.extend_from_slice(if header_len.is_some() { b"HPUB " } else { b"PUB " });
    out.extend_from_slice(subject.as_bytes());
    out.push(b' ');
    message_tail(out, reply.map(str::as_bytes), header_len, content);
}

/// Appends a SUB.
pub fn subscribe(out: &mut Vec<u8>, filter: &str, queue: Option<&str>, sid: u64) {
    out.extend_from_slice(b"SUB ");
    out.extend_from_slice(filter.as_bytes());
    out.push(b' ');
    if let Some(queue) = queue {
        out.extend_from_slice(queue.as_bytes());
        out.push(b' ');
    }
    number(out, sid);
    out.extend_from_slice(b"\r\n");
}

/// Appends an UNSUB, with a number of messages after which it takes effect.
pub fn unsubscribe(out: &mut Vec<u8>, sid: u64, max: Option<u64>) {
    out.extend_from_slice(b"UNSUB ");
    number(out, sid);
    if let Some(max) = max {
        out.push(b' ');
        number(out, max);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_as_on_the_wire() {
        assert_eq!(written(|out| number(out, 0)), "0");
        assert_eq!(written(|out| number(out, u64::MAX)), u64::MAX.to_string());
        assert_eq!(written(|out| error(out, "Stale Connection")), "-ERR 'Stale Connection'\r\n");
        assert_eq!(written(|out| publish(out, "a", None, None, b"xy")), "PUB a 2\r\nxy\r\n");
        assert_eq!(
            written(|out| publish(out, "a", Some("r"), Some(12), b"NATS/1.0\r\n\r\nxy")),
            "HPUB a r 12 14\r\nNATS/1.0\r\n\r\nxy\r\n"
        );
        assert_eq!(written(|out| subscribe(out, "a.>", Some("q"), 7)), "SUB a.> q 7\r\n");
        assert_eq!(written(|out| unsubscribe(out, 7, Some(2))), "UNSUB 7 2\r\n");
    }
}
