//! Lifecycle events and registration messages of original servers (`testdata/server`), and how events are shown
//! (`testdata/cli/events.jsonl`).
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use choria_protocol::lifecycle::{Event, EventError, Kind, MAX_EVENT_BYTES, PROVISION_MODE_SERVER, SERVER};
use choria_protocol::registration::{FileContent, InventoryContent, RegistrationError};
use choria_protocol::v1::{self, SecureRequest, SignatureKind};
use proptest::prelude::*;
use serde_json::{Value, json};

fn text(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)).unwrap()
}

#[test]
fn events_of_a_server_that_is_provisioned_and_restarts() {
    let mut components = Vec::new();
    for line in text("server/lifecycle-events.jsonl").lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let event = Event::parse(line.as_bytes()).unwrap();
        assert_eq!(event.id, value["id"].as_str().unwrap(), "data and envelope share the id");
        assert_eq!(event.identity, value["subject"].as_str().unwrap());
        // The file was written with blanks; on the wire there are none.
        assert_eq!(event.to_cloud_event(), value.to_string());
        assert_eq!(event.to_plain(), value["data"].to_string());
        assert_eq!(Event::parse(event.to_plain().as_bytes()).unwrap(), event, "both encodings say the same");
        components.push((event.kind.name(), event.component));
    }
    assert_eq!(components[0], ("startup", PROVISION_MODE_SERVER.to_owned()));
    assert!(components.contains(&("startup", SERVER.to_owned())));
    assert!(components.contains(&("provisioned", PROVISION_MODE_SERVER.to_owned())));
}

#[test]
fn events_are_shown_as_recorded() {
    for line in text("cli/events.jsonl").lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let shown = Event::parse(row["event"].to_string().as_bytes()).ok().map(|event| format!("HH:MM:SS {event}"));
        assert_eq!(shown.as_deref(), row["line"].as_str(), "{}", row["event"]);
    }
}

#[test]
fn old_protocol_ids_are_understood_and_written_new() {
    let old = r#"{"protocol":"choria:lifecycle:alive:1","id":"x","identity":"n1","component":"server","timestamp":5,"version":"1"}"#;
    let event = Event::parse(old.as_bytes()).unwrap();
    assert_eq!(event.kind, Kind::Alive { version: "1".to_owned() });
    assert!(event.to_plain().starts_with(r#"{"protocol":"io.choria.lifecycle.v1.alive""#));
    assert_eq!(event.subject(), "choria.lifecycle.event.alive.server");
}

#[test]
fn events_that_contradict_themselves_are_refused() {
    let event = Event {
        kind: Kind::Shutdown,
        id: "x".to_owned(),
        identity: "n1".to_owned(),
        component: SERVER.to_owned(),
        timestamp: 5,
    };
    let whole: Value = serde_json::from_str(&event.to_cloud_event()).unwrap();
    for (key, value, error) in [
        ("subject", json!("n2"), EventError::Contradiction("identity")),
        ("type", json!("io.choria.lifecycle.v1.startup"), EventError::Contradiction("type")),
        ("id", json!("y"), EventError::Contradiction("id")),
        ("specversion", json!("2.0"), EventError::Format),
        ("source", json!("elsewhere"), EventError::Format),
        ("data", json!(null), EventError::Field("data")),
    ] {
        let mut changed = whole.clone();
        changed[key] = value;
        assert_eq!(Event::parse(changed.to_string().as_bytes()), Err(error), "{key}");
    }
    for (text, error) in [
        ("[]", EventError::Format),
        ("{}", EventError::Format),
        (r#"{"protocol":"io.choria.lifecycle.v1.nosuch"}"#, EventError::UnknownType("nosuch".to_owned())),
        (r#"{"protocol":"io.choria.lifecycle.v1.startup"}"#, EventError::Field("version")),
        (r#"{"protocol":"io.choria.lifecycle.v1.shutdown","id":5}"#, EventError::Field("id")),
    ] {
        assert_eq!(Event::parse(text.as_bytes()), Err(error), "{text}");
    }
    assert!(matches!(Event::parse(&vec![b' '; MAX_EVENT_BYTES + 1]), Err(EventError::TooLarge { .. })));
    assert!(matches!(Event::parse(b"x"), Err(EventError::NotJson(_))));
}

#[test]
fn registration_of_servers_without_certificate_is_unsigned_as_recorded() {
    for (name, kind) in [
        ("server/registration-v1.json", SignatureKind::Insecure),
        ("server/registration-secure-v1.json", SignatureKind::InsecureRegistration),
    ] {
        let row: Value = serde_json::from_str(&text(name)).unwrap();
        assert_eq!(row["subject"], choria_protocol::subjects::PROVISIONING_REGISTRATION);
        let wire = row["message"].as_str().unwrap();
        let decoded = v1::decode_request(wire.as_bytes()).unwrap();
        assert_eq!(decoded.secure.kind(), kind, "{name}");
        let message = decoded.request.to_text();
        let made = match kind {
            SignatureKind::Insecure => SecureRequest::unsigned(message),
            _ => SecureRequest::unsigned_registration(message),
        };
        assert_eq!(v1::encode_request(&made, &decoded.transport.headers), wire.as_bytes(), "{name}");
        assert!(decoded.request.envelope.filter.is_empty());
        assert_eq!(decoded.request.envelope.agent, choria_protocol::registration::AGENT);
        assert_eq!(decoded.transport.headers.reply_subject(), Ok(choria_protocol::subjects::NO_REPLY));
        let body = FileContent::parse(decoded.request.message.as_bytes(), 1000).unwrap();
        assert_eq!(body.content, br#"{"country": "mt", "dc": "ams", "serial": 17}"#, "{name}");
    }
}

#[test]
fn registration_bodies_are_bounded_when_unpacked() {
    let body = FileContent { mtime: 1, file: "/f".to_owned(), updated: true, content: vec![b'x'; 100_000] };
    let packed = body.to_text(true);
    assert!(packed.len() < 1000);
    assert_eq!(FileContent::parse(packed.as_bytes(), 100_000).unwrap(), body);
    assert!(matches!(FileContent::parse(packed.as_bytes(), 99_999), Err(RegistrationError::Content(_))));
    assert!(
        FileContent { content: br#"{"a":1}"#.to_vec(), ..body }
            .to_text(false)
            .ends_with(r#""content":"eyJhIjoxfQ=="}"#)
    );
}

#[test]
fn inventories_survive_both_ways() {
    let body = InventoryContent { content: json!({"agents": [], "facts": {"a": "<1>"}, "status": {}}) };
    for compress in [true, false] {
        assert_eq!(InventoryContent::parse(body.to_text(compress).as_bytes(), 1000).unwrap(), body);
    }
    assert!(body.to_text(false).contains(r#""content":{"agents":[],"facts":{"a":"\u003c1\u003e"}"#));
    let other = FileContent { mtime: 1, file: String::new(), updated: false, content: vec![] }.to_text(true);
    assert!(matches!(InventoryContent::parse(other.as_bytes(), 10), Err(RegistrationError::Protocol(_))));
}

/// Ours; the original skips types that it does not know.
#[test]
fn refused_connections_are_events() {
    let text = r#"{"protocol":"io.choria.lifecycle.v1.refused","id":"1","identity":"n1","component":"broker","timestamp":7,"reason":"claim_held","remote":"192.0.2.1:9"}"#;
    let event = Event::parse(text.as_bytes()).unwrap();
    let kind = |remote: &str, message: &str| Kind::Refused {
        reason: "claim_held".to_owned(),
        remote: remote.to_owned(),
        message: message.to_owned(),
    };
    assert_eq!(event.kind, kind("192.0.2.1:9", ""));
    assert_eq!(event.to_plain(), text);
    assert_eq!(event.subject(), "choria.lifecycle.event.refused.broker");
    let said = "[refused] n1: broker refused a connection of this name";
    assert_eq!(event.to_string(), format!("{said} from 192.0.2.1:9: claim_held"));
    let told = |event: &Event, kind: Kind| Event { kind, ..event.clone() }.to_string();
    assert_eq!(told(&event, kind("", "")), format!("{said}: claim_held"));
    let provisioner = Event { component: "provisioner".to_owned(), kind: kind("", "name \"x\"\nis wrong"), ..event };
    assert_eq!(provisioner.to_string(), "[refused] n1: provisioner refused: claim_held: name \"x\" is wrong");
    assert!(provisioner.to_plain().ends_with(r#""remote":"","message":"name \"x\"\nis wrong"}"#));
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        ".{0,8}".prop_map(|version| Kind::Startup { version }),
        Just(Kind::Shutdown),
        Just(Kind::Provisioned),
        ".{0,8}".prop_map(|version| Kind::Alive { version }),
        (".{0,8}", ".{0,8}").prop_map(|(version, new_version)| Kind::Upgraded { version, new_version }),
        (".{0,8}", any::<u64>(), ".{0,8}").prop_map(|(governor, sequence, event_type)| Kind::Governor {
            governor,
            sequence,
            event_type
        }),
        (".{0,8}", ".{0,8}", ".{0,8}").prop_map(|(reason, remote, message)| Kind::Refused { reason, remote, message }),
    ]
}

proptest! {
    #[test]
    fn any_event_survives_both_encodings(kind in any_kind(), id in ".{0,8}", identity in ".{0,8}", component in ".{0,8}",
        timestamp in -10_000_000_000i64..10_000_000_000) {
        let event = Event { kind, id, identity, component, timestamp };
        prop_assert_eq!(&Event::parse(event.to_plain().as_bytes()).unwrap(), &event);
        prop_assert_eq!(&Event::parse(event.to_cloud_event().as_bytes()).unwrap(), &event);
        let _ = event.to_string();
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (Event::parse(&bytes), FileContent::parse(&bytes, 100), InventoryContent::parse(&bytes, 100));
    }
}
