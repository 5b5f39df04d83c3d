//! Lifecycle events about what became of nodes, for `choria tool event` and the fleet's audit.
//!
//! Every provisioned node is one event. Every refusal is one, too, but a flood of refusals must not become a flood of
//! events: of each reason some pass at once and then a few per second, the others are counted and told together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use choria_protocol::ids;
use choria_protocol::lifecycle::{self, Event, Kind};
use rustc_hash::FxHashMap;

use crate::flow::Now;

/// Events of one reason that pass at once.
const BURST: u32 = 20;
/// How often one more passes.
const EVERY: Duration = Duration::from_millis(200);
/// How often those that did not pass are told.
const SUMMARY: Duration = Duration::from_secs(10);
/// Longest sentence in an event, in characters. The whole one is in the log and in the node's history.
const LONGEST: usize = 400;

#[derive(Debug)]
struct Allowance {
    left: u32,
    filled: Instant,
    held_back: u64,
}

/// Makes events.
#[derive(Debug)]
pub(super) struct Teller {
    identity: Arc<str>,
    /// By reason, a closed set.
    allowances: FxHashMap<&'static str, Allowance>,
    next_summary: Option<Instant>,
}

impl Teller {
    /// `identity` is the provisioner's.
    pub(super) fn new(identity: &str) -> Self {
        Self { identity: Arc::from(identity), allowances: FxHashMap::default(), next_summary: None }
    }

    /// A node was provisioned.
    pub(super) fn provisioned(&self, node: &str, now: Now) -> Event {
        event(Kind::Provisioned, node, now)
    }

    /// Something was refused. `None`: too many of these, it will be in the next summary.
    pub(super) fn refused(
        &mut self,
        reason: &'static str,
        node: Option<&str>,
        detail: &str,
        now: Now,
    ) -> Option<Event> {
        let fresh = || Allowance { left: BURST, filled: now.mono, held_back: 0 };
        let allowance = self.allowances.entry(reason).or_insert_with(fresh);
        let gained = now.mono.saturating_duration_since(allowance.filled).as_millis() / EVERY.as_millis();
        if gained > 0 {
            allowance.left = allowance.left.saturating_add(u32::try_from(gained).unwrap_or(BURST)).min(BURST);
            allowance.filled = now.mono;
        }
        if allowance.left == 0 {
            allowance.held_back += 1;
            self.next_summary.get_or_insert(now.mono + SUMMARY);
            return None;
        }
        allowance.left -= 1;
        // What a helper prints, and its command line, are not everybody's business.
        let detail = if reason.starts_with("helper_") { "the helper gave no usable answer" } else { detail };
        Some(refusal(reason, node.unwrap_or(&self.identity), detail, now))
    }

    /// When [`Self::summaries`] has something to tell.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.next_summary
    }

    /// One event per reason of which some were held back.
    pub(super) fn summaries(&mut self, now: Now) -> Vec<Event> {
        if self.next_summary.is_none_or(|due| due > now.mono) {
            return Vec::new();
        }
        self.next_summary = None;
        let seconds = SUMMARY.as_secs();
        let held = self.allowances.iter_mut().filter(|(_, allowance)| allowance.held_back > 0);
        held.map(|(reason, allowance)| {
            let more = std::mem::take(&mut allowance.held_back);
            refusal(reason, &self.identity, &format!("{more} more for this reason in the last {seconds}s"), now)
        })
        .collect()
    }
}

fn refusal(reason: &str, node: &str, detail: &str, now: Now) -> Event {
    let mut message: String = detail.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if detail.chars().nth(LONGEST).is_some() {
        message.push_str("...");
    }
    event(Kind::Refused { reason: reason.to_owned(), remote: String::new(), message }, node, now)
}

fn event(kind: Kind, node: &str, now: Now) -> Event {
    Event {
        kind,
        id: ids::event_id(),
        identity: node.to_owned(),
        component: lifecycle::PROVISIONER.to_owned(),
        timestamp: now.unix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(mono: Instant) -> Now {
        Now { mono, unix: 1_790_000_000 }
    }

    fn message(event: &Event) -> &str {
        match &event.kind {
            Kind::Refused { message, .. } => message,
            _ => "",
        }
    }

    #[test]
    fn refusals_and_successes_are_events_of_the_node() {
        let mut teller = Teller::new("p.choria");
        let start = now(Instant::now());
        let event = teller.refused("csr_name", Some("n1"), "common name \"x\"\nis wrong", start).unwrap();
        assert_eq!((&*event.identity, &*event.component), ("n1", "provisioner"));
        assert_eq!(event.subject(), "choria.lifecycle.event.refused.provisioner");
        assert_eq!(message(&event), "common name \"x\" is wrong");
        let nobody = teller.refused("event", None, &"x".repeat(1000), start).unwrap();
        assert_eq!((&*nobody.identity, message(&nobody).len()), ("p.choria", LONGEST + 3));
        let helper = teller.refused("helper_decode", Some("n1"), "cannot decode /h --password=s3cret: \"k\"", start);
        assert!(!message(&helper.unwrap()).contains("s3cret"));
        assert_eq!(teller.provisioned("n1", start).subject(), "choria.lifecycle.event.provisioned.provisioner");
    }

    #[test]
    fn a_flood_is_told_together() {
        let mut teller = Teller::new("p.choria");
        let start = Instant::now();
        let mut told = 0;
        for index in 0..10_000_u64 {
            let at = now(start + Duration::from_millis(index));
            told += u32::from(teller.refused("reply_late", Some("n1"), "late", at).is_some());
        }
        assert!((BURST..BURST + 60).contains(&told), "{told}");
        assert!(teller.refused("csr_name", Some("n2"), "other", now(start)).is_some(), "others are not held back");
        let due = teller.next_timer().unwrap();
        assert!(teller.summaries(now(due - Duration::from_millis(1))).is_empty());
        let summaries = teller.summaries(now(due));
        assert_eq!(summaries.len(), 1);
        assert_eq!(message(&summaries[0]), format!("{} more for this reason in the last 10s", 10_000 - told));
        assert_eq!(&*summaries[0].identity, "p.choria");
        assert_eq!(teller.next_timer(), None);
        assert!(teller.summaries(now(due + SUMMARY)).is_empty());
    }
}
