//! What happened on the broker, told to people: counters, log lines, events.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use choria_protocol::ids;
use choria_protocol::lifecycle::{self, Event, Kind};
use nats_broker::{Grant, Observer, Refusal, RefusalReason};
use tokio::sync::mpsc;

use crate::authenticator::unix_now;
use crate::loglimit::LogLimit;
use crate::metrics::Metrics;

/// Reason of the network broker for a refused second claimant.
pub(crate) const CLAIM_HELD: &str = "claim_held";

/// How the network broker names the end of a silent holder.
const TAKEN_OVER: &str = "Claim Taken Over";

/// Events that wait to be published; more are dropped and counted, because whoever causes them must not cost memory.
const EVENT_QUEUE: usize = 256;
/// Lines and events of one reason: this many at once, then one a second.
const BURST: u32 = 20;
const PER_SECOND: f64 = 1.0;
/// Characters of a claimed name that a line shows: CONNECT may carry one of many kilobytes.
const LONGEST_SHOWN: usize = 253;

/// Counts everything, logs samples, and hands events to whoever publishes them.
#[derive(Debug)]
pub(crate) struct Watch {
    metrics: Arc<Metrics>,
    lines: LogLimit,
    events: mpsc::Sender<Event>,
    started: Instant,
}

impl Watch {
    pub(crate) fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Event>) {
        let (events, queue) = mpsc::channel(EVENT_QUEUE);
        (Self { metrics, lines: LogLimit::new(BURST, PER_SECOND), events, started: Instant::now() }, queue)
    }

    fn tell_fleet(&self, remote: Option<SocketAddr>, refusal: &Refusal) {
        let event = Event {
            kind: Kind::Refused {
                reason: refusal.reason.to_owned(),
                remote: remote.map(|r| r.to_string()).unwrap_or_default(),
                message: String::new(),
            },
            id: ids::event_id(),
            identity: refusal.claimed.clone().unwrap_or_default(),
            component: lifecycle::BROKER.to_owned(),
            timestamp: unix_now(),
        };
        if self.events.try_send(event).is_err() {
            self.metrics.event_dropped();
        }
    }
}

impl Observer for Watch {
    fn refused(&self, remote: Option<SocketAddr>, refusal: &Refusal) {
        self.metrics.refused(refusal.reason);
        let held = refusal.reason == CLAIM_HELD;
        if held {
            self.metrics.claim("held");
        }
        let Some(left_out) = self.lines.allow(refusal.reason, self.started.elapsed()) else {
            if held {
                self.metrics.event_dropped();
            }
            return;
        };
        if held {
            self.tell_fleet(remote, refusal);
        }
        let claimed = refusal.claimed.as_deref().map(shortened);
        tracing::warn!(
            component = "authentication",
            reason = refusal.reason,
            remote = remote.map(tracing::field::display),
            claimed = claimed.as_deref(),
            left_out,
            "connection refused: {}",
            refusal.detail
        );
    }

    fn connected(&self, cid: u64, grant: &Grant) {
        self.metrics.accepted(&grant.account);
        if grant.claim.is_some() {
            self.metrics.claim("granted");
        }
        tracing::debug!(
            component = "authentication",
            cid,
            account = grant.account,
            user = grant.user,
            name = grant.tag.as_deref(),
            "connection accepted"
        );
    }

    fn disconnected(&self, cid: u64, grant: &Grant, reason: &str) {
        if grant.claim.is_some() {
            self.metrics.claim(if reason == TAKEN_OVER { "taken_over" } else { "released" });
        }
        tracing::debug!(
            component = "network_broker",
            cid,
            account = grant.account,
            name = grant.tag.as_deref(),
            reason,
            "connection closed"
        );
    }

    fn violation(&self, cid: u64, grant: &Grant, what: RefusalReason, subject: &str) {
        self.metrics.violation(what);
        if let Some(left_out) = self.lines.allow(what, self.started.elapsed()) {
            tracing::warn!(
                component = "authentication",
                reason = what,
                cid,
                account = grant.account,
                user = grant.user,
                name = grant.tag.as_deref(),
                subject,
                left_out,
                "message or subscription refused"
            );
        }
    }
}

/// A name that nobody has checked yet, for the log.
fn shortened(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}...", &name[..end])),
        None => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> (Watch, mpsc::Receiver<Event>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new("b", "1", "s", std::time::SystemTime::UNIX_EPOCH));
        let (watch, queue) = Watch::new(Arc::clone(&metrics));
        (watch, queue, metrics)
    }

    fn refusal(reason: RefusalReason) -> Refusal {
        Refusal { reason, detail: "because".into(), claimed: Some("n1.example.net".into()) }
    }

    #[test]
    fn design6_a_held_claim_is_counted_and_told_to_the_fleet() {
        let (watch, mut queue, metrics) = watch();
        watch.refused(Some("192.0.2.1:9".parse().unwrap()), &refusal(CLAIM_HELD));
        watch.refused(None, &refusal("wrong_password"));
        let event = queue.try_recv().unwrap();
        assert_eq!((event.identity.as_str(), event.component.as_str()), ("n1.example.net", "broker"));
        let (reason, remote) = (CLAIM_HELD.to_owned(), "192.0.2.1:9".to_owned());
        assert_eq!(event.kind, Kind::Refused { reason, remote, message: String::new() });
        assert_eq!(event.subject(), "choria.lifecycle.event.refused.broker");
        assert!(queue.try_recv().is_err(), "only held claims are events");
        let text = metrics.render(&Default::default(), &Default::default());
        for line in [
            r#"choria_broker_refused{reason="claim_held",identity="b"} 1"#,
            r#"choria_broker_refused{reason="wrong_password",identity="b"} 1"#,
            r#"choria_broker_claims{result="held",identity="b"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} missing in\n{text}");
        }
    }

    #[test]
    fn long_names_do_not_fill_the_log() {
        assert_eq!(shortened("n1.example.net"), "n1.example.net");
        let shown = shortened(&"\u{e9}".repeat(30_000)).into_owned();
        assert_eq!(shown.chars().count(), LONGEST_SHOWN + 3);
    }

    #[test]
    fn events_are_bounded_and_every_refusal_is_counted() {
        let (watch, mut queue, metrics) = watch();
        for _ in 0..500 {
            watch.refused(None, &refusal(CLAIM_HELD));
        }
        let mut events = 0;
        while queue.try_recv().is_ok() {
            events += 1;
        }
        assert!((1..=40).contains(&events), "{events}");
        let text = metrics.render(&Default::default(), &Default::default());
        assert!(text.contains(r#"choria_broker_refused{reason="claim_held",identity="b"} 500"#), "{text}");
        assert!(text.contains(&format!("choria_broker_events_dropped{{identity=\"b\"}} {}", 500 - events)), "{text}");
    }
}
