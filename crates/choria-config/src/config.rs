//! A loaded configuration.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::check;
use crate::environment::Environment;
use crate::error::{ConfigError, Problem, Warning};
use crate::key::{Family, Key, Spec, family_name};
use crate::keys;
use crate::load;
use crate::value::{Setting, Value};

/// Which program reads the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The server on a node.
    Server,
    /// Commands of people; also reads project files.
    Client,
    /// The broker.
    Broker,
}

/// A loaded and checked configuration.
///
/// Values are read with the constants of [`crate::keys`]: `config.get(&keys::TTL)` is a `Duration`. Options that no
/// part of this program knows stay readable with [`Config::raw`], for agents.
#[derive(Clone)]
pub struct Config {
    pub(crate) mode: Mode,
    pub(crate) path: Option<PathBuf>,
    pub(crate) values: HashMap<&'static str, Value>,
    pub(crate) named: HashMap<String, Value>,
    pub(crate) raw: BTreeMap<String, String>,
    pub(crate) given: HashSet<&'static str>,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) notes: Vec<Warning>,
    pub(crate) parsed_files: Vec<PathBuf>,
}

/// Everything that is to be said about a configuration, good or not: for programs that check one.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The configuration; `None` when there are problems.
    pub config: Option<Config>,
    /// What is wrong, in the order of the files.
    pub problems: Vec<Problem>,
    /// What is odd, also in a file that has problems.
    pub warnings: Vec<Warning>,
    /// Settings of older releases that have no effect.
    pub notes: Vec<Warning>,
    /// Every file that was read, in order.
    pub files: Vec<PathBuf>,
}

impl fmt::Debug for Config {
    /// Values are left out: some are passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("mode", &self.mode).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Config {
    /// Loads a file with everything that belongs to it: `plugin.d` beside it, project files in client mode, variables.
    ///
    /// # Errors
    /// [`ConfigError::Read`] when a file cannot be read, [`ConfigError::Invalid`] with every bad setting of all files.
    pub fn load(path: impl AsRef<Path>, mode: Mode, environment: &Environment) -> Result<Self, ConfigError> {
        load::file(path.as_ref(), mode, environment)
    }

    /// Loads the client configuration: the file named on the command line, else the first one that
    /// [`client_file`](crate::search::client_file) finds.
    ///
    /// # Errors
    /// As [`Config::load`], and [`ConfigError::NotFound`] when there is no file at all.
    pub fn load_client(path: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        match path {
            Some(path) => Self::load(path, Mode::Client, environment),
            None => Self::load(crate::search::client_file(environment)?, Mode::Client, environment),
        }
    }

    /// Reads a file as [`Config::load`] does, and tells problems and warnings together where that stops at problems.
    ///
    /// # Errors
    /// Only when a file cannot be read: [`ConfigError::Read`].
    pub fn inspect(path: impl AsRef<Path>, mode: Mode, environment: &Environment) -> Result<Inspection, ConfigError> {
        load::inspect(path.as_ref(), mode, environment)
    }

    /// Reads a configuration from text alone, without files.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every bad setting.
    pub fn from_text(text: &str, mode: Mode, environment: &Environment) -> Result<Self, ConfigError> {
        load::text(None, text.as_bytes(), mode, environment)
    }

    /// Reads `text` as if it were the content of `path`, with the `plugin.d` beside it: what a configuration that is
    /// about to be written would mean.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_text_at(
        path: impl AsRef<Path>,
        text: impl AsRef<[u8]>,
        mode: Mode,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        load::text(Some(path.as_ref()), text.as_ref(), mode, environment)
    }

    /// Defaults and variables only. `path` is remembered as the place a configuration would have, and need not exist.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] when a variable is bad or no identity can be worked out.
    pub fn defaults(path: Option<&Path>, mode: Mode, environment: &Environment) -> Result<Self, ConfigError> {
        load::defaults(path, mode, environment)
    }

    pub(crate) fn empty(mode: Mode, path: Option<PathBuf>) -> Self {
        Self {
            mode,
            path,
            values: HashMap::new(),
            named: HashMap::new(),
            raw: BTreeMap::new(),
            given: HashSet::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
            parsed_files: Vec::new(),
        }
    }

    /// The value of a setting, or its default.
    #[must_use]
    pub fn get<T: Setting>(&self, key: &Key<T>) -> T {
        let value = self.values.get(key.name()).cloned().or_else(|| default_of(key.spec()));
        Key::<T>::read(value.as_ref()).expect("a test walks the key table: every default and every kind fits its type")
    }

    /// The value of a setting with a name of the user's own inside, or its default.
    #[must_use]
    pub fn get_named<T: Setting>(&self, family: &Family<T>, name: &str) -> T {
        let value = self.named.get(&family.key_for(name)).cloned().or_else(|| default_of(family.spec()));
        Family::<T>::read(value.as_ref())
            .expect("a test walks the key table: every default and every kind fits its type")
    }

    /// The value of a known key by its name, or its default: for programs that show or hand on settings they do not
    /// know one by one.
    #[must_use]
    pub fn value_of(&self, name: &str) -> Option<Value> {
        if let Some(spec) = keys::find(name) {
            return self.values.get(spec.name).cloned().or_else(|| default_of(spec));
        }
        let (spec, _) = keys::find_family(name)?;
        self.named.get(name).cloned().or_else(|| default_of(spec))
    }

    /// The names that occur in settings of a family, sorted.
    #[must_use]
    pub fn names_in<T: Setting>(&self, family: &Family<T>) -> Vec<&str> {
        self.raw.keys().filter_map(|key| family_name(family.pattern(), key)).collect()
    }

    /// Whether a file, a variable or [`Config::set`] gave the setting a value, even the default one.
    #[must_use]
    pub fn is_set<T: Setting>(&self, key: &Key<T>) -> bool {
        self.given.contains(key.name())
    }

    /// Gives a setting a value, as programs do that know better than the file.
    pub fn set<T: Setting>(&mut self, key: &Key<T>, value: T) {
        match value.write() {
            Some(value) => {
                self.values.insert(key.name(), value);
                self.given.insert(key.name());
            }
            None => self.unset(key),
        }
    }

    /// Takes a setting back to its default.
    pub fn unset<T: Setting>(&mut self, key: &Key<T>) {
        self.values.remove(key.name());
        self.given.remove(key.name());
    }

    /// The text of an option exactly as the last file wrote it, known or not.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.raw.get(name).map(String::as_str)
    }

    /// All options of all files.
    #[must_use]
    pub fn raw_options(&self) -> &BTreeMap<String, String> {
        &self.raw
    }

    /// What is odd about the files without being wrong, in their order. Log these once at start.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Settings of older releases that have no effect any more (spec 01 §10.1: ignored silently). Files of real fleets
    /// are full of them, so these belong into a debug log at most.
    #[must_use]
    pub fn notes(&self) -> &[Warning] {
        &self.notes
    }

    /// The main file; `None` for a configuration made from text alone.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The directory of the main file.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.path.as_deref().and_then(Path::parent)
    }

    /// Every file that was read, in order.
    #[must_use]
    pub fn parsed_files(&self) -> &[PathBuf] {
        &self.parsed_files
    }

    /// Which program reads it.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

fn default_of(spec: &Spec) -> Option<Value> {
    spec.default.and_then(|text| check::parse(spec, text, None).ok())
}
