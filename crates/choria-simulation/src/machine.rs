//! Machines: the real start, checks of requests, provisioning actions and configuration on a disk in memory.
//!
//! What is modelled: the connection and its retries, the hosting of agents, the reply of `rpcutil`, registration, the way
//! a process is started again.

mod service;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use choria_config::{Environment, keys};
use choria_protocol::lifecycle::{self, Event as LifecycleEvent, Kind};
use choria_protocol::rpc::DISCOVERY_AGENT;
use choria_protocol::v1::DecodedRequest;
use choria_protocol::{ids, subjects};
use choria_security::chain;
use choria_server::control::Control;
use choria_server::counters::Counters;
use choria_server::files::SharedFiles;
use choria_server::pipeline::{Pipeline, Verification};
use choria_server::provision::actions::{Actions, Moment, Work};
use choria_server::provision::configure::ProviderCheck;
use choria_server::{Exit, ServerSettings};
use serde_json::{Map, Value};

pub(crate) use self::service::{inventory, registration, reply_text};
use crate::broker::{ConnectionId, Party, Proof};
use crate::check::{self, CONFIG, Snapshot, TOKEN};
use crate::disk::{MemoryDisk, Trouble};
use crate::material::{BEGINNING, Material};
use crate::scenario::Script;
use crate::trace::Time;
use crate::world::{Event, World, note};

/// Agents of a server that waits to be provisioned.
const AGENTS: [&str; 4] = ["choria_provision", "choria_util", DISCOVERY_AGENT, "rpcutil"];

/// The setting that says what a server is.
const PROVISION: &str = "plugin.choria.server.provision";

/// One machine.
pub(crate) struct Machine {
    pub(crate) identity: String,
    pub(crate) disk: MemoryDisk,
    pub(crate) books: Books,
    /// Counts its processes.
    life: u64,
    process: Option<Process>,
    /// How far its wall clock is off, in seconds.
    pub(crate) clock: i64,
}

/// What is known about a machine's files and way.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// What the files may be now: one world, or two after a death in the middle.
    allowed: Vec<Snapshot>,
    /// Attempts that were put into force.
    taken: Vec<usize>,
    /// How often it became a member.
    pub(crate) joined: u32,
    /// Replies it sent.
    replies: u64,
    /// A helper had it shut down.
    shut_down: bool,
}

/// A process on a machine.
struct Process {
    settings: Arc<ServerSettings>,
    actions: Actions,
    control: Control,
    pipeline: Pipeline,
    connection: Option<ConnectionId>,
    announced: bool,
    /// What it proves itself with as a member, as it was at the start.
    certificate: Option<String>,
    jobs: VecDeque<Job>,
    /// A job is being worked at.
    busy: bool,
    ends: bool,
}

/// An admitted call.
struct Job {
    request: DecodedRequest,
    action: String,
    work: Work,
    /// The inputs of `configure`.
    inputs: Option<Map<String, Value>>,
}

/// What happens to a machine.
pub(crate) enum MachineEvent {
    Start,
    Connect,
    /// The first job in the queue is worked at.
    Work,
    /// A reply goes out.
    Reply(Box<(DecodedRequest, String)>),
    /// The process ends as it was asked to.
    End(Exit),
    Register,
}

impl Books {
    /// Whether the configuration of this attempt was put into force.
    pub(crate) fn has_taken(&self, attempt: usize) -> bool {
        self.taken.contains(&attempt)
    }

    /// What the files may be after a `configure` call with these inputs.
    fn after(&self, inputs: &Map<String, Value>) -> Vec<Snapshot> {
        self.allowed.iter().map(|before| check::after_configure(before, inputs)).collect()
    }

    /// How many replies it sent.
    pub(crate) fn replies(&self) -> u64 {
        self.replies
    }

    /// Whether the files are those of a member.
    pub(crate) fn is_configured(&self) -> bool {
        self.allowed.iter().any(|files| check::setting(files, PROVISION) == Some("false"))
    }

    /// How many configurations were put into force.
    pub(crate) fn taken(&self) -> usize {
        self.taken.len()
    }
}

impl Machine {
    /// A machine that was never started.
    pub(crate) fn new(identity: String, token: &str) -> Self {
        let disk = MemoryDisk::new(&["/simulated/choria"]);
        disk.plant(Path::new(TOKEN), token.as_bytes(), 0o600).expect("an empty disk can be written");
        let books = Books { allowed: vec![check::snapshot(&disk)], ..Books::default() };
        Self { identity, disk, books, life: 0, process: None, clock: 0 }
    }

    /// Gives it files of a membership that is over: it was sent back into provisioning.
    pub(crate) fn returns(&mut self) {
        let config = format!("# old\nplugin.choria.server.provision=1\nidentity={}\n", self.identity);
        for directory in ["ssl", "policies", "policies/rego"] {
            self.plant(&format!("{directory}/"), "");
        }
        for (name, text) in [
            ("server.conf", config.as_str()),
            ("ssl/certificate.pem", "old certificate"),
            ("ssl/ca.pem", "old ca"),
            ("ssl/private.pem", "old key"),
            ("policies/old.policy", "old"),
            ("policies/groups", "g a"),
            ("policies/rego/old.rego", "old"),
        ] {
            self.plant(name, text);
        }
        self.disk.sync_all();
        self.books.allowed = vec![check::snapshot(&self.disk)];
    }

    fn plant(&self, name: &str, text: &str) {
        use choria_server::files::Files;
        let path = Path::new("/simulated/choria").join(name);
        let made = if name.ends_with('/') {
            self.disk.create_dir(&path, 0o755)
        } else {
            self.disk.plant(&path, text.as_bytes(), 0o644)
        };
        made.expect("a new disk can be written");
    }

    pub(crate) fn is_off(&self) -> bool {
        self.process.is_none()
    }

    /// Whether it runs and waits to be provisioned.
    pub(crate) fn waits(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.settings.is_provisioning())
    }

    /// Whether it runs as a member and is connected.
    pub(crate) fn is_home(&self) -> bool {
        let home =
            |process: &Process| !process.settings.is_provisioning() && process.connection.is_some() && !process.ends;
        self.process.as_ref().is_some_and(home)
    }

    /// Whether it waits to be provisioned and is not let in.
    pub(crate) fn is_kept_out(&self) -> bool {
        self.waits() && self.process.as_ref().is_some_and(|process| process.connection.is_none())
    }

    /// Whether it answers over this connection.
    pub(crate) fn hears(&self, connection: ConnectionId) -> bool {
        self.process.as_ref().is_some_and(|process| process.connection == Some(connection))
    }
}

impl World {
    pub(crate) fn machine_event(&mut self, index: usize, life: u64, what: MachineEvent) {
        if self.machines[index].life != life {
            return;
        }
        match what {
            MachineEvent::Start => self.start_machine(index),
            MachineEvent::Connect => self.connect_machine(index),
            MachineEvent::Work => self.work(index),
            MachineEvent::Reply(answer) => self.reply(index, &answer.0, answer.1),
            MachineEvent::End(exit) => self.end_machine(index, exit),
            MachineEvent::Register => self.register(index),
        }
    }

    pub(crate) fn plan_machine(&mut self, index: usize, after: Time, what: MachineEvent) {
        let life = self.machines[index].life;
        self.agenda.plan(self.now + after, Event::Machine { index, life, what });
    }

    fn machine_now(&self, index: usize) -> Moment {
        let seconds = i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX);
        Moment { mono: self.base + self.now, unix: BEGINNING + seconds + self.machines[index].clock }
    }

    /// A process starts: it recovers, reads its configuration and decides what it is.
    fn start_machine(&mut self, index: usize) {
        if self.machines[index].process.is_some() {
            return;
        }
        let dies = self.scenario.rates.node_in_recovery;
        if self.scenario.script.is_none() && self.chance(dies) {
            let after = self.up_to(30);
            self.machines[index].disk.set_trouble(Trouble::Dies { after, torn: after.is_multiple_of(2) });
        }
        let now = self.machine_now(index);
        let machine = &mut self.machines[index];
        machine.life += 1;
        let environment = Environment::fixed(machine.identity.clone()).with_working_directory("/simulated");
        let files = SharedFiles::new(machine.disk.clone());
        let token = Some(Path::new(TOKEN));
        let loaded = ServerSettings::load_on(files, Path::new(CONFIG), token, &environment, now.unix);
        if self.machines[index].disk.is_dead() {
            self.stats.node_kills_in_recovery += 1;
            return self.kill_machine(index, "is killed in its recovery");
        }
        if self.scenario.script.is_none() {
            self.machines[index].disk.set_trouble(Trouble::None);
        }
        match loaded {
            Err(error) => self.violate(format!("{} cannot start: {error}", self.short(index))),
            Ok(settings) => self.run_machine(index, settings, environment),
        }
    }

    fn run_machine(&mut self, index: usize, settings: ServerSettings, environment: Environment) {
        let told = |what: &str| u64::from(settings.notes().iter().any(|note| note.contains(what)));
        self.stats.recovered_old += told("taken back");
        self.stats.recovered_new += told("was finished");
        let waits = settings.is_provisioning();
        note!(self, "{} starts, {}", self.short(index), if waits { "waits to be provisioned" } else { "a member" });
        if !self.files_are_whole(index) {
            return;
        }
        let machine = &mut self.machines[index];
        let found = &machine.books.allowed[0];
        let is_member = check::setting(found, PROVISION) == Some("false");
        if is_member {
            match check::is_whole_member(&machine.disk, found, &machine.identity, &self.helper.attempts) {
                Ok(attempt) if !machine.books.has_taken(attempt) => machine.books.taken.push(attempt),
                Ok(_) => {}
                Err(fault) => {
                    let text = format!("{} starts as a member, but {fault}", self.short(index));
                    return self.violate(text);
                }
            }
        }
        if is_member == waits {
            return self.violate(format!("{} decides wrongly what it is", self.short(index)));
        }
        let machine = &mut self.machines[index];
        let files = &machine.books.allowed[0];
        let certificate = check::setting(files, "plugin.security.file.certificate").and_then(|path| files.get(path));
        let certificate = certificate.cloned();
        let settings = Arc::new(settings);
        let control = Control::default();
        let collectives = settings.config().get(&keys::COLLECTIVES);
        machine.process = Some(Process {
            actions: Actions::new(Arc::clone(&settings), environment, control.clone(), ProviderCheck::Required),
            pipeline: Pipeline::new(Verification::Provisioning, collectives, Arc::new(Counters::default())),
            settings,
            control,
            connection: None,
            announced: false,
            certificate,
            jobs: VecDeque::new(),
            busy: false,
            ends: false,
        });
        let connects = self.between(Duration::from_millis(5), Duration::from_millis(60));
        self.plan_machine(index, connects, MachineEvent::Connect);
    }

    /// Whether a machine's files are one of the worlds that they may be; from now on it is the only one.
    fn files_are_whole(&mut self, index: usize) -> bool {
        let machine = &mut self.machines[index];
        let found = check::snapshot(&machine.disk);
        if machine.books.allowed.contains(&found) {
            machine.books.allowed = vec![found];
            return true;
        }
        let differences: Vec<String> =
            machine.books.allowed.iter().map(|expected| check::difference(&found, expected)).collect();
        let text = format!("the files of {} are neither old nor new: {}", self.short(index), differences.join("; or "));
        self.violate(text);
        false
    }

    fn connect_machine(&mut self, index: usize) {
        let party = Party::Machine(index);
        let now = self.machine_now(index).unix;
        let offset = self.machines[index].clock;
        let machine = &self.machines[index];
        let Some(process) = machine.process.as_ref().filter(|process| process.connection.is_none()) else { return };
        let (settings, identity) = (Arc::clone(&process.settings), machine.identity.clone());
        let waits = settings.is_provisioning();
        let connected = if self.is_cut_off(party) {
            None
        } else if waits {
            // Every try reads the token anew.
            settings.token().refresh();
            let token = settings.token().current();
            token.and_then(|token| self.connect(party, &identity, &Proof::Token(&token.text)).ok())
        } else {
            // Both sides look at the certificate, each with its own clock.
            let verified = process.certificate.as_ref().is_some_and(|pem| {
                [now, now - offset].iter().all(|at| chain::check_client_chain(pem, &Material::get().trust, *at).is_ok())
            });
            if verified { self.connect(party, &identity, &Proof::Certificate).ok() } else { None }
        };
        let Some(connection) = connected else {
            let again = self.between(Duration::from_millis(200), Duration::from_secs(4));
            return self.plan_machine(index, again, MachineEvent::Connect);
        };
        note!(self, "{} is connected", self.short(index));
        let mut filters = vec![subjects::node("mcollective", &identity)];
        if waits {
            let broadcasts = AGENTS.map(|agent| subjects::broadcast_agent(subjects::PROVISIONING_COLLECTIVE, agent));
            filters = broadcasts.into();
            filters.push(subjects::node(subjects::PROVISIONING_COLLECTIVE, &identity));
        }
        for filter in filters {
            if let Err(fault) = self.broker.subscribe(connection, &filter) {
                self.violate(format!("{} may not subscribe {filter}: {fault:?}", self.short(index)));
            }
        }
        let Some(process) = &mut self.machines[index].process else { return };
        process.connection = Some(connection);
        if !std::mem::replace(&mut process.announced, true) {
            self.announce(index, Kind::Startup { version: "1".to_owned() });
            if waits {
                self.plan_machine(index, Duration::from_secs(2), MachineEvent::Register);
            } else {
                self.stats.joined += 1;
                self.machines[index].books.joined += 1;
            }
        }
    }

    fn announce(&mut self, index: usize, kind: Kind) {
        let unix = self.machine_now(index).unix;
        let machine = &self.machines[index];
        let component = if machine.waits() { lifecycle::PROVISION_MODE_SERVER } else { lifecycle::SERVER };
        let event = LifecycleEvent {
            kind,
            id: ids::event_id(),
            identity: machine.identity.clone(),
            component: component.to_owned(),
            timestamp: unix,
        };
        let connection = machine.process.as_ref().and_then(|process| process.connection);
        let text = event.to_cloud_event().into_bytes();
        let _ = self.publish(Party::Machine(index), connection, &event.subject(), text);
    }

    fn register(&mut self, index: usize) {
        self.plan_machine(index, Duration::from_secs(120), MachineEvent::Register);
        let unix = self.machine_now(index).unix;
        let machine = &self.machines[index];
        let connection = machine.process.as_ref().and_then(|process| process.connection);
        let payload = registration(&machine.identity, unix);
        let _ = self.publish(Party::Machine(index), connection, subjects::PROVISIONING_REGISTRATION, payload);
    }

    /// Plans the end of a process when an action asked for one.
    fn look_for_end(&mut self, index: usize) {
        let base = self.base;
        let Some(process) = &mut self.machines[index].process else { return };
        let Some(scheduled) = *process.control.watch().borrow() else { return };
        if std::mem::replace(&mut process.ends, true) {
            return;
        }
        let at = scheduled.at.into_std().saturating_duration_since(base);
        self.plan_machine(index, at.saturating_sub(self.now), MachineEvent::End(scheduled.exit));
    }

    fn end_machine(&mut self, index: usize, exit: Exit) {
        let Some(process) = &mut self.machines[index].process else { return };
        if process.busy {
            // What runs gets a moment to answer.
            return self.plan_machine(index, Duration::from_millis(50), MachineEvent::End(exit));
        }
        note!(self, "{} {}", self.short(index), if exit == Exit::Restart { "restarts" } else { "shuts down" });
        self.announce(index, Kind::Shutdown);
        self.stop_process(index, true);
        self.machines[index].books.shut_down = exit == Exit::Shutdown;
        let (from, to) = match exit {
            Exit::Restart => (Duration::from_millis(20), Duration::from_millis(300)),
            // Somebody starts it again.
            Exit::Stopped | Exit::Shutdown => (Duration::from_secs(5), Duration::from_secs(90)),
        };
        let after = self.between(from, to);
        self.plan_machine(index, after, MachineEvent::Start);
    }

    /// The process is gone. `told`: the broker notices at once.
    fn stop_process(&mut self, index: usize, told: bool) {
        let machine = &mut self.machines[index];
        machine.life += 1;
        if let Some(connection) = machine.process.take().and_then(|process| process.connection) {
            if told {
                self.close(connection, "Client Closed");
            } else {
                let notices = self.between(Duration::from_secs(10), Duration::from_secs(90));
                self.agenda.plan(self.now + notices, Event::Dropped { connection });
            }
        }
    }

    /// A machine's process is killed, or its power goes.
    pub(crate) fn kill_machine(&mut self, index: usize, how: &str) {
        let power = match self.scenario.script {
            Some(Script::MachineAtOperation { power, .. }) => power,
            Some(_) => false,
            None => self.chance(self.scenario.rates.power),
        };
        note!(self, "{} {how}{}", self.short(index), if power { ", its power goes" } else { "" });
        self.machines[index].disk.set_trouble(Trouble::None);
        if power {
            self.stats.power_cuts += 1;
            let lost = self.machines[index].disk.cut_power(&mut self.random);
            self.stats.power_cuts_with_losses += u64::from(lost);
        }
        self.stop_process(index, !power);
        let longest = if self.healthy { 2 } else { 30 };
        let after = self.between(Duration::from_millis(100), Duration::from_secs(longest));
        self.plan_machine(index, after, MachineEvent::Start);
    }

    /// The machine learns that its connection is gone.
    pub(crate) fn machine_lost(&mut self, index: usize, connection: ConnectionId) {
        if !self.machines[index].hears(connection) {
            return;
        }
        if let Some(process) = &mut self.machines[index].process {
            process.connection = None;
        }
        note!(self, "{} has lost its connection", self.short(index));
        let again = self.between(Duration::from_millis(100), Duration::from_secs(2));
        self.plan_machine(index, again, MachineEvent::Connect);
    }

    /// Starts a machine that is off, as an operator would.
    pub(crate) fn boot(&mut self, index: usize, after: Time) {
        if self.machines[index].is_off() {
            self.machines[index].books.shut_down = false;
            self.plan_machine(index, after, MachineEvent::Start);
        }
    }

    /// Its name in the history: unlike identities, no two machines share one.
    pub(crate) fn short(&self, index: usize) -> String {
        format!("m{index}")
    }
}
