//! `choria emulate`: many nodes in one process.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use choria_emulator::{Counts, Emulator, Goal, Handle, Kind, Membership, Options, Report};
use indicatif::ProgressBar;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

use crate::cli::{EmulateArgs, Until};
use crate::exit::{Exit, Failure, Outcome};
use crate::lab::is_in_memory;
use crate::logging::{self, Sink};
use crate::print::bench as print;
use crate::process::{self, SignalPolicy};
use crate::text;

/// How often the nodes are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Threads that may wait for a disk at the same time. More would not make it faster.
const DISK_THREADS: usize = 32;
/// How often people without a terminal are told.
const TELL: Duration = Duration::from_secs(2);

/// Runs the command.
pub(crate) fn run(args: &EmulateArgs, debug: bool) -> Outcome {
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::ERROR };
    logging::init(&Sink::Stderr, level)?;
    let options = options(args)?;
    process::allow_open_files(options.open_files(), "one connection for each node")?;
    let goal = options.goal;
    let emulator = Emulator::new(options)?;
    let (threads, blocking) = threads(args);
    let report = process::emulation_runtime(threads, blocking)?.block_on(async {
        let lifetime = process::watch_signals(SignalPolicy::CLIENT.patient(), None)?;
        let until = Ends { shutdown: lifetime.shutdown.clone(), once: args.once, timeout: args.timeout, goal };
        let handle = emulator.handle();
        let follow = args.follow;
        let watch = tokio::spawn(async move { watch(&handle, &until, follow).await });
        let report = emulator.run(lifetime.shutdown.clone()).await;
        lifetime.shutdown.cancel();
        watch.await??;
        Ok::<_, Failure>(report)
    })?;
    show(args, report)
}

/// Threads for the nodes, and for their work with files and keys: that waits for processors, or for a disk.
fn threads(args: &EmulateArgs) -> (usize, usize) {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let blocking = if is_in_memory(&args.dir) { processors } else { processors.max(DISK_THREADS) };
    (args.threads.map_or_else(|| (processors / 2).max(1), usize::from), blocking)
}

fn options(args: &EmulateArgs) -> Result<Options, Failure> {
    let kind = match &args.provisioning_jwt {
        Some(path) => Kind::Waiting { provisioning_jwt: existing(path.clone())? },
        None => Kind::Members(Membership {
            authority: args.ca.clone().ok_or_else(|| Failure::new("--members needs --ca DIR"))?,
            brokers: args.brokers.clone(),
            collectives: args.collectives.clone(),
        }),
    };
    let mut options = Options::new(args.nodes as usize, &args.dir, kind);
    options.names.clone_from(&args.names);
    options.key = args.key.into();
    options.rate = args.rate;
    options.starting = args.starting;
    options.goal = match args.until {
        Until::Waiting => Goal::Waiting,
        Until::Members => Goal::Member,
    };
    Ok(options)
}

fn existing(path: PathBuf) -> Result<PathBuf, Failure> {
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new(format!("there is no provisioning token {}", path.display()))
        .hint("choria jwt provisioning makes one"))
}

/// What ends the emulation.
struct Ends {
    shutdown: CancellationToken,
    once: bool,
    timeout: Duration,
    goal: Goal,
}

/// Tells how far the nodes are, and ends the emulation where that was asked for.
async fn watch(handle: &Handle, ends: &Ends, follow: bool) -> Result<(), Failure> {
    let began = Instant::now();
    let bar = progress_bar(handle.counts().nodes as u64);
    let mut tick = tokio::time::interval(LOOK);
    let (mut last, mut told) = (None, Instant::now());
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = ends.shutdown.cancelled() => {
                bar.abandon();
                return Ok(());
            }
        }
        let counts = handle.counts();
        if last != Some(counts) {
            if follow {
                let mut out = std::io::stdout().lock();
                writeln!(out, "{}", serde_json::to_string(&counts)?)?;
                out.flush()?;
            } else if bar.is_hidden() && told.elapsed() >= TELL {
                let _ = writeln!(std::io::stderr(), "{}", words(&counts));
                told = Instant::now();
            }
            bar.set_position(if ends.goal == Goal::Waiting { counts.waiting } else { counts.members } as u64);
            bar.set_message(words(&counts));
            last = Some(counts);
        }
        let (_, open) = handle.progress(ends.goal);
        if ends.once && (open == 0 || began.elapsed() >= ends.timeout) {
            ends.shutdown.cancel();
        }
    }
}

fn words(counts: &Counts) -> String {
    let Counts { nodes, started, connected, waiting, configured, members, failed } = counts;
    let failed = if *failed == 0 { String::new() } else { format!(", {failed} failed") };
    format!(
        "{nodes} nodes: {started} started, {connected} connected, {waiting} waiting, {configured} configured, \
         {members} members{failed}"
    )
}

fn progress_bar(nodes: u64) -> ProgressBar {
    if !text::live_stderr() {
        return ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("[{bar:40}] {msg}")
        .map_or_else(|_| indicatif::ProgressStyle::default_bar(), |style| style.progress_chars("=> "));
    ProgressBar::new(nodes).with_style(style)
}

fn show(args: &EmulateArgs, mut report: Report) -> Outcome {
    if !args.samples {
        report.samples.clear();
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(out, "{}", print::emulation(&report))?;
    }
    out.flush()?;
    Ok(if report.lost == 0 && report.duplicated == 0 { Exit::Ok } else { Exit::Failed })
}
