//! Where in the settings something stands that the broker does not accept.

use nats_broker::StartError;
use nats_config::{Position, Settings};

/// The place of a start error; `None` for what stands nowhere.
pub(crate) fn locate(error: &StartError, settings: &Settings) -> Option<Position> {
    let account = |name: &str| settings.accounts.iter().find(|account| account.name.value == name);
    let import = |importer: &str, subject: &str| {
        let account = account(importer)?;
        let found = account.imports.iter().find(|import| import.subject.value == subject);
        Some(found.map_or_else(|| account.name.at.clone(), |import| import.at.clone()))
    };
    match error {
        StartError::Listen { .. } => settings.port.as_ref().map(|port| port.at.clone()),
        StartError::PayloadAbovePending { .. } => settings.max_payload.as_ref().map(|max| max.at.clone()),
        StartError::DuplicateAccount(name) => account(name).map(|account| account.name.at.clone()),
        StartError::UnknownAccount { importer, account: exporter } => {
            let importer = account(importer)?;
            let found = importer.imports.iter().find(|import| import.account.value == *exporter);
            Some(found.map_or_else(|| importer.name.at.clone(), |import| import.at.clone()))
        }
        StartError::NotExported { importer, subject, .. }
        | StartError::BadMapping { importer, subject, .. }
        | StartError::ServiceCycle { importer, subject } => import(importer, subject),
        StartError::BadSubject { account: name, subject } => {
            let account = account(name)?;
            let export = account.exports.iter().find(|export| export.subject.value == *subject);
            export.map(|export| export.at.clone()).or_else(|| import(name, subject))
        }
        _ => None,
    }
}
