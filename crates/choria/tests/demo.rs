//! The demo: every node becomes a member, nothing is left behind, and failures name the part.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use choria_testkit::wait_until;
use common::{Daemon, PATIENCE, choria, stderr, stdout, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

#[test]
fn once_ends_when_every_node_is_a_member() {
    let directory = tempfile::tempdir().unwrap();
    let lab = directory.path().join("lab");
    let output = choria(&["demo", "--nodes", "3", "--once", "--json", "--dir", text(&lab)]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["members"], 3);
    assert_eq!(report["ping"].as_array().unwrap().len(), 3);
    let inventory = report["inventory"].as_array().unwrap();
    assert!(inventory.len() == 3 && inventory.iter().all(|reply| reply["statuscode"] == 0), "{inventory:?}");
    for node in report["nodes"].as_array().unwrap() {
        assert_eq!(node["step"], "member", "{node}");
        let own = lab.join("nodes").join(node["identity"].as_str().unwrap());
        for file in ["server.conf", "ssl/certificate.pem", "ssl/private.pem", "ssl/ca.pem", "policies/rpcutil.policy"] {
            assert!(own.join(file).is_file(), "{file} of {}", own.display());
        }
    }
    let pid = fs::read_to_string(lab.join("broker/broker.pid"));
    assert!(pid.is_err(), "the broker has ended and taken its pid file away: {pid:?}");
}

#[test]
fn people_are_told_what_was_made_and_what_to_try() {
    let output = choria(&["demo", "--nodes", "1", "--once"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (said, talk) = (stdout(&output), stderr(&output));
    for wanted in ["1 nodes became fleet members", "choria ping", "node1.demo", "agents:", "Made in"] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    for step in ["found", "checked", "configured", "is a fleet member"] {
        assert!(talk.contains(step), "{step}: {talk}");
    }
}

/// Settings of the shell it is started from are for other fleets; only the name of the person counts.
#[test]
fn the_shell_has_no_say() {
    let output = choria(&["demo", "--nodes", "1", "--once"])
        .env("MCOLLECTIVE_CERTNAME", "lisa.mcollective")
        .env("CHORIA_PROVISIONING_JWT", "/nowhere.jwt")
        .env("MCOLLECTIVE_NATS_USERNAME", "somebody")
        .env("MCOLLECTIVE_NATS_PASSWORD", "something")
        .env("INSECURE_DISABLE_TLS", "true")
        .env_remove("USER")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("certificate of lisa.mcollective"), "{}", stdout(&output));
}

/// Processes of one demo, by the directory in their command lines.
fn processes(directory: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let working = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if working.starts_with(directory) {
            found.push(pid);
        }
    }
    found
}

#[test]
fn nothing_is_left_behind_however_it_ends() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let directory = tempfile::tempdir().unwrap();
        let lab = directory.path().join("lab");
        let command = choria(&["demo", "--nodes", "2", "--dir", text(&lab)]);
        let mut demo = Daemon::start("demo", command, directory.path());
        demo.wait_for("The fleet is up");
        assert!(processes(text(&lab)).len() >= 4, "broker, provisioner and two nodes");
        demo.signal(signal);
        let status = demo.wait();
        assert_eq!(status, (signal != Signal::SIGKILL).then_some(0), "{signal}: {}", demo.output());
        wait_until(PATIENCE, &format!("no process is left after {signal}"), || processes(text(&lab)).is_empty());
    }
}

#[test]
fn a_part_that_fails_is_named_with_the_end_of_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let lab = directory.path().join("lab");
    let command = choria(&["demo", "--nodes", "1", "--dir", text(&lab)]);
    let mut demo = Daemon::start("demo", command, directory.path());
    demo.wait_for("The fleet is up");
    let pid: i32 = fs::read_to_string(lab.join("broker/broker.pid")).unwrap().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(demo.wait(), Some(1));
    let said = demo.output();
    assert!(said.contains("the broker ended early") && said.contains("broker.log"), "{said}");
}

#[test]
fn a_directory_with_something_in_it_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("mine"), "").unwrap();
    let output = choria(&["demo", "--once", "--dir", text(directory.path())]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is not empty"), "{}", stderr(&output));
}
