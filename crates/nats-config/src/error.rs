//! What can be wrong with a configuration. Everything that can be found at once is told at once.

use std::fmt;
use std::sync::Arc;

use crate::Position;

/// One thing that is wrong or odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it is.
    pub at: Position,
    /// What it is; one line.
    pub message: String,
    /// What to do, where the slip is known; one line.
    pub hint: Option<String>,
    /// The text of the line, without secrets; `None` when it is not at hand.
    pub(crate) line: Option<ShownLine>,
}

/// A line as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShownLine {
    /// Its text.
    pub(crate) text: Arc<str>,
    /// Characters before the place that is meant.
    pub(crate) before: usize,
}

/// `file:line:column: message`, the line with a mark under the place, the hint.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)?;
        if let Some(line) = &self.line {
            let number = self.at.line.to_string();
            let (edge, before) = (" ".repeat(number.len()), " ".repeat(line.before));
            write!(f, "\n  {number} | {}\n  {edge} | {before}^", line.text)?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file itself cannot be read.
    #[error("{reason}")]
    Read {
        /// Why, with the name of the file.
        reason: String,
    },
    /// One or more things are wrong with it.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// What is wrong, in the order of the text; empty when the file could not be read.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid(problems) => problems,
        }
    }
}

fn list(problems: &[Problem]) -> String {
    let problems: Vec<String> = problems.iter().map(Problem::to_string).collect();
    problems.join("\n")
}

/// Something that the program should say and that does not keep it from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What it is.
    pub problem: Problem,
    /// A check of the file (`-t`) must fail by it although a start must not (spec 07 §23: a duration without a unit, an
    /// empty file).
    pub fails_check: bool,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}
