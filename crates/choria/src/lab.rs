//! A small fleet on this machine: its files, its processes and its helper. The demo shows one, the benchmark measures one.

pub(crate) mod helper;
pub(crate) mod layout;
pub(crate) mod parts;
pub(crate) mod start;

pub(crate) use layout::{HelperPlan, Layout, Purpose};
pub(crate) use parts::{Part, Parts};

use std::path::Path;

/// Whether what is written there stays in memory.
pub(crate) fn is_in_memory(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|facts| facts.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
}
