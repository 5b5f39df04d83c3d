//! Asking who waits: one request to all nodes per interval (spec 04 §5.3).

use std::time::{Duration, Instant};

use super::{Effect, Engine};
use crate::flow::Now;

/// How long answers are taken. The original stops 300 ms after the last; a slow node costs us nothing.
const ANSWERS: Duration = Duration::from_secs(10);

/// When to ask next, and the open request.
#[derive(Debug)]
pub(super) struct Discovery {
    interval: Duration,
    next: Instant,
    open: Option<(u128, Instant)>,
}

impl Discovery {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, next: now, open: None }
    }

    pub(super) fn set_interval(&mut self, interval: Duration, now: Instant) {
        self.interval = interval;
        self.next = self.next.min(now + interval);
    }

    /// Asks as soon as possible.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next = self.next.min(now);
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        let closing = self.open.map(|(_, until)| until);
        Some(closing.map_or(self.next, |until| until.min(self.next)))
    }
}

impl Engine {
    /// Runs a discovery cycle when it is due, closes the one before.
    pub(super) fn discover(&mut self, now: Now) {
        if let Some((random, until)) = self.discovery.open
            && until <= now.mono
        {
            self.inbox.close(random, now.mono);
            self.discovery.open = None;
        }
        if !self.connected || now.mono < self.discovery.next {
            return;
        }
        while self.discovery.next <= now.mono {
            // Counted from the start, so that cycles keep their rhythm.
            self.discovery.next += self.discovery.interval;
        }
        if self.paused || self.draining {
            tracing::warn!("skipping discovery while paused");
            return;
        }
        if let Some((random, _)) = self.discovery.open.take() {
            self.inbox.close(random, now.mono);
        }
        let (document, subject, request_id) = self.requests.discovery(now);
        let random = self.draw();
        let reply_to = self.inbox.open_discovery(request_id, random);
        self.discovery.open = Some((random, now.mono + ANSWERS));
        self.metrics.discover_cycles.add();
        tracing::debug!("asking who waits to be provisioned");
        self.effects.push(Effect::Send { origin: None, subject, reply_to, document });
    }

    /// 128 unpredictable bits.
    pub(super) fn draw(&mut self) -> u128 {
        (u128::from(self.random.next_u64()) << 64) | u128::from(self.random.next_u64())
    }
}
