//! Where a benchmark happens: its directory, its files, and what becomes of them.

use std::path::{Path, PathBuf};

use choria_emulator::{Kind, Options};
use nix::sys::statfs::statfs;
use serde::Serialize;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

use crate::exit::{Exit, Failure, Outcome};
use crate::lab::{HelperPlan, Layout, Purpose, is_in_memory, layout};
use crate::logging::{self, Sink};
use crate::process::{self, SignalPolicy};

/// Where files are kept in memory on most systems.
const MEMORY: &str = "/dev/shm";
/// What a node's files take there, in bytes: a dozen files of a page each, their names, and the old ones while new ones are
/// put in their place.
const PER_NODE: u64 = 192 * 1024;

/// What a benchmark needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// What the lab is for.
    pub purpose: Purpose,
    /// Nodes.
    pub nodes: u32,
    /// Directory that was asked for.
    pub dir: Option<&'a Path>,
    /// `--debug`.
    pub debug: bool,
}

/// Makes a lab, measures in it and shows the document. The lab is removed when everything is as it shall be; otherwise its
/// place is told.
pub(crate) fn run<D, F: Future<Output = Result<D, Failure>>>(
    wish: &Wish<'_>,
    helper: impl FnOnce(&Layout) -> Result<HelperPlan, Failure>,
    measure: impl FnOnce(&Layout, CancellationToken) -> F,
    show: impl FnOnce(&D) -> Outcome,
) -> Outcome {
    logging::init(&Sink::Stderr, if wish.debug { LevelFilter::DEBUG } else { LevelFilter::ERROR })?;
    let waiting = Kind::Waiting { provisioning_jwt: PathBuf::new() };
    let needed = Options::new(wish.nodes as usize, "", waiting).open_files();
    process::allow_open_files(needed, "one connection for each node in the broker and in the emulator")?;
    process::allow_connections(wish.nodes)?;
    let (directory, temporary) = directory(wish)?;
    let layout = Layout::plan(wish.purpose, &directory, wish.nodes, 0)?;
    layout.make(&helper(&layout)?, jiff::Timestamp::now().as_second())?;
    let result = process::small_runtime()?.block_on(async {
        let lifetime = process::watch_signals(SignalPolicy::CLIENT.patient(), None)?;
        measure(&layout, lifetime.shutdown).await
    });
    match result.and_then(|document| show(&document)) {
        Ok(Exit::Ok) => Ok(Exit::Ok),
        end => {
            // Whoever looks into a failure needs the files.
            temporary.map(TempDir::keep);
            let kept = format!("everything that was made is in {}", layout.directory.display());
            end.inspect(|_| tracing::error!("{kept}")).map_err(|failure| failure.hint(kept.clone()))
        }
    }
}

/// The directory of the lab. A temporary one is made in memory where there is room: what is measured is the work of the
/// programs, not that of a disk. The document says where it was.
fn directory(wish: &Wish<'_>) -> Result<(PathBuf, Option<TempDir>), Failure> {
    if let Some(directory) = wish.dir {
        layout::claim(directory)?;
        return Ok((directory.to_owned(), None));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix("choria-bench-");
    let temporary = match free_memory(Path::new(MEMORY)) {
        Some(room) if room > PER_NODE * u64::from(wish.nodes) => {
            builder.tempdir_in(MEMORY).or_else(|_| builder.tempdir())?
        }
        _ => builder.tempdir()?,
    };
    Ok((temporary.path().to_owned(), Some(temporary)))
}

/// Free bytes of a file system in memory.
fn free_memory(path: &Path) -> Option<u64> {
    let facts = statfs(path).ok().filter(|_| is_in_memory(path))?;
    facts.blocks_available().checked_mul(u64::try_from(facts.block_size()).ok()?)
}

/// Where the files were.
#[derive(Debug, Serialize)]
pub(crate) struct Storage {
    /// The lab.
    pub directory: String,
    /// `memory` or `disk`.
    pub kind: &'static str,
}

impl Storage {
    /// Where this directory is.
    pub(crate) fn of(directory: &Path) -> Self {
        let kind = if is_in_memory(directory) { "memory" } else { "disk" };
        Self { directory: directory.display().to_string(), kind }
    }
}
