//! What can be wrong with a configuration. All problems are collected; people fix them in one go.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A line of a file, counted from 1.
    Line {
        /// The file.
        file: PathBuf,
        /// The line.
        number: usize,
    },
    /// An environment variable.
    Environment(String),
    /// Worked out from other settings or from the system.
    Computed,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, number } => write!(f, "{}:{number}", file.display()),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Computed => f.write_str("configuration"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it is.
    pub source: Source,
    /// What is wrong with it.
    pub kind: ProblemKind,
}

/// The ways in which a configuration can be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A known key holds what it cannot hold.
    BadValue {
        /// The key.
        key: String,
        /// The value as written; `None` where it must not be shown.
        value: Option<String>,
        /// What would be good.
        expected: String,
        /// What to do, where the slip is known.
        hint: Option<String>,
    },
    /// A line that is longer than the 65 535 bytes every Choria program can read.
    LineTooLong,
    /// A line that is not UTF-8.
    NotText,
    /// Settings that do not go together.
    Conflict(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        match &self.kind {
            ProblemKind::BadValue { key, value, expected, hint } => {
                match value {
                    Some(value) => write!(f, "{key} = {} is not valid, expected {expected}", shown(value))?,
                    None => write!(f, "the value of {key} is not valid, expected {expected}")?,
                }
                hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
            }
            ProblemKind::LineTooLong => f.write_str("the line is longer than 65535 bytes"),
            ProblemKind::NotText => f.write_str("the line is not valid UTF-8"),
            ProblemKind::Conflict(text) => f.write_str(text),
        }
    }
}

/// A value fit for one line of a log: control characters escaped, cut when long.
fn shown(value: &str) -> String {
    const LONGEST: usize = 80;
    let mut text: String = value.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if value.chars().count() > LONGEST {
        text.push_str("...");
    }
    text
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file could not be read.
    #[error("configuration file {path} could not be read: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no client configuration in any of the usual places.
    #[error("no configuration file was found; looked for {}", .searched.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    NotFound {
        /// Where it was looked for, in order.
        searched: Vec<PathBuf>,
    },
    /// One or more settings are wrong.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// The problems found, in the order of the files; empty when a file could not be read at all.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid(problems) => problems,
            Self::Read { .. } | Self::NotFound { .. } => &[],
        }
    }

    /// Whether the reason is a main file that does not exist.
    #[must_use]
    pub fn is_missing_file(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::NotFound { .. } => true,
            Self::Invalid(_) => false,
        }
    }

    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [problem] => problem.to_string(),
        _ => {
            let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
            format!("{} problems in the configuration:\n{}", problems.len(), lines.join("\n"))
        }
    }
}

/// Something odd that does not stop the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where it is.
    pub source: Source,
    /// What is odd, and what would help.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.text)
    }
}
