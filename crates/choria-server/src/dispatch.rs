//! From a request's payload to a reply body (spec 03 §8.1).

use choria_config::keys;
use choria_protocol::rpc::{BodyError, ReplyBody, RequestBody};
use choria_rpc::{Agent, Call, CallContext, Reply, StatusCode};

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
        Err(error) => return refused(&BodyError::to_string(&error)),
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

fn refused(error: &str) -> ReplyBody {
    let reply = Reply::fail(StatusCode::InvalidData, format!("Could not process request: {error}"));
    ReplyBody { action: String::new(), statuscode: reply.code as u8, statusmsg: reply.message, data: reply.data }
}
