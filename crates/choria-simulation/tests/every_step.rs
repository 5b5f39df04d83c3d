//! One node, nothing goes wrong but one death at one exact step, for every step there is.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use choria_simulation::run;
use choria_simulation::scenario::{FlowKind, Scenario, Script};
use choria_simulation::stats::Stats;

/// Runs the world with this death in it.
fn with(base: &Scenario, script: Script) -> Stats {
    let report = run(1, Some(&Scenario { script: Some(script), ..base.clone() }), true);
    if let Some(violation) = &report.violation {
        panic!("{script:?}, {:?}: {violation}\n{}", base.flow, report.history.join("\n"));
    }
    report.stats
}

/// A node that was never a member and one that was.
fn worlds() -> impl Iterator<Item = Scenario> {
    let kinds = FlowKind::ALL.into_iter().map(|flow| Scenario::quiet(1, flow));
    kinds.chain([Scenario { returning: 1, ..Scenario::quiet(1, FlowKind::TokenAndRequest) }])
}

fn undisturbed(base: &Scenario) -> Stats {
    let report = run(1, Some(base), false);
    assert_eq!(report.violation, None);
    assert_eq!((report.stats.provisioned, report.stats.configures, report.stats.joined), (1, 1, 1));
    report.stats
}

#[test]
fn the_provisioner_may_die_between_any_two_effects() {
    for base in worlds() {
        for effect in 0..undisturbed(&base).effects {
            let stats = with(&base, Script::ProvisionerAtEffect(effect));
            assert_eq!(stats.provisioner_kills_between_effects, 1);
        }
    }
}

#[test]
fn the_node_may_die_at_any_disk_operation_with_and_without_power() {
    let (mut taken_back, mut finished) = (0, 0);
    for base in worlds() {
        let operations = undisturbed(&base).disk_operations;
        assert!(operations > 20, "{operations}");
        for after in 0..operations {
            for (torn, power) in [(false, false), (true, false), (false, true), (true, true)] {
                let stats = with(&base, Script::MachineAtOperation { after, torn, power });
                taken_back += stats.recovered_old;
                finished += stats.recovered_new;
            }
        }
    }
    assert!(taken_back > 50 && finished > 20, "{taken_back} taken back, {finished} finished");
}

#[test]
fn the_node_may_die_before_and_after_any_reply() {
    for base in worlds() {
        for half in 0..undisturbed(&base).replies * 2 {
            assert_eq!(with(&base, Script::MachineAtReply(half)).node_kills_at_request, 1);
        }
    }
}

#[test]
fn the_broker_may_restart_at_any_message() {
    for base in worlds() {
        for message in 1..=undisturbed(&base).messages {
            assert_eq!(with(&base, Script::BrokerAtMessage(message)).broker_restarts, 1);
        }
    }
}
