//! What crosses between accounts: imported streams, requests over service imports, and their answers (spec 07 §8).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use nats_proto::encode;
use nats_proto::subject::has_no_empty_token;
use parking_lot::Mutex;
use rand::Rng;
use rand::distr::Alphanumeric;
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::account::{ServiceEdge, StreamEdge};
use crate::config::{ResponseKind, ServiceLatency};
use crate::conn::Conn;
use crate::latency::{Measured, Outcome};
use crate::route::{Message, Router, Run, bits};
use crate::shared::Shared;
use crate::timers::Timer;
use crate::trace;

/// Open answers are looked through for expired ones when there are this many more than after the last look.
const LOOK_AFTER: usize = 1024;
/// Least milliseconds between two looks for measured requests whose time is over.
const BETWEEN_LOOKS: u64 = 100;

/// A request of another account that is answered here.
#[derive(Debug)]
struct OpenReply {
    /// Number of the asking account.
    account: u32,
    /// Its reply subject.
    reply: Box<str>,
    kind: ResponseKind,
    /// Last millisecond at which an answer is taken.
    until: u64,
    /// What to report about it.
    measured: Option<Box<Measured>>,
}

#[derive(Debug, Default)]
struct OpenReplies {
    by_subject: FxHashMap<Box<str>, OpenReply>,
    look_at: usize,
    /// A look for measured requests whose time is over is scheduled.
    is_watched: bool,
}

/// An answer found its request.
#[derive(Debug)]
struct Answered {
    /// Number of the asking account.
    account: u32,
    /// Its reply subject.
    reply: Box<str>,
    measured: Option<Box<Measured>>,
}

/// Open requests of other accounts by the `_R_` subject on which the answer comes.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    open: Mutex<OpenReplies>,
}

impl Replies {
    /// Remembers a request; `false` when `most` are open.
    fn open(&self, subject: &str, reply: OpenReply, most: usize, now: u64) -> bool {
        let mut open = self.open.lock();
        if open.by_subject.len() >= open.look_at.min(most) {
            open.by_subject.retain(|_, reply| reply.until >= now || reply.measured.is_some());
            open.look_at = open.by_subject.len() + LOOK_AFTER;
        }
        if open.by_subject.len() >= most {
            return false;
        }
        open.by_subject.insert(subject.into(), reply);
        true
    }

    fn forget(&self, subject: &str) {
        self.open.lock().by_subject.remove(subject);
    }

    /// Up to `most` open requests: subject of the answer, asking account, its reply subject.
    pub(crate) fn list(&self, most: usize, now: u64) -> Vec<(Box<str>, u32, Box<str>)> {
        let open = self.open.lock();
        let open = open.by_subject.iter().filter(|(_, reply)| reply.until >= now);
        open.take(most).map(|(subject, reply)| (subject.clone(), reply.account, reply.reply.clone())).collect()
    }

    /// Where an answer goes. `None`: nobody asked, it was answered already, or it is too late.
    fn take(&self, subject: &str, is_end: bool, now: u64) -> Option<Answered> {
        let mut open = self.open.lock();
        let found = open.by_subject.get(subject)?;
        if found.until < now {
            // A measured one is still to be reported.
            if found.measured.is_none() {
                open.by_subject.remove(subject);
            }
            return None;
        }
        let (account, is_last) = (found.account, found.kind == ResponseKind::Singleton || is_end);
        if !is_last {
            return Some(Answered { account, reply: found.reply.clone(), measured: None });
        }
        let OpenReply { reply, measured, .. } = open.by_subject.remove(subject)?;
        Some(Answered { account, reply, measured })
    }

    /// Whether the caller has to schedule a look for measured requests whose time is over.
    fn is_to_be_watched(&self) -> bool {
        !std::mem::replace(&mut self.open.lock().is_watched, true)
    }

    /// Takes the measured requests whose time is over, and says when to look again.
    pub(crate) fn take_late(&self, now: u64) -> (Vec<Measured>, Option<u64>) {
        let mut open = self.open.lock();
        let mut late = Vec::new();
        let mut next = None;
        open.by_subject.retain(|_, reply| {
            if reply.until < now {
                late.extend(reply.measured.take().map(|measured| *measured));
                return false;
            }
            if reply.measured.is_some() {
                next = Some(next.map_or(reply.until, |next: u64| next.min(reply.until)));
            }
            true
        });
        open.is_watched = next.is_some();
        (late, next.map(|until| (until + 1).max(now + BETWEEN_LOOKS)))
    }
}

/// Who a client is, for the other end of a service import: the `Nats-Request-Info` header, and both ends in latency reports.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct ClientInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    /// Its account.
    acc: String,
    /// Account that passed the request on.
    #[serde(skip_serializing_if = "Option::is_none")]
    svc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lang: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ver: Option<String>,
    /// Round trip in nanoseconds.
    pub(crate) rtt: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_type: Option<&'static str>,
}

impl ClientInfo {
    /// What may be told of a client: its account and round trip, and with `share` who it is.
    pub(crate) fn new(shared: &Shared, client: Option<&Arc<Conn>>, acc: &str, svc: Option<&str>, share: bool) -> Self {
        let mut info = Self { acc: acc.to_owned(), svc: svc.map(str::to_owned), ..Self::default() };
        let Some(client) = client else { return info };
        info.rtt = client.rtt_us.load(Ordering::Relaxed) * 1000;
        if share {
            let rare = client.rare.lock();
            let about = rare.about.as_deref().cloned().unwrap_or_default();
            let named = |text: Box<str>| Some(String::from(text)).filter(|text| !text.is_empty());
            info.start = Some(crate::monitor::rfc3339(client.started));
            info.host = client.remote.map(|remote| remote.ip().to_string());
            info.id = Some(client.cid);
            info.user = rare.grant.as_ref().and_then(|grant| grant.user.clone());
            info.name = named(about.name);
            info.lang = named(about.lang);
            info.ver = named(about.version);
            info.server = Some(shared.server_name.clone());
            info.kind = Some("Client");
            info.client_type = Some(client.client_type());
        }
        info
    }
}

/// A request on its way through service imports.
struct Request<'a> {
    message: &'a Message<'a>,
    /// First importer.
    origin: u32,
    /// The `_R_` subject under which answers come, once there is one.
    answer_on: Option<String>,
    /// Set when somebody wants to know how long the answer takes.
    measured: Option<Box<Measured>>,
}

impl<'s> Router<'s, '_> {
    /// Delivers what an account imports as stream; it is not passed on any further.
    pub(crate) fn imported(&mut self, edge: &StreamEdge, subject: &str, run: &Run<'_>, mask: u64) -> u64 {
        let drops = edge.drop_reply && run.messages.iter().any(|message| message.reply.is_some());
        if !drops {
            return self.local(edge.to_account, &mut None, &Run { subject, messages: run.messages }, mask);
        }
        let mut tails = Vec::new();
        let mut ends = Vec::with_capacity(run.messages.len());
        for message in run.messages {
            let header_len = (message.header_len > 0).then_some(message.header_len);
            encode::message_tail(&mut tails, None, header_len, message.content);
            ends.push(tails.len());
        }
        let mut start = 0;
        let messages: Vec<Message<'_>> = run
            .messages
            .iter()
            .zip(ends)
            .map(|(message, end)| {
                let tail = &tails[start..end];
                start = end;
                Message { reply: None, tail, ..*message }
            })
            .collect();
        self.local(edge.to_account, &mut None, &Run { subject, messages: &messages }, mask)
    }

    /// Sends requests over a service import.
    pub(crate) fn request(&mut self, from: u32, edge: &ServiceEdge, subject: &str, run: &Run<'_>, mask: u64) -> u64 {
        let mut done = 0;
        for bit in bits(mask) {
            let message = &run.messages[bit];
            let mut request = Request { message, origin: from, answer_on: None, measured: None };
            let is_delivered = self.request_hop(&mut request, from, edge, subject);
            done |= u64::from(is_delivered) << bit;
            if let Some(measured) = &request.measured {
                match message.reply {
                    None => self.report_failure(measured, Outcome::BadRequest),
                    Some(_) if !is_delivered => self.report_failure(measured, Outcome::Unavailable),
                    Some(_) => {}
                }
            }
        }
        done
    }

    /// One step of a request, from an importing to its exporting account. Imports form no cycle, so this ends.
    fn request_hop(&mut self, request: &mut Request<'_>, from: u32, edge: &ServiceEdge, subject: &str) -> bool {
        let live = self.live;
        // A request is published there, too.
        let mapped = self.mapped(edge.to_account, subject);
        if mapped.as_deref().is_some_and(|subject| !has_no_empty_token(subject)) {
            return false;
        }
        let subject = mapped.as_deref().unwrap_or(subject);
        let there = &live.accounts[edge.to_account as usize];
        if let Some(latency) = &edge.latency {
            self.measure(request, edge, latency);
        }
        if let Some(reply) = request.message.reply {
            let is_measured = request.measured.is_some();
            let answer_on = request.answer_on.get_or_insert_with(|| answer_subject(is_measured));
            let open = OpenReply {
                account: request.origin,
                reply: reply.into(),
                kind: edge.response,
                until: self.tick.now + edge.threshold.as_millis() as u64,
                measured: request.measured.clone(),
            };
            let until = open.until;
            if !there.state.replies.open(answer_on, open, live.config.max_service_requests, self.tick.now) {
                return false;
            }
            if is_measured && there.state.replies.is_to_be_watched() {
                self.shared.hub.timers.at(until + 1, u64::from(edge.to_account), Timer::Unanswered);
            }
        }
        let content = self.with_request_info(request, from, edge);
        let mut tail = Vec::with_capacity(content.0.len() + 80);
        encode::message_tail(&mut tail, request.answer_on.as_deref().map(str::as_bytes), Some(content.1), &content.0);
        let answer_on = request.answer_on.clone();
        let message = Message { reply: answer_on.as_deref(), header_len: content.1, content: &content.0, tail: &tail };
        let run = Run { subject, messages: std::slice::from_ref(&message) };
        let mut done = self.local(edge.to_account, &mut None, &run, 1) != 0;
        if there.is_system {
            // What the system account exports is mostly what the broker answers itself.
            done |= self.system_request(edge.to_account, &run, 1) != 0;
        }
        if !done && let Some(answer_on) = &request.answer_on {
            there.state.replies.forget(answer_on);
        }
        for next in &there.services {
            if let Some(further) = next.map.to_exported(subject) {
                done |= self.request_hop(request, edge.to_account, next, &further);
            }
        }
        done
    }

    /// Decides whether an exporter gets a report of this request.
    fn measure(&mut self, request: &mut Request<'_>, edge: &ServiceEdge, latency: &ServiceLatency) {
        let Some(headers) = self.sample(latency, request.message) else { return };
        let (shared, live, source) = (self.shared, self.live, self.source);
        let origin = &live.accounts[request.origin as usize].name;
        let new = || Box::new(Measured::new(ClientInfo::new(shared, source, origin, None, edge.share), headers));
        request.measured.get_or_insert_with(new).also_for(edge.to_account, latency.subject.as_str().into());
    }

    /// The request's headers with `Nats-Request-Info` at their end, and the payload; and the length of the headers.
    fn with_request_info(&self, request: &Request<'_>, from: u32, edge: &ServiceEdge) -> (Vec<u8>, usize) {
        let accounts = &self.live.accounts;
        let passed_on = (request.origin != from).then(|| &*accounts[from as usize].name);
        let origin = &accounts[request.origin as usize].name;
        let info = ClientInfo::new(self.shared, self.source, origin, passed_on, edge.share);
        let message = request.message;
        let (headers, payload) = message.content.split_at(message.header_len);
        let mut content = Vec::with_capacity(message.content.len() + 96);
        let was_traced = append_headers(&mut content, headers);
        content.extend_from_slice(b"Nats-Request-Info: ");
        let json = serde_json::to_string(&info).expect("texts and integers serialise");
        content.extend_from_slice(json.as_bytes());
        content.extend_from_slice(b"\r\n");
        if was_traced {
            content.extend_from_slice(trace::DISABLED);
        }
        content.extend_from_slice(b"\r\n");
        let header_len = content.len();
        content.extend_from_slice(payload);
        (content, header_len)
    }

    /// Takes a message on an `_R_` subject back to who asked. `None`: not one of ours, an ordinary message.
    pub(crate) fn answer(&mut self, account: u32, run: &Run<'_>, mask: u64) -> Option<u64> {
        let replies = &self.live.accounts[account as usize].state.replies;
        let mut found = false;
        for bit in bits(mask) {
            let message = &run.messages[bit];
            let is_end = message.content.is_empty();
            if let Some(answered) = replies.take(run.subject, is_end, self.tick.now) {
                found = true;
                let came = answered.measured.is_some().then(Instant::now);
                let run = Run { subject: &answered.reply, messages: std::slice::from_ref(message) };
                self.local(answered.account, &mut None, &run, 1);
                if let (Some(measured), Some(came)) = (&answered.measured, came) {
                    self.report_answer(measured, account, came);
                }
            }
        }
        found.then_some(mask)
    }
}

/// Header that tells a responder who asks.
const REQUEST_INFO: &[u8] = b"Nats-Request-Info";

/// Appends a request's own headers without their end, and without anything that looks like our word on who asks: in any
/// case, with blanks around the name, and behind a lone CR or LF, which some clients take for the end of a line. A wish to trace the request ends at the border; `true`: there was one.
fn append_headers(out: &mut Vec<u8>, headers: &[u8]) -> bool {
    let Some(headers) = headers.strip_suffix(b"\r\n") else {
        out.extend_from_slice(b"NATS/1.0\r\n");
        return false;
    };
    let mut was_traced = false;
    let mut rest = headers;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        let line_end = if rest[end..].starts_with(b"\r\n") { end + 2 } else { (end + 1).min(rest.len()) };
        let name = rest[..end].split(|byte| *byte == b':').next().unwrap_or_default();
        if name == trace::DEST {
            was_traced = true;
        } else if !name.trim_ascii().eq_ignore_ascii_case(REQUEST_INFO) {
            out.extend_from_slice(&rest[..line_end]);
        }
        rest = &rest[line_end..];
    }
    was_traced
}

/// A new unguessable subject for answers, in nats-server's form for measured requests when one is.
fn answer_subject(is_measured: bool) -> String {
    let mut random = rand::rng().sample_iter(Alphanumeric).map(char::from);
    let mut part = |length| random.by_ref().take(length).collect::<String>();
    let subject = format!("_R_.{}.{}", part(6), part(6));
    if is_measured { format!("{subject}.{}.T", part(8)) } else { subject }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requester_cannot_say_itself_who_it_is() {
        let mut out = Vec::new();
        append_headers(&mut out, b"NATS/1.0\r\nA: b\r\nnats-request-INFO: {\"acc\":\"X\"}\r\nC: d\r\n\r\n");
        assert_eq!(out, b"NATS/1.0\r\nA: b\r\nC: d\r\n");
        for (sent, kept) in [
            ("NATS/1.0\r\nNats-Request-Info : x\r\nA: b\r\n\r\n", "NATS/1.0\r\nA: b\r\n"),
            ("NATS/1.0\r\n Nats-Request-Info: x\r\n\r\n", "NATS/1.0\r\n"),
            ("NATS/1.0\nNats-Request-Info: x\nA: b\n\r\n", "NATS/1.0\nA: b\n"),
            ("NATS/1.0\r\nA: b\rNats-Request-Info: x\r\nC: d\r\n\r\n", "NATS/1.0\r\nA: b\rC: d\r\n"),
            ("NATS/1.0\r\nNats-Request-Info\r\nNats-Request-Infos: x\r\n\r\n", "NATS/1.0\r\nNats-Request-Infos: x\r\n"),
            ("NATS/1.0\r\n\r\nNats-Request-Info: x\r\n", "NATS/1.0\r\n\r\n"),
        ] {
            out.clear();
            append_headers(&mut out, sent.as_bytes());
            assert_eq!(String::from_utf8_lossy(&out), kept, "{sent:?}");
        }
        out.clear();
        append_headers(&mut out, b"");
        assert_eq!(out, b"NATS/1.0\r\n");
    }

    #[test]
    fn answers_are_taken_once_in_time_and_in_bounds() {
        let replies = Replies::default();
        let open = |kind| OpenReply { account: 1, reply: "in.1".into(), kind, until: 100, measured: None };
        assert!(replies.open("_R_.a", open(ResponseKind::Singleton), 2, 0));
        assert!(replies.open("_R_.b", open(ResponseKind::Stream), 2, 0));
        assert!(!replies.open("_R_.c", open(ResponseKind::Stream), 2, 0), "bounded");
        let answered = replies.take("_R_.a", false, 50).unwrap();
        assert_eq!((answered.account, &*answered.reply), (1, "in.1"));
        assert!(replies.take("_R_.a", false, 50).is_none());
        assert!(replies.take("_R_.b", false, 50).is_some() && replies.take("_R_.b", true, 50).is_some());
        assert!(replies.take("_R_.b", false, 50).is_none());
        assert!(replies.open("_R_.d", open(ResponseKind::Singleton), 2, 0));
        assert!(replies.take("_R_.d", false, 101).is_none(), "late");
        assert!(
            replies.open("_R_.e", open(ResponseKind::Stream), 2, 0)
                && replies.open("_R_.f", open(ResponseKind::Stream), 2, 0)
        );
        assert!(replies.open("_R_.g", open(ResponseKind::Stream), 2, 101), "expired ones make room");
    }
}
