//! The heart of the provisioner: every node's flow, the queue, the open replies, discovery, and the rules
//! between them. No I/O: what happened comes in by method, what to do is taken out with
//! [`Engine::take_effects`], time is an argument. So it can be tested and simulated without a network.
//!
//! ```text
//! events, discovery, registration -> Scheduler -> Flow -> Effect::Send / Effect::Helper
//!                        replies -> Inbox -----> Flow ...
//! ```

mod discovery;
mod homecoming;
mod limiter;
mod nodes;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use choria_protocol::lifecycle::{Event, Kind};
use choria_protocol::{identity, v1};
use rand::RngCore;
use rustc_hash::FxHashMap;

use self::discovery::Discovery;
use self::homecoming::{Homecoming, Judgement};
use self::limiter::LogLimiter;
use self::nodes::Node;
use crate::config::{ProvisionerConfig, VerifyRestart};
use crate::flow::{Input, Now, Stop};
use crate::helper::Question;
use crate::inbox::{Inbox, Verdict};
use crate::metrics::{Metrics, Phase};
use crate::queue::{Admission, Limits, Scheduler, Source};
use crate::requests::{Caller, Document, Requests};
use crate::rules::Rules;

/// A startup event this soon after a node's first request is of the process that we are talking to.
const SAME_PROCESS: Duration = Duration::from_secs(2);

/// What the engine wants done.
#[derive(Debug)]
pub enum Effect {
    /// Encode and publish a request.
    Send {
        /// The flow and call it belongs to; absent for discovery. A failure is told with
        /// [`Engine::send_failed`].
        origin: Option<(u64, u64)>,
        /// Where to.
        subject: String,
        /// Reply subject for the transport header.
        reply_to: String,
        /// The request.
        document: Document,
    },
    /// Run the helper; its end is told with [`Engine::helper_done`].
    Helper {
        /// The flow.
        flow: u64,
        /// What is known about the node.
        question: Arc<Question>,
    },
    /// Publish a lifecycle event: what became of a node, or why it was refused. It is lost when there is no
    /// connection; the node's history keeps it.
    Tell(Event),
}

/// What the engine needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Helper calls at the same time.
    pub workers: usize,
    /// Discovery period.
    pub interval: Duration,
    /// Nodes in the flow at the same time.
    pub max_nodes: usize,
    /// Whether nodes are watched until they are fleet members.
    pub verify_restart: VerifyRestart,
    /// How long that may take.
    pub verify_timeout: Duration,
}

impl Settings {
    /// The engine's part of a configuration.
    pub fn of(config: &ProvisionerConfig) -> Self {
        Self {
            workers: config.helper_calls(),
            interval: config.interval,
            max_nodes: config.max_nodes,
            verify_restart: config.verify_restart,
            verify_timeout: config.verify_timeout,
        }
    }
}

/// The engine.
pub struct Engine {
    settings: Settings,
    rules: Arc<Rules>,
    metrics: Arc<Metrics>,
    requests: Requests,
    inbox: Inbox,
    scheduler: Scheduler,
    nodes: FxHashMap<u64, Node>,
    by_identity: FxHashMap<Arc<str>, u64>,
    next_flow: u64,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    helper_queue: VecDeque<u64>,
    helpers_running: usize,
    discovery: Discovery,
    homecoming: Homecoming,
    limiter: LogLimiter,
    random: Box<dyn RngCore + Send>,
    connected: bool,
    paused: bool,
    draining: bool,
    effects: Vec<Effect>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("nodes", &self.nodes.len())
            .field("queued", &self.scheduler.queued())
            .field("paused", &self.paused)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that is not connected yet. `random` must be unpredictable: reply subjects are drawn from it.
    pub fn new(
        settings: Settings,
        rules: Arc<Rules>,
        caller: Arc<Caller>,
        metrics: Arc<Metrics>,
        random: Box<dyn RngCore + Send>,
        now: Now,
    ) -> Self {
        Self {
            inbox: Inbox::new(&caller.caller_id),
            requests: Requests::new(caller),
            scheduler: Scheduler::new(Limits::for_interval(settings.interval, settings.max_nodes)),
            discovery: Discovery::new(settings.interval, now.mono),
            homecoming: Homecoming::new(settings.verify_restart, settings.verify_timeout),
            limiter: LogLimiter::default(),
            nodes: FxHashMap::default(),
            by_identity: FxHashMap::default(),
            next_flow: 0,
            timers: BinaryHeap::new(),
            helper_queue: VecDeque::new(),
            helpers_running: 0,
            connected: false,
            paused: false,
            draining: false,
            effects: Vec::new(),
            settings,
            rules,
            metrics,
            random,
        }
    }

    /// The subscription on which [`Self::reply`] expects its messages.
    pub fn reply_subscription(&self) -> String {
        self.inbox.subscription()
    }

    /// What to do now; call it after every other method.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        self.metrics.busy_workers.set(self.helpers_running);
        self.metrics.nodes_in_flight.set(self.nodes.len());
        self.metrics.work_queue_entries.set(self.scheduler.queued());
        self.metrics.waiting_nodes.set(self.scheduler.waiting());
        self.metrics.paused.set(usize::from(self.paused));
        std::mem::take(&mut self.effects)
    }

    /// When [`Self::advance`] has something to do next.
    pub fn next_timer(&self) -> Option<Instant> {
        let flow = self.timers.peek().map(|Reverse((due, _))| *due);
        let discovery = self.connected.then(|| self.discovery.next_timer()).flatten();
        [flow, discovery, self.scheduler.next_timer(), self.inbox.next_timer(), self.homecoming.next_timer()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Now) {
        self.inbox.advance(now.mono);
        self.scheduler.advance(now.mono);
        for judgement in self.homecoming.advance(now.mono) {
            self.judge_homecoming(&judgement);
        }
        while let Some(Reverse((due, flow))) = self.timers.peek().copied() {
            if due > now.mono {
                break;
            }
            self.timers.pop();
            // A flow has one timer; older entries of it are left in the heap and skipped here.
            if self.nodes.get(&flow).is_some_and(|node| node.wake == due) {
                self.drive(flow, Input::Timer, now);
            }
        }
        self.discover(now);
        self.start_waiting(now);
    }

    /// The connection came up or went down.
    pub fn set_connected(&mut self, connected: bool, now: Now) {
        if connected && !self.connected {
            // Whoever started meanwhile was not heard.
            self.discovery.hurry(now.mono);
        }
        self.connected = connected;
        if connected {
            self.discover(now);
            self.start_waiting(now);
        }
    }

    /// Asks who waits now instead of at the next interval.
    pub fn look_again(&mut self, now: Now) {
        self.discovery.hurry(now.mono);
        self.discover(now);
    }

    /// Stops starting nodes and breaks off those that can be.
    pub fn pause(&mut self, now: Now) {
        if !self.paused {
            tracing::warn!("provisioning is paused");
            self.paused = true;
            self.stop_all(Stop::Paused, now);
        }
    }

    /// Goes on after [`Self::pause`].
    pub fn resume(&mut self, now: Now) {
        if self.paused {
            tracing::warn!("provisioning resumes");
            self.paused = false;
            self.discovery.hurry(now.mono);
            self.discover(now);
            self.start_waiting(now);
        }
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Starts no more nodes; those that have answered are led to their end, the others are let go.
    pub fn drain(&mut self, now: Now) {
        self.draining = true;
        let silent: Vec<u64> = self.nodes.iter().filter(|(_, node)| !node.engaged).map(|(id, _)| *id).collect();
        for flow in silent {
            self.drive(flow, Input::Stop(Stop::Draining), now);
        }
    }

    /// Whether no node is in the flow.
    pub fn is_idle(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The time to drain is over: breaks off what can be and names the rest.
    pub fn abandon(&mut self, now: Now) {
        self.stop_all(Stop::Draining, now);
        for node in self.nodes.values().filter(|node| !node.flow.may_be_broken_off()) {
            tracing::error!(
                "{} was being configured when the provisioner stopped; it will be found again if it does not restart",
                node.flow.identity()
            );
        }
    }

    /// New rules and settings; flows that are under way keep the old rules.
    pub fn reload(&mut self, rules: Arc<Rules>, settings: Settings, now: Now) {
        self.scheduler.set_limits(Limits::for_interval(settings.interval, settings.max_nodes));
        self.discovery.set_interval(settings.interval, now.mono);
        self.homecoming.configure(settings.verify_restart, settings.verify_timeout);
        self.rules = rules;
        self.settings = settings;
        self.start_helpers(now);
        self.start_waiting(now);
    }

    /// A message on [`Self::reply_subscription`].
    pub fn reply(&mut self, subject: &str, payload: &[u8], now: Now) {
        match self.inbox.accept(subject, payload, now.mono) {
            Verdict::Reply { flow, call, body } => {
                match body {
                    Ok(_) => self.metrics.protocol_valid.add(),
                    Err(_) => self.metrics.protocol_invalid.add(),
                }
                if body.is_err() {
                    self.metrics.refuse("reply_undecodable");
                }
                self.drive(flow, Input::Reply { call, reply: body }, now);
                self.start_waiting(now);
            }
            Verdict::Discovered { identity } => {
                self.metrics.protocol_valid.add();
                self.seen(&identity, Source::Discovery, now);
            }
            Verdict::Refused { reason, detail } => self.refuse(reason, &detail, now),
        }
    }

    /// A lifecycle event of a node that is waiting to be provisioned, startup or shutdown.
    pub fn node_event(&mut self, payload: &[u8], now: Now) {
        let event = match Event::parse(payload) {
            Ok(event) => event,
            Err(error) => {
                self.refuse("event", &format!("could not handle message: {error}"), now);
                return;
            }
        };
        if !identity::is_valid(&event.identity) {
            let shown: String = event.identity.chars().take(100).collect();
            self.refuse("identity", &format!("event of {shown:?}, which is not a valid identity"), now);
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
                self.refuse("registration", &format!("registration message for agent {agent:?}"), now);
                return;
            }
            Err(error) => {
                self.refuse("registration", &format!("registration message is unusable: {error}"), now);
                return;
            }
        };
        if identity::is_valid(&name) {
            self.seen(&name, Source::Registration, now);
        } else {
            self.refuse("identity", &format!("registration of {name:?}, which is not a valid identity"), now);
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
        if let Some(took) = self.homecoming.seen(&identity, now.mono) {
            self.metrics.verified.add();
            self.metrics.phase(Phase::Join, took);
            tracing::info!(
                "{identity} is a fleet member now, {:.1}s after its restart was ordered",
                took.as_secs_f64()
            );
        }
    }

    fn seen(&mut self, identity: &str, source: Source, now: Now) {
        if self.paused || self.draining {
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
                self.homecoming.forget(identity);
                let rest = until.saturating_duration_since(now.mono).as_secs_f64();
                tracing::warn!(
                    "{identity} is back in provisioning right after it was provisioned: its configuration does not work there; tried again in {rest:.0}s"
                );
            }
            Admission::Full => {
                self.refuse("queue_full", &format!("{identity} is not queued, too many nodes wait"), now)
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
        // A node that has answered is led on: with brokers that let nodes speak for others, an event proves nothing.
        if self.scheduler.gone(identity)
            && let Some(flow) = self.by_identity.get(identity).copied()
        {
            self.drive(flow, Input::Stop(Stop::NodeGone), now);
        }
        self.start_waiting(now);
    }

    fn judge_homecoming(&self, judgement: &Judgement) {
        match judgement {
            Judgement::Missing(home) => {
                self.metrics.verify_missing.add();
                let seconds = self.settings.verify_timeout.as_secs();
                tracing::warn!(
                    "{home} was provisioned and told to restart but was not seen as a fleet member within {seconds}s"
                );
            }
            Judgement::CannotTell => tracing::warn!(
                "no startup event of any fleet member was ever seen: either this broker does not show them to the provisioner or no node comes home; nodes are not verified after their restart (verify_restart)"
            ),
        }
    }

    fn stop_all(&mut self, stop: Stop, now: Now) {
        let flows: Vec<u64> = self.nodes.keys().copied().collect();
        for flow in flows {
            self.drive(flow, Input::Stop(stop), now);
        }
    }

    /// Counts a refusal and tells of it, but not more than once per second and kind.
    fn refuse(&mut self, reason: &'static str, detail: &str, now: Now) {
        self.metrics.refuse(reason);
        if reason == "reply_undecodable" || reason.starts_with("reply") {
            self.metrics.protocol_invalid.add();
        }
        if let Some(more) = self.limiter.allow(reason, now.mono) {
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            tracing::warn!(reason, "refused: {detail}{more}");
        }
    }
}

#[cfg(test)]
mod tests;
