//! A future that is polled by whichever thread sees its socket ready.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

use super::pool::Core;
use super::watched::Watched;

/// What a task runs.
pub(super) type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Nobody has it.
const IDLE: u8 = 0;
/// It stands in the queue.
const QUEUED: u8 = 1;
/// A thread polls it.
const RUNNING: u8 = 2;
/// A thread polls it, and something has happened since it began to.
const AGAIN: u8 = 3;
/// It has ended.
const DONE: u8 = 4;

/// One task.
pub(super) struct Task {
    key: u64,
    state: AtomicU8,
    socket: Arc<Watched>,
    /// Only the thread that has set `RUNNING` takes this lock, and whoever drops the future at the end of everything.
    future: Mutex<Option<Boxed>>,
    core: Weak<Core>,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Task {
    pub(super) fn new(key: u64, socket: Arc<Watched>, future: Boxed, core: Weak<Core>) -> Self {
        Self { key, state: AtomicU8::new(IDLE), socket, future: Mutex::new(Some(future)), core }
    }

    pub(super) fn key(&self) -> u64 {
        self.key
    }

    pub(super) fn socket(&self) -> &Watched {
        &self.socket
    }

    /// Its socket is ready: serves it, unless somebody else does already, who then looks once more.
    pub(super) fn run_ready(self: &Arc<Self>, core: &Core) {
        if self.change(|state| match state {
            IDLE => Some(RUNNING),
            RUNNING => Some(AGAIN),
            _ => None,
        }) == Some(IDLE)
        {
            self.run(core);
        }
    }

    /// It has come to the head of the queue.
    pub(super) fn run_queued(self: &Arc<Self>, core: &Core) {
        if self.change(|state| (state == QUEUED).then_some(RUNNING)).is_some() {
            self.run(core);
        }
    }

    /// The state before a change that took place.
    fn change(&self, next: impl FnMut(u8) -> Option<u8>) -> Option<u8> {
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()
    }

    fn run(self: &Arc<Self>, core: &Core) {
        let waker = Waker::from(Arc::clone(self));
        let mut slot = self.future.lock();
        let Some(future) = slot.as_mut() else { return };
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        match polled {
            Ok(Poll::Pending) => {
                drop(slot);
                let before = self.change(|state| match state {
                    RUNNING => Some(IDLE),
                    AGAIN => Some(QUEUED),
                    _ => None,
                });
                if before == Some(AGAIN) {
                    core.enqueue(Arc::clone(self));
                }
            }
            // A task that panicked is over; its own clearing up runs as it is dropped, as in tokio.
            Ok(Poll::Ready(())) | Err(_) => {
                self.state.store(DONE, Ordering::Release);
                let ended = slot.take();
                drop(slot);
                core.forget(self);
                drop(ended);
            }
        }
    }

    /// The end of everything.
    pub(super) fn drop_future(&self) {
        self.state.store(DONE, Ordering::Release);
        let ended = self.future.lock().take();
        drop(ended);
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let before = self.change(|state| match state {
            IDLE => Some(QUEUED),
            RUNNING => Some(AGAIN),
            _ => None,
        });
        if before == Some(IDLE)
            && let Some(core) = self.core.upgrade()
        {
            core.enqueue(Arc::clone(self));
        }
    }
}
