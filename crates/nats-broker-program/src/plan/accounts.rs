//! Accounts of the settings in the broker's words.

use nats_broker::{
    AccountConfig, Export, Import, LatencySampling, MappingTarget, ResponseKind, ServiceExport, ServiceImport,
    ServiceLatency, StreamExport, StreamImport, SubjectMapping,
};
use nats_config::settings::{self, ExportKind, ImportKind, Limit, Mapping, ResponseType, Sampling};
use nats_config::{Located, Settings};
use nats_proto::subject;

use super::PlanError;
use super::realms::GLOBAL;
use crate::operator::Operator;

/// The system account unless the settings name another one.
pub(super) const SYSTEM: &str = "$SYS";

/// The system account and all accounts of the file.
pub(super) fn configured(settings: &Settings) -> Result<(Option<String>, Vec<AccountConfig>), PlanError> {
    let system = system_account(settings)?;
    check_token_positions(settings)?;
    let accounts = make(settings, system.as_deref());
    Ok((system, accounts))
}

/// Exports with `account_token_position` may only be imported with the importer's own name at that place.
fn check_token_positions(settings: &Settings) -> Result<(), PlanError> {
    for importer in &settings.accounts {
        for import in &importer.imports {
            let exporter = settings.accounts.iter().find(|account| account.name.value == import.account.value);
            let Some(exporter) = exporter else { continue };
            let is_service = matches!(import.kind, ImportKind::Service { .. });
            let exports = exporter.exports.iter().filter(|export| {
                matches!(export.kind, ExportKind::Service { .. }) == is_service
                    && subject::is_subset(&import.subject.value, &export.subject.value)
            });
            for position in exports.filter_map(|export| export.account_token_position.as_ref()) {
                let number = usize::try_from(position.value).unwrap_or(usize::MAX);
                let token = number.checked_sub(1).and_then(|at| subject::tokens(&import.subject.value).nth(at));
                if token != Some(importer.name.value.as_str()) {
                    let text = format!(
                        "account {} may import {:?} only with its own name as token {number} (account_token_position)",
                        importer.name, import.subject.value
                    );
                    return Err(PlanError::at(&import.at, text));
                }
            }
        }
    }
    Ok(())
}

/// The system account and all accounts of an operator's tokens.
pub(super) fn operated(
    settings: &Settings,
    operator: &Operator,
    warnings: &mut Vec<String>,
) -> (Option<String>, Vec<AccountConfig>) {
    let mut accounts = operator.accounts(warnings);
    let system = operator.system_account().map(str::to_owned).or_else(|| {
        let wants_one = settings.no_system_account != Some(true);
        wants_one.then(|| {
            accounts.push(AccountConfig::new(SYSTEM));
            SYSTEM.to_owned()
        })
    });
    (system, accounts)
}

/// The system account; `None`: none is wanted.
fn system_account(settings: &Settings) -> Result<Option<String>, PlanError> {
    let Some(name) = &settings.system_account else {
        return Ok((settings.no_system_account != Some(true)).then(|| SYSTEM.to_owned()));
    };
    let is_known = name.value == SYSTEM || settings.accounts.iter().any(|account| account.name.value == name.value);
    if !is_known {
        let text = format!("system_account names {:?}, which is not among the accounts", name.value);
        return Err(PlanError::at(&name.at, text));
    }
    Ok(Some(name.value.clone()))
}

/// All accounts: the global one first, the system account in any case.
fn make(settings: &Settings, system: Option<&str>) -> Vec<AccountConfig> {
    let global = AccountConfig { mappings: mappings(&settings.mappings), ..AccountConfig::new(GLOBAL) };
    let mut all = vec![global];
    all.extend(settings.accounts.iter().map(account));
    if let Some(system) = system
        && !all.iter().any(|account| account.name == system)
    {
        all.push(AccountConfig::new(system));
    }
    all
}

fn account(given: &settings::Account) -> AccountConfig {
    let limits = &given.limits;
    AccountConfig {
        name: given.name.value.clone(),
        exports: given.exports.iter().map(export).collect(),
        imports: given.imports.iter().map(import).collect(),
        max_connections: limit(limits.max_connections.as_ref()),
        max_subscriptions: limit(limits.max_subscriptions.as_ref()),
        max_payload: limit(limits.max_payload.as_ref()).filter(|max| *max > 0),
        mappings: mappings(&given.mappings),
    }
}

fn limit(setting: Option<&Located<Limit>>) -> Option<usize> {
    match setting?.value {
        Limit::None => None,
        Limit::Of(number) => usize::try_from(number).ok(),
    }
}

fn export(given: &settings::Export) -> Export {
    let subject = given.subject.value.clone();
    let accounts =
        given.accounts.as_ref().map(|accounts| accounts.iter().map(|account| account.value.clone()).collect());
    match &given.kind {
        ExportKind::Stream => StreamExport { accounts, ..StreamExport::new(subject) }.into(),
        ExportKind::Service { response, threshold, latency, .. } => {
            let usual = ServiceExport::new(subject);
            ServiceExport {
                accounts,
                response: match response {
                    None | Some(ResponseType::Singleton) => ResponseKind::Singleton,
                    Some(ResponseType::Stream) => ResponseKind::Stream,
                    Some(ResponseType::Chunked) => ResponseKind::Chunked,
                },
                response_threshold: threshold.as_ref().map_or(usual.response_threshold, |time| time.value),
                latency: latency.as_ref().map(|latency| ServiceLatency {
                    subject: latency.subject.value.clone(),
                    sampling: match latency.sampling {
                        Sampling::Percent(percent) => LatencySampling::Percent(percent),
                        Sampling::Headers => LatencySampling::Headers,
                    },
                }),
                ..usual
            }
            .into()
        }
    }
}

fn import(given: &settings::Import) -> Import {
    let (from, subject) = (given.account.value.clone(), given.subject.value.clone());
    let to = given.to.as_ref().map(|to| to.value.clone());
    match given.kind {
        ImportKind::Stream { .. } => StreamImport { to, ..StreamImport::new(from, subject) }.into(),
        ImportKind::Service { share } => ServiceImport { to, share, ..ServiceImport::new(from, subject) }.into(),
    }
}

fn mappings(given: &[Mapping]) -> Vec<SubjectMapping> {
    given
        .iter()
        .map(|mapping| SubjectMapping {
            source: mapping.source.value.clone(),
            targets: mapping
                .destinations
                .iter()
                // There is no cluster: destinations of one never apply.
                .filter(|destination| destination.cluster.is_none())
                .map(|destination| MappingTarget {
                    subject: destination.subject.value.clone(),
                    weight: destination.weight,
                })
                .collect(),
        })
        .collect()
}
