//! `choria config`, `choria tool provision` and `choria man`.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Output;

use choria_testkit::{Lab, TokenSigner};
use common::{choria_in, run, stderr, stdout, text};
use serde_json::Value;

fn in_lab(lab: &Lab, arguments: &[&str]) -> Output {
    choria_in(lab.directory(), arguments).output().unwrap()
}

fn file(lab: &Lab, name: &str, content: &str) -> String {
    let path = lab.directory().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    name.to_owned()
}

#[test]
fn everything_wrong_in_a_file_is_told_with_its_line() {
    let lab = Lab::new();
    file(&lab, "node/plugin.d/choria.cfg", "stats_port = 99999\n");
    let config = file(
        &lab,
        "node/server.conf",
        "ttl = soon\nregisterinterva = 3\nidentity = n1\nrpcauthorization = on\nsecurityprovider = choria\njust words\n",
    );
    let output = in_lab(&lab, &["config", "validate", &config]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), String::new()));
    insta::assert_snapshot!("validate_server", stdout(&output));

    let document: Value =
        serde_json::from_slice(&in_lab(&lab, &["config", "check", &config, "--json"]).stdout).unwrap();
    assert_eq!((&document["role"], &document["guessed"]), (&"server".into(), &true.into()));
    let lines = |list: &str| -> Vec<(String, u64)> {
        let entries = document[list].as_array().unwrap();
        entries
            .iter()
            .map(|entry| (entry["file"].as_str().unwrap().to_owned(), entry["line"].as_u64().unwrap()))
            .collect()
    };
    let at = |line| (config.clone(), line);
    assert_eq!(lines("errors"), [at(1), at(4), ("node/plugin.d/choria.cfg".to_owned(), 1)]);
    assert_eq!(lines("warnings"), [at(2), at(6)]);
    assert_eq!(lines("notes"), [at(5)]);
}

#[test]
fn good_files_are_good_for_their_role() {
    let lab = Lab::new();
    let broker = lab.broker_config(4222, 0, "");
    let provisioner = lab.provisioner_config("/bin/true", "");
    let client = lab.client_config(4222, "");
    let node = lab.member_node_config("n1", 4222, "");
    for (path, role) in [(&broker, "broker"), (&provisioner, "provisioner"), (&client, "client"), (&node, "server")] {
        let output = in_lab(&lab, &["config", "validate", text(path)]);
        let said = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let sum = format!("{}: 0 errors, 0 warnings (as {role}, guessed; --role says otherwise)\n", path.display());
        assert!(said.ends_with(&sum), "{said}");
    }
    let output = in_lab(&lab, &["config", "validate", text(&client), "--role", "server"]);
    assert!(stdout(&output).ends_with("0 errors, 0 warnings (as server)\n"), "{}", stdout(&output));
}

#[test]
fn what_only_one_program_refuses_is_told() {
    let lab = Lab::new();
    for (extra, wanted) in [
        ("plugin.choria.network.peers = nats://b2:5222\n", "plugin.choria.network.peers"),
        ("plugin.choria.broker_network = no\n", "all broker features are disabled"),
    ] {
        let config = lab.broker_config(4222, 0, extra);
        let output = in_lab(&lab, &["config", "validate", text(&config)]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).contains(wanted), "{}", stdout(&output));
    }
    let config = lab.member_node_config("n1", 4222, "registration = file_content\n");
    let output = in_lab(&lab, &["config", "validate", text(&config)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("plugin.choria.registration.file_content.data"), "{}", stdout(&output));
    let config = lab.broker_config(4222, 0, "plugin.choria.network.system.user = system\n");
    let output = in_lab(&lab, &["config", "validate", text(&config)]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stdout(&output).contains("warning: plugin.choria.network.system.user is set without"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn provisioner_files_are_checked_too() {
    let lab = Lab::new();
    let config = file(&lab, "p.yaml", "interval: 1m\nhelper: /bin/true\nworkrs: 3\nbroker_provisioning_password: x\n");
    let output = in_lab(&lab, &["config", "validate", &config]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("p.yaml:3: warning: unknown key workrs"), "{}", stdout(&output));
    let config = file(&lab, "p.yaml", "interval: 1m\nworkers: many\n");
    let output = in_lab(&lab, &["config", "validate", &config]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("p.yaml:2: error: workers must be a whole number"), "{}", stdout(&output));
    let config = file(&lab, "p.yaml", "interval: soon\nworkers: many\nworkrs: 3\nhelper: /bin/true\n");
    let output = in_lab(&lab, &["config", "validate", &config]);
    let said = stdout(&output);
    let places: Vec<&str> = said.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["p.yaml:1", "p.yaml:2", "p.yaml:3", "p.yaml"], "{said}");
    let output = in_lab(&lab, &["config", "validate", "nowhere.yaml"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()));
    assert!(stderr(&output).contains("nowhere.yaml not found"), "{}", stderr(&output));
    let output = in_lab(&lab, &["config", "validate", "nowhere.conf"]);
    assert!(stderr(&output).contains("nowhere.conf could not be read"), "{}", stderr(&output));
}

#[test]
fn settings_are_explained() {
    insta::assert_snapshot!("explain", stdout(&run(&["config", "explain", "plugin.choria.network.client_port"])));
    let family = stdout(&run(&["config", "explain", "plugin.package.activate_agent"]));
    assert!(family.starts_with("plugin.NAME.activate_agent\n"), "{family}");
    let several: Value = serde_json::from_slice(&run(&["config", "explain", "tls_timeout", "--json"]).stdout).unwrap();
    assert_eq!(several[0]["name"], "plugin.choria.network.tls_timeout");
    let misspelt = run(&["config", "explain", "registerintervall"]);
    assert_eq!(misspelt.status.code(), Some(1));
    assert!(stderr(&misspelt).contains("did you mean registerinterval?"), "{}", stderr(&misspelt));
}

/// Spec 05 §7.5, word for word.
#[test]
fn provisioning_brokers_are_shown_as_documented() {
    let lab = Lab::new();
    let request = TokenSigner::request("secret", "prov1.acme.net:4222,nats://prov2.acme.net:4222");
    let token = lab.signer().write(lab.directory().join("provisioning.jwt"), &request);
    let config = file(&lab, "server.conf", "identity = n1\n");
    for name in ["provision", "provisioner"] {
        let output = in_lab(&lab, &["tool", name, "--config", &config, "--provisioning-jwt", text(&token)]);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
        let wanted = "Attempting provisioner resolution using: Choria JWT Resolver\n\
                      Provisioning using 2 broker(s):\n\n\tnats://prov1.acme.net:4222\n\tnats://prov2.acme.net:4222\n\n";
        assert_eq!(stdout(&output), wanted);
    }
    let by_variable = choria_in(lab.directory(), &["tool", "provision", "--config", &config, "--json"])
        .env("CHORIA_PROVISIONING_JWT", "provisioning.jwt")
        .output()
        .unwrap();
    let document: Value = serde_json::from_slice(&by_variable.stdout).unwrap();
    assert_eq!(document["brokers"], serde_json::json!(["nats://prov1.acme.net:4222", "nats://prov2.acme.net:4222"]));
}

#[test]
fn without_brokers_it_says_why() {
    let lab = Lab::new();
    let config = file(&lab, "server.conf", "identity = n1\nplugin.choria.server.provision = no\n");
    let damaged = file(&lab, "damaged.jwt", "a.b\n");
    let request = TokenSigner::request("secret", "prov1:4222");
    let good = lab.signer().write(lab.directory().join("good.jwt"), &request);
    let ask = |arguments: &[&str]| in_lab(&lab, &[&["tool", "provision"], arguments].concat());

    let output = ask(&[]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()));
    assert!(stderr(&output).contains("please specify the server configuration using --config"));
    for (token, wanted) in
        [(damaged.as_str(), "malformed"), ("absent.jwt", "there is no provisioning token absent.jwt")]
    {
        let output = ask(&["--config", &config, "--provisioning-jwt", token]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("provisioning target plugin Choria JWT Resolver returned no servers"), "{said}");
        assert!(said.contains(wanted) && said.contains("choria doctor"), "{said}");
    }
    let none = choria_in(lab.directory(), &["tool", "provision", "--config", &config])
        .env("CHORIA_PROVISIONING_JWT", "")
        .output()
        .unwrap();
    assert!(stderr(&none).contains("not a server compiled for auto provisioning"), "{}", stderr(&none));
    // Neither of these is a reason to stop, and both are said on stderr.
    let off = ask(&["--config", &config, "--provisioning-jwt", text(&good)]);
    assert_eq!(off.status.code(), Some(0));
    assert!(stderr(&off).contains("plugin.choria.server.provision is false"), "{}", stderr(&off));
    let missing = ask(&["--config", "nowhere.conf", "--provisioning-jwt", text(&good)]);
    assert_eq!(missing.status.code(), Some(0));
    assert!(stderr(&missing).contains("nowhere.conf"), "{}", stderr(&missing));
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man");
    let output = choria_in(directory.path(), &["man", "./man"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let names: Vec<String> =
        std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(stdout(&output), format!("Wrote {} pages to ./man\n", names.len()));
    for name in
        ["choria.1", "choria-ping.1", "choria-jwt-view.1", "choria-provisioner-run.1", "choria-config-explain.1"]
    {
        assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("lab-helper") || name.contains("help")), "{names:?}");
    for name in &names {
        check_page(&pages.join(name));
    }
    let one = run(&["man", "jwt", "view"]);
    assert_eq!(stdout(&one), std::fs::read_to_string(pages.join("choria-jwt-view.1")).unwrap());
    assert_eq!(stdout(&run(&["man", "rpc"])), std::fs::read_to_string(pages.join("choria-req.1")).unwrap());
    let unknown = run(&["man", "nonsense"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("choria man ./man"), "{}", stderr(&unknown));
}

/// A page names its command, and says of every flag that help shows what it is for.
fn check_page(path: &Path) {
    let page = std::fs::read_to_string(path).unwrap();
    let name = path.file_stem().unwrap().to_str().unwrap();
    assert!(page.contains(&format!(".TH {name} 1")), "{name}: {}", &page[..200.min(page.len())]);
    assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
    let words: Vec<&str> = name.split('-').skip(1).collect();
    // Names of commands hold hyphens, too: help is asked for what exists.
    let help = stdout(&run(&[&words[..], &["--help"]].concat()));
    for line in help.lines().filter(|line| line.trim_start().starts_with("--") || line.trim_start().starts_with('-')) {
        let flag =
            line.split_whitespace().find(|word| word.starts_with("--")).unwrap_or_default().trim_end_matches(',');
        let escaped = flag.replace('-', "\\-");
        // A list of aliases may go on in a line of its own.
        let none = flag.is_empty() || flag.ends_with(']');
        assert!(none || page.contains(&escaped), "{name}: {flag} is not on the page");
    }
}
