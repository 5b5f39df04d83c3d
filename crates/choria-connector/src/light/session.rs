//! One connection to one broker: the handshake, and reading and writing until it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use nats_proto::Info;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval_at, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::codec::{self, Operation};
use super::state::Shared;
use crate::connector::{Message, Status};
use crate::failure::{self, ConnectFailure, Stage};
use crate::options::{ConnectOptions, Credentials};
use crate::target::Target;

/// Room for reads of an idle connection. Larger messages make room for themselves.
const READ_CHUNK: usize = 4096;

/// A write buffer that grew beyond this is given back after use.
const KEEP_WRITE: usize = 64 * 1024;

/// PINGs without answer after which the connection counts as dead, as in other NATS clients.
const MAX_UNANSWERED: usize = 2;

/// The socket, with or without TLS.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An accepted connection.
pub(crate) struct Session {
    stream: Stream,
    buffer: BytesMut,
    info: Info,
}

impl Session {
    /// Dials, negotiates TLS and authenticates.
    pub(crate) async fn open(target: &Target, options: &ConnectOptions) -> Result<Self, ConnectFailure> {
        let credentials = options.credentials().map_err(ConnectFailure::Credentials)?;
        let stream = Self::dial(target, options).await?;
        Box::pin(Self::handshake(stream, target, options, &credentials)).await
    }

    /// Dials and waits for INFO, and no further.
    pub(crate) async fn greet(target: &Target, options: &ConnectOptions) -> Result<Self, ConnectFailure> {
        let stream = Self::dial(target, options).await?;
        let greeted = timeout(options.handshake_timeout, Self::greeted(stream, target)).await;
        greeted.unwrap_or_else(|_| Err(late(target, options, Stage::Greeting)))
    }

    async fn dial(target: &Target, options: &ConnectOptions) -> Result<TcpStream, ConnectFailure> {
        let dial = TcpStream::connect((target.host(), target.port()));
        let stream = timeout(options.connect_timeout, dial)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| ConnectFailure::dial(target, &error))?;
        // Small requests must not wait for earlier ones to be acknowledged. Failing costs speed only.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// From the TCP connection to the broker's answer to CONNECT, all of it within one time limit.
    async fn handshake(
        stream: TcpStream,
        target: &Target,
        options: &ConnectOptions,
        credentials: &Credentials,
    ) -> Result<Self, ConnectFailure> {
        let deadline = Instant::now() + options.handshake_timeout;
        let late = |stage| Err(late(target, options, stage));
        let session = timeout_at(deadline, Self::greeted(stream, target)).await;
        let session = session.unwrap_or_else(|_| late(Stage::Greeting))?;
        let session = timeout_at(deadline, session.secure(target, options)).await;
        let session = session.unwrap_or_else(|_| late(Stage::Tls))?;
        let session = timeout_at(deadline, session.authenticated(target, options, credentials)).await;
        session.unwrap_or_else(|_| late(Stage::Connect))
    }

    /// Waits for INFO, which a broker sends unasked.
    async fn greeted(stream: TcpStream, target: &Target) -> Result<Self, ConnectFailure> {
        let mut session = Self { stream: Stream::Plain(stream), buffer: BytesMut::new(), info: Info::default() };
        match session.operation(target, Stage::Greeting).await? {
            Operation::Info(info) => Ok(Self { info: *info, ..session }),
            Operation::Error(text) => Err(ConnectFailure::refused(target, &text)),
            other => {
                let reason = format!("sent {other:?} where INFO belongs");
                Err(ConnectFailure::Broken { target: target.clone(), stage: Stage::Greeting, reason })
            }
        }
    }

    /// Says who we are and waits for the answer.
    async fn authenticated(
        mut self,
        target: &Target,
        options: &ConnectOptions,
        credentials: &Credentials,
    ) -> Result<Self, ConnectFailure> {
        let hello = codec::connect(&options.name, credentials, options.tls.is_some());
        if let Err(error) = self.send(&hello).await {
            // The broker may have said why before it closed.
            return Err(self
                .refusal(target)
                .await
                .unwrap_or_else(|| ConnectFailure::io(target, Stage::Connect, &error)));
        }
        loop {
            match self.operation(target, Stage::Connect).await? {
                Operation::Pong => return Ok(self),
                Operation::Error(text) => return Err(ConnectFailure::refused(target, &text)),
                Operation::Info(info) => self.info = *info,
                Operation::Ping => {
                    let sent = self.send(nats_proto::encode::PONG).await;
                    sent.map_err(|error| ConnectFailure::io(target, Stage::Connect, &error))?;
                }
                Operation::Ok | Operation::Status { .. } | Operation::Message { .. } => {}
            }
        }
    }

    /// Writes everything and makes sure that it leaves.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// What the broker said of itself.
    pub(crate) fn info(&self) -> &Info {
        &self.info
    }

    /// An `-ERR` that is already here.
    async fn refusal(&mut self, target: &Target) -> Option<ConnectFailure> {
        loop {
            match self.operation(target, Stage::Connect).await.ok()? {
                Operation::Error(text) => return Some(ConnectFailure::refused(target, &text)),
                _ => continue,
            }
        }
    }

    async fn secure(self, target: &Target, options: &ConnectOptions) -> Result<Self, ConnectFailure> {
        let mismatch = |reason| ConnectFailure::TlsMismatch { target: target.clone(), reason };
        let Some(config) = &options.tls else {
            if self.info.tls_required {
                return Err(mismatch("requires TLS, and TLS is switched off here"));
            }
            return Ok(self);
        };
        if !self.info.tls_required && !self.info.tls_available {
            return Err(mismatch("does not offer TLS, and nothing is sent to it in clear text"));
        }
        if !self.buffer.is_empty() {
            // Bytes that came before the handshake could have been put there by anyone.
            return Err(mismatch("sent more than INFO before TLS"));
        }
        let name =
            ServerName::try_from(target.host().to_owned()).map_err(|_| mismatch("has a name that TLS cannot use"))?;
        let Stream::Plain(tcp) = self.stream else {
            return Err(mismatch("speaks TLS already"));
        };
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, tcp)
            .await
            .map_err(|error| ConnectFailure::io(target, Stage::Tls, &error))?;
        Ok(Self { stream: Stream::Tls(Box::new(stream)), ..self })
    }

    /// The next whole operation of the broker.
    pub(crate) async fn operation(&mut self, target: &Target, stage: Stage) -> Result<Operation, ConnectFailure> {
        loop {
            match codec::next(&mut self.buffer) {
                Ok(Some(operation)) => return Ok(operation),
                Ok(None) => {}
                Err(error) => {
                    let reason = format!("does not speak NATS: {error}");
                    return Err(ConnectFailure::Broken { target: target.clone(), stage, reason });
                }
            }
            self.buffer.reserve(READ_CHUNK);
            let read = match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            read.map_err(|error| ConnectFailure::io(target, stage, &error))?;
        }
    }

    /// Reads and writes until the connection ends; the answer is the reason.
    ///
    /// `status` is what the world is told once messages can be sent.
    pub(crate) async fn run(self, shared: &Shared, options: &ConnectOptions, status: Status) -> String {
        shared.begin(codec::max_payload(&self.info));
        shared.status.send_replace(status);
        let (reader, writer) = tokio::io::split(self.stream);
        let reason = tokio::select! {
            reason = read(reader, self.buffer, shared) => reason,
            reason = write(writer, shared) => reason,
            reason = keep_alive(shared, options) => reason,
        };
        shared.end();
        reason
    }
}

fn late(target: &Target, options: &ConnectOptions, stage: Stage) -> ConnectFailure {
    let reason = format!("did not finish the handshake within {:?}", options.handshake_timeout);
    ConnectFailure::Broken { target: target.clone(), stage, reason }
}

async fn read(mut reader: impl AsyncRead + Unpin, mut buffer: BytesMut, shared: &Shared) -> String {
    // What the broker complained of last is the best explanation of a close that follows.
    let mut complaint: Option<String> = None;
    loop {
        loop {
            match codec::next(&mut buffer) {
                Ok(None) => break,
                Ok(Some(operation)) => handle(operation, shared, &mut complaint),
                Err(error) => return format!("the broker sent what is not NATS: {error}"),
            }
        }
        // Doubling while a large message comes in, little while nothing does.
        buffer.reserve(buffer.len().max(READ_CHUNK));
        let ended = match reader.read_buf(&mut buffer).await {
            Ok(0) => "the broker closed the connection".to_owned(),
            Ok(_) => continue,
            Err(error) => match failure::tls_reason(&error) {
                Some((reason, "")) => reason,
                Some((reason, hint)) => format!("{reason} ({hint})"),
                None => format!("the connection broke: {}", failure::plain(&error)),
            },
        };
        return complaint.unwrap_or(ended);
    }
}

fn handle(operation: Operation, shared: &Shared, complaint: &mut Option<String>) {
    match operation {
        Operation::Message { sid, subject, reply, payload } => {
            shared.deliver(sid, Message { subject, reply, payload, status: None });
        }
        Operation::Status { sid, subject, code } => {
            shared.deliver(sid, Message { subject, reply: None, payload: Bytes::new(), status: Some(code) });
        }
        Operation::Ping => {
            shared.lock().out.extend_from_slice(nats_proto::encode::PONG);
            shared.wake.notify_one();
        }
        Operation::Pong => shared.pong(),
        Operation::Error(text) => {
            shared.broker_error(&text);
            // Permission errors leave the connection up, so they explain nothing that happens later.
            if !text.to_ascii_lowercase().starts_with("permissions violation") {
                *complaint = Some(format!("the broker ended the connection: {text}"));
            }
        }
        Operation::Info(info) => shared.lock().max_payload = codec::max_payload(&info),
        Operation::Ok => {}
    }
}

async fn write(mut writer: impl AsyncWrite + Unpin, shared: &Shared) -> String {
    let mut batch = Vec::new();
    loop {
        // Registered before looking, so that bytes added in between are not missed.
        let woken = shared.wake.notified();
        std::mem::swap(&mut batch, &mut shared.lock().out);
        if batch.is_empty() {
            woken.await;
            continue;
        }
        shared.drained.notify_waiters();
        let written = async {
            writer.write_all(&batch).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            // The reader usually knows better why; it gets the chance to say so.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            return format!("could not write to the broker: {}", failure::plain(&error));
        }
        batch.clear();
        if batch.capacity() > KEEP_WRITE {
            batch = Vec::new();
        }
    }
}

async fn keep_alive(shared: &Shared, options: &ConnectOptions) -> String {
    let mut ticks = interval_at(Instant::now() + options.ping_interval, options.ping_interval);
    loop {
        ticks.tick().await;
        if shared.unanswered() >= MAX_UNANSWERED {
            return format!("the broker did not answer {MAX_UNANSWERED} pings");
        }
        shared.queue_ping(None);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
