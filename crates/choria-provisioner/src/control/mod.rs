//! The control socket: how `choria provisioner status`, `explain`, `pause` and `resume` talk to a running provisioner.
//!
//! A Unix socket for its owner only. One JSON line asks, one JSON line answers, then the connection is closed. Both are
//! bounded, a few connections are served at a time and each has a deadline, so a slow or greedy peer costs itself.
//!
//! [`types`] is what travels, [`place`] where the socket is, [`serve`] the provisioner's side, [`ask`] the other one.

pub mod client;
pub mod place;
pub(crate) mod server;
pub mod types;

pub use client::{AskError, ask};
pub use server::{BindError, Listener, bind, serve};
pub use types::{Answer, Request};

/// Longest question in bytes; names are far shorter.
pub const MAX_REQUEST: usize = 4096;
/// Longest answer in bytes. What is remembered of one node is bounded far below it.
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;
