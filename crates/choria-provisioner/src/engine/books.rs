//! What the engine remembers for people: history of nodes, recent refusals, pace, the helper's last failure; and which
//! lifecycle events it owes. Nothing here decides what happens to a node.

use std::time::Instant;

use rustc_hash::FxHashMap;

use super::history::History;
use super::pace::Pace;
use super::tell::Teller;

/// Refusals of one reason: the last of them. How many there were is in the metrics.
#[derive(Debug)]
pub(super) struct LastRefusal {
    pub(super) at: Instant,
    pub(super) detail: String,
    pub(super) node: Option<String>,
}

/// The last failure of the helper.
#[derive(Debug)]
pub(super) struct HelperTrouble {
    pub(super) at: Instant,
    pub(super) node: String,
    pub(super) error: String,
}

/// Everything that is only looked at.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) history: History,
    pub(super) teller: Teller,
    pub(super) pace: Pace,
    /// By reason, a closed set.
    pub(super) refusals: FxHashMap<&'static str, LastRefusal>,
    pub(super) helper_trouble: Option<HelperTrouble>,
    /// Since when the connection is as it is.
    pub(super) connection_since: Instant,
    pub(super) began: Instant,
}

impl Books {
    pub(super) fn new(identity: &str, now: Instant) -> Self {
        Self {
            history: History::new(now),
            teller: Teller::new(identity),
            pace: Pace::new(now),
            refusals: FxHashMap::default(),
            helper_trouble: None,
            connection_since: now,
            began: now,
        }
    }

    /// Keeps a refusal.
    pub(super) fn refused(&mut self, reason: &'static str, node: Option<&str>, detail: &str, now: Instant) {
        if let Some(node) = node {
            self.history.refused(node, reason, detail, now);
        }
        let shown =
            |text: &str| -> String { text.chars().take(400).map(|c| if c.is_control() { ' ' } else { c }).collect() };
        let last = LastRefusal { at: now, detail: shown(detail), node: node.map(shown) };
        self.refusals.insert(reason, last);
    }
}
