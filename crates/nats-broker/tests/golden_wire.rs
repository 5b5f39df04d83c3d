//! The wire scripts that nats-server answered, against ours.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::wire::{expand, receive, run_case};
use common::{Raw, golden_lines, open_broker, start, testdata};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Cases that ours answers differently on purpose or has no part for; docs/differences/nats-broker.md says why.
fn is_skipped(case: &str) -> bool {
    case.starts_with("bcrypt")
        || case.starts_with("nkey/")
        || ["ctl-connect-line-4105", "pub-cr-inside", "service-wildcard-map"].contains(&case)
}

/// What ours answers instead, where that is another answer to the same script.
fn adapt(case: &mut Value) {
    let name = case["case"].as_str().unwrap().to_owned();
    let mut answer = |step: usize, text: &str| {
        assert!(case["steps"][step].get("recv").is_some(), "{name}: step {step} is no answer");
        case["steps"][step]["recv"] = json!(text);
    };
    let denied = "-ERR 'Permissions Violation for Publish to \"in.1\"'\r\n";
    match name.as_str() {
        "pub-size-leading-zeros" | "pub-size-9-digits-zeros" => answer(3, "MSG t.a 1 5\r\nhello\r\n"),
        // Each delivery adds its answers; the budget is never used up by deliveries.
        "two-requests-same-reply" | "overlapping-subs" => {
            answer(9, &format!("{denied}PONG\r\n"));
            case["steps"].as_array_mut().unwrap().push(json!(
                {"on": "q", "recv": "MSG in.1 1 1\r\n1\r\nMSG in.1 1 1\r\n2\r\n"}
            ));
        }
        // A deny entry wins over a response budget.
        "deny-and-response" => {
            answer(9, &format!("{denied}-ERR 'Permissions Violation for Publish to \"zz\"'\r\nPONG\r\n"));
            case["steps"].as_array_mut().unwrap().pop();
        }
        _ => {}
    }
}

async fn run_file(file: &str, expected: (usize, usize)) {
    let mut running = JoinSet::new();
    let mut skipped = 0;
    for mut case in golden_lines(file) {
        let name = case["case"].as_str().unwrap().to_owned();
        if is_skipped(&name) {
            skipped += 1;
            continue;
        }
        adapt(&mut case);
        running.spawn(async move {
            let outcome = if case["steps"].as_array().unwrap().iter().any(|step| step.get("on").is_some()) {
                run_case(&case).await
            } else {
                run_service_case(&case).await
            };
            outcome.map_err(|error| format!("{name}: {error}"))
        });
    }
    let ran = running.len();
    let failures: Vec<String> = running.join_all().await.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{} of {ran} cases failed:\n{}", failures.len(), failures.join("\n"));
    assert_eq!((ran, skipped), expected, "{file}: cases run and left out");
}

/// Cases in the short form: one importer, one exporter.
async fn run_service_case(case: &Value) -> Result<(), String> {
    let setup = common::configs::setup(case["config"].as_str().unwrap()).unwrap();
    let broker = start(setup.config, setup.accounts, setup.authenticator);
    let addr = broker.local_addr(0).unwrap();
    let (exporter_user, importer_user) = match case["case"].as_str().unwrap() {
        "service-two-hops" => ("a", "c"),
        "service-local-subscriber-too" => ("b", "c"),
        _ => ("a", "b"),
    };
    let mut exporter = Raw::connect(addr).await;
    let mut importer = Raw::connect(addr).await;
    for (raw, user) in [(&mut exporter, exporter_user), (&mut importer, importer_user)] {
        raw.send(common::connect_as(user, "x")).await;
        raw.sync().await;
    }
    importer.send("SUB in.* 1\r\n").await;
    importer.sync().await;
    let mut reply_subject = String::new();
    for (number, step) in case["steps"].as_array().unwrap().iter().enumerate() {
        let (what, value) = step.as_object().unwrap().iter().next().unwrap();
        if what == "wait_ms" {
            tokio::time::sleep(std::time::Duration::from_millis(value.as_u64().unwrap())).await;
            continue;
        }
        let text = expand(value.as_str().unwrap());
        match what.as_str() {
            "exporter_subscribes" => {
                exporter.send(format!("SUB {text} 1\r\nSUB lat.rep 2\r\nSUB lat2.rep 3\r\n")).await;
                exporter.sync().await;
            }
            "importer_sends" => importer.send(&text).await,
            "exporter_sends" => {
                exporter.send(text.replace("RP", &reply_subject)).await;
                exporter.send("PING\r\n").await;
            }
            "exporter_receives" => {
                // The length of the request info depends on the round trip time.
                let text = text.replace(" 57 59\r\n", " <n> <n>\r\n").replace(".hHzfxbIt.", ".<8>.");
                let text = in_our_order(&text);
                if text.is_empty() {
                    exporter.sync().await;
                    continue;
                }
                note_reply(&mut exporter, &mut reply_subject).await;
                receive(&mut exporter, text.as_bytes()).await.map_err(|error| format!("step {number}: {error}"))?;
            }
            "importer_receives" => {
                importer.send("PING\r\n").await;
                let text = format!("{text}PONG\r\n");
                receive(&mut importer, text.as_bytes()).await.map_err(|error| format!("step {number}: {error}"))?;
            }
            other => return Err(format!("unknown step {other}")),
        }
    }
    broker.shutdown().await;
    Ok(())
}

/// A latency report has no empty reply subject and comes before the PONG that follows the answer; its length differs.
fn in_our_order(text: &str) -> String {
    let Some((before, report)) = text.split_once("MSG lat2.rep 3  ") else { return text.to_owned() };
    let (_, report) = report.split_once("\r\n").unwrap();
    format!("MSG lat2.rep 3 <n>\r\n{report}{before}")
}

/// Finds the reply subject of the request that comes next, without taking it.
async fn note_reply(exporter: &mut Raw, reply_subject: &mut String) {
    while !exporter.received().ends_with(b"\r\n") && exporter.read_more(common::DEADLINE / 4).await {}
    let text = String::from_utf8_lossy(exporter.received()).into_owned();
    if let Some(at) = text.find("_R_.") {
        *reply_subject = text[at..].split(' ').next().unwrap().to_owned();
    }
}

macro_rules! golden {
    ($($name:ident: $file:literal, $ran:literal, $skipped:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            run_file($file, ($ran, $skipped)).await;
        }
    )*};
}

golden! {
    wire_connect: "wire-connect.jsonl", 64, 0;
    wire_parse: "wire-parse.jsonl", 113, 2;
    wire_no_responders: "wire-no-responders.jsonl", 41, 0;
    wire_auth: "wire-auth.jsonl", 34, 18;
    wire_responses: "wire-responses.jsonl", 13, 0;
    wire_accounts: "wire-accounts.jsonl", 28, 1;
    wire_limits: "wire-limits.jsonl", 14, 0;
    wire_reconnect_account: "wire-reconnect-account.jsonl", 1, 0;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wire_split_at_every_byte() {
    let golden: Value = serde_json::from_slice(&std::fs::read(testdata("wire-split.json")).unwrap()).unwrap();
    let sent = golden["send"].as_str().unwrap().to_owned();
    let expected = golden["recv"].as_str().unwrap().to_owned();
    let broker = open_broker();
    let addr = broker.local_addr(0).unwrap();
    // One connection after the other: all of them use the same subjects.
    for cut in 1..sent.len() {
        let mut raw = Raw::connect(addr).await;
        raw.send(&sent[..cut]).await;
        tokio::task::yield_now().await;
        raw.send(&sent[cut..]).await;
        receive(&mut raw, expected.as_bytes()).await.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        raw.sync().await;
        raw.send("UNSUB 1\r\n").await;
        raw.sync().await;
    }
    let mut raw = Raw::connect(addr).await;
    for byte in sent.bytes() {
        raw.send([byte]).await;
    }
    receive(&mut raw, expected.as_bytes()).await.unwrap();
    raw.sync().await;
    broker.shutdown().await;
}

#[test]
fn every_recorded_configuration_has_its_setup_by_hand() {
    let mut names: Vec<String> = std::fs::read_dir(testdata("configs"))
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names.len(), 21);
    // Those with hashes, keys, monitoring and traces are the program's (`nats-broker-program`).
    names.retain(|name| !name.starts_with("bcrypt") && !["monitoring", "nkey", "trace"].contains(&name.as_str()));
    assert_eq!(names.len(), 14);
    for name in names {
        assert!(common::configs::setup(&name).is_some(), "{name}");
    }
}
