//! What an embedder configures: listeners, limits, accounts and what crosses between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// When TLS begins on a listener (spec 07 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsStart {
    /// After INFO in clear text, as nats-server does unless told otherwise.
    #[default]
    AfterInfo,
    /// At once; INFO comes inside TLS. A client that waits for INFO in clear text gets nothing.
    First,
    /// At once when the client begins within this time, else as [`TlsStart::AfterInfo`].
    FirstWithin(Duration),
}

/// What makes a listener one for WebSocket clients (spec 07 §9).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebSocketSettings {
    /// Compress messages of clients that offer `permessage-deflate`.
    pub compression: bool,
    /// A request with an `Origin` must name this listener.
    pub same_origin: bool,
    /// Origins that requests may name; empty = any.
    pub allowed_origins: Vec<String>,
    /// Time for the HTTP request; zero = `tls_timeout` of the broker.
    pub handshake_timeout: Duration,
    /// Cookie that holds `user` when CONNECT has none.
    pub user_cookie: Option<String>,
    /// Cookie that holds `pass` when CONNECT has none.
    pub pass_cookie: Option<String>,
    /// Cookie that holds `auth_token` when CONNECT has none.
    pub token_cookie: Option<String>,
    /// Cookie that holds `jwt` when CONNECT has none.
    pub jwt_cookie: Option<String>,
}

/// One listening socket.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Address to bind; port 0 takes a free one, see `Broker::local_addr`.
    pub addr: SocketAddr,
    /// TLS of the listener. `None` = clear text.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// When TLS begins. WebSocket listeners always begin with TLS.
    pub tls_start: TlsStart,
    /// Clients may stay in clear text although the listener has TLS (`allow_non_tls`).
    pub allow_non_tls: bool,
    /// INFO says that a client certificate is wanted. Whether it is, is up to `tls`.
    pub tls_verify: bool,
    /// WebSocket instead of plain NATS framing.
    pub websocket: Option<WebSocketSettings>,
    /// `host:port` that INFO names to clients of this listener instead of its own address.
    pub advertise: Option<String>,
}

impl Listener {
    /// A clear-text listener.
    pub fn plain(addr: SocketAddr) -> Self {
        Self {
            addr,
            tls: None,
            tls_start: TlsStart::AfterInfo,
            allow_non_tls: false,
            tls_verify: false,
            websocket: None,
            advertise: None,
        }
    }

    /// A listener that requires TLS, which clients start after INFO.
    pub fn tls(addr: SocketAddr, config: Arc<rustls::ServerConfig>) -> Self {
        Self { tls: Some(config), ..Self::plain(addr) }
    }

    /// The same listener for WebSocket clients.
    #[must_use]
    pub fn websocket(mut self, settings: WebSocketSettings) -> Self {
        self.websocket = Some(settings);
        self
    }
}

/// What waits for sockets and serves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoEngine {
    /// Threads of the broker's own on one readiness queue, as many as the runtime has workers: least processor time a
    /// message and quickest answers. Linux only; elsewhere as [`IoEngine::Runtime`].
    #[default]
    Threads,
    /// The tokio runtime that the broker was started in.
    Runtime,
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
    /// Clients may send headers; `false` is nats-server's `no_header_support`.
    pub headers: bool,
    /// Free words shown in monitoring and matched by filters of `$SYS.REQ.SERVER.PING`.
    pub server_tags: Vec<String>,
    /// Time over which a lame duck closes its connections.
    pub lame_duck_duration: Duration,
    /// Time before a lame duck closes the first one.
    pub lame_duck_grace_period: Duration,
    /// What serves the connections.
    pub io_engine: IoEngine,
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
            headers: true,
            server_tags: Vec::new(),
            lame_duck_duration: Duration::from_secs(120),
            lame_duck_grace_period: Duration::from_secs(10),
            io_engine: IoEngine::default(),
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
    /// Subjects that are replaced when they are published, before anything else looks at them.
    pub mappings: Vec<SubjectMapping>,
}

/// A replacement of published subjects inside one account (spec 07 §8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectMapping {
    /// Filter of the published subjects.
    pub source: String,
    /// What they become. The weights add up to 100 at most; what is missing keeps its subject.
    pub targets: Vec<MappingTarget>,
}

/// One possible outcome of a [`SubjectMapping`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingTarget {
    /// The subject, with `$1` or `{{wildcard(1)}}`, `{{partition(10,1)}}` and the like for parts of the source.
    pub subject: String,
    /// Percent of the messages.
    pub weight: u8,
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
    /// Reports of how long answers took.
    pub latency: Option<ServiceLatency>,
}

/// Where a service export reports how long its answers took (spec 07 §8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceLatency {
    /// Subject of the reports in the exporting account.
    pub subject: String,
    /// Which requests are measured.
    pub sampling: LatencySampling,
}

/// Which requests of a service are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatencySampling {
    /// So many of a hundred, chosen at random.
    Percent(u8),
    /// Those whose tracing headers ask for it.
    Headers,
}

impl ServiceExport {
    /// An export for every account with one answer per request within two minutes.
    pub fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            accounts: None,
            response: ResponseKind::Singleton,
            response_threshold: Duration::from_secs(120),
            latency: None,
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
    /// The system gave no readiness queue or no thread.
    #[error("cannot start serving connections: {0}; are there too many open files or threads?")]
    Engine(std::io::Error),
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
    /// Stream imports that lead back to where they started.
    #[error("stream import of {subject:?} into account {importer} forms a cycle")]
    StreamCycle {
        /// The importing account.
        importer: String,
        /// The imported subject.
        subject: String,
    },
    /// An account that imports what it exports itself.
    #[error("account {account} imports {subject:?} from itself")]
    SelfImport {
        /// The account.
        account: String,
        /// The imported subject.
        subject: String,
    },
    /// The same import twice.
    #[error("account {importer} imports from account {account} twice under the subject {subject:?}")]
    DuplicateImport {
        /// The importing account.
        importer: String,
        /// The exporting account.
        account: String,
        /// Subject in the importing account.
        subject: String,
    },
    /// Latency reports of a service that cannot work.
    #[error("account {account}: latency of service {subject:?}: {reason}")]
    Latency {
        /// The exporting account.
        account: String,
        /// The exported subject.
        subject: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// The system account is not one of the accounts.
    #[error("system account {0:?} is not configured")]
    UnknownSystemAccount(String),
    /// A subject mapping that cannot work.
    #[error("account {account}: mapping of {subject:?}: {reason}")]
    Mapping {
        /// The account.
        account: String,
        /// Source of the mapping.
        subject: String,
        /// What is wrong.
        reason: TransformError,
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

/// What is wrong with a [`SubjectMapping`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransformError {
    /// The source is not a filter.
    #[error("the source is not a valid subject filter")]
    BadSource,
    /// Two mappings of one source: only the first would ever be used.
    #[error("the source is mapped twice")]
    DuplicateSource,
    /// There is no target.
    #[error("there is no target")]
    NoTarget,
    /// A target that is not a subject: an empty token, a blank, a `*` (name the wildcard: `$1`).
    #[error("the target is not a valid subject; a wildcard of the source is written $1 or {{{{wildcard(1)}}}}")]
    BadTarget,
    /// `>` on one side only, or not at the end.
    #[error("'>' must end both source and target or neither")]
    LoneTail,
    /// The same target twice.
    #[error("target {0:?} is named twice")]
    DuplicateTarget(String),
    /// A weight of 0, or weights of more than 100 together.
    #[error("weights must be from 1 to 100 percent, and 100 at most together")]
    Weight,
    /// `{{` without `}}` at the end of the token.
    #[error("{0:?} does not end with }}}}")]
    Unclosed(String),
    /// A function that does not exist.
    #[error("unknown function in {0:?}")]
    UnknownFunction(String),
    /// Too few or too many arguments.
    #[error("wrong number of arguments in {0:?}")]
    ArgumentCount(String),
    /// An argument that is not a number, or one that makes no sense.
    #[error("invalid argument in {0:?}")]
    Argument(String),
    /// A wildcard that the source does not have.
    #[error("{0:?} names a wildcard that the source does not have")]
    NoSuchWildcard(String),
}
