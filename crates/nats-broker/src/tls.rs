//! One TLS session per connection, kept behind the outbox lock so that any producer can encrypt for it.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;

/// The server side of a TLS session; no socket.
#[derive(Debug)]
pub(crate) struct Tls {
    session: ServerConnection,
}

/// What a batch of encrypted bytes gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        let mut session = ServerConnection::new(config)?;
        // The outbox bounds what waits; the session is emptied after every write to it.
        session.set_buffer_limit(None);
        Ok(Self { session })
    }

    /// Whether the handshake still runs.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whether the session has bytes of its own to send: handshake, alerts, key updates.
    pub(crate) fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    /// Decrypts bytes from the socket into `plain`, which has room for at least as many.
    ///
    /// # Errors
    /// The peer broke the protocol or its certificate was refused; the alert for it waits to be sent.
    pub(crate) fn ingest(&mut self, mut cipher: &[u8], plain: &mut [u8]) -> Result<Ingested, rustls::Error> {
        let mut at = 0;
        let mut closed = false;
        while !cipher.is_empty() {
            self.session.read_tls(&mut cipher).map_err(|error| rustls::Error::General(error.to_string()))?;
            self.session.process_new_packets()?;
            loop {
                match self.session.reader().read(&mut plain[at..]) {
                    Ok(0) => {
                        closed = true;
                        break;
                    }
                    Ok(read) => at += read,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(rustls::Error::General(error.to_string())),
                }
            }
            if closed {
                break;
            }
        }
        Ok(Ingested { plain: at, closed })
    }

    /// Encrypts `plain` and appends the records, with whatever the session itself has to send, to `cipher`.
    ///
    /// # Errors
    /// The session is broken.
    pub(crate) fn encrypt(&mut self, plain: &[u8], cipher: &mut Vec<u8>) -> Result<(), rustls::Error> {
        let failed = |error: io::Error| rustls::Error::General(error.to_string());
        self.session.writer().write_all(plain).map_err(failed)?;
        while self.session.wants_write() {
            self.session.write_tls(cipher).map_err(failed)?;
        }
        Ok(())
    }

    /// Tells the peer that nothing more will come.
    pub(crate) fn close_notify(&mut self) {
        self.session.send_close_notify();
    }

    /// The chain that the peer proved, leaf first.
    pub(crate) fn peer_chain(&self) -> Vec<CertificateDer<'static>> {
        self.session
            .peer_certificates()
            .map(|chain| chain.iter().map(|der| der.clone().into_owned()).collect())
            .unwrap_or_default()
    }

    /// What the handshake agreed on.
    pub(crate) fn agreed(&self) -> Option<(rustls::ProtocolVersion, rustls::CipherSuite)> {
        Some((self.session.protocol_version()?, self.session.negotiated_cipher_suite()?.suite()))
    }
}
