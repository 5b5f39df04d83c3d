//! The Choria provisioner: finds servers that wait to be provisioned and takes them through enrolment (spec 04).
//!
//! One connection, hundreds of nodes at a time. A node is found by its startup event, by discovery or by its
//! registration data; it is asked for its token, its inventory and a certificate request; a helper decides and makes
//! its configuration; the node is configured and restarted, and watched until it is a member of the fleet.
//!
//! The cores do no I/O: they take what happened and the time, and say what to do. `run` is the thin shell
//! around them.
//!
//! | Module | Holds |
//! |---|---|
//! | [`config`] | the configuration file |
//! | [`flow`] | one node's way from its first request to the acknowledged restart |
//! | [`rules`] | what a node must show: token and certificate request |
//! | `answer` | checks of what a helper made, and the `configure` request |
//! | [`helper`] | who decides about a node: one process per node, a pool, or rules in this process |
//! | [`queue`] | who is next: order, back-off, bounds |
//! | [`inbox`] | which reply belongs to which call |
//! | [`requests`] | signed requests, one signature for many nodes where possible |
//! | [`engine`] | all of the above joined, without I/O |
//! | [`metrics`] | what `/metrics` shows |
//! | [`control`] | the control socket: status, explanations, pause |
//! | [`service`], `run`, `handle` | start and first connection; the run loop; how it is talked to |
//!
//! What must not be in this crate: keys and signing of certificates (the built-in helper says what a certificate is to hold
//! and has an authority of `choria-security` make it), rules about who may connect (`choria-broker`), what the node does
//! with what it gets (`choria-server`).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use choria_config::{BuildSettings, Config, Environment};
//! use choria_provisioner::{Provisioner, config::ProvisionerConfig};
//!
//! let config = ProvisionerConfig::load("/etc/choria-provisioner/choria-provisioner.yaml".as_ref())?;
//! let choria = Config::load_client(None, &Environment::from_process())?;
//! let provisioner = Provisioner::new(config, &choria, &BuildSettings::compiled())?;
//! provisioner.run(Default::default(), Default::default()).await?;
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod advisory;
mod answer;
pub mod config;
pub mod control;
pub mod engine;
pub mod flow;
mod handle;
pub mod helper;
mod http;
pub mod inbox;
pub mod metrics;
pub mod queue;
pub mod requests;
pub mod rules;
mod run;
pub mod service;
mod start;
mod subscriptions;
#[cfg(test)]
mod testing;

pub use handle::Handle;
pub use service::{Provisioner, RunError};
pub use start::{StartError, connection};

/// A guard that the simulation takes away, to see whether it notices.
#[cfg(feature = "planted-bug")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// A reply counts on any subject, as long as sender and request id fit.
    AnyReplySubject,
    /// A reply subject stays open after an answer.
    ReplySubjectStaysOpen,
}
