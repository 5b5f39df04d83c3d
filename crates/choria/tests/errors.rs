//! Bad input at start: every daemon says which file, which line and what to do, on stderr, and ends with status 1.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use choria_testkit::Lab;
use common::{Fleet, choria_in, free_port, run, stderr, stdout, text};

/// Runs a command that must be refused, and returns what it said.
fn refused(directory: &Path, arguments: &[&str]) -> String {
    let output = choria_in(directory, arguments).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert_eq!(stdout(&output), "", "{arguments:?}: stdout is for data");
    said
}

fn broker_says(lab: &Lab, extra: &str) -> String {
    let config = lab.broker_config(free_port(), 0, extra);
    refused(lab.directory(), &["broker", "run", "--config", text(&config)])
}

#[test]
fn design6_bad_values_name_file_line_and_value() {
    let lab = Lab::new();
    for (line, value) in [
        ("rpcauthorization = on", "on"),
        ("plugin.choria.network.write_deadline = soon", "soon"),
        ("plugin.choria.network.client_port = many", "many"),
        ("loglevel = loud", "loud"),
    ] {
        let said = broker_says(&lab, &format!("{line}\n"));
        let config = fs::read_to_string(lab.directory().join("broker.conf")).unwrap();
        let number = config.lines().position(|text| text == line).unwrap() + 1;
        assert!(said.contains(&format!("broker.conf:{number}")), "{line}: {said}");
        assert!(said.contains(value), "{line}: {said}");
    }
}

#[test]
fn several_bad_values_are_told_at_once() {
    let lab = Lab::new();
    let said = broker_says(&lab, "loglevel = loud\nrpcaudit = perhaps\n");
    assert!(said.contains("loud") && said.contains("perhaps"), "{said}");
}

#[test]
fn unknown_keys_are_warned_about_with_the_nearest_name() {
    let fleet = Fleet::new();
    let config = fleet.lab.broker_config(fleet.port, 0, "plugin.choria.network.client_prot = 1\n");
    let mut broker = fleet.daemon("broker", &["broker", "run", "--config", text(&config)]);
    broker.wait_for("broker started");
    let said = broker.output();
    assert!(said.contains("client_prot") && said.contains("client_port"), "{said}");
}

#[test]
fn absent_files_are_named() {
    let lab = Lab::new();
    let said = refused(lab.directory(), &["broker", "run", "--config", "nowhere.conf"]);
    assert!(said.contains("nowhere.conf"), "{said}");
    let said = refused(lab.directory(), &["server", "run"]);
    assert!(said.contains("server run requires a configuration file"), "{said}");
    let said = refused(lab.directory(), &["server", "run", "--config", "nowhere.conf"]);
    assert!(said.contains("nowhere.conf") && said.contains("provisioning"), "{said}");
    let said = refused(lab.directory(), &["provisioner", "run", "--config", "nowhere.yaml"]);
    assert!(said.contains("nowhere.yaml"), "{said}");
    let said = refused(lab.directory(), &["ping", "--config", "nowhere.conf"]);
    assert!(said.contains("path 'nowhere.conf' does not exist"), "{said}");
    let said = broker_says(&lab, "plugin.security.file.key = /nowhere/key.pem\n");
    assert!(said.contains("/nowhere/key.pem"), "{said}");
}

#[test]
fn a_key_that_cannot_be_read_is_named() {
    let lab = Lab::new();
    let broken = lab.directory().join("broken.pem");
    fs::write(&broken, "this is no key\n").unwrap();
    let said = broker_says(&lab, &format!("plugin.security.file.key = {}\n", text(&broken)));
    assert!(said.contains("broken.pem"), "{said}");
    let said = broker_says(&lab, &format!("plugin.choria.network.provisioning.signer_cert = {}\n", text(&broken)));
    assert!(said.contains("broken.pem"), "{said}");
}

#[test]
fn a_used_port_is_told() {
    let lab = Lab::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let config = lab.broker_config(port, 0, "");
    let said = refused(lab.directory(), &["broker", "run", "--config", text(&config)]);
    assert!(said.contains(&port.to_string()), "{said}");
}

#[test]
fn a_provisioner_with_a_bad_file_names_line_and_column() {
    let lab = Lab::new();
    let choria = lab.provisioner_choria_config(free_port(), "");
    for (line, wanted) in [("workers: many", "workers"), ("interval: 1s", "interval"), ("cert_deny_list: ['(']", "(")] {
        let config = lab.provisioner_config("/bin/true", &format!("{line}\n"));
        // The last of two equal keys would win silently elsewhere; here the file holds each key once.
        let file = fs::read_to_string(&config).unwrap();
        let key = line.split(':').next().unwrap();
        let kept: Vec<&str> = file.lines().filter(|l| !l.starts_with(key) || *l == line).collect();
        fs::write(&config, kept.join("\n")).unwrap();
        let arguments = ["provisioner", "run", "--config", text(&config), "--choria-config", text(&choria)];
        let said = refused(lab.directory(), &arguments);
        assert!(said.contains("provisioner.yaml:") || said.contains("interval is too small"), "{line}: {said}");
        assert!(said.contains(wanted), "{line}: {said}");
    }
}

/// DESIGN §6 (Client): a filter that cannot be parsed is refused before anything is sent; so no broker is needed to see it.
#[test]
fn design6_bad_filters_are_refused_before_anything_is_sent() {
    let lab = Lab::new();
    let config = lab.client_config(free_port(), "");
    for filter in [["-F", "nonsense"], ["-I", "/(/"], ["-S", "1 +"], ["-S", "nosuch("], ["-C", "/[/"]] {
        for command in ["ping", "discover"] {
            let said = refused(lab.directory(), &[command, "--config", text(&config), filter[0], filter[1]]);
            assert!(said.contains("could not parse filters"), "{filter:?}: {said}");
        }
    }
}

/// DESIGN §6 (Client): a broker that is down, or one that does not know our CA, ends a command with the reason.
#[test]
fn design6_no_connection_ends_a_command_with_the_reason() {
    let (name, value) = Lab::client_environment();
    let ping = |lab: &Lab, config: &Path| {
        let arguments = ["ping", "--config", text(config), "--connect-timeout", "500ms"];
        let output = choria_in(lab.directory(), &arguments).env(name, value).output().unwrap();
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()));
        stderr(&output)
    };
    let lab = Lab::new();
    let port = free_port();
    let said = ping(&lab, &lab.client_config(port, ""));
    assert!(said.contains(&port.to_string()) && said.contains("refused"), "{said}");

    let fleet = Fleet::new();
    let _broker = fleet.broker();
    let stranger = Lab::new();
    let said = ping(&stranger, &stranger.client_config(fleet.port, ""));
    assert!(said.contains("certificate"), "{said}");
}

#[test]
fn usage_errors_end_with_one() {
    for arguments in [
        &["nonsense"][..],
        &["ping", "--nonsense"],
        &["tool"],
        &["jwt"],
        &["req", "rpcutil"],
        &["ping", "--timeout", "x"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert_ne!(stderr(&output), "", "{arguments:?}");
    }
    assert_eq!(run(&[]).status.code(), Some(0), "the bare name shows the usage");
    for arguments in [&["--version"][..], &["--help"], &["help", "exit-codes"], &["ping", "--help"]] {
        let output = run(arguments);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()), "{arguments:?}");
        assert_ne!(stdout(&output), "", "{arguments:?}");
    }
}
