//! `choria provisioner rules`: what would become of a node.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{choria_in, stderr, stdout};
use serde_json::Value;

const RULES: &str = "\
defaults:
  configuration:
    plugin.choria.middleware_hosts: broker.example.net:4222
rules:
  - {name: retired, identity: '*.old.example.net', shutdown: its time has come}
  - {name: strangers, facts: os.family=windows, deny: not supported here}
  - name: tenants
    identity: '*.example.net'
    jwt: extensions.tenant=t9
    configuration: {collectives: 'mcollective,{{facts.dc}}'}
    certificate: {validity: 90d}
    action_policies: {rpcutil.policy: \"policy default deny\\n\"}
";

/// Runs the command in a directory with rules, facts and claims; returns status, stdout and stderr.
fn rules(facts: &str, arguments: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rules.yaml"), RULES).unwrap();
    fs::write(dir.path().join("facts.yaml"), facts).unwrap();
    fs::write(dir.path().join("claims.json"), r#"{"cht": "s3cret", "extensions": {"tenant": "t9"}}"#).unwrap();
    let given = ["--rules", "rules.yaml", "--facts", "facts.yaml", "--claims", "claims.json"];
    let output = choria_in(dir.path(), &[&["provisioner", "rules"], arguments, &given].concat()).output().unwrap();
    (output.status.code().unwrap(), stdout(&output), stderr(&output))
}

#[test]
fn it_shows_every_rule_and_what_the_node_would_get() {
    let (status, out, err) = rules("dc: ams\nos: {family: Debian}\n", &["web1.example.net"]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "  no   rule retired (rules.yaml:5): it is for other identities
  no   rule strangers (rules.yaml:6): fact os.family=windows does not hold, the node has \"Debian\"
  yes  rule tenants (rules.yaml:7)
web1.example.net is provisioned
  collectives = mcollective,ams
  identity = web1.example.net
  plugin.choria.middleware_hosts = broker.example.net:4222
  plugin.choria.server.provision = false
  plugin.security.file.ca = /etc/choria/ssl/ca.pem
  plugin.security.file.certificate = /etc/choria/ssl/certificate.pem
  plugin.security.file.key = /etc/choria/ssl/private.pem
  plugin.security.provider = file
Certificate for 90 days
Action policies: rpcutil.policy
"
    );
}

#[test]
fn the_status_tells_whether_the_node_gets_anything() {
    let debian = "os: {family: Debian}\n";
    for (facts, node, status, decision) in [
        ("dc: ams\n", "web1.example.net", 0, "provision"),
        (debian, "web1.example.net", 1, "defer"),
        (debian, "web1.elsewhere.net", 1, "defer"),
        ("os: {family: windows}\n", "web1.example.net", 1, "deny"),
        (debian, "a.old.example.net", 0, "shutdown"),
    ] {
        let (code, out, _) = rules(facts, &[node, "--json"]);
        let document: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((document["decision"].as_str(), code), (Some(decision), status), "{node} {facts}");
        assert!(!out.contains("s3cret"));
    }
}

#[test]
fn what_is_wrong_has_a_place_and_a_next_step() {
    let (status, _, err) = rules("[]", &["web1.example.net"]);
    assert!(status == 1 && err.contains("facts.yaml does not hold a mapping"), "{err}");
    let (status, _, err) = rules("{}", &["a b"]);
    assert!(status == 1 && err.contains("identities are letters"), "{err}");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("r.yaml"), "rules: [{identiy: x}]\n").unwrap();
    let run = |arguments: &[&str]| {
        let output = choria_in(dir.path(), &[&["provisioner", "rules", "n1"], arguments].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    assert!(run(&["--rules", "r.yaml"]).contains("r.yaml:1:19: unknown key identiy in a rule, did you mean identity?"));
    assert!(run(&[]).contains("hint: choria provisioner rules NODE --rules FILE"));
    fs::write(dir.path().join("p.yaml"), "helper: /bin/true\n").unwrap();
    assert!(run(&["--config", "p.yaml"]).contains("its helper_mode is not builtin"));
}
