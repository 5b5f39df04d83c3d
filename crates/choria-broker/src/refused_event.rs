//! The event that tells the fleet that a second connection claimed the name of a live node.

use choria_protocol::{ids, subjects};
use serde::Serialize;

/// Component of the broker in lifecycle subjects.
pub const COMPONENT: &str = "broker";
/// Event type.
pub const TYPE: &str = "refused";

/// A refused connection, published in account `choria` on `choria.lifecycle.event.refused.broker`.
///
/// The original has no such event. It is encoded like the plain lifecycle events (spec 01 §5.6) so that tools that
/// show unknown types show it, and adds why and from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedEvent {
    protocol: &'static str,
    id: String,
    /// The name that the refused peer claimed.
    pub identity: String,
    component: &'static str,
    /// Unix seconds.
    pub timestamp: i64,
    /// Countable reason, such as `claim_held`.
    pub reason: String,
    /// Address of the refused peer, empty when there is none.
    pub remote: String,
}

impl RefusedEvent {
    /// Makes an event with a fresh id.
    pub fn new(identity: &str, reason: &str, remote: &str, timestamp: i64) -> Self {
        Self {
            protocol: "io.choria.lifecycle.v1.refused",
            id: ids::event_id(),
            identity: identity.to_owned(),
            component: COMPONENT,
            timestamp,
            reason: reason.to_owned(),
            remote: remote.to_owned(),
        }
    }

    /// Subject to publish it on.
    pub fn subject() -> String {
        subjects::lifecycle(TYPE, COMPONENT)
    }

    /// The JSON text.
    pub fn to_vec(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of texts and a number has a JSON form")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding() {
        let event = RefusedEvent::new("n1.example.net", "claim_held", "192.0.2.1:9", 1_795_170_514);
        let expected = format!(
            "{{\"protocol\":\"io.choria.lifecycle.v1.refused\",\"id\":\"{}\",\"identity\":\"n1.example.net\",\
             \"component\":\"broker\",\"timestamp\":1795170514,\"reason\":\"claim_held\",\"remote\":\"192.0.2.1:9\"}}",
            event.id
        );
        assert_eq!(String::from_utf8(event.to_vec()).unwrap(), expected);
        assert_eq!(RefusedEvent::subject(), "choria.lifecycle.event.refused.broker");
    }
}
