//! Thousands of real Choria servers in one process, and what is measured with them.
//!
//! Each node is a [`choria_server::Server`] as `choria server run` runs it: a directory, a configuration file, a key and
//! files of its own, a TLS connection of its own. A restart loads the settings anew, as the program does when it executes
//! itself. What such a node leaves out compared with a process is listed in [`LEFT_OUT`] and in every report.
//!
//! Must not be in it: a second implementation of anything that a server does (`choria-server` does it), and starting
//! other programs (the binary's business).
//!
//! | Module | Holds |
//! |---|---|
//! | [`options`] | how many nodes, which, how fast |
//! | [`emulator`] | [`Emulator`]: makes the nodes' directories, runs them, reports |
//! | [`node`] | one node: its starts, and the books that are kept of it |
//! | [`members`] | configurations and certificates of nodes that come as fleet members |
//! | [`report`] | counts, times and the report |
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod emulator;
pub mod members;
pub mod node;
pub mod options;
pub mod report;

pub use emulator::{Emulator, Handle, SetupError, key_name};
pub use options::{Goal, Kind, Membership, Options};
pub use report::{Counts, Quantiles, Report, Sample, quantile};

/// What an emulated node leaves out compared with a process of its own.
pub const LEFT_OUT: [&str; 4] = [
    "all nodes share one process: one runtime, one allocator, one page cache",
    "a restart loads the settings anew in the same process instead of executing the program",
    "nodes see none of this process's environment variables and ask no name server for their name",
    "no log files: nodes log to this process's stderr, and no more than errors unless asked",
];
