//! How agents ask the server to end: restart, shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::server::Exit;

/// An end that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// When.
    pub at: Instant,
    /// How.
    pub exit: Exit,
}

/// Asks the server to end. The first wish counts; later ones learn when it will be.
#[derive(Debug, Clone)]
pub struct Control {
    sender: watch::Sender<Option<Scheduled>>,
    configured: Arc<AtomicBool>,
}

impl Default for Control {
    fn default() -> Self {
        Self { sender: watch::Sender::new(None), configured: Arc::default() }
    }
}

impl Control {
    /// Ends the server `delay` after `now`, unless it ends already. Answers how long it will still take.
    pub fn end_in(&self, now: std::time::Instant, delay: Duration, exit: Exit) -> Duration {
        let now = Instant::from_std(now);
        let mut remaining = delay;
        self.sender.send_if_modified(|scheduled| match scheduled {
            Some(earlier) => {
                remaining = earlier.at.saturating_duration_since(now);
                false
            }
            None => {
                *scheduled = Some(Scheduled { at: now + delay, exit });
                true
            }
        });
        remaining
    }

    /// A configuration was carried out: what is on disk belongs together and is what the next start uses.
    pub fn set_configured(&self) {
        self.configured.store(true, Ordering::Release);
    }

    /// Whether a configuration was carried out since the start.
    pub fn is_configured(&self) -> bool {
        self.configured.load(Ordering::Acquire)
    }

    /// Whether the server is configured and about to restart with it. Nobody needs to find it any more: it would be
    /// configured once more by a provisioner that was started in these seconds.
    pub fn is_leaving(&self) -> bool {
        self.is_configured() && self.sender.borrow().is_some()
    }

    /// The wish, as it comes.
    pub fn watch(&self) -> watch::Receiver<Option<Scheduled>> {
        self.sender.subscribe()
    }
}
