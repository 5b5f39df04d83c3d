//! From an accepted socket to the greeting: TLS in the mode of the listener, then INFO (spec 07 §2).

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Refusal;
use crate::config::{Listener, TlsStart};
use crate::connection::Served;
use crate::handshake::shake_hands;

/// The first byte of every TLS connection: a record that holds a handshake message.
pub(crate) const TLS_RECORD: u8 = 0x16;

/// Whether INFO is the first thing that a connection sees.
pub(crate) fn greets_first(listener: &Listener, has_tls: bool) -> bool {
    !has_tls || listener.tls_start == TlsStart::AfterInfo
}

impl Served {
    /// Does what the listener wants before the first operation; `false` when the connection is over.
    pub(crate) async fn open(&mut self, tls: Option<Arc<rustls::ServerConfig>>) -> bool {
        if let Some(config) = tls {
            let Some(wants_tls) = self.choose_tls().await else {
                self.session.conn.close("Client Closed");
                return false;
            };
            if wants_tls && !self.start_tls(config).await {
                return false;
            }
        }
        if !self.has_greeted {
            self.greet();
        }
        true
    }

    /// Waits as long as the mode of the listener says to see how the client begins; `None`: it left.
    async fn choose_tls(&mut self) -> Option<bool> {
        let shared = Arc::clone(&self.session.shared);
        let live = shared.live.load_full();
        let config = live.config.listen.get(self.session.listener)?;
        if config.tls_start == TlsStart::First {
            return Some(true);
        }
        if let TlsStart::FirstWithin(patience) = config.tls_start {
            match self.first_byte(patience).await {
                Ok(byte) => {
                    byte?;
                }
                Err(_) => self.greet(),
            }
        }
        if !config.allow_non_tls {
            return Some(true);
        }
        match self.first_byte(live.config.tls_timeout).await {
            Ok(byte) => Some(byte? == TLS_RECORD),
            // Whoever says nothing for so long waits for us, in clear text. From here the auth deadline counts.
            Err(_) => Some(false),
        }
    }

    /// Looks at the first byte of the client without taking it. An error: it did not come in time.
    async fn first_byte(&mut self, patience: Duration) -> Result<Option<u8>, tokio::time::error::Elapsed> {
        let conn = Arc::clone(&self.session.conn);
        tokio::time::timeout(patience, poll_fn(|cx| self.reader.poll_first_byte(&conn, cx))).await
    }

    /// The TLS handshake; `false` when it failed.
    async fn start_tls(&mut self, config: Arc<rustls::ServerConfig>) -> bool {
        self.reader.has_tls = true;
        let shared = Arc::clone(&self.session.shared);
        let conn = Arc::clone(&self.session.conn);
        let Err(detail) = shake_hands(&mut self.reader, &conn, &shared, config).await else { return true };
        let refusal = Refusal { reason: "tls_failure", detail, claimed: None };
        tracing::debug!(cid = conn.cid, remote = ?conn.remote, %refusal, "TLS handshake failed");
        shared.observer.refused(conn.remote, &refusal);
        // An alert was sent if the peer can read one; more words it would not understand.
        conn.outbox.lock().abandon();
        conn.close("TLS Handshake Failure");
        false
    }
}
