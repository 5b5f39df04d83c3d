//! What happened on the broker, told to people: counters, log lines, events.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use choria_protocol::ids;
use choria_protocol::lifecycle::{self, Event, Kind};
use nats_broker::{Grant, Observer, Refusal, RefusalReason};
use tokio::sync::{Notify, mpsc};

use crate::authenticator::unix_now;
use crate::loglimit::LogLimit;
use crate::metrics::Metrics;
use crate::policy::Reason;
use crate::tls_failure::TlsFailure;

/// Reason of the network broker for a refused second claimant.
pub(crate) const CLAIM_HELD: &str = "claim_held";
/// Reason of the network broker for a failed TLS handshake.
const TLS_FAILURE: &str = "tls_failure";

/// Refusals that the fleet is told of: somebody wants a name that is in use, or a reload ended a connection.
const TOLD: [RefusalReason; 6] = [
    CLAIM_HELD,
    Reason::CaNotTrusted.as_str(),
    Reason::PasswordChanged.as_str(),
    Reason::SignerChanged.as_str(),
    Reason::UserChanged.as_str(),
    // The network broker's own: an account is gone.
    "rights_changed",
];

/// How the network broker begins to say why it ended a slow consumer, and what the metric says.
const SLOW: [(&str, &str); 2] = [("Slow Consumer (Pending", "pending"), ("Slow Consumer (Write", "write_deadline")];

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
    /// Whom to notify when somebody in the system account wants a reload.
    reload: Option<Arc<Notify>>,
    started: Instant,
}

impl Watch {
    pub(crate) fn new(metrics: Arc<Metrics>, reload: Option<Arc<Notify>>) -> (Self, mpsc::Receiver<Event>) {
        let (events, queue) = mpsc::channel(EVENT_QUEUE);
        (Self { metrics, lines: LogLimit::new(BURST, PER_SECOND), events, reload, started: Instant::now() }, queue)
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
        if refusal.reason == CLAIM_HELD {
            self.metrics.claim("held");
        }
        if refusal.reason == TLS_FAILURE {
            self.metrics.tls_failure(TlsFailure::of(&refusal.detail));
        }
        let is_told = TOLD.contains(&refusal.reason);
        let Some(left_out) = self.lines.allow(refusal.reason, self.started.elapsed()) else {
            if is_told {
                self.metrics.event_dropped();
            }
            return;
        };
        if is_told {
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

    fn slow_consumer(&self, cid: u64, grant: Option<&Grant>, reason: &str) {
        let cause =
            SLOW.iter().find(|(beginning, _)| reason.starts_with(beginning)).map_or("other", |(_, cause)| cause);
        self.metrics.slow_consumer(grant.map(|grant| grant.account.as_str()), cause);
        if let Some(left_out) = self.lines.allow("slow_consumer", self.started.elapsed()) {
            tracing::warn!(
                component = "network_broker",
                reason = cause,
                cid,
                account = grant.map(|grant| grant.account.as_str()),
                user = grant.and_then(|grant| grant.user.as_deref()),
                name = grant.and_then(|grant| grant.tag.as_deref().or(grant.presence.as_deref())),
                left_out,
                "connection closed, it did not take what it had subscribed to"
            );
        }
    }

    fn reload_requested(&self) -> Result<(), String> {
        let Some(reload) = &self.reload else { return Err("config reload is not supported".to_owned()) };
        tracing::info!(component = "broker", "a reload was asked for in the system account");
        reload.notify_one();
        Ok(())
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
        let (watch, queue) = Watch::new(Arc::clone(&metrics), None);
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
        assert!(queue.try_recv().is_err(), "not everything is an event");
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
    fn whoever_a_reload_ended_is_told_to_the_fleet() {
        let (watch, mut queue, _metrics) = watch();
        for reason in ["ca_not_trusted", "password_changed", "signer_changed", "user_changed", "rights_changed"] {
            watch.refused(None, &refusal(reason));
            let event = queue.try_recv().unwrap();
            assert!(matches!(event.kind, Kind::Refused { reason: told, .. } if told == reason), "{reason}");
        }
    }

    #[test]
    fn slow_consumers_and_tls_failures_are_counted_by_cause() {
        let (watch, _queue, metrics) = watch();
        watch.slow_consumer(1, Some(&Grant::new("choria")), "Slow Consumer (Pending Bytes)");
        watch.slow_consumer(2, Some(&Grant::new("choria")), "Slow Consumer (Write Deadline)");
        watch.slow_consumer(3, None, "of a kind that comes later");
        watch.refused(None, &Refusal { detail: "the peer left".into(), ..refusal(TLS_FAILURE) });
        watch.refused(None, &Refusal { detail: "who knows".into(), ..refusal(TLS_FAILURE) });
        let text = metrics.render(&Default::default(), &Default::default());
        for line in [
            r#"choria_broker_slow_consumers{account="choria",cause="pending",identity="b"} 1"#,
            r#"choria_broker_slow_consumers{account="choria",cause="write_deadline",identity="b"} 1"#,
            r#"choria_broker_slow_consumers{account="none",cause="other",identity="b"} 1"#,
            r#"choria_broker_tls_failures{cause="peer_left",identity="b"} 1"#,
            r#"choria_broker_tls_failures{cause="other",identity="b"} 1"#,
            r#"choria_broker_tls_failures{cause="timeout",identity="b"} 0"#,
            r#"choria_broker_refused{reason="tls_failure",identity="b"} 2"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} missing in\n{text}");
        }
    }

    #[test]
    fn a_reload_that_is_asked_for_is_passed_on() {
        let (watch, _queue, metrics) = watch();
        assert!(watch.reload_requested().is_err(), "nobody reloads this one");
        let reload = Arc::new(Notify::new());
        let (watch, _queue) = Watch::new(metrics, Some(Arc::clone(&reload)));
        assert_eq!(watch.reload_requested(), Ok(()));
        assert!(std::pin::pin!(reload.notified()).enable(), "it was notified");
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
