//! Hosts agents: registers them, hands them verified requests, sends their replies (spec 03 §1.4, §1.6).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use choria_config::keys;
use choria_connector::{ConnectorError, Subscription};
use choria_filter::NodeView;
use choria_protocol::rpc::{self, DISCOVERY_AGENT, ReplyBody};
use choria_protocol::v1::{self, DecodedRequest};
use choria_rpc::dispatch::Dispatcher;
use choria_rpc::{Agent, CallContext, Metadata, Reply, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::agents;
use crate::context::ServerContext;
use crate::control::Control;
use crate::counters::Counters;
use crate::pipeline::{Pipeline, Rejection};
use crate::server::within;

/// Calls that run at once. More wait a moment, then get code 5: agents are small programs, a node has other work.
const MAX_CALLS: usize = 32;

/// How long a request waits for one of them.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Why an agent cannot be hosted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It has no name, or one that fits no subject.
    #[error("invalid agent: {0:?} is not a name of lower case letters, digits and underscores")]
    Name(String),
    /// It would get no time.
    #[error("invalid agent {0}: timeout < 1")]
    Timeout(String),
    /// There is one of that name.
    #[error("agent {0} is already registered")]
    Duplicate(String),
}

/// The agents of one server.
pub struct Host {
    context: Arc<ServerContext>,
    agents: BTreeMap<String, Arc<dyn Agent>>,
    dispatcher: Dispatcher,
    control: Control,
    calls: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("agents", &self.agents.keys()).finish_non_exhaustive()
    }
}

impl Host {
    /// A host without agents but `discovery`, which every server has. `control` knows whether it is about to end.
    pub fn new(context: Arc<ServerContext>, dispatcher: Dispatcher, control: Control) -> Self {
        let calls = Arc::new(Semaphore::new(MAX_CALLS));
        Self { context, agents: BTreeMap::new(), dispatcher, control, calls, tasks: TaskTracker::new() }
    }

    /// Adds an agent. One that `plugin.NAME.activate_agent` switches off is left out silently.
    ///
    /// # Errors
    /// Its description cannot be used, or the name is taken.
    pub fn register(&mut self, agent: Arc<dyn Agent>) -> Result<(), HostError> {
        let Metadata { name, timeout, .. } = agent.metadata();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(HostError::Name(name.clone()));
        }
        if *timeout < 1 {
            return Err(HostError::Timeout(name.clone()));
        }
        if name == DISCOVERY_AGENT || self.agents.contains_key(name) {
            return Err(HostError::Duplicate(name.clone()));
        }
        if !self.context.config().get_named(&keys::ACTIVATE_AGENT, name) {
            tracing::info!("agent {name} is switched off by plugin.{name}.activate_agent");
            return Ok(());
        }
        self.agents.insert(name.clone(), agent);
        Ok(())
    }

    /// Tells the rest of the server which agents there are. No more can be added for it.
    pub(crate) fn announce(&self) {
        let version = &self.context.settings.build().version;
        let mut all: Vec<Metadata> = self.agents.values().map(|agent| agent.metadata().clone()).collect();
        all.push(agents::discovery(version));
        self.context.set_agents(all);
    }

    /// Names to subscribe, with whether they are service agents.
    pub(crate) fn agents(&self) -> impl Iterator<Item = (&str, bool)> {
        let hosted = self.agents.values().map(|agent| (agent.metadata().name.as_str(), agent.metadata().service));
        hosted.chain([(DISCOVERY_AGENT, false)])
    }

    /// Serves messages until there are no more.
    pub(crate) async fn serve(&self, mut messages: Subscription, mut pipeline: Pipeline) {
        while let Some(message) = messages.next().await {
            let now = self.context.clock.now();
            match pipeline.accept(&message.subject, &message.payload, now, |filter| self.context.matches(filter)) {
                Ok(request) => self.take(request).await,
                Err(rejection @ Rejection::Filtered(_)) => tracing::debug!("{rejection}"),
                Err(rejection) => tracing::warn!(subject = %message.subject, "{rejection}"),
            }
        }
    }

    /// Answers a request, or starts a task that does.
    async fn take(&self, request: DecodedRequest) {
        let name = &request.request.envelope.agent;
        if name == DISCOVERY_AGENT {
            // Answered right here: a ping must not wait for agents that take their time.
            if rpc::is_ping(&rpc::decode_payload(&request.request.message)) && !self.control.is_leaving() {
                answer(&self.context, &request, rpc::PONG.to_owned()).await;
            }
            return;
        }
        let Some(agent) = self.agents.get(name).map(Arc::clone) else {
            tracing::warn!("there is no agent {name:?} for request {}", request.request.envelope.request_id);
            return;
        };
        let context = Arc::clone(&self.context);
        match timeout(MAX_WAIT, Arc::clone(&self.calls).acquire_owned()).await {
            Ok(Ok(permit)) => {
                self.tasks.spawn(call(context, self.dispatcher.clone(), agent, request, permit));
            }
            _ => {
                let text = format!("this node runs {MAX_CALLS} requests already, try again");
                let reply = body_of(&request, Reply::fail(StatusCode::UnknownError, text));
                answer(&context, &request, reply.to_text()).await;
            }
        }
    }

    /// Waits at most `limit` for what runs.
    pub(crate) async fn finish(&self, limit: Duration) {
        self.tasks.close();
        within(limit, self.tasks.wait()).await;
    }
}

/// One call, from its body to its reply. Whatever happens, the caller gets one.
async fn call(
    context: Arc<ServerContext>,
    dispatcher: Dispatcher,
    agent: Arc<dyn Agent>,
    request: DecodedRequest,
    _permit: OwnedSemaphorePermit,
) {
    let payload = rpc::decode_payload(&request.request.message).into_owned();
    // Only policies look at the node.
    let policy = dispatcher.authorizer.is_some();
    let (classes, facts) = if policy { (context.classes(), context.facts()) } else { Default::default() };
    let identity = context.settings.identity();
    let node = NodeView::new(&identity, context.agent_names(), &classes, &facts).at(context.clock.now());
    let now = context.clock.timestamp();
    let body = dispatcher.dispatch(&*agent, call_context(&request), &payload, &node, now).await;
    answer(&context, &request, body.to_text()).await;
}

fn call_context(request: &DecodedRequest) -> CallContext {
    let envelope = &request.request.envelope;
    CallContext {
        request_id: envelope.request_id.clone(),
        sender: envelope.sender_id.clone(),
        caller: envelope.caller_id.clone(),
        collective: envelope.collective.clone(),
        agent: envelope.agent.clone(),
        ttl: envelope.ttl,
        time: envelope.time,
    }
}

/// A reply body for a request whose action did not come to an end.
fn body_of(request: &DecodedRequest, reply: Reply) -> ReplyBody {
    let payload = rpc::decode_payload(&request.request.message);
    let action = rpc::RequestBody::parse(&payload).map(|body| body.action).unwrap_or_default();
    ReplyBody { action, statuscode: reply.code as u8, statusmsg: reply.message, data: reply.data }
}

/// Publishes a reply. One that is too large for the broker becomes an error that fits.
async fn answer(context: &ServerContext, request: &DecodedRequest, message: String) {
    let Ok(subject) = request.transport.headers.reply_subject() else { return };
    let envelope = &request.request.envelope;
    let identity = context.settings.identity();
    let mut headers = request.transport.headers.for_reply(&identity);
    headers.add_hop(&context.connected_server(), &identity);
    let encode = |message: String| {
        let reply = v1::Reply::to_request(envelope, &identity, context.clock.now(), message);
        Bytes::from(v1::encode_reply(&reply, &headers))
    };
    let mut sent = context.connector.publish(subject, encode(message)).await;
    if let Err(ConnectorError::TooLarge { size, limit }) = sent {
        let text = format!("the reply has {size} bytes, the broker takes {limit}");
        tracing::warn!("request {}: {text}", envelope.request_id);
        let body = body_of(request, Reply::fail(StatusCode::UnknownError, text));
        sent = context.connector.publish(subject, encode(body.to_text())).await;
    }
    match sent {
        Ok(()) => Counters::count(&context.counters.replies),
        Err(error) => tracing::warn!("request {} was not answered: {error}", envelope.request_id),
    }
}
