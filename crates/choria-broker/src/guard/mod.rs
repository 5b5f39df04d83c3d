//! Unprovisioned nodes speak for themselves only (DESIGN §6).
//!
//! Two subject families of the provisioning account carry a sender's name inside the message: lifecycle events,
//! which reach the whole fleet, and registration data. What a node publishes there must carry the name that its
//! connection is bound to. The provisioner is not a node and is not looked at.

mod keys;

use choria_protocol::{lifecycle, v1};
use nats_broker::{PublishGuard, RefusalReason};

use crate::policy::Account;

/// Filters of the guarded subjects, all in account `provisioning`.
const EVENTS: &str = "choria.lifecycle.>";
const REGISTRATION: &str = "provisioning.registration.>";

/// A lifecycle event of another identity.
pub const FORGED_EVENT: RefusalReason = "forged_event";
/// Something on an event subject that is no lifecycle event, or that two readers could read differently.
pub const UNREADABLE_EVENT: RefusalReason = "unreadable_event";
/// Registration data of another identity.
pub const FORGED_REGISTRATION: RefusalReason = "forged_registration";
/// Something on a registration subject that is no v1 registration request.
pub const UNREADABLE_REGISTRATION: RefusalReason = "unreadable_registration";

/// Checks what unprovisioned nodes say about themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdentityGuard;

impl PublishGuard for IdentityGuard {
    fn guarded(&self) -> Vec<(String, String)> {
        let account = Account::Provisioning.name();
        [EVENTS, REGISTRATION].map(|filter| (account.to_owned(), filter.to_owned())).into()
    }

    fn check(&self, _account: &str, tag: Option<&str>, subject: &str, payload: &[u8]) -> Result<(), RefusalReason> {
        // Only nodes are bound to a name; the provisioner has no tag.
        let Some(node) = tag else { return Ok(()) };
        if nats_proto::subject::matches(EVENTS, subject) {
            event_is_of(node, subject, payload)
        } else {
            registration_is_of(node, payload)
        }
    }
}

fn event_is_of(node: &str, subject: &str, payload: &[u8]) -> Result<(), RefusalReason> {
    if payload.len() > lifecycle::MAX_EVENT_BYTES || !keys::are_unambiguous(payload) {
        return Err(UNREADABLE_EVENT);
    }
    let event = lifecycle::Event::parse(payload).map_err(|_| UNREADABLE_EVENT)?;
    // Listeners choose by subject what to believe, so type and component must be those of the subject, too.
    if event.identity == node && event.subject() == subject { Ok(()) } else { Err(FORGED_EVENT) }
}

/// The sender stands in the envelope and, unsigned, in the transport; readers use either, so both must be right.
fn registration_is_of(node: &str, payload: &[u8]) -> Result<(), RefusalReason> {
    let decoded = v1::decode_request(payload).map_err(|_| UNREADABLE_REGISTRATION)?;
    let transport_agrees = decoded.transport.headers.mc_sender.as_deref().is_none_or(|sender| sender == node);
    if decoded.request.envelope.sender_id == node && transport_agrees { Ok(()) } else { Err(FORGED_REGISTRATION) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "n1.example.net";
    const STARTUP: &str = "choria.lifecycle.event.startup.provision_mode_server";
    const DATA: &str = "provisioning.registration.data";

    fn check(tag: Option<&str>, subject: &str, payload: impl AsRef<[u8]>) -> Result<(), RefusalReason> {
        IdentityGuard.check("provisioning", tag, subject, payload.as_ref())
    }

    fn event(identity: &str) -> lifecycle::Event {
        lifecycle::Event {
            kind: lifecycle::Kind::Startup { version: "1".into() },
            id: "6a6b5466-b751-4252-9596-c9e08036e72e".into(),
            identity: identity.into(),
            component: lifecycle::PROVISION_MODE_SERVER.into(),
            timestamp: 1_795_170_514,
        }
    }

    fn registration(sender: &str, mc_sender: Option<&str>) -> Vec<u8> {
        let request = v1::Request {
            message: "{}".into(),
            envelope: v1::RequestEnvelope {
                request_id: "e548c7cdfd1d4a509fcf1fc54b8f910b".into(),
                sender_id: sender.into(),
                caller_id: format!("choria={sender}"),
                collective: "provisioning".into(),
                agent: "registration".into(),
                ttl: 60,
                time: 1_795_170_522,
                filter: Default::default(),
            },
        };
        let headers = v1::Headers { mc_sender: mc_sender.map(str::to_owned), ..Default::default() };
        v1::encode_request(&v1::SecureRequest::unsigned(request.to_text()), &headers)
    }

    #[test]
    fn a_node_may_announce_itself_in_both_encodings() {
        for text in [event(NODE).to_plain(), event(NODE).to_cloud_event()] {
            assert_eq!(check(Some(NODE), STARTUP, &text), Ok(()), "{text}");
        }
        assert_eq!(check(Some(NODE), DATA, registration(NODE, Some(NODE))), Ok(()));
        assert_eq!(check(Some(NODE), DATA, registration(NODE, None)), Ok(()));
    }

    #[test]
    fn design6_forged_lifecycle_events_are_refused() {
        let own = event(NODE).to_cloud_event();
        let cases: Vec<(String, RefusalReason)> = vec![
            (event("n2.example.net").to_plain(), FORGED_EVENT),
            (event("n2.example.net").to_cloud_event(), FORGED_EVENT),
            (event("N1.example.net").to_plain(), FORGED_EVENT),
            (event("").to_plain(), FORGED_EVENT),
            // Of itself, but not what the subject says.
            (lifecycle::Event { kind: lifecycle::Kind::Shutdown, ..event(NODE) }.to_plain(), FORGED_EVENT),
            (lifecycle::Event { component: lifecycle::SERVER.into(), ..event(NODE) }.to_plain(), FORGED_EVENT),
            // The envelope says one name, the content another.
            (own.replacen(NODE, "n2.example.net", 1), UNREADABLE_EVENT),
            // A reader that ignores case, or takes the last of two keys, would see the other name.
            (own.replacen("\"identity\"", "\"Identity\":\"n2.example.net\",\"identity\"", 1), UNREADABLE_EVENT),
            (own.replacen("\"identity\"", "\"identity\":\"n2.example.net\",\"identity\"", 1), UNREADABLE_EVENT),
            (own.replacen("\"data\":", "\"data\":{},\"data\":", 1), UNREADABLE_EVENT),
            ("{}".into(), UNREADABLE_EVENT),
            ("".into(), UNREADABLE_EVENT),
            ("[".repeat(60_000), UNREADABLE_EVENT),
            (" ".repeat(70_000) + &own, UNREADABLE_EVENT),
        ];
        for (text, reason) in cases {
            let shown: String = text.chars().take(300).collect();
            assert_eq!(check(Some(NODE), STARTUP, &text), Err(reason), "{shown}");
        }
    }

    #[test]
    fn forged_registration_is_refused() {
        for (payload, reason) in [
            (registration("n2.example.net", Some(NODE)), FORGED_REGISTRATION),
            (registration(NODE, Some("n2.example.net")), FORGED_REGISTRATION),
            (registration("n2.example.net", None), FORGED_REGISTRATION),
            (b"not JSON".to_vec(), UNREADABLE_REGISTRATION),
            (event(NODE).to_plain().into_bytes(), UNREADABLE_REGISTRATION),
        ] {
            assert_eq!(check(Some(NODE), DATA, &payload), Err(reason), "{}", String::from_utf8_lossy(&payload));
        }
    }

    #[test]
    fn whoever_is_not_bound_is_not_looked_at() {
        assert_eq!(check(None, STARTUP, event("n2.example.net").to_plain()), Ok(()));
        assert_eq!(check(None, DATA, "anything"), Ok(()));
    }

    proptest::proptest! {
        /// No bytes stop the broker, and none that are not the node's own words pass.
        #[test]
        fn bytes_that_are_no_message_are_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            proptest::prop_assert!(check(Some(NODE), STARTUP, &bytes).is_err());
            proptest::prop_assert!(check(Some(NODE), DATA, &bytes).is_err());
        }
    }
}
