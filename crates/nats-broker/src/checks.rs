//! What is refused about exports and imports before a broker runs with them (spec 07 §8, config checks).

use nats_proto::subject::{is_valid_filter, is_valid_publish, overlaps};

use crate::account::{Account, AccountNames};
use crate::config::{
    AccountConfig, BrokerConfig, Export, Import, LatencySampling, ResponseKind, ServiceExport, StartError,
};

/// Exports of an account by themselves.
pub(crate) fn exports(config: &AccountConfig) -> Result<(), StartError> {
    for export in &config.exports {
        let subject = match export {
            Export::Stream(export) => &export.subject,
            Export::Service(export) => {
                latency(config, export)?;
                &export.subject
            }
        };
        if !is_valid_filter(subject) {
            return Err(StartError::BadSubject { account: config.name.clone(), subject: subject.clone() });
        }
    }
    Ok(())
}

fn latency(config: &AccountConfig, export: &ServiceExport) -> Result<(), StartError> {
    let Some(latency) = &export.latency else { return Ok(()) };
    let reason = match latency.sampling {
        _ if export.response != ResponseKind::Singleton => "only services with one answer can be measured",
        LatencySampling::Percent(percent) if !(1..=100).contains(&percent) => "sampling is from 1 to 100 percent",
        _ if !is_valid_publish(&latency.subject) => "the reports need a subject without wildcards",
        _ => return Ok(()),
    };
    Err(StartError::Latency { account: config.name.clone(), subject: export.subject.clone(), reason })
}

/// Imports of an account by themselves.
pub(crate) fn imports(config: &AccountConfig) -> Result<(), StartError> {
    let mut seen = Vec::new();
    for import in &config.imports {
        let (from, subject, local, key) = match import {
            Import::Stream(import) => {
                let local = import.to.as_ref().unwrap_or(&import.subject);
                (
                    &import.from_account,
                    &import.subject,
                    local,
                    (true, &import.from_account, local, Some(&import.subject)),
                )
            }
            // Which of two would a request take?
            Import::Service(import) => {
                let local = import.to.as_ref().unwrap_or(&import.subject);
                (&import.from_account, &import.subject, local, (false, &import.from_account, local, None))
            }
        };
        if *from == config.name {
            return Err(StartError::SelfImport { account: config.name.clone(), subject: subject.clone() });
        }
        if seen.contains(&key) {
            return Err(StartError::DuplicateImport {
                importer: config.name.clone(),
                account: from.clone(),
                subject: local.clone(),
            });
        }
        seen.push(key);
    }
    Ok(())
}

/// The system account must be one of the accounts.
pub(crate) fn system_account(config: &BrokerConfig, names: &AccountNames) -> Result<(), StartError> {
    match &config.system_account {
        Some(name) if !names.contains_key(name.as_str()) => Err(StartError::UnknownSystemAccount(name.clone())),
        _ => Ok(()),
    }
}

/// Neither a request nor a message may come back to an account that it already passed.
pub(crate) fn cycles(accounts: &[Account]) -> Result<(), StartError> {
    for (start, account) in accounts.iter().enumerate() {
        for edge in &account.services {
            let subject = edge.map.exported_filter();
            if leads_back(accounts, services, edge.to_account as usize, &subject, &mut vec![start]) {
                return Err(StartError::ServiceCycle { importer: account.name.to_string(), subject });
            }
        }
        for edge in account.streams.iter().filter(|edge| !edge.drop_reply) {
            let subject = edge.map.local_filter();
            let there = edge.to_account as usize;
            if leads_back(accounts, streams, there, &subject, &mut vec![start]) {
                let subject = edge.map.exported_filter();
                return Err(StartError::StreamCycle { importer: accounts[there].name.to_string(), subject });
            }
        }
    }
    Ok(())
}

/// One way out of an account: where to, which subjects it takes, and what they are called there.
type WayOut = (usize, String, String);

/// Where requests of an account go.
fn services(account: &Account) -> Vec<WayOut> {
    let edges = account.services.iter();
    edges.map(|edge| (edge.to_account as usize, edge.map.local_filter(), edge.map.exported_filter())).collect()
}

/// Where messages of an account go. What came by import is not passed on, so that a circle does no harm; it is refused where
/// nats-server refuses it. Imports without reply subjects are ours alone: two accounts may hear of each other over them.
fn streams(account: &Account) -> Vec<WayOut> {
    let edges = account.streams.iter().filter(|edge| !edge.drop_reply);
    edges.map(|edge| (edge.to_account as usize, edge.map.exported_filter(), edge.map.local_filter())).collect()
}

fn leads_back(
    accounts: &[Account],
    ways_out: fn(&Account) -> Vec<WayOut>,
    there: usize,
    arrives_as: &str,
    seen: &mut Vec<usize>,
) -> bool {
    if seen.contains(&there) {
        return true;
    }
    seen.push(there);
    let found = ways_out(&accounts[there]).into_iter().any(|(next, taken, becomes)| {
        overlaps(arrives_as, &taken) && leads_back(accounts, ways_out, next, &becomes, seen)
    });
    seen.pop();
    found
}
