//! The simulated world: one thread, one source of chance, no clock but its own.
//!
//! First things may go wrong, as the scenario says. Then everything is put right, and every machine must come home.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::agenda::Agenda;
use crate::broker::{Broker, ConnectionId, DISCONNECTS, NotTaken, Party, Proof};
use crate::check::TOKEN;
use crate::disk::Trouble;
use crate::helper::Helper;
use crate::hostile::Hostile;
use crate::machine::{Machine, MachineEvent};
use crate::material::{AUTHORITIES, BEGINNING, Material};
use crate::provisioner::{Provisioner, ProvisionerEvent};
use crate::scenario::{Scenario, Script, pick};
use crate::stats::Stats;
use crate::trace::{Time, Trace};

/// How long it may take until every machine is home once nothing goes wrong any more. A node that failed six times rests
/// for a quarter of an hour.
const RECOVERY: Duration = Duration::from_secs(3600);
/// How long the world is watched after that, at least: nobody may be provisioned a second time, and provisioners must come
/// to rest.
const WATCH: Duration = Duration::from_secs(300);
/// Events of one history; far beyond what any needs.
const MOST_EVENTS: u64 = 3_000_000;
/// How long a party that is cut off goes on without noticing.
const NOTICES: Duration = Duration::from_secs(10);

/// Adds a line to the history.
macro_rules! note {
    ($world:expr, $($what:tt)*) => {
        $world.trace.note($world.now, format_args!($($what)*))
    };
}
pub(crate) use note;

/// A message on its way.
pub(crate) struct Message {
    pub(crate) from: Party,
    pub(crate) subject: String,
    pub(crate) payload: Vec<u8>,
}

/// What is planned.
pub(crate) enum Event {
    Deliver {
        connection: ConnectionId,
        message: Rc<Message>,
    },
    Machine {
        index: usize,
        life: u64,
        what: MachineEvent,
    },
    Provisioner {
        index: usize,
        life: u64,
        what: ProvisionerEvent,
    },
    Hostile {
        index: usize,
    },
    /// The token of a connection expires.
    Expire {
        connection: ConnectionId,
    },
    /// The broker notices that nobody is there any more.
    Dropped {
        connection: ConnectionId,
    },
    /// Somebody notices that the broker has gone.
    Closed {
        party: Party,
        connection: ConnectionId,
    },
    BrokerUp,
    /// Something goes wrong.
    Trouble,
    /// Nothing goes wrong any more.
    Heal,
}

/// How a history ended.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) hash: u64,
    pub(crate) lines: u64,
    pub(crate) history: Vec<String>,
    pub(crate) stats: Stats,
    pub(crate) violation: Option<String>,
}

/// The world.
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) base: Instant,
    pub(crate) random: SmallRng,
    pub(crate) scenario: Scenario,
    pub(crate) healthy: bool,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) trace: Trace,
    pub(crate) stats: Stats,
    pub(crate) broker: Broker,
    pub(crate) machines: Vec<Machine>,
    pub(crate) provisioners: Vec<Provisioner>,
    pub(crate) hostiles: Vec<Hostile>,
    pub(crate) helper: Helper,
    /// Effects of all provisioners so far.
    pub(crate) effects: u64,
    #[cfg(feature = "planted-bug")]
    pub(crate) planted: Option<crate::Planted>,
    cut_off: BTreeMap<Party, Time>,
    violation: Option<String>,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(index) => write!(f, "m{index}"),
            Self::Provisioner(index) => write!(f, "p{index}"),
            Self::Hostile(index) => write!(f, "h{index}"),
        }
    }
}

/// Something bad that happens to the world.
type Misfortune = fn(&mut World);

impl World {
    /// The world of a seed. `keep`: the history is wanted.
    pub(crate) fn new(seed: u64, scenario: Option<Scenario>, keep: bool) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let scenario = scenario.unwrap_or_else(|| Scenario::draw(&mut random));
        let material = Material::get();
        let token = material.token(scenario.token_lives);
        let mut machines = Vec::new();
        for index in 0..scenario.machines {
            let twin = scenario.twins && index + 1 == scenario.machines;
            let mut machine = Machine::new(format!("n{}.lab.test", index - usize::from(twin)), &token);
            if index < scenario.returning {
                machine.returns();
            }
            machines.push(machine);
        }
        let hostiles = (0..scenario.hostiles).map(|index| Hostile::new(index, random.random_bool(0.3)));
        let mut world = Self {
            now: Time::ZERO,
            base: Instant::now(),
            hostiles: hostiles.collect(),
            random,
            healthy: false,
            agenda: Agenda::default(),
            trace: Trace::new(keep),
            stats: Stats::default(),
            broker: Broker::new(material.policy.clone(), scenario.guarded),
            machines,
            provisioners: (0..scenario.provisioners).map(Provisioner::new).collect(),
            helper: Helper::default(),
            effects: 0,
            #[cfg(feature = "planted-bug")]
            planted: None,
            cut_off: BTreeMap::new(),
            violation: None,
            scenario,
        };
        world.set_out();
        world
    }

    /// Takes a guard away.
    #[cfg(feature = "planted-bug")]
    pub(crate) fn plant(&mut self, planted: crate::Planted) {
        if let crate::Planted::Server(bug) = planted {
            for machine in &self.machines {
                machine.disk.plant_bug(bug);
            }
        }
        self.planted = Some(planted);
    }

    fn set_out(&mut self) {
        note!(self, "{:?}", self.scenario);
        if let Some(Script::MachineAtOperation { after, torn, .. }) = self.scenario.script {
            self.machines[0].disk.set_trouble(Trouble::Dies { after, torn });
        }
        for index in 0..self.provisioners.len() {
            let after = self.between(Duration::ZERO, Duration::from_secs(2));
            self.plan_provisioner(index, after, ProvisionerEvent::Connect);
        }
        for index in 0..self.machines.len() {
            let after = self.between(Duration::ZERO, self.scenario.spread);
            self.plan_machine(index, after, MachineEvent::Start);
        }
        for index in 0..self.hostiles.len() {
            self.agenda.plan(Duration::from_secs(1), Event::Hostile { index });
        }
        self.agenda.plan(self.scenario.trouble, Event::Heal);
        self.plan_trouble();
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Ending {
        let mut home_since: Option<Time> = None;
        while self.violation.is_none() {
            let Some((at, event)) = self.agenda.next() else { break };
            self.now = at;
            self.stats.events += 1;
            if self.stats.events > MOST_EVENTS {
                self.violate(format!("after {MOST_EVENTS} events there is still no end"));
            }
            self.happen(event);
            if !self.healthy {
                continue;
            }
            let all_home = (0..self.machines.len()).all(|index| self.is_settled(index));
            home_since = if all_home { home_since.or(Some(at)) } else { None };
            match home_since {
                Some(since) if at >= since + WATCH && self.provisioners.iter().all(Provisioner::is_idle) => break,
                Some(since) if at >= since + RECOVERY => break,
                None if at > self.scenario.trouble + RECOVERY => self.stranded(),
                _ => {}
            }
        }
        self.last_look();
        self.stats.simulated_seconds = self.now.as_secs();
        self.stats.effects = self.effects;
        self.stats.disk_operations = self.machines.iter().map(|machine| machine.disk.operations()).sum();
        self.stats.replies = self.machines.iter().map(|machine| machine.books.replies()).sum();
        if let Some(violation) = &self.violation {
            self.trace.note(self.now, format_args!("VIOLATION: {violation}"));
        }
        Ending {
            hash: self.trace.hash(),
            lines: self.trace.count(),
            stats: self.stats,
            violation: self.violation,
            history: self.trace.into_lines(),
        }
    }

    /// Whether a machine is where it should end: home, or kept out because another one of its name is home.
    fn is_settled(&self, index: usize) -> bool {
        let machine = &self.machines[index];
        let other = |other: &Machine| other.identity == machine.identity && other.is_home();
        machine.is_home() || (self.scenario.guarded && machine.is_kept_out() && self.machines.iter().any(other))
    }

    fn stranded(&mut self) {
        let lost: Vec<String> = (0..self.machines.len())
            .filter(|index| !self.is_settled(*index))
            .map(|index| {
                let machine = &self.machines[index];
                let state = if machine.is_off() {
                    "off"
                } else if machine.waits() {
                    "waiting"
                } else {
                    "not connected"
                };
                format!("{} is {state}", self.short(index))
            })
            .collect();
        let minutes = RECOVERY.as_secs() / 60;
        self.violate(format!("{minutes} minutes after the last trouble {}", lost.join(", ")));
    }

    /// What must hold at the end.
    fn last_look(&mut self) {
        if self.violation.is_some() {
            return;
        }
        for index in 0..self.provisioners.len() {
            if !self.provisioners[index].is_idle() {
                self.violate(format!("every machine has long been home and p{index} is still waiting for something"));
            }
        }
        if !self.scenario.is_quiet() {
            return;
        }
        let (provisioned, errors) = (self.provisioners[0].provisioned(), self.provisioners[0].errors());
        if provisioned != self.scenario.machines as u64 || errors > 0 {
            self.violate(format!(
                "nothing went wrong, and of {} machines {provisioned} were provisioned with {errors} errors",
                self.scenario.machines
            ));
        }
        for index in 0..self.machines.len() {
            let books = &self.machines[index].books;
            if books.taken() != 1 || books.joined != 1 {
                let text =
                    format!("nothing went wrong, and {} was configured {} times", self.short(index), books.taken());
                self.violate(text);
            }
        }
    }

    /// Something that must never be. The first one counts.
    pub(crate) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { connection, message } => self.deliver(connection, &message),
            Event::Machine { index, life, what } => self.machine_event(index, life, what),
            Event::Provisioner { index, life, what } => self.provisioner_event(index, life, what),
            Event::Hostile { index } => self.hostile_acts(index),
            Event::Expire { connection } => {
                if let Some(party) = self.close(connection, "Authentication Expired") {
                    self.stats.tokens_expired += 1;
                    note!(self, "the token of {party} expires");
                    self.lost(party, connection);
                }
            }
            Event::Dropped { connection } => {
                if let Some(party) = self.close(connection, "Stale Connection") {
                    self.lost(party, connection);
                }
            }
            Event::Closed { party, connection } => self.lost(party, connection),
            Event::BrokerUp => {
                note!(self, "the broker is up");
                self.broker.up = true;
            }
            Event::Trouble => self.trouble(),
            Event::Heal => self.heal(),
        }
    }

    // Chance.

    /// Whether something that may happen does. Nothing does once the world is healthy.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        !self.healthy && probability > 0.0 && self.random.random_bool(probability.min(1.0))
    }

    /// A number from 0 to `most`.
    pub(crate) fn up_to(&mut self, most: u64) -> u64 {
        self.random.random_range(0..=most)
    }

    pub(crate) fn between(&mut self, from: Duration, to: Duration) -> Duration {
        if to <= from { from } else { self.random.random_range(from..to) }
    }

    // The network.

    /// Who a message really comes from.
    pub(crate) fn name_of(&self, party: Party) -> String {
        match party {
            Party::Machine(index) => self.machines[index].identity.clone(),
            Party::Hostile(index) => self.hostiles[index].identity.clone(),
            Party::Provisioner(index) => format!("p{index}"),
        }
    }

    pub(crate) fn is_cut_off(&self, party: Party) -> bool {
        self.cut_off.get(&party).is_some_and(|until| *until > self.now)
    }

    pub(crate) fn connect(&mut self, party: Party, name: &str, proof: &Proof<'_>) -> Result<ConnectionId, String> {
        let unix = BEGINNING + i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX);
        let (machines, hostiles, cut_off, now) = (&self.machines, &self.hostiles, &self.cut_off, self.now);
        let lives = |holder: Party, connection: ConnectionId| {
            let reachable = cut_off.get(&holder).is_none_or(|until| *until <= now);
            reachable
                && match holder {
                    Party::Machine(index) => machines[index].hears(connection),
                    Party::Hostile(index) => hostiles[index].hears(connection),
                    Party::Provisioner(_) => true,
                }
        };
        match self.broker.connect(party, name, proof, unix, lives) {
            Ok((connection, replaced)) => {
                if let Some((replaced, old)) = replaced {
                    self.stats.names_taken_over += 1;
                    note!(self, "{party} takes the name of {replaced}, which does not answer");
                    // Learnt when it can be reached again, if it still lives.
                    let at = self.cut_off.get(&replaced).map_or(self.now, |until| self.now.max(*until));
                    self.agenda.plan(at, Event::Closed { party: replaced, connection: old });
                    self.tell_of_end(replaced, name, "Claim Taken Over");
                }
                if let Some(expires) = self.broker.get(connection).and_then(|connection| connection.grant.expires_at) {
                    let left = Duration::from_secs(u64::try_from(expires - BEGINNING).unwrap_or_default());
                    self.agenda.plan(left.max(self.now), Event::Expire { connection });
                }
                Ok(connection)
            }
            Err(reason) => {
                if self.broker.up {
                    self.stats.connections_refused += 1;
                    note!(self, "{party} is refused by the broker: {reason}");
                }
                Err(reason)
            }
        }
    }

    /// A party is told that its connection is gone.
    fn lost(&mut self, party: Party, connection: ConnectionId) {
        match party {
            Party::Machine(index) => self.machine_lost(index, connection),
            Party::Provisioner(index) => self.provisioner_lost(index, connection),
            Party::Hostile(index) => self.hostiles[index].lost(),
        }
    }

    /// Sends a message.
    pub(crate) fn publish(
        &mut self,
        from: Party,
        connection: Option<ConnectionId>,
        subject: &str,
        payload: Vec<u8>,
    ) -> Result<usize, NotTaken> {
        let connection = connection.ok_or(NotTaken::NotConnected)?;
        self.stats.messages += 1;
        if self.scenario.script == Some(Script::BrokerAtMessage(self.stats.messages)) {
            self.restart_broker(Duration::from_secs(1));
        }
        if self.is_cut_off(from) {
            self.stats.lost += 1;
            // Nobody knows.
            return Ok(1);
        }
        let receivers = self.broker.publish(connection, subject, &payload)?;
        let message = Rc::new(Message { from, subject: subject.to_owned(), payload });
        for receiver in &receivers {
            self.transmit(*receiver, &message);
        }
        Ok(receivers.len())
    }

    /// Ends a connection at the broker, which tells of it.
    pub(crate) fn close(&mut self, connection: ConnectionId, reason: &str) -> Option<Party> {
        let closed = self.broker.close(connection)?;
        if let Some(name) = closed.grant.tag {
            self.tell_of_end(closed.party, &name, reason);
        }
        Some(closed.party)
    }

    /// The broker tells the provisioner that a node's connection has ended.
    fn tell_of_end(&mut self, party: Party, name: &str, reason: &str) {
        if self.scenario.informs {
            let advisory = serde_json::json!({
                "type": "io.nats.server.advisory.v1.client_disconnect", "client": {"name": name}, "reason": reason
            });
            let payload = advisory.to_string().into_bytes();
            let message = Rc::new(Message { from: party, subject: DISCONNECTS.to_owned(), payload });
            for listener in self.broker.listeners(DISCONNECTS) {
                self.transmit(listener, &message);
            }
        }
    }

    fn transmit(&mut self, connection: ConnectionId, message: &Rc<Message>) {
        let (loss, duplicate, delay) =
            (self.scenario.rates.loss, self.scenario.rates.duplicate, self.scenario.rates.delay);
        if self.chance(loss) {
            self.stats.lost += 1;
            return;
        }
        let copies = 1 + u32::from(self.chance(duplicate));
        self.stats.duplicated += u64::from(copies - 1);
        for _ in 0..copies {
            let mut takes = self.between(Duration::from_micros(100), Duration::from_millis(2));
            if self.chance(delay) {
                self.stats.delayed += 1;
                let most = if self.chance(0.1) { 90 } else { 5 };
                takes += self.between(Duration::from_millis(50), Duration::from_secs(most));
            }
            self.agenda.plan(self.now + takes, Event::Deliver { connection, message: Rc::clone(message) });
        }
    }

    fn deliver(&mut self, connection: ConnectionId, message: &Rc<Message>) {
        let Some(party) = self.broker.get(connection).map(|connection| connection.party) else {
            self.stats.lost_with_connection += 1;
            return;
        };
        if self.is_cut_off(party) {
            self.stats.lost += 1;
            return;
        }
        match party {
            Party::Machine(index) => self.deliver_to_machine(index, connection, message),
            Party::Provisioner(index) => self.deliver_to_provisioner(index, connection, message),
            Party::Hostile(index) => self.deliver_to_hostile(index, connection, message),
        }
    }

    // Trouble.

    fn plan_trouble(&mut self) {
        let rates = &self.scenario.rates;
        let per_minute = rates.provisioner_kills
            + rates.provisioner_stops
            + rates.node_kills
            + rates.partitions
            + rates.broker_restarts
            + rates.clock_jumps
            + rates.reprovisions
            + rates.ca_swaps;
        if per_minute > 0.0 {
            // Exponentially distributed, so that troubles come in bunches, too.
            let wait = -self.random.random_range(f64::EPSILON..1.0).ln() * 60.0 / per_minute;
            self.agenda.plan(self.now + Duration::from_secs_f64(wait), Event::Trouble);
        }
    }

    fn trouble(&mut self) {
        if self.healthy {
            return;
        }
        let rates = self.scenario.rates.clone();
        let kinds: [(f64, Misfortune); 8] = [
            (rates.provisioner_kills, Self::kill_a_provisioner),
            (rates.provisioner_stops, Self::stop_a_provisioner),
            (rates.node_kills, Self::kill_a_machine),
            (rates.partitions, Self::cut_somebody_off),
            (rates.broker_restarts, Self::restart_the_broker),
            (rates.clock_jumps, Self::jump),
            (rates.reprovisions, Self::send_back),
            (rates.ca_swaps, Self::swap_authority),
        ];
        let mut at = self.random.random_range(0.0..kinds.iter().map(|(rate, _)| rate).sum());
        for (rate, happens) in kinds {
            if at < rate {
                happens(self);
                break;
            }
            at -= rate;
        }
        self.plan_trouble();
    }

    fn a_provisioner(&mut self) -> usize {
        self.random.random_range(0..self.provisioners.len())
    }

    fn a_machine(&mut self) -> usize {
        self.random.random_range(0..self.machines.len())
    }

    fn kill_a_provisioner(&mut self) {
        let index = self.a_provisioner();
        self.stats.provisioner_kills += 1;
        self.end_provisioner(index, "is killed");
    }

    fn stop_a_provisioner(&mut self) {
        let index = self.a_provisioner();
        self.trouble_provisioner(index);
    }

    fn kill_a_machine(&mut self) {
        let index = self.a_machine();
        if !self.machines[index].is_off() {
            self.stats.node_kills += 1;
            self.kill_machine(index, "is killed");
        }
    }

    fn cut_somebody_off(&mut self) {
        let party = if self.random.random_bool(0.7) {
            Party::Machine(self.a_machine())
        } else {
            Party::Provisioner(self.a_provisioner())
        };
        let lasts = self.between(Duration::from_millis(500), Duration::from_secs(40));
        self.stats.partitions += 1;
        note!(self, "{party} is cut off for {:.1}s", lasts.as_secs_f64());
        self.cut_off.insert(party, self.now + lasts);
        if lasts > NOTICES {
            // Both sides give up; each finds its old connection dead.
            for connection in self.broker.connections_of(party) {
                self.agenda.plan(self.now + NOTICES, Event::Dropped { connection });
                self.agenda.plan(self.now + NOTICES, Event::Closed { party, connection });
            }
        }
    }

    fn restart_the_broker(&mut self) {
        let down = self.between(Duration::from_millis(100), Duration::from_secs(20));
        self.restart_broker(down);
    }

    fn restart_broker(&mut self, down: Duration) {
        if !self.broker.up {
            return;
        }
        self.stats.broker_restarts += 1;
        note!(self, "the broker restarts, {:.1}s", down.as_secs_f64());
        for (connection, party) in self.broker.stop() {
            // Learnt a moment later: whoever publishes now does not know yet.
            let told = self.between(Duration::from_micros(10), Duration::from_millis(5));
            self.agenda.plan(self.now + told, Event::Closed { party, connection });
        }
        self.agenda.plan(self.now + down, Event::BrokerUp);
    }

    fn jump(&mut self) {
        let magnitude = *pick(&mut self.random, &[1, 5, 30, 90, 600, 7200, 40_000_000]);
        let seconds: i64 = self.random.random_range(1..=magnitude);
        let forward = self.random.random_bool(0.5);
        let jump = if forward { seconds } else { -seconds };
        self.stats.clock_jumps_forward += u64::from(forward);
        self.stats.clock_jumps_backward += u64::from(!forward);
        if self.random.random_bool(0.5) {
            let index = self.a_machine();
            self.machines[index].clock += jump;
            note!(self, "the clock of m{index} jumps by {jump}s");
        } else {
            let index = self.a_provisioner();
            self.provisioners[index].clock += jump;
            note!(self, "the clock of p{index} jumps by {jump}s");
        }
    }

    fn send_back(&mut self) {
        let index = self.a_machine();
        self.reprovision(index);
    }

    fn swap_authority(&mut self) {
        self.stats.ca_swaps += 1;
        self.helper.authority = (self.helper.authority + 1) % AUTHORITIES;
        note!(self, "authority {} signs from now on", self.helper.authority);
    }

    /// Everything is put right: clocks, tokens, network, broker. What is off is started.
    fn heal(&mut self) {
        note!(self, "nothing goes wrong any more");
        self.healthy = true;
        self.cut_off.clear();
        if !self.broker.up {
            self.agenda.plan(self.now, Event::BrokerUp);
        }
        for provisioner in &mut self.provisioners {
            provisioner.clock = 0;
        }
        let token = Material::get().token(None);
        for index in 0..self.machines.len() {
            let machine = &mut self.machines[index];
            machine.clock = 0;
            if self.scenario.script.is_none() {
                machine.disk.set_trouble(Trouble::None);
            }
            if self.scenario.token_lives.is_some()
                && machine.disk.plant(std::path::Path::new(TOKEN), token.as_bytes(), 0o600).is_err()
            {
                self.violate("a token cannot be replaced".to_owned());
            }
            self.boot(index, Duration::from_secs(1));
        }
    }
}
