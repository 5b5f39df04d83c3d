//! The statistics port: names, labels and types as the original's pages have them.
#![allow(clippy::unwrap_used)]

#[path = "common/golden.rs"]
mod golden;
#[path = "common/lab.rs"]
mod lab;
#[path = "common/raw.rs"]
mod raw;

use std::collections::{BTreeMap, BTreeSet};

use choria_security::tls;
use lab::Lab;
use serde_json::Value;

/// Metric families of the original that a broker without Go, streams and outgoing connections does not have.
fn left_out(name: &str) -> Option<&'static str> {
    let families = [
        ("go_", "figures of the Go runtime"),
        ("promhttp_", "figures of the Go exporter"),
        ("process_network_", "of the whole host, not of this process"),
        ("process_virtual_memory_max_bytes", "a limit that nobody sets"),
        ("choria_connector_", "this broker connects to nothing"),
        ("choria_protocol_", "this broker does not read messages of the protocol"),
        ("choria_network_stream_", "Streams come later"),
    ];
    families.into_iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, reason)| reason)
}

#[tokio::test]
async fn the_dashboard_shows_what_the_broker_has() {
    let lab = Lab::new();
    let broker = lab.start(&lab::stats()).await;
    // Series by account and by kind of violation exist once something happened.
    let token = lab.token(std::time::Duration::from_secs(3600));
    let node = lab::node(&broker, "n1.example.net", &token).await.unwrap();
    node.publish("forbidden", "x".into()).await.unwrap();
    node.flush().await.unwrap();
    lab::until("the violation was counted", async || {
        lab::metric(&broker, "choria_broker_violations{reason=\"publish\",identity=\"broker.example.net\"}").await > 0
    })
    .await;
    let (_, page) = lab::get(broker.stats_addr.unwrap(), "/choria/prometheus").await;
    let mut used = choria_testkit::dashboard::used("provisioner.json");
    used.retain(|used| used.metric.starts_with("choria_broker_") || used.metric.starts_with("choria_network_"));
    assert!(used.len() > 5, "{used:?}");
    choria_testkit::dashboard::assert_shown(&used, &page);
}

/// Family name -> type, and the label names of its series.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let (labels, _) = labels.split_once('}').unwrap();
            let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            families.get_mut(&current).unwrap().1.extend(names);
        }
    }
    families
}

async fn start(lab: &Lab) -> choria_broker::Handle {
    lab.start(&lab::stats()).await
}

#[tokio::test]
async fn golden_prometheus_names_types_and_labels() {
    let lab = Lab::new();
    let broker = start(&lab).await;
    let member = lab::member(&broker, &lab.member("m.mcollective"), "m").await.unwrap();
    member.flush().await.unwrap();
    let recorded = families(&golden::text("prometheus.txt"));
    for path in ["/choria/prometheus", "/choria/metrics"] {
        let (head, text) = lab::get(broker.stats_addr.unwrap(), path).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("content-type: text/plain"), "{head}");
        let ours = families(&text);
        let (mut same, mut left) = (0, 0);
        for (name, family) in &recorded {
            if left_out(name).is_some() {
                left += 1;
            } else {
                assert_eq!(ours.get(name), Some(family), "{name}");
                same += 1;
            }
        }
        assert_eq!((same, left, recorded.len()), (18, 51, 69));
        for name in ours.keys().filter(|name| !recorded.contains_key(*name)) {
            assert!(name.starts_with("choria_broker_"), "{name} is neither the original's nor named as ours");
        }
    }
    let connections = format!("choria_network_connections{{identity=\"{}\"}}", lab::IDENTITY);
    assert_eq!(lab::metric(&broker, &connections).await, 1);
}

#[tokio::test]
async fn instance_page_has_the_original_keys() {
    let lab = Lab::new();
    let broker = start(&lab).await;
    for path in ["/choria/", "/choria", "/choria/anything/below"] {
        let (head, body) = lab::get(broker.stats_addr.unwrap(), path).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("content-type: text/plain"), "{head}");
        let page: Value = serde_json::from_str(&body).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&page), ["build", "system", "config_file", "identity"]);
        assert_eq!(
            keys(&page["build"]),
            ["version", "sha", "build_date", "license", "tls", "secure", "go", "max_broker_clients"]
        );
        assert_eq!(keys(&page["system"]), ["rss", "cpu_percent", "cpu_cores"]);
        assert_eq!(page["identity"], lab::IDENTITY);
        assert_eq!(page["build"]["max_broker_clients"], 50_000);
        assert_eq!(page["config_file"], lab.path("broker.conf").to_str().unwrap());
        assert!(page["system"]["rss"].as_u64().unwrap() > 0);
    }
}

#[tokio::test]
async fn monitoring_pages_of_the_network_broker_are_on_the_same_port() {
    let lab = Lab::new();
    let broker = start(&lab).await;
    let token = lab.token(lab::DEADLINE);
    let _node = lab::node(&broker, "n1.example.net", &token).await.unwrap();
    let address = broker.stats_addr.unwrap();
    let varz: Value = serde_json::from_str(&lab::get(address, "/varz").await.1).unwrap();
    assert_eq!((&varz["server_name"], &varz["system_account"]), (&lab::IDENTITY.into(), &"system".into()));
    assert_eq!((&varz["cluster"]["name"], &varz["max_connections"]), (&"CHORIA".into(), &50_000.into()));
    let (head, text) = lab::get(address, "/connz?auth=1").await;
    assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
    let connz: Value = serde_json::from_str(&text).unwrap();
    let connection = &connz["connections"][0];
    assert_eq!((&connection["name"], &connection["account"]), (&"n1.example.net".into(), &"provisioning".into()));
    assert_eq!(connection["authorized_user"], "[REDACTED]");
    assert!(!text.contains(&token), "the token is a secret");
    let healthz: Value = serde_json::from_str(&lab::get(address, "/healthz").await.1).unwrap();
    assert_eq!(healthz["status"], "ok");
}

#[tokio::test]
async fn accounts_are_counted_apart() {
    let lab = Lab::new();
    let broker = start(&lab).await;
    let token = lab.token(lab::DEADLINE);
    let node = lab::node(&broker, "n1.example.net", &token).await.unwrap();
    let member = lab::member(&broker, &lab.member("m.mcollective"), "m").await.unwrap();
    let mut heard = member.subscribe("hello").await.unwrap();
    member.publish("hello", "12345".into()).await.unwrap();
    futures_util::StreamExt::next(&mut heard).await.unwrap();
    member.flush().await.unwrap();
    let figure = async |name: &str, account: &str| {
        let labels = format!("account=\"{account}\",identity=\"{}\"", lab::IDENTITY);
        lab::metric(&broker, &format!("choria_broker_account_{name}{{{labels}}}")).await
    };
    for (name, choria, provisioning) in [
        ("connections", 1, 1),
        ("subscriptions", 1, 0),
        ("in_msgs", 1, 0),
        ("in_bytes", 5, 0),
        ("out_msgs", 1, 0),
        ("out_bytes", 5, 0),
    ] {
        let figures = (figure(name, "choria").await, figure(name, "provisioning").await, figure(name, "system").await);
        assert_eq!(figures, (choria, provisioning, 0), "{name}");
    }

    // What was carried stays, also that of an account which a reload takes away.
    let file = lab.path("broker.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    let without: String =
        text.lines().filter(|line| !line.contains("provisioning")).map(|l| format!("{l}\n")).collect();
    std::fs::write(&file, without).unwrap();
    broker.reload().await.unwrap();
    drop((member, node, heard));
    lab::until("the connections are gone", async || figure("connections", "choria").await == 0).await;
    assert_eq!((figure("in_bytes", "choria").await, figure("connections", "provisioning").await), (5, 0));
}

/// Every family of ours says what it is.
#[tokio::test]
async fn our_families_have_help_texts() {
    let lab = Lab::new();
    let broker = start(&lab).await;
    let (_, text) = lab::get(broker.stats_addr.unwrap(), "/choria/prometheus").await;
    let ours: Vec<_> = families(&text).into_keys().filter(|name| name.starts_with("choria_broker_")).collect();
    assert!(ours.len() > 12, "{ours:?}");
    for name in ours {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} in\n{text}");
    }
}

#[tokio::test]
async fn whoever_does_not_read_is_counted() {
    let lab = Lab::new();
    let broker = lab.start(&format!("{}plugin.choria.network.write_deadline = 100ms\n", lab::stats())).await;
    let member = lab.member("m.mcollective");
    let mut deaf = raw::Raw::member(broker.client_addr, &member).await;
    assert_eq!(deaf.ask("SUB flood 1\r\n").await, Vec::<String>::new());
    let publisher = lab::member(&broker, &member, "p").await.unwrap();
    let labels = format!("account=\"choria\",cause=\"write_deadline\",identity=\"{}\"", lab::IDENTITY);
    lab::until("the slow consumer is counted", async || {
        publisher.publish("flood", vec![0; 500_000].into()).await.unwrap();
        publisher.flush().await.unwrap();
        lab::metric(&broker, &format!("choria_broker_slow_consumers{{{labels}}}")).await == 1
    })
    .await;
    let all = format!("choria_network_slow_consumers{{identity=\"{}\"}}", lab::IDENTITY);
    assert_eq!(lab::metric(&broker, &all).await, 1);
}

/// A reader that never finishes its request does not keep the broker from stopping.
#[tokio::test]
async fn a_hanging_reader_does_not_hold_the_shutdown() {
    let lab = Lab::new();
    let broker = start(&lab).await;
    let mut hanging = tokio::net::TcpStream::connect(broker.stats_addr.unwrap()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut hanging, b"GET /varz HTTP/1.1\r\n").await.unwrap();
    tokio::time::timeout(lab::DEADLINE, broker.shutdown()).await.expect("stops").unwrap();
}

#[tokio::test]
async fn refusals_below_the_policy_are_counted_too() {
    let lab = Lab::new();
    let broker = lab.start(&format!("{}plugin.choria.network.auth_timeout = 100ms\n", lab::stats())).await;
    // INFO, TLS, and then silence.
    let socket = tokio::net::TcpStream::connect(broker.client_addr).await.unwrap();
    let mut reader = tokio::io::BufReader::new(socket);
    tokio::io::AsyncBufReadExt::read_line(&mut reader, &mut String::new()).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let connector = tokio_rustls::TlsConnector::from(tls::anonymous_client_config());
    let _silent = connector.connect(name, reader.into_inner()).await.unwrap();
    let series = format!("choria_broker_refused{{reason=\"auth_timeout\",identity=\"{}\"}}", lab::IDENTITY);
    lab::until("the timeout is counted", async || lab::metric(&broker, &series).await == 1).await;
}
