//! From flags, configuration files and environment to what an operation needs.

pub(crate) mod daemon;
pub(crate) mod filter;
pub(crate) mod role;
pub(crate) mod selection;

use std::path::Path;
use std::time::Duration;

use choria_client::{Client, ClientOptions, ConnectError};
use choria_config::{Config, Environment, keys};
use tracing::level_filters::LevelFilter;
use tracing::warn;

use crate::cli::ConnectionArgs;
use crate::exit::Failure;
use crate::logging::{self, Sink};
use crate::process::{self, SignalPolicy};

/// What a client command runs with.
#[derive(Debug)]
pub(crate) struct ClientSettings {
    /// The client configuration.
    pub config: Config,
    connect_timeout: Duration,
    disable_tls: bool,
    unsigned: bool,
}

impl ClientSettings {
    /// Loads the configuration of a command with the usual connection flags.
    pub(crate) fn load(args: &ConnectionArgs, debug: bool) -> Result<Self, Failure> {
        Self::load_from(args.config.as_deref(), args.connect_timeout, debug)
    }

    /// Loads the configuration from this file, or from the first one of the usual places.
    pub(crate) fn load_from(file: Option<&Path>, connect_timeout: Duration, debug: bool) -> Result<Self, Failure> {
        let environment = Environment::from_process();
        let config = Config::load_client(file, &environment).map_err(config_failure)?;
        start_logging(&config, debug)?;
        let (disable_tls, unsigned) = insecure(&environment)?;
        Ok(Self { config, connect_timeout, disable_tls, unsigned })
    }

    /// Connects, does the work, closes. One thread, one connection.
    pub(crate) fn run<T>(&self, work: impl AsyncFnOnce(&Client) -> Result<T, Failure>) -> Result<T, Failure> {
        process::small_runtime()?.block_on(async {
            let lifetime = process::watch_signals(SignalPolicy::CLIENT, None)?;
            let options = ClientOptions {
                connect_timeout: self.connect_timeout,
                cancel: lifetime.shutdown.clone(),
                disable_tls: self.disable_tls,
                unsigned: self.unsigned,
                ..ClientOptions::default()
            };
            let client = Client::connect(&self.config, options).await.map_err(|error| connect_failure(&error))?;
            let result = work(&client).await;
            client.close().await;
            result
        })
    }
}

/// Why no connection was made, with what to do.
pub(crate) fn connect_failure(error: &ConnectError) -> Failure {
    let failure = Failure::from_error(error);
    failure.hint(error.hint().unwrap_or("`choria doctor` looks at every step of the way and says what to do"))
}

/// A configuration that cannot be used; its text names file, line and value.
pub(crate) fn config_failure(error: choria_config::ConfigError) -> Failure {
    let missing = error.is_missing_file();
    let failure = Failure::from(error);
    if missing { failure.hint("name the file with --config FILE") } else { failure }
}

/// Client commands log to stderr or to the configured file; never to stdout, and no more than warnings unless asked.
fn start_logging(config: &Config, debug: bool) -> Result<(), Failure> {
    let sink = match Sink::from(config.get(&keys::LOGFILE)) {
        Sink::Stdout => Sink::Stderr,
        other => other,
    };
    let level = match (debug, config.is_set(&keys::LOGLEVEL)) {
        (true, _) => LevelFilter::DEBUG,
        (false, true) => logging::level(config.get(&keys::LOGLEVEL)),
        (false, false) => LevelFilter::WARN,
    };
    logging::init(&sink, level)?;
    daemon::log_notes(config);
    Ok(())
}

/// The switches for laboratories (spec 05 §1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InsecureSwitches {
    /// Plain TCP.
    pub disable_tls: bool,
    /// Plain TCP and unsigned requests.
    pub unsigned: bool,
    /// TLS without a certificate, which needs client tokens.
    anonymous_tls: bool,
}

/// Reads the switches; nothing is said about them.
pub(crate) fn insecure_switches(environment: &Environment) -> InsecureSwitches {
    let on = |name: &str| environment.variable(name).is_some_and(|value| value == "true");
    let unsigned = on("INSECURE_YES_REALLY");
    InsecureSwitches {
        disable_tls: unsigned || on("INSECURE_DISABLE_TLS"),
        unsigned,
        anonymous_tls: on("INSECURE_ANON_TLS"),
    }
}

fn insecure(environment: &Environment) -> Result<(bool, bool), Failure> {
    let InsecureSwitches { disable_tls, unsigned, anonymous_tls } = insecure_switches(environment);
    if anonymous_tls {
        return Err(Failure::new("INSECURE_ANON_TLS needs client tokens, which this version does not have")
            .hint("unset it, or use INSECURE_DISABLE_TLS in a laboratory"));
    }
    if unsigned {
        warn!("INSECURE_YES_REALLY: connecting without TLS and sending unsigned requests");
    } else if disable_tls {
        warn!("INSECURE_DISABLE_TLS: connecting without TLS");
    }
    Ok((disable_tls, unsigned))
}
