//! `choria provisioner run`, also under the name `choria-provisioner` (spec 04 §2); what asks a running one is in `control`.

use choria_config::{BuildSettings, Config, Environment};
use choria_provisioner::config::{LogLevel, LogTarget, ProvisionerConfig};
use choria_provisioner::{Handle, Provisioner};
use tokio::signal::unix::{Signal, SignalKind};
use tracing::level_filters::LevelFilter;

use crate::cli::{ProvisionerArgs, ProvisionerCommand};
use crate::exit::{Exit, Failure, Outcome};
use crate::logging::{self, Sink};
use crate::process::{self, SignalPolicy};
use crate::settings::{config_failure, daemon};

mod control;
mod rules;

/// Runs one of the provisioner's commands.
pub(crate) fn run(args: &ProvisionerArgs, debug: bool) -> Outcome {
    let config = args.config.as_deref();
    match &args.command {
        None | Some(ProvisionerCommand::Run) => run_daemon(args, debug),
        Some(ProvisionerCommand::Status(control)) => control::status(control, config),
        Some(ProvisionerCommand::Explain(explain)) => control::explain(explain, config),
        Some(ProvisionerCommand::Pause(control)) => control::pause(control, config),
        Some(ProvisionerCommand::Resume(control)) => control::resume(control, config),
        Some(ProvisionerCommand::Rules(args)) => rules::run(args, config),
    }
}

/// Runs the provisioner until it is told to stop.
fn run_daemon(args: &ProvisionerArgs, debug: bool) -> Outcome {
    let path = args.config.as_deref().ok_or_else(|| {
        Failure::new("the provisioner requires a configuration file").hint("choria provisioner run --config FILE")
    })?;
    let config = ProvisionerConfig::load(path)?;
    let environment = Environment::from_process();
    let choria = Config::load_client(args.choria_config.as_deref(), &environment).map_err(|error| {
        let missing = error.is_missing_file();
        let failure = config_failure(error);
        if missing { failure.hint("name the Choria configuration with --choria-config FILE") } else { failure }
    })?;
    let level = if debug { LevelFilter::DEBUG } else { level(config.loglevel) };
    let logs = logging::init(&sink(&config.logfile), level)?;
    config.warnings.iter().for_each(|warning| tracing::warn!(component = "config", "{warning}"));
    daemon::log_notes(&choria);
    let drain = config.drain_timeout + std::time::Duration::from_secs(2);
    process::large_runtime()?.block_on(async {
        let lifetime = process::watch_signals(SignalPolicy::daemon(drain), Some(logs))?;
        let steering = (process::listen(SignalKind::user_defined1())?, process::listen(SignalKind::user_defined2())?);
        let provisioner = Provisioner::new(config, &choria, &BuildSettings::compiled())?;
        tokio::spawn(steer(provisioner.handle(), steering));
        let _pid_file = args.pid.as_deref().map(process::write_pid_file).transpose()?;
        provisioner.run(lifetime.shutdown, lifetime.reload).await?;
        Ok(Exit::Ok)
    })
}

/// SIGUSR1 pauses, SIGUSR2 goes on, as the control endpoints of the monitor port do.
async fn steer(provisioner: Handle, (mut pause, mut resume): (Signal, Signal)) {
    loop {
        tokio::select! {
            Some(()) = pause.recv() => provisioner.pause().await,
            Some(()) = resume.recv() => provisioner.resume().await,
            else => return,
        }
    }
}

fn sink(target: &LogTarget) -> Sink {
    match target {
        LogTarget::Stderr => Sink::Stderr,
        LogTarget::Stdout => Sink::Stdout,
        LogTarget::Discard => Sink::Discard,
        LogTarget::File(path) => Sink::File(path.clone()),
    }
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error | LogLevel::Fatal => LevelFilter::ERROR,
    }
}
