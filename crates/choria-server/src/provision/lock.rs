//! One provisioner at a time: the lock of spec 03 §7. Sans-io; the token is checked before it is asked.

use std::time::{Duration, Instant};

/// How long a lock is held after the owner's last call.
pub const HELD_FOR: Duration = Duration::from_secs(120);

/// Who provisions this node now.
#[derive(Debug, Default)]
pub struct ProvisioningLock {
    holder: Option<Holder>,
}

#[derive(Debug)]
struct Holder {
    sender: String,
    caller: String,
    until: Instant,
}

impl ProvisioningLock {
    /// Takes or extends the lock for this sender and caller. False while somebody else holds it.
    ///
    /// Both names count on their own: joined with a dot, as the original joins them, `a.b` with `c` is `a` with `b.c`.
    pub fn acquire(&mut self, sender: &str, caller: &str, now: Instant) -> bool {
        if let Some(holder) = &self.holder
            && now < holder.until
            && (holder.sender != sender || holder.caller != caller)
        {
            return false;
        }
        self.holder = Some(Holder { sender: sender.to_owned(), caller: caller.to_owned(), until: now + HELD_FOR });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_for_two_minutes_and_extended_by_each_call() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lock = ProvisioningLock::default();
        assert!(lock.acquire("p1", "choria=p", at(0)));
        assert!(!lock.acquire("p2", "choria=p", at(1)));
        assert!(!lock.acquire("p1", "choria=q", at(1)));
        assert!(lock.acquire("p1", "choria=p", at(100)));
        assert!(!lock.acquire("p2", "choria=p", at(219)));
        assert!(lock.acquire("p2", "choria=p", at(220)));
    }

    #[test]
    fn names_are_not_joined() {
        let now = Instant::now();
        let mut lock = ProvisioningLock::default();
        assert!(lock.acquire("a.b", "c", now));
        assert!(!lock.acquire("a", "b.c", now));
    }
}
