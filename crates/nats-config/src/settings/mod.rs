//! What a configuration says, checked as far as text alone can be.
//!
//! `None` and empty lists mean that the file is silent; defaults are the program's. Values that can still turn out to be
//! wrong (a file that is not there, an account that nobody exports to) are [`Located`], so that the program can say
//! where they stand.

mod account;
mod authorization;
mod jetstream;
mod tls;
mod websocket;

use std::time::Duration;

pub use account::{
    Account, AccountLimits, Destination, Export, ExportKind, Import, ImportKind, Latency, Mapping, MessageTrace,
    ResponseType, Sampling,
};
pub use authorization::{Authorization, Permissions, Responses, Secret, SubjectLists, User};
pub use jetstream::{AccountJetStream, JetStream, SyncInterval};
pub use tls::{HandshakeFirst, Tls, TlsVersion};
pub use websocket::WebSocket;

use crate::{Located, Position};

/// A port to listen on (spec 07 §23).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Port {
    /// Written as 0: the usual one of this listener.
    Default,
    /// Written as -1: any free one.
    Free,
    /// This one.
    Number(u16),
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Host name or address without brackets; `None` when only a port was given.
    pub host: Option<String>,
    /// The port.
    pub port: Port,
}

/// A limit that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Written as a negative number: no limit.
    None,
    /// At most so many.
    Of(u64),
}

/// A time that may be negative, which the reference takes for "never" in some places and as it is in others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Nanoseconds.
    pub nanos: i64,
}

impl Span {
    /// The time when it is not negative.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        u64::try_from(self.nanos).ok().map(Duration::from_nanos)
    }
}

/// Something that the language has and this broker has not. The program says so and does not start, or starts without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// The setting, as `cluster` or `authorization.auth_callout`.
    pub name: String,
    /// Where it stands.
    pub at: Position,
}

/// Where account tokens come from (`resolver`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// From `resolver_preload` only (`MEMORY`).
    Memory,
}

/// An account token of `resolver_preload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreloadedAccount {
    /// Public key of the account.
    pub key: Located<String>,
    /// Its token.
    pub jwt: Located<String>,
}

/// Everything a configuration can say to this broker (spec 07 §23).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// `server_name`: name shown in INFO and monitoring; no blanks.
    pub server_name: Option<Located<String>>,
    /// `server_tags`: free words for monitoring.
    pub server_tags: Vec<String>,
    /// `host`, `net` or the host of `listen`.
    pub host: Option<Located<String>>,
    /// `port` or the port of `listen`.
    pub port: Option<Located<Port>>,
    /// `client_advertise`: `host` or `host:port` that INFO names.
    pub client_advertise: Option<Located<String>>,
    /// `http`, `http_port`, `monitor_port`: monitoring in clear text.
    pub http: Option<Located<Listen>>,
    /// `https`, `https_port`: monitoring with TLS.
    pub https: Option<Located<Listen>>,
    /// `http_base_path`: path before all monitoring pages.
    pub http_base_path: Option<Located<String>>,

    /// `debug`
    pub debug: Option<bool>,
    /// `trace`: log the protocol.
    pub trace: Option<bool>,
    /// `trace_verbose`: log the protocol of the system account, too.
    pub trace_verbose: Option<bool>,
    /// `logtime`: time stamps in the log.
    pub logtime: Option<bool>,
    /// `logtime_utc`: time stamps in UTC.
    pub logtime_utc: Option<bool>,
    /// `log_file` or `logfile`.
    pub log_file: Option<Located<String>>,
    /// `logfile_size_limit` or `log_size_limit`: bytes after which a new log is begun; 0 = never.
    pub log_size_limit: Option<Located<u64>>,
    /// `logfile_max_num` or `log_max_num`: how many logs are kept; 0 = all.
    pub log_max_files: Option<Located<u64>>,
    /// `pid_file` or `pidfile`.
    pub pid_file: Option<Located<String>>,
    /// `ports_file_dir`: directory for the file that says which ports were taken.
    pub ports_file_dir: Option<Located<String>>,

    /// `max_payload` in bytes.
    pub max_payload: Option<Located<Limit>>,
    /// `max_control_line` in bytes.
    pub max_control_line: Option<Located<u64>>,
    /// `max_pending` in bytes.
    pub max_pending: Option<Located<u64>>,
    /// `max_connections`
    pub max_connections: Option<Located<Limit>>,
    /// `max_subscriptions` per connection.
    pub max_subscriptions: Option<Located<Limit>>,
    /// `max_sub_tokens`: tokens of a subscribed subject.
    pub max_sub_tokens: Option<Located<u64>>,
    /// `max_closed_clients`: ended connections that monitoring remembers.
    pub max_closed_clients: Option<Located<u64>>,
    /// `write_deadline`
    pub write_deadline: Option<Located<Duration>>,
    /// `ping_interval`
    pub ping_interval: Option<Located<Span>>,
    /// `ping_max`
    pub ping_max: Option<Located<u64>>,
    /// `lame_duck_duration`, 30 s at least.
    pub lame_duck_duration: Option<Located<Duration>>,
    /// `lame_duck_grace_period`
    pub lame_duck_grace_period: Option<Located<Duration>>,
    /// `no_header_support`
    pub no_header_support: Option<bool>,
    /// `disable_sublist_cache`; accepted, this broker has no such cache.
    pub disable_sublist_cache: Option<bool>,

    /// `authorization`
    pub authorization: Option<Located<Authorization>>,
    /// `no_auth_user`: the user of clients without any credential.
    pub no_auth_user: Option<Located<String>>,
    /// `accounts` in the order of the file.
    pub accounts: Vec<Account>,
    /// `system_account` or `system`
    pub system_account: Option<Located<String>>,
    /// `no_system_account`
    pub no_system_account: Option<bool>,
    /// `mappings` of the account `$G`.
    pub mappings: Vec<Mapping>,
    /// `operator` or `operators`: tokens, or names of files that hold one.
    pub operators: Vec<Located<String>>,
    /// `trusted_keys`: public keys of operators.
    pub trusted_keys: Vec<Located<String>>,
    /// `resolver`
    pub resolver: Option<Located<Resolver>>,
    /// `resolver_preload`
    pub resolver_preload: Vec<PreloadedAccount>,

    /// `tls` of client connections and of `https`.
    pub tls: Option<Located<Tls>>,
    /// `allow_non_tls`: clients may stay in clear text although there is `tls`.
    pub allow_non_tls: Option<Located<bool>>,
    /// `websocket`
    pub websocket: Option<Located<WebSocket>>,
    /// `jetstream`
    pub jetstream: Option<Located<JetStream>>,
    /// `cluster.name`: shown in INFO and monitoring also without a cluster.
    pub cluster_name: Option<Located<String>>,

    /// What was asked for and is not in this broker, in the order of the file.
    pub unsupported: Vec<Unsupported>,
}
