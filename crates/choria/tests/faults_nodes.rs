//! Nodes that hold the provisioning token and misbehave: each costs itself, never its neighbours.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/raw_node.rs"]
mod raw_node;

use std::collections::BTreeMap;
use std::time::Duration;

use choria_testkit::wait_until;
use common::{Daemon, Fleet, PATIENCE, free_port, metric, text};
use raw_node::{Manner, RawNode, now};
use serde_json::json;

/// One try of `inventory` waits for 4 s, the next follows after 1.1 s at most; this is after both.
const TOO_LATE: Duration = Duration::from_millis(5600);

/// What nodes may send that is no reply.
fn garbage() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "",
        "hello",
        "{}",
        "null",
        "[]",
        "{\"protocol\":\"choria:transport:1\",\"data\":\"\",\"headers\":null}",
        "{\"protocol\":\"choria:transport:1\",\"data\":null,\"headers\":{\"mc_sender\":5}}",
        "{\"protocol\":\"choria:transport:1\",\"data\":\"!!!\",\"headers\":{}}",
        "-----BEGIN CERTIFICATE REQUEST-----",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    all.push(vec![0xff; 1000]);
    all.push(b"[".repeat(100_000));
    all.push("{\"a\":".repeat(100_000).into_bytes());
    all.push(vec![b'x'; 1_000_000]);
    all
}

struct World {
    // Daemons first: they end, and show what they said, before their files go.
    broker: Daemon,
    provisioner: Daemon,
    fleet: Fleet,
    monitor: u16,
}

impl World {
    fn start(before: &str) -> Self {
        let (fleet, monitor) = (Fleet::new(), free_port());
        fleet.lab.provisioning_token(fleet.port);
        let broker = fleet.broker();
        let extra = format!("monitor_port: {monitor}\nmonitor_address: 127.0.0.1\n");
        let mut provisioner = fleet.provisioner_with(before, &extra);
        provisioner.wait_for("connected to");
        Self { broker, provisioner, fleet, monitor }
    }

    /// A misbehaving node, announced.
    async fn node(&self, identity: &str, manner: Manner) -> RawNode {
        let token = self.fleet.path().join("provisioning.jwt");
        let node = RawNode::start(&self.fleet, identity, &token, manner).await;
        node.announce().await;
        node
    }

    fn refused(&self, reason: &str) -> u64 {
        metric(self.monitor, "choria_provisioner_refused", &format!("reason=\"{reason}\""))
    }

    fn wait(&self, what: &str, condition: impl FnMut() -> bool) {
        tokio::task::block_in_place(|| wait_until(PATIENCE, what, condition));
    }

    /// Honest nodes are provisioned, the daemons live.
    fn honest_nodes_become_members(&mut self) {
        let names: Vec<String> = (0..3).map(|number| format!("honest{number}.example.net")).collect();
        let nodes: Vec<Daemon> = names.iter().map(|name| self.fleet.node(name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        tokio::task::block_in_place(|| self.fleet.wait_for_members(&names));
        drop(nodes);
        self.broker.assert_alive();
        self.provisioner.assert_alive();
    }

    /// How often the helper was asked about each node.
    fn helped(&self) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for name in self.fleet.helped() {
            *calls.entry(name).or_default() += 1;
        }
        calls
    }

    fn provisioned(&self) -> u64 {
        metric(self.monitor, "choria_provisioner_provisioned", "")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_costs_only_the_node_that_sends_it() {
    let mut world = World::start("");
    let mut nodes = Vec::new();
    for (number, bytes) in garbage().into_iter().enumerate() {
        for action in ["jwt", "inventory", "gencsr"] {
            let bytes = bytes.clone();
            let manner: Manner =
                Box::new(move |asked, honest| now(if asked.action == action { bytes.clone() } else { honest }));
            nodes.push(world.node(&format!("{action}{number}.example.net"), manner).await);
        }
    }
    world.honest_nodes_become_members();
    let count = nodes.len() as u64;
    world.wait("each was refused at least once", || world.refused("reply_undecodable") >= count);
    assert_eq!(world.helped().len(), 3, "{:?}", world.helped());
    assert_eq!(world.provisioned(), 3);
    assert!(nodes.iter().all(|node| node.asked("configure") == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn late_and_second_answers_do_no_harm() {
    let mut world = World::start("");
    // Its first answer comes when the next try is under way.
    let late: Manner = Box::new(|asked, honest| {
        let is_late = asked.action == "inventory" && asked.times == 1;
        vec![(if is_late { TOO_LATE } else { Duration::ZERO }, honest)]
    });
    let twice: Manner = Box::new(|_, honest| vec![(Duration::ZERO, honest.clone()), (Duration::ZERO, honest)]);
    // Says something else the second time: the first counts.
    let torn: Manner = Box::new(|asked, honest| {
        let other = asked.reply(json!({"jwt": "x", "csr": "x", "version": "x", "message": 5}));
        vec![(Duration::ZERO, honest), (Duration::from_millis(20), other)]
    });
    let nodes = [
        world.node("late.example.net", late).await,
        world.node("twice.example.net", twice).await,
        world.node("torn.example.net", torn).await,
    ];
    world.honest_nodes_become_members();
    world.wait("all are provisioned", || world.provisioned() == 6);
    for node in &nodes {
        assert_eq!((node.asked("configure"), node.asked("restart")), (1, 1), "{}", node.identity);
    }
    assert_eq!(nodes[0].asked("inventory"), 2);
    assert!(world.helped().values().all(|calls| *calls == 1), "{:?}", world.helped());
    world.wait("the late answer was counted", || world.refused("reply_late") == 1);
    // Five calls each; what comes after `restart` was answered is counted, too.
    world.wait("second answers were counted", || world.refused("reply_second") == 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_are_taken_within_bounds_and_refused_beyond() {
    let mut world = World::start("");
    // Within bounds: half a megabyte of facts is nearly a megabyte on the wire.
    let large: Manner = Box::new(|asked, honest| match asked.action.as_str() {
        "inventory" => now(asked.reply(json!({"version": "1", "facts": {"a": "x".repeat(500_000)}}))),
        _ => now(honest),
    });
    let huge_text: Manner = Box::new(|asked, honest| match asked.action.as_str() {
        "gencsr" => now(asked.reply(json!({"csr": "x".repeat(500_000)}))),
        _ => now(honest),
    });
    let nodes = [world.node("large.example.net", large).await, world.node("hugetext.example.net", huge_text).await];
    world.honest_nodes_become_members();
    world.wait("the large one is provisioned", || world.provisioned() == 4);
    assert_eq!(nodes[0].asked("configure"), 1);
    let log = || std::fs::read_to_string(world.fleet.path().join("provisioner.log")).unwrap();
    world.wait("the long request is told apart", || log().contains("field csr has 500000 bytes"));
    assert_eq!(world.helped().len(), 4, "{:?}", world.helped());
    assert_eq!(nodes[1].asked("configure"), 0);
}

/// The second host is refused for as long as the first one lives, also when that is a member of the fleet; the first is
/// provisioned as if it were alone. Once it is gone, its name is free.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_host_of_one_name_changes_nothing_for_the_first() {
    const NAME: &str = "twin.example.net";
    let mut world = World::start("time.sleep(1)");
    let mut first = world.fleet.node(NAME);
    first.wait_for("connected to");
    let directory = world.fleet.path().join("second");
    std::fs::create_dir(&directory).unwrap();
    let config = directory.join("server.conf");
    let blank = format!("identity = {NAME}\n");
    std::fs::write(&config, &blank).unwrap();
    let token = world.fleet.path().join("provisioning.jwt");
    let arguments = ["server", "run", "--config", text(&config), "--provisioning-jwt", text(&token)];
    let mut second = world.fleet.daemon("second", &arguments);
    second.wait_for("Authorization Violation");
    tokio::task::block_in_place(|| world.fleet.wait_for_members(&[NAME]));
    let refusals = |broker: &Daemon| broker.output().matches("claim_held").count();
    let before = refusals(&world.broker);
    assert!(before > 0);
    world.wait("the second is refused by the member", || refusals(&world.broker) > before);
    first.assert_alive();
    second.assert_alive();
    assert_eq!(world.provisioned(), 1);
    assert_eq!(std::fs::read_to_string(&config).unwrap(), blank, "the second stays as it was");
    first.kill_hard();
    tokio::task::block_in_place(|| world.fleet.wait_for_members(&[NAME]));
    assert_ne!(std::fs::read_to_string(&config).unwrap(), blank);
    drop(second);
    world.honest_nodes_become_members();
}
