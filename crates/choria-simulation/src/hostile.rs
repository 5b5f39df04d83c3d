//! Holders of a provisioning token with bad intentions. They can do what the broker lets them: speak under a name of
//! their own, answer on any reply subject that they know or guess, and lie.

use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use choria_protocol::lifecycle::{self, Event as LifecycleEvent, Kind};
use choria_protocol::rpc::{self, DISCOVERY_AGENT, PONG, RequestBody};
use choria_protocol::v1::{self, Headers, RequestEnvelope};
use choria_protocol::{ids, subjects};
use choria_rpc::{Reply, StatusCode};
use choria_security::csr::{self, Subject};
use choria_security::keys::{KeyKind, PrivateKey};
use rand::Rng;
use serde_json::{Value, json};

use crate::broker::{ConnectionId, NotTaken, Party, Proof};
use crate::check;
use crate::machine::{inventory, registration, reply_text};
use crate::material::{BEGINNING, Material};
use crate::scenario::pick;
use crate::world::{Event, Message, World, note};

/// Requests that a hostile party remembers.
const REMEMBERED: usize = 20;

/// One of them.
pub(crate) struct Hostile {
    pub(crate) identity: String,
    connection: Option<ConnectionId>,
    /// Requests that it saw: its own, and discovery.
    seen: Vec<Seen>,
    /// It plays an honest node until it has a certificate.
    honest: bool,
}

#[derive(Clone)]
struct Seen {
    envelope: RequestEnvelope,
    reply_to: String,
    action: String,
}

impl Hostile {
    pub(crate) fn new(index: usize, honest: bool) -> Self {
        Self { identity: format!("ghost{index}.lab.test"), connection: None, seen: Vec::new(), honest }
    }

    pub(crate) fn hears(&self, connection: ConnectionId) -> bool {
        self.connection == Some(connection)
    }

    pub(crate) fn lost(&mut self) {
        self.connection = None;
    }
}

fn key() -> &'static PrivateKey {
    static KEY: OnceLock<PrivateKey> = OnceLock::new();
    KEY.get_or_init(|| PrivateKey::generate(KeyKind::P256).expect("a key can be made"))
}

fn request_for(name: &str) -> String {
    csr::create(key(), &Subject::common_name(name)).unwrap_or_default()
}

impl World {
    /// A hostile party does something.
    pub(crate) fn hostile_acts(&mut self, index: usize) {
        if self.healthy {
            if let Some(connection) = self.hostiles[index].connection.take() {
                self.close(connection, "Client Closed");
            }
            return;
        }
        let again = self.between(Duration::from_millis(100), Duration::from_secs(8));
        self.agenda.plan(self.now + again, Event::Hostile { index });
        let Some(connection) = self.hostiles[index].connection else {
            return self.connect_hostile(index);
        };
        match self.random.random_range(0..9) {
            0..3 => self.forge_event(index, connection),
            3 => self.forge_registration(index, connection),
            4 => self.forge_garbage(index, connection),
            5 => self.forge_discovery(index, connection),
            _ => self.forge_reply(index, connection),
        }
    }

    fn connect_hostile(&mut self, index: usize) {
        let identity = self.hostiles[index].identity.clone();
        let token = Material::get().token(None);
        let Ok(connection) = self.connect(Party::Hostile(index), &identity, &Proof::Token(&token)) else { return };
        self.hostiles[index].connection = Some(connection);
        let own = subjects::node(subjects::PROVISIONING_COLLECTIVE, &identity);
        let all = subjects::broadcast_agent(subjects::PROVISIONING_COLLECTIVE, DISCOVERY_AGENT);
        for filter in [own, all] {
            if self.broker.subscribe(connection, &filter).is_err() {
                self.violate(format!("{identity} may not subscribe {filter}"));
            }
        }
        for filter in ["provisioning.node.>", "provisioning.reply.>", "choria.lifecycle.>", ">"] {
            if self.broker.subscribe(connection, filter).is_ok() {
                self.violate(format!("{identity} may subscribe {filter}"));
            }
        }
    }

    fn hostile_says(&mut self, index: usize, connection: ConnectionId, subject: &str, payload: Vec<u8>) {
        self.stats.megabyte_messages += u64::from(payload.len() > 500_000);
        let said = self.publish(Party::Hostile(index), Some(connection), subject, payload);
        if matches!(said, Err(NotTaken::Forged | NotTaken::NotAllowed)) {
            self.stats.forged_refused_by_broker += 1;
        }
    }

    /// A name to speak for: of a machine, its own, or of nobody.
    fn somebody(&mut self, index: usize) -> String {
        match self.random.random_range(0..4) {
            0 => self.hostiles[index].identity.clone(),
            1 | 2 => {
                let machine = self.random.random_range(0..self.machines.len());
                self.machines[machine].identity.clone()
            }
            _ => format!("nobody{}.lab.test", self.random.random_range(0..500)),
        }
    }

    fn forge_event(&mut self, index: usize, connection: ConnectionId) {
        let burst = if self.random.random_bool(0.1) { self.random.random_range(10..80) } else { 1 };
        note!(self, "h{index} forges {burst} events");
        for _ in 0..burst {
            let identity = if burst > 1 {
                format!("nobody{}.lab.test", self.random.random_range(0..500))
            } else {
                self.somebody(index)
            };
            let startup = burst > 1 || self.random.random_bool(0.7);
            let kind = if startup { Kind::Startup { version: "1".to_owned() } } else { Kind::Shutdown };
            let component = *pick(&mut self.random, &[lifecycle::PROVISION_MODE_SERVER, lifecycle::SERVER]);
            let event = LifecycleEvent {
                kind,
                id: ids::event_id(),
                identity,
                component: component.to_owned(),
                timestamp: BEGINNING,
            };
            self.hostile_says(index, connection, &event.subject(), event.to_cloud_event().into_bytes());
        }
    }

    fn forge_registration(&mut self, index: usize, connection: ConnectionId) {
        let identity = self.somebody(index);
        note!(self, "h{index} forges a registration of {identity}");
        let payload = registration(&identity, BEGINNING);
        self.hostile_says(index, connection, subjects::PROVISIONING_REGISTRATION, payload);
    }

    fn forge_garbage(&mut self, index: usize, connection: ConnectionId) {
        let events = subjects::lifecycle("startup", lifecycle::PROVISION_MODE_SERVER);
        let reply = self.some_reply_subject(index);
        let subject = match self.random.random_range(0..3) {
            0 => events,
            1 => subjects::PROVISIONING_REGISTRATION.to_owned(),
            _ => reply,
        };
        note!(self, "h{index} sends garbage");
        let payload = self.garbage();
        self.hostile_says(index, connection, &subject, payload);
    }

    fn garbage(&mut self) -> Vec<u8> {
        match self.random.random_range(0..6) {
            0 => Vec::new(),
            1 => b"null".to_vec(),
            2 => "[".repeat(5000).into_bytes(),
            3 => b"{\"protocol\":\"io.choria.lifecycle.v1.startup\",\"identity\":\"*\"}".to_vec(),
            4 => (0..200).map(|_| self.random.random::<u8>()).collect(),
            _ => b"{\"protocol\":\"choria:transport:1\",\"data\":\"eA==\",\"headers\":null}".to_vec(),
        }
    }

    /// A reply subject that it was given, one that looks like it, or none at all.
    fn some_reply_subject(&mut self, index: usize) -> String {
        let seen = &self.hostiles[index].seen;
        let known = (!seen.is_empty()).then(|| pick(&mut self.random, seen).reply_to.clone());
        let Some(known) = known else {
            return format!("provisioning.reply.{:032x}.{:032x}", self.random.random::<u128>(), 7);
        };
        match self.random.random_range(0..3) {
            0 => known,
            1 => {
                let (prefix, _) = known.rsplit_once('.').unwrap_or((&known, ""));
                format!("{prefix}.{:032x}", self.random.random::<u128>())
            }
            _ => {
                let mut text = known.into_bytes();
                let last = text.len() - 1;
                text[last] = if text[last] == b'0' { b'1' } else { b'0' };
                String::from_utf8(text).unwrap_or_default()
            }
        }
    }

    /// Answers in the name of somebody, with everything it knows right but the subject, or with something wrong.
    fn forge_reply(&mut self, index: usize, connection: ConnectionId) {
        let seen = &self.hostiles[index].seen;
        if seen.is_empty() {
            return;
        }
        let Seen { mut envelope, action, .. } = pick(&mut self.random, seen).clone();
        let subject = self.some_reply_subject(index);
        let sender = self.somebody(index);
        if self.random.random_bool(0.2) {
            envelope.request_id = ids::request_id();
        }
        if self.random.random_bool(0.1) {
            envelope.agent = "discovery".to_owned();
        }
        note!(self, "h{index} forges a reply of {sender} to {action}");
        self.stats.forged_replies += 1;
        let data = match action.as_str() {
            "jwt" => json!({"jwt": Material::get().token(None), "ecdh_public": ""}),
            "inventory" => inventory(),
            "gencsr" => json!({"csr": request_for(&sender), "public_key": "x", "ssldir": "/tmp"}),
            _ => json!({"message": "done"}),
        };
        let code = if self.random.random_bool(0.7) { Reply::ok(data) } else { Reply::aborted("forged") };
        let message = if action == "discovery" { PONG.to_owned() } else { reply_text(&action, code) };
        let payload = reply_wire(&envelope, &sender, message);
        self.hostile_says(index, connection, &subject, payload);
    }

    /// Answers discovery in the names of others.
    fn forge_discovery(&mut self, index: usize, connection: ConnectionId) {
        let asked = self.hostiles[index].seen.iter().rev().find(|seen| seen.action == "discovery");
        let Some(Seen { envelope, reply_to, .. }) = asked.cloned() else { return };
        let names = self.random.random_range(1..30);
        note!(self, "h{index} answers discovery for {names} others");
        for _ in 0..names {
            self.stats.forged_discoveries += 1;
            let sender = self.somebody(index);
            let payload = reply_wire(&envelope, &sender, PONG.to_owned());
            self.hostile_says(index, connection, &reply_to, payload);
        }
    }

    pub(crate) fn deliver_to_hostile(&mut self, index: usize, connection: ConnectionId, message: &Rc<Message>) {
        if !self.hostiles[index].hears(connection) {
            self.stats.lost_with_connection += 1;
            return;
        }
        self.stats.delivered += 1;
        let identity = self.hostiles[index].identity.clone();
        let Ok(decoded) = v1::decode_request(&message.payload) else { return };
        let (request, headers) = (decoded.request, decoded.transport.headers);
        let action = check::action_of(&request.message);
        if action == "configure"
            && let Err(fault) = check::request_is_for(&identity, &request.message, &self.helper.attempts)
        {
            return self.violate(format!("{identity} got what belongs to another node: {fault}"));
        }
        let Ok(reply_to) = headers.reply_subject().map(str::to_owned) else { return };
        let hostile = &mut self.hostiles[index];
        hostile.seen.push(Seen {
            envelope: request.envelope.clone(),
            reply_to: reply_to.clone(),
            action: action.clone(),
        });
        if hostile.seen.len() > REMEMBERED {
            hostile.seen.remove(0);
        }
        let honest = hostile.honest;
        let payload = if action == "discovery" {
            if !rpc::is_ping(&rpc::decode_payload(&request.message)) {
                return;
            }
            reply_wire(&request.envelope, &identity, PONG.to_owned())
        } else if honest || self.random.random_bool(0.3) {
            reply_wire(&request.envelope, &identity, self.good_reply(&identity, &action, &request.message))
        } else {
            match self.bad_reply(index, &identity, &action, &request.envelope) {
                Some(payload) => payload,
                None => return,
            }
        };
        self.hostile_says(index, connection, &reply_to, payload);
    }

    fn good_reply(&self, identity: &str, action: &str, message: &str) -> String {
        let data = match action {
            "jwt" => json!({"jwt": Material::get().token(None), "ecdh_public": "07".repeat(32)}),
            "inventory" => inventory(),
            "gencsr" => {
                json!({"csr": request_for(identity), "public_key": key().public_pem(), "ssldir": "/etc/choria/ssl"})
            }
            _ => json!({"message": "done"}),
        };
        let known = RequestBody::parse(message.as_bytes()).is_ok();
        reply_text(action, if known { Reply::ok(data) } else { Reply::aborted("what?") })
    }

    /// What a node may answer to its own request to do harm.
    fn bad_reply(&mut self, index: usize, identity: &str, action: &str, envelope: &RequestEnvelope) -> Option<Vec<u8>> {
        self.stats.hostile_answers += 1;
        let victim = self.machines[0].identity.clone();
        let kind = self.random.random_range(0..13);
        note!(self, "h{index} answers {action} badly ({kind})");
        let wire = |data: Value| reply_wire(envelope, identity, reply_text(action, Reply::ok(data)));
        Some(match kind {
            0 => return None,
            1 => self.garbage(),
            2 => wire(Value::Null),
            3 => wire(json!({})),
            4 => wire(json!({"jwt": 5, "csr": 5, "version": 5, "message": 5, "ssldir": []})),
            5 => wire(json!({"jwt": "a.b.c", "csr": "hello", "version": "", "message": "x".repeat(300)})),
            6 => wire(json!({"csr": request_for(&victim), "public_key": "", "ssldir": "/etc/choria/ssl", "jwt": ""})),
            7 => wire(
                json!({"csr": request_for("admin.mcollective"), "ssldir": "../../etc", "jwt": Material::get().token(None)}),
            ),
            // Twice wrapped in base64 it is nearly a megabyte. Rare, because it takes longer than everything else.
            8 if self.random.random_bool(0.15) => wire(json!({"version": "x".repeat(580_000), "facts": {}})),
            8 => wire(json!({"version": "x".repeat(5000), "jwt": "x".repeat(5000), "facts": {}})),
            9 => reply_wire(envelope, &victim, reply_text(action, Reply::ok(json!({"message": "done"})))),
            11 => wire(json!({"jwt": Material::get().token(None), "ecdh_public": "", "configured": true})),
            10 => {
                let code =
                    *pick(&mut self.random, &[StatusCode::Aborted, StatusCode::UnknownAction, StatusCode::InvalidData]);
                let text = *pick(
                    &mut self.random,
                    &["Could not obtain provisioning lock", "Incorrect provision token supplied", "no"],
                );
                reply_wire(envelope, identity, reply_text(action, Reply::fail(code, text)))
            }
            _ => reply_wire(envelope, identity, reply_text("restart", Reply::ok(json!({"message": "done"})))),
        })
    }
}

/// A reply as it goes over the wire.
fn reply_wire(envelope: &RequestEnvelope, sender: &str, message: String) -> Vec<u8> {
    let reply = v1::Reply::to_request(envelope, sender, BEGINNING, message);
    v1::encode_reply(&reply, &Headers { mc_sender: Some(sender.to_owned()), ..Headers::default() })
}
