//! Subjects that are replaced when they are published, and what is refused about them, exports and imports.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::configs::{allow, mapping, setup, weighted};
use common::notes::{Notes, accounts, client, users};
use common::{CONNECT, Raw, connect_as, golden_lines, start};
use nats_broker::{
    AccountConfig, Broker, BrokerConfig, LatencySampling, OpenAuthenticator, Permissions, ResponseKind, ServiceExport,
    ServiceImport, ServiceLatency, StreamExport, StreamImport, SubjectMapping,
};

/// The subjects of the messages that a `>` subscriber gets for some publishes of its own.
async fn delivered(raw: &mut Raw, subject: &str, times: usize) -> Vec<String> {
    raw.send(format!("PUB {subject} 0\r\n\r\n").repeat(times)).await;
    let mut subjects = Vec::with_capacity(times);
    for _ in 0..times {
        let line = raw.line().await;
        subjects.push(line.split(' ').nth(1).unwrap().to_owned());
        assert_eq!(raw.line().await, "");
    }
    subjects
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_mappings() {
    let setup = setup("mappings").unwrap();
    let broker = start(setup.config, setup.accounts, setup.authenticator);
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    raw.send(CONNECT).await;
    raw.send("SUB > 1\r\n").await;
    raw.sync().await;
    let mut ran = 0;
    for row in golden_lines("mappings.jsonl") {
        let subject = row["publish"].as_str().unwrap();
        ran += 1;
        match row.get("delivered").map(|wanted| wanted.as_str().unwrap()) {
            // The number is chance.
            Some("r.0.z") => {
                let got = delivered(&mut raw, subject, 100).await;
                let mut all: Vec<&str> = got.iter().map(|subject| subject.split('.').nth(1).unwrap()).collect();
                all.sort_unstable();
                all.dedup();
                assert_eq!(all, ["0", "1", "2", "3"], "{subject}");
            }
            Some(wanted) => assert_eq!(delivered(&mut raw, subject, 1).await, [wanted], "{subject}"),
            None => {
                let times = row["times"].as_u64().unwrap() as usize;
                let mut counts = BTreeMap::<String, f64>::new();
                for subject in delivered(&mut raw, subject, times).await {
                    *counts.entry(subject).or_default() += 1.0;
                }
                for (wanted, count) in row["delivered_counts"].as_object().unwrap() {
                    let (count, got) = (count.as_f64().unwrap(), counts.remove(wanted).unwrap());
                    // Both are samples of 2000.
                    assert!((got - count).abs() < 150.0, "{wanted}: {got}, recorded {count}");
                }
                assert!(counts.is_empty(), "{counts:?}");
            }
        }
    }
    assert_eq!(ran, 45);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_are_those_of_the_mapped_subject_and_a_503_names_it() {
    let mut accounts = accounts();
    accounts[0].mappings = vec![mapping("in.*", "out.$1"), mapping("open", "closed")];
    let users = users(&["all"]).user("some", "x", "A", allow(&["out.>", "open"], &["in.>"]));
    let broker = start(BrokerConfig::default(), accounts, Arc::new(users));
    let mut some = client(&broker, "some").await;
    some.send("SUB in.1 1\r\nPUB in.1 in.1 0\r\n\r\nPUB open 0\r\n\r\n").await;
    some.expect("HMSG in.1 1 37 37\r\nNATS/1.0 503\r\nNats-Subject: out.1\r\n\r\n\r\n").await;
    some.expect("-ERR 'Permissions Violation for Publish to \"closed\"'\r\n").await;
    // Neither subscriptions nor replies are mapped, and nothing twice.
    let mut all = client(&broker, "all").await;
    all.send("SUB out.* 1\r\nSUB in.> 2\r\nSUB closed 3\r\n").await;
    all.sync().await;
    some.send("PUB in.2 in.9 2\r\nhi\r\nPUB in.2 in.8 2\r\nho\r\nPUB out.in 0\r\n\r\n").await;
    some.sync().await;
    all.expect("MSG out.2 1 in.9 2\r\nhi\r\nMSG out.2 1 in.8 2\r\nho\r\nMSG out.in 1 0\r\n\r\n").await;
    // From inside, too.
    broker.publish("A", "open", None, None, b"").unwrap();
    all.expect("MSG closed 3 0\r\n\r\n").await;
    all.sync().await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_mapped_in_the_exporter_and_imported_messages_are_not_mapped_again() {
    let mut exporter = AccountConfig::new("A").export(ServiceExport::new("svc")).export(StreamExport::new("s.>"));
    exporter.mappings = vec![mapping("svc", "svc2"), mapping("s.m", "s.n"), mapping(">", "swallowed.>")];
    let mut importer =
        AccountConfig::new("B").import(ServiceImport::new("A", "svc")).import(StreamImport::new("A", "s.>"));
    importer.mappings = vec![mapping("pre", "svc"), mapping("s.n", "s.o")];
    let users = users(&["a"]).user("b", "x", "B", Permissions::unlimited());
    let broker = start(BrokerConfig::default(), vec![exporter, importer], Arc::new(users));
    let mut a = client(&broker, "a").await;
    a.send("SUB svc2 1\r\n").await;
    a.sync().await;
    let mut b = client(&broker, "b").await;
    b.send("SUB in 1\r\nSUB s.> 2\r\nPUB pre in 0\r\n\r\n").await;
    let head = a.line().await;
    let reply = head.split(' ').nth(3).unwrap().to_owned();
    assert!(head.starts_with("HMSG svc2 1 _R_."), "{head}");
    while !a.line().await.is_empty() {}
    a.line().await;
    a.send(format!("PUB {reply} 2\r\nok\r\nPUB s.m 0\r\n\r\n")).await;
    b.expect("MSG in 1 2\r\nok\r\nMSG s.n 2 0\r\n\r\n").await;
    broker.shutdown().await;
}

/// Whether a broker starts with these accounts; the error otherwise.
fn starts(accounts: Vec<AccountConfig>) -> Result<(), String> {
    let notes = Arc::new(Notes::default());
    let open = Arc::new(OpenAuthenticator::default());
    Broker::start(BrokerConfig::default(), accounts, open, vec![], notes).map(drop).map_err(|error| error.to_string())
}

/// The mappings of a recorded configuration; `None`: a matter of the file's form.
fn recorded_mappings(case: &str) -> Option<Vec<SubjectMapping>> {
    let one = |source: &str, target: &str| Some(vec![mapping(source, target)]);
    match case {
        "weights-over-100" => Some(vec![weighted("a", &[("b", 60), ("c", 50)])]),
        "weight-0" => Some(vec![weighted("a", &[("b", 0)])]),
        "weight-101" => Some(vec![weighted("a", &[("b", 101)])]),
        "duplicate-destination" => Some(vec![weighted("a", &[("b", 10), ("b", 10)])]),
        "no-destination" => Some(vec![weighted("a", &[])]),
        "unknown-function" => one("a.*", "b.{{nope(1)}}"),
        "wildcard-index-too-big" => one("a.*", "b.{{wildcard(2)}}"),
        "wildcard-unused" => one("a.*.*", "b.$1"),
        "wildcard-not-in-source" => one("a", "b.$1"),
        "gt-only-source" => one("a.>", "b"),
        "gt-only-destination" => one("a", "b.>"),
        "destination-star" => one("a.*", "b.*"),
        "bad-source" => one("a..b", "c"),
        "bad-destination" => one("a", "b..c"),
        "partition-zero" => one("a.*", "b.{{partition(0,1)}}"),
        "partition-missing-arg" => one("a.*", "b.{{partition()}}"),
        "wildcard-missing-arg" => one("a.*", "b.{{wildcard()}}"),
        "random-zero" => one("a.*", "b.{{random(0)}}.$1"),
        "split-missing" => one("a.*", "b.{{split(1)}}"),
        "unclosed" => one("a.*", "b.{{wildcard(1)"),
        "dollar-2" => one("a.*", "b.$2"),
        "mapping-cycle" => Some(vec![mapping("a", "b"), mapping("b", "a")]),
        "fn-mid-token" => one("a.*", "b.x{{wildcard(1)}}"),
        _ => None,
    }
}

#[tokio::test]
async fn golden_mappings_check() {
    // Taken by nats-server although they can only be a mistake.
    let useless = ["weight-0", "no-destination", "partition-zero", "random-zero", "unclosed"];
    let mut ran = 0;
    for row in golden_lines("config-mappings-check.jsonl") {
        let case = row["case"].as_str().unwrap();
        let mappings = recorded_mappings(case).unwrap_or_else(|| panic!("unknown case {case}"));
        let outcome = starts(vec![AccountConfig { mappings, ..AccountConfig::new("$G") }]);
        let expected = row["exit"] == 0 && !useless.contains(&case);
        assert_eq!(outcome.is_ok(), expected, "{case}: {outcome:?}");
        ran += 1;
    }
    assert_eq!(ran, 23);
}

/// The accounts of a recorded configuration; `None`: about users or the file's form.
fn recorded_accounts(case: &str) -> Option<Vec<AccountConfig>> {
    let (a, b, c) = (|| AccountConfig::new("A"), || AccountConfig::new("B"), || AccountConfig::new("C"));
    let (service, stream) = (|subject: &str| ServiceExport::new(subject), |subject: &str| StreamExport::new(subject));
    let ask = |from: &str, subject: &str| ServiceImport::new(from, subject);
    let hear = |from: &str, subject: &str| StreamImport::new(from, subject);
    let measured = |response, sampling, subject: &str| {
        let latency = Some(ServiceLatency { subject: subject.into(), sampling });
        vec![a().export(ServiceExport { response, latency, ..service("a") })]
    };
    let once = ResponseKind::Singleton;
    Some(match case {
        "ok" => vec![a().export(service("a")), b().import(ask("A", "a"))],
        "cycle-two-services" => vec![
            a().export(service("a")).import(ask("B", "b").to("a")),
            b().export(service("b")).import(ask("A", "a").to("b")),
        ],
        "cycle-wildcard" => vec![
            a().export(service("a.>")).import(ask("B", "b.x").to("a.x")),
            b().export(service("b.>")).import(ask("A", "a.x").to("b.x")),
        ],
        "cycle-three" => vec![
            a().export(service("s")).import(ask("C", "s")),
            b().export(service("s")).import(ask("A", "s")),
            c().export(service("s")).import(ask("B", "s")),
        ],
        "cycle-stream-two" => {
            vec![a().export(stream("s")).import(hear("B", "s")), b().export(stream("s")).import(hear("A", "s"))]
        }
        "stream-both-ways-with-prefix" => vec![
            a().export(stream("s")).import(hear("B", "s").to("fb.s")),
            b().export(stream("s")).import(hear("A", "s").to("fa.s")),
        ],
        "import-self" => vec![a().export(service("a")).import(ask("A", "a"))],
        "import-not-exported" => vec![a(), b().import(ask("A", "a"))],
        "import-stream-not-exported" => vec![a(), b().import(hear("A", "a"))],
        "import-private-not-listed" => {
            let private = ServiceExport { accounts: Some(vec!["C".into()]), ..service("a") };
            vec![a().export(private), b().import(ask("A", "a")), c()]
        }
        "import-unknown-account" => vec![b().import(ask("Z", "a"))],
        "import-subset-of-export" => vec![a().export(service("a.*")), b().import(ask("A", "a.x"))],
        "import-superset-of-export" => vec![a().export(service("a.*")), b().import(ask("A", "a.>"))],
        "duplicate-service-import" => {
            vec![a().export(service("a")), b().import(ask("A", "a")).import(ask("A", "a"))]
        }
        "overlapping-service-import-two-exporters" => {
            vec![a().export(service("a")), c().export(service("a")), b().import(ask("A", "a")).import(ask("C", "a"))]
        }
        "duplicate-stream-import" => {
            vec![a().export(stream("a")), b().import(hear("A", "a")).import(hear("A", "a"))]
        }
        "service-wildcard-to-literal" => vec![a().export(service("a.*")), b().import(ask("A", "a.*").to("b"))],
        "stream-wildcard-to-wrong-count" => {
            vec![a().export(stream("a.*.*")), b().import(hear("A", "a.*.*").to("b.$1"))]
        }
        "latency-on-response-stream" => measured(ResponseKind::Stream, LatencySampling::Percent(100), "l"),
        "latency-bad-sampling" => measured(once, LatencySampling::Percent(101), "l"),
        "latency-wildcard-subject" => measured(once, LatencySampling::Percent(10), "l.*"),
        // Users, tokens, permissions and reserved names are the embedder's; prefixes are a matter of the file; settings of
        // responses do not fit into a stream export here.
        _ => return None,
    })
}

#[tokio::test]
async fn golden_accounts_check() {
    let (mut ran, mut left_out) = (0, 0);
    for row in golden_lines("config-accounts-check.jsonl") {
        let case = row["case"].as_str().unwrap();
        let Some(accounts) = recorded_accounts(case) else {
            left_out += 1;
            continue;
        };
        let outcome = starts(accounts);
        // An account that imports from itself asks for nothing that it does not have.
        let expected = row["exit"] == 0 && case != "import-self";
        assert_eq!(outcome.is_ok(), expected, "{case}: {outcome:?}");
        ran += 1;
    }
    assert_eq!((ran, left_out), (21, 29));
    let config = BrokerConfig { system_account: Some("Z".into()), ..BrokerConfig::default() };
    let error =
        Broker::start(config, accounts(), Arc::new(users(&[])), vec![], Arc::new(Notes::default())).unwrap_err();
    assert_eq!(error.to_string(), "system account \"Z\" is not configured");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verbose_client_hears_once_of_each_message_whatever_it_is_mapped_to() {
    let mut accounts = accounts();
    accounts[0].mappings = vec![weighted("a", &[("b", 50), ("c", 50)])];
    let broker = start(BrokerConfig::default(), accounts, Arc::new(users(&["u"])));
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    raw.send(connect_as("u", "x").replace("\"verbose\":false", "\"verbose\":true")).await;
    raw.send("PUB a 0\r\n\r\nPUB a 0\r\n\r\n").await;
    raw.expect("+OK\r\n+OK\r\n+OK\r\n").await;
    raw.sync().await;
    broker.shutdown().await;
}
