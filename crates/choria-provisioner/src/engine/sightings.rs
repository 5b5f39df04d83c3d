//! What is heard of nodes: events, registration data, homecomings, ends of connections; and refusing what is wrong with it.

use std::time::Duration;

use choria_protocol::lifecycle::{Event, Kind};
use choria_protocol::rpc::ReplyBody;
use choria_protocol::{identity, v1};

use super::history::Happening;
use super::{Effect, Engine};
use crate::advisory::{CLIENT_CLOSED, Disconnect, TAKEN_OVER};
use crate::flow::{Input, Now, SendFault, Stop};
use crate::metrics::Phase;
use crate::queue::{Admission, Source};

/// A startup event this soon after a node's first request is of the process that we are talking to.
const SAME_PROCESS: Duration = Duration::from_secs(2);

impl Engine {
    /// A lifecycle event of a node that is waiting to be provisioned, startup or shutdown.
    pub fn node_event(&mut self, payload: &[u8], now: Now) {
        let event = match Event::parse(payload) {
            Ok(event) => event,
            Err(error) => {
                self.refuse("event", None, &format!("could not handle message: {error}"), now);
                return;
            }
        };
        if !identity::is_valid(&event.identity) {
            let shown: String = event.identity.chars().take(100).collect();
            let detail = format!("event of {shown:?}, which is not a valid identity");
            self.refuse("identity", Some(&shown), &detail, now);
            return;
        }
        match event.kind {
            Kind::Startup { .. } => self.seen(&event.identity, Source::Event, now),
            Kind::Shutdown => self.gone(&event.identity, now),
            _ => {}
        }
    }

    /// Registration data of a node that is waiting. Only its sender is taken from it.
    pub fn registration(&mut self, payload: &[u8], now: Now) {
        let name = match v1::decode_request(payload) {
            Ok(decoded) if decoded.request.envelope.agent == "registration" => decoded.request.envelope.sender_id,
            Ok(decoded) => {
                let agent = decoded.request.envelope.agent;
                let name = decoded.request.envelope.sender_id;
                let node = identity::is_valid(&name).then_some(&*name);
                self.refuse("registration", node, &format!("registration message for agent {agent:?}"), now);
                return;
            }
            Err(error) => {
                self.refuse("registration", None, &format!("registration message is unusable: {error}"), now);
                return;
            }
        };
        if identity::is_valid(&name) {
            self.seen(&name, Source::Registration, now);
        } else {
            let shown: String = name.chars().take(100).collect();
            let detail = format!("registration of {shown:?}, which is not a valid identity");
            self.refuse("identity", Some(&shown), &detail, now);
        }
    }

    /// The startup event of a fleet member.
    pub fn fleet_event(&mut self, payload: &[u8], now: Now) {
        let Ok(Event { kind: Kind::Startup { .. }, identity, .. }) = Event::parse(payload) else { return };
        if let Some(flow) = self.by_identity.get(identity.as_str()).copied() {
            self.drive(flow, Input::CameHome, now);
            self.start_waiting(now);
        } else {
            self.scheduler.came_home(&identity);
        }
        let took = self.homecoming.seen(&identity, now.mono);
        let millis = took.map(|took| u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
        self.books.history.happened(&identity, Happening::CameHome(millis), now.mono);
        if let Some(took) = took {
            self.metrics.verified.add();
            self.metrics.phase(Phase::Join, took);
            tracing::info!(
                "{identity} is a fleet member now, {:.1}s after its restart was ordered",
                took.as_secs_f64()
            );
        }
    }

    /// The broker says that a connection of the account where nodes wait has ended.
    pub fn connection_ended(&mut self, payload: &[u8], now: Now) {
        let Some(advisory) = Disconnect::parse(payload) else { return };
        // Of two connections of one name the broker ended the older one: the node is there.
        if advisory.reason == TAKEN_OVER {
            return;
        }
        if advisory.reason != CLIENT_CLOSED {
            // It did not leave by itself, so it comes back.
            self.discovery.look_out(now.mono);
        }
        let identity = &*advisory.client.name;
        self.books.history.happened(identity, Happening::Disconnected, now.mono);
        self.scheduler.disconnected(identity, now.mono);
        if let Some(flow) = self.by_identity.get(identity).copied() {
            self.drive(flow, Input::Disconnected, now);
        }
    }

    /// The broker says that nobody listens on the subject of a call.
    pub fn nobody_listens(&mut self, reply_subject: &str, now: Now) {
        if let Some((flow, call)) = self.inbox.unanswerable(reply_subject, now.mono) {
            self.send_failed(Some((flow, call)), SendFault::NobodyListens, now);
        }
    }

    pub(super) fn seen(&mut self, identity: &str, source: Source, now: Now) {
        self.books.history.sighted(identity, source, now.mono);
        if self.paused || self.draining {
            self.books.history.happened(identity, Happening::WhilePaused, now.mono);
            if let Some(more) = self.limiter.allow("paused", now.mono) {
                tracing::warn!("{identity} was seen while paused and is not queued ({more} more before it)");
            }
            return;
        }
        match self.scheduler.seen(identity, source, now.mono) {
            Admission::Added { evicted } => {
                match source {
                    Source::Event => self.metrics.event_discovered.add(),
                    Source::Discovery => self.metrics.discovered.add(),
                    Source::Registration => self.metrics.registration_discovered.add(),
                }
                tracing::debug!("{identity} is queued, seen by {source:?}");
                if let Some(evicted) = evicted {
                    self.forget(&evicted, now);
                }
                self.start_waiting(now);
            }
            Admission::Known if source == Source::Event => self.restarted(identity, now),
            Admission::Known => {}
            Admission::Resting { until } => {
                let rest = until.saturating_duration_since(now.mono).as_secs_f64();
                tracing::debug!("{identity} failed lately and is tried again in {rest:.1}s");
            }
            Admission::Returned { until } => {
                self.metrics.returned.add();
                self.books.history.happened(identity, Happening::Returned, now.mono);
                self.homecoming.forget(identity);
                let rest = until.saturating_duration_since(now.mono).as_secs_f64();
                tracing::warn!(
                    "{identity} is back in provisioning right after it was provisioned: its configuration does not work there; tried again in {rest:.0}s"
                );
            }
            Admission::Full => {
                let most = self.scheduler.limits().max_known;
                self.books.history.happened(identity, Happening::QueueFull, now.mono);
                let detail = format!("{identity} is not queued, {most} nodes are known already");
                self.refuse("queue_full", Some(identity), &detail, now);
            }
        }
    }

    /// A startup event of a node that is in the flow. The one that it began with may come a little later than the
    /// answers to discovery.
    fn restarted(&mut self, identity: &str, now: Now) {
        let Some(flow) = self.by_identity.get(identity).copied() else { return };
        let started = self.nodes.get(&flow).filter(|node| node.engaged).map(|node| node.started);
        if started.is_some_and(|started| now.mono.saturating_duration_since(started) >= SAME_PROCESS) {
            self.drive(flow, Input::NodeRestarted, now);
            self.start_waiting(now);
        }
    }

    fn gone(&mut self, identity: &str, now: Now) {
        self.books.history.happened(identity, Happening::ShutDown, now.mono);
        // A node that has answered is led on: with brokers that let nodes speak for others, an event proves nothing.
        if self.scheduler.gone(identity)
            && let Some(flow) = self.by_identity.get(identity).copied()
        {
            self.drive(flow, Input::Stop(Stop::NodeGone), now);
        }
        self.start_waiting(now);
    }

    /// Counts a refusal, remembers it and tells of it: in the log not more than once per second and kind.
    pub(super) fn refuse(&mut self, reason: &'static str, node: Option<&str>, detail: &str, now: Now) {
        if reason.starts_with("reply") {
            self.metrics.protocol_invalid.add();
        }
        self.note_refusal(reason, node, detail, now);
        if let Some(more) = self.limiter.allow(reason, now.mono) {
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            tracing::warn!(reason, "refused: {detail}{more}");
        }
    }

    /// The same without a line in the log.
    pub(super) fn note_refusal(&mut self, reason: &'static str, node: Option<&str>, detail: &str, now: Now) {
        self.metrics.refuse(reason);
        self.books.refused(reason, node, detail, now.mono);
        if let Some(event) = self.books.teller.refused(reason, node, detail, now) {
            self.effects.push(Effect::Tell(event));
        }
    }

    /// Notes an answer that is none; what becomes of the call is the flow's business.
    pub(super) fn reply_unreadable(&mut self, flow: u64, body: &Result<ReplyBody, String>, now: Now) {
        let Err(error) = body else { return };
        let node = self.nodes.get(&flow).map(|node| std::sync::Arc::clone(node.flow.identity()));
        let detail = format!("answer that cannot be read: {error}");
        self.note_refusal("reply_undecodable", node.as_deref(), &detail, now);
    }
}
