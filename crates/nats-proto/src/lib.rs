//! Sans-io NATS client protocol: what goes over the wire between a client and a broker, and nothing else.
//!
//! No sockets, no clocks, no threads and no policy belong here: bytes in, values out, and back.
//! Wire facts are in spec 07 §2-§5.
//!
//! | Module | What |
//! |---|---|
//! | [`connect`] | the CONNECT options of a client |
//! | [`info`] | the INFO line of a broker |
//! | [`parser`] | [`Parser`]: operations of clients, cut out of a byte stream without copying |
//! | [`server_op`] | the same for the other direction: what a broker sends |
//! | [`encode`] | appending protocol lines to a buffer |
//! | [`headers`] | [`HeaderMap`], the `NATS/1.0` header block |
//! | [`subject`] | validity, matching, subset and overlap of subjects |
//! | [`trie`] | [`trie::SubjectTrie`], an index of subject filters |
//! | [`websocket`] | frames around all of this for clients that speak WebSocket |

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod connect;
pub mod encode;
pub mod headers;
pub mod info;
pub mod parser;
pub mod server_op;
pub mod subject;
pub mod trie;
pub mod websocket;

pub use connect::{Connect, ConnectError};
pub use headers::{HeaderError, HeaderMap};
pub use info::Info;
pub use parser::{ClientOp, Limits, Parsed, Parser, Publish, Violation};
