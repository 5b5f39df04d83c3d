//! nats-server's configuration language: text in, checked settings out (spec 07 §23).
//!
//! It must not contain: reading of files (a [`Files`] of the caller does that), sockets, the meaning of settings for
//! a running broker.
//!
//! ```
//! struct Nothing;
//!
//! impl nats_config::Files for Nothing {
//!     fn read(&self, _: &std::path::Path) -> Result<String, String> {
//!         Ok("port: 4223\nping_interval: \"5m\"\n".to_owned())
//!     }
//!
//!     fn environment(&self, _: &str) -> Option<String> {
//!         None
//!     }
//! }
//!
//! let loaded = nats_config::load("broker.conf".as_ref(), &Nothing)?;
//! assert_eq!(loaded.settings.port.as_deref(), Some(&nats_config::settings::Port::Number(4223)));
//! assert_eq!(loaded.settings.max_payload, None);
//! # Ok::<(), nats_config::ConfigError>(())
//! ```
//!
//! | Module | Holds |
//! |---|---|
//! | [`settings`] | what a configuration can say |
//! | `parse`, `cursor`, `bare`, `value` | from text to a tree of values, with variables and included files |
//! | `read` | from the tree to settings: one table of names for each block, and what must not stand together |
//! | `duration`, `nkey`, `subject` | the small languages inside values |
//! | `position`, `error`, `source` | where something stands, what is wrong with it, the line without its secrets |

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bare;
mod cursor;
mod duration;
mod error;
mod nkey;
mod parse;
mod position;
mod read;
pub mod settings;
mod source;
mod subject;
mod value;

use std::path::Path;

pub use error::{ConfigError, Problem, Warning};
pub use position::{Located, Position};
pub use settings::Settings;
use source::Sources;

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
    sources: Sources,
}

impl Loaded {
    /// What keeps a broker from starting although a check of the file (`-t`) passes, as with the reference: a
    /// `no_auth_user` or `system_account` that does not exist.
    #[must_use]
    pub fn start_problems(&self) -> Vec<Problem> {
        read::start_problems(&self.settings, &self.sources)
    }

    /// Words a problem that only came to light when the settings were used, with the line it stands in.
    #[must_use]
    pub fn problem(&self, at: &Position, message: impl Into<String>, hint: Option<String>) -> Problem {
        self.sources.problem(at.clone(), message.into(), hint)
    }
}

/// Reads a configuration and all it includes.
///
/// # Errors
/// The file cannot be read, or something is wrong with it; every problem that could be found is in the error.
pub fn load(path: &Path, files: &dyn Files) -> Result<Loaded, ConfigError> {
    let text = files.read(path).map_err(|reason| ConfigError::Read { reason })?;
    let mut sources = Sources::default();
    let pairs =
        parse::parse(path, text, files, &mut sources).map_err(|problem| ConfigError::Invalid(vec![*problem]))?;
    let start = Position { file: path.into(), ..Position::default() };
    let read::Outcome { settings, problems, warnings } = read::read(&pairs, &sources, start);
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(problems));
    }
    Ok(Loaded { settings, warnings, sources })
}
