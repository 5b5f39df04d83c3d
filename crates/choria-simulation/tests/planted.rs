//! Guards that are taken away: the simulation must notice each of them, and nothing else.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use choria_simulation::{Planted, run, run_planted};

/// Histories within which a missing guard must be noticed.
const SEEDS: u64 = 400;

/// What the first history that notices says.
fn found(planted: Planted) -> String {
    for seed in 0..SEEDS {
        if let Some(violation) = run_planted(seed, None, planted).violation {
            let sound = run(seed, None, false);
            assert_eq!(sound.violation, None, "seed {seed} is sound with the guard in place");
            return violation;
        }
    }
    panic!("{planted:?} was not noticed in {SEEDS} histories");
}

#[test]
fn replies_on_any_subject_are_noticed() {
    let violation = found(Planted::Provisioner(choria_provisioner::PlantedBug::AnyReplySubject));
    assert!(violation.contains("that it must not take"), "{violation}");
}

#[test]
fn a_reply_subject_that_stays_open_is_noticed() {
    let violation = found(Planted::Provisioner(choria_provisioner::PlantedBug::ReplySubjectStaysOpen));
    assert!(violation.contains("answered before"), "{violation}");
}

#[test]
fn a_new_key_beside_a_certificate_in_force_is_noticed() {
    let violation = found(Planted::Server(choria_server::PlantedBug::NewKeyAfterConfigure));
    assert!(violation.contains("its key is not the one"), "{violation}");
}

#[test]
fn a_journal_that_does_not_say_commit_is_noticed() {
    let violation = found(Planted::Server(choria_server::PlantedBug::CommitNotRecorded));
    assert!(violation.contains("neither old nor new") || violation.contains("cannot start"), "{violation}");
}

#[test]
fn names_that_are_not_brought_to_the_disk_are_noticed() {
    let violation = found(Planted::Server(choria_server::PlantedBug::NamesNotSynced));
    assert!(violation.contains("neither old nor new") || violation.contains("starts as a member"), "{violation}");
}
