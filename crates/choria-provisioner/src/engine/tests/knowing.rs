//! What the engine tells about itself and about nodes, and the limits that show there.

use choria_protocol::lifecycle::Kind;

use super::sim::{Behaviour, FakeNode, Sim};
use super::*;
use crate::control::types::{Explanation, Status};

fn calendar(sim: &Sim) -> Calendar {
    Calendar { mono: sim.now.mono, unix_ms: sim.now.unix * 1000 }
}

fn status(sim: &mut Sim) -> Status {
    let calendar = calendar(sim);
    sim.engine.status(calendar)
}

fn explain(sim: &Sim, node: &str) -> Explanation {
    match sim.engine.explain(node, calendar(sim)) {
        Explained::Known(told) => *told,
        Explained::Unknown(_) => panic!("nothing is known of {node}"),
    }
}

fn message(event: &Event) -> (&str, &str) {
    match &event.kind {
        Kind::Refused { reason, message, .. } => (reason, message),
        _ => ("", ""),
    }
}

fn wrong_name() -> FakeNode {
    let csr = world().csr("x");
    let data = serde_json::json!({"csr": csr, "public_key": "", "ssldir": "/etc/choria/ssl"});
    FakeNode::new(move |action| match action {
        Action::GenCsr => Behaviour::Data(data.clone()),
        _ => Behaviour::Good,
    })
}

#[test]
fn a_refusal_is_explained_counted_and_told_with_its_value() {
    let mut sim = Sim::connected("jwt: true, pki: true");
    sim.boot("y", wrong_name());
    sim.run(secs(1));
    let why = "common name x does not match identity y";
    let told = explain(&sim, "y");
    assert_eq!((&*told.state, told.attempts_total, told.refusals_total), ("waiting_to_be_seen", 1, 1));
    assert!(told.refusals[0].detail.contains(why), "{told:?}");
    assert_eq!(told.attempts[0].outcome.as_deref(), Some("refused"));
    assert!(told.attempts[0].detail.as_ref().unwrap().contains(why), "{told:?}");
    let steps: Vec<&str> = told.attempts[0].steps.iter().map(|step| step.what.as_str()).collect();
    assert_eq!(steps, ["choria_provision#jwt", "rpcutil#inventory", "choria_provision#gencsr"]);
    assert!(told.next.text.contains("seen again"), "{told:?}");
    assert_eq!(told.seen[0].by, "event");
    let event = sim.told[0].clone();
    assert_eq!((&*event.identity, &*event.component), ("y", "provisioner"));
    assert!(message(&event).1.contains(why), "{event:?}");
    let status = status(&mut sim);
    let refused = &status.refusals[0];
    assert_eq!((&*refused.reason, refused.count, refused.node.as_deref()), (message(&event).0, 1, Some("y")));
    assert!(refused.last.contains(why));
    assert_eq!(status.nodes.waiting_to_be_seen, 1);
}

#[test]
fn what_comes_next_is_told_in_every_state() {
    let mut sim = Sim::new(&config("", "max_nodes: 1\nworkers: 1\n"));
    sim.helper_takes = secs(2);
    sim.boot("first", FakeNode::good());
    sim.boot("second", FakeNode::good());
    assert!(explain(&sim, "first").next.text.contains("no connection to the broker"));
    assert_eq!(status(&mut sim).held_by.as_deref(), Some("connection"));
    sim.engine.set_connected(true, sim.now);
    sim.settle();
    assert!(explain(&sim, "first").next.text.contains("was asked rpcutil#inventory"));
    let second = explain(&sim, "second").next;
    assert_eq!((second.place, second.of), (Some(1), Some(1)));
    assert!(second.text.contains("max_nodes"), "{second:?}");
    sim.run(secs(1));
    assert!(explain(&sim, "first").next.text.contains("the helper has it"));
    let now = status(&mut sim);
    assert_eq!(now.held_by.as_deref(), Some("max_nodes"));
    assert_eq!((now.nodes.queued, now.nodes.engaged, now.nodes.at_helper, now.helper.busy), (1, 1, 1, 1));
    assert_eq!(now.oldest_waiting.unwrap().identity, "second");
    assert_eq!(now.oldest_in_flight.unwrap().identity, "first");
    sim.engine.pause(sim.now);
    assert!(explain(&sim, "second").next.text.contains("choria provisioner resume"));
    sim.engine.resume(sim.now);
    sim.settle();
    sim.run(secs(10));
    let told = explain(&sim, "first");
    assert_eq!((&*told.state, told.attempts.last().unwrap().outcome.as_deref()), ("settling", Some("provisioned")));
    assert!(told.notes.iter().any(|note| note.text.contains("became a fleet member")), "{told:?}");
    sim.run(secs(120));
    let told = explain(&sim, "first");
    assert_eq!(told.state, "not_waiting");
    assert!(told.next.text.contains("it was provisioned"), "{told:?}");
    assert!(matches!(sim.engine.explain("third", calendar(&sim)), Explained::Unknown(names) if names.len() == 2));
    let now = status(&mut sim);
    assert_eq!((now.rate.last_minute, now.rate.last_hour, now.totals.provisioned), (0, 2, 2));
}

#[test]
fn a_node_that_fails_rests_and_says_until_when() {
    let mut sim = Sim::connected("");
    sim.boot("n1", FakeNode::new(|_| Behaviour::Status(1, "not today")));
    sim.run_until(secs(60), "it failed twice", |sim| sim.metrics.provision_errors.get() == 2);
    let told = explain(&sim, "n1");
    assert_eq!((&*told.state, told.failures), ("resting", 2));
    assert!(told.next.text.contains("2 failures in a row, then starts by itself"), "{told:?}");
    assert!(told.next.at_ms.unwrap() > calendar(&sim).unix_ms);
    assert!(told.attempts[0].steps[0].fault.as_ref().unwrap().contains("not today"), "{told:?}");
    assert!(told.attempts[0].detail.as_ref().unwrap().contains("not today"), "{told:?}");
}

/// Helper calls by the time they began.
fn at_limit(extra: &str, nodes: usize, time: Duration) -> (Sim, Arc<std::sync::Mutex<Vec<String>>>) {
    let mut sim = Sim::new(&config("jwt: true, pki: true", extra));
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&calls);
    sim.helper = Box::new(move |request| {
        let identity = request["identity"].as_str().unwrap();
        noted.lock().unwrap().push(identity.to_owned());
        Ok(world().answer(identity))
    });
    sim.engine.set_connected(true, sim.now);
    for index in 0..nodes {
        sim.boot(&format!("n{index:03}"), FakeNode::good());
    }
    sim.run(time);
    (sim, calls)
}

#[test]
fn ca_rate_and_helper_rate_hold_nodes_back_in_their_order() {
    for limit in ["ca_rate", "helper_rate"] {
        let (mut sim, calls) = at_limit(&format!("workers: 8\n{limit}: 2\n"), 60, Duration::from_millis(4600));
        let asked = calls.lock().unwrap().clone();
        assert_eq!(asked.len(), 2 + 9, "a second's worth at once, then two a second");
        assert!(asked.is_sorted(), "{asked:?}");
        let now = status(&mut sim);
        assert_eq!(now.helper.held_by.as_deref(), Some(limit));
        assert_eq!(now.held_by.as_deref(), Some(limit), "nodes stay in the queue instead of growing old at the helper");
        assert!((1..=28).contains(&now.nodes.waiting_for_helper) && now.nodes.queued > 0, "{now:?}");
        assert_eq!(now.helper.waiting, now.nodes.waiting_for_helper);
        let next = explain(&sim, "n011");
        assert!(next.next.text.contains(&format!("waits for {limit}")), "{next:?}");
        assert_eq!(next.next.place, Some(1));
        assert!(next.next.at_ms.is_some());
        assert!(explain(&sim, "n059").next.text.contains(&format!("held back by {limit}")));
        sim.run(secs(40));
        assert_eq!(sim.metrics.provisioned.get(), 60);
    }
}

/// Without a certificate request there is nothing to be signed.
#[test]
fn ca_rate_concerns_certificate_requests_only() {
    let mut sim = Sim::new(&config("jwt: true", "ca_rate: 0.01\n"));
    sim.engine.set_connected(true, sim.now);
    for index in 0..20 {
        sim.boot(&format!("n{index}"), FakeNode::good());
    }
    sim.run(secs(5));
    assert_eq!(sim.metrics.provisioned.get(), 20);
}

#[test]
fn a_reload_lifts_a_limit_at_once() {
    let (mut sim, calls) = at_limit("workers: 8\nca_rate: 0.1\n", 10, secs(1));
    assert_eq!(calls.lock().unwrap().len(), 1);
    let free = config("jwt: true, pki: true", "workers: 8\n");
    sim.engine.reload(Arc::new(Rules::new(&free).unwrap()), Settings::of(&free), sim.now);
    sim.settle();
    sim.run(secs(2));
    assert_eq!(sim.metrics.provisioned.get(), 10);
}

/// A certificate is not made for a node that will not get it.
#[test]
fn a_pause_takes_back_what_waits_for_the_helper() {
    let (mut sim, calls) = at_limit("workers: 8\nca_rate: 1\n", 10, secs(2));
    let before = calls.lock().unwrap().len();
    sim.engine.pause(sim.now);
    sim.settle();
    sim.run(secs(30));
    assert_eq!(calls.lock().unwrap().len(), before);
    assert!(sim.engine.is_idle());
    assert_eq!(sim.metrics.work_queue_entries.get(), 10 - i64::try_from(before).unwrap());
    sim.engine.resume(sim.now);
    sim.settle();
    sim.run(secs(30));
    assert_eq!((sim.metrics.provisioned.get(), sim.metrics.provision_errors.get()), (10, 0));
}

#[test]
fn a_flood_of_refusals_is_no_flood_of_events() {
    let mut sim = Sim::connected("");
    for index in 0..5000 {
        sim.engine.reply(&format!("provisioning.reply.x.{index}"), b"{}", sim.now);
    }
    sim.run(secs(30));
    assert!(sim.told.len() < 40, "{}", sim.told.len());
    let last = sim.told.last().unwrap();
    assert_eq!(&*last.identity, "provisioner.choria", "it concerns no node");
    assert!(message(last).1.contains("4980 more for this reason"), "{last:?}");
    assert_eq!(sim.metrics.refused("reply_subject"), 5000);
}

#[test]
fn names_that_never_were_nodes_are_explained_too() {
    let mut sim = Sim::connected("");
    sim.engine.node_event(startup("a b").as_bytes(), sim.now);
    let told = explain(&sim, "a b");
    assert_eq!(told.state, "refused");
    assert!(told.refusals[0].detail.contains("not a valid identity"), "{told:?}");
}

/// What is remembered is bounded whatever is announced; the queue has a bound of its own.
#[test]
fn a_hundred_thousand_names_do_not_fill_memory() {
    let mut sim = Sim::connected("");
    sim.engine.pause(sim.now);
    for index in 0..100_000 {
        let name = format!("node-{index}.site.example.net");
        sim.engine.seen(&name, Source::Discovery, sim.now);
        if index % 10 == 0 {
            sim.engine.refuse("identity", Some(&format!("no {name}")), &"x".repeat(1000), sim.now);
        }
    }
    assert!(sim.engine.books.history.names().count() <= 51_000);
    assert!(sim.engine.books.history.bytes() < 20 * 1024 * 1024, "{}", sim.engine.books.history.bytes());
}
