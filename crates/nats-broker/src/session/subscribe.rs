//! SUB and UNSUB.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nats_proto::encode;
use nats_proto::subject::{has_only_subject_bytes, is_valid_filter};

use super::{Session, quoted};
use crate::conn::flag;
use crate::permission::{Delivery, may_subscribe};
use crate::route::Tick;
use crate::subscription::{Sid, Sink, Special, Subscription};

impl Session {
    pub(super) fn subscribe(&mut self, subject: &[u8], queue: Option<&[u8]>, sid: &[u8], tick: &mut Tick) {
        match self.try_subscribe(subject, queue, sid) {
            Ok(()) => self.confirm(tick),
            Err(text) => tick.send(&self.conn, |out| encode::error(out, &text)),
        }
    }

    fn try_subscribe(&self, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) -> Result<(), String> {
        let invalid = || "Invalid Subject".to_owned();
        let Some(rights) = &self.rights else { return Err(invalid()) };
        let filter = std::str::from_utf8(subject).ok().filter(|text| is_valid_filter(text)).ok_or_else(invalid)?;
        let queue = match queue.map(std::str::from_utf8) {
            None => None,
            Some(Ok(queue)) if has_only_subject_bytes(queue.as_bytes()) => Some(queue),
            Some(_) => return Err(invalid()),
        };
        let live = self.shared.live();
        let config = &live.config;
        if config.max_sub_tokens > 0 && filter.split('.').count() > config.max_sub_tokens {
            return Err(format!("Permissions Violation for Subscription to \"{}\", too many tokens", quoted(filter)));
        }
        let Some(delivery) = may_subscribe(&rights.grant, filter, queue) else {
            self.shared.observer.violation(self.conn.cid, &rights.grant, "subscribe", filter);
            let using = queue.map(|queue| format!(" using queue \"{}\"", quoted(queue))).unwrap_or_default();
            return Err(format!("Permissions Violation for Subscription to \"{}\"{using}", quoted(filter)));
        };
        let account = &live.accounts[rights.account as usize];
        let known = self.conn.rare.lock().subs.get(sid).cloned();
        if let Some(known) = &known
            && known.is_exhausted()
        {
            self.shared.end_subscription(known);
        }
        let full = "maximum subscriptions exceeded";
        let held = self.conn.rare.lock().subs.len();
        if config.max_subscriptions > 0 && held >= config.max_subscriptions {
            return Err(full.to_owned());
        }
        if known.is_some_and(|known| !known.is_exhausted()) {
            // A live sid is left alone.
            return Ok(());
        }
        let mut index = account.state.index.write();
        if index.len() >= account.max_subscriptions {
            return Err(full.to_owned());
        }
        let special = Special {
            queue: queue.map(Into::into),
            filtered_by: (delivery == Delivery::Filtered).then(|| Arc::clone(&rights.grant)),
        };
        let sink = Sink::Client(Arc::clone(&self.conn));
        let filter = index.intern(filter);
        let sub = Arc::new(Subscription::new(sink, Sid::new(sid), rights.account, filter, special));
        index.add(&sub);
        drop(index);
        self.conn.rare.lock().subs.insert(sub);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, sid: &[u8], max: Option<u64>, tick: &mut Tick) {
        let mut known = self.conn.rare.lock().subs.get(sid).cloned();
        while let Some(sub) = known {
            match max {
                // One that had its last message has ended, even if it is still about to be taken out.
                Some(max) if !sub.is_exhausted() && max > sub.delivered.load(Ordering::Relaxed) => {
                    sub.max.store(max, Ordering::Relaxed);
                }
                _ => {
                    self.shared.end_subscription(&sub);
                }
            }
            // A reload may just have put another one in its place.
            known = self.conn.rare.lock().subs.get(sid).filter(|now| !Arc::ptr_eq(now, &sub)).cloned();
        }
        self.confirm(tick);
    }

    /// `+OK` in verbose mode.
    pub(super) fn confirm(&self, tick: &mut Tick) {
        if self.has_option(flag::VERBOSE) {
            tick.send(&self.conn, |out| out.extend_from_slice(encode::OK));
        }
    }
}
