//! Messages from the network: whatever the bytes, every layer is read or refused, and what is read is written to the same.
#![no_main]

use choria_protocol::lifecycle::Event;
use choria_protocol::registration::{FileContent, InventoryContent};
use choria_protocol::rpc::{ReplyBody, RequestBody, decode_payload};
use choria_protocol::v1::{self, Headers, Reply, Request, SecureReply, SecureRequest, Transport};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // As a whole message, and as each inner layer of a sound one: a fuzzer finds no hash or base64 by itself.
    let text = String::from_utf8_lossy(bytes);
    let inner = [
        bytes.to_vec(),
        Transport { data: bytes.to_vec(), headers: Headers::default() }.to_vec(),
        v1::encode_request(&SecureRequest::unsigned(text.clone().into_owned()), &Headers::default()),
        Transport { data: SecureReply::seal(text.clone().into_owned()).to_vec(), headers: Headers::default() }.to_vec(),
    ];
    for wire in inner {
        if let Ok(decoded) = v1::decode_request(&wire) {
            assert_eq!(Request::parse(&decoded.request.to_text()).as_ref(), Ok(&decoded.request));
            assert_eq!(SecureRequest::parse(&decoded.secure.to_vec()).as_ref(), Ok(&decoded.secure));
            assert_eq!(Transport::parse(&decoded.transport.to_vec()).as_ref(), Ok(&decoded.transport));
            let _ = RequestBody::parse(&decode_payload(&decoded.request.message));
        }
        if let Ok(decoded) = v1::decode_reply(&wire) {
            assert_eq!(Reply::parse(&decoded.reply.to_text()).as_ref(), Ok(&decoded.reply));
            let _ = ReplyBody::parse(&decode_payload(&decoded.reply.message));
        }
    }
    if let Ok(event) = Event::parse(bytes) {
        assert_eq!(Event::parse(event.to_plain().as_bytes()).as_ref(), Ok(&event));
        let _ = (event.to_cloud_event(), event.to_string());
    }
    let _ = (FileContent::parse(bytes, 1 << 16), InventoryContent::parse(bytes, 1 << 16));
});
