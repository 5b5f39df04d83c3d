//! Reports of how long the answers of a service took (spec 07 §8, latency export).
//!
//! A sampled request carries what the report will say; the report is made with the answer, or with what stands for one: 400
//! when no answer was wanted, 503 when nobody was there, 504 when none came in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nats_proto::{HeaderMap, encode};
use rand::Rng;
use rand::distr::Alphanumeric;
use serde::Serialize;
use smallvec::SmallVec;

use crate::config::{LatencySampling, ServiceLatency};
use crate::conn::Conn;
use crate::live::Live;
use crate::monitor::rfc3339;
use crate::route::{Message, Router, Run, Tick};
use crate::service::ClientInfo;
use crate::shared::Shared;

/// Tracing headers as reports name them, with their values.
type TraceHeaders = BTreeMap<&'static str, Vec<String>>;

/// A sampled request under way.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    /// Who wants to know: number of the exporting account and subject of the report there.
    targets: SmallVec<[(u32, Arc<str>); 1]>,
    requestor: ClientInfo,
    /// Headers by which it was chosen; empty when chance chose it.
    headers: TraceHeaders,
    started: SystemTime,
    sent: Instant,
}

/// How a request came to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// No answer was wanted.
    BadRequest,
    /// Nobody was there.
    Unavailable,
    /// No answer came in time.
    Timeout,
}

impl Outcome {
    fn status(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "Bad Request"),
            Self::Unavailable => (503, "Service Unavailable"),
            Self::Timeout => (504, "Service Timeout"),
        }
    }
}

/// A report. Key order is that of nats-server; spans are in nanoseconds.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    timestamp: String,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'static str>,
    requestor: &'a ClientInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    responder: Option<&'a ClientInfo>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    header: &'a TraceHeaders,
    /// When the requester sent it, as far as its round trip tells.
    start: String,
    /// The responder's share.
    service: u64,
    /// The broker's share.
    system: u64,
    /// Both, and the round trips to requester and responder.
    total: u64,
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Measured {
    pub(crate) fn new(requestor: ClientInfo, headers: TraceHeaders) -> Self {
        Self { targets: SmallVec::new(), requestor, headers, started: SystemTime::now(), sent: Instant::now() }
    }

    /// Another account wants to know.
    pub(crate) fn also_for(&mut self, account: u32, subject: Arc<str>) {
        self.targets.push((account, subject));
    }

    fn report<'a>(&'a self, status: u16, description: Option<&'static str>) -> Report<'a> {
        let away = Duration::from_nanos(self.requestor.rtt);
        Report {
            kind: "io.nats.server.metric.v1.service_latency",
            id: rand::rng().sample_iter(Alphanumeric).take(22).map(char::from).collect(),
            timestamp: rfc3339(SystemTime::now()),
            status,
            description,
            requestor: &self.requestor,
            responder: None,
            header: &self.headers,
            start: rfc3339(self.started.checked_sub(away).unwrap_or(self.started)),
            service: 0,
            system: 0,
            total: 0,
        }
    }
}

/// The tracing headers of a message that ask for a sample; `None`: they do not, or there are none.
fn asked_by_headers(block: &[u8]) -> Option<TraceHeaders> {
    let headers = HeaderMap::parse(block).ok()?;
    let value = |name: &str| {
        let found = headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let is_set = |flags: &str| u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    let mut found = TraceHeaders::new();
    if let Some(jaeger) = value("Uber-Trace-Id") {
        let parts: Vec<&str> = jaeger.split(':').collect();
        let is_sampled = parts.len() == 4 && is_set(parts[3]);
        found.insert("Uber-Trace-Id", vec![jaeger]);
        return is_sampled.then_some(found);
    }
    for name in ["X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled"] {
        found.extend(value(name).map(|value| (name, vec![value])));
    }
    if !found.is_empty() {
        let is_refused = found.get("X-B3-Sampled").is_some_and(|value| value[0] == "0");
        return (!is_refused).then_some(found);
    }
    if let Some(zipkin) = value("B3") {
        let decision = if zipkin.contains('-') { zipkin.split('-').nth(2) } else { Some(zipkin.as_str()) };
        let is_refused = decision == Some("0");
        found.insert("B3", vec![zipkin]);
        return (!is_refused).then_some(found);
    }
    let parent = value("Traceparent")?;
    let is_sampled = parent.split('-').nth(3).is_some_and(is_set);
    found.insert("Traceparent", vec![parent]);
    found.extend(value("Tracestate").map(|state| ("Tracestate", vec![state])));
    is_sampled.then_some(found)
}

impl Router<'_, '_> {
    /// Whether a request is measured, and by which headers.
    pub(crate) fn sample(&mut self, latency: &ServiceLatency, message: &Message<'_>) -> Option<TraceHeaders> {
        match latency.sampling {
            LatencySampling::Percent(percent) => {
                (percent >= 100 || self.tick.below(100) < usize::from(percent)).then(TraceHeaders::new)
            }
            LatencySampling::Headers => asked_by_headers(message.content.get(..message.header_len)?),
        }
    }

    /// Reports an answer that took its way at `answered` and is delivered now.
    pub(crate) fn report_answer(&mut self, measured: &Measured, account: u32, answered: Instant) {
        let name = &self.live.accounts[account as usize].name;
        let responder = ClientInfo::new(self.shared, self.source, name, None, true);
        let system = nanos(answered.elapsed());
        let spent = nanos(answered.saturating_duration_since(measured.sent));
        let mut report = measured.report(200, None);
        report.service = spent.saturating_sub(responder.rtt);
        report.system = system;
        report.total = measured.requestor.rtt + report.service + responder.rtt + system;
        report.responder = Some(&responder);
        self.tell(measured, &report);
    }

    /// Reports a request that has no answer.
    pub(crate) fn report_failure(&mut self, measured: &Measured, outcome: Outcome) {
        let (status, description) = outcome.status();
        self.tell(measured, &measured.report(status, Some(description)));
    }

    fn tell(&mut self, measured: &Measured, report: &Report<'_>) {
        let content = serde_json::to_vec(report).expect("texts and integers serialise");
        let mut tail = Vec::with_capacity(content.len() + 16);
        encode::message_tail(&mut tail, None, None, &content);
        let message = Message { reply: None, header_len: 0, content: &content, tail: &tail };
        // The report comes from the broker: `echo:false` does not hold it back. It never becomes a request itself.
        let echo = std::mem::replace(&mut self.echo, true);
        for (account, subject) in &measured.targets {
            let run = Run { subject, messages: std::slice::from_ref(&message) };
            self.local(*account, &mut None, &run, 1);
            let live = self.live;
            for edge in &live.accounts[*account as usize].streams {
                if let Some(subject) = edge.map.to_local(subject) {
                    self.imported(edge, &subject, &run, 1);
                }
            }
        }
        self.echo = echo;
    }
}

/// Reports the measured requests to an account whose time is over, and schedules the next look when there are more.
pub(crate) fn report_unanswered(shared: &Shared, account: u32) {
    let live = shared.live();
    let live: &Live = &live;
    let mut tick = Tick::new(rand::random());
    tick.now = shared.hub.timers.now();
    let (late, next) = live.accounts[account as usize].state.replies.take_late(tick.now);
    let mut router = Router { shared, live, tick: &mut tick, source: None::<&Arc<Conn>>, echo: true };
    for measured in late {
        router.report_failure(&measured, Outcome::Timeout);
    }
    tick.finish(shared, &mut SmallVec::new());
    if let Some(at) = next {
        shared.hub.timers.at(at, u64::from(account), crate::timers::Timer::Unanswered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_decide_as_in_the_reference() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-";
        let span = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1";
        for (lines, sampled) in [
            ("Uber-Trace-Id: a:b:0:1".to_owned(), "Uber-Trace-Id"),
            ("uber-trace-id: a:b:0:f".to_owned(), "Uber-Trace-Id"),
            ("Uber-Trace-Id: a:b:0:0".to_owned(), ""),
            ("Uber-Trace-Id: x".to_owned(), ""),
            ("X-B3-Sampled: 1".to_owned(), "X-B3-Sampled"),
            ("X-B3-Sampled: 0".to_owned(), ""),
            ("x-b3-traceid: abc".to_owned(), "X-B3-Traceid"),
            ("X-B3-TraceId: t\r\nX-B3-Sampled: 1\r\nX-B3-Other: z".to_owned(), "X-B3-Sampled X-B3-Traceid"),
            ("B3: 0".to_owned(), ""),
            ("b3: 1".to_owned(), "B3"),
            ("B3: d".to_owned(), "B3"),
            (format!("B3: {span}-1"), "B3"),
            (format!("B3: {span}-0"), ""),
            (format!("traceparent: {parent}01"), "Traceparent"),
            (format!("tracestate: o=1\r\ntraceparent: {parent}01\r\nQ: r"), "Traceparent Tracestate"),
            (format!("traceparent: {parent}00"), ""),
            ("traceparent: x".to_owned(), ""),
            ("tracestate: a=b".to_owned(), ""),
            ("Other: 1".to_owned(), ""),
        ] {
            let found = asked_by_headers(format!("NATS/1.0\r\n{lines}\r\n\r\n").as_bytes()).unwrap_or_default();
            assert_eq!(found.into_keys().collect::<Vec<_>>().join(" "), sampled, "{lines}");
        }
        assert!(asked_by_headers(b"").is_none() && asked_by_headers(b"NATS/1.0\r\nB3: 1").is_none());
    }
}
