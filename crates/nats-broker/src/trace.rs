//! Tracing of single messages (spec 07 §8): whoever publishes with the header `Nats-Trace-Dest` is told on the subject that it
//! names where the message went; with `Nats-Trace-Only` the message goes nowhere.
//!
//! A traced message is routed by itself and on a way of its own, so that others cost nothing. It is followed inside its
//! account: of what other accounts do with it only the border is told.

use std::sync::Arc;
use std::time::SystemTime;

use nats_proto::HeaderMap;
use nats_proto::subject::is_valid_publish;
use serde_json::{Map, Value, json};

use crate::conn::{Conn, flag};
use crate::index::{Entry, QueueGroup};
use crate::monitor::rfc3339;
use crate::permission::may_deliver;
use crate::route::{Router, Run};
use crate::shared::Shared;
use crate::subscription::{Sink, Subscription};

/// Name of the header that asks for a trace, in exactly this case.
pub(crate) const DEST: &[u8] = b"Nats-Trace-Dest";
/// Name of the header that asks for nothing but the trace.
const ONLY: &[u8] = b"Nats-Trace-Only";
/// What stands in [`DEST`] once a message has left its account.
pub(crate) const DISABLED: &[u8] = b"Nats-Trace-Dest: trace disabled\r\n";

/// The first value of a header.
fn value<'a>(headers: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let line = |line: &'a [u8]| line.strip_prefix(name)?.strip_prefix(b":");
    headers.split(|byte| *byte == b'\n').find_map(line).and_then(|value| std::str::from_utf8(value).ok()).map(str::trim)
}

/// Where the trace of a message with these headers goes. `None`: it is not to be traced.
pub(crate) fn destination(headers: &[u8]) -> Option<&str> {
    value(headers, DEST).filter(|subject| is_valid_publish(subject))
}

/// Whether nothing but the trace is wanted.
fn is_only(headers: &[u8]) -> bool {
    value(headers, ONLY).is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
}

/// What is told of one message.
#[derive(Debug)]
pub(crate) struct Trace {
    request: Value,
    events: Vec<Value>,
    /// Nothing is delivered.
    pub(crate) only: bool,
}

fn now() -> String {
    rfc3339(SystemTime::now())
}

/// Adds the client's name where it has one.
fn named(mut event: Map<String, Value>, conn: &Conn) -> Map<String, Value> {
    let name = conn.rare.lock().about.as_ref().map(|about| about.name.to_string()).unwrap_or_default();
    if !name.is_empty() {
        event.insert("name".to_owned(), name.into());
    }
    event
}

fn event(kind: &str) -> Map<String, Value> {
    let mut event = Map::new();
    event.insert("type".to_owned(), kind.into());
    event.insert("ts".to_owned(), now().into());
    event
}

impl Trace {
    /// A message with these headers and of this size, headers included.
    pub(crate) fn new(headers: &[u8], size: usize) -> Self {
        let mut header: Map<String, Value> = Map::new();
        for (name, value) in HeaderMap::parse(headers).unwrap_or_default().iter() {
            let values = header.entry(name).or_insert_with(|| json!([]));
            if let Value::Array(values) = values {
                values.push(value.into());
            }
        }
        let request = json!({ "header": header, "msgsize": size });
        Self { request, events: Vec::new(), only: is_only(headers) }
    }

    /// It came in.
    pub(crate) fn entered(&mut self, conn: &Conn, account: &str, subject: &str) {
        let mut event = event("in");
        event.insert("kind".to_owned(), 0.into());
        event.insert("cid".to_owned(), conn.cid.into());
        let mut event = named(event, conn);
        event.insert("acc".to_owned(), account.into());
        event.insert("subj".to_owned(), subject.into());
        self.events.push(event.into());
    }

    /// It was not taken.
    pub(crate) fn refused(&mut self, error: String) {
        if let Some(Value::Object(event)) = self.events.first_mut() {
            event.insert("error".to_owned(), error.into());
        }
    }

    /// Its subject was replaced.
    pub(crate) fn mapped(&mut self, to: &str) {
        let mut event = event("sm");
        event.insert("to".to_owned(), to.into());
        self.events.push(event.into());
    }

    fn left(&mut self, conn: &Conn, sub: &Subscription, error: Option<&str>) {
        let mut event = event("eg");
        event.insert("kind".to_owned(), 0.into());
        event.insert("cid".to_owned(), conn.cid.into());
        let mut event = named(event, conn);
        event.insert("sub".to_owned(), (&*sub.filter).into());
        if let Some(queue) = sub.queue() {
            event.insert("queue".to_owned(), (&**queue).into());
        }
        if let Some(error) = error {
            event.insert("error".to_owned(), error.into());
        }
        self.events.push(event.into());
    }

    fn crossed(&mut self, kind: &str, account: &str, from: Option<&str>, to: &str) {
        let mut event = event(kind);
        event.insert("acc".to_owned(), account.into());
        if let Some(from) = from {
            event.insert("from".to_owned(), from.into());
        }
        event.insert("to".to_owned(), to.into());
        self.events.push(event.into());
    }

    /// Publishes what there is to tell in the publisher's account.
    pub(crate) fn tell(self, shared: &Shared, account: u32, to: &str) {
        let server = shared.server_object(SystemTime::now());
        let content = json!({ "server": server, "request": self.request, "events": self.events });
        shared.tell(account, to, content.to_string().as_bytes());
    }
}

impl Router<'_, '_> {
    /// Routes one message and notes where it goes. `true`: it reached somebody, or would have.
    pub(crate) fn traced(&mut self, account: u32, run: &Run<'_>, trace: &mut Trace) -> bool {
        let live = self.live;
        if run.subject.starts_with("_R_.")
            && !trace.only
            && let Some(done) = self.answer(account, run, 1)
        {
            return done != 0;
        }
        let mut done = self.traced_local(account, run, trace);
        for edge in &live.accounts[account as usize].streams {
            let Some(subject) = edge.map.to_local(run.subject) else { continue };
            let there = &live.accounts[edge.to_account as usize];
            let mut has_listener = false;
            there.state.index.read().for_each_match(&subject, |_| has_listener = true);
            if has_listener {
                trace.crossed("se", &there.name, None, &subject);
                done |= trace.only || self.imported(edge, &subject, run, 1) != 0;
            }
        }
        for edge in &live.accounts[account as usize].services {
            let Some(subject) = edge.map.to_exported(run.subject) else { continue };
            let there = &live.accounts[edge.to_account as usize].name;
            trace.crossed("si", there, Some(run.subject), &subject);
            done |= trace.only || self.request(account, edge, &subject, run, 1) != 0;
        }
        if run.subject.starts_with("$SYS.REQ.") && !trace.only {
            done |= self.system_request(account, run, 1) != 0;
        }
        done
    }

    fn traced_local(&mut self, account: u32, run: &Run<'_>, trace: &mut Trace) -> bool {
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        let state = &self.live.accounts[account as usize].state;
        state.index.read().for_each_match(run.subject, |entry| entries.push(Arc::clone(entry)));
        let prefix = format!("HMSG {} ", run.subject);
        let mut done = false;
        for sub in entries.iter().flat_map(|entry| &entry.plain) {
            done |= self.traced_delivery(sub, prefix.as_bytes(), run, trace);
        }
        let mut groups: Vec<&QueueGroup> = entries.iter().flat_map(|entry| &entry.queues).collect();
        // Groups of one name on several filters are one group.
        groups.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        for group in groups.chunk_by(|left, right| left.name == right.name) {
            let members: Vec<&Arc<Subscription>> = group.iter().flat_map(|group| &group.members).collect();
            let start = self.tick.below(members.len());
            let mut in_turn = members.iter().cycle().skip(start).take(members.len());
            done |= in_turn.any(|sub| self.traced_delivery(sub, prefix.as_bytes(), run, trace));
        }
        done
    }

    /// Delivers to one subscription, unless nothing is to be delivered; `true`: it got it, or would have.
    fn traced_delivery(&mut self, sub: &Arc<Subscription>, prefix: &[u8], run: &Run<'_>, trace: &mut Trace) -> bool {
        let Sink::Client(conn) = &sub.sink else {
            return trace.only || self.deliver(sub, prefix, run, 1) != 0;
        };
        let is_own = self.source.is_some_and(|source| Arc::ptr_eq(source, conn));
        let queue = sub.queue().map(|queue| &**queue);
        let error = if is_own && !self.echo {
            Some("Not delivered because of no echo")
        } else if sub.filtered_by().is_some_and(|grant| !may_deliver(grant, run.subject, queue)) {
            Some("Not delivered because subscription denies this subject")
        } else {
            None
        };
        let takes = error.is_none() && !conn.has(flag::CLOSING);
        let got = takes && (trace.only || self.deliver(sub, prefix, run, 1) != 0);
        if got || error.is_some() {
            trace.left(conn, sub, error);
        }
        got
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_ask_for_a_trace_in_exactly_one_form() {
        let with = |line: &str| format!("NATS/1.0\r\nA: b\r\n{line}\r\n\r\n").into_bytes();
        assert_eq!(destination(&with("Nats-Trace-Dest: tr.d")), Some("tr.d"));
        assert_eq!(destination(&with("Nats-Trace-Dest:tr.d")), Some("tr.d"));
        for line in [
            "nats-trace-dest: x",
            "Nats-Trace-Dest: tr.*",
            "Nats-Trace-Dest:",
            "Nats-Trace-Dest: trace disabled",
            "X: Nats-Trace-Dest: y",
        ] {
            assert_eq!(destination(&with(line)), None, "{line}");
        }
        for (value, only) in [("1", true), ("true", true), ("TRUE", true), ("yes", false), ("0", false)] {
            assert_eq!(is_only(&with(&format!("Nats-Trace-Only: {value}"))), only, "{value}");
        }
        assert_eq!(destination(b"\xff\nNats-Trace-Dest: \xff\n"), None);
    }
}
