//! `choria config`: what is wrong in a configuration file, and what a setting is for.

use std::io::Write;
use std::path::Path;

use choria_broker::{Options, settings};
use choria_config::{Config, Environment, Mode, Source, document, keys};
use choria_provisioner::config::ProvisionerConfig;
use choria_server::registration;

use crate::cli::{ConfigArgs, ConfigCommand, ConfigExplain, ConfigValidate, Role};
use crate::exit::{Exit, Failure, Outcome};
use crate::print::config::{self as print, Entry, Report};
use crate::settings::role;

/// Runs the command.
pub(crate) fn run(args: &ConfigArgs) -> Outcome {
    match &args.command {
        ConfigCommand::Validate(args) => validate(args),
        ConfigCommand::Explain(args) => explain(args),
    }
}

fn validate(args: &ConfigValidate) -> Outcome {
    let role = args.role.unwrap_or_else(|| role::guess(&args.file));
    let mut report = Report::new(&args.file, role, args.role.is_none());
    match role {
        Role::Provisioner => provisioner(&mut report, &args.file)?,
        Role::Server => choria(&mut report, &args.file, Mode::Server)?,
        Role::Client => choria(&mut report, &args.file, Mode::Client)?,
        Role::Broker => choria(&mut report, &args.file, Mode::Broker)?,
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", print::text(&report, crate::text::colour_stdout(true)))?;
    }
    Ok(if report.errors.is_empty() { Exit::Ok } else { Exit::Failed })
}

fn choria(report: &mut Report, path: &Path, mode: Mode) -> Result<(), Failure> {
    let environment = Environment::from_process();
    let inspection = Config::inspect(path, mode, &environment)?;
    report.files = inspection.files.iter().map(|file| file.display().to_string()).collect();
    report.errors = inspection.problems.iter().map(|problem| entry(&problem.source, problem)).collect();
    report.warnings = inspection.warnings.iter().map(|warning| entry(&warning.source, warning)).collect();
    report.notes = inspection.notes.iter().map(|note| entry(&note.source, note)).collect();
    let Some(config) = &inspection.config else { return Ok(()) };
    if mode == Mode::Server {
        // What only a server refuses: registration data that is nowhere, or goes nowhere.
        report.errors.extend(registration::plugins(config).err().map(|error| Entry::general(error.to_string())));
    }
    if mode == Mode::Broker {
        // What only a broker refuses: parts that this version does not have, addresses, nothing switched on.
        match settings::outline(config, environment.build_settings(), Options::default()) {
            Ok(outline) => report.warnings.extend(outline.warnings.into_iter().map(Entry::general)),
            Err(error) => report.errors.push(Entry::general(error.to_string())),
        }
    }
    Ok(())
}

fn provisioner(report: &mut Report, path: &Path) -> Result<(), Failure> {
    report.files = vec![path.display().to_string()];
    let inspection = ProvisionerConfig::inspect(path)?;
    report.errors = inspection.faults.iter().map(|fault| Entry::located(fault.to_string())).collect();
    report.warnings = inspection.warnings.into_iter().map(Entry::located).collect();
    Ok(())
}

/// A problem or warning, whose text begins with its place.
fn entry(source: &Source, whole: &impl std::fmt::Display) -> Entry {
    let text = whole.to_string();
    let text = text.strip_prefix(&format!("{source}: ")).unwrap_or(&text).to_owned();
    match source {
        Source::Line { file, number } => Entry { file: Some(file.display().to_string()), line: Some(*number), text },
        Source::Environment(_) => Entry { file: None, line: None, text: format!("{source}: {text}") },
        Source::Computed => Entry { file: None, line: None, text },
    }
}

fn explain(args: &ConfigExplain) -> Outcome {
    let wanted = args.key.trim();
    let exact = keys::find(wanted).or_else(|| keys::find_family(wanted).map(|(spec, _)| spec));
    let found: Vec<document::Entry> = match exact {
        Some(spec) => vec![document::entry(spec)],
        None => {
            let part = wanted.to_ascii_lowercase();
            let all = keys::ALL.iter().chain(keys::FAMILIES.iter());
            all.filter(|spec| spec.name.contains(&part)).map(document::entry).collect()
        }
    };
    if found.is_empty() {
        let failure = Failure::new(format!("there is no setting {wanted:?}"));
        return Err(match keys::nearest(wanted) {
            Some(near) => failure.hint(format!("did you mean {near}?")),
            None => {
                failure.hint("a part of the name finds all settings that hold it, such as `choria config explain tls`")
            }
        });
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &print::explained_json(&found))?;
        writeln!(out)?;
    } else {
        write!(out, "{}", print::explained(&found))?;
    }
    Ok(Exit::Ok)
}
