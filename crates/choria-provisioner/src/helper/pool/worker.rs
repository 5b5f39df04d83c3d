//! One place of the pool: starts its process, writes requests in batches, reads many lines at a time, starts over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Shared;
use super::conversation::{Answered, Conversation, Fault, Job, Remains};
use crate::helper::process::{Group, Streams, describe};
use crate::helper::{HelperError, MAX_OUTPUT, MAX_STDERR, RunNotes};

/// Longest pause before a process that keeps ending is started again.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How long a process may take to end after its input was closed.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long a process that closed its output may take to tell how it ended.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// Room for one read; what a pipe holds.
const CHUNK: usize = 64 * 1024;
/// What is wrong with a process that speaks when nothing is under way.
pub(super) const UNASKED: &str = "wrote a line without being asked";

/// Serves one place until the pool is closed or dropped.
pub(super) async fn work(shared: &Arc<Shared>, place: usize) {
    let mut failures = 0_u32;
    loop {
        while !shared.dispatch().has_work(place) {
            tokio::select! {
                () = shared.bells[place].notified() => {},
                () = shared.leave.cancelled() => return,
            }
        }
        let again = match Process::start(shared) {
            Ok(mut process) => {
                shared.dispatch().started(place);
                match process.converse(shared, place, &mut failures).await {
                    Some(fault) => process.give_up(fault).await,
                    None => return process.leave().await,
                }
            }
            Err(error) => {
                let jobs = shared.dispatch().take(place);
                jobs.into_iter().for_each(|job| fail(job, error.clone(), RunNotes::default()));
                Vec::new()
            }
        };
        shared.dispatch().ended(place, again);
        // Others take over what is to be asked again while this place rests.
        shared.hand_out();
        failures = failures.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(pause(failures)) => {},
            () = shared.leave.cancelled() => return,
        }
        shared.dispatch().rested(place);
        shared.hand_out();
    }
}

/// The first restart is immediate: one bad request must not slow the next one down.
fn pause(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        n => Duration::from_millis(50_u64.saturating_mul(1 << n.min(12))).min(MAX_PAUSE),
    }
}

fn fail(job: Job, error: HelperError, notes: RunNotes) {
    // Whoever asked may have gone.
    let _ = job.reply.send(Err((error, notes)));
}

/// Reads a part of a stream that may be over.
async fn read_some(stream: &mut Option<ChildStderr>, chunk: &mut [u8]) -> std::io::Result<usize> {
    match stream {
        Some(stream) => stream.read(chunk).await,
        None => std::future::pending().await,
    }
}

/// A running helper.
struct Process {
    command: String,
    group: Group,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    conversation: Conversation,
    /// It was not asked anything yet.
    fresh: bool,
    /// To be written.
    out: Vec<u8>,
    /// It does not read any more; its output tells the rest of the story.
    deaf: bool,
    /// Read and not yet a whole line; what is before `scanned` holds no line end.
    input: Vec<u8>,
    scanned: usize,
    /// The last part of standard error that was not told yet.
    errors: VecDeque<u8>,
}

/// What woke the worker.
enum Woken {
    Read(std::io::Result<usize>),
    Complained(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
    Bell,
    Overdue,
    Leave,
}

impl Process {
    fn start(shared: &Shared) -> Result<Self, HelperError> {
        let settings = &shared.settings;
        let (group, Streams { stdin, stdout, stderr }) = Group::start(settings)?;
        Ok(Self {
            command: settings.command.clone(),
            group,
            stdin,
            stdout,
            stderr: Some(stderr),
            conversation: Conversation::new(settings.command.clone(), settings.timeout, Instant::now()),
            fresh: true,
            out: Vec::new(),
            deaf: false,
            input: Vec::new(),
            scanned: 0,
            errors: VecDeque::new(),
        })
    }

    /// Asks and answers until something is wrong; `None` when the pool is closed.
    async fn converse(&mut self, shared: &Arc<Shared>, place: usize, failures: &mut u32) -> Option<Fault> {
        let mut complaint = [0_u8; 1024];
        loop {
            if let Err(fault) = self.take_on(shared, place) {
                return Some(fault);
            }
            let deadline = self.conversation.deadline();
            self.input.reserve(CHUNK);
            let woken = tokio::select! {
                read = self.stdout.read_buf(&mut self.input) => Woken::Read(read),
                written = self.stdin.write(&self.out), if !self.out.is_empty() && !self.deaf => Woken::Wrote(written),
                () = shared.bells[place].notified() => Woken::Bell,
                read = read_some(&mut self.stderr, &mut complaint) => Woken::Complained(read),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Woken::Overdue,
                () = shared.leave.cancelled() => Woken::Leave,
            };
            match woken {
                Woken::Read(Ok(0) | Err(_)) => return Some(Fault::Process(self.how_it_ended(&mut complaint).await)),
                Woken::Read(Ok(_)) => {
                    if let Err(fault) = self.read_lines(shared, place, failures) {
                        return Some(fault);
                    }
                }
                Woken::Wrote(Ok(count)) if count > 0 => {
                    self.out.drain(..count);
                    self.conversation.wrote(count);
                }
                Woken::Wrote(_) => self.deaf = true,
                Woken::Complained(Ok(count)) if count > 0 => self.remember(&complaint[..count]),
                Woken::Complained(_) => self.stderr = None,
                Woken::Bell => {}
                Woken::Overdue => return Some(self.conversation.overdue(self.input.len())),
                Woken::Leave => return None,
            }
        }
    }

    /// Takes what was handed to this place. A process that has nothing to answer must be alive and silent before it is
    /// asked: whatever it said unasked would be taken for the answer.
    fn take_on(&mut self, shared: &Shared, place: usize) -> Result<(), Fault> {
        if !shared.dispatch().has_work(place) {
            return Ok(());
        }
        if self.conversation.is_empty() && !self.fresh {
            self.expect_silence()?;
        }
        self.fresh = false;
        let now = Instant::now();
        for job in shared.dispatch().take(place) {
            self.conversation.ask(job, &mut self.out, now);
        }
        Ok(())
    }

    /// Asks the system itself: the runtime may not have been told yet. The stream does not block.
    fn expect_silence(&self) -> Result<(), Fault> {
        match nix::unistd::read(&self.stdout, &mut [0; 1]) {
            Err(nix::errno::Errno::EAGAIN) if self.input.is_empty() => Ok(()),
            Ok(0) => Err(Fault::Process("ended while it had nothing to do".to_owned())),
            _ => Err(Fault::Process(UNASKED.to_owned())),
        }
    }

    /// Hands out the answers among what was read.
    fn read_lines(&mut self, shared: &Arc<Shared>, place: usize, failures: &mut u32) -> Result<(), Fault> {
        let now = Instant::now();
        let mut answers: Vec<Answered> = Vec::new();
        let mut begin = 0;
        let mut fault = None;
        while let Some(length) = memchr::memchr(b'\n', &self.input[self.scanned..]) {
            let end = self.scanned + length;
            self.scanned = end + 1;
            let line = &self.input[begin..end];
            begin = end + 1;
            let taken = if line.len() > MAX_OUTPUT { Err(self.too_much()) } else { self.conversation.line(line, now) };
            match taken {
                Ok(answered) => answers.push(answered),
                Err(wrong) => {
                    fault = Some(wrong);
                    break;
                }
            }
        }
        self.input.drain(..begin);
        self.scanned = if fault.is_some() { 0 } else { self.input.len() };
        if fault.is_none() && !self.input.is_empty() && self.conversation.is_empty() {
            fault = Some(Fault::Process(UNASKED.to_owned()));
        }
        if fault.is_none() && self.input.len() > MAX_OUTPUT {
            fault = Some(self.too_much());
        }
        if !answers.is_empty() {
            *failures = 0;
            self.hand_back(shared, place, answers, fault.as_ref());
        }
        fault.map_or(Ok(()), Err)
    }

    /// Sends answers to those who asked. When the process said something unasked right behind it, an answer that does not
    /// name its node may be anybody's.
    fn hand_back(&mut self, shared: &Arc<Shared>, place: usize, answers: Vec<Answered>, fault: Option<&Fault>) {
        let unasked = self.conversation.is_empty() && matches!(fault, Some(Fault::Process(_)));
        let mut news = false;
        {
            let mut dispatch = shared.dispatch();
            for answered in &answers {
                news |= dispatch.answered(place, !answered.answer.identity.is_empty());
            }
        }
        if news {
            tracing::info!(
                "the helper does not repeat identity in every answer: each process gets one request at a time"
            );
        }
        shared.hand_out();
        for Answered { job, answer, waited } in answers {
            let notes = RunNotes { stderr: self.take_errors(), waited, ..RunNotes::default() };
            if unasked && answer.identity.is_empty() {
                let reason = "wrote more than one line for one request".to_owned();
                let command = shared.settings.command.clone();
                fail(job, HelperError::Pool { command, reason }, notes);
            } else {
                let _ = job.reply.send(Ok((answer, notes)));
            }
        }
    }

    fn too_much(&self) -> Fault {
        self.conversation.spoilt(HelperError::TooMuchOutput { command: self.command.clone(), limit: MAX_OUTPUT })
    }

    /// It closed its output: waits a moment for its end and for the rest of what it has to say.
    async fn how_it_ended(&mut self, complaint: &mut [u8]) -> String {
        let when = if self.conversation.is_empty() { "while it had nothing to do" } else { "while it had a request" };
        let soon = Instant::now() + LAST_WORDS;
        let ended = timeout_at(soon, self.group.wait()).await;
        while let Ok(Ok(count)) = timeout_at(soon, read_some(&mut self.stderr, complaint)).await {
            if count == 0 {
                break;
            }
            self.remember(&complaint[..count]);
        }
        match ended {
            Ok(Ok(status)) => match describe(status) {
                Some(status) => format!("ended {when}: {status}"),
                None => format!("ended {when}"),
            },
            _ => format!("closed its output {when}"),
        }
    }

    /// Ends the process and fails what cannot be asked again; returns the rest.
    async fn give_up(mut self, fault: Fault) -> Vec<Job> {
        self.group.end().await;
        let mut stderr = self.take_errors();
        let reason = match &fault {
            Fault::Process(reason) => reason.clone(),
            Fault::Oldest(error) => error.reason().to_owned(),
        };
        let Remains { failed, again } = self.conversation.end(fault);
        if failed.is_empty() || !again.is_empty() {
            let said = if stderr.is_empty() { String::new() } else { format!("; it said: {stderr:?}") };
            tracing::warn!("a process of {} {reason}, {} requests are asked again{said}", self.command, again.len());
        }
        for (job, error) in failed {
            fail(job, error, RunNotes { stderr: std::mem::take(&mut stderr), ..RunNotes::default() });
        }
        again
    }

    /// Lets the process end by itself.
    async fn leave(self) {
        let Self { mut group, stdin, stdout, .. } = self;
        drop((stdin, stdout));
        if tokio::time::timeout(GOODBYE, group.wait()).await.is_err() {
            group.end().await;
        }
    }

    /// What it wrote to standard error since this was asked last.
    fn take_errors(&mut self) -> String {
        let bytes: Vec<u8> = self.errors.drain(..).collect();
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }

    fn remember(&mut self, complaint: &[u8]) {
        self.errors.extend(complaint);
        let excess = self.errors.len().saturating_sub(MAX_STDERR);
        self.errors.drain(..excess);
    }
}
