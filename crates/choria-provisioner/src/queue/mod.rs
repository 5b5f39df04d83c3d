//! Which node is worked next: de-duplication, first-seen order, back-off, settling, bounds (spec 04 §5.4).
//!
//! Pure state: it is told what was seen and what time it is, and answers what to start. Rules:
//!
//! - One entry per identity. Nodes start in the order in which they were first seen; a failed node queues
//!   again behind those that wait.
//! - At most `max_nodes` are worked at a time. A node that nobody listens as, or that is silent for much longer than others
//!   take for their first answer, stops counting: it costs a timer, not a place. It is the first to go when the list of
//!   known nodes is full. When it answers after all, it is worked on, unless too many are: then it waits for its turn again.
//! - A failed node rests, longer each time. What sees it meanwhile (an event, discovery) is remembered and
//!   starts it when the rest is over, so nothing is lost and nothing is hammered.
//! - A provisioned node settles for 60 s, so that discovery does not pick it up during its restart. One whose
//!   startup event says that it is back in provisioning is taken up again after a rest.
//! - A node that shut down leaves. One whose connection ended leaves a moment later unless something sees it again: it may only
//!   have lost its network. What is known of its failures stays.

mod patience;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use self::patience::Patience;
use self::types::State;
pub use self::types::{Admission, Counts, Ending, Limits, Source, Standing, Turn};

/// Startup events this soon after `restart` was acknowledged are the old process's.
const RESTART_TAKES: Duration = Duration::from_secs(2);
/// The least rest of a node that came back into provisioning right after it was provisioned.
const RETURN_REST: Duration = Duration::from_secs(10);
/// How long a failed node's count of failures is kept after its rest.
const MEMORY: Duration = Duration::from_secs(1800);
/// How long a queued node whose connection ended keeps its place.
const LINGER: Duration = Duration::from_secs(3);
/// Times `max_nodes` that are worked on at most, with those that answered late. When ten thousand wake at once, first answers
/// take longer than any before, and all of them may have been started before the first one comes.
const CROWD: usize = 2;

#[derive(Debug)]
struct Node {
    state: State,
    /// Place in the queue; the lower, the earlier.
    place: u64,
    first_seen: Instant,
    last_seen: Instant,
    failures: u32,
    fresh: bool,
    timer: Option<Instant>,
}

/// The queue.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    nodes: FxHashMap<Arc<str>, Node>,
    queue: BTreeMap<u64, Arc<str>>,
    /// Silent flows, longest silent first.
    silent: BTreeMap<u64, Arc<str>>,
    /// Those whose only use is memory, oldest first.
    remembered: BTreeMap<u64, Arc<str>>,
    timers: BTreeSet<(Instant, Arc<str>)>,
    next_place: u64,
    counts: Counts,
    patience: Patience,
}

impl Scheduler {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            nodes: FxHashMap::default(),
            queue: BTreeMap::new(),
            silent: BTreeMap::new(),
            remembered: BTreeMap::new(),
            timers: BTreeSet::new(),
            next_place: 0,
            counts: Counts::default(),
            patience: Patience::default(),
        }
    }

    /// New limits; nodes that are known stay known.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Something saw a node. `identity` must be a valid identity.
    pub fn seen(&mut self, identity: &str, source: Source, now: Instant) -> Admission {
        let Some(node) = self.nodes.get_mut(identity) else { return self.add(identity, now) };
        node.last_seen = now;
        match node.state {
            State::Queued => {
                // It was about to leave because its connection had ended.
                self.set_timer(identity, None);
                Admission::Known
            }
            State::Probing | State::Silent | State::Engaged => Admission::Known,
            State::Resting { .. } => {
                let until = node.timer.unwrap_or(now);
                self.set_state(identity, State::Resting { wanted: true }, Some(until));
                Admission::Resting { until }
            }
            State::Remembered => {
                self.enqueue(identity, None, now);
                Admission::Added { evicted: None }
            }
            State::Settling { since } => {
                if source != Source::Event || now.saturating_duration_since(since) < RESTART_TAKES {
                    return Admission::Known;
                }
                node.failures = node.failures.saturating_add(1);
                let until = now + rest_after(node.failures).max(RETURN_REST);
                self.set_state(identity, State::Resting { wanted: true }, Some(until));
                Admission::Returned { until }
            }
        }
    }

    fn add(&mut self, identity: &str, now: Instant) -> Admission {
        let mut evicted = None;
        if self.nodes.len() >= self.limits.max_known {
            // Memory of failures goes first, then identities that never answered.
            let victim = self.remembered.values().next().or_else(|| self.silent.values().next()).cloned();
            let Some(victim) = victim else { return Admission::Full };
            if self.nodes.get(&victim).is_some_and(|n| n.state == State::Silent) {
                evicted = Some(Arc::clone(&victim));
            }
            self.remove(&victim);
        }
        let name: Arc<str> = Arc::from(identity);
        let node = Node {
            state: State::Remembered,
            place: 0,
            first_seen: now,
            last_seen: now,
            failures: 0,
            fresh: true,
            timer: None,
        };
        *self.counts.of(node.state) += 1;
        self.nodes.insert(name, node);
        self.enqueue(identity, None, now);
        Admission::Added { evicted }
    }

    /// The next node whose turn it is, if one more may be worked on.
    pub fn next_turn(&mut self, now: Instant) -> Option<Turn> {
        if self.worked() >= self.limits.max_nodes {
            return None;
        }
        let identity = self.queue.values().next().cloned()?;
        let node = self.nodes.get(&identity).expect("every queued identity is known");
        let (first_seen, fresh) = (node.first_seen, node.fresh);
        if now.saturating_duration_since(node.last_seen) > self.limits.stale_after {
            self.remove(&identity);
            return Some(Turn::Stale { identity, waited: now.saturating_duration_since(first_seen) });
        }
        self.set_state(&identity, State::Probing, Some(now + self.patience.grace()));
        Some(Turn::Start { identity, first_seen, fresh })
    }

    /// A node took so long for its first answer: what others are given from now on.
    pub fn first_answer_took(&mut self, took: Duration) {
        self.patience.learn(took);
    }

    /// A started node gave its first answer. Returns whether there is room for it; otherwise it is to be interrupted.
    pub fn answered(&mut self, identity: &str) -> bool {
        let Some(node) = self.nodes.get(identity) else { return true };
        match node.state {
            State::Silent if self.worked() >= self.limits.max_nodes.saturating_mul(CROWD) => return false,
            State::Probing | State::Silent => self.set_state(identity, State::Engaged, None),
            _ => {}
        }
        true
    }

    /// An attempt ended. Returns the end of the node's rest, if it rests.
    pub fn ended(&mut self, identity: &str, ending: Ending, now: Instant) -> Option<Instant> {
        let node = self.nodes.get_mut(identity)?;
        if !matches!(node.state, State::Probing | State::Silent | State::Engaged) {
            return None;
        }
        node.fresh = false;
        match ending {
            Ending::Gone => self.depart(identity),
            Ending::Interrupted => {
                // It was seen when it was started; time in the flow does not make it stale.
                node.last_seen = now;
                let place = node.place;
                self.enqueue(identity, Some(place), now);
            }
            Ending::Settle => {
                let until = now + self.limits.settle;
                self.set_state(identity, State::Settling { since: now }, Some(until));
            }
            Ending::PutOff(rest) => {
                node.failures = 0;
                self.set_state(identity, State::Resting { wanted: false }, Some(now + rest));
                return Some(now + rest);
            }
            Ending::Failed { retry } => {
                node.failures = node.failures.saturating_add(1);
                let until = now + rest_after(node.failures);
                self.set_state(identity, State::Resting { wanted: retry }, Some(until));
                return Some(until);
            }
        }
        None
    }

    /// The node said that it is shutting down. Returns whether its flow, if it has one, has not had an answer
    /// yet and is to be abandoned.
    pub fn gone(&mut self, identity: &str) -> bool {
        match self.nodes.get(identity).map(|node| node.state) {
            Some(State::Queued) => {
                self.depart(identity);
                false
            }
            Some(State::Resting { wanted: true }) => {
                self.lose_interest(identity);
                false
            }
            Some(State::Probing | State::Silent) => true,
            _ => false,
        }
    }

    /// The node's connection to the broker ended. Nodes that wait leave in a moment, unless they are seen again. Those in the
    /// flow are the flow's business, those that settle restart.
    pub fn disconnected(&mut self, identity: &str, now: Instant) {
        match self.nodes.get(identity).map(|node| (node.state, node.timer)) {
            Some((State::Queued, None)) => self.set_timer(identity, Some(now + LINGER)),
            Some((State::Resting { wanted: true }, _)) => self.lose_interest(identity),
            _ => {}
        }
    }

    /// A flow found nobody listening under the node's name: from now on it takes no place.
    pub fn absent(&mut self, identity: &str) {
        if matches!(self.nodes.get(identity), Some(node) if node.state == State::Probing) {
            self.set_state(identity, State::Silent, None);
        }
    }

    /// A resting node is not tried again before something sees it.
    fn lose_interest(&mut self, identity: &str) {
        let until = self.nodes.get(identity).and_then(|node| node.timer);
        self.set_state(identity, State::Resting { wanted: false }, until);
    }

    /// A queued node leaves. One that failed before is remembered, so that coming and going does not buy it new attempts.
    fn depart(&mut self, identity: &str) {
        match self.nodes.get(identity) {
            Some(Node { failures: 0, .. }) | None => self.remove(identity),
            Some(Node { last_seen, .. }) => {
                let until = *last_seen + MEMORY;
                self.set_state(identity, State::Remembered, Some(until));
            }
        }
    }

    /// The node started as a fleet member: after a failure it is not tried again. If it does wait, something will see it.
    pub fn came_home(&mut self, identity: &str) {
        if matches!(self.nodes.get(identity).map(|node| node.state), Some(State::Resting { .. })) {
            self.remove(identity);
        }
    }

    /// Lets time pass: rests and settling end, silent nodes stop counting. Returns queued nodes that left because their
    /// connection had ended.
    pub fn advance(&mut self, now: Instant) -> Vec<Arc<str>> {
        let mut left = Vec::new();
        while let Some((due, identity)) = self.timers.first().cloned() {
            if due > now {
                break;
            }
            let node = self.nodes.get(&identity).expect("every timer belongs to a known node");
            match node.state {
                State::Probing => self.set_state(&identity, State::Silent, None),
                State::Resting { wanted: true } => self.enqueue(&identity, None, now),
                State::Resting { wanted: false } => self.set_state(&identity, State::Remembered, Some(due + MEMORY)),
                State::Remembered | State::Settling { .. } => self.remove(&identity),
                State::Queued => {
                    self.depart(&identity);
                    left.push(identity);
                }
                State::Silent | State::Engaged => {
                    self.timers.pop_first();
                }
            }
        }
        left
    }

    /// When [`Self::advance`] has something to do next.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Nodes that wait for their first request.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Nodes that wait, are worked on or settle; not those that merely failed once.
    pub fn waiting(&self) -> usize {
        self.counts.waiting()
    }

    /// Nodes that count as worked on.
    pub fn worked(&self) -> usize {
        self.counts.probing + self.counts.engaged
    }

    /// How many nodes are in which state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The node that is next, and when it was first seen.
    pub fn next_waiting(&self) -> Option<(&Arc<str>, Instant)> {
        let identity = self.queue.values().next()?;
        self.nodes.get(identity).map(|node| (identity, node.first_seen))
    }

    /// Where a node is; `None` when it is not known.
    pub fn standing(&self, identity: &str) -> Option<Standing> {
        let node = self.nodes.get(identity)?;
        let until = node.timer.unwrap_or(node.last_seen);
        Some(match node.state {
            State::Queued => Standing::Queued { place: self.queue.range(..=node.place).count(), leaves: node.timer },
            State::Probing => Standing::Probing,
            State::Silent => Standing::Silent,
            State::Engaged => Standing::Engaged,
            State::Resting { wanted: true } => Standing::Resting { until },
            State::Resting { wanted: false } => Standing::WaitingToBeSeen { until },
            State::Remembered => Standing::WaitingToBeSeen { until: node.last_seen },
            State::Settling { .. } => Standing::Settling { until },
        })
    }

    /// Failures of the node in a row.
    pub fn failures(&self, identity: &str) -> u32 {
        self.nodes.get(identity).map_or(0, |node| node.failures)
    }

    fn enqueue(&mut self, identity: &str, place: Option<u64>, now: Instant) {
        let kept = place.is_some();
        let place = place.unwrap_or_else(|| {
            self.next_place += 1;
            self.next_place
        });
        self.set_state(identity, State::Queued, None);
        let (name, _) = self.nodes.get_key_value(identity).expect("only known nodes are queued");
        let name = Arc::clone(name);
        if let Some(node) = self.nodes.get_mut(identity) {
            node.place = place;
            // A rest is not waiting.
            node.last_seen = node.last_seen.max(now);
            if !kept {
                node.first_seen = now;
            }
        }
        self.queue.insert(place, name);
    }

    /// Changes when something happens to a node, and nothing else.
    fn set_timer(&mut self, identity: &str, timer: Option<Instant>) {
        let Some((name, node)) = self.nodes.get_key_value(identity) else { return };
        if node.timer == timer {
            return;
        }
        let (name, old) = (Arc::clone(name), node.timer);
        if let Some(due) = old {
            self.timers.remove(&(due, Arc::clone(&name)));
        }
        if let Some(due) = timer {
            self.timers.insert((due, name));
        }
        if let Some(node) = self.nodes.get_mut(identity) {
            node.timer = timer;
        }
    }

    /// The one place where a node changes: keeps all indexes and counts in step.
    fn set_state(&mut self, identity: &str, state: State, timer: Option<Instant>) {
        let Some((name, _)) = self.nodes.get_key_value(identity) else { return };
        let name = Arc::clone(name);
        self.leave_state(&name);
        self.next_place += 1;
        let place = self.next_place;
        let Some(node) = self.nodes.get_mut(&name) else { return };
        node.state = state;
        node.timer = timer;
        *self.counts.of(state) += 1;
        match state {
            State::Silent => {
                node.place = place;
                self.silent.insert(place, Arc::clone(&name));
            }
            State::Remembered => {
                node.place = place;
                self.remembered.insert(place, Arc::clone(&name));
            }
            State::Queued | State::Probing | State::Engaged | State::Resting { .. } | State::Settling { .. } => {}
        }
        if let Some(due) = timer {
            self.timers.insert((due, name));
        }
    }

    fn leave_state(&mut self, identity: &Arc<str>) {
        let Some(node) = self.nodes.get(identity) else { return };
        if let Some(due) = node.timer {
            self.timers.remove(&(due, Arc::clone(identity)));
        }
        *self.counts.of(node.state) -= 1;
        match node.state {
            State::Queued => {
                self.queue.remove(&node.place);
            }
            State::Silent => {
                self.silent.remove(&node.place);
            }
            State::Remembered => {
                self.remembered.remove(&node.place);
            }
            State::Probing | State::Engaged | State::Resting { .. } | State::Settling { .. } => {}
        }
    }

    fn remove(&mut self, identity: &str) {
        let Some((name, _)) = self.nodes.get_key_value(identity) else { return };
        let name = Arc::clone(name);
        self.leave_state(&name);
        self.nodes.remove(&name);
    }
}

/// How long a node rests after so many failures in a row.
fn rest_after(failures: u32) -> Duration {
    const RESTS: [u64; 6] = [1, 5, 15, 60, 300, 900];
    let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX).min(RESTS.len() - 1);
    Duration::from_secs(RESTS[index])
}

#[cfg(test)]
mod tests;
