//! What the broker tells of itself: values in nats-server's shapes and an HTTP router for them (spec 07 §8).

use std::sync::Arc;
use std::time::SystemTime;

use crate::conn::Conn;
use crate::shared::Shared;

/// A time as RFC 3339 with nanoseconds, UTC.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| time.to_string()).unwrap_or_default()
}

/// A connection that has ended.
#[derive(Debug)]
pub(crate) struct ClosedConnection {
    pub(crate) cid: u64,
}

impl ClosedConnection {
    pub(crate) fn new(_shared: &Shared, conn: &Arc<Conn>, _subscriptions: usize) -> Self {
        Self { cid: conn.cid }
    }
}
