//! `choria doctor` names the fault: every row breaks one thing in a set-up that works, with the real program, real files
//! and, where it takes one, a real broker.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "doctor/daemons.rs"]
mod daemons;
#[path = "doctor/files.rs"]
mod files;
#[path = "doctor/network.rs"]
mod network;
#[path = "doctor/stage.rs"]
mod stage;
#[path = "doctor/tokens.rs"]
mod tokens;

use common::{run, stderr, stdout, text};
use serde_json::Value;
use stage::{Stage, found};

/// Nothing is wrong: then nothing fails, for any role.
#[test]
fn a_good_set_up_has_no_faults() {
    let mut stage = Stage::new();
    stage.broker("");
    let token = stage.lab().provisioning_token(stage.port());
    let client = stage.client("");
    let node = stage.lab().member_node_config("n1.example.net", stage.port(), "");
    let blank = stage.lab().node_config("n2.example.net");
    std::fs::write(&blank, "identity = n2.example.net\n").unwrap();
    let (helper, choria) = (stage.helper(0o755), stage.lab().provisioner_choria_config(stage.port(), ""));
    let provisioner = stage.lab().provisioner_config(&helper, "");
    let broker = stage.path().join("broker.conf");
    let signer = stage.lab().signer().verification_file().to_owned();
    let token = ["--provisioning-jwt", text(&token)];
    for (arguments, wanted) in [
        (vec!["--config", text(&client)], &["broker.connect", "rights.publish", "rights.subscribe", "key.kind"][..]),
        (vec!["--config", text(&node)], &["server.mode", "broker.connect", "rights.subscribe"]),
        (
            [&["--config", text(&blank), "--signer", text(&signer)], &token[..]].concat(),
            &["token.signature", "broker.connect", "rights.subscribe", "rights.publish"],
        ),
        (
            [&["--config", text(&provisioner), "--choria-config", text(&choria)], &token[..]].concat(),
            &["helper", "token.accepted", "provisioner.account", "rights.publish"],
        ),
        (
            [&["--config", text(&broker)], &token[..]].concat(),
            &["token.signature", "listen.clients", "broker.settings"],
        ),
    ] {
        stage.certname(if arguments.contains(&text(&choria)) {
            "provisioner.mcollective"
        } else {
            "tester.mcollective"
        });
        let (status, checks) = stage.doctor(&arguments);
        let failed: Vec<&Value> = checks.iter().filter(|check| check["status"] == "failed").collect();
        assert!(failed.is_empty() && status == Some(0), "{arguments:?}: {failed:#?}");
        for id in wanted {
            assert!(found(&checks, id, "ok"), "{arguments:?}: {id} is not ok in {checks:#?}");
        }
    }
}

/// A running node holds its name at the broker; looking at it must not make the broker think of a second one.
#[test]
fn looking_at_a_node_does_not_disturb_it() {
    let mut stage = Stage::new();
    stage.broker("");
    let mut node = stage.node("n1.example.net");
    node.wait_for("connected to");
    let token = stage.path().join("provisioning.jwt");
    let config = stage.lab().node_config("n1.example.net");
    let arguments = ["--config", text(&config), "--provisioning-jwt", text(&token)];
    let (status, checks) = stage.doctor(&arguments);
    assert_eq!(status, Some(0), "{checks:#?}");
    assert!(found(&checks, "broker.connect", "ok"), "{checks:#?}");
    node.assert_alive();
    assert!(!stage.broker_output().contains("refused"), "{}", stage.broker_output());
}

/// A start would finish or take back what was interrupted; looking at it must not.
#[test]
fn an_interrupted_configuration_is_told_and_left_alone() {
    let stage = Stage::new();
    let config = stage.lab().member_node_config("n1.example.net", stage.port(), "");
    let journal = config.with_file_name(".choria-configure.json");
    std::fs::write(&journal, "{}").unwrap();
    let (_, checks) = stage.doctor(&["--config", text(&config), "--offline"]);
    let mode = checks.iter().find(|check| check["id"] == "server.mode").unwrap();
    assert!(mode["detail"].as_str().unwrap().contains("a configuration was interrupted"), "{mode}");
    assert_eq!(std::fs::read_to_string(&journal).unwrap(), "{}");
}

#[test]
fn without_the_network_nothing_is_connected() {
    let stage = Stage::new();
    let config = stage.client("");
    let (status, checks) = stage.doctor(&["--config", text(&config), "--offline"]);
    assert_eq!(status, Some(0), "{checks:#?}");
    assert!(found(&checks, "brokers", "skipped") && found(&checks, "key.match", "ok"), "{checks:#?}");
    assert!(!checks.iter().any(|check| check["id"] == "dns"), "{checks:#?}");
}

/// How it looks, for a set-up with one fault.
#[test]
fn what_people_see() {
    let stage = Stage::new();
    let key = stage.lab().ca().client("other.mcollective").key;
    let config = stage.client(&format!("plugin.security.file.key = {}\n", text(&key)));
    let output = stage.command(&["--config", text(&config), "--offline"]).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), String::new()));
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(text(stage.path()), "DIR");
    settings.add_filter(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "TIME");
    settings.add_filter(r"in \d+ (days|hours)", "in SOME TIME");
    settings.bind(|| insta::assert_snapshot!("doctor_text", stdout(&output)));
    let quiet = stdout(&stage.command(&["--config", text(&config), "--offline", "--quiet"]).output().unwrap());
    let starts: Vec<&str> =
        quiet.lines().map(|line| line.split(' ').next().unwrap()).filter(|word| !word.is_empty()).collect();
    assert_eq!(starts, ["warning", "warning", "failed", "client:"], "{quiet}");
}

#[test]
fn without_any_configuration_it_says_where_one_is_looked_for() {
    let output = run(&["doctor", "--json"]);
    let checks: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let first = &checks[0];
    assert_eq!((first["id"].as_str(), first["status"].as_str()), (Some("config.file"), Some("failed")));
    assert!(first["detail"].as_str().unwrap().contains("/etc/choria/client.conf"), "{first}");
}
