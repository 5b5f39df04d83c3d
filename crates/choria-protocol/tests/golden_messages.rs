//! Messages captured between original programs: decoded they give what the files say, encoded again they give the
//! identical bytes (`testdata/protocol/v1/messages`).
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use choria_protocol::lifecycle::Event;
use choria_protocol::registration::FileContent;
use choria_protocol::rpc::{ReplyBody, RequestBody, decode_payload};
use choria_protocol::v1::{self, DecodedReply, DecodedRequest, SecureReply, SignatureKind};
use serde_json::{Value, json};

fn messages() -> Vec<(String, Value)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/protocol/v1/messages");
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
        })
        .collect()
}

fn headers_json(headers: &v1::Headers) -> Value {
    let mut map = serde_json::Map::new();
    if let Some(reply_to) = &headers.reply_to {
        map.insert("reply-to".into(), json!(reply_to));
    }
    if let Some(sender) = &headers.mc_sender {
        map.insert("mc_sender".into(), json!(sender));
    }
    if !headers.seen_by.is_empty() {
        map.insert("seen-by".into(), json!(headers.seen_by));
    }
    if let Some(federation) = &headers.federation {
        let mut inner = serde_json::Map::new();
        if let Some(id) = &federation.request_id {
            inner.insert("req".into(), json!(id));
        }
        if let Some(reply_to) = &federation.reply_to {
            inner.insert("reply-to".into(), json!(reply_to));
        }
        if !federation.targets.is_empty() {
            inner.insert("target".into(), json!(federation.targets));
        }
        map.insert("federation".into(), inner.into());
    }
    map.into()
}

fn check_request(name: &str, golden: &Value, wire: &[u8]) {
    let DecodedRequest { transport, secure, request } = v1::decode_request(wire).unwrap();
    let decoded = &golden["decoded"];
    assert_eq!(headers_json(&transport.headers), decoded["transport_headers"], "{name}");
    assert_eq!(String::from_utf8(transport.data.clone()).unwrap(), decoded["secure_text"], "{name}");
    assert_eq!(secure.message, decoded["signed_or_hashed_text"].as_str().unwrap(), "{name}");
    assert_eq!(request.message, decoded["payload_text"].as_str().unwrap(), "{name}");
    let envelope = &request.envelope;
    let filter: Value = serde_json::from_str(&envelope.filter.to_text()).unwrap();
    assert_eq!(
        json!({
            "requestid": envelope.request_id, "senderid": envelope.sender_id, "callerid": envelope.caller_id,
            "collective": envelope.collective, "agent": envelope.agent, "ttl": envelope.ttl, "time": envelope.time,
            "filter": filter
        }),
        decoded["inner"]["envelope"],
        "{name}"
    );
    let unsigned = decoded["secure_text"].as_str().unwrap().contains("\"signature\":\"insecure\"");
    assert_eq!(secure.kind() == SignatureKind::Insecure, unsigned, "{name}");

    assert_eq!(request.to_text(), secure.message, "{name}");
    assert_eq!(secure.to_vec(), transport.data, "{name}");
    assert_eq!(transport.to_vec(), wire, "{name}");
    assert_eq!(v1::encode_request(&secure, &transport.headers), wire, "{name}");
}

fn check_reply(name: &str, golden: &Value, wire: &[u8]) {
    let DecodedReply { transport, secure, reply } = v1::decode_reply(wire).unwrap();
    let decoded = &golden["decoded"];
    assert_eq!(headers_json(&transport.headers), decoded["transport_headers"], "{name}");
    assert_eq!(String::from_utf8(transport.data.clone()).unwrap(), decoded["secure_text"], "{name}");
    assert_eq!(secure.message, decoded["signed_or_hashed_text"].as_str().unwrap(), "{name}");
    assert_eq!(reply.message, decoded["payload_text"].as_str().unwrap(), "{name}");
    let envelope = &reply.envelope;
    assert_eq!(
        json!({
            "requestid": envelope.request_id, "senderid": envelope.sender_id, "agent": envelope.agent,
            "time": envelope.time
        }),
        decoded["inner"]["envelope"],
        "{name}"
    );
    assert_eq!(reply.to_text(), secure.message, "{name}");
    assert_eq!(SecureReply::seal(reply.to_text()), secure, "{name}");
    assert_eq!(v1::encode_reply(&reply, &transport.headers), wire, "{name}");
}

/// RPC bodies, discovery and registration payloads read and written again.
fn check_payload(name: &str, golden: &Value) {
    let decoded = &golden["decoded"];
    let text = decoded["payload_text"].as_str().unwrap();
    let Some(payload) = decoded.get("payload") else {
        assert!(["cGluZw==", "pong"].contains(&text), "{name}: {text}");
        return;
    };
    let bytes = decode_payload(text);
    assert_eq!(bytes.as_ref(), text.as_bytes(), "{name}");
    if payload.get("statuscode").is_some() {
        let body = ReplyBody::parse(&bytes).unwrap();
        assert_eq!(body.data, payload["data"], "{name}");
        assert_eq!(body.to_text(), text, "{name}");
    } else if payload.get("agent").is_some() {
        let body = RequestBody::parse(&bytes).unwrap();
        assert_eq!(Value::Object(body.data.clone()), payload["data"], "{name}");
        assert_eq!(body.to_text(), text, "{name}");
    } else {
        let body = FileContent::parse(&bytes, 10_000).unwrap();
        assert_eq!(String::from_utf8(body.content.clone()).unwrap(), decoded["zcontent_text"], "{name}");
        assert_eq!(body.updated, payload["updated"], "{name}");
        // Compressors differ in their output, so the way back is checked by reading it again.
        for compress in [true, false] {
            assert_eq!(FileContent::parse(body.to_text(compress).as_bytes(), 10_000).unwrap(), body, "{name}");
        }
    }
}

fn check_event(name: &str, golden: &Value, wire: &str) {
    let event = Event::parse(wire.as_bytes()).unwrap();
    assert_eq!(event.timestamp, golden["time"], "{name}");
    assert_eq!(event.subject(), golden["subject"].as_str().unwrap(), "{name}");
    let again = if name.contains("plain") { event.to_plain() } else { event.to_cloud_event() };
    assert_eq!(again, wire, "{name}");
}

#[test]
fn captured_messages_decode_as_recorded_and_encode_to_the_same_bytes() {
    let mut counts = [0; 3];
    for (name, golden) in messages() {
        let wire = golden["wire"].as_str().unwrap();
        let decoded = &golden["decoded"];
        if decoded.get("event").is_some() {
            check_event(&name, &golden, wire);
            counts[0] += 1;
        } else if decoded["inner"]["protocol"] == "choria:request:1" {
            check_request(&name, &golden, wire.as_bytes());
            check_payload(&name, &golden);
            counts[1] += 1;
        } else {
            check_reply(&name, &golden, wire.as_bytes());
            check_payload(&name, &golden);
            counts[2] += 1;
        }
    }
    assert_eq!(counts.iter().sum::<usize>(), 59, "every captured message is checked: {counts:?}");
}

#[test]
fn a_directed_request_is_one_document_for_all_its_nodes() {
    let messages = messages();
    let wire = |prefix: &str| {
        let (_, golden) = messages.iter().find(|(name, _)| name.starts_with(prefix)).unwrap();
        golden["wire"].as_str().unwrap().to_owned()
    };
    assert_eq!(wire("13-"), wire("14-"));
    let decoded = v1::decode_request(wire("13-").as_bytes()).unwrap();
    let prepared = v1::PreparedTransport::new(&decoded.transport.data);
    assert_eq!(prepared.to_vec(&decoded.transport.headers), wire("13-").as_bytes());
    let mut own = decoded.transport.headers.clone();
    own.reply_to = Some("provisioning.reply.x.y".to_owned());
    let other = v1::decode_request(&prepared.to_vec(&own)).unwrap();
    assert_eq!(other.secure, decoded.secure, "headers lie outside the signature");
    assert_eq!(other.transport.headers, own);
}
