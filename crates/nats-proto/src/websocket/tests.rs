use proptest::prelude::*;

use super::*;

const KEY: [u8; 4] = [0xa1, 0x02, 0x73, 0xf4];
const LIMIT: usize = 1 << 20;
const PAUSE: usize = 256 << 10;

/// What a decoder made of bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    out: Vec<u8>,
    /// Opcode and payload, with the position in `out`.
    control: Vec<(u8, Vec<u8>)>,
    violation: Option<Violation>,
}

/// Decodes pieces one after the other.
fn decode<'a>(may_inflate: bool, limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut decoder = Decoder::new(may_inflate);
    let mut inflater = Inflater::default();
    let bounds = Bounds { message: limit, pause: PAUSE };
    let mut seen = Seen::default();
    for piece in pieces {
        let mut left = piece;
        while !left.is_empty() {
            let control = &mut seen.control;
            let used = decoder.decode(left, bounds, &mut inflater, &mut seen.out, |frame| match frame {
                Control::Ping(payload) => control.push((PING, payload.to_vec())),
                Control::Pong(payload) => control.push((PONG, payload.to_vec())),
                Control::Close { code, payload } => {
                    assert_eq!(code.is_some(), !payload.is_empty());
                    control.push((CLOSE, payload.to_vec()));
                }
            });
            match used {
                // Closed.
                Ok(0) => return seen,
                Ok(used) => left = &left[used..],
                Err(violation) => {
                    seen.violation = Some(violation);
                    return seen;
                }
            }
        }
    }
    seen
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_masked(first, KEY, payload, &mut bytes);
    bytes
}

fn deflated(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Deflater::default().deflate(content, &mut out);
    out
}

#[test]
fn payloads_are_strung_together_whatever_their_frames() {
    let bytes = [
        frame(FINAL | TEXT, b"PI"),
        frame(BINARY, b"NG"),
        frame(FINAL | PING, b"?"),
        frame(CONTINUATION, b""),
        frame(FINAL | CONTINUATION, b"\r\n"),
        frame(FINAL | BINARY, &[b'x'; 126]),
        frame(FINAL | BINARY, &[b'y'; 70_000]),
        frame(FINAL | PONG, b""),
        frame(FINAL | CLOSE, b"\x03\xe8bye"),
        frame(FINAL | BINARY, b"never read"),
    ]
    .concat();
    let seen = decode(false, LIMIT, [&bytes[..]]);
    let expected = [b"PING\r\n".to_vec(), vec![b'x'; 126], vec![b'y'; 70_000]].concat();
    assert_eq!(seen.out, expected);
    let control = [(PING, b"?".to_vec()), (PONG, vec![]), (CLOSE, b"\x03\xe8bye".to_vec())];
    assert_eq!(seen.control, control);
    assert_eq!(seen.violation, None);
    assert_eq!(decode(false, LIMIT, bytes.chunks(1)), seen);
}

#[test]
fn broken_rules_end_the_connection_with_their_reason() {
    let mut unmasked = frame(FINAL | BINARY, b"x");
    unmasked[1] &= 0x7f;
    let cases: [(&str, u16, Vec<u8>); 13] = [
        ("mask bit missing", 1002, unmasked),
        ("close frame payload cannot be 1 byte", 1002, frame(FINAL | CLOSE, b"x")),
        ("invalid utf8", 1007, frame(FINAL | CLOSE, b"\x03\xe8\xff")),
        ("final bit", 1002, frame(PING, b"x")),
        ("125 bytes", 1002, frame(FINAL | PING, &[b'x'; 126])),
        ("without negotiated", 1002, frame(FINAL | COMPRESSED | BINARY, b"x")),
        ("RSV2 and RSV3", 1002, frame(FINAL | 0x20 | BINARY, b"x")),
        ("RSV2 and RSV3", 1002, frame(FINAL | 0x10 | BINARY, b"x")),
        ("unknown opcode", 1002, frame(FINAL | 0x3, b"x")),
        ("unknown opcode", 1002, frame(FINAL | 0xb, b"x")),
        ("outside of a message", 1002, frame(FINAL | CONTINUATION, b"x")),
        ("before the last one has ended", 1002, [frame(BINARY, b""), frame(FINAL | BINARY, b"x")].concat()),
        ("too long", 1002, vec![FINAL | BINARY, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
    ];
    for (text, code, bytes) in cases {
        let bytes = [frame(FINAL | BINARY, b"before"), bytes].concat();
        let seen = decode(false, LIMIT, [&bytes[..]]);
        let violation = seen.violation.unwrap_or_else(|| panic!("{text}: nothing wrong"));
        assert!(violation.text.contains(text), "{text}: {violation}");
        assert_eq!(violation.code, code, "{text}");
        assert_eq!(seen.out, b"before", "{text}");
        assert_eq!(decode(false, LIMIT, bytes.chunks(1)), seen, "{text}");
    }
}

#[test]
fn compressed_messages_are_decompressed_and_bounded() {
    let content = b"SUB a 1\r\nPUB a 5\r\nhello\r\n".repeat(100);
    let message = deflated(&content);
    assert!(message.len() < content.len() / 10);
    let (begin, end) = message.split_at(7);
    let bytes = [
        frame(COMPRESSED | BINARY, begin),
        frame(FINAL | PING, b"in between"),
        frame(FINAL | CONTINUATION, end),
        frame(FINAL | COMPRESSED | TEXT, &message),
        frame(FINAL | BINARY, b"plain"),
        frame(FINAL | COMPRESSED | BINARY, &deflated(b"")),
    ]
    .concat();
    for seen in [decode(true, content.len(), [&bytes[..]]), decode(true, content.len(), bytes.chunks(1))] {
        assert_eq!(seen.violation, None);
        assert_eq!(seen.out, [&content[..], &content, b"plain"].concat());
    }
    let seen = decode(true, content.len() - 1, [&bytes[..]]);
    assert_eq!(seen.violation.unwrap().code, code::TOO_LARGE);
    assert_eq!(seen.out, b"", "a message counts as a whole or not at all");
    for damaged in [&b"\xff\xff\xff\xff"[..], b"\x05\x00"] {
        let seen = decode(true, LIMIT, [&frame(FINAL | COMPRESSED | BINARY, damaged)[..]]);
        assert_eq!(seen.violation.unwrap().code, code::INVALID_PAYLOAD, "{damaged:?}");
    }
    // Not even the compressed form may be larger, in however many frames.
    let bytes = [frame(COMPRESSED | BINARY, &[0; 60]), frame(CONTINUATION, &[0; 60])].concat();
    assert_eq!(decode(true, 100, [&bytes[..]]).violation.unwrap().code, code::TOO_LARGE);
    // Continuation frames carry no mark.
    let bytes = [frame(COMPRESSED | BINARY, begin), frame(FINAL | COMPRESSED | CONTINUATION, end)].concat();
    assert_eq!(decode(true, LIMIT, [&bytes[..]]).violation.unwrap().code, code::PROTOCOL_ERROR);
}

/// A message whose last block says that it is the last (RFC 7692 §7.2.3.4).
#[test]
fn a_final_block_ends_a_compressed_message() {
    let mut message = Vec::with_capacity(1000);
    let mut state = flate2::Compress::new(flate2::Compression::best(), false);
    state.compress_vec(b"PING\r\n", &mut message, flate2::FlushCompress::Finish).unwrap();
    let bytes = [frame(FINAL | COMPRESSED | BINARY, &message), frame(FINAL | BINARY, b"x")].concat();
    assert_eq!(decode(true, LIMIT, [&bytes[..]]).out, b"PING\r\nx");
}

/// A bomb makes no more than its limit, and several in one read make a pause in between.
#[test]
fn bombs_are_worked_off_one_by_one() {
    let message = deflated(&vec![0; LIMIT]);
    let bytes = frame(FINAL | COMPRESSED | BINARY, &message).repeat(20);
    let mut decoder = Decoder::new(true);
    let mut inflater = Inflater::default();
    let mut out = Vec::new();
    let bounds = |message| Bounds { message, pause: PAUSE };
    let used = decoder.decode(&bytes, bounds(LIMIT), &mut inflater, &mut out, |_| ()).unwrap();
    assert_eq!(used * 20, bytes.len());
    assert_eq!(out.len(), LIMIT);
    let mut out = Vec::new();
    let used = decoder.decode(&bytes, bounds(LIMIT / 2), &mut inflater, &mut out, |_| ());
    assert_eq!(used.unwrap_err().code, code::TOO_LARGE);
    assert!(out.capacity() <= LIMIT, "{}", out.capacity());
}

/// Takes frames of a broker apart, which have no mask: gives first byte and payload of each.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        assert!(second & 0x80 == 0, "a broker does not mask");
        let (length, rest) = match second {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
            short => (usize::from(*short), rest),
        };
        frames.push((*first, rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    frames
}

#[test]
fn a_broker_sends_binary_messages_and_compresses_what_is_worth_it() {
    let encode = |encoder: Encoder, content: &[u8]| {
        let mut out = Vec::new();
        encoder.encode(content, &mut Deflater::default(), &mut vec![7; 9], &mut out);
        frames(&out)
    };
    let plain = Encoder::default();
    assert_eq!(encode(plain, b"PONG\r\n"), [(0x82, b"PONG\r\n".to_vec())]);
    for size in [125, 126, 65_535, 65_536] {
        assert_eq!(encode(plain, &vec![1; size]), [(0x82, vec![1; size])]);
    }
    let limited = Encoder { max_frame: Some(4096), ..plain };
    let lengths: Vec<usize> = encode(limited, &[1; 9000]).iter().map(|(_, payload)| payload.len()).collect();
    assert_eq!(lengths, [4096, 4096, 808]);
    let compressing = Encoder { may_deflate: true, max_frame: Some(100) };
    assert_eq!(encode(compressing, &[b'z'; 64]), [(0x82, vec![b'z'; 64])]);
    assert_eq!(encode(compressing, &[b'z'; 65]), [(0xc2, deflated(&[b'z'; 65]))]);
    // What does not get smaller stays as it is.
    let noise: Vec<u8> = (0..90_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    assert_eq!(encode(compressing, &noise), [(0x82, noise)]);
    let text: String = (0..400).map(|number| format!("{} ", number * number)).collect();
    let fragments = encode(compressing, text.as_bytes());
    let firsts: Vec<u8> = fragments.iter().map(|(first, _)| *first).collect();
    let last = firsts.len() - 1;
    assert!(last > 1 && firsts[0] == 0x42 && firsts[last] == 0x80 && firsts[1..last].iter().all(|first| *first == 0));
    let message: Vec<u8> = fragments.into_iter().flat_map(|(_, payload)| payload).collect();
    let mut out = Vec::new();
    Inflater::default().inflate(&message, LIMIT, &mut out).unwrap();
    assert_eq!(out, text.as_bytes());
}

#[test]
fn close_frames_fit_whatever_their_text() {
    let mut out = Vec::new();
    write_close(1008, &"ü".repeat(100), &mut out);
    let [(0x88, payload)] = &frames(&out)[..] else { panic!("{out:?}") };
    assert_eq!(payload[..2], [0x03, 0xf0]);
    assert_eq!(std::str::from_utf8(&payload[2..]).unwrap(), "ü".repeat(61));
}

/// Something that a client may send.
#[derive(Debug, Clone)]
enum Piece {
    Message(Vec<u8>, bool, usize),
    Control(u8, Vec<u8>),
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..300), any::<bool>(), 1..4_usize)
            .prop_map(|(content, is_compressed, frames)| Piece::Message(content, is_compressed, frames)),
        (prop_oneof![Just(PING), Just(PONG)], prop::collection::vec(any::<u8>(), 0..=MAX_CONTROL))
            .prop_map(|(opcode, payload)| Piece::Control(opcode, payload)),
    ]
}

proptest! {
    #[test]
    fn what_a_client_sends_arrives_however_it_is_split(
        pieces in prop::collection::vec(piece(), 0..8),
        key in any::<[u8; 4]>(),
        cuts in prop::collection::vec(1..200_usize, 1..20),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Seen::default());
        for piece in pieces {
            match piece {
                Piece::Message(content, is_compressed, frames) => {
                    let payload = if is_compressed { deflated(&content) } else { content.clone() };
                    let each = payload.len() / frames;
                    for frame in 0..frames {
                        let is_last = frame + 1 == frames;
                        let mut first = if frame == 0 { BINARY } else { CONTINUATION };
                        first |= if is_last { FINAL } else { 0 };
                        first |= if is_compressed && frame == 0 { COMPRESSED } else { 0 };
                        let end = if is_last { payload.len() } else { (frame + 1) * each };
                        write_masked(first, key, &payload[frame * each..end], &mut bytes);
                    }
                    expected.out.extend(content);
                }
                Piece::Control(opcode, payload) => {
                    write_masked(FINAL | opcode, key, &payload, &mut bytes);
                    expected.control.push((opcode, payload));
                }
            }
        }
        let mut split = Vec::new();
        let mut left = &bytes[..];
        for cut in cuts.into_iter().cycle() {
            if left.is_empty() {
                break;
            }
            let (piece, rest) = left.split_at(cut.min(left.len()));
            split.push(piece);
            left = rest;
        }
        prop_assert_eq!(decode(true, LIMIT, split), expected);
    }

    #[test]
    fn any_bytes_mean_the_same_however_they_are_split(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        cut in 1..40_usize,
    ) {
        prop_assert_eq!(decode(true, 1000, [&bytes[..]]), decode(true, 1000, bytes.chunks(cut)));
    }

    #[test]
    fn compression_gives_back_what_it_was_given(content in prop::collection::vec(0..6_u8, 0..60_000)) {
        let mut out = Vec::new();
        Inflater::default().inflate(&deflated(&content), content.len(), &mut out).unwrap();
        prop_assert_eq!(out, content);
    }
}
