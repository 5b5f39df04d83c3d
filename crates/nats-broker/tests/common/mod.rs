//! Brokers and raw connections for tests.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "test helpers")]

pub mod configs;
pub mod monitored;
pub mod notes;
pub mod pki;
pub mod wire;
pub mod ws;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nats_broker::{AccountConfig, Authenticator, Broker, BrokerConfig, Listener, Observer, OpenAuthenticator};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest any step may take. Nothing waits that long unless it fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// An observer that looks away.
#[derive(Debug)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// A loopback listener on a free port.
pub fn loopback() -> Listener {
    Listener::plain("127.0.0.1:0".parse().unwrap())
}

/// Starts a broker with one clear-text listener.
pub fn start(config: BrokerConfig, accounts: Vec<AccountConfig>, authenticator: Arc<dyn Authenticator>) -> Broker {
    start_with(config, accounts, authenticator, Vec::new(), Arc::new(Unobserved))
}

/// Starts a broker with one clear-text listener, guards and an observer.
pub fn start_with(
    mut config: BrokerConfig,
    accounts: Vec<AccountConfig>,
    authenticator: Arc<dyn Authenticator>,
    guards: Vec<Arc<dyn nats_broker::PublishGuard>>,
    observer: Arc<dyn Observer>,
) -> Broker {
    if config.listen.is_empty() {
        config.listen.push(loopback());
    }
    Broker::start(config, accounts, authenticator, guards, observer).unwrap()
}

/// A broker that lets everybody into `$G`.
pub fn open_broker() -> Broker {
    start(BrokerConfig::default(), vec![AccountConfig::new("$G")], Arc::new(OpenAuthenticator::default()))
}

/// Where golden files lie.
pub fn testdata(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/nats-core").join(path)
}

/// The JSON documents of a golden file, one per line.
pub fn golden_lines(path: &str) -> Vec<serde_json::Value> {
    let file = testdata(path);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A raw client: bytes out, bytes in.
pub struct Raw<S = TcpStream> {
    stream: S,
    received: Vec<u8>,
    is_over: bool,
}

impl Raw {
    /// Connects and drops the first INFO line.
    pub async fn connect(addr: SocketAddr) -> Self {
        let (raw, _) = Self::connect_info(addr).await;
        raw
    }

    /// Connects and gives the first INFO line.
    pub async fn connect_info(addr: SocketAddr) -> (Self, String) {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Self::over(stream);
        let info = raw.line().await;
        assert!(info.starts_with("INFO {"), "{info}");
        (raw, info)
    }

    /// The socket, for TLS to be put over it. Nothing may have been received behind INFO.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.received.is_empty());
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// A client over any stream.
    pub fn over(stream: S) -> Self {
        Self { stream, received: Vec::new(), is_over: false }
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Sends bytes; a connection that the broker has closed is no error here.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    /// Reads once more; `false` at the end of the stream or when `within` is over.
    pub async fn read_more(&mut self, within: Duration) -> bool {
        if self.is_over {
            return false;
        }
        let mut buffer = vec![0; 64 << 10];
        match tokio::time::timeout(within, self.stream.read(&mut buffer)).await {
            Err(_) => false,
            Ok(Ok(read)) if read > 0 => {
                self.received.extend_from_slice(&buffer[..read]);
                true
            }
            Ok(_) => {
                self.is_over = true;
                false
            }
        }
    }

    /// What was received and not yet taken.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Takes bytes off the front.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        self.received.drain(..count).collect()
    }

    /// Whether the broker has closed the connection.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The next line without its end.
    pub async fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.received.iter().position(|byte| *byte == b'\n') {
                let line = self.take(at + 1);
                return String::from_utf8_lossy(&line).trim_end().to_owned();
            }
            assert!(self.read_more(DEADLINE).await, "no line, only {:?}", String::from_utf8_lossy(&self.received));
        }
    }

    /// Waits for exactly these bytes.
    pub async fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        while self.received.len() < expected.len() {
            assert!(
                self.read_more(DEADLINE).await,
                "wanted {:?}, got {:?}",
                String::from_utf8_lossy(expected),
                String::from_utf8_lossy(&self.received)
            );
        }
        let got = self.take(expected.len());
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected));
    }

    /// Sends PING and waits for PONG: everything sent before was worked through.
    pub async fn sync(&mut self) {
        self.send("PING\r\n").await;
        self.expect("PONG\r\n").await;
    }

    /// Waits until the broker closes and gives what came before.
    pub async fn rest(&mut self) -> String {
        while self.read_more(DEADLINE).await {}
        assert!(self.is_over, "the broker did not close the connection");
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

/// CONNECT of a plain, quiet client.
pub const CONNECT: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":0,\"headers\":true,\"no_responders\":true}\r\n";

/// CONNECT with user and password.
pub fn connect_as(user: &str, pass: &str) -> String {
    format!(
        "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\
         \"user\":\"{user}\",\"pass\":\"{pass}\"}}\r\n"
    )
}
