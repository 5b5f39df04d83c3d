//! `choria broker run` (spec 05 §7.11).

use choria_broker::{Options, Service};
use choria_config::{Config, Environment, Mode, keys};

use crate::cli::BrokerRun;
use crate::exit::{Exit, Outcome};
use crate::process::{self, SignalPolicy};
use crate::settings::{config_failure, daemon};

/// Runs the broker until it is told to stop.
pub(crate) fn run(args: &BrokerRun, debug: bool) -> Outcome {
    daemon::require_file(&args.config)?;
    let environment = Environment::from_process();
    let config = Config::load(&args.config, Mode::Broker, &environment).map_err(config_failure)?;
    let logs = daemon::start_logging(&config, debug)?;
    let build = daemon::build_settings(false);
    let options = Options {
        disable_tls: args.unsafe_tls.disable_tls,
        disable_verification: args.unsafe_tls.disable_ssl_verification,
        open_files: daemon::raise_open_files(),
    };
    let service = Service::with_options(&config, &build, options, environment)?;
    let limit = config.get(&keys::NETWORK_SOFT_SHUTDOWN_TIMEOUT);
    process::large_runtime()?.block_on(async {
        let lifetime = process::watch_signals(SignalPolicy::daemon(limit), Some(logs))?;
        let _pid_file = args.pid.as_deref().map(process::write_pid_file).transpose()?;
        service.run(lifetime.shutdown, lifetime.reload).await?;
        Ok(Exit::Ok)
    })
}
