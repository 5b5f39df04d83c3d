//! Signals that steer a daemon without ending it, and settings that must not make a sound.
#![allow(clippy::unwrap_used)]

mod common;

use choria_testkit::wait_until;
use common::{Fleet, PATIENCE, stderr, text};
use nix::sys::signal::Signal;

#[test]
fn sigusr1_pauses_the_provisioner_and_sigusr2_lets_it_go_on() {
    let fleet = Fleet::new();
    let _broker = fleet.broker();
    let mut provisioner = fleet.provisioner("");
    provisioner.wait_for("connected to");
    provisioner.signal(Signal::SIGUSR1);
    provisioner.wait_for("provisioning is paused");
    let mut node = fleet.node("n1.example.net");
    // Seen by its startup event, and left alone.
    provisioner.wait_for("n1.example.net was seen while paused and is not queued");
    assert_eq!(fleet.helper_calls(), 0, "{}", provisioner.output());
    provisioner.signal(Signal::SIGUSR2);
    provisioner.wait_for("provisioning resumes");
    fleet.wait_for_members(&["n1.example.net"]);
    provisioner.assert_alive();
    node.assert_alive();
}

/// What is asked for before there is a broker is kept.
#[test]
fn a_pause_before_the_first_connection_holds() {
    let fleet = Fleet::new();
    let mut provisioner = fleet.provisioner("");
    provisioner.wait_for("connection refused");
    provisioner.signal(Signal::SIGUSR1);
    provisioner.wait_for("paused before the first connection");
    let _broker = fleet.broker();
    provisioner.wait_for("provisioning is paused");
    provisioner.signal(Signal::SIGUSR2);
    let _node = fleet.node("n1.example.net");
    fleet.wait_for_members(&["n1.example.net"]);
}

/// The system ends a process that has no handler for these signals. The original ignores them (spec 03 §1.7).
#[test]
fn signals_without_meaning_end_no_daemon() {
    let fleet = Fleet::new();
    let mut broker = fleet.broker();
    let mut node = fleet.node("n1.example.net");
    node.wait_for("connected to");
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        broker.signal(signal);
        node.signal(signal);
    }
    let _provisioner = fleet.provisioner("");
    fleet.wait_for_members(&["n1.example.net"]);
    broker.assert_alive();
    node.assert_alive();
}

/// Spec 01 §10.1: ignored silently. Stock configurations of existing fleets hold such keys.
#[test]
fn keys_of_older_releases_are_silent_on_every_command() {
    let fleet = Fleet::new();
    let old =
        "plugin.security.file.cache = /tmp/x\nlogger_type = console\nsecurityprovider = choria\nconnector = nats\n";
    let config = fleet.lab.broker_config(fleet.port, 0, old);
    let mut broker = fleet.daemon("broker", &["broker", "run", "--config", text(&config)]);
    broker.wait_for("broker started");
    let _provisioner = fleet.provisioner("");
    let _node = fleet.node("n1.example.net");
    fleet.wait_for_members(&["n1.example.net"]);
    let config = fleet.lab.client_config(fleet.port, old);
    for command in [&["ping", "--expect", "1"][..], &["discover"], &["req", "rpcutil", "ping"]] {
        let arguments = [command, &["--config", text(&config)]].concat();
        let quiet = stderr(&fleet.client(&arguments));
        assert!(!quiet.contains("no effect") && !quiet.contains("warn"), "{command:?}: {quiet}");
        let loud = stderr(&fleet.client(&[&arguments[..], &["--debug"]].concat()));
        assert!(loud.contains("logger_type has no effect"), "{command:?}: {loud}");
    }
    wait_until(PATIENCE, "the broker has said all", || broker.output().contains("broker started"));
    assert!(!broker.output().contains("no effect"), "{}", broker.output());
}
