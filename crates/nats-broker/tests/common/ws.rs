//! A WebSocket client that shows every byte.

use std::net::SocketAddr;
use std::sync::Arc;

use nats_proto::websocket::{FINAL, Inflater, write_masked};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{DEADLINE, Raw};

/// A TCP or TLS stream.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The mask of every frame; that of the recordings.
pub const KEY: [u8; 4] = [1, 2, 3, 4];

/// The request of an ordinary client.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub version: String,
    pub headers: Vec<(String, String)>,
}

impl Request {
    pub fn new() -> Self {
        let headers = [
            ("Host", "127.0.0.1"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        ];
        Self {
            method: "GET".into(),
            path: "/".into(),
            version: "HTTP/1.1".into(),
            headers: headers.map(|(name, value)| (name.into(), value.into())).into(),
        }
    }

    /// Sets or adds a header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub fn to_text(&self) -> String {
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{} {} {}\r\n{lines}\r\n", self.method, self.path, self.version)
    }
}

/// What the broker answered.
#[derive(Debug)]
pub struct Answer {
    pub status_line: String,
    pub headers: Vec<(String, String)>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A connection to a WebSocket listener.
pub struct Ws {
    pub raw: Raw<Box<dyn Stream>>,
}

impl Ws {
    /// Connects, through TLS when there is a configuration for it.
    pub async fn connect(addr: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream: Box<dyn Stream> = match tls {
            Some(config) => {
                let name = ServerName::try_from("localhost").unwrap();
                Box::new(TlsConnector::from(config).connect(name, stream).await.unwrap())
            }
            None => Box::new(stream),
        };
        Self { raw: Raw::over(stream) }
    }

    /// Sends a request and reads status line and headers of the answer.
    pub async fn request(&mut self, request: &Request) -> Answer {
        self.raw.send(request.to_text()).await;
        let status_line = self.raw.line().await;
        let mut headers = Vec::new();
        loop {
            let line = self.raw.line().await;
            let Some((name, value)) = line.split_once(": ") else {
                assert_eq!(line, "");
                return Answer { status_line, headers };
            };
            headers.push((name.to_owned(), value.to_owned()));
        }
    }

    /// A client that got through its handshake and has taken INFO.
    pub async fn open(addr: SocketAddr, tls: Option<Arc<ClientConfig>>, request: &Request) -> (Self, String) {
        let mut ws = Self::connect(addr, tls).await;
        let answer = ws.request(request).await;
        assert!(answer.status_line.contains(" 101 "), "{answer:?}");
        let info = ws.text_until("\r\n").await;
        assert!(info.starts_with("INFO {"), "{info}");
        (ws, info)
    }

    /// Sends one final frame.
    pub async fn send(&mut self, opcode: u8, payload: impl AsRef<[u8]>) {
        self.raw.send(masked(FINAL | opcode, payload)).await;
    }

    /// The next frame: first byte and payload. `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((first, start, length)) = header(self.raw.received())
                && self.raw.received().len() >= start + length
            {
                let frame = self.raw.take(start + length);
                return Some((first, frame[start..].to_vec()));
            }
            if !self.raw.read_more(DEADLINE).await {
                assert!(self.raw.is_over(), "no whole frame in time");
                return None;
            }
        }
    }

    /// Text of binary messages until it ends like this; decompressed where need be.
    pub async fn text_until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            let frame =
                self.frame().await.unwrap_or_else(|| panic!("ended after {:?}", String::from_utf8_lossy(&text)));
            match frame {
                (0x82, payload) => text.extend(payload),
                (0xc2, payload) => text.extend(inflate(&payload)),
                (first, payload) => panic!("{first:#x} {:?}", String::from_utf8_lossy(&payload)),
            }
        }
        String::from_utf8(text).unwrap()
    }

    /// Sends PING and gives the text up to PONG, that included.
    pub async fn sync(&mut self) -> String {
        self.send(nats_proto::websocket::BINARY, "PING\r\n").await;
        self.text_until("PONG\r\n").await
    }
}

/// A frame of a client.
pub fn masked(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_masked(first, KEY, payload.as_ref(), &mut bytes);
    bytes
}

pub fn inflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Inflater::default().inflate(payload, 64 << 20, &mut out).unwrap();
    out
}

/// First byte, start and length of the payload of a frame.
fn header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "a broker does not mask");
    Some(match second {
        126 => (first, 4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))),
        127 => (first, 10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize),
        length => (first, 2, usize::from(length)),
    })
}
