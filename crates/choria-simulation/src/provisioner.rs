//! Provisioners: the real engine in a shell that dies between two effects, stands still, is paused and drained.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use choria_protocol::lifecycle::{self, Event as LifecycleEvent, Kind};
use choria_protocol::{ids, subjects, v1};
use choria_provisioner::engine::{Effect, Engine};
use choria_provisioner::flow::{Now, SendFault};
use choria_provisioner::helper::{HelperAnswer, HelperError, RunNotes};
use choria_provisioner::metrics::Metrics;
use choria_provisioner::requests::Caller;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::broker::{ConnectionId, DISCONNECTS, NotTaken, Party, Proof};
use crate::check;
use crate::machine::Books;
use crate::material::{BEGINNING, Material};
use crate::scenario::Script;
use crate::trace::Time;
use crate::world::{Event, Message, World, note};

/// How long a stop waits for nodes in the flow.
const DRAIN: Duration = Duration::from_secs(30);
/// Steps of an engine at one moment beyond which it is said to spin.
const SPINS: u32 = 500;

/// One provisioner, running or not.
pub(crate) struct Provisioner {
    caller: Arc<Caller>,
    /// Counts its processes: what was planned for an earlier one is void.
    life: u64,
    running: Option<Running>,
    /// How far its wall clock is off, in seconds.
    pub(crate) clock: i64,
}

/// A process of it.
struct Running {
    engine: Engine,
    metrics: Arc<Metrics>,
    connection: Option<ConnectionId>,
    /// When the engine will be called, and the number of that appointment.
    armed: Option<(Time, u64)>,
    appointments: u64,
    /// Reply subjects that it gave away.
    given: BTreeMap<String, Given>,
    /// Flows of which a request was sent.
    flows: BTreeMap<u64, String>,
    /// The last attempt of the helper for each node.
    attempts: BTreeMap<String, usize>,
    stalled_until: Time,
    draining: bool,
    steps: (Time, u32),
}

/// A reply subject, and who may answer there.
pub(crate) struct Given {
    /// The node; nobody in particular for discovery.
    pub(crate) identity: Option<String>,
    pub(crate) request_id: String,
    pub(crate) answered: bool,
}

/// What happens to a provisioner.
pub(crate) enum ProvisionerEvent {
    /// The process starts, or tries to connect again.
    Connect,
    /// The engine's timer.
    Tick(u64),
    HelperDone {
        flow: u64,
        result: Box<Result<HelperAnswer, HelperError>>,
        takes: Time,
    },
    SendFailed {
        origin: Option<(u64, u64)>,
        fault: SendFault,
    },
    /// The broker says that nobody heard the request with this reply subject.
    NobodyListens(String),
    Resume,
    DrainOver,
}

impl Provisioner {
    pub(crate) fn new(index: usize) -> Self {
        let identity = format!("p{index}.choria");
        let caller = Caller { caller_id: format!("choria={identity}"), identity, signer: None };
        Self { caller: Arc::new(caller), life: 0, running: None, clock: 0 }
    }

    /// Whether a message reaches it over this connection.
    fn hears(&self, connection: ConnectionId) -> bool {
        self.running.as_ref().is_some_and(|running| running.connection == Some(connection))
    }

    /// Whether it is working on nobody and waits for nobody.
    pub(crate) fn is_idle(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.engine.is_idle() && running.metrics.waiting_nodes.get() == 0)
    }

    /// Successes of the running process.
    pub(crate) fn provisioned(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.metrics.provisioned.get())
    }

    /// Attempts of the running process that failed.
    pub(crate) fn errors(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.metrics.provision_errors.get())
    }
}

impl World {
    pub(crate) fn provisioner_event(&mut self, index: usize, life: u64, what: ProvisionerEvent) {
        if self.provisioners[index].life != life {
            return;
        }
        let now = self.now;
        if let Some(until) = self.provisioners[index].running.as_ref().map(|r| r.stalled_until).filter(|u| *u > now) {
            self.agenda.plan(until, Event::Provisioner { index, life, what });
            return;
        }
        match what {
            ProvisionerEvent::Connect => self.connect_provisioner(index),
            ProvisionerEvent::Tick(number) => {
                let due = |running: &Running| running.armed.is_some_and(|(_, armed)| armed == number);
                if self.provisioners[index].running.as_ref().is_some_and(due) {
                    if let Some(running) = &mut self.provisioners[index].running {
                        running.armed = None;
                    }
                    self.engine(index, Engine::advance);
                }
            }
            ProvisionerEvent::HelperDone { flow, result, takes } => {
                self.engine(index, |engine, now| engine.helper_done(flow, *result, &RunNotes::default(), takes, now));
            }
            ProvisionerEvent::SendFailed { origin, fault } => {
                self.engine(index, |engine, now| engine.send_failed(origin, fault, now));
            }
            ProvisionerEvent::NobodyListens(reply_to) => {
                self.engine(index, |engine, now| engine.nobody_listens(&reply_to, now));
            }
            ProvisionerEvent::Resume => self.engine(index, Engine::resume),
            ProvisionerEvent::DrainOver => {
                self.engine(index, Engine::abandon);
                self.end_provisioner(index, "stopped");
            }
        }
    }

    pub(crate) fn plan_provisioner(&mut self, index: usize, after: Time, what: ProvisionerEvent) {
        let life = self.provisioners[index].life;
        self.agenda.plan(self.now + after, Event::Provisioner { index, life, what });
    }

    fn provisioner_now(&self, index: usize) -> Now {
        let seconds = i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX);
        Now { mono: self.base + self.now, unix: BEGINNING + seconds + self.provisioners[index].clock }
    }

    /// Calls the engine and carries out what it wants.
    fn engine(&mut self, index: usize, call: impl FnOnce(&mut Engine, Now)) {
        let now = self.provisioner_now(index);
        if let Some(running) = &mut self.provisioners[index].running {
            call(&mut running.engine, now);
            self.settle(index);
        }
    }

    fn settle(&mut self, index: usize) {
        while let Some(running) = &mut self.provisioners[index].running {
            let effects = running.engine.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                if self.provisioner_dies_here() {
                    self.stats.provisioner_kills_between_effects += 1;
                    self.end_provisioner(index, "is killed between two effects");
                    return;
                }
                self.carry_out(index, effect);
                if self.provisioners[index].running.is_none() {
                    return;
                }
            }
        }
        self.look_at_engine(index);
        self.arm(index);
    }

    fn provisioner_dies_here(&mut self) -> bool {
        let effect = self.effects;
        self.effects += 1;
        if self.scenario.script == Some(Script::ProvisionerAtEffect(effect)) {
            return true;
        }
        let rate = self.scenario.rates.provisioner_between_effects;
        self.chance(rate)
    }

    fn carry_out(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Send { origin, subject, reply_to, document } => {
                let caller = Arc::clone(&self.provisioners[index].caller);
                let wire = match document.encode(&caller, &reply_to, "nats://broker.lab.test:4222") {
                    Ok(wire) => wire,
                    Err(reason) => return self.violate(format!("a request could not be encoded: {reason}")),
                };
                self.send_request(index, origin, &subject, reply_to, wire);
            }
            Effect::Helper { flow, question } => {
                let identity = &question.identity;
                let (now, rate) = (self.now, self.scenario.rates.helper * f64::from(u8::from(!self.healthy)));
                let run = self.helper.ask(&question.to_text(), now, rate, &mut self.random, &mut self.stats);
                let made = run.attempt.map_or_else(String::new, |attempt| format!(", attempt {attempt}"));
                note!(self, "p{index} asks the helper about {identity}, which {}{made}", run.what);
                if let Some(running) = &mut self.provisioners[index].running
                    && let Some(attempt) = run.attempt
                {
                    running.attempts.insert(identity.to_string(), attempt);
                }
                let done = ProvisionerEvent::HelperDone { flow, result: Box::new(run.result), takes: run.takes };
                self.plan_provisioner(index, run.takes, done);
            }
            Effect::Tell(event) => self.tell(index, &event),
        }
    }

    fn tell(&mut self, index: usize, event: &LifecycleEvent) {
        let text = event.to_cloud_event();
        if let Some(fault) = check::leaks(&text) {
            self.violate(format!("p{index} told the network a secret: {fault}"));
        }
        match &event.kind {
            Kind::Provisioned => {
                note!(self, "p{index} says that {} is provisioned", event.identity);
                self.stats.provisioned += 1;
                self.check_claim(index, &event.identity);
            }
            Kind::Refused { reason, .. } => note!(self, "p{index} refuses {}: {reason}", event.identity),
            other => note!(self, "p{index} tells {} of {}", other.name(), event.identity),
        }
        let connection = self.provisioners[index].running.as_ref().and_then(|running| running.connection);
        // Lost without a connection, as promised.
        let _ = self.publish(Party::Provisioner(index), connection, &event.subject(), text.into_bytes());
    }

    /// Whoever is called provisioned has that provisioner's last configuration, or told it that it has another one already.
    fn check_claim(&mut self, index: usize, identity: &str) {
        let Some(running) = &self.provisioners[index].running else { return };
        let attempt = running.attempts.get(identity).copied();
        let mut of_that_name = self.machines.iter().filter(|machine| machine.identity == identity).peekable();
        if of_that_name.peek().is_none() {
            // A hostile node with a name of its own.
            return;
        }
        let took = |books: &Books| attempt.is_some_and(|attempt| books.has_taken(attempt)) || books.is_configured();
        if !of_that_name.any(|machine| took(&machine.books)) {
            self.violate(format!(
                "p{index} calls {identity} provisioned, but nobody of that name took attempt {attempt:?}"
            ));
        }
    }

    fn send_request(
        &mut self,
        index: usize,
        origin: Option<(u64, u64)>,
        subject: &str,
        reply_to: String,
        wire: Vec<u8>,
    ) {
        let decoded = match v1::decode_request(&wire) {
            Ok(decoded) => decoded,
            Err(error) => return self.violate(format!("p{index} sends what nobody can decode: {error}")),
        };
        let identity = subject.strip_prefix("provisioning.node.").map(str::to_owned);
        let action = check::action_of(&decoded.request.message);
        note!(self, "p{index} asks {} for {action}", identity.as_deref().unwrap_or("everybody"));
        if let Some(identity) = &identity
            && let Err(fault) = check::request_is_for(identity, &decoded.request.message, &self.helper.attempts)
        {
            self.violate(format!("p{index} sends {identity} what is not its own: {fault}"));
        }
        let Some(running) = &mut self.provisioners[index].running else { return };
        if let (Some((flow, _)), Some(identity)) = (origin, &identity) {
            running.flows.insert(flow, identity.clone());
        }
        let given = Given { identity, request_id: decoded.request.envelope.request_id, answered: false };
        if running.given.insert(reply_to.clone(), given).is_some() {
            self.violate(format!("p{index} gave one reply subject to two requests"));
        }
        let connection = self.provisioners[index].running.as_ref().and_then(|running| running.connection);
        let fault = match self.publish(Party::Provisioner(index), connection, subject, wire) {
            Ok(0) if self.scenario.informs => {
                let delay = self.between(Duration::from_micros(100), Duration::from_millis(2));
                return self.plan_provisioner(index, delay, ProvisionerEvent::NobodyListens(reply_to));
            }
            Ok(_) => return,
            Err(NotTaken::NotConnected) => SendFault::NotConnected("not connected".to_owned()),
            Err(other) => SendFault::Impossible(format!("{other:?}")),
        };
        let delay = self.between(Duration::from_micros(10), Duration::from_millis(1));
        self.plan_provisioner(index, delay, ProvisionerEvent::SendFailed { origin, fault });
    }

    /// Makes the next appointment with the engine.
    fn arm(&mut self, index: usize) {
        let (base, now) = (self.base, self.now);
        let Some(running) = &mut self.provisioners[index].running else { return };
        let due = running.engine.next_timer().map(|at| at.saturating_duration_since(base).max(now));
        match (due, running.armed) {
            (None, _) => running.armed = None,
            (Some(due), Some((at, _))) if at <= due => {}
            (Some(due), _) => {
                running.appointments += 1;
                let number = running.appointments;
                running.armed = Some((due, number));
                self.plan_provisioner(index, due.saturating_sub(now), ProvisionerEvent::Tick(number));
            }
        }
    }

    /// The bounds that hold at any moment.
    fn look_at_engine(&mut self, index: usize) {
        let now = self.now;
        let Some(running) = &mut self.provisioners[index].running else { return };
        running.steps = if running.steps.0 == now { (now, running.steps.1 + 1) } else { (now, 0) };
        if running.steps.1 > SPINS {
            self.violate(format!("the engine of p{index} spins: {SPINS} steps at one moment"));
            return;
        }
        let (flights, waiting) = (running.metrics.nodes_in_flight.get(), running.metrics.waiting_nodes.get());
        if let Some(fault) = check::bounds(flights, waiting, running.metrics.busy_workers.get()) {
            self.violate(format!("p{index}: {fault}"));
        }
    }

    fn connect_provisioner(&mut self, index: usize) {
        if self.provisioners[index].running.as_ref().is_some_and(|running| running.connection.is_some()) {
            return;
        }
        let party = Party::Provisioner(index);
        let name = self.provisioners[index].caller.identity.clone();
        let connected = if self.is_cut_off(party) { None } else { self.connect(party, &name, &Proof::Password).ok() };
        let Some(connection) = connected else {
            let again = self.between(Duration::from_millis(200), Duration::from_secs(3));
            return self.plan_provisioner(index, again, ProvisionerEvent::Connect);
        };
        let now = self.provisioner_now(index);
        let fresh = self.provisioners[index].running.is_none();
        if fresh {
            let seed = self.random.random();
            let running = Running::start(&self.provisioners[index].caller, self.scenario.flow, seed, now);
            #[cfg(feature = "planted-bug")]
            let running = running.with(self.planted);
            self.provisioners[index].running = Some(running);
        }
        note!(self, "p{index} is connected");
        let Some(running) = &mut self.provisioners[index].running else { return };
        running.connection = Some(connection);
        let filters = [
            running.engine.reply_subscription(),
            subjects::lifecycle("startup", lifecycle::PROVISION_MODE_SERVER),
            subjects::lifecycle("shutdown", lifecycle::PROVISION_MODE_SERVER),
            "provisioning.registration.>".to_owned(),
            subjects::lifecycle("startup", lifecycle::SERVER),
            DISCONNECTS.to_owned(),
        ];
        for filter in filters {
            if let Err(fault) = self.broker.subscribe(connection, &filter) {
                self.violate(format!("p{index} may not subscribe {filter}: {fault:?}"));
            }
        }
        if fresh {
            let event = LifecycleEvent {
                kind: Kind::Startup { version: "1".to_owned() },
                id: ids::event_id(),
                identity: name,
                component: lifecycle::PROVISIONER.to_owned(),
                timestamp: now.unix,
            };
            let _ = self.publish(party, Some(connection), &event.subject(), event.to_plain().into_bytes());
        }
        self.engine(index, |engine, now| engine.set_connected(true, now));
    }

    /// The provisioner learns that its connection is gone.
    pub(crate) fn provisioner_lost(&mut self, index: usize, connection: ConnectionId) {
        if !self.provisioners[index].hears(connection) {
            return;
        }
        if let Some(running) = &mut self.provisioners[index].running {
            running.connection = None;
        }
        note!(self, "p{index} has lost its connection");
        self.engine(index, |engine, now| engine.set_connected(false, now));
        let again = self.between(Duration::from_millis(100), Duration::from_secs(2));
        self.plan_provisioner(index, again, ProvisionerEvent::Connect);
    }

    /// The process ends, whatever it was doing, and another one starts later.
    pub(crate) fn end_provisioner(&mut self, index: usize, how: &str) {
        let provisioner = &mut self.provisioners[index];
        provisioner.life += 1;
        let Some(running) = provisioner.running.take() else {
            // It was about to start.
            return self.plan_provisioner(index, Duration::from_secs(1), ProvisionerEvent::Connect);
        };
        note!(self, "p{index} {how}");
        if let Some(connection) = running.connection {
            self.broker.close(connection);
        }
        let longest = if self.healthy { 2 } else { 40 };
        let after = self.between(Duration::from_millis(500), Duration::from_secs(longest));
        self.plan_provisioner(index, after, ProvisionerEvent::Connect);
    }

    /// One of the ways in which a provisioner stops working for a while.
    pub(crate) fn trouble_provisioner(&mut self, index: usize) {
        let now = self.now;
        let Some(running) = &mut self.provisioners[index].running else { return };
        if running.draining {
            return;
        }
        match self.random.random_range(0..4) {
            0 => {
                self.stats.provisioner_pauses += 1;
                note!(self, "p{index} is paused");
                self.engine(index, Engine::pause);
                let pause = self.between(Duration::from_secs(1), Duration::from_secs(40));
                self.plan_provisioner(index, pause, ProvisionerEvent::Resume);
            }
            1 => {
                running.draining = true;
                self.stats.provisioner_drains += 1;
                note!(self, "p{index} is told to stop");
                self.engine(index, Engine::drain);
                let idle = self.provisioners[index].running.as_ref().is_some_and(|running| running.engine.is_idle());
                let wait = if idle { Duration::ZERO } else { DRAIN };
                self.plan_provisioner(index, wait, ProvisionerEvent::DrainOver);
            }
            2 => {
                self.stats.provisioner_reloads += 1;
                note!(self, "p{index} reads its configuration again");
                let (rules, settings) = Material::get().provisioner(self.scenario.flow);
                self.engine(index, |engine, now| engine.reload(rules, settings, now));
            }
            _ => {
                self.stats.provisioner_stalls += 1;
                let until = now + self.between(Duration::from_millis(200), Duration::from_secs(30));
                note!(self, "p{index} stands still until {:.3}", until.as_secs_f64());
                if let Some(running) = &mut self.provisioners[index].running {
                    running.stalled_until = until;
                }
            }
        }
    }

    /// A message for a provisioner.
    pub(crate) fn deliver_to_provisioner(&mut self, index: usize, connection: ConnectionId, message: &Rc<Message>) {
        if !self.provisioners[index].hears(connection) {
            self.stats.lost_with_connection += 1;
            return;
        }
        let now = self.now;
        let Some(running) = &self.provisioners[index].running else { return };
        if running.stalled_until > now {
            // It lies in the socket.
            let again = Event::Deliver { connection, message: Rc::clone(message) };
            self.agenda.plan(running.stalled_until, again);
            return;
        }
        self.stats.delivered += 1;
        let hostile = matches!(message.from, Party::Hostile(_));
        let payload = &message.payload;
        match message.subject.as_str() {
            subject if subject.starts_with("provisioning.reply.") => self.take_reply(index, message),
            subject if subject.starts_with("provisioning.registration.") => {
                self.stats.forged_events += u64::from(hostile);
                self.engine(index, |engine, now| engine.registration(payload, now));
            }
            DISCONNECTS => self.engine(index, |engine, now| engine.connection_ended(payload, now)),
            subject if subject.ends_with(".server") => {
                self.engine(index, |engine, now| engine.fleet_event(payload, now));
            }
            _ => {
                self.stats.forged_events += u64::from(hostile);
                self.engine(index, |engine, now| engine.node_event(payload, now));
            }
        }
    }

    /// A reply: only the node that was given the subject may change anything by it, and only once.
    fn take_reply(&mut self, index: usize, message: &Rc<Message>) {
        let now = self.provisioner_now(index);
        let sender = self.name_of(message.from);
        let Some(running) = &mut self.provisioners[index].running else { return };
        let taken = |metrics: &Metrics| metrics.protocol_valid.get() + metrics.refused("reply_undecodable");
        let before = taken(&running.metrics);
        running.engine.reply(&message.subject, &message.payload, now);
        let accepted = taken(&running.metrics) != before;
        let given = running.given.get_mut(&message.subject);
        let fault = check::reply(accepted, given, &sender, &message.payload);
        let effects = if accepted { None } else { Some(running.engine.take_effects()) };
        if let Some(fault) = fault {
            self.violate(format!("p{index} took a reply of {sender} that it must not take: {fault}"));
        }
        self.stats.late_or_second_replies += u64::from(!accepted && matches!(message.from, Party::Machine(_)));
        // What was refused moves nobody.
        for effect in effects.into_iter().flatten() {
            let Some(running) = &self.provisioners[index].running else { return };
            let moved = match &effect {
                Effect::Send { origin: Some((flow, _)), .. } => running.flows.get(flow).cloned(),
                Effect::Helper { question, .. } => Some(question.identity.to_string()),
                Effect::Send { origin: None, .. } | Effect::Tell(_) => None,
            };
            if let Some(moved) = moved {
                self.violate(format!("a refused message of {sender} made p{index} go on with {moved}"));
            }
            if self.provisioner_dies_here() {
                self.stats.provisioner_kills_between_effects += 1;
                self.end_provisioner(index, "is killed between two effects");
                return;
            }
            self.carry_out(index, effect);
        }
        self.settle(index);
    }
}

impl Running {
    fn start(caller: &Arc<Caller>, flow: crate::scenario::FlowKind, seed: u64, now: Now) -> Self {
        let (rules, settings) = Material::get().provisioner(flow);
        let metrics = Arc::new(Metrics::new("simulation"));
        let random = Box::new(StdRng::seed_from_u64(seed));
        let engine = Engine::new(settings, rules, Arc::clone(caller), Arc::clone(&metrics), random, now);
        Self {
            engine,
            metrics,
            connection: None,
            armed: None,
            appointments: 0,
            given: BTreeMap::new(),
            flows: BTreeMap::new(),
            attempts: BTreeMap::new(),
            stalled_until: Time::ZERO,
            draining: false,
            steps: (Time::ZERO, 0),
        }
    }

    #[cfg(feature = "planted-bug")]
    fn with(mut self, planted: Option<crate::Planted>) -> Self {
        if let Some(crate::Planted::Provisioner(bug)) = planted {
            self.engine.plant_bug(bug);
        }
        self
    }
}
