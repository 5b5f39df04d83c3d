//! The heart of the provisioner: every node's flow, the queue, the open replies, discovery, and the rules
//! between them. No I/O: what happened comes in by method, what to do is taken out with
//! [`Engine::take_effects`], time is an argument. So it can be tested and simulated without a network.
//!
//! ```text
//! events, discovery, registration -> Scheduler -> Flow -> Effect::Send / Effect::Helper
//!                        replies -> Inbox -----> Flow ...
//! ```

mod books;
mod discovery;
mod history;
mod homecoming;
mod limiter;
mod nodes;
mod pace;
mod rates;
mod report;
mod sightings;
mod tell;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use choria_protocol::lifecycle::Event;
use rand::RngCore;
use rustc_hash::FxHashMap;

use self::books::Books;
use self::discovery::Discovery;
use self::history::Happening;
use self::homecoming::{Homecoming, Judgement};
use self::limiter::LogLimiter;
use self::nodes::Node;
use self::rates::Rates;
pub use self::report::{Calendar, Explained};
use crate::config::{ProvisionerConfig, VerifyRestart};
use crate::flow::{Input, Now, Stop};
use crate::helper::Question;
use crate::inbox::{Inbox, Verdict};
use crate::metrics::Metrics;
use crate::queue::{Limits, Scheduler, Source};
use crate::requests::{Caller, Document, Requests};
use crate::rules::Rules;

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
    /// Helper calls per second; `None` = no limit.
    pub helper_rate: Option<f64>,
    /// Nodes with a certificate request that are handed to the helper per second; `None` = no limit.
    pub ca_rate: Option<f64>,
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
            helper_rate: config.helper_rate,
            ca_rate: config.ca_rate,
            verify_restart: config.verify_restart,
            verify_timeout: config.verify_timeout,
        }
    }
}

/// With a limit on what reaches the helper: in flight are as many nodes as it lets through in so many seconds. Others wait in
/// the queue, where nothing that was learnt about them grows old.
const SECONDS_IN_FLIGHT: f64 = 10.0;

impl Settings {
    /// The queue's bounds.
    fn limits(&self) -> Limits {
        let rate = [self.helper_rate, self.ca_rate].into_iter().flatten().reduce(f64::min);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number, cut to a million"
        )]
        let useful = rate.map_or(usize::MAX, |rate| (rate * SECONDS_IN_FLIGHT).ceil().min(1e6) as usize);
        Limits::for_interval(self.interval, self.max_nodes.min(useful.saturating_add(self.workers)))
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
    rates: Rates,
    discovery: Discovery,
    homecoming: Homecoming,
    limiter: LogLimiter,
    books: Books,
    random: Box<dyn RngCore + Send>,
    connected: bool,
    was_connected: bool,
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
            books: Books::new(&caller.identity, now.mono),
            rates: Rates::new(settings.helper_rate, settings.ca_rate, now.mono),
            requests: Requests::new(caller),
            scheduler: Scheduler::new(settings.limits()),
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
            was_connected: false,
            paused: false,
            draining: false,
            effects: Vec::new(),
            settings,
            rules,
            metrics,
            random,
        }
    }

    /// Takes a guard away.
    #[cfg(feature = "planted-bug")]
    pub fn plant_bug(&mut self, bug: crate::PlantedBug) {
        self.inbox.plant_bug(bug);
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
        self.metrics.helper_waiting.set(self.helper_queue.len());
        self.metrics.nodes.set(&self.scheduler.counts());
        self.metrics.oldest_waiting.set(self.scheduler.next_waiting().map(|(_, since)| since));
        self.metrics.connected.set(usize::from(self.connected));
        self.metrics.paused.set(usize::from(self.paused));
        std::mem::take(&mut self.effects)
    }

    /// When [`Self::advance`] has something to do next.
    pub fn next_timer(&self) -> Option<Instant> {
        let flow = self.timers.peek().map(|Reverse((due, _))| *due);
        let discovery = self.connected.then(|| self.discovery.next_timer()).flatten();
        let (queue, inbox, home) = (self.scheduler.next_timer(), self.inbox.next_timer(), self.homecoming.next_timer());
        let (rates, events) = (self.rates.held().map(|(_, at)| at), self.books.teller.next_timer());
        [flow, discovery, queue, inbox, home, rates, events].into_iter().flatten().min()
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Now) {
        self.inbox.advance(now.mono);
        for left in self.scheduler.advance(now.mono) {
            tracing::debug!("{left} is not connected any more and leaves the queue");
        }
        for judgement in self.homecoming.advance(now.mono) {
            self.judge_homecoming(&judgement, now);
        }
        for summary in self.books.teller.summaries(now) {
            self.effects.push(Effect::Tell(summary));
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
        if self.rates.held().is_some_and(|(_, at)| at <= now.mono) {
            self.start_helpers(now);
        }
        self.discover(now);
        self.start_waiting(now);
    }

    /// The connection came up or went down.
    pub fn set_connected(&mut self, connected: bool, now: Now) {
        if connected != self.connected {
            self.books.connection_since = now.mono;
        }
        let anew = connected && !self.connected;
        self.connected = connected;
        if anew {
            // Whoever started meanwhile was not heard.
            self.discovery.hurry(now.mono);
        }
        if anew && self.was_connected {
            self.discovery.look_out(now.mono);
            // What was asked is lost, or its answer: a broker that is killed takes both along.
            let flows: Vec<u64> = self.nodes.keys().copied().collect();
            for flow in flows {
                self.drive(flow, Input::ConnectedAnew, now);
            }
        }
        if connected {
            self.was_connected = true;
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
            self.start_helpers(now);
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
        self.scheduler.set_limits(settings.limits());
        self.discovery.set_interval(settings.interval, now.mono);
        self.homecoming.configure(settings.verify_restart, settings.verify_timeout);
        self.rules = rules;
        self.rates.set(settings.helper_rate, settings.ca_rate, now.mono);
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
                self.reply_unreadable(flow, &body, now);
                self.drive(flow, Input::Reply { call, reply: body }, now);
                self.start_waiting(now);
            }
            Verdict::Discovered { identity } => {
                self.metrics.protocol_valid.add();
                self.seen(&identity, Source::Discovery, now);
            }
            Verdict::Refused { reason, node, detail } => self.refuse(reason, node.as_deref(), &detail, now),
        }
    }

    fn judge_homecoming(&mut self, judgement: &Judgement, now: Now) {
        match judgement {
            Judgement::Missing(home) => {
                self.metrics.verify_missing.add();
                let seconds = self.settings.verify_timeout.as_secs();
                let waited = Happening::NotHome(u32::try_from(seconds).unwrap_or(u32::MAX));
                self.books.history.happened(home, waited, now.mono);
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
            self.stop(flow, stop, now);
        }
    }
}

#[cfg(test)]
mod tests;
