//! What is remembered about each node, so that `explain` can tell what was seen of it, what was tried and why it was refused.
//!
//! Three shelves, so that a flood of one kind cannot push out another: nodes that have answered, nodes that were only seen,
//! and names that were only ever refused. Each has a bound on its records and on their bytes; the one that nothing
//! happened to for longest goes first. Each record keeps a few attempts and refusals. On the way of a good node
//! it costs three look-ups and no formatting.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::flow::Action;
use crate::queue::Source;

/// Attempts kept of a node.
const ATTEMPTS: usize = 4;
/// Steps kept of an attempt; with every try of every action there are 20.
const STEPS: usize = 24;
/// Refusals kept of a node.
const REFUSALS: usize = 5;
/// Other happenings kept of a node.
const NOTES: usize = 6;
/// Longest text that is kept, in bytes.
const TEXT: usize = 600;
/// What an entry in the map and in the order costs besides its name.
const ENTRY: usize = 96;

/// Milliseconds since the engine was made.
pub(super) type Stamp = u64;

/// Bounds of a shelf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// A megabyte.
const MIB: usize = 1024 * 1024;
/// As many as nodes that may be known at a time.
const ANSWERED: Bounds = Bounds { records: 50_000, bytes: 24 * MIB };
const SEEN: Bounds = Bounds { records: 50_000, bytes: 16 * MIB };
/// Names of our peers' choosing that never were nodes.
const STRANGERS: Bounds = Bounds { records: 1000, bytes: MIB };

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Call(Action),
    HelperWait,
    Helper,
}

impl What {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Call(action) => action.label(),
            Self::HelperWait => "helper_wait",
            Self::Helper => "helper",
        }
    }
}

/// A step of an attempt.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) what: What,
    pub(super) attempt: u8,
    /// Milliseconds after the attempt began.
    pub(super) after: u32,
    pub(super) took: Option<u32>,
    pub(super) fault: Option<Box<str>>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Provisioned,
    ShutDown,
    Deferred,
    Locked,
    Refused,
    HelperFailed,
    Failed,
    Absent,
    Interrupted,
    Gone,
    Home,
    Displaced,
}

impl End {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Provisioned => "provisioned",
            Self::ShutDown => "shut_down",
            Self::Deferred => "deferred",
            Self::Locked => "locked",
            Self::Refused => "refused",
            Self::HelperFailed => "helper_failed",
            Self::Failed => "failed",
            Self::Absent => "absent",
            Self::Interrupted => "interrupted",
            Self::Gone => "gone",
            Self::Home => "home",
            Self::Displaced => "displaced",
        }
    }
}

/// An attempt, over or under way. While it is under way it lives beside the flow, and its steps are written without
/// looking anything up.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) began: Stamp,
    started: Instant,
    pub(super) took: u32,
    pub(super) steps: Vec<Step>,
    pub(super) end: Option<(End, Box<str>)>,
}

impl Attempt {
    pub(super) fn new(number: u32, began: Stamp, now: Instant) -> Self {
        Self { number, began, started: now, took: 0, steps: Vec::with_capacity(8), end: None }
    }

    /// A step begins.
    pub(super) fn step(&mut self, what: What, attempt: u32, now: Instant) {
        self.step_over(now);
        if self.steps.len() < STEPS {
            let attempt = u8::try_from(attempt).unwrap_or(u8::MAX);
            self.steps.push(Step { what, attempt, after: millis(now, self.started), took: None, fault: None });
        }
    }

    /// The step under way is over.
    pub(super) fn step_over(&mut self, now: Instant) {
        let after = millis(now, self.started);
        if let Some(step) = self.steps.last_mut().filter(|step| step.took.is_none()) {
            step.took = Some(after.saturating_sub(step.after));
        }
    }

    /// What was wrong with the last step.
    pub(super) fn fault(&mut self, text: &str) {
        if let Some(step) = self.steps.last_mut() {
            step.fault = Some(kept(text));
        }
    }

    /// How long it takes so far.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    pub(super) fn end(&mut self, end: End, detail: &str, now: Instant) {
        self.step_over(now);
        self.took = millis(now, self.started);
        self.end = Some((end, kept(detail)));
        self.steps.shrink_to_fit();
    }

    fn cost(&self) -> usize {
        let faults: usize = self.steps.iter().filter_map(|step| step.fault.as_ref()).map(|text| text.len()).sum();
        let detail = self.end.as_ref().map_or(0, |(_, text)| text.len());
        size_of::<Self>() + self.steps.capacity() * size_of::<Step>() + faults + detail
    }
}

/// A refusal that concerned a node.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) at: Stamp,
    pub(super) reason: &'static str,
    pub(super) detail: Box<str>,
    pub(super) count: u32,
}

/// What else may happen to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// It said that it shuts down.
    ShutDown,
    /// The broker told that its connection ended.
    Disconnected,
    /// It was seen as a fleet member, so many milliseconds after its restart was ordered, if it was.
    CameHome(Option<u32>),
    /// It was not seen as a fleet member in time, so many seconds.
    NotHome(u32),
    /// It was back in provisioning right after it was provisioned.
    Returned,
    /// It waited in the queue and nothing saw it for too long.
    Stale,
    /// It was seen while paused and not queued.
    WhilePaused,
    /// It was seen and not queued, too many nodes were known.
    QueueFull,
}

/// How one kind of sighting went.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sight {
    pub(super) count: u32,
    pub(super) first: Stamp,
    pub(super) last: Stamp,
}

/// Everything remembered of one name.
#[derive(Debug, Default)]
pub(super) struct Record {
    touch: u64,
    cost: usize,
    pub(super) sights: [Sight; 3],
    pub(super) attempts_total: u32,
    pub(super) attempts: Vec<Attempt>,
    pub(super) refusals_total: u32,
    pub(super) refusals: Vec<Refused>,
    pub(super) notes: Vec<(Stamp, Happening)>,
}

impl Record {
    fn price(&self, name: &str) -> usize {
        let attempts: usize = self.attempts.iter().map(Attempt::cost).sum();
        let refusals: usize = self.refusals.iter().map(|r| r.detail.len() + size_of::<Refused>()).sum();
        let notes = self.notes.capacity() * size_of::<(Stamp, Happening)>();
        ENTRY + name.len() + size_of::<Self>() + attempts + refusals + notes
    }
}

/// Records with a bound.
#[derive(Debug)]
struct Shelf {
    bounds: Bounds,
    records: FxHashMap<Arc<str>, Record>,
    /// Names in the order in which something happened to them; entries that are not their record's last are skipped.
    order: VecDeque<(u64, Arc<str>)>,
    touches: u64,
    bytes: usize,
}

impl Shelf {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, records: FxHashMap::default(), order: VecDeque::new(), touches: 0, bytes: 0 }
    }

    /// Changes a record, which is made when there is none.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Record)) {
        if !self.records.contains_key(name) {
            self.put(Arc::from(name), Record::default());
        }
        let Some((name, record)) =
            self.records.get_key_value(name).map(|(name, _)| Arc::clone(name)).and_then(|name| {
                let record = self.records.get_mut(&name)?;
                Some((name, record))
            })
        else {
            return;
        };
        change(record);
        self.touches += 1;
        record.touch = self.touches;
        let price = record.price(&name);
        self.bytes = self.bytes + price - record.cost;
        record.cost = price;
        self.order.push_back((self.touches, name));
        self.trim();
    }

    fn put(&mut self, name: Arc<str>, mut record: Record) {
        self.touches += 1;
        record.touch = self.touches;
        record.cost = record.price(&name);
        self.bytes += record.cost;
        self.order.push_back((self.touches, Arc::clone(&name)));
        self.records.insert(name, record);
        self.trim();
    }

    fn take(&mut self, name: &str) -> Option<(Arc<str>, Record)> {
        let (name, record) = self.records.remove_entry(name)?;
        self.bytes -= record.cost;
        Some((name, record))
    }

    fn trim(&mut self) {
        while self.records.len() > self.bounds.records || self.bytes > self.bounds.bytes {
            let Some((touch, name)) = self.order.pop_front() else { return };
            if self.records.get(&name).is_some_and(|record| record.touch == touch) {
                self.take(&name);
            }
        }
        // Skipped entries must not outgrow the records.
        if self.order.len() > 2 * self.records.len() + 64 {
            let records = &self.records;
            self.order.retain(|(touch, name)| records.get(name).is_some_and(|record| record.touch == *touch));
        }
    }
}

/// What is remembered of all names.
#[derive(Debug)]
pub(super) struct History {
    began: Instant,
    answered: Shelf,
    seen: Shelf,
    strangers: Shelf,
}

impl History {
    pub(super) fn new(now: Instant) -> Self {
        Self::with_bounds(now, ANSWERED, SEEN, STRANGERS)
    }

    fn with_bounds(now: Instant, answered: Bounds, seen: Bounds, strangers: Bounds) -> Self {
        let (answered, seen, strangers) = (Shelf::new(answered), Shelf::new(seen), Shelf::new(strangers));
        Self { began: now, answered, seen, strangers }
    }

    /// The time as records keep it.
    pub(super) fn stamp(&self, now: Instant) -> Stamp {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// A node was seen.
    pub(super) fn sighted(&mut self, name: &str, source: Source, now: Instant) {
        let at = self.stamp(now);
        self.node(name, |record| {
            let sight = &mut record.sights[source as usize];
            if sight.count == 0 {
                sight.first = at;
            }
            sight.count = sight.count.saturating_add(1);
            sight.last = at;
        });
    }

    /// An attempt begins. Returns it, to be given back with [`Self::ended`].
    pub(super) fn attempt(&mut self, name: &str, now: Instant) -> Attempt {
        let at = self.stamp(now);
        let mut number = 0;
        self.node(name, |record| {
            record.attempts_total = record.attempts_total.saturating_add(1);
            number = record.attempts_total;
        });
        Attempt::new(number, at, now)
    }

    /// An attempt is over. `answered`: the node answered in it.
    pub(super) fn ended(&mut self, name: &str, attempt: Attempt, answered: bool) {
        if answered && let Some((name, record)) = self.seen.take(name) {
            self.answered.put(name, record);
        }
        self.node(name, |record| push_bounded(&mut record.attempts, attempt, ATTEMPTS));
    }

    /// Something in the name of a node, or of nobody who ever was one, was refused.
    pub(super) fn refused(&mut self, name: &str, reason: &'static str, detail: &str, now: Instant) {
        let at = self.stamp(now);
        let shelf = if self.answered.records.contains_key(name) {
            &mut self.answered
        } else if self.seen.records.contains_key(name) {
            &mut self.seen
        } else {
            &mut self.strangers
        };
        shelf.change(name, |record| {
            record.refusals_total = record.refusals_total.saturating_add(1);
            let detail = kept(detail);
            match record.refusals.last_mut() {
                Some(last) if last.reason == reason && last.detail == detail => {
                    last.count = last.count.saturating_add(1);
                    last.at = at;
                }
                _ => push_bounded(&mut record.refusals, Refused { at, reason, detail, count: 1 }, REFUSALS),
            }
        });
    }

    /// Something else happened to a node that is known.
    pub(super) fn happened(&mut self, name: &str, what: Happening, now: Instant) {
        let at = self.stamp(now);
        if !self.answered.records.contains_key(name) && !self.seen.records.contains_key(name) {
            return;
        }
        self.node(name, |record| match record.notes.last_mut() {
            Some((last, same)) if *same == what => *last = at,
            _ => push_bounded(&mut record.notes, (at, what), NOTES),
        });
    }

    /// The record of a node, wherever it is; one that was a stranger so far is none any more.
    fn node(&mut self, name: &str, change: impl FnOnce(&mut Record)) {
        if self.answered.records.contains_key(name) {
            self.answered.change(name, change);
            return;
        }
        if !self.seen.records.contains_key(name)
            && let Some((name, record)) = self.strangers.take(name)
        {
            self.seen.put(name, record);
        }
        self.seen.change(name, change);
    }

    /// What is remembered of a name, and whether it ever was a node.
    pub(super) fn record(&self, name: &str) -> Option<(&Record, bool)> {
        let node = self.answered.records.get(name).or_else(|| self.seen.records.get(name));
        node.map(|record| (record, true)).or_else(|| self.strangers.records.get(name).map(|record| (record, false)))
    }

    /// Every name that something is remembered of.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        [&self.answered, &self.seen, &self.strangers].into_iter().flat_map(|shelf| shelf.records.keys())
    }

    /// Bytes that all records take.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.answered.bytes + self.seen.bytes + self.strangers.bytes
    }
}

fn push_bounded<T>(list: &mut Vec<T>, item: T, most: usize) {
    if list.len() >= most {
        list.remove(0);
    }
    list.reserve_exact(1);
    list.push(item);
}

/// A text as it is kept: bounded, without control characters.
fn kept(text: &str) -> Box<str> {
    if text.len() <= TEXT && !text.chars().any(char::is_control) {
        return Box::from(text);
    }
    let mut short = String::with_capacity(TEXT.min(text.len()) + 3);
    for c in text.chars() {
        if short.len() + c.len_utf8() > TEXT {
            short.push_str("...");
            break;
        }
        short.push(if c.is_control() { ' ' } else { c });
    }
    short.into()
}

fn millis(now: Instant, since: Instant) -> u32 {
    u32::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> (History, Instant) {
        let now = Instant::now();
        let bounds = |records| Bounds { records, bytes: MIB };
        (History::with_bounds(now, bounds(10), bounds(10), bounds(3)), now)
    }

    #[test]
    fn what_happened_longest_ago_is_forgotten_first() {
        let (mut history, now) = small();
        for index in 0..10 {
            history.sighted(&format!("n{index}"), Source::Event, now);
        }
        history.sighted("n0", Source::Discovery, now + Duration::from_secs(5));
        for index in 10..19 {
            history.sighted(&format!("n{index}"), Source::Event, now);
        }
        let (record, known) = history.record("n0").unwrap();
        assert!(known);
        assert_eq!(record.sights.map(|sight| sight.count), [1, 1, 0]);
        assert_eq!(record.sights[1].last, 5000);
        assert!(history.record("n1").is_none() && history.record("n9").is_none());
        assert_eq!(history.names().count(), 10);
    }

    #[test]
    fn floods_of_one_kind_do_not_push_out_another() {
        let (mut history, now) = small();
        let mut attempt = history.attempt("good", now);
        attempt.step(What::Call(Action::Jwt), 1, now);
        attempt.end(End::Refused, "because", now);
        history.ended("good", attempt, true);
        for index in 0..1000 {
            history.sighted(&format!("absent{index}"), Source::Event, now);
            history.refused(&format!("not a name {index}"), "identity", "no", now);
        }
        let (record, _) = history.record("good").unwrap();
        assert_eq!(record.attempts[0].end, Some((End::Refused, "because".into())));
        assert_eq!(history.names().count(), 1 + 10 + 3);
        assert!(!history.record("not a name 999").unwrap().1);
        history.sighted("not a name 999", Source::Event, now);
        assert!(history.record("not a name 999").unwrap().1, "and with it what was refused");
        assert_eq!(history.record("not a name 999").unwrap().0.refusals_total, 1);
    }

    #[test]
    fn bytes_have_a_bound_too() {
        let now = Instant::now();
        let bounds = Bounds { records: 1_000_000, bytes: 100_000 };
        let mut history = History::with_bounds(now, bounds, bounds, bounds);
        for index in 0..2000 {
            let name = format!("n{}", index % 500);
            history.sighted(&name, Source::Event, now);
            let mut attempt = history.attempt(&name, now);
            for _ in 0..100 {
                attempt.step(What::Call(Action::Inventory), 1, now);
                attempt.fault(&"x".repeat(5000));
            }
            attempt.end(End::Failed, &"y".repeat(5000), now);
            history.ended(&name, attempt, index % 2 == 0);
            history.refused(&name, "csr", &format!("{index}{}", "z".repeat(5000)), now);
            assert!(history.bytes() <= 300_000);
        }
        assert!(history.names().count() > 2);
        for shelf in [&history.answered, &history.seen] {
            assert!(shelf.order.len() <= 2 * shelf.records.len() + 64);
            let sum: usize = shelf.records.iter().map(|(name, record)| record.price(name)).sum();
            assert_eq!(sum, shelf.bytes, "the account is right");
        }
    }

    #[test]
    fn the_same_refusal_again_is_counted() {
        let (mut history, now) = small();
        for second in 0..5 {
            history.refused("n1", "csr", "a\nb", now + Duration::from_secs(second));
        }
        for index in 0..20 {
            history.refused("n1", "csr", &format!("other {index}"), now);
        }
        history.happened("never-seen", Happening::ShutDown, now);
        assert!(history.record("never-seen").is_none());
        let (record, _) = history.record("n1").unwrap();
        assert_eq!((record.refusals_total, record.refusals.len()), (25, REFUSALS));
        let mut history = small().0;
        for second in 0..5 {
            history.refused("n1", "csr", "a\nb", now + Duration::from_secs(second));
        }
        let refused = &history.record("n1").unwrap().0.refusals;
        assert_eq!((refused.len(), refused[0].count, &*refused[0].detail), (1, 5, "a b"));
        assert!(refused[0].at >= 3999);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(&*kept("short"), "short");
        let long = kept(&"\u{e9}".repeat(1000));
        assert_eq!(long.len(), TEXT + 3);
        assert!(long.ends_with("\u{e9}..."));
    }
}
