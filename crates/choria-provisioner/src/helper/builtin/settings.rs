//! Whether the settings of a rule are settings that a node can read. What a node would refuse or ignore after its restart is
//! told when the provisioner starts, with its place in the rules.

use choria_config::{Config, ConfigError as ChoriaError, Environment, Mode, ProblemKind, Source};

use super::template::Template;
use crate::config::ConfigError;
use crate::config::reader::Located;

/// Checks values without variables against the key table. Unknown settings become warnings: plugins have their own.
pub(super) fn check(entries: &[(String, Located<Template>)], warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    let fixed: Vec<_> =
        entries.iter().filter_map(|(key, entry)| Some((key, entry.value.literal()?, &entry.at))).collect();
    let text: String = fixed.iter().map(|(key, value, _)| format!("{key} = {value}\n")).collect();
    let place = |source: &Source| match source {
        Source::Line { number, .. } => fixed.get(number.checked_sub(1)?).map(|(_, _, at)| (*at).clone()),
        Source::Environment(_) | Source::Computed => None,
    };
    match Config::from_text(&text, Mode::Server, &Environment::fixed("node")) {
        Ok(config) => {
            for warning in config.warnings() {
                if let Some(at) = place(&warning.source) {
                    warnings.push(format!("{at}: {}", warning.text));
                }
            }
            Ok(())
        }
        Err(ChoriaError::Invalid(problems)) => {
            // Settings that do not go together may do so with what variables add.
            let bad = problems.iter().find_map(|problem| match &problem.kind {
                ProblemKind::BadValue { key, value, expected, hint } => {
                    let value = value.as_ref().map(|value| format!(" = {value}")).unwrap_or_default();
                    let hint = hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                    let reason = format!("{key}{value} is not a setting of a node, expected {expected}{hint}");
                    place(&problem.source).map(|at| ConfigError::Invalid { at, reason })
                }
                _ => None,
            });
            bad.map_or(Ok(()), Err)
        }
        Err(_) => Ok(()),
    }
}
