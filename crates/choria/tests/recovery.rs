//! Broker, provisioner or node are killed in the middle of provisioning: afterwards every node is a member, or still
//! waiting and taken up again.
#![allow(clippy::unwrap_used)]

mod common;

use choria_testkit::wait_until;
use common::{Fleet, PATIENCE, text};

/// The helper waits, so that the kill hits the middle of the flow, but only the first time.
const SLOW_ONCE: &str = "\
import os
if not os.path.exists('once'):
    open('once', 'w').close()
    time.sleep(3)";

fn middle_of_the_flow(fleet: &Fleet) {
    wait_until(PATIENCE, "the helper is asked", || fleet.helper_calls() > 0);
}

#[test]
fn a_killed_provisioner_takes_the_node_up_again() {
    let fleet = Fleet::new();
    let _broker = fleet.broker();
    let provisioner = fleet.provisioner(SLOW_ONCE);
    let _node = fleet.node("n1.example.net");
    middle_of_the_flow(&fleet);
    provisioner.kill_hard();
    let _provisioner = fleet.provisioner(SLOW_ONCE);
    fleet.wait_for_members(&["n1.example.net"]);
}

#[test]
fn a_killed_broker_is_found_again_by_everybody() {
    let fleet = Fleet::new();
    let broker = fleet.broker();
    let _provisioner = fleet.provisioner(SLOW_ONCE);
    let _node = fleet.node("n1.example.net");
    middle_of_the_flow(&fleet);
    broker.kill_hard();
    let _broker = fleet.broker();
    fleet.wait_for_members(&["n1.example.net"]);
}

#[test]
fn a_killed_node_is_provisioned_when_it_comes_back() {
    let fleet = Fleet::new();
    let _broker = fleet.broker();
    let _provisioner = fleet.provisioner(SLOW_ONCE);
    let node = fleet.node("n1.example.net");
    middle_of_the_flow(&fleet);
    node.kill_hard();
    let before = std::fs::read_to_string(fleet.lab.node_config("n1.example.net")).unwrap();
    assert_eq!(before, "identity = n1.example.net\n", "nothing was configured yet");
    let _node = fleet.node_again("n1.example.net");
    fleet.wait_for_members(&["n1.example.net"]);
}

#[test]
fn a_member_that_is_killed_comes_back_as_a_member() {
    let fleet = Fleet::new();
    let _broker = fleet.broker();
    let provisioner = fleet.provisioner("");
    let node = fleet.node("n1.example.net");
    fleet.wait_for_members(&["n1.example.net"]);
    node.kill_hard();
    drop(provisioner);
    let _node = fleet.node_again("n1.example.net");
    fleet.wait_for_members(&["n1.example.net"]);
    let config = std::fs::read_to_string(fleet.lab.node_config("n1.example.net")).unwrap();
    assert!(config.contains("plugin.choria.server.provision"), "{}: {config}", text(fleet.path()));
}
