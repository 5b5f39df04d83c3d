//! What is different between two configurations, by key.

use std::net::SocketAddr;

use choria_config::keys;

use super::{Material, Settings};

/// The first difference that only a restart can bring about.
pub(crate) fn fixed(old: &Settings, new: &Settings) -> Option<&'static str> {
    let differences = [
        (keys::IDENTITY.name(), old.identity != new.identity),
        ("plugin.choria.network.listen_address or client_port", old.listen != new.listen),
        (keys::NETWORK_WEBSOCKET_PORT.name(), websocket(old) != websocket(new)),
        ("plugin.choria.stats_address or stats_port", old.stats != new.stats),
        ("the use of TLS", old.tls != new.tls),
    ];
    differences.into_iter().find_map(|(what, differs)| differs.then_some(what))
}

fn websocket(settings: &Settings) -> Option<SocketAddr> {
    settings.websocket.as_ref().map(|(address, _)| *address)
}

/// The keys whose value, or what stands in the file they name, is different.
pub(crate) fn changed(old: (&Settings, &Material), new: (&Settings, &Material)) -> Vec<&'static str> {
    let mut changed = settings(old.0, new.0);
    changed.extend(files(old.1, new.1));
    changed.extend(rights(old.1, new.1));
    changed
}

fn named<const N: usize>(differences: [(&'static str, bool); N]) -> impl Iterator<Item = &'static str> {
    differences.into_iter().filter_map(|(key, differs)| differs.then_some(key))
}

fn settings(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let told = |settings: &Settings| settings.websocket.as_ref().and_then(|(_, told)| told.clone());
    let differences = [
        (keys::NETWORK_PUBLIC_URL.name(), old.advertise != new.advertise),
        (keys::NETWORK_WEBSOCKET_ADVERTISE.name(), told(old) != told(new)),
        (keys::NETWORK_MAPPING_NAMES.name(), old.mappings != new.mappings),
        (keys::NETWORK_GATEWAY_NAME.name(), old.cluster != new.cluster),
        (keys::NETWORK_WRITE_DEADLINE.name(), old.write_deadline != new.write_deadline),
        (keys::NETWORK_TLS_TIMEOUT.name(), old.tls_timeout != new.tls_timeout),
        (keys::NETWORK_AUTH_TIMEOUT.name(), old.auth_timeout != new.auth_timeout),
        (keys::NETWORK_SOFT_SHUTDOWN_TIMEOUT.name(), old.shutdown_timeout != new.shutdown_timeout),
        (keys::SECURITY_CIPHER_SUITES.name(), old.cipher_suites != new.cipher_suites),
        (keys::SECURITY_ECC_CURVES.name(), old.ecc_curves != new.ecc_curves),
    ];
    named(differences).collect()
}

fn files(old: &Material, new: &Material) -> impl Iterator<Item = &'static str> {
    let chain = |material: &Material| material.tls.as_ref().map(|tls| tls.chain.clone());
    let authorities = |material: &Material| {
        let tls = material.tls.as_ref();
        tls.and_then(|tls| tls.authorities.as_ref()).map(|authorities| authorities.certificates().to_vec())
    };
    let signer = |material: &Material| {
        let provisioning = material.policy.provisioning.as_ref();
        provisioning.and_then(|provisioning| provisioning.signer.as_ref()).map(|signer| signer.id())
    };
    named([
        (keys::SECURITY_FILE_CA.name(), authorities(old) != authorities(new)),
        (keys::SECURITY_FILE_CERTIFICATE.name(), chain(old) != chain(new)),
        (keys::NETWORK_PROVISIONING_SIGNER_CERT.name(), signer(old) != signer(new)),
    ])
}

fn rights(old: &Material, new: &Material) -> impl Iterator<Item = &'static str> {
    let (old, new) = (&old.policy, &new.policy);
    let (before, after) = (old.provisioning.as_ref(), new.provisioning.as_ref());
    let password = before.map(|account| &account.client_password) != after.map(|account| &account.client_password);
    let unbound = |account: Option<&crate::policy::ProvisioningInputs>| {
        account.is_some_and(|account| account.allow_unbound_nodes)
    };
    let (was, is) = (old.system.as_ref(), new.system.as_ref());
    named([
        (keys::NETWORK_PROVISIONING_CLIENT_PASSWORD.name(), password),
        (keys::NETWORK_PROVISIONING_ALLOW_UNBOUND_NODES.name(), unbound(before) != unbound(after)),
        (keys::NETWORK_SYSTEM_USER.name(), was.map(|system| &system.user) != is.map(|system| &system.user)),
        (keys::NETWORK_SYSTEM_PASSWORD.name(), was.map(|system| &system.password) != is.map(|system| &system.password)),
        (keys::NETWORK_CLIENT_HOSTS.name(), old.client_hosts != new.client_hosts),
        (keys::NETWORK_DENY_SERVER_CONNECTIONS.name(), old.deny_server_connections != new.deny_server_connections),
    ])
}

#[cfg(test)]
mod tests {
    use choria_config::{BuildSettings, Config, Environment, Mode};

    use super::super::Options;
    use super::*;

    fn read(text: &str) -> (Settings, Material) {
        let text = format!(
            "plugin.choria.broker_network = yes\nplugin.security.provider = file\n\
             plugin.choria.network.listen_address = 127.0.0.1\n{text}"
        );
        let config = Config::from_text(&text, Mode::Broker, &Environment::fixed("broker.example.net")).unwrap();
        let options = Options { disable_tls: true, ..Options::default() };
        let build = BuildSettings::default();
        (Settings::read(&config, &build, options).unwrap(), Material::read(&config, &build, options).unwrap())
    }

    #[test]
    fn differences_are_named_by_key() {
        let old = read("");
        let none = Vec::<&str>::new();
        assert_eq!(changed((&old.0, &old.1), (&old.0, &old.1)), none);
        for (line, key) in [
            ("plugin.choria.network.public_url = b:1", "plugin.choria.network.public_url"),
            ("plugin.choria.network.gateway_name = C", "plugin.choria.network.gateway_name"),
            (
                "plugin.choria.network.mapping.names = a\nplugin.choria.network.mapping.a.source = x\n\
                 plugin.choria.network.mapping.a.destination = y",
                "plugin.choria.network.mapping.names",
            ),
            ("plugin.choria.network.write_deadline = 9s", "plugin.choria.network.write_deadline"),
            ("plugin.choria.network.tls_timeout = 9s", "plugin.choria.network.tls_timeout"),
            ("plugin.choria.network.auth_timeout = 9s", "plugin.choria.network.auth_timeout"),
            ("plugin.choria.network.soft_shutdown_timeout = 9", "plugin.choria.network.soft_shutdown_timeout"),
            ("plugin.choria.network.client_hosts = 192.0.2.1", "plugin.choria.network.client_hosts"),
            ("plugin.choria.network.deny_server_connections = 1", "plugin.choria.network.deny_server_connections"),
            ("plugin.choria.network.system.user = root", "plugin.choria.network.system.user"),
        ] {
            let new = read(line);
            assert_eq!(fixed(&old.0, &new.0), None, "{line}");
            let mut named = changed((&old.0, &old.1), (&new.0, &new.1));
            // A system user comes with a password, or none.
            named.retain(|name| *name != "plugin.choria.network.system.password");
            assert_eq!(named, [key]);
        }
    }

    #[test]
    fn what_only_a_restart_can_change_is_named() {
        let old = read("").0;
        assert_eq!(fixed(&old, &old), None);
        for (line, what) in [
            ("identity = other.example.net", "identity"),
            ("plugin.choria.network.client_port = 4333", "listen_address or client_port"),
            ("plugin.choria.network.websocket_port = 4433", "websocket_port"),
            ("plugin.choria.stats_port = 8222", "stats_address or stats_port"),
            ("plugin.choria.network.client_tls_force_required = 1", "the use of TLS"),
        ] {
            let new = if line.contains("tls") { Settings { tls: true, ..old.clone() } } else { read(line).0 };
            assert!(fixed(&old, &new).unwrap().contains(what), "{line}");
        }
    }
}
