//! The configuration files: are they there, do they parse, who may read the secrets in them.

use std::fmt::Display;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use choria_config::{Config, ConfigError, Inspection, Mode, Source, keys};
use choria_provisioner::config::ProvisionerConfig;

use super::Context;
use super::certificates::listed;
use super::finding::Findings;
use crate::print::config::Entry;

/// Reads a Choria configuration and tells about it; none when it cannot be used.
pub(super) fn choria(findings: &mut Findings, context: &Context<'_>, path: &Path, mode: Mode) -> Option<Config> {
    match Config::inspect(path, mode, &context.environment) {
        Ok(inspection) => tell(findings, path, inspection),
        Err(error) => {
            unreadable(findings, path, &error);
            None
        }
    }
}

/// The client configuration that is named, or that a client would find.
pub(super) fn client(findings: &mut Findings, context: &Context<'_>, named: Option<&Path>) -> Option<Config> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => match choria_config::search::client_file(&context.environment) {
            Ok(path) => path,
            Err(error) => {
                unreadable(findings, Path::new(""), &error);
                return None;
            }
        },
    };
    choria(findings, context, &path, Mode::Client)
}

fn unreadable(findings: &mut Findings, path: &Path, error: &ConfigError) {
    let advice = match error {
        ConfigError::NotFound { .. } => "make one of these files, or name another with --config FILE",
        _ if error.is_missing_file() => "make the file, or name another with --config FILE",
        _ => "see who may read it, or run this as the user that the program runs as",
    };
    findings.failed("config.file", path.display(), error, advice);
}

fn tell(findings: &mut Findings, path: &Path, inspection: Inspection) -> Option<Config> {
    let others: Vec<_> = inspection.files.iter().filter(|file| *file != path).map(|file| file.display()).collect();
    match others.as_slice() {
        [] => findings.ok("config.file", path.display(), "read"),
        others => findings.ok("config.file", path.display(), format!("read, and {}", listed(others))),
    }
    for problem in &inspection.problems {
        let (place, text) = apart(&problem.source, problem);
        findings.failed("config.values", place, text, "correct the value");
    }
    for warning in &inspection.warnings {
        let (place, text) = apart(&warning.source, warning);
        findings.warning("config.keys", place, text, "correct or remove the line");
    }
    let config = inspection.config?;
    findings.ok("config.values", path.display(), format!("{} settings, all usable", config.raw_options().len()));
    let secret = |name: &String| keys::find(name).is_some_and(|spec| spec.secret);
    if config.raw_options().keys().any(secret) {
        for file in &inspection.files {
            secrets(findings, file, "config.secrets", "it holds a password");
        }
    }
    Some(config)
}

/// The place of a problem or warning, and what is said about it.
fn apart(source: &Source, whole: &impl Display) -> (String, String) {
    let (place, whole) = (source.to_string(), whole.to_string());
    let text = whole.strip_prefix(&format!("{place}: ")).unwrap_or(&whole).to_owned();
    (place, text)
}

/// Reads the provisioner's own configuration and tells about it.
pub(super) fn provisioner(findings: &mut Findings, path: &Path) -> Option<ProvisionerConfig> {
    let inspection = match ProvisionerConfig::inspect(path) {
        Ok(inspection) => inspection,
        Err(error) => {
            findings.failed("config.file", path.display(), error, "make the file, or name another with --config FILE");
            return None;
        }
    };
    findings.ok("config.file", path.display(), "read");
    for fault in &inspection.faults {
        let (place, text) = located(path, fault);
        findings.failed("config.values", place, text, "correct the value");
    }
    for warning in &inspection.warnings {
        let (place, text) = located(path, warning);
        findings.warning("config.keys", place, text, "correct or remove the line");
    }
    let config = inspection.config?;
    findings.ok("config.values", path.display(), "all usable");
    if config.broker_provisioning_password.is_some() || !config.token.is_empty() {
        secrets(findings, path, "config.secrets", "it holds the provisioning token or password");
    }
    Some(config)
}

/// The place that a text about the provisioner's file begins with, and the rest of it.
fn located(path: &Path, whole: &impl Display) -> (String, String) {
    let entry = Entry::located(whole.to_string());
    match (entry.file, entry.line) {
        (Some(file), Some(line)) => (format!("{file}:{line}"), entry.text),
        _ => (path.display().to_string(), entry.text),
    }
}

/// Files with secrets are for their owner, and a group at most.
pub(super) fn secrets(findings: &mut Findings, path: &Path, id: &'static str, why: &str) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 == 0 {
        findings.ok(id, path.display(), format!("mode {mode:04o}"));
    } else {
        let advice = format!("chmod 0640 {0}, or 0600, owned by the user that the program runs as", path.display());
        findings.warning(
            id,
            path.display(),
            format!("mode {mode:04o}: everybody on this machine can read it, and {why}"),
            advice,
        );
    }
}

/// The usual place of a daemon's configuration.
pub(super) fn usual(named: Option<&Path>, place: &str) -> PathBuf {
    named.map_or_else(|| PathBuf::from(place), Path::to_owned)
}
