//! What will happen, in the order of time; what is planned for one moment happens in the order it was planned.

use std::collections::BTreeMap;

use crate::trace::Time;

/// The plan.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    entries: BTreeMap<(Time, u64), T>,
    next: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), next: 0 }
    }
}

impl<T> Agenda<T> {
    /// Plans something.
    pub(crate) fn plan(&mut self, at: Time, what: T) {
        self.entries.insert((at, self.next), what);
        self.next += 1;
    }

    /// Takes what is next.
    pub(crate) fn next(&mut self) -> Option<(Time, T)> {
        self.entries.pop_first().map(|((at, _), what)| (at, what))
    }
}
