//! The processes around the daemons: pid files, signals, restart, names.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use choria_testkit::wait_until;
use common::{Daemon, Fleet, PATIENCE, program, stderr, stdout, text};
use nix::sys::signal::Signal;

#[test]
fn daemons_stop_cleanly_and_take_their_pid_file_along() {
    let fleet = Fleet::new();
    let config = fleet.lab.broker_config(fleet.port, 0, "");
    let pid = fleet.path().join("broker.pid");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut broker = fleet.daemon("broker", &["broker", "run", "--config", text(&config), "--pid", text(&pid)]);
        wait_until(PATIENCE, "the pid file is there", || fs::read_to_string(&pid).is_ok_and(|text| !text.is_empty()));
        assert!(fs::read_to_string(&pid).unwrap().bytes().all(|byte| byte.is_ascii_digit()));
        broker.wait_for("broker started");
        broker.signal(signal);
        assert_eq!(broker.wait(), Some(0), "{}", broker.output());
        assert!(!pid.exists());
        fs::remove_file(fleet.path().join("broker.log")).unwrap();
    }
}

/// DESIGN §6: SIGHUP kills the original's broker and provisioner; here it is a reload.
#[test]
fn design6_hangup_is_a_reload() {
    let fleet = Fleet::new();
    let mut broker = fleet.broker();
    let mut provisioner = fleet.provisioner("");
    provisioner.wait_for("connected to");
    broker.signal(Signal::SIGHUP);
    provisioner.signal(Signal::SIGHUP);
    broker.wait_for("configuration reloaded");
    provisioner.wait_for("reload");
    let mut node = fleet.node("n1.example.net");
    fleet.wait_for_members(&["n1.example.net"]);
    broker.assert_alive();
    provisioner.assert_alive();

    let starts = node.output().matches("connected to").count();
    node.signal(Signal::SIGHUP);
    wait_until(PATIENCE, "the node has started again", || node.output().matches("connected to").count() > starts);
    node.assert_alive();
    fleet.wait_for_members(&["n1.example.net"]);
}

/// A provisioned node starts again by itself, as the same process.
#[test]
fn a_configured_node_restarts_in_place() {
    let fleet = Fleet::new();
    let _broker = fleet.broker();
    let _provisioner = fleet.provisioner("");
    let config = fleet.lab.node_config("n1.example.net");
    fs::write(&config, "identity = n1.example.net\n").unwrap();
    let token = fleet.lab.provisioning_token(fleet.port);
    let pid = fleet.path().join("node.pid");
    let arguments = ["server", "--config", text(&config), "--provisioning-jwt", text(&token), "--pid", text(&pid)];
    let mut node = fleet.daemon("node", &arguments);
    wait_until(PATIENCE, "the pid file is there", || fs::read_to_string(&pid).is_ok_and(|text| !text.is_empty()));
    let before = fs::read_to_string(&pid).unwrap();
    fleet.wait_for_members(&["n1.example.net"]);
    assert_eq!(fs::read_to_string(&pid).unwrap(), before);
    node.signal(Signal::SIGTERM);
    assert_eq!(node.wait(), Some(0), "{}", node.output());
}

/// The same with the token's path in the environment, as units of service managers like it.
#[test]
fn the_token_can_be_named_in_the_environment() {
    let fleet = Fleet::new();
    let _broker = fleet.broker();
    let _provisioner = fleet.provisioner("");
    let config = fleet.lab.node_config("n1.example.net");
    fs::write(&config, "identity = n1.example.net\n").unwrap();
    let token = fleet.lab.provisioning_token(fleet.port);
    let mut command = common::choria_in(fleet.path(), &["server", "run", "--config", text(&config)]);
    command.env("CHORIA_PROVISIONING_JWT", token);
    let _node = Daemon::start("node", command, fleet.path());
    fleet.wait_for_members(&["n1.example.net"]);
}

#[test]
fn the_name_choria_provisioner_is_the_provisioner() {
    let directory = tempfile::tempdir().unwrap();
    let other_name = directory.path().join("choria-provisioner");
    symlink(program(), &other_name).unwrap();
    let help = Command::new(&other_name).arg("--help").output().unwrap();
    assert!(stdout(&help).contains("--choria-config"), "{}", stdout(&help));
    for arguments in [&["run", "--config", "nowhere.yaml"][..], &["--config", "nowhere.yaml", "--debug"]] {
        let output = Command::new(&other_name).args(arguments).current_dir(directory.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("nowhere.yaml"), "{}", stderr(&output));
    }
}
