//! The processes of a lab: each one this program again, in a process group of its own, with its output in a file.
//!
//! They end with their parent however it ends: on drop by signal, and when it is killed by the end of their stdin.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::exit::Failure;
use crate::process;

/// How long parts may take to stop by themselves.
const GRACE: Duration = Duration::from_secs(5);
/// Broker and provisioner come first among the parts.
const SERVICES: usize = 2;
/// How much of a log is shown.
const TAIL: u64 = 2_000;

/// One running part.
#[derive(Debug)]
pub(crate) struct Part {
    /// What it is, as people are told.
    pub name: String,
    /// Its output.
    pub log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
}

/// How to start a part.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// What it is.
    pub name: &'a str,
    /// Arguments.
    pub arguments: &'a [&'a str],
    /// Working directory and place of its log.
    pub directory: &'a Path,
    /// File name of its log.
    pub log: &'a str,
    /// Variables.
    pub variables: &'a [(&'a str, &'a str)],
    /// Whether somebody reads its stdout, with [`Part::answers`]; else that goes to the log too.
    pub answers: bool,
}

impl Part {
    /// Starts a part.
    pub(crate) fn start(start: &Start<'_>) -> Result<Self, Failure> {
        let log = start.directory.join(start.log);
        let failed = |error: std::io::Error| Failure::new(format!("could not start the {}: {error}", start.name));
        let output = OpenOptions::new().create(true).append(true).open(&log).map_err(failed)?;
        let mut command = Command::new(process::executable()?);
        // Settings of this shell are for other fleets.
        let settings = ["CHORIA_", "MCOLLECTIVE_", "INSECURE_"];
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| settings.iter().any(|prefix| name.starts_with(prefix))) {
                command.env_remove(name);
            }
        }
        let child = command
            .args(start.arguments)
            .current_dir(start.directory)
            .envs(start.variables.iter().copied())
            .env(process::EXIT_WITH_STDIN, "1")
            .stdin(Stdio::piped())
            .stdout(if start.answers { Stdio::piped() } else { output.try_clone().map_err(failed)?.into() })
            .stderr(output)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Self { name: start.name.to_owned(), log, child, ended: None })
    }

    /// Fails when the part has ended, with the end of its log.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        match self.ended {
            None => Ok(()),
            Some(status) => Err(self.explain(&format!("ended early ({status})"))),
        }
    }

    /// A failure of this part: what happened, and the last lines of its log.
    pub(crate) fn explain(&self, what: &str) -> Failure {
        let (tail, log) = (tail(&self.log), self.log.display());
        Failure::new(format!("the {} {what}; the end of {log}:\n{tail}", self.name))
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its stdout, if it was started for that and nobody took it yet.
    pub(crate) fn answers(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Lets it come to its end by itself: closes its stdin.
    pub(crate) fn release(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Ends it, with the chance to say goodbye.
    pub(crate) fn end(&mut self) {
        stop_together(std::slice::from_mut(self), Instant::now() + GRACE);
    }

    fn signal(&self, signal: Signal) {
        if let (None, Ok(id)) = (self.ended, i32::try_from(self.child.id())) {
            // It may have ended a moment ago.
            let _ = killpg(Pid::from_raw(id), signal);
        }
    }

    fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_some()
    }
}

/// All parts. Dropping it ends them.
#[derive(Debug, Default)]
pub(crate) struct Parts(pub Vec<Part>);

impl Parts {
    /// Fails when a part has ended.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        self.0.iter_mut().try_for_each(Part::check)
    }

    /// Ends all parts, each with the chance to say goodbye: first the nodes, then the provisioner, then the broker that
    /// carries the goodbyes.
    pub(crate) fn stop(&mut self) {
        let deadline = Instant::now() + GRACE;
        let services = self.0.len().min(SERVICES);
        let (services, nodes) = self.0.split_at_mut(services);
        stop_together(nodes, deadline);
        services.iter_mut().rev().for_each(|part| stop_together(std::slice::from_mut(part), deadline));
        self.0.clear();
    }
}

fn stop_together(parts: &mut [Part], deadline: Instant) {
    parts.iter().for_each(|part| part.signal(Signal::SIGTERM));
    while Instant::now() < deadline && !parts.iter_mut().all(Part::has_ended) {
        std::thread::sleep(Duration::from_millis(5));
    }
    for part in parts {
        part.signal(Signal::SIGKILL);
        if !part.has_ended() {
            let _ = part.child.wait();
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The last lines of a file, indented.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.is_empty() => "  (it is empty)".to_owned(),
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().rev().take(12).collect();
            lines.iter().rev().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
        }
        Err(error) => format!("  (it cannot be read: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert!(tail(&path).contains("cannot be read"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(tail(&path), "  (it is empty)");
        let lines: String = (0..500).map(|number| format!("line {number}\n")).collect();
        std::fs::write(&path, lines).unwrap();
        assert!(tail(&path).ends_with("  line 499"));
        assert_eq!(tail(&path).lines().count(), 12);
    }
}
