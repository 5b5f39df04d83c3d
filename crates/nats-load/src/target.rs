//! Which server is loaded, how its connections log in, and what can go wrong.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

/// A server and the way in.
#[derive(Debug, Clone)]
pub struct Target {
    /// Name or address; with TLS, what the server's certificate must be for.
    pub host: String,
    /// Port of clients.
    pub port: u16,
    /// TLS, when the server is to be spoken to in it.
    pub tls: Option<Arc<ClientConfig>>,
    /// What goes into CONNECT beside the usual.
    pub login: Login,
    /// Longest time for one connection to be made, and for one answer.
    pub patience: Duration,
}

/// What a connection shows of itself.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// `user` and `pass`.
    pub user: Option<(String, String)>,
    /// `auth_token`.
    pub token: Option<String>,
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No connection came about.
    #[error("no connection to {server}: {reason}")]
    Connect {
        /// The server.
        server: String,
        /// What happened.
        reason: String,
    },
    /// The server wrote an error.
    #[error("the server answered {text:?}")]
    Refused {
        /// Its text behind `-ERR`.
        text: String,
    },
    /// The server closed a connection in the middle.
    #[error("the server closed a connection after {seen} of {expected} messages; was it too slow a consumer?")]
    Closed {
        /// Messages that came.
        seen: u64,
        /// Messages that were to come.
        expected: u64,
    },
    /// A connection broke.
    #[error("a connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// Something came that is not what was asked for.
    #[error("the server sent {found:?} where a message of the load was expected")]
    Unexpected {
        /// The first bytes of it.
        found: String,
    },
    /// Nothing came for too long.
    #[error("{what} took longer than {limit:?}")]
    Late {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        limit: Duration,
    },
    /// The wish cannot be met.
    #[error("{0}")]
    Plan(String),
}
