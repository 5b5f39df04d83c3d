//! `choria ping` (spec 05 §7.1).

use std::io::{self, Write};
use std::time::Duration;

use choria_client::PingReply;
use serde_json::json;

use crate::text::go_millis;

/// One node's line.
pub(crate) fn host(out: &mut impl Write, reply: &PingReply) -> io::Result<()> {
    writeln!(out, "{:<40} time={} ms", reply.sender, reply.after.as_millis())
}

/// Figures of a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Nodes that answered.
    pub replies: usize,
    /// Slowest answer.
    pub max: Duration,
    /// Fastest answer.
    pub min: Duration,
    /// Mean.
    pub average: Duration,
    /// From the start of the program to the first publish.
    pub overhead: Duration,
}

impl Figures {
    /// Sums up answers.
    pub(crate) fn of(replies: &[PingReply], overhead: Duration) -> Self {
        let times = || replies.iter().map(|reply| reply.after);
        let count = u32::try_from(replies.len()).unwrap_or(u32::MAX);
        Self {
            replies: replies.len(),
            max: times().max().unwrap_or_default(),
            min: times().min().unwrap_or_default(),
            average: times().sum::<Duration>().checked_div(count).unwrap_or_default(),
            overhead,
        }
    }
}

/// The closing block. Nothing but the heading when nobody answered.
pub(crate) fn statistics(out: &mut impl Write, figures: &Figures) -> io::Result<()> {
    writeln!(out, "---- ping statistics ----")?;
    if figures.replies > 0 {
        writeln!(
            out,
            "{} replies max: {} min: {} avg: {} overhead: {}",
            figures.replies,
            go_millis(figures.max),
            go_millis(figures.min),
            go_millis(figures.average),
            go_millis(figures.overhead)
        )?;
    }
    Ok(())
}

/// Everything as one document.
pub(crate) fn document(out: &mut impl Write, replies: &[PingReply], figures: &Figures) -> io::Result<()> {
    let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let nodes: Vec<_> =
        replies.iter().map(|reply| json!({"sender": reply.sender, "time_ms": millis(reply.after)})).collect();
    let document = json!({
        "replies": nodes,
        "statistics": {
            "replies": figures.replies,
            "max_ms": millis(figures.max),
            "min_ms": millis(figures.min),
            "avg_ms": millis(figures.average),
            "overhead_ms": millis(figures.overhead),
        }
    });
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(sender: &str, millis: u64) -> PingReply {
        PingReply { sender: sender.to_owned(), after: Duration::from_millis(millis) }
    }

    #[test]
    fn lines_and_statistics_read_as_in_the_reference() {
        let replies = [reply("n1.acme.net", 28), reply("n2.acme.net", 31)];
        let mut out = Vec::new();
        for reply in &replies {
            host(&mut out, reply).unwrap();
        }
        statistics(&mut out, &Figures::of(&replies, Duration::from_millis(412))).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "n1.acme.net                              time=28 ms\n\
             n2.acme.net                              time=31 ms\n\
             ---- ping statistics ----\n\
             2 replies max: 31ms min: 28ms avg: 30ms overhead: 412ms\n"
        );
    }

    #[test]
    fn nobody_answered() {
        let mut out = Vec::new();
        statistics(&mut out, &Figures::of(&[], Duration::ZERO)).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "---- ping statistics ----\n");
    }
}
