//! Going away without a stampede: clients are told, get time to leave, and are let go one by one (spec 07 §6).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::conn::{Conn, flag};

/// Longest time between two connections that are closed.
const LONGEST_STEP: Duration = Duration::from_secs(1);
/// Shortest wait between two rounds; with more connections than rounds each round closes several.
const SHORTEST_STEP: Duration = Duration::from_millis(5);

impl Broker {
    /// Closes the listeners at once, tells clients that the broker is going (INFO with `ldm`), leaves them
    /// `lame_duck_grace_period` and closes those that are still there spread over the rest of `lame_duck_duration`, at most
    /// a second apart. Returns when the last connection has ended; at once when there is none. Call
    /// [`Broker::shutdown`] then. A second call waits for the same end.
    ///
    /// Connections work on until they are closed. Clients of protocol 0 and those that never sent CONNECT are told nothing.
    pub async fn lame_duck(&self) {
        let shared = &self.shared;
        let is_first = !shared.is_lame_duck.swap(true, Ordering::AcqRel);
        shared.accepting.cancel();
        shared.acceptors.close();
        shared.acceptors.wait().await;
        shared.connections.close();
        if is_first {
            crate::sys::events::going(shared, "LAMEDUCK");
            for conn in shared.all_conns() {
                conn.tell_lame_duck();
            }
            tokio::select! {
                () = shared.connections.wait() => return,
                () = shared.stop.cancelled() => {}
                () = self.let_go() => {}
            }
        }
        shared.connections.wait().await;
    }

    /// Sends one client the INFO with `ldm`, and nothing else: it will look for another broker. `false`: there is no such
    /// connection.
    pub fn lame_duck_client(&self, cid: u64) -> bool {
        let conn = self.shared.conn(cid);
        conn.inspect(|conn| conn.tell_lame_duck()).is_some()
    }

    /// Closes connection after connection once the grace is over.
    async fn let_go(&self) {
        let live = self.shared.live.load_full();
        let begun = Instant::now();
        tokio::time::sleep(live.config.lame_duck_grace_period).await;
        let end = begun + live.config.lame_duck_duration;
        let mut rest: Vec<Arc<Conn>> = self.shared.all_conns();
        while !rest.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            let each = left.checked_div(u32::try_from(rest.len()).unwrap_or(u32::MAX)).unwrap_or_default();
            let at_once = if each.is_zero() { rest.len() } else { rounds_in(SHORTEST_STEP, each) };
            let gone = at_once.min(rest.len());
            for conn in rest.drain(..gone) {
                conn.close("Server Shutdown");
            }
            if !rest.is_empty() {
                // Not in step with anything: each comes back at a time of its own.
                let longest = (each * u32::try_from(gone).unwrap_or(u32::MAX)).min(LONGEST_STEP);
                let share = rand::rng().random_range(0.5..1.0);
                tokio::time::sleep(longest.mul_f64(share)).await;
            }
        }
    }
}

/// How often `each` goes into `whole`, at least once.
fn rounds_in(whole: Duration, each: Duration) -> usize {
    usize::try_from(whole.as_nanos() / each.as_nanos().max(1)).unwrap_or(usize::MAX).max(1)
}

impl Conn {
    /// Makes the connection's task send INFO with `ldm` when its client understands it.
    pub(crate) fn tell_lame_duck(&self) {
        self.set(flag::LAME_DUCK);
        self.wake();
    }
}
