//! `choria bench provisioning`: a lab, broker, provisioner and emulated nodes as processes of this program, and one document.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use choria_emulator::Options;
use choria_security::keys::KeyKind;
use tempfile::TempDir;
use tracing::level_filters::LevelFilter;

use super::document::Document;
use super::run::{self, Plan};
use crate::cli::{BenchHelper, BenchProvisioning};
use crate::exit::{Exit, Failure, Outcome};
use crate::lab::{HelperPlan, Layout, Purpose, helper, layout};
use crate::logging::{self, Sink};
use crate::print::bench as print;
use crate::process::{self, SignalPolicy};

/// Where files are kept in memory on most systems.
const MEMORY: &str = "/dev/shm";
/// What a node's files take there, in bytes: a dozen files of a page each, and their names.
const PER_NODE: u64 = 96 * 1024;

/// Runs the benchmark.
pub(crate) fn run(args: &BenchProvisioning, debug: bool) -> Outcome {
    logging::init(&Sink::Stderr, if debug { LevelFilter::DEBUG } else { LevelFilter::ERROR })?;
    let needed = Options::new(args.nodes as usize, "", no_token()).open_files();
    process::allow_open_files(needed, "one connection for each node in the broker and in the emulator")?;
    let (directory, temporary) = directory(args)?;
    let layout = Layout::plan(Purpose::Bench, &directory, args.nodes, 0)?;
    layout.make(&helper_plan(args, &layout)?, jiff::Timestamp::now().as_second())?;
    let plan = Plan {
        layout: &layout,
        key: choria_emulator::key_name(args.key.into()),
        rate: args.rate,
        wait_all_first: args.wait_all_first,
        limit: args.timeout.unwrap_or_else(|| patience(args)),
        quiet: args.json,
    };
    let result = process::small_runtime()?.block_on(async {
        let lifetime = process::watch_signals(SignalPolicy::CLIENT.patient(), None)?;
        run::run(&plan, &lifetime.shutdown).await
    });
    match result.and_then(|measured| show(args, &Document::new(args, &layout, &measured))) {
        Ok(Exit::Ok) => Ok(Exit::Ok),
        end => {
            // Whoever looks into a failure needs the files.
            temporary.map(TempDir::keep);
            let kept = format!("everything that was made is in {}", layout.directory.display());
            end.inspect(|_| tracing::error!("{kept}")).map_err(|failure| failure.hint(kept))
        }
    }
}

fn show(args: &BenchProvisioning, document: &Document) -> Outcome {
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(document)?)?;
    } else {
        write!(out, "{}", print::provisioning(document))?;
    }
    out.flush()?;
    Ok(if document.lost == 0 && document.duplicated == 0 { Exit::Ok } else { Exit::Failed })
}

/// Only for counting open files.
fn no_token() -> choria_emulator::Kind {
    choria_emulator::Kind::Waiting { provisioning_jwt: PathBuf::new() }
}

/// Long enough for a small machine: a fixed part, and what the slowest key takes for each node.
fn patience(args: &BenchProvisioning) -> Duration {
    let per_node = match args.key.into() {
        KeyKind::Rsa2048 => Duration::from_millis(400),
        KeyKind::P256 | KeyKind::Ed25519 => Duration::from_millis(100),
    };
    Duration::from_secs(60) + per_node * args.nodes
}

fn helper_plan(args: &BenchProvisioning, layout: &Layout) -> Result<HelperPlan, Failure> {
    let command = match &args.helper_command {
        Some(command) => command.clone(),
        None => helper::command(layout)?,
    };
    Ok(match args.helper {
        BenchHelper::Builtin => HelperPlan::builtin(layout),
        BenchHelper::Exec => HelperPlan::process(&command),
        BenchHelper::Persistent => HelperPlan::persistent(&command, args.helper_processes.into()),
    })
}

/// The directory of the lab. A temporary one is made in memory where there is room: what is measured is the work of the
/// programs, not that of a disk. The document says where it was.
fn directory(args: &BenchProvisioning) -> Result<(PathBuf, Option<TempDir>), Failure> {
    if let Some(directory) = &args.dir {
        layout::claim(directory)?;
        return Ok((directory.clone(), None));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix("choria-bench-");
    let room = free_bytes(Path::new(MEMORY)).unwrap_or(0);
    let temporary = if room > PER_NODE * u64::from(args.nodes) * 2 {
        builder.tempdir_in(MEMORY).or_else(|_| builder.tempdir())?
    } else {
        builder.tempdir()?
    };
    Ok((temporary.path().to_owned(), Some(temporary)))
}

fn free_bytes(path: &Path) -> Option<u64> {
    let facts = nix::sys::statfs::statfs(path).ok()?;
    if facts.filesystem_type() != nix::sys::statfs::TMPFS_MAGIC {
        return None;
    }
    facts.blocks_available().checked_mul(u64::try_from(facts.block_size()).ok()?)
}
