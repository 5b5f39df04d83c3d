//! The client's half of the NATS protocol: what a broker sends, and the few lines that we send (spec 07 §2-§5).
//!
//! Sans-io: bytes in, operations out. Messages share the read buffer, nothing is copied but subjects.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::options::Credentials;

/// Longest line that a broker may send. INFO of a cluster names all its members.
const MAX_LINE: usize = 64 * 1024;

/// Largest message that is taken, whatever the broker says: NATS's own ceiling.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Fields of INFO that matter to us.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Info {
    pub(crate) server_name: String,
    pub(crate) max_payload: usize,
    pub(crate) tls_required: bool,
    pub(crate) tls_available: bool,
}

impl Default for Info {
    fn default() -> Self {
        Self { server_name: String::new(), max_payload: 1024 * 1024, tls_required: false, tls_available: false }
    }
}

/// One operation of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Info(Info),
    Message {
        sid: u64,
        subject: String,
        reply: Option<String>,
        /// NATS headers are stripped; Choria does not use them.
        payload: Bytes,
    },
    /// An answer of the broker itself, such as "no responders": header only, nobody's message.
    Status,
    Ping,
    Pong,
    Ok,
    Error(String),
}

/// The broker does not speak NATS, or not to us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("a line longer than {MAX_LINE} bytes")]
    LineTooLong,
    #[error("unexpected line {0:?}")]
    Unexpected(String),
    #[error("a message of {0} bytes")]
    MessageTooLarge(usize),
    #[error("unreadable INFO: {0}")]
    Info(String),
}

/// Cuts operations out of what was read. Keeps the head of a message between calls.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    head: Option<Head>,
    /// Bytes that are known to hold no line end, so that long lines are not scanned again and again.
    scanned: usize,
}

#[derive(Debug)]
struct Head {
    sid: u64,
    subject: String,
    reply: Option<String>,
    headers: usize,
    total: usize,
}

impl Decoder {
    /// How many bytes the buffer should have room for, at least, to finish what is being read.
    pub(crate) fn wanted(&self, buffered: usize) -> usize {
        self.head.as_ref().map_or(1, |head| (head.total + 2).saturating_sub(buffered).max(1))
    }

    /// The next whole operation, if the buffer holds one.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Operation>, ProtocolError> {
        loop {
            if let Some(head) = &self.head {
                if buffer.len() < head.total + 2 {
                    return Ok(None);
                }
                let head = self.head.take().expect("a head was just seen");
                return Self::message(head, buffer).map(Some);
            }
            let Some(line) = self.line(buffer)? else { return Ok(None) };
            if let Some(operation) = self.operation(&line)? {
                return Ok(Some(operation));
            }
        }
    }

    fn line(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, ProtocolError> {
        let Some(end) = buffer[self.scanned..].iter().position(|&byte| byte == b'\n') else {
            self.scanned = buffer.len();
            return if buffer.len() > MAX_LINE { Err(ProtocolError::LineTooLong) } else { Ok(None) };
        };
        let line = buffer.split_to(self.scanned + end + 1).freeze();
        self.scanned = 0;
        let text = line.strip_suffix(b"\r\n").or_else(|| line.strip_suffix(b"\n")).unwrap_or(&line);
        Ok(Some(line.slice_ref(text)))
    }

    fn operation(&mut self, line: &[u8]) -> Result<Option<Operation>, ProtocolError> {
        let unexpected = || {
            let shown = &line[..line.len().min(80)];
            ProtocolError::Unexpected(String::from_utf8_lossy(shown).into_owned())
        };
        let text = std::str::from_utf8(line).map_err(|_| unexpected())?;
        let (verb, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let operation = match verb.to_ascii_uppercase().as_str() {
            "MSG" => {
                self.head = Some(head(rest, false).ok_or_else(unexpected)?);
                self.limit()?;
                return Ok(None);
            }
            "HMSG" => {
                self.head = Some(head(rest, true).ok_or_else(unexpected)?);
                self.limit()?;
                return Ok(None);
            }
            "PING" => Operation::Ping,
            "PONG" => Operation::Pong,
            "+OK" => Operation::Ok,
            "-ERR" => Operation::Error(rest.trim().trim_matches('\'').to_owned()),
            "INFO" => Operation::Info(
                serde_json::from_str(rest).map_err(|error| ProtocolError::Info(error.to_string()))?,
            ),
            _ => return Err(unexpected()),
        };
        Ok(Some(operation))
    }

    fn limit(&self) -> Result<(), ProtocolError> {
        match &self.head {
            Some(head) if head.total > MAX_MESSAGE => Err(ProtocolError::MessageTooLarge(head.total)),
            _ => Ok(()),
        }
    }

    fn message(head: Head, buffer: &mut BytesMut) -> Result<Operation, ProtocolError> {
        let headers = buffer.split_to(head.headers);
        let payload = buffer.split_to(head.total - head.headers).freeze();
        let end = buffer.split_to(2);
        if &end[..] != b"\r\n" {
            return Err(ProtocolError::Unexpected("a message that does not end where it should".to_owned()));
        }
        if payload.is_empty() && headers.starts_with(b"NATS/1.0 ") {
            return Ok(Operation::Status);
        }
        Ok(Operation::Message { sid: head.sid, subject: head.subject, reply: head.reply, payload })
    }
}

/// `subject sid [reply] [header bytes] total bytes`.
fn head(text: &str, with_headers: bool) -> Option<Head> {
    let mut fields = [""; 5];
    let mut count = 0;
    for field in text.split_ascii_whitespace() {
        *fields.get_mut(count)? = field;
        count += 1;
    }
    let fixed = if with_headers { 4 } else { 3 };
    if count != fixed && count != fixed + 1 {
        return None;
    }
    let total = fields[count - 1].parse().ok()?;
    let headers = if with_headers { fields[count - 2].parse().ok()? } else { 0 };
    if headers > total {
        return None;
    }
    let reply = (count > fixed).then(|| fields[2].to_owned());
    Some(Head { sid: fields[1].parse().ok()?, subject: fields[0].to_owned(), reply, headers, total })
}

#[derive(Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    tls_required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
    name: &'a str,
    lang: &'a str,
    version: &'a str,
    protocol: u8,
    echo: bool,
    headers: bool,
    no_responders: bool,
}

/// CONNECT and PING: the PONG, or the error, is the broker's answer to both.
pub(crate) fn connect(name: &str, credentials: &Credentials, tls: bool) -> Vec<u8> {
    let connect = Connect {
        verbose: false,
        pedantic: false,
        tls_required: tls,
        auth_token: credentials.token.as_deref(),
        user: credentials.user.as_deref(),
        pass: credentials.password.as_deref(),
        name,
        lang: "rust",
        version: env!("CARGO_PKG_VERSION"),
        protocol: 1,
        echo: true,
        headers: true,
        no_responders: false,
    };
    let mut out = b"CONNECT ".to_vec();
    serde_json::to_writer(&mut out, &connect).expect("strings and flags are always JSON");
    out.extend_from_slice(b"\r\nPING\r\n");
    out
}

/// `SUB subject [queue] sid`.
pub(crate) fn subscribe(out: &mut Vec<u8>, subject: &str, queue: Option<&str>, sid: u64) {
    out.extend_from_slice(b"SUB ");
    out.extend_from_slice(subject.as_bytes());
    if let Some(queue) = queue {
        out.push(b' ');
        out.extend_from_slice(queue.as_bytes());
    }
    out.push(b' ');
    number(out, sid);
    out.extend_from_slice(b"\r\n");
}

/// `UNSUB sid`.
pub(crate) fn unsubscribe(out: &mut Vec<u8>, sid: u64) {
    out.extend_from_slice(b"UNSUB ");
    number(out, sid);
    out.extend_from_slice(b"\r\n");
}

/// `PUB subject size` and the payload.
pub(crate) fn publish(out: &mut Vec<u8>, subject: &str, payload: &[u8]) {
    out.reserve(subject.len() + payload.len() + 32);
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(subject.as_bytes());
    out.push(b' ');
    number(out, payload.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, value: u64) {
    use std::io::Write;
    write!(out, "{value}").expect("writing to memory does not fail");
}

/// Whether a message may be published to it: tokens joined by dots, no wildcard, no white space (spec 07 §6).
pub(crate) fn is_publishable(subject: &str) -> bool {
    is_filter(subject) && subject.split('.').all(|token| token != "*" && token != ">")
}

/// Whether it can be subscribed: like a subject, but tokens may be `*`, and the last `>`.
pub(crate) fn is_filter(subject: &str) -> bool {
    let clean = |token: &str| !token.is_empty() && !token.bytes().any(|byte| byte <= b' ' || byte == 0x7f);
    let mut tokens = subject.split('.').peekable();
    while let Some(token) = tokens.next() {
        if !clean(token) || (token == ">" && tokens.peek().is_some()) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Operation>, ProtocolError> {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::from(bytes);
        let mut operations = Vec::new();
        while let Some(operation) = decoder.next(&mut buffer)? {
            operations.push(operation);
        }
        Ok(operations)
    }

    fn message(sid: u64, subject: &str, reply: Option<&str>, payload: &'static [u8]) -> Operation {
        let payload = Bytes::from_static(payload);
        Operation::Message { sid, subject: subject.into(), reply: reply.map(Into::into), payload }
    }

    const STREAM: &[u8] = b"INFO {\"max_payload\":5,\"tls_required\":true,\"x\":[1]}\r\n+OK\r\nping\r\nPONG\r\n\
        MSG a.b 7 5\r\nhello\r\nMSG a.b 7 re.ply 0\r\n\r\nHMSG c 8 12 14\r\nNATS/1.0\r\n\r\nhi\r\n\
        HMSG c 8 r 16 16\r\nNATS/1.0 503\r\n\r\n\r\n-ERR 'Authorization Violation'\r\n";

    fn expected() -> Vec<Operation> {
        vec![
            Operation::Info(Info { max_payload: 5, tls_required: true, ..Info::default() }),
            Operation::Ok,
            Operation::Ping,
            Operation::Pong,
            message(7, "a.b", None, b"hello"),
            message(7, "a.b", Some("re.ply"), b""),
            message(8, "c", None, b"hi"),
            Operation::Status,
            Operation::Error("Authorization Violation".into()),
        ]
    }

    #[test]
    fn reads_every_operation() {
        assert_eq!(all(STREAM).unwrap(), expected());
    }

    #[test]
    fn refuses_what_is_not_nats() {
        for bad in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"MSG a 1\r\n",
            b"MSG a x 1\r\n",
            b"MSG a 1 r 1 2 3\r\n",
            b"HMSG a 1 5 3\r\n",
            b"MSG a 1 -1\r\n",
            b"MSG a 1 2\r\nhello\r\n",
            b"MSG a 1 99999999999\r\n",
            b"INFO {\r\n",
            b"\xff\xfe\r\n",
        ] {
            assert!(all(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(all(&vec![b'a'; MAX_LINE + 1]), Err(ProtocolError::LineTooLong));
    }

    #[test]
    fn writes_the_lines_of_a_client() {
        let mut out = Vec::new();
        subscribe(&mut out, "a.>", Some("q"), 1);
        subscribe(&mut out, "b", None, 2);
        unsubscribe(&mut out, 1);
        publish(&mut out, "c.d", b"hi");
        assert_eq!(out, b"SUB a.> q 1\r\nSUB b 2\r\nUNSUB 1\r\nPUB c.d 2\r\nhi\r\n");
        let credentials = Credentials { token: Some("a.b.c".into()), ..Credentials::default() };
        let connect = String::from_utf8(connect("n1", &credentials, true)).unwrap();
        assert!(connect.starts_with("CONNECT {") && connect.ends_with("}\r\nPING\r\n"), "{connect}");
        assert!(connect.contains(r#""auth_token":"a.b.c""#) && connect.contains(r#""name":"n1""#), "{connect}");
        assert!(!connect.contains("pass"), "{connect}");
    }

    #[test]
    fn subject_rules() {
        for good in ["a", "a.b", "a.b-c_d", "$SYS.x", "a.b>c", "a*"] {
            assert!(is_publishable(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a\r\nPUB x 0", "a.*", "*", "a.>", "a\tb"] {
            assert!(!is_publishable(bad), "{bad:?}");
        }
        assert!(is_filter("a.*.b") && is_filter("a.>") && is_filter(">"));
        assert!(!is_filter("a.>.b") && !is_filter("a. b"));
    }

    proptest! {
        /// Whatever the network's cuts, the same operations come out.
        #[test]
        fn cuts_do_not_matter(cuts in proptest::collection::vec(0..STREAM.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(STREAM.len());
            let (mut decoder, mut buffer, mut operations, mut from) = (Decoder::default(), BytesMut::new(), vec![], 0);
            for to in cuts {
                buffer.extend_from_slice(&STREAM[from..to]);
                from = to;
                while let Some(operation) = decoder.next(&mut buffer).unwrap() {
                    operations.push(operation);
                }
            }
            prop_assert_eq!(operations, expected());
        }

        #[test]
        fn any_bytes_end_in_operations_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&bytes);
        }
    }
}
