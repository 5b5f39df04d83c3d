//! Deadlines of established connections: one heap and one task instead of a timer per connection.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The farthest that a grant's end is scheduled.
const FARTHEST: Duration = Duration::from_secs(600);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Time to look whether the connection still lives.
    Ping,
    /// The socket may have been full for too long.
    Write,
    /// The grant ends.
    Expiry,
    /// A measured request to an account may have been waited for long enough; the id is the account's number.
    Unanswered,
}

/// Deadlines by connection id (or what the timer says). Entries of connections that ended are dropped when they come up.
#[derive(Debug)]
pub(crate) struct Timers {
    epoch: Instant,
    heap: Mutex<BinaryHeap<Reverse<(u64, u64, Timer)>>>,
    changed: Notify,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self { epoch: Instant::now(), heap: Mutex::new(BinaryHeap::new()), changed: Notify::new() }
    }

    /// Milliseconds since the broker's start.
    pub(crate) fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    /// Schedules a timer at a time of [`Timers::now`].
    pub(crate) fn at(&self, due: u64, cid: u64, timer: Timer) {
        let mut heap = self.heap.lock();
        let is_first = heap.peek().is_none_or(|Reverse((first, ..))| due < *first);
        heap.push(Reverse((due, cid, timer)));
        drop(heap);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Schedules a look at the grant's end. Ends that are far away are looked at again before, so that connections
    /// which come and go leave no entries behind for years.
    pub(crate) fn expire_in(&self, left: Duration, cid: u64) {
        let wait = left.min(FARTHEST).as_millis() as u64;
        self.at(self.now() + wait.max(1), cid, Timer::Expiry);
    }

    /// Waits until something is due and takes all of it.
    pub(crate) async fn due(&self, into: &mut Vec<(u64, Timer)>) {
        loop {
            let next = self.heap.lock().peek().map(|Reverse((due, ..))| *due);
            let now = self.now();
            match next {
                Some(due) if due <= now => {
                    let mut heap = self.heap.lock();
                    while let Some(Reverse((due, cid, timer))) = heap.peek().copied()
                        && due <= now
                    {
                        heap.pop();
                        into.push((cid, timer));
                    }
                    return;
                }
                Some(due) => {
                    let until = self.epoch + Duration::from_millis(due);
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        () = self.changed.notified() => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }
}
