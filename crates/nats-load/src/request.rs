//! Pairs of connections: one asks, the other answers, one request after the other.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::flow::joined;
use crate::frames::Frames;
use crate::peer::Peer;
use crate::report::Report;
use crate::target::{LoadError, Target};

const DIGITS: usize = 7;

/// Who asks how often.
#[derive(Debug, Clone)]
pub struct Requests {
    /// Pairs; each has subjects of its own.
    pub pairs: usize,
    /// Requests of each pair.
    pub requests: u64,
    /// Bytes of a request and of an answer.
    pub size: usize,
    /// Pause of a pair between an answer and its next request.
    pub pause: Duration,
}

impl Requests {
    /// Runs it; `begun` is told when everybody is connected. Latency is from writing the request to reading the whole answer.
    ///
    /// # Errors
    /// What [`LoadError`] says.
    pub async fn run(&self, target: &Target, begun: impl FnOnce()) -> Result<Report, LoadError> {
        if self.pairs == 0 || self.pairs >= 10_usize.pow(DIGITS as u32) {
            return Err(LoadError::Plan("one to 9999999 pairs can ask and answer".to_owned()));
        }
        let mut responders = JoinSet::new();
        let mut askers = Vec::with_capacity(self.pairs);
        for pair in 0..self.pairs {
            let (service, inbox) = (format!("load.svc.{pair:0DIGITS$}"), format!("load.in.{pair:0DIGITS$}"));
            let payload = "x".repeat(self.size);
            let responder = Peer::connect(target, &format!("SUB {service} 1\r\n")).await?;
            let answer = format!("PUB {inbox} {}\r\n{payload}\r\n", self.size).into_bytes();
            let frames = Frames::new(service.len(), 1, inbox.len(), self.size);
            responders.spawn(respond(responder, frames, answer));
            let asker = Peer::connect(target, &format!("SUB {inbox} 1\r\n")).await?;
            let question = format!("PUB {service} {inbox} {}\r\n{payload}\r\n", self.size).into_bytes();
            askers.push((asker, Frames::new(inbox.len(), 1, 0, self.size), question));
        }
        begun();
        let begin = Instant::now();
        let mut asking = JoinSet::new();
        for (peer, frames, question) in askers {
            asking.spawn(ask(peer, frames, question, self.clone(), target.patience));
        }
        let mut latencies = Vec::new();
        while let Some(answered) = asking.join_next().await {
            latencies.extend(joined(answered)?);
        }
        let took = begin.elapsed();
        Ok(Report::new(latencies.len() as u64, self.size, took, latencies))
    }
}

/// Answers until the connection ends; that of a responder ends with the run.
async fn respond(mut peer: Peer, mut frames: Frames, answer: Vec<u8>) -> Result<(), LoadError> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = peer.wire.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let seen = frames.feed(&buffer[..read])?;
        for _ in 0..seen.pings {
            peer.wire.write_all(b"PONG\r\n").await?;
        }
        for _ in 0..seen.messages {
            peer.wire.write_all(&answer).await?;
        }
        peer.wire.flush().await?;
    }
}

async fn ask(
    mut peer: Peer,
    mut frames: Frames,
    question: Vec<u8>,
    plan: Requests,
    patience: Duration,
) -> Result<Vec<u64>, LoadError> {
    let mut buffer = vec![0; 64 << 10];
    let mut latencies = Vec::new();
    for asked in 0..plan.requests {
        let begin = Instant::now();
        peer.wire.write_all(&question).await?;
        peer.wire.flush().await?;
        let mut answered = 0;
        while answered == 0 {
            let late = LoadError::Late { what: "an answer", limit: patience };
            let read = tokio::time::timeout(patience, peer.wire.read(&mut buffer)).await.map_err(|_| late)??;
            if read == 0 {
                return Err(LoadError::Closed { seen: asked, expected: plan.requests });
            }
            let seen = frames.feed(&buffer[..read])?;
            answered += seen.messages;
            for _ in 0..seen.pings {
                peer.wire.write_all(b"PONG\r\n").await?;
            }
        }
        latencies.push(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if !plan.pause.is_zero() {
            tokio::time::sleep(plan.pause).await;
        }
    }
    Ok(latencies)
}
