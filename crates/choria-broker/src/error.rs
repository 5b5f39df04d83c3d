//! What can stop a broker from starting, running or reloading.

use std::net::SocketAddr;

use choria_tokens::KeyError;

use crate::policy::BadHost;
use crate::settings::Unsupported;

/// The configuration cannot be used. Each message names the file, the key and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// No part of the broker is switched on.
    #[error("all broker features are disabled in {file}; set plugin.choria.broker_network = true")]
    NothingEnabled {
        /// Configuration file.
        file: String,
    },
    /// A part that this version does not have.
    #[error("{file}: {problem}")]
    Unsupported {
        /// Configuration file.
        file: String,
        /// Which setting and why.
        #[source]
        problem: Unsupported,
    },
    /// An address that cannot be listened on or told to clients.
    #[error("{file}: {key} = {value:?} cannot be used: {problem}")]
    Address {
        /// Configuration file.
        file: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        problem: String,
    },
    /// A bad entry of `client_hosts`.
    #[error("{file}: {key}: {source}")]
    ClientHosts {
        /// Configuration file.
        file: String,
        /// The key.
        key: &'static str,
        /// The entry.
        source: BadHost,
    },
    /// Half a subject mapping.
    #[error("{file}: {key} is not set; a subject mapping needs a source and a destination")]
    Mapping {
        /// Configuration file.
        file: String,
        /// The missing key.
        key: String,
    },
    /// The key that signs provisioning tokens cannot be read.
    #[error("{file}: {key}: {source}")]
    Signer {
        /// Configuration file.
        file: String,
        /// The key.
        key: &'static str,
        /// Why, with the path.
        source: KeyError,
    },
    /// Certificate, key or CA.
    #[error("{file}: {source} (see plugin.security.provider and plugin.security.file.certificate, .key, .ca)")]
    Security {
        /// Configuration file.
        file: String,
        /// Why, with key and path.
        source: choria_security::provider::SecurityError,
    },
}

/// The broker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The network broker did not start.
    #[error("the network broker cannot start: {0}")]
    Network(#[from] nats_broker::StartError),
    /// The statistics port cannot be opened.
    #[error(
        "the statistics cannot listen on {address}: {source} (plugin.choria.stats_address, plugin.choria.stats_port)"
    )]
    Statistics {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A reload changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The file cannot be read or holds bad values.
    #[error(transparent)]
    Config(#[from] choria_config::ConfigError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The network broker refused the whole.
    #[error("the network broker: {0}")]
    Network(#[from] nats_broker::ReloadError),
    /// A change that only a restart can make.
    #[error("{what} changed, which needs a restart")]
    NeedsRestart {
        /// What changed.
        what: &'static str,
    },
}

/// The broker stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The drain took longer than `plugin.choria.network.soft_shutdown_timeout`.
    #[error("the broker did not stop within {0:?} (plugin.choria.network.soft_shutdown_timeout)")]
    ShutdownTimeout(std::time::Duration),
}
