//! The server's life: connect, subscribe, announce, serve, end (spec 03 §1.3, §1.7).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use choria_config::keys;
use choria_connector::{
    ConnectOptions, Connector, ConnectorError, NatsConnector, Status as Connection, Subscription, TargetError, Wanted,
};
use choria_protocol::lifecycle::{Kind, PROVISION_MODE_SERVER, SERVER};
use choria_protocol::subjects;
use choria_rpc::Agent;
use choria_rpc::authz::ProviderError;
use choria_rpc::dispatch::Dispatcher;
use choria_security::provider::SecurityError;
use choria_security::tls::TlsError;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::agents::{ChoriaUtil, RpcUtil};
use crate::builder::{Security, ServerBuilder};
use crate::clock::Clock;
use crate::context::ServerContext;
use crate::control::{Control, Scheduled};
use crate::counters::Counters;
use crate::events::{self, Events};
use crate::host::{Host, HostError};
use crate::observer::Observer;
use crate::pipeline::Pipeline;
use crate::provision::configure::ProviderCheck;
use crate::provision::{ProvisionAgent, ProvisionContext};
use crate::registration::{self, Registration, RegistrationError};
use crate::settings::{ConfigureError, ServerSettings};
use crate::shared::Shared;

/// Messages of all subscriptions that wait for the checks: more than a fleet's busiest second brings to one node. Those
/// beyond it are dropped by the connection and counted there.
const REQUEST_QUEUE: usize = 512;

/// How often a server without a usable provisioning token looks whether there is one now.
const TOKEN_POLL: Duration = Duration::from_secs(2);

/// How [`Server::run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The shutdown token was cancelled.
    Stopped,
    /// The process should start again with the same arguments: new configuration, or a provisioner asked for it.
    Restart,
    /// A provisioner or operator asked the server to stay down.
    Shutdown,
}

/// Why a server could not be made or ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Certificates, keys or verification.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A broker address.
    #[error("plugin.choria.middleware_hosts: {0}")]
    Target(#[from] TargetError),
    /// An agent.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Authorization.
    #[error(transparent)]
    Authorization(#[from] ProviderError),
    /// Registration.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// A collective or identity that is no subject.
    #[error("could not subscribe: {0}")]
    Subscribe(#[from] ConnectorError),
    /// The connection ended for good although nobody asked for it.
    #[error("the connection was closed")]
    ConnectionClosed,
}

/// Where the connection comes from.
pub(crate) enum Connect {
    Given(Arc<dyn Connector>),
    Options(Box<ConnectOptions>),
}

/// A Choria server, ready to run.
pub struct Server {
    pub(crate) settings: Arc<ServerSettings>,
    pub(crate) agents: Vec<Arc<dyn Agent>>,
    pub(crate) connection: Connect,
    pub(crate) security: Security,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) plugins: Vec<registration::Plugin>,
    pub(crate) component: Option<String>,
    pub(crate) clock: Clock,
    pub(crate) provider: ProviderCheck,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reload: Arc<Notify>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts making a server with these settings.
    pub fn builder(settings: ServerSettings) -> ServerBuilder {
        ServerBuilder::new(settings)
    }

    /// The settings.
    pub fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    /// Notify this to make the server look at its configuration anew, as SIGHUP does: it ends with [`Exit::Restart`] if
    /// the new configuration is good, and keeps running with the old one if not.
    pub fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.reload)
    }

    /// Runs until it is told to end. Connection problems of any kind never end it.
    ///
    /// # Errors
    /// Settings that cannot work at all.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Exit, ServerError> {
        // Asked before the connection exists: each of its tries reads the token anew and may be the first to see a good one.
        let waits_for_token = self.settings.is_provisioning() && self.settings.token().current().is_none();
        let connector: Arc<dyn Connector> = match &self.connection {
            Connect::Given(connector) => Arc::clone(connector),
            // Its own token: a shutdown must still be able to publish.
            Connect::Options(options) => Arc::new(NatsConnector::start((**options).clone(), &CancellationToken::new())),
        };
        for note in self.settings.notes() {
            tracing::warn!("{note}");
        }
        let counters = Arc::new(Counters::default());
        let context = Arc::new(ServerContext::new(
            Arc::clone(&self.settings),
            counters,
            self.clock.clone(),
            Arc::clone(&connector),
        ));
        // Everything in the background ends with this set, whichever way this function ends.
        let mut background = JoinSet::new();
        self.start_status(&context, &mut background);
        let result = Box::pin(self.serve(context, &mut background, shutdown, waits_for_token)).await;
        background.abort_all();
        connector.close().await;
        result
    }

    async fn serve(
        self,
        context: Arc<ServerContext>,
        background: &mut JoinSet<()>,
        shutdown: CancellationToken,
        waits_for_token: bool,
    ) -> Result<Exit, ServerError> {
        let control = Control::default();
        if let Some(exit) = self.connected(&context, &shutdown, waits_for_token).await? {
            return Ok(exit);
        }
        let events = self.events(&context);
        let mut host = Host::new(Arc::clone(&context), self.dispatcher.clone(), control.clone());
        self.register_agents(&mut host, &context, &events, &control)?;
        host.announce();
        let requests = subscribe(&context, &host).await?;
        // Whoever sees the startup event may ask at once: the broker takes it after the subscriptions, as it was sent.
        events.publish(Kind::Startup { version: self.settings.build().version.clone() }).await;
        background.spawn(alive(events.clone(), self.settings.build().version.clone()));
        let (rhythm, seal) = (registration::rhythm(context.config()), Arc::new(self.security.seal));
        for plugin in self.plugins {
            let registration = Registration::new(Arc::clone(&context), plugin, rhythm, Arc::clone(&seal));
            background.spawn(registration.run());
        }
        let collectives = context.config().get(&keys::COLLECTIVES);
        let pipeline = Pipeline::new(self.security.verification, collectives, Arc::clone(&context.counters));
        let soft = context.config().get(&keys::SOFT_SHUTDOWN_TIMEOUT);
        let exit = tokio::select! {
            exit = ended(&shutdown, &control, &self.reload, &context, &*self.observer) => exit,
            () = host.serve(requests, pipeline) => Err(ServerError::ConnectionClosed),
        };
        // What runs gets a moment to answer; a restart wish came from one of them.
        host.finish(soft.min(Duration::from_secs(10))).await;
        events.publish(Kind::Shutdown).await;
        exit
    }

    /// Waits for the first connection. `Some` when the server ended before it.
    async fn connected(
        &self,
        context: &ServerContext,
        shutdown: &CancellationToken,
        waits_for_token: bool,
    ) -> Result<Option<Exit>, ServerError> {
        let mut status = context.connector.status();
        let mut poll = interval(TOKEN_POLL);
        loop {
            tokio::select! {
                seen = status.wait_for(|status| matches!(status, Connection::Connected { .. } | Connection::Closed)) => {
                    return match seen.as_deref() {
                        // Connected with a token that came since the start.
                        Ok(Connection::Connected { .. }) if waits_for_token && self.settings.token().current().is_some() => {
                            Ok(Some(Exit::Restart))
                        }
                        Ok(Connection::Connected { .. }) => {
                            self.observer.connected();
                            Ok(None)
                        }
                        _ => Err(ServerError::ConnectionClosed),
                    };
                }
                () = shutdown.cancelled() => return Ok(Some(Exit::Stopped)),
                _ = poll.tick(), if waits_for_token => {
                    // Name, facts and registration come from the token: with the first good one everything starts over.
                    self.settings.token().refresh();
                    if self.settings.token().current().is_some() {
                        tracing::info!("there is a usable provisioning token now, starting over");
                        return Ok(Some(Exit::Restart));
                    }
                }
                () = self.reload.notified() => {
                    if let Some(exit) = reloaded(context) {
                        return Ok(Some(exit));
                    }
                }
            }
        }
    }

    fn events(&self, context: &ServerContext) -> Events {
        let component = if self.settings.is_provisioning() {
            PROVISION_MODE_SERVER.to_owned()
        } else {
            self.component.clone().unwrap_or_else(|| SERVER.to_owned())
        };
        Events::new(
            Arc::clone(&context.connector),
            Arc::clone(&context.counters),
            context.clock.clone(),
            self.settings.identity(),
            component,
            context.config().get(&keys::LEGACY_LIFECYCLE_FORMAT),
            Arc::clone(&self.observer),
        )
    }

    fn register_agents(
        &self,
        host: &mut Host,
        context: &Arc<ServerContext>,
        events: &Events,
        control: &Control,
    ) -> Result<(), HostError> {
        host.register(Arc::new(RpcUtil::new(Arc::clone(context), Arc::clone(&self.shared))))?;
        host.register(Arc::new(ChoriaUtil::new(Arc::clone(context), Arc::clone(&self.shared))))?;
        let settings = &self.settings;
        if settings.build().provision_agent && (settings.is_provisioning() || settings.token().action_token().is_some())
        {
            host.register(Arc::new(ProvisionAgent::new(ProvisionContext {
                settings: Arc::clone(settings),
                environment: settings.environment().clone(),
                events: events.clone(),
                control: control.clone(),
                clock: self.clock.clone(),
                provider: self.provider,
            })))?;
        }
        // The provisioning account has no subjects for others.
        if !settings.is_provisioning() {
            for agent in &self.agents {
                host.register(Arc::clone(agent))?;
            }
        }
        Ok(())
    }

    fn start_status(&self, context: &Arc<ServerContext>, background: &mut JoinSet<()>) {
        let config = self.settings.config();
        let every = config.get(&keys::STATUS_UPDATE_INTERVAL);
        if let Some(path) = config.get(&keys::STATUS_FILE_PATH).filter(|_| !every.is_zero()) {
            background.spawn(write_status(Arc::clone(context), path, every));
        }
    }
}

/// Writes the status file at every change of the connection and at every interval.
async fn write_status(context: Arc<ServerContext>, path: PathBuf, every: Duration) {
    let mut changes = context.connector.status();
    let mut ticks = interval(every);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        if let Err(error) = context.status().write(&path) {
            tracing::error!("the status file was not written: {error}");
        }
    }
}

async fn alive(events: Events, version: String) {
    let first = events::first_alive(&mut rand::rng());
    sleep(first).await;
    loop {
        events.publish(Kind::Alive { version: version.clone() }).await;
        sleep(events::ALIVE_INTERVAL).await;
    }
}

/// Subscribes every agent and the node itself in every collective; all messages go into one queue.
async fn subscribe(context: &ServerContext, host: &Host) -> Result<Subscription, ServerError> {
    let identity = context.settings.identity();
    let mut wanted = Vec::new();
    for collective in context.config().get(&keys::COLLECTIVES) {
        wanted.push(Wanted::new(subjects::node(&collective, &identity)));
        for (agent, service) in host.agents() {
            wanted.push(if service {
                Wanted::in_queue(subjects::broadcast_service(&collective, agent), agent)
            } else {
                Wanted::new(subjects::broadcast_agent(&collective, agent))
            });
        }
    }
    Ok(context.connector.subscribe_all(&wanted, REQUEST_QUEUE).await?)
}

/// Waits for whatever ends a running server.
async fn ended(
    shutdown: &CancellationToken,
    control: &Control,
    reload: &Notify,
    context: &ServerContext,
    observer: &dyn Observer,
) -> Result<Exit, ServerError> {
    let mut wishes = control.watch();
    let mut connection = Watched::new(context.connector.status());
    let mut wish: Option<Scheduled> = None;
    loop {
        let due = async {
            match wish {
                Some(scheduled) => {
                    sleep_until(scheduled.at).await;
                    scheduled.exit
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(Exit::Stopped),
            exit = due => return Ok(exit),
            _ = wishes.changed() => {
                wish = *wishes.borrow_and_update();
                if let Some(Scheduled { at, exit }) = wish {
                    observer.ending(exit, at.saturating_duration_since(Instant::now()));
                }
            }
            up = connection.changed() => if up { observer.connected() } else { observer.disconnected() },
            () = reload.notified() => {
                if let Some(exit) = reloaded(context) {
                    return Ok(exit);
                }
            }
        }
    }
}

/// The connection of a running server, seen as up or down.
struct Watched {
    status: watch::Receiver<Connection>,
    up: bool,
}

impl Watched {
    fn new(status: watch::Receiver<Connection>) -> Self {
        Self { status, up: true }
    }

    /// Waits until it is up again, or lost. A connection that ended for good never changes.
    async fn changed(&mut self) -> bool {
        let was_up = self.up;
        let turned = |status: &Connection| matches!(status, Connection::Connected { .. }) != was_up;
        if self.status.wait_for(turned).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.up = !was_up;
        self.up
    }
}

/// Looks at the configuration as the next start will. A bad one changes nothing.
fn reloaded(context: &ServerContext) -> Option<Exit> {
    let settings = &context.settings;
    let file = settings.config_file()?;
    let fresh = ServerSettings::load(file, settings.token().path(), settings.environment(), context.clock.now());
    let problem = match fresh.map(|settings| Server::builder(settings).build()) {
        Ok(Ok(_)) => {
            tracing::info!("the configuration is good, starting over with it");
            return Some(Exit::Restart);
        }
        Ok(Err(error)) => error.to_string(),
        Err(error) => ConfigureError::to_string(&error),
    };
    tracing::error!("the configuration is not taken over, the server goes on as it is: {problem}");
    None
}

/// Waits for `done` at most `limit`.
pub(crate) async fn within(limit: Duration, done: impl Future<Output = ()>) {
    let started = Instant::now();
    if timeout(limit, done).await.is_err() {
        tracing::warn!("some requests were not finished after {:?}", started.elapsed());
    }
}
