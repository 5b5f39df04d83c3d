//! Files and environment of a test, and the recorded rows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nats_config::{ConfigError, Files, Loaded};

/// Where the files of a test lie.
pub(crate) const DIRECTORY: &str = "/etc/nats";

/// Files and variables that exist nowhere else.
#[derive(Default)]
pub(crate) struct Stage {
    files: HashMap<PathBuf, String>,
    environment: HashMap<String, String>,
}

impl Stage {
    pub(crate) fn new(text: &str) -> Self {
        Self::default().file("main.conf", text)
    }

    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.insert(Path::new(DIRECTORY).join(name), text.to_owned());
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn load(&self) -> Result<Loaded, ConfigError> {
        nats_config::load(&Path::new(DIRECTORY).join("main.conf"), self)
    }
}

impl Files for Stage {
    fn read(&self, path: &Path) -> Result<String, String> {
        self.files.get(path).cloned().ok_or_else(|| format!("{}: no such file", path.display()))
    }

    fn environment(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }
}
