//! Subscriptions inside this process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use nats_proto::HeaderMap;
use tokio::sync::mpsc;

use crate::shared::Shared;
use crate::subscription::Subscription;

/// A message as a receiver inside this process gets it.
#[derive(Debug, Clone)]
pub struct LocalMessage {
    /// Subject it was published to.
    pub subject: String,
    /// Reply subject.
    pub reply: Option<String>,
    /// Headers; empty when there are none or the block is malformed.
    pub headers: HeaderMap,
    /// Payload.
    pub payload: Bytes,
}

/// The broker's end of a [`LocalSubscription`].
#[derive(Debug)]
pub(crate) struct LocalSink {
    pub(crate) sender: mpsc::Sender<LocalMessage>,
    pub(crate) dropped: Arc<AtomicU64>,
}

/// A subscription inside this process. Ends when dropped.
///
/// The queue between broker and receiver is bounded, because the publisher's connection must never wait for a
/// slow reader in here: what does not fit is dropped and counted.
#[derive(Debug)]
pub struct LocalSubscription {
    pub(crate) receiver: mpsc::Receiver<LocalMessage>,
    pub(crate) dropped: Arc<AtomicU64>,
    /// Weak: the queue must close when the broker lets go of the subscription.
    pub(crate) subscription: Weak<Subscription>,
    pub(crate) shared: Weak<Shared>,
}

impl LocalSubscription {
    /// The next message; `None` after the broker has stopped.
    pub async fn recv(&mut self) -> Option<LocalMessage> {
        self.receiver.recv().await
    }

    /// A message that is already there.
    pub fn try_recv(&mut self) -> Option<LocalMessage> {
        self.receiver.try_recv().ok()
    }

    /// Messages that found the queue full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for LocalSubscription {
    fn drop(&mut self) {
        if let (Some(shared), Some(subscription)) = (self.shared.upgrade(), self.subscription.upgrade()) {
            shared.end_subscription(&subscription);
        }
    }
}
