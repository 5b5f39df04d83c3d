//! Payloads of agents: RPC requests and replies, and discovery (spec 01 §5).

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::base64_text;
use crate::json::{push_string, value_text};

/// Payload of a discovery request, as Go clients send it: `ping` in base64.
pub const PING_PAYLOAD: &str = "cGluZw==";
/// Payload of the answer to a discovery request.
pub const PONG: &str = "pong";
/// Agent that answers discovery requests on every node.
pub const DISCOVERY_AGENT: &str = "discovery";

/// Why a payload is no RPC body. The text is the part that follows `Could not process request: ` in the original's
/// status message; its own words differ (they are its JSON library's).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not one JSON document.
    #[error("{0}")]
    NotJson(String),
    /// Not an object.
    #[error("body is not an object")]
    NotAnObject,
    /// A key with a value of another type.
    #[error("{key} is not {expected}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A reply without a status.
    #[error("statuscode is missing")]
    NoStatus,
}

/// Body of an RPC request. Identity, collective and times are never taken from here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestBody {
    /// Agent; empty when missing.
    pub agent: String,
    /// Action; empty when missing.
    pub action: String,
    /// Inputs; empty when missing or null.
    pub data: Map<String, Value>,
}

impl RequestBody {
    /// Reads the bytes of a payload. Other keys (`caller` of Ruby clients) are ignored.
    ///
    /// # Errors
    /// See [`BodyError`]; answer status 4.
    pub fn parse(payload: &[u8]) -> Result<Self, BodyError> {
        let mut map = object(payload)?;
        let agent = text(&mut map, "agent")?;
        let action = text(&mut map, "action")?;
        let data = match map.remove("data") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(data)) => data,
            Some(_) => return Err(BodyError::WrongType { key: "data", expected: "an object" }),
        };
        Ok(Self { agent, action, data })
    }

    /// The payload text, the value of [`crate::v1::Request::message`].
    pub fn to_text(&self) -> String {
        let mut out = String::from("{\"agent\":");
        push_string(&mut out, &self.agent);
        out.push_str(",\"action\":");
        push_string(&mut out, &self.action);
        out.push_str(",\"data\":");
        out.push_str(&crate::json::to_string(&self.data).expect("a JSON object can always be written"));
        out.push('}');
        out
    }
}

/// Body of an RPC reply.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplyBody {
    /// Action that answers.
    pub action: String,
    /// 0 is success, everything else a failure (spec 01 §5.2).
    pub statuscode: u8,
    /// `OK` or the reason.
    pub statusmsg: String,
    /// What the action found; `{}` when nothing.
    pub data: Value,
}

impl ReplyBody {
    /// Reads the bytes of a payload. A body without status code is refused, where the original takes it for success;
    /// missing, null or (an original's quirk) the string `"{}"` as data is the empty object.
    ///
    /// # Errors
    /// See [`BodyError`]; such a reply is a failed one.
    pub fn parse(payload: &[u8]) -> Result<Self, BodyError> {
        let mut map = object(payload)?;
        let action = text(&mut map, "action")?;
        let statuscode = map
            .remove("statuscode")
            .ok_or(BodyError::NoStatus)?
            .as_u64()
            .and_then(|code| u8::try_from(code).ok())
            .ok_or(BodyError::WrongType { key: "statuscode", expected: "a number from 0 to 255" })?;
        let statusmsg = text(&mut map, "statusmsg")?;
        let data = match map.remove("data") {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(Value::String(text)) if text == "{}" => Value::Object(Map::new()),
            Some(data) => data,
        };
        Ok(Self { action, statuscode, statusmsg, data })
    }

    /// The payload text, the value of [`crate::v1::Reply::message`].
    pub fn to_text(&self) -> String {
        let mut out = String::from("{\"action\":");
        push_string(&mut out, &self.action);
        let _ = write!(out, ",\"statuscode\":{},\"statusmsg\":", self.statuscode);
        push_string(&mut out, &self.statusmsg);
        out.push_str(",\"data\":");
        out.push_str(&value_text(&self.data));
        out.push('}');
        out
    }
}

/// The bytes an agent gets of a request's `message`: decoded if it is valid std64, else as it is (spec 01 §5.3).
///
/// The plain text `ping` is valid base64 as well, so a discovery request must carry [`PING_PAYLOAD`].
pub fn decode_payload(message: &str) -> Cow<'_, [u8]> {
    match base64_text::decode(message) {
        Some(bytes) => Cow::Owned(bytes),
        None => Cow::Borrowed(message.as_bytes()),
    }
}

/// Whether decoded payload bytes ask for a [`PONG`]: they hold `ping` anywhere (spec 01 §5.4).
pub fn is_ping(payload: &[u8]) -> bool {
    payload.windows(4).any(|window| window == b"ping")
}

fn object(payload: &[u8]) -> Result<Map<String, Value>, BodyError> {
    match serde_json::from_slice(payload) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(BodyError::NotAnObject),
        Err(error) => Err(BodyError::NotJson(error.to_string())),
    }
}

fn text(map: &mut Map<String, Value>, key: &'static str) -> Result<String, BodyError> {
    match map.remove(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(BodyError::WrongType { key, expected: "a string" }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn request_bodies() {
        let body = RequestBody::parse(br#"{"agent":"rpcutil","action":"ping","data":null,"caller":"x"}"#).unwrap();
        assert_eq!(body, RequestBody { agent: "rpcutil".into(), action: "ping".into(), data: Map::new() });
        assert_eq!(body.to_text(), r#"{"agent":"rpcutil","action":"ping","data":{}}"#);
        assert_eq!(RequestBody::parse(b"{}").unwrap(), RequestBody::default());
        for bad in [&b"[]"[..], b"", b"x", b"null", br#"{"data":"x"}"#, br#"{"data":[]}"#, br#"{"agent":1}"#, b"{} {}"]
        {
            assert!(RequestBody::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn design6_reply_body_that_does_not_decode_is_no_success() {
        for bad in [&b"{}"[..], b"pong", br#"{"statuscode":"0"}"#, br#"{"statuscode":0.0}"#, br#"{"statuscode":256}"#] {
            assert!(ReplyBody::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn empty_reply_data_in_any_form_is_an_object() {
        for data in ["null", "{}", r#""{}""#] {
            let text = format!(r#"{{"action":"a","statuscode":1,"statusmsg":"m","data":{data}}}"#);
            assert_eq!(ReplyBody::parse(text.as_bytes()).unwrap().data, json!({}), "{data}");
        }
    }

    #[test]
    fn payloads_that_are_base64_are_decoded() {
        assert_eq!(decode_payload(PING_PAYLOAD).as_ref(), b"ping");
        assert_eq!(decode_payload("\"ping\"").as_ref(), b"\"ping\"");
        assert!(!is_ping(&decode_payload("ping")), "plain ping becomes garbage, as in the original");
        assert_eq!(decode_payload("{\"agent\":1}").as_ref(), b"{\"agent\":1}");
        assert!(is_ping(b"xpingx") && is_ping(b"\"ping\"") && !is_ping(b"pong") && !is_ping(b""));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (RequestBody::parse(&bytes), ReplyBody::parse(&bytes));
        }

        #[test]
        fn bodies_survive_the_way(agent in ".{0,8}", key in ".{0,8}", value in any::<i64>(), code in any::<u8>()) {
            let data = Map::from_iter([(key, json!(value))]);
            let request = RequestBody { agent: agent.clone(), action: "a".into(), data: data.clone() };
            prop_assert_eq!(RequestBody::parse(request.to_text().as_bytes()).unwrap(), request);
            let reply = ReplyBody { action: agent, statuscode: code, statusmsg: "<&>".into(), data: Value::Object(data) };
            prop_assert_eq!(ReplyBody::parse(reply.to_text().as_bytes()).unwrap(), reply);
        }
    }
}
