//! SRV records: look-up, ordering (RFC 2782) and the 5 second cache (spec 01 §12, spec 03 §1.3).

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rand::Rng;

use crate::target::Target;

/// How long an answer is used again.
pub const CACHE_TTL: Duration = Duration::from_secs(5);

/// Names that the cache holds at most; the oldest goes first. A process asks for a handful.
const CACHE_NAMES: usize = 32;

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SrvRecord {
    /// Lower is tried first.
    pub priority: u16,
    /// Share among records of one priority.
    pub weight: u16,
    /// TCP port.
    pub port: u16,
    /// Host name; a trailing dot is stripped.
    pub target: String,
}

/// Why a name could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not look up SRV records of {name}: {reason}")]
pub struct SrvError {
    /// The record name, such as `_mcollective-server._tcp.example.net`.
    pub name: String,
    /// What went wrong.
    pub reason: String,
}

/// Asks for SRV records. Implemented by [`SystemResolver`] and by tests.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// The records of `name` in any order. An empty answer means that the name has none.
    async fn srv(&self, name: &str) -> Result<Vec<SrvRecord>, SrvError>;
}

/// Asks the name servers of the operating system's configuration.
///
/// The configuration is read anew for every question: a node that boots often gets its name server after
/// Choria started, and an idle server keeps no resolver in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn srv(&self, name: &str) -> Result<Vec<SrvRecord>, SrvError> {
        use hickory_resolver::TokioResolver;
        use hickory_resolver::proto::rr::{RData, RecordType};

        let failed = |reason: String| SrvError { name: name.to_owned(), reason };
        let resolver = TokioResolver::builder_tokio()
            .and_then(hickory_resolver::ResolverBuilder::build)
            .map_err(|error| failed(error.to_string()))?;
        // A final dot keeps search domains of the host out of it.
        let asked = if name.ends_with('.') { name.to_owned() } else { format!("{name}.") };
        let answer = match resolver.lookup(asked.as_str(), RecordType::SRV).await {
            Ok(answer) => answer,
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => return Ok(Vec::new()),
            Err(error) => return Err(failed(error.to_string())),
        };
        let records = answer.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(SrvRecord {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_ascii(),
            }),
            _ => None,
        });
        Ok(records.collect())
    }
}

/// Orders records as RFC 2782 says: by priority, and inside one priority at random in proportion to the weights.
pub fn order(mut records: Vec<SrvRecord>, rng: &mut impl Rng) -> Vec<SrvRecord> {
    // Weight 0 first, so that such records have a small chance beside heavier ones.
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut ordered = Vec::with_capacity(records.len());
    while !records.is_empty() {
        let priority = records[0].priority;
        let group = records.iter().take_while(|record| record.priority == priority).count();
        let total: u32 = records[..group].iter().map(|record| u32::from(record.weight)).sum();
        let mut draw = rng.random_range(0..=total);
        let chosen = records[..group]
            .iter()
            .position(|record| {
                let weight = u32::from(record.weight);
                let hit = draw <= weight;
                draw = draw.saturating_sub(weight);
                hit
            })
            .unwrap_or(0);
        ordered.push(records.remove(chosen));
    }
    ordered
}

/// Broker addresses of ordered records. Records that name no host (`.`) or no port are left out.
pub fn targets(records: &[SrvRecord]) -> Vec<Target> {
    records.iter().filter_map(|record| Target::new(record.target.trim_end_matches('.'), record.port)).collect()
}

/// A [`Resolver`] that uses answers again for [`CACHE_TTL`]; also empty ones, but no failures.
#[derive(Debug)]
pub struct CachingResolver<R> {
    inner: R,
    cache: Mutex<HashMap<String, (Instant, Vec<SrvRecord>)>>,
}

impl<R: Resolver> CachingResolver<R> {
    /// Puts a cache before `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, cache: Mutex::new(HashMap::new()) }
    }

    fn cached(&self, name: &str, now: Instant) -> Option<Vec<SrvRecord>> {
        let cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        cache.get(name).filter(|(at, _)| now.duration_since(*at) < CACHE_TTL).map(|(_, records)| records.clone())
    }

    fn remember(&self, name: &str, now: Instant, records: &[SrvRecord]) {
        let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        cache.retain(|_, (at, _)| now.duration_since(*at) < CACHE_TTL);
        if cache.len() < CACHE_NAMES {
            cache.insert(name.to_owned(), (now, records.to_vec()));
        }
    }
}

#[async_trait]
impl<R: Resolver> Resolver for CachingResolver<R> {
    async fn srv(&self, name: &str) -> Result<Vec<SrvRecord>, SrvError> {
        if let Some(records) = self.cached(name, Instant::now()) {
            return Ok(records);
        }
        let records = self.inner.srv(name).await?;
        self.remember(name, Instant::now(), &records);
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn record(priority: u16, weight: u16, target: &str) -> SrvRecord {
        SrvRecord { priority, weight, port: 4222, target: target.to_owned() }
    }

    #[test]
    fn weights_decide_the_share_of_first_places() {
        let mut rng = StdRng::seed_from_u64(42);
        let mut first: HashMap<String, u32> = HashMap::new();
        for _ in 0..4000 {
            let records = vec![record(10, 75, "heavy"), record(10, 25, "light"), record(20, 100, "spare")];
            let ordered = order(records, &mut rng);
            assert_eq!(ordered[2].target, "spare");
            *first.entry(ordered[0].target.clone()).or_default() += 1;
        }
        let heavy = first["heavy"];
        assert!((2800..3200).contains(&heavy), "heavy came first {heavy} times of 4000, expected about 3000");
    }

    #[test]
    fn records_become_targets() {
        let list = [record(1, 1, "b1.example.net."), record(1, 1, "."), record(1, 1, "b2.example.net")];
        let shown: Vec<String> = targets(&list).iter().map(Target::to_string).collect();
        assert_eq!(shown, ["b1.example.net:4222", "b2.example.net:4222"]);
    }

    struct Counting(AtomicUsize, bool);

    #[async_trait]
    impl Resolver for Counting {
        async fn srv(&self, name: &str) -> Result<Vec<SrvRecord>, SrvError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            if self.1 {
                return Err(SrvError { name: name.to_owned(), reason: "no answer".into() });
            }
            Ok(vec![record(1, 1, "a.example.net")])
        }
    }

    #[tokio::test]
    async fn answers_are_used_again_but_failures_are_not() {
        let good = CachingResolver::new(Counting(AtomicUsize::new(0), false));
        for _ in 0..3 {
            assert_eq!(good.srv("_x._tcp.example.net").await.unwrap().len(), 1);
        }
        assert_eq!(good.inner.0.load(Ordering::SeqCst), 1);
        let expired = Instant::now() + CACHE_TTL;
        assert!(good.cached("_x._tcp.example.net", expired).is_none());

        let bad = CachingResolver::new(Counting(AtomicUsize::new(0), true));
        for _ in 0..3 {
            assert!(bad.srv("_x._tcp.example.net").await.is_err());
        }
        assert_eq!(bad.inner.0.load(Ordering::SeqCst), 3);
    }

    proptest! {
        #[test]
        fn ordering_keeps_every_record_and_respects_priority(
            seed in any::<u64>(),
            records in proptest::collection::vec((0u16..4, any::<u16>(), 1u16..), 0..20),
        ) {
            let records: Vec<SrvRecord> = records
                .into_iter()
                .enumerate()
                .map(|(index, (priority, weight, port))| SrvRecord { priority, weight, port, target: format!("h{index}") })
                .collect();
            let ordered = order(records.clone(), &mut StdRng::seed_from_u64(seed));
            prop_assert!(ordered.windows(2).all(|pair| pair[0].priority <= pair[1].priority));
            let mut sorted = ordered;
            let mut expected = records;
            sorted.sort_by(|a, b| a.target.cmp(&b.target));
            expected.sort_by(|a, b| a.target.cmp(&b.target));
            prop_assert_eq!(sorted, expected);
        }
    }
}
