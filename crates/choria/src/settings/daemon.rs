//! What broker, server and provisioner have in common before they start.

use std::path::Path;

use choria_config::{BuildSettings, Config, keys};
use tracing::level_filters::LevelFilter;

use crate::exit::Failure;
use crate::logging::{self, LogHandle, Sink};

/// Starts logging as the configuration says: `logfile = stdout` goes there, an unset one to stderr.
pub(crate) fn start_logging(config: &Config, debug: bool) -> Result<LogHandle, Failure> {
    let sink = match config.is_set(&keys::LOGFILE) {
        true => Sink::from(config.get(&keys::LOGFILE)),
        false => Sink::Stderr,
    };
    let level = if debug { LevelFilter::DEBUG } else { logging::level(config.get(&keys::LOGLEVEL)) };
    Ok(logging::init(&sink, level)?)
}

/// Tells what is odd about a configuration; of settings that lost their meaning only at debug level.
pub(crate) fn log_notes(config: &Config) {
    config.notes().iter().for_each(|note| tracing::debug!(component = "config", "{note}"));
    config.warnings().iter().for_each(|warning| tracing::warn!(component = "config", "{warning}"));
}

/// Applies the hidden flags for tests.
pub(crate) fn build_settings(disable_tls: bool) -> BuildSettings {
    let mut build = BuildSettings::compiled();
    if disable_tls {
        tracing::warn!("TLS is disabled by --disable-tls");
        build.tls = false;
    }
    build
}

/// Lets this process have as many open files as the system allows at all, and says how many that are. Whoever serves a
/// fleet needs one for each node, and the usual soft limit of 1024 is for programs that cannot cope with more.
pub(crate) fn raise_open_files() -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        return Some(soft);
    }
    Some(hard)
}

/// Refuses a configuration file that is not there, before anything else fails in a less clear way.
pub(crate) fn require_file(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    Err(Failure::new(format!("configuration file {} was not found", path.display())))
}
