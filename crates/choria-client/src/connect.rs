//! From a configuration to a connected [`Client`].

use std::sync::Arc;
use std::time::Duration;

use choria_config::{Config, keys};
use choria_connector::servers::MiddlewareServers;
use choria_connector::srv::{CachingResolver, SystemResolver};
use choria_connector::{ConnectOptions, NatsConnector, ServerSource, Target};
use choria_protocol::subjects;
use choria_security::provider::{FileProvider, SecurityError, Surroundings};
use choria_security::tls;
use tokio_util::sync::CancellationToken;

use crate::client::{Caller, Client};
use crate::sign::{SignRequest, Unsigned};

/// Time between pings of an idle client connection (spec 01 §9).
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// What a connection needs besides the configuration.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// How long to wait for the first connection, over all brokers and tries.
    pub connect_timeout: Duration,
    /// Ends every wait early.
    pub cancel: CancellationToken,
    /// What the name that requests are made under depends on besides the configuration.
    pub surroundings: Surroundings,
    /// Plain TCP, for laboratories.
    pub disable_tls: bool,
    /// Requests without signature, for laboratories.
    pub unsigned: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            cancel: CancellationToken::new(),
            surroundings: Surroundings::from_process(),
            disable_tls: false,
            unsigned: false,
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Keys, certificates or names cannot be used.
    #[error("could not set up security framework: {0}")]
    Security(#[from] SecurityError),
    /// TLS cannot be set up.
    #[error("could not set up security framework: {0}")]
    Tls(#[from] tls::TlsError),
    /// A broker address in the configuration is wrong.
    #[error("plugin.choria.middleware_hosts: {0}")]
    Hosts(#[from] choria_connector::TargetError),
    /// No broker accepted us in time.
    #[error("could not connect to a broker within {}: {reason}", seconds(.within))]
    NoBroker {
        /// How long it was tried.
        within: Duration,
        /// The last failure, with the broker's name.
        reason: String,
    },
    /// It was interrupted.
    #[error("interrupted while connecting")]
    Interrupted,
}

fn seconds(time: &Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

impl ConnectError {
    /// What to do about it, when that is known and not part of the text already.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Security(SecurityError::NoUser | SecurityError::Certname { .. }) => {
                Some("the name in the certificate must be the one that requests are made under")
            }
            Self::NoBroker { reason, .. } if reason.contains("puppet:4222") => Some(
                "no broker is configured: set plugin.choria.middleware_hosts = HOST:PORT in the client configuration, or publish SRV records",
            ),
            _ => None,
        }
    }
}

/// How a client of this configuration connects, told without connecting: for programs that check one. The key need not
/// be one that can sign requests.
///
/// # Errors
/// As [`Client::connect`], but for the connection itself.
pub fn connection(config: &Config, options: &ClientOptions) -> Result<ConnectOptions, ConnectError> {
    let provider = provider(config, options)?;
    connect_options(config, provider.as_ref(), &caller(config, provider.as_ref()), options)
}

fn provider(config: &Config, options: &ClientOptions) -> Result<Option<FileProvider>, SecurityError> {
    match options.unsigned {
        true => Ok(None),
        false => FileProvider::from_config_in(config, &options.surroundings).map(Some),
    }
}

impl Client {
    /// Connects as the configuration says: one connection, and an end to the waiting.
    ///
    /// # Errors
    /// [`ConnectError`] with the reason; a broker that is down or refuses the certificate is one within
    /// [`ClientOptions::connect_timeout`].
    pub async fn connect(config: &Config, options: ClientOptions) -> Result<Self, ConnectError> {
        let provider = provider(config, &options)?;
        let caller = caller(config, provider.as_ref());
        let signer: Arc<dyn SignRequest> = match &provider {
            Some(provider) => Arc::new(provider.request_signer()?),
            None => Arc::new(Unsigned),
        };
        let connect = connect_options(config, provider.as_ref(), &caller, &options)?;
        // The connection outlives an interrupt: what was asked for is still answered, unsubscribed and closed.
        let life = CancellationToken::new();
        let connected = tokio::select! {
            connected = NatsConnector::connect(connect, &life) => connected,
            () = options.cancel.cancelled() => return Err(ConnectError::Interrupted),
        };
        let connector = connected.map_err(|error| match error {
            choria_connector::ConnectError::GaveUp(reason) => {
                ConnectError::NoBroker { within: options.connect_timeout, reason }
            }
            choria_connector::ConnectError::Cancelled(_) => ConnectError::Interrupted,
        })?;
        Ok(Self::new(Arc::new(connector), signer, caller, options.cancel))
    }
}

fn caller(config: &Config, provider: Option<&FileProvider>) -> Caller {
    let mut collectives = config.get(&keys::COLLECTIVES);
    let main = config.get(&keys::MAIN_COLLECTIVE);
    // The main collective comes first whatever the order in the file.
    collectives.retain(|name| *name != main);
    collectives.insert(0, main);
    let identity = config.get(&keys::IDENTITY);
    Caller {
        caller_id: provider.map_or_else(|| format!("choria={identity}"), FileProvider::caller_id),
        identity,
        collectives,
        ttl: i64::try_from(config.get(&keys::TTL).as_secs()).unwrap_or(60),
        require_filter: config.get(&keys::REQUIRE_CLIENT_FILTER),
    }
}

fn connect_options(
    config: &Config,
    provider: Option<&FileProvider>,
    caller: &Caller,
    options: &ClientOptions,
) -> Result<ConnectOptions, ConnectError> {
    let hosts: Result<Vec<Target>, _> =
        config.get(&keys::MIDDLEWARE_HOSTS).iter().map(|host| Target::parse(host)).collect();
    let srv_domain = config.get(&keys::USE_SRV).then(|| config.get(&keys::SRV_DOMAIN)).flatten();
    let servers = MiddlewareServers {
        hosts: hosts?,
        shuffle: true,
        srv_domain,
        resolver: Arc::new(CachingResolver::new(SystemResolver)),
    };
    let mut connect = ConnectOptions::new(ServerSource::Resolver(Arc::new(servers)));
    connect.name.clone_from(&caller.caller_id);
    connect.tls = match provider {
        Some(provider) if !options.disable_tls => Some(tls::client_config(&provider.tls_material()?)?),
        _ => None,
    };
    connect.user = config.get(&keys::NATS_USER);
    connect.password = config.get(&keys::NATS_PASS);
    connect.ping_interval = PING_INTERVAL;
    connect.connect_timeout = config.get(&keys::NETWORK_CONNECT_TIMEOUT);
    connect.inbox_prefix = subjects::inbox_prefix(caller.main_collective());
    connect.give_up_after = Some(options.connect_timeout);
    Ok(connect)
}
