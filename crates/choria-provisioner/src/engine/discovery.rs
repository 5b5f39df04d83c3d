//! Asking who waits: one request to all nodes per interval (spec 04 §5.3).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Effect, Engine};
use crate::flow::Now;

/// How long answers are taken. The original stops 300 ms after the last; a slow node costs us nothing.
const ANSWERS: Duration = Duration::from_secs(10);

/// Nodes that lost their connection come back one by one: they try again after up to 30 s, as the original does.
const COMING_BACK: [u64; 5] = [2, 5, 11, 22, 40];

/// When to ask next, and the open request.
#[derive(Debug)]
pub(super) struct Discovery {
    interval: Duration,
    next: Instant,
    /// More of them beside the rhythm, in order.
    extra: VecDeque<Instant>,
    open: Option<(u128, Instant)>,
}

impl Discovery {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, next: now, extra: VecDeque::new(), open: None }
    }

    pub(super) fn set_interval(&mut self, interval: Duration, now: Instant) {
        self.interval = interval;
        self.next = self.next.min(now + interval);
    }

    /// Asks as soon as possible.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next = self.next.min(now);
    }

    /// Asks some times more: those who lost their connection say nothing when they are back. While it is at that, it does not
    /// begin once more, so that nobody's comings and goings make it ask all the time.
    pub(super) fn look_out(&mut self, now: Instant) {
        if self.extra.is_empty() {
            self.extra = COMING_BACK.map(|after| now + Duration::from_secs(after)).into();
        }
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        let closing = self.open.map(|(_, until)| until);
        [closing, self.extra.front().copied()].into_iter().flatten().chain([self.next]).min()
    }

    /// Whether it is time to ask.
    fn is_due(&mut self, now: Instant) -> bool {
        let mut is_due = self.next <= now;
        while self.next <= now {
            // Counted from the start, so that cycles keep their rhythm.
            self.next += self.interval;
        }
        while self.extra.front().is_some_and(|at| *at <= now) {
            self.extra.pop_front();
            is_due = true;
        }
        is_due
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
        if !self.connected || !self.discovery.is_due(now.mono) {
            return;
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
