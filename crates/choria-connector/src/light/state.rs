//! What the connection's task and the callers share: the outgoing bytes, the subscriptions, the counters.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nats_proto::encode;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::codec;
use crate::connector::{ConnectionStats, ConnectorError, Message, Status};

/// A live subscription.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) subject: String,
    pub(crate) queue: Option<String>,
    pub(crate) sender: mpsc::Sender<Message>,
}

/// Guarded by one short lock that is never held across a wait.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Whether a session runs, that is, whether bytes have somewhere to go.
    pub(crate) connected: bool,
    pub(crate) closed: bool,
    pub(crate) max_payload: usize,
    /// Bytes to write next. Lost with the connection.
    pub(crate) out: Vec<u8>,
    pub(crate) next_sid: u64,
    pub(crate) subscriptions: HashMap<u64, Entry>,
    /// One entry per PING on its way; `None` are our own keep-alives.
    pub(crate) pongs: VecDeque<Option<oneshot::Sender<()>>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the writer.
    pub(crate) wake: Notify,
    /// Wakes publishers that wait for room.
    pub(crate) drained: Notify,
    pub(crate) status: watch::Sender<Status>,
    counters: Counters,
    pub(crate) max_pending: usize,
}

#[derive(Debug, Default)]
struct Counters {
    in_msgs: AtomicU64,
    out_msgs: AtomicU64,
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
    dropped: AtomicU64,
    broker_errors: AtomicU64,
    connects: AtomicU64,
}

impl Shared {
    pub(crate) fn new(max_pending: usize) -> Self {
        Self {
            state: Mutex::new(State { next_sid: 1, max_payload: codec::DEFAULT_MAX_PAYLOAD, ..State::default() }),
            wake: Notify::new(),
            drained: Notify::new(),
            status: watch::Sender::new(Status::Connecting { last_error: None }),
            counters: Counters::default(),
            max_pending,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock cannot leave it half changed in a way that matters more than going on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ConnectionStats {
            in_msgs: get(&self.counters.in_msgs),
            out_msgs: get(&self.counters.out_msgs),
            in_bytes: get(&self.counters.in_bytes),
            out_bytes: get(&self.counters.out_bytes),
            reconnects: get(&self.counters.connects).saturating_sub(1),
            dropped: get(&self.counters.dropped),
            broker_errors: get(&self.counters.broker_errors),
        }
    }

    /// Why nothing can be sent now.
    pub(crate) fn unavailable(&self) -> ConnectorError {
        match &*self.status.borrow() {
            Status::Closed => ConnectorError::Closed,
            Status::Connecting { last_error } => {
                ConnectorError::NotConnected(last_error.clone().unwrap_or_else(|| "still connecting".to_owned()))
            }
            Status::Disconnected { reason } => ConnectorError::NotConnected(reason.clone()),
            // The session is about to start or just ended.
            Status::Connected { .. } => ConnectorError::NotConnected("the connection was just lost".to_owned()),
        }
    }

    /// Puts a message behind the others. `Ok(false)`: no room now.
    pub(crate) fn try_publish(
        &self,
        subject: &str,
        reply: Option<&str>,
        payload: &[u8],
    ) -> Result<bool, ConnectorError> {
        let mut state = self.lock();
        if !state.connected {
            drop(state);
            return Err(self.unavailable());
        }
        if payload.len() > state.max_payload {
            return Err(ConnectorError::TooLarge { size: payload.len(), limit: state.max_payload });
        }
        if !state.out.is_empty() && state.out.len() + payload.len() > self.max_pending {
            return Ok(false);
        }
        encode::publish(&mut state.out, subject, reply, None, payload);
        drop(state);
        self.counters.out_msgs.fetch_add(1, Ordering::Relaxed);
        self.counters.out_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
        self.wake.notify_one();
        Ok(true)
    }

    /// Adds subscriptions; the answer are their numbers.
    pub(crate) fn add(&self, entries: impl Iterator<Item = Entry>) -> Result<Range<u64>, ConnectorError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.closed {
            return Err(ConnectorError::Closed);
        }
        let first = state.next_sid;
        for entry in entries {
            let sid = state.next_sid;
            state.next_sid += 1;
            if state.connected {
                encode::subscribe(&mut state.out, &entry.subject, entry.queue.as_deref(), sid);
            }
            state.subscriptions.insert(sid, entry);
        }
        let sids = first..state.next_sid;
        drop(guard);
        self.wake.notify_one();
        Ok(sids)
    }

    pub(crate) fn remove(&self, sids: Range<u64>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        for sid in sids {
            if state.subscriptions.remove(&sid).is_some() && state.connected {
                encode::unsubscribe(&mut state.out, sid, None);
            }
        }
        drop(guard);
        self.wake.notify_one();
    }

    /// Hands a message to its subscription. A full or gone one loses it.
    pub(crate) fn deliver(&self, sid: u64, message: Message) {
        self.counters.in_msgs.fetch_add(1, Ordering::Relaxed);
        self.counters.in_bytes.fetch_add(message.payload.len() as u64, Ordering::Relaxed);
        let state = self.lock();
        let Some(entry) = state.subscriptions.get(&sid) else { return };
        if let Err(mpsc::error::TrySendError::Full(message)) = entry.sender.try_send(message) {
            drop(state);
            let dropped = self.counters.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            // One line per doubling: a flood of messages must not become a flood of lines.
            if dropped.is_power_of_two() {
                tracing::warn!(subject = %message.subject, dropped, "a subscription is full, its newest messages are dropped");
            }
        }
    }

    /// Asks for a PONG; `None` while not connected.
    pub(crate) fn ping(&self) -> Option<oneshot::Receiver<()>> {
        let (sender, receiver) = oneshot::channel();
        self.queue_ping(Some(sender)).then_some(receiver)
    }

    /// Puts a PING behind what waits. False while not connected.
    pub(crate) fn queue_ping(&self, waiter: Option<oneshot::Sender<()>>) -> bool {
        let mut state = self.lock();
        if !state.connected {
            return false;
        }
        state.pongs.push_back(waiter);
        state.out.extend_from_slice(encode::PING);
        drop(state);
        self.wake.notify_one();
        true
    }

    pub(crate) fn pong(&self) {
        let waiter = self.lock().pongs.pop_front().flatten();
        if let Some(waiter) = waiter {
            // A caller that stopped waiting is fine.
            let _ = waiter.send(());
        }
    }

    /// PINGs of the keep-alive that the broker has not answered.
    pub(crate) fn unanswered(&self) -> usize {
        self.lock().pongs.iter().filter(|waiter| waiter.is_none()).count()
    }

    pub(crate) fn broker_error(&self, text: &str) {
        let count = self.counters.broker_errors.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::warn!(count, "the broker reports: {text}");
    }

    /// A new session: everything is subscribed again.
    pub(crate) fn begin(&self, max_payload: usize) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.max_payload = max_payload;
        state.out.clear();
        state.pongs.clear();
        state.subscriptions.retain(|_, entry| !entry.sender.is_closed());
        for (sid, entry) in &state.subscriptions {
            encode::subscribe(&mut state.out, &entry.subject, entry.queue.as_deref(), *sid);
        }
        state.connected = true;
        drop(guard);
        self.counters.connects.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// The session ended: what waited is lost, whoever waits is told.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.connected = false;
        state.out = Vec::new();
        state.pongs.clear();
        drop(state);
        self.drained.notify_waiters();
    }

    /// No further session will come.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.connected = false;
        state.out = Vec::new();
        state.pongs.clear();
        // Dropping the senders ends every subscription.
        let subscriptions = std::mem::take(&mut state.subscriptions);
        drop(state);
        drop(subscriptions);
        self.status.send_replace(Status::Closed);
        self.drained.notify_waiters();
    }
}
