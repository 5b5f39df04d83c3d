//! The broker as a program runs it: start, statistics, reload, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use choria_config::{BuildSettings, Config, Environment};
use choria_protocol::lifecycle::Event;
use nats_broker::{Authenticator, Broker, BrokerConfig, Listener, Observer, PublishGuard, WebSocketSettings};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::accounts;
use crate::authenticator::PolicyAuthenticator;
use crate::error::{RunError, StartError};
use crate::guard::IdentityGuard;
use crate::metrics::Metrics;
use crate::policy::Account;
use crate::reload::{Reloader, State};
use crate::settings::{Material, Options, Settings};
use crate::stats::{self, Pages};
use crate::watch::Watch;

/// The listener of ordinary clients.
const CLIENTS: usize = 0;
/// That of websocket clients, when there is one.
const WEBSOCKET: usize = 1;
/// Time of a websocket client for its HTTP request (spec 07 §9).
const WEBSOCKET_HANDSHAKE: Duration = Duration::from_secs(2);

/// How long a stopping broker waits for readers of its statistics.
const STATISTICS_GRACE: Duration = Duration::from_secs(1);

/// A broker that is configured and not yet started.
#[derive(Debug)]
pub struct Service {
    config: Config,
    environment: Environment,
    build: BuildSettings,
    options: Options,
    settings: Settings,
    material: Material,
}

impl Service {
    /// Reads and checks the configuration and every file it names. Opens no port.
    ///
    /// # Errors
    /// [`StartError::Settings`] with file, key and what to do.
    pub fn from_config(config: &Config, build: &BuildSettings) -> Result<Self, StartError> {
        Self::with_options(config, build, Options::default(), Environment::from_process())
    }

    /// As [`Service::from_config`], with the command line's options. `environment` is what a reload reads the
    /// configuration with.
    ///
    /// # Errors
    /// As [`Service::from_config`].
    pub fn with_options(
        config: &Config,
        build: &BuildSettings,
        options: Options,
        environment: Environment,
    ) -> Result<Self, StartError> {
        let settings = Settings::read(config, build, options)?;
        let material = Material::read(config, build, options)?;
        Ok(Self { config: config.clone(), environment, build: build.clone(), options, settings, material })
    }

    /// Opens the ports. The broker runs until [`Handle::shutdown`], or until the handle is dropped, which does not wait
    /// for the drain.
    ///
    /// # Errors
    /// A port that cannot be opened.
    pub async fn start(self) -> Result<Handle, StartError> {
        self.start_for(None).await
    }

    /// `reload` is notified when somebody in the system account asks for a reload.
    async fn start_for(self, reload: Option<Arc<Notify>>) -> Result<Handle, StartError> {
        let Self { config, environment, build, options, settings, material } = self;
        log_warnings(&config, &settings);
        let metrics = Arc::new(Metrics::new(&settings.identity, &build.version, &build.sha, SystemTime::now()));
        let (watch, events) = Watch::new(Arc::clone(&metrics), reload);
        let authorities = material.client_authorities();
        let authenticator = PolicyAuthenticator::new(material.policy.clone(), authorities.clone());

        // Opened first: a start that fails must not have been a broker for a moment.
        let statistics = match settings.stats {
            None => None,
            Some(address) => {
                Some(TcpListener::bind(address).await.map_err(|source| StartError::Statistics { address, source })?)
            }
        };
        let stats_addr = statistics.as_ref().and_then(|listener| listener.local_addr().ok());
        let broker = Broker::start(
            broker_config(&settings, &material, stats_addr),
            accounts(settings.provisioning, &settings.mappings),
            Arc::new(authenticator) as Arc<dyn Authenticator>,
            guards(settings.provisioning),
            Arc::new(watch) as Arc<dyn Observer>,
        )?;
        let client_addr = broker.local_addr(CLIENTS).expect("a broker that started has the listener it was given");

        let websocket_addr = broker.local_addr(WEBSOCKET);

        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(publish_events(broker.clone(), events, stop.clone()));
        if let Some(listener) = statistics {
            let pages = Pages {
                broker: broker.clone(),
                metrics: Arc::clone(&metrics),
                build: build.clone(),
                identity: settings.identity.clone(),
                config_file: settings.config_file.clone(),
                started: Instant::now(),
            };
            tasks.spawn(serve_statistics(listener, Arc::new(pages), stop.clone()));
        }
        tasks.close();
        tracing::info!(
            component = "network_broker",
            listen = %client_addr,
            websocket = websocket_addr.map(tracing::field::display),
            statistics = stats_addr.map(tracing::field::display),
            identity = settings.identity,
            tls = settings.tls,
            provisioning = settings.provisioning,
            "broker started"
        );
        Ok(Handle {
            client_addr,
            websocket_addr,
            stats_addr,
            broker,
            metrics,
            reloader: Arc::new(Reloader { stats_addr, config, environment, build, options }),
            state: Arc::new(ArcSwap::from_pointee(State { settings, material, authorities })),
            reloading: Arc::new(Semaphore::new(1)),
            stop,
            tasks,
        })
    }

    /// Runs until `shutdown` is cancelled, reloading whenever `reload` is notified.
    ///
    /// # Errors
    /// A start that failed, or a drain that took longer than `plugin.choria.network.soft_shutdown_timeout`.
    pub async fn run(self, shutdown: CancellationToken, reload: Arc<Notify>) -> Result<(), RunError> {
        let handle = self.start_for(Some(Arc::clone(&reload))).await?;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                // It logs by itself how it went.
                () = reload.notified() => drop(handle.reload().await),
            }
        }
        handle.shutdown().await
    }
}

/// A running broker.
pub struct Handle {
    /// Address of the client listener.
    pub client_addr: SocketAddr,
    /// Address of the listener of websocket clients, when it is on.
    pub websocket_addr: Option<SocketAddr>,
    /// Address of the statistics, when they are on.
    pub stats_addr: Option<SocketAddr>,
    pub(crate) broker: Broker,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) state: Arc<ArcSwap<State>>,
    /// One reload at a time.
    pub(crate) reloading: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("client_addr", &self.client_addr).field("stats_addr", &self.stats_addr).finish()
    }
}

impl Handle {
    /// The network broker, for programs that have one of their own inside.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Stops accepting, tells and drains the clients, ends the statistics.
    ///
    /// # Errors
    /// [`RunError::ShutdownTimeout`] when that takes too long.
    pub async fn shutdown(self) -> Result<(), RunError> {
        let limit = self.state.load().settings.shutdown_timeout;
        let drain = async {
            self.broker.shutdown().await;
            self.stop.cancel();
            self.tasks.wait().await;
        };
        tokio::time::timeout(limit, drain).await.map_err(|_| RunError::ShutdownTimeout(limit))?;
        tracing::info!(component = "network_broker", "broker stopped");
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.stop.is_cancelled() {
            return;
        }
        self.stop.cancel();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let broker = self.broker.clone();
            runtime.spawn(async move { broker.shutdown().await });
        }
    }
}

/// What is odd about the configuration file.
pub(crate) fn log_notes(config: &Config) {
    for note in config.notes() {
        tracing::debug!(component = "config", "{note}");
    }
    for warning in config.warnings() {
        tracing::warn!(component = "config", "{warning}");
    }
}

fn log_warnings(config: &Config, settings: &Settings) {
    log_notes(config);
    for warning in &settings.warnings {
        tracing::warn!(component = "broker", "{warning}");
    }
}

/// The guard watches account `provisioning`, which must exist for it.
pub(crate) fn guards(provisioning: bool) -> Vec<Arc<dyn PublishGuard>> {
    if provisioning { vec![Arc::new(IdentityGuard)] } else { Vec::new() }
}

pub(crate) fn broker_config(
    settings: &Settings,
    material: &Material,
    monitor_addr: Option<SocketAddr>,
) -> BrokerConfig {
    let (host, port) = &settings.advertise;
    let tls = material.tls.as_ref().map(|tls| Arc::clone(&tls.config));
    let websocket = settings.websocket.iter().map(|(address, advertise)| Listener {
        tls: tls.clone(),
        advertise: advertise.clone(),
        ..Listener::plain(*address).websocket(WebSocketSettings {
            compression: true,
            handshake_timeout: WEBSOCKET_HANDSHAKE,
            ..WebSocketSettings::default()
        })
    });
    let clients = Listener { tls: tls.clone(), ..Listener::plain(settings.listen) };
    BrokerConfig {
        server_name: settings.identity.clone(),
        client_advertise: Some(match port {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        }),
        cluster_name: Some(settings.cluster.clone()),
        listen: std::iter::once(clients).chain(websocket).collect(),
        auth_timeout: settings.auth_timeout,
        tls_timeout: settings.tls_timeout,
        write_deadline: settings.write_deadline,
        max_connections: settings.max_connections,
        system_account: Some(Account::System.name().to_owned()),
        monitor_addr,
        ..BrokerConfig::default()
    }
}

/// Publishes what [`Watch`] reports. One task, so that reporting never waits for routing.
async fn publish_events(broker: Broker, mut events: mpsc::Receiver<Event>, stop: CancellationToken) {
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => event,
        };
        let Some(event) = event else { return };
        let subject = event.subject();
        let text = event.to_plain();
        if let Err(error) = broker.publish(Account::Choria.name(), &subject, None, None, text.as_bytes()) {
            tracing::warn!(component = "broker", "cannot publish {subject}: {error}");
        }
    }
}

async fn serve_statistics(listener: TcpListener, pages: Arc<Pages>, stop: CancellationToken) {
    let stopped = stop.clone();
    let served = axum::serve(listener, stats::router(pages)).with_graceful_shutdown(stop.cancelled_owned());
    let patience = async {
        stopped.cancelled().await;
        tokio::time::sleep(STATISTICS_GRACE).await;
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::error!(component = "broker", "the statistics ended: {error}");
        },
        () = patience => {}
    }
}
