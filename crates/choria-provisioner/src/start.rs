//! Everything that can be wrong is looked for at start: keys, certificates, names, the helper's program.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use choria_config::{Config, keys};
use choria_connector::servers::MiddlewareServers;
use choria_connector::srv::{CachingResolver, SystemResolver};
use choria_connector::{ConnectOptions, ServerSource, Target};
use choria_protocol::{identity, subjects};
use choria_security::provider::{FileProvider, SecurityError, Surroundings};
use choria_security::tls::{self, TlsError};

use crate::config::{ProgramHelper, ProvisionerConfig};
use crate::helper::Runner;
use crate::helper::builtin::BuiltinError;
use crate::requests::Caller;
use crate::rules::{Rules, RulesError};

/// User that brokers put into the account where nodes wait (spec 04 §4).
const BROKER_USER: &str = "provisioner";

/// Why a provisioner cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificate, key or CA cannot be used, or the key is not RSA.
    #[error("{0}")]
    Security(#[from] SecurityError),
    /// TLS cannot be set up.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// A broker address is wrong.
    #[error("plugin.choria.middleware_hosts: {0}")]
    Hosts(#[from] choria_connector::TargetError),
    /// Rules cannot be made.
    #[error("{path}: {source}", path = .path.display())]
    Rules {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong.
        source: RulesError,
    },
    /// The helper cannot be run.
    #[error("{path}: helper: {program} {problem}", path = .path.display())]
    Helper {
        /// The configuration file.
        path: PathBuf,
        /// The program.
        program: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The rules or the authority of the built-in helper cannot be used.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
    /// The identity does not fit a subject.
    #[error("identity {0:?} cannot be used, it must be made of letters, digits, dots, hyphens and underscores")]
    Identity(String),
}

/// How a provisioner of these configurations would connect, told without connecting: for programs that check them.
///
/// # Errors
/// As [`Provisioner::new`](crate::Provisioner::new), but for what concerns the helper and its rules.
pub fn connection(config: &ProvisionerConfig, choria: &Config) -> Result<ConnectOptions, StartError> {
    prepare(config, choria).map(|(_, connect)| connect)
}

/// Who this provisioner is, and how it connects.
pub(crate) fn prepare(config: &ProvisionerConfig, choria: &Config) -> Result<(Caller, ConnectOptions), StartError> {
    let name = choria.get(&keys::IDENTITY);
    if !identity::is_valid(&name) {
        return Err(StartError::Identity(name));
    }
    let hosts: Result<Vec<Target>, _> =
        choria.get(&keys::MIDDLEWARE_HOSTS).iter().map(|host| Target::parse(host)).collect();
    let servers = MiddlewareServers {
        hosts: hosts?,
        shuffle: true,
        srv_domain: choria.get(&keys::USE_SRV).then(|| choria.get(&keys::SRV_DOMAIN)).flatten(),
        resolver: Arc::new(CachingResolver::new(SystemResolver)),
    };
    let mut connect = ConnectOptions::new(ServerSource::Resolver(Arc::new(servers)));
    connect.name.clone_from(&name);
    connect.ping_interval = Duration::from_secs(30);
    connect.connect_timeout = choria.get(&keys::NETWORK_CONNECT_TIMEOUT);
    connect.inbox_prefix = subjects::inbox_prefix(subjects::PROVISIONING_COLLECTIVE);
    // Thousands of requests may be on their way at once.
    connect.max_pending = 8 * 1024 * 1024;
    connect.user = choria.get(&keys::NATS_USER);
    connect.password = choria.get(&keys::NATS_PASS);
    if let Some(password) = &config.broker_provisioning_password {
        connect.user = Some(BROKER_USER.to_owned());
        connect.password = Some(password.expose().to_owned());
    }
    if config.choria_insecure {
        let caller_id = format!("choria={name}");
        return Ok((Caller { identity: name, caller_id, signer: None }, connect));
    }
    let (provider, signer) = provider(choria)?;
    connect.tls = Some(tls::client_config(&provider.tls_material()?)?);
    let caller = Caller { caller_id: provider.caller_id(), identity: name, signer: Some(Arc::new(signer)) };
    Ok((caller, connect))
}

/// The provider under the name that the certificate is for: the original's rule first (for a program that is not
/// root the user's name), then the identity, as befits a daemon.
fn provider(choria: &Config) -> Result<(FileProvider, choria_security::sign::RequestSigner), StartError> {
    let original = FileProvider::from_config(choria).and_then(|p| p.request_signer().map(|s| (p, s)));
    let error = match original {
        Ok(found) => return Ok(found),
        Err(error @ (SecurityError::Certname { .. } | SecurityError::NoUser)) => error,
        Err(error) => return Err(error.into()),
    };
    let daemon = Surroundings { root: true, ..Surroundings::default() };
    let as_daemon = FileProvider::from_config_in(choria, &daemon).and_then(|p| p.request_signer().map(|s| (p, s)));
    as_daemon.map_err(|_| error.into())
}

/// Who decides about nodes: the helper, and the checks around it. Both or neither, so that a reload is whole.
pub(crate) fn deciders(config: &ProvisionerConfig) -> Result<(Runner, Rules), StartError> {
    let runner = Runner::new(config)?;
    let rules = Rules::new(config).map_err(|source| StartError::Rules { path: config.path.clone(), source })?;
    Ok((runner, rules))
}

/// Whether the helper's program exists and may be run.
pub(crate) fn check_program(config: &Path, helper: &ProgramHelper) -> Result<(), StartError> {
    let program = helper.argv.first().cloned().unwrap_or_default();
    let problem = if program.contains('/') {
        problem_of(Path::new(&program))
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).any(|dir| problem_of(&dir.join(&program)).is_none());
        (!found).then_some("is not found in PATH")
    };
    match problem {
        None => Ok(()),
        Some(problem) => Err(StartError::Helper { path: config.to_owned(), program, problem }),
    }
}

fn problem_of(program: &Path) -> Option<&'static str> {
    use nix::unistd::{AccessFlags, access};
    match std::fs::metadata(program) {
        Err(_) => Some("does not exist"),
        Ok(found) if found.is_dir() => Some("is a directory"),
        Ok(_) if access(program, AccessFlags::X_OK).is_err() => Some("is not executable for this user"),
        Ok(_) => None,
    }
}
