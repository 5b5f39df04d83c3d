//! The bytes of a NATS client: whatever comes, in whatever pieces, gives operations or a violation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nats_proto::parser::{ClientOp, Limits, Parsed, Parser};
use nats_proto::{Connect, HeaderMap, Info, server_op, subject};

const LIMITS: Limits = Limits { max_control_line: 256, max_connect_line: 1024, max_payload: 4096 };

/// Runs a stream that arrives in pieces of one size and notes what came out of it.
fn run(stream: &[u8], piece: usize) -> Vec<String> {
    let parser = Parser::new(LIMITS);
    let mut pending = Vec::new();
    let mut seen = Vec::new();
    for piece in stream.chunks(piece) {
        pending.extend_from_slice(piece);
        loop {
            match parser.parse(&pending) {
                Parsed::Op { op, consumed } => {
                    assert!(consumed > 0 && consumed <= pending.len());
                    read_further(&op);
                    seen.push(format!("{op:?}"));
                    pending.drain(..consumed);
                }
                Parsed::Incomplete { needed } => {
                    assert!(needed > pending.len() && needed <= LIMITS.max_connect_line + LIMITS.max_payload + 64);
                    break;
                }
                Parsed::Violation(violation) => {
                    seen.push(format!("{violation:?}"));
                    return seen;
                }
            }
        }
    }
    seen
}

/// What a broker does next with an operation.
fn read_further(op: &ClientOp<'_>) {
    match op {
        ClientOp::Connect(argument) => {
            if let Ok(connect) = Connect::parse(argument) {
                assert_eq!(Connect::parse(connect.to_json().as_bytes()).expect("our own text is read back"), connect);
            }
        }
        ClientOp::Publish(publish) => {
            let headers = &publish.content[..publish.header_len.unwrap_or(0)];
            if let Ok(headers) = HeaderMap::parse(headers) {
                assert!(HeaderMap::parse(&headers.to_vec()).is_ok());
            }
            if let Some(tail) = publish.tail {
                assert!(tail.ends_with(b"\r\n"));
            }
        }
        ClientOp::Subscribe { subject, .. } => {
            if let Ok(filter) = std::str::from_utf8(subject)
                && subject::is_valid_filter(filter)
            {
                assert!(subject::is_subset(filter, ">") && subject::matches(filter, filter));
            }
        }
        _ => {}
    }
}

fuzz_target!(|bytes: &[u8]| {
    let whole = run(bytes, bytes.len().max(1));
    assert_eq!(run(bytes, 1), whole);
    assert_eq!(run(bytes, 7), whole);
    let _ = server_op::parse(bytes, 4096);
    let _ = Info::parse(bytes);
});
