//! `choria tool sub` and `choria tool pub`, also as `choria broker sub|pub`, over a real broker.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use choria_testkit::{Lab, wait_until};
use common::{Daemon, Fleet, PATIENCE, choria_in, stderr, stdout, text};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A broker and a client that may use it.
struct Network {
    fleet: Fleet,
    config: String,
    _broker: Daemon,
}

impl Network {
    fn new(extra: &str) -> Self {
        let fleet = Fleet::new();
        let broker_config = fleet.lab.broker_config(fleet.port, 0, extra);
        let mut broker = fleet.daemon("broker", &["broker", "run", "--config", text(&broker_config)]);
        broker.wait_for("broker started");
        let config = text(&fleet.lab.client_config(fleet.port, "")).to_owned();
        // Only what the commands say by themselves is of interest.
        let quiet = std::fs::read_to_string(&config).unwrap().replace("loglevel = info", "loglevel = warn");
        std::fs::write(&config, quiet).unwrap();
        Self { fleet, config, _broker: broker }
    }

    /// A command of `choria tool`.
    fn tool(&self, arguments: &[&str]) -> Command {
        self.command(&[&["tool", "--config", &self.config], arguments].concat())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let (name, value) = Lab::client_environment();
        let mut command = choria_in(self.fleet.path(), arguments);
        command.env(name, value);
        command
    }

    fn publish(&self, topic: &str, input: &[u8]) -> Output {
        with_input(self.tool(&["pub", topic]), input)
    }

    /// Starts a listener that ends by itself, and publishes until it has.
    fn heard(&self, mut listener: Command, messages: &[(&str, &[u8])]) -> Output {
        let child = listener.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut child = Some(child);
        wait_until(PATIENCE, "the listener has heard enough", || {
            for (topic, body) in messages {
                assert_eq!(self.publish(topic, body).status.code(), Some(0));
            }
            ended(child.as_mut().unwrap())
        });
        child.take().unwrap().wait_with_output().unwrap()
    }
}

fn ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

/// Runs a command with this on its stdin.
fn with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Spec 05 §7.4: header, a heading with the time per message, body, blank line.
#[test]
fn messages_are_shown_in_the_documented_form() {
    let network = Network::new("");
    let server = format!("nats://localhost:{}", network.fleet.port);
    let published = network.publish("lab.a", b"hello");
    assert_eq!(stdout(&published), format!("Published 5 bytes to lab.a on {server}\n"));

    let heard = network.heard(network.tool(&["sub", "lab.*", "--count", "2"]), &[("lab.a", b"one\ntwo")]);
    assert_eq!(heard.status.code(), Some(0), "{}", stderr(&heard));
    assert_eq!(stderr(&heard), format!("Waiting for messages from topic lab.* on {server}\n"));
    let shown = stdout(&heard);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 8, "{shown}");
    let (heading, time) = lines[0].split_once("---- ").unwrap();
    assert!(heading.is_empty() && time.ends_with(" on topic lab.a") && time.split(':').count() == 3, "{shown}");
    assert_eq!(lines[1..4], ["one", "two", ""]);

    // The subject is told only when it is another than was asked for.
    let heard = network.heard(network.tool(&["sub", "lab.a", "--count", "1"]), &[("lab.a", b"x")]);
    assert!(!stdout(&heard).contains("on topic"), "{}", stdout(&heard));
}

#[test]
fn bodies_arrive_as_they_are() {
    let network = Network::new("");
    let bytes = b"\x1b[31m\xff\x00\xfe";
    let raw = network.heard(network.tool(&["sub", "lab.raw", "--raw", "--count", "1"]), &[("lab.raw", bytes)]);
    assert_eq!((raw.stdout.as_slice(), stderr(&raw).as_str()), (&[&bytes[..], b"\n"].concat()[..], ""));
    let text = network.heard(network.tool(&["sub", "lab.raw", "--count", "1"]), &[("lab.raw", bytes)]);
    assert!(stdout(&text).contains("\\u{1b}[31m\\xff\\u{0}\\xfe"), "{}", stdout(&text));

    let listener = network.tool(&["sub", "lab.>", "--json", "--count", "2"]);
    let json = network.heard(listener, &[("lab.text", b"{\"a\":1}\n"), ("lab.raw", bytes)]);
    let documents: Vec<Value> = stdout(&json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 2);
    for document in documents {
        match document["subject"].as_str().unwrap() {
            "lab.text" => assert_eq!(document["payload"], "{\"a\":1}\n"),
            _ => assert_eq!(document["payload_base64"], "G1szMW3/AP4="),
        }
        assert!(document["time"].as_str().unwrap().ends_with('Z') && document["reply"].is_null(), "{document}");
    }
}

/// Spec 05 §12 row 50: stdin is read without being asked to; an empty message is refused as the seed says.
#[test]
fn a_message_comes_from_where_it_is_put() {
    let network = Network::new("");
    let file = network.fleet.path().join("message");
    std::fs::write(&file, "from a file").unwrap();
    let empty = network.fleet.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let mut listener = Daemon::start("listener", network.tool(&["sub", "lab.in", "--raw"]), network.fleet.path());
    let (name, value) = Lab::client_environment();
    // Until the listener is there, messages are for nobody.
    wait_until(PATIENCE, "the listener listens", || {
        network.publish("lab.in", b"?");
        listener.output().contains('?')
    });
    let run = |arguments: &[&str], input: &[u8]| {
        let mut command = choria_in(network.fleet.path(), arguments);
        command.env(name, value);
        with_input(command, input)
    };
    let config = network.config.as_str();
    let by_body = run(&["broker", "pub", "lab.in", "from the line", "--choria-config", config], b"");
    assert!(stdout(&by_body).starts_with("Published 13 bytes to lab.in on nats://"), "{}", stderr(&by_body));
    let by_file = run(&["tool", "pub", "lab.in", "--input", text(&file), "--config", config, "--json"], b"ignored");
    let document: Value = serde_json::from_str(&stdout(&by_file)).unwrap();
    assert_eq!((&document["subject"], &document["bytes"]), (&"lab.in".into(), &11.into()));
    let by_stdin = run(&["broker", "publish", "lab.in", "--config", config, "--force-stdin"], b"from stdin");
    assert_eq!(by_stdin.status.code(), Some(0), "{}", stderr(&by_stdin));
    listener.wait_for("from stdin");
    listener.signal(Signal::SIGTERM);
    assert_eq!(listener.wait(), Some(0));
    let output = listener.output();
    let heard: Vec<&str> = output.lines().filter(|line| *line != "?").collect();
    assert_eq!(heard, ["from the line", "from a file", "from stdin"]);

    for (arguments, wanted) in [
        (vec!["tool", "pub", "lab.in", "--config", config], "read 0 bytes from input"),
        (vec!["tool", "pub", "lab.in", "--input", text(&empty), "--config", config], "read 0 bytes from input"),
        (vec!["tool", "pub", "lab.in", "--input", "/nowhere/message", "--config", config], "/nowhere/message"),
        (vec!["tool", "pub", "lab.*", "x", "--config", config], "\"lab.*\" is not valid"),
        (vec!["tool", "sub", "lab..x", "--config", config], "\"lab..x\" is not valid"),
    ] {
        let output = run(&arguments, b"");
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()), "{arguments:?}");
        assert!(stderr(&output).contains(wanted), "{arguments:?}: {}", stderr(&output));
    }
}

/// Members of one queue group share the messages.
#[test]
fn a_queue_group_hears_every_message_once() {
    let network = Network::new("");
    let start = |number: u32| {
        let mut command =
            network.command(&["broker", "subscribe", "lab.q", "--queue", "g", "--config", &network.config]);
        command.stdin(Stdio::null());
        let mut listener = Daemon::start(&format!("listener{number}"), command, network.fleet.path());
        listener.wait_for("Waiting for messages from topic lab.q");
        listener
    };
    let mut listeners = [start(1), start(2)];
    for number in 0..6 {
        network.publish("lab.q", format!("<{number}>").as_bytes());
    }
    wait_until(PATIENCE, "all six are heard", || {
        let heard: String = listeners.iter().map(Daemon::output).collect();
        (0..6).all(|number| heard.contains(&format!("<{number}>")))
    });
    for listener in &mut listeners {
        listener.signal(Signal::SIGINT);
        assert_eq!(listener.wait(), Some(0), "an interrupt is a good end");
    }
    let heard: String = listeners.iter().map(Daemon::output).collect();
    assert_eq!(heard.matches("---- ").count(), 6, "{heard}");
}

/// Without the right there is nothing to wait for.
#[test]
fn missing_rights_end_the_command() {
    let network = Network::new("plugin.choria.network.client_hosts = 192.0.2.1\n");
    for (arguments, wanted) in [
        (
            &["sub", "mcollective.reply.>"][..],
            "does not let choria=tester.mcollective subscribe to mcollective.reply.>",
        ),
        (&["pub", "mcollective.node.n1", "x"], "does not let choria=tester.mcollective publish to mcollective.node.n1"),
    ] {
        let output = network.tool(arguments).output().unwrap();
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()), "{arguments:?}");
        let said = stderr(&output);
        assert!(said.contains(wanted) && said.contains("Permissions Violation"), "{said}");
    }
    let nobody = choria_in(Path::new("/"), &["tool", "sub", "a", "--config", "/nowhere.conf"]).output().unwrap();
    assert!(stderr(&nobody).contains("/nowhere.conf"), "{}", stderr(&nobody));
}
