//! From settings to everything that a start needs. Nothing is opened here but files that are read.

mod accounts;
mod listeners;
mod locate;
mod realms;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nats_broker::{AccountConfig, BrokerConfig};
use nats_config::settings::{Limit, Span};
use nats_config::{Located, Position, Settings};

use crate::log::LogSettings;
use crate::operator::Operator;
use crate::overlay::COMMAND_LINE;
use crate::users::Users;

pub(crate) use locate::locate;

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", place(.at.as_ref()))]
pub(crate) struct PlanError {
    at: Option<Position>,
    text: String,
}

fn place(at: Option<&Position>) -> String {
    match at {
        None => String::new(),
        Some(at) if *at.file == *Path::new(COMMAND_LINE) => format!("{COMMAND_LINE}: "),
        Some(at) => format!("{at}: "),
    }
}

impl PlanError {
    pub(crate) fn at(at: &Position, text: impl Into<String>) -> Self {
        Self { at: Some(at.clone()), text: text.into() }
    }

    pub(crate) fn new(at: Option<Position>, text: impl Into<String>) -> Self {
        Self { at, text: text.into() }
    }
}

/// What a broker is started from.
pub(crate) struct Plan {
    /// Limits and listeners: clients first, then WebSocket when there is one.
    pub(crate) broker: BrokerConfig,
    pub(crate) accounts: Vec<AccountConfig>,
    pub(crate) users: Arc<Users>,
    /// Monitoring over HTTP.
    pub(crate) http: Option<SocketAddr>,
    /// Monitoring over HTTPS.
    pub(crate) https: Option<(SocketAddr, Arc<rustls::ServerConfig>)>,
    /// Path before all monitoring pages; empty or beginning with a slash.
    pub(crate) http_base_path: String,
    pub(crate) log: LogSettings,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) ports_file_dir: Option<PathBuf>,
    /// What should be said about the settings.
    pub(crate) warnings: Vec<String>,
}

/// Makes a plan. `skips_unsupported`: what this program does not have becomes a warning.
///
/// # Errors
/// What cannot be used, with its place.
pub(crate) fn make(settings: &Settings, skips_unsupported: bool) -> Result<Plan, PlanError> {
    let mut warnings = unsupported(settings, skips_unsupported)?;
    let listeners = listeners::make(settings, &mut warnings)?;
    let operator = Operator::read(settings)?.map(Arc::new);
    let (system_account, accounts) = match &operator {
        Some(operator) => accounts::operated(settings, operator, &mut warnings),
        None => accounts::configured(settings)?,
    };
    let users = realms::make(settings, operator, &listeners, &mut warnings)?;
    let broker = BrokerConfig { listen: listeners.listen, system_account, ..limits(settings) };
    for trace in settings.accounts.iter().filter_map(|account| account.msg_trace.as_ref()) {
        warnings.push(format!("{}: msg_trace has no effect: only what has Nats-Trace-Dest is traced", trace.at));
    }
    if settings.trace == Some(true) {
        warnings.push("this program does not trace the protocol: -V and trace give no further lines".to_owned());
    }
    Ok(Plan {
        broker,
        accounts,
        users: Arc::new(users),
        http: listeners.http,
        https: listeners.https,
        http_base_path: base_path(settings.http_base_path.as_ref()),
        log: log(settings),
        pid_file: path(settings.pid_file.as_ref()),
        ports_file_dir: path(settings.ports_file_dir.as_ref()),
        warnings,
    })
}

/// Relative names are relative to the working directory, as with nats-server.
fn path(setting: Option<&Located<String>>) -> Option<PathBuf> {
    setting.map(|text| text.value.as_str()).filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn base_path(setting: Option<&Located<String>>) -> String {
    let text = setting.map_or("", |text| text.value.trim_matches('/'));
    if text.is_empty() { String::new() } else { format!("/{text}") }
}

/// Lines about parts that are not in this program, or an error that names all of them.
fn unsupported(settings: &Settings, skips: bool) -> Result<Vec<String>, PlanError> {
    let mut parts: Vec<(String, Position)> =
        settings.unsupported.iter().map(|part| (part.name.clone(), part.at.clone())).collect();
    if let Some(jetstream) = settings.jetstream.as_ref().filter(|jetstream| jetstream.enabled) {
        parts.push(("JetStream".to_owned(), jetstream.at.clone()));
    }
    for account in &settings.accounts {
        if let Some(jetstream) = account.jetstream.as_ref().filter(|jetstream| jetstream.enabled) {
            parts.push((format!("JetStream of account {}", account.name), jetstream.at.clone()));
        }
    }
    let Some((_, first)) = parts.first() else { return Ok(Vec::new()) };
    if skips {
        let warning =
            |(name, at): &(String, Position)| format!("{}{name} is not supported: started without it", place(Some(at)));
        return Ok(parts.iter().map(warning).collect());
    }
    let lines: Vec<String> = parts
        .iter()
        .enumerate()
        .map(|(number, (name, at))| {
            // The first place stands before the whole text.
            let place = if number == 0 { String::new() } else { place(Some(at)) };
            format!("{place}{name} is not supported by this program")
        })
        .collect();
    let hint = "start without with --skip_unsupported, or NATS_BROKER_SKIP_UNSUPPORTED=1 in the environment";
    Err(PlanError::at(first, format!("{}\n  hint: {hint}", lines.join("\n"))))
}

fn limits(settings: &Settings) -> BrokerConfig {
    let usual = BrokerConfig::default();
    let max_pending = number(settings.max_pending.as_ref(), usual.max_pending);
    BrokerConfig {
        server_name: settings.server_name.as_ref().map(|name| name.value.clone()).unwrap_or_default(),
        server_tags: settings.server_tags.clone(),
        client_advertise: advertise(settings),
        cluster_name: settings.cluster_name.as_ref().map(|name| name.value.clone()),
        auth_timeout: settings
            .authorization
            .as_ref()
            .and_then(|authorization| span(authorization.timeout.as_ref()))
            .unwrap_or(usual.auth_timeout),
        tls_timeout: settings.tls.as_ref().and_then(|tls| span(tls.timeout.as_ref())).unwrap_or(usual.tls_timeout),
        write_deadline: time(settings.write_deadline.as_ref(), usual.write_deadline),
        ping_interval: span(settings.ping_interval.as_ref()).unwrap_or(usual.ping_interval),
        ping_max: number(settings.ping_max.as_ref(), usual.ping_max as usize) as u32,
        max_connections: limit(settings.max_connections.as_ref(), usual.max_connections, usize::MAX),
        max_payload: limit(settings.max_payload.as_ref(), usual.max_payload, max_pending),
        max_control_line: number(settings.max_control_line.as_ref(), usual.max_control_line),
        max_connect_line: number(settings.max_control_line.as_ref(), 0).max(usual.max_connect_line),
        max_pending,
        max_subscriptions: limit(settings.max_subscriptions.as_ref(), 0, 0),
        max_sub_tokens: number(settings.max_sub_tokens.as_ref(), 0),
        max_closed_connections: number(settings.max_closed_clients.as_ref(), usual.max_closed_connections),
        headers: settings.no_header_support != Some(true),
        lame_duck_duration: time(settings.lame_duck_duration.as_ref(), usual.lame_duck_duration),
        // Zero is a value here: close at once.
        lame_duck_grace_period: settings
            .lame_duck_grace_period
            .as_ref()
            .map_or(usual.lame_duck_grace_period, |time| time.value),
        ..usual
    }
}

fn advertise(settings: &Settings) -> Option<String> {
    let text = settings.client_advertise.as_ref()?.value.clone();
    let has_port = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')));
    if has_port || text.is_empty() {
        return Some(text).filter(|text| !text.is_empty());
    }
    let port = settings.port.as_ref().map_or(listeners::CLIENT_PORT, |port| listeners::number(port.value, 4222));
    Some(format!("{text}:{port}"))
}

/// Zero and nothing mean the usual value.
fn number(setting: Option<&Located<u64>>, usual: usize) -> usize {
    setting.map_or(usual, |number| or_usual(number.value, usual))
}

fn or_usual(number: u64, usual: usize) -> usize {
    if number == 0 { usual } else { usize::try_from(number).unwrap_or(usize::MAX) }
}

fn limit(setting: Option<&Located<Limit>>, usual: usize, none: usize) -> usize {
    match setting.map(|limit| limit.value) {
        None => usual,
        Some(Limit::None) => none,
        Some(Limit::Of(number)) => or_usual(number, usual),
    }
}

fn time(setting: Option<&Located<Duration>>, usual: Duration) -> Duration {
    setting.map(|time| time.value).filter(|time| !time.is_zero()).unwrap_or(usual)
}

/// A time; `None` for nothing, zero and what is below.
fn span(setting: Option<&Located<Span>>) -> Option<Duration> {
    setting.and_then(|span| span.value.duration()).filter(|time| !time.is_zero())
}

fn log(settings: &Settings) -> LogSettings {
    LogSettings {
        file: path(settings.log_file.as_ref()),
        has_time: settings.logtime != Some(false),
        is_utc: settings.logtime_utc == Some(true),
        debug: settings.debug == Some(true),
        size_limit: settings.log_size_limit.as_ref().map_or(0, |size| size.value),
        max_files: settings.log_max_files.as_ref().map_or(0, |number| number.value),
    }
}
