//! Clients over websocket: the same certificates, tokens and rights as over TCP.
#![allow(clippy::unwrap_used)]

#[path = "common/lab.rs"]
mod lab;
#[path = "common/raw.rs"]
mod raw;

use std::sync::Arc;

use choria_broker::Options;
use choria_security::tls;
use lab::Lab;
use nats_proto::websocket::{BINARY, FINAL, Inflater, write_masked};
use raw::Raw;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A client that offers compression.
struct Ws {
    stream: Box<dyn Stream>,
    /// The first INFO.
    info: Value,
    /// Frames that came compressed.
    compressed: usize,
}

impl Ws {
    async fn open(address: std::net::SocketAddr, config: Option<Arc<ClientConfig>>) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        let mut stream: Box<dyn Stream> = match config {
            Some(config) => {
                let name = "127.0.0.1".try_into().unwrap();
                Box::new(tokio_rustls::TlsConnector::from(config).connect(name, socket).await.unwrap())
            }
            None => Box::new(socket),
        };
        let request = "GET / HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
                       client_no_context_takeover\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap().into());
        }
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("permessage-deflate"), "{head}");
        let mut ws = Self { stream, info: Value::Null, compressed: 0 };
        let info = ws.text_until("\r\n").await;
        ws.info = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
        ws
    }

    async fn send(&mut self, text: &str) {
        let mut frame = Vec::new();
        write_masked(FINAL | BINARY, [1, 2, 3, 4], text.as_bytes(), &mut frame);
        self.stream.write_all(&frame).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Payloads until they end like this.
    async fn text_until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            let frame = tokio::time::timeout(lab::DEADLINE, self.frame()).await.expect("no frame in time");
            match frame {
                (0x82, payload) => text.extend(payload),
                (0xc2, payload) => {
                    self.compressed += 1;
                    Inflater::default().inflate(&payload, 1 << 20, &mut text).unwrap();
                }
                (first, payload) => panic!("{first:#x} {:?}", String::from_utf8_lossy(&payload)),
            }
        }
        String::from_utf8(text).unwrap()
    }

    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let first = self.stream.read_u8().await.unwrap();
        let length = match self.stream.read_u8().await.unwrap() {
            126 => self.stream.read_u16().await.unwrap().into(),
            127 => usize::try_from(self.stream.read_u64().await.unwrap()).unwrap(),
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.unwrap();
        (first, payload)
    }

    /// Sends CONNECT and PING; the first line of the answer.
    async fn connect(&mut self, fields: Value) -> String {
        let mut connect = json!({"verbose": false, "pedantic": false, "protocol": 1, "headers": true});
        connect.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.send(&format!("CONNECT {connect}\r\nPING\r\n")).await;
        self.text_until("\r\n").await.lines().next().unwrap().to_owned()
    }

    /// Operations, and what is said up to PONG without INFO.
    async fn ask(&mut self, operations: &str) -> String {
        self.send(&format!("{operations}PING\r\n")).await;
        let text = self.text_until("PONG\r\n").await;
        text.lines().filter(|line| !line.starts_with("INFO ") && *line != "PONG").map(|l| format!("{l}\n")).collect()
    }
}

fn line() -> String {
    format!("plugin.choria.network.websocket_port = {}\n", choria_testkit::free_port())
}

#[tokio::test]
async fn members_and_nodes_come_in_over_websocket() {
    let lab = Lab::new();
    let lines = format!("{}plugin.choria.network.websocket_advertise = ws.example.net:443\n", line());
    let broker = lab.start(&lines).await;
    let address = broker.websocket_addr.unwrap();
    let material = lab.member("m.mcollective");
    let mut member = Ws::open(address, Some(tls::client_config(&material).unwrap())).await;
    assert_eq!(member.info["server_name"], lab::IDENTITY);
    assert_eq!((&member.info["host"], &member.info["port"]), (&"ws.example.net".into(), &443.into()));
    assert!(member.compressed > 0, "INFO is long enough to be compressed");
    assert_eq!(member.connect(json!({"name": "member"})).await, "PONG");
    assert_eq!(member.ask("SUB hello 1\r\n").await, "");
    let mut other = Raw::member(broker.client_addr, &material).await;
    let long = "x".repeat(1000);
    assert_eq!(other.ask(&format!("PUB hello 1000\r\n{long}\r\n")).await, Vec::<String>::new());
    let before = member.compressed;
    assert_eq!(member.text_until(&format!("{long}\r\n")).await.lines().last(), Some(long.as_str()));
    assert!(member.compressed > before);

    // An unprovisioned node is bound to its name here, too.
    let mut node = Ws::open(address, Some(tls::anonymous_client_config())).await;
    let token = lab.token(lab::DEADLINE);
    assert_eq!(node.connect(json!({"name": "n1.example.net", "auth_token": token})).await, "PONG");
    let told = node.ask("SUB provisioning.node.n2.example.net 1\r\nSUB provisioning.node.n1.example.net 2\r\n").await;
    assert_eq!(told, "-ERR 'Permissions Violation for Subscription to \"provisioning.node.n2.example.net\"'\n");
    let mut second = Ws::open(address, Some(tls::anonymous_client_config())).await;
    assert_eq!(second.connect(json!({"name": "n2.example.net"})).await, "-ERR 'Authorization Violation'");

    // A reload reaches them.
    std::fs::write(lab.path("signer.public"), "11".repeat(32)).unwrap();
    broker.reload().await.unwrap();
    node.send("PING\r\n").await;
    assert!(node.text_until("Violation'\r\n").await.contains("-ERR 'Authorization Violation'"));
    assert_eq!(member.ask("").await, "");
}

#[tokio::test]
async fn without_tls_it_is_plain_websocket_and_without_a_port_there_is_none() {
    let lab = Lab::new();
    let insecure = Options { disable_tls: true, ..Options::default() };
    let broker = lab.service(&line(), insecure).unwrap().start().await.unwrap();
    let mut member = Ws::open(broker.websocket_addr.unwrap(), None).await;
    assert_eq!(member.connect(json!({"name": "member"})).await, "PONG");
    assert_eq!(lab.start("").await.websocket_addr, None);
}

#[tokio::test]
async fn a_broker_with_tls_takes_no_plain_websocket() {
    let lab = Lab::new();
    let broker = lab.start(&format!("{}{}", line(), lab::stats())).await;
    let mut socket = TcpStream::connect(broker.websocket_addr.unwrap()).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    let series = format!("choria_broker_tls_failures{{cause=\"not_tls\",identity=\"{}\"}}", lab::IDENTITY);
    lab::until("it is counted", async || lab::metric(&broker, &series).await == 1).await;
}
