//! What the broker answers itself on `$SYS.REQ.…`, and what it tells on its own (spec 07 §8).
//!
//! On the publisher's path a request is told from other messages by its first byte, and only queued. One task works the queue off,
//! an answer at a time on a thread for slow work: whoever asks for pages of a large broker takes one processor at most and
//! holds up no connection.

mod answer;
mod body;
pub(crate) mod events;
mod request;
mod user_info;

use std::sync::Arc;
use std::time::SystemTime;

use nats_proto::encode;
use parking_lot::Mutex;
use serde::Serialize;
use smallvec::SmallVec;
use tokio::sync::mpsc;

use self::events::Events;
use self::request::Request;
use crate::monitor::rfc3339;
use crate::route::{Message, Router, Run, Tick, bits};
use crate::shared::Shared;

/// Requests that may wait. Askers ask again or see that nobody answers; more than this is a flood.
const QUEUE: usize = 256;
/// Longest body of a request. The longest sensible one lists accounts.
const LONGEST_BODY: usize = 64 << 10;

/// A request that waits for its answer.
#[derive(Debug)]
struct Work {
    request: Request,
    /// Number of the account in which the answer is published.
    account: u32,
    reply: Option<Box<str>>,
    body: Box<[u8]>,
}

/// What the broker keeps for answers and events.
#[derive(Debug)]
pub(crate) struct System {
    queue: mpsc::Sender<Work>,
    /// The other end, until [`serve`] takes it.
    waiting: Mutex<Option<mpsc::Receiver<Work>>>,
    pub(crate) events: Events,
}

impl Default for System {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Self { queue, waiting: Mutex::new(Some(waiting)), events: Events::default() }
    }
}

/// The `server` object of answers and events. Fields and their order are nats-server's.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ServerObject {
    name: String,
    host: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    ver: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    jetstream: bool,
    flags: u64,
    seq: u64,
    time: String,
}

impl Shared {
    /// The `server` object of an answer or event that is made now.
    pub(crate) fn server_object(&self, now: SystemTime) -> ServerObject {
        let live = self.live();
        let config = &live.config;
        ServerObject {
            name: self.server_name.clone(),
            host: self.host(),
            id: self.server_id.clone(),
            cluster: config.cluster_name.clone(),
            ver: config.version.clone(),
            tags: config.server_tags.clone(),
            jetstream: false,
            flags: 0,
            seq: self.system_sequence.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1,
            time: rfc3339(now),
        }
    }

    /// Publishes a word of the broker itself: no permissions, no guards, no 503.
    pub(crate) fn tell(&self, account: u32, subject: &str, content: &[u8]) {
        let mut tail = Vec::with_capacity(content.len() + 16);
        encode::message_tail(&mut tail, None, None, content);
        let message = Message { reply: None, header_len: 0, content, tail: &tail };
        // A tick of its own: the broker speaks while connections are being served.
        let mut tick = Tick::new(rand::random());
        tick.now = self.hub.timers.now();
        let run = Run { subject, messages: std::slice::from_ref(&message) };
        let live = self.live();
        Router { shared: self, live: &live, tick: &mut tick, source: None, echo: true }
            .route(account, &mut None, &run, 1);
        tick.finish(self, &mut SmallVec::new());
    }

    /// Whether anybody listens to a subject of an account, there or in an account that imports it.
    pub(crate) fn is_heard(&self, account: u32, subject: &str) -> bool {
        let live = self.live();
        let has_match = |account: u32, subject: &str| {
            let mut found = false;
            live.accounts[account as usize].state.index.read().for_each_match(subject, |_| found = true);
            found
        };
        let imported = |edge: &crate::account::StreamEdge| {
            edge.map.to_local(subject).is_some_and(|local| has_match(edge.to_account, &local))
        };
        has_match(account, subject) || live.accounts[account as usize].streams.iter().any(imported)
    }
}

impl Router<'_, '_> {
    /// Takes requests to the broker itself. Gives the mask of those that will be answered, or could be.
    pub(crate) fn system_request(&mut self, account: u32, run: &Run<'_>, mask: u64) -> u64 {
        if run.subject == user_info::USER_INFO {
            return self.user_info(account, run, mask);
        }
        let shared = self.shared;
        let asking = &self.live.accounts[account as usize];
        let own = (!asking.is_system).then_some(&*asking.name);
        let Some(request) = Request::parse(run.subject, &shared.server_id, own) else { return 0 };
        let mut done = 0;
        for bit in bits(mask) {
            let message = &run.messages[bit];
            let body = &message.content[message.header_len..];
            // Half of the places are the system account's: others cannot keep it from being heard.
            let is_crowded = own.is_some() && shared.system.queue.capacity() <= QUEUE / 2;
            if is_crowded || body.len() > LONGEST_BODY {
                continue;
            }
            let work =
                Work { request: request.clone(), account, reply: message.reply.map(Into::into), body: body.into() };
            if shared.system.queue.try_send(work).is_ok() {
                done |= 1 << bit;
            }
        }
        done
    }
}

/// Answers requests and sends events until the broker stops.
pub(crate) async fn serve(shared: Arc<Shared>) {
    let Some(mut waiting) = shared.system.waiting.lock().take() else { return };
    let mut pulse = events::Pulse::new();
    loop {
        let work = tokio::select! {
            work = waiting.recv() => work,
            () = pulse.due(&shared) => None,
            () = shared.stop.cancelled() => return,
        };
        let slow = Arc::clone(&shared);
        let beat = pulse.take(&shared);
        let done = tokio::task::spawn_blocking(move || {
            if let Some(work) = work {
                answer::carry_out(&slow, &work);
            }
            beat.carry_out(&slow);
        });
        if done.await.is_err() {
            tracing::error!("an answer of the broker itself was not made");
        }
    }
}
