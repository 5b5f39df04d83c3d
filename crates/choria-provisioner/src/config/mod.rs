//! The provisioner's configuration file (spec 04 §3).
//!
//! YAML (JSON is YAML). Strict where the original shrugs: a wrong type, an unknown word or an invalid pattern
//! is a start error with file, line and column; a key that this build does not know is warned about with the
//! nearest known name; a key that asks for something this build cannot do is an error, never ignored.

mod error;
mod helper;
mod inspection;
mod operate;
pub(crate) mod reader;
pub(crate) mod yaml;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use choria_config::duration::DurationError;
use choria_security::patterns::Patterns;
use choria_tokens::Secret;
pub use error::{ConfigError, Position};
pub use helper::{BuiltinHelper, Helper, ProgramHelper, ProgramMode};
pub use inspection::Inspection;
use inspection::{Faults, inspect_text, read};
pub use operate::ControlSocket;
use reader::{Located, Section};

/// Longest secret that nodes accept in `token` (the DDL of `choria_provision`).
const MAX_TOKEN: usize = 128;

const KNOWN: &[&str] = &[
    "workers",
    "interval",
    "logfile",
    "loglevel",
    "helper",
    "token",
    "lifecycle_component",
    "choria_insecure",
    "site",
    "monitor_port",
    "broker_provisioning_password",
    "cert_deny_list",
    "jwt_verify_cert",
    "jwt_signing_key",
    "jwt_signing_token",
    "server_jwt_validity",
    "leader_election",
    "leader_election_name",
    "upgrades_repository",
    "upgrades_optional",
    "features",
    "rego_policy",
    "broker_port",
    "broker_choria_password",
    "management",
    "helper_mode",
    "helper_processes",
    "helper_pipeline",
    "helper_timeout",
    "rules",
    "ca_directory",
    "max_nodes",
    "node_budget",
    "verify_restart",
    "verify_timeout",
    "drain_timeout",
    "monitor_address",
    "control_socket",
    "helper_rate",
    "ca_rate",
];

const KNOWN_FEATURES: &[&str] = &["pki", "jwt", "ed25519", "upgrades", "broker"];

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LogTarget {
    /// Standard error, also when `logfile` is unset.
    #[default]
    Stderr,
    /// Standard output, as an explicitly empty `logfile` asks for.
    Stdout,
    /// Nowhere.
    Discard,
    /// A file, appended, in JSON lines.
    File(PathBuf),
}

/// Lowest level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens to each node.
    #[default]
    Info,
    /// What an operator should look at.
    Warn,
    /// What failed.
    Error,
    /// Only what ends the process.
    Fatal,
}

/// Whether the provisioner waits for a node to come back as a fleet member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyRestart {
    /// On as soon as this broker has shown one startup event of the fleet, off (and said so) until then.
    #[default]
    Auto,
    /// A node that is not seen is counted and warned about from the first one on.
    On,
    /// Not looked at.
    Off,
}

/// Which parts of the flow are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// The node makes a key and a CSR, the helper returns a certificate.
    pub pki: bool,
    /// The node's provisioning token is fetched and verified.
    pub jwt: bool,
}

/// The configuration of one provisioner.
#[derive(Debug, Clone)]
pub struct ProvisionerConfig {
    /// The file it came from.
    pub path: PathBuf,
    /// Processes of a helper program at the same time; never 0. See [`Self::helper_calls`].
    pub workers: usize,
    /// Discovery period, at least a minute.
    pub interval: Duration,
    /// Where the log goes.
    pub logfile: LogTarget,
    /// Lowest level logged.
    pub loglevel: LogLevel,
    /// The helper; absent means that nothing can be provisioned and nodes are refused with that reason.
    pub helper: Option<Helper>,
    /// Secret sent in every `choria_provision` call.
    pub token: Secret,
    /// Last token of the lifecycle event subject.
    pub lifecycle_component: String,
    /// Clear text and unsigned requests.
    pub choria_insecure: bool,
    /// Label `site` on every metric.
    pub site: String,
    /// Port of `/metrics`; absent = off.
    pub monitor_port: Option<u16>,
    /// Address of the monitor port; absent = all.
    pub monitor_address: Option<IpAddr>,
    /// Password of user `provisioner` on the broker.
    pub broker_provisioning_password: Option<Secret>,
    /// Names that never get a certificate.
    pub cert_deny_list: Patterns,
    /// Path of a key file, or a hex Ed25519 public key; looked at by `Checks`.
    pub jwt_verify_cert: Option<String>,
    /// What the flow does.
    pub features: Features,
    /// Nodes in the flow at the same time.
    pub max_nodes: usize,
    /// Longest time one node may be in the flow, waiting for the helper not counted.
    pub node_budget: Duration,
    /// Whether nodes are watched until they are fleet members.
    pub verify_restart: VerifyRestart,
    /// How long a node may take from `restart` to its startup event as a fleet member.
    pub verify_timeout: Duration,
    /// How long a stop waits for nodes in the flow.
    pub drain_timeout: Duration,
    /// Helper calls per second; `None` = no limit.
    pub helper_rate: Option<f64>,
    /// Nodes with a certificate request that are handed to the helper per second; `None` = no limit.
    pub ca_rate: Option<f64>,
    /// Where `choria provisioner status` and `explain` ask.
    pub control_socket: ControlSocket,
    /// What the operator should know about this file; log them at start.
    pub warnings: Vec<String>,
}

impl ProvisionerConfig {
    /// Reads and checks a file. Key files and the helper's program are looked at by
    /// [`crate::Provisioner::new`].
    ///
    /// # Errors
    /// The first fault with its place in the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_text(path, &read(path)?)
    }

    /// The same for a text that was read elsewhere; `path` only names it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let Inspection { config, faults, .. } = inspect_text(path, text);
        match (config, faults.into_iter().next()) {
            (Some(config), None) => Ok(config),
            (_, Some(fault)) => Err(fault),
            // Nothing is refused without a fault.
            (None, None) => Err(ConfigError::Empty(path.to_owned())),
        }
    }

    /// Reads a file as [`Self::load`] does, and tells all faults and warnings where that stops at the first fault.
    ///
    /// # Errors
    /// Only when the file cannot be read.
    pub fn inspect(path: &Path) -> Result<Inspection, ConfigError> {
        Ok(inspect_text(path, &read(path)?))
    }

    /// Reads every setting; what cannot be used becomes a fault, and a default in its place.
    fn collect(path: &Path, top: &Section<'_>, faults: &mut Faults, mut warnings: Vec<String>) -> Self {
        top.audit(KNOWN, &mut warnings);
        // The order of the first checks is the reference's, so that a file with two faults tells the same one first.
        let features = top.section("features", "features.");
        let features = features.inspect(|section| section.audit(KNOWN_FEATURES, &mut warnings));
        let lifecycle_component = faults.take(lifecycle_component(top));
        let features = faults.take(features.and_then(|section| read_features(&section, &mut warnings)));
        let interval = faults.take(interval(top));
        faults.take(top.text("server_jwt_validity").and_then(|validity| {
            let prefix = "invalid server jwt validity duration: ";
            validity.map(|validity| parse_duration(&validity, prefix)).transpose().map(drop)
        }));
        faults.take(refuse_unavailable(top));
        warn_without_effect(top, &mut warnings);

        let workers = faults.take(workers(top));
        let helper = helper::read(top, workers, features, &mut warnings);
        Self {
            path: path.to_owned(),
            workers,
            interval,
            logfile: faults.take(logfile(top)),
            loglevel: faults.take(loglevel(top)),
            helper: faults.take(helper),
            token: faults.take(token(top)),
            lifecycle_component,
            choria_insecure: faults.take(flag(top, "choria_insecure")),
            site: faults.take(top.text("site")).map(|site| site.value).unwrap_or_default(),
            monitor_port: faults.take(monitor_port(top)),
            monitor_address: faults.take(monitor_address(top)),
            broker_provisioning_password: faults
                .take(top.text("broker_provisioning_password"))
                .filter(|password| !password.value.is_empty())
                .map(|password| Secret::new(password.value)),
            cert_deny_list: faults.take_or(deny_list(top), Patterns::default_deny),
            jwt_verify_cert: faults.take(top.text("jwt_verify_cert")).map(|v| v.value).filter(|v| !v.is_empty()),
            features,
            max_nodes: faults.take(count(top, "max_nodes", 1000, 1_000_000)),
            node_budget: faults.take(duration(top, "node_budget", Duration::from_secs(300))),
            verify_restart: faults.take(verify_restart(top)),
            verify_timeout: faults.take(duration(top, "verify_timeout", Duration::from_secs(60))),
            drain_timeout: faults.take(duration(top, "drain_timeout", Duration::from_secs(30))),
            helper_rate: faults.take(operate::rate(top, "helper_rate")),
            ca_rate: faults.take(operate::rate(top, "ca_rate")),
            control_socket: faults.take(operate::control_socket(top)),
            warnings,
        }
    }

    /// How many questions may be with the helper at the same time: `workers` of them with a process for each, processes
    /// times pipeline with persistent ones.
    pub fn helper_calls(&self) -> usize {
        self.helper.as_ref().map_or(self.workers, |helper| helper.calls(self.workers))
    }

    /// Adds warnings about settings that work but should be known.
    fn with_advice(mut self) -> Self {
        let name = self.path.display().to_string();
        let mut advise = |text: &str| self.warnings.push(format!("{name}: {text}"));
        if self.choria_insecure {
            advise("choria_insecure is on: requests are unsigned and the connection is clear text");
        }
        if self.broker_provisioning_password.is_none() && !self.choria_insecure {
            advise(
                "broker_provisioning_password is not set: the broker will not put this provisioner into the account where nodes wait",
            );
        }
        if self.helper.is_none() {
            advise(
                "neither helper nor helper_mode: builtin is set: every node will be refused, no configuration can be made for it",
            );
        }
        self
    }
}

fn top_section<'a>(path: &'a Path, text: &str, warnings: &mut Vec<String>) -> Result<Section<'a>, ConfigError> {
    let documents = yaml::parse(text).map_err(|fault| ConfigError::Syntax {
        path: path.to_owned(),
        line: fault.line,
        column: fault.column,
        reason: fault.reason,
    })?;
    if documents.len() > 1 {
        warnings.push(format!("{}: only the first YAML document of the file counts", path.display()));
    }
    let Some(node) = documents.into_iter().next() else { return Err(ConfigError::Empty(path.to_owned())) };
    match node.value {
        yaml::Value::Map(entries) if !entries.is_empty() => Ok(Section::new(path, "", entries)),
        yaml::Value::Map(_) | yaml::Value::Null => Err(ConfigError::Empty(path.to_owned())),
        other => Err(ConfigError::NotAMapping {
            at: Position { path: path.to_owned(), line: node.line, column: node.column },
            found: other.describe(),
        }),
    }
}

fn invalid<T>(at: Position, reason: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { at, reason: reason.into() })
}

fn flag(top: &Section<'_>, key: &str) -> Result<bool, ConfigError> {
    Ok(top.boolean(key)?.is_some_and(|b| b.value))
}

fn lifecycle_component(top: &Section<'_>) -> Result<String, ConfigError> {
    let Some(component) = top.text("lifecycle_component")? else { return Ok("provision_mode_server".to_owned()) };
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '>' | '*');
    if component.value.is_empty() || component.value.chars().any(bad) {
        return invalid(component.at, format!("invalid lifecycle component: {}", component.value));
    }
    Ok(component.value)
}

fn read_features(features: &Section<'_>, warnings: &mut Vec<String>) -> Result<Features, ConfigError> {
    let on = |key: &str| features.boolean(key);
    let (pki, ed25519) = (on("pki")?, on("ed25519")?);
    let is_on = |flag: &Option<Located<bool>>| flag.as_ref().is_some_and(|f| f.value);
    if let (true, true, Some(ed)) = (is_on(&pki), is_on(&ed25519), &ed25519) {
        return invalid(ed.at.clone(), "can only enable one of pki or ed25519 features");
    }
    if let Some(Located { value: true, at }) = ed25519 {
        let reason = "keys and server tokens of protocol version 2 come later; use features.pki";
        return Err(ConfigError::Unavailable { at, key: "features.ed25519", reason });
    }
    if let Some(Located { value: true, at }) = on("upgrades")? {
        let reason = "nodes are configured with the version they run";
        return Err(ConfigError::Unavailable { at, key: "features.upgrades", reason });
    }
    if let Some(Located { value: true, at }) = on("broker")? {
        warnings.push(format!("{at}: features.broker has no effect, run `choria broker run` beside the provisioner"));
    }
    Ok(Features { pki: is_on(&pki), jwt: is_on(&on("jwt")?) })
}

fn refuse_unavailable(top: &Section<'_>) -> Result<(), ConfigError> {
    let texts: [(&'static str, &'static str); 3] = [
        ("jwt_signing_key", "server tokens of protocol version 2 come later"),
        ("jwt_signing_token", "server tokens of protocol version 2 come later"),
        ("upgrades_repository", "nodes are configured with the version they run"),
    ];
    for (key, reason) in texts {
        if let Some(Located { at, .. }) = top.text(key)?.filter(|t| !t.value.is_empty()) {
            return Err(ConfigError::Unavailable { at, key, reason });
        }
    }
    if let Some(Located { value: true, at }) = top.boolean("leader_election")? {
        let reason = "elections need Choria Streams; run one provisioner per broker";
        return Err(ConfigError::Unavailable { at, key: "leader_election", reason });
    }
    top.boolean("upgrades_optional")?;
    Ok(())
}

fn warn_without_effect(top: &Section<'_>, warnings: &mut Vec<String>) {
    let notes = [
        ("rego_policy", "the original reads it and never asks it either"),
        ("broker_port", "the embedded broker is gone, run `choria broker run` beside the provisioner"),
        ("broker_choria_password", "the embedded broker is gone, run `choria broker run` beside the provisioner"),
        ("management", "the backplane is gone, pause and resume over the monitor port or by signal"),
        ("leader_election_name", "it was replaced by leader_election"),
    ];
    for (key, why) in notes {
        if let Some(at) = top.place(key) {
            warnings.push(format!("{at}: {key} has no effect: {why}"));
        }
    }
}

fn interval(top: &Section<'_>) -> Result<Duration, ConfigError> {
    const MINIMUM: Duration = Duration::from_secs(60);
    let Some(text) = top.text("interval")? else { return Ok(MINIMUM) };
    match parse_duration(&text, "invalid duration: ")? {
        Some(interval) if interval >= MINIMUM => Ok(interval),
        _ => invalid(text.at, "interval is too small, minmum is 1 minute.  Valid example values are 10m or 10h"),
    }
}

fn duration(top: &Section<'_>, key: &str, default: Duration) -> Result<Duration, ConfigError> {
    let Some(text) = top.text(key)? else { return Ok(default) };
    match parse_duration(&text, &format!("invalid duration for {key}: "))? {
        Some(value) if !value.is_zero() => Ok(value),
        _ => invalid(text.at, format!("{key} must be longer than nothing, such as {}s", default.as_secs())),
    }
}

/// A Choria duration; `None` when it is negative. Empty text is zero (spec 04 §3).
fn parse_duration(text: &Located<String>, prefix: &str) -> Result<Option<Duration>, ConfigError> {
    match choria_config::duration::parse_with_unit(&text.value) {
        Ok(value) => Ok(Some(value)),
        Err(DurationError::Empty) => Ok(Some(Duration::ZERO)),
        Err(DurationError::Negative(_)) => Ok(None),
        Err(error) => invalid(text.at.clone(), format!("{prefix}{error}")),
    }
}

fn workers(top: &Section<'_>) -> Result<usize, ConfigError> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    match top.integer("workers")? {
        None => Ok(cpus),
        Some(Located { value: 0, .. }) => Ok(cpus),
        Some(Located { value, .. }) if (1..=10_000).contains(&value) => Ok(usize::try_from(value).unwrap_or(cpus)),
        Some(Located { value, at }) => {
            invalid(at, format!("workers must be 0 (one per processor) to 10000, found {value}"))
        }
    }
}

fn count(top: &Section<'_>, key: &str, default: usize, limit: usize) -> Result<usize, ConfigError> {
    match top.integer(key)? {
        None => Ok(default),
        Some(Located { value, at }) => match usize::try_from(value) {
            Ok(n) if (1..=limit).contains(&n) => Ok(n),
            _ => invalid(at, format!("{key} must be 1 to {limit}, found {value}")),
        },
    }
}

fn logfile(top: &Section<'_>) -> Result<LogTarget, ConfigError> {
    let Some(text) = top.text("logfile")? else { return Ok(LogTarget::default()) };
    Ok(match text.value.to_lowercase().as_str() {
        "" | "stdout" => LogTarget::Stdout,
        "stderr" => LogTarget::Stderr,
        "discard" => LogTarget::Discard,
        _ => LogTarget::File(PathBuf::from(text.value)),
    })
}

fn loglevel(top: &Section<'_>) -> Result<LogLevel, ConfigError> {
    let Some(text) = top.text("loglevel")? else { return Ok(LogLevel::default()) };
    Ok(match text.value.to_lowercase().as_str() {
        "" | "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        "warn" | "warning" => LogLevel::Warn,
        "error" => LogLevel::Error,
        "fatal" => LogLevel::Fatal,
        _ => {
            return invalid(
                text.at,
                format!("loglevel must be debug, info, warn, error or fatal, found {:?}", text.value),
            );
        }
    })
}

fn token(top: &Section<'_>) -> Result<Secret, ConfigError> {
    let Some(text) = top.text("token")? else { return Ok(Secret::default()) };
    let length = text.value.chars().count();
    if length > MAX_TOKEN {
        return invalid(text.at, format!("token has {length} characters, nodes take at most {MAX_TOKEN}"));
    }
    Ok(Secret::new(text.value))
}

fn monitor_port(top: &Section<'_>) -> Result<Option<u16>, ConfigError> {
    match top.integer("monitor_port")? {
        None => Ok(None),
        Some(Located { value, .. }) if value <= 0 => Ok(None),
        Some(Located { value, at }) => match u16::try_from(value) {
            Ok(port) => Ok(Some(port)),
            Err(_) => invalid(at, format!("monitor_port must be at most 65535, found {value}")),
        },
    }
}

fn monitor_address(top: &Section<'_>) -> Result<Option<IpAddr>, ConfigError> {
    let Some(text) = top.text("monitor_address")?.filter(|t| !t.value.is_empty()) else { return Ok(None) };
    match text.value.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => invalid(text.at, format!("monitor_address must be an IP address, found {:?}", text.value)),
    }
}

fn verify_restart(top: &Section<'_>) -> Result<VerifyRestart, ConfigError> {
    // `on` and `off` are booleans in YAML unless they are quoted.
    if let Ok(flag) = top.boolean("verify_restart") {
        return Ok(flag.map_or_else(VerifyRestart::default, |f| match f.value {
            true => VerifyRestart::On,
            false => VerifyRestart::Off,
        }));
    }
    let Some(text) = top.text("verify_restart")? else { return Ok(VerifyRestart::default()) };
    match text.value.as_str() {
        "auto" => Ok(VerifyRestart::Auto),
        "on" => Ok(VerifyRestart::On),
        "off" => Ok(VerifyRestart::Off),
        other => invalid(text.at, format!("verify_restart must be auto, on or off, found {other:?}")),
    }
}

fn deny_list(top: &Section<'_>) -> Result<Patterns, ConfigError> {
    let configured = top.texts("cert_deny_list")?.unwrap_or_default();
    if configured.is_empty() {
        return Ok(Patterns::default_deny());
    }
    for Located { value, at } in &configured {
        if value.trim_matches('/').is_empty() {
            return invalid(at.clone(), "cert_deny_list holds an empty pattern, which would deny every name");
        }
        if let Err(error) = Patterns::deny([value]) {
            let cause = error.problem.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
            return invalid(at.clone(), format!("cert_deny_list holds the invalid pattern {value:?}: {cause}"));
        }
    }
    Patterns::deny(configured.iter().map(|pattern| &pattern.value)).or_else(|error| {
        let at = configured[0].at.clone();
        invalid(at, error.to_string())
    })
}

#[cfg(test)]
mod tests;
