//! MCollective style RPC: DDLs, input validation, the Agent trait, authorization and audit.
pub mod agent;
pub use agent::*;
