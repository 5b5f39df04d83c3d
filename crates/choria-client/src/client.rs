//! One connection, one caller: [`Client`] and how its requests are made.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use choria_connector::{Connector, ConnectorError, Message, Status, Subscription};
use choria_protocol::filter::Filter;
use choria_protocol::{ids, subjects, v1};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::sign::{SignError, SignRequest};

/// Who asks, and in which collectives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Caller id, such as `choria=ann.mcollective`.
    pub caller_id: String,
    /// Identity of this host, the sender of requests.
    pub identity: String,
    /// Collectives that may be asked; the first is the main one.
    pub collectives: Vec<String>,
    /// Seconds that requests live (`ttl`).
    pub ttl: i64,
    /// Refuse requests that any node would answer (`plugin.choria.require_client_filter`).
    pub require_filter: bool,
}

impl Caller {
    /// The collective that is asked: the one named, or the main one.
    pub fn collective<'a>(&'a self, target: Option<&'a str>) -> Result<&'a str, RequestError> {
        match target {
            None => Ok(self.main_collective()),
            Some(name) if self.collectives.iter().any(|known| known == name) => Ok(name),
            Some(name) => {
                Err(RequestError::UnknownCollective { name: name.to_owned(), known: self.collectives.join(", ") })
            }
        }
    }

    /// The main collective, where replies to RPC requests go.
    pub fn main_collective(&self) -> &str {
        self.collectives.first().map_or("mcollective", String::as_str)
    }
}

/// Why a request could not be made or sent.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// `-T` names a collective that is not configured.
    #[error("cannot set collective to '{name}', it is not on the list of known collectives: {known}")]
    UnknownCollective {
        /// What was asked for.
        name: String,
        /// What `collectives` says.
        known: String,
    },
    /// The configuration demands a filter.
    #[error("cannot create a Request Transport, requests without filters have been disabled")]
    FilterRequired,
    /// There is nobody to ask.
    #[error("did not discover any nodes")]
    NoTargets,
    /// A node name that cannot be part of a subject.
    #[error("{0:?} cannot be the identity of a node: letters, digits, dots, dashes and underscores only")]
    Identity(String),
    /// The request could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The connection refused it.
    #[error(transparent)]
    Connection(#[from] ConnectorError),
    /// It was interrupted before it was sent.
    #[error("interrupted")]
    Interrupted,
}

/// A client of a fleet: pings, discovers and calls actions over one connection.
#[derive(Clone)]
pub struct Client {
    pub(crate) connection: Arc<dyn Connector>,
    pub(crate) signer: Arc<dyn SignRequest>,
    pub(crate) caller: Caller,
    pub(crate) cancel: CancellationToken,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("caller", &self.caller).finish_non_exhaustive()
    }
}

/// What one request says.
pub(crate) struct Ask<'a> {
    pub(crate) collective: &'a str,
    pub(crate) agent: &'a str,
    pub(crate) payload: String,
    pub(crate) filter: Filter,
    pub(crate) request_id: &'a str,
    pub(crate) reply_to: &'a str,
}

/// Why waiting for replies ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    TimedOut,
    Interrupted,
}

impl Client {
    /// A client on a connection that someone else made. `cancel` ends every wait early; what arrived until then counts.
    pub fn new(
        connection: Arc<dyn Connector>,
        signer: Arc<dyn SignRequest>,
        caller: Caller,
        cancel: CancellationToken,
    ) -> Self {
        Self { connection, signer, caller, cancel }
    }

    /// Who asks.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The connection, for subscriptions of one's own (lifecycle events).
    pub fn connection(&self) -> &Arc<dyn Connector> {
        &self.connection
    }

    /// The broker that the client is connected to, as `nats://host:port`.
    pub fn connected_server(&self) -> Option<String> {
        match &*self.connection.status().borrow() {
            Status::Connected { server } => Some(server.clone()),
            _ => None,
        }
    }

    /// Waits until the client is cancelled.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Ends the connection after everything was sent.
    pub async fn close(&self) {
        self.connection.close().await;
    }

    /// The subject for replies to one request.
    pub(crate) fn reply_subject(&self, collective: &str, request_id: &str) -> String {
        subjects::reply(collective, &self.caller.caller_id, request_id)
    }

    pub(crate) fn new_request_id(&self) -> String {
        ids::request_id()
    }

    /// Signs one request; the bytes are good for any number of publishes.
    pub(crate) fn seal(&self, ask: Ask<'_>, now: i64) -> Result<Bytes, RequestError> {
        if self.caller.require_filter && ask.filter.is_empty_but_agents() {
            return Err(RequestError::FilterRequired);
        }
        let request = v1::Request {
            message: ask.payload,
            envelope: v1::RequestEnvelope {
                request_id: ask.request_id.to_owned(),
                sender_id: self.caller.identity.clone(),
                caller_id: self.caller.caller_id.clone(),
                collective: ask.collective.to_owned(),
                agent: ask.agent.to_owned(),
                ttl: self.caller.ttl,
                time: now,
                filter: ask.filter,
            },
        };
        let secure = self.signer.seal(request.to_text())?;
        let mut headers = v1::Headers {
            reply_to: Some(ask.reply_to.to_owned()),
            mc_sender: Some(self.caller.identity.clone()),
            ..v1::Headers::default()
        };
        if let Some(server) = self.connected_server() {
            headers.add_hop(&server, &self.caller.identity);
        }
        Ok(Bytes::from(v1::encode_request(&secure, &headers)))
    }

    /// Hands messages to `take` until it is satisfied, the time is over, or the client is cancelled.
    /// `deadline` is asked again after every message.
    pub(crate) async fn collect(
        &self,
        replies: &mut Subscription,
        mut deadline: impl FnMut() -> Instant,
        mut take: impl FnMut(Message) -> ControlFlow<()>,
    ) -> End {
        loop {
            tokio::select! {
                biased;
                message = replies.next() => match message {
                    Some(message) => {
                        if take(message).is_break() {
                            return End::Complete;
                        }
                        // A flood of messages must outlast neither the deadline nor an interrupt.
                        if Instant::now() >= deadline() {
                            return End::TimedOut;
                        }
                        if self.cancel.is_cancelled() {
                            return End::Interrupted;
                        }
                    }
                    None => return End::Interrupted,
                },
                () = tokio::time::sleep_until(deadline()) => return End::TimedOut,
                () = self.cancel.cancelled() => return End::Interrupted,
            }
        }
    }

    /// Sleeps, unless cancelled first. True when the whole time passed.
    pub(crate) async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.cancel.cancelled() => false,
        }
    }
}

/// Unix seconds now.
pub(crate) fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
