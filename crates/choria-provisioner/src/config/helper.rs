//! The helper's settings: a program, or the rules that the provisioner decides by itself.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Located, Section};
use super::{ConfigError, Features, Position, count, duration, invalid};

/// Requests that may be under way in one persistent process once it has shown that it repeats `identity`. Enough to keep a
/// process busy while answers travel; more would only wait there instead of in the queue.
const PIPELINE: usize = 8;
/// Most requests that may be asked for in one persistent process. They and their answers are held in memory.
const MAX_PIPELINE: usize = 256;
/// Questions the built-in helper works on at the same time: as many as one turn of the run loop can bring. None of them
/// waits for anything but a processor.
const BUILTIN_CALLS: usize = 128;

/// Who decides about nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Helper {
    /// A program: the documented contract (spec 04 §7).
    Program(ProgramHelper),
    /// The provisioner itself, by rules.
    Builtin(BuiltinHelper),
}

/// A helper program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramHelper {
    /// The configured command line as written; it names the helper in error texts.
    pub command: String,
    /// The command line split by shell quoting rules; never empty.
    pub argv: Vec<String>,
    /// How it is run.
    pub mode: ProgramMode,
    /// How long one answer may take before the process group is killed.
    pub timeout: Duration,
}

/// How a helper program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramMode {
    /// One process per node.
    Process,
    /// Long-lived processes: one JSON document per line in, one per line out.
    Persistent {
        /// Processes of the pool; never 0.
        processes: usize,
        /// Requests under way in one process that repeats `identity`; never 0.
        pipeline: usize,
    },
}

/// The built-in helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltinHelper {
    /// The file with the rules, see [`crate::helper::builtin`].
    pub rules: PathBuf,
    /// Directory of the certificate authority, as `choria ca init` makes it; always there with `features.pki`.
    pub ca_directory: Option<PathBuf>,
}

impl Helper {
    /// How many questions may be with the helper at the same time, where `workers` are configured.
    pub fn calls(&self, workers: usize) -> usize {
        match self {
            Self::Program(ProgramHelper { mode: ProgramMode::Process, .. }) => workers,
            Self::Program(ProgramHelper { mode: ProgramMode::Persistent { processes, pipeline }, .. }) => {
                processes.saturating_mul(*pipeline)
            }
            Self::Builtin(_) => BUILTIN_CALLS,
        }
    }
}

/// What `helper_mode` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Process,
    Persistent,
    Builtin,
}

/// Keys that have an effect in some modes only.
const BELONGS: [(&str, &[Mode], &str); 5] = [
    ("helper_processes", &[Mode::Persistent], "helper_mode: persistent"),
    ("helper_pipeline", &[Mode::Persistent], "helper_mode: persistent"),
    ("helper_timeout", &[Mode::Process, Mode::Persistent], "a helper program"),
    ("rules", &[Mode::Builtin], "helper_mode: builtin"),
    ("ca_directory", &[Mode::Builtin], "helper_mode: builtin"),
];

/// Reads the helper's keys; `None` when no helper is configured.
pub(super) fn read(
    top: &Section<'_>,
    workers: usize,
    features: Features,
    warnings: &mut Vec<String>,
) -> Result<Option<Helper>, ConfigError> {
    let (mode, mode_at) = mode(top)?;
    for (key, modes, what) in BELONGS {
        if let Some(at) = top.place(key).filter(|_| !modes.contains(&mode)) {
            warnings.push(format!("{at}: {key} has no effect, it belongs to {what}"));
        }
    }
    match mode_at {
        Some(at) if mode == Mode::Builtin => builtin(top, &at, features, warnings).map(|b| Some(Helper::Builtin(b))),
        _ => Ok(program(top, mode, workers)?.map(Helper::Program)),
    }
}

/// The mode, and where it is set.
fn mode(top: &Section<'_>) -> Result<(Mode, Option<Position>), ConfigError> {
    let Some(Located { value, at }) = top.text("helper_mode")? else { return Ok((Mode::Process, None)) };
    let mode = match value.as_str() {
        "process" => Mode::Process,
        "persistent" => Mode::Persistent,
        "builtin" => Mode::Builtin,
        other => return invalid(at, format!("helper_mode must be process, persistent or builtin, found {other:?}")),
    };
    Ok((mode, Some(at)))
}

fn program(top: &Section<'_>, mode: Mode, workers: usize) -> Result<Option<ProgramHelper>, ConfigError> {
    let processes = count(top, "helper_processes", workers, 1000)?;
    let pipeline = count(top, "helper_pipeline", PIPELINE, MAX_PIPELINE)?;
    let timeout = duration(top, "helper_timeout", Duration::from_secs(10))?;
    let Some(command) = top.text("helper")?.filter(|h| !h.value.is_empty()) else { return Ok(None) };
    let argv = match shlex::split(&command.value) {
        None => return invalid(command.at, "cannot parse helper command: a quote is not closed"),
        Some(argv) if argv.first().is_none_or(String::is_empty) => {
            return invalid(command.at, "cannot parse helper command: empty");
        }
        Some(argv) => argv,
    };
    let mode = match mode {
        Mode::Persistent => ProgramMode::Persistent { processes, pipeline },
        Mode::Process | Mode::Builtin => ProgramMode::Process,
    };
    Ok(Some(ProgramHelper { command: command.value, argv, mode, timeout }))
}

fn builtin(
    top: &Section<'_>,
    mode_at: &Position,
    features: Features,
    warnings: &mut Vec<String>,
) -> Result<BuiltinHelper, ConfigError> {
    if let Some(command) = top.text("helper")?.filter(|h| !h.value.is_empty()) {
        let reason = "helper names a program, but helper_mode is builtin: the rules decide and no program is run; remove one of the two";
        return invalid(command.at, reason);
    }
    let path = |key: &str| top.text(key).map(|text| text.filter(|text| !text.value.is_empty()));
    let Some(rules) = path("rules")? else {
        return invalid(mode_at.clone(), "helper_mode: builtin needs rules, the file that says what becomes of nodes");
    };
    let ca_directory = path("ca_directory")?;
    match &ca_directory {
        None if features.pki => {
            let reason = "with features.pki, helper_mode: builtin needs ca_directory, the directory of the certificate authority; `choria ca init` makes one";
            return invalid(mode_at.clone(), reason);
        }
        Some(Located { at, .. }) if !features.pki => {
            warnings.push(format!("{at}: ca_directory has no effect without features.pki"));
        }
        _ => {}
    }
    let ca_directory = ca_directory.filter(|_| features.pki).map(|text| PathBuf::from(text.value));
    Ok(BuiltinHelper { rules: PathBuf::from(rules.value), ca_directory })
}
