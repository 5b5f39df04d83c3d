//! The emulator: makes the nodes' directories, starts the nodes, waits, reports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use choria_protocol::identity;
use choria_security::atomic::{self, FileError};
use choria_security::keys::KeyKind;
use choria_server::Mode;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::LEFT_OUT;
use crate::members::{MemberError, Members};
use crate::node::{Common, Node};
use crate::options::{Goal, Kind, Options};
use crate::report::{Counts, Report, Sample, phases};

/// Different failures that a report names; a fleet fails in few ways, and often.
const FAILURES: usize = 20;

/// Why an emulation cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No nodes.
    #[error("there is nothing to emulate: 0 nodes were asked for")]
    NoNodes,
    /// The pattern gives every node the same name.
    #[error("{0:?} has no {{}} in it, every node would have the same name")]
    Pattern(String),
    /// The pattern gives names that cannot be identities.
    #[error("{0:?} cannot be an identity: use letters, digits, dots, hyphens and underscores")]
    Identity(String),
    /// A rate that starts nobody.
    #[error("a rate of {0} nodes per second starts nobody")]
    Rate(f64),
    /// The directory cannot be used.
    #[error("could not make {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A member could not be made.
    #[error(transparent)]
    Member(#[from] MemberError),
}

/// Nodes that are ready to start.
#[derive(Debug)]
pub struct Emulator {
    options: Options,
    began: SystemTime,
    nodes: Arc<[Arc<Node>]>,
}

/// Looks at a running emulation.
#[derive(Debug, Clone)]
pub struct Handle {
    nodes: Arc<[Arc<Node>]>,
}

impl Handle {
    /// How many nodes are where.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { nodes: self.nodes.len(), ..Counts::default() };
        for node in self.nodes.iter() {
            let state = node.state();
            counts.started += usize::from(state.started);
            counts.connected += usize::from(state.connected);
            counts.waiting += usize::from(state.announced == Some(Mode::Provisioning));
            counts.configured += usize::from(state.configured);
            counts.members += usize::from(state.announced == Some(Mode::Member));
            counts.failed += usize::from(state.failed);
        }
        counts
    }

    /// How many nodes are what they shall be, and how many can still become it.
    pub fn progress(&self, goal: Goal) -> (usize, usize) {
        let counts = self.counts();
        let there = if goal == Goal::Waiting { counts.waiting } else { counts.members };
        (there, counts.nodes - there - counts.failed)
    }

    /// Every node's times so far.
    pub fn samples(&self) -> Vec<Sample> {
        self.nodes.iter().map(|node| node.sample().0).collect()
    }
}

impl Emulator {
    /// Makes the nodes' directories. This is what happens before a machine boots; it is no part of any time.
    ///
    /// # Errors
    /// What cannot be emulated or written.
    pub fn new(options: Options) -> Result<Self, SetupError> {
        check(&options)?;
        let began = SystemTime::now();
        let provisioning_jwt = match &options.kind {
            Kind::Waiting { provisioning_jwt } => Some(absolute(provisioning_jwt)),
            Kind::Members(_) => None,
        };
        let common =
            Arc::new(Common { epoch: Instant::now(), provisioning_jwt, key: options.key, shared: Arc::default() });
        let directory = absolute(&options.directory);
        let members = match &options.kind {
            Kind::Waiting { .. } => None,
            Kind::Members(membership) => Some(Members::new(membership, options.key, unix(began))?),
        };
        let mut nodes = Vec::with_capacity(options.nodes);
        for index in 0..options.nodes {
            let identity = options.identity(index);
            let own = directory.join(&identity);
            let config_file = own.join("server.conf");
            if !config_file.exists() {
                make_directory(&own)?;
                match &members {
                    Some(members) => members.make(&identity, &own)?,
                    // All that an unconfigured node knows: a name.
                    None => atomic::write_file(&config_file, format!("identity = {identity}\n").as_bytes(), 0o600)?,
                }
            }
            nodes.push(Arc::new(Node::new(identity, config_file, Arc::clone(&common))));
        }
        drop(members);
        Ok(Self { options, began, nodes: nodes.into() })
    }

    /// Looks at it while it runs.
    pub fn handle(&self) -> Handle {
        Handle { nodes: Arc::clone(&self.nodes) }
    }

    /// Starts the nodes and keeps them running until the shutdown, then reports what they were at that moment.
    pub async fn run(self, shutdown: CancellationToken) -> Report {
        // The nodes go on until the books are closed.
        let goodbye = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tokio::select! {
            () = self.start_all(&mut tasks, &goodbye) => shutdown.cancelled().await,
            () = shutdown.cancelled() => {}
        }
        let report = self.report();
        goodbye.cancel();
        if timeout(self.options.goodbye, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            tasks.shutdown().await;
        }
        report
    }

    async fn start_all(&self, tasks: &mut JoinSet<()>, goodbye: &CancellationToken) {
        let bound = if self.options.starting == 0 { Semaphore::MAX_PERMITS } else { self.options.starting };
        let starting = Arc::new(Semaphore::new(bound));
        let began = tokio::time::Instant::now();
        for (index, node) in self.nodes.iter().enumerate() {
            if let Some(rate) = self.options.rate {
                sleep_until(began + Duration::from_secs_f64(index as f64 / rate)).await;
            }
            // Nobody closes it, so the right always comes.
            let permit = Arc::clone(&starting).acquire_owned().await.ok();
            tasks.spawn(Box::pin(Arc::clone(node).live(goodbye.clone(), permit)));
        }
    }

    fn report(&self) -> Report {
        let (samples, failures): (Vec<Sample>, Vec<Option<String>>) =
            self.nodes.iter().map(|node| node.sample()).unzip();
        let handle = self.handle();
        let waits = self.options.goal == Goal::Waiting;
        let is_there = |sample: &&Sample| if waits { sample.is_waiting } else { sample.is_member };
        let lost = samples.len() - samples.iter().filter(is_there).count();
        let first = samples.iter().filter_map(|sample| sample.started).fold(f64::INFINITY, f64::min);
        let reached = samples.iter().map(|sample| if waits { sample.waiting } else { sample.member });
        let last = if lost == 0 { reached.flatten().fold(0.0, f64::max) } else { self.elapsed_ms() };
        let counts = handle.counts();
        Report {
            counts,
            key: key_name(self.options.key).to_owned(),
            began: self.began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            seconds: ((last - first).max(0.0)).round() / 1e3,
            lost,
            duplicated: samples.iter().filter(|sample| sample.configurations > 1 || sample.returned > 0).count(),
            disconnects: samples.iter().map(|sample| u64::from(sample.disconnects)).sum(),
            phases: phases(&samples),
            failures: counted(failures.into_iter().flatten()),
            left_out: LEFT_OUT.map(str::to_owned).to_vec(),
            samples,
        }
    }

    fn elapsed_ms(&self) -> f64 {
        self.began.elapsed().unwrap_or_default().as_secs_f64() * 1e3
    }
}

fn check(options: &Options) -> Result<(), SetupError> {
    if options.nodes == 0 {
        return Err(SetupError::NoNodes);
    }
    if options.nodes > 1 && !options.names.contains("{}") {
        return Err(SetupError::Pattern(options.names.clone()));
    }
    let longest = options.identity(options.nodes - 1);
    if !identity::is_valid(&longest) {
        return Err(SetupError::Identity(longest));
    }
    match options.rate {
        Some(rate) if !(rate.is_finite() && rate > 0.0) => Err(SetupError::Rate(rate)),
        _ => Ok(()),
    }
}

/// The most frequent texts with how many nodes failed with them.
fn counted(failures: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut all: BTreeMap<String, usize> = BTreeMap::new();
    for failure in failures {
        *all.entry(failure).or_default() += 1;
    }
    let mut list: Vec<(String, usize)> = all.into_iter().collect();
    list.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    list.truncate(FAILURES);
    list.into_iter().collect()
}

/// The word for a kind of key on the command line and in reports.
pub fn key_name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::P256 => "p256",
        KeyKind::Ed25519 => "ed25519",
        KeyKind::Rsa2048 => "rsa2048",
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn make_directory(path: &Path) -> Result<(), SetupError> {
    std::fs::create_dir_all(path).map_err(|source| SetupError::Directory { path: path.to_owned(), source })
}

fn unix(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
