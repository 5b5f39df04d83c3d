//! Who may connect and what they may do: the traits an embedder implements.
//!
//! The broker carries out decisions, it never makes them. An [`Authenticator`] answers each CONNECT with
//! a [`Grant`] or a [`Refusal`]; a [`PublishGuard`] looks into messages on the few subjects that it
//! names; an [`Observer`] is told of what happened. No Choria word belongs here.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use rustls::pki_types::CertificateDer;

/// How a connection reached the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionKind {
    /// A client over TCP, with or without TLS.
    Client,
    /// A client over WebSocket, with or without TLS.
    WebSocket,
    /// A client inside this process: no socket, no TLS.
    InProcess,
}

/// What TLS told about the peer. Absent when the connection is in clear text.
#[derive(Debug, Clone, Default)]
pub struct TlsPeer {
    /// The chain that the peer presented, leaf first, verified against the listener's CA.
    /// Empty: the peer presented no certificate.
    pub verified_chain: Vec<CertificateDer<'static>>,
}

impl TlsPeer {
    /// Whether the peer proved a certificate of our CA.
    pub fn is_verified(&self) -> bool {
        !self.verified_chain.is_empty()
    }
}

/// Everything that is known when a CONNECT arrives.
#[derive(Clone)]
pub struct ConnectRequest {
    /// Connection id, unique in this broker's life.
    pub cid: u64,
    /// How the connection reached the broker.
    pub kind: ConnectionKind,
    /// Number of its listener, by position in the configuration.
    pub listener: usize,
    /// Address of the peer; absent for in-process connections.
    pub remote: Option<SocketAddr>,
    /// TLS state; absent in clear text and in process.
    pub tls: Option<TlsPeer>,
    /// The nonce that INFO offered, as ASCII text.
    pub nonce: Option<String>,
    /// The CONNECT options as received. Holds secrets: never log it whole.
    pub connect: nats_proto::Connect,
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens and passwords stay out of logs.
        f.debug_struct("ConnectRequest")
            .field("cid", &self.cid)
            .field("kind", &self.kind)
            .field("remote", &self.remote)
            .field("tls", &self.tls.as_ref().map(TlsPeer::is_verified))
            .field("name", &self.connect.name)
            .finish_non_exhaustive()
    }
}

/// A permission list of one direction. `allow: None` allows everything that `deny` does not name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubjectRules {
    /// Subject filters that are allowed; `None` = all, an empty list = none.
    pub allow: Option<Vec<String>>,
    /// Subject filters that are denied; wins over `allow`.
    pub deny: Vec<String>,
}

/// Leave to answer a delivered request on its reply subject (`allow_responses`, spec 07 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseBudget {
    /// Answers per delivered message; `None` = no limit.
    pub max: Option<u32>,
    /// How long after the delivery answers are taken; `None` = as long as the connection lives.
    pub ttl: Option<Duration>,
}

/// What a connection may publish and subscribe (spec 02 §6.7).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects that may be published.
    pub publish: SubjectRules,
    /// Subjects that may be subscribed; an entry may be `subject queue`.
    pub subscribe: SubjectRules,
    /// Answers that `publish` would not allow. With a budget an absent `publish.allow` means none.
    pub responses: Option<ResponseBudget>,
}

impl Permissions {
    /// No limits inside the account.
    pub fn unlimited() -> Self {
        Self::default()
    }
}

/// At most one live connection may hold a claim of one key (spec: DESIGN §6, identity bound at connect).
///
/// A newcomer makes the broker PING the holder: if any byte arrives from it within `probe`, the
/// newcomer is refused with [`RefusalReason`] `claim_held`; otherwise the holder is closed and the newcomer takes over.
/// Connections that are present under the key in another account keep newcomers away in the same manner, but are never
/// closed for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExclusiveClaim {
    /// The claimed name, unique per account.
    pub key: String,
    /// How long the present holder has to show that it lives.
    pub probe: Duration,
    /// Account whose connections come first when they are present under this key, see [`Grant::presence`].
    pub yields_to: Option<String>,
}

/// The answer to an accepted CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Account that the connection lands in; it must exist.
    pub account: String,
    /// Name shown in monitoring; never a secret.
    pub user: Option<String>,
    /// What it may do there.
    pub permissions: Permissions,
    /// The broker closes the connection at this time (`-ERR 'User Authentication Expired'`).
    pub expires_at: Option<SystemTime>,
    /// A name that only one live connection may hold.
    pub claim: Option<ExclusiveClaim>,
    /// A name under which the connection is present; any number may be present under one. It keeps claims of other accounts
    /// away that yield to this account.
    pub presence: Option<String>,
    /// Opaque to the broker: handed to the [`PublishGuard`] with every guarded message.
    pub tag: Option<Arc<str>>,
    /// Opaque to the broker: what the authenticator needs to judge the grant again, see
    /// [`Authenticator::reconsider`]. Never a secret; a digest of one will do.
    pub proof: Option<Arc<str>>,
}

impl Grant {
    /// Everything in an account, for as long as the connection lasts.
    pub fn new(account: impl Into<String>) -> Self {
        Self {
            account: account.into(),
            user: None,
            permissions: Permissions::unlimited(),
            expires_at: None,
            claim: None,
            presence: None,
            tag: None,
            proof: None,
        }
    }
}

/// A stable, countable reason, such as `bad_password`. Used as metric label: keep the set small.
pub type RefusalReason = &'static str;

/// The answer to a refused CONNECT. The peer sees only `-ERR 'Authorization Violation'`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Refusal {
    /// Countable reason.
    pub reason: RefusalReason,
    /// One sentence for the log with the values that matter and no secret.
    pub detail: String,
    /// Name that the peer claimed, when it claimed one.
    pub claimed: Option<String>,
}

/// Decides about each CONNECT. May answer later (a remote service); the broker's auth deadline bounds the wait.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Answers one CONNECT.
    async fn authenticate(&self, request: ConnectRequest) -> Result<Grant, Refusal>;

    /// Whether INFO must offer a nonce.
    fn wants_nonce(&self) -> bool {
        false
    }

    /// Whether a connection must authenticate. `true` starts the auth deadline and shows `auth_required` in INFO.
    fn auth_required(&self) -> bool {
        true
    }

    /// As [`Authenticator::auth_required`], for embedders whose listeners differ; by position in the configuration.
    fn auth_required_on(&self, _listener: usize) -> bool {
        self.auth_required()
    }

    /// What has become of a grant after settings changed: asked of the *new* authenticator about each connection when
    /// the broker is reloaded. A refusal ends the connection with its reason; another account ends it, too. Must be
    /// quick. The default keeps every grant.
    ///
    /// # Errors
    /// Why the connection has no right to be here any more.
    fn reconsider(&self, _cid: u64, present: &Grant) -> Result<Grant, Refusal> {
        Ok(present.clone())
    }

    /// The grant of operations that come before CONNECT. `None`, the default, refuses them
    /// (`-ERR 'Authorization Violation'`), so that nothing runs in an account that nobody chose.
    fn before_connect(&self) -> Option<Grant> {
        None
    }

    /// As [`Authenticator::before_connect`], for embedders whose listeners differ; by position in the configuration.
    fn before_connect_on(&self, _listener: usize) -> Option<Grant> {
        self.before_connect()
    }
}

/// Looks into messages on a few subjects before they are routed.
///
/// Called on the publisher's path: must be quick and never block.
pub trait PublishGuard: Send + Sync + 'static {
    /// Subject filters per account whose messages are shown to [`PublishGuard::check`], read once at start.
    fn guarded(&self) -> Vec<(String, String)>;

    /// Refuses a message of a connection that carries a [`Grant::tag`]. The publisher gets a permissions error.
    ///
    /// # Errors
    /// The countable reason of the refusal.
    fn check(&self, account: &str, tag: Option<&str>, subject: &str, payload: &[u8]) -> Result<(), RefusalReason>;
}

/// Told of what happened; for logs, counters and events. Must not block.
pub trait Observer: Send + Sync + 'static {
    /// A CONNECT was refused, or TLS, or the auth deadline passed (`auth_timeout`, `tls_failure`, `claim_held`, ...), or a
    /// connection was ended because its peer broke the protocol (`protocol_violation`).
    fn refused(&self, _remote: Option<SocketAddr>, _refusal: &Refusal) {}
    /// A connection was accepted.
    fn connected(&self, _cid: u64, _grant: &Grant) {}
    /// An accepted connection ended.
    fn disconnected(&self, _cid: u64, _grant: &Grant, _reason: &str) {}
    /// A connection was ended because it did not take what it had subscribed to.
    fn slow_consumer(&self, _cid: u64, _grant: Option<&Grant>, _reason: &str) {}
    /// Somebody in the system account asks for new settings (`$SYS.REQ.SERVER.<id>.RELOAD`). An embedder that can
    /// reload begins it and answers at once.
    ///
    /// # Errors
    /// Why nothing is reloaded; told to whoever asked.
    fn reload_requested(&self) -> Result<(), String> {
        Err("config reload is not supported".to_owned())
    }
    /// A publish or subscription was refused after connect (`publish`, `subscribe`, or a guard's reason).
    fn violation(&self, _cid: u64, _grant: &Grant, _what: RefusalReason, _subject: &str) {}
}

/// For embedders that want to hear nothing.
impl Observer for () {}
