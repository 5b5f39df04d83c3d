//! Names that only one live connection may hold (DESIGN §6: identity bound at connect), and names under which connections
//! of other accounts are present.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nats_proto::encode;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::auth::ExclusiveClaim;
use crate::conn::{Conn, flag};

/// Account and name.
type ClaimKey = (u32, Box<str>);

/// Held claims by account and name.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Mutex<FxHashMap<ClaimKey, Arc<Conn>>>,
    /// Who is present under a name; mostly one.
    present: Mutex<FxHashMap<ClaimKey, SmallVec<[Arc<Conn>; 1]>>>,
    /// Holders that are being probed, by connection. One bell each: a whole fleet may probe at once, and nobody shall be
    /// woken by what another's holder does.
    probed: Mutex<FxHashMap<u64, Arc<Notify>>>,
}

/// The present holder lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Connection of the holder.
    pub(crate) holder: u64,
}

impl Claims {
    /// Takes a claim for `conn`. While another connection holds it, that one gets a PING: any byte from it within
    /// the probe time keeps the claim, silence ends it. Whoever is present under the name in account `first` is asked before.
    pub(crate) async fn take(
        &self,
        account: u32,
        first: Option<u32>,
        claim: &ExclusiveClaim,
        conn: &Arc<Conn>,
    ) -> Result<(), Held> {
        for holder in first.map(|first| self.present(first, &claim.key)).unwrap_or_default() {
            if self.lives(&holder, claim.probe).await {
                return Err(Held { holder: holder.cid });
            }
        }
        loop {
            let Some(holder) = self.try_take(account, &claim.key, conn) else {
                return Ok(());
            };
            if self.lives(&holder, claim.probe).await {
                return Err(Held { holder: holder.cid });
            }
            // Still the same silent holder: it goes. Somebody else by now: that one is probed in turn.
            if self.replace(account, &claim.key, &holder, conn) {
                holder.close("Claim Taken Over");
                return Ok(());
            }
        }
    }

    /// Makes a connection present under a name.
    pub(crate) fn appear(&self, account: u32, name: &str, conn: &Arc<Conn>) {
        self.present.lock().entry((account, name.into())).or_default().push(Arc::clone(conn));
    }

    /// Ends that.
    pub(crate) fn disappear(&self, account: u32, name: &str, conn: &Arc<Conn>) {
        let mut present = self.present.lock();
        let key = (account, Box::from(name));
        let Some(conns) = present.get_mut(&key) else { return };
        conns.retain(|other| !Arc::ptr_eq(other, conn));
        if conns.is_empty() {
            present.remove(&key);
        }
        drop(present);
        self.silence(conn.cid);
    }

    fn present(&self, account: u32, name: &str) -> SmallVec<[Arc<Conn>; 1]> {
        self.present.lock().get(&(account, Box::from(name))).cloned().unwrap_or_default()
    }

    /// Takes a free claim; otherwise gives the holder.
    fn try_take(&self, account: u32, key: &str, conn: &Arc<Conn>) -> Option<Arc<Conn>> {
        let mut held = self.held.lock();
        let slot = held.entry((account, key.into())).or_insert_with(|| Arc::clone(conn));
        if Arc::ptr_eq(slot, conn) {
            return None;
        }
        if slot.has(flag::CLOSING) {
            *slot = Arc::clone(conn);
            return None;
        }
        Some(Arc::clone(slot))
    }

    fn replace(&self, account: u32, key: &str, holder: &Arc<Conn>, conn: &Arc<Conn>) -> bool {
        let mut held = self.held.lock();
        let Some(slot) = held.get_mut(&(account, Box::from(key))) else {
            return false;
        };
        if !Arc::ptr_eq(slot, holder) {
            return false;
        }
        *slot = Arc::clone(conn);
        true
    }

    /// Whether any byte comes from the holder within the time.
    async fn lives(&self, holder: &Arc<Conn>, probe: Duration) -> bool {
        let deadline = Instant::now() + probe;
        let before = holder.reads_seen();
        let bell = Arc::clone(self.probed.lock().entry(holder.cid).or_default());
        holder.set(flag::PROBED);
        holder.append(|out| out.extend_from_slice(encode::PING));
        holder.flush();
        let lives = loop {
            let moved = bell.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if holder.reads_seen() != before {
                break true;
            }
            if holder.has(flag::CLOSING) || tokio::time::timeout_at(deadline, moved).await.is_err() {
                break false;
            }
        };
        let mut probed = self.probed.lock();
        // Ours and the table's: nobody else listens.
        if Arc::strong_count(&bell) == 2 {
            probed.remove(&holder.cid);
        }
        lives
    }

    /// A connection that is being probed sent something.
    pub(crate) fn heard(&self, cid: u64) {
        if let Some(bell) = self.probed.lock().get(&cid) {
            bell.notify_waiters();
        }
    }

    /// Gives a claim back, if `conn` still holds it.
    pub(crate) fn release(&self, account: u32, key: &str, conn: &Arc<Conn>) {
        let mut held = self.held.lock();
        let key = (account, Box::from(key));
        if held.get(&key).is_some_and(|holder| Arc::ptr_eq(holder, conn)) {
            held.remove(&key);
        }
        drop(held);
        self.silence(conn.cid);
    }

    /// Nobody needs to wait for this connection any more.
    fn silence(&self, cid: u64) {
        if let Some(bell) = self.probed.lock().remove(&cid) {
            bell.notify_waiters();
        }
    }
}

impl Conn {
    /// A number that changes with every read from the socket.
    fn reads_seen(&self) -> u64 {
        self.reads.load(Ordering::Acquire)
    }
}
