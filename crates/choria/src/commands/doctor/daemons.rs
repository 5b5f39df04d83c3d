//! What a broker and a provisioner need besides keys and connections: ports, file descriptors, helper, password, account.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use choria_broker::settings::Outline;
use choria_broker::{Options, Service, settings};
use choria_config::Config;
use choria_connector::{ConnectOptions, Probe, Right, ServerSource, Target};
use choria_protocol::subjects;
use choria_provisioner::config::ProvisionerConfig;
use choria_provisioner::helper::Runner;
use choria_provisioner::rules::Rules;

use super::Context;
use super::finding::Findings;
use super::{SECURITY, network, rights, token};
use crate::settings::daemon;

/// What the broker would be.
pub(super) fn outline(findings: &mut Findings, context: &Context<'_>, config: &Config) -> Option<Outline> {
    let file = config.path().map(|path| path.display().to_string()).unwrap_or_default();
    match settings::outline(config, context.environment.build_settings(), Options::default()) {
        Ok(outline) => {
            let provisioning = if outline.provisioning { "with" } else { "without" };
            let detail = format!("{}, {provisioning} an account for unprovisioned nodes", outline.identity);
            findings.ok("broker.settings", &file, detail);
            for warning in &outline.warnings {
                findings.warning("broker.settings", &file, warning, "");
            }
            Some(outline)
        }
        Err(error) => {
            findings.failed("broker.settings", file, error, "correct the setting that is named");
            None
        }
    }
}

/// Everything that a start reads, as a start reads it: for what the single checks do not know.
pub(super) fn start(findings: &mut Findings, context: &Context<'_>, config: &Config) {
    if findings.any_failed(&SECURITY) || findings.any_failed(&["token.signer"]) {
        return;
    }
    if let Err(error) = Service::with_options(
        config,
        context.environment.build_settings(),
        Options::default(),
        context.environment.clone(),
    ) {
        findings.failed("security.setup", "TLS", error, "correct the setting that is named");
    }
}

/// Whether the ports are free, or taken by this very broker.
pub(super) async fn ports(findings: &mut Findings, context: &Context<'_>, outline: &Outline) {
    let id = "listen.clients";
    let ours = match bind(outline.listen) {
        Ok(()) => {
            findings.ok(id, outline.listen, "free");
            false
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && !context.args.offline => {
            holder(findings, outline).await
        }
        Err(error) => {
            findings.failed(id, outline.listen, error, advice(outline.listen, "plugin.choria.network.client_port"));
            false
        }
    };
    for (id, address, setting) in [
        ("listen.websocket", outline.websocket, "plugin.choria.network.websocket_port"),
        ("listen.statistics", outline.statistics, "plugin.choria.stats_port"),
    ] {
        let Some(address) = address else { continue };
        match bind(address) {
            Ok(()) => findings.ok(id, address, "free"),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && ours => {
                findings.ok(id, address, "in use, as befits a broker that runs");
            }
            Err(error) => findings.failed(id, address, error, advice(address, setting)),
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<()> {
    TcpListener::bind(address).map(drop)
}

fn advice(address: SocketAddr, setting: &str) -> String {
    let port = address.port();
    format!("`ss -ltnp 'sport = :{port}'` shows who has the port; stop it, or choose another port with {setting}")
}

/// Who listens on the client port: a broker that gives itself our name is taken for ours.
async fn holder(findings: &mut Findings, outline: &Outline) -> bool {
    let id = "listen.clients";
    let ip = if outline.listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { outline.listen.ip() };
    let advice = advice(outline.listen, "plugin.choria.network.client_port");
    let mut options = ConnectOptions::new(ServerSource::Static(Vec::new()));
    options.handshake_timeout = Duration::from_secs(2);
    let greeting = match Target::new(&ip.to_string(), outline.listen.port()) {
        Some(target) => Probe::greet(&target, &options).await.map_err(|failure| failure.to_string()),
        None => Err("the port cannot be connected to".to_owned()),
    };
    match greeting {
        Ok(name) if name == outline.identity => {
            findings.ok(id, outline.listen, format!("in use by a broker named {name}: this one is running"));
            return true;
        }
        Ok(name) => findings.failed(id, outline.listen, format!("in use by another broker, named {name:?}"), advice),
        Err(reason) => {
            findings.failed(id, outline.listen, format!("in use by something that is no broker: {reason}"), advice);
        }
    }
    false
}

/// Whether as many connections as the broker would accept can be open at once.
pub(super) fn open_files(findings: &mut Findings, context: &Context<'_>, config: &Config, outline: &Outline) {
    let id = "limits.files";
    let Some(files) = daemon::raise_open_files() else {
        return findings.skipped(&[id], "the system does not tell the limit");
    };
    let limited = Options { open_files: Some(files), ..Options::default() };
    let warnings = settings::outline(config, context.environment.build_settings(), limited)
        .map(|outline| outline.warnings)
        .unwrap_or_default();
    match warnings.into_iter().find(|warning| !outline.warnings.contains(warning)) {
        Some(warning) => {
            let advice = "the limit of this shell was looked at; that of the broker's unit may be another";
            findings.warning(id, "open files", warning, advice);
        }
        None => findings.ok(id, "open files", format!("{files}, enough for {} connections", outline.max_connections)),
    }
}

/// The helper's program, or the rules in its place.
pub(super) fn helper(findings: &mut Findings, config: &ProvisionerConfig) {
    let file = config.path.display();
    match Runner::new(config) {
        Ok(Runner::None) => {
            findings.failed(
                "helper",
                file,
                "not set: every node would be refused",
                "helper: COMMAND makes a node's configuration",
            );
        }
        Ok(_) => findings.ok("helper", file, "can be run"),
        Err(error) => findings.failed("helper", file, error, "correct the setting, or what it names"),
    }
}

/// The key that tokens of nodes are checked with, and a token when one is named.
pub(super) fn provisioning_token(findings: &mut Findings, context: &Context<'_>, config: &ProvisionerConfig) {
    let file = config.path.display();
    let rules = match Rules::new(config) {
        Ok(rules) => rules,
        Err(error) => {
            let advice = "jwt_verify_cert must be the public key or certificate of whoever signs provisioning tokens";
            return findings.failed("token.signer", file, error, advice);
        }
    };
    match &config.jwt_verify_cert {
        Some(key) => findings.ok("token.signer", key, "can be used"),
        None => findings.warning(
            "token.signer",
            file,
            "features.jwt is off: nodes are provisioned without looking at their token",
            "features: jwt: true, and jwt_verify_cert: FILE",
        ),
    }
    let Some(path) = &context.args.provisioning_jwt else { return };
    let signer = super::signer(context, findings);
    let Some(token) = token::check(findings, context, path, signer.as_ref().map(|(name, key)| (name.as_str(), key)))
    else {
        return;
    };
    // As the provisioner judges the token of a node, its secret included.
    match rules.check_token(&token.text, context.now) {
        Ok(_) => findings.ok("token.accepted", path.display(), "this provisioner takes it"),
        Err(refusal) => {
            let advice = "token, jwt_verify_cert and the setting token must belong together";
            findings.failed("token.accepted", path.display(), refusal, advice);
        }
    }
}

/// Connects as the provisioner does, and finds out which account that is.
pub(super) async fn provisioner_connection(
    findings: &mut Findings,
    config: &ProvisionerConfig,
    options: &ConnectOptions,
    wanted: &[Right],
) {
    let accepted = network::connect(findings, options).await;
    let id = "provisioner.account";
    if accepted.is_empty() {
        if findings.any_failed(&["broker.connect"]) && config.broker_provisioning_password.is_some() {
            without_password(findings, options).await;
        } else {
            findings.skipped(&[id], "no broker accepted the connection");
        }
        return findings.skipped(&["rights"], "no broker accepted the connection");
    }
    for (target, mut probe) in accepted {
        let account = rights::account(&mut probe, &options.inbox_prefix).await;
        match account.as_deref() {
            Some(subjects::PROVISIONING_COLLECTIVE) => findings.ok(id, &target, "provisioning"),
            Some(other) => {
                let advice = "broker_provisioning_password: the value of \
                 plugin.choria.network.provisioning.client_password on the broker";
                findings.failed(id, &target, format!("{other}, where no unprovisioned node is"), advice);
            }
            None => findings.skipped(&[id], format!("{target} does not tell")),
        }
        rights::check(findings, &target, &mut probe, wanted).await;
    }
}

/// A refusal that goes away without the password is one of the password.
async fn without_password(findings: &mut Findings, options: &ConnectOptions) {
    let id = "provisioner.password";
    let plain = ConnectOptions { user: None, password: None, ..options.clone() };
    let mut aside = Findings::default();
    if network::connect(&mut aside, &plain).await.is_empty() {
        return findings.skipped(&[id], "the broker refuses the connection without the password, too");
    }
    findings.failed(
        id,
        "broker_provisioning_password",
        "the broker accepts our certificate, but not user provisioner with this password",
        "broker_provisioning_password must be the value of plugin.choria.network.provisioning.client_password on the \
         broker, which must be set there",
    );
}
