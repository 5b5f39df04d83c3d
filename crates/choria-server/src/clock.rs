//! The clock that the shells read and hand to the cores.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

/// The time, from the system or from a test.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(Timestamp::now))
    }
}

impl Clock {
    /// A clock that asks `now` for Unix seconds.
    pub fn new(now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || Timestamp::from_second(now()).unwrap_or(Timestamp::UNIX_EPOCH)))
    }

    /// Unix seconds.
    pub fn now(&self) -> i64 {
        self.timestamp().as_second()
    }

    /// The time as precise as the source is.
    pub fn timestamp(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.timestamp())
    }
}
