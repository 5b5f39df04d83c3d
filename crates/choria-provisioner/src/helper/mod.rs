//! Helpers: who decides about a node and makes its configuration (spec 04 §7).
//!
//! [`contract`] is what travels, [`process`] runs one process per node, [`pool`] keeps processes for many
//! nodes. Both bound time and output, end the whole process group when something is wrong, keep standard error
//! for the log, and name the reason. [`builtin`] decides in this process, by rules.

pub mod builtin;
pub mod contract;
pub mod pool;
pub mod process;

use std::sync::Arc;
use std::time::Duration;

pub use contract::{CsrReply, HelperAnswer, HelperRequest, Question};

use self::builtin::Builtin;
use crate::config::{Helper, ProgramHelper, ProgramMode, ProvisionerConfig};
use crate::start::{self, StartError};

/// Longest answer that is read. A broker takes messages of 1 MiB, so no usable answer is longer.
pub const MAX_OUTPUT: usize = 2 * 1024 * 1024;
/// How much of standard error is kept for the log.
pub const MAX_STDERR: usize = 4096;

/// Why a helper gave no usable answer. The texts are those of the original where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelperError {
    /// The program could not be started.
    #[error("cannot start {command}: {reason}")]
    Start {
        /// The configured command line.
        command: String,
        /// What the system said.
        reason: String,
    },
    /// Nothing on standard output.
    #[error("cannot read {command} output: zero bytes received{}", ending(.status))]
    NoOutput {
        /// The configured command line.
        command: String,
        /// How the process ended, unless it ended well.
        status: Option<String>,
    },
    /// It took too long; its process group was killed.
    #[error("{command} did not finish within {}s and was killed, {received} bytes of output discarded", .timeout.as_secs_f64())]
    TimedOut {
        /// The configured command line.
        command: String,
        /// The time it had.
        timeout: Duration,
        /// Bytes it had written.
        received: usize,
    },
    /// It wrote more than [`MAX_OUTPUT`]; its process group was killed.
    #[error("{command} wrote more than {limit} bytes and was killed")]
    TooMuchOutput {
        /// The configured command line.
        command: String,
        /// The limit.
        limit: usize,
    },
    /// It ended badly; what it printed is not used.
    #[error("could not wait for {command}: {status}")]
    Failed {
        /// The configured command line.
        command: String,
        /// `exit status N` or `signal: killed`.
        status: String,
    },
    /// What it printed is not an answer.
    #[error("cannot decode output from {command}: {reason}")]
    Decode {
        /// The configured command line.
        command: String,
        /// What is wrong.
        reason: String,
    },
    /// A persistent helper ended or broke the rules while it had this request.
    #[error("{command} {reason}")]
    Pool {
        /// The configured command line.
        command: String,
        /// What happened.
        reason: String,
    },
    /// The built-in helper's authority did not sign.
    #[error("no certificate was made: {0}")]
    Authority(String),
    /// No helper is configured.
    #[error("no helper is configured, set helper in the provisioner's configuration")]
    NotConfigured,
}

impl HelperError {
    /// A short, constant word for the cause.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Start { .. } => "helper_start",
            Self::NoOutput { .. } => "helper_no_output",
            Self::TimedOut { .. } => "helper_timeout",
            Self::TooMuchOutput { .. } => "helper_output_size",
            Self::Failed { .. } => "helper_exit",
            Self::Decode { .. } => "helper_decode",
            Self::Pool { .. } => "helper_crash",
            Self::Authority(_) => "helper_authority",
            Self::NotConfigured => "helper_missing",
        }
    }
}

fn ending(status: &Option<String>) -> String {
    status.as_ref().map(|s| format!(" ({s})")).unwrap_or_default()
}

/// What one run gave, besides its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunNotes {
    /// The first part of what it wrote to standard error.
    pub stderr: String,
    /// A process it left behind held its output open and was killed.
    pub left_behind: bool,
    /// How long the request waited for a place in a persistent process; not the helper's time.
    pub waited: Duration,
}

/// Runs helpers in the configured way. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Runner {
    /// One process per node.
    Process(Arc<ProgramHelper>),
    /// Long-lived processes.
    Pool(Arc<pool::Pool>),
    /// Rules, in this process.
    Builtin(Arc<Builtin>),
    /// None configured: every call fails.
    None,
}

impl Runner {
    /// A runner for this configuration. Looks whether the program can be run, or reads rules and authority as a whole.
    /// No process is started yet.
    ///
    /// # Errors
    /// [`StartError::Helper`] and [`StartError::Builtin`].
    pub fn new(config: &ProvisionerConfig) -> Result<Self, StartError> {
        Ok(match &config.helper {
            None => Self::None,
            Some(Helper::Program(program)) => {
                start::check_program(&config.path, program)?;
                Self::program(program.clone())
            }
            Some(Helper::Builtin(settings)) => Self::Builtin(Arc::new(Builtin::load(settings, config)?)),
        })
    }

    /// A runner of a program that was not looked at.
    pub fn program(program: ProgramHelper) -> Self {
        match program.mode {
            ProgramMode::Process => Self::Process(Arc::new(program)),
            ProgramMode::Persistent { .. } => Self::Pool(Arc::new(pool::Pool::new(program))),
        }
    }

    /// Asks the helper about a node. Dropping the future kills a process that was started for it.
    ///
    /// # Errors
    /// Everything but one usable answer; see [`HelperError`].
    pub async fn run(&self, question: &Question) -> Result<(HelperAnswer, RunNotes), (HelperError, RunNotes)> {
        match self {
            Self::None => Err((HelperError::NotConfigured, RunNotes::default())),
            Self::Process(settings) => process::run(settings, &question.to_text()).await,
            Self::Pool(pool) => pool.run(Arc::clone(&question.identity), question.to_text()).await,
            // Some ten microseconds and a signature: less than handing it to another thread and back.
            Self::Builtin(builtin) => builtin.run(question),
        }
    }

    /// Ends persistent processes.
    pub async fn close(&self) {
        if let Self::Pool(pool) = self {
            pool.close().await;
        }
    }
}

#[cfg(test)]
mod tests;
