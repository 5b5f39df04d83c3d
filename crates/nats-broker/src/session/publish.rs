//! PUB and HPUB: checks, guards, routing, and the answer when nobody listens.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nats_proto::encode;
use nats_proto::parser::Publish;
use nats_proto::subject::{has_no_empty_token, has_only_subject_bytes, is_valid_publish, matches};
use smallvec::SmallVec;

use super::{Batch, Rights, Session, quoted};
use crate::conn::flag;
use crate::live::Live;
use crate::permission::{is_publish_denied, is_reserved_reply, is_reserved_subject, may_publish};
use crate::route::{IndexGuard, Message, RUN, Router, Run, Tick, bits};
use crate::shared::Shared;
use crate::subscription::Subscription;
use crate::trace;

impl Session {
    /// Takes publishes of one subject: counts them, and replaces the subject when the account has a mapping for it.
    pub(super) fn publish<'s>(
        &self,
        shared: &'s Shared,
        live: &'s Live,
        batch: &Batch<'_>,
        index: &mut IndexGuard<'s>,
        tick: &mut Tick,
    ) {
        let (Some(first), Some(rights)) = (batch.first(), &self.rights) else {
            return;
        };
        let bytes: usize = batch.iter().map(|publish| publish.content.len()).sum();
        self.conn.in_messages.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.conn.in_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let subject = match std::str::from_utf8(first.subject) {
            Ok(subject) if has_only_subject_bytes(first.subject) => subject,
            _ => return self.invalid_publishes(batch.len(), index, tick),
        };
        if first.is_hpub && batch.len() == 1 && trace::destination(first.headers()).is_some() {
            return self.publish_traced(shared, live, subject, first, index, tick);
        }
        let Some(mapping) = live.accounts[rights.account as usize].mappings.find(subject) else {
            return self.publish_as(shared, live, subject, batch, index, tick);
        };
        // Where chance decides, each message has its own subject.
        let step = if mapping.is_random() { 1 } else { batch.len() };
        for messages in batch.chunks(step) {
            let mapped = mapping.apply(subject, &mut |limit| tick.below(limit));
            self.publish_as(shared, live, mapped.as_deref().unwrap_or(subject), messages, index, tick);
        }
    }

    /// Checks and routes publishes under one subject.
    fn publish_as<'s>(
        &self,
        shared: &'s Shared,
        live: &'s Live,
        subject: &str,
        batch: &[Publish<'_>],
        index: &mut IndexGuard<'s>,
        tick: &mut Tick,
    ) {
        let (Some(first), Some(rights)) = (batch.first(), &self.rights) else {
            return;
        };
        let mut scratch = Vec::new();
        let mut messages: SmallVec<[Message<'_>; RUN]> = SmallVec::new();
        let mut mask = self.allowed(live, rights, subject, batch, index, tick);
        for (bit, publish) in batch.iter().enumerate() {
            let reply = match publish.reply.map(std::str::from_utf8) {
                None => None,
                Some(Ok(reply)) if has_only_subject_bytes(reply.as_bytes()) => Some(reply),
                Some(_) => {
                    if mask & (1 << bit) != 0 {
                        mask &= !(1 << bit);
                        self.invalid_publishes(1, index, tick);
                    }
                    None
                }
            };
            messages.push(Message {
                reply,
                header_len: publish.header_len.unwrap_or(0),
                content: publish.content,
                tail: publish.tail.unwrap_or_default(),
            });
        }
        if first.tail.is_none() {
            // Such a publish comes alone.
            let reply = messages[0].reply.map(str::as_bytes);
            encode::message_tail(&mut scratch, reply, first.header_len, first.content);
            messages[0].tail = &scratch;
        }
        if self.has_option(flag::VERBOSE) {
            bits(mask).for_each(|_| self.confirm(tick));
        }
        let run = Run { subject, messages: &messages };
        let done = if mask == 0 || !has_no_empty_token(subject) {
            0
        } else {
            let echo = self.has_option(flag::ECHO);
            Router { shared, live, tick, source: Some(&self.conn), echo }.route(rights.account, index, &run, mask)
        };
        if self.has_option(flag::NO_RESPONDERS) {
            for bit in bits(mask & !done) {
                if let Some(reply) = messages[bit].reply {
                    self.nobody(live, rights.account, index, reply, subject, tick);
                }
            }
        }
    }

    /// Which messages of a batch may be published; the others are answered with an error.
    pub(super) fn allowed(
        &self,
        live: &Live,
        rights: &Rights,
        subject: &str,
        batch: &[Publish<'_>],
        index: &mut IndexGuard<'_>,
        tick: &mut Tick,
    ) -> u64 {
        if self.has_option(flag::PEDANTIC) && !is_valid_publish(subject) {
            tick.send(&self.conn, |out| encode::error(out, "Invalid Publish Subject"));
        }
        let is_reserved = is_reserved_subject(subject.as_bytes());
        let by_list = !is_reserved && (rights.publishes_freely || may_publish(&rights.grant, subject));
        let by_answer = !by_list
            && !is_reserved
            && rights.grant.permissions.responses.is_some()
            && !is_publish_denied(&rights.grant, subject);
        let guards = &live.accounts[rights.account as usize].guards;
        let mut mask = 0;
        for (bit, publish) in batch.iter().enumerate() {
            if let Some(reply) = publish.reply
                && is_reserved_reply(reply)
            {
                let reply = quoted(&String::from_utf8_lossy(reply));
                self.deny(rights, "publish", subject, &format!("Publish with Reply of \"{reply}\""), index, tick);
                continue;
            }
            let may = by_list || (by_answer && self.takes_answer(subject, tick.now));
            if !may {
                self.deny(rights, "publish", subject, &format!("Publish to \"{}\"", quoted(subject)), index, tick);
                continue;
            }
            let refused = if guards.is_empty() {
                None
            } else {
                *index = None;
                let tag = rights.grant.tag.as_deref();
                guards.iter().filter(|guarded| matches(&guarded.filter, subject)).find_map(|guarded| {
                    guarded.guard.check(&rights.grant.account, tag, subject, publish.payload()).err()
                })
            };
            match refused {
                Some(reason) => {
                    self.deny(rights, reason, subject, &format!("Publish to \"{}\"", quoted(subject)), index, tick);
                }
                None => mask |= 1 << bit,
            }
        }
        mask
    }

    fn takes_answer(&self, subject: &str, now: u64) -> bool {
        self.conn.rare.lock().budgets.as_mut().is_some_and(|budgets| budgets.take(subject, now))
    }

    pub(super) fn deny(
        &self,
        rights: &Rights,
        reason: &'static str,
        subject: &str,
        what: &str,
        index: &mut IndexGuard<'_>,
        tick: &mut Tick,
    ) {
        // The observer may publish: no lock may be held then.
        *index = None;
        self.shared.observer.violation(self.conn.cid, &rights.grant, reason, subject);
        tick.send(&self.conn, |out| encode::error(out, &format!("Permissions Violation for {what}")));
    }

    pub(super) fn invalid_publishes(&self, count: usize, index: &mut IndexGuard<'_>, tick: &mut Tick) {
        *index = None;
        for _ in 0..count {
            tick.send(&self.conn, |out| encode::error(out, "Invalid Publish Subject"));
        }
    }

    /// Nobody got a request: tells the requester on a plain subscription of its own, when it has one (503).
    pub(super) fn nobody<'s>(
        &self,
        live: &'s Live,
        account: u32,
        index: &mut IndexGuard<'s>,
        reply: &str,
        subject: &str,
        tick: &mut Tick,
    ) {
        if !has_no_empty_token(reply) {
            return;
        }
        let guard = index.get_or_insert_with(|| live.accounts[account as usize].state.index.read());
        let mut found: Option<&Arc<Subscription>> = None;
        guard.for_each_match(reply, |entry| {
            for sub in &entry.plain {
                let is_own = sub.conn().is_some_and(|conn| Arc::ptr_eq(conn, &self.conn));
                let order = |sub: &Subscription| (sub.sid.as_bytes().len(), sub.sid.as_bytes().to_vec());
                if is_own && !sub.is_exhausted() && found.is_none_or(|found| order(sub) < order(found)) {
                    found = Some(sub);
                }
            }
        });
        let Some(sub) = found else { return };
        let sid = sub.sid.clone();
        let length = subject.len() + 32;
        tick.send(&self.conn, |out| {
            out.extend_from_slice(b"HMSG ");
            out.extend_from_slice(reply.as_bytes());
            out.push(b' ');
            out.extend_from_slice(sid.as_bytes());
            out.push(b' ');
            encode::number(out, length as u64);
            out.push(b' ');
            encode::number(out, length as u64);
            out.extend_from_slice(b"\r\nNATS/1.0 503\r\nNats-Subject: ");
            out.extend_from_slice(subject.as_bytes());
            out.extend_from_slice(b"\r\n\r\n\r\n");
        });
    }
}
