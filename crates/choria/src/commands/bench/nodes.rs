//! The process with the emulated nodes, and what it tells.

use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use choria_emulator::{Counts, Report};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::processes::{self, Usage};
use crate::exit::Failure;
use crate::lab::parts::Start;
use crate::lab::{Layout, Part, Parts};

/// How often the other parts are looked at while nodes are waited for.
const LOOK: Duration = Duration::from_millis(200);
/// How long the nodes may take to say goodbye and report.
const REPORT: Duration = Duration::from_secs(30);

/// The emulator's process.
pub(crate) struct Nodes {
    part: Part,
    lines: mpsc::Receiver<String>,
    counts: Counts,
    report: Option<Report>,
    all: usize,
    /// Tell nobody how far it is.
    quiet: bool,
}

impl Nodes {
    /// Starts all nodes of a lab. `more` says how they begin and which keys they make.
    pub(crate) fn start(layout: &Layout, more: &[&str], quiet: bool) -> Result<Self, Failure> {
        let (nodes, names) = (layout.nodes.len().to_string(), layout.nodes.pattern());
        let arguments =
            ["emulate", "--nodes", &nodes, "--names", &names, "--dir", "nodes", "--json", "--samples", "--follow"];
        let mut part = Part::start(&Start {
            name: "nodes",
            arguments: &[&arguments, more].concat(),
            directory: &layout.directory,
            log: "nodes.log",
            variables: &[],
            answers: true,
        })?;
        let stdout = part.answers().ok_or_else(|| part.explain("has no output"))?;
        // A line for each look, and one at the end: they are read at once.
        let (sender, lines) = mpsc::channel(64);
        std::thread::Builder::new().name("nodes".to_owned()).spawn(move || forward(stdout, &sender))?;
        Ok(Self { part, lines, counts: Counts::default(), report: None, all: layout.nodes.len(), quiet })
    }

    /// What the process used so far.
    pub(crate) fn usage(&self) -> Usage {
        processes::usage(self.part.id())
    }

    /// Waits until the count that `which` picks is that of all nodes. False when the time is over before.
    pub(crate) async fn until(
        &mut self,
        parts: &mut Parts,
        deadline: Instant,
        shutdown: &CancellationToken,
        which: fn(&Counts) -> usize,
    ) -> Result<bool, Failure> {
        let mut look = tokio::time::interval(LOOK);
        let mut told = Counts::default();
        while which(&self.counts) < self.all {
            tokio::select! {
                line = self.lines.recv() => match line {
                    Some(line) => self.read(&line)?,
                    None => {
                        self.part.check()?;
                        return Err(self.part.explain("said goodbye too early"));
                    }
                },
                _ = look.tick() => {
                    parts.check()?;
                    self.tell(&mut told);
                    if Instant::now() >= deadline || self.counts.failed == self.all {
                        return Ok(false);
                    }
                }
                () = shutdown.cancelled() => return Err(super::interrupted()),
            }
        }
        self.tell(&mut told);
        Ok(true)
    }

    /// Says how far it is, when that is news.
    fn tell(&self, told: &mut Counts) {
        if !self.quiet && *told != self.counts {
            say(&self.counts);
            *told = self.counts;
        }
    }

    fn read(&mut self, line: &str) -> Result<(), Failure> {
        let value: Value = serde_json::from_str(line)?;
        if value.get("samples").is_some() {
            self.report = Some(serde_json::from_value(value)?);
        } else {
            self.counts = serde_json::from_value(value)?;
        }
        Ok(())
    }

    /// Lets the nodes end, and reads what they saw.
    pub(crate) async fn report(mut self, shutdown: &CancellationToken) -> Result<Report, Failure> {
        self.part.release();
        let deadline = tokio::time::Instant::now() + REPORT;
        loop {
            if let Some(report) = self.report.take() {
                return Ok(report);
            }
            tokio::select! {
                line = self.lines.recv() => match line {
                    Some(line) => self.read(&line)?,
                    None => return Err(self.part.explain("ended without a report")),
                },
                () = tokio::time::sleep_until(deadline) => return Err(self.part.explain("does not end")),
                () = shutdown.cancelled() => return Err(super::interrupted()),
            }
        }
    }
}

/// The nodes end with the benchmark, whichever way it ends.
impl Drop for Nodes {
    fn drop(&mut self) {
        self.part.end();
    }
}

fn forward(stdout: ChildStdout, sender: &mpsc::Sender<String>) {
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { return };
        if sender.blocking_send(line).is_err() {
            return;
        }
    }
}

fn say(counts: &Counts) {
    let Counts { nodes, started, waiting, configured, members, .. } = counts;
    // Nobody is left to be told when the terminal is gone.
    let _ = writeln!(
        std::io::stderr(),
        "{started} started, {waiting} waiting, {configured} configured, {members} of {nodes} members"
    );
}
