//! What can still be used of a configuration that the strict loader refuses: who the node is, where it logs, and
//! whether it should be provisioned. Everything else of such a file is dropped.

use std::path::Path;

use choria_config::{Config, Environment, Mode, keys};

use super::decision::Salvaged;
use crate::files::{Files, MAX_CONFIG};

/// Keys that are worth saving one by one.
const WANTED: [&str; 6] = [
    "identity",
    "logfile",
    "loglevel",
    "plugin.choria.server.provision",
    "plugin.choria.status_file_path",
    "classesfile",
];

/// The answer about `plugin.choria.server.provision`, and a configuration of the good lines.
pub(super) fn salvage(files: &dyn Files, path: &Path, environment: &Environment) -> (Salvaged, Option<Config>) {
    let bytes = files.read(path, MAX_CONFIG).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut good = String::new();
    let mut unclear = false;
    for line in text.lines() {
        let line = line.trim();
        let Some((key, value)) = line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else { continue };
        if !WANTED.contains(&key) || value.is_empty() {
            continue;
        }
        if Config::from_text(line, Mode::Server, environment).is_ok() {
            good.push_str(line);
            good.push('\n');
        } else if key == keys::SERVER_PROVISION.name() {
            unclear = true;
        }
    }
    // plugin.d may decide about provisioning too; if it is the broken part, nobody can tell.
    match Config::from_text_at(path, &good, Mode::Server, environment) {
        Ok(config) => {
            let provision = match config.get(&keys::SERVER_PROVISION) {
                _ if unclear => Salvaged::Unclear,
                None => Salvaged::Absent,
                Some(value) => Salvaged::Value(value),
            };
            (provision, Some(config))
        }
        Err(_) => (Salvaged::Unclear, Config::from_text(&good, Mode::Server, environment).ok()),
    }
}
