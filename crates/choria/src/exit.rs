//! What the process tells its parent: exit statuses and failures.

use std::fmt;
use std::process::ExitCode;

/// Exit statuses of every command. Documented and stable: `choria help exit-codes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It worked.
    Ok = 0,
    /// It could not be done: bad usage, bad configuration, no broker, no nodes found.
    Failed = 1,
    /// Nodes answered, but some failed or stayed silent.
    Partial = 2,
    /// Nodes were asked and none answered.
    NoReplies = 3,
    /// Nobody in particular was asked and nobody answered.
    Nobody = 4,
    /// A second interrupt ended it at once.
    Interrupted = 130,
}

/// Shown by `choria help exit-codes`.
pub(crate) const EXIT_CODES: &str = "\
Every command ends with one of these:

  0    it worked
  1    it could not be done: bad usage, bad configuration, no connection to a broker,
       a filter or input that cannot be used, no nodes found
  2    nodes answered, but some of them failed or stayed silent
  3    nodes were asked and none of them answered
  4    a service was asked, nobody in particular, and nobody answered
  130  interrupted a second time

`choria req --exit-zero` turns 2, 3 and 4 into 0. `choria tool status`, `choria doctor` and
`choria config validate` end with 0 when nothing failed, and with 1 otherwise.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command could not do its work: shown on stderr as `choria: error: MESSAGE` and, when the fix is known, `hint: ...`.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    exit: Exit,
    broken_pipe: bool,
}

/// What commands return.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure that ends with status 1.
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), hint: None, exit: Exit::Failed, broken_pipe: false }
    }

    /// A failure from an error and all its causes.
    pub(crate) fn from_error(error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            // Some errors repeat their cause in their own text.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = inner.source();
        }
        Self { message, hint: None, exit: Exit::Failed, broken_pipe: false }
    }

    /// Says what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was being done in front.
    #[must_use]
    pub(crate) fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Ends with another status.
    #[must_use]
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Whether only the reader of our output went away.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }

    /// The status to end with.
    pub(crate) fn status(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut failure = Self::from_error(&error);
        let io = (&error as &dyn std::error::Error).downcast_ref::<std::io::Error>();
        failure.broken_pipe = io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe);
        failure
    }
}
