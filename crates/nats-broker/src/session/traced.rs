//! Publishing one message whose way is to be told, see [`crate::trace`].

use nats_proto::encode;
use nats_proto::parser::Publish;
use nats_proto::subject::{has_no_empty_token, has_only_subject_bytes, matches};

use super::{Rights, Session, quoted};
use crate::conn::flag;
use crate::live::Live;
use crate::permission::{is_reserved_subject, may_publish};
use crate::route::{IndexGuard, Message, Router, Run, Tick};
use crate::shared::Shared;
use crate::trace::{self, Trace};

impl Session {
    /// Checks and routes a message and tells where it went. Such a message comes alone.
    pub(super) fn publish_traced<'s>(
        &self,
        shared: &'s Shared,
        live: &'s Live,
        subject: &str,
        publish: &Publish<'_>,
        index: &mut IndexGuard<'s>,
        tick: &mut Tick,
    ) {
        let (Some(rights), Some(to)) = (&self.rights, trace::destination(publish.headers())) else { return };
        *index = None;
        if !may_tell(live, rights, to) {
            self.deny(rights, "publish", to, &format!("Publish to \"{}\"", quoted(to)), index, tick);
            return;
        }
        let account = &live.accounts[rights.account as usize];
        let headers = publish.headers();
        let mut trace = Trace::new(headers, publish.content.len());
        trace.entered(&self.conn, &account.name, subject);
        let mapped = account.mappings.find(subject).and_then(|map| map.apply(subject, &mut |limit| tick.below(limit)));
        if let Some(mapped) = &mapped {
            trace.mapped(mapped);
        }
        let subject = mapped.as_deref().unwrap_or(subject);
        let reply = publish.reply.and_then(|reply| std::str::from_utf8(reply).ok());
        if reply.is_some_and(|reply| !has_only_subject_bytes(reply.as_bytes()))
            || reply.is_some() != publish.reply.is_some()
        {
            self.invalid_publishes(1, index, tick);
            return;
        }
        if self.allowed(live, rights, subject, std::slice::from_ref(publish), index, tick) == 0 {
            trace.refused(format!("Permissions Violation for Publish to \"{}\"", quoted(subject)));
            trace.tell(shared, rights.account, to);
            return;
        }
        self.confirm(tick);
        let mut tail = Vec::with_capacity(publish.content.len() + 48);
        encode::message_tail(&mut tail, reply.map(str::as_bytes), publish.header_len, publish.content);
        let header_len = publish.header_len.unwrap_or(0);
        let message = Message { reply, header_len, content: publish.content, tail: &tail };
        let run = Run { subject, messages: std::slice::from_ref(&message) };
        let echo = self.has_option(flag::ECHO);
        let mut router = Router { shared, live, tick, source: Some(&self.conn), echo };
        let done = has_no_empty_token(subject) && router.traced(rights.account, &run, &mut trace);
        if !done
            && self.has_option(flag::NO_RESPONDERS)
            && let Some(reply) = reply
        {
            self.nobody(live, rights.account, index, reply, subject, tick);
        }
        *index = None;
        trace.tell(shared, rights.account, to);
    }
}

/// Whether a publisher may have something told on a subject: what it may publish there itself, and nobody looks into.
fn may_tell(live: &Live, rights: &Rights, to: &str) -> bool {
    let guards = &live.accounts[rights.account as usize].guards;
    !is_reserved_subject(to.as_bytes())
        && (rights.publishes_freely || may_publish(&rights.grant, to))
        && !guards.iter().any(|guarded| matches(&guarded.filter, to))
}
