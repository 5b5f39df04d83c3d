//! `choria tool provision`: which brokers a node would go to in order to be provisioned (spec 05 §7.5).

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use choria_config::{Config, Environment, Mode, keys};
use choria_connector::ServerResolver;
use choria_connector::srv::SystemResolver;
use choria_server::settings::{ProvisioningSource, ProvisioningToken};
use serde_json::json;
use tracing::level_filters::LevelFilter;
use tracing::warn;

use crate::cli::ProvisionArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::logging::{self, Sink};
use crate::process;

/// What finds the brokers, by the name that the original gives it today.
pub(crate) const RESOLVER: &str = "Choria JWT Resolver";

/// Runs the command. Whatever the configuration says, provisioning counts as on; it has no say in the brokers either.
pub(crate) fn run(args: &ProvisionArgs, config: Option<&Path>, debug: bool) -> Outcome {
    let config = config.ok_or_else(|| Failure::new("please specify the server configuration using --config"))?;
    logging::init(&Sink::Stderr, if debug { LevelFilter::DEBUG } else { LevelFilter::INFO })?;
    let environment = Environment::from_process();
    look_at(config, &environment);
    let build = Arc::new(environment.build_settings().clone());
    let compiled_in = !build.provision_broker_urls.is_empty() || build.provision_broker_srv_domain.is_some();
    let file = build.provisioning_jwt(args.provisioning_jwt.as_deref(), &environment);
    if file.is_none() && !compiled_in {
        return Err(Failure::new(
            "not a server compiled for auto provisioning or the provisioning target is not functional",
        )
        .hint(
            "name a provisioning token with --provisioning-jwt FILE; `choria buildinfo` shows where it is looked for",
        ));
    }
    let token = Arc::new(ProvisioningToken::new(file, build));
    let source = ProvisioningSource { token, resolver: Arc::new(SystemResolver) };
    if !args.json {
        writeln!(io::stdout(), "Attempting provisioner resolution using: {RESOLVER}")?;
    }
    let found = process::small_runtime()?.block_on(source.servers());
    let servers = match found {
        Ok(servers) => servers,
        Err(reason) => {
            let advice =
                "`choria jwt view FILE` shows what a token says, `choria doctor --role server` checks everything";
            return Err(Failure::new(format!("provisioning target plugin {RESOLVER} returned no servers: {reason}"))
                .hint(advice));
        }
    };
    let urls: Vec<String> = servers.iter().map(choria_connector::Target::url).collect();
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json!({"resolver": RESOLVER, "brokers": urls}))?;
    } else {
        writeln!(out, "Provisioning using {} broker(s):\n", urls.len())?;
        for url in &urls {
            writeln!(out, "\t{url}")?;
        }
        writeln!(out)?;
    }
    Ok(Exit::Ok)
}

/// The configuration is read for what it says about provisioning; as in the original, one that is missing or broken is no
/// reason to stop.
fn look_at(path: &Path, environment: &Environment) {
    match Config::load(path, Mode::Server, environment) {
        Ok(config) if config.get(&keys::SERVER_PROVISION) == Some(false) => warn!(
            "{} is false in {}: a server with this configuration is not provisioned",
            keys::SERVER_PROVISION.name(),
            path.display()
        ),
        Ok(_) => {}
        Err(error) => warn!("{error}"),
    }
}
