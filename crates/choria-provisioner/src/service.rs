//! The provisioner as a program part: one connection, one task that owns the engine, helpers and signatures
//! beside it.
//!
//! ```text
//! connector --subscriptions--> run loop --Effect::Send--> task: sign, encode, publish
//!                               (Engine)  --Effect::Helper--> task: helper process
//! monitor port --commands------>   ^------- failures, helper results (bounded channels)
//! ```

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use choria_config::{BuildSettings, Config};
use choria_connector::{
    ConnectOptions, ConnectionStats, Connector, ConnectorError, Message, NatsConnector, Status, Subscription,
};
use choria_protocol::ids;
use choria_protocol::lifecycle::{self, Event, Kind};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::config::{ProvisionerConfig, VerifyRestart};
use crate::engine::{Effect, Engine, Settings};
use crate::flow::{Now, SendFault};
use crate::helper::{HelperAnswer, HelperError, RunNotes, Runner};
use crate::http;
use crate::metrics::Metrics;
use crate::requests::Caller;
use crate::rules::Rules;
use crate::start::{self, StartError};
use crate::subscriptions::{Subscriptions, next_of};

/// Messages of one subscription taken at a time, so that none starves another.
const BATCH: usize = 128;
/// Results and failures that may wait for the run loop; their senders wait beyond it.
const RESULTS: usize = 1024;

/// How often the connection's own counters are looked at.
const LOOK_AROUND: Duration = Duration::from_secs(10);

/// Why a running provisioner ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The monitor port cannot be opened.
    #[error("could not listen on monitor_port {port}: {reason}")]
    Monitor {
        /// The port.
        port: u16,
        /// What the system said.
        reason: String,
    },
    /// A subscription was refused for good.
    #[error("could not subscribe: {0}")]
    Subscribe(#[from] ConnectorError),
    /// The connection was closed by something else.
    #[error("the connection to the broker was closed")]
    Closed,
}

enum Command {
    Pause(oneshot::Sender<()>),
    Resume(oneshot::Sender<()>),
}

/// Talks to a running provisioner. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    metrics: Arc<Metrics>,
    monitor: Arc<OnceLock<SocketAddr>>,
    connected: watch::Receiver<bool>,
}

impl Handle {
    /// Stops starting nodes; returns when that is so. Does nothing once the provisioner has ended.
    pub async fn pause(&self) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Pause(done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// Goes on after [`Self::pause`].
    pub async fn resume(&self) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Resume(done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// The metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Address of the monitor port once it is open.
    pub fn monitor_addr(&self) -> Option<SocketAddr> {
        self.monitor.get().copied()
    }

    /// Whether the broker connection is up and the subscriptions are made.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

enum Connection {
    Options(Box<ConnectOptions>),
    Ready(Arc<dyn Connector>),
}

/// A provisioner that is ready to run.
pub struct Provisioner {
    config: ProvisionerConfig,
    version: String,
    caller: Arc<Caller>,
    rules: Arc<Rules>,
    runner: Runner,
    metrics: Arc<Metrics>,
    connection: Connection,
    handle: Handle,
    commands: mpsc::Receiver<Command>,
    connected: watch::Sender<bool>,
}

impl std::fmt::Debug for Provisioner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provisioner").field("config", &self.config.path).finish_non_exhaustive()
    }
}

impl Provisioner {
    /// Checks everything that can be checked before the first connection: key files, certificates, the token
    /// verification key, the helper's program.
    ///
    /// # Errors
    /// See [`StartError`]; the text names file or setting.
    pub fn new(config: ProvisionerConfig, choria: &Config, build: &BuildSettings) -> Result<Self, StartError> {
        let (caller, options) = start::prepare(&config, choria)?;
        Self::build(config, caller, Connection::Options(Box::new(options)), build)
    }

    /// A provisioner over a connection of the embedder's own.
    ///
    /// # Errors
    /// As [`Self::new`], for what is left to check.
    pub fn with_connector(
        config: ProvisionerConfig,
        caller: Caller,
        connector: Arc<dyn Connector>,
        build: &BuildSettings,
    ) -> Result<Self, StartError> {
        Self::build(config, caller, Connection::Ready(connector), build)
    }

    fn build(
        config: ProvisionerConfig,
        caller: Caller,
        connection: Connection,
        build: &BuildSettings,
    ) -> Result<Self, StartError> {
        let (runner, rules) = start::deciders(&config)?;
        let metrics = Arc::new(Metrics::new(config.site.clone()));
        let (sender, commands) = mpsc::channel(16);
        let (connected, connected_watch) = watch::channel(false);
        let handle = Handle {
            commands: sender,
            metrics: Arc::clone(&metrics),
            monitor: Arc::new(OnceLock::new()),
            connected: connected_watch,
        };
        Ok(Self {
            version: build.version.clone(),
            caller: Arc::new(caller),
            rules: Arc::new(rules),
            runner,
            config,
            metrics,
            connection,
            handle,
            commands,
            connected,
        })
    }

    /// Pauses, resumes and reads metrics while [`Self::run`] runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `shutdown` is cancelled: then no node is started any more, those in the flow are led to their
    /// end within `drain_timeout`, and the connection is closed. `reload` reads the configuration file again.
    ///
    /// # Errors
    /// See [`RunError`]. A broker that cannot be reached is none: it is tried for ever.
    pub async fn run(mut self, shutdown: CancellationToken, reload: Arc<Notify>) -> Result<(), RunError> {
        // Ends what serves the run loop; not the shutdown token, which only begins the drain.
        let over = CancellationToken::new();
        let _over_guard = over.clone().drop_guard();
        if let Some(port) = self.config.monitor_port {
            let failed = |error: std::io::Error| RunError::Monitor { port, reason: error.to_string() };
            let listener = http::bind(self.config.monitor_address, port).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            let _ = self.handle.monitor.set(address);
            tokio::spawn(http::serve(listener, Arc::clone(&self.metrics), self.handle.clone(), over.clone()));
        }
        let connector: Arc<dyn Connector> = match self.connection {
            Connection::Ready(connector) => connector,
            Connection::Options(options) => Arc::new(NatsConnector::start(*options, &over)),
        };
        let Some(first) = wait_connected(&*connector, &shutdown, &self.metrics, &mut self.commands).await? else {
            return Ok(());
        };
        let subscriptions = Subscriptions::make(&*connector, &self.config, &self.caller).await?;
        let announced = announce(&*connector, &self.caller, &self.version).await;

        let now = clock();
        let settings = Settings::of(&self.config);
        let random = Box::new(StdRng::from_os_rng());
        let mut engine =
            Engine::new(settings, self.rules, Arc::clone(&self.caller), Arc::clone(&self.metrics), random, now);
        if first.paused {
            engine.pause(now);
        }
        engine.set_connected(true, now);
        let (results, results_in) = mpsc::channel(RESULTS);
        let run = Run {
            runner: self.runner,
            config: self.config,
            caller: self.caller,
            metrics: self.metrics,
            connector,
            server: first.server,
            engine,
            seen: ConnectionStats::default(),
            announced,
            results,
            over,
        };
        self.connected.send_replace(true);
        run.serve(subscriptions, results_in, self.commands, shutdown, reload, self.connected).await
    }
}

/// Monotonic and wall clock together.
fn clock() -> Now {
    let unix =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    Now { mono: Instant::now(), unix }
}

/// The first connection, and what was asked for before it.
struct First {
    server: Arc<str>,
    paused: bool,
}

/// Waits for the first connection; the connector tells of failures. `None`: shut down meanwhile.
async fn wait_connected(
    connector: &dyn Connector,
    shutdown: &CancellationToken,
    metrics: &Metrics,
    commands: &mut mpsc::Receiver<Command>,
) -> Result<Option<First>, RunError> {
    let began = Instant::now();
    let mut paused = false;
    let mut status = connector.status();
    loop {
        let state = status.borrow_and_update().clone();
        match state {
            Status::Connected { server } => {
                metrics.initial_connect_time.observe(began.elapsed());
                return Ok(Some(First { server: Arc::from(server), paused }));
            }
            Status::Connecting { last_error: Some(reason) } | Status::Disconnected { reason } => {
                metrics.initial_connection_attempts.add();
                tracing::debug!("could not connect: {reason}");
            }
            Status::Connecting { last_error: None } => {}
            Status::Closed => return Err(RunError::Closed),
        }
        tokio::select! {
            () = shutdown.cancelled() => {
                connector.close().await;
                return Ok(None);
            },
            Some(command) = commands.recv() => {
                paused = matches!(command, Command::Pause(_));
                match paused {
                    true => tracing::warn!("paused before the first connection: nothing will be provisioned"),
                    false => tracing::warn!("provisioning will begin with the first connection"),
                }
                metrics.paused.set(usize::from(paused));
                let (Command::Pause(done) | Command::Resume(done)) = command;
                let _ = done.send(());
            },
            changed = status.changed() => changed.map_err(|_| RunError::Closed)?,
        }
    }
}

/// Tells the network that a provisioner started; plain, as the original sends it. Returns the event's id.
async fn announce(connector: &dyn Connector, caller: &Caller, version: &str) -> String {
    let event = Event {
        kind: Kind::Startup { version: version.to_owned() },
        id: ids::event_id(),
        identity: caller.identity.clone(),
        component: lifecycle::PROVISIONER.to_owned(),
        timestamp: clock().unix,
    };
    if let Err(error) = connector.publish(&event.subject(), Bytes::from(event.to_plain())).await {
        tracing::warn!("could not publish the startup event: {error}");
    }
    event.id
}

/// What comes back from tasks of the run loop.
enum TaskResult {
    SendFailed { origin: Option<(u64, u64)>, fault: SendFault },
    Helper { flow: u64, result: Box<Result<HelperAnswer, HelperError>>, notes: RunNotes, elapsed: Duration },
}

/// The run loop and what it needs.
struct Run {
    config: ProvisionerConfig,
    caller: Arc<Caller>,
    metrics: Arc<Metrics>,
    connector: Arc<dyn Connector>,
    /// Server that we are connected to, for the `seen-by` header.
    server: Arc<str>,
    engine: Engine,
    /// Id of our own startup event.
    announced: String,
    /// What the connection had counted when it was last looked at.
    seen: ConnectionStats,
    runner: Runner,
    results: mpsc::Sender<TaskResult>,
    over: CancellationToken,
}

impl Run {
    async fn serve(
        mut self,
        mut subs: Subscriptions,
        mut results: mpsc::Receiver<TaskResult>,
        mut commands: mpsc::Receiver<Command>,
        shutdown: CancellationToken,
        reload: Arc<Notify>,
        connected: watch::Sender<bool>,
    ) -> Result<(), RunError> {
        let mut status = self.connector.status();
        let mut drain_until: Option<tokio::time::Instant> = None;
        let mut look_around = tokio::time::interval(LOOK_AROUND);
        let ended = loop {
            for effect in self.engine.take_effects() {
                self.carry_out(effect);
            }
            if drain_until.is_some() && self.engine.is_idle() {
                break Ok(());
            }
            let timer = self.engine.next_timer().map(tokio::time::Instant::from_std);
            tokio::select! {
                message = subs.replies.next() => {
                    let Some(message) = message else { break Err(RunError::Closed) };
                    self.take(message, &mut subs.replies, |engine, m, now| engine.reply(&m.subject, &m.payload, now));
                },
                message = subs.startups.next() => {
                    let Some(message) = message else { break Err(RunError::Closed) };
                    self.take(message, &mut subs.startups, |engine, m, now| engine.node_event(&m.payload, now));
                },
                message = subs.shutdowns.next() => {
                    let Some(message) = message else { break Err(RunError::Closed) };
                    self.take(message, &mut subs.shutdowns, |engine, m, now| engine.node_event(&m.payload, now));
                },
                message = subs.registrations.next() => {
                    let Some(message) = message else { break Err(RunError::Closed) };
                    self.take(message, &mut subs.registrations, |engine, m, now| engine.registration(&m.payload, now));
                },
                message = next_of(&mut subs.fleet) => {
                    if let Some(message) = message {
                        self.engine.fleet_event(&message.payload, clock());
                    }
                },
                message = subs.provisioners.next() => {
                    let Some(message) = message else { break Err(RunError::Closed) };
                    self.meet(&message.payload);
                },
                Some(result) = results.recv() => self.absorb(result),
                Some(command) = commands.recv() => self.obey(command),
                changed = status.changed() => {
                    if changed.is_err() {
                        break Err(RunError::Closed);
                    }
                    let state = status.borrow_and_update().clone();
                    if !self.follow_status(state, &connected) {
                        break Err(RunError::Closed);
                    }
                },
                () = reload.notified() => self.reload().await,
                _ = look_around.tick() => self.look_at_connection(),
                () = shutdown.cancelled(), if drain_until.is_none() => {
                    tracing::info!("stopping: no more nodes are started, waiting for those in the flow");
                    self.engine.drain(clock());
                    drain_until = Some(tokio::time::Instant::now() + self.config.drain_timeout);
                },
                () = until(drain_until) => {
                    self.engine.abandon(clock());
                    break Ok(());
                },
                () = until(timer) => self.engine.advance(clock()),
            }
        };
        connected.send_replace(false);
        self.over.cancel();
        self.runner.close().await;
        self.connector.close().await;
        ended
    }

    /// Takes a message and those that wait behind it, up to a bound.
    fn take(&mut self, first: Message, rest: &mut Subscription, handle: impl Fn(&mut Engine, &Message, Now)) {
        handle(&mut self.engine, &first, clock());
        for _ in 1..BATCH {
            let Some(message) = rest.try_next() else { return };
            handle(&mut self.engine, &message, clock());
        }
    }

    fn carry_out(&self, effect: Effect) {
        let results = self.results.clone();
        match effect {
            Effect::Send { origin, subject, reply_to, document } => {
                let (connector, caller) = (Arc::clone(&self.connector), Arc::clone(&self.caller));
                let server = Arc::clone(&self.server);
                tokio::spawn(async move {
                    let fault = match document.encode(&caller, &reply_to, &server) {
                        Err(reason) => SendFault::Impossible(reason),
                        Ok(body) => match connector.publish(&subject, Bytes::from(body)).await {
                            Ok(()) => return,
                            Err(error) => send_fault(&error),
                        },
                    };
                    let _ = results.send(TaskResult::SendFailed { origin, fault }).await;
                });
            }
            Effect::Tell(event) => {
                let connector = Arc::clone(&self.connector);
                tokio::spawn(async move {
                    if let Err(error) = connector.publish(&event.subject(), Bytes::from(event.to_cloud_event())).await {
                        tracing::debug!("an event of {} was not published: {error}", event.identity);
                    }
                });
            }
            Effect::Helper { flow, question } => {
                let (runner, over) = (self.runner.clone(), self.over.clone());
                tokio::spawn(async move {
                    let began = Instant::now();
                    let outcome = tokio::select! {
                        outcome = runner.run(&question) => outcome,
                        // Dropping the run kills its process.
                        () = over.cancelled() => return,
                    };
                    let (result, notes) = match outcome {
                        Ok((answer, notes)) => (Box::new(Ok(answer)), notes),
                        Err((error, notes)) => (Box::new(Err(error)), notes),
                    };
                    let elapsed = began.elapsed();
                    let _ = results.send(TaskResult::Helper { flow, result, notes, elapsed }).await;
                });
            }
        }
    }

    /// A provisioner started. One of our own identity would defeat the lock by which nodes keep provisioners apart,
    /// and both would configure the same nodes (spec 04 §8.2).
    fn meet(&self, payload: &[u8]) {
        let Ok(event) = Event::parse(payload) else { return };
        if event.identity == self.caller.identity && event.id != self.announced {
            self.metrics.refuse("same_identity");
            tracing::error!(
                "another provisioner with our identity {} started: nodes cannot keep the two apart and would be ruined; stop one of them, or give it an identity and certificate of its own",
                event.identity
            );
        }
    }

    fn absorb(&mut self, result: TaskResult) {
        match result {
            TaskResult::SendFailed { origin, fault } => self.engine.send_failed(origin, fault, clock()),
            TaskResult::Helper { flow, result, notes, elapsed } => {
                self.engine.helper_done(flow, *result, &notes, elapsed, clock());
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let done = match command {
            Command::Pause(done) => {
                self.engine.pause(clock());
                done
            }
            Command::Resume(done) => {
                self.engine.resume(clock());
                done
            }
        };
        self.metrics.paused.set(usize::from(self.engine.is_paused()));
        // Nobody may be waiting any more.
        let _ = done.send(());
    }

    /// Counts what the broker refused, and tells when messages were lost because they came faster than we read.
    fn look_at_connection(&mut self) {
        let stats = self.connector.stats();
        self.metrics.connector_errors.add_many(stats.broker_errors.saturating_sub(self.seen.broker_errors));
        let lost = stats.dropped.saturating_sub(self.seen.dropped);
        self.seen = stats;
        if lost > 0 {
            tracing::warn!(
                "{lost} messages came faster than they could be read and were lost; discovery finds the nodes again"
            );
            self.engine.look_again(clock());
        }
    }

    /// Follows the connection. Returns false when it is closed for good.
    fn follow_status(&mut self, status: Status, connected: &watch::Sender<bool>) -> bool {
        match status {
            Status::Connected { server } => {
                if !*connected.borrow() {
                    self.metrics.reconnections.add();
                    tracing::debug!("connected again to {server}");
                }
                self.server = Arc::from(server);
                connected.send_replace(true);
                self.engine.set_connected(true, clock());
            }
            Status::Disconnected { reason } => {
                if *connected.borrow() {
                    self.metrics.connection_closed.add();
                }
                tracing::debug!("disconnected: {reason}");
                connected.send_replace(false);
                self.engine.set_connected(false, clock());
            }
            Status::Connecting { .. } => {}
            Status::Closed => return false,
        }
        true
    }

    /// Reads the configuration again and takes over what can be changed in a running provisioner.
    async fn reload(&mut self) {
        let path = self.config.path.clone();
        let loaded = tokio::task::spawn_blocking(move || {
            let config = ProvisionerConfig::load(&path).map_err(|error| error.to_string())?;
            let (runner, rules) = start::deciders(&config).map_err(|error| error.to_string())?;
            Ok::<_, String>((config, runner, rules))
        });
        let (config, runner, rules) = match loaded.await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => {
                tracing::error!("reload failed, the old configuration stays in force: {error}");
                return;
            }
            Err(error) => {
                tracing::error!("reload failed, the old configuration stays in force: {error}");
                return;
            }
        };
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        for key in needs_restart(&self.config, &config) {
            tracing::warn!("{key} was changed, which takes effect at the next start only");
        }
        // Processes live on when nothing about them changed; rules and authority are always the ones just read.
        if self.config.helper != config.helper || matches!(runner, Runner::Builtin(_)) {
            let old = std::mem::replace(&mut self.runner, runner);
            tokio::spawn(async move { old.close().await });
        }
        self.engine.reload(Arc::new(rules), Settings::of(&config), clock());
        self.config = config;
        tracing::info!("the configuration was read again");
    }
}

/// Keys that differ and cannot be changed in a running provisioner.
fn needs_restart(old: &ProvisionerConfig, new: &ProvisionerConfig) -> Vec<&'static str> {
    let changed = [
        ("lifecycle_component", old.lifecycle_component != new.lifecycle_component),
        ("choria_insecure", old.choria_insecure != new.choria_insecure),
        ("site", old.site != new.site),
        ("monitor_port", old.monitor_port != new.monitor_port),
        ("monitor_address", old.monitor_address != new.monitor_address),
        ("broker_provisioning_password", old.broker_provisioning_password != new.broker_provisioning_password),
        ("logfile", old.logfile != new.logfile),
        ("loglevel", old.loglevel != new.loglevel),
        ("verify_restart", (old.verify_restart == VerifyRestart::Off) != (new.verify_restart == VerifyRestart::Off)),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

fn send_fault(error: &ConnectorError) -> SendFault {
    match error {
        ConnectorError::NotConnected(_) | ConnectorError::Closed => SendFault::NotConnected(error.to_string()),
        ConnectorError::InvalidSubject(_) | ConnectorError::TooLarge { .. } => SendFault::Impossible(error.to_string()),
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
