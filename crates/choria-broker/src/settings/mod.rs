//! What the configuration says about the broker, read and checked as a whole.
//!
//! Two halves: `Settings` is what the configuration says by itself, `Material` is what stands in the files it names, and
//! who may connect. A reload replaces both as a whole; the few settings that hold for the life of the process must be as
//! they were. Every file is opened here, so that a wrong one is told at start with its key and path instead of showing
//! later as a failing login (spec 02, sharp edges 23 and 29).

pub(crate) mod changes;
mod mappings;
mod unsupported;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use choria_config::{BuildSettings, Config, keys};
use choria_security::provider::{FileProvider, SecurityError};
use choria_security::tls::{self, ServerTls};
use choria_tokens::VerificationKey;
use nats_broker::SubjectMapping;

use crate::error::SettingsError;
use crate::policy::{ClientHosts, PolicyInputs, ProvisioningInputs, Secret, SystemUser};
use crate::trust::ClientAuthorities;
pub use unsupported::Unsupported;

/// What the command line adds to the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// `--disable-tls`: the explicit insecure mode. Everybody who reaches the port is a fleet member; provisioning is off.
    pub disable_tls: bool,
    /// `--disable-ssl-verification`: client certificates are not asked for, so only provisioning tokens work.
    pub disable_verification: bool,
    /// How many files the system lets this process have open. Fewer connections than configured are let in when it is too
    /// low for them, so that those who are connected are never out of files. `None`: not known.
    pub open_files: Option<u64>,
}

/// Files that a broker needs beside its connections: listeners, logs, statistics, connections that are ending.
const OTHER_FILES: u64 = 256;

/// What the configuration says by itself.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) identity: String,
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) listen: SocketAddr,
    /// Host and port told to clients; without a port the listener's.
    pub(crate) advertise: (String, Option<u16>),
    pub(crate) cluster: String,
    /// Where websocket clients come in, and what they are told instead.
    pub(crate) websocket: Option<(SocketAddr, Option<String>)>,
    /// Of account `choria`.
    pub(crate) mappings: Vec<SubjectMapping>,
    pub(crate) stats: Option<SocketAddr>,
    pub(crate) max_connections: usize,
    pub(crate) write_deadline: Duration,
    pub(crate) tls_timeout: Duration,
    pub(crate) auth_timeout: Duration,
    pub(crate) shutdown_timeout: Duration,
    /// Whether account `provisioning` exists.
    pub(crate) provisioning: bool,
    pub(crate) tls: bool,
    /// `plugin.security.cipher_suites`.
    pub(crate) cipher_suites: Vec<String>,
    /// `plugin.security.ecc_curves`.
    pub(crate) ecc_curves: Vec<String>,
    /// To be logged once, loudly.
    pub(crate) warnings: Vec<String>,
}

/// What a broker of a configuration would be, told without opening a port or a key file: for programs that check one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outline {
    /// Its name, which it tells everybody who connects.
    pub identity: String,
    /// Where it listens for clients; port 0 is a free one.
    pub listen: SocketAddr,
    /// Where it listens for websocket clients, when that is on.
    pub websocket: Option<SocketAddr>,
    /// Where its statistics are, when they are on.
    pub statistics: Option<SocketAddr>,
    /// The host that clients are told to connect to.
    pub advertised: String,
    /// Connections that it accepts at most.
    pub max_connections: usize,
    /// Whether there is an account for unprovisioned nodes.
    pub provisioning: bool,
    /// Whether clients use TLS.
    pub tls: bool,
    /// What is odd about the configuration, as the broker logs it at start.
    pub warnings: Vec<String>,
}

/// Reads and checks a configuration as a start does.
///
/// # Errors
/// What would stop the start, with file, key and what to do.
pub fn outline(config: &Config, build: &BuildSettings, options: Options) -> Result<Outline, SettingsError> {
    let settings = Settings::read(config, build, options)?;
    Ok(Outline {
        identity: settings.identity,
        listen: settings.listen,
        websocket: settings.websocket.map(|(address, _)| address),
        statistics: settings.stats,
        advertised: settings.advertise.0,
        max_connections: settings.max_connections,
        provisioning: settings.provisioning,
        tls: settings.tls,
        warnings: settings.warnings,
    })
}

/// Certificates, keys, passwords and lists: what decides who may connect.
pub(crate) struct Material {
    pub(crate) policy: PolicyInputs,
    pub(crate) tls: Option<ServerTls>,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("policy", &self.policy).field("tls", &self.tls.is_some()).finish()
    }
}

impl Settings {
    /// Reads everything, opening no port.
    pub(crate) fn read(config: &Config, build: &BuildSettings, options: Options) -> Result<Self, SettingsError> {
        if !config.get(&keys::BROKER_NETWORK) {
            return Err(SettingsError::NothingEnabled { file: file_name(config) });
        }
        unsupported::check(config)
            .map_err(|problem| SettingsError::Unsupported { file: file_name(config), problem })?;
        let tls = uses_tls(config, build, options);
        let mut warnings = unsupported::warnings(config);
        warnings.extend(security_warnings(config, tls, options));
        let (max_connections, too_few_files) = max_connections(build.max_broker_clients, options.open_files);
        warnings.extend(too_few_files);
        let identity = config.get(&keys::IDENTITY);
        Ok(Self {
            listen: listen_address(config)?,
            advertise: advertise(config, &identity),
            identity,
            config_file: config.path().map(PathBuf::from),
            cluster: config.get(&keys::NETWORK_GATEWAY_NAME),
            websocket: websocket(config)?,
            mappings: mappings::read(config)?,
            stats: stats_address(config)?,
            max_connections,
            write_deadline: config.get(&keys::NETWORK_WRITE_DEADLINE),
            tls_timeout: config.get(&keys::NETWORK_TLS_TIMEOUT),
            auth_timeout: config.get(&keys::NETWORK_AUTH_TIMEOUT),
            shutdown_timeout: config.get(&keys::NETWORK_SOFT_SHUTDOWN_TIMEOUT),
            provisioning: tls && config.get(&keys::NETWORK_PROVISIONING_CLIENT_PASSWORD).is_some(),
            tls,
            cipher_suites: config.get(&keys::SECURITY_CIPHER_SUITES),
            ecc_curves: config.get(&keys::SECURITY_ECC_CURVES),
            warnings,
        })
    }
}

impl Material {
    /// Reads every certificate, key and list that the configuration names.
    pub(crate) fn read(config: &Config, build: &BuildSettings, options: Options) -> Result<Self, SettingsError> {
        let uses_tls = uses_tls(config, build, options);
        let tls = if uses_tls { Some(server_tls(config, options)?) } else { None };
        Ok(Self { policy: policy(config, uses_tls)?, tls })
    }

    /// Whom TLS asks about the certificates of clients.
    pub(crate) fn client_authorities(&self) -> ClientAuthorities {
        ClientAuthorities::new(self.tls.as_ref().and_then(|tls| tls.authorities.clone()))
    }
}

fn uses_tls(config: &Config, build: &BuildSettings, options: Options) -> bool {
    (build.tls && !options.disable_tls) || config.get(&keys::NETWORK_CLIENT_TLS_FORCE_REQUIRED)
}

/// The configuration's name in messages.
pub(crate) fn file_name(config: &Config) -> String {
    config.path().map_or_else(|| "the configuration".to_owned(), |path| path.display().to_string())
}

fn security_warnings(config: &Config, tls: bool, options: Options) -> Vec<String> {
    let mut warnings = Vec::new();
    let password = config.get(&keys::NETWORK_PROVISIONING_CLIENT_PASSWORD).is_some();
    let signer = config.get(&keys::NETWORK_PROVISIONING_SIGNER_CERT).is_some();
    if !tls {
        warnings.push(
            "INSECURE: TLS is off. Everything is readable on the wire and everybody who reaches the port is a fleet \
             member without any proof. Use this in a laboratory only"
                .to_owned(),
        );
    }
    if !tls && (password || signer) {
        warnings.push(
            "provisioning is off: it needs TLS, its tokens and passwords must not cross the wire in clear".into(),
        );
    }
    if tls && options.disable_verification {
        warnings.push(
            "INSECURE: client certificates are not asked for, so no fleet member, provisioner or system user can \
             connect; only provisioning tokens work"
                .to_owned(),
        );
    }
    if tls && password && !signer {
        warnings.push(format!(
            "{} is not set: the provisioner can connect, but no unprovisioned node can",
            keys::NETWORK_PROVISIONING_SIGNER_CERT.name()
        ));
    }
    if tls && signer && !password {
        warnings.push(format!(
            "{} is set without {}: there is no provisioning account, nobody can use it",
            keys::NETWORK_PROVISIONING_SIGNER_CERT.name(),
            keys::NETWORK_PROVISIONING_CLIENT_PASSWORD.name()
        ));
    }
    if config.get(&keys::NETWORK_PROVISIONING_ALLOW_UNBOUND_NODES) {
        warnings.push(format!(
            "{} is on: whoever holds the provisioning token and gives no valid name can read what is sent to every \
             unprovisioned node, answer for it and announce it",
            keys::NETWORK_PROVISIONING_ALLOW_UNBOUND_NODES.name()
        ));
    }
    if config.get(&keys::NETWORK_SYSTEM_USER).is_some() && config.get(&keys::NETWORK_SYSTEM_PASSWORD).is_none() {
        warnings.push(format!(
            "{} is set without {}: that user is always refused",
            keys::NETWORK_SYSTEM_USER.name(),
            keys::NETWORK_SYSTEM_PASSWORD.name()
        ));
    }
    if config.get(&keys::NETWORK_DENY_SERVER_CONNECTIONS) && config.get(&keys::NETWORK_CLIENT_HOSTS).is_empty() {
        warnings.push(format!(
            "{} has no effect without {}: servers are told from clients by their address",
            keys::NETWORK_DENY_SERVER_CONNECTIONS.name(),
            keys::NETWORK_CLIENT_HOSTS.name()
        ));
    }
    warnings
}

/// As many connections as wanted, or as the open files allow, with a warning that says so.
fn max_connections(wanted: usize, open_files: Option<u64>) -> (usize, Option<String>) {
    let Some(files) = open_files else { return (wanted, None) };
    let free = files.saturating_sub(OTHER_FILES).max(files / 2);
    let possible = usize::try_from(free).unwrap_or(usize::MAX);
    if possible >= wanted {
        return (wanted, None);
    }
    let warning = format!(
        "this process may have {files} open files, so {possible} connections are let in instead of {wanted}; raise the hard \
         limit to {} (LimitNOFILE= of the unit, ulimit -Hn)",
        wanted as u64 + OTHER_FILES
    );
    (possible, Some(warning))
}

fn policy(config: &Config, tls: bool) -> Result<PolicyInputs, SettingsError> {
    let client_hosts = ClientHosts::parse(&config.get(&keys::NETWORK_CLIENT_HOSTS)).map_err(|source| {
        SettingsError::ClientHosts { file: file_name(config), key: keys::NETWORK_CLIENT_HOSTS.name(), source }
    })?;
    // Read even when there is no password, so that a wrong file is told.
    let signer = signer(config)?;
    let password = config.get(&keys::NETWORK_PROVISIONING_CLIENT_PASSWORD).filter(|_| tls);
    let provisioning = password.as_deref().and_then(Secret::new).map(|client_password| ProvisioningInputs {
        client_password,
        signer,
        allow_unbound_nodes: config.get(&keys::NETWORK_PROVISIONING_ALLOW_UNBOUND_NODES),
    });
    let system = config.get(&keys::NETWORK_SYSTEM_USER).filter(|user| !user.is_empty()).map(|user| SystemUser {
        user,
        password: config.get(&keys::NETWORK_SYSTEM_PASSWORD).as_deref().and_then(Secret::new),
    });
    Ok(PolicyInputs {
        insecure_clear_text: !tls,
        provisioning,
        system,
        client_hosts,
        deny_server_connections: config.get(&keys::NETWORK_DENY_SERVER_CONNECTIONS),
    })
}

fn signer(config: &Config) -> Result<Option<Arc<VerificationKey>>, SettingsError> {
    let key = &keys::NETWORK_PROVISIONING_SIGNER_CERT;
    let Some(path) = config.get(key) else { return Ok(None) };
    let signer = VerificationKey::from_file(&path).map_err(|source| SettingsError::Signer {
        file: file_name(config),
        key: key.name(),
        source,
    })?;
    Ok(Some(Arc::new(signer)))
}

fn server_tls(config: &Config, options: Options) -> Result<ServerTls, SettingsError> {
    let security = |source: SecurityError| SettingsError::Security { file: file_name(config), source };
    let mut material = FileProvider::from_config(config).and_then(|p| p.tls_material()).map_err(security)?;
    if options.disable_verification {
        // A server without a CA asks nobody for a certificate.
        material.ca = None;
    }
    tls::server(&material).map_err(|error| security(error.into()))
}

fn listen_address(config: &Config) -> Result<SocketAddr, SettingsError> {
    let port = config.get(&keys::NETWORK_CLIENT_PORT);
    // -1 asks for a free port; the key table bounds the rest.
    listener(config, if port < 0 { 0 } else { u16::try_from(port).unwrap_or(4222) })
}

fn websocket(config: &Config) -> Result<Option<(SocketAddr, Option<String>)>, SettingsError> {
    match config.get(&keys::NETWORK_WEBSOCKET_PORT) {
        0 => Ok(None),
        port => Ok(Some((listener(config, port)?, config.get(&keys::NETWORK_WEBSOCKET_ADVERTISE)))),
    }
}

/// `plugin.choria.network.listen_address` with a port.
fn listener(config: &Config, port: u16) -> Result<SocketAddr, SettingsError> {
    let address =
        resolve(config, keys::NETWORK_LISTEN_ADDRESS.name(), &config.get(&keys::NETWORK_LISTEN_ADDRESS), port)?;
    // "Every address" is asked of IPv6; a host without IPv6 still has IPv4.
    let everywhere = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    if everywhere && TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err() {
        return Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    }
    Ok(address)
}

fn stats_address(config: &Config) -> Result<Option<SocketAddr>, SettingsError> {
    match config.get(&keys::STATS_PORT) {
        0 => Ok(None),
        port => resolve(config, keys::STATS_ADDRESS.name(), &config.get(&keys::STATS_ADDRESS), port).map(Some),
    }
}

fn resolve(config: &Config, key: &'static str, host: &str, port: u16) -> Result<SocketAddr, SettingsError> {
    let failed =
        |problem: String| SettingsError::Address { file: file_name(config), key, value: host.to_owned(), problem };
    let found: Vec<_> = (host, port).to_socket_addrs().map_err(|error| failed(error.to_string()))?.collect();
    // Names such as localhost have both kinds; IPv4 is what every client of such a name tries.
    let first = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
    first.copied().ok_or_else(|| failed("the name has no address".to_owned()))
}

/// `plugin.choria.network.public_url`, `host:port` or `host` as the key table checked; the identity when it is not set.
fn advertise(config: &Config, identity: &str) -> (String, Option<u16>) {
    let url = config.get(&keys::NETWORK_PUBLIC_URL).unwrap_or_else(|| identity.to_owned());
    let with_port = url.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match with_port {
        // The colons of a bare IPv6 address do not separate a port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host.to_owned(), Some(port)),
        _ => (url, None),
    }
}

#[cfg(test)]
mod tests {
    use choria_config::{Environment, Mode};

    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("plugin.choria.broker_network = yes\nplugin.security.provider = file\n{text}");
        Config::from_text(&text, Mode::Broker, &Environment::fixed("broker.example.net")).unwrap()
    }

    fn settings(text: &str, options: Options) -> Result<Settings, SettingsError> {
        Settings::read(&config(text), &BuildSettings::default(), options)
    }

    const INSECURE: Options = Options { disable_tls: true, disable_verification: false, open_files: None };

    #[test]
    fn defaults() {
        let settings = settings("", Options::default()).unwrap();
        assert_eq!(settings.listen.port(), 4222);
        assert!(settings.listen.ip().is_unspecified());
        assert_eq!(settings.advertise, ("broker.example.net".to_owned(), None));
        assert_eq!((settings.stats, settings.max_connections, settings.cluster.as_str()), (None, 50_000, "CHORIA"));
        assert_eq!(settings.write_deadline, Duration::from_secs(10));
        assert_eq!((settings.tls_timeout, settings.auth_timeout), (Duration::from_secs(2), Duration::from_secs(2)));
        assert!(settings.tls && !settings.provisioning && settings.warnings.is_empty(), "{settings:?}");
    }

    #[test]
    fn no_more_connections_than_open_files() {
        let with = |files| settings("", Options { open_files: Some(files), ..Options::default() }).unwrap();
        for (files, connections) in [(100, 50), (1024, 768), (20_000, 19_744), (50_255, 49_999)] {
            let settings = with(files);
            assert_eq!(settings.max_connections, connections, "{files}");
            let warning = settings.warnings.iter().find(|warning| warning.contains("LimitNOFILE")).unwrap();
            assert!(warning.contains(&format!("{connections} connections")) && warning.contains("50256"), "{warning}");
        }
        for files in [50_256, 1_048_576, u64::MAX] {
            let settings = with(files);
            assert_eq!((settings.max_connections, settings.warnings.len()), (50_000, 0), "{files}");
        }
    }

    #[test]
    fn nothing_enabled_is_an_error() {
        let config = Config::from_text("", Mode::Broker, &Environment::fixed("b")).unwrap();
        let error = Settings::read(&config, &BuildSettings::default(), Options::default()).unwrap_err();
        assert!(error.to_string().contains("all broker features are disabled"), "{error}");
    }

    #[test]
    fn addresses() {
        for (line, expected) in [
            ("plugin.choria.network.listen_address = 127.0.0.1", "127.0.0.1:4222"),
            ("plugin.choria.network.listen_address = localhost", "127.0.0.1:4222"),
            ("plugin.choria.network.listen_address = ::1", "[::1]:4222"),
            (
                "plugin.choria.network.client_port = 0\nplugin.choria.network.listen_address = 127.0.0.1",
                "127.0.0.1:4222",
            ),
            ("plugin.choria.network.client_port = -1\nplugin.choria.network.listen_address = 127.0.0.1", "127.0.0.1:0"),
        ] {
            assert_eq!(settings(line, Options::default()).unwrap().listen.to_string(), expected, "{line}");
        }
        let text = "plugin.choria.stats_port = 8222\nplugin.choria.stats_address = 127.0.0.2\n";
        assert_eq!(settings(text, Options::default()).unwrap().stats.unwrap().to_string(), "127.0.0.2:8222");
        let error = settings("plugin.choria.network.listen_address = not an address", Options::default()).unwrap_err();
        assert!(error.to_string().contains("plugin.choria.network.listen_address"), "{error}");
    }

    #[test]
    fn public_url() {
        for (value, host, port) in [
            ("b.example.net:4223", "b.example.net", Some(4223)),
            ("b.example.net", "b.example.net", None),
            ("[2001:db8::1]:4222", "[2001:db8::1]", Some(4222)),
        ] {
            let settings =
                settings(&format!("plugin.choria.network.public_url = {value}"), Options::default()).unwrap();
            assert_eq!(settings.advertise, (host.to_owned(), port), "{value}");
        }
    }

    #[test]
    fn insecure_mode_warns_loudly_and_refuses_provisioning() {
        let text = "plugin.choria.network.provisioning.client_password = s3cret\n";
        let settings = settings(text, INSECURE).unwrap();
        assert!(!settings.tls && !settings.provisioning);
        assert!(settings.warnings[0].starts_with("INSECURE: TLS is off"), "{:?}", settings.warnings);
        assert!(settings.warnings[1].starts_with("provisioning is off"), "{:?}", settings.warnings);
        let material = Material::read(&config(text), &BuildSettings::default(), INSECURE).unwrap();
        assert!(
            material.policy.insecure_clear_text && material.policy.provisioning.is_none() && material.tls.is_none()
        );

        let forced = format!("{text}plugin.choria.network.client_tls_force_required = yes\n");
        assert!(Settings::read(&config(&forced), &BuildSettings::default(), INSECURE).unwrap().tls);
    }

    #[test]
    fn odd_combinations_warn() {
        for (text, expected) in [
            ("plugin.choria.network.provisioning.client_password = x", "no unprovisioned node can"),
            ("plugin.choria.network.provisioning.signer_cert = /x", "there is no provisioning account"),
            ("plugin.choria.network.provisioning.allow_unbound_nodes = 1", "answer for it"),
            ("plugin.choria.network.system.user = system", "always refused"),
            ("plugin.choria.network.deny_server_connections = yes", "has no effect without"),
        ] {
            let warnings = settings(text, Options::default()).unwrap().warnings;
            assert!(warnings.len() == 1 && warnings[0].contains(expected), "{text}: {warnings:?}");
        }
    }

    #[test]
    fn design6_files_are_checked_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let garbage = dir.path().join("garbage.pem");
        std::fs::write(&garbage, "no key in here").unwrap();
        for path in ["/no/such/file", garbage.to_str().unwrap()] {
            let text = format!("plugin.choria.network.provisioning.signer_cert = {path}");
            let error = Material::read(&config(&text), &BuildSettings::default(), INSECURE).unwrap_err().to_string();
            assert!(error.contains(path) && error.contains("provisioning.signer_cert"), "{error}");
            assert_eq!(error.matches(path).count(), 1, "{error}");
        }
        let error = Material::read(&config(""), &BuildSettings::default(), Options::default()).unwrap_err().to_string();
        assert!(error.contains("plugin.security.file.certificate"), "{error}");
    }
}
