//! Many seeds, one after the other or on several threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::stats::Stats;
use crate::{Report, run};

/// Violations that are kept in full; the rest is counted.
const KEPT: usize = 20;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// No new history is begun after this time.
    pub time_box: Option<Duration>,
    /// Threads. Each history runs on one.
    pub jobs: usize,
}

/// How it went.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Histories.
    pub histories: u64,
    /// Histories with a violation.
    pub violations: u64,
    /// The first of them, by seed.
    pub reports: Vec<Report>,
    /// What happened in all of them.
    pub stats: Stats,
    /// How long it took.
    pub took: Duration,
}

/// Runs the plan. `progress` is told now and then how many histories are done and how many had a violation.
pub fn run_many(plan: &Plan, progress: impl Fn(u64, u64) + Sync) -> Summary {
    let began = Instant::now();
    let (next, violations, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let summary = Mutex::new(Summary::default());
    let work = || {
        while !over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plan.seeds || plan.time_box.is_some_and(|limit| began.elapsed() >= limit) {
                over.store(true, Ordering::Relaxed);
                return;
            }
            let report = run(plan.from.wrapping_add(number), None, false);
            let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
            summary.histories += 1;
            summary.stats.add(&report.stats);
            if report.violation.is_some() {
                summary.violations += 1;
                violations.fetch_add(1, Ordering::Relaxed);
                if summary.reports.len() < KEPT {
                    summary.reports.push(report);
                }
            }
            progress(summary.histories, violations.load(Ordering::Relaxed));
        }
    };
    thread::scope(|scope| {
        for _ in 1..plan.jobs.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.reports.sort_by_key(|report| report.seed);
    summary.took = began.elapsed();
    summary
}

/// The command that replays a history.
pub fn replay(seed: u64) -> String {
    format!("cargo run --release -p choria-simulation -- --seed {seed} --trace")
}
