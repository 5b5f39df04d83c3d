//! The provisioner over a real broker, with real helper processes and nodes that answer on the wire.
#![allow(clippy::unwrap_used)]

#[path = "end_to_end/builtin.rs"]
mod builtin;
mod common;

use std::time::{Duration, Instant};

use choria_config::{BuildSettings, Config, Environment, Mode};
use choria_protocol::lifecycle::{self, Kind};
use choria_provisioner::Provisioner;
use choria_provisioner::config::ProvisionerConfig;
use choria_security::ca::IssueRequest;
use choria_security::keys::KeyKind;
use choria_testkit::{free_port, wait_until_async};
use common::*;
use serde_json::{Value, json};

#[tokio::test]
async fn many_nodes_over_one_connection_with_one_process_per_node() {
    let (world, network) = (World::new(), Network::new().await);
    let swarm = Swarm::good(network.addr, &world).await;
    let mut events = swarm.listen("choria.lifecycle.event.startup.provisioner").await;
    let config = world.config_file(&world.script("helper", GOOD_HELPER), "workers: 4\nmonitor_port: 0\n");
    let running = Running::start(&config, network.addr).await;

    let event = tokio::time::timeout(DEADLINE, events.next()).await.unwrap().unwrap();
    let event: Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(event["protocol"], "io.choria.lifecycle.v1.startup", "plain, not a CloudEvent");
    assert_eq!(
        (event["component"].as_str(), event["identity"].as_str()),
        (Some("provisioner"), Some("provisioner.choria"))
    );

    for index in 0..50 {
        swarm.announce(&format!("n{index}.lab.test")).await;
    }
    running.provisioned(50).await;
    for index in 0..50 {
        assert_eq!(swarm.asked(&format!("n{index}.lab.test")), ["jwt", "inventory", "configure", "restart"]);
    }
    let connections = network.broker.connections("provisioning");
    let ours = connections.iter().filter(|c| c.user.as_deref() == Some("provisioner")).count();
    assert_eq!(ours, 1, "one multiplexed connection");
    let metrics = running.handle.metrics();
    assert_eq!((metrics.provision_errors.get(), metrics.helper_time.count()), (0, 50));
    running.stop().await;
}

#[tokio::test]
async fn nodes_are_found_by_discovery_and_seen_coming_home() {
    let (world, network) = (World::new(), Network::new().await);
    let swarm = Swarm::good(network.addr, &world).await;
    for index in 0..10 {
        swarm.waits(&format!("n{index}"));
    }
    let config =
        world.config_file(&world.script("helper", GOOD_POOL), "helper_mode: persistent\nhelper_processes: 2\n");
    let running = Running::start(&config, network.addr).await;
    running.provisioned(10).await;
    assert_eq!(running.handle.metrics().discovered.get(), 10);
    for index in 0..10 {
        swarm.event(Kind::Startup { version: "1".into() }, &format!("n{index}"), lifecycle::SERVER).await;
    }
    running.wait("all came home", |metrics| metrics.verified.get() == 10).await;
    running.stop().await;
}

#[tokio::test]
async fn a_second_provisioner_of_our_identity_is_noticed() {
    let (world, network) = (World::new(), Network::new().await);
    let swarm = Swarm::good(network.addr, &world).await;
    let config = world.config_file(&world.script("helper", GOOD_HELPER), "");
    let running = Running::start(&config, network.addr).await;
    swarm.event(Kind::Startup { version: "1".into() }, "other.choria", lifecycle::PROVISIONER).await;
    let second = Running::start(&config, network.addr).await;
    running.wait("noticed", |metrics| metrics.refused("same_identity") == 1).await;
    assert_eq!(second.handle.metrics().refused("same_identity"), 0);
    second.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn design6_hostile_messages_do_not_end_the_provisioner() {
    let (world, network) = (World::new(), Network::new().await);
    let token = world.token.clone();
    let answer: Answer = Box::new(move |identity, action| {
        let odd: &[u8] = match identity {
            "junk" => b"hello",
            "null" => b"{\"protocol\":\"choria:transport:1\",\"data\":\"\",\"headers\":null}",
            "empty" => b"",
            "typed" => return Some(Ok(json!(null))),
            "number" => return Some(Ok(json!({"jwt": 5, "version": 5, "message": []}))),
            _ => return Some(Ok(good_data(action, &token))),
        };
        Some(Err(odd.to_vec()))
    });
    let swarm = Swarm::new(network.addr, answer).await;
    let config = world.config_file(&world.script("helper", GOOD_HELPER), "");
    let running = Running::start(&config, network.addr).await;
    for node in ["junk", "null", "empty", "typed", "number", "a b", "*", ">", "../x"] {
        swarm.announce(node).await;
    }
    for payload in [&b"x"[..], b"", b"{}", b"null", b"[]", &[0xff; 1000]] {
        swarm.publish("choria.lifecycle.event.startup.provision_mode_server", payload).await;
        swarm.publish("choria.lifecycle.event.shutdown.provision_mode_server", payload).await;
        swarm.publish("choria.lifecycle.event.startup.server", payload).await;
        swarm.publish("provisioning.registration.data", payload).await;
        swarm.publish(&reply_wildcard().replace('>', "x"), payload).await;
        swarm.publish(&reply_wildcard().replace('>', &"0".repeat(32)), payload).await;
    }
    swarm.announce("good").await;
    running.provisioned(1).await;
    assert!(running.handle.metrics().refused("identity") >= 4);
    running.stop().await;
}

#[tokio::test]
async fn design6_sigterm_leads_nodes_to_their_end() {
    let (world, network) = (World::new(), Network::new().await);
    let swarm = Swarm::good(network.addr, &world).await;
    let marker = world.ca.directory().join("running");
    let helper = format!("cat > /dev/null; touch {}; sleep 1; {GOOD_HELPER}", marker.display());
    let config = world.config_file(&world.script("helper", &helper), "");
    let running = Running::start(&config, network.addr).await;
    swarm.announce("n1").await;
    wait_until_async(DEADLINE, "the helper runs", async || marker.exists()).await;
    running.stop().await;
    assert_eq!(swarm.asked("n1"), ["jwt", "inventory", "configure", "restart"], "led to its end");
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let (world, network) = (World::new(), Network::new().await);
    let swarm = Swarm::good(network.addr, &world).await;
    let marker = world.ca.directory().join("running");
    let helper = format!("touch {}; sleep 300", marker.display());
    let extra = "drain_timeout: 1s\nhelper_timeout: 5m\n";
    let config = world.config_file(&world.script("helper", &helper), extra);
    let running = Running::start(&config, network.addr).await;
    swarm.announce("n1").await;
    wait_until_async(DEADLINE, "the helper runs", async || marker.exists()).await;
    let began = Instant::now();
    running.stop().await;
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(swarm.asked("n1"), ["jwt", "inventory"]);
}

#[tokio::test]
async fn a_reload_takes_over_what_can_be_changed_and_a_bad_file_changes_nothing() {
    let (world, network) = (World::new(), Network::new().await);
    let swarm = Swarm::good(network.addr, &world).await;
    let config = world.config_file(&world.script("first", "exit 9"), "");
    let running = Running::start(&config, network.addr).await;
    swarm.announce("n1").await;
    running.wait("the first helper failed", |metrics| metrics.helper_errors.get() >= 1).await;

    std::fs::write(&config, "interval: 5s\n").unwrap();
    running.reload.notify_one();
    world.config_file(&world.script("second", GOOD_POOL), "helper_mode: persistent\nsite: other\n");
    running.reload.notify_one();
    // The failed node is tried again by itself, and finds the new helper.
    running.provisioned(1).await;
    running.stop().await;
}

#[tokio::test]
async fn pause_and_resume_by_handle_and_over_the_monitor_port() {
    let (world, network) = (World::new(), Network::new().await);
    let swarm = Swarm::good(network.addr, &world).await;
    let port = free_port();
    let config = world.config_file(&world.script("helper", GOOD_HELPER), &format!("monitor_port: {port}\n"));
    let running = Running::start(&config, network.addr).await;

    let (status, body) = running.http("POST", "/pause", "").await;
    assert!(status.ends_with("200 OK"), "{status}");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["paused"], true);
    swarm.waits("n1");
    swarm.announce("n1").await;
    let (_, page) = running.http("GET", "/metrics", "").await;
    assert!(page.contains("choria_provisioner_paused{site=\"lab\"} 1\n"), "{page}");
    assert_eq!(swarm.asked("n1"), Vec::<String>::new());

    let (status, _) = running.http("POST", "/resume", "Origin: http://evil.example\r\n").await;
    assert!(status.contains("403"), "{status}");
    let (status, _) = running.http("GET", "/resume", "").await;
    assert!(status.contains("405"), "{status}");
    running.handle.resume().await;
    running.provisioned(1).await;
    let (_, body) = running.http("GET", "/status", "").await;
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["provisioned"], 1);
    running.stop().await;
}

#[tokio::test]
async fn metrics_answer_before_the_broker_does_and_a_stop_then_is_clean() {
    let world = World::new();
    let (closed, port) = (free_port(), free_port());
    let config = world.config_file(&world.script("helper", GOOD_HELPER), &format!("monitor_port: {port}\n"));
    let running = Running::start_unconnected(&config, ([127, 0, 0, 1], closed).into());
    wait_until_async(DEADLINE, "the port is open", async || running.handle.monitor_addr().is_some()).await;
    let (_, page) = running.http("GET", "/metrics", "").await;
    assert!(page.contains("choria_provisioner_paused"), "{page}");
    running.wait("a failed try is counted", |metrics| metrics.initial_connection_attempts.get() > 0).await;
    let (status, _) = running.http("POST", "/pause", "").await;
    assert!(status.ends_with("200 OK"), "steering does not wait for the broker: {status}");
    running.stop().await;
}

#[tokio::test]
async fn a_used_monitor_port_ends_the_start() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("[::]:0").or_else(|_| std::net::TcpListener::bind("0.0.0.0:0")).unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = world.config_file(&world.script("helper", GOOD_HELPER), &format!("monitor_port: {port}\n"));
    let running = Running::start_unconnected(&config, ([127, 0, 0, 1], 1).into());
    let error = tokio::time::timeout(DEADLINE, running.task).await.unwrap().unwrap().unwrap_err().to_string();
    assert!(error.starts_with(&format!("could not listen on monitor_port {port}: ")), "{error}");
}

#[tokio::test]
async fn a_broker_that_comes_back_is_found_again_and_so_are_the_nodes() {
    let (world, network) = (World::new(), Network::new().await);
    let config = world.config_file(&world.script("helper", GOOD_HELPER), "");
    let running = Running::start(&config, network.addr).await;
    let addr = network.addr;
    network.broker.shutdown().await;
    drop(network);
    let mut connected = running.handle.connected();
    tokio::time::timeout(DEADLINE, connected.wait_for(|up| !*up)).await.unwrap().unwrap();
    let network = Network::start(addr).await;
    let swarm = Swarm::good(network.addr, &world).await;
    swarm.waits("n1");
    running.provisioned(1).await;
    assert_eq!(running.handle.metrics().reconnections.get(), 1);
    running.stop().await;
}

#[tokio::test]
async fn helpers_that_fail_put_the_node_off_and_heal() {
    let (world, network) = (World::new(), Network::new().await);
    let swarm = Swarm::good(network.addr, &world).await;
    let flag = world.ca.directory().join("healed");
    let helper = format!(
        "cat > /dev/null; [ -e {} ] || {{ echo '{{\"configuration\":'; exit 0; }}; {GOOD_HELPER}",
        flag.display()
    );
    let config = world.config_file(&world.script("helper", &helper), "");
    let running = Running::start(&config, network.addr).await;
    swarm.announce("n1").await;
    running.wait("half JSON is refused", |metrics| metrics.refused("helper_decode") >= 1).await;
    std::fs::write(&flag, "").unwrap();
    running.provisioned(1).await;
    running.stop().await;
}

fn start_error(config: &std::path::Path, choria: &str) -> String {
    let config = ProvisionerConfig::load(config).unwrap();
    let choria = Config::from_text(choria, Mode::Server, &Environment::fixed("unused")).unwrap();
    Provisioner::new(config, &choria, &BuildSettings::default()).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn design6_a_signer_without_an_rsa_key_and_what_else_cannot_work_is_a_start_error() {
    let world = World::new();
    let name = "identity = provisioner.mcollective\n";
    let secure = |extra: &str| {
        let file = world.config_file(&world.script("helper", GOOD_HELPER), extra);
        let text = std::fs::read_to_string(&file).unwrap().replace("choria_insecure: true\n", "");
        std::fs::write(&file, text).unwrap();
        file
    };
    let lines = world.ca.provisioner().config_lines();
    let config = ProvisionerConfig::load(&secure("")).unwrap();
    let choria = Config::from_text(&format!("{name}{lines}"), Mode::Server, &Environment::fixed("unused")).unwrap();
    assert!(Provisioner::new(config, &choria, &BuildSettings::default()).is_ok());

    // An original server ends when it meets a signature that is not RSA, so it is never made.
    let elliptic = world.ca.files("ec", &IssueRequest::new("provisioner.mcollective", KeyKind::P256)).config_lines();
    let error = start_error(&secure(""), &format!("{name}{elliptic}"));
    assert!(error.contains("can only be signed with an RSA key"), "{error}");

    let error = start_error(&secure(""), name);
    assert!(error.contains("plugin.security") || error.contains("not configured"), "{error}");

    for (from, to, expected) in [
        ("helper: ", "helper: /nonexistent", "does not exist"),
        ("jwt_verify_cert: ", "jwt_verify_cert: /nonexistent", "jwt_verify_cert: "),
        ("jwt_verify_cert: ", "x: ", "features.jwt is on but jwt_verify_cert is not set"),
    ] {
        let file = secure("");
        let text = std::fs::read_to_string(&file).unwrap().replace(from, to);
        std::fs::write(&file, text).unwrap();
        let error = start_error(&file, &format!("{name}{lines}"));
        assert!(error.contains(expected) && error.contains("provisioner.yaml"), "{error}");
    }
    let file = secure("");
    let text = std::fs::read_to_string(&file).unwrap().replace("helper: ", "helper: /etc #");
    std::fs::write(&file, text).unwrap();
    assert!(start_error(&file, &format!("{name}{lines}")).contains("/etc is a directory"));
}
