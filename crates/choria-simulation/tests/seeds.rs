//! A fixed set of histories: none may violate anything, together they must meet every kind of trouble, and the same seed
//! must give the same history.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use choria_simulation::runner::{Plan, replay, run_many};
use choria_simulation::{Report, run};

/// Enough to meet every kind of trouble.
const SEEDS: u64 = 250;

#[test]
fn a_fixed_set_of_histories_violates_nothing_and_meets_every_trouble() {
    let plan = Plan { from: 0, seeds: SEEDS, time_box: None, jobs: 2 };
    let summary = run_many(&plan, |_, _| {});
    let told = |r: &Report| format!("seed {}: {}\n    {}", r.seed, r.violation.as_deref().unwrap(), replay(r.seed));
    let violations: Vec<String> = summary.reports.iter().map(told).collect();
    assert!(violations.is_empty(), "{} histories:\n{}", summary.violations, violations.join("\n"));
    assert_eq!(summary.histories, SEEDS);
    assert_eq!(summary.stats.missing(), Vec::<&str>::new(), "a run that does not meet these proves nothing about them");
}

/// A seed that found something once. Every change of the simulation gives it another history, so what it found has a test of its
/// own, too: a node that was killed as it was sent back into provisioning, and a power cut after its next start.
#[test]
fn what_was_found_once_stays_mended() {
    let seed = 27777;
    assert_eq!(run(seed, None, false).violation, None, "{}", replay(seed));
}

#[test]
fn the_same_seed_gives_the_same_history_line_by_line() {
    for seed in 1000..1012 {
        let (first, second) = (run(seed, None, true), run(seed, None, true));
        assert!(first.history.len() > 10);
        for (one, other) in first.history.iter().zip(&second.history) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(first, second, "seed {seed}");
        assert_eq!(first.hash, run(seed, None, false).hash, "keeping the history changes nothing");
    }
    assert_ne!(run(1, None, false).hash, run(2, None, false).hash);
}
