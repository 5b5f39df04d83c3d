//! Carrying out a [`Grant`]'s permissions (spec 02 §6.7, spec 07 §7).
//!
//! The lists are short, so they are matched one by one and nothing is built per connection. Two points differ
//! from the reference on purpose: an empty allow list means none, and a subscription must be a subset of an
//! allow entry instead of matching it as if it were a literal subject.

use nats_proto::subject::{is_subset, matches, overlaps};

use crate::auth::{Grant, SubjectRules};

/// An entry of a subscribe list: `subject` or `subject queue`.
fn entry(text: &str) -> (&str, Option<&str>) {
    match text.split_once(' ') {
        Some((subject, queue)) => (subject, Some(queue.trim())),
        None => (text, None),
    }
}

/// Whether nothing at all is restricted for publishing.
pub(crate) fn publishes_freely(grant: &Grant) -> bool {
    let rules = &grant.permissions.publish;
    rules.allow.is_none() && rules.deny.is_empty() && grant.permissions.responses.is_none()
}

/// Whether the subject may be published by the lists alone; `responses` come on top.
pub(crate) fn may_publish(grant: &Grant, subject: &str) -> bool {
    let rules = &grant.permissions.publish;
    let allowed = match &rules.allow {
        Some(allow) => allow.iter().any(|filter| matches(filter, subject)),
        None => grant.permissions.responses.is_none(),
    };
    allowed && !is_publish_denied(grant, subject)
}

/// Whether a deny entry names the subject. Not even a permitted response passes it.
pub(crate) fn is_publish_denied(grant: &Grant, subject: &str) -> bool {
    grant.permissions.publish.deny.iter().any(|filter| matches(filter, subject))
}

/// How an allowed subscription is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Everything that matches.
    All,
    /// A deny entry overlaps: each subject is checked.
    Filtered,
}

/// Whether a filter may be subscribed. `None` = no.
pub(crate) fn may_subscribe(grant: &Grant, filter: &str, queue: Option<&str>) -> Option<Delivery> {
    let rules = &grant.permissions.subscribe;
    if !is_subscribe_allowed(rules, filter, queue) {
        return None;
    }
    let mut delivery = Delivery::All;
    for denied in &rules.deny {
        let (denied, denied_queue) = entry(denied);
        if !applies_to_queue(denied_queue, queue) {
            continue;
        }
        // The filter as if it were a literal subject: refuses every subset of the entry and, as the
        // reference does, `a.>` under a denied `a.*`.
        if matches(denied, filter) {
            return None;
        }
        if overlaps(denied, filter) {
            delivery = Delivery::Filtered;
        }
    }
    Some(delivery)
}

fn is_subscribe_allowed(rules: &SubjectRules, filter: &str, queue: Option<&str>) -> bool {
    let Some(allow) = &rules.allow else {
        return true;
    };
    let mut plain = false;
    let mut queue_named = false;
    let mut queue_fits = false;
    for allowed in allow {
        let (subject, allowed_queue) = entry(allowed);
        if !is_subset(filter, subject) {
            continue;
        }
        match (allowed_queue, queue) {
            (None, _) => plain = true,
            (Some(wanted), Some(queue)) => {
                queue_named = true;
                queue_fits |= matches(wanted, queue);
            }
            (Some(_), None) => {}
        }
    }
    if queue_named { queue_fits } else { plain }
}

/// Whether a deny entry counts for a subscription of this queue.
fn applies_to_queue(denied: Option<&str>, queue: Option<&str>) -> bool {
    match (denied, queue) {
        (None, _) => true,
        (Some(denied), Some(queue)) => matches(denied, queue),
        (Some(_), None) => false,
    }
}

/// Whether a message of this subject may be delivered to a [`Delivery::Filtered`] subscription.
pub(crate) fn may_deliver(grant: &Grant, subject: &str, queue: Option<&str>) -> bool {
    !grant.permissions.subscribe.deny.iter().any(|denied| {
        let (denied, denied_queue) = entry(denied);
        applies_to_queue(denied_queue, queue) && matches(denied, subject)
    })
}

/// Prefixes of subjects that only the broker itself may publish to.
pub(crate) fn is_reserved_subject(subject: &[u8]) -> bool {
    subject.starts_with(b"$GR.") || subject.starts_with(b"$NRG.")
}

/// Prefixes of reply subjects that a client may not name: they stand for broker-internal routes.
pub(crate) fn is_reserved_reply(reply: &[u8]) -> bool {
    match reply.first() {
        Some(b'_') => reply.starts_with(b"_R_.") || reply.starts_with(b"_GR_."),
        Some(b'$') => reply.starts_with(b"$JS.ACK.") || reply.starts_with(b"$GR."),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Permissions, ResponseBudget};

    fn grant(allow: Option<&[&str]>, deny: &[&str]) -> Grant {
        let rules = SubjectRules {
            allow: allow.map(|list| list.iter().map(|text| (*text).to_owned()).collect()),
            deny: deny.iter().map(|text| (*text).to_owned()).collect(),
        };
        let permissions = Permissions { publish: rules.clone(), subscribe: rules, responses: None };
        Grant { permissions, ..Grant::new("A") }
    }

    #[test]
    fn design6_a_subscription_must_be_a_subset_of_an_allow_entry() {
        let grant = grant(Some(&["foo.*", "*"]), &[]);
        for (filter, allowed) in [("foo.x", true), ("foo.*", true), ("foo.>", false), (">", false), ("*", true)] {
            assert_eq!(may_subscribe(&grant, filter, None).is_some(), allowed, "{filter}");
        }
    }

    #[test]
    fn an_empty_allow_list_allows_nothing() {
        let grant = grant(Some(&[]), &[]);
        assert!(!may_publish(&grant, "a"));
        assert!(may_subscribe(&grant, "a", None).is_none());
        assert!(!publishes_freely(&grant));
    }

    #[test]
    fn a_response_budget_makes_an_absent_publish_list_none() {
        let mut grant = grant(None, &[]);
        assert!(publishes_freely(&grant));
        grant.permissions.responses = Some(ResponseBudget { max: Some(1), ttl: None });
        assert!(!may_publish(&grant, "a"));
    }

    #[test]
    fn reserved_names() {
        for reply in ["_R_.x", "_GR_.x", "$JS.ACK.a", "$GR.a"] {
            assert!(is_reserved_reply(reply.as_bytes()), "{reply}");
        }
        for reply in ["_R_", "$JS.ACK", "$GNR.x", "$NRG.x", "$SYS.x", "_INBOX.x", ""] {
            assert!(!is_reserved_reply(reply.as_bytes()), "{reply}");
        }
        assert!(is_reserved_subject(b"$NRG.x") && is_reserved_subject(b"$GR.x") && !is_reserved_subject(b"_R_.x"));
    }
}
