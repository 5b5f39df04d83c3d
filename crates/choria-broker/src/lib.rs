//! The Choria broker: who may connect and what they may do, the accounts and what crosses between them, statistics.
//!
//! The message broker itself is `nats-broker`, which knows nothing of Choria. This crate gives it Choria's decisions.
//! It must not contain: routing, wire formats, TLS configuration (`choria-security`), token formats
//! (`choria-tokens`), the reading of command lines or PID files (the binary).
//!
//! | Module | What |
//! |---|---|
//! | [`policy`] | the connection decision, a pure function with one module per kind of connection |
//! | `authenticator` | a CONNECT of the network broker as facts for the policy |
//! | [`guard`] | unprovisioned nodes announce only themselves |
//! | `accounts` | `system`, `choria`, `provisioning` and what crosses between them |
//! | [`settings`] | the configuration, read and checked as a whole |
//! | `watch`, `loglimit`, `tls_failure` | counters, log lines and events about refusals |
//! | `metrics`, `stats`, `process` | Prometheus, the statistics port, figures of this process |
//! | `trust` | which CA is behind a client's certificate |
//! | [`service`], `reload` | start, drain; replacing what is configured |
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accounts;
mod authenticator;
mod error;
pub mod guard;
mod loglimit;
mod metrics;
pub mod policy;
mod process;
mod reload;
pub mod service;
pub mod settings;
mod stats;
mod tls_failure;
mod trust;
mod watch;

pub use error::{ReloadError, RunError, SettingsError, StartError};
pub use reload::Reloaded;
pub use service::{Handle, Service};
pub use settings::Options;
