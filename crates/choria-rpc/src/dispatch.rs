//! The way of one call (spec 01 §5.1, spec 03 §8.1):
//!
//! ```text
//! payload --parse (4)--> action known (2) --> authorized (1) --> audited --> inputs fit the DDL (4) --> called (5 in time-out) --> body
//! ```
//! Whatever happens, there is a body to answer with. The original says nothing when an agent is too slow (spec 01 sharp edge 23).

use std::sync::Arc;

use choria_filter::NodeView;
use choria_protocol::rpc::{ReplyBody, RequestBody};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::agent::{Agent, Call, CallContext, Reply, StatusCode};
use crate::audit::AuditLog;
use crate::authz::{Authorizer, DENIED, Decision};
use crate::ddl::InputRules;

/// What stands between a request and its action.
#[derive(Clone, Default)]
pub struct Dispatcher {
    /// Who may call what; none where authorization is off (`rpcauthorization = 0`, or while provisioning).
    pub authorizer: Option<Arc<dyn Authorizer>>,
    /// Where calls are written down; none where audit is off.
    pub audit: Option<Arc<AuditLog>>,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("authorization", &self.authorizer.is_some())
            .field("audit", &self.audit.is_some())
            .finish()
    }
}

impl Dispatcher {
    /// Runs the call that a payload asks for. `node` is what policies may look at, `now` goes into the audit log.
    ///
    /// The agent's future is dropped at its timeout.
    pub async fn dispatch(
        &self,
        agent: &dyn Agent,
        context: CallContext,
        payload: &[u8],
        node: &NodeView<'_>,
        now: Timestamp,
    ) -> ReplyBody {
        let call = match self.prepare(agent, context, payload, node, now) {
            Ok(call) => call,
            Err(body) => return *body,
        };
        let action = call.action.clone();
        let (limit, id) = (agent.timeout(), call.context.request_id.clone());
        let reply = match tokio::time::timeout(limit, agent.call(call)).await {
            Ok(reply) => reply,
            Err(_) => {
                let seconds = limit.as_secs();
                tracing::warn!("agent dispatcher for request {id} exiting on {seconds}s timeout");
                Reply::fail(StatusCode::UnknownError, format!("agent did not answer within {seconds}s"))
            }
        };
        body(action, reply)
    }

    /// Everything before the agent is called. The error is the body to answer with.
    ///
    /// # Errors
    /// The body of the refusal.
    pub fn prepare(
        &self,
        agent: &dyn Agent,
        context: CallContext,
        payload: &[u8],
        node: &NodeView<'_>,
        now: Timestamp,
    ) -> Result<Call, Box<ReplyBody>> {
        let name = &agent.metadata().name;
        let request = RequestBody::parse(payload).map_err(|error| {
            let text = format!(
                "Could not process request: could not parse incoming message as a MCollective SimpleRPC Request: {error}"
            );
            Box::new(body(String::new(), Reply::fail(StatusCode::InvalidData, text)))
        })?;
        let refuse = |code, text: String| Box::new(body(request.action.clone(), Reply::fail(code, text)));
        if !agent.actions().contains(&request.action) {
            let text = format!("Unknown action {} for agent {name}", request.action);
            return Err(refuse(StatusCode::UnknownAction, text));
        }
        let call = Call { action: request.action.clone(), data: request.data, context };
        if let Err(reason) = self.authorize(&call, &request.agent, name, node) {
            tracing::warn!("{reason}");
            let (caller, id) = (&call.context.caller, &call.context.request_id);
            let action = &call.action;
            tracing::warn!("Denying {caller} access to {name}#{action} based on authorization policy for request {id}");
            self.write_down(|audit| audit.record_denied(&call, &reason, now));
            return Err(refuse(StatusCode::Aborted, DENIED.to_owned()));
        }
        self.write_down(|audit| audit.record(&call, now));
        if let Some(action) = agent.ddl().and_then(|ddl| ddl.action(&call.action).ok()) {
            let checked = action.validate_inputs(&call.data, InputRules::Lenient);
            checked.map_err(|error| refuse(StatusCode::InvalidData, format!("Validation failed: {error}")))?;
        }
        Ok(call)
    }

    /// The reason to refuse, if any. With authorization on, the agent a body names must be the one it was sent to; otherwise
    /// the body's agent is not looked at.
    fn authorize(&self, call: &Call, named: &str, agent: &str, node: &NodeView<'_>) -> Result<(), String> {
        let Some(authorizer) = &self.authorizer else { return Ok(()) };
        let id = &call.context.request_id;
        if named != agent || call.context.agent != agent {
            return Err(format!("Denying request {id}: body names agent {named:?}, request is for {agent}"));
        }
        match authorizer.authorize(call, node) {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) => Err(reason),
        }
    }

    fn write_down(&self, write: impl FnOnce(&AuditLog) -> Result<(), crate::audit::AuditError>) {
        if let Some(Err(error)) = self.audit.as_deref().map(write) {
            tracing::error!("{error}");
        }
    }
}

fn body(action: String, reply: Reply) -> ReplyBody {
    // Nothing is sent as an empty object, so that no client has to know both.
    let data = if reply.data.is_null() { Value::Object(Map::new()) } else { reply.data };
    ReplyBody { action, statuscode: reply.code as u8, statusmsg: reply.message, data }
}

#[cfg(test)]
mod tests;
