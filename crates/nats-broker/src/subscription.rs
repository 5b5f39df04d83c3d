//! One subscription, and the table of those that a connection holds.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustc_hash::FxSeededState;

use crate::auth::Grant;
use crate::conn::Conn;
use crate::local::LocalSink;

/// A client's name of a subscription: any bytes without blank, mostly a few digits.
#[derive(Clone)]
pub(crate) enum Sid {
    /// Up to 14 bytes in place.
    Inline(u8, [u8; 14]),
    /// Boxed twice: a long sid is too rare to make every other one larger.
    Long(Box<Box<[u8]>>),
}

impl Sid {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut inline = [0; 14];
        match inline.get_mut(..bytes.len()) {
            Some(start) => {
                start.copy_from_slice(bytes);
                Self::Inline(bytes.len() as u8, inline)
            }
            None => Self::Long(Box::new(bytes.into())),
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
    Local(Box<LocalSink>),
}

/// What few subscriptions have.
#[derive(Debug, Default)]
pub(crate) struct Special {
    pub(crate) queue: Option<Arc<str>>,
    /// Set when a deny entry overlaps the filter: each subject is checked at delivery.
    pub(crate) filtered_by: Option<Arc<Grant>>,
}

/// [`Subscription::slot`] of one that was taken out of the index.
const ENDED: u32 = u32::MAX;

/// One subscription. Shared by the account's index and the connection's table. A fleet has many, so it is kept small.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) sink: Sink,
    pub(crate) sid: Sid,
    pub(crate) filter: Arc<str>,
    special: Option<Box<Special>>,
    /// Deliveries after which the subscription ends; 0 = no end.
    pub(crate) max: AtomicU64,
    /// Deliveries so far. Changed only under the lock of the target's outbox.
    pub(crate) delivered: AtomicU64,
    /// Number of the account.
    pub(crate) account: u32,
    /// Position in its list of the index; only meaningful under the index's write lock.
    slot: AtomicU32,
}

impl Subscription {
    pub(crate) fn new(sink: Sink, sid: Sid, account: u32, filter: Arc<str>, special: Special) -> Self {
        let is_special = special.queue.is_some() || special.filtered_by.is_some();
        Self {
            sink,
            sid,
            filter,
            special: is_special.then(|| Box::new(special)),
            max: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            account,
            slot: AtomicU32::new(0),
        }
    }

    /// Queue group.
    pub(crate) fn queue(&self) -> Option<&Arc<str>> {
        self.special.as_ref()?.queue.as_ref()
    }

    /// The grant whose deny entries are checked at delivery.
    pub(crate) fn filtered_by(&self) -> Option<&Grant> {
        self.special.as_ref()?.filtered_by.as_deref()
    }

    /// Position in the index; under its write lock.
    pub(crate) fn slot(&self) -> usize {
        self.slot.load(Ordering::Relaxed) as usize
    }

    /// Notes the position in the index; under its write lock.
    pub(crate) fn set_slot(&self, slot: usize) {
        self.slot.store(slot as u32, Ordering::Relaxed);
    }

    /// Marks the subscription as taken out; under the index's write lock.
    pub(crate) fn set_ended(&self) {
        self.slot.store(ENDED, Ordering::Relaxed);
    }

    /// Whether it was taken out of the index.
    pub(crate) fn has_ended(&self) -> bool {
        self.slot.load(Ordering::Relaxed) == ENDED
    }

    /// Whether it had all the messages it asked for.
    pub(crate) fn is_exhausted(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        max != 0 && self.delivered.load(Ordering::Relaxed) >= max
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
