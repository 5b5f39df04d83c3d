//! What INFO says, and what follows from it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use common::{Raw, golden_lines, start};
use nats_broker::{
    AccountConfig, Authenticator, Broker, BrokerConfig, ConnectRequest, Grant, Listener, OpenAuthenticator,
    Permissions, Refusal, StaticAuthenticator,
};
use serde_json::Value;

/// Wants a nonce to be signed.
struct Nonces;

#[async_trait]
impl Authenticator for Nonces {
    async fn authenticate(&self, _: ConnectRequest) -> Result<Grant, Refusal> {
        Ok(Grant::new("$G"))
    }

    fn wants_nonce(&self) -> bool {
        true
    }
}

/// The configurations of the INFO samples that this broker has.
fn sample_broker(case: &str) -> Option<Broker> {
    let mut config = BrokerConfig { server_name: "one".into(), ..BrokerConfig::default() };
    let free = Permissions::unlimited;
    let users = StaticAuthenticator::new();
    let g = vec![AccountConfig::new("$G")];
    Some(match case {
        "open" => start(config, g, Arc::new(OpenAuthenticator::default())),
        "token" => start(config, g, Arc::new(users.token("t", "$G", free()))),
        "no-auth-user" => start(config, g, Arc::new(users.user("u", "p", "$G", free()).no_auth_user("u"))),
        "system-account" => {
            config.system_account = Some("SYS".into());
            start(config, vec![AccountConfig::new("SYS")], Arc::new(users.user("u", "p", "SYS", free())))
        }
        "account-with-payload-limit" => {
            let account = AccountConfig { max_payload: Some(2048), ..AccountConfig::new("A") };
            start(config, vec![account], Arc::new(users.user("u", "p", "A", free())))
        }
        "client-advertise" => {
            config.client_advertise = Some("broker.example.net:4242".into());
            start(config, g, Arc::new(OpenAuthenticator::default()))
        }
        "cluster-name-only" => {
            config.cluster_name = Some("C1".into());
            start(config, g, Arc::new(OpenAuthenticator::default()))
        }
        "no-headers" => {
            config.headers = false;
            start(config, g, Arc::new(OpenAuthenticator::default()))
        }
        "nkey" => start(config, g, Arc::new(Nonces)),
        _ => return None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn info_has_the_fields_of_the_reference_in_its_order() {
    let mut rows = 0;
    for row in golden_lines("info-samples.jsonl") {
        let case = row["case"].as_str().unwrap();
        let Some(broker) = sample_broker(case) else {
            assert_eq!(case, "jetstream");
            continue;
        };
        let (mut raw, mut info) = Raw::connect_info(broker.local_addr(0).unwrap()).await;
        if row["when"] == "after first PONG" {
            let token = if case == "token" { "\"auth_token\":\"t\"," } else { "" };
            let user = if case.contains("account") { "\"user\":\"u\",\"pass\":\"p\"," } else { "" };
            raw.send(format!("CONNECT {{{token}{user}\"verbose\":false,\"protocol\":1}}\r\nPING\r\n")).await;
            raw.expect("PONG\r\n").await;
            info = raw.line().await;
        }
        let ours: serde_json::Map<String, Value> = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
        let keys: Vec<&str> = ours.keys().map(String::as_str).collect();
        // git_commit and xkey say nothing to clients; ours has neither.
        let golden: Vec<&str> = row["keys_in_order"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .filter(|key| !["git_commit", "xkey"].contains(key))
            .collect();
        assert_eq!(keys, golden, "{case} {}", row["when"]);
        for key in
            ["headers", "max_payload", "connect_info", "auth_required", "acc_is_sys", "cluster", "remote_account"]
        {
            let golden = row["info"].get(key);
            if case != "account-with-payload-limit" && golden.is_some_and(|golden| !golden.to_string().contains('<')) {
                let is_name = key == "remote_account" || key == "cluster";
                assert!(is_name || ours.get(key) == golden, "{case} {key}: {:?} {golden:?}", ours.get(key));
            }
        }
        broker.shutdown().await;
        rows += 1;
    }
    assert_eq!(rows, 16);
}

/// Clients that are told of no other server look for none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_broker_names_no_others() {
    for advertise in [None, Some("broker.example.net:4242".to_owned())] {
        let config = BrokerConfig { client_advertise: advertise, ..BrokerConfig::default() };
        let broker = start(config, vec![AccountConfig::new("$G")], Arc::new(OpenAuthenticator::default()));
        let (mut raw, info) = Raw::connect_info(broker.local_addr(0).unwrap()).await;
        raw.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n").await;
        raw.expect("PONG\r\n").await;
        for info in [info, raw.line().await] {
            assert!(!info.contains("connect_urls"), "{info}");
        }
        broker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_may_name_an_address_of_its_own() {
    let mut config = BrokerConfig { client_advertise: Some("all.example.net:1".into()), ..BrokerConfig::default() };
    let own = Listener { advertise: Some("one.example.net:2".into()), ..common::loopback() };
    config.listen = vec![common::loopback(), own];
    let broker = start(config, vec![AccountConfig::new("$G")], Arc::new(OpenAuthenticator::default()));
    for (listener, host) in ["all.example.net\",\"port\":1,", "one.example.net\",\"port\":2,"].into_iter().enumerate() {
        let (_, info) = Raw::connect_info(broker.local_addr(listener).unwrap()).await;
        assert!(info.contains(host), "{info}");
    }
    broker.shutdown().await;
}

/// As nats-server with `no_header_support`: what CONNECT says about headers does not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_headers_messages_with_headers_are_refused() {
    let config = BrokerConfig { headers: false, ..BrokerConfig::default() };
    let broker = start(config, vec![AccountConfig::new("$G")], Arc::new(OpenAuthenticator::default()));
    let addr = broker.local_addr(0).unwrap();
    let mut raw = Raw::connect(addr).await;
    raw.send("CONNECT {\"verbose\":false,\"headers\":true}\r\nPUB a 1\r\nx\r\n").await;
    raw.sync().await;
    raw.send("HPUB a 12 13\r\nNATS/1.0\r\n\r\nx\r\n").await;
    assert_eq!(raw.rest().await, "");
    let mut raw = Raw::connect(addr).await;
    raw.send("CONNECT {\"headers\":true,\"no_responders\":true}\r\n").await;
    assert_eq!(raw.rest().await, "-ERR 'no responders requires headers support'\r\n");
    broker.shutdown().await;
}

/// A listener on `::` is reached over both, and every client has the address that it knows itself by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_listener_for_both_keep_their_ipv4_addresses() {
    // Some machines have no IPv6.
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let both = Listener::plain("[::]:0".parse().unwrap());
    let config = BrokerConfig { listen: vec![both], ..BrokerConfig::default() };
    let broker = start(config, vec![AccountConfig::new("$G")], Arc::new(OpenAuthenticator::default()));
    let port = broker.local_addr(0).unwrap().port();
    for address in ["127.0.0.1", "::1"] {
        let (_, info) = Raw::connect_info(std::net::SocketAddr::new(address.parse().unwrap(), port)).await;
        assert!(info.contains(&format!("\"client_ip\":\"{address}\"")), "{info}");
    }
    broker.shutdown().await;
}
