//! `/accountz`: which accounts there are, and how one of them is wired.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde::Serialize;

use super::{QueryError, rfc3339};
use crate::config::{AccountConfig, Export, Import, ResponseKind};
use crate::shared::Shared;

/// Open requests that are listed at most.
const MOST_RESPONSES: usize = 1024;

/// The accounts, or one of them.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /accountz")]
pub struct Accountz {
    pub server_id: String,
    pub now: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system_account: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_detail: Option<AccountInfo>,
}

/// How an account is wired.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /accountz")]
pub struct AccountInfo {
    pub account_name: String,
    pub update_time: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_system: bool,
    pub expired: bool,
    pub complete: bool,
    pub jetstream_enabled: bool,
    pub leafnode_connections: usize,
    pub client_connections: usize,
    pub subscriptions: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mappings: BTreeMap<String, Vec<MappedTo>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<ExportInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<ImportInfo>,
    pub name_tag: String,
    pub sublist_stats: SublistStats,
    /// Requests of other accounts that wait for an answer, at most 1024, by the subject for it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub responses: BTreeMap<String, ImportInfo>,
}

/// One outcome of a subject mapping.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /accountz")]
pub struct MappedTo {
    pub subject: String,
    pub weight: u8,
}

/// Something that other accounts may import.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /accountz")]
pub struct ExportInfo {
    pub subject: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_type: Option<&'static str>,
    /// Who may; absent = everybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approved_accounts: Vec<String>,
}

/// Something that is taken from another account.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /accountz")]
pub struct ImportInfo {
    pub subject: String,
    pub account: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    pub local_subject: String,
    /// `stream` or `service`; of an open request the number 2, as in nats-server.
    #[serde(rename = "type")]
    pub kind: serde_json::Value,
    pub invalid: bool,
    pub share: bool,
    pub tracking: bool,
}

/// Figures of an account's index. Those that come from a cache are 0: there is none.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /accountz")]
pub struct SublistStats {
    pub num_subscriptions: usize,
    pub num_cache: u64,
    pub num_inserts: u64,
    pub num_removes: u64,
    pub num_matches: u64,
    pub cache_hit_rate: u64,
    pub max_fanout: u64,
    pub avg_fanout: u64,
}

pub(crate) fn accountz(shared: &Shared, acc: Option<&str>) -> Result<Accountz, QueryError> {
    let live = shared.live();
    let accounts = live.accounts.iter().filter(|account| !account.is_removed);
    Ok(Accountz {
        server_id: shared.server_id.clone(),
        now: rfc3339(SystemTime::now()),
        system_account: live.config.system_account.clone().unwrap_or_default(),
        accounts: acc.is_none().then(|| accounts.map(|account| account.name.to_string()).collect()),
        account_detail: acc.map(|name| account_info(shared, name)).transpose()?,
    })
}

pub(crate) fn account_info(shared: &Shared, name: &str) -> Result<AccountInfo, QueryError> {
    let live = shared.live();
    let unknown = || QueryError::Account(name.to_owned());
    let number = live.account_number(name).ok_or_else(unknown)?;
    let account = &live.accounts[number as usize];
    let config = live.configs.iter().find(|config| config.name == name).ok_or_else(unknown)?;
    let stats = {
        let index = account.state.index.read();
        SublistStats {
            num_subscriptions: index.len(),
            num_inserts: index.inserts,
            num_removes: index.removes,
            ..SublistStats::default()
        }
    };
    let mut imports: Vec<ImportInfo> = config.imports.iter().map(import_info).collect();
    imports.extend(implied_imports(name, live.config.system_account.as_deref()));
    let account_name = |number: u32| live.accounts[number as usize].name.to_string();
    let responses = account.state.replies.list(MOST_RESPONSES, shared.hub.timers.now());
    let responses = responses.into_iter().map(|(subject, asker, reply)| {
        let info = ImportInfo {
            subject: reply.into(),
            account: account_name(asker),
            to: Some(subject.to_string()),
            local_subject: subject.to_string(),
            kind: 2.into(),
            invalid: false,
            share: false,
            tracking: false,
        };
        (subject.into(), info)
    });
    Ok(AccountInfo {
        account_name: name.to_owned(),
        update_time: rfc3339(live.loaded),
        is_system: account.is_system,
        expired: false,
        complete: true,
        jetstream_enabled: false,
        leafnode_connections: 0,
        client_connections: account.state.connections.load(Ordering::Relaxed),
        subscriptions: stats.num_subscriptions,
        mappings: mappings(config),
        exports: config.exports.iter().map(export_info).collect(),
        imports,
        name_tag: name.to_owned(),
        sublist_stats: stats,
        responses: responses.collect(),
    })
}

fn mappings(config: &AccountConfig) -> BTreeMap<String, Vec<MappedTo>> {
    let targets = |mapping: &crate::config::SubjectMapping| {
        let target =
            |target: &crate::config::MappingTarget| MappedTo { subject: target.subject.clone(), weight: target.weight };
        (mapping.source.clone(), mapping.targets.iter().map(target).collect())
    };
    config.mappings.iter().map(targets).collect()
}

fn export_info(export: &Export) -> ExportInfo {
    let (subject, kind, response_type, accounts) = match export {
        Export::Stream(export) => (&export.subject, "stream", None, &export.accounts),
        Export::Service(export) => {
            let response_type = match export.response {
                ResponseKind::Singleton => "Singleton",
                ResponseKind::Stream => "Streamed",
                ResponseKind::Chunked => "Chunked",
            };
            (&export.subject, "service", Some(response_type), &export.accounts)
        }
    };
    let approved_accounts = accounts.clone().unwrap_or_default();
    ExportInfo { subject: subject.clone(), kind, response_type, approved_accounts }
}

fn import_info(import: &Import) -> ImportInfo {
    let (subject, account, to, kind, share) = match import {
        Import::Stream(import) => (&import.subject, &import.from_account, &import.to, "stream", false),
        Import::Service(import) => (&import.subject, &import.from_account, &import.to, "service", import.share),
    };
    let local = to.clone().unwrap_or_else(|| subject.clone());
    ImportInfo {
        subject: subject.clone(),
        account: account.clone(),
        to: (kind == "service").then(|| local.clone()),
        local_subject: local,
        kind: kind.into(),
        invalid: false,
        share,
        tracking: false,
    }
}

/// What an account may ask the broker itself, see [`crate::sys`]. nats-server shows it as imports from the system account.
fn implied_imports(name: &str, system: Option<&str>) -> Vec<ImportInfo> {
    let Some(system) = system else { return Vec::new() };
    let import = |subject: String, local: &str, share| ImportInfo {
        subject,
        account: system.to_owned(),
        to: Some(local.to_owned()),
        local_subject: local.to_owned(),
        kind: "service".into(),
        invalid: false,
        share,
        tracking: false,
    };
    let mut imports = Vec::new();
    if name != system {
        for (page, local) in [
            ("CONNZ", "$SYS.REQ.ACCOUNT.PING.CONNZ"),
            ("CONNZ", "$SYS.REQ.SERVER.PING.CONNZ"),
            ("STATZ", "$SYS.REQ.ACCOUNT.PING.STATZ"),
        ] {
            imports.push(import(format!("$SYS.REQ.ACCOUNT.{name}.{page}"), local, false));
        }
    }
    imports.push(import(format!("$SYS.REQ.USER.{name}.INFO"), "$SYS.REQ.USER.INFO", true));
    imports
}
