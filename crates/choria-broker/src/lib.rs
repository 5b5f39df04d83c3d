//! The Choria broker: who may connect and what they may do, the accounts and what crosses between them, statistics.
//!
//! The message broker itself is `nats-broker`, which knows nothing of Choria. This crate gives it Choria's decisions.
//! It must not contain: routing, wire formats, TLS configuration (`choria-security`), token formats
//! (`choria-tokens`), the reading of command lines or PID files (the binary).
//!
//! | Module | What |
//! |---|---|
//! | [`policy`] | the connection decision, a pure function with one module per kind of connection |
//! | [`guard`] | unprovisioned nodes announce only themselves |
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod guard;
pub mod policy;
