//! Tokens that expire and authorities that change while nodes are being provisioned.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::Duration;

use choria_security::cert;
use choria_security::keys::PrivateKey;
use choria_testkit::lab::PROVISIONING_SECRET;
use choria_testkit::{TestCa, TokenSigner, wait_until};
use common::{Daemon, Fleet, PATIENCE};
use nix::sys::signal::Signal;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("n{number}.example.net")).collect()
}

fn all_are_members(fleet: &Fleet, names: &[String]) {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    fleet.wait_for_members(&names);
}

/// Each node has a certificate for the key that never left it.
fn certificates_fit_keys(fleet: &Fleet, names: &[String]) {
    for name in names {
        let ssl = fleet.lab.node_config(name).with_file_name("ssl");
        let facts = cert::first_from_pem(&fs::read_to_string(ssl.join("certificate.pem")).unwrap()).unwrap();
        assert!(facts.belongs_to(&PrivateKey::load(ssl.join("private.pem")).unwrap()), "{name}");
    }
}

/// The token ends in the middle: whoever waits with it is sent away and not let in again. With a new token in the file
/// everybody is provisioned, nobody is restarted by hand.
#[test]
fn a_token_that_expires_in_the_middle_of_a_wave_delays_it() {
    let fleet = Fleet::new();
    let mut broker = fleet.broker();
    let token = fleet.path().join("provisioning.jwt");
    let request = TokenSigner::request(PROVISIONING_SECRET, &format!("nats://localhost:{}", fleet.port));
    let short = choria_tokens::ProvisioningRequest { validity: Some(Duration::from_secs(6)), ..request };
    fleet.lab.signer().write(&token, &short);
    let names = names(6);
    let _nodes: Vec<Daemon> = names.iter().map(|name| fleet.node(name)).collect();
    let mut provisioner = fleet.provisioner_with("time.sleep(1.5)", "workers: 1\n");
    broker.wait_for("token_expired");
    let before = fleet.helped();
    assert!(before.len() < names.len(), "the wave was over before the token was: {before:?}");
    fleet.lab.provisioning_token(fleet.port);
    all_are_members(&fleet, &names);
    certificates_fit_keys(&fleet, &names);
    provisioner.assert_alive();
}

/// The authority is replaced while the wave runs: first by a broken file, which changes nothing, then by a new one beside
/// the old one. Nodes of both authorities are members in the end.
#[test]
fn a_ca_that_is_replaced_in_the_middle_of_a_wave_loses_nobody() {
    let fleet = Fleet::new();
    let mut broker = fleet.broker();
    let mut provisioner = fleet.provisioner_with("time.sleep(0.5)", "workers: 1\n");
    let names = names(8);
    let _nodes: Vec<Daemon> = names.iter().map(|name| fleet.node(name)).collect();
    wait_until(PATIENCE, "the wave has begun", || fleet.helper_calls() >= 2);

    let ca_file = fleet.lab.ca().ca_file();
    let old = fs::read_to_string(&ca_file).unwrap();
    for broken in ["", "no certificate\n"] {
        fs::write(&ca_file, broken).unwrap();
        let failures = broker.output().matches("reload failed").count();
        broker.signal(Signal::SIGHUP);
        wait_until(PATIENCE, "the broker refuses it", || broker.output().matches("reload failed").count() > failures);
        provisioner.signal(Signal::SIGHUP);
    }
    let calls = fleet.helper_calls();
    wait_until(PATIENCE, "the wave goes on", || fleet.helper_calls() > calls);

    let next = TestCa::in_directory(fleet.path().join("next"));
    let both = format!("{}{old}", next.certificate_pem());
    fs::write(&ca_file, &both).unwrap();
    broker.signal(Signal::SIGHUP);
    broker.wait_for("configuration reloaded");
    // What the helper hands out from now on.
    fs::write(next.authority_directory().join("ca.pem"), &both).unwrap();
    let authority = fleet.lab.ca().authority_directory();
    fs::rename(&authority, authority.with_file_name("former")).unwrap();
    fs::rename(next.authority_directory(), &authority).unwrap();

    all_are_members(&fleet, &names);
    certificates_fit_keys(&fleet, &names);
    let got = |first: &str| {
        let file = |name: &String| fs::read_to_string(fleet.lab.node_config(name).with_file_name("ssl").join("ca.pem"));
        names.iter().filter(|name| file(name).unwrap().starts_with(first.trim_end())).count()
    };
    let (of_old, of_new) = (got(&old), got(next.certificate_pem()));
    assert!(of_old >= 2 && of_new >= 1 && of_old + of_new == names.len(), "{of_old} and {of_new}");
    broker.assert_alive();
    provisioner.assert_alive();
}
