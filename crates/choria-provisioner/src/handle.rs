//! Talking to a running provisioner: what the embedder, the monitor port, the control socket and signals use.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{Helper, ProgramMode, ProvisionerConfig};
use crate::control::types::{Answer, Explanation, Fault, Next, Request, Status};
use crate::engine::{Calendar, Engine, Explained};
use crate::flow::Now;
use crate::metrics::Metrics;

/// Names that are shown for one that is not known.
const NEAREST: usize = 5;

/// What the run loop is asked.
pub(crate) enum Command {
    Pause(oneshot::Sender<()>),
    Resume(oneshot::Sender<()>),
    Status(oneshot::Sender<Box<Status>>),
    Explain(String, oneshot::Sender<Explained>),
}

/// Talks to a running provisioner. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) monitor: Arc<OnceLock<SocketAddr>>,
    pub(crate) control: Arc<OnceLock<PathBuf>>,
    pub(crate) connected: watch::Receiver<bool>,
}

impl Handle {
    /// Stops starting nodes; returns when that is so. Does nothing once the provisioner has ended.
    pub async fn pause(&self) {
        self.command(Command::Pause).await;
    }

    /// Goes on after [`Self::pause`].
    pub async fn resume(&self) {
        self.command(Command::Resume).await;
    }

    /// How it is going; `None` once the provisioner has ended.
    pub async fn status(&self) -> Option<Box<Status>> {
        self.command(Command::Status).await
    }

    /// What is known about a node and what will happen to it; `None` once the provisioner has ended.
    pub async fn explain(&self, node: &str) -> Option<Box<Explanation>> {
        let name = node.to_owned();
        match self.command(|done| Command::Explain(name, done)).await? {
            Explained::Known(explanation) => Some(explanation),
            Explained::Unknown(names) => {
                let name = node.to_owned();
                // Many names take some milliseconds, which the run loop has no time for.
                tokio::task::spawn_blocking(move || Box::new(unknown(&name, &names))).await.ok()
            }
        }
    }

    /// Answers a question of the control socket.
    pub(crate) async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Pause => self.pause().await,
            Request::Resume => self.resume().await,
            Request::Status => {}
            Request::Explain { node } => {
                return self.explain(&node).await.map_or_else(ended, Answer::Explanation);
            }
        }
        self.status().await.map_or_else(ended, Answer::Status)
    }

    async fn command<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (done, wait) = oneshot::channel();
        self.commands.send(command(done)).await.ok()?;
        wait.await.ok()
    }

    /// The metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Address of the monitor port once it is open.
    pub fn monitor_addr(&self) -> Option<SocketAddr> {
        self.monitor.get().copied()
    }

    /// Path of the control socket once it is open.
    pub fn control_socket(&self) -> Option<&PathBuf> {
        self.control.get()
    }

    /// Whether the broker connection is up and the subscriptions are made.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

fn ended() -> Answer {
    let message = "the provisioner is ending".to_owned();
    Answer::Error(Fault { code: "stopping".to_owned(), message })
}

/// For a name of which nothing is known.
fn unknown(name: &str, names: &[Arc<str>]) -> Explanation {
    let text = "nothing: no event, discovery or registration of this name was ever seen since the provisioner started";
    Explanation {
        identity: name.to_owned(),
        state: "unknown".to_owned(),
        next: Next { text: text.to_owned(), ..Next::default() },
        nearest: nearest(name, names),
        ..Explanation::default()
    }
}

/// Known names that the asked one may have meant: those that begin with it, and misspelt ones.
fn nearest(name: &str, names: &[Arc<str>]) -> Vec<String> {
    let name = name.to_lowercase();
    let limit = (name.len() / 4).clamp(1, 4);
    let mut near: Vec<(usize, &Arc<str>)> = names
        .iter()
        .filter_map(|known| {
            let lower = known.to_lowercase();
            // A host name without its domain is what people type.
            if lower.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.')) {
                return Some((0, known));
            }
            let close = lower.len().abs_diff(name.len()) <= limit;
            let distance = if close { strsim::levenshtein(&lower, &name) } else { usize::MAX };
            (distance <= limit).then(|| (1 + distance, known))
        })
        .collect();
    near.sort();
    near.into_iter().take(NEAREST).map(|(_, known)| known.to_string()).collect()
}

/// What the answers say about the process itself.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) version: String,
    pub(crate) identity: String,
    pub(crate) config: PathBuf,
    pub(crate) site: String,
    pub(crate) helper: &'static str,
}

impl About {
    pub(crate) fn new(version: &str, identity: &str, config: &ProvisionerConfig) -> Self {
        Self {
            version: version.to_owned(),
            identity: identity.to_owned(),
            config: std::fs::canonicalize(&config.path).unwrap_or_else(|_| config.path.clone()),
            site: config.site.clone(),
            helper: kind(config.helper.as_ref()),
        }
    }
}

/// The helper in words. Its command line may hold secrets.
pub(crate) fn kind(helper: Option<&Helper>) -> &'static str {
    match helper {
        None => "none",
        Some(Helper::Builtin(_)) => "built-in rules",
        Some(Helper::Program(program)) => match program.mode {
            ProgramMode::Process => "a process per node",
            ProgramMode::Persistent { .. } => "persistent processes",
        },
    }
}

/// The connection as it is now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    /// The broker while it is up.
    pub(crate) server: Option<Arc<str>>,
    /// Why it is down.
    pub(crate) reason: Option<String>,
}

/// Carries out a command.
pub(crate) fn obey(command: Command, engine: &mut Engine, about: &About, link: &Link, metrics: &Metrics) {
    let now = clock();
    // Whoever asked may not wait any more.
    match command {
        Command::Pause(done) => {
            engine.pause(now);
            metrics.paused.set(1);
            let _ = done.send(());
        }
        Command::Resume(done) => {
            engine.resume(now);
            metrics.paused.set(0);
            let _ = done.send(());
        }
        Command::Status(done) => {
            let mut status = engine.status(calendar());
            status.process.pid = std::process::id();
            status.process.version.clone_from(&about.version);
            status.process.identity.clone_from(&about.identity);
            status.process.config = about.config.display().to_string();
            status.process.site.clone_from(&about.site);
            about.helper.clone_into(&mut status.helper.kind);
            status.connection.server = link.server.as_deref().map(str::to_owned);
            status.connection.reason.clone_from(&link.reason);
            status.connection.reconnections = metrics.reconnections.get();
            let _ = done.send(Box::new(status));
        }
        Command::Explain(name, done) => {
            let _ = done.send(engine.explain(&name, calendar()));
        }
    }
}

/// Monotonic and wall clock together.
pub(crate) fn clock() -> Now {
    Now { mono: std::time::Instant::now(), unix: unix_millis().div_euclid(1000) }
}

fn calendar() -> Calendar {
    Calendar { mono: std::time::Instant::now(), unix_ms: unix_millis() }
}

fn unix_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_meant_are_found() {
        let names: Vec<Arc<str>> =
            ["web1.example.net", "web2.example.net", "db1.example.net", "web10.example.net", "x"].map(Arc::from).into();
        assert_eq!(nearest("web1", &names), ["web1.example.net"]);
        assert_eq!(nearest("WEB1.exmaple.net", &names)[0], "web1.example.net");
        assert_eq!(nearest("web3.example.net", &names).len(), 4);
        assert_eq!(nearest("completely.different", &names), Vec::<String>::new());
        let told = unknown("web1", &names);
        assert_eq!((&*told.state, told.nearest.len()), ("unknown", 1));
    }
}
