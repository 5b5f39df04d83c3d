//! Why a message was refused.

use std::fmt;

/// Layer of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The outermost, unsigned layer.
    Transport,
    /// Signed wrapper of a request.
    SecureRequest,
    /// Hashed wrapper of a reply.
    SecureReply,
    /// The request itself.
    Request,
    /// The reply itself.
    Reply,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transport => "transport",
            Self::SecureRequest => "secure request",
            Self::SecureReply => "secure reply",
            Self::Request => "request",
            Self::Reply => "reply",
        })
    }
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A required key is not there.
    Missing(&'static str),
    /// A key stands twice.
    DuplicateKey(&'static str),
    /// A key differs from a known one only in letter case.
    KeyInOtherCase(&'static str),
    /// Another JSON type than expected.
    WrongType {
        /// Type of the schema.
        expected: &'static str,
        /// Type in the message.
        found: &'static str,
    },
    /// An empty string where at least one character is needed.
    TooShort,
    /// Longer than allowed.
    TooLong {
        /// Most bytes allowed.
        limit: usize,
        /// Bytes found.
        found: usize,
    },
    /// Not exactly so many characters.
    WrongLength {
        /// Characters needed.
        expected: usize,
        /// Characters found.
        found: usize,
    },
    /// A number below its minimum.
    TooSmall {
        /// Smallest allowed.
        minimum: i64,
        /// Value found.
        found: i64,
    },
    /// Not one of the allowed values.
    NotAllowed(&'static str),
    /// Control characters, or others that the field cannot hold.
    BadCharacters,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(key) => write!(f, "missing properties: '{key}'"),
            Self::DuplicateKey(key) => write!(f, "key '{key}' stands more than once"),
            Self::KeyInOtherCase(key) => write!(f, "key '{key}' is spelled in another letter case"),
            Self::WrongType { expected, found } => write!(f, "expected {expected}, but got {found}"),
            Self::TooShort => write!(f, "length must be >= 1, but got 0"),
            Self::TooLong { limit, found } => write!(f, "length must be <= {limit}, but got {found}"),
            Self::WrongLength { expected, found } => write!(f, "length must be {expected}, but got {found}"),
            Self::TooSmall { minimum, found } => write!(f, "must be >= {minimum} but found {found}"),
            Self::NotAllowed(allowed) => write!(f, "value must be {allowed}"),
            Self::BadCharacters => write!(f, "holds characters that are not allowed there"),
        }
    }
}

/// Why a message of protocol v1 was refused. [`Error::reason`] is for counters, the text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Larger than we read.
    #[error("message of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Bytes received.
        size: usize,
        /// Most we take.
        limit: usize,
    },
    /// A layer is not one JSON document.
    #[error("{layer} is not JSON: {detail}")]
    NotJson {
        /// Which layer.
        layer: Layer,
        /// The parser's words.
        detail: String,
    },
    /// A transport of protocol v2, which needs the `choria` security provider.
    #[error("transport is of protocol version 2, this process speaks version 1")]
    OtherVersion,
    /// Base64 that does not decode.
    #[error("{0} is not valid base64")]
    NotBase64(&'static str),
    /// A value does not satisfy the layer's schema.
    #[error("{layer} does not match its schema: {path}{}{problem}", if path.is_empty() { "" } else { ": " })]
    Schema {
        /// Which layer.
        layer: Layer,
        /// JSON pointer of the value.
        path: String,
        /// What is wrong.
        problem: Problem,
    },
    /// The hash of a reply does not fit its text.
    #[error("hash of the reply does not match its message")]
    HashMismatch,
    /// A request without reply subject.
    #[error("request has no reply-to header, it could not be answered")]
    NoReplyTo,
    /// A request whose reply subject cannot be published to.
    #[error("reply-to header {0:?} is not a subject that can be published to")]
    InvalidReplyTo(String),
}

impl Error {
    /// A short, constant word for the cause, for counters and tests.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::NotJson { layer, .. } => match layer {
                Layer::Transport => "transport_not_json",
                Layer::SecureRequest | Layer::SecureReply => "secure_not_json",
                Layer::Request => "request_not_json",
                Layer::Reply => "reply_not_json",
            },
            Self::OtherVersion => "other_protocol_version",
            Self::NotBase64(_) => "not_base64",
            Self::Schema { layer, problem, .. } => match (layer, problem) {
                (_, Problem::DuplicateKey(_) | Problem::KeyInOtherCase(_)) => "ambiguous_key",
                (Layer::Transport, _) => "transport_schema",
                (Layer::SecureRequest | Layer::SecureReply, _) => "secure_schema",
                (Layer::Request, _) => "request_schema",
                (Layer::Reply, _) => "reply_schema",
            },
            Self::HashMismatch => "hash_mismatch",
            Self::NoReplyTo => "no_reply_to",
            Self::InvalidReplyTo(_) => "invalid_reply_to",
        }
    }
}
