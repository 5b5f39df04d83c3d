//! The Choria server: the agent on every node. Life-cycle, provisioning mode, agent host, built-in agents, registration,
//! status. A library first: `choria server run` is a few lines over it, and other programs embed it
//! (`examples/embed.rs`, `docs/embedding.md`).
//!
//! Must not be in it: how a connection works (`choria-connector`), what messages look like (`choria-protocol`), how
//! signatures and certificates are judged (`choria-security`), who may call what (`choria-rpc`), signals and process
//! replacement (the program).
//!
//! | Module | Holds |
//! |---|---|
//! | [`settings`] | the configure phase: fleet member, waiting to be provisioned, or not starting |
//! | [`builder`] | [`ServerBuilder`]: connection, trust and agents of a server |
//! | [`server`] | [`Server`]: connect, subscribe, announce, serve, end |
//! | [`pipeline`] | from bytes to a request that may be served (sans-io) |
//! | [`host`] | agents, calls, replies |
//! | [`agents`] | `rpcutil`, `choria_util`, `discovery` |
//! | [`provision`] | `choria_provision`, staged and atomic `configure` |
//! | [`registration`] | registration data |
//! | [`events`], [`status`], [`counters`] | what the world learns of the server |
//! | [`context`], [`data`] | what agents and filters learn of it |
//! | [`observer`] | what a hosting program learns of it |
//! | [`shared`] | what servers of one process have in common |
//! | [`files`] | the disk, one operation at a time |
//! | [`control`], [`clock`], [`inputs`] | small parts that agents use |
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agents;
mod authorization;
pub mod builder;
pub mod clock;
pub mod context;
pub mod control;
pub mod counters;
pub mod data;
pub mod events;
pub mod files;
mod go_text;
pub mod host;
pub mod inputs;
pub mod observer;
pub mod pipeline;
pub mod provision;
pub mod registration;
pub mod server;
pub mod settings;
pub mod shared;
pub mod status;

pub use builder::ServerBuilder;
pub use clock::Clock;
pub use observer::Observer;
pub use server::{Exit, Server, ServerError};
pub use settings::{ConfigureError, Mode, ServerSettings};
pub use shared::Shared;

/// Author of the built-in agents.
const AUTHOR: &str = "Choria in Rust";
/// Where to read more about them.
const PROJECT_URL: &str = "https://choria.io";

/// A guard that the simulation takes away, to see whether it notices.
#[cfg(feature = "planted-bug")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// A request for a certificate makes a new key although a configuration relies on the old one.
    NewKeyAfterConfigure,
    /// The journal does not say that new content takes its names.
    CommitNotRecorded,
    /// Names are not brought to the disk.
    NamesNotSynced,
}
