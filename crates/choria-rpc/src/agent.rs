//! The [`Agent`] trait and the shapes of one call (spec 03 §8.1, spec 01 §5.1, §5.2).

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ddl::Ddl;

/// Description of an agent, as `rpcutil#agent_inventory` shows it (spec 03 §10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Licence of the agent.
    #[serde(default)]
    pub license: String,
    /// Author with mail address.
    #[serde(default)]
    pub author: String,
    /// Seconds an action may take, at least 1.
    #[serde(default)]
    pub timeout: u64,
    /// Name, `[a-z0-9_]+`.
    pub name: String,
    /// Version of the agent.
    #[serde(default)]
    pub version: String,
    /// Where to read more.
    #[serde(default)]
    pub url: String,
    /// One sentence.
    #[serde(default)]
    pub description: String,
    /// Provider that hosts it (`golang`, `external`, ...).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    /// Whether it is a service agent, reached through a queue group.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub service: bool,
}

/// Who asked, taken from the verified request layer, never from the RPC body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallContext {
    /// Request id.
    pub request_id: String,
    /// Sender host identity.
    pub sender: String,
    /// Caller id, such as `choria=ops.mcollective`.
    pub caller: String,
    /// Collective of the request.
    pub collective: String,
    /// Agent of the request envelope.
    pub agent: String,
    /// Seconds the request lives.
    pub ttl: i64,
    /// Unix seconds of the request.
    pub time: i64,
}

/// One call of one action.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Action name.
    pub action: String,
    /// Inputs.
    pub data: Map<String, Value>,
    /// Who asked.
    pub context: CallContext,
}

/// Status codes of a reply (spec 01 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StatusCode {
    /// It worked.
    Ok = 0,
    /// The agent failed or denied.
    Aborted = 1,
    /// No such action.
    UnknownAction = 2,
    /// An input is missing.
    MissingData = 3,
    /// An input is wrong.
    InvalidData = 4,
    /// Anything else.
    UnknownError = 5,
}

/// What an action answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Status code.
    pub code: StatusCode,
    /// `OK` or the reason.
    pub message: String,
    /// Output data; an object, except for data plugins.
    pub data: Value,
}

impl StatusCode {
    /// The code with this number; numbers of an agent's own count as unknown errors.
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Ok,
            1 => Self::Aborted,
            2 => Self::UnknownAction,
            3 => Self::MissingData,
            4 => Self::InvalidData,
            _ => Self::UnknownError,
        }
    }
}

impl Reply {
    /// Success with data.
    pub fn ok(data: Value) -> Self {
        Self { code: StatusCode::Ok, message: "OK".to_owned(), data }
    }

    /// Failure with a reason and empty data.
    pub fn fail(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: Value::Object(Map::new()) }
    }

    /// Failure by the agent itself, code 1.
    pub fn aborted(message: impl Into<String>) -> Self {
        Self::fail(StatusCode::Aborted, message)
    }
}

/// An agent: a named set of actions that a server hosts.
#[async_trait]
pub trait Agent: Send + Sync + 'static {
    /// Its description. Must not change while it is hosted.
    fn metadata(&self) -> &Metadata;

    /// Names of its actions, case-sensitive.
    fn actions(&self) -> Vec<String>;

    /// Runs one action. The host has checked that the action exists, authorized and audited the call, and
    /// drops the future at the agent's timeout (the caller then gets code 5).
    async fn call(&self, call: Call) -> Reply;

    /// Its DDL. The host checks inputs against it before the action runs (status 4), which the original leaves to
    /// clients (spec 01 sharp edge 36). Agents without one check their inputs themselves.
    fn ddl(&self) -> Option<&Ddl> {
        None
    }

    /// How long one call may take.
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.metadata().timeout.max(1))
    }
}
