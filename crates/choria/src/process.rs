//! The process around a command: runtimes, signals, pid files, restart.

use std::convert::Infallible;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::exit::{Exit, Failure};
use crate::logging::LogHandle;

/// Set by `choria demo` for the processes it starts: their stdin is a pipe that it holds, and they end when it closes. So
/// nothing is left behind even when the demo itself is killed.
pub(crate) const EXIT_WITH_STDIN: &str = "CHORIA_EXIT_WITH_STDIN";

/// Where this program was when it started. Known before anything can replace the file, as an upgrade does.
static EXECUTABLE: OnceLock<PathBuf> = OnceLock::new();

/// Notes the path of the running program. To be called first of all.
pub(crate) fn remember_executable() {
    if let Ok(path) = std::env::current_exe() {
        let _ = EXECUTABLE.set(path);
    }
}

/// The path of the running program.
pub(crate) fn executable() -> Result<&'static Path, Failure> {
    EXECUTABLE.get().map(PathBuf::as_path).ok_or_else(|| Failure::new("could not find the path of this program"))
}

/// Becomes a fresh start of the same command: same arguments, environment and process id.
pub(crate) fn restart() -> Result<Infallible, Failure> {
    let path = executable()?;
    let reason = std::process::Command::new(path).args(std::env::args_os().skip(1)).exec();
    Err(Failure::new(format!("could not restart {}: {reason}", path.display())))
}

/// One thread does everything: clients and the server, whose size and start-up time matter.
pub(crate) fn small_runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .map_err(|error| Failure::new(format!("could not start the runtime: {error}")))
}

/// A thread per core: broker and provisioner.
pub(crate) fn large_runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("could not start the runtime: {error}")))
}

/// So many threads for thousands of servers, and so many for their work with files and keys.
pub(crate) fn emulation_runtime(threads: usize, blocking: usize) -> Result<Runtime, Failure> {
    // With one thread, what a node sends in one turn leaves in one piece, as with the server itself.
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder
        .enable_all()
        .max_blocking_threads(blocking)
        .build()
        .map_err(|error| Failure::new(format!("could not start the runtime: {error}")))
}

/// Makes sure that this process, and those it starts, may have so many files open: raises the soft limit as far as the
/// system lets it.
pub(crate) fn allow_open_files(needed: u64, what: &str) -> Result<(), Failure> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard && soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard)?;
    }
    if hard >= needed {
        return Ok(());
    }
    Err(Failure::new(format!("{needed} open files are needed, {what}, and this process may have {hard}"))
        .hint("raise the hard limit (ulimit -Hn, LimitNOFILE= of a unit), or emulate fewer nodes"))
}

/// Makes sure that so many connections to one address of this machine have a port each.
pub(crate) fn allow_connections(needed: u32) -> Result<(), Failure> {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    // Other systems have more, or say it elsewhere.
    let Ok(text) = std::fs::read_to_string(RANGE) else { return Ok(()) };
    let bounds: Vec<u32> = text.split_whitespace().filter_map(|bound| bound.parse().ok()).collect();
    match bounds[..] {
        [first, last] if last.saturating_sub(first) < needed => Err(Failure::new(format!(
            "{needed} connections of this machine to one address are needed, and it gives ports {first} to {last} only"
        ))
        .hint("widen them for this measurement: sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"; or take fewer nodes")),
        _ => Ok(()),
    }
}

/// Writes the process id: decimal, no newline, mode 0644 (spec 03 §1.1).
pub(crate) fn write_pid_file(path: &Path) -> Result<PidFile, Failure> {
    std::fs::write(path, std::process::id().to_string())
        .map_err(|error| Failure::new(format!("could not write the pid file {}: {error}", path.display())))?;
    Ok(PidFile { path: path.to_owned() })
}

/// Removes the pid file at a clean end, when it is still ours.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if std::fs::read_to_string(&self.path).is_ok_and(|text| text == std::process::id().to_string()) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What signals mean to a running command.
#[derive(Debug, Clone)]
pub(crate) struct Lifetime {
    /// Cancelled by SIGINT or SIGTERM.
    pub shutdown: CancellationToken,
    /// Notified by SIGHUP.
    pub reload: Arc<Notify>,
}

/// How a command reacts to signals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignalPolicy {
    /// How long a shutdown may take before the process ends by itself with status 1.
    pub soft_shutdown: Duration,
    /// Status after a second SIGINT or SIGTERM.
    pub second: Exit,
    /// Whether SIGHUP means reload; otherwise it ends the process as the system does.
    pub reloads: bool,
}

impl SignalPolicy {
    /// For commands that people wait for.
    pub(crate) const CLIENT: Self =
        Self { soft_shutdown: Duration::from_secs(2), second: Exit::Interrupted, reloads: false };

    /// The same with more time: for commands that have processes of their own to end.
    #[must_use]
    pub(crate) fn patient(self) -> Self {
        Self { soft_shutdown: Duration::from_secs(15), ..self }
    }

    /// For daemons. A time of zero or less in the configuration means 10 s (spec 03 §1.7).
    pub(crate) fn daemon(soft_shutdown: Duration) -> Self {
        let soft_shutdown = if soft_shutdown.is_zero() { Duration::from_secs(10) } else { soft_shutdown };
        Self { soft_shutdown, second: Exit::Failed, reloads: true }
    }
}

/// Listens for one signal. From then on the process has a handler for it. Must be called inside a runtime.
pub(crate) fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(format!("could not listen for signals: {error}")))
}

/// Starts listening for signals. Must be called inside a runtime.
pub(crate) fn watch_signals(policy: SignalPolicy, logs: Option<LogHandle>) -> Result<Lifetime, Failure> {
    let lifetime = Lifetime { shutdown: CancellationToken::new(), reload: Arc::new(Notify::new()) };
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let shutdown = lifetime.shutdown.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "interrupt",
            _ = terminate.recv() => "terminated",
            () = shutdown.cancelled() => return,
        };
        info!("shutting down on {name}");
        shutdown.cancel();
        tokio::select! {
            _ = interrupt.recv() => force(policy.second),
            _ = terminate.recv() => force(policy.second),
            () = tokio::time::sleep(policy.soft_shutdown) => {
                error!("shutting down took longer than {} s, ending now", policy.soft_shutdown.as_secs());
                force(Exit::Failed);
            }
        }
    });
    if policy.reloads {
        // As in the original these do nothing, instead of what the system does with them: end the process. The
        // handlers stay when the listeners go; the provisioner listens too.
        drop((listen(SignalKind::user_defined1())?, listen(SignalKind::user_defined2())?));
        let mut hangup = listen(SignalKind::hangup())?;
        let reload = Arc::clone(&lifetime.reload);
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                info!("reloading on hangup");
                if let Some(Err(error)) = logs.as_ref().map(LogHandle::reopen) {
                    warn!("keeping the old log file: {error}");
                }
                reload.notify_one();
            }
        });
    }
    if std::env::var_os(EXIT_WITH_STDIN).is_some() {
        end_with_stdin(lifetime.shutdown.clone());
    }
    Ok(lifetime)
}

/// Cancels when stdin ends. A thread, since reading stdin cannot be cancelled.
fn end_with_stdin(shutdown: CancellationToken) {
    let _ = std::thread::Builder::new().name("stdin".to_owned()).stack_size(64 * 1024).spawn(move || {
        let mut buffer = [0; 64];
        while std::io::stdin().read(&mut buffer).is_ok_and(|count| count > 0) {}
        shutdown.cancel();
    });
}

/// Reads a line from the terminal without showing it.
pub(crate) fn read_hidden_line() -> std::io::Result<String> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let shown = tcgetattr(&stdin)?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&stdin, SetArg::TCSANOW, &hidden)?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    tcsetattr(&stdin, SetArg::TCSANOW, &shown)?;
    read.map(|_| line)
}

#[expect(clippy::exit, reason = "a shutdown that hangs, or a second interrupt, ends the process here and now")]
fn force(exit: Exit) {
    std::process::exit(exit as i32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_files_hold_the_number_and_go_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("choria.pid");
        let file = write_pid_file(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        drop(file);
        assert!(!path.exists());
        assert!(write_pid_file(&directory.path().join("no/such/dir")).is_err());
    }

    #[test]
    fn a_pid_file_of_someone_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("choria.pid");
        let file = write_pid_file(&path).unwrap();
        std::fs::write(&path, "1").unwrap();
        drop(file);
        assert!(path.exists());
    }
}
