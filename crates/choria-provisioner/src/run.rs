//! The run loop: one task that owns the engine, with helpers and signatures beside it.
//!
//! ```text
//! connector --subscriptions--> run loop --Effect::Send--> task: sign, encode, publish
//!                               (Engine)  --Effect::Helper--> task: helper process
//! handle --------commands------>   ^------- failures, helper results (bounded channels)
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use choria_connector::{ConnectionStats, Connector, ConnectorError, Message, Status, Subscription};
use choria_protocol::lifecycle::Event;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::config::{ProvisionerConfig, VerifyRestart};
use crate::engine::{Effect, Engine, Settings};
use crate::flow::{Now, SendFault};
use crate::handle::{About, Command, Link, clock, kind, obey};
use crate::helper::{HelperAnswer, HelperError, RunNotes, Runner};
use crate::metrics::Metrics;
use crate::requests::Caller;
use crate::service::RunError;
use crate::start;
use crate::subscriptions::{Subscriptions, next_of};

/// Messages of one subscription taken at a time, so that none starves another.
const BATCH: usize = 128;
/// Results and failures that may wait for the run loop; their senders wait beyond it.
pub(crate) const RESULTS: usize = 1024;

/// How often the connection's own counters are looked at.
const LOOK_AROUND: Duration = Duration::from_secs(10);

/// What comes back from tasks of the run loop.
pub(crate) enum TaskResult {
    SendFailed { origin: Option<(u64, u64)>, fault: SendFault },
    Helper { flow: u64, result: Box<Result<HelperAnswer, HelperError>>, notes: RunNotes, elapsed: Duration },
}

/// The run loop and what it needs.
pub(crate) struct Run {
    pub(crate) config: ProvisionerConfig,
    pub(crate) caller: Arc<Caller>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connector: Arc<dyn Connector>,
    /// Server that we are connected to, for the `seen-by` header.
    pub(crate) server: Arc<str>,
    /// The same for people, and why it is gone.
    pub(crate) link: Link,
    /// What is told about this process.
    pub(crate) about: About,
    pub(crate) engine: Engine,
    /// Id of our own startup event.
    pub(crate) announced: String,
    /// What the connection had counted when it was last looked at.
    pub(crate) seen: ConnectionStats,
    pub(crate) runner: Runner,
    pub(crate) results: mpsc::Sender<TaskResult>,
    pub(crate) over: CancellationToken,
}

impl Run {
    /// Runs until it is told to stop and everything under way is over.
    pub(crate) async fn serve(
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
                Some(command) = commands.recv() => {
                    obey(command, &mut self.engine, &self.about, &self.link, &self.metrics);
                },
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
                    let elapsed = began.elapsed().saturating_sub(notes.waited);
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
                self.link = Link { server: Some(Arc::clone(&self.server)), reason: None };
                connected.send_replace(true);
                self.engine.set_connected(true, clock());
            }
            Status::Disconnected { reason } => {
                if *connected.borrow() {
                    self.metrics.connection_closed.add();
                }
                tracing::debug!("disconnected: {reason}");
                connected.send_replace(false);
                self.link = Link { server: None, reason: Some(reason) };
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
        // Rules and authority are the ones just read; persistent processes start anew, as their files may have changed.
        let old = std::mem::replace(&mut self.runner, runner);
        tokio::spawn(async move { old.close().await });
        self.engine.reload(Arc::new(rules), Settings::of(&config), clock());
        self.about.helper = kind(config.helper.as_ref());
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
        ("control_socket", old.control_socket != new.control_socket),
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
