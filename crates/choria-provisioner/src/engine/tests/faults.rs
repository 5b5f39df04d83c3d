//! Hostile, dying and odd nodes, each test named after the fault. What they must not do: delay others, be lost, fill memory.

use choria_protocol::lifecycle::Kind;
use choria_testkit::TokenSigner;
use choria_tokens::ProvisioningRequest;
use serde_json::json;

use super::sim::{Behaviour, FakeNode, Sim, event};
use super::*;
use crate::control::types::Explanation;

fn explain(sim: &Sim, node: &str) -> Explanation {
    match sim.engine.explain(node, Calendar { mono: sim.now.mono, unix_ms: sim.now.unix * 1000 }) {
        Explained::Known(told) => *told,
        Explained::Unknown(names) => panic!("nothing is known of {node}, only of {} others", names.len()),
    }
}

fn advisory(node: &str, reason: &str) -> String {
    json!({"type": "io.nats.server.advisory.v1.client_disconnect", "client": {"name": node}, "reason": reason})
        .to_string()
}

impl Sim {
    /// The broker tells that a node's connection ended.
    fn disconnect(&mut self, node: &str) {
        self.engine.connection_ended(advisory(node, "Client Closed").as_bytes(), self.now);
        self.settle();
    }

    /// The node's process is gone.
    fn die(&mut self, node: &str) {
        self.nodes.remove(node);
        self.disconnect(node);
    }

    fn totals(&self) -> crate::control::types::Totals {
        let metrics = &self.metrics;
        crate::control::types::Totals {
            provisioned: metrics.provisioned.get(),
            errors: metrics.provision_errors.get(),
            absent: metrics.absent.get(),
            ..Default::default()
        }
    }
}

#[test]
fn design6_forged_startup_events_delay_nobody() {
    let normal = normal_time("jwt: true, pki: true");
    for forged in [8, 500, 5000] {
        let mut sim = Sim::connected("jwt: true, pki: true");
        for index in 0..forged {
            sim.announce(&format!("forged-{index}"));
        }
        sim.boot("real", FakeNode::good());
        let took = sim.run_until(secs(600), "provisioned", |sim| sim.metrics.provisioned.get() == 1);
        assert!(took <= normal * 2, "{forged} forged: {took:?}, normal is {normal:?}");
    }
}

/// The forger goes on for as long as the node needs.
#[test]
fn a_stream_of_forged_events_delays_nobody() {
    let normal = normal_time("jwt: true, pki: true");
    let mut sim = Sim::connected("jwt: true, pki: true");
    for round in 0..100 {
        for index in 0..20 {
            sim.announce(&format!("forged-{round}-{index}"));
        }
        if round == 20 {
            sim.boot("real", FakeNode::good());
        }
        sim.run(Duration::from_millis(10));
    }
    let told = explain(&sim, "real");
    assert!(told.attempts[0].took_s <= normal.as_secs_f64() * 2.0, "{told:?}");
}

/// Brokers that cannot tell that nobody listens are old; there a forged name costs a moment of one of `max_nodes` places.
#[test]
fn forged_events_over_a_broker_that_tells_nothing_delay_by_moments() {
    let mut sim = Sim::connected("jwt: true, pki: true");
    sim.tells_absent = false;
    // It has learnt how fast nodes answer here.
    for index in 0..200 {
        sim.boot(&format!("n{index}"), FakeNode::good());
    }
    sim.run(secs(5));
    for index in 0..5000 {
        sim.announce(&format!("forged-{index}"));
    }
    sim.boot("real", FakeNode::good());
    let took = sim.run_until(secs(600), "provisioned", |sim| sim.metrics.provisioned.get() == 201);
    assert!(took <= secs(1), "{took:?}");
}

/// They hold a connection each, hear everything and answer nothing.
#[test]
fn connected_nodes_that_never_answer_delay_by_moments() {
    let mut sim = Sim::connected("jwt: true, pki: true");
    for index in 0..200 {
        sim.boot(&format!("n{index}"), FakeNode::good());
    }
    sim.run(secs(5));
    for index in 0..5000 {
        sim.boot(&format!("mute-{index}"), FakeNode::new(|_| Behaviour::Silent));
    }
    sim.boot("real", FakeNode::good());
    let took = sim.run_until(secs(600), "provisioned", |sim| sim.metrics.provisioned.get() == 201);
    assert!(took <= secs(1), "{took:?}");
}

/// Nodes answered at once until now, and are late because so many woke up: all of them are started before the first one
/// answers.
#[test]
fn of_a_wave_that_wakes_at_once_only_so_many_are_worked_on() {
    const WAVE: usize = 3000;
    let mut sim = Sim::connected("jwt: true, pki: true");
    for index in 0..200 {
        sim.boot(&format!("n{index}"), FakeNode::good());
    }
    sim.run(secs(5));
    sim.latency = Duration::from_millis(500);
    for index in 0..WAVE {
        sim.boot(&format!("late-{index}"), FakeNode::good());
    }
    let (mut most, mut turned_back) = (0, false);
    sim.run_until(secs(600), "all are provisioned", |sim| {
        most = most.max(sim.engine.scheduler.counts().engaged);
        sim.metrics.provisioned.get() == 200 + WAVE as u64
    });
    for (name, node) in &sim.nodes {
        assert_eq!((node.configured, node.restarted), (1, 1), "{name}");
        turned_back |= node.asked.iter().filter(|action| **action == Action::Jwt).count() > 1;
    }
    let room = sim.engine.scheduler.limits().max_nodes * 2;
    assert!(turned_back && most <= room, "{most} at a time, there is room for {room}");
}

#[test]
fn an_absent_node_is_asked_three_times_and_then_waits_to_be_seen() {
    let mut sim = Sim::connected("jwt: true");
    sim.announce("absent");
    sim.run(secs(30));
    assert_eq!(sim.sent.iter().filter(|sent| sent.subject.ends_with(".absent")).count(), 3);
    assert_eq!(sim.totals(), crate::control::types::Totals { errors: 1, absent: 1, ..Default::default() });
    let told = explain(&sim, "absent");
    assert_eq!(told.state, "waiting_to_be_seen");
    assert!(told.attempts[0].detail.as_ref().unwrap().contains("nobody listens as absent"), "{told:?}");
    assert!(sim.engine.is_idle() && sim.engine.inbox.len() <= 1);
    sim.boot("absent", FakeNode::good());
    sim.run(secs(2));
    assert_eq!(sim.metrics.provisioned.get(), 1, "and is served when it is there");
}

/// A startup event overtakes the subscription, or the network of a whole rack blinks.
#[test]
fn a_node_that_is_back_within_a_second_is_provisioned_without_being_seen_again() {
    let mut sim = Sim::connected("jwt: true");
    sim.announce("n1");
    sim.run(Duration::from_millis(500));
    sim.nodes.insert("n1".into(), FakeNode::good());
    sim.run(secs(5));
    assert_eq!((sim.metrics.provisioned.get(), sim.metrics.absent.get()), (1, 0));
}

#[test]
fn two_thousand_nodes_that_live_three_seconds_leave_nothing_behind() {
    let mut sim = Sim::connected("jwt: true");
    // Slow enough that many die while they wait or are asked.
    sim.latency = Duration::from_millis(400);
    sim.helper_takes = Duration::from_millis(200);
    for index in 0..2000 {
        sim.boot(&format!("brief-{index}"), FakeNode::good());
    }
    sim.boot("real", FakeNode::good());
    sim.run(secs(3));
    let brief: Vec<String> = sim.nodes.keys().filter(|name| name.starts_with("brief")).cloned().collect();
    for name in &brief {
        sim.die(name);
    }
    sim.run_until(secs(60), "the one that lives is a member", |sim| {
        sim.nodes.get("real").is_none_or(|node| node.restarted == 1)
    });
    sim.run(secs(200));
    assert!(sim.engine.is_idle());
    assert_eq!(sim.metrics.waiting_nodes.get(), 0);
    assert_eq!(sim.metrics.work_queue_entries.get(), 0);
    assert!(sim.engine.inbox.len() <= 1);
    assert!(sim.engine.helper_queue.iter().all(|flow| !sim.engine.nodes.contains_key(flow)));
}

#[test]
fn a_queued_node_whose_connection_ended_is_never_asked() {
    let mut sim = Sim::new(&config("", "max_nodes: 1\n"));
    sim.engine.set_connected(true, sim.now);
    sim.boot(
        "first",
        FakeNode::new(|action| if action == Action::Configure { Behaviour::Silent } else { Behaviour::Good }),
    );
    sim.run(secs(1));
    for name in ["gone", "blinks"] {
        sim.boot(name, FakeNode::good());
    }
    assert_eq!(sim.metrics.work_queue_entries.get(), 2);
    sim.die("gone");
    sim.disconnect("blinks");
    let told = explain(&sim, "gone");
    assert!(told.next.text.contains("its connection ended"), "{told:?}");
    sim.announce("blinks");
    sim.run(secs(4));
    assert_eq!(sim.metrics.work_queue_entries.get(), 1, "the one that is back has its place");
    sim.nodes.get_mut("first").unwrap().behave = Box::new(|_| Behaviour::Good);
    sim.run(secs(30));
    assert_eq!(sim.nodes["blinks"].restarted, 1);
    assert!(sim.sent.iter().all(|sent| !sent.subject.ends_with(".gone")));
    let told = explain(&sim, "gone");
    assert_eq!((&*told.state, told.notes[0].text.as_str()), ("not_waiting", "its connection to the broker ended"));
}

#[test]
fn a_node_that_dies_in_the_middle_frees_its_place_within_moments() {
    for dies_at in [Action::Jwt, Action::Inventory, Action::GenCsr] {
        let mut sim = Sim::connected("jwt: true, pki: true");
        sim.boot(
            "n1",
            FakeNode::new(move |action| if action == dies_at { Behaviour::Silent } else { Behaviour::Good }),
        );
        sim.run(Duration::from_millis(100));
        sim.die("n1");
        sim.run(secs(3));
        assert!(sim.engine.is_idle(), "{dies_at:?}");
        assert_eq!((sim.metrics.waiting_nodes.get(), sim.metrics.provision_errors.get()), (0, 0), "{dies_at:?}");
        assert_eq!(explain(&sim, "n1").attempts[0].outcome.as_deref(), Some("gone"));
    }
}

/// Its reply is on the way when the network blinks: what it says counts.
#[test]
fn a_node_that_reconnects_within_a_moment_goes_on() {
    let mut sim = Sim::connected("jwt: true, pki: true");
    sim.latency = Duration::from_millis(300);
    sim.boot("n1", FakeNode::good());
    for _ in 0..10 {
        sim.run(Duration::from_millis(200));
        sim.disconnect("n1");
    }
    sim.run(secs(10));
    assert_eq!((sim.metrics.provisioned.get(), sim.nodes["n1"].configured), (1, 1));
}

#[test]
fn the_disconnect_that_restart_causes_changes_nothing() {
    let mut sim = Sim::connected("jwt: true, pki: true");
    sim.boot(
        "n1",
        FakeNode::new(|action| if action == Action::Restart { Behaviour::AnswerLost } else { Behaviour::Good }),
    );
    sim.run(secs(1));
    sim.disconnect("n1");
    sim.run(secs(1));
    sim.disconnect("n1");
    sim.run(secs(10));
    assert_eq!((sim.metrics.provisioned.get(), sim.metrics.verified.get()), (1, 1));
    assert_eq!(sim.metrics.provision_errors.get(), 0);
}

/// Of two connections of one name the broker ended the silent one.
#[test]
fn a_connection_that_was_taken_over_is_no_goodbye() {
    let mut sim = Sim::new(&config("", "max_nodes: 1\n"));
    sim.boot("n1", FakeNode::good());
    sim.engine.connection_ended(advisory("n1", crate::advisory::TAKEN_OVER).as_bytes(), sim.now);
    sim.engine.connection_ended(b"junk", sim.now);
    sim.engine.connection_ended(advisory("", "").as_bytes(), sim.now);
    sim.run(secs(10));
    sim.engine.set_connected(true, sim.now);
    sim.settle();
    sim.run(secs(2));
    assert_eq!(sim.metrics.provisioned.get(), 1);
}

#[test]
fn nodes_that_answer_late_are_given_up_and_their_answers_refused() {
    let mut sim = Sim::connected("");
    // An inventory is waited for four seconds.
    sim.latency = secs(3);
    sim.boot("slow", FakeNode::good());
    sim.run(secs(120));
    assert!(sim.metrics.refused("reply_late") > 0);
    let told = explain(&sim, "slow");
    assert!(told.refusals.iter().any(|refusal| refusal.reason == "reply_late"), "{told:?}");
    assert!(told.attempts[0].steps.iter().any(|step| step.fault.is_some()), "{told:?}");
    sim.latency = Duration::from_millis(2);
    sim.run(secs(1200));
    assert_eq!(sim.metrics.provisioned.get(), 1, "and served when they are faster");
}

#[test]
fn nodes_that_answer_twice_are_noticed_and_named() {
    let mut sim = Sim::connected("jwt: true");
    sim.boot("twin", FakeNode::new(|_| Behaviour::Twice));
    sim.run(secs(5));
    let told = explain(&sim, "twin");
    assert!(told.refusals.iter().any(|r| r.reason == "reply_second" && r.detail.contains("two machines")), "{told:?}");
    let seconds =
        sim.told.iter().filter(|event| matches!(&event.kind, Kind::Refused { reason, .. } if reason == "reply_second"));
    assert!(seconds.count() > 0);
    assert!(sim.told.iter().any(|event| event.kind == Kind::Provisioned && event.identity == "twin"));
}

#[test]
fn garbage_and_megabytes_cost_only_who_sends_them() {
    let answers: [Behaviour; 6] = [
        Behaviour::Raw(b"hello".to_vec()),
        Behaviour::Raw(vec![0xff; 1024 * 1024]),
        Behaviour::Raw(vec![b'['; 1024 * 1024]),
        Behaviour::Data(json!({"jwt": "x".repeat(1024 * 1024)})),
        Behaviour::Data(json!(null)),
        Behaviour::Status(5, "\u{1b}[31mred\n"),
    ];
    let mut sim = Sim::connected("jwt: true");
    for (index, answer) in answers.iter().enumerate() {
        let answer = answer.clone();
        sim.boot(&format!("odd-{index}"), FakeNode::new(move |_| answer.clone()));
    }
    sim.boot("real", FakeNode::good());
    let took = sim.run_until(secs(5), "provisioned", |sim| sim.metrics.provisioned.get() == 1);
    assert!(took <= normal_time("jwt: true") * 2, "{took:?}");
    sim.run(secs(60));
    for index in 0..answers.len() {
        let told = serde_json::to_string(&explain(&sim, &format!("odd-{index}"))).unwrap();
        assert!(told.len() < 16 * 1024, "{} bytes are kept of odd-{index}", told.len());
        assert!(!told.contains("\\u001b"), "{told}");
        assert!(told.contains("failed") || told.contains("refused"), "{told}");
    }
    assert!(sim.told.iter().all(|event| event.to_cloud_event().len() < 4096), "events are short");
}

/// The nodes that come before are members, the others are refused with the time at which it expired; nothing hangs.
#[test]
fn a_token_that_expires_in_the_middle_of_a_wave() {
    let request = TokenSigner::request(testing::SECRET, "nats://localhost:4222");
    let token = world().signer.issue(&ProvisioningRequest { validity: Some(secs(3600)), ..request });
    let mut sim = Sim::connected("jwt: true");
    // The token was issued just now, the world of the tests was made a while ago.
    sim.now.unix = choria_testkit::unix_now();
    let fleet = |sim: &mut Sim, range: std::ops::Range<u32>| {
        for index in range {
            let token = token.clone();
            let answer = move |action| match action {
                Action::Jwt => Behaviour::Data(json!({"jwt": token, "ecdh_public": ""})),
                _ => Behaviour::Good,
            };
            sim.boot(&format!("n{index}"), FakeNode::new(answer));
        }
    };
    fleet(&mut sim, 0..50);
    sim.run(secs(10));
    assert_eq!(sim.metrics.provisioned.get(), 50);
    sim.run(secs(7200));
    fleet(&mut sim, 50..100);
    sim.run(secs(10));
    assert_eq!(sim.metrics.provisioned.get(), 50);
    assert_eq!(sim.metrics.refused("jwt_expired"), 50);
    let told = explain(&sim, "n70");
    let refusal = &told.refusals[0];
    assert!(refusal.detail.contains("expired"), "{refusal:?}");
    assert!(sim.told.len() < 50 + 50, "the refusals are told one by one only up to a bound");
}

/// Events in the name of others are stopped by our broker; where they are not, they change nothing that matters.
#[test]
fn forged_shutdowns_and_disconnects_do_not_stop_a_node_that_answers() {
    let mut sim = Sim::connected("jwt: true, pki: true");
    sim.helper_takes = secs(1);
    sim.boot("n1", FakeNode::good());
    sim.run(Duration::from_millis(10));
    for _ in 0..40 {
        sim.engine.node_event(event(Kind::Shutdown, "n1", "provision_mode_server").as_bytes(), sim.now);
        sim.disconnect("n1");
        sim.run(Duration::from_millis(50));
    }
    sim.run(secs(5));
    assert_eq!((sim.metrics.provisioned.get(), sim.nodes["n1"].restarted), (1, 1), "{:?}", sim.asked("n1"));
}
