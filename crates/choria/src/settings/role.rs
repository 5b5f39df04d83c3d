//! Which program a configuration file is for.

use std::path::Path;

use choria_config::keys;

use crate::cli::Role;

/// Largest file that is looked into; configurations are far smaller.
const MAX_FILE: usize = 1024 * 1024;

/// Guesses from the name and the settings. A file that says nothing is taken for a server's, the commonest kind.
pub(crate) fn guess(path: &Path) -> Role {
    let extension = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    if ["yaml", "yml", "json"].contains(&extension.as_str()) {
        return Role::Provisioner;
    }
    let content = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&content[..content.len().min(MAX_FILE)]);
    let keys: Vec<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|(key, _)| key.trim()).collect();
    if keys.iter().any(|key| [keys::BROKER_NETWORK.name(), keys::BROKER_FEDERATION.name()].contains(key)) {
        return Role::Broker;
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = [
        ("broker", Role::Broker),
        ("server", Role::Server),
        ("client", Role::Client),
        (".choriarc", Role::Client),
        (".mcollective", Role::Client),
        ("choria.conf", Role::Client),
    ];
    named.into_iter().find(|(start, _)| name.starts_with(start)).map_or(Role::Server, |(_, role)| role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_settings_tell() {
        let directory = tempfile::tempdir().unwrap();
        let guessed = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            guess(&path)
        };
        assert_eq!(guessed("p.yaml", ""), Role::Provisioner);
        assert_eq!(guessed("x.cfg", " plugin.choria.broker_network = yes\n"), Role::Broker);
        assert_eq!(guessed("server.conf", "plugin.choria.broker_network = yes\n"), Role::Broker);
        assert_eq!(guessed("broker.conf", ""), Role::Broker);
        assert_eq!(guessed("server.cfg", "ttl = 1\n"), Role::Server);
        assert_eq!(guessed("client.conf", ""), Role::Client);
        assert_eq!(guessed(".choriarc", ""), Role::Client);
        assert_eq!(guessed("x.cfg", "ttl = 1\n"), Role::Server);
        assert_eq!(guess(Path::new("/nowhere/client.cfg")), Role::Client);
    }
}
