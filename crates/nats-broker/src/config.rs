//! What an embedder configures: listeners, limits, accounts and what crosses between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// One listening socket.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Address to bind; port 0 takes a free one, see `Broker::local_addr`.
    pub addr: SocketAddr,
    /// TLS of the listener: the client must start it after INFO. `None` = clear text.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Listener {
    /// A clear-text listener.
    pub fn plain(addr: SocketAddr) -> Self {
        Self { addr, tls: None }
    }

    /// A listener that requires TLS.
    pub fn tls(addr: SocketAddr, config: Arc<rustls::ServerConfig>) -> Self {
        Self { addr, tls: Some(config) }
    }
}

/// Settings of a broker. `Default` has no listener and the limits of nats-server (spec 07 §6).
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Name shown in INFO and monitoring; empty = the generated server id.
    pub server_name: String,
    /// Version shown in INFO; clients switch features by it, so at least 2.11.0.
    pub version: String,
    /// `host:port` that INFO names instead of the listener's own.
    pub client_advertise: Option<String>,
    /// Cluster name shown in INFO and monitoring.
    pub cluster_name: Option<String>,
    /// Listening sockets.
    pub listen: Vec<Listener>,
    /// Time from the end of the TLS handshake to an accepted CONNECT. Also bounds the authenticator.
    pub auth_timeout: Duration,
    /// Time for the TLS handshake.
    pub tls_timeout: Duration,
    /// A socket that takes no byte for so long ends the connection as slow consumer.
    pub write_deadline: Duration,
    /// A connection that is silent for so long gets a PING.
    pub ping_interval: Duration,
    /// Number of unanswered PINGs at which the next one ends the connection as stale.
    pub ping_max: u32,
    /// Connections over all listeners.
    pub max_connections: usize,
    /// Largest message, headers and payload, in bytes.
    pub max_payload: usize,
    /// Longest argument of a protocol line in bytes.
    pub max_control_line: usize,
    /// Longest CONNECT argument in bytes: larger than other lines so that token chains fit.
    pub max_connect_line: usize,
    /// Bytes that may wait for one connection; more ends it as slow consumer. At least `max_payload`.
    pub max_pending: usize,
    /// Subscriptions per connection; 0 = no limit.
    pub max_subscriptions: usize,
    /// Tokens of a subscribed subject; 0 = no limit.
    pub max_sub_tokens: usize,
    /// Unanswered requests per account that wait behind a service import.
    pub max_service_requests: usize,
    /// Account that counts as the system account.
    pub system_account: Option<String>,
    /// Address of the monitoring server, shown in `/varz` only.
    pub monitor_addr: Option<SocketAddr>,
    /// Ended connections that `/connz?state=closed` remembers.
    pub max_closed_connections: usize,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            server_name: String::new(),
            version: "2.11.0".to_owned(),
            client_advertise: None,
            cluster_name: None,
            listen: Vec::new(),
            auth_timeout: Duration::from_secs(2),
            tls_timeout: Duration::from_secs(2),
            write_deadline: Duration::from_secs(10),
            ping_interval: Duration::from_secs(120),
            ping_max: 2,
            max_connections: 65_536,
            max_payload: 1_048_576,
            max_control_line: 4096,
            max_connect_line: 65_536,
            max_pending: 64 << 20,
            max_subscriptions: 0,
            max_sub_tokens: 0,
            max_service_requests: 65_536,
            system_account: None,
            monitor_addr: None,
            max_closed_connections: 1000,
        }
    }
}

/// An account: a world of subjects of its own, joined to others only by exports and imports.
#[derive(Debug, Clone, Default)]
pub struct AccountConfig {
    /// Name, unique in the broker.
    pub name: String,
    /// What other accounts may import.
    pub exports: Vec<Export>,
    /// What is taken from other accounts.
    pub imports: Vec<Import>,
    /// Connections; `None` = no limit.
    pub max_connections: Option<usize>,
    /// Subscriptions over all connections; `None` = no limit.
    pub max_subscriptions: Option<usize>,
    /// Largest message in bytes when lower than the broker's.
    pub max_payload: Option<usize>,
}

impl AccountConfig {
    /// An account that shares nothing.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds an export.
    #[must_use]
    pub fn export(mut self, export: impl Into<Export>) -> Self {
        self.exports.push(export.into());
        self
    }

    /// Adds an import.
    #[must_use]
    pub fn import(mut self, import: impl Into<Import>) -> Self {
        self.imports.push(import.into());
        self
    }
}

/// Something that other accounts may import.
#[derive(Debug, Clone)]
pub enum Export {
    /// Messages published here.
    Stream(StreamExport),
    /// Requests answered here.
    Service(ServiceExport),
}

/// Messages that other accounts may see.
#[derive(Debug, Clone)]
pub struct StreamExport {
    /// Filter of the subjects.
    pub subject: String,
    /// Accounts that may import; `None` = all.
    pub accounts: Option<Vec<String>>,
}

impl StreamExport {
    /// An export for every account.
    pub fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), accounts: None }
    }
}

/// Requests that other accounts may send here.
#[derive(Debug, Clone)]
pub struct ServiceExport {
    /// Filter of the request subjects.
    pub subject: String,
    /// Accounts that may import; `None` = all.
    pub accounts: Option<Vec<String>>,
    /// How many answers a request may get.
    pub response: ResponseKind,
    /// How long answers are taken.
    pub response_threshold: Duration,
}

impl ServiceExport {
    /// An export for every account with one answer per request within two minutes.
    pub fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            accounts: None,
            response: ResponseKind::Singleton,
            response_threshold: Duration::from_secs(120),
        }
    }
}

/// How many answers a request over a service import may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseKind {
    /// One; later ones are dropped.
    Singleton,
    /// Any number; an empty message is passed on and ends them.
    Stream,
    /// As `Stream`: one answer in pieces.
    Chunked,
}

/// Something taken from another account.
#[derive(Debug, Clone)]
pub enum Import {
    /// Messages published there.
    Stream(StreamImport),
    /// Requests answered there.
    Service(ServiceImport),
}

/// Subscribers of this account also see messages published in another one. Never the other way, and what came
/// by import is not passed on by a further stream import.
#[derive(Debug, Clone)]
pub struct StreamImport {
    /// The exporting account.
    pub from_account: String,
    /// Filter of the subjects there; a subset of an export.
    pub subject: String,
    /// The subject here; `None` = the same. `*` or `$n` take the n-th wildcard, `>` the rest.
    pub to: Option<String>,
    /// Messages arrive without their reply subject. With `false`, as the reference does, a publisher in the exporting
    /// account can make subscribers here publish to any subject it names.
    pub drop_reply: bool,
}

impl StreamImport {
    /// An import under the same subject that keeps reply subjects.
    pub fn new(from_account: impl Into<String>, subject: impl Into<String>) -> Self {
        Self { from_account: from_account.into(), subject: subject.into(), to: None, drop_reply: false }
    }

    /// Subject in the importing account.
    #[must_use]
    pub fn to(mut self, to: impl Into<String>) -> Self {
        self.to = Some(to.into());
        self
    }

    /// Drops reply subjects at the border.
    #[must_use]
    pub fn drop_reply(mut self) -> Self {
        self.drop_reply = true;
        self
    }
}

/// Requests published in this account are delivered in another one, and the answers come back.
#[derive(Debug, Clone)]
pub struct ServiceImport {
    /// The exporting account.
    pub from_account: String,
    /// Subject there; a subset of an export.
    pub subject: String,
    /// The subject here; `None` = the same. `*` or `$n` stand for the n-th wildcard, `>` for the rest.
    pub to: Option<String>,
    /// Tells the responder who asks: start, host, connection id, user, name, language, version.
    pub share: bool,
}

impl ServiceImport {
    /// An import under the same subject that tells the responder only the account.
    pub fn new(from_account: impl Into<String>, subject: impl Into<String>) -> Self {
        Self { from_account: from_account.into(), subject: subject.into(), to: None, share: false }
    }

    /// Subject in the importing account.
    #[must_use]
    pub fn to(mut self, to: impl Into<String>) -> Self {
        self.to = Some(to.into());
        self
    }
}

impl From<StreamExport> for Export {
    fn from(export: StreamExport) -> Self {
        Self::Stream(export)
    }
}

impl From<ServiceExport> for Export {
    fn from(export: ServiceExport) -> Self {
        Self::Service(export)
    }
}

impl From<StreamImport> for Import {
    fn from(import: StreamImport) -> Self {
        Self::Stream(import)
    }
}

impl From<ServiceImport> for Import {
    fn from(import: ServiceImport) -> Self {
        Self::Service(import)
    }
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be opened.
    #[error("cannot listen on {addr}: {source}; is another broker running there?")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Called outside a tokio runtime.
    #[error("a broker must be started inside a tokio runtime")]
    NoRuntime,
    /// `max_payload` above `max_pending`: no such message could ever be delivered.
    #[error("max_payload {max_payload} is larger than max_pending {max_pending}")]
    PayloadAbovePending {
        /// Configured `max_payload`.
        max_payload: usize,
        /// Configured `max_pending`.
        max_pending: usize,
    },
    /// Two accounts of one name.
    #[error("account {0} is configured twice")]
    DuplicateAccount(String),
    /// An import names an account that does not exist.
    #[error("account {importer} imports from account {account}, which is not configured")]
    UnknownAccount {
        /// The importing account.
        importer: String,
        /// The missing account.
        account: String,
    },
    /// A subject that is not a filter.
    #[error("account {account}: {subject:?} is not a valid subject filter")]
    BadSubject {
        /// The account.
        account: String,
        /// The text.
        subject: String,
    },
    /// An import of something that is not exported, or not to this account.
    #[error("account {importer} imports {subject:?}, which account {account} does not export to it")]
    NotExported {
        /// The importing account.
        importer: String,
        /// The exporting account.
        account: String,
        /// The imported subject.
        subject: String,
    },
    /// `subject` and `to` of an import do not fit together.
    #[error("account {importer}: import of {subject:?} to {to:?}: {reason}")]
    BadMapping {
        /// The importing account.
        importer: String,
        /// Subject in the exporting account.
        subject: String,
        /// Subject in the importing account.
        to: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// Service imports that lead back to where they started.
    #[error("service import of {subject:?} into account {importer} forms a cycle")]
    ServiceCycle {
        /// The importing account.
        importer: String,
        /// The imported subject.
        subject: String,
    },
}
