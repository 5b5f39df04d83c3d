//! Long-lived helpers: one JSON document per line on standard input, one per line on standard output.
//!
//! Each process has one request at a time, so answers match requests by order. A process that ends costs the
//! request it had one retry on another process. One that answers late, twice, or for another node is ended:
//! an answer must never reach the wrong node. Restarts back off.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::process::{Group, Streams, describe};
use super::{HelperAnswer, HelperError, MAX_OUTPUT, MAX_STDERR, RunNotes};
use crate::config::{ProgramHelper, ProgramMode};

/// Longest pause before a process that keeps ending is started again.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How long a process may take to end after its input was closed.
const GOODBYE: Duration = Duration::from_secs(1);

/// Processes that answer for many nodes.
#[derive(Debug)]
pub struct Pool {
    settings: ProgramHelper,
    processes: usize,
    permits: Semaphore,
    idle: Mutex<Vec<Slot>>,
}

/// Why one try of a request failed.
enum Fault {
    /// The process ended; another one may answer.
    Ended(String),
    /// Trying again would not help.
    Final(HelperError),
}

impl Pool {
    /// A pool of at most `settings.processes` processes, started when they are needed.
    pub fn new(settings: ProgramHelper) -> Self {
        let processes = match settings.mode {
            ProgramMode::Persistent { processes, .. } => processes,
            ProgramMode::Process => 1,
        };
        let permits = Semaphore::new(processes);
        Self { settings, processes, permits, idle: Mutex::new(Vec::new()) }
    }

    /// Asks one of the processes about the node `identity`. `request` is one line.
    ///
    /// # Errors
    /// As for a process per node, and when two processes in a row ended over the request.
    pub async fn run(
        &self,
        identity: &str,
        request: &str,
    ) -> Result<(HelperAnswer, RunNotes), (HelperError, RunNotes)> {
        let closed = || self.pool_error("was closed".to_owned());
        let Ok(_permit) = self.permits.acquire().await else { return Err((closed(), RunNotes::default())) };
        let mut notes = RunNotes::default();
        let mut last = String::new();
        for _ in 0..2 {
            let mut slot = self.take();
            let result = slot.ask(&self.settings, identity, request).await;
            notes.stderr = slot.take_stderr();
            if result.is_err() {
                slot.stop().await;
            }
            self.put(slot);
            match result {
                Ok(answer) => return Ok((answer, notes)),
                Err(Fault::Final(error)) => return Err((error, notes)),
                Err(Fault::Ended(reason)) => last = reason,
            }
        }
        Err((self.pool_error(last), notes))
    }

    /// Waits for the requests that are under way, refuses further ones and ends the processes.
    pub async fn close(&self) {
        let all = u32::try_from(self.processes).unwrap_or(u32::MAX);
        let everything = self.permits.acquire_many(all).await;
        self.permits.close();
        drop(everything);
        let slots = std::mem::take(&mut *self.lock());
        for mut slot in slots {
            slot.leave().await;
        }
    }

    fn pool_error(&self, reason: String) -> HelperError {
        HelperError::Pool { command: self.settings.command.clone(), reason }
    }

    /// A slot; the most lately used first, because its process is alive and warm.
    fn take(&self) -> Slot {
        self.lock().pop().unwrap_or_default()
    }

    fn put(&self, slot: Slot) {
        let mut idle = self.lock();
        if slot.process.is_some() {
            idle.push(slot);
        } else {
            // Those that must be started again come last.
            idle.insert(0, slot);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Slot>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for one process.
#[derive(Debug, Default)]
struct Slot {
    process: Option<Process>,
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Process {
    group: Group,
    stdin: ChildStdin,
    stdout: ChildStdout,
    /// Read but not yet taken; empty between requests.
    buffer: Vec<u8>,
    errors: Arc<Mutex<VecDeque<u8>>>,
}

impl Slot {
    async fn ask(&mut self, settings: &ProgramHelper, identity: &str, request: &str) -> Result<HelperAnswer, Fault> {
        let deadline = Instant::now() + settings.timeout;
        if !self.is_ready() {
            self.stop().await;
            self.start(settings, deadline).await?;
        }
        let process = self.process.as_mut().expect("the process was started above");
        let answer = process.exchange(settings, request, deadline).await?;
        let answer = HelperAnswer::parse(&answer)
            .map_err(|reason| Fault::Final(HelperError::Decode { command: settings.command.clone(), reason }))?;
        if !answer.identity.is_empty() && answer.identity != identity {
            let reason = format!("answered for {:?} when it was asked about {identity:?}", answer.identity);
            return Err(Fault::Final(HelperError::Pool { command: settings.command.clone(), reason }));
        }
        self.failures = 0;
        self.not_before = None;
        Ok(answer)
    }

    /// Whether there is a process that is alive and silent. Anything that comes unasked, its end included, makes it
    /// unusable.
    fn is_ready(&self) -> bool {
        let Some(process) = &self.process else { return false };
        // Asks the system itself: the runtime may not have been told yet. The stream does not block.
        let silent = nix::unistd::read(&process.stdout, &mut [0; 1]) == Err(nix::errno::Errno::EAGAIN);
        silent && process.buffer.is_empty()
    }

    async fn start(&mut self, settings: &ProgramHelper, deadline: Instant) -> Result<(), Fault> {
        if let Some(not_before) = self.not_before {
            if not_before >= deadline {
                let reason = "keeps ending and is not started again yet".to_owned();
                return Err(Fault::Ended(reason));
            }
            sleep_until(not_before).await;
        }
        let (group, Streams { stdin, stdout, stderr }) = match Group::start(settings) {
            Ok(started) => started,
            Err(error) => {
                self.back_off();
                return Err(Fault::Final(error));
            }
        };
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        tokio::spawn(follow_errors(stderr, Arc::clone(&errors)));
        self.process = Some(Process { group, stdin, stdout, buffer: Vec::new(), errors });
        Ok(())
    }

    fn back_off(&mut self) {
        self.failures = self.failures.saturating_add(1);
        // The first restart is immediate: one bad request must not slow the next one down.
        let pause = match self.failures {
            0 | 1 => Duration::ZERO,
            n => Duration::from_millis(50_u64.saturating_mul(1 << n.min(12))).min(MAX_PAUSE),
        };
        self.not_before = Some(Instant::now() + pause);
    }

    /// Kills the process after a fault.
    async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.group.end().await;
            self.back_off();
        }
    }

    /// Lets the process end by itself.
    async fn leave(&mut self) {
        if let Some(Process { mut group, stdin, stdout, .. }) = self.process.take() {
            drop((stdin, stdout));
            if tokio::time::timeout(GOODBYE, group.wait()).await.is_err() {
                group.end().await;
            }
        }
    }

    /// What the process wrote to standard error since the last call.
    fn take_stderr(&self) -> String {
        let Some(process) = &self.process else { return String::new() };
        let mut tail = process.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = tail.drain(..).collect();
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }
}

impl Process {
    /// Sends one line and reads one line.
    async fn exchange(
        &mut self,
        settings: &ProgramHelper,
        request: &str,
        deadline: Instant,
    ) -> Result<Vec<u8>, Fault> {
        let line = [request.as_bytes(), b"\n"].concat();
        let mut rest: &[u8] = &line;
        let command = || settings.command.clone();
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let extra = self.buffer.split_off(end + 1);
                self.buffer.pop();
                let broken = match (extra.is_empty(), rest.is_empty()) {
                    (false, _) => Some("wrote more than one line for one request"),
                    (true, false) => Some("answered before it had read the request"),
                    (true, true) => None,
                };
                if let Some(reason) = broken {
                    return Err(Fault::Final(HelperError::Pool { command: command(), reason: reason.to_owned() }));
                }
                return match std::mem::take(&mut self.buffer) {
                    line if line.is_empty() => {
                        Err(Fault::Final(HelperError::NoOutput { command: command(), status: None }))
                    }
                    line => Ok(line),
                };
            }
            if self.buffer.len() > MAX_OUTPUT {
                return Err(Fault::Final(HelperError::TooMuchOutput { command: command(), limit: MAX_OUTPUT }));
            }
            tokio::select! {
                read = self.stdout.read_buf(&mut self.buffer) => match read {
                    Ok(0) | Err(_) => return Err(Fault::Ended(self.how_it_ended().await)),
                    Ok(_) => {},
                },
                written = self.stdin.write(rest), if !rest.is_empty() => match written {
                    Ok(n) if n > 0 => rest = &rest[n..],
                    // Its input is closed; its output tells the rest of the story.
                    _ => rest = &[],
                },
                () = sleep_until(deadline) => {
                    let (timeout, received) = (settings.timeout, self.buffer.len());
                    return Err(Fault::Final(HelperError::TimedOut { command: command(), timeout, received }));
                },
            }
        }
    }

    async fn how_it_ended(&mut self) -> String {
        // It closed its output; most have ended by now.
        let soon = Instant::now() + Duration::from_millis(250);
        match timeout_at(soon, self.group.wait()).await {
            Ok(Ok(status)) => match describe(status) {
                Some(status) => format!("ended while it had a request: {status}"),
                None => "ended while it had a request".to_owned(),
            },
            _ => "closed its output while it had a request".to_owned(),
        }
    }
}

/// Keeps the last part of standard error for the log of whoever has a request when something goes wrong.
async fn follow_errors(stderr: ChildStderr, tail: Arc<Mutex<VecDeque<u8>>>) {
    let mut reader = BufReader::new(stderr);
    loop {
        let taken = match reader.fill_buf().await {
            Ok([]) | Err(_) => return,
            Ok(bytes) => {
                let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
                tail.extend(bytes);
                let excess = tail.len().saturating_sub(MAX_STDERR);
                tail.drain(..excess);
                bytes.len()
            }
        };
        reader.consume(taken);
    }
}
