//! From a request's payload to a reply body (spec 03 §8.1).

use choria_config::keys;
use choria_protocol::rpc::{BodyError, ReplyBody, RequestBody};
use choria_rpc::{Agent, Call, CallContext, Reply, StatusCode};
use serde_json::Value;

use crate::context::ServerContext;

/// Parses, finds the action, authorizes and calls, in this order.
pub(crate) async fn dispatch(
    context: &ServerContext,
    agent: &dyn Agent,
    call: CallContext,
    payload: &[u8],
) -> ReplyBody {
    let body = match RequestBody::parse(payload) {
        Ok(body) => body,
        Err(error) => return unreadable(&agent.metadata().name, payload, &error),
    };
    let action = body.action.clone();
    let reply = if !agent.actions().contains(&body.action) {
        let text = format!("Unknown action {} for agent {}", body.action, agent.metadata().name);
        Reply::fail(StatusCode::UnknownAction, text)
    } else if context.config().get(&keys::RPCAUTHORIZATION) {
        Reply::aborted("You are not authorized to call this agent or action")
    } else {
        agent.call(Call { action: body.action, data: body.data, context: call }).await
    };
    ReplyBody { action, statuscode: reply.code as u8, statusmsg: reply.message, data: reply.data }
}

/// The answer to a body that cannot be read. The action is named where it can be told: callers compare it.
fn unreadable(agent: &str, payload: &[u8], error: &BodyError) -> ReplyBody {
    let body: Option<Value> = serde_json::from_slice(payload).ok();
    let action = body.as_ref().and_then(|body| body.get("action")).and_then(Value::as_str).unwrap_or_default();
    let text = match error {
        BodyError::WrongType { key: "data", .. } => {
            format!("Could not parse request data for {agent}#{action}: {error}")
        }
        _ => format!("Could not process request: {error}"),
    };
    let reply = Reply::fail(StatusCode::InvalidData, text);
    ReplyBody { action: action.to_owned(), statuscode: reply.code as u8, statusmsg: reply.message, data: reply.data }
}
