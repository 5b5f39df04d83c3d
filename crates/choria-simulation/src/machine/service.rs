//! What a machine's process does with requests: it checks, answers, works one job at a time, and dies in between.

use std::rc::Rc;
use std::time::Duration;

use choria_config::keys;
use choria_filter::{NodeView, matches};
use choria_protocol::lifecycle::Kind;
use choria_protocol::rpc::{self, DISCOVERY_AGENT, PONG, ReplyBody, RequestBody};
use choria_protocol::v1::{self, DecodedRequest, Request, RequestEnvelope, SecureRequest};
use choria_protocol::{ids, subjects};
use choria_rpc::{Call, CallContext, Reply, StatusCode};
use choria_server::provision::actions::Begun;
use serde_json::{Map, Value, json};

use super::{AGENTS, Job, Machine, MachineEvent};
use crate::broker::{ConnectionId, Party};
use crate::check::{self, CONFIG};
use crate::disk::Trouble;
use crate::material::TOKEN_SECRET;
use crate::scenario::{Script, pick};
use crate::world::{Message, World, note};

impl World {
    /// A message for a machine.
    pub(crate) fn deliver_to_machine(&mut self, index: usize, connection: ConnectionId, message: &Rc<Message>) {
        if !self.machines[index].hears(connection) {
            self.stats.lost_with_connection += 1;
            return;
        }
        self.stats.delivered += 1;
        let now = self.machine_now(index);
        let Machine { identity, process: Some(process), .. } = &mut self.machines[index] else { return };
        let agents = AGENTS.map(str::to_owned);
        let view = NodeView::new(identity, &agents, &[], &Value::Null).at(now.unix);
        let accepted = process.pipeline.accept(&message.subject, &message.payload, now.unix, |f| matches(f, &view));
        let Ok(request) = accepted else {
            note!(self, "{} does not serve a request of {}", self.short(index), self.name_of(message.from));
            return;
        };
        let dies = self.scenario.rates.node_at_request / 3.0;
        if self.chance(dies) {
            self.stats.node_kills_at_request += 1;
            return self.kill_machine(index, "is killed as a request arrives");
        }
        let body = rpc::decode_payload(&request.request.message).into_owned();
        if request.request.envelope.agent == DISCOVERY_AGENT {
            if rpc::is_ping(&body) {
                self.answer(index, request, PONG.to_owned());
            }
            return;
        }
        let Ok(body) = RequestBody::parse(&body) else { return };
        if request.request.envelope.agent == "rpcutil" {
            let reply = Reply::ok(inventory());
            return self.answer(index, request, reply_text(&body.action, reply));
        }
        self.begin(index, request, body);
    }

    fn begin(&mut self, index: usize, request: DecodedRequest, body: RequestBody) {
        let now = self.machine_now(index);
        let RequestBody { action, data, .. } = body;
        let call = Call { action: action.clone(), data, context: context(&request) };
        let Some(process) = &mut self.machines[index].process else { return };
        match process.actions.begin(&call, now, &mut self.random) {
            Begun::Answer(reply) => {
                let text = format!("{} is asked for {action}: {}", self.short(index), short(&reply));
                note!(self, "{text}");
                self.look_for_end(index);
                self.answer(index, request, reply_text(&action, reply));
            }
            Begun::Work(work) => {
                let inputs = (action == "configure").then_some(call.data);
                process.jobs.push_back(Job { request, action, work, inputs });
                self.next_job(index);
            }
        }
    }

    fn next_job(&mut self, index: usize) {
        let Some(process) = &mut self.machines[index].process else { return };
        if !process.busy && !process.jobs.is_empty() {
            process.busy = true;
            let takes = self.between(Duration::from_millis(1), Duration::from_millis(150));
            self.plan_machine(index, takes, MachineEvent::Work);
        }
    }

    /// Does a job, or dies in the middle of it.
    pub(super) fn work(&mut self, index: usize) {
        let trouble = self.draw_trouble();
        let now = self.machine_now(index);
        let machine = &mut self.machines[index];
        let Some(process) = &mut machine.process else { return };
        process.busy = false;
        let Some(Job { request, action, work, inputs }) = process.jobs.pop_front() else { return };
        if let Some(trouble) = trouble {
            machine.disk.set_trouble(trouble);
        }
        let is_member = !process.settings.is_provisioning();
        let reply = process.actions.work(work, now);
        let dead = machine.disk.is_dead();
        if dead {
            if let Some(inputs) = &inputs {
                let after = machine.books.after(inputs);
                machine.books.allowed.extend(after);
            }
            self.stats.node_kills_in_disk_operation += 1;
            let torn = matches!(trouble, Some(Trouble::Dies { torn: true, .. }));
            self.stats.torn_writes += u64::from(torn);
            return self.kill_machine(index, &format!("is killed within {action}"));
        }
        if self.scenario.script.is_none() {
            machine.disk.set_trouble(Trouble::None);
        }
        note!(self, "{} works at {action}: {}", self.short(index), short(&reply));
        if let Some(inputs) = inputs {
            self.configured(index, &reply, &inputs, is_member, trouble.is_some());
        }
        let dies = self.scenario.rates.node_at_request / 3.0;
        if self.chance(dies) {
            self.stats.node_kills_at_request += 1;
            return self.kill_machine(index, "is killed before it replies");
        }
        self.answer(index, request, reply_text(&action, reply));
        self.next_job(index);
    }

    /// A `configure` call came to an end.
    fn configured(&mut self, index: usize, reply: &Reply, inputs: &Map<String, Value>, is_member: bool, trouble: bool) {
        let ok = reply.code == StatusCode::Ok;
        let books = &mut self.machines[index].books;
        let after = books.after(inputs);
        if ok {
            self.stats.configures += 1;
            books.allowed = after;
            books.taken.extend(check::attempt_in(inputs));
            if is_member {
                return self.violate(format!("{} was configured although it is a member", self.short(index)));
            }
        } else {
            self.stats.configures_refused += 1;
            if trouble {
                // A disk that failed on the way there and on the way back leaves the decision to the next start.
                books.allowed.extend(after);
            }
        }
        // Cleaning up may be left to the next start, too.
        if trouble || !self.files_are_whole(index) || !ok {
            return;
        }
        let machine = &self.machines[index];
        let files = &machine.books.allowed[0];
        let whole = check::is_whole_member(&machine.disk, files, &machine.identity, &self.helper.attempts);
        if let Err(fault) = whole {
            self.violate(format!("{} took a configuration, but {fault}", self.short(index)));
        }
        self.announce(index, Kind::Provisioned);
    }

    /// What goes wrong with the disk during a job.
    fn draw_trouble(&mut self) -> Option<Trouble> {
        if self.healthy || self.scenario.script.is_some() {
            return None;
        }
        let (dies, fails) = (self.scenario.rates.node_in_work, self.scenario.rates.disk);
        let after = self.up_to(55);
        if self.chance(dies) {
            return Some(Trouble::Dies { after, torn: self.chance(0.5) });
        }
        if self.chance(fails) {
            self.stats.disk_failures += 1;
            let kinds = [Trouble::Hiccup { after }, Trouble::Full { after }, Trouble::Refuses { after }];
            return Some(*pick(&mut self.random, &kinds));
        }
        None
    }

    /// Sends a reply a little later.
    fn answer(&mut self, index: usize, request: DecodedRequest, message: String) {
        let takes = self.between(Duration::from_micros(50), Duration::from_millis(3));
        self.plan_machine(index, takes, MachineEvent::Reply(Box::new((request, message))));
    }

    pub(super) fn reply(&mut self, index: usize, request: &DecodedRequest, message: String) {
        let number = self.machines[index].books.replies;
        let scripted = |half| index == 0 && self.scenario.script == Some(Script::MachineAtReply(number * 2 + half));
        let (before, after) = (scripted(0), scripted(1));
        self.machines[index].books.replies += 1;
        if before {
            self.stats.node_kills_at_request += 1;
            return self.kill_machine(index, "is killed before its reply");
        }
        let unix = self.machine_now(index).unix;
        let machine = &self.machines[index];
        if let Ok(subject) = request.transport.headers.reply_subject() {
            let mut headers = request.transport.headers.for_reply(&machine.identity);
            headers.add_hop("nats://broker.lab.test:4222", &machine.identity);
            let reply = v1::Reply::to_request(&request.request.envelope, &machine.identity, unix, message);
            let connection = machine.process.as_ref().and_then(|process| process.connection);
            let _ = self.publish(Party::Machine(index), connection, subject, v1::encode_reply(&reply, &headers));
        }
        let dies = self.scenario.rates.node_at_request / 3.0;
        if after || self.chance(dies) {
            self.stats.node_kills_at_request += 1;
            self.kill_machine(index, "is killed after its reply");
        }
    }

    /// An operator sends a member back into provisioning.
    pub(crate) fn reprovision(&mut self, index: usize) {
        let now = self.machine_now(index);
        let trouble = self.draw_trouble();
        let machine = &mut self.machines[index];
        let Some(process) = machine.process.as_mut().filter(|process| !process.settings.is_provisioning()) else {
            return;
        };
        let Some(before) = machine.books.allowed.first().cloned() else { return };
        let mut after = before.clone();
        let logfile = process.settings.config().get(&keys::LOGFILE);
        let lines = format!(
            "plugin.choria.server.provision=1\nloglevel=debug\nlogfile={logfile}\nidentity={}\n",
            machine.identity
        );
        after.insert(CONFIG.to_owned(), lines);
        if let Some(trouble) = trouble {
            machine.disk.set_trouble(trouble);
        }
        let mut data = Map::new();
        data.insert("token".to_owned(), Value::from(TOKEN_SECRET));
        let context = CallContext {
            request_id: ids::request_id(),
            sender: "operator.test".to_owned(),
            caller: "choria=operator".to_owned(),
            collective: "mcollective".to_owned(),
            agent: "choria_provision".to_owned(),
            ttl: 60,
            time: now.unix,
        };
        let call = Call { action: "reprovision".to_owned(), data, context };
        let begun = process.actions.begin(&call, now, &mut self.random);
        let done = matches!(&begun, Begun::Answer(reply) if reply.code == StatusCode::Ok);
        if machine.disk.is_dead() {
            machine.books.allowed = vec![before, after];
            self.stats.node_kills_in_disk_operation += 1;
            return self.kill_machine(index, "is killed as it is sent back into provisioning");
        }
        machine.disk.set_trouble(Trouble::None);
        machine.books.allowed = match (done, trouble) {
            (true, _) => vec![after],
            (false, None) => vec![before],
            // The name may have changed although bringing it to the disk failed.
            (false, Some(_)) => vec![before, after],
        };
        note!(self, "{} is sent back into provisioning: {}", self.short(index), if done { "OK" } else { "refused" });
        self.stats.reprovisioned += u64::from(done);
        if self.files_are_whole(index) && done {
            self.look_for_end(index);
        }
    }
}

fn context(request: &DecodedRequest) -> CallContext {
    let envelope = &request.request.envelope;
    CallContext {
        request_id: envelope.request_id.clone(),
        sender: envelope.sender_id.clone(),
        caller: envelope.caller_id.clone(),
        collective: envelope.collective.clone(),
        agent: envelope.agent.clone(),
        ttl: envelope.ttl,
        time: envelope.time,
    }
}

/// The text of a reply body.
pub(crate) fn reply_text(action: &str, reply: Reply) -> String {
    ReplyBody { action: action.to_owned(), statuscode: reply.code as u8, statusmsg: reply.message, data: reply.data }
        .to_text()
}

/// A reply for the history: no paths, numbers or texts that differ from run to run.
fn short(reply: &Reply) -> &str {
    match reply.code {
        StatusCode::Ok => "OK",
        _ => reply.message.split([':', '/']).next().unwrap_or_default(),
    }
}

/// What a node tells of itself.
pub(crate) fn inventory() -> Value {
    json!({
        "agents": AGENTS, "classes": [], "collectives": ["provisioning"], "data_plugins": [], "facts": {"dc": "ams"},
        "machines": [], "main_collective": "provisioning", "version": "0.30.2", "upgradable": false
    })
}

/// Registration data of a node.
pub(crate) fn registration(identity: &str, unix: i64) -> Vec<u8> {
    let request = Request {
        message: "{}".to_owned(),
        envelope: RequestEnvelope {
            request_id: ids::request_id(),
            sender_id: identity.to_owned(),
            caller_id: format!("choria={identity}"),
            collective: subjects::PROVISIONING_COLLECTIVE.to_owned(),
            agent: "registration".to_owned(),
            ttl: 60,
            time: unix,
            filter: Default::default(),
        },
    };
    v1::encode_request(&SecureRequest::unsigned_registration(request.to_text()), &Default::default())
}
