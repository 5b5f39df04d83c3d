//! Emulated nodes and the benchmarks, with the real program: the shape of their documents, and that their nodes are real.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use choria_testkit::wait_until;
use common::{Daemon, Fleet, PATIENCE, choria, choria_in, run, stderr, stdout, text};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Runs a benchmark and reads its document.
fn document(arguments: &[&str]) -> Value {
    let output = choria(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}\n{}\n{}", stdout(&output), stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap_or_else(|error| panic!("{error}: {}", stdout(&output)))
}

/// Fails unless there is a positive number at each of these places.
fn assert_positive(document: &Value, pointers: &[&str]) {
    for pointer in pointers {
        let value = document.pointer(pointer).and_then(Value::as_f64);
        assert!(value.is_some_and(|value| value > 0.0), "{pointer} is {value:?} in {document:#}");
    }
}

#[test]
fn blank_nodes_become_members_and_are_measured() {
    let document = document(&["bench", "provisioning", "--nodes", "20", "--json"]);
    assert_eq!((&document["nodes"], &document["lost"], &document["duplicated"]), (&20.into(), &0.into(), &0.into()));
    assert_eq!((&document["key"], &document["helper"]), (&"p256".into(), &"builtin".into()));
    assert_eq!(document["provisioner"]["provisioned"], 20.0);
    assert_eq!(document["disconnects"], 0);
    assert_positive(
        &document,
        &[
            "/cores",
            "/seconds",
            "/rate_per_s",
            "/latency_ms/p50",
            "/latency_ms/p95",
            "/latency_ms/p99",
            "/peak_rss_bytes/broker",
            "/peak_rss_bytes/provisioner",
            "/peak_rss_bytes/nodes",
            "/phases/gather/p50",
            "/phases/configure/p99",
            "/phases/node_connect/p95",
            "/phases/node_rejoin/p50",
        ],
    );
    // The kernel counts processor time in hundredths of a second, which few nodes need not take.
    for part in ["broker", "provisioner", "nodes", "helper"] {
        assert!(document["cpu_seconds"][part].is_f64() && document["cpu_ms_per_node"][part].is_f64(), "{document:#}");
    }
    // Every node waits two seconds between its configuration and its restart; the rate does not count them.
    assert!(document["latency_ms"]["p50"].as_f64().unwrap() > 2000.0, "{document:#}");
    assert!(document["rate_per_s"].as_f64() > document["rate_with_pause_per_s"].as_f64(), "{document:#}");
    assert!(document["left_out"].as_array().unwrap().len() > 2 && document["failures"] == serde_json::json!({}));
}

#[test]
fn people_get_tables() {
    let output = run(&["bench", "provisioning", "--nodes", "3", "--key", "ed25519", "--wait-all-first"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    for wanted in ["3 nodes, ed25519 keys, builtin helper", "nodes/s", "CPU ms per node", "node_rejoin", "lost 0"] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert!(stderr(&output).contains("of 3 members"), "{}", stderr(&output));
}

#[test]
fn every_kind_of_helper_can_be_measured() {
    for helper in ["persistent", "exec"] {
        let document = document(&["bench", "provisioning", "--nodes", "4", "--helper", helper, "--json"]);
        assert_eq!((&document["lost"], &document["duplicated"]), (&0.into(), &0.into()), "{helper}");
        assert_eq!(document["helper"], *helper);
        assert_positive(&document, &["/phases/helper_wait/p50"]);
    }
}

/// The example helper in Python, with what signs on this machine.
#[test]
fn the_example_helper_serves_both_modes() {
    let example: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/helpers/helper.py");
    let python = |signer: &str| format!("python3 {} --signer {signer}", text(&example));
    let ca = tempfile::tempdir().unwrap();
    let made = run(&["ca", "init", text(&ca.path().join("ca"))]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    for (signer, mode) in [("cryptography", "persistent"), ("openssl", "exec")] {
        let probe = Command::new("python3")
            .args([text(&example), "--signer", signer, "--broker", "localhost:1", "--ca"])
            .arg(ca.path().join("ca"))
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        if !probe.status.success() {
            let said = stderr(&probe);
            assert!(said.starts_with("helper.py: ") && said.contains(signer) && said.lines().count() == 1, "{said}");
            continue;
        }
        let command = format!("{} --ca {{ca}} --broker {{broker}} --allow choria={{client}}", python(signer));
        let document = document(&[
            "bench",
            "provisioning",
            "--nodes",
            "4",
            "--helper",
            mode,
            "--helper-command",
            &command,
            "--json",
        ]);
        assert_eq!((&document["lost"], &document["duplicated"]), (&0.into(), &0.into()), "{signer}");
    }
}

#[test]
fn nodes_that_do_nothing_are_weighed() {
    for (kind, more) in [("waiting", None), ("members", Some("--members"))] {
        let mut arguments = vec!["bench", "idle", "--nodes", "10", "--settle", "0s", "--hold", "1s", "--json"];
        arguments.extend(more);
        let document = document(&arguments);
        assert_eq!((&document["kind"], &document["lost"], &document["nodes"]), (&kind.into(), &0.into(), &10.into()));
        assert_positive(&document, &["/rss_bytes/broker", "/rss_bytes/provisioner", "/rss_bytes_per_node/nodes"]);
    }
}

#[test]
fn a_whole_fleet_is_pinged_and_measured() {
    let document =
        document(&["bench", "ping", "--nodes", "12", "--rounds", "2", "--settle", "0s", "--key", "ed25519", "--json"]);
    assert_eq!((&document["lost"], &document["nodes"]), (&0.into(), &12.into()), "{document:#}");
    assert_eq!((&document["rounds"][0]["replies"], &document["rounds"][1]["replies"]), (&12.into(), &12.into()));
    assert_positive(
        &document,
        &["/all_answered_seconds", "/rounds/1/process_seconds", "/connect_seconds", "/rss_bytes/broker"],
    );
}

#[test]
fn a_benchmark_that_fails_says_where_its_files_are() {
    let directory = tempfile::tempdir().unwrap();
    let lab = directory.path().join("lab");
    let arguments = ["bench", "provisioning", "--nodes", "2", "--helper", "exec", "--helper-command", "false"];
    let more = ["--timeout", "2s", "--json", "--dir", text(&lab)];
    let output = choria(&[&arguments[..], &more].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&document["lost"], &document["duplicated"]), (&2.into(), &0.into()), "{document:#}");
    assert!(stderr(&output).contains(text(&lab)), "{}", stderr(&output));
    assert!(lab.join("provisioner/provisioner.log").is_file());
}

/// Emulated nodes against the program's own broker and provisioner, each of them asked like any other.
#[test]
fn emulated_nodes_are_provisioned_and_answer() {
    let fleet = Fleet::new();
    let _broker = fleet.broker();
    let _provisioner = fleet.provisioner("");
    let token = fleet.lab.provisioning_token(fleet.port);
    let arguments = ["emulate", "--nodes", "5", "--names", "e{}.example.net", "--dir", "emulated"];
    let more = ["--provisioning-jwt", text(&token), "--json", "--samples", "--follow"];
    let mut nodes = fleet.daemon("nodes", &[&arguments[..], &more].concat());
    nodes.wait_for("\"members\":5");
    fleet.wait_for_members(&["e1.example.net", "e2.example.net", "e3.example.net", "e4.example.net", "e5.example.net"]);
    nodes.signal(Signal::SIGINT);
    assert_eq!(nodes.wait(), Some(0), "{}", nodes.output());
    let output = nodes.output();
    let report: Value = serde_json::from_str(output.lines().last().unwrap()).unwrap();
    assert_eq!((&report["members"], &report["lost"], &report["duplicated"]), (&5.into(), &0.into(), &0.into()));
    let samples = report["samples"].as_array().unwrap();
    assert!(samples.iter().all(|sample| sample["configurations"] == 1 && sample["is_member"] == true), "{report:#}");
    // Files of its own for each node, as a process would have them.
    for number in 1..=5 {
        let own = fleet.path().join(format!("emulated/e{number}.example.net"));
        assert!(fs::read_to_string(own.join("server.conf")).unwrap().contains("server.provision=false"), "{number}");
        assert!(own.join("ssl/private.pem").is_file() && own.join("ssl/certificate.pem").is_file(), "{number}");
    }

    // They go on where they stopped, as members.
    let once = choria_in(fleet.path(), &[&arguments[..], &more[..3], &["--once"]].concat()).output().unwrap();
    assert_eq!(once.status.code(), Some(0), "{}", stderr(&once));
    let report: Value = serde_json::from_str(&stdout(&once)).unwrap();
    assert_eq!((&report["members"], &report["configured"]), (&5.into(), &0.into()));
}

#[test]
fn nodes_may_come_as_members() {
    let fleet = Fleet::new();
    let _broker = fleet.broker();
    let (ca, broker) = (fleet.lab.ca().authority_directory(), format!("localhost:{}", fleet.port));
    let arguments =
        ["emulate", "--nodes", "3", "--dir", "members", "--members", "--ca", text(&ca), "--broker", &broker];
    let mut nodes = fleet.daemon("nodes", &[&arguments[..], &["--names", "m{}.example.net"]].concat());
    fleet.wait_for_members(&["m1.example.net", "m2.example.net", "m3.example.net"]);
    nodes.signal(Signal::SIGTERM);
    assert_eq!(nodes.wait(), Some(0), "{}", nodes.output());
    assert!(nodes.output().contains("3 nodes: 3 members"), "{}", nodes.output());
}

#[test]
fn nodes_that_reach_nothing_are_lost() {
    let fleet = Fleet::new();
    let token = fleet.lab.provisioning_token(fleet.port);
    let arguments = ["emulate", "--nodes", "2", "--dir", "lost", "--provisioning-jwt", text(&token), "--once"];
    let output = choria_in(fleet.path(), &[&arguments[..], &["--timeout", "1s", "--json"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&report["started"], &report["lost"]), (&2.into(), &2.into()));
}

#[test]
fn impossible_emulations_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (token, dir) = (directory.path().join("token.jwt"), directory.path().join("nodes"));
    let missing = run(&["emulate", "--dir", text(&dir), "--provisioning-jwt", text(&token)]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("choria jwt provisioning"), "{}", stderr(&missing));
    fs::write(&token, "x").unwrap();
    for (names, reason) in [("same.example.net", "the same name"), ("a b{}", "cannot be an identity")] {
        let output = run(&["emulate", "--dir", text(&dir), "--provisioning-jwt", text(&token), "--names", names]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
    let many = ["emulate", "--dir", text(&dir), "--provisioning-jwt", text(&token), "--nodes", "1000000"];
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 1000 && exec \"$0\" \"$@\"", common::program()])
        .args(many)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("ulimit -Hn"), "{}", stderr(&output));
}

/// However a benchmark ends, its processes end with it.
#[test]
fn nothing_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let lab = directory.path().join("lab");
    let command = choria(&["bench", "idle", "--nodes", "3", "--hold", "10m", "--dir", text(&lab)]);
    let mut bench = Daemon::start("bench", command, directory.path());
    bench.wait_for("3 waiting");
    bench.signal(Signal::SIGKILL);
    assert_eq!(bench.wait(), None);
    let lives =
        |entry: &fs::DirEntry| fs::read_link(entry.path().join("cwd")).is_ok_and(|working| working.starts_with(&lab));
    wait_until(PATIENCE, "no process of the lab is left", || {
        !fs::read_dir("/proc").unwrap().flatten().any(|entry| lives(&entry))
    });
}

/// Every load on a broker of a fleet, in its TLS; they speak no more than NATS, so any server can be loaded.
#[test]
fn nats_servers_are_loaded_and_measured() {
    let fleet = Fleet::new();
    let broker = fleet.broker();
    let identity = fleet.lab.ca().client("tester.mcollective");
    let (server, pid) = (format!("tls://localhost:{}", fleet.port), broker.pid().to_string());
    let way_in = [
        "--json",
        "--server",
        &server,
        "--pid",
        &pid,
        "--ca",
        text(&identity.ca),
        "--cert",
        text(&identity.certificate),
        "--key",
        text(&identity.key),
    ];
    let loads: [(&[&str], u64); 5] = [
        (&["bench", "pubsub", "--messages", "2000", "--subjects", "50", "--subscribe-each"], 2000),
        (&["bench", "fanout", "--subscribers", "5", "--messages", "300"], 1500),
        (&["bench", "reply-storm", "--publishers", "10", "--messages", "1000"], 1000),
        (&["bench", "request", "--pairs", "2", "--requests", "40"], 80),
        (&["bench", "connections", "--connections", "20", "--hold", "10ms"], 20),
    ];
    for (load, messages) in loads {
        let document = document(&[load, &way_in].concat());
        assert_eq!(document["messages"], messages, "{document:#}");
        assert_eq!((&document["load"], &document["tls"]), (&load[1].into(), &true.into()));
        assert_positive(
            &document,
            &[
                "/seconds",
                "/messages_per_s",
                "/latency_us/p50",
                "/latency_us/p99",
                "/latency_us/p999",
                "/server_rss_bytes",
            ],
        );
        assert!(document["server_cpu_seconds"].is_f64() && document["bytes_per_s"].is_f64(), "{document:#}");
    }
}

#[test]
fn a_server_that_cannot_be_loaded_is_named() {
    let output = run(&["bench", "pubsub", "--server", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("load on 127.0.0.1:1: no connection to 127.0.0.1:1"), "{said}");
    assert!(said.contains("hint: name the server with --server URL"), "{said}");
    let output = run(&["bench", "request", "--pid", "4000000"]);
    assert!(stderr(&output).contains("there is no process 4000000 to measure"), "{}", stderr(&output));
}
