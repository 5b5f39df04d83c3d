//! Faults of a configuration file, with their place in it.

use std::fmt;
use std::path::PathBuf;

/// A place in the configuration file, `file:line:column`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The file as it was named.
    pub path: PathBuf,
    /// Line, from 1; 0 when unknown.
    pub line: u64,
    /// Column, from 1; 0 when unknown.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

/// Why a configuration file cannot be used. Texts that spec 04 §3 lists are kept word for word.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not exist.
    #[error("file {} not found", .0.display())]
    NotFound(PathBuf),
    /// The file cannot be read.
    #[error("file {} could not be read: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Not YAML.
    #[error("file {} could not be parsed: yaml: line {line}, column {column}: {reason}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line of the fault.
        line: u64,
        /// Column of the fault.
        column: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Nothing in it, or only comments. The original crashes here.
    #[error("file {} holds no settings; a file with the line `interval: 1m` would do", .0.display())]
    Empty(PathBuf),
    /// A list or a word instead of keys and values.
    #[error("{at}: the file must hold keys and values, found {found}")]
    NotAMapping {
        /// Where it starts.
        at: Position,
        /// What is there.
        found: String,
    },
    /// A value of another type than the key takes.
    #[error("{at}: {key} must be {expected}, found {found}")]
    WrongType {
        /// Where the value is.
        at: Position,
        /// The key.
        key: String,
        /// What it takes.
        expected: &'static str,
        /// What is there, with a hint.
        found: String,
    },
    /// A value that the key does not take.
    #[error("{at}: {reason}")]
    Invalid {
        /// Where the value is.
        at: Position,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting that asks for something this build does not have yet.
    #[error("{at}: {key} is not available in this version: {reason}")]
    Unavailable {
        /// Where the value is.
        at: Position,
        /// The key.
        key: &'static str,
        /// What to do instead.
        reason: &'static str,
    },
}
