//! The run loop: one task that owns the engine, with helpers and signatures beside it.
//!
//! ```text
//! connector --subscriptions--> run loop --Effect::Send---> connector; to be signed: a task for some at a time
//!                               (Engine)  --Effect::Helper-> a task: helper
//! handle --------commands------>   ^------- failures, helper results (bounded channels)
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use choria_connector::{ConnectionStats, Connector, ConnectorError, Message, NO_RESPONDERS, Status, Subscription};
use choria_protocol::lifecycle::Event;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::advisory;
use crate::config::{ProvisionerConfig, VerifyRestart};
use crate::engine::{Effect, Engine, Settings};
use crate::flow::{Now, SendFault};
use crate::handle::{About, Command, Link, clock, kind, obey};
use crate::helper::{HelperAnswer, HelperError, Question, RunNotes, Runner};
use crate::metrics::Metrics;
use crate::requests::{Caller, Document};
use crate::service::RunError;
use crate::start;
use crate::subscriptions::{Subscriptions, next_of};

/// Messages of one subscription taken at a time, so that none starves another.
const BATCH: usize = 128;
/// Results and failures that may wait for the run loop; their senders wait beyond it.
pub(crate) const RESULTS: usize = 1024;

/// Begin of the subjects of lifecycle events.
const LIFECYCLE: &str = "choria.lifecycle.";
/// Requests that one task signs: two milliseconds of work, so that a wave is spread over the processors and the first are
/// on their way soon.
const SIGN_AT_ONCE: usize = 8;

/// How often the connection's own counters are looked at.
const LOOK_AROUND: Duration = Duration::from_secs(10);

/// What comes back from tasks of the run loop.
pub(crate) enum TaskResult {
    SendFailed { origin: Option<(u64, u64)>, fault: SendFault },
    Helper { flow: u64, result: Box<Result<HelperAnswer, HelperError>>, notes: RunNotes, elapsed: Duration },
}

/// A request on its way out.
struct Outgoing {
    origin: Option<(u64, u64)>,
    subject: String,
    reply_to: String,
    document: Document,
}

impl Outgoing {
    /// A request to one node also gets its reply subject as that of NATS, which nodes ignore: so the broker tells at once
    /// when nobody is there. Nobody need be there for a discovery.
    fn nats_reply(&self) -> Option<&str> {
        self.origin.is_some().then_some(&*self.reply_to)
    }
}

async fn deliver(
    connector: &dyn Connector,
    caller: &Caller,
    server: &str,
    outgoing: &Outgoing,
) -> Result<(), SendFault> {
    let body = outgoing.document.encode(caller, &outgoing.reply_to, server).map_err(SendFault::Impossible)?;
    let sent = match outgoing.nats_reply() {
        Some(reply) => connector.request(&outgoing.subject, reply, Bytes::from(body)).await,
        None => connector.publish(&outgoing.subject, Bytes::from(body)).await,
    };
    sent.map_err(|error| send_fault(&error))
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
            self.carry_out();
            if drain_until.is_some() && self.engine.is_idle() {
                break Ok(());
            }
            let timer = self.engine.next_timer().map(tokio::time::Instant::from_std);
            tokio::select! {
                message = subs.replies.next_or_status() => {
                    let Some(message) = message else { break Err(RunError::Closed) };
                    self.take(message, &mut subs.replies, answered);
                },
                message = subs.nodes.next() => {
                    let Some(message) = message else { break Err(RunError::Closed) };
                    self.take(message, &mut subs.nodes, heard);
                },
                message = next_of(&mut subs.fleet) => {
                    if let (Some(message), Some(fleet)) = (message, &mut subs.fleet) {
                        self.take(message, fleet, |engine, m, now| engine.fleet_event(&m.payload, now));
                    }
                },
                message = subs.provisioners.next() => {
                    let Some(message) = message else { break Err(RunError::Closed) };
                    self.meet(&message.payload);
                },
                Some(result) = results.recv() => {
                    self.absorb(result);
                    for _ in 1..BATCH {
                        let Ok(result) = results.try_recv() else { break };
                        self.absorb(result);
                    }
                },
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
            let Some(message) = rest.try_next_or_status() else { return };
            handle(&mut self.engine, &message, clock());
        }
    }

    /// Does what the engine wants. What is ready to be sent goes out at once, in order; what must be signed first, and what
    /// finds no room, is a task's.
    fn carry_out(&mut self) {
        let mut unsigned = Vec::new();
        for effect in self.engine.take_effects() {
            match effect {
                Effect::Send { origin, subject, reply_to, document } => {
                    let outgoing = Outgoing { origin, subject, reply_to, document };
                    match &outgoing.document {
                        Document::Ready(_) => self.send(outgoing),
                        Document::Unsigned(_) => unsigned.push(outgoing),
                    }
                }
                Effect::Tell(event) => self.tell(&event),
                Effect::Helper { flow, question } => self.ask_helper(flow, question),
            }
        }
        while !unsigned.is_empty() {
            let rest = unsigned.split_off(unsigned.len().min(SIGN_AT_ONCE));
            let batch = std::mem::replace(&mut unsigned, rest);
            self.deliver_later(batch);
        }
    }

    fn send(&mut self, outgoing: Outgoing) {
        let sent = match outgoing.document.encode(&self.caller, &outgoing.reply_to, &self.server) {
            Err(reason) => Err(SendFault::Impossible(reason)),
            Ok(body) => self
                .connector
                .try_publish(&outgoing.subject, outgoing.nats_reply(), &body)
                .map_err(|error| send_fault(&error)),
        };
        match sent {
            Ok(true) => {}
            Ok(false) => self.deliver_later(vec![outgoing]),
            // Told through the channel, as by tasks: the engine is not called back while it hands out work.
            Err(fault) => self.failed_later(outgoing.origin, fault),
        }
    }

    /// Signs, encodes and publishes in a task.
    fn deliver_later(&self, batch: Vec<Outgoing>) {
        let (connector, caller) = (Arc::clone(&self.connector), Arc::clone(&self.caller));
        let (server, results) = (Arc::clone(&self.server), self.results.clone());
        tokio::spawn(async move {
            for outgoing in batch {
                if let Err(fault) = deliver(&*connector, &caller, &server, &outgoing).await {
                    let _ = results.send(TaskResult::SendFailed { origin: outgoing.origin, fault }).await;
                }
            }
        });
    }

    fn failed_later(&self, origin: Option<(u64, u64)>, fault: SendFault) {
        let results = self.results.clone();
        tokio::spawn(async move {
            let _ = results.send(TaskResult::SendFailed { origin, fault }).await;
        });
    }

    /// Publishes an event if there is room. What became of the node is in its history and in the log as well.
    fn tell(&self, event: &Event) {
        match self.connector.try_publish(&event.subject(), None, event.to_cloud_event().as_bytes()) {
            Ok(true) => {}
            Ok(false) => {
                let (connector, subject) = (Arc::clone(&self.connector), event.subject());
                let body = Bytes::from(event.to_cloud_event());
                tokio::spawn(async move {
                    if let Err(error) = connector.publish(&subject, body).await {
                        tracing::debug!("an event was not published on {subject}: {error}");
                    }
                });
            }
            Err(error) => tracing::debug!("an event of {} was not published: {error}", event.identity),
        }
    }

    fn ask_helper(&self, flow: u64, question: Arc<Question>) {
        let (runner, over, results) = (self.runner.clone(), self.over.clone(), self.results.clone());
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

/// A message on the reply subjects.
fn answered(engine: &mut Engine, message: &Message, now: Now) {
    match message.status {
        None => engine.reply(&message.subject, &message.payload, now),
        Some(NO_RESPONDERS) => engine.nobody_listens(&message.subject, now),
        Some(_) => {}
    }
}

/// A message about nodes that wait.
fn heard(engine: &mut Engine, message: &Message, now: Now) {
    match &*message.subject {
        _ if message.status.is_some() => {}
        advisory::SUBJECT => engine.connection_ended(&message.payload, now),
        subject if subject.starts_with(LIFECYCLE) => engine.node_event(&message.payload, now),
        _ => engine.registration(&message.payload, now),
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
