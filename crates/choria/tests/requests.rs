//! Client commands against a real broker and real members: output, statuses, filters, chaining.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use choria_testkit::{Lab, wait_until};
use common::{Daemon, Fleet, PATIENCE, choria_in, stderr, stdout, text};
use serde_json::Value;

/// A service that nobody hosts.
const GHOST: &str = r#"{
  "$schema": "https://choria.io/schemas/mcorpc/ddl/v1/agent.json",
  "metadata": {"name": "ghost", "description": "nobody", "author": "nobody", "license": "Apache-2.0", "version": "1.0.0",
               "url": "https://example.net", "timeout": 2, "service": true},
  "actions": [{"action": "haunt", "description": "answers never", "display": "always",
               "input": {"times": {"prompt": "Times", "description": "how often", "type": "integer", "optional": true}},
               "output": {}}]
}"#;

/// Three members. The first two let the tester do things, the third lets nobody.
struct Members {
    fleet: Fleet,
    _daemons: Vec<Daemon>,
}

const ALLOWED: [&str; 2] = ["a.example.net", "b.example.net"];
const STRICT: &str = "c.example.net";

impl Members {
    fn start() -> Self {
        let fleet = Fleet::new();
        let mut daemons = vec![fleet.broker()];
        for (index, identity) in ALLOWED.iter().chain([&STRICT]).enumerate() {
            let directory = fleet.lab.node_config(identity).parent().unwrap().to_owned();
            fs::create_dir_all(directory.join("policies")).unwrap();
            fs::write(directory.join("facts.json"), format!("{{\"number\": {index}, \"country\": \"mt\"}}")).unwrap();
            if *identity != STRICT {
                let policy = "policy default deny\nallow\tchoria=tester.mcollective\t*\t*\t*\n";
                fs::write(directory.join("policies/rpcutil.policy"), policy).unwrap();
            }
            let extra = format!("plugin.yaml = {}\n", directory.join("facts.json").display());
            let config = fleet.lab.member_node_config(identity, fleet.port, &extra);
            daemons.push(fleet.daemon(identity, &["server", "run", "--config", text(&config)]));
        }
        fleet.wait_for_members(&[ALLOWED[0], ALLOWED[1], STRICT]);
        let agents = fleet.path().join("lib/choria/agent");
        fs::create_dir_all(&agents).unwrap();
        fs::write(agents.join("ghost.json"), GHOST).unwrap();
        fleet.lab.client_config(fleet.port, &format!("libdir = {}\n", fleet.path().join("lib").display()));
        Self { fleet, _daemons: daemons }
    }

    /// A client command.
    fn run(&self, arguments: &[&str]) -> Output {
        let config = self.fleet.path().join("client.conf");
        self.fleet.client(&[arguments, &["--config", text(&config)]].concat())
    }

    /// A client command that must end with this status; what it wrote to stdout.
    fn expect(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
        stdout(&output)
    }

    /// The same with text on stdin.
    fn pipe(&self, input: &str, arguments: &[&str]) -> Output {
        let config = self.fleet.path().join("client.conf");
        let (name, value) = Lab::client_environment();
        let mut child = choria_in(self.fleet.path(), &[arguments, &["--config", text(&config)]].concat())
            .env(name, value)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn the_fleet_answers() {
    let members = Members::start();
    pings(&members);
    finds(&members);
    requests(&members);
    refuses(&members);
    chains(&members);
}

fn pings(members: &Members) {
    let all = [ALLOWED[0], ALLOWED[1], STRICT];
    assert_eq!(sorted(&members.expect(0, &["ping", "--names", "--expect", "3"])), all);
    let shown = members.expect(0, &["ping", "--expect", "3"]);
    assert!(shown.contains("\n\n\n---- ping statistics ----\n3 replies max: "), "{shown}");
    assert!(shown.contains("a.example.net                            time="), "{shown}");
    let document: Value = serde_json::from_str(&members.expect(0, &["ping", "--json", "--expect", "3"])).unwrap();
    assert_eq!(document["statistics"]["replies"], 3);
    assert_eq!(members.expect(0, &["ping", "--names", "--silent", "--expect", "3"]), "");
    assert!(members.expect(0, &["ping", "--expect", "3", "--graph"]).contains("Responses per 50ms"));
    // Fewer than expected, and nobody at all.
    members.expect(2, &["ping", "--names", "--expect", "4", "--timeout", "1"]);
    let nobody = members.run(&["ping", "--timeout", "1", "-I", "nobody.example.net"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("no responses received"), "{}", stderr(&nobody));
    let unknown = members.run(&["ping", "-T", "nowhere"]);
    assert!(stderr(&unknown).contains("cannot set collective to 'nowhere'"), "{}", stderr(&unknown));
}

fn finds(members: &Members) {
    let find = |arguments: &[&str]| {
        members.expect(0, &[&["discover", "--discovery-window", "--discovery-timeout", "5"], arguments].concat())
    };
    assert_eq!(find(&["-F", "number=1"]).trim(), ALLOWED[1]);
    assert_eq!(find(&["-S", "fact('number') == 2"]).trim(), STRICT);
    assert_eq!(sorted(&find(&["-I", "/^[ab]/"])), ALLOWED);
    assert_eq!(find(&["-I", "typo.example.net"]).trim(), "typo.example.net", "names are believed");
    let list: Vec<String> = serde_json::from_str(&find(&["-F", "country=mt", "--json"])).unwrap();
    assert_eq!(list.len(), 3);
    assert_eq!(members.expect(1, &["find", "--discovery-timeout", "1", "-F", "country=xx", "-j"]).trim(), "[]");
}

fn requests(members: &Members) {
    let (one, two) = (ALLOWED[0], ALLOWED[1]);
    let shown = members.expect(0, &["req", "rpcutil", "ping", "-I", one, "-I", two, "--display", "all", "--sort"]);
    assert!(shown.starts_with("a.example.net"), "{shown}");
    assert!(shown.contains("Finished processing 2 / 2 hosts in "), "{shown}");

    // One of three refuses: the request worked in part.
    let shown =
        members.expect(2, &["rpc", "rpcutil", "ping", "-I", one, "-I", two, "-I", STRICT, "--display", "failed"]);
    assert!(shown.contains("Request Aborted") && shown.contains("not authorized"), "{shown}");
    assert!(!shown.contains(one), "replies that worked were not asked for: {shown}");
    members.expect(0, &["req", "rpcutil", "ping", "-I", one, "-I", STRICT, "--exit-zero"]);

    // Nobody answers.
    let silent = ["req", "rpcutil", "ping", "-I", "nobody.example.net", "--timeout", "1"];
    let shown = members.expect(3, &silent);
    assert!(shown.contains("No Responses from: 1") && shown.contains("nobody.example.net"), "{shown}");

    let document: Value =
        serde_json::from_str(&members.expect(0, &["req", "rpcutil", "get_fact", "fact=number", "-I", two, "-j"]))
            .unwrap();
    assert_eq!(document["replies"][0]["data"]["value"], 1, "{document}");
    assert_eq!(document["request_stats"]["ok"], 1);
    let lines = members.expect(0, &["req", "rpcutil", "ping", "-I", one, "--jsonl"]);
    let kinds: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["k"].clone()).collect();
    assert_eq!(kinds, ["discovery", "discovery", "result", "summaries", "stats"]);
    assert_eq!(members.expect(0, &["req", "rpcutil", "ping", "-I", one, "--senders"]).trim(), one);
    let table = members.expect(0, &["req", "rpcutil", "get_fact", "fact=number", "-I", two, "--table"]);
    assert!(table.starts_with('╭') && table.contains(two), "{table}");
    let file = members.fleet.path().join("out.json");
    assert_eq!(members.expect(0, &["req", "rpcutil", "ping", "-I", one, "-j", "-o", text(&file)]), "");
    assert!(serde_json::from_str::<Value>(&fs::read_to_string(file).unwrap()).is_ok());
    let kept = ["req", "rpcutil", "get_fact", "fact=number", "-I", one, "-I", two, "--senders", "--filter-replies"];
    assert_eq!(members.expect(0, &[&kept[..], &["data('value') == 1"]].concat()).trim(), two);

    // Limits and batches.
    let limited = ["req", "rpcutil", "ping", "-I", one, "-I", two, "--senders", "--limit"];
    assert_eq!(members.expect(0, &[&limited[..], &["1"]].concat()).trim(), one);
    assert_eq!(sorted(&members.expect(0, &[&limited[..], &["200%"]].concat())), ALLOWED);
    assert_eq!(sorted(&members.expect(0, &[&limited[..], &["", "--batch", "1"]].concat())), ALLOWED);

    let id = members.expect(0, &["req", "rpcutil", "ping", "-I", one, "--reply-to", "choria.adapter.elk", "--nr"]);
    assert_eq!(id.trim().len(), 32, "{id}");
}

/// A service is asked, nobody in particular, and nobody answers: a status of its own (the original says 0 of 0, status 0).
#[test]
fn a_service_that_nobody_hosts_has_its_own_status() {
    let members = Members::start();
    let shown = members.expect(4, &["req", "ghost", "haunt", "times=1", "--timeout", "1"]);
    assert!(shown.contains("Finished processing 0 / 0 hosts"), "{shown}");
    let filtered = members.run(&["req", "ghost", "haunt", "-F", "country=mt"]);
    assert!(stderr(&filtered).contains("service requests do not support filters"), "{}", stderr(&filtered));
    let typed = members.run(&["req", "ghost", "haunt", "times=1.5"]);
    let wanted = "invalid input: invalid value for 'times': '1.5' is not a valid integer";
    assert!(stderr(&typed).contains(wanted), "{}", stderr(&typed));
}

/// What can be told before sending is told before sending.
fn refuses(members: &Members) {
    for (arguments, wanted) in [
        (&["req", "rpcutil", "get_fact"][..], "invalid input: input 'fact' is required"),
        (&["req", "rpcutil", "ping", "x=1"], "invalid input: input 'x' has not been declared"),
        (&["req", "rpcutil", "nosuch"], "unknown action rpcutil#nosuch"),
        (&["req", "nosuch", "ping"], "could not resolve nosuch DDL in any resolver"),
        (&["req", "rpcutil", "ping", "--filter-replies", "bad(("], "reply filter"),
        (&["req", "rpcutil", "ping", "-F", "bad"], "could not parse fact bad"),
        (&["req", "rpcutil", "ping", "--limit", "abc"], "could not parse limit as either number or percent"),
        (&["req", "rpcutil", "ping", "-I", "a.example.net", "--limit", "0"], "no targets left"),
        (&["req", "rpcutil", "ping", "--discovery-timeout", "1", "-F", "country=xx"], "did not discover any nodes"),
        (&["req", "rpcutil", "ping", "noseparator"], "expected KEY=VALUE got 'noseparator'"),
    ] {
        let output = members.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert!(stderr(&output).contains(wanted), "{arguments:?}: {}", stderr(&output));
    }
    // Scripts that read lines are told in a line, and by the status.
    let output = members.run(&["req", "rpcutil", "nosuch", "--jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    let line: Value = serde_json::from_str(stdout(&output).trim()).unwrap();
    assert_eq!(line["k"], "error");
}

/// The result of one request chooses the nodes of the next (spec 05 §4 rule 3).
fn chains(members: &Members) {
    let first = members.expect(0, &["req", "rpcutil", "ping", "-I", ALLOWED[1], "--json"]);
    let second = members.pipe(&first, &["req", "rpcutil", "ping", "--senders"]);
    assert_eq!((second.status.code(), stdout(&second).trim()), (Some(0), ALLOWED[1]), "{}", stderr(&second));
    // Other text on stdin is none of our business, and --dm says that it is not to be looked at.
    for (input, arguments) in [("hello", &[][..]), ("", &[]), (first.as_str(), &["--dm", "mc"])] {
        let chosen = [&["req", "rpcutil", "ping", "--senders", "-I", ALLOWED[0]], arguments].concat();
        let output = members.pipe(input, &chosen);
        assert_eq!(stdout(&output).trim(), ALLOWED[0], "{input:?}: {}", stderr(&output));
    }
    let empty = members.pipe("{\"x\":1}", &["req", "rpcutil", "ping", "-I", ALLOWED[0]]);
    assert!(stderr(&empty).contains("did not discover any nodes"), "{}", stderr(&empty));
    let list = members.pipe("# mine\na.example.net\n", &["req", "rpcutil", "ping", "--senders", "--nodes", "-"]);
    assert_eq!(stdout(&list).trim(), ALLOWED[0], "{}", stderr(&list));
}

#[test]
fn events_are_shown_as_they_happen() {
    let fleet = Fleet::new();
    let _broker = fleet.broker();
    let client = fleet.lab.client_config(fleet.port, "");
    let (name, value) = Lab::client_environment();
    let watch = |log: &str, arguments: &[&str]| {
        let mut command = choria_in(fleet.path(), &[&["tool", "--config", text(&client), "event"], arguments].concat());
        command.env(name, value);
        let mut watcher = Daemon::start(log, command, fleet.path());
        watcher.wait_for("Waiting for events from topic choria.lifecycle.event");
        watcher
    };
    let mut people = watch("people", &[]);
    let mut scripts = watch("scripts", &["--json", "--component", "server", "--type", "startup"]);
    let config = fleet.lab.member_node_config("n1.example.net", fleet.port, "");
    let mut node = fleet.daemon("n1", &["server", "run", "--config", text(&config)]);
    people.wait_for("[startup] n1.example.net: server version ");
    scripts.wait_for("io.choria.lifecycle.v1.startup");
    node.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(node.wait(), Some(0));
    people.wait_for("[shutdown] n1.example.net: server");
    assert!(!scripts.output().contains("shutdown"), "only startups were asked for: {}", scripts.output());
    people.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(people.wait(), Some(0));
}

/// An interrupt shows what arrived; a second one is not needed.
#[test]
fn an_interrupted_ping_still_prints_its_statistics() {
    let fleet = Fleet::new();
    let _broker = fleet.broker();
    let config = fleet.lab.member_node_config("n1.example.net", fleet.port, "");
    let _node = fleet.daemon("n1", &["server", "run", "--config", text(&config)]);
    fleet.wait_for_members(&["n1.example.net"]);
    let client = fleet.path().join("client.conf");
    let (name, value) = Lab::client_environment();
    let mut command = choria_in(fleet.path(), &["ping", "--config", text(&client), "--timeout", "600"]);
    command.env(name, value);
    let mut ping = Daemon::start("ping", command, fleet.path());
    ping.wait_for("n1.example.net");
    ping.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(ping.wait(), Some(0));
    wait_until(PATIENCE, "the statistics are there", || ping.output().contains("1 replies max:"));
}
