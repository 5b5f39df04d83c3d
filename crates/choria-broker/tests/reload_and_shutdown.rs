//! Reload as a whole, drain, and starts that must fail.
#![allow(clippy::unwrap_used)]

#[path = "common/lab.rs"]
mod lab;
#[path = "common/raw.rs"]
mod raw;

use std::sync::Arc;

use async_nats::ConnectErrorKind;
use choria_broker::{Options, ReloadError, StartError};
use choria_security::ca::{CertificateAuthority, IssueRequest};
use choria_security::keys::KeyKind;
use choria_security::tls;
use lab::{CLIENT_PASSWORD, DEADLINE, IDENTITY, Lab};
use raw::Raw;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What a connection hears that a reload ends.
const ENDED: [&str; 1] = ["-ERR 'Authorization Violation'"];

/// Another CA in the place of the broker's, and a certificate of it for the broker.
fn replace_ca(lab: &Lab) -> CertificateAuthority {
    let (ca, _) = CertificateAuthority::generate("New CA", KeyKind::P256, lab::unix_now()).unwrap();
    lab.issue(&ca, IDENTITY, IssueRequest::new(IDENTITY, KeyKind::P256));
    std::fs::write(lab.path("ca.pem"), ca.certificate_pem()).unwrap();
    ca
}

/// The value of a `choria_broker_*` series.
async fn counted(broker: &choria_broker::Handle, name: &str, labels: &str) -> u64 {
    lab::metric(broker, &format!("choria_broker_{name}{{{labels},identity=\"{IDENTITY}\"}}")).await
}

#[tokio::test]
async fn design6_reload_swaps_certificates_ca_and_passwords_as_a_whole() {
    let lab = Lab::new();
    let stats = lab::stats();
    let broker = lab.start(&stats).await;
    let token = lab.token(std::time::Duration::from_secs(600));
    let old = lab.member("old.mcollective");
    let mut member = Raw::member(broker.client_addr, &old).await;
    let mut node = Raw::node(broker.client_addr, "n1", &token).await;
    let old_config = tls::client_config(&old).unwrap();
    // Begun before and not yet a member: a handshake of the old CA is worth nothing afterwards.
    let mut late = Raw::open(broker.client_addr, old_config.clone()).await.unwrap();
    let events = broker.broker().subscribe("choria", "choria.lifecycle.event.refused.broker", 8).unwrap();

    let ca = replace_ca(&lab);
    let new = lab.issue(&ca, "new.mcollective", IssueRequest::new("new.mcollective", KeyKind::P256));
    lab.write_config(&format!("{stats}plugin.choria.network.provisioning.client_password = another password\n"));
    let reloaded = broker.reload().await.unwrap();
    assert_eq!(
        reloaded.changed,
        [
            "plugin.security.file.ca",
            "plugin.security.file.certificate",
            "plugin.choria.network.provisioning.client_password"
        ]
    );
    assert_eq!((reloaded.connections_ended, reloaded.connections_changed), (1, 0));

    assert_eq!(member.until_closed().await, ENDED, "its CA is not trusted any more");
    assert_eq!(node.ask("").await, Vec::<String>::new(), "a token has nothing to do with the CA");
    assert_eq!(late.connect(json!({"name": "late"})).await, Err(ENDED[0].to_owned()));
    assert!(Raw::open(broker.client_addr, old_config).await.is_err(), "the new certificate is not of the old CA");
    let config = tls::client_config(&new).unwrap();
    for (password, accepted) in [("another password", true), (CLIENT_PASSWORD, false)] {
        let mut raw = Raw::open(broker.client_addr, config.clone()).await.unwrap();
        let result = raw.connect(json!({"user": "provisioner", "pass": password})).await;
        assert_eq!(result.is_ok(), accepted, "{password}");
    }
    assert_eq!(counted(&broker, "refused", "reason=\"ca_not_trusted\"").await, 2);
    assert_eq!(counted(&broker, "reload_connections", "effect=\"ended\"").await, 1);
    assert_eq!(counted(&broker, "reloads", "result=\"done\"").await, 1);
    let mut events = events;
    let event = tokio::time::timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
    let event: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(event["reason"], "ca_not_trusted", "{event}");
}

/// A CA is exchanged in two steps: both are trusted for a while, then the old one is taken away.
#[tokio::test]
async fn design6_only_members_of_a_ca_that_was_taken_away_are_ended() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let old = lab.member("old.mcollective");
    // The same name, another key: as after a CA was made anew.
    let (ca, _) = CertificateAuthority::generate("Test CA", KeyKind::P256, lab::unix_now()).unwrap();
    let both = format!("{}{}", lab.ca.certificate_pem(), ca.certificate_pem());
    std::fs::write(lab.path("ca.pem"), both).unwrap();
    assert_eq!(broker.reload().await.unwrap().changed, ["plugin.security.file.ca"]);
    let new = lab.issue(&ca, "new.mcollective", IssueRequest::new("new.mcollective", KeyKind::P256));
    let mut old = Raw::member(broker.client_addr, &old).await;
    let mut new = Raw::member(broker.client_addr, &new).await;

    std::fs::write(lab.path("ca.pem"), ca.certificate_pem()).unwrap();
    assert_eq!(broker.reload().await.unwrap().connections_ended, 1);
    assert_eq!(old.until_closed().await, ENDED);
    assert_eq!(new.ask("").await, Vec::<String>::new());
}

#[tokio::test]
async fn new_connections_see_a_new_server_certificate() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let material = lab.member("m.mcollective");
    let mut member = Raw::member(broker.client_addr, &material).await;
    let before = Raw::member(broker.client_addr, &material).await.server_certificate();
    lab.issue(&lab.ca, IDENTITY, IssueRequest::new(IDENTITY, KeyKind::P256));
    let reloaded = broker.reload().await.unwrap();
    assert_eq!(reloaded.to_string(), "changed: plugin.security.file.certificate");
    let after = Raw::member(broker.client_addr, &material).await.server_certificate();
    assert_ne!(before, after);
    let issued = std::fs::read_to_string(lab.path(&format!("{IDENTITY}.pem"))).unwrap();
    assert_eq!(after, rustls::pki_types::CertificateDer::from_pem_slice(issued.as_bytes()).unwrap());
    assert_eq!(member.ask("").await, Vec::<String>::new(), "who is connected stays");
    assert_eq!(broker.reload().await.unwrap().to_string(), "nothing changed");
}

#[tokio::test]
async fn design6_a_reload_that_fails_changes_nothing() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let member = lab.member("m.mcollective");
    let mut kept = Raw::member(broker.client_addr, &member).await;
    let attempts: [(&str, &dyn Fn()); 7] = [
        ("broker.example.net.pem", &|| {
            std::fs::write(lab.path(&format!("{IDENTITY}.pem")), "-----BEGIN CERTIFICATE-----\n").unwrap();
        }),
        ("does not belong to the certificate", &|| {
            std::fs::copy(lab.path("m.mcollective.pem"), lab.path(&format!("{IDENTITY}.pem"))).unwrap();
        }),
        ("ca.pem", &|| std::fs::write(lab.path("ca.pem"), "").unwrap()),
        ("signer.public", &|| std::fs::write(lab.path("signer.public"), "garbage").unwrap()),
        ("auth_timeout", &|| {
            lab.write_config("plugin.choria.network.auth_timeout = soon\n");
        }),
        ("peers", &|| {
            lab.write_config("plugin.choria.network.peers = nats://b2.example.net:5222\n");
        }),
        ("restart", &|| {
            lab.write_config("plugin.choria.network.listen_address = 127.0.0.2\n");
        }),
    ];
    for (expected, spoil) in attempts {
        let files = ["ca.pem", "signer.public", "broker.example.net.pem"].map(|name| lab.path(name));
        let good = files.each_ref().map(|file| std::fs::read(file).unwrap());
        spoil();
        // Something that would be fine by itself and must not slip through.
        let text = std::fs::read_to_string(lab.path("broker.conf")).unwrap();
        std::fs::write(lab.path("broker.conf"), text + "plugin.choria.network.client_hosts = 192.0.2.1\n").unwrap();
        let error = broker.reload().await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{expected}: {error}");
        for (file, content) in files.iter().zip(good) {
            std::fs::write(file, content).unwrap();
        }
        lab.write_config("");
        assert_eq!(kept.ask("SUB c1.reply.> 1\r\nUNSUB 1\r\n").await, Vec::<String>::new(), "{expected}");
        assert!(lab::member(&broker, &member, "m").await.is_ok(), "{expected}");
        assert!(lab::node(&broker, "n1", &lab.token(DEADLINE)).await.is_ok(), "{expected}");
    }
    assert_eq!(broker.reload().await.unwrap().to_string(), "nothing changed");
}

#[tokio::test]
async fn design6_a_changed_credential_ends_the_logins_that_used_it() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let member = lab.member("m.mcollective");
    let config = tls::client_config(&member).unwrap();
    let token = lab.token(std::time::Duration::from_secs(600));
    let mut node = Raw::node(broker.client_addr, "n1", &token).await;
    let mut fleet = Raw::member(broker.client_addr, &member).await;
    let mut provisioner = Raw::open(broker.client_addr, config.clone()).await.unwrap();
    provisioner.connect(json!({"user": "provisioner", "pass": CLIENT_PASSWORD})).await.unwrap();
    let mut system = Raw::open(broker.client_addr, config.clone()).await.unwrap();
    system.connect(json!({"user": "system", "pass": lab::SYSTEM_PASSWORD})).await.unwrap();

    // The same key in another form is no other signer.
    let public = std::fs::read_to_string(lab.path("signer.public")).unwrap();
    std::fs::write(lab.path("signer.public"), format!("\n{}\n", public.to_uppercase())).unwrap();
    assert_eq!(broker.reload().await.unwrap().to_string(), "nothing changed");
    // A leaked token is made worthless by another signer; its holders leave at once.
    std::fs::write(lab.path("signer.public"), "11".repeat(32)).unwrap();
    let reloaded = broker.reload().await.unwrap();
    assert_eq!(reloaded.changed, ["plugin.choria.network.provisioning.signer_cert"]);
    assert_eq!(node.until_closed().await, ENDED);
    for stays in [&mut fleet, &mut provisioner, &mut system] {
        assert_eq!(stays.ask("").await, Vec::<String>::new());
    }
    let refused = Raw::anonymous(broker.client_addr).await.connect(json!({"name": "n1", "auth_token": token})).await;
    assert!(refused.is_err());

    lab.write_config(
        "plugin.choria.network.provisioning.client_password = x\nplugin.choria.network.system.password = y\n",
    );
    assert_eq!(broker.reload().await.unwrap().connections_ended, 2);
    assert_eq!(provisioner.until_closed().await, ENDED);
    assert_eq!(system.until_closed().await, ENDED);
    assert_eq!(fleet.ask("").await, Vec::<String>::new());

    // A user that is renamed is a user that is removed.
    let mut system = Raw::open(broker.client_addr, config).await.unwrap();
    system.connect(json!({"user": "system", "pass": "y"})).await.unwrap();
    lab.write_config("plugin.choria.network.system.user = root\nplugin.choria.network.system.password = y\n");
    assert!(broker.reload().await.unwrap().changed.contains(&"plugin.choria.network.system.user"));
    assert_eq!(system.until_closed().await, ENDED);
    assert_eq!(fleet.ask("").await, Vec::<String>::new());
}

#[tokio::test]
async fn design6_rights_that_became_narrower_hold_for_who_is_connected() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let mut member = Raw::member(broker.client_addr, &lab.member("m.mcollective")).await;
    assert_eq!(member.ask("SUB c1.reply.> 1\r\nSUB c1.node.m 2\r\n").await, Vec::<String>::new());
    // From here on whoever is not in the list is a server.
    lab.write_config("plugin.choria.network.client_hosts = 192.0.2.1\n");
    let reloaded = broker.reload().await.unwrap();
    assert_eq!(
        reloaded.to_string(),
        "changed: plugin.choria.network.client_hosts; 0 connections ended, 1 with other rights, which lost 1 \
         subscriptions"
    );
    let told = member.ask("PUB c1.node.x 1\r\nx\r\n").await;
    assert_eq!(
        told,
        [
            "-ERR 'Permissions Violation for Subscription to \"c1.reply.>\" (sid \"1\")'",
            "-ERR 'Permissions Violation for Publish to \"c1.node.x\"'"
        ]
    );
    lab.write_config("");
    assert_eq!(broker.reload().await.unwrap().connections_changed, 1);
    assert_eq!(member.ask("PUB c1.node.x 1\r\nx\r\n").await, Vec::<String>::new());
}

#[tokio::test]
async fn what_only_a_restart_can_change_is_named() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    lab.write_config("identity = other.example.net\n");
    let error = broker.reload().await.unwrap_err();
    assert!(matches!(error, ReloadError::NeedsRestart { what: "identity" }), "{error}");
}

#[tokio::test]
async fn design6_the_service_reloads_when_notified_and_drains_when_told() {
    let lab = Lab::new();
    let port = choria_testkit::free_port();
    let lines = format!("plugin.choria.network.client_port = {port}\n");
    let service = lab.service(&lines, Options::default()).unwrap();
    let (shutdown, reload) = (CancellationToken::new(), Arc::new(Notify::new()));
    let running = tokio::spawn(service.run(shutdown.clone(), Arc::clone(&reload)));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    lab::until("the broker listens", async || tokio::net::TcpStream::connect(address).await.is_ok()).await;

    let ca = replace_ca(&lab);
    let new = lab.issue(&ca, "new.mcollective", IssueRequest::new("new.mcollective", KeyKind::P256));
    let config = tls::client_config(&new).unwrap();
    assert!(Raw::open(address, config.clone()).await.is_err());
    reload.notify_one();
    lab::until("the reload", async || Raw::open(address, config.clone()).await.is_ok()).await;

    let mut member = Raw::member(address, &new).await;
    shutdown.cancel();
    assert_eq!(member.until_closed().await, Vec::<String>::new());
    tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_system_account_may_ask_for_a_reload() {
    let lab = Lab::new();
    let port = choria_testkit::free_port();
    let lines = format!("plugin.choria.network.client_port = {port}\n");
    let service = lab.service(&lines, Options::default()).unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(service.run(shutdown.clone(), Arc::new(Notify::new())));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    lab::until("the broker listens", async || tokio::net::TcpStream::connect(address).await.is_ok()).await;

    let config = tls::client_config(&lab.member("m.mcollective")).unwrap();
    let mut system = Raw::open(address, config).await.unwrap();
    system.connect(json!({"user": "system", "pass": lab::SYSTEM_PASSWORD})).await.unwrap();
    let id = system.info["server_id"].as_str().unwrap().to_owned();
    lab.write_config(&format!("{lines}plugin.choria.network.system.password = another\n"));
    system.send(&format!("SUB answer 1\r\nPUB $SYS.REQ.SERVER.{id}.RELOAD answer 0\r\n\r\n")).await;
    // The reload ends whoever asked for it with the old password, mostly after the answer.
    let lines = system.until_closed().await;
    assert_eq!(lines.last().map(String::as_str), Some(ENDED[0]), "{lines:?}");
    shutdown.cancel();
    tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn clients_see_the_end_of_the_stream() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let mut member = Raw::member(broker.client_addr, &lab.member("m.mcollective")).await;
    broker.shutdown().await.unwrap();
    assert_eq!(member.until_closed().await, Vec::<String>::new(), "no -ERR");
}

#[tokio::test]
async fn a_dropped_handle_ends_the_broker() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let address = broker.client_addr;
    let mut member = Raw::member(address, &lab.member("m.mcollective")).await;
    drop(broker);
    assert_eq!(member.until_closed().await, Vec::<String>::new());
    lab::until("the port closes", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
}

#[tokio::test]
async fn starts_that_must_fail_name_file_key_and_way_out() {
    let lab = Lab::new();
    let key = lab.path(&format!("{IDENTITY}.key"));
    let other = lab.member("other");
    let conf = lab.path("broker.conf");
    for (extra, expected) in [
        ("plugin.choria.broker_network = false\n".to_owned(), "all broker features are disabled"),
        ("plugin.security.provider = puppet\n".to_owned(), "plugin.security.provider = file"),
        ("plugin.security.file.ca = /no/such/ca.pem\n".to_owned(), "/no/such/ca.pem"),
        (format!("plugin.security.file.ca = {}\n", key.display()), "broker.example.net.key"),
        (
            format!("plugin.security.file.key = {}\n", other.key.unwrap().display()),
            "does not belong to the certificate",
        ),
        ("plugin.security.cipher_suites = NOPE\n".to_owned(), "NOPE"),
        ("plugin.choria.network.provisioning.signer_cert = /no/such/signer\n".to_owned(), "/no/such/signer"),
        ("plugin.choria.network.peers = nats://b2:5222\n".to_owned(), "nats-server engine"),
        ("plugin.security.issuer.names = choria\n".to_owned(), "protocol v2"),
    ] {
        let error = lab.service(&extra, Options::default()).unwrap_err();
        assert!(matches!(error, StartError::Settings(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains(conf.to_str().unwrap()), "{extra}: {text}");
    }

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for key in ["plugin.choria.network.client_port", "plugin.choria.stats_port"] {
        let service = lab.service(&format!("{key} = {port}\n"), Options::default()).unwrap();
        let text = service.start().await.unwrap_err().to_string();
        assert!(text.contains(&port.to_string()), "{key}: {text}");
    }
}

#[tokio::test]
async fn a_broker_without_provisioning_has_no_such_account() {
    let lab = Lab::new();
    let file = lab.write_config("");
    let text: String = std::fs::read_to_string(&file)
        .unwrap()
        .lines()
        .filter(|line| !line.contains("provisioning"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&file, &text).unwrap();
    let environment = choria_config::Environment::fixed(IDENTITY);
    let config = choria_config::Config::load(&file, choria_config::Mode::Broker, &environment).unwrap();
    let build = choria_config::BuildSettings::default();
    let service = choria_broker::Service::with_options(&config, &build, Options::default(), environment).unwrap();
    let broker = service.start().await.unwrap();
    let refused = lab::provisioner(&broker, &lab.member("p.mcollective")).await;
    assert_eq!(refused.unwrap_err(), ConnectErrorKind::AuthorizationViolation);
    let refused = lab::node(&broker, "n1", &lab.token(DEADLINE)).await;
    assert_eq!(refused.unwrap_err(), ConnectErrorKind::AuthorizationViolation);
    assert!(lab::member(&broker, &lab.member("m.mcollective"), "m").await.is_ok());

    // A reload makes it, with its guard, and takes it away again.
    lab.write_config("");
    broker.reload().await.unwrap();
    let token = lab.token(std::time::Duration::from_secs(600));
    let mut node = Raw::node(broker.client_addr, "n1.example.net", &token).await;
    let forged = "PUB choria.lifecycle.event.startup.provision_mode_server 2\r\n{}\r\n";
    assert!(node.ask(forged).await[0].contains("Permissions Violation"));
    std::fs::write(&file, text).unwrap();
    broker.reload().await.unwrap();
    assert_eq!(node.until_closed().await, ENDED);
}
