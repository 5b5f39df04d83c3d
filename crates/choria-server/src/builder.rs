//! Makes a [`Server`]: connection, trust and agents, checked before anything is connected.

use std::sync::Arc;

use choria_config::keys;
use choria_connector::servers::MiddlewareServers;
use choria_connector::srv::{CachingResolver, Resolver, SystemResolver};
use choria_connector::{ConnectOptions, Connector, ServerSource, Target, TokenSource};
use choria_protocol::subjects;
use choria_rpc::Agent;
use choria_security::provider::{FileProvider, Surroundings};
use choria_security::tls;
use choria_security::verify::RequestVerifier;
use tokio::sync::Notify;

use crate::authorization;
use crate::clock::Clock;
use crate::observer::{Observer, Unobserved};
use crate::pipeline::Verification;
use crate::provision::configure::ProviderCheck;
use crate::registration::{self, Seal};
use crate::server::{Connect, Server, ServerError};
use crate::settings::{ProvisioningSource, ServerSettings};
use crate::shared::Shared;

/// Makes a [`Server`].
pub struct ServerBuilder {
    settings: ServerSettings,
    agents: Vec<Arc<dyn Agent>>,
    connector: Option<Arc<dyn Connector>>,
    verifier: Option<RequestVerifier>,
    component: Option<String>,
    clock: Clock,
    resolver: Arc<dyn Resolver>,
    provider: ProviderCheck,
    observer: Arc<dyn Observer>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ServerBuilder {
    pub(crate) fn new(settings: ServerSettings) -> Self {
        Self {
            settings,
            agents: Vec::new(),
            connector: None,
            verifier: None,
            component: None,
            clock: Clock::default(),
            resolver: Arc::new(CachingResolver::new(SystemResolver)),
            provider: ProviderCheck::Required,
            observer: Arc::new(Unobserved),
            shared: Arc::default(),
        }
    }

    /// Hosts an agent of the embedding program. It is active once the server is a fleet member.
    #[must_use]
    pub fn agent(mut self, agent: Arc<dyn Agent>) -> Self {
        self.agents.push(agent);
        self
    }

    /// Uses this connection in place of one to the configured brokers. Its identity and TLS are the caller's affair.
    #[must_use]
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Verifies requests with this in place of the configured CA. Verification itself cannot be switched off.
    #[must_use]
    pub fn verifier(mut self, verifier: RequestVerifier) -> Self {
        self.verifier = Some(verifier);
        self
    }

    /// Component name in lifecycle events, in place of `server`. A provisioning server is always
    /// `provision_mode_server`.
    #[must_use]
    pub fn component(mut self, name: impl Into<String>) -> Self {
        self.component = Some(name.into());
        self
    }

    /// The clock. For tests and simulations.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Asks for SRV records in place of the system's name servers.
    #[must_use]
    pub fn resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Whether `configure` insists on a security provider in the configuration it writes.
    #[must_use]
    pub fn provider_check(mut self, provider: ProviderCheck) -> Self {
        self.provider = provider;
        self
    }

    /// Tells this what the server goes through.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Has these things in common with other servers of this process.
    #[must_use]
    pub fn shared(mut self, shared: Arc<Shared>) -> Self {
        self.shared = shared;
        self
    }

    /// Sets up security and checks the settings. Nothing is connected yet.
    ///
    /// # Errors
    /// What is wrong and which setting it comes from.
    pub fn build(self) -> Result<Server, ServerError> {
        let plugins = registration::plugins(self.settings.config())?;
        let security = Security::of(&self, !plugins.is_empty())?;
        let dispatcher = authorization::dispatcher(&self.settings)?;
        let connection = match &self.connector {
            Some(connector) => Connect::Given(Arc::clone(connector)),
            None => Connect::Options(Box::new(self.connect_options(&security)?)),
        };
        Ok(Server {
            settings: Arc::new(self.settings),
            agents: self.agents,
            connection,
            security,
            dispatcher,
            plugins,
            component: self.component,
            clock: self.clock,
            provider: self.provider,
            observer: self.observer,
            shared: self.shared,
            reload: Arc::new(Notify::new()),
        })
    }

    /// How the server would connect, told without connecting: for programs that check a configuration.
    ///
    /// # Errors
    /// As [`ServerBuilder::build`], for what concerns keys, certificates and brokers.
    pub fn connection(&self) -> Result<ConnectOptions, ServerError> {
        self.connect_options(&Security::of(self, false)?)
    }

    fn connect_options(&self, security: &Security) -> Result<ConnectOptions, ServerError> {
        let settings = &self.settings;
        let config = settings.config();
        let mut options = if settings.is_provisioning() {
            let source = Arc::new(ProvisioningSource {
                token: Arc::clone(settings.token()),
                resolver: Arc::clone(&self.resolver),
            });
            let mut options = ConnectOptions::new(ServerSource::Resolver(source.clone()));
            options.token = TokenSource::Dynamic(source);
            options
        } else {
            let hosts = config.get(&keys::MIDDLEWARE_HOSTS);
            let hosts: Vec<Target> = hosts.iter().map(|host| Target::parse(host)).collect::<Result<_, _>>()?;
            let source = MiddlewareServers {
                srv_domain: if hosts.is_empty() { srv_domain(settings) } else { None },
                hosts,
                shuffle: true,
                resolver: Arc::clone(&self.resolver),
            };
            let mut options = ConnectOptions::new(ServerSource::Resolver(Arc::new(source)));
            options.user = config.get(&keys::NATS_USER);
            options.password = config.get(&keys::NATS_PASS);
            options
        };
        options.name = settings.identity();
        options.connect_timeout = config.get(&keys::NETWORK_CONNECT_TIMEOUT);
        options.inbox_prefix = subjects::inbox_prefix(&config.get(&keys::MAIN_COLLECTIVE));
        if settings.build().tls {
            options.tls = Some(match &security.provider {
                Some(provider) => tls::client_config(&provider.tls_material()?)?,
                None => tls::anonymous_client_config(),
            });
        }
        Ok(options)
    }
}

/// The domain of SRV records: the setting, else the host's own.
fn srv_domain(settings: &ServerSettings) -> Option<String> {
    let config = settings.config();
    if !config.get(&keys::USE_SRV) {
        return None;
    }
    config.get(&keys::SRV_DOMAIN).or_else(|| {
        let names = settings.environment().host_names();
        let host = names.host_name().filter(|name| name.matches('.').count() >= 2);
        let own = host.and_then(|name| name.split_once('.').map(|(_, domain)| domain.to_owned()));
        own.or_else(|| names.facter("networking.domain"))
    })
}

/// What certificates give a server.
#[derive(Debug)]
pub(crate) struct Security {
    /// Absent while provisioning, and where the embedder brings connection and verifier.
    provider: Option<FileProvider>,
    pub(crate) verification: Verification,
    pub(crate) seal: Seal,
}

impl Security {
    /// `registers` tells whether there is anything to seal.
    fn of(builder: &ServerBuilder, registers: bool) -> Result<Self, ServerError> {
        let settings = &builder.settings;
        if settings.is_provisioning() {
            let token = settings.token().current();
            let secure = token.map_or_else(|| settings.build().provision_secure, |token| token.claims.chs);
            let seal = if secure { Seal::UnsignedRegistration } else { Seal::Insecure };
            return Ok(Self { provider: None, verification: Verification::Provisioning, seal });
        }
        if let (Some(verifier), Some(_)) = (&builder.verifier, &builder.connector) {
            return Ok(Self {
                provider: None,
                verification: Verification::Signed(verifier.clone()),
                seal: Seal::UnsignedRegistration,
            });
        }
        let surroundings = Surroundings::from_environment(settings.environment());
        let provider = FileProvider::from_config_in(settings.config(), &surroundings)?;
        provider.validate()?;
        let verifier = match &builder.verifier {
            Some(verifier) => verifier.clone(),
            None => provider.request_verifier()?,
        };
        // Nodes with a P-256 or Ed25519 key cannot sign v1 requests; registration has a form without signature.
        let seal = match registers.then(|| provider.request_signer()) {
            None => Seal::UnsignedRegistration,
            Some(Ok(signer)) => Seal::Signed(signer),
            Some(Err(error)) => {
                tracing::debug!("registration goes out unsigned: {error}");
                Seal::UnsignedRegistration
            }
        };
        Ok(Self { provider: Some(provider), verification: Verification::Signed(verifier), seal })
    }
}
