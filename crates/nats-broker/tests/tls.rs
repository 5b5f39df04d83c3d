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
    TlsStart,
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

/// Talks over an upgraded connection up to the second INFO; a publish to `no` behind it when `publishes`.
async fn talk(mut raw: Raw<TlsStream<TcpStream>>, publishes: bool) -> Result<String, String> {
    raw.send("CONNECT {\"verbose\":true,\"protocol\":1}\r\nPING\r\n").await;
    if publishes {
        raw.send("PUB ok 0\r\n\r\nPUB no 0\r\n\r\n").await;
    }
    let mut seen = String::new();
    for _ in 0..if publishes { 5 } else { 3 } {
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

/// What a client gets that waits for INFO in clear text; or how it fails.
async fn upgrade(broker: &Broker, config: ClientConfig, publishes: bool) -> Result<String, String> {
    let (raw, _) = Raw::connect_info(broker.local_addr(0).unwrap()).await;
    talk(over_tls(raw.into_stream(), config).await.map_err(|error| error.to_string())?, publishes).await
}

/// What a client gets that begins with TLS: INFO comes inside.
async fn tls_at_once(broker: &Broker, config: ClientConfig) -> Result<String, String> {
    let stream = TcpStream::connect(broker.local_addr(0).unwrap()).await.unwrap();
    let mut raw = over_tls(stream, config).await.map_err(|error| error.to_string())?;
    let info = raw.line().await;
    Ok(format!("{info}\r\n{}", talk(raw, false).await?))
}

async fn over_tls(stream: TcpStream, config: ClientConfig) -> std::io::Result<Raw<TlsStream<TcpStream>>> {
    let name = ServerName::try_from("localhost").unwrap();
    Ok(Raw::over(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

/// Lets in who has a certificate or the password, as a broker that verifies its clients should.
struct Credentials;

#[async_trait]
impl Authenticator for Credentials {
    async fn authenticate(&self, request: ConnectRequest) -> Result<Grant, Refusal> {
        let is_verified = request.tls.is_some_and(|tls| tls.is_verified());
        if is_verified || (request.connect.user == "u" && request.connect.pass == "p") {
            return Ok(Grant::new("$G"));
        }
        Err(Refusal { reason: "no_credentials", detail: "neither certificate nor password".to_owned(), claimed: None })
    }
}

/// The listener of a row.
fn listener_of(mode: &str, pki: &Pki) -> Listener {
    let verifies = mode.contains("verify") || mode == "allow-non-tls-auth";
    let server = match verifies {
        true => pki.verifying_server(),
        false => pki.server_with(WebPkiClientVerifier::no_client_auth()),
    };
    let tls_start = match mode {
        "tls-handshake-first" => TlsStart::First,
        "tls-handshake-first-auto" => TlsStart::FirstWithin(Duration::from_millis(50)),
        "tls-handshake-first-300ms" => TlsStart::FirstWithin(Duration::from_millis(300)),
        _ => TlsStart::AfterInfo,
    };
    let allow_non_tls = mode.starts_with("allow-non-tls");
    let plain = Listener::plain("127.0.0.1:0".parse().unwrap());
    Listener { tls: Some(server), tls_start, allow_non_tls, tls_verify: verifies, ..plain }
}

/// What a client sees that stays in clear text.
async fn stay_clear(broker: &Broker, connect: &str) -> String {
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    raw.send(format!("{connect}PING\r\n")).await;
    let mut seen = String::new();
    while seen.matches("\r\n").count() < 3 && (!raw.received().is_empty() || raw.read_more(DEADLINE).await) {
        seen.push_str(&raw.line().await);
        seen.push_str("\r\n");
    }
    seen
}

/// Runs a row whose outcome is a success or a failure.
async fn handshake_of(what: &str, broker: &Broker, pki: &Pki) -> Result<String, String> {
    let client = |identity| pki.client(identity, BOTH);
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    match what {
        "upgrade-no-cert" | "upgrade" => upgrade(broker, client(None), false).await,
        "upgrade-with-cert" => upgrade(broker, client(Some(pki.issue("cli", usage))), true).await,
        "upgrade-with-foreign-cert" => upgrade(broker, client(Some(Pki::new().issue("cli", usage))), false).await,
        "tls12" => upgrade(broker, pki.client(None, &[&rustls::version::TLS12]), false).await,
        "tls-at-once" => tls_at_once(broker, client(None)).await,
        other => panic!("{other}"),
    }
}

/// INFO of a listener has the TLS flags of the row and no others.
async fn check_info(broker: &Broker, row: &serde_json::Value) {
    let (_, info) = Raw::connect_info(broker.local_addr(0).unwrap()).await;
    let info: serde_json::Value = serde_json::from_str(&info["INFO ".len()..]).unwrap();
    for flag in ["tls_required", "tls_verify", "tls_available", "auth_required"] {
        assert_eq!(info.get(flag), row["info"].get(flag), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_tls_rows() {
    let pki = Pki::new();
    let (mut ran, mut left_out) = (0, 0);
    for row in common::golden_lines("tls.jsonl") {
        let case = row["case"].as_str().unwrap();
        let (mode, what) = case.split_once('/').unwrap();
        // Users by certificate name are the embedder's; no client of ours can still speak TLS 1.1.
        if mode == "tls-verify-and-map" || what == "tls11" {
            left_out += 1;
            continue;
        }
        ran += 1;
        let authenticator: Arc<dyn Authenticator> = match mode {
            "allow-non-tls-auth" => Arc::new(Credentials),
            // Ours: whoever has neither certificate nor password has to stay out, see the row "plain".
            "allow-non-tls-verify" if what == "plain" => Arc::new(Credentials),
            _ => Arc::new(OpenAuthenticator::default()),
        };
        let broker = start(vec![listener_of(mode, &pki)], authenticator);
        let is_let_in = row["result"].as_str().unwrap_or_default().contains("+OK\r\nPONG\r\n<INFO-CONNECT>");
        match what {
            "info" => check_info(&broker, &row).await,
            "plain-connect-after-info" | "garbage-after-info" | "silence" => {
                let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
                raw.send(if what == "silence" { "" } else { CONNECT }).await;
                assert_eq!(raw.rest().await, "", "{case}");
            }
            "first-clear-line" => {
                let stream = TcpStream::connect(broker.local_addr(0).unwrap()).await.unwrap();
                let mut raw = Raw::over(stream);
                if row["closed"] == true {
                    assert_eq!(raw.rest().await, "", "{case}");
                } else {
                    assert!(raw.line().await.starts_with("INFO {"), "{case}");
                }
            }
            "plain" if mode == "allow-non-tls-verify" => {
                let seen = stay_clear(&broker, "CONNECT {\"verbose\":true}\r\n").await;
                assert_eq!(seen, "-ERR 'Authorization Violation'\r\n", "{case}");
            }
            "plain" | "plain-good" => {
                let connect = "CONNECT {\"verbose\":true,\"protocol\":1,\"user\":\"u\",\"pass\":\"p\"}\r\n";
                let seen = stay_clear(&broker, connect).await;
                assert!(is_let_in && seen.starts_with("+OK\r\nPONG\r\nINFO {"), "{case}: {seen}");
            }
            _ => {
                let outcome = handshake_of(what, &broker, &pki).await;
                assert_eq!(outcome.is_ok(), is_let_in, "{case}: {outcome:?}");
                let begin = if what == "tls-at-once" { "INFO {" } else { "+OK\r\nPONG\r\nINFO {" };
                if let Ok(seen) = outcome {
                    assert!(seen.starts_with(begin) && seen.contains("connect_info"), "{case}: {seen}");
                    assert!(seen.contains("+OK\r\nPONG\r\nINFO {"), "{case}: {seen}");
                }
            }
        }
        broker.shutdown().await;
    }
    assert_eq!((ran, left_out), (42, 6));
}

/// A client that says nothing on a listener with both kinds is one in clear text, and its time to log in is bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_where_tls_is_optional_ends_at_the_auth_deadline() {
    let pki = Pki::new();
    let config = BrokerConfig {
        listen: vec![listener_of("allow-non-tls", &pki)],
        tls_timeout: Duration::from_millis(50),
        auth_timeout: Duration::from_millis(50),
        ..BrokerConfig::default()
    };
    let broker = common::start(config, vec![AccountConfig::new("$G")], Arc::new(Credentials));
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    assert_eq!(raw.rest().await, "-ERR 'Authentication Timeout'\r\n");
    broker.shutdown().await;
}

/// Joins once more with the same settings, and so with the tickets of the first time. Says whether a session was resumed.
async fn join_again(broker: &Broker, config: &Arc<ClientConfig>) -> bool {
    let name = ServerName::try_from("localhost").unwrap();
    let (raw, _) = Raw::connect_info(broker.local_addr(0).unwrap()).await;
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, raw.into_stream()).await.unwrap();
    let is_resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    let mut raw = Raw::over(stream);
    raw.send(CONNECT).await;
    raw.sync().await;
    is_resumed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_session_shows_the_certificates_of_the_first_one() {
    let pki = Pki::new();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let chains = Arc::new(Chains::default());
        let server = pki.server();
        let broker = start(vec![Listener::tls("127.0.0.1:0".parse().unwrap(), Arc::clone(&server))], chains.clone());
        let identity = pki.issue("client", ExtendedKeyUsagePurpose::ClientAuth);
        let known = Arc::new(pki.client(Some(identity), &[version]));
        let nobody = Arc::new(pki.client(None, &[version]));
        for config in [&known, &nobody] {
            assert!(!join_again(&broker, config).await, "the first time");
            assert!(join_again(&broker, config).await, "the second time");
        }
        assert_eq!(*chains.0.lock().unwrap(), [Some(1), Some(1), Some(0), Some(0)]);
        // New settings, be they equal, end all tickets: whom they trust may have changed.
        assert!(broker.set_tls(0, server));
        assert!(!join_again(&broker, &known).await, "after new settings");
        assert!(join_again(&broker, &known).await);
        broker.shutdown().await;
    }
}

/// Settings that want no tickets get none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedder_can_switch_resumption_off() {
    let pki = Pki::new();
    let mut server = rustls::ServerConfig::clone(&pki.server());
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    let listener = Listener::tls("127.0.0.1:0".parse().unwrap(), Arc::new(server));
    let broker = start(vec![listener], Arc::new(OpenAuthenticator::default()));
    let config = Arc::new(pki.client(None, BOTH));
    for _ in 0..3 {
        assert!(!join_again(&broker, &config).await);
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_brings_new_tls_settings_or_none_of_them() {
    let (old, new) = (Pki::new(), Pki::new());
    let broker = start(vec![tls_listener(&old)], Arc::new(OpenAuthenticator::default()));
    let mut before = connect(&broker, 0, old.client(None, BOTH)).await.unwrap();
    before.send(CONNECT).await;
    before.sync().await;
    let reload = |accounts| {
        let config = BrokerConfig { listen: vec![tls_listener(&new)], ..BrokerConfig::default() };
        let authenticator = Arc::new(OpenAuthenticator::default());
        broker.reload(nats_broker::Reload { config, accounts, authenticator, guards: vec![] })
    };
    let refused = reload(vec![AccountConfig::new("$G"), AccountConfig::new("$G")]);
    assert!(refused.is_err());
    assert!(connect(&broker, 0, new.client(None, BOTH)).await.is_err());
    reload(vec![AccountConfig::new("$G")]).unwrap();
    assert!(connect(&broker, 0, old.client(None, BOTH)).await.is_err());
    let mut after = connect(&broker, 0, new.client(None, BOTH)).await.unwrap();
    after.send(CONNECT).await;
    after.sync().await;
    before.sync().await;
    broker.shutdown().await;
}
