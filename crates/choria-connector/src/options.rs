//! What a connection needs to know: where to, as whom, and how patiently.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::backoff::{Backoff, FIVE_SEC, TWENTY_SEC};
use crate::target::Target;

/// Names the brokers anew before every pass of connection tries.
#[async_trait]
pub trait ServerResolver: Send + Sync + 'static {
    /// The brokers in the order to try them. The error text says what is missing and what to do; it is shown in
    /// the status and the next pass asks again.
    async fn servers(&self) -> Result<Vec<Target>, String>;
}

/// Where the broker addresses come from.
#[derive(Clone)]
pub enum ServerSource {
    /// A fixed list.
    Static(Vec<Target>),
    /// Asked before every pass, so that DNS changes and renewed tokens are seen.
    Resolver(Arc<dyn ServerResolver>),
}

/// What CONNECT says about who we are. Empty fields are not sent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// `auth_token`: Choria puts its JWT here.
    pub token: Option<String>,
    /// `user`.
    pub user: Option<String>,
    /// `pass`.
    pub password: Option<String>,
}

/// Makes the credentials of each connection try.
pub trait CredentialSource: Send + Sync + 'static {
    /// Credentials for the next try. The error text is shown in the status, the try counts as failed.
    fn credentials(&self) -> Result<Credentials, String>;
}

/// Where the token in CONNECT comes from.
#[derive(Clone, Default)]
pub enum TokenSource {
    /// No token.
    #[default]
    None,
    /// Content of a file, read anew for every connection try and trimmed of white space.
    File(PathBuf),
    /// This text.
    Text(String),
    /// Made by the owner; overrides user and password too where it sets them.
    Dynamic(Arc<dyn CredentialSource>),
}

/// Everything [`NatsConnector`](crate::NatsConnector) needs.
#[derive(Clone)]
pub struct ConnectOptions {
    /// Connection name; brokers take it as the identity of unprovisioned servers. Default empty.
    pub name: String,
    /// The brokers.
    pub servers: ServerSource,
    /// TLS settings; `None` speaks clear text and refuses brokers that require TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Token sent in CONNECT.
    pub token: TokenSource,
    /// User name; sent only together with a password, as the original does.
    pub user: Option<String>,
    /// Password; sent only together with a user.
    pub password: Option<String>,
    /// Time between our PINGs: 120 s for servers (default), 30 s for clients (spec 01 §9).
    pub ping_interval: Duration,
    /// Limit of one TCP connection try. Default 2 s, as `plugin.choria.network.connect_timeout`.
    pub connect_timeout: Duration,
    /// Limit from the TCP connection to the broker's answer to CONNECT. Default 10 s: a broker may take 2 s to
    /// find out whether another connection of our name still lives.
    pub handshake_timeout: Duration,
    /// Beginning of inbox subjects. Default `_INBOX`.
    pub inbox_prefix: String,
    /// Delays between tries until the first success.
    pub initial_backoff: Backoff,
    /// Delays between passes over the brokers after that.
    pub reconnect_backoff: Backoff,
    /// How long [`NatsConnector::connect`](crate::NatsConnector::connect) waits for the first success before it
    /// gives up. `None`, the default, waits for ever as servers must; commands set their time-out.
    pub give_up_after: Option<Duration>,
    /// Bytes that may wait to be written; [`publish`](crate::Connector::publish) waits beyond it. Default 1 MiB.
    pub max_pending: usize,
    /// Start each pass at a random broker of a [`ServerSource::Static`] list. Default true.
    pub shuffle: bool,
}

impl ConnectOptions {
    /// Options with Choria's defaults for these brokers.
    pub fn new(servers: ServerSource) -> Self {
        Self {
            name: String::new(),
            servers,
            tls: None,
            token: TokenSource::None,
            user: None,
            password: None,
            ping_interval: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(10),
            inbox_prefix: "_INBOX".to_owned(),
            initial_backoff: FIVE_SEC,
            reconnect_backoff: TWENTY_SEC,
            give_up_after: None,
            max_pending: 1024 * 1024,
            shuffle: true,
        }
    }

    /// The credentials of the next connection try.
    pub(crate) fn credentials(&self) -> Result<Credentials, String> {
        let mut credentials = Credentials::default();
        if let (Some(user), Some(password)) = (&self.user, &self.password) {
            credentials.user = Some(user.clone());
            credentials.password = Some(password.clone());
        }
        match &self.token {
            TokenSource::None => {}
            TokenSource::Text(token) => credentials.token = Some(token.clone()),
            TokenSource::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("could not read the token file {}: {error}", path.display()))?;
                let token = text.trim();
                if token.is_empty() {
                    return Err(format!("the token file {} is empty", path.display()));
                }
                credentials.token = Some(token.to_owned());
            }
            TokenSource::Dynamic(source) => {
                let own = source.credentials()?;
                credentials.token = own.token;
                if own.user.is_some() && own.password.is_some() {
                    (credentials.user, credentials.password) = (own.user, own.password);
                }
            }
        }
        Ok(credentials)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Text(_) => f.write_str("Text(..)"),
            Self::Dynamic(_) => f.write_str("Dynamic(..)"),
        }
    }
}

impl fmt::Debug for ServerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(targets) => f.debug_tuple("Static").field(targets).finish(),
            Self::Resolver(_) => f.write_str("Resolver(..)"),
        }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("name", &self.name)
            .field("servers", &self.servers)
            .field("tls", &self.tls.is_some())
            .field("token", &self.token)
            .field("user", &self.user)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_files_are_read_each_time_and_trimmed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("provisioning.jwt");
        let mut options = ConnectOptions::new(ServerSource::Static(Vec::new()));
        options.token = TokenSource::File(path.clone());
        assert!(options.credentials().unwrap_err().contains("provisioning.jwt"));
        std::fs::write(&path, "a.b.c\n").unwrap();
        assert_eq!(options.credentials().unwrap().token.as_deref(), Some("a.b.c"));
        std::fs::write(&path, "d.e.f").unwrap();
        assert_eq!(options.credentials().unwrap().token.as_deref(), Some("d.e.f"));
        std::fs::write(&path, " \n").unwrap();
        assert!(options.credentials().unwrap_err().contains("is empty"));
    }

    #[test]
    fn user_and_password_only_together() {
        let mut options = ConnectOptions::new(ServerSource::Static(Vec::new()));
        options.user = Some("u".into());
        assert_eq!(options.credentials().unwrap(), Credentials::default());
        options.password = Some("secret".into());
        let credentials = options.credentials().unwrap();
        assert_eq!((credentials.user.as_deref(), credentials.password.as_deref()), (Some("u"), Some("secret")));
        assert!(!format!("{credentials:?} {options:?}").contains("secret"));
    }
}
