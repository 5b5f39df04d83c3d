//! What the log says about connections.

use std::net::SocketAddr;

use nats_broker::{Grant, Observer, Refusal};
use tokio::sync::mpsc;

/// Writes what happens to connections to the log, and passes on who asks for a reload.
#[derive(Debug)]
pub(crate) struct Watch {
    reloads: mpsc::Sender<()>,
    can_reload: bool,
}

impl Watch {
    /// The other end gets an item for each reload that is asked for; one that waits stands for all.
    pub(crate) fn new(can_reload: bool) -> (Self, mpsc::Receiver<()>) {
        let (reloads, asked) = mpsc::channel(1);
        (Self { reloads, can_reload }, asked)
    }
}

fn name(grant: &Grant) -> &str {
    grant.user.as_deref().unwrap_or_default()
}

impl Observer for Watch {
    fn refused(&self, remote: Option<SocketAddr>, refusal: &Refusal) {
        let remote = remote.map(|remote| remote.to_string()).unwrap_or_default();
        let claimed = refusal.claimed.as_deref().unwrap_or_default();
        match refusal.reason {
            // Everyday life of a public port.
            "tls_failure" | "protocol_violation" => tracing::debug!("{remote} - {refusal}"),
            _ => tracing::error!("{remote} - refused {claimed:?} - {refusal}"),
        }
    }

    fn connected(&self, cid: u64, grant: &Grant) {
        tracing::debug!("cid:{cid} - connected as {:?} in account {:?}", name(grant), grant.account);
    }

    fn disconnected(&self, cid: u64, grant: &Grant, reason: &str) {
        tracing::debug!("cid:{cid} - disconnected {:?} of account {:?}: {reason}", name(grant), grant.account);
    }

    fn slow_consumer(&self, cid: u64, grant: Option<&Grant>, reason: &str) {
        tracing::warn!("cid:{cid} - {reason}, {:?}: closed", grant.map(name).unwrap_or_default());
    }

    fn reload_requested(&self) -> Result<(), String> {
        if !self.can_reload {
            return Err("there is no configuration file to reload".to_owned());
        }
        match self.reloads.try_send(()) {
            // One that waits has not read the file yet.
            Ok(()) | Err(mpsc::error::TrySendError::Full(())) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(())) => Err("the server is ending".to_owned()),
        }
    }

    fn violation(&self, cid: u64, grant: &Grant, what: &'static str, subject: &str) {
        // At the rate of messages: for people who look for it.
        tracing::debug!("cid:{cid} - {what} violation of {:?} on {subject:?}", name(grant));
    }
}
