//! `choria ping` (spec 05 §7.1).

use std::io::Write;
use std::time::{Duration, Instant};

use choria_client::{Broadcast, PingReply, Wait};
use choria_config::keys;

use crate::cli::PingArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::print::{graph, ping as print};
use crate::settings::{ClientSettings, filter};

/// Answers are counted per this much time in `--graph`.
const SLOT: Duration = Duration::from_millis(50);

/// Runs the command.
pub(crate) fn run(args: &PingArgs, debug: bool) -> Outcome {
    let started = Instant::now();
    let filter = filter::build(&args.filter, None)?;
    let settings = ClientSettings::load(&args.connection, debug)?;
    let request = Broadcast {
        filter,
        collective: args.filter.target.clone(),
        wait: wait(args, settings.config.get(&keys::DISCOVERY_TIMEOUT)),
        expect: args.expect.and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0),
    };
    let streams = !(args.silent || args.names || args.json);
    let mut replies: Vec<PingReply> = Vec::new();
    let stats = settings.run(async |client| {
        let mut out = std::io::stdout().lock();
        let mut written = Ok(());
        let stats = client
            .ping(&request, |reply| {
                if written.is_ok() && streams {
                    written = print::host(&mut out, reply);
                } else if written.is_ok() && args.names && !args.silent && !args.json {
                    written = writeln!(out, "{}", reply.sender);
                }
                replies.push(reply.clone());
            })
            .await?;
        written?;
        Ok::<_, Failure>(stats)
    })?;
    let overhead = stats.published.into_std().saturating_duration_since(started);
    show(args, &replies, overhead)?;
    verdict(replies.len(), request.expect)
}

fn wait(args: &PingArgs, configured: Duration) -> Wait {
    match args.timeout {
        None | Some(0) => Wait::fixed(configured),
        Some(seconds) => Wait::fixed(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
    }
}

fn show(args: &PingArgs, replies: &[PingReply], overhead: Duration) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let figures = print::Figures::of(replies, overhead);
    if args.json {
        print::document(&mut out, replies, &figures)?;
        return Ok(());
    }
    if args.names {
        return Ok(());
    }
    if !args.silent {
        writeln!(out, "\n")?;
    }
    print::statistics(&mut out, &figures)?;
    if args.graph && !replies.is_empty() {
        write!(out, "\n{}", graph::plot(&per_slot(replies), "Responses per 50ms"))?;
    }
    Ok(())
}

fn per_slot(replies: &[PingReply]) -> Vec<f64> {
    let slot = |reply: &PingReply| usize::try_from(reply.after.as_millis() / SLOT.as_millis()).unwrap_or(usize::MAX);
    let last = replies.iter().map(slot).max().unwrap_or(0).min(100_000);
    let mut counts = vec![0.0; last + 1];
    for reply in replies {
        counts[slot(reply).min(last)] += 1.0;
    }
    counts
}

/// No answer is a failure, as in the reference; fewer than expected is told apart by its own status.
fn verdict(replies: usize, expect: Option<usize>) -> Outcome {
    match expect {
        _ if replies == 0 => Err(Failure::new("no responses received")),
        Some(count) if replies < count => {
            Err(Failure::new(format!("{replies} of {count} expected nodes answered")).exit(Exit::Partial))
        }
        _ => Ok(Exit::Ok),
    }
}
