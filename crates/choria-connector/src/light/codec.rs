//! The client's half of the NATS protocol over `nats-proto`: whole operations out of a growing buffer (spec 07 §2-§5).
//!
//! Sans-io. Payloads share the read buffer, nothing is copied but subjects.

use bytes::{Bytes, BytesMut};
use nats_proto::server_op::{self, ServerOp};
use nats_proto::{Connect, Info, encode};

use crate::options::Credentials;

/// Largest message that is taken, whatever the broker says: NATS's own ceiling.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Largest payload until the broker names one.
pub(crate) const DEFAULT_MAX_PAYLOAD: usize = 1024 * 1024;

/// One operation of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Info(Box<Info>),
    Message {
        sid: u64,
        subject: String,
        reply: Option<String>,
        /// NATS headers are stripped; Choria does not use them.
        payload: Bytes,
    },
    /// An answer of the broker itself, such as "no responders": header only, nobody's message.
    Status {
        sid: u64,
        subject: String,
        code: u16,
    },
    Ping,
    Pong,
    Ok,
    Error(String),
}

/// The broker does not speak NATS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error(transparent)]
    Operation(#[from] server_op::BadServerOp),
    #[error("unreadable INFO: {0}")]
    Info(String),
    #[error("a message for a subscription number or subject that cannot be")]
    Message,
}

/// Takes the next whole operation out of `buffer`, if it holds one.
pub(crate) fn next(buffer: &mut BytesMut) -> Result<Option<Operation>, ProtocolError> {
    let Some((operation, length)) = server_op::parse(buffer, MAX_MESSAGE)? else { return Ok(None) };
    let operation = match operation {
        ServerOp::Ping => Operation::Ping,
        ServerOp::Pong => Operation::Pong,
        ServerOp::Ok => Operation::Ok,
        ServerOp::Error(text) => Operation::Error(String::from_utf8_lossy(text).into_owned()),
        ServerOp::Info(text) => {
            let info = Info::parse(text).map_err(|error| ProtocolError::Info(error.to_string()))?;
            Operation::Info(Box::new(info))
        }
        ServerOp::Message { subject, sid, reply, header_len, content } => {
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(ToOwned::to_owned).ok();
            let subject = text(subject).ok_or(ProtocolError::Message)?;
            let reply = reply.map(|reply| text(reply).ok_or(ProtocolError::Message)).transpose()?;
            let sid = text(sid).and_then(|sid| sid.parse().ok()).ok_or(ProtocolError::Message)?;
            let size = content.len();
            let status = (header_len == size).then(|| status_of(content)).flatten();
            let frame = buffer.split_to(length).freeze();
            // The content is followed by CR LF, the end of the frame.
            let payload = frame.slice(length - 2 - size + header_len..length - 2);
            return Ok(Some(match status {
                Some(code) => Operation::Status { sid, subject, code },
                None => Operation::Message { sid, subject, reply, payload },
            }));
        }
    };
    let _ = buffer.split_to(length);
    Ok(Some(operation))
}

/// The status in the first line of a header block; 0 when it has one that is no number.
fn status_of(headers: &[u8]) -> Option<u16> {
    let status = headers.strip_prefix(b"NATS/1.0 ")?.get(..3)?;
    Some(std::str::from_utf8(status).ok().and_then(|digits| digits.parse().ok()).unwrap_or_default())
}

/// The payload limit that INFO names.
pub(crate) fn max_payload(info: &Info) -> usize {
    usize::try_from(info.max_payload).ok().filter(|&limit| limit > 0).unwrap_or(DEFAULT_MAX_PAYLOAD)
}

/// CONNECT and PING: the PONG, or the error, is the broker's answer to both.
pub(crate) fn connect(name: &str, credentials: &Credentials, tls: bool) -> Vec<u8> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let connect = Connect {
        verbose: false,
        pedantic: false,
        tls_required: tls,
        auth_token: text(&credentials.token),
        user: text(&credentials.user),
        pass: text(&credentials.password),
        name: name.to_owned(),
        lang: "rust".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: 1,
        headers: true,
        // Whoever publishes with a reply subject wants to know that nobody listens.
        no_responders: true,
        ..Connect::default()
    };
    let mut out = b"CONNECT ".to_vec();
    out.extend_from_slice(connect.to_json().as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(encode::PING);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Operation>, ProtocolError> {
        let mut buffer = BytesMut::from(bytes);
        let mut operations = Vec::new();
        while let Some(operation) = next(&mut buffer)? {
            operations.push(operation);
        }
        Ok(operations)
    }

    fn message(sid: u64, subject: &str, reply: Option<&str>, payload: &'static [u8]) -> Operation {
        let payload = Bytes::from_static(payload);
        Operation::Message { sid, subject: subject.into(), reply: reply.map(Into::into), payload }
    }

    const STREAM: &[u8] = b"INFO {\"max_payload\":5,\"tls_required\":true,\"x\":[1]}\r\n+OK\r\nPING\r\nPONG\r\n\
        MSG a.b 7 5\r\nhello\r\nMSG a.b 7 re.ply 0\r\n\r\nHMSG c 8 12 14\r\nNATS/1.0\r\n\r\nhi\r\n\
        HMSG c 8 r 16 16\r\nNATS/1.0 503\r\n\r\n\r\n-ERR 'Authorization Violation'\r\n";

    fn expected() -> Vec<Operation> {
        vec![
            Operation::Info(Box::new(Info { max_payload: 5, tls_required: true, ..Info::default() })),
            Operation::Ok,
            Operation::Ping,
            Operation::Pong,
            message(7, "a.b", None, b"hello"),
            message(7, "a.b", Some("re.ply"), b""),
            message(8, "c", None, b"hi"),
            Operation::Status { sid: 8, subject: "c".into(), code: 503 },
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
            b"MSG a x 1\r\n_\r\n",
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
    }

    #[test]
    fn connect_says_who_we_are() {
        let credentials = Credentials { token: Some("a.b.c".into()), ..Credentials::default() };
        let connect = String::from_utf8(connect("n1", &credentials, true)).unwrap();
        assert!(connect.starts_with("CONNECT {") && connect.ends_with("}\r\nPING\r\n"), "{connect}");
        assert!(connect.contains(r#""auth_token":"a.b.c""#) && connect.contains(r#""name":"n1""#), "{connect}");
        assert!(!connect.contains("pass"), "{connect}");
    }

    proptest! {
        /// Whatever the network's cuts, the same operations come out.
        #[test]
        fn cuts_do_not_matter(cuts in proptest::collection::vec(0..STREAM.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(STREAM.len());
            let (mut buffer, mut operations, mut from) = (BytesMut::new(), vec![], 0);
            for to in cuts {
                buffer.extend_from_slice(&STREAM[from..to]);
                from = to;
                while let Some(operation) = next(&mut buffer).unwrap() {
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
