//! What the request pipeline counts (spec 03 §1.4, §4.1).

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use serde::Serialize;

/// Counters since the process started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages that arrived.
    pub total: AtomicU64,
    /// Requests that were handed to an agent.
    pub validated: AtomicU64,
    /// Messages that are no request for us: unreadable, unverified, replayed, no way to answer.
    pub unvalidated: AtomicU64,
    /// Requests whose filter matched.
    pub passed: AtomicU64,
    /// Requests whose filter did not match.
    pub filtered: AtomicU64,
    /// Replies handed to the connection.
    pub replies: AtomicU64,
    /// Requests outside their time.
    pub ttlexpired: AtomicU64,
    /// Lifecycle events published.
    pub events: AtomicU64,
    /// Unix seconds of the last request that was handed to an agent, 0 before the first.
    pub last_message: AtomicI64,
}

/// The counters at one moment, under the names of the status file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// See [`Counters::total`].
    pub total: u64,
    /// See [`Counters::validated`].
    pub valid: u64,
    /// See [`Counters::unvalidated`].
    pub invalid: u64,
    /// See [`Counters::passed`].
    pub passed: u64,
    /// See [`Counters::filtered`].
    pub filtered: u64,
    /// See [`Counters::replies`].
    pub replies: u64,
    /// See [`Counters::ttlexpired`].
    pub ttlexpired: u64,
    /// See [`Counters::events`].
    pub events: u64,
}

impl Counters {
    /// Adds one.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            total: get(&self.total),
            valid: get(&self.validated),
            invalid: get(&self.unvalidated),
            passed: get(&self.passed),
            filtered: get(&self.filtered),
            replies: get(&self.replies),
            ttlexpired: get(&self.ttlexpired),
            events: get(&self.events),
        }
    }
}
