//! The [`Connector`] trait: all that a server, provisioner or client needs of a connection.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// One message as it arrived.
#[derive(Debug, Clone)]
pub struct Message {
    /// Subject that it was published to.
    pub subject: String,
    /// NATS reply subject. Choria routes replies by its transport header instead (spec 01 §1).
    pub reply: Option<String>,
    /// The body: one Choria transport document.
    pub payload: Bytes,
    /// Set when this is no message but a word of the broker itself, such as [`NO_RESPONDERS`]; only
    /// [`Subscription::next_or_status`] shows these.
    pub status: Option<u16>,
}

/// Status of the broker's answer to a [`Connector::request`] for whose subject nobody listens (spec 07 §5).
pub const NO_RESPONDERS: u16 = 503;

/// State of the connection, observed through [`Connector::status`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Never connected yet; the last failure, if any.
    Connecting {
        /// Why the last try failed, with server name and hint.
        last_error: Option<String>,
    },
    /// Connected to this server, as `nats://host:port` without credentials.
    Connected {
        /// Server URL without credentials.
        server: String,
    },
    /// Was connected, is trying again.
    Disconnected {
        /// Why the connection ended.
        reason: String,
    },
    /// Closed by us; final.
    Closed,
}

/// Counters of one connection since it was made, over all its reconnects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Messages received.
    pub in_msgs: u64,
    /// Messages published.
    pub out_msgs: u64,
    /// Payload bytes received.
    pub in_bytes: u64,
    /// Payload bytes published.
    pub out_bytes: u64,
    /// Sessions after the first.
    pub reconnects: u64,
    /// Messages lost because their subscription was full.
    pub dropped: u64,
    /// Errors that the broker told, permission errors among them.
    pub broker_errors: u64,
}

/// Why an operation on a connection failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectorError {
    /// The subject is not valid in NATS.
    #[error("subject {0:?} is not valid")]
    InvalidSubject(String),
    /// The payload is larger than the broker takes.
    #[error("payload of {size} bytes is larger than the broker's limit of {limit}")]
    TooLarge {
        /// Bytes of the payload.
        size: usize,
        /// Bytes the broker takes.
        limit: usize,
    },
    /// Not connected now; nothing was queued.
    #[error("not connected: {0}")]
    NotConnected(String),
    /// The connection was closed for good.
    #[error("the connection is closed")]
    Closed,
}

/// One subject of [`Connector::subscribe_all`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The subject.
    pub subject: String,
    /// Queue group: each message goes to one of its members.
    pub queue: Option<String>,
}

impl Wanted {
    /// A subject whose messages all come.
    pub fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), queue: None }
    }

    /// A subject whose messages are shared with the other members of a queue group.
    pub fn in_queue(subject: impl Into<String>, queue: impl Into<String>) -> Self {
        Self { subject: subject.into(), queue: Some(queue.into()) }
    }
}

/// Messages of one subscription, or of several together. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    receiver: mpsc::Receiver<Message>,
    _guard: UnsubscribeGuard,
}

/// Runs when a [`Subscription`] is dropped.
pub struct UnsubscribeGuard(Option<Box<dyn FnOnce() + Send>>);

impl UnsubscribeGuard {
    /// Calls `on_drop` once when the subscription goes away.
    pub fn new(on_drop: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(on_drop)))
    }
}

impl std::fmt::Debug for UnsubscribeGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnsubscribeGuard")
    }
}

impl Drop for UnsubscribeGuard {
    fn drop(&mut self) {
        if let Some(on_drop) = self.0.take() {
            on_drop();
        }
    }
}

impl Subscription {
    /// Joins the receiving end with what must happen at drop. For implementations of [`Connector`].
    pub fn new(receiver: mpsc::Receiver<Message>, guard: UnsubscribeGuard) -> Self {
        Self { receiver, _guard: guard }
    }

    /// The next message; `None` after the connection was closed for good.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            let message = self.receiver.recv().await?;
            if message.status.is_none() {
                return Some(message);
            }
        }
    }

    /// A message that is already here, if any.
    pub fn try_next(&mut self) -> Option<Message> {
        std::iter::from_fn(|| self.receiver.try_recv().ok()).find(|message| message.status.is_none())
    }

    /// As [`Self::next`], with what the broker itself says on the subscription.
    pub async fn next_or_status(&mut self) -> Option<Message> {
        self.receiver.recv().await
    }

    /// As [`Self::try_next`], with what the broker itself says on the subscription.
    pub fn try_next_or_status(&mut self) -> Option<Message> {
        self.receiver.try_recv().ok()
    }
}

/// A connection to a broker that keeps itself alive: reconnects, resubscribes and authenticates by itself.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Publishes one message. Returns when it is handed to the connection, not when the broker has it.
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), ConnectorError>;

    /// Publishes one message with a reply subject of NATS. When the broker can tell that nobody listens on `subject`, it says so
    /// with status [`NO_RESPONDERS`] on `reply`, to a subscription of this connection. Choria itself ignores the
    /// reply subject (spec 01 §1).
    async fn request(&self, subject: &str, reply: &str, payload: Bytes) -> Result<(), ConnectorError> {
        let _ = reply;
        self.publish(subject, payload).await
    }

    /// Publishes without waiting. `Ok(false)`: there is no room now, or this implementation cannot; nothing was sent, use
    /// [`Self::publish`] or [`Self::request`].
    ///
    /// # Errors
    /// As those.
    fn try_publish(&self, _subject: &str, _reply: Option<&str>, _payload: &[u8]) -> Result<bool, ConnectorError> {
        Ok(false)
    }

    /// Subscribes. At most `capacity` messages wait unread; beyond that the newest are dropped and counted.
    async fn subscribe(
        &self,
        subject: &str,
        queue: Option<&str>,
        capacity: usize,
    ) -> Result<Subscription, ConnectorError>;

    /// Subscribes to several subjects whose messages come in one queue: for those that treat them all alike and would
    /// otherwise pay for a queue each. At most `capacity` messages wait unread; beyond that the newest are dropped.
    async fn subscribe_all(&self, wanted: &[Wanted], capacity: usize) -> Result<Subscription, ConnectorError> {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let mut tasks = JoinSet::new();
        for Wanted { subject, queue } in wanted {
            let mut each = self.subscribe(subject, queue.as_deref(), capacity).await?;
            let sender = sender.clone();
            tasks.spawn(async move {
                while let Some(message) = each.next().await {
                    // Whoever stopped reading unsubscribes next.
                    let _ = sender.send(message).await;
                }
            });
        }
        Ok(Subscription::new(receiver, UnsubscribeGuard::new(move || drop(tasks))))
    }

    /// Waits until the broker has everything published and subscribed so far.
    async fn flush(&self) -> Result<(), ConnectorError>;

    /// What went through the connection so far. Implementations that do not count answer zeroes.
    fn stats(&self) -> ConnectionStats {
        ConnectionStats::default()
    }

    /// The connection's state and its changes.
    fn status(&self) -> watch::Receiver<Status>;

    /// Flushes, unsubscribes and closes.
    async fn close(&self);
}
