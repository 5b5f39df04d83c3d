//! The life of the program: command line, start, signals, end.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nats_broker::{Broker, Observer, StartError};
use nats_config::{ConfigError, Files, Loaded, Settings};
use sha2::{Digest, Sha256};

use crate::flags::{self, Command, FlagError, Flags};
use crate::log::Log;
use crate::plan::{self, Plan, PlanError, locate};
use crate::users::hex;
use crate::{files, overlay, serve, usage};

/// The environment's word for `--skip_unsupported`.
pub const SKIP_UNSUPPORTED: &str = "NATS_BROKER_SKIP_UNSUPPORTED";

/// The command line was not understood.
const USAGE_ERROR: u8 = 2;

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Flag(#[from] overlay::FlagValueError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    #[error(transparent)]
    File(#[from] files::FileError),
    #[error(transparent)]
    Reload(#[from] nats_broker::ReloadError),
    #[error("Can't start monitoring: cannot listen on {addr}: {source}")]
    Monitoring { addr: std::net::SocketAddr, source: std::io::Error },
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Runs the program with a command line, the name of the program first, until it ends.
pub fn run(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let name = arguments.next().unwrap_or_default();
    let name = Path::new(&name)
        .file_name()
        .map_or_else(|| "nats-broker".to_owned(), |name| name.to_string_lossy().into_owned());
    match flags::parse(arguments) {
        Ok(Command::Help) => print(&usage::usage(&name)),
        Ok(Command::HelpTls) => print(usage::TLS),
        Ok(Command::Version) => print(&format!("{}\n", usage::version_line(&name))),
        Ok(Command::Signal(text)) => {
            crate::signal::send(&text).map_or_else(|error| fail(&name, &error), |()| ExitCode::SUCCESS)
        }
        Ok(Command::Run(flags)) if flags.check => check(&name, &flags),
        Ok(Command::Run(flags)) => run_broker(&name, &flags),
        Err(FlagError::Command(error)) => fail(&name, &error),
        Err(FlagError::Usage(error)) => {
            let _ = print(&usage::usage(&name));
            say(&format!("{error}\n"));
            ExitCode::from(USAGE_ERROR)
        }
    }
}

fn print(text: &str) -> ExitCode {
    // Whoever closes the pipe has read enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn fail(name: &str, error: &dyn std::fmt::Display) -> ExitCode {
    say(&format!("{name}: {error}\n"));
    ExitCode::FAILURE
}

/// Files of the disk, and the environment.
struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<String, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("open {}: {}", path.display(), reason(&error)))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn environment(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// What the system says, without its number.
fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// Settings of file and flags.
pub(crate) fn load(flags: &Flags) -> Result<Loaded, ProgramError> {
    let mut loaded = match &flags.config {
        Some(path) => nats_config::load(Path::new(path), &Disk)?,
        None => Loaded::default(),
    };
    overlay::lay_over(&mut loaded.settings, flags)?;
    Ok(loaded)
}

pub(crate) fn plan(flags: &Flags, settings: &Settings) -> Result<Plan, PlanError> {
    let says_so = |value: String| !matches!(value.as_str(), "" | "0" | "false");
    let skips = flags.skip_unsupported || std::env::var(SKIP_UNSUPPORTED).is_ok_and(says_so);
    plan::make(settings, skips)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// `-t`: everything that a start would look at, but for the ports.
fn check(name: &str, flags: &Flags) -> ExitCode {
    let Some(config) = &flags.config else {
        return fail(name, &"must specify [-c, --config] option to check configuration file syntax");
    };
    let checked = || -> Result<bool, ProgramError> {
        let loaded = load(flags)?;
        let plan = plan(flags, &loaded.settings)?;
        for warning in &loaded.warnings {
            say(&format!("{name}: {warning}\n"));
        }
        runtime()?.block_on(try_start(plan, &loaded.settings))?;
        Ok(!loaded.warnings.iter().any(|warning| warning.fails_check))
    };
    match checked() {
        Ok(true) => {
            say(&format!("{name}: configuration file {config} is valid (sha256:{})\n", digest(config)));
            ExitCode::SUCCESS
        }
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(name, &error),
    }
}

struct Unobserved;

impl Observer for Unobserved {}

/// Starts a broker that listens nowhere, so that it says what it thinks of its accounts.
pub(crate) async fn try_start(mut plan: Plan, settings: &Settings) -> Result<(), PlanError> {
    plan.broker.listen.clear();
    let broker = Broker::start(plan.broker, plan.accounts, plan.users, Vec::new(), Arc::new(Unobserved))
        .map_err(|error| refused(&error, settings))?;
    broker.shutdown().await;
    Ok(())
}

pub(crate) fn refused(error: &StartError, settings: &Settings) -> PlanError {
    PlanError::new(locate(error, settings), error.to_string())
}

fn run_broker(name: &str, flags: &Flags) -> ExitCode {
    let (loaded, plan) = match load(flags).and_then(|loaded| Ok((plan(flags, &loaded.settings)?, loaded))) {
        Ok((plan, loaded)) => (loaded, plan),
        Err(error) => return fail(name, &error),
    };
    let log = match Log::start(plan.log.clone()) {
        Ok(log) => log,
        Err(error) => return fail(name, &error),
    };
    let has_file = plan.log.file.is_some();
    let ended = runtime().map_err(ProgramError::from).and_then(|runtime| {
        let ended = runtime.block_on(serve::live(flags, loaded, plan, &log));
        // A password that is still being hashed keeps nobody waiting.
        runtime.shutdown_timeout(Duration::from_millis(100));
        ended
    });
    match ended {
        Ok(()) => {
            log.flush();
            ExitCode::SUCCESS
        }
        Err(error) => {
            log.fatal(&error.to_string());
            if has_file { fail(name, &error) } else { ExitCode::FAILURE }
        }
    }
}

/// Digest of the text of a file, to tell versions of a configuration apart.
pub(crate) fn digest(path: &str) -> String {
    std::fs::read(path).map(|text| hex(&Sha256::digest(&text))).unwrap_or_default()
}
