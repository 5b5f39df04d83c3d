//! The reply: an agent's payload and whose answer to what it is.

use std::fmt::Write as _;

use crate::json::push_string;
use crate::tree::{self, At};
use crate::v1::request::{name, request_id};
use crate::v1::secure::{check_protocol, push_head};
use crate::v1::{Error, Layer, RequestEnvelope};

const PROTOCOL: &str = "choria:reply:1";

/// What every reply says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyEnvelope {
    /// `requestid` of the request.
    pub request_id: String,
    /// `senderid`: identity of the node that answers.
    pub sender_id: String,
    /// `agent` that answers.
    pub agent: String,
    /// `time`: unix seconds when it was made.
    pub time: i64,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The agent's payload, see [`crate::rpc`].
    pub message: String,
    /// Whose answer to what it is.
    pub envelope: ReplyEnvelope,
}

impl Reply {
    /// A reply to `request` by the node `sender_id`.
    pub fn to_request(request: &RequestEnvelope, sender_id: &str, time: i64, message: String) -> Self {
        let envelope = ReplyEnvelope {
            request_id: request.request_id.clone(),
            sender_id: sender_id.to_owned(),
            agent: request.agent.clone(),
            time,
        };
        Self { message, envelope }
    }

    /// Reads the text of a secure reply and checks the schema (spec 01 §2).
    ///
    /// # Errors
    /// [`Error::NotJson`] or [`Error::Schema`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let document = tree::parse(Layer::Reply, text.as_bytes())?;
        let root = At::root(Layer::Reply, &document);
        let fields = root.object(&["protocol", "message", "envelope"])?;
        check_protocol(&fields.required("protocol")?, PROTOCOL)?;
        let message = fields.required("message")?.text()?.to_owned();
        let at = fields.required("envelope")?;
        let envelope = at.object(&["requestid", "senderid", "agent", "time"])?;
        let envelope = ReplyEnvelope {
            request_id: request_id(&envelope.required("requestid")?)?,
            sender_id: name(&envelope.required("senderid")?, 0)?,
            agent: name(&envelope.required("agent")?, 1)?,
            time: envelope.required("time")?.integer()?,
        };
        Ok(Self { message, envelope })
    }

    /// The text to hash.
    pub fn to_text(&self) -> String {
        let mut out = String::with_capacity(self.message.len() * 5 / 4 + 256);
        push_head(&mut out, PROTOCOL, &self.message);
        for (key, value) in [
            (",\"envelope\":{\"requestid\":", &self.envelope.request_id),
            (",\"senderid\":", &self.envelope.sender_id),
            (",\"agent\":", &self.envelope.agent),
        ] {
            out.push_str(key);
            push_string(&mut out, value);
        }
        let _ = write!(out, ",\"time\":{}}}}}", self.envelope.time);
        out
    }
}
