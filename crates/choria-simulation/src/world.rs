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
use crate::broker::{Broker, ConnectionId, Party};
use crate::disk::Trouble;
use crate::helper::Helper;
use crate::hostile::Hostile;
use crate::machine::{Machine, MachineEvent};
use crate::material::Material;
use crate::provisioner::{Provisioner, ProvisionerEvent};
use crate::scenario::{Scenario, Script};
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
    /// Who reaches nobody, until when.
    pub(crate) cut_off: BTreeMap<Party, Time>,
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
}
