//! Choria protocol v1 on the wire: transport, secure, request and reply layers, RPC bodies, filters, subjects,
//! lifecycle events and registration bodies.
//!
//! Everything here is bytes in, values out (or the other way round). What must **not** be in this crate: sockets,
//! files, clocks (the caller passes `now`), private keys and certificates (`choria-security` signs and verifies the
//! exact text this crate hands it), decisions about who may do what.
//!
//! Two rules hold everywhere (spec 01 §1.1):
//! - what was received is kept as received: signatures and hashes are checked over [`v1::SecureRequest::message`] and
//!   [`v1::SecureReply::message`], never over text encoded again;
//! - what is sent is compact JSON in the documented key order, `<`, `>` and `&` escaped, everything else raw, so that
//!   encoding decoded values again gives the identical text.
//!
//! | Module | What |
//! |---|---|
//! | [`v1`] | the three layers of protocol v1 and their schema checks |
//! | [`rpc`] | bodies of RPC requests and replies, discovery payloads, the base64 rule |
//! | [`filter`] | filters as they travel, and the text forms `-F` and `-W` |
//! | [`subjects`] | every NATS subject Choria uses |
//! | [`identity`] | which names may be identities |
//! | [`window`] | message age and replays |
//! | [`lifecycle`] | lifecycle events in both encodings |
//! | [`registration`] | registration bodies |
//! | [`ids`] | request and event ids |
//! | [`json`] | writing JSON exactly as the original does |
//!
//! ```
//! use choria_protocol::{filter::Filter, ids, rpc, v1};
//!
//! let request = v1::Request {
//!     message: rpc::PING_PAYLOAD.to_owned(),
//!     envelope: v1::RequestEnvelope {
//!         request_id: ids::request_id(),
//!         sender_id: "ws1.example.net".to_owned(),
//!         caller_id: "choria=ann.mcollective".to_owned(),
//!         collective: "mcollective".to_owned(),
//!         agent: "discovery".to_owned(),
//!         ttl: 60,
//!         time: 1_795_169_188,
//!         filter: Filter::default(),
//!     },
//! };
//! let wire = v1::encode_request(&v1::SecureRequest::unsigned(request.to_text()), &v1::Headers::default());
//! let decoded = v1::decode_request(&wire)?;
//! assert_eq!(decoded.request, request);
//! # Ok::<(), v1::Error>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod base64_text;
pub mod filter;
pub mod identity;
pub mod ids;
pub mod json;
pub mod lifecycle;
pub mod registration;
pub mod rpc;
pub mod subjects;
mod tree;
pub mod v1;
pub mod window;
