//! RPC requests: one signed document to many nodes, and the books of who answered (spec 05 §2.5, §2.6).

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use choria_protocol::filter::Filter;
use choria_protocol::rpc::RequestBody;
use choria_protocol::{identity, subjects};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::client::{Ask, Client, End, RequestError, unix_now};
use crate::replies::{Expected, ReplySet, RequestStats, RpcReply, rpc_reply};

/// Replies that wait while the caller renders one.
const REPLY_BUFFER: usize = 100_000;

/// Who shall act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// These nodes.
    Nodes(Vec<String>),
    /// One member of the service, chosen by the broker.
    Service,
}

/// Nodes in groups, one group after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batches {
    /// Nodes per group.
    pub size: usize,
    /// Pause between groups.
    pub sleep: Duration,
}

/// One call of one action on many nodes.
#[derive(Debug, Clone)]
pub struct RpcRequest {
    /// Agent.
    pub agent: String,
    /// Action.
    pub action: String,
    /// Inputs, typed and checked.
    pub data: Map<String, Value>,
    /// Who shall act.
    pub targets: Targets,
    /// Sub collective, or the main one.
    pub collective: Option<String>,
    /// How long to wait for replies, counted from the end of publishing, for each batch.
    pub timeout: Duration,
    /// Groups of nodes; all at once when absent.
    pub batches: Option<Batches>,
    /// How long finding the nodes took, for the figures.
    pub discover_time: Duration,
}

/// What happens while a request runs.
#[derive(Debug)]
pub enum Progress<'a> {
    /// So many more nodes were asked.
    Asked(usize),
    /// A node answered.
    Reply(&'a RpcReply),
}

/// A finished request.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its figures.
    pub stats: RequestStats,
    /// Whether it was ended by the caller before its time.
    pub interrupted: bool,
}

impl Client {
    /// Calls an action and hands each reply to `on_progress` as it comes.
    pub async fn rpc(
        &self,
        request: &RpcRequest,
        mut on_progress: impl FnMut(Progress<'_>),
    ) -> Result<Finished, RequestError> {
        let collective = self.caller.collective(request.collective.as_deref())?;
        let request_id = self.new_request_id();
        // Replies to RPC requests use the main collective whatever -T says (spec 05 §2.1).
        let reply_to = self.reply_subject(self.caller.main_collective(), &request_id);
        let groups = groups(request)?;
        let mut replies = self.connection.subscribe(&reply_to, None, REPLY_BUFFER).await?;
        let mut books = Books::new(request, &request_id);

        for (index, group) in groups.iter().enumerate() {
            let sleep = request.batches.map(|batches| batches.sleep).unwrap_or_default();
            if index > 0 && !self.pause(sleep).await {
                books.interrupted = true;
                break;
            }
            let wire = self.seal(ask(request, collective, &request_id, &reply_to), unix_now())?;
            let publishing = Instant::now();
            books.expect(group);
            self.publish_all(collective, &request.agent, group, &wire).await?;
            books.publish_time += publishing.elapsed();
            on_progress(Progress::Asked(group.len()));

            let deadline = Instant::now() + request.timeout;
            let end = if books.is_complete() {
                End::Complete
            } else {
                self.collect(&mut replies, || deadline, |message| books.take(&message.payload, &mut on_progress)).await
            };
            if end == End::Interrupted {
                books.interrupted = true;
                break;
            }
        }
        Ok(books.finish())
    }

    /// Sends a request whose replies go elsewhere, and returns its id (spec 05 §2.7).
    pub async fn rpc_reply_to(&self, request: &RpcRequest, reply_to: &str) -> Result<String, RequestError> {
        let collective = self.caller.collective(request.collective.as_deref())?;
        let request_id = self.new_request_id();
        for (index, group) in groups(request)?.iter().enumerate() {
            let sleep = request.batches.map(|batches| batches.sleep).unwrap_or_default();
            if index > 0 && !self.pause(sleep).await {
                return Err(RequestError::Interrupted);
            }
            let wire = self.seal(ask(request, collective, &request_id, reply_to), unix_now())?;
            self.publish_all(collective, &request.agent, group, &wire).await?;
        }
        Ok(request_id)
    }

    async fn publish_all(
        &self,
        collective: &str,
        agent: &str,
        group: &[String],
        wire: &Bytes,
    ) -> Result<(), RequestError> {
        if group.is_empty() {
            self.connection.publish(&subjects::broadcast_service(collective, agent), wire.clone()).await?;
        }
        for node in group {
            self.connection.publish(&subjects::node(collective, node), wire.clone()).await?;
        }
        self.connection.flush().await?;
        Ok(())
    }
}

/// Requests to nodes carry the agent filter, service requests none (spec 05 §2.2).
fn ask<'a>(request: &'a RpcRequest, collective: &'a str, request_id: &'a str, reply_to: &'a str) -> Ask<'a> {
    let mut filter = Filter::default();
    if matches!(request.targets, Targets::Nodes(_)) {
        filter.add_agent(&request.agent);
    }
    let body = RequestBody { agent: request.agent.clone(), action: request.action.clone(), data: request.data.clone() };
    Ask { collective, agent: &request.agent, payload: body.to_text(), filter, request_id, reply_to }
}

/// The nodes in the groups they are asked in. A service is one group without names.
fn groups(request: &RpcRequest) -> Result<Vec<Vec<String>>, RequestError> {
    let Targets::Nodes(nodes) = &request.targets else { return Ok(vec![Vec::new()]) };
    if let Some(bad) = nodes.iter().find(|node| !identity::is_valid(node)) {
        return Err(RequestError::Identity(bad.clone()));
    }
    if nodes.is_empty() {
        return Err(RequestError::NoTargets);
    }
    let size = request.batches.map_or(nodes.len(), |batches| batches.size.max(1));
    Ok(nodes.chunks(size).map(<[String]>::to_vec).collect())
}

/// What is counted while a request runs.
struct Books {
    set: ReplySet,
    started: Instant,
    started_at: String,
    asked: usize,
    publish_time: Duration,
    discover_time: Duration,
    ok: usize,
    failed: usize,
    interrupted: bool,
    request_id: String,
    service: bool,
}

impl Books {
    fn new(request: &RpcRequest, request_id: &str) -> Self {
        let service = request.targets == Targets::Service;
        let expected = if service { Expected::Anyone } else { Expected::Nodes(Vec::new()) };
        Self {
            set: ReplySet::new(request_id, &request.agent, expected),
            started: Instant::now(),
            started_at: rfc3339_now(),
            asked: 0,
            publish_time: Duration::ZERO,
            discover_time: request.discover_time,
            ok: 0,
            failed: 0,
            interrupted: false,
            request_id: request_id.to_owned(),
            service,
        }
    }

    fn expect(&mut self, group: &[String]) {
        self.set.expect(group);
        self.asked += group.len();
    }

    fn is_complete(&self) -> bool {
        self.set.is_complete()
    }

    fn take(&mut self, payload: &[u8], on_progress: &mut impl FnMut(Progress<'_>)) -> ControlFlow<()> {
        match self.set.take(payload) {
            Ok(reply) => {
                let reply = rpc_reply(reply);
                if reply.is_ok() {
                    self.ok += 1;
                } else {
                    self.failed += 1;
                }
                on_progress(Progress::Reply(&reply));
            }
            Err(refused) => tracing::warn!("ignoring a reply: {refused}"),
        }
        // One member of a service answers: there is nobody else to wait for.
        let served = self.service && self.set.answered() > 0;
        if served || self.set.is_complete() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn finish(self) -> Finished {
        let discovered = if self.service { self.set.answered() } else { self.asked };
        let stats = RequestStats {
            request_id: self.request_id,
            no_responses: self.set.no_responses(),
            unexpected_responses: self.set.unexpected_responses(),
            discovered,
            failed: self.failed,
            ok: self.ok,
            responses: self.set.answered(),
            publish_time: nanos(self.publish_time),
            request_time: nanos(self.started.elapsed()),
            discover_time: nanos(self.discover_time),
            start_time_utc: self.started_at,
        };
        Finished { stats, interrupted: self.interrupted }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn rfc3339_now() -> String {
    jiff::Timestamp::now().to_string()
}
