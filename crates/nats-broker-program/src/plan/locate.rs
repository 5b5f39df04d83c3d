//! Where in the settings something stands that the broker does not accept.

use nats_broker::StartError;
use nats_config::settings::{Account, Import};
use nats_config::{Position, Settings};

/// The place of a start error; `None` for what stands nowhere.
pub(crate) fn locate(error: &StartError, settings: &Settings) -> Option<Position> {
    match error {
        StartError::Listen { .. } => settings.port.as_ref().map(|port| port.at.clone()),
        StartError::NoRuntime | StartError::Engine(_) => None,
        StartError::PayloadAbovePending { .. } => settings.max_payload.as_ref().map(|max| max.at.clone()),
        StartError::DuplicateAccount(name) => account(settings, name).map(|account| account.name.at.clone()),
        StartError::UnknownSystemAccount(_) => settings.system_account.as_ref().map(|name| name.at.clone()),
        StartError::UnknownAccount { importer, account } => {
            import(settings, importer, |import| import.account.value == *account)
        }
        StartError::NotExported { importer, subject, .. }
        | StartError::BadMapping { importer, subject, .. }
        | StartError::StreamCycle { importer, subject }
        | StartError::SelfImport { account: importer, subject }
        | StartError::DuplicateImport { importer, subject, .. }
        | StartError::ServiceCycle { importer, subject } => import(settings, importer, |import| names(import, subject)),
        StartError::Latency { account, subject, .. } => export(settings, account, subject),
        StartError::Mapping { account, subject, .. } => mapping(settings, account, subject),
        StartError::BadSubject { account, subject } => export(settings, account, subject)
            .or_else(|| mapping(settings, account, subject))
            .or_else(|| import(settings, account, |import| names(import, subject))),
    }
}

fn account<'a>(settings: &'a Settings, name: &str) -> Option<&'a Account> {
    settings.accounts.iter().find(|account| account.name.value == name)
}

/// Errors name the subject on either side of an import.
fn names(import: &Import, subject: &str) -> bool {
    import.subject.value == subject || import.to.as_ref().is_some_and(|to| to.value == subject)
}

/// The last import that fits: of two that exclude each other it is the one too many. Else the account.
fn import(settings: &Settings, importer: &str, is_meant: impl Fn(&Import) -> bool) -> Option<Position> {
    let account = account(settings, importer)?;
    let found = account.imports.iter().rev().find(|import| is_meant(import));
    Some(found.map_or_else(|| account.name.at.clone(), |import| import.at.clone()))
}

fn export(settings: &Settings, name: &str, subject: &str) -> Option<Position> {
    let exports = &account(settings, name)?.exports;
    exports.iter().find(|export| export.subject.value == subject).map(|export| export.at.clone())
}

fn mapping(settings: &Settings, name: &str, subject: &str) -> Option<Position> {
    let mappings = account(settings, name).map_or(&settings.mappings, |account| &account.mappings);
    mappings.iter().rev().find(|mapping| mapping.source.value == subject).map(|mapping| mapping.source.at.clone())
}
