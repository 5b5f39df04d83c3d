//! Our own NATS client: a few KiB per connection, one task, no platform trust roots, no queue while disconnected.
//!
//! async-nats loads the platform's trust roots at every connection even with a finished TLS configuration, fails
//! where they cannot be read, and ends at the first authorization error (spec 10 §3). A node that is being born
//! may have no roots and its token may not be accepted yet.

mod codec;
pub mod probe;
mod session;
mod state;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nats_proto::subject::{is_valid_filter, is_valid_publish};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connector::{
    ConnectionStats, Connector, ConnectorError, Message, Status, Subscription, UnsubscribeGuard, Wanted,
};
use crate::failure::ConnectFailure;
use crate::options::{ConnectOptions, ServerSource};
use crate::target::Target;
use session::Session;
use state::{Entry, Shared};

/// A session that lasted this long was a success: the next loss starts the back-off table from its beginning.
const STABLE_SESSION: Duration = Duration::from_secs(5);

/// How long [`Connector::close`] waits for the broker to take what was published.
const CLOSE_FLUSH: Duration = Duration::from_secs(2);

/// Why [`NatsConnector::connect`] ended without a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The time to wait is over; the text is the last failure.
    #[error("{0}")]
    GaveUp(String),
    /// The cancellation token was cancelled.
    #[error("cancelled while connecting{}", .0.as_ref().map(|last| format!(", last error: {last}")).unwrap_or_default())]
    Cancelled(Option<String>),
}

/// A connection to a NATS broker that keeps itself alive. Closes when the last clone of its owner drops it.
#[derive(Debug)]
pub struct NatsConnector {
    shared: Arc<Shared>,
    inbox_prefix: String,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl NatsConnector {
    /// Starts connecting in the background and returns at once. Must run inside a tokio runtime.
    pub fn start(options: ConnectOptions, cancel: &CancellationToken) -> Self {
        let shared = Arc::new(Shared::new(options.max_pending));
        let stop = cancel.child_token();
        let inbox_prefix = options.inbox_prefix.clone();
        let task = Task { shared: Arc::clone(&shared), options, stop: stop.clone(), rng: SmallRng::from_os_rng() };
        tokio::spawn(task.run());
        Self { shared, inbox_prefix, _stop_on_drop: stop.clone().drop_guard(), stop }
    }

    /// Connects, trying for ever unless [`ConnectOptions::give_up_after`] says otherwise or `cancel` is cancelled.
    pub async fn connect(options: ConnectOptions, cancel: &CancellationToken) -> Result<Self, ConnectError> {
        let give_up = options.give_up_after;
        let connector = Self::start(options, cancel);
        let mut status = connector.shared.status.subscribe();
        let connected = status.wait_for(|status| matches!(status, Status::Connected { .. } | Status::Closed));
        let in_time = match give_up {
            Some(limit) => timeout(limit, connected).await.is_ok(),
            None => connected.await.is_ok(),
        };
        let last = connector.shared.status.borrow().clone();
        match last {
            Status::Connected { .. } | Status::Disconnected { .. } => Ok(connector),
            Status::Closed => Err(ConnectError::Cancelled(None)),
            Status::Connecting { last_error } if !in_time => {
                Err(ConnectError::GaveUp(last_error.unwrap_or_else(|| {
                    let waited = give_up.unwrap_or_default();
                    format!("no broker answered within {waited:?}")
                })))
            }
            Status::Connecting { last_error } => Err(ConnectError::Cancelled(last_error)),
        }
    }

    async fn publish_when_there_is_room(
        &self,
        subject: &str,
        reply: Option<&str>,
        payload: &[u8],
    ) -> Result<(), ConnectorError> {
        check_subjects(subject, reply)?;
        loop {
            let room = self.shared.drained.notified();
            tokio::pin!(room);
            // Registered before trying, so that room made in between is not missed.
            room.as_mut().enable();
            if self.shared.try_publish(subject, reply, payload)? {
                return Ok(());
            }
            room.await;
        }
    }

    /// A subject for replies that nobody can guess, below the configured prefix.
    pub fn new_inbox(&self) -> String {
        let random: u128 = rand::random();
        format!("{}.{random:032x}", self.inbox_prefix)
    }
}

fn check_subjects(subject: &str, reply: Option<&str>) -> Result<(), ConnectorError> {
    match [Some(subject), reply].into_iter().flatten().find(|subject| !is_valid_publish(subject)) {
        None => Ok(()),
        Some(bad) => Err(ConnectorError::InvalidSubject(bad.to_owned())),
    }
}

#[async_trait]
impl Connector for NatsConnector {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), ConnectorError> {
        self.publish_when_there_is_room(subject, None, &payload).await
    }

    async fn request(&self, subject: &str, reply: &str, payload: Bytes) -> Result<(), ConnectorError> {
        self.publish_when_there_is_room(subject, Some(reply), &payload).await
    }

    fn try_publish(&self, subject: &str, reply: Option<&str>, payload: &[u8]) -> Result<bool, ConnectorError> {
        check_subjects(subject, reply)?;
        self.shared.try_publish(subject, reply, payload)
    }

    async fn subscribe(
        &self,
        subject: &str,
        queue: Option<&str>,
        capacity: usize,
    ) -> Result<Subscription, ConnectorError> {
        let wanted = Wanted { subject: subject.to_owned(), queue: queue.map(ToOwned::to_owned) };
        self.subscribe_all(std::slice::from_ref(&wanted), capacity).await
    }

    async fn subscribe_all(&self, wanted: &[Wanted], capacity: usize) -> Result<Subscription, ConnectorError> {
        for Wanted { subject, queue } in wanted {
            let bad_queue = queue.as_ref().filter(|queue| !is_valid_publish(queue));
            if !is_valid_filter(subject) || bad_queue.is_some() {
                return Err(ConnectorError::InvalidSubject(bad_queue.unwrap_or(subject).to_owned()));
            }
        }
        let (sender, receiver) = mpsc::channel::<Message>(capacity.max(1));
        let entries = wanted.iter().map(|Wanted { subject, queue }| Entry {
            subject: subject.clone(),
            queue: queue.clone(),
            sender: sender.clone(),
        });
        let sids = self.shared.add(entries)?;
        let shared = Arc::downgrade(&self.shared);
        let guard = UnsubscribeGuard::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.remove(sids);
            }
        });
        Ok(Subscription::new(receiver, guard))
    }

    async fn flush(&self) -> Result<(), ConnectorError> {
        let Some(pong) = self.shared.ping() else { return Err(self.shared.unavailable()) };
        pong.await.map_err(|_| self.shared.unavailable())
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    fn stats(&self) -> ConnectionStats {
        self.shared.stats()
    }

    async fn close(&self) {
        // A broker that does not answer any more gets what was written so far.
        let _ = timeout(CLOSE_FLUSH, self.flush()).await;
        self.stop.cancel();
        let mut status = self.shared.status.subscribe();
        let _ = status.wait_for(|status| *status == Status::Closed).await;
    }
}

/// The connection's one task.
struct Task {
    shared: Arc<Shared>,
    options: ConnectOptions,
    stop: CancellationToken,
    rng: SmallRng,
}

impl Task {
    async fn run(mut self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(Box::pin(self.keep_connected())).await;
        self.shared.close();
    }

    /// Passes over the brokers, for ever. Errors of any kind, authorization included, only cost a delay.
    async fn keep_connected(&mut self) {
        let mut was_up = false;
        let mut attempt: u32 = 0;
        loop {
            match self.pass().await {
                Ok(()) => {
                    was_up = true;
                    attempt = 0;
                    // The stable session ended just now: try again at once.
                    continue;
                }
                Err(PassEnd::ShortSession) => was_up = true,
                Err(PassEnd::NeverUp(failure)) => self.failed(was_up, &failure),
            }
            attempt = attempt.saturating_add(1);
            let table = if was_up { self.options.reconnect_backoff } else { self.options.initial_backoff };
            tokio::time::sleep(table.delay(attempt, &mut self.rng)).await;
        }
    }

    fn failed(&self, was_up: bool, failure: &ConnectFailure) {
        let text = failure.to_string();
        self.shared.status.send_if_modified(|status| {
            let next = if was_up {
                Status::Disconnected { reason: text.clone() }
            } else {
                Status::Connecting { last_error: Some(text.clone()) }
            };
            // The same failure again is no news: it is logged once.
            let changed = *status != next;
            if changed {
                tracing::warn!("not connected: {text}");
                *status = next;
            }
            changed
        });
    }

    /// Tries every broker once; runs the first session that comes up to its end.
    async fn pass(&mut self) -> Result<(), PassEnd> {
        let targets = self.targets().await.map_err(|text| PassEnd::NeverUp(ConnectFailure::NoServers(text)))?;
        let mut last = None;
        for target in &targets {
            match Session::open(target, &self.options).await {
                Ok(session) => return self.session(session, target).await,
                Err(failure) => {
                    tracing::debug!("connection try failed: {failure}");
                    last = Some(failure);
                }
            }
        }
        Err(PassEnd::NeverUp(last.unwrap_or_else(|| {
            ConnectFailure::NoServers("no broker is configured, set plugin.choria.middleware_hosts".to_owned())
        })))
    }

    async fn session(&self, session: Session, target: &Target) -> Result<(), PassEnd> {
        let url = target.url();
        let since = Instant::now();
        tracing::info!("connected to {url}");
        let status = Status::Connected { server: url };
        let run = session.run(&self.shared, &self.options, status);
        let reason = Box::pin(run).await;
        tracing::warn!("disconnected: {reason}");
        self.shared.status.send_replace(Status::Disconnected { reason });
        if since.elapsed() >= STABLE_SESSION { Ok(()) } else { Err(PassEnd::ShortSession) }
    }

    async fn targets(&mut self) -> Result<Vec<Target>, String> {
        match &self.options.servers {
            ServerSource::Static(targets) => {
                let mut targets = targets.clone();
                if self.options.shuffle {
                    targets.shuffle(&mut self.rng);
                }
                Ok(targets)
            }
            ServerSource::Resolver(resolver) => resolver.servers().await,
        }
    }
}

/// How a pass ended that did not end with a long session.
enum PassEnd {
    /// A session came up and was lost at once; its reason is in the status.
    ShortSession,
    /// No broker took us.
    NeverUp(ConnectFailure),
}
