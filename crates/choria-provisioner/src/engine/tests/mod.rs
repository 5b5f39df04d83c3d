mod faults;
mod golden;
mod knowing;
mod sim;

use choria_protocol::lifecycle::Kind;
use choria_protocol::v1;
use proptest::prelude::*;
use serde_json::json;

use self::sim::{Behaviour, FakeNode, Sim, event, startup};
use super::*;
use crate::flow::Action;
use crate::helper::{HelperAnswer, HelperError};
use crate::testing::{self, config, world};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// How long a good node takes when nobody else is there.
fn normal_time(features: &str) -> Duration {
    let mut sim = Sim::connected(features);
    sim.boot("n1", FakeNode::good());
    sim.run_until(secs(60), "provisioned", |sim| sim.metrics.provisioned.get() == 1)
}

#[test]
fn a_node_goes_all_the_way_and_comes_home() {
    let mut sim = Sim::connected("jwt: true, pki: true");
    sim.boot("n1", FakeNode::good());
    sim.run(secs(10));
    assert_eq!(sim.asked("n1"), ["jwt", "inventory", "gencsr", "configure", "restart"]);
    assert_eq!(sim.metrics.provisioned.get(), 1);
    assert_eq!(sim.metrics.verified.get(), 1);
    assert_eq!(sim.metrics.event_discovered.get(), 1);
    assert_eq!(sim.metrics.provision_errors.get(), 0);
    assert_eq!(sim.metrics.waiting_nodes.get(), 1, "settling");
    sim.run(secs(60));
    assert_eq!(sim.metrics.waiting_nodes.get(), 0);
}

#[test]
fn dead_nodes_hold_no_helper_and_no_place() {
    let mut sim = Sim::new(&config("jwt: true", "workers: 1\nmax_nodes: 5\n"));
    sim.engine.set_connected(true, sim.now);
    for index in 0..50 {
        sim.boot(&format!("dead-{index}"), FakeNode::new(|_| Behaviour::Silent));
    }
    for index in 0..20 {
        sim.boot(&format!("live-{index}"), FakeNode::good());
    }
    sim.run_until(secs(20), "all live ones provisioned", |sim| sim.metrics.provisioned.get() == 20);
    assert_eq!(sim.helpers_at_once, 1);
}

#[test]
fn many_nodes_none_lost_none_twice_and_never_too_many_at_once() {
    let mut sim = Sim::new(&config("jwt: true, pki: true", "workers: 8\nmax_nodes: 100\n"));
    sim.engine.set_connected(true, sim.now);
    for index in 0..1000 {
        sim.boot(&format!("n{index}"), FakeNode::good());
    }
    let took = sim.run_until(secs(60), "all provisioned", |sim| sim.metrics.provisioned.get() == 1000);
    sim.run(secs(5));
    assert!(sim.nodes.values().all(|node| node.configured == 1 && node.restarted == 1));
    assert_eq!(sim.metrics.provision_errors.get(), 0);
    assert_eq!(sim.metrics.verified.get(), 1000);
    assert!(sim.most_in_flight <= 100, "{}", sim.most_in_flight);
    assert_eq!(sim.helpers_at_once, 8);
    // Eight helpers of 20 ms each are what bounds it.
    assert!(took < Duration::from_millis(1000 / 8 * 20 + 500), "{took:?}");
}

#[test]
fn design6_one_signature_serves_many_nodes_and_every_node_has_its_own_reply_subject() {
    let files = world().ca.provisioner();
    let signer = choria_security::sign::RequestSigner::from_files(&files.certificate, &files.key, "key").unwrap();
    let caller = Caller {
        identity: "provisioner.mcollective".into(),
        caller_id: "choria=provisioner.mcollective".into(),
        signer: Some(Arc::new(signer)),
    };
    let mut sim = Sim::with_caller(&config("jwt: true, pki: true", "workers: 4\n"), caller);
    sim.engine.set_connected(true, sim.now);
    for index in 0..20 {
        sim.boot(&format!("n{index}"), FakeNode::good());
    }
    sim.run_until(secs(5), "all provisioned", |sim| sim.metrics.provisioned.get() == 20);
    let mut subjects: Vec<&str> = sim.sent.iter().map(|sent| sent.reply_to.as_str()).collect();
    let all = subjects.len();
    subjects.sort_unstable();
    subjects.dedup();
    assert_eq!(subjects.len(), all, "no reply subject is used twice");
    for (action, documents) in [("jwt", 1), ("inventory", 1), ("restart", 1), ("gencsr", 20), ("configure", 20)] {
        let mut signatures: Vec<&str> = sim
            .sent
            .iter()
            .filter(|sent| sent.request.message.contains(&format!("\"action\":\"{action}\"")))
            .map(|sent| sent.signature.as_str())
            .collect();
        assert_eq!(signatures.len(), 20);
        signatures.sort_unstable();
        signatures.dedup();
        assert_eq!(signatures.len(), documents, "{action}");
    }
}

#[test]
fn design6_two_machines_of_one_name_are_noticed() {
    let mut sim = Sim::connected("jwt: true, pki: true");
    sim.boot("n1", FakeNode::new(|_| Behaviour::Twice));
    sim.run(secs(5));
    assert_eq!(sim.metrics.refused("reply_second"), 5, "one for each request");
}

#[test]
fn answers_by_others_or_of_another_kind_fail_the_try_or_are_ignored() {
    let mut sim = Sim::connected("");
    let mut tries = 0;
    sim.boot(
        "n1",
        FakeNode::new(move |action| {
            tries += 1;
            match (action, tries) {
                (Action::Inventory, 2) => Behaviour::Raw(b"hello".to_vec()),
                (Action::Inventory, 3) => Behaviour::Data(json!(null)),
                (Action::Inventory, 4) => Behaviour::Status(5, "later"),
                _ => Behaviour::Good,
            }
        }),
    );
    sim.run(secs(20));
    assert_eq!(sim.metrics.provisioned.get(), 1);
    assert_eq!(sim.metrics.provision_errors.get(), 0);
}

#[test]
fn a_failed_node_is_tried_again_by_itself_and_rests_longer_each_time() {
    let mut sim = Sim::connected("");
    sim.helper = Box::new(|_| Err(HelperError::NotConfigured));
    sim.boot("n1", FakeNode::good());
    sim.run(secs(100));
    let starts: Vec<u64> =
        sim.sent.iter().filter(|s| s.subject == "provisioning.node.n1").map(|s| s.at.as_secs()).collect();
    assert_eq!(starts, [0, 1, 6, 21, 81]);
    assert_eq!(sim.metrics.helper_errors.get(), 5);
    assert_eq!(sim.metrics.refused("helper_missing"), 5);
}

#[test]
fn a_refused_node_waits_until_it_is_seen_again() {
    let mut sim = Sim::connected("jwt: true");
    sim.boot(
        "n1",
        FakeNode::new(|action| match action {
            Action::Jwt => Behaviour::Data(json!({"jwt": "a.b.c"})),
            _ => Behaviour::Good,
        }),
    );
    sim.run(secs(50));
    assert_eq!(sim.asked("n1"), ["jwt"]);
    sim.run(secs(15));
    assert_eq!(sim.asked("n1"), ["jwt", "jwt"], "discovery found it again");
    assert_eq!(sim.metrics.refused("jwt_malformed"), 2);
}

#[test]
fn a_deferred_node_comes_again_when_it_is_seen() {
    let mut sim = Sim::connected("");
    sim.helper = Box::new(|_| Ok(HelperAnswer { defer: true, msg: "facts not ready".into(), ..Default::default() }));
    sim.boot("n1", FakeNode::good());
    sim.run(secs(1));
    assert_eq!((sim.metrics.deferred.get(), sim.metrics.provision_errors.get()), (1, 1));
    sim.announce("n1");
    sim.run(secs(2));
    assert_eq!(sim.metrics.deferred.get(), 2);
    sim.run(secs(60));
    assert_eq!(sim.metrics.deferred.get(), 3, "by discovery");
}

#[test]
fn events_are_read_strictly_and_counted() {
    let mut sim = Sim::connected("");
    for (payload, reason) in [
        ("hello".to_owned(), "event"),
        ("{}".to_owned(), "event"),
        (startup("n1").replace("io.choria.lifecycle\"", "elsewhere\""), "event"),
        (startup("a b"), "identity"),
        (startup("*"), "identity"),
        (startup(">"), "identity"),
        (startup("x.*"), "identity"),
        (startup("../../etc"), "identity"),
        (startup(&"x".repeat(500)), "identity"),
        (startup("a\\nb"), "identity"),
        (startup(""), "identity"),
    ] {
        let before = sim.metrics.refused(reason);
        sim.engine.node_event(payload.as_bytes(), sim.now);
        assert_eq!(sim.metrics.refused(reason), before + 1, "{payload}");
    }
    assert_eq!(sim.metrics.event_discovered.get(), 0);
    let plain = Event::parse(startup("n1").as_bytes()).unwrap().to_plain();
    for payload in [startup("n0"), plain, event(Kind::Startup { version: "1".into() }, "n2", "server"), startup("n1")] {
        sim.engine.node_event(payload.as_bytes(), sim.now);
    }
    sim.engine.node_event(event(Kind::Shutdown, "n3", "provision_mode_server").as_bytes(), sim.now);
    assert_eq!(sim.metrics.event_discovered.get(), 3);
}

#[test]
fn a_node_is_found_by_discovery_alone() {
    let mut sim = Sim::connected("");
    sim.nodes.insert("quiet".into(), FakeNode::good());
    sim.run(secs(61));
    assert_eq!((sim.metrics.discovered.get(), sim.metrics.provisioned.get()), (1, 1));
    assert_eq!(sim.metrics.discover_cycles.get(), 2);
}

#[test]
fn a_node_is_found_by_its_registration_data() {
    let row = choria_testkit::golden::lines("provisioner/flow-pki-jwt.jsonl").pop().unwrap();
    assert_eq!(row["subject"], "provisioning.registration.data");
    let envelope = &row["inner"]["envelope"];
    let request = v1::Request {
        message: row["message"].to_string(),
        envelope: v1::RequestEnvelope {
            request_id: envelope["requestid"].as_str().unwrap().into(),
            sender_id: envelope["senderid"].as_str().unwrap().into(),
            caller_id: envelope["callerid"].as_str().unwrap().into(),
            collective: "provisioning".into(),
            agent: "registration".into(),
            ttl: 60,
            time: 1,
            filter: Default::default(),
        },
    };
    let secure = v1::SecureRequest::unsigned(request.to_text());
    let wire = v1::encode_request(&secure, &Default::default());
    let mut sim = Sim::connected("");
    sim.nodes.insert("node0.lab.test".into(), FakeNode::good());
    sim.engine.registration(&wire, sim.now);
    sim.engine.registration(b"junk", sim.now);
    sim.settle();
    sim.run(secs(1));
    assert_eq!((sim.metrics.registration_discovered.get(), sim.metrics.provisioned.get()), (1, 1));
    assert_eq!(sim.metrics.refused("registration"), 1);
}

#[test]
fn while_paused_nothing_starts_and_what_can_be_broken_off_is() {
    let mut sim = Sim::connected("");
    sim.boot(
        "early",
        FakeNode::new(|action| match action {
            Action::Inventory => Behaviour::Silent,
            _ => Behaviour::Good,
        }),
    );
    sim.boot("late", FakeNode::good());
    sim.run_until(secs(1), "configure was sent", |sim| sim.nodes["late"].configured == 1);
    sim.engine.pause(sim.now);
    sim.announce("ignored");
    sim.run(secs(70));
    assert_eq!(sim.metrics.paused.get(), 1);
    assert_eq!(sim.metrics.provisioned.get(), 1, "the node that was being configured was led to its end");
    assert_eq!(sim.metrics.discover_cycles.get(), 1, "no discovery while paused");
    assert_eq!(sim.metrics.provision_errors.get(), 0);
    assert_eq!(sim.metrics.work_queue_entries.get(), 1, "early waits, ignored was dropped");
    sim.nodes.get_mut("early").unwrap().behave = Box::new(|_| Behaviour::Good);
    sim.engine.resume(sim.now);
    sim.settle();
    sim.run(secs(1));
    assert_eq!(sim.metrics.provisioned.get(), 2);
    assert_eq!(sim.metrics.discover_cycles.get(), 2, "at once");
}

#[test]
fn design6_sigterm_leads_nodes_to_their_end_instead_of_abandoning_them() {
    let mut sim = Sim::connected("jwt: true, pki: true");
    for index in 0..20 {
        sim.boot(&format!("n{index}"), FakeNode::good());
    }
    sim.announce("dead");
    sim.run_until(secs(1), "some are in the middle", |sim| sim.sent.len() > 50);
    sim.engine.drain(sim.now);
    sim.settle();
    sim.announce("too-late");
    let took = sim.run_until(secs(10), "drained", |sim| sim.engine.is_idle());
    assert!(took < secs(2), "the dead one does not hold it up: {took:?}");
    let (done, open): (Vec<_>, Vec<_>) = sim.nodes.values().partition(|node| node.restarted == 1);
    assert_eq!(done.len(), 20);
    assert!(open.is_empty(), "none configured but not restarted");
}

#[test]
fn when_the_time_to_drain_is_over_what_can_be_broken_off_is() {
    let mut sim = Sim::connected("");
    sim.boot(
        "n1",
        FakeNode::new(|action| match action {
            Action::Configure => Behaviour::Silent,
            _ => Behaviour::Good,
        }),
    );
    sim.helper_takes = secs(5);
    sim.boot("n2", FakeNode::good());
    sim.run(secs(4));
    sim.engine.drain(sim.now);
    sim.engine.abandon(sim.now);
    assert!(!sim.engine.is_idle(), "both are at the helper, which is waited for");
    sim.run(secs(3));
    assert!(sim.engine.is_idle(), "and then nothing is sent");
    assert_eq!(sim.nodes["n2"].configured, 0);
}

#[test]
fn design6_a_node_that_does_not_come_home_is_told() {
    let mut sim = Sim::new(&config("", "verify_restart: on\nverify_timeout: 30s\n"));
    sim.shows_fleet = false;
    sim.engine.set_connected(true, sim.now);
    sim.boot("n1", FakeNode::good());
    sim.run(secs(20));
    assert_eq!(sim.metrics.verify_missing.get(), 0);
    sim.run(secs(15));
    assert_eq!(sim.metrics.verify_missing.get(), 1);
}

#[test]
fn a_node_that_falls_back_is_counted_and_taken_up_again() {
    let mut sim = Sim::connected("");
    sim.shows_fleet = false;
    sim.boot("n1", FakeNode::good());
    sim.run(secs(3));
    assert_eq!(sim.metrics.provisioned.get(), 1);
    sim.boot("n1", FakeNode::good());
    assert_eq!(sim.metrics.returned.get(), 1);
    sim.run(secs(9));
    assert_eq!(sim.metrics.provisioned.get(), 1, "not at once: a loop must not spin");
    sim.run(secs(3));
    assert_eq!(sim.metrics.provisioned.get(), 2);
}

#[test]
fn a_lost_answer_to_restart_is_made_good_by_the_nodes_startup_event() {
    let mut sim = Sim::connected("");
    sim.boot(
        "n1",
        FakeNode::new(|action| match action {
            Action::Restart => Behaviour::AnswerLost,
            _ => Behaviour::Good,
        }),
    );
    sim.run(secs(10));
    assert_eq!((sim.metrics.provisioned.get(), sim.metrics.verified.get()), (1, 1));
    assert_eq!(sim.metrics.provision_errors.get(), 0);
}

#[test]
fn a_node_that_crashes_in_the_middle_is_started_over_at_once() {
    for crashes_at in [Action::GenCsr, Action::Configure, Action::Restart] {
        let mut sim = Sim::connected("jwt: true, pki: true");
        let mut alive = true;
        let dies = move |action| {
            if action == crashes_at && alive {
                alive = false;
                return Behaviour::Silent;
            }
            Behaviour::Good
        };
        sim.boot("n1", FakeNode::new(dies));
        sim.announce("n1");
        sim.run(secs(3));
        assert_eq!(sim.metrics.provisioned.get(), 0, "{crashes_at:?}");
        sim.announce("n1");
        sim.run(secs(3));
        assert_eq!(sim.metrics.provisioned.get(), 1, "{crashes_at:?} {:?}", sim.asked("n1"));
        assert_eq!(sim.metrics.provision_errors.get(), 0);
    }
}

/// A provisioner that is killed leaves nodes that are about to restart. The next one finds them by discovery.
#[test]
fn a_node_that_goes_home_in_the_middle_of_another_attempt_is_let_go() {
    for silent_from in [Action::Jwt, Action::Inventory, Action::GenCsr, Action::Configure] {
        let mut sim = Sim::connected("jwt: true, pki: true");
        sim.boot(
            "n1",
            FakeNode::new(
                move |action| if action as u8 >= silent_from as u8 { Behaviour::Silent } else { Behaviour::Good },
            ),
        );
        sim.run(secs(1));
        let home = event(Kind::Startup { version: "1".into() }, "n1", "server");
        // It waits no more.
        sim.nodes.remove("n1");
        sim.engine.fleet_event(home.as_bytes(), sim.now);
        sim.settle();
        sim.run(secs(3));
        assert!(sim.engine.is_idle(), "{silent_from:?}");
        sim.run(secs(300));
        let metrics = &sim.metrics;
        assert_eq!((metrics.provision_errors.get(), metrics.waiting_nodes.get()), (0, 0), "{silent_from:?}");
    }
}

/// What members announce proves nothing: a node that waits and answers is led on.
#[test]
fn forged_homecomings_stop_nobody() {
    let mut sim = Sim::connected("jwt: true, pki: true");
    let home = event(Kind::Startup { version: "1".into() }, "n1", "server");
    sim.helper_takes = secs(5);
    sim.latency = Duration::from_millis(800);
    sim.boot("n1", FakeNode::good());
    for _ in 0..20 {
        sim.engine.fleet_event(home.as_bytes(), sim.now);
        sim.settle();
        sim.run(Duration::from_millis(700));
    }
    assert_eq!((sim.metrics.provisioned.get(), sim.nodes["n1"].restarted), (1, 1), "{:?}", sim.asked("n1"));
}

/// The same when the attempt has failed already and is to be repeated after a rest.
#[test]
fn a_node_that_goes_home_while_it_rests_is_not_tried_again() {
    let mut sim = Sim::connected("");
    sim.boot("n1", FakeNode::new(|_| Behaviour::Status(1, "no")));
    sim.run_until(secs(100), "it fails", |sim| sim.metrics.provision_errors.get() == 1);
    let asked = sim.asked("n1").len();
    let home = event(Kind::Startup { version: "1".into() }, "n1", "server");
    sim.engine.fleet_event(home.as_bytes(), sim.now);
    sim.run(secs(30));
    assert_eq!(sim.asked("n1").len(), asked);
}

#[test]
fn a_shutdown_event_evicts_a_node_that_has_not_answered() {
    let mut sim = Sim::connected("");
    sim.boot("n1", FakeNode::new(|_| Behaviour::Silent));
    sim.engine.node_event(event(Kind::Shutdown, "n1", "provision_mode_server").as_bytes(), sim.now);
    sim.settle();
    sim.run(secs(30));
    assert_eq!(sim.asked("n1").len(), 1);
    assert_eq!((sim.metrics.waiting_nodes.get(), sim.metrics.provision_errors.get()), (0, 0));
}

#[test]
fn without_a_connection_nothing_starts_and_then_discovery_runs_at_once() {
    let mut sim = Sim::new(&config("", ""));
    sim.boot("n1", FakeNode::good());
    sim.run(secs(300));
    assert!(sim.sent.is_empty());
    sim.announce("n1");
    sim.engine.set_connected(true, sim.now);
    sim.settle();
    sim.run(secs(1));
    assert_eq!(sim.metrics.provisioned.get(), 1);
    sim.engine.set_connected(false, sim.now);
    sim.run(secs(5));
    let before = sim.metrics.discover_cycles.get();
    sim.engine.set_connected(true, sim.now);
    assert_eq!(sim.metrics.discover_cycles.get(), before + 1);
}

/// The broker is killed and takes every open question along: nobody waits for answers that cannot come, and those who come
/// back later are found without having said anything.
#[test]
fn a_lost_connection_costs_the_nodes_in_the_flow_a_moment() {
    for lost in [Action::Jwt, Action::Inventory, Action::GenCsr, Action::Configure, Action::Restart] {
        let mut sim = Sim::connected("jwt: true, pki: true");
        let mut answers = 0;
        sim.boot(
            "n1",
            FakeNode::new(move |action| {
                answers += usize::from(action == lost);
                if action == lost && answers == 1 { Behaviour::Silent } else { Behaviour::Good }
            }),
        );
        sim.run(secs(1));
        assert_eq!(sim.asked("n1").last(), Some(&lost.name()), "it waits for the answer");
        sim.engine.set_connected(false, sim.now);
        sim.run(secs(1));
        let began = sim.elapsed();
        sim.engine.set_connected(true, sim.now);
        sim.settle();
        sim.run_until(secs(60), "it is provisioned", |sim| sim.metrics.provisioned.get() == 1);
        assert!(sim.elapsed() - began < secs(6), "{lost:?}: {:?}", sim.elapsed() - began);
    }
    let mut sim = Sim::connected("");
    sim.run(secs(1));
    sim.engine.set_connected(false, sim.now);
    sim.engine.set_connected(true, sim.now);
    sim.settle();
    sim.run(secs(9));
    sim.nodes.insert("late".into(), FakeNode::good());
    sim.run_until(secs(15), "it was found", |sim| sim.metrics.provisioned.get() == 1);
}

#[test]
fn a_reload_changes_what_the_next_node_meets() {
    let mut sim = Sim::connected("");
    let features = config("jwt: true", "workers: 2\ntoken: another\n");
    let rules = Arc::new(Rules::new(&features).unwrap());
    sim.engine.reload(rules, Settings::of(&features), sim.now);
    sim.boot("n1", FakeNode::good());
    sim.run(secs(1));
    assert_eq!(sim.metrics.refused("jwt_cht"), 1, "the token is for another secret now");
}

#[test]
fn refusals_do_not_fill_memory() {
    let mut sim = Sim::connected("jwt: true");
    for index in 0..2000 {
        sim.engine.reply(&format!("provisioning.reply.x.{index}"), b"{}", sim.now);
    }
    sim.boot("n1", FakeNode::good());
    sim.run(secs(200));
    assert!(sim.engine.inbox.len() <= 1, "only the open discovery: {}", sim.engine.inbox.len());
    assert_eq!(sim.metrics.refused("reply_subject"), 2000);
    let _ = testing::SECRET;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Requests and answers get lost, helpers fail, nodes crash and come again: in the end every node is
    /// provisioned exactly once, and none is left in between.
    #[test]
    fn every_node_ends_provisioned_exactly_once(seed in any::<u64>(), nodes in 1..12_usize, trouble in 1..50_u64) {
        let mut sim = Sim::connected("jwt: true, pki: true");
        let mut state = seed;
        let mut draw = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let mut helper_trouble = trouble;
        let helper_seed = draw();
        let mut helper_state = helper_seed;
        sim.helper = Box::new(move |request| {
            helper_state = helper_state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(7);
            if helper_trouble > 0 && (helper_state >> 33) % 3 == 0 {
                helper_trouble -= 1;
                return Err(HelperError::NotConfigured);
            }
            Ok(world().answer(request["identity"].as_str().unwrap()))
        });
        for index in 0..nodes {
            let (mut left, mut own) = (trouble, draw());
            let behave = move |action: Action| {
                own = own.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if left == 0 {
                    return Behaviour::Good;
                }
                left -= 1;
                match (own >> 33) % 8 {
                    0 | 1 => Behaviour::Silent,
                    2 => Behaviour::AnswerLost,
                    3 => Behaviour::Raw(b"junk".to_vec()),
                    4 => Behaviour::Status(1, "not now"),
                    5 => Behaviour::Twice,
                    6 if action.may_be_broken_off() => Behaviour::Data(json!({"odd": true})),
                    _ => Behaviour::Good,
                }
            };
            let name = format!("n{index}");
            sim.boot(&name, FakeNode::new(behave));
            sim.announce_after(Duration::from_secs(draw() % 200), &name);
        }
        sim.run(secs(4 * 3600));
        for (name, node) in &sim.nodes {
            prop_assert_eq!(node.restarted, 1, "{} restarted, asked {:?}", name, node.asked);
            prop_assert!(node.configured >= 1, "{} was restarted without configuration", name);
        }
        prop_assert!(sim.engine.is_idle());
    }
}
