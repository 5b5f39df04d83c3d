//! MCollective style RPC: DDLs, input validation, the [`Agent`] trait, authorization, audit and the way of one call.
//!
//! What must **not** be in this crate: connections, signatures (a call that comes here was verified), configuration files
//! (settings come in as values), the agents themselves.
//!
//! | Module | What |
//! |---|---|
//! | [`agent`] | the trait every agent implements, and the shapes of one call |
//! | [`dispatch`] | payload in, reply body out: parse, action, authorization, audit, inputs, call |
//! | [`ddl`] | descriptions of agents: inputs checked and converted, output defaults, aggregates |
//! | [`authz`] | who may call what: action policies |
//! | [`audit`] | the audit log |
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent;
pub mod audit;
pub mod authz;
pub mod ddl;
pub mod dispatch;

pub use agent::*;
