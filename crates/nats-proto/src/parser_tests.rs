//! Tables and properties of the parser.

use proptest::prelude::*;

use super::*;

fn parse(input: &str) -> Parsed<'_> {
    Parser::default().parse(input.as_bytes())
}

fn publish(input: &str) -> Publish<'_> {
    match parse(input) {
        Parsed::Op { op: ClientOp::Publish(publish), consumed } => {
            assert_eq!(consumed, input.len(), "{input:?}");
            publish
        }
        other => panic!("{input:?} gave {other:?}"),
    }
}

#[test]
fn a_plain_publish_is_cut_into_slices() {
    let p = publish("PUB t.a r.x 5\r\nhello\r\n");
    assert_eq!((p.subject, p.reply, p.content), (&b"t.a"[..], Some(&b"r.x"[..]), &b"hello"[..]));
    assert_eq!(p.tail, Some(&b"r.x 5\r\nhello\r\n"[..]));
    let p = publish("HPUB t.a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
    assert_eq!((p.header_len, p.payload()), (Some(12), &b"hi"[..]));
    assert_eq!(p.tail, Some(&b"12 14\r\nNATS/1.0\r\n\r\nhi\r\n"[..]));
}

#[test]
fn lines_that_cannot_be_passed_on_have_no_tail() {
    for input in [
        "PUB   t.a    r.x \t  5  \r\nhello\r\n",
        "PUB\tt.a\tr.x\t5\r\nhello\r\n",
        "PUB t.a 5\nhello\r\n",
        "PUB t.a 05\r\nhello\r\n",
        "PUB t.a 5 \r\nhello\r\n",
        "HPUB t.a 0 5\r\nhello\r\n",
    ] {
        let p = publish(input);
        assert_eq!((p.tail, p.content, p.header_len), (None, &b"hello"[..], None), "{input:?}");
    }
    // Blanks before the subject do not touch the tail.
    assert!(publish("pUb   t.a 5\r\nhello\r\n").tail.is_some());
}

#[test]
fn violations_are_told_apart() {
    use Violation::{Arguments, ControlLine, MaxPayload, UnknownOperation};
    let long = "a".repeat(4097);
    let unterminated = format!("SUB {}", "a".repeat(5000));
    let long_ping = format!("PING {}", " ".repeat(70_000));
    let blanks = format!("SUB {}", " ".repeat(70_000));
    for (input, expected) in [
        ("FROB\r\n", UnknownOperation),
        ("\r\n", UnknownOperation),
        (" PING\r\n", UnknownOperation),
        ("\0PING\r\n", UnknownOperation),
        ("PUB\r\n", UnknownOperation),
        ("SUBfoo 1\r\n", UnknownOperation),
        ("-ERR\r\n", UnknownOperation),
        ("MSG a 1 1\r\n", UnknownOperation),
        ("PUB a 4\r\nhello\r\n", UnknownOperation),
        ("PUB a 6\r\nhello\r\nPING\r\n", UnknownOperation),
        ("PUB a 5\r\nhello\rP", UnknownOperation),
        ("PUB \r\n", Arguments),
        ("PUB a\r\n", Arguments),
        ("PUB a +5\r\n", Arguments),
        ("PUB a 0x5\r\n", Arguments),
        ("PUB a 5.0\r\n", Arguments),
        ("PUB a 0000000005\r\n", Arguments),
        ("PUB a r q 5\r\n", Arguments),
        ("PUB a r q z 5\r\n", Arguments),
        ("HPUB a 24 23\r\n", Arguments),
        ("HPUB a 23\r\n", Arguments),
        ("HPUB a -1 5\r\n", Arguments),
        ("SUB foo\r\n", Arguments),
        ("SUB foo q 1 2\r\n", Arguments),
        ("UNSUB \r\n", Arguments),
        ("UNSUB 1 2 3\r\n", Arguments),
        ("INFO x\r\n", Arguments),
        ("-ERR 'boo'\r\n", Arguments),
        ("PUB a 1048577\r\n", MaxPayload),
        ("HPUB a 1048577 1048577\r\n", MaxPayload),
        ("PUB a 999999999\r\n", MaxPayload),
        (&format!("SUB {long}\r\n"), ControlLine),
        (&unterminated, ControlLine),
        (&long_ping, ControlLine),
        (&blanks, ControlLine),
    ] {
        assert_eq!(parse(input), Parsed::Violation(expected), "{:.40?}", input);
    }
}

#[test]
fn the_control_line_limit_counts_the_argument_only() {
    for (length, fits) in [(4094, true), (4095, false)] {
        let line = format!("SUB    {} 1\r\n", "a".repeat(length));
        assert_eq!(matches!(parse(&line), Parsed::Op { .. }), fits, "{length}");
    }
    let blanks = format!("SUB{}a 1\r\n", " ".repeat(5001));
    assert!(matches!(parse(&blanks), Parsed::Op { .. }));
    let connect = format!("CONNECT {{\"name\":\"{}\"}}\r\n", "a".repeat(60_000));
    assert!(matches!(parse(&connect), Parsed::Op { op: ClientOp::Connect(_), .. }));
}

#[test]
fn unsub_takes_odd_maxima_as_none() {
    for (text, expected) in [
        ("1", None),
        ("1 0", None),
        ("1 -1", None),
        ("1 +2", None),
        ("1 x", None),
        ("1 99999999999", None),
        ("1 2 ", Some(2)),
    ] {
        let line = format!("UNSUB {text}\r\n");
        let Parsed::Op { op: ClientOp::Unsubscribe { max, sid }, .. } = parse(&line) else { panic!("{line:?}") };
        assert_eq!((sid, max), (&b"1"[..], expected), "{text}");
    }
}

#[test]
fn pings_may_carry_anything() {
    for line in ["PING\r\n", "ping   \n", "PING x y\r\n", "PINGx\r\n"] {
        assert_eq!(parse(line), Parsed::Op { op: ClientOp::Ping, consumed: line.len() });
    }
    for line in ["+OK\r\n", "INFO {\"x\":1}\r\n"] {
        assert_eq!(parse(line), Parsed::Op { op: ClientOp::Ignored, consumed: line.len() });
    }
}

/// Runs a whole stream and notes what came out of it.
fn run(parser: Parser, chunks: &[&[u8]]) -> Vec<String> {
    let mut pending = Vec::new();
    let mut seen = Vec::new();
    for chunk in chunks {
        pending.extend_from_slice(chunk);
        loop {
            match parser.parse(&pending) {
                Parsed::Op { op, consumed } => {
                    seen.push(format!("{op:?}"));
                    pending.drain(..consumed);
                }
                Parsed::Incomplete { needed } => {
                    assert!(needed > pending.len(), "an incomplete operation must need more than there is");
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

fn operation() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        ("[a-z.]{1,8}", proptest::option::of("[a-z.]{1,8}"), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
            |(subject, reply, payload)| {
                let mut out = Vec::new();
                crate::encode::publish(&mut out, &subject, reply.as_deref(), None, &payload);
                out
            }
        ),
        "(SUB|sub|UNSUB|PUB|HPUB|PING|PONG|CONNECT|INFO|[+]OK|-ERR|X)[ \t]{0,2}[a-z0-9{} .]{0,12}\r?\n"
            .prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..6),
    ]
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_operations(
        ops in proptest::collection::vec(operation(), 1..8),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let stream = ops.concat();
        let whole = run(Parser::default(), &[&stream]);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        at.push(0);
        at.push(stream.len());
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        prop_assert_eq!(&run(Parser::default(), &pieces)[..], &whole[..]);
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(run(Parser::default(), &single), whole);
    }

    #[test]
    fn no_bytes_make_it_panic_or_want_more_than_the_limits(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let limits = Limits { max_control_line: 64, max_connect_line: 128, max_payload: 256 };
        if let Parsed::Incomplete { needed } = Parser::new(limits).parse(&bytes) {
            prop_assert!(needed <= 128 + 8 + 256 + 4);
        }
    }
}
