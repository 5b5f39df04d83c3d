use choria_testkit::golden;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::helper::{CsrReply, HelperError, HelperRequest};
use crate::testing::{self, config, ok, refused, rules, world};

const NODE: &str = "n1.lab.test";

/// Drives one flow by hand.
struct Driver {
    flow: Flow,
    now: Now,
    out: Vec<Output>,
}

impl Driver {
    fn new(features: &str) -> Self {
        Self::with(rules(features), true)
    }

    fn with(rules: Arc<Rules>, fresh: bool) -> Self {
        let now = world().now();
        let mut driver = Self { flow: Flow::new(Arc::from(NODE), rules, fresh, 7, now), now, out: Vec::new() };
        driver.give(Input::Start);
        driver
    }

    fn give(&mut self, input: Input) {
        self.out.clear();
        self.flow.handle(input, self.now, &mut self.out);
    }

    /// The call that the last input led to.
    fn call(&self) -> &Call {
        let call = self.out.iter().find_map(|output| match output {
            Output::Call(call) => Some(call),
            _ => None,
        });
        call.unwrap_or_else(|| panic!("no call in {:?}", self.out))
    }

    fn outcome(&self) -> Option<&Outcome> {
        self.out.iter().find_map(|output| match output {
            Output::Done(outcome) => Some(outcome),
            _ => None,
        })
    }

    fn wake(&self) -> Option<Instant> {
        self.out.iter().rev().find_map(|output| match output {
            Output::Wake(at) => Some(*at),
            _ => None,
        })
    }

    fn reply(&mut self, reply: Result<ReplyBody, String>) {
        let call = self.call().number;
        self.give(Input::Reply { call, reply });
    }

    /// Answers the open call as a good node does.
    fn good(&mut self) {
        let action = self.call().action;
        self.reply(Ok(ok(action, world().data(action, NODE))));
    }

    fn helper_request(&self) -> Option<String> {
        self.out.iter().find_map(|output| match output {
            Output::RunHelper(question) => Some(question.to_text()),
            _ => None,
        })
    }

    /// Good answers until the helper is asked.
    fn reach_helper(&mut self) {
        while self.helper_request().is_none() {
            self.good();
        }
    }

    fn reach(&mut self, action: Action) {
        while self.call().action != action {
            self.good();
            if self.helper_request().is_some() {
                let answer =
                    if self.flow.rules.features.pki { world().answer(NODE) } else { world().plain_answer(NODE) };
                self.give(Input::Helper(Ok(answer)));
            }
        }
    }

    /// Lets the flow run on its timer alone until it ends; returns the calls with their times since now.
    fn starve(&mut self) -> Vec<(Action, Duration)> {
        let began = self.now.mono;
        let mut calls = vec![(self.call().action, Duration::ZERO)];
        while self.outcome().is_none() {
            self.now.mono = self.wake().expect("a flow that is not over has a timer");
            self.give(Input::Timer);
            if self.out.iter().any(|output| matches!(output, Output::Call(_))) {
                calls.push((self.call().action, self.now.mono - began));
            }
        }
        calls
    }
}

fn body(call: &Call) -> Value {
    serde_json::from_str(call.body.expose()).unwrap()
}

#[test]
fn the_whole_way_with_every_feature() {
    let mut driver = Driver::new("jwt: true, pki: true");
    let token = json!(testing::SECRET);
    assert_eq!(body(driver.call()), json!({"agent": "choria_provision", "action": "jwt", "data": {"token": token}}));
    driver.good();
    assert_eq!(body(driver.call()), json!({"agent": "rpcutil", "action": "inventory", "data": {}}));
    driver.good();
    assert_eq!(
        body(driver.call()),
        json!({"agent": "choria_provision", "action": "gencsr", "data": {"cn": NODE, "token": token}})
    );
    driver.good();
    let request: Value = serde_json::from_str(&driver.helper_request().unwrap()).unwrap();
    assert_eq!(request["identity"], NODE);
    assert_eq!(request["jwt"]["cht"], token);
    driver.give(Input::Helper(Ok(world().answer(NODE))));
    let configure = body(driver.call());
    assert_eq!(configure["action"], "configure");
    let keys: Vec<&String> = configure["data"].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "action_policies",
            "ca",
            "certificate",
            "config",
            "ecdh_public",
            "key",
            "opa_policies",
            "server_jwt",
            "ssldir",
            "token"
        ]
    );
    assert_eq!(configure["data"]["ssldir"], "/etc/choria/ssl");
    driver.good();
    assert_eq!(
        body(driver.call()),
        json!({"agent": "choria_provision", "action": "restart", "data": {"splay": 1, "token": token}})
    );
    driver.good();
    assert_eq!(driver.outcome(), Some(&Outcome::Provisioned { home: NODE.to_owned() }));
}

#[test]
fn golden_helper_inputs_are_equal_byte_for_byte() {
    for name in ["none", "pki", "jwt", "pki-jwt"] {
        let text = golden::text(&format!("provisioner/helper-input-{name}.json"));
        let document: Value = serde_json::from_str(&text).unwrap();
        let sent: Value = serde_json::from_str(document["inventory"].as_str().unwrap()).unwrap();
        let part = |value: &Value, key: &str| value[key].as_str().unwrap().to_owned();
        let csr = document["csr"].is_object().then(|| CsrReply {
            csr: part(&document["csr"], "csr"),
            public_key: part(&document["csr"], "public_key"),
            ssldir: part(&document["csr"], "ssldir"),
        });
        let jwt: Option<ProvisioningClaims> = serde_json::from_value(document["jwt"].clone()).unwrap();
        let request = HelperRequest {
            identity: document["identity"].as_str().unwrap(),
            csr: csr.as_ref(),
            ed25519_pubkey: None,
            inventory: &reply::inventory(&sent).unwrap(),
            jwt: jwt.as_ref(),
        };
        assert_eq!(request.to_text(), text, "{name}");
    }
}

#[test]
fn silent_nodes_get_as_many_requests_as_the_original_sends_and_no_more_time() {
    let last_call = |list: &[(Action, Duration)]| list.last().unwrap().1.as_secs_f64();
    let mut jwt = Driver::new("jwt: true");
    let calls = jwt.starve();
    assert_eq!(calls.len(), 3);
    assert!((44.0..50.0).contains(&last_call(&calls)), "{calls:?}");
    match jwt.outcome() {
        Some(Outcome::Failed { error }) => assert_eq!(
            error,
            "choria_provision#jwt failed: received 0 responses while expecting a response from n1.lab.test"
        ),
        other => panic!("{other:?}"),
    }

    let mut inventory = Driver::new("");
    let began = inventory.now.mono;
    assert_eq!(inventory.starve().len(), 5);
    let took = inventory.now.mono - began;
    assert!((22..=30).contains(&took.as_secs()), "{took:?}");

    let mut gencsr = Driver::new("pki: true");
    gencsr.reach(Action::GenCsr);
    assert_eq!(gencsr.starve().len(), 1);

    let mut shutdown = Driver::new("");
    shutdown.reach_helper();
    shutdown.give(Input::Helper(Ok(HelperAnswer { shutdown: true, ..HelperAnswer::default() })));
    assert_eq!(shutdown.starve().len(), 3);
    assert!(
        matches!(shutdown.outcome(), Some(Outcome::Failed { error }) if error.starts_with("choria_provision#shutdown failed"))
    );
}

#[test]
fn design6_undecodable_reply_is_a_failed_try_and_never_a_success() {
    for action in Action::ALL {
        let features = if action == Action::Jwt { "jwt: true" } else { "pki: true" };
        let mut driver = Driver::new(features);
        if action == Action::Shutdown {
            driver.reach_helper();
            driver.give(Input::Helper(Ok(HelperAnswer { shutdown: true, ..HelperAnswer::default() })));
        } else {
            driver.reach(action);
        }
        driver.reply(Err("body is not an object".to_owned()));
        if action.tries() == 1 {
            match driver.outcome() {
                Some(Outcome::Failed { error }) => assert!(error.contains("body is not an object"), "{error}"),
                other => panic!("{action:?}: {other:?}"),
            }
            continue;
        }
        assert_eq!(driver.outcome(), None, "{action:?}");
        driver.now.mono = driver.wake().unwrap();
        assert!(driver.now.mono - world().now().mono < Duration::from_secs(2), "tried again soon, not after the wait");
        driver.give(Input::Timer);
        assert_eq!(driver.call().action, action);
    }
}

#[test]
fn design6_one_reply_cannot_end_the_provisioner() {
    // Every shape of data at every step: an error or the next step, never a panic.
    let shapes = [
        json!(null),
        json!([]),
        json!("x"),
        json!(5),
        json!(true),
        json!({}),
        json!({"jwt": 5}),
        json!({"csr": "hello"}),
        json!({"csr": {"a": 1}}),
        json!({"csr": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"}),
        json!({"version": "1", "facts": null}),
        json!({"version": 1}),
        json!({"message": 5}),
        json!({"jwt": "a.b.c"}),
        json!({"jwt": "x".repeat(100_000)}),
        json!({"csr": "x".repeat(100_000)}),
        json!({"version": "x".repeat(10_000)}),
    ];
    for action in [Action::Jwt, Action::Inventory, Action::GenCsr, Action::Configure, Action::Restart] {
        for shape in &shapes {
            let mut driver = Driver::new("jwt: true, pki: true");
            driver.reach(action);
            driver.reply(Ok(ok(action, shape.clone())));
            assert!(!driver.out.is_empty(), "{action:?} {shape}");
        }
    }
}

#[test]
fn a_status_other_than_ok_fails_the_try_and_the_last_cause_is_told() {
    let mut driver = Driver::new("");
    driver.reach(Action::Restart);
    for attempt in 1..=3 {
        driver.reply(Ok(refused(Action::Restart, 1, "Configuration enables provisioning\nrestart cannot continue")));
        if attempt < 3 {
            driver.now.mono = driver.wake().unwrap();
            driver.give(Input::Timer);
        }
    }
    match driver.outcome() {
        Some(Outcome::Failed { error }) => assert_eq!(
            error,
            "choria_provision#restart failed: invalid response from n1.lab.test: Configuration enables provisioning restart cannot continue (1)"
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn refusals_that_no_other_try_would_change_are_not_repeated() {
    for (reply, reason) in [
        (refused(Action::Jwt, 1, "Incorrect provision token supplied"), "node_token"),
        (refused(Action::Jwt, 2, "Unknown action jwt for agent choria_provision"), "unknown_action"),
        (ok(Action::Jwt, json!({})), "jwt_missing"),
        (ok(Action::Jwt, json!({"jwt": "a.b.c"})), "jwt_malformed"),
    ] {
        let mut driver = Driver::new("jwt: true");
        driver.reply(Ok(reply));
        match driver.outcome() {
            Some(Outcome::Refused(refusal)) => assert_eq!(refusal.reason, reason),
            other => panic!("{reason}: {other:?}"),
        }
    }
    let mut driver = Driver::new("jwt: true");
    driver.reply(Ok(refused(Action::Jwt, 1, "Could not obtain provisioning lock")));
    assert_eq!(driver.outcome(), Some(&Outcome::Locked));
}

#[test]
fn design6_a_reply_for_another_action_is_a_failed_try() {
    let mut driver = Driver::new("");
    driver.reply(Ok(ok(Action::Configure, json!({"version": "1"}))));
    assert!(driver.outcome().is_none() && driver.helper_request().is_none());
}

#[test]
fn replies_to_calls_that_were_given_up_are_ignored() {
    let mut driver = Driver::new("");
    let first = driver.call().number;
    driver.now.mono = driver.wake().unwrap();
    driver.give(Input::Timer);
    driver.now.mono = driver.wake().unwrap();
    driver.give(Input::Timer);
    assert_ne!(driver.call().number, first);
    driver.give(Input::Reply { call: first, reply: Ok(ok(Action::Inventory, json!({"version": "1"}))) });
    assert!(driver.out.is_empty());
}

#[test]
fn defer_wins_over_shutdown_and_nothing_is_sent_after_it() {
    let mut driver = Driver::new("");
    driver.reach_helper();
    let answer = HelperAnswer { defer: true, shutdown: true, msg: "m".to_owned(), ..HelperAnswer::default() };
    driver.give(Input::Helper(Ok(answer)));
    assert_eq!(driver.outcome(), Some(&Outcome::Deferred { message: "m".to_owned() }));
}

#[test]
fn shutdown_counts_whether_the_node_agrees_or_not() {
    for (reply, confirmed) in
        [(ok(Action::Shutdown, json!({"message": "bye"})), true), (refused(Action::Shutdown, 1, "no"), false)]
    {
        let mut driver = Driver::new("");
        driver.reach_helper();
        let answer = HelperAnswer { shutdown: true, msg: "retired".to_owned(), ..HelperAnswer::default() };
        driver.give(Input::Helper(Ok(answer)));
        assert_eq!(driver.call().action, Action::Shutdown);
        driver.reply(Ok(reply));
        let message = "retired".to_owned();
        assert_eq!(driver.outcome(), Some(&Outcome::ShutDown { confirmed, message }));
    }
}

#[test]
fn a_node_that_a_rule_denies_is_refused_and_not_sent_anything() {
    let mut driver = Driver::new("");
    driver.reach_helper();
    let answer = HelperAnswer { denied: Some("stolen, says rule lost".to_owned()), ..HelperAnswer::default() };
    driver.give(Input::Helper(Ok(answer)));
    let refusal = Refusal { reason: "rule_denied", error: "stolen, says rule lost".to_owned() };
    assert_eq!(driver.outcome(), Some(&Outcome::Refused(refusal)));
}

#[test]
fn a_helper_failure_ends_the_attempt_with_its_reason() {
    let mut driver = Driver::new("");
    driver.reach_helper();
    let error = HelperError::Failed { command: "/h".to_owned(), status: "exit status 3".to_owned() };
    driver.give(Input::Helper(Err(error)));
    match driver.outcome() {
        Some(Outcome::HelperFailed { reason, error }) => {
            assert_eq!(*reason, "helper_exit");
            assert_eq!(error, "could not invoke configure helper: could not wait for /h: exit status 3");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn first_tries_share_a_document_and_second_ones_do_not() {
    let mut driver = Driver::new("jwt: true, pki: true");
    let mut shared = Vec::new();
    loop {
        shared.push((driver.call().action, driver.call().shared));
        driver.good();
        if driver.helper_request().is_some() {
            driver.give(Input::Helper(Ok(world().answer(NODE))));
        }
        if driver.outcome().is_some() {
            break;
        }
    }
    assert_eq!(
        shared,
        [
            (Action::Jwt, true),
            (Action::Inventory, true),
            (Action::GenCsr, false),
            (Action::Configure, false),
            (Action::Restart, true)
        ]
    );
    let mut retry = Driver::new("");
    retry.reply(Err("x".to_owned()));
    retry.now.mono = retry.wake().unwrap();
    retry.give(Input::Timer);
    assert!(!retry.call().shared, "the node has seen the shared request id");
    assert!(!Driver::with(rules(""), false).call().shared, "so has a node that was tried before");
}

#[test]
fn until_configure_a_flow_can_be_broken_off_and_then_not() {
    for action in [Action::Jwt, Action::Inventory, Action::GenCsr, Action::Configure, Action::Restart] {
        let mut driver = Driver::new("jwt: true, pki: true");
        driver.reach(action);
        assert_eq!(driver.flow.may_be_broken_off(), action.may_be_broken_off());
        driver.give(Input::Stop(Stop::Paused));
        match driver.outcome() {
            Some(Outcome::Interrupted { error }) => {
                assert!(action.may_be_broken_off());
                assert_eq!(*error, format!("provisioning is paused, cannot perform {}", action.label()));
            }
            None => assert!(!action.may_be_broken_off(), "{action:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_stop_while_the_helper_runs_waits_for_it_and_then_sends_nothing() {
    let mut driver = Driver::new("");
    driver.reach_helper();
    driver.give(Input::Stop(Stop::Draining));
    assert_eq!(driver.outcome(), None);
    driver.give(Input::Helper(Ok(world().plain_answer(NODE))));
    assert!(matches!(driver.outcome(), Some(Outcome::Interrupted { .. })));
}

#[test]
fn a_lost_connection_breaks_off_before_configure_and_is_sat_out_after_it() {
    let offline = || SendFault::NotConnected("not connected: gone".to_owned());
    let mut before = Driver::new("");
    let call = before.call().number;
    before.give(Input::SendFailed { call, fault: offline() });
    assert!(matches!(before.outcome(), Some(Outcome::Interrupted { .. })));

    let mut after = Driver::new("");
    after.reach(Action::Restart);
    for _ in 0..20 {
        let call = after.call().number;
        after.give(Input::SendFailed { call, fault: offline() });
        assert_eq!(after.outcome(), None, "tries are not used up while there is no connection");
        after.now.mono = after.wake().unwrap();
        after.give(Input::Timer);
    }
    after.good();
    assert!(matches!(after.outcome(), Some(Outcome::Provisioned { .. })));
}

#[test]
fn a_request_that_can_never_be_sent_is_not_repeated() {
    let mut driver = Driver::new("");
    driver.reach(Action::Configure);
    let call = driver.call().number;
    driver.give(Input::SendFailed { call, fault: SendFault::Impossible("too large".to_owned()) });
    match driver.outcome() {
        Some(Outcome::Failed { error }) => assert!(error.ends_with("configure failed: too large"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_budget_ends_an_attempt_but_waiting_for_the_helper_is_free() {
    let rules = Arc::new(Rules::new(&config("pki: true", "node_budget: 10s\n")).unwrap());
    let mut slow = Driver::with(Arc::clone(&rules), true);
    slow.reach(Action::GenCsr);
    assert_eq!(slow.starve().len(), 1);
    assert!(
        matches!(slow.outcome(), Some(Outcome::Failed { error }) if error.contains("node_budget")),
        "{:?}",
        slow.out
    );

    let mut queued = Driver::with(rules, true);
    queued.reach_helper();
    queued.now.mono += Duration::from_secs(500);
    queued.give(Input::Helper(Ok(world().answer(NODE))));
    assert_eq!(queued.call().action, Action::Configure);
}

#[test]
fn secrets_do_not_show() {
    let mut driver = Driver::new("jwt: true");
    assert!(!format!("{:?}", driver.out).contains(testing::SECRET));
    driver.reach_helper();
    assert!(!format!("{:?}", driver.out).contains(testing::SECRET));
    assert!(!format!("{:?}", driver.flow).contains(testing::SECRET));
}

/// Everything that may happen to a flow, in any order.
#[derive(Debug, Clone)]
enum Event {
    Good,
    Odd(u8),
    Fault,
    Status(u8),
    Late,
    SendFailed(bool),
    Helper(u8),
    Stop(u8),
    Wait(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Good),
        1 => (0..6_u8).prop_map(Event::Odd),
        1 => Just(Event::Fault),
        1 => (1..=255_u8).prop_map(Event::Status),
        1 => Just(Event::Late),
        1 => any::<bool>().prop_map(Event::SendFailed),
        3 => (0..5_u8).prop_map(Event::Helper),
        1 => (0..3_u8).prop_map(Event::Stop),
        2 => (0..600_u16).prop_map(Event::Wait),
    ]
}

proptest! {
    #[test]
    fn any_order_of_events_leads_to_one_end_and_never_stalls(events in proptest::collection::vec(event(), 0..60)) {
        let mut now = world().now();
        let mut flow = Flow::new(Arc::from(NODE), rules("jwt: true, pki: true"), true, 1, now);
        let (mut open, mut helper, mut wake, mut ended, mut configured) = (None, false, None, false, false);
        let mut pending = vec![Input::Start];
        let odd = [json!(null), json!([]), json!({"jwt": 1}), json!({"csr": "x"}), json!({"version": []}), json!(1)];
        for event in events {
            let call = open.unwrap_or((0, Action::Jwt));
            let reply = |reply| Input::Reply { call: call.0, reply };
            pending.push(match event {
                Event::Good => reply(Ok(ok(call.1, world().data(call.1, NODE)))),
                Event::Odd(index) => reply(Ok(ok(call.1, odd[usize::from(index)].clone()))),
                Event::Fault => reply(Err("odd".to_owned())),
                Event::Status(code) => reply(Ok(refused(call.1, code, "no"))),
                Event::Late => Input::Reply { call: call.0.wrapping_sub(1), reply: Err("late".to_owned()) },
                Event::SendFailed(true) => Input::SendFailed { call: call.0, fault: SendFault::Impossible("x".to_owned()) },
                Event::SendFailed(false) => Input::SendFailed { call: call.0, fault: SendFault::NotConnected("x".to_owned()) },
                Event::Helper(0) => Input::Helper(Err(HelperError::NotConfigured)),
                Event::Helper(1) => Input::Helper(Ok(HelperAnswer::default())),
                Event::Helper(2) => Input::Helper(Ok(HelperAnswer { defer: true, ..HelperAnswer::default() })),
                Event::Helper(3) => Input::Helper(Ok(HelperAnswer { shutdown: true, ..HelperAnswer::default() })),
                Event::Helper(_) => Input::Helper(Ok(world().answer(NODE))),
                Event::Stop(which) => Input::Stop([Stop::Paused, Stop::Draining, Stop::NodeGone][usize::from(which)]),
                Event::Wait(seconds) => {
                    now.mono += Duration::from_secs(u64::from(seconds));
                    Input::Timer
                },
            });
            for input in pending.drain(..) {
                let mut out = Vec::new();
                let helper_ran = matches!(input, Input::Helper(_));
                flow.handle(input, now, &mut out);
                if ended {
                    prop_assert!(out.is_empty(), "nothing follows the end: {:?}", out);
                }
                if helper_ran {
                    helper = false;
                }
                for output in out {
                    match output {
                        Output::Call(call) => {
                            configured |= call.action == Action::Configure;
                            open = Some((call.number, call.action));
                        },
                        Output::RunHelper(_) => helper = true,
                        Output::Wake(at) => wake = Some(at),
                        Output::Done(outcome) => {
                            prop_assert!(!ended, "one end only");
                            ended = true;
                            if configured {
                                prop_assert!(!matches!(outcome, Outcome::Interrupted { .. } | Outcome::Gone), "{:?}", outcome);
                            }
                        },
                        _ => {},
                    }
                }
            }
            prop_assert!(ended || helper || wake.is_some(), "a flow that is not over waits for something");
        }
    }
}

/// A provisioner that takes over from one that was killed does not configure a node a second time.
#[test]
fn a_node_that_only_waits_for_its_restart_is_restarted_and_nothing_else() {
    let mut driver = Driver::new("jwt: true, pki: true");
    let mut data = world().data(Action::Jwt, NODE);
    data["configured"] = true.into();
    driver.reply(Ok(ok(Action::Jwt, data)));
    assert_eq!(driver.call().action, Action::Restart);
    driver.good();
    assert_eq!(driver.outcome(), Some(&Outcome::Provisioned { home: NODE.into() }));
}

#[test]
fn a_node_that_is_about_to_restart_with_its_configuration_is_let_go() {
    let mut driver = Driver::new("jwt: true, pki: true");
    let mut leaving = ok(Action::Jwt, json!({}));
    (leaving.statuscode, leaving.statusmsg) = (1, "This server is configured and about to restart".into());
    driver.reply(Ok(leaving));
    assert_eq!(driver.outcome(), Some(&Outcome::Home));
}

/// Then one signed request serves all nodes; see `crate::requests`.
#[test]
fn a_node_whose_requests_are_for_its_identity_is_asked_without_a_name() {
    for (says, named) in [(true, false), (false, true)] {
        let mut driver = Driver::new("jwt: true, pki: true");
        let mut data = world().data(Action::Jwt, NODE);
        data["identity_csr"] = says.into();
        driver.reply(Ok(ok(Action::Jwt, data)));
        driver.good();
        let call = driver.call();
        assert_eq!(call.action, Action::GenCsr);
        assert_eq!(call.body.expose().contains(NODE), named);
        assert_eq!(call.shared, says);
        driver.good();
        assert_eq!(driver.outcome(), None, "the request is for the identity, whoever named it");
    }
}
