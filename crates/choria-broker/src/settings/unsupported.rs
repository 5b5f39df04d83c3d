//! Settings of parts that this broker does not have.
//!
//! A setting that would change who may connect or what reaches whom is a start error when it is set: ignoring it
//! would run another broker than the one that was asked for. The rest only warns.

use choria_config::{Config, Key, Setting, keys};

/// A setting that this broker cannot honour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is set, but {why}")]
pub struct Unsupported {
    /// The key.
    pub key: &'static str,
    /// What is missing and what to do instead.
    pub why: &'static str,
}

const CLUSTER: &str = "the embedded broker does not form clusters; clusters, gateways and leafnodes are the business of \
    the nats-server engine (a nats-server cluster that asks Choria who may connect), which this version does not have \
    yet; remove the setting to run a single broker";
const TOKENS: &str = "organisation issuers and signed client or server tokens (protocol v2) are not part of this version; \
     remove the setting to run an x509 network with the security provider file";
const STREAMS: &str = "Choria Streams are not part of this version; remove the setting";
const FEDERATION: &str = "the federation broker is not part of this version; remove the setting";
const ADAPTERS: &str = "protocol adapters are not part of this version; remove the setting";

/// Checks every such setting.
///
/// # Errors
/// The first setting that must not be ignored.
pub(super) fn check(config: &Config) -> Result<(), Unsupported> {
    fn list(config: &Config, key: &Key<Vec<String>>, why: &'static str) -> Result<(), Unsupported> {
        refuse(!config.get(key).is_empty(), key, why)
    }
    fn port(config: &Config, key: &Key<u16>, why: &'static str) -> Result<(), Unsupported> {
        refuse(config.get(key) != 0, key, why)
    }
    list(config, &keys::NETWORK_PEERS, CLUSTER)?;
    port(config, &keys::NETWORK_PEER_PORT, CLUSTER)?;
    port(config, &keys::NETWORK_GATEWAY_PORT, CLUSTER)?;
    list(config, &keys::NETWORK_GATEWAY_REMOTES, CLUSTER)?;
    port(config, &keys::NETWORK_LEAFNODE_PORT, CLUSTER)?;
    list(config, &keys::NETWORK_LEAFNODE_REMOTES, CLUSTER)?;
    list(config, &keys::SECURITY_ISSUER_NAMES, TOKENS)?;
    list(config, &keys::NETWORK_CLIENT_SIGNER_CERT, TOKENS)?;
    list(config, &keys::NETWORK_SERVER_SIGNER_CERT, TOKENS)?;
    list(config, &keys::SECURITY_CHORIA_TRUSTED_SIGNERS, TOKENS)?;
    refuse(config.get(&keys::NETWORK_STREAM_STORE).is_some(), &keys::NETWORK_STREAM_STORE, STREAMS)?;
    refuse(config.get(&keys::BROKER_FEDERATION), &keys::BROKER_FEDERATION, FEDERATION)?;
    list(config, &keys::ADAPTERS, ADAPTERS)
}

fn refuse<T: Setting>(set: bool, key: &Key<T>, why: &'static str) -> Result<(), Unsupported> {
    if set { Err(Unsupported { key: key.name(), why }) } else { Ok(()) }
}

/// Settings that are ignored without harm, one sentence each.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.get(&keys::NETWORK_PPROF_PORT) != 0 {
        warnings.push(format!("{} is set: this broker has no profiler port", keys::NETWORK_PPROF_PORT.name()));
    }
    if config.get(&keys::NETWORK_PROVISIONING_PROVISIONER_WITHOUT_TOKEN) {
        warnings.push(format!(
            "{} has no effect: on an x509 network the provisioner needs a certificate and the password, never a token",
            keys::NETWORK_PROVISIONING_PROVISIONER_WITHOUT_TOKEN.name()
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use choria_config::{Environment, Mode};

    use super::*;

    fn config(text: &str) -> Config {
        Config::from_text(text, Mode::Broker, &Environment::fixed("broker.example.net")).unwrap()
    }

    #[test]
    fn settings_of_missing_parts_are_start_errors_that_name_the_key_and_the_way_out() {
        let cases = [
            ("plugin.choria.network.peers = nats://b2.example.net:5222", "nats-server engine"),
            ("plugin.choria.network.peer_port = 5222", "nats-server engine"),
            ("plugin.choria.network.gateway_port = 7222", "nats-server engine"),
            ("plugin.choria.network.gateway_remotes = C2", "nats-server engine"),
            ("plugin.choria.network.leafnode_port = 6222", "nats-server engine"),
            ("plugin.choria.network.leafnode_remotes = l", "nats-server engine"),
            ("plugin.security.issuer.names = choria", "protocol v2"),
            ("plugin.choria.network.client_signer_cert = /x", "protocol v2"),
            ("plugin.choria.network.server_signer_cert = /x", "protocol v2"),
            ("plugin.security.choria.trusted_signers = aa", "protocol v2"),
            ("plugin.choria.network.stream.store = /data", "Streams"),
            ("plugin.choria.broker_federation = yes", "federation"),
            ("plugin.choria.adapters = events", "adapters"),
        ];
        for (line, expected) in cases {
            let error = check(&config(line)).unwrap_err();
            assert!(line.starts_with(error.key), "{line}: {error}");
            assert!(error.to_string().contains(expected), "{line}: {error}");
        }
        assert_eq!(check(&config("plugin.choria.broker_network = yes")), Ok(()));
    }

    #[test]
    fn harmless_settings_warn() {
        let text = "plugin.choria.network.pprof_port = 6060\nplugin.choria.network.provisioning.provisioner_without_token = 1\n";
        assert_eq!(warnings(&config(text)).len(), 2);
        assert!(warnings(&config("")).is_empty());
    }
}
