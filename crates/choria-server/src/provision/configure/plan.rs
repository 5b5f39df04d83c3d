//! Every check of a `configure` call, and the files it stands for. Nothing here writes.

use std::path::{Path, PathBuf};

use choria_config::{Config, Environment, Mode, SecurityProvider, keys};
use choria_security::cert;
use choria_security::chain;
use choria_security::keys::PrivateKey;
use choria_security::transfer::TransferKey;
use choria_security::trust::Authorities;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::journal::{Content, JournalError, Replacement};
use super::policies;
use super::request::ConfigureRequest;
use super::tls::TlsSet;
use crate::files::{Files, Kind, is_dir, is_there, read_text};
use crate::go_text;

/// Whether the written configuration must hold a security provider that this program can start with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProviderCheck {
    /// It must: the restarted process depends on it. A configuration without one would end every start (spec 03 §17
    /// row 15).
    #[default]
    Required,
    /// The embedding program brings TLS and verification of its own.
    Embedded,
}

/// What a call depends on besides its inputs.
#[derive(Debug)]
pub struct Context<'a> {
    /// Absolute path of the configuration file.
    pub config_file: &'a Path,
    /// For loading the new configuration as the next start will.
    pub environment: &'a Environment,
    /// Nodes are provisioned by default: then the new configuration must say that this one is not, or the restarted
    /// server would start over.
    pub by_default: bool,
    /// See [`ProviderCheck`].
    pub provider: ProviderCheck,
    /// The node's half of the key agreement, made by the action `jwt`.
    pub transfer: Option<&'a TransferKey>,
    /// Request id, for the first line of the file.
    pub request_id: &'a str,
    /// Caller, likewise.
    pub caller: &'a str,
    /// Sender, likewise.
    pub sender: &'a str,
    /// Unix seconds.
    pub now: i64,
}

/// A call that can be put into force.
#[derive(Debug)]
pub struct Plan {
    /// What is replaced by what.
    pub replacements: Vec<Replacement>,
    /// Lines of the configuration file, the first comment included.
    pub lines: usize,
    directory: PathBuf,
}

impl Plan {
    /// Directory of the configuration file.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Why a call was refused. The texts go into the reply and begin as the original's do; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// No configuration.
    #[error("Did not receive any configuration to write, cannot write a empty configuration file")]
    Empty,
    /// A key without the public half that it is encrypted for.
    #[error("EDCH Public Key not supplied while providing a private key")]
    NoPublicKey,
    /// The configuration is not an object of texts.
    #[error("Could not decode configuration data: {0}")]
    Decode(String),
    /// Certificate, CA or key.
    #[error("TLS Setup Failed: {0}")]
    Tls(String),
    /// The configuration would not work.
    #[error("Could not write config: {0}")]
    Config(String),
    /// Action policies.
    #[error("Could not save Action Policies: {0}")]
    Policies(String),
    /// Rego policies.
    #[error("Could not save Open Policy Agent Policies: {0}")]
    Rego(String),
    /// The disk refused; everything is as before.
    #[error("Could not write config: {0}")]
    Disk(#[from] JournalError),
}

/// Checks everything.
///
/// # Errors
/// The first check that fails.
pub fn plan(files: &dyn Files, request: &ConfigureRequest, context: &Context<'_>) -> Result<Plan, ConfigureError> {
    if request.config.is_empty() {
        return Err(ConfigureError::Empty);
    }
    if !request.key.is_empty() && request.ecdh_public.is_empty() {
        return Err(ConfigureError::NoPublicKey);
    }
    let settings = decode(&request.config)?;
    let directory = context.config_file.parent().unwrap_or_else(|| Path::new("/")).to_owned();
    let tls = TlsSet::read(files, request, &directory, context.transfer, context.now).map_err(ConfigureError::Tls)?;
    policies::check_names(&request.action_policies, ".policy").map_err(ConfigureError::Policies)?;
    policies::check_names(&request.opa_policies, ".rego").map_err(ConfigureError::Rego)?;

    let text = render(&settings, context).map_err(ConfigureError::Config)?;
    check(files, &text, &settings, tls.as_ref(), context).map_err(ConfigureError::Config)?;
    let config_file = writable(files, context.config_file).map_err(ConfigureError::Config)?;

    let mut replacements = tls.map(|tls| tls.replacements()).unwrap_or_default();
    if !request.server_jwt.is_empty() {
        let target = directory.join("server.jwt");
        replacements.push(Replacement { target, content: Content::file(request.server_jwt.as_bytes(), 0o600) });
    }
    replacements.push(Replacement { target: config_file, content: Content::file(text, 0o600) });
    let kept = policies::replacement(files, &directory, &request.action_policies, &request.opa_policies);
    replacements.extend(kept.map_err(ConfigureError::Policies)?);
    Ok(Plan { replacements, lines: settings.len() + 1, directory })
}

/// A JSON object of texts, in order; null values are empty, of repeated keys the last counts.
fn decode(text: &str) -> Result<Vec<(String, String)>, ConfigureError> {
    let object: Option<Map<String, Value>> =
        serde_json::from_str(text).map_err(|error| ConfigureError::Decode(error.to_string()))?;
    let texts = object.unwrap_or_default().into_iter().map(|(key, value)| match value {
        Value::String(text) => Ok((key, text)),
        Value::Null => Ok((key, String::new())),
        _ => Err(ConfigureError::Decode(format!("the value of {key:?} is not a string"))),
    });
    texts.collect()
}

/// The text of the file. Names and values that would not mean the same in a file are refused.
fn render(settings: &[(String, String)], context: &Context<'_>) -> Result<String, String> {
    let one_line = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    let mut text = format!(
        "# configuration file written in request {} from {} ({}) at {}\n",
        one_line(context.request_id),
        one_line(context.caller),
        one_line(context.sender),
        go_text::time(context.now),
    );
    for (key, value) in settings {
        let unfit = |c: char| c.is_control() || c.is_whitespace() || c == '=';
        if key.is_empty() || key.starts_with('#') || key.contains(unfit) {
            return Err(format!("{key:?} is not a configuration key"));
        }
        if value.contains(['\n', '\r', '\0']) {
            return Err(format!("the value of {key} holds a line end or NUL, which would end the setting"));
        }
        text.push_str(key);
        text.push('=');
        text.push_str(value);
        text.push('\n');
    }
    Ok(text)
}

/// Loads the text as the next start will, and asks whether that start would succeed.
fn check(
    files: &dyn Files,
    text: &str,
    settings: &[(String, String)],
    tls: Option<&TlsSet>,
    context: &Context<'_>,
) -> Result<(), String> {
    let config = Config::from_text_at(context.config_file, text, Mode::Server, context.environment)
        .map_err(|error| format!("generated configuration could not be parsed: {error}"))?;
    let beside = context.config_file.with_file_name("plugin.d");
    for (key, value) in settings {
        let read = config.raw(key).unwrap_or_default();
        // A file in plugin.d may win over the main file; that is its purpose.
        if read != value.trim() && !is_dir(files, &beside) {
            return Err(format!("{key} would be read as {read:?}"));
        }
    }
    match config.get(&keys::SERVER_PROVISION) {
        Some(true) => {
            return Err("plugin.choria.server.provision is true, the node would be provisioned again".to_owned());
        }
        None if context.by_default => {
            return Err("nodes are provisioned by default, so the configuration must hold \
                        plugin.choria.server.provision = false or the node would be provisioned again"
                .to_owned());
        }
        _ => {}
    }
    match context.provider {
        ProviderCheck::Required => check_provider(files, &config, tls, context),
        ProviderCheck::Embedded => Ok(()),
    }
}

/// Certificate, key and CA that the configuration names must exist, after this call, and fit together.
fn check_provider(
    files: &dyn Files,
    config: &Config,
    tls: Option<&TlsSet>,
    context: &Context<'_>,
) -> Result<(), String> {
    let provider = config.get(&keys::SECURITY_PROVIDER);
    if provider != SecurityProvider::File {
        return Err(format!(
            "plugin.security.provider is {provider}, with which this server could not start again: set it to file and \
             name plugin.security.file.certificate, .key and .ca"
        ));
    }
    let base = context.environment.working_directory();
    let path = |path: Option<PathBuf>, name: &str| {
        path.map(|path| base.join(path)).ok_or_else(|| format!("{name} is not set, the server could not start again"))
    };
    let certificate = path(config.get(&keys::SECURITY_FILE_CERTIFICATE), keys::SECURITY_FILE_CERTIFICATE.name())?;
    let key = path(config.get(&keys::SECURITY_FILE_KEY), keys::SECURITY_FILE_KEY.name())?;
    let ca = path(config.get(&keys::SECURITY_FILE_CA), keys::SECURITY_FILE_CA.name())?;

    if tls.is_some_and(|tls| tls.is(&certificate, &key, &ca)) {
        return Ok(());
    }
    let text = |path: &Path| tls.and_then(|tls| tls.text(path)).map_or_else(|| read_regular(files, path), Ok);
    let certificate_text = text(&certificate)?;
    let facts =
        cert::first_from_pem(&certificate_text).map_err(|error| format!("{}: {error}", certificate.display()))?;
    let authorities = Authorities::from_pem(&text(&ca)?).map_err(|error| format!("{}: {error}", ca.display()))?;
    chain::check_client_chain(&certificate_text, &authorities, context.now)
        .map_err(|error| format!("{}: {error}", certificate.display()))?;
    let loaded;
    let key_here = match tls.and_then(|tls| tls.key(&key)) {
        Some(key) => key,
        None => {
            let text = Zeroizing::new(read_regular(files, &key)?);
            loaded = PrivateKey::from_pem(&text).map_err(|error| format!("{}: {error}", key.display()))?;
            &loaded
        }
    };
    if !facts.belongs_to(key_here) {
        return Err(format!("the certificate {} is not for the key {}", certificate.display(), key.display()));
    }
    Ok(())
}

/// Largest certificate, key or CA file that is read.
const MAX_PEM: u64 = 1024 * 1024;

/// Reads a regular file of bounded size. The path comes from a request: a device or pipe would never end.
pub(super) fn read_regular(files: &dyn Files, path: &Path) -> Result<String, String> {
    let shown = path.display();
    let metadata = files.metadata(path).map_err(|error| format!("{shown}: {error}"))?;
    if metadata.kind != Kind::File {
        return Err(format!("{shown} is not a regular file"));
    }
    read_text(files, path, MAX_PEM).map_err(|error| format!("could not read {shown}: {error}"))
}

/// Where the configuration really lies: the target of a link, the link itself if it leads nowhere.
fn writable(files: &dyn Files, path: &Path) -> Result<PathBuf, String> {
    if is_dir(files, path) {
        return Err(format!("{} is a directory", path.display()));
    }
    match files.canonicalize(path) {
        Ok(target) => Ok(target),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound || is_there(files, path) => Ok(path.to_owned()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::files::Disk;

    fn planned(config: &str, directory: &Path) -> Result<Plan, ConfigureError> {
        let environment = Environment::fixed("n1.lab.test").with_working_directory(directory);
        let request = ConfigureRequest { config: config.to_owned(), ..ConfigureRequest::default() };
        let context = Context {
            config_file: &directory.join("server.conf"),
            environment: &environment,
            by_default: false,
            provider: ProviderCheck::Embedded,
            transfer: None,
            request_id: "1",
            caller: "choria=p.choria",
            sender: "p.choria",
            now: 1_795_219_200,
        };
        plan(&Disk, &request, &context)
    }

    fn text_of(plan: &Plan) -> String {
        let Content::File { bytes, .. } = &plan.replacements[0].content else { panic!("not a file") };
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn devices_and_directories_are_not_read() {
        for path in ["/dev/zero", "/", "/nonexistent/x"] {
            assert!(read_regular(&Disk, Path::new(path)).is_err(), "{path}");
        }
    }

    proptest! {
        /// What is accepted is read back as exactly what was sent, and nothing else.
        #[test]
        fn accepted_settings_mean_in_the_file_what_they_meant_in_the_request(
            settings in proptest::collection::btree_map("(plugin\\.[a-z]{1,4}|identity|[ =#a-z\\n]{0,4})", "[ -~\\n\\r\\t\u{0}é]{0,12}", 0..6),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let config = serde_json::to_string(&settings).unwrap();
            if let Ok(plan) = planned(&config, directory.path()) {
                let text = text_of(&plan);
                prop_assert_eq!(text.lines().count(), settings.len() + 1);
                let environment = Environment::fixed("n1.lab.test");
                let read = Config::from_text(&text, Mode::Server, &environment).unwrap();
                let sent = settings.iter().filter(|(_, value)| !value.trim().is_empty());
                let sent: Vec<(&str, &str)> = sent.map(|(key, value)| (key.as_str(), value.trim())).collect();
                let found: Vec<(&str, &str)> =
                    read.raw_options().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                prop_assert_eq!(found, sent);
            }
        }

        #[test]
        fn any_text_is_planned_or_refused(config in "\\PC{0,60}") {
            let directory = tempfile::tempdir().unwrap();
            let _ = planned(&config, directory.path());
        }
    }
}
