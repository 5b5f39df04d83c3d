//! The history: what happened, one line each, and a hash over all lines.
//!
//! Lines tell meanings (who, what, how it ended), never keys, signatures or random ids: those come from the system and
//! differ from run to run.

use std::fmt::{self, Write as _};
use std::time::Duration;

/// A moment of a history: time since its beginning.
pub(crate) type Time = Duration;

/// Collects the history.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
    count: u64,
    line: String,
}

impl Trace {
    /// `keep`: the lines are wanted, not only their hash.
    pub(crate) fn new(keep: bool) -> Self {
        // The offset basis of FNV-1a.
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: keep.then(Vec::new), count: 0, line: String::new() }
    }

    /// Adds a line.
    pub(crate) fn note(&mut self, now: Time, what: fmt::Arguments<'_>) {
        self.line.clear();
        let written = write!(self.line, "{:>12.6} {what}", now.as_secs_f64());
        debug_assert!(written.is_ok(), "writing to a text cannot fail");
        for byte in self.line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.count += 1;
        if let Some(lines) = &mut self.lines {
            lines.push(self.line.clone());
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_lines_in_their_order() {
        let of = |lines: &[&str]| {
            let mut trace = Trace::new(true);
            for line in lines {
                trace.note(Time::from_millis(1), format_args!("{line}"));
            }
            (trace.hash(), trace.into_lines())
        };
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        assert_ne!(of(&["a", "b"]).0, of(&["b", "a"]).0);
        assert_ne!(of(&["ab"]).0, of(&["a", "b"]).0);
        assert_eq!(of(&["a"]).1, ["    0.001000 a"]);
    }
}
