//! From publishers to subscribers, as fast as the server takes it: one to one, fan-out, many to one, many subjects.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::frames::{Frames, put_stamp};
use crate::peer::Peer;
use crate::report::Report;
use crate::target::{LoadError, Target};

/// Bytes of messages that a publisher writes at once, as a client library's buffer does.
const BLOCK: usize = 64 << 10;
/// Bytes that a subscriber reads at once.
const READ: usize = 256 << 10;
/// Digits of a subject's number, and of a subscription id: all messages have one length.
const DIGITS: usize = 7;

/// Whether a subscriber has one subscription for all subjects or one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscriptions {
    /// `load.>`.
    One,
    /// `load.0000001` and so on.
    Each,
}

/// What is sent by whom to whom.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Connections that publish.
    pub publishers: usize,
    /// Connections that subscribe; each gets every message.
    pub subscribers: usize,
    /// Subjects that each publisher goes through.
    pub subjects: usize,
    /// Kind of the subscriptions.
    pub subscriptions: Subscriptions,
    /// Bytes of a payload.
    pub size: usize,
    /// Messages of all publishers together; rounded down to the same number for each.
    pub messages: u64,
}

impl Flow {
    /// Runs it. The clock begins when everybody is connected and subscribed, which `begun` is told, and ends when every
    /// subscriber has everything.
    /// Payloads of 16 bytes or more carry the time in the first message of each block, which gives the latency.
    ///
    /// # Errors
    /// What [`LoadError`] says; nothing that came until then is reported.
    pub async fn run(&self, target: &Target, begun: impl FnOnce()) -> Result<Report, LoadError> {
        if self.publishers == 0
            || self.subscribers == 0
            || self.subjects == 0
            || self.subjects >= 10_usize.pow(DIGITS as u32)
        {
            return Err(LoadError::Plan("a flow needs publishers, subscribers and one to 9999999 subjects".to_owned()));
        }
        let each = self.messages / self.publishers as u64;
        let expected = each * self.publishers as u64;
        let mut subscribers = Vec::with_capacity(self.subscribers);
        let lines = self.subscribe_lines();
        for _ in 0..self.subscribers {
            subscribers.push(Peer::connect(target, &lines).await?);
        }
        let mut publishers = Vec::with_capacity(self.publishers);
        for _ in 0..self.publishers {
            publishers.push(Peer::connect(target, "").await?);
        }
        begun();
        let clock = Instant::now();
        let mut readers = JoinSet::new();
        for peer in subscribers {
            let frames = Frames::new(subject(0).len(), DIGITS, 0, self.size);
            readers.spawn(receive(peer, frames, expected, clock, target.patience));
        }
        let mut writers = JoinSet::new();
        for peer in publishers {
            writers.spawn(send(peer, Blocks::new(self), each, clock));
        }
        while let Some(sent) = writers.join_next().await {
            joined(sent)?;
        }
        let (mut latencies, mut last) = (Vec::new(), clock);
        while let Some(received) = readers.join_next().await {
            let received = joined(received)?;
            latencies.extend(received.latencies);
            last = last.max(received.last);
        }
        Ok(Report::new(expected * self.subscribers as u64, self.size, last - clock, latencies))
    }

    fn subscribe_lines(&self) -> String {
        match self.subscriptions {
            Subscriptions::One => format!("SUB load.> {:0DIGITS$}\r\n", 1),
            Subscriptions::Each => {
                (0..self.subjects).map(|number| format!("SUB {} {number:0DIGITS$}\r\n", subject(number))).collect()
            }
        }
    }
}

fn subject(number: usize) -> String {
    format!("load.{number:0DIGITS$}")
}

/// A task's result; a task that panicked panics here, too.
pub(crate) fn joined<T>(result: Result<Result<T, LoadError>, tokio::task::JoinError>) -> Result<T, LoadError> {
    match result {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Rendered messages, sent again and again.
struct Blocks {
    rendered: Vec<u8>,
    /// Bytes of a message.
    message: usize,
    /// Where the payload begins in a message.
    payload: usize,
    size: usize,
    /// Messages in `rendered`.
    count: usize,
    per_block: usize,
}

impl Blocks {
    fn new(flow: &Flow) -> Self {
        let line = |number: usize| format!("PUB {} {}\r\n", subject(number), flow.size);
        let payload = line(0).len();
        let message = payload + flow.size + 2;
        let per_block = (BLOCK / message).max(1);
        let count = flow.subjects.max(per_block);
        let mut rendered = Vec::with_capacity(count * message);
        for number in 0..count {
            rendered.extend_from_slice(line(number % flow.subjects).as_bytes());
            rendered.resize(rendered.len() + flow.size, b'x');
            rendered.extend_from_slice(b"\r\n");
        }
        Self { rendered, message, payload, size: flow.size, count, per_block }
    }

    /// At most so many messages from one of `rendered` on, the first one stamped; and how many they are.
    fn block(&mut self, from: usize, most: u64, nanoseconds: u64) -> (&[u8], usize) {
        let messages = self.per_block.min(self.count - from).min(usize::try_from(most).unwrap_or(usize::MAX));
        let begin = from * self.message;
        put_stamp(&mut self.rendered[begin + self.payload..begin + self.payload + self.size], nanoseconds);
        (&self.rendered[begin..begin + messages * self.message], messages)
    }
}

fn nanoseconds(clock: Instant) -> u64 {
    u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

async fn send(mut peer: Peer, mut blocks: Blocks, messages: u64, clock: Instant) -> Result<(), LoadError> {
    let (mut left, mut at) = (messages, 0);
    while left > 0 {
        let (block, count) = blocks.block(at, left, nanoseconds(clock));
        peer.wire.write_all(block).await?;
        left -= count as u64;
        at = (at + count) % blocks.count;
    }
    // Whatever the server had to say to it, comes before PONG.
    peer.settle().await
}

struct Received {
    last: Instant,
    latencies: Vec<u64>,
}

async fn receive(
    mut peer: Peer,
    mut frames: Frames,
    expected: u64,
    clock: Instant,
    patience: Duration,
) -> Result<Received, LoadError> {
    let mut buffer = vec![0; READ];
    let (mut messages, mut latencies) = (0, Vec::new());
    while messages < expected {
        let late = LoadError::Late { what: "the next message", limit: patience };
        let read = tokio::time::timeout(patience, peer.wire.read(&mut buffer)).await.map_err(|_| late)??;
        if read == 0 {
            return Err(LoadError::Closed { seen: messages, expected });
        }
        let seen = frames.feed(&buffer[..read])?;
        messages += seen.messages;
        latencies.extend(seen.stamp.map(|stamp| nanoseconds(clock).saturating_sub(stamp)));
        for _ in 0..seen.pings {
            peer.wire.write_all(b"PONG\r\n").await?;
            peer.wire.flush().await?;
        }
    }
    Ok(Received { last: Instant::now(), latencies })
}
