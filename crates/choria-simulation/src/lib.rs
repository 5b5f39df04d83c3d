//! The provisioning flow under deterministic simulation: one seed is one history. First things go wrong: processes die
//! between any two steps, disks lose what was not synced, messages are lost, doubled, late and forged, clocks jump, helpers
//! fail. Then nothing goes wrong any more, and every machine must come home, each of its files wholly old or wholly new at
//! every moment on the way. `docs/simulation.md` says what is real and what is modelled.
//!
//! Must not be in it: anything a program needs at run time. It uses the programs, nothing uses it.
//!
//! | Module | Holds |
//! |---|---|
//! | [`scenario`] | what a seed asks for |
//! | `world` | time, chance, the beginning, the end and what must hold there |
//! | `network`, `misfortune` | messages on their way; what goes wrong |
//! | `provisioner` | the real engine in a shell that dies |
//! | `machine` | the real node on a disk in memory, and what it does with requests |
//! | [`disk`] | that disk |
//! | `broker` | the real connection decision over modelled connections |
//! | `helper`, `hostile` | helpers that misbehave, holders of a token with bad intentions |
//! | `check` | what must hold |
//! | [`stats`], `trace` | what happened |
//! | `material`, `agenda` | authorities and tokens; what is planned |
//! | [`runner`] | many seeds |
//!
//! ```
//! let report = choria_simulation::run(7, None, false);
//! assert_eq!(report.violation, None);
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agenda;
mod broker;
mod check;
pub mod disk;
mod helper;
mod hostile;
mod machine;
mod material;
mod misfortune;
mod network;
mod provisioner;
pub mod runner;
pub mod scenario;
pub mod stats;
mod trace;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use scenario::Scenario;
use stats::Stats;
use world::World;

/// A guard that is taken away, to see that the simulation notices. Only in test builds.
#[cfg(feature = "planted-bug")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// In the provisioner.
    Provisioner(choria_provisioner::PlantedBug),
    /// In the server.
    Server(choria_server::PlantedBug),
}

/// How one history went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Hash over all lines of the history.
    pub hash: u64,
    /// Lines of the history.
    pub lines: u64,
    /// The history, if it was asked for.
    pub history: Vec<String>,
    /// What happened how often.
    pub stats: Stats,
    /// What must never be, and was.
    pub violation: Option<String>,
}

/// Runs the history of a seed. `scenario` replaces the one that the seed draws; `keep` keeps the lines of the history.
pub fn run(seed: u64, scenario: Option<&Scenario>, keep: bool) -> Report {
    report(seed, || World::new(seed, scenario.cloned(), keep))
}

/// The same with a guard taken away.
#[cfg(feature = "planted-bug")]
pub fn run_planted(seed: u64, scenario: Option<&Scenario>, planted: Planted) -> Report {
    report(seed, || {
        let mut world = World::new(seed, scenario.cloned(), false);
        world.plant(planted);
        world
    })
}

fn report(seed: u64, world: impl FnOnce() -> World) -> Report {
    // Nothing may panic, whatever the history: a panic is a violation as any other.
    match catch_unwind(AssertUnwindSafe(|| world().run())) {
        Ok(ending) => Report {
            seed,
            hash: ending.hash,
            lines: ending.lines,
            history: ending.history,
            stats: ending.stats,
            violation: ending.violation,
        },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let violation = Some(format!("panic: {}", text.unwrap_or_default()));
            Report { seed, hash: 0, lines: 0, history: Vec::new(), stats: Stats::default(), violation }
        }
    }
}
