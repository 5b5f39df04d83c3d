//! Asking a running provisioner why: status, explanations, pause and resume over its control socket.
#![allow(clippy::unwrap_used)]

mod common;

use choria_testkit::wait_until;
use common::{Daemon, Fleet, PATIENCE, stderr, stdout, text};
use serde_json::Value;

/// A fleet whose provisioner can be asked.
struct Asked {
    fleet: Fleet,
    socket: String,
}

impl Asked {
    fn new() -> Self {
        let fleet = Fleet::new();
        let socket = fleet.path().join("control.sock").display().to_string();
        Self { fleet, socket }
    }

    fn provisioner(&self, extra: &str) -> Daemon {
        let mut provisioner = self.fleet.provisioner_with("", &format!("control_socket: {}\n{extra}", self.socket));
        provisioner.wait_for("control socket is");
        provisioner
    }

    fn ask(&self, command: &[&str]) -> (Option<i32>, String, String) {
        let arguments = [&["provisioner"], command, &["--socket", &self.socket]].concat();
        let output = self.fleet.client(&arguments);
        (output.status.code(), stdout(&output), stderr(&output))
    }

    fn json(&self, command: &[&str]) -> Value {
        let (_, out, err) = self.ask(&[command, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"))
    }
}

#[test]
fn explain_tells_why_a_node_was_refused_without_reading_a_log() {
    let asked = Asked::new();
    let _broker = asked.fleet.broker();
    let mut provisioner = asked.provisioner("cert_deny_list: ['^forbidden']\n");
    let mut node = asked.fleet.node("forbidden7.example.net");
    wait_until(PATIENCE, "it is refused", || {
        provisioner.assert_alive();
        node.assert_alive();
        asked.json(&["explain", "forbidden7.example.net"])["refusals_total"].as_u64() >= Some(1)
    });
    let reason = "forbidden7.example.net matches denied certificate pattern";
    let (code, shown, _) = asked.ask(&["explain", "forbidden7.example.net"]);
    assert_eq!(code, Some(0));
    for part in [reason, "choria_provision#gencsr", "Seen    by ", "refused after", "seen again"] {
        assert!(shown.contains(part), "{part:?} is missing:\n{shown}");
    }
    let told = asked.json(&["explain", "forbidden7.example.net"]);
    let attempt = &told["attempts"][0];
    assert_eq!(attempt["outcome"], "refused");
    assert!(attempt["detail"].as_str().unwrap().contains(reason), "{attempt}");
    assert!(attempt["steps"].as_array().unwrap().iter().all(|step| step["took_s"].is_number()), "{attempt}");

    let (code, shown, _) = asked.ask(&["status"]);
    assert_eq!(code, Some(0));
    assert!(shown.contains(reason) && shown.contains("a process per node"), "{shown}");
    let status = asked.json(&["status"]);
    assert_eq!(status["refusals"][0]["node"], "forbidden7.example.net");
    assert_eq!(status["connection"]["connected"], true);
    let everything = format!("{shown}{status}{told}");
    for secret in [choria_testkit::lab::PROVISIONING_SECRET, choria_testkit::lab::PROVISIONER_PASSWORD] {
        assert!(!everything.contains(secret), "{secret} is shown");
    }

    let (code, shown, _) = asked.ask(&["explain", "forbidden7"]);
    assert_eq!(code, Some(1), "nothing is known of that name");
    assert!(shown.contains("forbidden7.example.net"), "but of this one: {shown}");
}

#[test]
fn a_provisioned_node_is_explained_as_well_and_a_pause_holds() {
    let asked = Asked::new();
    // Before there is a broker it says why it is not connected.
    let mut provisioner = asked.provisioner("");
    wait_until(PATIENCE, "it tells why", || {
        asked.json(&["status"])["connection"]["reason"].as_str().is_some_and(|why| why.contains("refused"))
    });
    assert_eq!(asked.json(&["status"])["held_by"], "connection");
    let _broker = asked.fleet.broker();
    wait_until(PATIENCE, "it is connected", || asked.json(&["status"])["connection"]["connected"] == true);
    let (code, said, _) = asked.ask(&["pause"]);
    assert_eq!((code, said.contains("paused")), (Some(0), true), "{said}");
    let _node = asked.fleet.node("n1.example.net");
    wait_until(PATIENCE, "it was seen", || {
        asked.json(&["explain", "n1.example.net"])["notes"].to_string().contains("paused")
    });
    let told = asked.json(&["explain", "n1.example.net"]);
    assert_eq!((&told["attempts_total"], &told["state"]), (&0.into(), &"not_waiting".into()), "{told}");
    assert_eq!(asked.json(&["resume"])["paused"], false);
    asked.fleet.wait_for_members(&["n1.example.net"]);
    wait_until(PATIENCE, "it was seen coming home", || {
        asked.json(&["explain", "n1.example.net"])["notes"].to_string().contains("became a fleet member")
    });
    let told = asked.json(&["explain", "n1.example.net"]);
    assert_eq!(told["attempts"][0]["outcome"], "provisioned", "{told}");
    let totals = &asked.json(&["status"])["totals"];
    assert_eq!((&totals["provisioned"], &totals["verified"]), (&1.into(), &1.into()));

    provisioner.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(provisioner.wait(), Some(0));
    let (code, _, said) = asked.ask(&["status"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no provisioner answers on") && said.contains("hint:"), "{said}");
}

#[test]
fn the_configuration_leads_to_its_provisioner() {
    let asked = Asked::new();
    let config = asked.fleet.provisioner_config("", &format!("control_socket: {}\n", asked.socket));
    let ask = || asked.fleet.client(&["provisioner", "status", "--config", text(&config), "--json"]);
    assert_eq!(ask().status.code(), Some(1));
    let _provisioner = asked.provisioner("");
    let output = ask();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let status: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(status["process"]["config"], std::fs::canonicalize(&config).unwrap().to_str().unwrap());

    let off = asked.fleet.provisioner_config("", "control_socket: ''\n");
    let output = asked.fleet.client(&["provisioner", "explain", "n1", "--config", text(&off)]);
    assert!(stderr(&output).contains("control_socket is empty"), "{}", stderr(&output));
}

/// Two provisioners with one configured socket: the second must not take it away from the first, nor run unseen.
#[test]
fn a_configured_socket_that_is_in_use_is_a_start_error() {
    let asked = Asked::new();
    let _first = asked.provisioner("");
    let mut second = asked.fleet.provisioner_with("", &format!("control_socket: {}\n", asked.socket));
    assert_eq!(second.wait(), Some(1));
    assert!(second.output().contains("another process answers there"), "{}", second.output());
    assert_eq!(asked.json(&["status"])["held_by"], "connection", "the first still answers");
}
