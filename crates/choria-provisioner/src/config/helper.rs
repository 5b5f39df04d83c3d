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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::ProvisionerConfig;

    fn parse(text: &str) -> Result<ProvisionerConfig, ConfigError> {
        ProvisionerConfig::from_text(Path::new("p.yaml"), text)
    }

    fn error(text: &str) -> String {
        parse(text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_helper_needs_rules_and_with_certificates_an_authority() {
        let config = parse("helper_mode: builtin\nrules: /r.yaml\n").unwrap();
        assert_eq!(config.helper, Some(Helper::Builtin(BuiltinHelper { rules: "/r.yaml".into(), ca_directory: None })));
        let text = "features: {pki: true}\nhelper_mode: builtin\nrules: /r.yaml\n";
        assert!(error(text).starts_with("p.yaml:2:14: with features.pki, helper_mode: builtin needs ca_directory"));
        let config = parse(&format!("{text}ca_directory: /ca\n")).unwrap();
        let Some(Helper::Builtin(helper)) = config.helper else { panic!("built in") };
        assert_eq!(helper.ca_directory.as_deref(), Some(Path::new("/ca")));
        assert!(error("helper_mode: builtin\n").starts_with("p.yaml:1:14: helper_mode: builtin needs rules"));
    }

    #[test]
    fn a_program_and_rules_exclude_each_other() {
        let text = error("helper: /h\nhelper_mode: builtin\nrules: /r.yaml\n");
        assert!(text.starts_with("p.yaml:1:9: helper names a program, but helper_mode is builtin"), "{text}");
        assert!(error("helper_mode: inline\n").contains("must be process, persistent or builtin, found \"inline\""));
    }

    #[test]
    fn keys_of_another_mode_are_told() {
        for (text, key) in [
            (
                "helper_processes: 2\nhelper: /h\n",
                "helper_processes has no effect, it belongs to helper_mode: persistent",
            ),
            ("helper_pipeline: 2\nhelper: /h\n", "helper_pipeline has no effect"),
            ("rules: /r\nhelper: /h\n", "rules has no effect, it belongs to helper_mode: builtin"),
            (
                "helper_timeout: 3s\nhelper_mode: builtin\nrules: /r\n",
                "helper_timeout has no effect, it belongs to a helper program",
            ),
            ("ca_directory: /c\nhelper_mode: builtin\nrules: /r\n", "ca_directory has no effect without features.pki"),
        ] {
            let warnings = parse(text).unwrap().warnings;
            assert!(
                warnings.iter().any(|warning| warning.starts_with("p.yaml:1:") && warning.contains(key)),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn calls_at_the_same_time_depend_on_who_is_asked() {
        let calls = |text: &str| parse(&format!("workers: 4\n{text}")).unwrap().helper_calls();
        assert_eq!(calls("helper: /h\n"), 4);
        assert_eq!(calls("helper: /h\nhelper_mode: persistent\n"), 32);
        assert_eq!(calls("helper: /h\nhelper_mode: persistent\nhelper_processes: 2\nhelper_pipeline: 1\n"), 2);
        assert_eq!(calls("helper_mode: builtin\nrules: /r\n"), BUILTIN_CALLS);
        assert_eq!(calls(""), 4);
        for bad in ["helper_pipeline: 0\n", "helper_pipeline: 257\n", "helper_processes: 0\n"] {
            assert!(error(&format!("helper: /h\nhelper_mode: persistent\n{bad}")).contains("must be 1 to"), "{bad}");
        }
    }
}
