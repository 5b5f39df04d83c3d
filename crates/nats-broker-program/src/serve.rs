//! A running broker: its start, what signals make it do, its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use nats_broker::{Broker, Reload};
use nats_config::Loaded;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::files::{self, Ports, PortsFile};
use crate::flags::Flags;
use crate::log::Log;
use crate::monitoring::Monitoring;
use crate::plan::{Plan, PlanError};
use crate::program::{self, ProgramError};
use crate::usage;
use crate::watch::Watch;

/// Signals that are listened to. Made before anybody can know the process id.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }
}

/// A broker that runs, and what a reload compares with.
struct Server<'a> {
    flags: &'a Flags,
    log: &'a Log,
    broker: Broker,
    monitoring: Monitoring,
    /// Where monitoring was to be, before the system chose ports.
    wanted: (Option<SocketAddr>, Option<SocketAddr>),
    pid_file: Option<PathBuf>,
    ports_file_dir: Option<PathBuf>,
}

/// Kind of a listener, for the log and the ports file.
#[derive(Clone, Copy)]
enum Kind {
    Clients,
    WebSocket { scheme: &'static str },
}

/// Starts a broker and serves until a signal ends it.
pub(crate) async fn live(flags: &Flags, loaded: Loaded, plan: Plan, log: &Log) -> Result<(), ProgramError> {
    let mut signals = Signals::listen()?;
    tracing::info!("Starting nats-broker");
    tracing::info!("  Version:  {}", usage::version());
    tracing::info!("  Program:  {}", env!("CARGO_PKG_VERSION"));
    let (watch, mut asked) = Watch::new(flags.config.is_some());
    let (server, kinds) = start(flags, &loaded, plan, log, watch).await?;
    // Whoever reads one of the lines below may look for these files.
    if let Some(path) = &server.pid_file {
        files::write_pid(path)?;
    }
    let ports = server.ports(&kinds);
    let ports_file = server.ports_file_dir.as_deref().map(|dir| PortsFile::write(dir, &ports)).transpose()?;
    for (number, kind) in kinds.iter().enumerate().rev() {
        let Some(addr) = server.broker.local_addr(number) else { continue };
        match kind {
            Kind::Clients => tracing::info!("Listening for client connections on {addr}"),
            Kind::WebSocket { scheme } => tracing::info!("Listening for websocket clients on {scheme}://{addr}"),
        }
    }
    tracing::info!("Server is ready");
    let mut server = server;
    server.until_told(&mut signals, &mut asked).await;
    server.monitoring.stop().await;
    drop(ports_file);
    tracing::info!("Server Exiting..");
    Ok(())
}

async fn start<'a>(
    flags: &'a Flags,
    loaded: &Loaded,
    plan: Plan,
    log: &'a Log,
    watch: Watch,
) -> Result<(Server<'a>, Vec<Kind>), ProgramError> {
    let Plan { broker: mut config, accounts, users, http, https, http_base_path, pid_file, ports_file_dir, .. } = plan;
    let kinds = config
        .listen
        .iter()
        .map(|listener| match (&listener.websocket, &listener.tls) {
            (None, _) => Kind::Clients,
            (Some(_), None) => Kind::WebSocket { scheme: "ws" },
            (Some(_), Some(_)) => Kind::WebSocket { scheme: "wss" },
        })
        .collect();
    let wanted = (http, https.as_ref().map(|(addr, _)| *addr));
    let mut monitoring = Monitoring::bind(http, https).await?;
    config.monitor_addr = monitoring.http_addr();
    let server_name = config.server_name.clone();
    let broker = Broker::start(config, accounts, users, Vec::new(), Arc::new(watch))
        .map_err(|error| program::refused(&error, &loaded.settings))?;
    tracing::info!("  Name:     {}", if server_name.is_empty() { broker.server_id() } else { &server_name });
    tracing::info!("  ID:       {}", broker.server_id());
    if let Some(config) = &flags.config {
        tracing::info!("Using configuration file: {config} (sha256:{})", program::digest(config));
    }
    warn(loaded, &plan.warnings);
    monitoring.serve(broker.monitoring_router(), &http_base_path);
    Ok((Server { flags, log, broker, monitoring, wanted, pid_file, ports_file_dir }, kinds))
}

fn warn(loaded: &Loaded, more: &[String]) {
    for warning in loaded.warnings.iter().map(ToString::to_string).chain(more.iter().cloned()) {
        for line in warning.lines() {
            tracing::warn!("{line}");
        }
    }
}

impl Server<'_> {
    fn ports(&self, kinds: &[Kind]) -> Ports {
        let mut ports = Ports { monitoring: self.monitoring.urls(), ..Ports::default() };
        for (number, kind) in kinds.iter().enumerate() {
            let Some(addr) = self.broker.local_addr(number) else { continue };
            match kind {
                Kind::Clients => ports.nats.push(files::url("nats", addr)),
                Kind::WebSocket { scheme } => ports.websocket.push(files::url(scheme, addr)),
            }
        }
        ports
    }

    /// Serves until a signal ends it.
    async fn until_told(&mut self, signals: &mut Signals, asked: &mut mpsc::Receiver<()>) {
        loop {
            tokio::select! {
                _ = signals.interrupt.recv() => return self.stop("interrupt").await,
                _ = signals.terminate.recv() => return self.stop("terminated").await,
                _ = signals.user2.recv() => return self.lame_duck(signals).await,
                _ = signals.hangup.recv() => {
                    tracing::info!("Trapped \"hangup\" signal");
                    self.try_reload().await;
                }
                Some(()) = asked.recv() => {
                    tracing::info!("Reload requested by a system user");
                    self.try_reload().await;
                }
                _ = signals.user1.recv() => match self.log.reopen() {
                    Ok(()) => tracing::info!("File log re-opened"),
                    Err(error) => tracing::error!("{error}"),
                },
            }
        }
    }

    async fn stop(&self, name: &str) {
        tracing::info!("Trapped \"{name}\" signal");
        tracing::info!("Initiating Shutdown...");
        self.broker.shutdown().await;
    }

    /// Lets clients go; a further signal to end does not wait for them.
    async fn lame_duck(&self, signals: &mut Signals) {
        tracing::info!("Trapped \"user defined signal 2\" signal");
        tracing::info!("Entering lame duck mode, stop accepting new clients");
        tokio::select! {
            () = self.broker.lame_duck() => {}
            _ = signals.interrupt.recv() => return self.stop("interrupt").await,
            _ = signals.terminate.recv() => return self.stop("terminated").await,
        }
        tracing::info!("Initiating Shutdown...");
        self.broker.shutdown().await;
    }

    async fn try_reload(&mut self) {
        match self.reload() {
            Ok(text) => tracing::info!("Reloaded server configuration {text}"),
            Err(error) => {
                for line in format!("Failed to reload server configuration: {error}").lines() {
                    tracing::error!("{line}");
                }
            }
        }
    }

    /// Puts the file as it is now in force, as a whole or not at all.
    fn reload(&mut self) -> Result<String, ProgramError> {
        let Some(path) = &self.flags.config else {
            return Err(PlanError::new(None, "there is no configuration file").into());
        };
        let loaded = program::load(self.flags)?;
        let plan = program::plan(self.flags, &loaded.settings)?;
        self.refuse_fixed(&plan)?;
        let Plan { broker: mut config, accounts, users, http, https, log, pid_file, warnings, .. } = plan;
        // A port that the system chose has not changed when any free one is wanted again.
        config.monitor_addr = if http == self.wanted.0 { self.monitoring.http_addr() } else { http };
        self.log.check(&log)?;
        let reloaded = self
            .broker
            .reload(Reload { config, accounts, authenticator: users, guards: Vec::new() })
            .map_err(|error| match error {
                nats_broker::ReloadError::Invalid(error) => program::refused(&error, &loaded.settings).into(),
                error => ProgramError::from(error),
            })?;
        // What follows was looked at before; what fails now all the same is said and keeps nothing else back.
        if let Err(error) = self.log.change(log) {
            tracing::error!("{error}");
        }
        if let Some((_, tls)) = https {
            self.monitoring.set_tls(tls);
        }
        if pid_file != self.pid_file {
            self.pid_file = pid_file;
            if let Some(Err(error)) = self.pid_file.as_deref().map(files::write_pid) {
                tracing::error!("{error}");
            }
        }
        warn(&loaded, &warnings);
        Ok(format!(
            "(sha256:{}): {} connections ended, {} changed, {} subscriptions removed",
            program::digest(path),
            reloaded.connections_ended,
            reloaded.connections_changed,
            reloaded.subscriptions_removed
        ))
    }

    /// Refuses what this program, not the broker, holds for its life.
    fn refuse_fixed(&self, plan: &Plan) -> Result<(), PlanError> {
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let addr = |addr: Option<SocketAddr>| addr.map(|addr| addr.to_string()).unwrap_or_default();
        let https = plan.https.as_ref().map(|(addr, _)| *addr);
        for (name, old, new) in [
            ("HTTPHost", addr(self.wanted.0), addr(plan.http)),
            ("HTTPSPort", addr(self.wanted.1), addr(https)),
            ("PortsFileDir", text(&self.ports_file_dir), text(&plan.ports_file_dir)),
        ] {
            if old != new {
                let text = format!("config reload not supported for {name}: old={old}, new={new}");
                return Err(PlanError::new(None, text));
            }
        }
        Ok(())
    }
}
