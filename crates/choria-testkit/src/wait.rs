//! Waiting for something to become true, with a deadline instead of a guess.

use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks at `condition` until it is true.
///
/// # Panics
/// When `deadline` passes first, naming `what`.
#[track_caller]
pub fn wait_until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "waited {deadline:?} in vain: {what}");
        thread::sleep(PAUSE);
    }
}

/// The same for asynchronous code; other tasks run meanwhile.
///
/// # Panics
/// When `deadline` passes first, naming `what`.
pub async fn wait_until_async(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition().await {
        assert!(Instant::now() < end, "waited {deadline:?} in vain: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_becomes_true_ends_the_wait() {
        let mut looks = 0;
        wait_until(Duration::from_secs(10), "three looks", || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    #[should_panic(expected = "in vain: never")]
    fn a_deadline_names_what_was_waited_for() {
        wait_until(Duration::from_millis(20), "never", || false);
    }

    #[tokio::test]
    async fn asynchronous_conditions_are_awaited() {
        let mut looks = 0;
        wait_until_async(Duration::from_secs(10), "two looks", async || {
            looks += 1;
            looks == 2
        })
        .await;
    }
}
