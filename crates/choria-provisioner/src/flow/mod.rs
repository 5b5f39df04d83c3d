//! The way of one node from its first request to the acknowledged `restart` (spec 04 §6), as a state machine.
//!
//! It does no I/O: [`Flow::handle`] takes what happened and the time, and appends what to do. One flow has one
//! thing under way at a time (a call, a pause before the next try, or the helper) and one timer.
//!
//! ```text
//! jwt (features.jwt) -> inventory -> gencsr (features.pki) -> helper -> configure -> restart -> provisioned
//!        |                  |             |                     |
//!     checks token       typed        checks CSR      defer / shutdown / checks answer
//! ```
//!
//! Until `configure` is sent the flow may be broken off at any point and the node is as it was found. From then
//! on it is led to its end.

mod action;
mod reply;
mod types;

use std::sync::Arc;
use std::time::{Duration, Instant};

use choria_connector::backoff::FIVE_SEC;
use choria_protocol::rpc::{ReplyBody, RequestBody};
use choria_tokens::ProvisioningClaims;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value};

pub use action::Action;
pub use types::{Call, Confidential, Input, Now, Outcome, Output, SendFault, Stop, View};

use crate::answer;
use crate::helper::{CsrReply, HelperAnswer, HelperError, Question};
use crate::metrics::Phase;
use crate::rules::{CheckedCsr, Refusal, Rules};

/// How long a node that was seen to start as a fleet member, or whose connection ended, may take to answer.
const DOUBT_WAIT: Duration = Duration::from_secs(2);

/// Pauses before a node is asked again that nobody listens for: it may be on its way back. Then it is given up until it is
/// seen again.
const ABSENT_PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];

/// The same before `restart`: a node that has its configuration may be restarting already, and is seen coming home.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum State {
    New,
    /// A request is out.
    Calling {
        action: Action,
        attempt: u32,
        call: u64,
        since: Instant,
        until: Instant,
    },
    /// Before the next try.
    Pausing {
        action: Action,
        attempt: u32,
        until: Instant,
    },
    /// The helper has the node, or it waits for a free one.
    Helper {
        since: Instant,
    },
    Over,
}

/// What was learnt so far.
#[derive(Debug, Default)]
struct Gathered {
    claims: Option<ProvisioningClaims>,
    ecdh_public: String,
    /// `gencsr` without a name asks for a request for the node's identity: the same text for all such nodes.
    identity_csr: bool,
    inventory: String,
    csr: Option<(CsrReply, CheckedCsr)>,
    /// Everything above, once the helper was asked.
    question: Option<Arc<Question>>,
    configure: Option<Confidential>,
    home: String,
    shutdown_message: String,
}

/// One node's way through provisioning.
#[derive(Debug)]
pub struct Flow {
    identity: Arc<str>,
    rules: Arc<Rules>,
    fresh: bool,
    rng: SmallRng,
    state: State,
    gathered: Gathered,
    calls: u64,
    /// When the attempt has taken too long, unless `configure` was sent.
    budget_ends: Instant,
    phase_since: Instant,
    stop: Option<Stop>,
    offline_since: Option<Instant>,
    /// It was seen to start as a fleet member and has not answered since.
    came_home: bool,
    /// Its connection ended and it has not answered since.
    left: bool,
    /// Calls in a row for which nobody listened.
    absent: usize,
}

/// What a good reply leads to.
enum Step {
    Next(Action),
    Helper,
    Done(Outcome),
}

/// What is wrong with a reply.
enum Fault {
    /// The try failed; another one may work.
    Try(String),
    /// No other try would help.
    Refused(Refusal),
}

impl Flow {
    /// A flow that has not begun. `fresh`: the node got no request of ours lately, so documents that were
    /// signed for many nodes may be used. `seed` draws the jitter of pauses.
    pub fn new(identity: Arc<str>, rules: Arc<Rules>, fresh: bool, seed: u64, now: Now) -> Self {
        let budget_ends = now.mono + rules.node_budget;
        Self {
            identity,
            rules,
            fresh,
            rng: SmallRng::seed_from_u64(seed),
            state: State::New,
            gathered: Gathered::default(),
            calls: 0,
            budget_ends,
            phase_since: now.mono,
            stop: None,
            offline_since: None,
            came_home: false,
            left: false,
            absent: 0,
        }
    }

    /// What it is doing.
    pub fn view(&self) -> View {
        match self.state {
            State::New => View::Starting,
            State::Calling { action, attempt, since, until, .. } => View::Calling { action, attempt, since, until },
            State::Pausing { action, attempt, until } => View::Pausing { action, attempt, until },
            State::Helper { since } => View::Helper { since },
            State::Over => View::Over,
        }
    }

    /// The node.
    pub fn identity(&self) -> &Arc<str> {
        &self.identity
    }

    /// Whether breaking off now leaves the node as it was found.
    pub fn may_be_broken_off(&self) -> bool {
        match self.state {
            State::New | State::Helper { .. } | State::Over => true,
            State::Calling { action, .. } => action.may_be_broken_off(),
            // The first try of `configure` may have reached the node although no answer came.
            State::Pausing { action, .. } => action.may_be_broken_off(),
        }
    }

    /// Takes what happened, appends what to do. After [`Output::Done`] everything is ignored.
    pub fn handle(&mut self, input: Input, now: Now, out: &mut Vec<Output>) {
        match (input, &self.state) {
            (_, State::Over) => {}
            (Input::Start, State::New) => {
                let first = if self.rules.features.jwt { Action::Jwt } else { Action::Inventory };
                self.call(first, 1, now, out);
            }
            (Input::Reply { call, reply }, State::Calling { action, attempt, call: open, since, .. })
                if call == *open =>
            {
                let (action, attempt) = (*action, *attempt);
                out.push(Output::Tried(action, now.mono.saturating_duration_since(*since)));
                out.push(Output::Answered);
                self.offline_since = None;
                (self.came_home, self.left, self.absent) = (false, false, 0);
                self.replied(action, attempt, reply, now, out);
            }
            (Input::SendFailed { call, fault }, State::Calling { action, attempt, call: open, .. })
                if call == *open =>
            {
                let (action, attempt) = (*action, *attempt);
                self.not_sent(action, attempt, fault, now, out);
            }
            (Input::Helper(result), State::Helper { since }) => {
                // Waiting for the helper is not the node's fault.
                self.budget_ends += now.mono.saturating_duration_since(*since);
                self.phase_since = now.mono;
                self.helped(result, now, out);
            }
            (Input::Timer, _) => self.timer(now, out),
            (Input::Stop(stop), _) => self.stopped(stop, out),
            (Input::Recall(stop), State::Helper { .. }) => self.finish(interrupted(stop, "the helper"), out),
            // The answer to `restart` was lost, the restart was not.
            (
                Input::CameHome,
                State::Calling { action: Action::Restart, .. } | State::Pausing { action: Action::Restart, .. },
            ) => {
                self.end_phase(Phase::Restart, now, out);
                let home = std::mem::take(&mut self.gathered.home);
                self.finish(Outcome::Provisioned { home }, out);
            }
            // Another provisioner, which was stopped in the middle, has brought it that far. Members can announce what they
            // like, so the node gets the time to answer if it is still here.
            (Input::CameHome, State::Calling { .. }) => {
                self.came_home = true;
                self.wait_no_longer_than(DOUBT_WAIT, now, out);
            }
            (Input::CameHome, State::Pausing { .. } | State::Helper { .. }) => self.came_home = true,
            // That is what `restart` and `shutdown` are for.
            (Input::Disconnected, State::Calling { action: Action::Restart | Action::Shutdown, .. }) => {}
            // It may be back in a moment, and what it was asked may still be answered.
            (Input::Disconnected, State::Calling { .. }) => {
                self.left = true;
                self.wait_no_longer_than(DOUBT_WAIT, now, out);
            }
            (Input::Disconnected, State::Pausing { .. } | State::Helper { .. }) => self.left = true,
            (Input::NodeRestarted, State::Calling { .. }) => self.begin_anew("the node restarted", now, out),
            (Input::ConnectedAnew, State::Calling { .. }) => self.begin_anew("the connection was lost", now, out),
            (Input::ConnectedAnew, State::Pausing { .. } | State::Helper { .. }) => self.left = false,
            // Late replies, answers to calls that were given up, a second start.
            _ => {}
        }
    }

    /// What the node was asked is lost. It is asked again, from the first question on while that is still possible.
    fn begin_anew(&mut self, cause: &str, now: Now, out: &mut Vec<Output>) {
        let State::Calling { action, attempt, since, .. } = self.state else { return };
        self.left = false;
        out.push(Output::Tried(action, now.mono.saturating_duration_since(since)));
        if action.may_be_broken_off() {
            let error = format!("{cause} during {}", action.label());
            self.finish(Outcome::Interrupted { error }, out);
        } else {
            self.try_failed(action, attempt, cause, now, out);
        }
    }

    fn timer(&mut self, now: Now, out: &mut Vec<Output>) {
        let breakable = self.may_be_broken_off();
        match self.state {
            State::Calling { .. } | State::Pausing { .. } if breakable && now.mono >= self.budget_ends => {
                let seconds = self.rules.node_budget.as_secs();
                let error = format!("the attempt took longer than {seconds}s (node_budget) and was given up");
                self.finish(Outcome::Failed { error }, out);
            }
            State::Calling { action, attempt, since, until, .. } if now.mono >= until => {
                out.push(Output::Tried(action, now.mono.saturating_duration_since(since)));
                if self.came_home {
                    self.finish(Outcome::Home, out);
                    return;
                }
                if self.left && breakable {
                    self.finish(Outcome::Gone, out);
                    return;
                }
                let cause = format!("received 0 responses while expecting a response from {}", self.identity);
                self.try_failed(action, attempt, &cause, now, out);
            }
            State::Pausing { action, attempt, until } if now.mono >= until => self.call(action, attempt, now, out),
            State::Calling { until, .. } | State::Pausing { until, .. } => self.wake(until, out),
            State::New | State::Helper { .. } | State::Over => {}
        }
    }

    fn stopped(&mut self, stop: Stop, out: &mut Vec<Output>) {
        match self.state {
            State::Helper { .. } if stop != Stop::NodeGone => self.stop = Some(stop),
            _ if !self.may_be_broken_off() => {}
            _ => {
                let action = match self.state {
                    State::Calling { action, .. } | State::Pausing { action, .. } => action.label(),
                    State::New | State::Helper { .. } | State::Over => "the next step",
                };
                self.finish(interrupted(stop, action), out);
            }
        }
    }

    /// Sends a try of an action, unless the flow was told to stop.
    fn call(&mut self, action: Action, attempt: u32, now: Now, out: &mut Vec<Output>) {
        // Set only while the helper had the node, so nothing was changed there yet.
        if let Some(stop) = self.stop {
            self.finish(interrupted(stop, action.label()), out);
            return;
        }
        self.calls += 1;
        let body = self.body(action);
        let in_doubt = self.came_home || self.left;
        let wait = if in_doubt { action.wait().min(DOUBT_WAIT) } else { action.wait() };
        let until = now.mono + wait;
        self.state = State::Calling { action, attempt, call: self.calls, since: now.mono, until };
        let same = action.is_same_for_all() || (action == Action::GenCsr && self.gathered.identity_csr);
        let shared = self.fresh && attempt == 1 && same;
        out.push(Output::Call(Call { number: self.calls, action, body, shared, attempt }));
        self.wake(until, out);
    }

    /// Shortens the wait of the open call.
    fn wait_no_longer_than(&mut self, most: Duration, now: Now, out: &mut Vec<Output>) {
        let State::Calling { until, .. } = &mut self.state else { return };
        *until = (*until).min(now.mono + most);
        let until = *until;
        self.wake(until, out);
    }

    fn wake(&self, until: Instant, out: &mut Vec<Output>) {
        let at = if self.may_be_broken_off() { until.min(self.budget_ends) } else { until };
        out.push(Output::Wake(at));
    }

    fn body(&self, action: Action) -> Confidential {
        if let (Action::Configure, Some(body)) = (action, &self.gathered.configure) {
            return body.clone();
        }
        let mut data = Map::new();
        match action {
            Action::Inventory => {}
            Action::GenCsr if self.gathered.identity_csr => {}
            Action::GenCsr => {
                data.insert("cn".to_owned(), Value::from(&*self.identity));
            }
            Action::Restart => {
                data.insert("splay".to_owned(), Value::from(1));
            }
            Action::Jwt | Action::Configure | Action::Shutdown => {}
        }
        if action != Action::Inventory {
            data.insert("token".to_owned(), Value::from(self.rules.token.expose()));
        }
        rpc_body(action, data)
    }

    fn replied(
        &mut self,
        action: Action,
        attempt: u32,
        reply: Result<ReplyBody, String>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let step = match reply {
            Err(fault) => Err(Fault::Try(format!("could not process reply from {}: {fault}", self.identity))),
            Ok(reply) if reply.action != action.name() => {
                let got = reply::status(&reply.action);
                Err(Fault::Try(format!("{} answered action {got:?} to {}", self.identity, action.label())))
            }
            Ok(reply) if reply.statuscode != 0 => self.denied(action, &reply),
            Ok(reply) => self.accept(action, &reply.data, now, out),
        };
        match step {
            Ok(Step::Next(next)) => self.call(next, 1, now, out),
            Ok(Step::Helper) => self.ask_helper(now, out),
            Ok(Step::Done(outcome)) => self.finish(outcome, out),
            Err(Fault::Try(cause)) => self.try_failed(action, attempt, &cause, now, out),
            Err(Fault::Refused(refusal)) => self.finish(Outcome::Refused(refusal), out),
        }
    }

    /// A reply with another status than 0.
    fn denied(&self, action: Action, reply: &ReplyBody) -> Result<Step, Fault> {
        let words = reply::status(&reply.statusmsg);
        let cause = format!("invalid response from {}: {words} ({})", self.identity, reply.statuscode);
        match (action, words.as_str(), reply.statuscode) {
            // The request was delivered, which is all that the helper asked for.
            (Action::Shutdown, ..) => Ok(Step::Done(self.shut_down(false))),
            (_, "Could not obtain provisioning lock", _) => Ok(Step::Done(Outcome::Locked)),
            // Another provisioner has brought it that far.
            (_, "This server is configured and about to restart", _) => Ok(Step::Done(Outcome::Home)),
            (_, "Incorrect provision token supplied", _) => {
                let error = format!("{} (the setting token must be the node's)", action.failed(&cause));
                Err(Fault::Refused(Refusal { reason: "node_token", error }))
            }
            // The node does not know the action; asking again does not teach it.
            (_, _, 2) => Err(Fault::Refused(Refusal { reason: "unknown_action", error: action.failed(&cause) })),
            _ => Err(Fault::Try(cause)),
        }
    }

    fn shut_down(&self, confirmed: bool) -> Outcome {
        Outcome::ShutDown { confirmed, message: self.gathered.shutdown_message.clone() }
    }

    /// A reply with status 0: parses it into its type and checks it.
    fn accept(&mut self, action: Action, data: &Value, now: Now, out: &mut Vec<Output>) -> Result<Step, Fault> {
        let undecodable = |fault: String| Fault::Try(format!("could not decode reply from {}: {fault}", self.identity));
        match action {
            Action::Jwt => {
                let reply = reply::jwt(data).map_err(undecodable)?;
                let claims = self.rules.check_token(&reply.jwt, now.unix).map_err(Fault::Refused)?;
                if reply.configured {
                    // Whoever configured it was stopped before the restart. Its certificate and settings are in force already.
                    self.gathered.home = self.identity.to_string();
                    return Ok(Step::Next(Action::Restart));
                }
                self.gathered.claims = Some(claims);
                self.gathered.ecdh_public = reply.ecdh_public;
                self.gathered.identity_csr = reply.identity_csr;
                Ok(Step::Next(Action::Inventory))
            }
            Action::Inventory => {
                self.gathered.inventory = reply::inventory(data).map_err(undecodable)?;
                Ok(if self.rules.features.pki { Step::Next(Action::GenCsr) } else { Step::Helper })
            }
            Action::GenCsr => {
                let mut reply = reply::csr(data).map_err(undecodable)?;
                let checked = self.rules.check_csr(&reply, &self.identity).map_err(Fault::Refused)?;
                reply.csr.clone_from(&checked.facts.pem);
                self.gathered.csr = Some((reply, checked));
                Ok(Step::Helper)
            }
            Action::Configure => {
                reply::message(data).map_err(undecodable)?;
                self.end_phase(Phase::Configure, now, out);
                Ok(Step::Next(Action::Restart))
            }
            Action::Restart => {
                reply::message(data).map_err(undecodable)?;
                self.end_phase(Phase::Restart, now, out);
                Ok(Step::Done(Outcome::Provisioned { home: std::mem::take(&mut self.gathered.home) }))
            }
            Action::Shutdown => {
                reply::message(data).map_err(undecodable)?;
                Ok(Step::Done(self.shut_down(true)))
            }
        }
    }

    fn end_phase(&mut self, phase: Phase, now: Now, out: &mut Vec<Output>) {
        out.push(Output::Phase(phase, now.mono.saturating_duration_since(self.phase_since)));
        self.phase_since = now.mono;
    }

    fn ask_helper(&mut self, now: Now, out: &mut Vec<Output>) {
        if let Some(stop) = self.stop {
            self.finish(interrupted(stop, "the helper"), out);
            return;
        }
        self.end_phase(Phase::Gather, now, out);
        let question = Arc::new(Question {
            identity: Arc::clone(&self.identity),
            csr: self.gathered.csr.take(),
            inventory: std::mem::take(&mut self.gathered.inventory),
            jwt: self.gathered.claims.take(),
        });
        self.gathered.question = Some(Arc::clone(&question));
        out.push(Output::RunHelper(question));
        self.state = State::Helper { since: now.mono };
    }

    fn helped(&mut self, result: Result<HelperAnswer, HelperError>, now: Now, out: &mut Vec<Output>) {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                let (reason, error) = (error.reason(), format!("could not invoke configure helper: {error}"));
                self.finish(Outcome::HelperFailed { reason, error }, out);
                return;
            }
        };
        if answer.defer {
            self.finish(Outcome::Deferred { message: answer.msg }, out);
            return;
        }
        if let Some(error) = answer.denied {
            self.finish(Outcome::Refused(Refusal::new("rule_denied", error)), out);
            return;
        }
        if answer.shutdown {
            self.gathered.shutdown_message = answer.msg;
            self.call(Action::Shutdown, 1, now, out);
            return;
        }
        let question = self.gathered.question.as_deref();
        let about = answer::About {
            identity: &self.identity,
            token: &self.rules.token,
            claims: question.and_then(|question| question.jwt.as_ref()),
            csr: question.and_then(|question| question.csr.as_ref()).map(|(reply, checked)| (reply, checked)),
            ecdh_public: &self.gathered.ecdh_public,
            now: now.unix,
        };
        match answer::plan(answer, &about) {
            Ok(plan) => {
                out.extend(plan.notes.into_iter().map(Output::Note));
                self.gathered.home = plan.home;
                self.gathered.configure = Some(rpc_body(Action::Configure, plan.data));
                self.call(Action::Configure, 1, now, out);
            }
            Err(refusal) => self.finish(Outcome::Refused(refusal), out),
        }
    }

    fn not_sent(&mut self, action: Action, attempt: u32, fault: SendFault, now: Now, out: &mut Vec<Output>) {
        match fault {
            SendFault::Impossible(reason) => {
                out.push(Output::Exhausted(action));
                self.finish(Outcome::Failed { error: action.failed(&reason) }, out);
            }
            SendFault::NobodyListens => self.nobody_listens(action, attempt, now, out),
            SendFault::NotConnected(reason) if action.may_be_broken_off() => {
                self.finish(Outcome::Interrupted { error: action.failed(&reason) }, out);
            }
            // The node may have its configuration already: wait for the connection instead of using up tries.
            SendFault::NotConnected(reason) => {
                let since = *self.offline_since.get_or_insert(now.mono);
                if now.mono.saturating_duration_since(since) > self.rules.node_budget {
                    self.finish(Outcome::Failed { error: action.failed(&reason) }, out);
                } else {
                    let delay = FIVE_SEC.delay(1, &mut self.rng);
                    self.pause(action, attempt, delay, now, out);
                }
            }
        }
    }

    /// The broker says that nobody is there under the node's name.
    fn nobody_listens(&mut self, action: Action, attempt: u32, now: Now, out: &mut Vec<Output>) {
        let cause = format!("nobody listens as {}: it is not connected", self.identity);
        match action {
            Action::Jwt | Action::Inventory | Action::GenCsr => {
                let Some(pause) = ABSENT_PAUSES.get(self.absent) else {
                    self.finish(Outcome::Absent { error: action.failed(&cause) }, out);
                    return;
                };
                self.absent += 1;
                out.push(Output::TryFailed { action, attempt, cause });
                // Spread, because whole networks go and come at once.
                let delay = pause.mul_f64(self.rng.random_range(0.75..1.25));
                self.pause(action, attempt, delay, now, out);
            }
            Action::Configure => self.try_failed(action, attempt, &cause, now, out),
            Action::Restart if attempt < action.tries() => {
                out.push(Output::TryFailed { action, attempt, cause });
                self.pause(action, attempt + 1, RESTART_PAUSE, now, out);
            }
            Action::Restart => self.try_failed(action, attempt, &cause, now, out),
            Action::Shutdown => self.finish(Outcome::Gone, out),
        }
    }

    fn try_failed(&mut self, action: Action, attempt: u32, cause: &str, now: Now, out: &mut Vec<Output>) {
        if attempt >= action.tries() {
            out.push(Output::Exhausted(action));
            self.finish(Outcome::Failed { error: action.failed(cause) }, out);
            return;
        }
        out.push(Output::TryFailed { action, attempt, cause: cause.to_owned() });
        let delay = FIVE_SEC.delay(attempt, &mut self.rng);
        self.pause(action, attempt + 1, delay, now, out);
    }

    fn pause(&mut self, action: Action, attempt: u32, delay: Duration, now: Now, out: &mut Vec<Output>) {
        let until = now.mono + delay;
        self.state = State::Pausing { action, attempt, until };
        self.wake(until, out);
    }

    fn finish(&mut self, outcome: Outcome, out: &mut Vec<Output>) {
        self.state = State::Over;
        out.push(Output::Done(outcome));
    }
}

fn rpc_body(action: Action, data: Map<String, Value>) -> Confidential {
    let body = RequestBody { agent: action.agent().to_owned(), action: action.name().to_owned(), data };
    Confidential(Arc::from(body.to_text()))
}

fn interrupted(stop: Stop, what: &str) -> Outcome {
    match stop {
        Stop::NodeGone => Outcome::Gone,
        Stop::Paused => Outcome::Interrupted { error: format!("provisioning is paused, cannot perform {what}") },
        Stop::Crowded => Outcome::Interrupted {
            error: format!("its answer was late and others are worked on, cannot perform {what}"),
        },
        Stop::Draining => Outcome::Interrupted { error: format!("provisioning is stopping, cannot perform {what}") },
    }
}

#[cfg(test)]
mod tests;
