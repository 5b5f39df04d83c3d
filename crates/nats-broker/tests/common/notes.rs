//! An observer that notes everything, and clients of a broker with few users.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use nats_broker::{AccountConfig, Broker, Grant, Observer, Permissions, Refusal, RefusalReason, StaticAuthenticator};

use super::{DEADLINE, Raw, connect_as};

/// Notes what the broker tells.
#[derive(Debug, Default)]
pub struct Notes(pub Mutex<Vec<String>>);

impl Notes {
    pub fn push(&self, note: String) {
        self.0.lock().unwrap().push(note);
    }

    /// Waits until a note of this start is there.
    pub async fn wait_for(&self, start: &str) -> String {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Some(found) = self.0.lock().unwrap().iter().find(|note| note.starts_with(start)) {
                return found.clone();
            }
            assert!(tokio::time::Instant::now() < deadline, "no note {start:?} in {:?}", self.0.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn has(&self, start: &str) -> bool {
        self.0.lock().unwrap().iter().any(|note| note.starts_with(start))
    }
}

impl Observer for Notes {
    fn refused(&self, remote: Option<SocketAddr>, refusal: &Refusal) {
        assert!(remote.is_some());
        self.push(format!("refused {} {}", refusal.reason, refusal.claimed.as_deref().unwrap_or("-")));
    }

    fn connected(&self, cid: u64, grant: &Grant) {
        self.push(format!("connected {cid} {}", grant.user.as_deref().unwrap_or("-")));
    }

    fn disconnected(&self, cid: u64, _grant: &Grant, reason: &str) {
        self.push(format!("disconnected {cid} {reason}"));
    }

    fn violation(&self, cid: u64, _grant: &Grant, what: RefusalReason, subject: &str) {
        self.push(format!("violation {cid} {what} {subject}"));
    }
}

/// A client that has logged in.
pub async fn client(broker: &Broker, user: &str) -> Raw {
    let mut raw = Raw::connect(broker.local_addr(0).unwrap()).await;
    raw.send(connect_as(user, "x")).await;
    raw.sync().await;
    raw
}

/// One account.
pub fn accounts() -> Vec<AccountConfig> {
    vec![AccountConfig::new("A")]
}

/// Users of account A with password `x`.
pub fn users(names: &[&str]) -> StaticAuthenticator {
    names.iter().fold(StaticAuthenticator::new(), |users, name| users.user(name, "x", "A", Permissions::unlimited()))
}
