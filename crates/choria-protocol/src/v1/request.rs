//! The request: an agent's payload and who asks what of whom.

use std::fmt::Write as _;

use crate::filter::Filter;
use crate::json::push_string;
use crate::tree::{self, At};
use crate::v1::secure::{check_protocol, push_head};
use crate::v1::{Error, Layer, Problem};

const PROTOCOL: &str = "choria:request:1";

/// Smallest ttl of a v1 request, in seconds (spec 01 §2).
pub const MIN_TTL: i64 = 30;

/// Longest caller id, collective or agent name that is read, in bytes.
const MAX_NAME: usize = 1024;

/// Characters of a request id.
pub(super) const REQUEST_ID_LENGTH: usize = 32;

/// What every request says about itself; signed together with the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestEnvelope {
    /// `requestid`: 32 letters and digits.
    pub request_id: String,
    /// `senderid`: identity of the sending host.
    pub sender_id: String,
    /// `callerid`: who asks, `choria=<certname>`.
    pub caller_id: String,
    /// `collective` whose members are asked.
    pub collective: String,
    /// `agent` that shall answer.
    pub agent: String,
    /// `ttl`: seconds the request is valid, at least [`MIN_TTL`].
    pub ttl: i64,
    /// `time`: unix seconds when it was made.
    pub time: i64,
    /// `filter`: which nodes shall act.
    pub filter: Filter,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The agent's payload, see [`crate::rpc`].
    pub message: String,
    /// Who asks what of whom.
    pub envelope: RequestEnvelope,
}

impl Request {
    /// Reads the text of a secure request and checks the schema (spec 01 §2). Stricter than the original: a key may
    /// stand only once, request ids are letters and digits, names hold no control characters.
    ///
    /// # Errors
    /// [`Error::NotJson`] or [`Error::Schema`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let document = tree::parse(Layer::Request, text.as_bytes())?;
        let root = At::root(Layer::Request, &document);
        let fields = root.object(&["protocol", "message", "envelope"])?;
        check_protocol(&fields.required("protocol")?, PROTOCOL)?;
        let message = fields.required("message")?.non_empty()?.to_owned();
        let envelope = RequestEnvelope::read(&fields.required("envelope")?)?;
        Ok(Self { message, envelope })
    }

    /// The text to sign.
    pub fn to_text(&self) -> String {
        let mut out = String::with_capacity(self.message.len() * 5 / 4 + 512);
        push_head(&mut out, PROTOCOL, &self.message);
        out.push_str(",\"envelope\":");
        self.envelope.push_json(&mut out);
        out.push('}');
        out
    }
}

impl RequestEnvelope {
    fn read(at: &At<'_, '_>) -> Result<Self, Error> {
        let fields =
            at.object(&["requestid", "senderid", "callerid", "collective", "agent", "ttl", "time", "filter"])?;
        let ttl_at = fields.required("ttl")?;
        let envelope = Self {
            request_id: request_id(&fields.required("requestid")?)?,
            sender_id: name(&fields.required("senderid")?, 0)?,
            caller_id: name(&fields.required("callerid")?, 1)?,
            collective: name(&fields.required("collective")?, 1)?,
            agent: name(&fields.required("agent")?, 1)?,
            ttl: ttl_at.integer()?,
            time: fields.required("time")?.integer()?,
            filter: Filter::read(&fields.required("filter")?)?,
        };
        if envelope.ttl < MIN_TTL {
            return Err(ttl_at.error(Problem::TooSmall { minimum: MIN_TTL, found: envelope.ttl }));
        }
        Ok(envelope)
    }

    fn push_json(&self, out: &mut String) {
        for (key, value) in [
            ("{\"requestid\":", &self.request_id),
            (",\"senderid\":", &self.sender_id),
            (",\"callerid\":", &self.caller_id),
            (",\"collective\":", &self.collective),
            (",\"agent\":", &self.agent),
        ] {
            out.push_str(key);
            push_string(out, value);
        }
        let _ = write!(out, ",\"ttl\":{},\"time\":{},\"filter\":", self.ttl, self.time);
        self.filter.push_json(out);
        out.push('}');
    }
}

/// A request id: exactly 32 letters and digits. The original takes any 32 characters; ids end up in logs, file names and
/// subjects.
pub(super) fn request_id(at: &At<'_, '_>) -> Result<String, Error> {
    let text = at.text()?;
    let found = text.chars().count();
    if found != REQUEST_ID_LENGTH {
        return Err(at.error(Problem::WrongLength { expected: REQUEST_ID_LENGTH, found }));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(at.error(Problem::BadCharacters));
    }
    Ok(text.to_owned())
}

/// A name of at least `minimum` (0 or 1) characters, without control characters.
pub(super) fn name(at: &At<'_, '_>, minimum: usize) -> Result<String, Error> {
    let text = if minimum == 0 { at.text()? } else { at.non_empty()? };
    if text.len() > MAX_NAME {
        return Err(at.error(Problem::TooLong { limit: MAX_NAME, found: text.len() }));
    }
    if text.chars().any(char::is_control) {
        return Err(at.error(Problem::BadCharacters));
    }
    Ok(text.to_owned())
}
