//! A file system of a few pages that can be full or read-only.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "test helpers")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the system gives at least for a file, in bytes.
const PAGE: u64 = 4096;

/// A file system in memory over a directory; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one over `path`. `None`, with the reason on stderr, where that is not allowed.
    pub(crate) fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(path).output();
        let reason = match output {
            Ok(output) if output.status.success() => return Some(Self { path: path.to_owned() }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        eprintln!("SKIPPED: no file system can be mounted here, which needs root: {reason}");
        None
    }

    /// Fills it until `pages` pages of four KiB are left.
    pub(crate) fn fill(&self, pages: u64) {
        let mut file = File::create(self.ballast()).unwrap();
        let mut size = 0;
        while file.write_all(&[0; PAGE as usize]).is_ok() {
            size += PAGE;
        }
        file.set_len(size - pages * PAGE).unwrap();
    }

    /// Makes room again.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    /// Whether it can be written to from now on.
    pub(crate) fn set_read_only(&self, read_only: bool) {
        let option = if read_only { "remount,ro" } else { "remount,rw" };
        let status = Command::new("mount").args(["-o", option]).arg(&self.path).status().unwrap();
        assert!(status.success(), "{option} {}", self.path.display());
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a failing test may still have files open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}
