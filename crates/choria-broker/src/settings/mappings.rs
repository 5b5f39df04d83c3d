//! `plugin.choria.network.mapping.*`: subjects of account `choria` that are replaced when they are published (spec 02 §4).

use choria_config::{Config, keys};
use nats_broker::{MappingTarget, SubjectMapping};

use super::file_name;
use crate::error::SettingsError;

/// The mappings that `mapping.names` lists, in that order. The original leaves a half one out with a line in the log; then
/// messages go where nobody meant them to.
pub(super) fn read(config: &Config) -> Result<Vec<SubjectMapping>, SettingsError> {
    let names = config.get(&keys::NETWORK_MAPPING_NAMES);
    names.iter().map(|name| mapping(config, name)).collect()
}

fn mapping(config: &Config, name: &str) -> Result<SubjectMapping, SettingsError> {
    let missing = |part: &str| SettingsError::Mapping {
        file: file_name(config),
        key: format!("plugin.choria.network.mapping.{name}.{part}"),
    };
    let source = config.get_named(&keys::NETWORK_MAPPING_SOURCE, name).ok_or_else(|| missing("source"))?;
    let subject = config.get_named(&keys::NETWORK_MAPPING_DESTINATION, name).ok_or_else(|| missing("destination"))?;
    Ok(SubjectMapping { source, targets: vec![MappingTarget { subject, weight: 100 }] })
}

#[cfg(test)]
mod tests {
    use choria_config::{Environment, Mode};

    use super::*;

    fn mappings(text: &str) -> Result<Vec<SubjectMapping>, String> {
        let config = Config::from_text(text, Mode::Broker, &Environment::fixed("b")).unwrap();
        read(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn every_listed_mapping_has_both_ends() {
        assert_eq!(mappings("plugin.choria.network.mapping.a.source = x"), Ok(vec![]), "not listed");
        let whole = "plugin.choria.network.mapping.names = a\nplugin.choria.network.mapping.a.source = in.*\n\
                     plugin.choria.network.mapping.a.destination = out.{{partition(2,1)}}\n";
        let expected = SubjectMapping {
            source: "in.*".into(),
            targets: vec![MappingTarget { subject: "out.{{partition(2,1)}}".into(), weight: 100 }],
        };
        assert_eq!(mappings(whole), Ok(vec![expected]));
        for (half, missing) in [("source = x", "mapping.a.destination"), ("destination = x", "mapping.a.source")] {
            let text = format!("plugin.choria.network.mapping.names = a\nplugin.choria.network.mapping.a.{half}\n");
            assert!(mappings(&text).unwrap_err().contains(missing), "{half}");
        }
    }
}
