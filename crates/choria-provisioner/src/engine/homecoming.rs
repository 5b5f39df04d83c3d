//! Whether nodes that were told to restart come back as fleet members.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use std::collections::VecDeque;

use crate::config::VerifyRestart;

/// Nodes that are waited for at a time; beyond it the oldest are let go unjudged.
const MAX_EXPECTED: usize = 100_000;

/// What became of a node that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It did not come in time, and this broker does show such events.
    Missing(String),
    /// It did not come in time, but no such event was ever seen: the check cannot work here. Told once.
    CannotTell,
}

/// Nodes between `restart` and their startup event in the fleet.
#[derive(Debug)]
pub(super) struct Homecoming {
    mode: VerifyRestart,
    timeout: Duration,
    expected: FxHashMap<String, Instant>,
    order: VecDeque<(Instant, String)>,
    ever_seen: bool,
    told: bool,
}

impl Homecoming {
    pub(super) fn new(mode: VerifyRestart, timeout: Duration) -> Self {
        Self { mode, timeout, expected: FxHashMap::default(), order: VecDeque::new(), ever_seen: false, told: false }
    }

    pub(super) fn configure(&mut self, mode: VerifyRestart, timeout: Duration) {
        self.mode = mode;
        self.timeout = timeout;
    }

    /// A node acknowledged `restart` and will be a fleet member of this name.
    pub(super) fn expect(&mut self, home: String, now: Instant) {
        if self.mode == VerifyRestart::Off {
            return;
        }
        if self.expected.len() >= MAX_EXPECTED
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.expected.remove(&oldest);
        }
        self.order.push_back((now, home.clone()));
        self.expected.insert(home, now);
    }

    /// A fleet member started. Returns how long it took since `restart` if it was waited for.
    pub(super) fn seen(&mut self, identity: &str, now: Instant) -> Option<Duration> {
        self.ever_seen = true;
        self.expected.remove(identity).map(|since| now.saturating_duration_since(since))
    }

    /// Stops waiting for a node, because it is being provisioned again.
    pub(super) fn forget(&mut self, identity: &str) {
        self.expected.remove(identity);
    }

    /// How many are waited for.
    pub(super) fn expected(&self) -> usize {
        self.expected.len()
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.order.front().map(|(since, _)| *since + self.timeout)
    }

    /// Judges those whose time is over.
    pub(super) fn advance(&mut self, now: Instant) -> Vec<Judgement> {
        let mut judged = Vec::new();
        while let Some((since, home)) = self.order.front() {
            if now < *since + self.timeout {
                break;
            }
            let waited_for = self.expected.get(home) == Some(since);
            let Some((_, home)) = self.order.pop_front() else { break };
            if !waited_for {
                continue;
            }
            self.expected.remove(&home);
            if self.ever_seen || self.mode == VerifyRestart::On {
                judged.push(Judgement::Missing(home));
            } else if !self.told {
                self.told = true;
                judged.push(Judgement::CannotTell);
            }
        }
        judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn a_node_that_comes_home_is_not_missing() {
        let start = Instant::now();
        let mut home = Homecoming::new(VerifyRestart::On, TIMEOUT);
        home.expect("n1".to_owned(), start);
        home.expect("n2".to_owned(), start);
        assert_eq!(home.seen("n1", start + Duration::from_secs(3)), Some(Duration::from_secs(3)));
        assert_eq!(home.seen("other", start), None);
        assert_eq!(home.advance(start + TIMEOUT), vec![Judgement::Missing("n2".to_owned())]);
        assert_eq!(home.next_timer(), None);
    }

    #[test]
    fn design6_auto_says_once_that_it_cannot_tell_until_the_first_event() {
        let start = Instant::now();
        let mut home = Homecoming::new(VerifyRestart::Auto, TIMEOUT);
        home.expect("n1".to_owned(), start);
        home.expect("n2".to_owned(), start);
        assert_eq!(home.advance(start + TIMEOUT), vec![Judgement::CannotTell]);
        home.seen("somebody", start);
        home.expect("n3".to_owned(), start + TIMEOUT);
        assert_eq!(home.advance(start + TIMEOUT * 2), vec![Judgement::Missing("n3".to_owned())]);
    }

    #[test]
    fn a_second_restart_starts_the_wait_anew() {
        let start = Instant::now();
        let mut home = Homecoming::new(VerifyRestart::On, TIMEOUT);
        home.expect("n1".to_owned(), start);
        home.expect("n1".to_owned(), start + Duration::from_secs(30));
        assert_eq!(home.advance(start + TIMEOUT), vec![]);
        assert_eq!(home.advance(start + TIMEOUT + Duration::from_secs(30)).len(), 1);
    }
}
