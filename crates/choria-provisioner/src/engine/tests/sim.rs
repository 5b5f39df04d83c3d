//! A network without a network: an engine, nodes that answer as told, a helper, and a clock that jumps.

use std::collections::{BTreeMap, BTreeSet};

use choria_protocol::lifecycle::Kind;
use choria_protocol::rpc::{PONG, ReplyBody, RequestBody, decode_payload, is_ping};
use choria_protocol::v1::{Headers, Reply, Request, encode_reply};
use choria_protocol::{ids, lifecycle, v1};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::config::ProvisionerConfig;
use crate::engine::*;
use crate::flow::Action;
use crate::helper::{HelperAnswer, HelperError, RunNotes};
use crate::testing::{self, world};

/// How a node behaves when it gets a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Behaviour {
    Good,
    Silent,
    /// Acts, but its answer is lost.
    AnswerLost,
    /// Two machines of one name.
    Twice,
    Status(u8, &'static str),
    /// Bytes instead of a reply.
    Raw(Vec<u8>),
    /// A reply with this data.
    Data(Value),
}

/// A node that waits to be provisioned.
pub(crate) struct FakeNode {
    pub(crate) behave: Box<dyn FnMut(Action) -> Behaviour>,
    pub(crate) configured: u32,
    pub(crate) restarted: u32,
    /// Request ids it has seen: a server refuses one it has seen.
    seen: BTreeSet<String>,
    pub(crate) asked: Vec<Action>,
}

impl FakeNode {
    pub(crate) fn new(behave: impl FnMut(Action) -> Behaviour + 'static) -> Self {
        Self { behave: Box::new(behave), configured: 0, restarted: 0, seen: BTreeSet::new(), asked: Vec::new() }
    }

    pub(crate) fn good() -> Self {
        Self::new(|_| Behaviour::Good)
    }
}

enum Due {
    Reply(String, Vec<u8>),
    Nobody(String),
    Helper(u64, Box<Result<HelperAnswer, HelperError>>),
    NodeStartup(String),
    FleetStartup(String),
}

/// A request as it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) subject: String,
    pub(crate) reply_to: String,
    pub(crate) headers: Headers,
    pub(crate) signature: String,
    pub(crate) request: Request,
    pub(crate) at: Duration,
}

pub(crate) type HelperFn = Box<dyn FnMut(&Value) -> Result<HelperAnswer, HelperError>>;

pub(crate) struct Sim {
    pub(crate) engine: Engine,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) now: Now,
    pub(crate) nodes: BTreeMap<String, FakeNode>,
    pub(crate) helper: HelperFn,
    pub(crate) helper_takes: Duration,
    pub(crate) latency: Duration,
    /// Whether the broker says so when nobody listens.
    pub(crate) tells_absent: bool,
    /// Whether provisioned nodes show their startup event as fleet members.
    pub(crate) shows_fleet: bool,
    pub(crate) sent: Vec<Sent>,
    /// Lifecycle events that were published.
    pub(crate) told: Vec<Event>,
    pub(crate) helpers_at_once: usize,
    pub(crate) most_in_flight: i64,
    began: Instant,
    agenda: BTreeMap<(Instant, u64), Due>,
    next: u64,
    caller: Arc<Caller>,
    helpers: usize,
}

pub(crate) fn event(kind: Kind, identity: &str, component: &str) -> String {
    let event =
        Event { kind, id: ids::event_id(), identity: identity.into(), component: component.into(), timestamp: 1 };
    event.to_cloud_event()
}

pub(crate) fn startup(identity: &str) -> String {
    event(Kind::Startup { version: "0.30.2".into() }, identity, lifecycle::PROVISION_MODE_SERVER)
}

impl Sim {
    pub(crate) fn new(config: &ProvisionerConfig) -> Self {
        let caller = Caller {
            identity: "provisioner.choria".into(),
            caller_id: "choria=provisioner.choria".into(),
            signer: None,
        };
        Self::with_caller(config, caller)
    }

    pub(crate) fn with_caller(config: &ProvisionerConfig, caller: Caller) -> Self {
        let (now, caller) = (world().now(), Arc::new(caller));
        let metrics = Arc::new(Metrics::new(config.site.clone()));
        let rules = Arc::new(Rules::new(config).unwrap());
        let random = Box::new(StdRng::seed_from_u64(42));
        let engine = Engine::new(Settings::of(config), rules, Arc::clone(&caller), Arc::clone(&metrics), random, now);
        Self {
            engine,
            metrics,
            now,
            nodes: BTreeMap::new(),
            helper: Box::new(|request| {
                let identity = request["identity"].as_str().unwrap();
                Ok(if request["csr"].is_null() { world().plain_answer(identity) } else { world().answer(identity) })
            }),
            helper_takes: Duration::from_millis(20),
            latency: Duration::from_millis(2),
            tells_absent: true,
            shows_fleet: true,
            sent: Vec::new(),
            told: Vec::new(),
            helpers_at_once: 0,
            most_in_flight: 0,
            began: now.mono,
            agenda: BTreeMap::new(),
            next: 0,
            caller,
            helpers: 0,
        }
    }

    /// Connected, with these features.
    pub(crate) fn connected(features: &str) -> Self {
        let mut sim = Self::new(&testing::config(features, "workers: 4\n"));
        sim.engine.set_connected(true, sim.now);
        sim.settle();
        sim
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now.mono - self.began
    }

    /// Adds a node that starts now.
    pub(crate) fn boot(&mut self, identity: &str, node: FakeNode) {
        self.nodes.insert(identity.into(), node);
        self.announce(identity);
    }

    /// A startup event, whoever sent it.
    pub(crate) fn announce(&mut self, identity: &str) {
        self.engine.node_event(startup(identity).as_bytes(), self.now);
        self.settle();
    }

    fn plan(&mut self, delay: Duration, due: Due) {
        self.next += 1;
        self.agenda.insert((self.now.mono + delay, self.next), due);
    }

    /// Carries out what the engine wants.
    pub(crate) fn settle(&mut self) {
        loop {
            let effects = self.engine.take_effects();
            self.most_in_flight = self.most_in_flight.max(self.metrics.nodes_in_flight.get());
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Send { subject, reply_to, document, .. } => {
                        let wire = document.encode(&self.caller, &reply_to, "nats://localhost:25380").unwrap();
                        self.deliver(subject, reply_to, &wire);
                    }
                    Effect::Tell(event) => self.told.push(event),
                    Effect::Helper { flow, question } => {
                        let request: Value = serde_json::from_str(&question.to_text()).unwrap();
                        let result = (self.helper)(&request);
                        self.helpers += 1;
                        self.helpers_at_once = self.helpers_at_once.max(self.helpers);
                        self.plan(self.helper_takes, Due::Helper(flow, Box::new(result)));
                    }
                }
            }
        }
    }

    fn deliver(&mut self, subject: String, reply_to: String, wire: &[u8]) {
        let decoded = v1::decode_request(wire).unwrap();
        let request = decoded.request.clone();
        let at = self.elapsed();
        self.sent.push(Sent {
            subject: subject.clone(),
            reply_to: reply_to.clone(),
            headers: decoded.transport.headers,
            signature: decoded.secure.signature,
            request: request.clone(),
            at,
        });
        if subject == "provisioning.broadcast.agent.discovery" {
            assert!(is_ping(&decode_payload(&request.message)));
            let waiting: Vec<String> =
                self.nodes.iter().filter(|(_, n)| n.restarted == 0).map(|(i, _)| i.clone()).collect();
            for identity in waiting {
                let silent =
                    matches!((self.nodes.get_mut(&identity).unwrap().behave)(Action::Inventory), Behaviour::Silent);
                if !silent {
                    self.plan(self.latency * 2, Due::Reply(reply_to.clone(), answer(&request, &identity, PONG.into())));
                }
            }
            return;
        }
        let identity = subject.strip_prefix("provisioning.node.").unwrap().to_owned();
        self.ask(&identity, &reply_to, &request);
    }

    fn ask(&mut self, identity: &str, reply_to: &str, request: &Request) {
        let body = RequestBody::parse(request.message.as_bytes()).unwrap();
        let action = *Action::ALL.iter().find(|a| a.name() == body.action).unwrap();
        let Some(node) = self.nodes.get_mut(identity).filter(|node| node.restarted == 0) else {
            if self.tells_absent {
                self.plan(self.latency, Due::Nobody(reply_to.to_owned()));
            }
            return;
        };
        assert!(node.seen.insert(request.envelope.request_id.clone()), "{identity} got one request id twice");
        node.asked.push(action);
        let behaviour = (node.behave)(action);
        if matches!(behaviour, Behaviour::Good | Behaviour::AnswerLost | Behaviour::Twice) {
            node.configured += u32::from(action == Action::Configure);
            if matches!(action, Action::Restart | Action::Shutdown) {
                node.restarted += 1;
                if action == Action::Restart && self.shows_fleet {
                    self.plan(Duration::from_secs(3), Due::FleetStartup(identity.to_owned()));
                }
            }
        }
        let good = ReplyBody {
            action: action.name().into(),
            statuscode: 0,
            statusmsg: "OK".into(),
            data: world().data(action, identity),
        };
        let reply = |body: &ReplyBody| answer(request, identity, body.to_text());
        let payload = match behaviour {
            Behaviour::Silent | Behaviour::AnswerLost => return,
            Behaviour::Good | Behaviour::Twice => reply(&good),
            Behaviour::Status(code, message) => reply(&testing::refused(action, code, message)),
            Behaviour::Raw(ref bytes) => bytes.clone(),
            Behaviour::Data(ref data) => reply(&ReplyBody { data: data.clone(), ..good }),
        };
        if behaviour == Behaviour::Twice {
            self.plan(self.latency * 3, Due::Reply(reply_to.into(), payload.clone()));
        }
        self.plan(self.latency * 2, Due::Reply(reply_to.into(), payload));
    }

    /// The next thing that happens, up to `limit`. False when nothing does.
    fn step(&mut self, limit: Instant) -> bool {
        let agenda = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let Some(at) = [agenda, self.engine.next_timer()].into_iter().flatten().min().filter(|at| *at <= limit) else {
            return false;
        };
        let at = at.max(self.now.mono);
        self.now.unix +=
            i64::try_from((at - self.began).as_secs()).unwrap() - i64::try_from(self.elapsed().as_secs()).unwrap();
        self.now.mono = at;
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= at) {
            match entry.remove() {
                Due::Reply(subject, payload) => self.engine.reply(&subject, &payload, self.now),
                Due::Nobody(subject) => self.engine.nobody_listens(&subject, self.now),
                Due::Helper(flow, result) => {
                    self.helpers -= 1;
                    self.engine.helper_done(flow, *result, &RunNotes::default(), self.helper_takes, self.now);
                }
                Due::NodeStartup(identity) => self.engine.node_event(startup(&identity).as_bytes(), self.now),
                Due::FleetStartup(identity) => {
                    let text = event(Kind::Startup { version: "1".into() }, &identity, lifecycle::SERVER);
                    self.engine.fleet_event(text.as_bytes(), self.now);
                }
            }
        }
        self.engine.advance(self.now);
        self.settle();
        true
    }

    /// Lets this much time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let limit = self.now.mono + time;
        while self.step(limit) {}
        self.now.unix += i64::try_from((limit - self.now.mono).as_secs()).unwrap();
        self.now.mono = limit;
    }

    /// Lets time pass until something is so; panics when it does not become so in `limit`.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        what: &str,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Duration {
        let (began, end) = (self.now.mono, self.now.mono + limit);
        while !condition(self) {
            assert!(self.step(end), "in vain: {what} within {limit:?}");
        }
        self.now.mono - began
    }

    pub(crate) fn announce_after(&mut self, delay: Duration, identity: &str) {
        self.plan(delay, Due::NodeStartup(identity.to_owned()));
    }

    /// Actions asked of a node, by name.
    pub(crate) fn asked(&self, identity: &str) -> Vec<&'static str> {
        self.nodes[identity].asked.iter().map(|action| action.name()).collect()
    }
}

fn answer(request: &Request, identity: &str, message: String) -> Vec<u8> {
    let reply = Reply::to_request(&request.envelope, identity, request.envelope.time, message);
    encode_reply(&reply, &Headers { mc_sender: Some(identity.into()), ..Headers::default() })
}
