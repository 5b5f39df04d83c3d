//! One node: its starts, as `choria server run` makes them, and the books that are kept of it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use choria_config::Environment;
use choria_protocol::lifecycle::Kind as Event;
use choria_security::keys::KeyKind;
use choria_server::{Exit, Mode, Observer, Server, ServerSettings, Shared};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::report::{Sample, rounded};

/// What all nodes have in common.
#[derive(Debug)]
pub(crate) struct Common {
    /// The beginning of all times.
    pub(crate) epoch: Instant,
    /// The token of nodes that wait; members have none.
    pub(crate) provisioning_jwt: Option<PathBuf>,
    /// Kind of the keys they make.
    pub(crate) key: KeyKind,
    /// What servers of one process share.
    pub(crate) shared: Arc<Shared>,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) identity: String,
    pub(crate) config_file: PathBuf,
    common: Arc<Common>,
    books: Mutex<Books>,
}

/// What was seen of a node. Times are since the epoch.
#[derive(Debug, Default)]
struct Books {
    started: Option<Duration>,
    connected: Option<Duration>,
    waiting: Option<Duration>,
    configured: Option<Duration>,
    restart: Option<Duration>,
    restarted: Option<Duration>,
    member: Option<Duration>,
    configurations: u32,
    returned: u32,
    disconnects: u32,
    /// The present run: what it is, and how far it has come.
    mode: Option<Mode>,
    up: bool,
    announced: bool,
    failure: Option<String>,
    /// The right to be on the way to a first connection.
    starting: Option<OwnedSemaphorePermit>,
}

impl Node {
    pub(crate) fn new(identity: String, config_file: PathBuf, common: Arc<Common>) -> Self {
        Self { identity, config_file, common, books: Mutex::default() }
    }

    /// Lives until the shutdown, or until it is told to stay down, or fails. `starting` is given back with the first
    /// connection.
    pub(crate) async fn live(self: Arc<Self>, shutdown: CancellationToken, starting: Option<OwnedSemaphorePermit>) {
        self.books().starting = starting;
        loop {
            let ended = match self.load() {
                Ok(server) => Box::pin(server.run(shutdown.clone())).await.map_err(|error| error.to_string()),
                Err(reason) => Err(reason),
            };
            let mut books = self.books();
            (books.up, books.announced, books.starting) = (false, false, None);
            match ended {
                Ok(Exit::Restart) => {}
                Ok(Exit::Stopped) => return,
                Ok(Exit::Shutdown) => {
                    books.failure = Some("was told to stay down".to_owned());
                    return;
                }
                Err(reason) => {
                    books.failure = Some(reason);
                    return;
                }
            }
        }
    }

    /// What `choria server run` does before it connects.
    fn load(self: &Arc<Self>) -> Result<Server, String> {
        let began = self.common.epoch.elapsed();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let environment = Environment::fixed(&self.identity);
        let token = self.common.provisioning_jwt.as_deref();
        let mut settings =
            ServerSettings::load(&self.config_file, token, &environment, now).map_err(|error| error.to_string())?;
        settings.set_key_kind(self.common.key);
        self.begin(settings.mode(), began);
        let observer: Arc<dyn Observer> = Arc::<Self>::clone(self);
        let shared = Arc::clone(&self.common.shared);
        Server::builder(settings).observer(observer).shared(shared).build().map_err(|error| error.to_string())
    }

    fn begin(&self, mode: Mode, at: Duration) {
        let mut books = self.books();
        books.mode = Some(mode);
        books.started.get_or_insert(at);
        if books.configurations > 0 {
            match mode {
                Mode::Member => _ = books.restarted.get_or_insert(at),
                Mode::Provisioning => books.returned += 1,
            }
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every change is a single assignment.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it has come.
    pub(crate) fn state(&self) -> State {
        let books = self.books();
        State {
            started: books.started.is_some(),
            connected: books.up,
            configured: books.configurations > 0,
            announced: books.mode.filter(|_| books.up && books.announced),
            failed: books.failure.is_some(),
        }
    }

    /// Everything that was seen of it, and why it ended if it failed.
    pub(crate) fn sample(&self) -> (Sample, Option<String>) {
        let books = self.books();
        let announced = books.mode.filter(|_| books.up && books.announced);
        let at = |time: Option<Duration>| time.map(|time| rounded(time.as_secs_f64() * 1e3));
        let sample = Sample {
            node: self.identity.clone(),
            started: at(books.started),
            connected: at(books.connected),
            waiting: at(books.waiting),
            configured: at(books.configured),
            restart: at(books.restart),
            restarted: at(books.restarted),
            member: at(books.member),
            configurations: books.configurations,
            returned: books.returned,
            disconnects: books.disconnects,
            is_member: announced == Some(Mode::Member),
            is_waiting: announced == Some(Mode::Provisioning),
        };
        (sample, books.failure.clone())
    }
}

/// How far a node has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    pub(crate) started: bool,
    pub(crate) connected: bool,
    pub(crate) configured: bool,
    /// What it is, once it has announced itself and while it is connected.
    pub(crate) announced: Option<Mode>,
    pub(crate) failed: bool,
}

impl Observer for Node {
    fn connected(&self) {
        let at = self.common.epoch.elapsed();
        let mut books = self.books();
        books.connected.get_or_insert(at);
        books.up = true;
        books.starting = None;
    }

    fn disconnected(&self) {
        let mut books = self.books();
        books.up = false;
        books.disconnects += 1;
    }

    fn event(&self, kind: &Event) {
        let at = self.common.epoch.elapsed();
        let mut books = self.books();
        match (kind, books.mode) {
            (Event::Startup { .. }, Some(mode)) => {
                books.announced = true;
                match mode {
                    Mode::Member => books.member.get_or_insert(at),
                    Mode::Provisioning => books.waiting.get_or_insert(at),
                };
            }
            (Event::Provisioned, _) => {
                books.configurations += 1;
                books.configured.get_or_insert(at);
            }
            _ => {}
        }
    }

    fn ending(&self, exit: Exit, _after: Duration) {
        let at = self.common.epoch.elapsed();
        if exit == Exit::Restart {
            self.books().restart.get_or_insert(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let common =
            Common { epoch: Instant::now(), provisioning_jwt: None, key: KeyKind::P256, shared: Arc::default() };
        Node::new("n1.example.net".to_owned(), PathBuf::from("/nowhere/server.conf"), Arc::new(common))
    }

    fn startup() -> Event {
        Event::Startup { version: "1".to_owned() }
    }

    #[test]
    fn a_node_that_is_provisioned_once() {
        let node = node();
        node.begin(Mode::Provisioning, Duration::from_millis(1));
        node.connected();
        assert_eq!(node.state().announced, None, "connected, but nothing is subscribed yet");
        node.event(&startup());
        assert_eq!(node.state().announced, Some(Mode::Provisioning));
        node.event(&Event::Provisioned);
        node.ending(Exit::Restart, Duration::from_secs(2));
        node.begin(Mode::Member, Duration::from_millis(3000));
        node.connected();
        node.event(&startup());
        let (sample, failure) = node.sample();
        assert!(sample.is_member && failure.is_none());
        assert_eq!((sample.configurations, sample.returned, sample.disconnects), (1, 0, 0));
        assert_eq!((sample.started, sample.restarted), (Some(1.0), Some(3000.0)));
        assert!(sample.member.is_some() && sample.restart.is_some() && sample.waiting.is_some());
    }

    #[test]
    fn a_second_configuration_and_a_way_back_are_counted() {
        let node = node();
        node.begin(Mode::Provisioning, Duration::ZERO);
        node.event(&Event::Provisioned);
        node.event(&Event::Provisioned);
        node.begin(Mode::Provisioning, Duration::ZERO);
        assert_eq!((node.sample().0.configurations, node.sample().0.returned), (2, 1));
    }

    #[test]
    fn a_lost_connection_ends_membership_until_it_is_back() {
        let node = node();
        node.begin(Mode::Member, Duration::ZERO);
        node.connected();
        node.event(&startup());
        node.disconnected();
        assert!(!node.sample().0.is_member);
        node.connected();
        assert!(node.sample().0.is_member);
        assert_eq!(node.sample().0.disconnects, 1);
    }

    #[tokio::test]
    async fn a_node_without_anything_fails_with_the_reason() {
        let node = Arc::new(node());
        Arc::clone(&node).live(CancellationToken::new(), None).await;
        assert!(node.state().failed);
        assert!(node.sample().1.unwrap().contains("server.conf"));
    }
}
