//! One connection: TLS, CONNECT, PING and PONG.

use std::sync::Arc;

use nats_proto::Info;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::target::{LoadError, Target};

/// A stream, with or without TLS.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Wire for S {}

/// What INFO may be long at most.
const INFO_LIMIT: usize = 64 << 10;

/// A connection that is logged in.
#[derive(Debug)]
pub struct Peer {
    /// The connection; nothing that came is held back.
    pub wire: Box<dyn Wire>,
}

impl Peer {
    /// Connects, logs in, sends `lines` (subscriptions, each with its line end) and waits for the server to have read them.
    ///
    /// # Errors
    /// There is no such server, it does not let us in, or it takes longer than [`Target::patience`].
    pub async fn connect(target: &Target, lines: &str) -> Result<Self, LoadError> {
        let late = LoadError::Late { what: "a connection", limit: target.patience };
        tokio::time::timeout(target.patience, Self::enter(target, lines)).await.unwrap_or(Err(late))
    }

    async fn enter(target: &Target, lines: &str) -> Result<Self, LoadError> {
        let failed = |reason: String| LoadError::Connect { server: format!("{}:{}", target.host, target.port), reason };
        let mut stream =
            TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|error| failed(error.to_string()))?;
        stream.set_nodelay(true)?;
        let info = info(&mut stream).await?;
        let wire: Box<dyn Wire> = match &target.tls {
            Some(config) => {
                let name = ServerName::try_from(target.host.clone()).map_err(|error| failed(error.to_string()))?;
                let connector = TlsConnector::from(Arc::clone(config));
                Box::new(connector.connect(name, stream).await.map_err(|error| failed(error.to_string()))?)
            }
            None if info.tls_required => return Err(failed("it wants TLS".to_owned())),
            None => Box::new(stream),
        };
        let mut peer = Self { wire };
        peer.wire.write_all(format!("{}{lines}", connect_line(target)).as_bytes()).await?;
        peer.settle().await?;
        Ok(peer)
    }

    /// Sends PING and waits for its PONG: everything before it is read by the server, and nothing but PONG is to come back.
    ///
    /// # Errors
    /// The server answers with an error, or closes the connection.
    pub async fn settle(&mut self) -> Result<(), LoadError> {
        self.wire.write_all(b"PING\r\n").await?;
        self.wire.flush().await?;
        let mut line = Vec::with_capacity(64);
        loop {
            line.clear();
            while !line.ends_with(b"\r\n") {
                // Byte by byte, so that nothing behind PONG is taken; it happens once a connection.
                line.push(self.wire.read_u8().await?);
                if line.len() > INFO_LIMIT {
                    return Err(unexpected(&line));
                }
            }
            match line.as_slice() {
                b"PONG\r\n" => return Ok(()),
                b"PING\r\n" => self.wire.write_all(b"PONG\r\n").await?,
                line if line.starts_with(b"INFO ") || line == b"+OK\r\n" => {}
                line => return Err(refused(line).unwrap_or_else(|| unexpected(line))),
            }
        }
    }
}

async fn info(stream: &mut TcpStream) -> Result<Info, LoadError> {
    let mut line = Vec::with_capacity(1024);
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await?);
        if line.len() > INFO_LIMIT {
            return Err(unexpected(&line));
        }
    }
    let json = line.strip_prefix(b"INFO ").ok_or_else(|| refused(&line).unwrap_or_else(|| unexpected(&line)))?;
    serde_json::from_slice(json).map_err(|_| unexpected(&line))
}

fn connect_line(target: &Target) -> String {
    let mut options = json!({
        "verbose": false, "pedantic": false, "protocol": 1, "headers": true, "echo": true,
        "name": "nats-load", "lang": "rust", "version": env!("CARGO_PKG_VERSION"), "tls_required": target.tls.is_some(),
    });
    if let Some((user, password)) = &target.login.user {
        options["user"] = user.as_str().into();
        options["pass"] = password.as_str().into();
    }
    if let Some(token) = &target.login.token {
        options["auth_token"] = token.as_str().into();
    }
    format!("CONNECT {options}\r\n")
}

/// The text of an error line.
pub(crate) fn refused(line: &[u8]) -> Option<LoadError> {
    let text = line.strip_prefix(b"-ERR ")?;
    let text = String::from_utf8_lossy(text.split(|byte| *byte == b'\r').next().unwrap_or_default());
    Some(LoadError::Refused { text: text.trim().trim_matches('\'').to_owned() })
}

pub(crate) fn unexpected(bytes: &[u8]) -> LoadError {
    LoadError::Unexpected { found: String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned() }
}
