//! The `nats-broker` program: an embedded broker on its own, started like nats-server (spec 07 §23).
//!
//! It owns the command line, the reading of files, users and their credentials, log, signals and the files that tell
//! wrappers about the process. What a message does is `nats-broker`'s; what a configuration text means is `nats-config`'s.
//!
//! The way of a start: [`flags`] reads the command line, `nats-config` the file, `overlay` lays one over the other, `plan`
//! makes settings of the broker, accounts and users of them, `serve` starts, does
//! what signals say, and ends.
//!
//! | Module | What |
//! |---|---|
//! | `flags`, `usage` | the command line |
//! | `overlay` | flags over the file |
//! | `plan`, `tls` | settings to broker, accounts, listeners |
//! | `users` | who may connect: passwords, tokens, keys, certificates |
//! | `operator` | users and accounts of signed tokens |
//! | `program`, `serve`, `signal`, `monitoring`, `watch` | the running process |
//! | `log`, `files` | what others read of it |

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod files;
pub mod flags;
mod log;
mod monitoring;
mod operator;
mod overlay;
mod plan;
mod program;
mod serve;
mod signal;
mod tls;
mod usage;
mod users;
mod watch;

pub use program::{SKIP_UNSUPPORTED, run};
