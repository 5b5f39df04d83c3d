//! One TLS session per connection, kept behind the outbox lock so that any producer can encrypt for it.
//!
//! rustls' unbuffered interface: bytes are decrypted in the thread's read buffer and encrypted into the buffer that
//! goes to the socket, so that an idle session owns no buffer (spec 07 §22.3).

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};

/// Largest record with its header; more than this is never left over between two reads.
pub(crate) const LARGEST_RECORD: usize = (16 << 10) + 512;
/// What a record adds to its plain bytes, generously.
const RECORD_OVERHEAD: usize = 64;

/// The server side of a TLS session; no socket.
pub(crate) struct Tls {
    session: UnbufferedServerConnection,
    /// Received bytes that are not used up: the start of a record, or of a handshake message. rustls remembers
    /// positions in them, so every call must see exactly these bytes.
    rest: Vec<u8>,
    /// Encoded handshake messages, alerts and key updates that wait to be sent.
    own: Vec<u8>,
    /// The session reported an error: it must not be asked anything more.
    is_broken: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of a session's secrets.
        f.debug_struct("Tls").field("rest", &self.rest.len()).field("own", &self.own.len()).finish_non_exhaustive()
    }
}

/// What a batch of encrypted bytes gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ingested {
    /// Plain bytes written to the caller's buffer.
    pub(crate) plain: usize,
    /// The peer said that nothing more will come.
    pub(crate) closed: bool,
}

impl Tls {
    /// A session before its handshake.
    ///
    /// # Errors
    /// The configuration cannot serve.
    pub(crate) fn new(config: Arc<rustls::ServerConfig>) -> Result<Self, rustls::Error> {
        let session = UnbufferedServerConnection::new(config)?;
        Ok(Self { session, rest: Vec::new(), own: Vec::new(), is_broken: false })
    }

    /// Whether the handshake still runs.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whether the session has bytes of its own to send: handshake, alerts, key updates.
    pub(crate) fn wants_write(&self) -> bool {
        !self.own.is_empty() || (!self.is_broken && self.session.wants_write())
    }

    /// Number of received bytes that wait for more. The caller reads that far behind the start of its buffer.
    pub(crate) fn kept(&self) -> usize {
        self.rest.len()
    }

    /// Decrypts what was read to `cipher[kept..]` into `plain`, which has room for at least as many bytes.
    ///
    /// # Errors
    /// The peer broke the protocol or its certificate was refused; the alert for it waits to be sent.
    pub(crate) fn ingest(
        &mut self,
        cipher: &mut [u8],
        kept: usize,
        plain: &mut [u8],
    ) -> Result<Ingested, rustls::Error> {
        // Another thread may have used some of the rest up while it encrypted.
        let start = kept.saturating_sub(self.rest.len());
        let cipher = &mut cipher[start..];
        let prefix = self.rest.len().min(cipher.len());
        cipher[..prefix].copy_from_slice(&self.rest[..prefix]);
        let mut ingested = Ingested::default();
        let mut used = 0;
        let outcome = loop {
            match self.step(&mut cipher[used..], plain, &mut ingested) {
                Ok((discard, is_last)) => {
                    used += discard;
                    if is_last {
                        break Ok(ingested);
                    }
                }
                Err((discard, error)) => {
                    used += discard;
                    self.collect_alert(&mut cipher[used..]);
                    break Err(error);
                }
            }
        };
        let rest = &cipher[used..];
        self.rest = if rest.is_empty() { Vec::new() } else { rest.to_vec() };
        outcome
    }

    /// The alert for an error stands first in what the session wants to send; beyond it nothing may be asked.
    fn collect_alert(&mut self, rest: &mut [u8]) {
        while self.session.wants_write() {
            let mut ingested = Ingested::default();
            if self.step(rest, &mut [], &mut ingested).is_err() {
                break;
            }
        }
        self.is_broken = true;
    }

    /// Encrypts `plain` and appends the records, behind whatever the session itself has to send, to `cipher`.
    ///
    /// # Errors
    /// The session is broken, or not yet able to carry data.
    pub(crate) fn encrypt(&mut self, plain: &[u8], cipher: &mut Vec<u8>) -> Result<(), rustls::Error> {
        self.collect_own();
        cipher.append(&mut self.own);
        self.own = Vec::new();
        if plain.is_empty() {
            return Ok(());
        }
        let start = cipher.len();
        let mut room = plain.len() + (plain.len() / (16 << 10) + 1) * RECORD_OVERHEAD;
        self.with_writable(|writable| {
            loop {
                cipher.resize(start + room, 0);
                match writable.encrypt(plain, &mut cipher[start..]) {
                    Ok(written) => {
                        cipher.truncate(start + written);
                        return Ok(());
                    }
                    Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                        room = size.required_size;
                    }
                    Err(error) => return Err(rustls::Error::General(error.to_string())),
                }
            }
        })
    }

    /// Tells the peer that nothing more will come.
    pub(crate) fn close_notify(&mut self) {
        self.collect_own();
        let mut alert = [0; 256];
        let written = self.with_writable(|writable| {
            writable.queue_close_notify(&mut alert).map_err(|error| rustls::Error::General(error.to_string()))
        });
        if let Ok(written) = written {
            self.own.extend_from_slice(&alert[..written]);
        }
    }

    /// Takes over what the session itself wants to send.
    fn collect_own(&mut self) {
        let mut rest = std::mem::take(&mut self.rest);
        while !self.is_broken && self.session.wants_write() {
            match self.step(&mut rest, &mut [], &mut Ingested::default()) {
                Ok((discard, _)) => drop(rest.drain(..discard)),
                Err(_) => self.is_broken = true,
            }
        }
        self.rest = rest;
    }

    /// Calls `write` when the session can carry data.
    fn with_writable<T>(
        &mut self,
        write: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> Result<T, rustls::Error>,
    ) -> Result<T, rustls::Error> {
        let mut rest = std::mem::take(&mut self.rest);
        let mut write = Some(write);
        let mut outcome = Err(rustls::Error::HandshakeNotComplete);
        while !self.is_broken {
            let UnbufferedStatus { discard, state } = self.session.process_tls_records(&mut rest);
            let goes_on = match state {
                Ok(ConnectionState::WriteTraffic(mut writable)) => {
                    if let Some(write) = write.take() {
                        outcome = write(&mut writable);
                    }
                    false
                }
                // Sent already, or told already: neither keeps us from writing.
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    true
                }
                Ok(ConnectionState::PeerClosed) => true,
                Ok(_) => false,
                Err(error) => {
                    self.is_broken = true;
                    outcome = Err(error);
                    false
                }
            };
            rest.drain(..discard);
            if !goes_on {
                break;
            }
        }
        self.rest = rest;
        outcome
    }

    /// One state of the session: how many bytes it used up, and whether nothing more can be done with those at hand.
    fn step(
        &mut self,
        cipher: &mut [u8],
        plain: &mut [u8],
        ingested: &mut Ingested,
    ) -> Result<(usize, bool), (usize, rustls::Error)> {
        let UnbufferedStatus { mut discard, state } = self.session.process_tls_records(cipher);
        let mut is_last = false;
        match state.map_err(|error| (discard, error))? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(|error| (discard, error))?;
                    discard += record.discard;
                    let end = ingested.plain + record.payload.len();
                    let Some(room) = plain.get_mut(ingested.plain..end) else {
                        let error = rustls::Error::General("more plain than encrypted bytes".to_owned());
                        return Err((discard, error));
                    };
                    room.copy_from_slice(record.payload);
                    ingested.plain = end;
                }
            }
            ConnectionState::EncodeTlsData(mut data) => {
                let start = self.own.len();
                let mut room = 1024;
                loop {
                    self.own.resize(start + room, 0);
                    match data.encode(&mut self.own[start..]) {
                        Ok(written) => {
                            self.own.truncate(start + written);
                            break;
                        }
                        Err(EncodeError::InsufficientSize(size)) if size.required_size > room => {
                            room = size.required_size;
                        }
                        Err(error) => return Err((discard, rustls::Error::General(error.to_string()))),
                    }
                }
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => ingested.closed = true,
            ConnectionState::Closed => {
                ingested.closed = true;
                is_last = true;
            }
            // Early data is not offered, so it never comes.
            _ => is_last = true,
        }
        Ok((discard, is_last))
    }

    /// The chain that the peer proved, leaf first.
    pub(crate) fn peer_chain(&self) -> Vec<CertificateDer<'static>> {
        let chain = self.session.peer_certificates();
        chain.map(|chain| chain.iter().map(|der| der.clone().into_owned()).collect()).unwrap_or_default()
    }

    /// Whether the handshake took an earlier session up again.
    pub(crate) fn is_resumed(&self) -> bool {
        self.session.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// What the handshake agreed on.
    pub(crate) fn agreed(&self) -> Option<(rustls::ProtocolVersion, rustls::CipherSuite)> {
        Some((self.session.protocol_version()?, self.session.negotiated_cipher_suite()?.suite()))
    }
}
