//! Long-lived helpers: one JSON document per line on standard input, one per line on standard output.
//!
//! Several requests may be under way in one process, as soon as the helper has shown that it repeats `identity`. A process
//! that ends costs each request it had one retry, alone on another process; a request over which a second process ends
//! fails with the reason. A request that takes too long, or whose answer cannot be read, fails; those behind it are asked
//! again and not held to account. A process that answers for a node it was not asked about, or without being asked, is
//! ended. Restarts back off.
//!
//! ```text
//! run() -> Dispatch -> one task per process (worker), which owns a Conversation -> run()
//! ```

mod conversation;
mod dispatch;
mod worker;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::conversation::{Job, Outcome};
use self::dispatch::Dispatch;
use super::{HelperError, RunNotes};
use crate::config::{ProgramHelper, ProgramMode};

/// Processes that answer for many nodes.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    /// Longest time one request may take with everything that can happen to it: a full row before it, a slow one in each
    /// place of that row, and all of it once more after a retry.
    overall: Duration,
}

/// What callers and workers share.
#[derive(Debug)]
struct Shared {
    settings: ProgramHelper,
    dispatch: Mutex<Dispatch>,
    /// One bell per place.
    bells: Vec<Notify>,
    workers: Mutex<Workers>,
    /// Callers that wait for an answer, and the bell of the last one.
    callers: AtomicUsize,
    last_left: Notify,
    leave: CancellationToken,
}

#[derive(Debug, Default)]
struct Workers {
    tasks: JoinSet<()>,
    /// Which places have a task. They get it with their first request.
    begun: Vec<bool>,
}

impl Pool {
    /// A pool of `settings.mode`; processes are started when they are needed.
    pub fn new(settings: ProgramHelper) -> Self {
        let (processes, pipeline) = match settings.mode {
            ProgramMode::Persistent { processes, pipeline } => (processes.max(1), pipeline.max(1)),
            ProgramMode::Process => (1, 1),
        };
        let row = u32::try_from(pipeline).unwrap_or(u32::MAX).saturating_add(1);
        let overall = settings.timeout.saturating_mul(row).saturating_mul(2);
        let shared = Shared {
            settings,
            dispatch: Mutex::new(Dispatch::new(processes, pipeline)),
            bells: (0..processes).map(|_| Notify::new()).collect(),
            workers: Mutex::new(Workers { begun: vec![false; processes], ..Workers::default() }),
            callers: AtomicUsize::new(0),
            last_left: Notify::new(),
            leave: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared), overall }
    }

    /// Asks one of the processes about the node `identity`. `request` is one line. Dropping the future gives the answer up;
    /// the process goes on.
    ///
    /// # Errors
    /// As for a process per node, and when a second process ended over the request.
    pub async fn run(&self, identity: Arc<str>, request: String) -> Outcome {
        let failed = |reason: &str| {
            let command = self.shared.settings.command.clone();
            Err((HelperError::Pool { command, reason: reason.to_owned() }, RunNotes::default()))
        };
        let _caller = Caller::of(&self.shared);
        let (reply, answer) = oneshot::channel();
        let job = Job { identity, request, suspect: false, since: Instant::now(), reply };
        if self.shared.dispatch().submit(job).is_err() {
            return failed("was closed");
        }
        self.shared.hand_out();
        match tokio::time::timeout(self.overall, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => failed("was closed"),
            Err(_) => failed(&format!("gave no answer within {}s, retries included", self.overall.as_secs_f64())),
        }
    }

    /// Waits for the requests that are under way, refuses further ones and ends the processes.
    pub async fn close(&self) {
        self.shared.dispatch().close();
        loop {
            let left = self.shared.last_left.notified();
            if self.shared.callers.load(Ordering::SeqCst) == 0 {
                break;
            }
            left.await;
        }
        self.shared.leave.cancel();
        let mut workers = std::mem::take(&mut *self.shared.workers());
        while workers.tasks.join_next().await.is_some() {}
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.leave.cancel();
    }
}

impl Shared {
    fn dispatch(&self) -> MutexGuard<'_, Dispatch> {
        self.dispatch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn workers(&self) -> MutexGuard<'_, Workers> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands waiting requests to places with room and wakes their workers.
    fn hand_out(self: &Arc<Self>) {
        let places = self.dispatch().assign();
        for place in places {
            self.begin(place);
            self.bells[place].notify_one();
        }
    }

    /// Makes sure that a place has a worker.
    fn begin(self: &Arc<Self>, place: usize) {
        let mut workers = self.workers();
        // Closed pools have no places any more.
        if let Some(begun) = workers.begun.get_mut(place).filter(|begun| !**begun) {
            *begun = true;
            let shared = Arc::clone(self);
            workers.tasks.spawn(async move { worker::work(&shared, place).await });
        }
    }
}

/// Somebody who waits for an answer.
struct Caller<'s> {
    shared: &'s Shared,
}

impl<'s> Caller<'s> {
    fn of(shared: &'s Shared) -> Self {
        shared.callers.fetch_add(1, Ordering::SeqCst);
        Self { shared }
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        if self.shared.callers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.last_left.notify_one();
        }
    }
}
