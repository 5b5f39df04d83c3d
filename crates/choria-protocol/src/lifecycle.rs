//! Lifecycle events: what components say when they start, stop, live on or are provisioned (spec 01 §5.6, spec 03 §5).
//!
//! Two encodings carry the same object: plain, and wrapped in a CloudEvents 1.0 envelope. The provisioner sends plain,
//! servers send CloudEvents unless told otherwise.

use std::fmt;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::json::push_string;
use crate::subjects;

/// Largest event that is read, in bytes.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;

const PREFIX: &str = "io.choria.lifecycle.v1.";
const SOURCE: &str = "io.choria.lifecycle";

/// Component of a server with its configuration.
pub const SERVER: &str = "server";
/// Component of a server that waits for its configuration.
pub const PROVISION_MODE_SERVER: &str = "provision_mode_server";
/// Component of a provisioner.
pub const PROVISIONER: &str = "provisioner";
/// Component of a broker.
pub const BROKER: &str = "broker";

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A component started.
    Startup {
        /// Its version.
        version: String,
    },
    /// A component stops.
    Shutdown,
    /// A server got its configuration.
    Provisioned,
    /// A component is alive.
    Alive {
        /// Its version.
        version: String,
    },
    /// A component replaced its own program.
    Upgraded {
        /// Old version.
        version: String,
        /// New version.
        new_version: String,
    },
    /// A governor's slot was taken or given back.
    Governor {
        /// Name of the governor.
        governor: String,
        /// Number of the slot.
        sequence: u64,
        /// `enter`, `exit`, `timeouts` or `eviction`.
        event_type: String,
    },
    /// A broker refused a connection in the name of somebody who is there, or a provisioner refused a node, what was made for
    /// it, or a message in its name. The original has no such event, and its tools skip types that they do not know.
    Refused {
        /// Countable reason, such as `claim_held` or `csr_name`.
        reason: String,
        /// Address of the refused peer; empty when there is none.
        remote: String,
        /// The whole sentence with the value that was refused, without secrets; left out when empty.
        message: String,
    },
}

impl Kind {
    /// The word in protocol ids and subjects.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Startup { .. } => "startup",
            Self::Shutdown => "shutdown",
            Self::Provisioned => "provisioned",
            Self::Alive { .. } => "alive",
            Self::Upgraded { .. } => "upgraded",
            Self::Governor { .. } => "governor",
            Self::Refused { .. } => "refused",
        }
    }
}

/// A lifecycle event. Make a fresh one each time: the original repeats the id and time of its first alive event
/// (spec 03 §17 row 25).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// Random id, see [`crate::ids::event_id`].
    pub id: String,
    /// Whom it happened to.
    pub identity: String,
    /// Component, such as [`SERVER`].
    pub component: String,
    /// Unix seconds.
    pub timestamp: i64,
}

/// Why a text is no lifecycle event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Larger than any event.
    #[error("event of {size} bytes is larger than the limit of {MAX_EVENT_BYTES}")]
    TooLarge {
        /// Bytes received.
        size: usize,
    },
    /// Not JSON.
    #[error("event is not JSON: {0}")]
    NotJson(String),
    /// Neither of the two encodings.
    #[error("unsupported event format")]
    Format,
    /// A type that does not exist.
    #[error("unknown event type {0:?}")]
    UnknownType(String),
    /// A field is missing or of another type.
    #[error("event field {0} is missing or of the wrong type")]
    Field(&'static str),
    /// Envelope and content disagree on who or what.
    #[error("envelope and content of the event disagree about {0}")]
    Contradiction(&'static str),
}

impl Event {
    /// Reads an event in either encoding. Old protocol ids `choria:lifecycle:<type>:1` are understood.
    ///
    /// # Errors
    /// See [`EventError`]. An envelope that names another identity, type or id than its content is refused, so that the
    /// identity of an event is one name in every reader's eyes.
    pub fn parse(bytes: &[u8]) -> Result<Self, EventError> {
        if bytes.len() > MAX_EVENT_BYTES {
            return Err(EventError::TooLarge { size: bytes.len() });
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|error| EventError::NotJson(error.to_string()))?;
        let Value::Object(map) = value else { return Err(EventError::Format) };
        if map.contains_key("specversion") { Self::from_envelope(&map) } else { Self::from_plain(&map) }
    }

    fn from_envelope(map: &Map<String, Value>) -> Result<Self, EventError> {
        let field = |key| map.get(key).and_then(Value::as_str);
        if field("specversion") != Some("1.0") || field("source") != Some(SOURCE) {
            return Err(EventError::Format);
        }
        let data = map.get("data").and_then(Value::as_object).ok_or(EventError::Field("data"))?;
        let event = Self::from_plain(data)?;
        let inner = data.get("protocol").and_then(Value::as_str);
        for (key, inside, name) in [
            ("subject", Some(event.identity.as_str()), "identity"),
            ("type", inner, "type"),
            ("id", Some(&*event.id), "id"),
        ] {
            if field(key).is_some() && field(key) != inside {
                return Err(EventError::Contradiction(name));
            }
        }
        Ok(event)
    }

    fn from_plain(map: &Map<String, Value>) -> Result<Self, EventError> {
        let text =
            |key: &'static str| map.get(key).and_then(Value::as_str).map(str::to_owned).ok_or(EventError::Field(key));
        let protocol = map.get("protocol").and_then(Value::as_str).ok_or(EventError::Format)?;
        let kind = protocol
            .strip_prefix(PREFIX)
            .or_else(|| protocol.strip_prefix("choria:lifecycle:")?.strip_suffix(":1"))
            .ok_or(EventError::Format)?;
        let kind = match kind {
            "startup" => Kind::Startup { version: text("version")? },
            "shutdown" => Kind::Shutdown,
            "provisioned" => Kind::Provisioned,
            "alive" => Kind::Alive { version: text("version")? },
            "upgraded" => Kind::Upgraded { version: text("version")?, new_version: text("new_version")? },
            "governor" => Kind::Governor {
                governor: text("governor")?,
                sequence: map.get("sequence").and_then(Value::as_u64).ok_or(EventError::Field("sequence"))?,
                event_type: text("event_type")?,
            },
            "refused" => Kind::Refused {
                reason: text("reason")?,
                remote: text("remote")?,
                message: map.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
            },
            other => return Err(EventError::UnknownType(other.to_owned())),
        };
        Ok(Self {
            kind,
            id: text("id")?,
            identity: text("identity")?,
            component: text("component")?,
            timestamp: map.get("timestamp").and_then(Value::as_i64).ok_or(EventError::Field("timestamp"))?,
        })
    }

    /// The plain encoding.
    pub fn to_plain(&self) -> String {
        let mut out = String::with_capacity(256);
        self.push_plain(&mut out);
        out
    }

    /// The CloudEvents encoding.
    pub fn to_cloud_event(&self) -> String {
        let mut out = String::with_capacity(512);
        out.push_str("{\"specversion\":\"1.0\",\"id\":");
        push_string(&mut out, &self.id);
        let _ = write!(out, ",\"source\":\"{SOURCE}\",\"type\":\"{PREFIX}{}\",\"subject\":", self.kind.name());
        push_string(&mut out, &self.identity);
        out.push_str(",\"datacontenttype\":\"application/json\",\"time\":");
        // Times outside of what a calendar can show become its start; only a hand-made event has one.
        let time = Timestamp::from_second(self.timestamp).unwrap_or(Timestamp::UNIX_EPOCH);
        push_string(&mut out, &time.to_string());
        out.push_str(",\"data\":");
        self.push_plain(&mut out);
        out.push('}');
        out
    }

    fn push_plain(&self, out: &mut String) {
        let _ = write!(out, "{{\"protocol\":\"{PREFIX}{}\"", self.kind.name());
        let text = |out: &mut String, key: &str, value: &str| {
            let _ = write!(out, ",\"{key}\":");
            push_string(out, value);
        };
        text(out, "id", &self.id);
        text(out, "identity", &self.identity);
        text(out, "component", &self.component);
        let _ = write!(out, ",\"timestamp\":{}", self.timestamp);
        match &self.kind {
            Kind::Startup { version } | Kind::Alive { version } => text(out, "version", version),
            Kind::Upgraded { version, new_version } => {
                text(out, "version", version);
                text(out, "new_version", new_version);
            }
            Kind::Governor { governor, sequence, event_type } => {
                text(out, "governor", governor);
                let _ = write!(out, ",\"sequence\":{sequence}");
                text(out, "event_type", event_type);
            }
            Kind::Refused { reason, remote, message } => {
                text(out, "reason", reason);
                text(out, "remote", remote);
                if !message.is_empty() {
                    text(out, "message", message);
                }
            }
            Kind::Shutdown | Kind::Provisioned => {}
        }
        out.push('}');
    }

    /// The subject this event is published on.
    pub fn subject(&self) -> String {
        subjects::lifecycle(self.kind.name(), &self.component)
    }
}

/// One line for people, as `choria tool event` prints after the time.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, identity, component, .. } = self;
        write!(f, "[{}] {identity}: ", kind.name())?;
        match kind {
            Kind::Startup { version } | Kind::Alive { version } => write!(f, "{component} version {version}"),
            Kind::Upgraded { version, new_version } => write!(f, "{component} version {version} to {new_version}"),
            Kind::Shutdown | Kind::Provisioned => f.write_str(component),
            Kind::Refused { reason, remote, message } => {
                // Only brokers know where a peer is; everybody else refuses more than connections.
                match (component.as_str(), remote.is_empty()) {
                    (BROKER, true) => write!(f, "{component} refused a connection of this name: {reason}")?,
                    (_, true) => write!(f, "{component} refused: {reason}")?,
                    (_, false) => write!(f, "{component} refused a connection of this name from {remote}: {reason}")?,
                }
                if message.is_empty() { Ok(()) } else { write!(f, ": {}", one_line(message)) }
            }
            Kind::Governor { governor, sequence, event_type } => {
                let verb = match event_type.as_str() {
                    "enter" => "obtained slot",
                    "exit" => "vacated slot",
                    "timeouts" => "timed out waiting for a slot",
                    "eviction" => "was evicted from slot",
                    _ => return write!(f, "unknown stage on Governor {governor}"),
                };
                match sequence {
                    0 => write!(f, "{verb} on {governor}"),
                    _ if event_type == "timeouts" => write!(f, "{verb} on {governor}"),
                    _ => write!(f, "{verb} {sequence} on {governor}"),
                }
            }
        }
    }
}

/// Words of somebody else for a terminal: no line ends, no control characters.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
