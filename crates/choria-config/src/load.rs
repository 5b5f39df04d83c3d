//! Puts a configuration together: main file, `plugin.d`, project files, variables, then what follows from the rest.
//!
//! Later sources win. Every bad setting is collected before the load fails.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::check;
use crate::config::{Config, Inspection, Mode};
use crate::environment::Environment;
use crate::error::{ConfigError, Problem, ProblemKind, Source, Warning};
use crate::grammar::{self, Content};
use crate::identity;
use crate::key::{Spec, Status};
use crate::keys;
use crate::search;
use crate::types::SecurityProvider;
use crate::value::Value;

/// Namespaces whose unknown keys are slips; any other `plugin.NAME.` belongs to an agent of that name.
const OWN_NAMESPACES: [&str; 10] = [
    "plugin.choria.",
    "plugin.security.",
    "plugin.nats.",
    "plugin.rpcaudit.",
    "plugin.scout.",
    "plugin.machines.",
    "plugin.actionpolicy.",
    "plugin.regopolicy.",
    "plugin.login.",
    "plugin.yaml.",
];

pub(crate) fn file(path: &Path, mode: Mode, environment: &Environment) -> Result<Config, ConfigError> {
    read(path, mode, environment)?.finish()
}

pub(crate) fn inspect(path: &Path, mode: Mode, environment: &Environment) -> Result<Inspection, ConfigError> {
    Ok(read(path, mode, environment)?.inspection())
}

/// Reads the main file and all that belongs to it.
fn read<'e>(path: &Path, mode: Mode, environment: &'e Environment) -> Result<Loader<'e>, ConfigError> {
    let main = std::fs::read(path).map_err(|source| ConfigError::read(path, source))?;
    let mut loader = Loader::new(mode, Some(path), environment);
    loader.add(path, &main, "");
    loader.add_plugin_d(path)?;
    if mode == Mode::Client {
        for project in search::project_files(environment.working_directory()) {
            // The main file itself may lie in a project directory.
            if project != path {
                loader.add_file(&project, "")?;
            }
        }
    }
    Ok(loader)
}

pub(crate) fn text(
    path: Option<&Path>,
    text: &[u8],
    mode: Mode,
    environment: &Environment,
) -> Result<Config, ConfigError> {
    let mut loader = Loader::new(mode, path, environment);
    loader.add(path.unwrap_or_else(|| Path::new("configuration")), text, "");
    if let Some(path) = path {
        loader.add_plugin_d(path)?;
    }
    loader.finish()
}

pub(crate) fn defaults(path: Option<&Path>, mode: Mode, environment: &Environment) -> Result<Config, ConfigError> {
    Loader::new(mode, path, environment).finish()
}

struct Loader<'e> {
    config: Config,
    environment: &'e Environment,
    problems: Vec<Problem>,
}

impl<'e> Loader<'e> {
    fn new(mode: Mode, path: Option<&Path>, environment: &'e Environment) -> Self {
        Self { config: Config::empty(mode, path.map(Path::to_owned)), environment, problems: Vec::new() }
    }

    fn add_file(&mut self, path: &Path, prefix: &str) -> Result<(), ConfigError> {
        let content = std::fs::read(path).map_err(|source| ConfigError::read(path, source))?;
        self.add(path, &content, prefix);
        Ok(())
    }

    /// Reads `plugin.d` beside the main file: `<name>.cfg` in name order, keys prefixed with `plugin.<name>.`.
    fn add_plugin_d(&mut self, main: &Path) -> Result<(), ConfigError> {
        let directory = main.parent().unwrap_or_else(|| Path::new("")).join("plugin.d");
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(ConfigError::read(&directory, error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            files.push(entry.map_err(|source| ConfigError::read(&directory, source))?.path());
        }
        files.sort();
        for path in files {
            let (Some(stem), Some(extension)) =
                (path.file_stem().and_then(|stem| stem.to_str()), path.extension().and_then(|end| end.to_str()))
            else {
                continue;
            };
            match extension {
                "cfg" if path.is_dir() => self.warn_file(&path, "is a directory and is not read"),
                "cfg" => self.add_file(&path, &format!("plugin.{stem}."))?,
                "conf" | "CFG" | "Cfg" | "CONF" => self
                    .warn_file(&path, &format!("is not read: files in plugin.d end in .cfg; rename it to {stem}.cfg")),
                _ => {}
            }
        }
        Ok(())
    }

    fn warn_file(&mut self, path: &Path, text: &str) {
        self.config.warnings.push(Warning { source: Source::Computed, text: format!("{} {text}", path.display()) });
    }

    /// Reads the lines of one file.
    fn add(&mut self, path: &Path, content: &[u8], prefix: &str) {
        let mut seen: HashMap<&'static str, usize> = HashMap::new();
        for line in grammar::lines(content) {
            let source = Source::Line { file: path.to_owned(), number: line.number };
            match line.content {
                Content::Setting { key, value } => {
                    let name = format!("{prefix}{key}");
                    if let Some(spec) = keys::find(&name)
                        && let Some(before) = seen.insert(spec.name, line.number)
                        && !spec.appends()
                    {
                        self.warn(&source, format!("{name} is set a second time; line {before} has no effect"));
                    }
                    self.setting(&name, key, prefix, value, &source);
                    self.config.raw.insert(name, value.to_owned());
                }
                Content::NoValue { key } => {
                    self.warn(&source, format!("{prefix}{key} has no value; the line is ignored"));
                }
                Content::Other => {
                    self.warn(
                        &source,
                        "the line is neither a setting (key = value) nor a comment; it is ignored".into(),
                    );
                }
                Content::TooLong => self.problems.push(Problem { source, kind: ProblemKind::LineTooLong }),
                Content::NotText => self.problems.push(Problem { source, kind: ProblemKind::NotText }),
            }
        }
        if self.config.path.is_some() {
            self.config.parsed_files.push(path.to_owned());
        }
    }

    fn setting(&mut self, name: &str, key: &str, prefix: &str, text: &str, source: &Source) {
        if let Some(spec) = keys::find(name) {
            match spec.status {
                Status::Legacy(reason) => {
                    let text = format!("{name} has no effect: {reason}");
                    self.config.notes.push(Warning { source: source.clone(), text });
                    return;
                }
                Status::Active => {}
                status => self.warn_missing_part(source, name, status),
            }
            if spec.name != name {
                self.warn(source, format!("{name} is the old name of {}", spec.name));
            }
            self.assign(spec, text, source.clone());
        } else if let Some((spec, _)) = keys::find_family(name) {
            self.warn_missing_part(source, name, spec.status);
            if let Some(value) = self.parse(spec, name, text, source.clone()) {
                self.config.named.insert(name.to_owned(), value);
            }
        } else if let Some(text) = unknown(name, key, prefix) {
            self.warn(source, text);
        }
    }

    /// Stores the value of a known key.
    fn assign(&mut self, spec: &'static Spec, text: &str, source: Source) {
        let Some(value) = self.parse(spec, spec.name, text, source) else { return };
        self.config.given.insert(spec.name);
        if spec.zero_is_default && check::is_zero(&value) {
            self.config.values.remove(spec.name);
            return;
        }
        match (self.config.values.get_mut(spec.name), value) {
            (Some(Value::List(list)), Value::List(more)) if spec.appends() => list.extend(more),
            (_, value) => {
                self.config.values.insert(spec.name, value);
            }
        }
    }

    fn parse(&mut self, spec: &Spec, name: &str, text: &str, source: Source) -> Option<Value> {
        match check::parse(spec, text, self.environment.home()) {
            Ok(value) => Some(value),
            Err(refused) => {
                let kind = ProblemKind::BadValue {
                    key: name.to_owned(),
                    value: (!spec.secret).then(|| text.to_owned()),
                    expected: refused.expected,
                    hint: refused.hint,
                };
                self.problems.push(Problem { source, kind });
                None
            }
        }
    }

    fn warn(&mut self, source: &Source, text: String) {
        self.config.warnings.push(Warning { source: source.clone(), text });
    }

    /// Tells about a setting of a part that this version does not have. The broker refuses some of them by itself.
    fn warn_missing_part(&mut self, source: &Source, name: &str, status: Status) {
        let told = match status {
            Status::Planned => true,
            Status::Refused => self.config.mode != Mode::Broker,
            Status::Active | Status::Legacy(_) => false,
        };
        if told {
            self.warn(source, format!("{name} belongs to a part that this version does not have"));
        }
    }

    fn conflict(&mut self, text: impl Into<String>) {
        self.problems.push(Problem { source: Source::Computed, kind: ProblemKind::Conflict(text.into()) });
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        self.complete();
        if self.problems.is_empty() { Ok(self.config) } else { Err(ConfigError::Invalid(self.problems)) }
    }

    fn inspection(mut self) -> Inspection {
        self.complete();
        Inspection {
            problems: self.problems.clone(),
            warnings: self.config.warnings.clone(),
            notes: self.config.notes.clone(),
            files: self.config.parsed_files.clone(),
            config: self.problems.is_empty().then_some(self.config),
        }
    }

    /// What comes after the last file.
    fn complete(&mut self) {
        self.apply_environment();
        // What follows from bad settings would only repeat their problems.
        if self.problems.is_empty() {
            self.apply_collectives();
            self.apply_identity();
            self.apply_anonymous_tls();
        }
    }

    /// Variables win over files, whether or not the key occurs in one. An empty variable takes the value away.
    fn apply_environment(&mut self) {
        let environment = self.environment;
        for spec in keys::ALL.iter() {
            let Some(variable) = spec.environment else { continue };
            match environment.variable(variable) {
                None => {}
                Some("") => {
                    self.config.values.remove(spec.name);
                    self.config.given.insert(spec.name);
                }
                Some(text) => {
                    self.warn_missing_part(&Source::Environment(variable.to_owned()), spec.name, spec.status);
                    self.config.values.remove(spec.name);
                    self.assign(spec, text, Source::Environment(variable.to_owned()));
                }
            }
        }
    }

    fn apply_collectives(&mut self) {
        let config = &mut self.config;
        if !config.values.contains_key(keys::COLLECTIVES.name()) {
            let stock = &self.environment.build_settings().default_collectives;
            let choria = config.get(&keys::SECURITY_PROVIDER) == SecurityProvider::Choria;
            // A build with collectives of its own keeps them under every provider.
            let list = if choria && *stock == ["mcollective"] { vec!["choria".to_owned()] } else { stock.clone() };
            config.values.insert(keys::COLLECTIVES.name(), Value::List(list));
        }
        let first = config.get(&keys::COLLECTIVES).into_iter().next().unwrap_or_default();
        config.values.entry(keys::MAIN_COLLECTIVE.name()).or_insert(Value::Text(first));
        let main = config.get(&keys::MAIN_COLLECTIVE);
        config.values.entry(keys::REGISTRATION_COLLECTIVE.name()).or_insert(Value::Text(main));
    }

    fn apply_identity(&mut self) {
        if self.config.values.contains_key(keys::IDENTITY.name()) {
            return;
        }
        match identity::from_host(self.environment.host_names()) {
            Some(name) if check::is_name(&name) => {
                self.config.values.insert(keys::IDENTITY.name(), Value::Text(name));
            }
            Some(name) => {
                self.conflict(format!("the host name {name:?} cannot be an identity; set identity = NAME in the file"));
            }
            None => self.conflict("the host has no name; set identity = NAME in the file"),
        }
    }

    fn apply_anonymous_tls(&mut self) {
        let config = &mut self.config;
        if config.get(&keys::SECURITY_SERVER_ANON_TLS) {
            let directory = config.directory().map(PathBuf::from).unwrap_or_default();
            for (name, file) in [
                (keys::SECURITY_SERVER_TOKEN_FILE.name(), "server.jwt"),
                (keys::SECURITY_SERVER_SEED_FILE.name(), "server.seed"),
            ] {
                let beside = directory.join(file).to_string_lossy().into_owned();
                config.values.entry(name).or_insert(Value::Text(beside));
            }
        }
        let signer = config.get(&keys::SECURITY_REQUEST_SIGNER_URL).is_some()
            || config.get(&keys::SECURITY_REQUEST_SIGNER_SERVICE);
        if config.get(&keys::SECURITY_CLIENT_ANON_TLS) && !signer {
            self.conflict("anonymous TLS can only be enabled when a remote signer is configured");
        }
    }
}

/// What to say about a key that nobody knows; nothing when it belongs to an agent.
fn unknown(name: &str, key: &str, prefix: &str) -> Option<String> {
    if key.starts_with('\u{feff}') {
        return Some(format!(
            "unknown key {key:?}: the file starts with a byte order mark, which every Choria program takes as part of the first key; save the file without it"
        ));
    }
    if !prefix.is_empty() && keys::find(key).is_some() {
        return Some(format!(
            "unknown key {name}: keys in this file get the prefix {prefix} by themselves; {key} belongs in the main file or needs no prefix"
        ));
    }
    let nearest = keys::nearest(name);
    let ours = !name.starts_with("plugin.") || OWN_NAMESPACES.iter().any(|space| name.starts_with(space));
    match nearest {
        Some(nearest) => Some(format!("unknown key {name}; did you mean {nearest}?")),
        None if ours => Some(format!("unknown key {name}")),
        None => None,
    }
}
