//! Ping and broadcast discovery: one request to everybody, and whoever answers is there (spec 05 §4, §7.1).

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

use choria_protocol::filter::Filter;
use choria_protocol::{rpc, subjects};
use tokio::time::Instant;

use crate::client::{Ask, Client, End, RequestError, unix_now};
use crate::replies::{Expected, ReplySet};
use crate::window::{Wait, Window};

/// Replies that wait to be counted while the loop is busy; a fleet of this size may answer within one moment.
const REPLY_BUFFER: usize = 100_000;

/// What to ask everybody.
#[derive(Debug, Clone)]
pub struct Broadcast {
    /// Which nodes shall answer.
    pub filter: Filter,
    /// Sub collective, or the main one.
    pub collective: Option<String>,
    /// How long to listen.
    pub wait: Wait,
    /// Stop once this many nodes answered.
    pub expect: Option<usize>,
}

impl Broadcast {
    /// The nodes, when the filter holds nothing but literal identities: then nobody needs to be asked.
    pub fn assumed(&self) -> Option<Discovered> {
        let mut seen = HashSet::new();
        let names = self.filter.literal_identities()?;
        let nodes = names.iter().filter(|name| seen.insert(name.as_str())).cloned().collect();
        Some(Discovered { nodes, took: Duration::ZERO, assumed: true })
    }
}

/// One node that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingReply {
    /// Its identity.
    pub sender: String,
    /// Time since the request was published.
    pub after: Duration,
}

/// A finished broadcast.
#[derive(Debug, Clone)]
pub struct BroadcastStats {
    /// How many different nodes answered.
    pub replies: usize,
    /// When the request was published.
    pub published: Instant,
    /// Whether it was ended by the caller before its time.
    pub interrupted: bool,
}

/// The nodes that a filter finds.
#[derive(Debug, Clone)]
pub struct Discovered {
    /// Identities in the order they answered, each once.
    pub nodes: Vec<String>,
    /// How long it took.
    pub took: Duration,
    /// Whether the names were taken from the filter without asking anybody.
    pub assumed: bool,
}

impl Client {
    /// Asks everybody and hands each node's first answer to `on_reply`.
    pub async fn ping(
        &self,
        request: &Broadcast,
        mut on_reply: impl FnMut(&PingReply),
    ) -> Result<BroadcastStats, RequestError> {
        let collective = self.caller.collective(request.collective.as_deref())?;
        let request_id = self.new_request_id();
        let reply_to = self.reply_subject(collective, &request_id);
        let ask = Ask {
            collective,
            agent: rpc::DISCOVERY_AGENT,
            payload: rpc::PING_PAYLOAD.to_owned(),
            filter: request.filter.clone(),
            request_id: &request_id,
            reply_to: &reply_to,
        };
        let wire = self.seal(ask, unix_now())?;
        let mut replies = self.connection.subscribe(&reply_to, None, REPLY_BUFFER).await?;
        let published = Instant::now();
        self.connection.publish(&subjects::broadcast_agent(collective, rpc::DISCOVERY_AGENT), wire).await?;
        self.connection.flush().await?;

        let mut set = ReplySet::new(request_id, rpc::DISCOVERY_AGENT, Expected::Anyone);
        let window = std::cell::RefCell::new(request.wait.start(Instant::now()));
        let end = self
            .collect(
                &mut replies,
                || window.borrow().deadline(),
                |message| match set.take(&message.payload) {
                    Ok(reply) => {
                        let now = Instant::now();
                        Window::replied(&mut window.borrow_mut(), now);
                        on_reply(&PingReply { sender: reply.envelope.sender_id, after: now - published });
                        stop_at(request.expect, set.answered())
                    }
                    Err(refused) => {
                        tracing::debug!(subject = %message.subject, "ignoring a reply: {refused}");
                        ControlFlow::Continue(())
                    }
                },
            )
            .await;
        Ok(BroadcastStats { replies: set.answered(), published, interrupted: end == End::Interrupted })
    }

    /// Finds the nodes that a filter matches. A filter of nothing but literal identities is believed without asking, as
    /// the reference does: a name that nobody has shows up later as a node that did not respond.
    pub async fn discover(&self, request: &Broadcast) -> Result<Discovered, RequestError> {
        let started = Instant::now();
        if let Some(assumed) = request.assumed() {
            return Ok(assumed);
        }
        let mut nodes = Vec::new();
        self.ping(request, |reply| nodes.push(reply.sender.clone())).await?;
        Ok(Discovered { nodes, took: started.elapsed(), assumed: false })
    }
}

fn stop_at(expect: Option<usize>, answered: usize) -> ControlFlow<()> {
    match expect {
        Some(count) if answered >= count => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    }
}
