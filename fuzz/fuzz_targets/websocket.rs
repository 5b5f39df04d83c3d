//! Frames of a WebSocket client: any bytes, in any pieces, give the same output and the same violation, and bounded output.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nats_proto::websocket::{Bounds, Control, Decoder, Deflater, Encoder, Inflater, Violation, write_masked};

/// Most bytes of a compressed message.
const LIMIT: usize = 64 << 10;
const BOUNDS: Bounds = Bounds { message: LIMIT, pause: 4096 };

/// Output, control frames and violation of bytes that come in pieces.
fn decode<'a>(may_inflate: bool, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<Vec<u8>>, Option<Violation>) {
    let (mut decoder, mut inflater) = (Decoder::new(may_inflate), Inflater::default());
    let (mut out, mut control) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut left = piece;
        while !left.is_empty() {
            let before = out.len();
            let decoded = decoder.decode(left, BOUNDS, &mut inflater, &mut out, |frame| match frame {
                Control::Ping(payload) | Control::Pong(payload) | Control::Close { payload, .. } => {
                    control.push(payload.to_vec());
                }
            });
            // One message may go over the mark at which the decoder makes a pause.
            assert!(out.len() - before <= left.len() + BOUNDS.pause + LIMIT);
            match decoded {
                Ok(0) => return (out, control, None),
                Ok(used) => left = &left[used..],
                Err(violation) => return (out, control, Some(violation)),
            }
        }
    }
    (out, control, None)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let (may_inflate, size) = (how & 1 == 1, usize::from(how >> 1) + 1);
    // As frames, and as the payload of a sound one: a fuzzer finds no masks and lengths by itself.
    let mut framed = Vec::new();
    write_masked(0x82 | (how << 6 & 0x40), [how, 7, 0, 255], bytes, &mut framed);
    for input in [bytes, &framed] {
        let whole = decode(may_inflate, std::iter::once(input));
        assert_eq!(decode(may_inflate, input.chunks(size)), whole);
        assert_eq!(decode(may_inflate, input.chunks(1)), whole);
    }
    // What a broker compresses is what a client gets.
    let (mut deflater, mut payload, mut back) = (Deflater::default(), Vec::new(), Vec::new());
    deflater.deflate(bytes, &mut payload);
    Inflater::default().inflate(&payload, bytes.len(), &mut back).expect("our own compression");
    assert_eq!(back, bytes);
    let encoder = Encoder { may_deflate: may_inflate, max_frame: Some(size) };
    encoder.encode(bytes, &mut deflater, &mut payload, &mut back);
});
