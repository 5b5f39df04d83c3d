//! Members, provisioner and system user over real TLS, and what crosses between the accounts.
#![allow(clippy::unwrap_used)]

#[path = "common/golden.rs"]
mod golden;
#[path = "common/lab.rs"]
mod lab;
#[path = "common/raw.rs"]
mod raw;

use async_nats::ConnectErrorKind;
use choria_broker::Options;
use choria_security::ca::CertificateAuthority;
use choria_security::ca::{IssueRequest, Usage};
use choria_security::keys::{KeyKind, PrivateKey};
use choria_security::tls;
use futures_util::StreamExt as _;
use lab::{CLIENT_PASSWORD, DEADLINE, Lab, SYSTEM_PASSWORD};
use raw::Raw;
use serde::Deserialize;
use serde_json::json;

const VIOLATION: &str = "-ERR 'Authorization Violation'";

#[tokio::test]
async fn members_talk_to_each_other() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let server = lab::member(&broker, &lab.member("n1.example.net"), "n1.example.net").await.unwrap();
    let client = lab::member(&broker, &lab.member("alice.mcollective"), "alice").await.unwrap();
    let mut requests = server.subscribe("mcollective.node.n1.example.net").await.unwrap();
    server.flush().await.unwrap();
    let answer = tokio::spawn(async move {
        let request = requests.next().await.unwrap();
        server.publish(request.reply.unwrap(), "pong".into()).await.unwrap();
        server.flush().await.unwrap();
        server
    });
    let reply = client.request("mcollective.node.n1.example.net", "ping".into());
    let reply = tokio::time::timeout(DEADLINE, reply).await.unwrap().unwrap();
    assert_eq!(reply.payload, "pong");
    answer.await.unwrap();
}

#[tokio::test]
async fn accounts_and_refusals_of_every_kind() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let member = tls::client_config(&lab.member("alice.mcollective")).unwrap();
    let anonymous = tls::anonymous_client_config();
    let provisioner = json!({"user": "provisioner", "pass": CLIENT_PASSWORD});
    let system = json!({"user": "system", "pass": SYSTEM_PASSWORD});
    let cases = [
        (&member, json!({}), Ok("choria")),
        (&member, json!({"user": "someone", "pass": "x"}), Ok("choria")),
        (&member, provisioner.clone(), Ok("provisioning")),
        (&member, system.clone(), Ok("system")),
        (&member, json!({"user": "provisioner", "pass": "wrong"}), Err(VIOLATION)),
        (&member, json!({"user": "provisioner"}), Err(VIOLATION)),
        (&member, json!({"user": "system", "pass": ""}), Err(VIOLATION)),
        (&member, json!({"auth_token": "xxx"}), Err(VIOLATION)),
        (&member, json!({"account": "choria"}), Err(VIOLATION)),
        (&anonymous, json!({}), Err(VIOLATION)),
        (&anonymous, provisioner, Err(VIOLATION)),
        (&anonymous, system, Err(VIOLATION)),
        (&anonymous, json!({"auth_token": "xxx"}), Err(VIOLATION)),
    ];
    for (config, connect, expected) in cases {
        let mut raw = Raw::open(broker.client_addr, config.clone()).await.unwrap();
        let result = raw.connect(connect.clone()).await;
        let account = raw.account.as_deref().unwrap_or_default();
        assert_eq!(result.as_ref().map(|()| account).map_err(String::as_str), expected, "{connect}");
    }
}

/// The rows of the decision table that TLS decides.
#[tokio::test]
async fn certificates_are_verified_when_they_are_given() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let (foreign, _) = CertificateAuthority::generate("Foreign CA", KeyKind::P256, lab::unix_now()).unwrap();
    let material = lab.issue(&foreign, "foreign", IssueRequest::new("alice.mcollective", KeyKind::P256));
    assert_eq!(Raw::alert(broker.client_addr, &material).await, "UnknownCA");

    let old = IssueRequest { validity: std::time::Duration::from_secs(60), ..IssueRequest::new("old", KeyKind::P256) };
    let old = lab.ca.issue(&old, lab::unix_now() - 86_400).unwrap();
    let material = lab.store("old", &old.certificate.pem, &old.key);
    assert_eq!(Raw::alert(broker.client_addr, &material).await, "CertificateExpired");

    let server_only = IssueRequest { usage: Usage::Server, ..IssueRequest::new("server-only", KeyKind::P256) };
    let material = lab.issue(&lab.ca, "server-only", server_only);
    // With TLS 1.3 the client's part of the handshake is over before the broker's alert comes.
    let refused = lab::member(&broker, &material, "server").await.unwrap_err();
    assert!(matches!(refused, ConnectErrorKind::Tls | ConnectErrorKind::Io), "{refused:?}");
    assert!(lab::member(&broker, &lab.member("fine"), "fine").await.is_ok());

    // No extended key usage at all allows every use.
    let (key, ca_key) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::from_pem(&lab.ca_key).unwrap());
    let issuer = rcgen::Issuer::from_ca_cert_pem(lab.ca.certificate_pem(), ca_key).unwrap();
    let any_use = rcgen::CertificateParams::new(["any-use".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let material = lab.store("any-use", &any_use.pem(), &PrivateKey::from_pem(&key.serialize_pem()).unwrap());
    assert!(lab::member(&broker, &material, "any-use").await.is_ok());
}

#[tokio::test]
async fn design6_client_hosts_are_really_compared() {
    let lab = Lab::new();
    let (server_rights, all_rights) = ("127.0.0.2", "127.0.0.2, 127.0.0.0/24");
    for (hosts, restricted) in [(server_rights, true), (all_rights, false)] {
        let broker = lab.start(&format!("plugin.choria.network.client_hosts = {hosts}\n")).await;
        let mut member = Raw::member(broker.client_addr, &lab.member("m.mcollective")).await;
        let refused = member.ask("SUB mcollective.reply.> 1\r\nPUB mcollective.node.n1 1\r\nx\r\n").await;
        let expected: &[&str] = if restricted {
            &[
                "-ERR 'Permissions Violation for Subscription to \"mcollective.reply.>\"'",
                "-ERR 'Permissions Violation for Publish to \"mcollective.node.n1\"'",
            ]
        } else {
            &[]
        };
        assert_eq!(refused, expected, "{hosts}");
        broker.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn deny_server_connections_leaves_servers_without_subjects() {
    let lab = Lab::new();
    let lines = "plugin.choria.network.client_hosts = 127.0.0.2\nplugin.choria.network.deny_server_connections = yes\n";
    let broker = lab.start(lines).await;
    let mut member = Raw::member(broker.client_addr, &lab.member("m.mcollective")).await;
    let refused = member.ask("SUB foo 1\r\nPUB foo 1\r\nx\r\n").await;
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.iter().all(|line| line.contains("Permissions Violation")), "{refused:?}");
}

#[tokio::test]
async fn insecure_mode_serves_clear_text_and_refuses_provisioning() {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    let lab = Lab::new();
    let options = Options { disable_tls: true, ..Options::default() };
    let broker = lab.service("", options).unwrap().start().await.unwrap();
    assert!(Raw::open(broker.client_addr, tls::anonymous_client_config()).await.is_err(), "there is no TLS");
    let provisioner = format!(r#"{{"user":"provisioner","pass":"{CLIENT_PASSWORD}"}}"#);
    let node = format!(r#"{{"name":"n1","auth_token":"{}"}}"#, lab.token(DEADLINE));
    for (connect, accepted) in [(r#"{"name":"n1"}"#, true), (&provisioner, false), (&node, false)] {
        let (socket, info) = raw::dial(broker.client_addr).await;
        assert_ne!(info["tls_required"], true, "{info}");
        let mut socket = BufReader::new(socket);
        let text = format!("CONNECT {connect}\r\nPING\r\n");
        socket.get_mut().write_all(text.as_bytes()).await.unwrap();
        let mut line = String::new();
        while line.is_empty() || line.starts_with("+OK") {
            line.clear();
            tokio::time::timeout(DEADLINE, socket.read_line(&mut line)).await.unwrap().unwrap();
        }
        assert_eq!(line.trim_end() == "PONG", accepted, "{connect}: {line}");
    }
}

#[tokio::test]
async fn without_verification_only_tokens_work() {
    let lab = Lab::new();
    let options = Options { disable_verification: true, ..Options::default() };
    let broker = lab.service("", options).unwrap().start().await.unwrap();
    let member = lab::member(&broker, &lab.member("m.mcollective"), "m").await;
    assert_eq!(member.unwrap_err(), ConnectErrorKind::AuthorizationViolation);
    let provisioner = lab::provisioner(&broker, &lab.member("p.mcollective")).await;
    assert_eq!(provisioner.unwrap_err(), ConnectErrorKind::AuthorizationViolation);
    assert!(lab::node(&broker, "n1", &lab.token(DEADLINE)).await.is_ok());
}

/// DESIGN §6 "Seeing the node come home": ours, the original keeps the fleet's events in the fleet.
#[tokio::test]
async fn design6_the_provisioner_sees_a_node_come_home() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let provisioner = lab::provisioner(&broker, &lab.member("provisioner.choria")).await.unwrap();
    let mut home = provisioner.subscribe("choria.lifecycle.event.*.server").await.unwrap();
    provisioner.flush().await.unwrap();
    let mut node = Raw::member(broker.client_addr, &lab.member("n1.example.net")).await;
    for (kind, crosses) in [("alive", false), ("startup", true), ("shutdown", true)] {
        let published = node.ask(&format!("PUB choria.lifecycle.event.{kind}.server a.reply 2\r\n{{}}\r\n")).await;
        assert_eq!(published, Vec::<String>::new());
        if crosses {
            // The first that arrives after `alive` is `startup`, so `alive` stayed where it was.
            let message = tokio::time::timeout(DEADLINE, home.next()).await.unwrap().unwrap();
            assert_eq!(message.subject.as_str(), format!("choria.lifecycle.event.{kind}.server"));
            assert_eq!(message.reply, None);
        }
    }
}

#[derive(Deserialize)]
struct Wiring {
    published_in: String,
    subject: String,
    reply: String,
    headers: serde_json::Value,
    seen_in: String,
    seen: bool,
    seen_headers: Option<serde_json::Value>,
}

/// `account-wiring.jsonl`: only lifecycle events cross from provisioning to choria, without their reply subject; and
/// two of the fleet's events cross the other way, which is ours.
#[tokio::test]
async fn golden_account_wiring() {
    let lab = Lab::new();
    let broker = lab.start("").await;
    let mut fleet = Raw::member(broker.client_addr, &lab.member("m.mcollective")).await;
    let config = tls::client_config(&lab.member("provisioner.choria")).unwrap();
    let mut provisioner = Raw::open(broker.client_addr, config).await.unwrap();
    provisioner.connect(json!({"user": "provisioner", "pass": CLIENT_PASSWORD})).await.unwrap();

    let rows: Vec<Wiring> = golden::lines("account-wiring.jsonl");
    let (mut ran, mut differ) = (0, 0);
    for row in &rows {
        let ours = row.published_in == "choria" && row.subject == "choria.lifecycle.event.shutdown.server";
        let (publisher, subscriber) = match row.seen_in.as_str() {
            "choria" => (&mut provisioner, &mut fleet),
            "provisioning" => (&mut fleet, &mut provisioner),
            other => panic!("account {other}"),
        };
        assert_eq!(subscriber.ask(&format!("SUB {} 1\r\nSUB end 2\r\n", row.subject)).await, Vec::<String>::new());
        let headers = row.headers.as_object().unwrap();
        let lines: String = headers.iter().map(|(k, v)| format!("{k}: {}\r\n", v.as_str().unwrap())).collect();
        let block = format!("NATS/1.0\r\n{lines}\r\n");
        let publish = format!(
            "HPUB {} {} {} {}\r\n{block}hello\r\n",
            row.subject,
            row.reply,
            block.len(),
            block.len() + "hello".len()
        );
        assert_eq!(publisher.ask(&publish).await, Vec::<String>::new());
        // What the publisher's PONG followed is routed, so it comes before the subscriber's own message.
        subscriber.send("PUB end 3\r\nend\r\n").await;
        let mut seen = Vec::new();
        loop {
            match subscriber.message().await {
                end if end.subject == "end" => break,
                message => seen.push(message),
            }
        }
        assert_eq!(seen.len(), usize::from(row.seen || ours), "{} from {}", row.subject, row.published_in);
        for message in seen {
            assert_eq!((message.subject.as_str(), message.payload.as_str()), (row.subject.as_str(), "hello"));
            assert_eq!(message.reply, None, "design6: reply subjects do not cross: {}", row.subject);
            for (key, value) in row.seen_headers.as_ref().unwrap_or(&row.headers).as_object().unwrap() {
                assert!(message.headers.contains(&format!("{key}: {}", value.as_str().unwrap())), "{message:?}");
            }
        }
        assert_eq!(subscriber.ask("UNSUB 1\r\nUNSUB 2\r\n").await, Vec::<String>::new());
        if ours { differ += 1 } else { ran += 1 }
    }
    assert_eq!((ran, differ, rows.len()), (17, 1, 18));
}
