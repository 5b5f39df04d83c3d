//! Nodes in the flow: starting them, carrying out what their flows want, ending them.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use choria_protocol::subjects;

use super::books::HelperTrouble;
use super::history::{Attempt, End, Happening, What};
use super::{Effect, Engine};
use crate::flow::{Action, Call, Flow, Input, Now, Outcome, Output, SendFault, Stop};
use crate::helper::{HelperAnswer, HelperError, Question, RunNotes};
use crate::inbox::Expectation;
use crate::metrics::Phase;
use crate::queue::{Ending, Turn};

/// How soon a node that the helper put off may come again. It comes when it is seen again.
const DEFERRED: Duration = Duration::from_secs(1);
/// How long the lock of another provisioner holds a node (spec 03 §7).
const LOCKED: Duration = Duration::from_secs(120);

/// One node in the flow.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) flow: Flow,
    /// When its flow wants to be called next.
    pub(super) wake: Instant,
    /// Whether it has answered.
    pub(super) engaged: bool,
    /// The reply subject that is open for it.
    open: Option<u128>,
    /// What the helper is asked, while the node waits for a free one.
    question: Option<Arc<Question>>,
    /// What was done so far, for people.
    pub(super) attempt: Attempt,
    first_seen: Instant,
    /// When its flow began.
    pub(super) started: Instant,
    helper_since: Instant,
}

impl Node {
    /// Whether it waits for a free helper.
    pub(super) fn waits_for_helper(&self) -> bool {
        self.question.is_some()
    }
}

impl Engine {
    /// Starts queued nodes as far as the limits allow.
    pub(super) fn start_waiting(&mut self, now: Now) {
        let backlog = self.helper_backlog();
        while self.connected && !self.paused && !self.draining && self.helper_queue.len() < backlog {
            match self.scheduler.next_turn(now.mono) {
                None => return,
                Some(Turn::Stale { identity, waited }) => {
                    self.metrics.provision_errors.add();
                    self.books.history.happened(&identity, Happening::Stale, now.mono);
                    tracing::warn!("skipping node that's been waiting {:.0}s: {identity}", waited.as_secs_f64());
                }
                Some(Turn::Start { identity, first_seen, fresh }) => self.start(identity, first_seen, fresh, now),
            }
        }
    }

    /// Nodes that may wait for the helper: beyond it more would only wait there instead of in the queue.
    pub(super) fn helper_backlog(&self) -> usize {
        self.settings.workers.saturating_mul(32).max(64)
    }

    fn start(&mut self, identity: Arc<str>, first_seen: Instant, fresh: bool, now: Now) {
        let id = self.next_flow;
        self.next_flow += 1;
        self.metrics.phase(Phase::Queued, now.mono.saturating_duration_since(first_seen));
        let seed = self.random.next_u64();
        let flow = Flow::new(Arc::clone(&identity), Arc::clone(&self.rules), fresh, seed, now);
        let attempt = self.books.history.attempt(&identity, now.mono);
        let node = Node {
            attempt,
            flow,
            wake: now.mono,
            engaged: false,
            open: None,
            question: None,
            first_seen,
            started: now.mono,
            helper_since: now.mono,
        };
        self.nodes.insert(id, node);
        self.by_identity.insert(identity, id);
        self.drive(id, Input::Start, now);
    }

    /// Hands an input to a flow and carries out what comes of it.
    pub(super) fn drive(&mut self, id: u64, input: Input, now: Now) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let mut outputs = Vec::with_capacity(4);
        node.flow.handle(input, now, &mut outputs);
        for output in outputs {
            self.carry_out(id, output, now);
        }
    }

    fn carry_out(&mut self, id: u64, output: Output, now: Now) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        match output {
            Output::Call(call) => {
                node.attempt.step(What::Call(call.action), call.attempt, now.mono);
                self.send(id, &call, now);
            }
            Output::Wake(at) => {
                node.wake = at;
                self.timers.push(Reverse((at, id)));
            }
            Output::RunHelper(question) => {
                node.question = Some(question);
                node.helper_since = now.mono;
                node.attempt.step(What::HelperWait, 1, now.mono);
                self.close_reply(id, now);
                self.helper_queue.push_back(id);
                self.start_helpers(now);
            }
            Output::Answered => {
                if !node.engaged {
                    node.engaged = true;
                    self.scheduler.first_answer_took(now.mono.saturating_duration_since(node.started));
                    let identity = Arc::clone(node.flow.identity());
                    if !self.scheduler.answered(&identity) {
                        // Its flow is over, and what else came of its answer is not carried out; at the helper it ends after that.
                        self.drive(id, Input::Stop(Stop::Crowded), now);
                    }
                }
            }
            Output::Tried(action, elapsed) => {
                node.attempt.step_over(now.mono);
                self.metrics.rpc_time(action.label(), elapsed);
            }
            Output::TryFailed { action, attempt, cause } => try_failed(node, action, attempt, &cause, now),
            Output::Exhausted(action) => self.metrics.rpc_error(action.label()),
            Output::Phase(phase, elapsed) => self.metrics.phase(phase, elapsed),
            Output::Note(text) => tracing::info!(node = &**node.flow.identity(), "{text}"),
            Output::Done(outcome) => self.end(id, outcome, now),
        }
    }

    fn send(&mut self, id: u64, call: &Call, now: Now) {
        self.close_reply(id, now);
        let (document, request_id) = match self.requests.make(call, now) {
            Ok(made) => made,
            Err(reason) => {
                let fault = SendFault::Impossible(reason);
                self.drive(id, Input::SendFailed { call: call.number, fault }, now);
                return;
            }
        };
        let random = self.draw();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let identity = Arc::clone(node.flow.identity());
        node.open = Some(random);
        let subject = subjects::node(subjects::PROVISIONING_COLLECTIVE, &identity);
        let expectation = Expectation { flow: id, call: call.number, identity, agent: call.action.agent(), request_id };
        let reply_to = self.inbox.open(expectation, random);
        self.effects.push(Effect::Send { origin: Some((id, call.number)), subject, reply_to, document });
    }

    fn close_reply(&mut self, id: u64, now: Now) {
        if let Some(random) = self.nodes.get_mut(&id).and_then(|node| node.open.take()) {
            self.inbox.close(random, now.mono);
        }
    }

    /// A request could not be sent. Without origin it was a discovery request.
    pub fn send_failed(&mut self, origin: Option<(u64, u64)>, fault: SendFault, now: Now) {
        match origin {
            Some((flow, call)) => {
                if fault == SendFault::NobodyListens
                    && let Some(node) = self.nodes.get(&flow)
                {
                    // It costs a timer from now on, and no place.
                    self.scheduler.absent(node.flow.identity());
                }
                self.drive(flow, Input::SendFailed { call, fault }, now);
                self.start_waiting(now);
            }
            None => {
                self.metrics.discovery_errors.add();
                match fault {
                    SendFault::NotConnected(reason) | SendFault::Impossible(reason) => {
                        tracing::error!("discovery failed: {reason}");
                    }
                    // Discovery is not published with a reply subject of NATS.
                    SendFault::NobodyListens => {}
                }
            }
        }
    }

    /// Hands waiting nodes to free helpers, first come first served, as fast as `helper_rate` and `ca_rate` allow.
    pub(super) fn start_helpers(&mut self, now: Now) {
        self.rates.clear();
        while self.helpers_running < self.settings.workers && !self.paused {
            let Some(flow) = self.helper_queue.front().copied() else { return };
            // Nodes that were broken off while they waited are still in the queue.
            let with_request = self.nodes.get(&flow).and_then(|node| node.question.as_ref()).map(|q| q.csr.is_some());
            if let Some(with_request) = with_request
                && !self.rates.allow(with_request, now.mono)
            {
                return;
            }
            self.helper_queue.pop_front();
            let Some(node) = self.nodes.get_mut(&flow) else { continue };
            let Some(question) = node.question.take() else { continue };
            node.attempt.step_over(now.mono);
            node.attempt.step(What::Helper, 1, now.mono);
            self.metrics.phase(Phase::HelperWait, now.mono.saturating_duration_since(node.helper_since));
            self.helpers_running += 1;
            self.effects.push(Effect::Helper { flow, question });
        }
    }

    /// Tells a flow to stop. One that waits for a free helper need not wait any longer.
    pub(super) fn stop(&mut self, id: u64, stop: Stop, now: Now) {
        let waits = self.nodes.get_mut(&id).is_some_and(|node| node.question.take().is_some());
        self.drive(id, if waits { Input::Recall(stop) } else { Input::Stop(stop) }, now);
    }

    /// A helper run ended.
    pub fn helper_done(
        &mut self,
        flow: u64,
        result: Result<HelperAnswer, HelperError>,
        notes: &RunNotes,
        elapsed: Duration,
        now: Now,
    ) {
        self.helpers_running = self.helpers_running.saturating_sub(1);
        self.metrics.helper_time.observe(elapsed);
        if let Some(node) = self.nodes.get_mut(&flow) {
            node.attempt.step_over(now.mono);
            let identity = &**node.flow.identity();
            if let Err(error) = &result {
                let (node, error) = (identity.to_owned(), error.to_string());
                self.books.helper_trouble = Some(HelperTrouble { at: now.mono, node, error });
            }
            match (notes.stderr.is_empty(), result.is_err()) {
                (true, _) => {}
                (false, true) => tracing::warn!(node = identity, "helper says: {}", one_line(&notes.stderr)),
                (false, false) => tracing::info!(node = identity, "helper says: {}", one_line(&notes.stderr)),
            }
            if notes.left_behind {
                tracing::warn!(
                    node = identity,
                    "helper left a process behind that held its output open; it was killed"
                );
            }
        }
        self.drive(flow, Input::Helper(result), now);
        self.start_helpers(now);
        self.start_waiting(now);
    }

    /// Drops a node whose place was needed.
    pub(super) fn forget(&mut self, identity: &str, now: Now) {
        if let Some(id) = self.by_identity.remove(identity) {
            self.close_reply(id, now);
            if let Some(mut node) = self.nodes.remove(&id) {
                node.attempt.end(End::Displaced, "its place was needed for another node", now.mono);
                self.books.history.ended(identity, node.attempt, node.engaged);
            }
            let detail = format!("{identity} never answered and its place was needed for another node");
            self.note_refusal("displaced", Some(identity), &detail, now);
        }
    }

    fn end(&mut self, id: u64, outcome: Outcome, now: Now) {
        self.close_reply(id, now);
        let Some(node) = self.nodes.remove(&id) else { return };
        let Node { flow, mut attempt, engaged, first_seen, .. } = node;
        let identity = flow.identity();
        self.by_identity.remove(identity);
        let took = now.mono.saturating_duration_since(first_seen);
        let (end, detail) = summary(&outcome);
        attempt.end(end, detail, now.mono);
        self.books.history.ended(identity, attempt, engaged);
        let ending = self.account(identity, outcome, engaged, took, now);
        if let Some(until) = self.scheduler.ended(identity, ending, now.mono) {
            let rest = until.saturating_duration_since(now.mono).as_secs_f64();
            tracing::debug!("{identity} rests for {rest:.0}s");
        }
    }

    /// Counts and tells how an attempt ended, and says what the queue should do with the node.
    fn account(&mut self, node: &str, outcome: Outcome, engaged: bool, took: Duration, now: Now) -> Ending {
        let seconds = took.as_secs_f64();
        match outcome {
            Outcome::Provisioned { home } => {
                self.metrics.provisioned.add();
                self.metrics.phase(Phase::Total, took);
                self.books.pace.count(now.mono);
                self.effects.push(Effect::Tell(self.books.teller.provisioned(node, now)));
                tracing::info!("{node} is provisioned and restarts, {seconds:.2}s after it was first seen");
                self.homecoming.expect(home, now.mono);
                Ending::Settle
            }
            Outcome::ShutDown { confirmed, message } => {
                self.metrics.provisioned.add();
                if confirmed {
                    self.metrics.helper_shutdown_requests.add();
                }
                let how = if confirmed { "shuts down" } else { "refused to shut down" };
                tracing::info!("{node} {how} on the helper's order: {message}");
                Ending::Settle
            }
            Outcome::Deferred { message } => {
                self.metrics.deferred.add();
                self.metrics.provision_errors.add();
                tracing::info!("could not provision {node}: configuration defered: {message}");
                Ending::PutOff(DEFERRED)
            }
            Outcome::Locked => {
                self.metrics.deferred.add();
                tracing::info!("another provisioner is working on {node}");
                Ending::PutOff(LOCKED)
            }
            Outcome::Refused(refusal) => {
                self.metrics.provision_errors.add();
                self.note_refusal(refusal.reason, Some(node), &refusal.error, now);
                tracing::error!(reason = refusal.reason, "could not provision {node}: {refusal}");
                Ending::Failed { retry: false }
            }
            Outcome::HelperFailed { reason, error } => {
                self.metrics.helper_errors.add();
                self.metrics.provision_errors.add();
                self.note_refusal(reason, Some(node), &error, now);
                tracing::error!(reason, "could not provision {node}: {error}");
                Ending::Failed { retry: true }
            }
            Outcome::Failed { error } => {
                self.metrics.provision_errors.add();
                tracing::error!("could not provision {node}: {error}");
                Ending::Failed { retry: engaged }
            }
            Outcome::Interrupted { error } => {
                tracing::info!("{node} waits again: {error}");
                Ending::Interrupted
            }
            Outcome::Absent { error } => {
                self.metrics.provision_errors.add();
                self.metrics.absent.add();
                if let Some(more) = self.limiter.allow("absent", now.mono) {
                    tracing::warn!("could not provision {node}: {error} ({more} more such nodes before it)");
                }
                Ending::Failed { retry: false }
            }
            Outcome::Gone => {
                tracing::info!("{node} went away while it waited");
                Ending::Gone
            }
            Outcome::Home => {
                tracing::info!("{node} is a fleet member, or about to be one: another provisioner's work was enough");
                Ending::Gone
            }
        }
    }
}

/// A try failed and another one follows.
fn try_failed(node: &mut Node, action: Action, attempt: u32, cause: &str, now: Now) {
    node.attempt.step_over(now.mono);
    node.attempt.fault(cause);
    let identity = &**node.flow.identity();
    tracing::info!(node = identity, "try {attempt} of {} of {}: {cause}", action.tries(), action.label());
}

/// How an attempt ended, for the node's history.
fn summary(outcome: &Outcome) -> (End, &str) {
    match outcome {
        Outcome::Provisioned { home } => (End::Provisioned, home),
        Outcome::ShutDown { message, .. } => (End::ShutDown, message),
        Outcome::Deferred { message } => (End::Deferred, message),
        Outcome::Locked => (End::Locked, "another provisioner is working on it"),
        Outcome::Refused(refusal) => (End::Refused, &refusal.error),
        Outcome::HelperFailed { error, .. } => (End::HelperFailed, error),
        Outcome::Failed { error } => (End::Failed, error),
        Outcome::Absent { error } => (End::Absent, error),
        Outcome::Interrupted { error } => (End::Interrupted, error),
        Outcome::Gone => (End::Gone, "it shut down or its connection ended"),
        Outcome::Home => (End::Home, "another provisioner's work was enough: it is a fleet member, or about to be one"),
    }
}

/// Text of a helper for the log: lines joined, no control characters.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.join(" | ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
