//! `choria server run` (spec 03 §1.1).

use std::sync::Arc;

use choria_config::{Environment, keys};
use choria_server::{Exit as ServerExit, Server, ServerSettings};
use tokio::sync::Notify;
use tracing::info;

use crate::cli::ServerRun;
use crate::exit::{Exit, Failure, Outcome};
use crate::process::{self, SignalPolicy};
use crate::settings::daemon;

/// Runs the server until it is told to stop; a restart becomes a fresh start of this same command.
pub(crate) fn run(args: &ServerRun, debug: bool) -> Outcome {
    let config = args.config.as_deref().ok_or_else(|| {
        Failure::new("server run requires a configuration file").hint("choria server run --config FILE")
    })?;
    let build = daemon::build_settings(args.unsafe_tls.disable_tls);
    let environment = Environment::from_process().with_build_settings(build);
    let now = jiff::Timestamp::now().as_second();
    let settings = ServerSettings::load(config, args.provisioning_jwt.as_deref(), &environment, now)?;
    let logs = daemon::start_logging(settings.config(), debug)?;
    daemon::log_notes(settings.config());
    let limit = settings.config().get(&keys::SOFT_SHUTDOWN_TIMEOUT);
    let exit = process::small_runtime()?.block_on(async {
        let lifetime = process::watch_signals(SignalPolicy::daemon(limit), Some(logs))?;
        let _pid_file = args.pid.as_deref().map(process::write_pid_file).transpose()?;
        let server = Server::builder(settings).build()?;
        tokio::spawn(pass_on(lifetime.reload, server.reload()));
        Ok::<_, Failure>(server.run(lifetime.shutdown).await?)
    })?;
    match exit {
        ServerExit::Stopped | ServerExit::Shutdown => Ok(Exit::Ok),
        ServerExit::Restart => {
            info!("starting again");
            match process::restart()? {}
        }
    }
}

/// A hangup makes the server look at its configuration anew.
async fn pass_on(from: Arc<Notify>, to: Arc<Notify>) {
    loop {
        from.notified().await;
        to.notify_one();
    }
}
