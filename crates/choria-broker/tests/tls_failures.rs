//! Failed handshakes are counted by what made them fail: the words behind each cause are those of real handshakes.
#![allow(clippy::unwrap_used)]

#[path = "common/lab.rs"]
mod lab;
#[path = "common/raw.rs"]
mod raw;

use choria_broker::Handle;
use choria_security::ca::{CertificateAuthority, IssueRequest, Usage};
use choria_security::keys::KeyKind;
use choria_security::tls::{self, TlsMaterial};
use lab::Lab;
use raw::Raw;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsConnector;

/// Waits until exactly these causes were counted, once each.
async fn counted(broker: &Handle, causes: &[&str]) {
    for cause in ["timeout", "peer_left", "not_tls", "peer_certificate", "peer_alert", "incompatible", "other"] {
        let series = format!("choria_broker_tls_failures{{cause=\"{cause}\",identity=\"{}\"}}", lab::IDENTITY);
        let expected = u64::from(causes.contains(&cause));
        lab::until(cause, async || lab::metric(broker, &series).await == expected).await;
    }
}

#[tokio::test]
async fn each_cause_is_told_from_the_others() {
    let lab = Lab::new();
    let lines =
        format!("{}plugin.choria.network.tls_timeout = 1s\nplugin.security.ecc_curves = X25519\n", lab::stats());
    let broker = lab.start(&lines).await;
    let address = broker.client_addr;

    let (mut socket, _) = raw::dial(address).await;
    socket.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await.unwrap();
    counted(&broker, &["not_tls"]).await;

    let (socket, _) = raw::dial(address).await;
    drop(socket);
    counted(&broker, &["not_tls", "peer_left"]).await;

    let _silent = raw::dial(address).await;
    counted(&broker, &["not_tls", "peer_left", "timeout"]).await;

    let (other, _) = CertificateAuthority::generate("Other CA", KeyKind::P256, lab::unix_now()).unwrap();
    let request = IssueRequest { usage: Usage::Client, ..IssueRequest::new("stranger", KeyKind::P256) };
    let stranger = lab.issue(&other, "stranger", request);
    assert_eq!(Raw::alert(address, &stranger).await, "UnknownCA");
    counted(&broker, &["not_tls", "peer_left", "timeout", "peer_certificate"]).await;

    // A client that does not trust the broker. It says so and stays: one that leaves at once may count as such.
    std::fs::write(lab.path("other-ca.pem"), other.certificate_pem()).unwrap();
    let wary = TlsMaterial { ca: Some(lab.path("other-ca.pem")), ..lab.member("m.mcollective") };
    let connector = TlsConnector::from(tls::client_config(&wary).unwrap());
    let (socket, _) = raw::dial(address).await;
    let (_, _stays) = connector.connect("127.0.0.1".try_into().unwrap(), socket).into_fallible().await.unwrap_err();
    counted(&broker, &["not_tls", "peer_left", "timeout", "peer_certificate", "peer_alert"]).await;

    let p256 = TlsMaterial { ecc_curves: vec!["CurveP256".to_owned()], ..lab.member("m.mcollective") };
    assert!(Raw::open(address, tls::client_config(&p256).unwrap()).await.is_err());
    counted(&broker, &["not_tls", "peer_left", "timeout", "peer_certificate", "peer_alert", "incompatible"]).await;

    let refused = format!("choria_broker_refused{{reason=\"tls_failure\",identity=\"{}\"}}", lab::IDENTITY);
    assert_eq!(lab::metric(&broker, &refused).await, 6);
}
