//! One subscription, and the table of those that a connection holds.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rustc_hash::FxSeededState;

use crate::auth::Grant;
use crate::conn::Conn;
use crate::local::LocalSink;

/// A client's name of a subscription: any bytes without blank, mostly a few digits.
#[derive(Clone)]
pub(crate) enum Sid {
    /// Up to 22 bytes in place.
    Inline(u8, [u8; 22]),
    Long(Box<[u8]>),
}

impl Sid {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut inline = [0; 22];
        match inline.get_mut(..bytes.len()) {
            Some(start) => {
                start.copy_from_slice(bytes);
                Self::Inline(bytes.len() as u8, inline)
            }
            None => Self::Long(bytes.into()),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(self.as_bytes()))
    }
}

impl PartialEq for Sid {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Sid {}

impl Hash for Sid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl Borrow<[u8]> for Sid {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Where messages of a subscription go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A connection over a socket.
    Client(Arc<Conn>),
    /// A receiver inside this process.
    Local(LocalSink),
}

/// One subscription. Shared by the account's index and the connection's table.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) sink: Sink,
    pub(crate) sid: Sid,
    /// Number of the account.
    pub(crate) account: u32,
    /// Position in its list of the index; only meaningful under the index's write lock.
    pub(crate) slot: AtomicU32,
    pub(crate) filter: Arc<str>,
    pub(crate) queue: Option<Arc<str>>,
    /// Set when a deny entry overlaps the filter: each subject is checked at delivery.
    pub(crate) filtered_by: Option<Arc<Grant>>,
    /// Deliveries after which the subscription ends; 0 = no end.
    pub(crate) max: AtomicU64,
    /// Deliveries so far. Changed only under the lock of the target's outbox.
    pub(crate) delivered: AtomicU64,
    /// Whether it was taken out of the index.
    pub(crate) ended: AtomicBool,
}

impl Subscription {
    /// Whether it had all the messages it asked for.
    pub(crate) fn is_exhausted(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        max != 0 && self.delivered.load(Ordering::Relaxed) >= max
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The connection, unless the subscription is inside this process.
    pub(crate) fn conn(&self) -> Option<&Arc<Conn>> {
        match &self.sink {
            Sink::Client(conn) => Some(conn),
            Sink::Local(_) => None,
        }
    }
}

/// Subscriptions of one connection by sid: a short list, a map only for those that hold many.
#[derive(Debug)]
pub(crate) enum SubTable {
    Few(Vec<Arc<Subscription>>),
    Many(HashMap<Sid, Arc<Subscription>, FxSeededState>),
}

/// Lists up to this length are searched one by one.
const FEW: usize = 24;

impl Default for SubTable {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl SubTable {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(map) => map.len(),
        }
    }

    pub(crate) fn get(&self, sid: &[u8]) -> Option<&Arc<Subscription>> {
        match self {
            Self::Few(list) => list.iter().find(|sub| sub.sid.as_bytes() == sid),
            Self::Many(map) => map.get(sid),
        }
    }

    /// Adds a subscription whose sid is not in the table.
    pub(crate) fn insert(&mut self, sub: Arc<Subscription>) {
        match self {
            Self::Few(list) if list.len() < FEW => list.push(sub),
            Self::Few(list) => {
                let seed = RandomState::new().hash_one(0_u8);
                let mut map = HashMap::with_hasher(FxSeededState::with_seed(seed as usize));
                map.extend(list.drain(..).map(|sub| (sub.sid.clone(), sub)));
                map.insert(sub.sid.clone(), sub);
                *self = Self::Many(map);
            }
            Self::Many(map) => {
                map.insert(sub.sid.clone(), sub);
            }
        }
    }

    pub(crate) fn remove(&mut self, sid: &[u8]) -> Option<Arc<Subscription>> {
        match self {
            Self::Few(list) => {
                let at = list.iter().position(|sub| sub.sid.as_bytes() == sid)?;
                Some(list.remove(at))
            }
            Self::Many(map) => map.remove(sid),
        }
    }

    /// Removes exactly this subscription; another one that took over its sid stays.
    pub(crate) fn remove_same(&mut self, sub: &Arc<Subscription>) -> bool {
        let is_same = self.get(sub.sid.as_bytes()).is_some_and(|found| Arc::ptr_eq(found, sub));
        is_same && self.remove(sub.sid.as_bytes()).is_some()
    }

    pub(crate) fn take_all(&mut self) -> Vec<Arc<Subscription>> {
        match std::mem::take(self) {
            Self::Few(list) => list,
            Self::Many(map) => map.into_values().collect(),
        }
    }

    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = &Arc<Subscription>> + '_> {
        match self {
            Self::Few(list) => Box::new(list.iter()),
            Self::Many(map) => Box::new(map.values()),
        }
    }
}
