//! Words of the queue: how nodes come, where they are, how they leave.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// How the node was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Its startup event: the process is new.
    Event,
    /// It answered a discovery request.
    Discovery,
    /// It published registration data.
    Registration,
}

/// Bounds and times of the queue.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Nodes known at a time; the original's queue holds as many.
    pub max_known: usize,
    /// Nodes worked at a time.
    pub max_nodes: usize,
    /// A queued node that nothing has seen for this long is dropped, twice the interval.
    pub stale_after: Duration,
    /// How long a provisioned node is left alone.
    pub settle: Duration,
}

impl Limits {
    /// The reference's bounds for this interval.
    pub fn for_interval(interval: Duration, max_nodes: usize) -> Self {
        Self { max_known: 50_000, max_nodes, stale_after: interval * 2, settle: Duration::from_secs(60) }
    }
}

/// What became of a sighting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is queued now. To make room, the silent node `evicted` was dropped: abandon its flow.
    Added {
        /// Dropped in its place.
        evicted: Option<Arc<str>>,
    },
    /// It is known and waits, is worked on or settles.
    Known,
    /// It failed lately; it will start when its rest is over.
    Resting {
        /// End of the rest.
        until: Instant,
    },
    /// It was provisioned moments ago and is back in provisioning; it will start when its rest is over.
    Returned {
        /// End of the rest.
        until: Instant,
    },
    /// Too many nodes are known; discovery will find it again.
    Full,
}

/// How an attempt ended, as far as the queue cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Provisioned or told to shut down: leave it alone for a while.
    Settle,
    /// Failed: rest, longer each time. `retry`: it lives, so it starts by itself when the rest is over.
    Failed {
        /// Whether it starts without being seen again.
        retry: bool,
    },
    /// Put off, not its fault: rest this long.
    PutOff(Duration),
    /// Broken off by us; it keeps its place in the queue.
    Interrupted,
    /// The node is gone.
    Gone,
}

/// A node whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Start its flow.
    Start {
        /// The node.
        identity: Arc<str>,
        /// When it was first seen.
        first_seen: Instant,
        /// Whether this is its first attempt in this list's memory: only then may it get requests that are
        /// signed once for many nodes, because a node refuses a request id that it has seen.
        fresh: bool,
    },
    /// Nothing has seen it for too long; it was dropped.
    Stale {
        /// The node.
        identity: Arc<str>,
        /// How long it waited.
        waited: Duration,
    },
}

/// Where a node is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Waits for its first request, at this place of the queue; 1 is next. Finding the place takes a look at the whole queue.
    Queued {
        /// Its place.
        place: usize,
        /// Its connection ended; it leaves then unless it is seen again.
        leaves: Option<Instant>,
    },
    /// Asked, and expected to answer any moment.
    Probing,
    /// Asked, no answer for so long that it takes no place.
    Silent,
    /// Asked and answering.
    Engaged,
    /// Rests until then and starts by itself.
    Resting {
        /// End of the rest.
        until: Instant,
    },
    /// Starts when it is seen again, but not before then.
    WaitingToBeSeen {
        /// End of its rest; in the past when that is over.
        until: Instant,
    },
    /// Provisioned moments ago, left alone until then.
    Settling {
        /// End of the time.
        until: Instant,
    },
}

/// How many nodes are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wait for their first request.
    pub queued: usize,
    /// Asked, counting as worked on, without an answer yet.
    pub probing: usize,
    /// Asked, without an answer for longer than the grace time.
    pub silent: usize,
    /// Answering.
    pub engaged: usize,
    /// Start by themselves when their rest is over.
    pub resting: usize,
    /// Start when they are seen again.
    pub waiting_to_be_seen: usize,
    /// Left alone after they were provisioned.
    pub settling: usize,
}

impl Counts {
    pub(super) fn of(&mut self, state: State) -> &mut usize {
        match state {
            State::Queued => &mut self.queued,
            State::Probing => &mut self.probing,
            State::Silent => &mut self.silent,
            State::Engaged => &mut self.engaged,
            State::Resting { wanted: true } => &mut self.resting,
            State::Resting { wanted: false } | State::Remembered => &mut self.waiting_to_be_seen,
            State::Settling { .. } => &mut self.settling,
        }
    }

    /// Nodes that wait, are worked on or settle; not those that merely failed once.
    pub(super) fn waiting(&self) -> usize {
        self.queued + self.probing + self.silent + self.engaged + self.resting + self.settling
    }
}

/// What the queue itself distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Queued,
    /// Started, no answer yet, counts as worked.
    Probing,
    /// Started, no answer within the grace time, does not count.
    Silent,
    /// Started and answering.
    Engaged,
    /// Failed lately. `wanted`: seen since, starts at the end of the rest.
    Resting {
        wanted: bool,
    },
    /// Nothing to do with it now, but its failures are remembered.
    Remembered,
    /// Provisioned at this time.
    Settling {
        since: Instant,
    },
}
