//! Threads that wait on one readiness queue. Whoever sees that a connection is ready serves it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::dispatcher::{get_default, with_default};

use super::task::{Boxed, Task};
use super::watched::Watched;

/// Events taken at once. What one thread has taken no other can serve.
const EVENTS: usize = 64;
/// The event that only says: look at the queue.
const NUDGE: u64 = u64::MAX;

thread_local! {
    /// Whether this is a thread of a pool.
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// The threads.
#[derive(Debug)]
pub(crate) struct Pool {
    core: Arc<Core>,
    stop: CancellationToken,
}

/// What the threads share.
#[derive(Debug)]
pub(super) struct Core {
    epoll: Epoll,
    nudge: EventFd,
    slots: Mutex<Slots>,
    /// Tasks that were woken by something other than their socket. Bounded by the number of tasks: each stands in it at
    /// most once.
    queue: Mutex<VecDeque<Arc<Task>>>,
    /// Threads that wait, or are about to.
    sleepers: AtomicUsize,
    /// Threads that have not ended.
    running: AtomicUsize,
    is_stopping: AtomicBool,
}

/// The tasks by number. A number is used again under another generation, so that an event that one thread took before
/// the end of a task does not reach its successor.
#[derive(Debug, Default)]
struct Slots {
    tasks: Vec<(u32, Option<Arc<Task>>)>,
    free: Vec<u32>,
}

impl Slots {
    fn get(&self, key: u64) -> Option<&Arc<Task>> {
        let (generation, task) = self.tasks.get(number(key))?;
        task.as_ref().filter(|_| u64::from(*generation) == key >> 32)
    }

    fn insert(&mut self, make: impl FnOnce(u64) -> Arc<Task>) -> Arc<Task> {
        let number = self.free.pop().map_or(self.tasks.len(), |number| number as usize);
        if number == self.tasks.len() {
            self.tasks.push((0, None));
        }
        let (generation, slot) = &mut self.tasks[number];
        let task = make((u64::from(*generation) << 32) | number as u64);
        *slot = Some(Arc::clone(&task));
        task
    }

    fn remove(&mut self, key: u64) -> Option<Arc<Task>> {
        self.get(key)?;
        let (generation, slot) = &mut self.tasks[number(key)];
        *generation = generation.wrapping_add(1);
        self.free.push(number(key) as u32);
        slot.take()
    }

    fn take_all(&mut self) -> Vec<Arc<Task>> {
        self.free.clear();
        self.tasks.drain(..).filter_map(|(_, task)| task).collect()
    }
}

fn number(key: u64) -> usize {
    (key & u64::from(u32::MAX)) as usize
}

impl Pool {
    /// As many threads as the runtime has, at most one for each processor.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Handle::current();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let count = runtime.metrics().num_workers().clamp(1, processors);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let nudge = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        // Edges only: each nudge wakes one thread, and nobody has to read it away.
        epoll.add(&nudge, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, NUDGE))?;
        let core = Arc::new(Core {
            epoll,
            nudge,
            slots: Mutex::default(),
            queue: Mutex::default(),
            sleepers: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            is_stopping: AtomicBool::new(false),
        });
        let pool = Self { core, stop: CancellationToken::new() };
        // A runtime that ends without the broker's shutdown takes the threads along: tasks need its timers.
        let guard = StopOnDrop(Arc::clone(&pool.core));
        let stop = pool.stop.clone();
        runtime.spawn(async move {
            let _guard = guard;
            stop.cancelled().await;
        });
        // Whoever listens to the starting thread's log hears these, too.
        let log = get_default(Clone::clone);
        for number in 0..count {
            let (core, runtime, log) = (Arc::clone(&pool.core), runtime.clone(), log.clone());
            core.running.fetch_add(1, Ordering::AcqRel);
            let thread = std::thread::Builder::new().name(format!("nats-io-{number}"));
            if let Err(error) = thread.spawn(move || with_default(&log, || core.work(&runtime))) {
                pool.core.running.fetch_sub(1, Ordering::AcqRel);
                pool.stop();
                return Err(error);
            }
        }
        Ok(pool)
    }

    pub(super) fn spawn(&self, socket: Arc<Watched>, future: Boxed) -> io::Result<()> {
        let core = &self.core;
        let task =
            core.slots.lock().insert(|key| Arc::new(Task::new(key, Arc::clone(&socket), future, Arc::downgrade(core))));
        if core.is_stopping.load(Ordering::Acquire) {
            core.end_all();
            return Ok(());
        }
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        // The first event comes at once: an empty socket can be written.
        if let Err(error) = core.epoll.add(&socket.stream, EpollEvent::new(interest, task.key())) {
            core.forget(&task);
            return Err(error.into());
        }
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
        self.core.stop();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Lives in the runtime.
struct StopOnDrop(Arc<Core>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Core {
    fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.nudge();
    }

    /// Wakes one thread that waits.
    fn nudge(&self) {
        // Fails only when the counter is full, and then there is an edge nobody has taken yet.
        let _ = self.nudge.write(1);
    }

    /// Runs a task later, behind those that are ready now. The caller has marked it as queued.
    pub(super) fn enqueue(&self, task: Arc<Task>) {
        let mut queue = self.queue.lock();
        queue.push_back(task);
        let waiting = queue.len();
        drop(queue);
        // A thread of ours comes to the queue itself when it has served its events; with more than that in it, another
        // one that has nothing to do shall help.
        if (waiting > 1 || !IS_OURS.get()) && self.sleepers.load(Ordering::SeqCst) > 0 {
            self.nudge();
        }
    }

    /// One thread's life.
    fn work(&self, runtime: &Handle) {
        let _timers = runtime.enter();
        IS_OURS.set(true);
        let mut events = [EpollEvent::empty(); EVENTS];
        while !self.is_stopping.load(Ordering::Acquire) {
            // Counted before the look at the queue, so that whoever puts something into it after the look sees a sleeper.
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            let patience = if self.queue.lock().is_empty() { EpollTimeout::NONE } else { EpollTimeout::ZERO };
            let taken = self.epoll.wait(&mut events, patience);
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
            match taken {
                Ok(taken) => self.serve(&events[..taken]),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the readiness queue is broken; no connection can be served any more");
                    self.is_stopping.store(true, Ordering::Release);
                }
            }
            let queued = self.queue.lock().len();
            for _ in 0..queued {
                let Some(task) = self.queue.lock().pop_front() else { break };
                task.run_queued(self);
            }
        }
        // The next one; the last one clears up.
        self.nudge();
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.end_all();
        }
    }

    fn serve(&self, events: &[EpollEvent]) {
        let mut ready: SmallVec<[Arc<Task>; EVENTS]> = SmallVec::new();
        let slots = self.slots.lock();
        for event in events {
            if let Some(task) = slots.get(event.data()) {
                task.socket().note(event.events());
                ready.push(Arc::clone(task));
            }
        }
        drop(slots);
        for task in ready {
            task.run_ready(self);
        }
    }

    /// A task has ended: its socket is watched no more.
    pub(super) fn forget(&self, task: &Task) {
        let removed = self.slots.lock().remove(task.key());
        // Gone already when the peer was faster.
        let _ = self.epoll.delete(&task.socket().stream);
        drop(removed);
    }

    /// Drops the tasks that are left.
    fn end_all(&self) {
        let tasks = self.slots.lock().take_all();
        self.queue.lock().clear();
        for task in tasks {
            task.drop_future();
        }
    }
}
