//! `choria doctor`: what is wrong here, and what to do about it.
//!
//! Looks at everything that a program of one role depends on, in the order in which it depends on it: configuration, keys
//! and certificates, token, clock, names, the broker, rights. Nothing is changed and nothing is sent that anybody hears.
//!
//! | Module | Checks |
//! |---|---|
//! | [`configuration`] | configuration files |
//! | [`certificates`] | keys and certificates |
//! | [`token`] | the provisioning token |
//! | [`clock`] | the clock |
//! | [`network`] | names of brokers, TCP, TLS, CONNECT |
//! | [`rights`] | what the broker lets us do |
//! | [`daemons`] | what a broker and a provisioner need besides |
//! | [`finding`] | what a check found |

mod certificates;
mod clock;
mod configuration;
mod daemons;
pub(crate) mod finding;
mod network;
mod rights;
mod token;

use std::io::Write;
use std::path::Path;

use choria_client::ClientOptions;
use choria_config::{Config, Environment, Mode, keys};
use choria_connector::{ConnectOptions, Right};
use choria_protocol::subjects;
use choria_security::provider::Surroundings;
use choria_server::{Server, ServerSettings};
use choria_tokens::VerificationKey;
use tracing::level_filters::LevelFilter;

use self::certificates::Duty;
use self::finding::{Findings, Status};
use crate::cli::{DoctorArgs, Role};
use crate::exit::{Exit, Failure, Outcome};
use crate::logging::{self, Sink};
use crate::settings::{insecure_switches, role};
use crate::text::waiting;
use crate::{print, process};

/// Usual place of a server's configuration.
const SERVER_CONFIG: &str = "/etc/choria/server.conf";
/// Usual place of a broker's.
const BROKER_CONFIG: &str = "/etc/choria/broker.conf";
/// Usual place of a provisioner's (spec 04 §14).
const PROVISIONER_CONFIG: &str = "/etc/choria-provisioner/choria-provisioner.yaml";

/// What belongs to keys and certificates: when it fails, no connection can be set up.
const SECURITY: [&str; 4] = ["security.", "ca.", "certificate.", "key."];

/// What all checks share.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    args: &'a DoctorArgs,
    environment: Environment,
    /// Unix seconds.
    now: i64,
}

impl Context<'_> {
    fn expires_soon(&self, end: i64) -> bool {
        end - self.now < i64::try_from(self.args.expiry_warning.as_secs()).unwrap_or(i64::MAX)
    }
}

/// Runs the command.
pub(crate) fn run(args: &DoctorArgs, debug: bool) -> Outcome {
    // What is logged on the way would repeat the findings.
    logging::init(&Sink::Stderr, if debug { LevelFilter::DEBUG } else { LevelFilter::ERROR })?;
    let role = args.role.unwrap_or_else(|| args.config.as_deref().map_or(Role::Client, role::guess));
    let environment = Environment::from_process();
    let now = jiff::Timestamp::now().as_second();
    let context = Context { args, environment, now };
    let mut findings = Findings::default();
    let spinner = (!args.offline).then(|| waiting("looking"));
    process::small_runtime()?.block_on(check(role, &context, &mut findings));
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &findings.shown(args.quiet))?;
        writeln!(out)?;
    } else {
        write!(out, "{}", print::doctor::text(role, &findings, args.quiet, crate::text::colour_stdout(true)))?;
    }
    Ok::<_, Failure>(if findings.count(Status::Failed) == 0 { Exit::Ok } else { Exit::Failed })
}

async fn check(role: Role, context: &Context<'_>, findings: &mut Findings) {
    match role {
        Role::Client => client(context, findings).await,
        Role::Server => server(context, findings).await,
        Role::Provisioner => provisioner(context, findings).await,
        Role::Broker => broker(context, findings).await,
    }
}

async fn client(context: &Context<'_>, findings: &mut Findings) {
    let Some(config) = configuration::client(findings, context, context.args.config.as_deref()) else {
        return findings
            .skipped(&["security.provider", "clock", "brokers", "rights"], "the configuration cannot be used");
    };
    let surroundings = Surroundings::from_environment(&context.environment);
    let switches = insecure_switches(&context.environment);
    if switches.unsigned {
        findings.skipped(&["security.provider"], "INSECURE_YES_REALLY turns TLS and signatures off");
    } else {
        certificates::check(findings, context, &config, &Duty::Caller, std::slice::from_ref(&surroundings));
    }
    a_token_if_named(context, findings);
    clock::check(findings, context);
    let options = ClientOptions {
        surroundings: surroundings.clone(),
        disable_tls: switches.disable_tls,
        unsigned: switches.unsigned,
        ..ClientOptions::default()
    };
    let connection = choria_client::connection(&config, &options).map_err(|error| error.to_string());
    let (collectives, main) = (config.get(&keys::COLLECTIVES), config.get(&keys::MAIN_COLLECTIVE));
    let name = surroundings.certname(Mode::Client, &config.get(&keys::IDENTITY)).unwrap_or_default();
    let rights = rights::caller(&collectives, &main, &format!("choria={name}"));
    brokers(context, findings, connection, &rights).await;
}

async fn server(context: &Context<'_>, findings: &mut Findings) {
    let path = configuration::usual(context.args.config.as_deref(), SERVER_CONFIG);
    // A node that waits to be provisioned needs no configuration; what it then is, is the next check.
    if path.exists() {
        configuration::choria(findings, context, &path, Mode::Server);
    } else {
        findings.skipped(&["config.file"], format!("{} does not exist", path.display()));
    }
    let jwt = context.args.provisioning_jwt.as_deref();
    let settings = match ServerSettings::inspect(&path, jwt, &context.environment, context.now) {
        Ok(settings) => settings,
        Err(error) => {
            let advice = "correct the configuration, or put a provisioning token where `choria buildinfo` says";
            findings.failed("server.mode", path.display(), error, advice);
            return findings.skipped(&["security.provider", "brokers", "rights"], "the server does not start");
        }
    };
    let mode = if settings.is_provisioning() { "unprovisioned: it waits for a provisioner" } else { "a fleet member" };
    let notes = settings.notes().iter().map(|note| format!("; {note}")).collect::<String>();
    findings.ok("server.mode", settings.identity(), format!("{mode}{notes}"));
    if settings.is_provisioning() {
        unprovisioned(context, findings, settings).await;
    } else {
        member(context, findings, settings).await;
    }
}

async fn member(context: &Context<'_>, findings: &mut Findings, settings: ServerSettings) {
    let config = settings.config().clone();
    let surroundings = Surroundings::from_environment(&context.environment);
    certificates::check(findings, context, &config, &Duty::Node, &[surroundings]);
    a_token_if_named(context, findings);
    clock::check(findings, context);
    starts(findings, &settings);
    let rights = rights::node(&config.get(&keys::COLLECTIVES), &settings.identity());
    let connection = Server::builder(settings).connection().map_err(|error| error.to_string());
    brokers(context, findings, connection, &rights).await;
}

/// Whether the server would be made of these settings: for what the single checks do not know.
fn starts(findings: &mut Findings, settings: &ServerSettings) {
    let id = "server.settings";
    match Server::builder(settings.clone()).build() {
        Ok(_) => findings.ok(id, settings.identity(), "registration, authorization and trust can be set up"),
        Err(_) if findings.any_failed(&SECURITY) => {
            findings.skipped(&[id], "keys and certificates cannot be used, see above");
        }
        Err(error) => findings.failed(id, settings.identity(), error, "correct the setting that is named"),
    }
}

/// A node with a token and without a certificate.
async fn unprovisioned(context: &Context<'_>, findings: &mut Findings, settings: ServerSettings) {
    match settings.token().path().map(Path::to_owned) {
        Some(path) => {
            let signer = signer(context, findings);
            token::check(findings, context, &path, signer.as_ref().map(|(name, key)| (name.as_str(), key)));
        }
        None => findings.skipped(&["token.file"], "no token file is configured; the build has one inside"),
    }
    clock::check(findings, context);
    // Under a name of its own: the node itself may be running, and holds its name at the broker.
    let name = format!("doctor.{}", settings.identity());
    let name = if choria_protocol::identity::is_valid(&name) { name } else { "doctor".to_owned() };
    let rights = rights::node(&[subjects::PROVISIONING_COLLECTIVE.to_owned()], &name);
    let connection = Server::builder(settings).connection().map_err(|error| error.to_string());
    let connection = connection.map(|options| ConnectOptions { name, ..options });
    brokers(context, findings, connection, &rights).await;
}

async fn provisioner(context: &Context<'_>, findings: &mut Findings) {
    let path = configuration::usual(context.args.config.as_deref(), PROVISIONER_CONFIG);
    let own = configuration::provisioner(findings, &path);
    let choria = configuration::client(findings, context, context.args.choria_config.as_deref());
    let (Some(own), Some(choria)) = (own, choria) else {
        let because = "the configuration cannot be used";
        return findings.skipped(&["helper", "security.provider", "clock", "brokers", "rights"], because);
    };
    daemons::helper(findings, &own);
    if own.choria_insecure {
        findings.skipped(&["security.provider"], "choria_insecure turns TLS and signatures off");
    } else {
        let here = Surroundings::from_environment(&context.environment);
        let daemon = Surroundings { root: true, ..Surroundings::default() };
        certificates::check(findings, context, &choria, &Duty::Caller, &[here, daemon]);
    }
    daemons::provisioning_token(findings, context, &own);
    clock::check(findings, context);
    let connection = choria_provisioner::connection(&own, &choria).map_err(|error| error.to_string());
    let caller_id = format!("choria={}", choria.get(&keys::IDENTITY));
    let rights = rights::provisioner(&own.lifecycle_component, &caller_id);
    let Some(options) = set_up(context, findings, connection) else { return };
    daemons::provisioner_connection(findings, &own, &options, &rights).await;
}

async fn broker(context: &Context<'_>, findings: &mut Findings) {
    let path = configuration::usual(context.args.config.as_deref(), BROKER_CONFIG);
    let Some(config) = configuration::choria(findings, context, &path, Mode::Broker) else {
        let because = "the configuration cannot be used";
        return findings.skipped(&["broker.settings", "security.provider", "clock", "listen.clients"], because);
    };
    let outline = daemons::outline(findings, context, &config);
    if outline.as_ref().is_none_or(|outline| outline.tls) {
        let surroundings = Surroundings::from_environment(&context.environment);
        let host = outline.as_ref().map_or_else(|| config.get(&keys::IDENTITY), |outline| outline.advertised.clone());
        certificates::check(findings, context, &config, &Duty::Broker(host), &[surroundings]);
    } else {
        findings.skipped(&["security.provider"], "TLS is off");
    }
    token_of_broker(context, findings, &config);
    clock::check(findings, context);
    let Some(outline) = outline else {
        return findings.skipped(&["listen.clients", "limits.files"], "the broker does not start");
    };
    daemons::start(findings, context, &config);
    daemons::ports(findings, context, &outline).await;
    daemons::open_files(findings, context, &config, &outline);
}

/// The key that provisioning tokens are checked with on a broker, and a token when one is named.
fn token_of_broker(context: &Context<'_>, findings: &mut Findings, config: &Config) {
    let setting = keys::NETWORK_PROVISIONING_SIGNER_CERT;
    let configured = config.get(&setting).and_then(|path| match VerificationKey::from_file(&path) {
        Ok(key) => {
            findings.ok("token.signer", path.display(), key.kind());
            Some((setting.name().to_owned(), key))
        }
        Err(error) => {
            let advice = "the file must hold the public key or certificate of whoever signs provisioning tokens";
            findings.failed("token.signer", setting.name(), error, advice);
            None
        }
    });
    if let Some(path) = &context.args.provisioning_jwt {
        let signer = signer(context, findings).or(configured);
        token::check(findings, context, path, signer.as_ref().map(|(name, key)| (name.as_str(), key)));
    }
}

/// Whoever is no unprovisioned node needs no token; one that is named is looked at all the same.
fn a_token_if_named(context: &Context<'_>, findings: &mut Findings) {
    if let Some(path) = &context.args.provisioning_jwt {
        let signer = signer(context, findings);
        token::check(findings, context, path, signer.as_ref().map(|(name, key)| (name.as_str(), key)));
    }
}

/// The key in `--signer`.
fn signer(context: &Context<'_>, findings: &mut Findings) -> Option<(String, VerificationKey)> {
    let path = context.args.signer.as_ref()?;
    match VerificationKey::from_file(path) {
        Ok(key) => Some((path.display().to_string(), key)),
        Err(error) => {
            let advice =
                "it must be the signer's certificate or public key (PEM) or Ed25519 public key (64 hex characters)";
            findings.failed("token.signer", path.display(), error, advice);
            None
        }
    }
}

/// How the program would connect; none when that cannot be said or must not be tried.
fn set_up(
    context: &Context<'_>,
    findings: &mut Findings,
    connection: Result<ConnectOptions, String>,
) -> Option<ConnectOptions> {
    match connection {
        Ok(_) if context.args.offline => findings.skipped(&["brokers", "rights"], "--offline"),
        Ok(options) => return Some(options),
        Err(_) if findings.any_failed(&SECURITY) => {
            findings.skipped(&["brokers", "rights"], "keys and certificates cannot be used, see above");
        }
        Err(reason) => {
            findings.failed("security.setup", "TLS and signatures", reason, "correct the setting that is named");
            findings.skipped(&["brokers", "rights"], "the connection cannot be set up");
        }
    }
    None
}

/// Names, connection and rights.
async fn brokers(
    context: &Context<'_>,
    findings: &mut Findings,
    connection: Result<ConnectOptions, String>,
    rights: &[Right],
) {
    let Some(options) = set_up(context, findings, connection) else { return };
    let accepted = network::connect(findings, &options).await;
    if accepted.is_empty() {
        return findings.skipped(&["rights"], "no broker accepted the connection");
    }
    for (target, mut probe) in accepted {
        rights::check(findings, &target, &mut probe, rights).await;
    }
}
