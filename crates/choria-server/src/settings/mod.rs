//! The configure phase: from a path, a token and a build to the settings a server runs with (spec 03 §1.2, §6).

mod credentials;
pub mod decision;
mod salvage;
mod token;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use choria_config::{BuildSettings, Config, ConfigError, Environment, Mode as ConfigMode, SecurityProvider, keys};
use choria_protocol::subjects::{PROVISIONING_COLLECTIVE, PROVISIONING_REGISTRATION};
use choria_security::keys::KeyKind;

use crate::files::{self, SharedFiles};
use crate::provision::configure::{self, JournalError, Recovered};
use decision::{ConfigFile, Decision, Inputs, Refusal};
pub use token::{IDENTITY_EXTENSION, KEY_TYPE_EXTENSION, ProvisioningSource, ProvisioningToken, UsableToken};

/// How often registration data of a provisioning server is published, and its status file written.
const PROVISIONING_REGISTER_INTERVAL: std::time::Duration = std::time::Duration::from_secs(120);
/// See above.
const PROVISIONING_STATUS_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

/// What the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Member of a fleet, with its own configuration and certificate.
    Member,
    /// Waits for a provisioner.
    Provisioning,
}

/// Why no settings could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// An interrupted `configure` could not be finished or taken back.
    #[error("an interrupted configuration of this node could not be finished: {0}")]
    Recover(#[from] JournalError),
    /// The decision is not to start.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Defaults do not make a configuration here.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The path of the configuration file is not usable in messages.
    #[error("the path of the configuration file is not UTF-8: {}", .0.display())]
    Path(PathBuf),
    /// The token or host gives a name that cannot be an identity.
    #[error(
        "{origin} names this node {name:?}, which cannot be an identity: use letters, digits, dots, hyphens and underscores"
    )]
    Identity {
        /// Where the name comes from.
        origin: &'static str,
        /// The name.
        name: String,
    },
}

/// Everything a [`Server`](crate::Server) needs to know before it connects.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    config: Config,
    build: Arc<BuildSettings>,
    config_file: Option<PathBuf>,
    mode: Mode,
    token: Arc<ProvisioningToken>,
    key_kind: KeyKind,
    environment: Environment,
    files: SharedFiles,
    notes: Vec<String>,
}

impl ServerSettings {
    /// Reads what is on disk and decides. An interrupted `configure` is finished or taken back first.
    ///
    /// `provisioning_jwt` is the command line's token path; see [`BuildSettings::provisioning_jwt`] for the order.
    /// `now` in Unix seconds.
    ///
    /// # Errors
    /// When the server must not start; the text says what to do.
    pub fn load(
        config_file: &Path,
        provisioning_jwt: Option<&Path>,
        environment: &Environment,
        now: i64,
    ) -> Result<Self, ConfigureError> {
        Self::load_on(SharedFiles::default(), config_file, provisioning_jwt, environment, now)
    }

    /// The same with another disk in place of the real one; `plugin.d` and the token and seed of protocol version 2 are
    /// still looked for on the real one.
    ///
    /// # Errors
    /// As [`ServerSettings::load`].
    pub fn load_on(
        files: SharedFiles,
        config_file: &Path,
        provisioning_jwt: Option<&Path>,
        environment: &Environment,
        now: i64,
    ) -> Result<Self, ConfigureError> {
        let path = environment.working_directory().join(config_file);
        if path.to_str().is_none() {
            return Err(ConfigureError::Path(path));
        }
        let mut notes = Vec::new();
        match configure::recover(&*files, directory_of(&path))? {
            Recovered::Nothing => {}
            Recovered::Old => notes.push("an interrupted configuration was taken back".to_owned()),
            Recovered::New => notes.push("an interrupted configuration was finished".to_owned()),
        }
        let settings = Self::decided(files, path.clone(), notes, provisioning_jwt, environment, now)?;
        if settings.is_provisioning() {
            // `reprovision` may have been killed between the new configuration's name and its last step. A key that is made
            // from now on must not come under the certificate that a power cut brings back.
            configure::make_names_last(&*settings.files, directory_of(&path))?;
        }
        Ok(settings)
    }

    /// What [`ServerSettings::load`] would decide, for programs that look and change nothing: an interrupted `configure` is
    /// left as it is and told as a note.
    ///
    /// # Errors
    /// As [`ServerSettings::load`].
    pub fn inspect(
        config_file: &Path,
        provisioning_jwt: Option<&Path>,
        environment: &Environment,
        now: i64,
    ) -> Result<Self, ConfigureError> {
        let path = environment.working_directory().join(config_file);
        if path.to_str().is_none() {
            return Err(ConfigureError::Path(path));
        }
        let mut notes = Vec::new();
        if directory_of(&path).join(configure::JOURNAL).exists() {
            notes.push("a configuration was interrupted, the next start finishes it or takes it back".to_owned());
        }
        Self::decided(SharedFiles::default(), path, notes, provisioning_jwt, environment, now)
    }

    fn decided(
        files: SharedFiles,
        path: PathBuf,
        mut notes: Vec<String>,
        provisioning_jwt: Option<&Path>,
        environment: &Environment,
        now: i64,
    ) -> Result<Self, ConfigureError> {
        let build = Arc::new(environment.build_settings().clone());
        let token_path = build.provisioning_jwt(provisioning_jwt, environment);
        let token_path = token_path.map(|path| environment.working_directory().join(path));
        let token = Arc::new(ProvisioningToken::on(files.clone(), token_path, Arc::clone(&build)));

        let (file, config) = look_at(&files, &path, environment, now);
        let inputs = Inputs { path: path.clone(), file, token: token.refresh(), build: token.build_facts() };
        let mode = match decision::decide(&inputs) {
            Decision::Refuse(refusal) => return Err(refusal.into()),
            Decision::Member { notes: more } => {
                notes.extend(more);
                Mode::Member
            }
            Decision::Provision { because, waiting } => {
                notes.push(format!("waiting to be provisioned: {because}"));
                notes.extend(waiting);
                Mode::Provisioning
            }
        };
        let mut settings = Self {
            config: config.map_or_else(|| Config::defaults(Some(&path), ConfigMode::Server, environment), Ok)?,
            build,
            config_file: Some(path),
            mode,
            token,
            key_kind: KeyKind::default(),
            environment: environment.clone(),
            files,
            notes,
        };
        if settings.is_provisioning() {
            settings.apply_provisioning(now)?;
        }
        Ok(settings)
    }

    /// Settings of a fleet member from a configuration made by an embedder. No file is read and nothing decided.
    pub fn member(config: Config, environment: &Environment) -> Self {
        let build = Arc::new(environment.build_settings().clone());
        Self {
            config_file: config.path().map(Path::to_owned),
            config,
            token: Arc::new(ProvisioningToken::new(None, Arc::clone(&build))),
            build,
            mode: Mode::Member,
            key_kind: KeyKind::default(),
            environment: environment.clone(),
            files: SharedFiles::default(),
            notes: Vec::new(),
        }
    }

    /// The configuration in force; while provisioning with the settings of spec 03 §6.4.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The build.
    pub fn build(&self) -> &BuildSettings {
        &self.build
    }

    /// What the server is.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether it waits to be provisioned.
    pub fn is_provisioning(&self) -> bool {
        self.mode == Mode::Provisioning
    }

    /// The node's name.
    pub fn identity(&self) -> String {
        self.config.get(&keys::IDENTITY)
    }

    /// Absolute path of the configuration file.
    pub fn config_file(&self) -> Option<&Path> {
        self.config_file.as_deref()
    }

    /// Directory of the configuration file.
    pub fn config_directory(&self) -> Option<&Path> {
        self.config_file.as_deref().map(directory_of)
    }

    /// Where `gencsr` puts keys: `plugin.choria.ssldir`, else `ssl` beside the configuration. Always absolute.
    pub fn ssl_directory(&self) -> Option<PathBuf> {
        let beside = self.config_directory()?;
        Some(self.config.get(&keys::SSLDIR).map_or_else(|| beside.join("ssl"), |path| beside.join(path)))
    }

    /// The provisioning token.
    pub fn token(&self) -> &Arc<ProvisioningToken> {
        &self.token
    }

    /// Kind of the keys that `gencsr` makes.
    pub fn key_kind(&self) -> KeyKind {
        self.key_kind
    }

    /// Chooses the kind of the keys that `gencsr` makes. P-256 unless the token or this call says otherwise.
    pub fn set_key_kind(&mut self, kind: KeyKind) {
        self.key_kind = kind;
    }

    /// Variables, names and directories that configurations are loaded with.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The disk that holds configuration, token and keys.
    pub fn files(&self) -> &SharedFiles {
        &self.files
    }

    /// What deserves to be logged once logging is set up: why the server is in its mode, recoveries, oddities.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Identity by the rules of DESIGN §6, and the forced settings of spec 03 §6.4.
    fn apply_provisioning(&mut self, now: i64) -> Result<(), ConfigureError> {
        let token = self.token.current();
        if let Some(name) = token.as_ref().and_then(|token| token.node()) {
            if !choria_protocol::identity::is_valid(name) {
                return Err(ConfigureError::Identity { origin: "the provisioning token", name: name.to_owned() });
            }
            self.config.set(&keys::IDENTITY, name.to_owned());
        }
        let claims = token.as_ref().map(|token| &token.claims);
        if let Some(exp) = claims.and_then(|claims| claims.exp)
            && exp <= now
        {
            self.notes.push("the provisioning token has expired, brokers will refuse it".to_owned());
        }
        match token.as_ref().and_then(|token| token.extension(KEY_TYPE_EXTENSION)) {
            None | Some("p256") => {}
            Some("ed25519") => self.key_kind = KeyKind::Ed25519,
            Some("rsa") => self.key_kind = KeyKind::Rsa2048,
            Some(other) => self.notes.push(format!("the token asks for unknown keys {other:?}, P-256 keys are made")),
        }
        let given = |text: Option<&String>| text.filter(|text| !text.is_empty()).map(PathBuf::from);
        let facts = given(claims.map(|claims| &claims.chf)).or_else(|| self.build.provision_facts.clone());
        let data = given(claims.map(|claims| &claims.chrd)).or_else(|| self.build.provision_registration_data.clone());

        let config = &mut self.config;
        config.set(&keys::RPCAUTHORIZATION, false);
        config.set(&keys::FEDERATION_COLLECTIVES, Vec::new());
        config.set(&keys::COLLECTIVES, vec![PROVISIONING_COLLECTIVE.to_owned()]);
        config.set(&keys::MAIN_COLLECTIVE, PROVISIONING_COLLECTIVE.to_owned());
        config.set(&keys::REGISTRATION_COLLECTIVE, PROVISIONING_COLLECTIVE.to_owned());
        config.set(&keys::SECURITY_PROVIDER, SecurityProvider::File);
        config.unset(&keys::SECURITY_FILE_CERTIFICATE);
        config.unset(&keys::SECURITY_FILE_KEY);
        config.unset(&keys::SECURITY_FILE_CA);
        config.unset(&keys::SSLDIR);
        config.unset(&keys::MIDDLEWARE_HOSTS);
        config.unset(&keys::NATS_USER);
        config.unset(&keys::NATS_PASS);
        config.set(&keys::YAML, facts.into_iter().collect());
        config.set(&keys::REGISTRATION, Vec::new());
        if let Some(data) = data {
            config.set(&keys::REGISTRATION, vec!["file_content".to_owned()]);
            config.set(&keys::REGISTRATION_FILE_CONTENT_DATA, Some(data));
            config.set(&keys::REGISTRATION_FILE_CONTENT_TARGET, Some(PROVISIONING_REGISTRATION.to_owned()));
            config.set(&keys::REGISTERINTERVAL, PROVISIONING_REGISTER_INTERVAL);
            config.set(&keys::REGISTRATION_SPLAY, false);
        }
        if let Some(path) = self.build.provision_status_file.clone() {
            config.set(&keys::STATUS_FILE_PATH, Some(path));
        }
        config.set(&keys::STATUS_UPDATE_INTERVAL, PROVISIONING_STATUS_INTERVAL);
        config.set(
            &keys::SERVER_PROVISION_ALLOW_UPDATE,
            claims.map_or(self.build.provision_allow_server_update, |claims| claims.update),
        );
        Ok(())
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

/// What the decision sees of a configuration, and the configuration to use if there is one.
fn look_at(disk: &SharedFiles, path: &Path, environment: &Environment, now: i64) -> (ConfigFile, Option<Config>) {
    match files::load_config(&**disk, path, environment) {
        Ok(config) => {
            let provision = config.get(&keys::SERVER_PROVISION);
            let file = ConfigFile::Loaded { provision, credentials: credentials::check(&config, now) };
            (file, Some(config))
        }
        Err(error) if files::is_dir(&**disk, path) => {
            // What the original reads as an empty file. `configure` cannot succeed there and will say so.
            tracing::warn!("the configuration path is a directory: {error}");
            let file = ConfigFile::Loaded { provision: None, credentials: decision::Credentials::NotUsed };
            (file, Config::defaults(Some(path), ConfigMode::Server, environment).ok())
        }
        Err(error) if error.is_missing_file() && !files::exists(&**disk, path) => (ConfigFile::Missing, None),
        Err(ConfigError::Read { path, source }) => {
            let text = format!("configuration file {} could not be read: {source}", path.display());
            (ConfigFile::Unreadable(text), None)
        }
        Err(error) => {
            let (provision, config) = salvage::salvage(&**disk, path, environment);
            (ConfigFile::Broken { error: error.to_string(), provision }, config)
        }
    }
}
