//! The provisioner as a program part: checked at first, then run until it is told to stop. What it does while it runs is
//! in `run`, how it is talked to in `handle`.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use choria_config::{BuildSettings, Config};
use choria_connector::{ConnectOptions, ConnectionStats, Connector, ConnectorError, NatsConnector, Status};
use choria_protocol::ids;
use choria_protocol::lifecycle::{self, Event, Kind};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::ProvisionerConfig;
use crate::control;
use crate::control::place::Surroundings;
use crate::engine::{Engine, Settings};
use crate::handle::{About, Command, Handle, Link, clock, obey};
use crate::helper::Runner;
use crate::http;
use crate::metrics::Metrics;
use crate::requests::Caller;
use crate::rules::Rules;
use crate::run::{RESULTS, Run};
use crate::start::{self, StartError};
use crate::subscriptions::Subscriptions;

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
    /// The control socket cannot be opened where `control_socket` says.
    #[error("could not open the control_socket {0}")]
    Control(#[from] control::BindError),
    /// A subscription was refused for good.
    #[error("could not subscribe: {0}")]
    Subscribe(#[from] ConnectorError),
    /// The connection was closed by something else.
    #[error("the connection to the broker was closed")]
    Closed,
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
            control: Arc::new(OnceLock::new()),
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
        let setting = &self.config.control_socket;
        if let Some(listener) = control::bind(setting, &self.config.path, &Surroundings::of_process())? {
            tracing::info!("control socket is {}", listener.path().display());
            let _ = self.handle.control.set(listener.path().to_owned());
            let handle = self.handle.clone();
            let answer = move |request| {
                let handle = handle.clone();
                async move { handle.answer(request).await }
            };
            tokio::spawn(control::serve(listener, answer, over.clone()));
        }
        let connector: Arc<dyn Connector> = match self.connection {
            Connection::Ready(connector) => connector,
            Connection::Options(options) => Arc::new(NatsConnector::start(*options, &over)),
        };
        let about = About::new(&self.version, &self.caller.identity, &self.config);
        let (settings, random) = (Settings::of(&self.config), Box::new(StdRng::from_os_rng()));
        let (caller, metrics) = (Arc::clone(&self.caller), Arc::clone(&self.metrics));
        let mut engine = Engine::new(settings, self.rules, caller, metrics, random, clock());
        let waiting =
            wait_connected(&*connector, &shutdown, &mut self.commands, &mut engine, &about, &self.metrics).await?;
        let Some(server) = waiting else { return Ok(()) };
        let subscriptions = Subscriptions::make(&*connector, &self.config, &self.caller).await?;
        let announced = announce(&*connector, &self.caller, &self.version).await;
        engine.set_connected(true, clock());
        let (results, results_in) = mpsc::channel(RESULTS);
        let run = Run {
            runner: self.runner,
            config: self.config,
            caller: self.caller,
            metrics: self.metrics,
            connector,
            link: Link { server: Some(Arc::clone(&server)), reason: None },
            server,
            about,
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

/// Waits for the first connection; the connector tells of failures. Answers questions meanwhile. `None`: shut down.
async fn wait_connected(
    connector: &dyn Connector,
    shutdown: &CancellationToken,
    commands: &mut mpsc::Receiver<Command>,
    engine: &mut Engine,
    about: &About,
    metrics: &Metrics,
) -> Result<Option<Arc<str>>, RunError> {
    let began = Instant::now();
    let mut link = Link::default();
    let mut status = connector.status();
    loop {
        let state = status.borrow_and_update().clone();
        match state {
            Status::Connected { server } => {
                metrics.initial_connect_time.observe(began.elapsed());
                return Ok(Some(Arc::from(server)));
            }
            Status::Connecting { last_error: Some(reason) } | Status::Disconnected { reason } => {
                metrics.initial_connection_attempts.add();
                tracing::debug!("could not connect: {reason}");
                link.reason = Some(reason);
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
                match command {
                    Command::Pause(_) => {
                        tracing::warn!("paused before the first connection: nothing will be provisioned");
                    }
                    Command::Resume(_) => tracing::warn!("provisioning will begin with the first connection"),
                    Command::Status(_) | Command::Explain(..) => {}
                }
                obey(command, engine, about, &link, metrics);
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
