//! From a published run of messages to the outboxes of those who listen.
//!
//! A run is up to 64 messages of one subject that came in one read: it is matched once and appended target by
//! target. Which messages of a run somebody got is a bit mask.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use nats_proto::{HeaderMap, encode};
use parking_lot::RwLockReadGuard;
use smallvec::SmallVec;

use crate::conn::{Conn, flag};
use crate::index::{Entry, Index, QueueGroup};
use crate::live::Live;
use crate::local::{LocalMessage, LocalSink};
use crate::permission::may_deliver;
use crate::shared::Shared;
use crate::subscription::{Sink, Subscription};

/// Messages per run; the width of the mask.
pub(crate) const RUN: usize = 64;
/// More targets than this are served without holding the index, each written as soon as it has [`EARLY_FLUSH`] bytes.
const WIDE: usize = 24;
/// Outbox size at which a target of a wide fan-out is written. With 8 KiB the kernel's work for each write is what costs;
/// with 64 KiB the buffers of all targets no longer fit the cache.
const EARLY_FLUSH: usize = 32 << 10;
/// Outbox size at which any target is written.
const LATE_FLUSH: usize = 128 << 10;
/// Output waiting at a target above which the publisher's reading pauses (spec 07 §22.4).
pub(crate) const STALL: usize = 1 << 20;

/// A message on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) reply: Option<&'a str>,
    /// Length of the header block in `content`; 0 = none.
    pub(crate) header_len: usize,
    /// Headers and payload.
    pub(crate) content: &'a [u8],
    /// What stands behind `MSG subject sid ` or, with headers, `HMSG subject sid `.
    pub(crate) tail: &'a [u8],
}

/// Messages of one subject.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) subject: &'a str,
    pub(crate) messages: &'a [Message<'a>],
}

/// The set bits of a mask, lowest first.
pub(crate) fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let bit = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(bit)
    })
}

/// What one pass over received bytes leaves to do, and memory that passes reuse.
#[derive(Debug)]
pub(crate) struct Tick {
    /// Connections with fresh output.
    touched: Vec<Arc<Conn>>,
    /// Subscriptions that had their last message.
    exhausted: Vec<Arc<Subscription>>,
    /// Connections with much output that somebody else will write.
    behind: Vec<Arc<Conn>>,
    prefix: Vec<u8>,
    flush_at: usize,
    random: u64,
    /// Milliseconds of the broker's clock.
    pub(crate) now: u64,
}

impl Tick {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            touched: Vec::new(),
            exhausted: Vec::new(),
            behind: Vec::new(),
            prefix: Vec::new(),
            flush_at: LATE_FLUSH,
            random: seed | 1,
            now: 0,
        }
    }

    /// A connection got output that must be written at the end.
    pub(crate) fn touch(&mut self, conn: &Arc<Conn>) {
        self.touched.push(Arc::clone(conn));
    }

    /// Appends to a connection's outbox and remembers to write it.
    pub(crate) fn send(&mut self, conn: &Arc<Conn>, write: impl FnOnce(&mut Vec<u8>)) {
        if conn.append(write) {
            self.touch(conn);
        }
    }

    /// Writes everything out. Connections that did not take it all and are far behind come back in `stalled`.
    pub(crate) fn finish(&mut self, shared: &Shared, stalled: &mut SmallVec<[Arc<Conn>; 2]>) {
        for conn in self.touched.drain(..) {
            if conn.flush() > STALL {
                stalled.push(conn);
            }
        }
        for conn in self.behind.drain(..) {
            let is_listed = stalled.iter().any(|listed| Arc::ptr_eq(listed, &conn));
            if !is_listed && conn.flush() > STALL {
                stalled.push(conn);
            }
        }
        for sub in self.exhausted.drain(..) {
            shared.end_subscription(&sub);
        }
    }

    /// A number below `limit`, evenly enough distributed for choosing among subscribers.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * limit as u128) >> 64) as usize
    }
}

/// The read side of an account's index, taken when first needed.
pub(crate) type IndexGuard<'s> = Option<RwLockReadGuard<'s, Index>>;

/// Routes what one publisher sends.
pub(crate) struct Router<'s, 't> {
    pub(crate) shared: &'s Shared,
    /// Settings and accounts that are in force for all of this.
    pub(crate) live: &'s Live,
    pub(crate) tick: &'t mut Tick,
    /// The publishing connection; `None` for messages from inside.
    pub(crate) source: Option<&'t Arc<Conn>>,
    /// Whether the publisher wants its own messages.
    pub(crate) echo: bool,
}

impl<'s> Router<'s, '_> {
    /// Delivers in the account and wherever its messages are imported. Gives the mask of messages that reached anyone.
    pub(crate) fn route(&mut self, account: u32, index: &mut IndexGuard<'s>, run: &Run<'_>, mask: u64) -> u64 {
        let first = run.subject.as_bytes().first();
        if first == Some(&b'_') && run.subject.starts_with("_R_.") {
            *index = None;
            if let Some(done) = self.answer(account, run, mask) {
                return done;
            }
        }
        let mut done = self.local(account, index, run, mask);
        let live = self.live;
        let from = &live.accounts[account as usize];
        for edge in &from.streams {
            if let Some(subject) = edge.map.to_local(run.subject) {
                *index = None;
                done |= self.imported(edge, &subject, run, mask);
            }
        }
        for edge in &from.services {
            if let Some(subject) = edge.map.to_exported(run.subject) {
                *index = None;
                done |= self.request(account, edge, &subject, run, mask);
            }
        }
        if first == Some(&b'$') && run.subject.starts_with("$SYS.REQ.") {
            *index = None;
            done |= self.system_request(account, run, mask);
        }
        done
    }

    /// The subject in whose place this one is published in an account. `None`: it keeps its own.
    pub(crate) fn mapped(&mut self, account: u32, subject: &str) -> Option<String> {
        let mapping = self.live.accounts[account as usize].mappings.find(subject)?;
        mapping.apply(subject, &mut |limit| self.tick.below(limit))
    }

    /// Delivers to the subscribers of one account.
    pub(crate) fn local(&mut self, account: u32, index: &mut IndexGuard<'s>, run: &Run<'_>, mask: u64) -> u64 {
        let live = self.live;
        let guard = index.get_or_insert_with(|| live.accounts[account as usize].state.index.read());
        let mut entries: SmallVec<[&Arc<Entry>; 8]> = SmallVec::new();
        let mut targets = 0;
        guard.for_each_match(run.subject, |entry| {
            targets += entry.targets();
            entries.push(entry);
        });
        if targets <= WIDE {
            return if entries.is_empty() { 0 } else { self.deliver_entries(&entries, run, mask) };
        }
        let owned: SmallVec<[Arc<Entry>; 8]> = entries.iter().map(|entry| Arc::clone(entry)).collect();
        drop(entries);
        *index = None;
        let entries: SmallVec<[&Arc<Entry>; 8]> = owned.iter().collect();
        self.tick.flush_at = EARLY_FLUSH;
        let done = self.deliver_entries(&entries, run, mask);
        self.tick.flush_at = LATE_FLUSH;
        done
    }

    fn deliver_entries(&mut self, entries: &[&Arc<Entry>], run: &Run<'_>, mask: u64) -> u64 {
        let mut prefix = std::mem::take(&mut self.tick.prefix);
        prefix.clear();
        prefix.extend_from_slice(b"HMSG ");
        prefix.extend_from_slice(run.subject.as_bytes());
        prefix.push(b' ');
        let mut done = 0;
        let mut groups: SmallVec<[&QueueGroup; 4]> = SmallVec::new();
        for entry in entries {
            for sub in &entry.plain {
                done |= self.deliver(sub, &prefix, run, mask);
            }
            groups.extend(entry.queues.iter());
        }
        if !groups.is_empty() {
            // Groups of one name on several filters are one group.
            groups.sort_unstable_by(|left, right| left.name.cmp(&right.name));
            for group in groups.chunk_by(|left, right| left.name == right.name) {
                done |= self.deliver_group(group, &prefix, run, mask);
            }
        }
        self.tick.prefix = prefix;
        done
    }

    /// Each message goes to one member, chosen at random; when that one cannot take it, to the next.
    fn deliver_group(&mut self, groups: &[&QueueGroup], prefix: &[u8], run: &Run<'_>, mask: u64) -> u64 {
        let members: usize = groups.iter().map(|group| group.members.len()).sum();
        let mut done = 0;
        for bit in bits(mask) {
            let start = self.tick.below(members);
            for step in 0..members {
                let mut at = (start + step) % members;
                let group = groups.iter().find(|group| match at.checked_sub(group.members.len()) {
                    Some(left) => {
                        at = left;
                        false
                    }
                    None => true,
                });
                let Some(group) = group else { break };
                let got = self.deliver(&group.members[at], prefix, run, 1 << bit);
                if got != 0 {
                    done |= got;
                    break;
                }
            }
        }
        done
    }

    pub(crate) fn deliver(&mut self, sub: &Arc<Subscription>, prefix: &[u8], run: &Run<'_>, mask: u64) -> u64 {
        match &sub.sink {
            Sink::Client(conn) => self.deliver_client(conn, sub, prefix, run, mask),
            Sink::Local(sink) => deliver_local(sink, run, mask),
        }
    }

    fn deliver_client(
        &mut self,
        conn: &Arc<Conn>,
        sub: &Arc<Subscription>,
        prefix: &[u8],
        run: &Run<'_>,
        mask: u64,
    ) -> u64 {
        if !self.echo && self.source.is_some_and(|source| Arc::ptr_eq(source, conn)) {
            return 0;
        }
        if let Some(grant) = sub.filtered_by()
            && !may_deliver(grant, run.subject, sub.queue().map(|queue| &**queue))
        {
            return 0;
        }
        let takes_headers = conn.has(flag::HEADERS);
        let max = sub.max.load(Ordering::Relaxed);
        let mut done = 0;
        let mut outbox = conn.outbox.lock();
        if outbox.gone || sub.has_ended() {
            return 0;
        }
        let mut delivered = sub.delivered.load(Ordering::Relaxed);
        let mut is_slow = false;
        for bit in bits(mask) {
            if max != 0 && delivered >= max {
                break;
            }
            let message = &run.messages[bit];
            let need = prefix.len() + message.tail.len() + sub.sid.as_bytes().len() + 1;
            if outbox.pending() + need > conn.hub.max_pending.load(Ordering::Relaxed) {
                is_slow = true;
                break;
            }
            append(outbox.room(need), prefix, sub.sid.as_bytes(), message, takes_headers);
            outbox.messages += 1;
            outbox.bytes += message.content.len() as u64;
            delivered += 1;
            done |= 1 << bit;
        }
        sub.delivered.store(delivered, Ordering::Relaxed);
        let is_new = done != 0 && !std::mem::replace(&mut outbox.touched, true);
        let is_full = outbox.fresh() >= self.tick.flush_at;
        let is_behind = outbox.pending() > STALL;
        drop(outbox);
        if is_new {
            self.tick.touch(conn);
        } else if is_behind && !self.tick.behind.last().is_some_and(|last| Arc::ptr_eq(last, conn)) {
            self.tick.behind.push(Arc::clone(conn));
        }
        if is_slow {
            conn.drop_slow("Slow Consumer (Pending Bytes)");
        } else if is_full {
            conn.flush();
        }
        if max != 0 && delivered >= max {
            self.tick.exhausted.push(Arc::clone(sub));
        }
        if done != 0 && conn.has(flag::BUDGETED) {
            self.open_responses(conn, run, done);
        }
        done
    }

    /// Remembers which replies a connection with a response budget may now give.
    fn open_responses(&mut self, conn: &Arc<Conn>, run: &Run<'_>, mask: u64) {
        let mut rare = conn.rare.lock();
        let Some(rule) = rare.grant.as_ref().and_then(|grant| grant.permissions.responses) else {
            return;
        };
        let budgets = rare.budgets.get_or_insert_default();
        for bit in bits(mask) {
            if let Some(reply) = run.messages[bit].reply {
                budgets.delivered(reply, rule, self.tick.now);
            }
        }
    }
}

/// Appends one delivery. `prefix` is `HMSG subject `, whose tail is the prefix of MSG.
fn append(out: &mut Vec<u8>, prefix: &[u8], sid: &[u8], message: &Message<'_>, takes_headers: bool) {
    let has_headers = message.header_len > 0;
    out.extend_from_slice(if has_headers && takes_headers { prefix } else { &prefix[1..] });
    out.extend_from_slice(sid);
    out.push(b' ');
    if has_headers && !takes_headers {
        let reply = message.reply.map(str::as_bytes);
        encode::message_tail(out, reply, None, &message.content[message.header_len..]);
    } else {
        out.extend_from_slice(message.tail);
    }
}

fn deliver_local(sink: &LocalSink, run: &Run<'_>, mask: u64) -> u64 {
    let mut done = 0;
    for bit in bits(mask) {
        let message = &run.messages[bit];
        let (headers, payload) = message.content.split_at(message.header_len);
        let local = LocalMessage {
            subject: run.subject.to_owned(),
            reply: message.reply.map(str::to_owned),
            headers: if headers.is_empty() { HeaderMap::new() } else { HeaderMap::parse(headers).unwrap_or_default() },
            payload: Bytes::copy_from_slice(payload),
        };
        if sink.sender.try_send(local).is_ok() {
            done |= 1 << bit;
        } else {
            sink.dropped.fetch_add(1, Ordering::Relaxed);
            // A full queue still belongs to somebody who listens.
            if !sink.sender.is_closed() {
                done |= 1 << bit;
            }
        }
    }
    done
}
