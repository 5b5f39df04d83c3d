//! TLS on a listener: the upgrade after INFO, client certificates, bad peers, reload.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::pki::{BOTH, Pki};
use common::{CONNECT, DEADLINE, Raw, Unobserved};
use nats_broker::{
    AccountConfig, Authenticator, Broker, BrokerConfig, ConnectRequest, Grant, Listener, OpenAuthenticator, Refusal,
};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Notes what it was shown of the peer's certificates.
#[derive(Default)]
struct Chains(Mutex<Vec<Option<usize>>>);

#[async_trait]
impl Authenticator for Chains {
    async fn authenticate(&self, request: ConnectRequest) -> Result<Grant, Refusal> {
        self.0.lock().unwrap().push(request.tls.map(|tls| tls.verified_chain.len()));
        Ok(Grant::new("$G"))
    }
}

fn start(listen: Vec<Listener>, authenticator: Arc<dyn Authenticator>) -> Broker {
    let config = BrokerConfig { listen, tls_timeout: Duration::from_millis(400), ..BrokerConfig::default() };
    Broker::start(config, vec![AccountConfig::new("$G")], authenticator, vec![], Arc::new(Unobserved)).unwrap()
}

fn tls_listener(pki: &Pki) -> Listener {
    Listener::tls("127.0.0.1:0".parse().unwrap(), pki.server())
}

async fn connect(broker: &Broker, listener: usize, config: ClientConfig) -> std::io::Result<Raw<TlsStream<TcpStream>>> {
    let (raw, info) = Raw::connect_info(broker.local_addr(listener).unwrap()).await;
    assert!(info.contains("\"tls_required\":true"), "{info}");
    let name = ServerName::try_from("localhost").unwrap();
    Ok(Raw::over(TlsConnector::from(Arc::new(config)).connect(name, raw.into_stream()).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_upgrade_after_info_and_messages_cross_between_tls_and_clear_text() {
    let pki = Pki::new();
    let listen = vec![tls_listener(&pki), common::loopback()];
    let broker = start(listen, Arc::new(OpenAuthenticator::default()));
    let mut plain = Raw::connect(broker.local_addr(1).unwrap()).await;
    plain.send(CONNECT).await;
    plain.send("SUB > 1\r\n").await;
    plain.sync().await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut raw = connect(&broker, 0, pki.client(None, &[version])).await.unwrap();
        raw.send("CONNECT {\"verbose\":false,\"protocol\":1,\"headers\":true}\r\nPING\r\n").await;
        raw.expect("PONG\r\n").await;
        let info = raw.line().await;
        assert!(info.contains("\"connect_info\":true") && info.contains("\"tls_required\":true"), "{info}");
        raw.send("SUB in 1\r\n").await;
        raw.sync().await;
        let large = "z".repeat(300_000);
        raw.send(format!("PUB out 300000\r\n{large}\r\nPUB out 1\r\na\r\n")).await;
        plain.expect(format!("MSG out 1 300000\r\n{large}\r\nMSG out 1 1\r\na\r\n")).await;
        plain.send(format!("PUB in 300000\r\n{large}\r\n")).await;
        plain.expect(format!("MSG in 1 300000\r\n{large}\r\n")).await;
        raw.expect(format!("MSG in 1 300000\r\n{large}\r\n")).await;
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authenticator_sees_a_verified_chain_or_none() {
    let pki = Pki::new();
    let chains = Arc::new(Chains::default());
    let broker = start(vec![tls_listener(&pki), common::loopback()], chains.clone());
    let identity = pki.issue("client", ExtendedKeyUsagePurpose::ClientAuth);
    for identity in [Some(identity), None] {
        let mut raw = connect(&broker, 0, pki.client(identity, BOTH)).await.unwrap();
        raw.send(CONNECT).await;
        raw.sync().await;
    }
    let mut plain = Raw::connect(broker.local_addr(1).unwrap()).await;
    plain.send(CONNECT).await;
    plain.sync().await;
    assert_eq!(*chains.0.lock().unwrap(), [Some(1), Some(0), None]);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_or_wrong_certificate_ends_with_an_alert() {
    let pki = Pki::new();
    let foreign = Pki::new();
    let broker = start(vec![tls_listener(&pki)], Arc::new(OpenAuthenticator::default()));
    for identity in [
        foreign.issue("client", ExtendedKeyUsagePurpose::ClientAuth),
        pki.issue("client", ExtendedKeyUsagePurpose::ServerAuth),
    ] {
        // TLS 1.3 tells the client only after its side of the handshake.
        let alert = match connect(&broker, 0, pki.client(Some(identity), BOTH)).await {
            Err(error) => error.to_string(),
            Ok(raw) => {
                let mut stream = raw.into_inner();
                let _ = stream.write_all(CONNECT.as_bytes()).await;
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).await.unwrap_err().to_string()
            }
        };
        assert!(alert.contains("alert"), "{alert}");
    }
    assert_eq!(broker.connections("$G").len(), 0);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_and_clear_text_on_a_tls_listener_end_without_a_word() {
    let pki = Pki::new();
    let broker = start(vec![tls_listener(&pki)], Arc::new(OpenAuthenticator::default()));
    for sent in ["", CONNECT, "\u{16}\u{3}\u{1}"] {
        let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
        raw.send(sent).await;
        assert_eq!(raw.rest().await, "", "{sent:?}");
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_tls_settings_count_for_new_connections() {
    let (old, new) = (Pki::new(), Pki::new());
    let broker = start(vec![tls_listener(&old), common::loopback()], Arc::new(OpenAuthenticator::default()));
    let mut before = connect(&broker, 0, old.client(None, BOTH)).await.unwrap();
    before.send(CONNECT).await;
    before.sync().await;
    assert!(broker.set_tls(0, new.server()));
    assert!(!broker.set_tls(1, new.server()), "clear text stays clear text");
    assert!(!broker.set_tls(7, new.server()));
    assert!(connect(&broker, 0, old.client(None, BOTH)).await.is_err());
    let mut after = connect(&broker, 0, new.client(None, BOTH)).await.unwrap();
    after.send(CONNECT).await;
    after.sync().await;
    before.sync().await;
    broker.shutdown().await;
    assert_eq!(before.rest().await, "");
}

/// Handshake messages and data in records of a few bytes: none of them is whole in one record or one read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_records_are_put_together() {
    let pki = Pki::new();
    let broker = start(vec![tls_listener(&pki)], Arc::new(Chains::default()));
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let identity = pki.issue("client", ExtendedKeyUsagePurpose::ClientAuth);
        let mut config = pki.client(Some(identity), &[version]);
        config.max_fragment_size = Some(32);
        let mut raw = connect(&broker, 0, config).await.unwrap();
        raw.send(CONNECT).await;
        raw.send("SUB a 1\r\n").await;
        raw.sync().await;
        let payload = "p".repeat(100_000);
        raw.send(format!("PUB a 100000\r\n{payload}\r\n")).await;
        raw.expect(format!("MSG a 1 100000\r\n{payload}\r\n")).await;
        raw.sync().await;
    }
    broker.shutdown().await;
}

/// Half a handshake message waits in the session when the connection is ended from elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_handshake_message_does_no_harm() {
    let pki = Pki::new();
    let broker = start(vec![tls_listener(&pki)], Arc::new(OpenAuthenticator::default()));
    for length in [1_u8, 3, 4, 40] {
        let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
        // A record that holds only the beginning of a ClientHello of 512 bytes.
        let mut record = vec![0x16, 3, 1, 0, length, 1, 0, 2, 0];
        record.resize(5 + usize::from(length), 3);
        raw.send(record).await;
        tokio::task::yield_now().await;
        if length == 40 {
            broker.shutdown().await;
        }
        assert_eq!(raw.rest().await, "", "{length}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_over_tls_arrives_whole_and_in_order() {
    let pki = Pki::new();
    let broker = start(vec![tls_listener(&pki)], Arc::new(OpenAuthenticator::default()));
    let mut receiver = connect(&broker, 0, pki.client(None, BOTH)).await.unwrap();
    receiver.send(CONNECT).await;
    receiver.send("SUB n 1\r\n").await;
    receiver.sync().await;
    let mut sender = connect(&broker, 0, pki.client(None, BOTH)).await.unwrap();
    let sending = tokio::spawn(async move {
        sender.send(CONNECT).await;
        for block in 0..100 {
            let lines: String = (0..500).map(|line| format!("PUB n 100\r\n{:0100}\r\n", block * 500 + line)).collect();
            sender.send(lines).await;
        }
        sender.sync().await;
    });
    for number in 0..50_000 {
        receiver.expect(format!("MSG n 1 100\r\n{number:0100}\r\n")).await;
    }
    tokio::time::timeout(DEADLINE, sending).await.unwrap().unwrap();
    broker.shutdown().await;
}

/// What a client with this identity gets after the upgrade, up to its second INFO; or how it fails.
async fn upgrade(broker: &Broker, config: ClientConfig) -> Result<String, String> {
    let mut raw = connect(broker, 0, config).await.map_err(|error| error.to_string())?;
    raw.send("CONNECT {\"verbose\":true,\"protocol\":1}\r\nPING\r\n").await;
    let mut seen = String::new();
    for _ in 0..3 {
        while !raw.received().contains(&b'\n') {
            if !raw.read_more(DEADLINE).await {
                return Err(format!("ended after {seen:?}"));
            }
        }
        seen.push_str(&raw.line().await);
        seen.push_str("\r\n");
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_tls_rows_of_the_modes_that_this_broker_has() {
    let pki = Pki::new();
    let mut rows = 0;
    for row in common::golden_lines("tls.jsonl") {
        let case = row["case"].as_str().unwrap();
        let (mode, what) = case.split_once('/').unwrap();
        let server = match mode {
            "tls" | "tls-timeout-1" => pki.server_with(WebPkiClientVerifier::no_client_auth()),
            "tls-verify" => pki.verifying_server(),
            // Handshake first, clear text beside TLS and users by certificate name are not in this broker.
            _ => continue,
        };
        if what == "tls11" {
            // No client of ours can still speak it.
            continue;
        }
        let broker =
            start(vec![Listener::tls("127.0.0.1:0".parse().unwrap(), server)], Arc::new(OpenAuthenticator::default()));
        let succeeds = row["result"].as_str().unwrap_or_default().starts_with("+OK\r\nPONG\r\n<INFO-CONNECT>");
        let client = |identity| pki.client(identity, BOTH);
        let outcome = match what {
            "info" => {
                let (_, info) = Raw::connect_info(broker.local_addr(0).unwrap()).await;
                assert!(info.contains("\"tls_required\":true"), "{case}");
                continue;
            }
            "plain-connect-after-info" | "garbage-after-info" | "silence" => {
                let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
                raw.send(if what == "silence" { "" } else { CONNECT }).await;
                assert_eq!(raw.rest().await, "", "{case}");
                continue;
            }
            "upgrade-no-cert" => upgrade(&broker, client(None)).await,
            "upgrade-with-cert" => {
                upgrade(&broker, client(Some(pki.issue("cli", ExtendedKeyUsagePurpose::ClientAuth)))).await
            }
            "upgrade-with-foreign-cert" => {
                upgrade(&broker, client(Some(Pki::new().issue("cli", ExtendedKeyUsagePurpose::ClientAuth)))).await
            }
            "tls12" => upgrade(&broker, pki.client(None, &[&rustls::version::TLS12])).await,
            other => panic!("{other}"),
        };
        assert_eq!(outcome.is_ok(), succeeds, "{case}: {outcome:?}");
        if let Ok(seen) = outcome {
            assert!(seen.starts_with("+OK\r\nPONG\r\nINFO {") && seen.contains("connect_info"), "{case}: {seen}");
        }
        broker.shutdown().await;
        rows += 1;
    }
    assert_eq!(rows, 10);
}
