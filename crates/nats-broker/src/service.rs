//! What crosses between accounts: imported streams, requests over service imports, and their answers (spec 07 §8).

use std::time::SystemTime;

use nats_proto::encode;
use parking_lot::Mutex;
use rand::Rng;
use rand::distr::Alphanumeric;
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::account::{ServiceEdge, StreamEdge};
use crate::config::ResponseKind;
use crate::route::{Message, Router, Run, bits};

/// Open answers are looked through for expired ones when there are this many more than after the last look.
const LOOK_AFTER: usize = 1024;

/// A request of another account that is answered here.
#[derive(Debug, Clone)]
struct OpenReply {
    /// Number of the asking account.
    account: u32,
    /// Its reply subject.
    reply: Box<str>,
    kind: ResponseKind,
    /// Last millisecond at which an answer is taken.
    until: u64,
}

#[derive(Debug, Default)]
struct OpenReplies {
    by_subject: FxHashMap<Box<str>, OpenReply>,
    look_at: usize,
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
            open.by_subject.retain(|_, reply| reply.until >= now);
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

    /// Where an answer goes. `None`: nobody asked, it was answered already, or it is too late.
    fn take(&self, subject: &str, is_end: bool, now: u64) -> Option<(u32, Box<str>)> {
        let mut open = self.open.lock();
        let found = open.by_subject.get(subject)?;
        let is_late = found.until < now;
        let is_last = found.kind == ResponseKind::Singleton || is_end;
        let answer = (found.account, found.reply.clone());
        if is_late || is_last {
            open.by_subject.remove(subject);
        }
        (!is_late).then_some(answer)
    }
}

/// The `Nats-Request-Info` header of a request over a service import.
#[derive(Debug, Serialize)]
struct RequestInfo<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    /// Account of the first importer.
    acc: &'a str,
    /// Account that passed the request on.
    #[serde(skip_serializing_if = "Option::is_none")]
    svc: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lang: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ver: Option<String>,
    /// Round trip to the requester in nanoseconds.
    rtt: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_type: Option<&'a str>,
}

/// A request on its way through service imports.
struct Request<'a> {
    message: &'a Message<'a>,
    /// First importer.
    origin: u32,
    /// The `_R_` subject under which answers come, once there is one.
    answer_on: Option<String>,
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
            let mut request = Request { message: &run.messages[bit], origin: from, answer_on: None };
            if self.request_hop(&mut request, from, edge, subject) {
                done |= 1 << bit;
            }
        }
        done
    }

    /// One step of a request, from an importing to its exporting account. Imports form no cycle, so this ends.
    fn request_hop(&mut self, request: &mut Request<'_>, from: u32, edge: &ServiceEdge, subject: &str) -> bool {
        let live = self.live;
        // A request is published there, too.
        let mapped = self.mapped(edge.to_account, subject);
        let subject = mapped.as_deref().unwrap_or(subject);
        let there = &live.accounts[edge.to_account as usize];
        if let Some(reply) = request.message.reply {
            let answer_on = request.answer_on.get_or_insert_with(answer_subject);
            let open = OpenReply {
                account: request.origin,
                reply: reply.into(),
                kind: edge.response,
                until: self.tick.now + edge.threshold.as_millis() as u64,
            };
            if !there.state.replies.open(answer_on, open, live.config.max_service_requests, self.tick.now) {
                return false;
            }
        }
        let content = self.with_request_info(request, from, edge);
        let mut tail = Vec::with_capacity(content.0.len() + 80);
        encode::message_tail(&mut tail, request.answer_on.as_deref().map(str::as_bytes), Some(content.1), &content.0);
        let answer_on = request.answer_on.clone();
        let message = Message { reply: answer_on.as_deref(), header_len: content.1, content: &content.0, tail: &tail };
        let run = Run { subject, messages: std::slice::from_ref(&message) };
        let mut done = self.local(edge.to_account, &mut None, &run, 1) != 0;
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

    /// The request's headers with `Nats-Request-Info` at their end, and the payload; and the length of the headers.
    fn with_request_info(&self, request: &Request<'_>, from: u32, edge: &ServiceEdge) -> (Vec<u8>, usize) {
        let shared = self.shared;
        let mut info = RequestInfo {
            start: None,
            host: None,
            id: None,
            acc: &self.live.accounts[request.origin as usize].name,
            svc: (request.origin != from).then(|| &*self.live.accounts[from as usize].name),
            user: None,
            name: None,
            lang: None,
            ver: None,
            rtt: 0,
            server: None,
            kind: None,
            client_type: None,
        };
        if let Some(source) = self.source {
            info.rtt = source.rtt_us.load(std::sync::atomic::Ordering::Relaxed) * 1000;
            if edge.share {
                let rare = source.rare.lock();
                let about = rare.about.as_deref().cloned().unwrap_or_default();
                let named = |text: Box<str>| Some(String::from(text)).filter(|text| !text.is_empty());
                info.start = Some(crate::monitor::rfc3339(SystemTime::now()));
                info.host = source.remote.map(|remote| remote.ip().to_string());
                info.id = Some(source.cid);
                info.user = rare.grant.as_ref().and_then(|grant| grant.user.clone());
                info.name = named(about.name);
                info.lang = named(about.lang);
                info.ver = named(about.version);
                info.server = Some(&shared.server_name);
                info.kind = Some("Client");
                info.client_type = Some("nats");
            }
        }
        let message = request.message;
        let (headers, payload) = message.content.split_at(message.header_len);
        let mut content = Vec::with_capacity(message.content.len() + 96);
        append_headers(&mut content, headers);
        content.extend_from_slice(b"Nats-Request-Info: ");
        let json = serde_json::to_string(&info).expect("texts and integers serialise");
        content.extend_from_slice(json.as_bytes());
        content.extend_from_slice(b"\r\n\r\n");
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
            if let Some((to, subject)) = replies.take(run.subject, is_end, self.tick.now) {
                found = true;
                let run = Run { subject: &subject, messages: std::slice::from_ref(message) };
                self.local(to, &mut None, &run, 1);
            }
        }
        found.then_some(mask)
    }
}

/// Header that tells a responder who asks.
const REQUEST_INFO: &[u8] = b"Nats-Request-Info:";

/// Appends a request's own headers without their end, and without anything that looks like our word on who asks.
fn append_headers(out: &mut Vec<u8>, headers: &[u8]) {
    let Some(headers) = headers.strip_suffix(b"\r\n") else {
        out.extend_from_slice(b"NATS/1.0\r\n");
        return;
    };
    for line in headers.split_inclusive(|byte| *byte == b'\n') {
        let is_forged = line.get(..REQUEST_INFO.len()).is_some_and(|name| name.eq_ignore_ascii_case(REQUEST_INFO));
        if !is_forged {
            out.extend_from_slice(line);
        }
    }
}

/// A new unguessable subject for answers.
fn answer_subject() -> String {
    let mut random = rand::rng().sample_iter(Alphanumeric).map(char::from);
    let mut part = || random.by_ref().take(6).collect::<String>();
    format!("_R_.{}.{}", part(), part())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requester_cannot_say_itself_who_it_is() {
        let mut out = Vec::new();
        append_headers(&mut out, b"NATS/1.0\r\nA: b\r\nnats-request-INFO: {\"acc\":\"X\"}\r\nC: d\r\n\r\n");
        assert_eq!(out, b"NATS/1.0\r\nA: b\r\nC: d\r\n");
        out.clear();
        append_headers(&mut out, b"");
        assert_eq!(out, b"NATS/1.0\r\n");
    }

    #[test]
    fn answers_are_taken_once_in_time_and_in_bounds() {
        let replies = Replies::default();
        let open = |kind| OpenReply { account: 1, reply: "in.1".into(), kind, until: 100 };
        assert!(replies.open("_R_.a", open(ResponseKind::Singleton), 2, 0));
        assert!(replies.open("_R_.b", open(ResponseKind::Stream), 2, 0));
        assert!(!replies.open("_R_.c", open(ResponseKind::Stream), 2, 0), "bounded");
        assert_eq!(replies.take("_R_.a", false, 50), Some((1, "in.1".into())));
        assert_eq!(replies.take("_R_.a", false, 50), None);
        assert!(replies.take("_R_.b", false, 50).is_some() && replies.take("_R_.b", true, 50).is_some());
        assert_eq!(replies.take("_R_.b", false, 50), None);
        assert!(replies.open("_R_.d", open(ResponseKind::Singleton), 2, 0));
        assert_eq!(replies.take("_R_.d", false, 101), None, "late");
        assert!(
            replies.open("_R_.e", open(ResponseKind::Stream), 2, 0)
                && replies.open("_R_.f", open(ResponseKind::Stream), 2, 0)
        );
        assert!(replies.open("_R_.g", open(ResponseKind::Stream), 2, 101), "expired ones make room");
    }
}
