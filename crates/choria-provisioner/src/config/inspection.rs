//! All faults of a file at once.

use std::path::Path;

use super::{ConfigError, ProvisionerConfig, top_section};

/// Everything that is to be said about a file, good or not: for programs that check one.
#[derive(Debug)]
pub struct Inspection {
    /// The configuration; `None` when there are faults.
    pub config: Option<ProvisionerConfig>,
    /// What is wrong, in the order in which it is looked at.
    pub faults: Vec<ConfigError>,
    /// What the operator should know, also about a file that has faults.
    pub warnings: Vec<String>,
}

pub(super) fn inspect_text(path: &Path, text: &str) -> Inspection {
    let mut warnings = Vec::new();
    let top = match top_section(path, text, &mut warnings) {
        Ok(top) => top,
        Err(fault) => return Inspection { config: None, faults: vec![fault], warnings },
    };
    let mut faults = Faults::default();
    let config = ProvisionerConfig::collect(path, &top, &mut faults, warnings);
    if !faults.0.is_empty() {
        return Inspection { config: None, faults: faults.0, warnings: config.warnings };
    }
    let config = config.with_advice();
    Inspection { warnings: config.warnings.clone(), config: Some(config), faults: Vec::new() }
}

pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ConfigError::NotFound(path.to_owned()),
        _ => ConfigError::Unreadable { path: path.to_owned(), reason: error.to_string() },
    })
}

/// The faults of a file so far.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<ConfigError>);

impl Faults {
    /// The value, or its default and a fault.
    pub(super) fn take<T: Default>(&mut self, read: Result<T, ConfigError>) -> T {
        self.take_or(read, T::default)
    }

    pub(super) fn take_or<T>(&mut self, read: Result<T, ConfigError>, otherwise: impl FnOnce() -> T) -> T {
        read.unwrap_or_else(|fault| {
            self.0.push(fault);
            otherwise()
        })
    }
}
