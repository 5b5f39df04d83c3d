//! `/subsz`.

use std::sync::Arc;
use std::time::SystemTime;

use nats_proto::subject::is_valid_publish;
use serde::Serialize;

use super::{QueryError, SubDetail, rfc3339};
use crate::shared::Shared;
use crate::subscription::Subscription;

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct SubszQuery {
    /// List subscriptions.
    pub subs: bool,
    /// Entries to skip.
    pub offset: usize,
    /// Entries to show; 0 = 1024.
    pub limit: usize,
    /// Only this account.
    pub acc: Option<String>,
    /// Only subscriptions that match this subject.
    pub test: Option<String>,
}

/// Totals and, when asked for, a page of subscriptions.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are those of nats-server's /subsz")]
pub struct Subsz {
    pub server_id: String,
    pub now: String,
    pub num_subscriptions: usize,
    /// Always 0: there is no cache.
    pub num_cache: u64,
    pub num_inserts: u64,
    pub num_removes: u64,
    /// Always 0: matches are not counted.
    pub num_matches: u64,
    /// Always 0: there is no cache.
    pub cache_hit_rate: u64,
    /// Always 0: there is no cache to take it from.
    pub max_fanout: u64,
    /// Always 0: there is no cache to take it from.
    pub avg_fanout: u64,
    pub total: usize,
    pub offset: usize,
    pub limit: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscriptions_list: Vec<SubDetail>,
}

pub(crate) fn subsz(shared: &Shared, query: &SubszQuery) -> Result<Subsz, QueryError> {
    if let Some(test) = &query.test
        && !is_valid_publish(test)
    {
        return Err(QueryError::TestSubject(test.clone()));
    }
    let limit = if query.limit == 0 { 1024 } else { query.limit };
    let mut list = Vec::new();
    let (mut subscriptions, mut inserts, mut removes, mut total) = (0, 0, 0, 0);
    for account in &shared.live().accounts {
        if query.acc.as_ref().is_some_and(|acc| **acc != *account.name) {
            continue;
        }
        let mut page = Vec::new();
        // Publishers and subscribers want the index, too: what is shown is put together without it.
        let index = account.state.index.read();
        subscriptions += index.len();
        inserts += index.inserts;
        removes += index.removes;
        if query.subs {
            let mut visit = |sub: &Arc<Subscription>| {
                if total >= query.offset && list.len() + page.len() < limit {
                    page.push(Arc::clone(sub));
                }
                total += 1;
            };
            match &query.test {
                Some(test) => index.for_each_match(test, |entry| entry.subscriptions().for_each(&mut visit)),
                None => index.for_each(visit),
            }
        }
        drop(index);
        list.extend(page.iter().map(|sub| SubDetail::new(sub, Some(&account.name))));
    }
    Ok(Subsz {
        server_id: shared.server_id.clone(),
        now: rfc3339(SystemTime::now()),
        num_subscriptions: subscriptions,
        num_cache: 0,
        num_inserts: inserts,
        num_removes: removes,
        num_matches: 0,
        cache_hit_rate: 0,
        max_fanout: 0,
        avg_fanout: 0,
        total,
        offset: query.offset,
        limit,
        subscriptions_list: list,
    })
}
