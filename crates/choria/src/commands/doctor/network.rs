//! From the names of the brokers to an accepted connection.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use choria_connector::servers::DEFAULT_BROKER;
use choria_connector::{ConnectFailure, ConnectOptions, Probe, ServerSource, Stage, Target};

use super::certificates::listed;
use super::finding::Findings;

/// The checks of one broker, in the order of a connection, and what is said of a stage that went well.
const STAGES: [(Stage, &str, &str); 4] = [
    (Stage::Dial, "broker.tcp", "connected"),
    (Stage::Greeting, "broker.protocol", "speaks NATS"),
    (Stage::Tls, "broker.tls", "handshake done"),
    (Stage::Connect, "broker.connect", "accepted"),
];

/// All checks that need the network.
pub(super) const ALL: [&str; 6] = ["brokers", "dns", "broker.tcp", "broker.protocol", "broker.tls", "broker.connect"];

/// How long a broker may take from the TCP connection to its answer. It may ask another connection of our name first,
/// which takes 2 s.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Finds the brokers and connects to each of them once. Those that accepted us come back.
pub(super) async fn connect(findings: &mut Findings, options: &ConnectOptions) -> Vec<(Target, Probe)> {
    let mut options = options.clone();
    options.handshake_timeout = HANDSHAKE;
    let mut accepted = Vec::new();
    for target in brokers(findings, &options).await {
        match Probe::connect(&target, &options).await {
            Ok(probe) => {
                welcome(findings, &target, &probe, options.tls.is_some());
                accepted.push((target, probe));
            }
            Err(failure) => refusal(findings, &target, &failure),
        }
    }
    accepted
}

/// The brokers whose names resolve.
async fn brokers(findings: &mut Findings, options: &ConnectOptions) -> Vec<Target> {
    let found = match &options.servers {
        ServerSource::Static(targets) => Ok(targets.clone()),
        ServerSource::Resolver(resolver) => resolver.servers().await,
    };
    let mut targets = match found {
        Ok(targets) => targets,
        Err(reason) => {
            findings.failed("brokers", "brokers to connect to", reason, "see the checks of the token above");
            findings.skipped(&ALL[1..], "no broker is known");
            return Vec::new();
        }
    };
    targets.sort_by_key(ToString::to_string);
    let (host, port) = DEFAULT_BROKER;
    if targets.iter().all(|target| target.host() == host && target.port() == port) {
        let detail = format!("none is configured and no SRV record was found, so {host}:{port} is tried");
        findings.warning("brokers", "brokers to connect to", detail, "plugin.choria.middleware_hosts = HOST:PORT");
    } else {
        findings.ok("brokers", "brokers to connect to", listed(&targets));
    }
    let mut hosts: BTreeMap<String, bool> = BTreeMap::new();
    for target in &targets {
        if !hosts.contains_key(target.host()) {
            hosts.insert(target.host().to_owned(), resolves(findings, target).await);
        }
    }
    targets.retain(|target| hosts.get(target.host()).copied().unwrap_or_default());
    if targets.is_empty() {
        findings.skipped(&ALL[2..], "no broker's name has an address");
    }
    targets
}

async fn resolves(findings: &mut Findings, target: &Target) -> bool {
    let host = target.host();
    if host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let problem = match tokio::net::lookup_host((host, target.port())).await {
        Ok(addresses) => {
            let mut addresses: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
            addresses.dedup();
            if !addresses.is_empty() {
                findings.ok("dns", host, listed(addresses));
                return true;
            }
            "the name has no address".to_owned()
        }
        Err(error) => error.to_string(),
    };
    findings.failed("dns", host, problem, "is the name written right? `getent hosts NAME` asks the same resolver");
    false
}

fn welcome(findings: &mut Findings, target: &Target, probe: &Probe, tls: bool) {
    for (stage, id, good) in STAGES {
        match stage {
            Stage::Tls if !tls => {
                findings.warning(id, target, "the connection is clear text", "use TLS outside of laboratories");
            }
            Stage::Connect => {
                let (name, version) = (probe.server_name(), probe.server_version());
                findings.ok(id, target, format!("{good} by {name}, version {version}"));
            }
            _ => findings.ok(id, target, good),
        }
    }
}

fn refusal(findings: &mut Findings, target: &Target, failure: &ConnectFailure) {
    let (reason, advice) = words(failure);
    if failure.stage() == Stage::Prepare {
        return findings.failed("broker.connect", target, reason, advice);
    }
    for (stage, id, good) in STAGES {
        match stage.cmp(&failure.stage()) {
            Ordering::Less => findings.ok(id, target, good),
            Ordering::Equal => findings.failed(id, target, &reason, advice.clone()),
            Ordering::Greater => findings.skipped(&[id], format!("the connection to {target} failed before")),
        }
    }
}

/// The failure and what to do about it, in two texts.
fn words(failure: &ConnectFailure) -> (String, String) {
    let (reason, hint) = match failure {
        ConnectFailure::Dial { reason, hint, .. }
        | ConnectFailure::Tls { reason, hint, .. }
        | ConnectFailure::Refused { reason, hint, .. } => (reason.clone(), *hint),
        ConnectFailure::TlsMismatch { reason, .. } => ((*reason).to_owned(), "both ends must have TLS on, or both off"),
        ConnectFailure::Broken { reason, .. } => (reason.clone(), ""),
        ConnectFailure::NoServers(reason) | ConnectFailure::Credentials(reason) => (reason.clone(), ""),
    };
    let hint = match (hint, failure.stage()) {
        ("", Stage::Greeting) => "a broker greets at once: is something else on this port?",
        ("", Stage::Tls) => "see the broker's log for its side of it",
        ("", Stage::Connect) => "see the broker's log for the reason",
        ("", _) => "see the checks above",
        (hint, _) => hint,
    };
    (reason, hint.to_owned())
}
