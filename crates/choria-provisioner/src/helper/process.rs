//! One process per node, and what every helper process has in common: its own process group, bounded streams.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep_until};

use super::{HelperAnswer, HelperError, MAX_OUTPUT, MAX_STDERR, RunNotes};
use crate::config::ProgramHelper;

/// How long after its end a helper's output may still be held open by a process it left behind.
const HELD_OPEN: Duration = Duration::from_millis(250);
/// How long a killed group may take to be reaped before we stop waiting for it.
const REAP: Duration = Duration::from_secs(1);

/// A started helper that leads its own process group. Dropping it kills the group.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    leader: Option<Pid>,
    kill_on_drop: bool,
}

impl Group {
    /// Starts the helper with all three streams piped; it inherits environment and working directory.
    pub(super) fn start(settings: &ProgramHelper) -> Result<(Self, Streams), HelperError> {
        let failed = |reason: String| HelperError::Start { command: settings.command.clone(), reason };
        let (program, arguments) =
            settings.argv.split_first().ok_or_else(|| failed("the command line is empty".to_owned()))?;
        let mut command = Command::new(program);
        command.args(arguments).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(format!("{program}: {error}")))?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let streams = match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(stdin), Some(stdout), Some(stderr)) => Streams { stdin, stdout, stderr },
            _ => return Err(failed("its streams could not be opened".to_owned())),
        };
        Ok((Self { child, leader, kill_on_drop: true }, streams))
    }

    /// Waits for the process itself, not for what it left behind.
    pub(super) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills everything in the group.
    pub(super) fn kill(&self) {
        if let Some(leader) = self.leader {
            // A group that is already gone is what we want.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }

    /// Kills the group and reaps the process.
    pub(super) async fn end(&mut self) {
        self.kill();
        let _ = tokio::time::timeout(REAP, self.child.wait()).await;
        self.kill_on_drop = false;
    }

    /// The process ended by itself; what it started on purpose may live on.
    fn release(&mut self) {
        self.kill_on_drop = false;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.kill_on_drop {
            self.kill();
        }
    }
}

/// The three streams of a helper.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

/// Runs the helper once for one node.
pub(super) async fn run(
    settings: &ProgramHelper,
    request: &str,
) -> Result<(HelperAnswer, RunNotes), (HelperError, RunNotes)> {
    let mut notes = RunNotes::default();
    match drive(settings, request.as_bytes(), &mut notes).await {
        Ok(answer) => Ok((answer, notes)),
        Err(error) => Err((error, notes)),
    }
}

/// What the streams of one run have given so far.
struct Progress<'r> {
    request: &'r [u8],
    stdin: Option<ChildStdin>,
    output: Vec<u8>,
    output_open: bool,
    errors: Vec<u8>,
    errors_open: bool,
    status: Option<ExitStatus>,
}

async fn drive(settings: &ProgramHelper, request: &[u8], notes: &mut RunNotes) -> Result<HelperAnswer, HelperError> {
    let (mut group, streams) = Group::start(settings)?;
    let mut progress = Progress {
        request,
        stdin: Some(streams.stdin),
        output: Vec::new(),
        output_open: true,
        errors: Vec::new(),
        errors_open: true,
        status: None,
    };
    let command = || settings.command.clone();
    let outcome = follow(settings.timeout, &mut group, &mut progress, streams.stdout, streams.stderr).await;
    notes.stderr = String::from_utf8_lossy(&progress.errors).trim_end().to_owned();
    match outcome {
        End::Done => group.release(),
        End::LeftBehind => {
            notes.left_behind = true;
            group.end().await;
        }
        End::TimedOut => {
            group.end().await;
            let (timeout, received) = (settings.timeout, progress.output.len());
            return Err(HelperError::TimedOut { command: command(), timeout, received });
        }
        End::TooMuch => {
            group.end().await;
            return Err(HelperError::TooMuchOutput { command: command(), limit: MAX_OUTPUT });
        }
        End::Lost(reason) => return Err(HelperError::Failed { command: command(), status: reason }),
    }
    // The order of these tests is the original's: empty output, exit status, JSON.
    let status = progress.status.and_then(describe);
    if progress.output.is_empty() {
        return Err(HelperError::NoOutput { command: command(), status });
    }
    if let Some(status) = status {
        return Err(HelperError::Failed { command: command(), status });
    }
    HelperAnswer::parse(&progress.output).map_err(|reason| HelperError::Decode { command: command(), reason })
}

enum End {
    /// It ended and closed its output.
    Done,
    /// It ended, something else holds its output open.
    LeftBehind,
    TimedOut,
    TooMuch,
    /// The system could not tell how it ended.
    Lost(String),
}

/// Feeds and reads the process until it is over.
async fn follow(
    timeout: Duration,
    group: &mut Group,
    progress: &mut Progress<'_>,
    mut stdout: ChildStdout,
    mut stderr: ChildStderr,
) -> End {
    let deadline = Instant::now() + timeout;
    let mut held_until = deadline;
    let mut chunk = [0_u8; 4096];
    loop {
        if progress.status.is_some() && !progress.output_open && !progress.errors_open {
            return End::Done;
        }
        tokio::select! {
            read = stdout.read_buf(&mut progress.output), if progress.output_open => match read {
                Ok(0) | Err(_) => progress.output_open = false,
                Ok(_) if progress.output.len() > MAX_OUTPUT => return End::TooMuch,
                Ok(_) => {},
            },
            read = stderr.read(&mut chunk), if progress.errors_open => match read {
                Ok(0) | Err(_) => progress.errors_open = false,
                Ok(n) => {
                    // The rest is read too, so that the helper is not stopped by a full pipe, and dropped.
                    let room = MAX_STDERR.saturating_sub(progress.errors.len()).min(n);
                    progress.errors.extend_from_slice(&chunk[..room]);
                },
            },
            () = feed(&mut progress.stdin, &mut progress.request), if progress.stdin.is_some() => {},
            status = group.wait(), if progress.status.is_none() => match status {
                Ok(status) => {
                    progress.status = Some(status);
                    progress.stdin = None;
                    held_until = deadline.min(Instant::now() + HELD_OPEN);
                },
                Err(error) => return End::Lost(error.to_string()),
            },
            () = sleep_until(held_until), if progress.status.is_some() => {
                return if progress.output_open { End::LeftBehind } else { End::Done };
            },
            () = sleep_until(deadline) => return End::TimedOut,
        }
    }
}

/// Writes a part of the request; closes the stream when all is written or the helper does not want it.
async fn feed(stdin: &mut Option<ChildStdin>, request: &mut &[u8]) {
    let Some(stream) = stdin else { return };
    match stream.write(request).await {
        Ok(n) if n > 0 && n < request.len() => *request = &request[n..],
        // All written, or a helper that does not read its input; it may still answer.
        _ => *stdin = None,
    }
}

/// How a process ended in the words of the original; `None` when it ended well.
pub(super) fn describe(status: ExitStatus) -> Option<String> {
    use std::os::unix::process::ExitStatusExt;
    if status.success() {
        return None;
    }
    Some(match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "signal: killed".to_owned(),
        (None, Some(15)) => "signal: terminated".to_owned(),
        (None, Some(11)) => "signal: segmentation fault".to_owned(),
        (None, Some(6)) => "signal: aborted".to_owned(),
        (None, Some(other)) => format!("signal: {other}"),
        (None, None) => "unknown status".to_owned(),
    })
}
