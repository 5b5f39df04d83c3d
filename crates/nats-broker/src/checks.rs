//! What is refused about exports and imports before a broker runs with them (spec 07 §8, config checks).

use nats_proto::subject::{is_valid_filter, is_valid_publish, overlaps};

use crate::account::{Account, AccountNames, ServiceEdge, StreamEdge};
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

/// Neither a request nor a message may come a second time over the same import. Requests are mapped wherever they arrive.
pub(crate) fn cycles(accounts: &[Account]) -> Result<(), StartError> {
    let services = |account: &Account| {
        let edges = account.services.iter();
        let way = |edge: &ServiceEdge| {
            let subject = edge.map.exported_filter();
            let mut arrives_as = accounts[edge.to_account as usize].mappings.results(&subject);
            arrives_as.push(subject);
            WayOut { to: edge.to_account as usize, takes: edge.map.local_filter(), arrives_as }
        };
        edges.map(way).collect()
    };
    if let Some((importer, number)) = find_cycle(accounts, services) {
        let edge = &accounts[importer].services[number];
        let subject = edge.map.exported_filter();
        return Err(StartError::ServiceCycle { importer: accounts[importer].name.to_string(), subject });
    }
    // What came by import is not passed on, so that a circle does no harm; it is refused where nats-server refuses it. Imports
    // without reply subjects are ours alone: two accounts may hear of each other over them.
    let streams = |account: &Account| {
        let edges = account.streams.iter();
        let way = |edge: &StreamEdge| WayOut {
            to: edge.to_account as usize,
            takes: edge.map.exported_filter(),
            arrives_as: if edge.drop_reply { Vec::new() } else { vec![edge.map.local_filter()] },
        };
        edges.map(way).collect()
    };
    if let Some((exporter, number)) = find_cycle(accounts, streams) {
        let edge = &accounts[exporter].streams[number];
        let importer = accounts[edge.to_account as usize].name.to_string();
        return Err(StartError::StreamCycle { importer, subject: edge.map.exported_filter() });
    }
    Ok(())
}

/// One way out of an account.
struct WayOut {
    /// Number of the account that it leads to.
    to: usize,
    /// Filter of the subjects that go this way.
    takes: String,
    /// Filters of what they may be called there.
    arrives_as: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    Never,
    /// On the way that is being followed.
    Now,
    Before,
}

/// A way out that can be reached from itself: number of its account, and its own number there.
fn find_cycle(accounts: &[Account], ways_out: impl Fn(&Account) -> Vec<WayOut>) -> Option<(usize, usize)> {
    let ways: Vec<Vec<WayOut>> = accounts.iter().map(ways_out).collect();
    let mut visits: Vec<Vec<Visit>> = ways.iter().map(|ways| vec![Visit::Never; ways.len()]).collect();
    let mut starts = ways.iter().enumerate().flat_map(|(account, ways)| (0..ways.len()).map(move |way| (account, way)));
    starts.find(|&start| visits[start.0][start.1] == Visit::Never && leads_back(&ways, start, &mut visits))
}

fn leads_back(ways: &[Vec<WayOut>], (account, number): (usize, usize), visits: &mut [Vec<Visit>]) -> bool {
    visits[account][number] = Visit::Now;
    let way = &ways[account][number];
    for (next, further) in ways[way.to].iter().enumerate() {
        if !way.arrives_as.iter().any(|subject| overlaps(subject, &further.takes)) {
            continue;
        }
        let visit = visits[way.to][next];
        if visit == Visit::Now || (visit == Visit::Never && leads_back(ways, (way.to, next), visits)) {
            return true;
        }
    }
    visits[account][number] = Visit::Before;
    false
}
