//! Accounts as the running broker knows them.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use nats_proto::subject::{is_subset, is_valid_filter};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use crate::auth::PublishGuard;
use crate::checks;
use crate::config::{AccountConfig, BrokerConfig, Export, Import, ResponseKind, ServiceLatency, StartError};
use crate::index::Index;
use crate::mapping::SubjectMap;
use crate::service::Replies;
use crate::transform::Mappings;

/// Messages of an account that subscribers of another one also see.
#[derive(Debug)]
pub(crate) struct StreamEdge {
    /// Number of the importing account.
    pub(crate) to_account: u32,
    pub(crate) map: SubjectMap,
    pub(crate) drop_reply: bool,
}

/// Requests of an account that another one answers.
#[derive(Debug)]
pub(crate) struct ServiceEdge {
    /// Number of the exporting account.
    pub(crate) to_account: u32,
    pub(crate) map: SubjectMap,
    pub(crate) share: bool,
    pub(crate) response: ResponseKind,
    pub(crate) threshold: Duration,
    /// Reports for the exporter.
    pub(crate) latency: Option<ServiceLatency>,
}

/// A guard on a filter.
pub(crate) struct GuardedFilter {
    pub(crate) filter: String,
    pub(crate) guard: Arc<dyn PublishGuard>,
}

/// What an account keeps for as long as the broker runs, whatever is configured meanwhile.
pub(crate) struct AccountState {
    pub(crate) index: RwLock<Index>,
    /// Open requests of other accounts that are answered here.
    pub(crate) replies: Replies,
    pub(crate) connections: AtomicUsize,
}

/// One account as it is configured now. Its number, the position among [`crate::live::Live::accounts`], never changes.
pub(crate) struct Account {
    pub(crate) name: Arc<str>,
    pub(crate) state: Arc<AccountState>,
    /// No longer configured: the number is kept, nobody can be in it.
    pub(crate) is_removed: bool,
    /// Where else messages published here are seen.
    pub(crate) streams: Vec<StreamEdge>,
    /// Where else requests published here are answered.
    pub(crate) services: Vec<ServiceEdge>,
    pub(crate) guards: Vec<GuardedFilter>,
    pub(crate) mappings: Mappings,
    pub(crate) max_connections: usize,
    pub(crate) max_subscriptions: usize,
    pub(crate) max_payload: usize,
    pub(crate) is_system: bool,
}

impl Account {
    /// An account without rules: new, or with the state that it had before.
    fn new(name: Arc<str>, state: Option<Arc<AccountState>>) -> Self {
        let state = state.unwrap_or_else(|| {
            Arc::new(AccountState {
                index: RwLock::new(Index::default()),
                replies: Replies::default(),
                connections: AtomicUsize::new(0),
            })
        });
        Self {
            name,
            state,
            is_removed: true,
            streams: Vec::new(),
            services: Vec::new(),
            guards: Vec::new(),
            mappings: Mappings::default(),
            max_connections: 0,
            max_subscriptions: 0,
            max_payload: 0,
            is_system: false,
        }
    }

    fn configure(&mut self, config: &AccountConfig, broker: &BrokerConfig) -> Result<(), StartError> {
        self.mappings = Mappings::new(&config.mappings).map_err(|(subject, reason)| StartError::Mapping {
            account: config.name.clone(),
            subject,
            reason,
        })?;
        self.is_removed = false;
        self.max_connections = config.max_connections.unwrap_or(usize::MAX);
        self.max_subscriptions = config.max_subscriptions.unwrap_or(usize::MAX);
        self.max_payload = config.max_payload.unwrap_or(broker.max_payload).min(broker.max_payload);
        self.is_system = broker.system_account.as_deref() == Some(config.name.as_str());
        Ok(())
    }
}

/// Numbers of the configured accounts by name.
pub(crate) type AccountNames = FxHashMap<Arc<str>, u32>;

/// Checks the configuration and builds the accounts. Those of `before` keep their numbers and their state.
pub(crate) fn build(
    broker: &BrokerConfig,
    configs: &[AccountConfig],
    guards: &[Arc<dyn PublishGuard>],
    before: &[Account],
) -> Result<(Vec<Account>, AccountNames), StartError> {
    let mut accounts: Vec<Account> =
        before.iter().map(|old| Account::new(Arc::clone(&old.name), Some(Arc::clone(&old.state)))).collect();
    let mut names = AccountNames::default();
    for config in configs {
        let known = accounts.iter().position(|account| *account.name == *config.name);
        let number = known.unwrap_or_else(|| {
            accounts.push(Account::new(config.name.as_str().into(), None));
            accounts.len() - 1
        });
        if names.insert(Arc::clone(&accounts[number].name), number as u32).is_some() {
            return Err(StartError::DuplicateAccount(config.name.clone()));
        }
        accounts[number].configure(config, broker)?;
        checks::exports(config)?;
        checks::imports(config)?;
    }
    for config in configs {
        for import in &config.imports {
            add_import(configs, &names, &mut accounts, config, import)?;
        }
    }
    checks::cycles(&accounts)?;
    checks::system_account(broker, &names)?;
    for guard in guards {
        for (account, filter) in guard.guarded() {
            let number = *names.get(account.as_str()).ok_or_else(|| StartError::UnknownAccount {
                importer: "(publish guard)".to_owned(),
                account: account.clone(),
            })?;
            if !is_valid_filter(&filter) {
                return Err(StartError::BadSubject { account, subject: filter });
            }
            accounts[number as usize].guards.push(GuardedFilter { filter, guard: Arc::clone(guard) });
        }
    }
    Ok((accounts, names))
}

fn add_import(
    configs: &[AccountConfig],
    names: &AccountNames,
    accounts: &mut [Account],
    importer: &AccountConfig,
    import: &Import,
) -> Result<(), StartError> {
    let name = &importer.name;
    let importer = names[name.as_str()];
    let (from, subject, to) = match import {
        Import::Stream(import) => (&import.from_account, &import.subject, &import.to),
        Import::Service(import) => (&import.from_account, &import.subject, &import.to),
    };
    let exporter = *names
        .get(from.as_str())
        .ok_or_else(|| StartError::UnknownAccount { importer: name.clone(), account: from.clone() })?;
    let to = to.as_ref().unwrap_or(subject);
    let map = SubjectMap::new(subject, to).map_err(|reason| StartError::BadMapping {
        importer: name.clone(),
        subject: subject.clone(),
        to: to.clone(),
        reason,
    })?;
    let not_exported =
        || StartError::NotExported { importer: name.clone(), account: from.clone(), subject: subject.clone() };
    let is_for = |list: &Option<Vec<String>>| list.as_ref().is_none_or(|list| list.contains(name));
    let exports = configs.iter().find(|config| config.name == *from).map_or(&[][..], |config| &config.exports);
    // Who exports exactly this subject to some means them and nobody else, whatever a wider export says.
    let covers =
        |exported: &str, is_named: bool| if is_named { exported == subject } else { is_subset(subject, exported) };
    match import {
        Import::Stream(import) => {
            let streams = exports.iter().filter_map(|export| match export {
                Export::Stream(export) => Some(export),
                Export::Service(_) => None,
            });
            let is_named = streams.clone().any(|export| export.subject == *subject);
            let mut fitting = streams.filter(|export| covers(&export.subject, is_named));
            if !fitting.any(|export| is_for(&export.accounts)) {
                return Err(not_exported());
            }
            let edge = StreamEdge { to_account: importer, map, drop_reply: import.drop_reply };
            accounts[exporter as usize].streams.push(edge);
        }
        Import::Service(import) => {
            let services = exports.iter().filter_map(|export| match export {
                Export::Service(export) => Some(export),
                Export::Stream(_) => None,
            });
            let is_named = services.clone().any(|export| export.subject == *subject);
            let mut fitting = services.filter(|export| covers(&export.subject, is_named));
            let export = fitting.find(|export| is_for(&export.accounts)).ok_or_else(not_exported)?;
            accounts[importer as usize].services.push(ServiceEdge {
                to_account: exporter,
                map,
                share: import.share,
                response: export.response,
                threshold: export.response_threshold,
                latency: export.latency.clone(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ServiceExport, ServiceImport, StreamExport, StreamImport};

    fn start(configs: &[AccountConfig]) -> Result<(), StartError> {
        build(&BrokerConfig::default(), configs, &[], &[]).map(|_| ())
    }

    #[test]
    fn imports_must_be_exported_to_the_importer() {
        let exporter = AccountConfig::new("A")
            .export(StreamExport::new("s.>"))
            .export(StreamExport { subject: "p.*".into(), accounts: Some(vec!["C".into()]) })
            .export(ServiceExport::new("svc.*"));
        let with = |import: Import| {
            let mut importer = AccountConfig::new("B");
            importer.imports.push(import);
            start(&[exporter.clone(), importer])
        };
        assert!(with(StreamImport::new("A", "s.a.>").into()).is_ok());
        assert!(with(ServiceImport::new("A", "svc.one").to("local").into()).is_ok());
        for import in [
            Import::from(StreamImport::new("A", ">")),
            StreamImport::new("A", "p.*").into(),
            StreamImport::new("A", "svc.one").into(),
            ServiceImport::new("A", "s.one").into(),
        ] {
            assert!(matches!(with(import.clone()), Err(StartError::NotExported { .. })), "{import:?}");
        }
        // A private export inside a wider public one stays private, when it is what is asked for.
        let private = |exporter: AccountConfig| {
            let accounts = Some(vec!["C".to_owned()]);
            exporter
                .export(StreamExport { subject: "s.secret".into(), accounts: accounts.clone() })
                .export(ServiceExport { accounts, ..ServiceExport::new("svc.secret") })
        };
        for (name, is_allowed) in [("B", false), ("C", true)] {
            for import in
                [Import::from(StreamImport::new("A", "s.secret")), ServiceImport::new("A", "svc.secret").into()]
            {
                let mut importer = AccountConfig::new(name);
                importer.imports.push(import.clone());
                assert_eq!(start(&[private(exporter.clone()), importer]).is_ok(), is_allowed, "{name}: {import:?}");
            }
        }
        assert!(matches!(with(StreamImport::new("Z", "s.>").into()), Err(StartError::UnknownAccount { .. })));
        assert!(matches!(with(StreamImport::new("A", "s.*").to("t").into()), Err(StartError::BadMapping { .. })));
    }

    #[test]
    fn service_cycles_are_refused_and_crossing_streams_are_not() {
        let account = |name: &str, other: &str| {
            AccountConfig::new(name)
                .export(ServiceExport::new("svc.>"))
                .export(StreamExport::new("s.>"))
                .import(StreamImport::new(other, "s.>").to(format!("from.{other}.s.>")))
        };
        assert!(start(&[account("A", "B"), account("B", "A")]).is_ok());
        let cycle = |name: &str, other: &str| account(name, other).import(ServiceImport::new(other, "svc.x"));
        assert!(matches!(start(&[cycle("A", "B"), cycle("B", "A")]), Err(StartError::ServiceCycle { .. })));
    }
}
