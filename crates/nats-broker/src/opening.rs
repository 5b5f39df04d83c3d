//! From an accepted socket to the greeting: TLS in the mode of the listener, the HTTP request of WebSocket clients, then INFO
//! (spec 07 §2, §9).

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Refusal;
use crate::config::{Listener, TlsStart, WebSocketSettings};
use crate::conn::flag;
use crate::connection::Served;
use crate::framing::Framing;
use crate::handshake::shake_hands;
use crate::upgrade::{self, Upgrade};

/// The first byte of every TLS connection: a record that holds a handshake message.
pub(crate) const TLS_RECORD: u8 = 0x16;

/// Whether INFO is the first thing that a connection sees.
pub(crate) fn greets_first(listener: &Listener, has_tls: bool) -> bool {
    listener.websocket.is_none() && (!has_tls || listener.tls_start == TlsStart::AfterInfo)
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
        let live = self.session.shared.live.load_full();
        let listener = live.config.listen.get(self.session.listener);
        if let Some(settings) = listener.and_then(|listener| listener.websocket.as_ref()) {
            let patience = Some(settings.handshake_timeout).filter(|patience| !patience.is_zero());
            if !self.upgrade(settings, patience.unwrap_or(live.config.tls_timeout)).await {
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
        if config.tls_start == TlsStart::First || config.websocket.is_some() {
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

    /// The HTTP request for WebSocket and its answer; `false` when there will be no WebSocket.
    async fn upgrade(&mut self, settings: &WebSocketSettings, patience: Duration) -> bool {
        let conn = Arc::clone(&self.session.conn);
        let mut request = self.reader.take_early();
        let has_tls = self.reader.has_tls;
        let outcome = tokio::time::timeout(patience, async {
            let mut looked_at = 0;
            loop {
                // Not with every byte: a request may come one by one.
                let from = request.len().min(looked_at).saturating_sub(3);
                if request.len() >= upgrade::LONGEST_REQUEST
                    || request[from..].windows(4).any(|four| four == b"\r\n\r\n")
                {
                    let outcome = upgrade::answer(&request, settings, has_tls);
                    if outcome != Upgrade::Incomplete {
                        return Some(outcome);
                    }
                }
                looked_at = request.len();
                if !poll_fn(|cx| self.reader.poll_plain(&conn, &mut request, cx)).await {
                    return None;
                }
            }
        });
        let detail = match outcome.await {
            Ok(Some(Upgrade::Accepted(accepted))) => {
                let upgrade::Accepted { answer, consumed, encoder, cookies, forwarded } = *accepted;
                tracing::debug!(cid = conn.cid, remote = ?conn.remote, ?forwarded, "WebSocket client");
                self.reader.speak_websocket(encoder.may_deflate, request[consumed..].to_vec(), cookies);
                conn.set(flag::WEBSOCKET);
                conn.outbox.lock().framing = Some(Box::new(Framing::new(encoder, answer)));
                return true;
            }
            Ok(Some(Upgrade::Refused { answer, detail })) => {
                conn.append(|out| out.extend_from_slice(&answer));
                conn.flush();
                detail
            }
            Ok(_) => "the peer left before its HTTP request was whole",
            Err(_) => "the HTTP request did not come in time",
        };
        let refusal = Refusal { reason: "websocket_handshake", detail: detail.to_owned(), claimed: None };
        tracing::debug!(cid = conn.cid, remote = ?conn.remote, %refusal, "WebSocket handshake failed");
        self.session.shared.observer.refused(conn.remote, &refusal);
        conn.close("WebSocket Handshake Failure");
        false
    }
}
