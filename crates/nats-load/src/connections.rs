//! Connections that do nothing: what does each cost the server?

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::flow::joined;
use crate::peer::Peer;
use crate::report::Report;
use crate::target::{LoadError, Target};

/// Connections that are made at the same time.
const AT_ONCE: usize = 64;

/// How many, with what.
#[derive(Debug, Clone)]
pub struct Connections {
    /// Connections.
    pub count: usize,
    /// Subscriptions of each; the first one is its own, the others are the same for all. A Choria server has 13.
    pub subscriptions: usize,
}

/// Connections that are up.
#[derive(Debug)]
pub struct Held {
    /// The connections; they end when this is dropped.
    pub peers: Vec<Peer>,
    /// How long it took; latency is that of each connection, from TCP to the first PONG.
    pub report: Report,
}

impl Connections {
    /// Makes them.
    ///
    /// # Errors
    /// One of them did not come about.
    pub async fn open(&self, target: &Target) -> Result<Held, LoadError> {
        let begin = Instant::now();
        let mut opening = JoinSet::new();
        let (mut peers, mut latencies) = (Vec::with_capacity(self.count), Vec::with_capacity(self.count));
        let mut next = 0;
        while peers.len() < self.count {
            while next < self.count && opening.len() < AT_ONCE {
                let (target, lines) = (target.clone(), self.lines(next));
                next += 1;
                opening.spawn(async move {
                    let begin = Instant::now();
                    Peer::connect(&target, &lines).await.map(|peer| (peer, begin.elapsed()))
                });
            }
            let Some(opened) = opening.join_next().await else { break };
            let (peer, took): (Peer, Duration) = joined(opened)?;
            peers.push(peer);
            latencies.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        let report = Report::new(peers.len() as u64, 0, begin.elapsed(), latencies);
        Ok(Held { peers, report })
    }

    fn lines(&self, number: usize) -> String {
        let subject = |at: usize| if at == 0 { format!("load.node.{number}") } else { format!("load.all.{at}") };
        (0..self.subscriptions).map(|at| format!("SUB {} {at}\r\n", subject(at))).collect()
    }
}
