//! A client that speaks the protocol line by line, so that tests see exactly what the broker says.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use choria_security::tls::{self, TlsMaterial};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const DEADLINE: Duration = Duration::from_secs(20);

pub struct Raw {
    stream: BufReader<TlsStream<TcpStream>>,
    /// The first INFO.
    pub info: Value,
    /// The connection's own account, from the second INFO.
    pub account: Option<String>,
}

/// One delivered message.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivered {
    pub subject: String,
    pub reply: Option<String>,
    pub headers: String,
    pub payload: String,
}

/// INFO in clear text, and the socket.
pub async fn dial(address: SocketAddr) -> (TcpStream, Value) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(socket.read_u8().await.unwrap());
    }
    let text = String::from_utf8(line).unwrap();
    (socket, serde_json::from_str(text.strip_prefix("INFO ").unwrap()).unwrap())
}

impl Raw {
    /// Connects and finishes the TLS handshake; no CONNECT is sent.
    pub async fn open(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        let (socket, info) = dial(address).await;
        let name = "127.0.0.1".try_into().unwrap();
        let stream = TlsConnector::from(config).connect(name, socket).await?;
        Ok(Self { stream: BufReader::new(stream), info, account: None })
    }

    /// The TLS alert that ends a connection, during or right after the handshake.
    pub async fn alert(address: SocketAddr, material: &TlsMaterial) -> String {
        let error = match Self::open(address, tls::client_config(material).unwrap()).await {
            Err(error) => error,
            Ok(mut raw) => {
                let mut bytes = Vec::new();
                let read = raw.stream.read_to_end(&mut bytes);
                tokio::time::timeout(DEADLINE, read).await.expect("no alert in time").unwrap_err()
            }
        };
        let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::AlertReceived(alert)) => format!("{alert:?}"),
            _ => panic!("not an alert: {error:?}"),
        }
    }

    pub async fn anonymous(address: SocketAddr) -> Self {
        Self::open(address, tls::anonymous_client_config()).await.unwrap()
    }

    /// An accepted member of the fleet.
    pub async fn member(address: SocketAddr, material: &TlsMaterial) -> Self {
        let mut raw = Self::open(address, tls::client_config(material).unwrap()).await.unwrap();
        raw.connect(json!({"name": "member"})).await.unwrap();
        raw
    }

    /// An accepted unprovisioned node.
    pub async fn node(address: SocketAddr, name: &str, token: &str) -> Self {
        let mut raw = Self::anonymous(address).await;
        raw.connect(json!({"name": name, "auth_token": token})).await.unwrap();
        raw
    }

    /// What the broker showed of itself.
    pub fn server_certificate(&self) -> CertificateDer<'static> {
        self.stream.get_ref().get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    pub async fn send(&mut self, text: &str) {
        // A broker that has closed already is seen when reading.
        let _ = self.stream.write_all(text.as_bytes()).await;
        let _ = self.stream.flush().await;
    }

    /// The next line without its end; `None` once the broker has closed.
    pub async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(DEADLINE, self.stream.read_line(&mut line)).await.expect("no line in time");
        match read {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    /// Sends CONNECT with the usual options and `fields`, then PING. The error line when it is refused.
    pub async fn connect(&mut self, fields: Value) -> Result<(), String> {
        let mut connect = json!({
            "verbose": false, "pedantic": false, "lang": "test", "version": "0", "protocol": 1, "headers": true,
            "no_responders": true
        });
        connect.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let lines = self.ask(&format!("CONNECT {connect}\r\n")).await;
        match lines.first() {
            // The second INFO follows the first PONG.
            None => self.ask("").await.first().map_or(Ok(()), |line| Err(line.clone())),
            Some(line) => Err(line.clone()),
        }
    }

    /// Sends operations and a PING; what the broker says before its PONG, or `EOF` when it closes.
    pub async fn ask(&mut self, operations: &str) -> Vec<String> {
        self.send(&format!("{operations}PING\r\n")).await;
        let mut lines = Vec::new();
        loop {
            match self.line().await {
                None => {
                    lines.push("EOF".to_owned());
                    return lines;
                }
                Some(line) if line == "PONG" => return lines,
                Some(line) if line == "PING" => self.send("PONG\r\n").await,
                Some(line) => match line.strip_prefix("INFO ") {
                    Some(info) => self.take_info(info),
                    None => lines.push(line),
                },
            }
        }
    }

    fn take_info(&mut self, text: &str) {
        let info: Value = serde_json::from_str(text).unwrap();
        if let Some(account) = info["remote_account"].as_str() {
            self.account = Some(account.to_owned());
        }
    }

    /// The next message; answers PINGs on the way.
    pub async fn message(&mut self) -> Delivered {
        loop {
            let line = self.line().await.expect("a message, not the end");
            let words: Vec<&str> = line.split(' ').collect();
            match words[0] {
                "PING" => self.send("PONG\r\n").await,
                "PONG" => {}
                "INFO" => self.take_info(&line["INFO ".len()..]),
                "MSG" => return self.body(&words, 0).await,
                "HMSG" => {
                    let headers = words[words.len() - 2].parse().unwrap();
                    return self.body(&words[..words.len()], headers).await;
                }
                _ => panic!("unexpected line {line}"),
            }
        }
    }

    async fn body(&mut self, words: &[&str], headers: usize) -> Delivered {
        let fixed = if headers == 0 { 4 } else { 5 };
        let size: usize = words[words.len() - 1].parse().unwrap();
        let mut bytes = vec![0; size + 2];
        self.stream.read_exact(&mut bytes).await.unwrap();
        Delivered {
            subject: words[1].to_owned(),
            reply: (words.len() > fixed).then(|| words[3].to_owned()),
            headers: String::from_utf8(bytes[..headers].to_vec()).unwrap(),
            payload: String::from_utf8(bytes[headers..size].to_vec()).unwrap(),
        }
    }

    /// Reads until the broker closes; the lines on the way.
    pub async fn until_closed(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            if !line.starts_with("INFO ") && line != "PING" {
                lines.push(line);
            }
        }
        lines
    }
}
