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
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Certificates of another CA in the place of the broker's.
fn replace_ca(lab: &Lab) -> CertificateAuthority {
    let (ca, _) = CertificateAuthority::generate("New CA", KeyKind::P256, lab::unix_now()).unwrap();
    lab.issue(&ca, IDENTITY, IssueRequest::new(IDENTITY, KeyKind::P256));
    std::fs::write(lab.path("ca.pem"), ca.certificate_pem()).unwrap();
    ca
}

#[tokio::test]
async fn design6_reload_swaps_certificates_ca_and_passwords_as_a_whole() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let old = lab.member("old.mcollective");
    let mut kept = Raw::member(broker.client_addr, &old).await;
    let old_config = tls::client_config(&old).unwrap();

    let ca = replace_ca(&lab);
    let new = lab.issue(&ca, "new.mcollective", IssueRequest::new("new.mcollective", KeyKind::P256));
    let extra = "plugin.choria.network.provisioning.client_password = another password\n";
    lab.write_config(extra);
    broker.reload().await.unwrap();

    assert!(Raw::open(broker.client_addr, old_config).await.is_err(), "the new certificate is not of the old CA");
    let config = tls::client_config(&new).unwrap();
    for (password, accepted) in [("another password", true), (CLIENT_PASSWORD, false)] {
        let mut raw = Raw::open(broker.client_addr, config.clone()).await.unwrap();
        let result = raw.connect(json!({"user": "provisioner", "pass": password})).await;
        assert_eq!(result.is_ok(), accepted, "{password}");
    }
    assert_eq!(kept.ask("").await, Vec::<String>::new(), "open connections stay");
}

#[tokio::test]
async fn design6_a_reload_that_fails_changes_nothing() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let member = lab.member("m.mcollective");
    let attempts: [(&str, &dyn Fn()); 5] = [
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
        let (ca, signer) = (lab.path("ca.pem"), lab.path("signer.public"));
        let good = (std::fs::read(&ca).unwrap(), std::fs::read(&signer).unwrap());
        spoil();
        let error = broker.reload().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        std::fs::write(&ca, good.0).unwrap();
        std::fs::write(&signer, good.1).unwrap();
        lab.write_config("");
        assert!(lab::member(&broker, &member, "m").await.is_ok(), "{expected}");
        assert!(lab::node(&broker, "n1", &lab.token(DEADLINE)).await.is_ok(), "{expected}");
    }
    broker.reload().await.unwrap();
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
    let mut system = Raw::open(broker.client_addr, config).await.unwrap();
    system.connect(json!({"user": "system", "pass": lab::SYSTEM_PASSWORD})).await.unwrap();

    // A leaked token is made worthless by another signer; its holders leave at once.
    std::fs::write(lab.path("signer.public"), "11".repeat(32)).unwrap();
    broker.reload().await.unwrap();
    assert_eq!(node.until_closed().await, Vec::<String>::new());
    for stays in [&mut fleet, &mut provisioner, &mut system] {
        assert_eq!(stays.ask("").await, Vec::<String>::new());
    }
    let refused = Raw::anonymous(broker.client_addr).await.connect(json!({"name": "n1", "auth_token": token})).await;
    assert!(refused.is_err());

    lab.write_config(
        "plugin.choria.network.provisioning.client_password = x\nplugin.choria.network.system.password = y\n",
    );
    broker.reload().await.unwrap();
    assert_eq!(provisioner.until_closed().await, Vec::<String>::new());
    assert_eq!(system.until_closed().await, Vec::<String>::new());
    assert_eq!(fleet.ask("").await, Vec::<String>::new());
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
    std::fs::write(&file, text).unwrap();
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

    // Switching it on needs the account, which only a start makes.
    lab.write_config("");
    assert!(matches!(broker.reload().await, Err(ReloadError::NeedsRestart { .. })));
}
