//! `choria provisioner status` and `explain`.

use std::io::{self, Write};

use choria_provisioner::control::types::{Attempt, Explanation, Nodes, Status, Step, Waiting};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How a provisioner is doing.
pub(crate) fn status(out: &mut impl Write, status: &Status, zone: &TimeZone) -> io::Result<()> {
    let (process, connection) = (&status.process, &status.connection);
    let site = if process.site.is_empty() { String::new() } else { format!(" at site {}", process.site) };
    writeln!(out, "{}{site}: version {}, process {}", process.identity, process.version, process.pid)?;
    writeln!(out, "{:14}{}, running for {}", "Configuration", process.config, span(process.uptime_s))?;
    let since = time(connection.since_ms, zone);
    match (&connection.server, &connection.reason) {
        (Some(server), _) if connection.connected => {
            let again = match connection.reconnections {
                0 => String::new(),
                1 => ", connected again once".to_owned(),
                many => format!(", connected again {many} times"),
            };
            writeln!(out, "{:14}{server} since {since}{again}", "Connected to")?;
        }
        (_, reason) => {
            let reason = reason.as_deref().unwrap_or("no answer yet");
            writeln!(out, "{:14}since {since}: {}", "Not connected", clean(reason))?;
        }
    }
    if let Some(held) = status.held_by.as_deref().and_then(held_words) {
        writeln!(out, "{:14}{held}", "No new nodes")?;
    }
    nodes(out, status)?;
    figures(out, status)?;
    helper(out, status, zone)?;
    refusals(out, status, zone)
}

/// What keeps nodes from starting, as a sentence.
fn held_words(held: &str) -> Option<String> {
    Some(match held {
        "paused" => "provisioning is paused; `choria provisioner resume` lets it go on".to_owned(),
        "draining" => "the provisioner is stopping".to_owned(),
        // Said already.
        "connection" => return None,
        "max_nodes" => "as many nodes are in flight as max_nodes allows".to_owned(),
        "helper" => "the helper is busy and many nodes wait for it".to_owned(),
        limit => format!("the helper is held back by {limit}"),
    })
}

fn nodes(out: &mut impl Write, status: &Status) -> io::Result<()> {
    let Nodes { queued, probing, silent, engaged, waiting_for_helper, at_helper, .. } = status.nodes;
    let Nodes { resting, waiting_to_be_seen, settling, expected_home, .. } = status.nodes;
    let oldest = |waiting: &Option<Waiting>| {
        waiting.as_ref().map(|w| format!("longest {} for {}", w.identity, span(w.waited_s))).unwrap_or_default()
    };
    let held = status.helper.held_by.as_deref().map(|limit| format!("held back by {limit}")).unwrap_or_default();
    let rows = [
        ("queued", queued, oldest(&status.oldest_waiting)),
        ("asked", probing, "no answer yet".to_owned()),
        ("silent", silent, "asked, no answer for a while; they take no place".to_owned()),
        ("answering", engaged, oldest(&status.oldest_in_flight)),
        ("  wait for helper", waiting_for_helper, held),
        ("  at the helper", at_helper, String::new()),
        ("resting", resting, "failed, start again by themselves".to_owned()),
        ("to be seen", waiting_to_be_seen, "failed, start again when they are seen".to_owned()),
        ("settling", settling, "provisioned moments ago".to_owned()),
        ("expected home", expected_home, "not yet seen as fleet members".to_owned()),
    ];
    writeln!(out, "\nNodes")?;
    for (name, count, note) in rows {
        let note = if count == 0 { String::new() } else { note };
        writeln!(out, "{}", format!("  {name:18}{count:>7}  {note}").trim_end())?;
    }
    Ok(())
}

fn figures(out: &mut impl Write, status: &Status) -> io::Result<()> {
    let (rate, totals, limits) = (&status.rate, &status.totals, &status.limits);
    writeln!(
        out,
        "\nProvisioned   {:.1} per second now, {} in the last minute, {} in the last hour, {} since the start",
        rate.per_second, rate.last_minute, rate.last_hour, totals.provisioned
    )?;
    writeln!(
        out,
        "              {} came home, {} did not in time, {} fell back into provisioning",
        totals.verified, totals.missing, totals.returned
    )?;
    writeln!(
        out,
        "Attempts      {} failed, {} of them deferred and {} for nodes that were not there",
        totals.errors, totals.deferred, totals.absent
    )?;
    writeln!(
        out,
        "Found by      event {}, discovery {}, registration {}",
        totals.by_event, totals.by_discovery, totals.by_registration
    )?;
    let per_second = |name: &str, rate: Option<f64>| rate.map(|rate| format!(", {name} {rate}/s")).unwrap_or_default();
    writeln!(
        out,
        "Limits        {} in flight, {} known{}{}",
        limits.max_nodes,
        limits.max_known,
        per_second("helper_rate", limits.helper_rate),
        per_second("ca_rate", limits.ca_rate)
    )
}

fn helper(out: &mut impl Write, status: &Status, zone: &TimeZone) -> io::Result<()> {
    let helper = &status.helper;
    writeln!(
        out,
        "Helper        {}: {} of {} busy, {} nodes wait, {} answers in {:.0}ms on average, {} failures",
        helper.kind,
        helper.busy,
        helper.capacity,
        helper.waiting,
        helper.calls.saturating_sub(helper.errors),
        helper.mean_s * 1000.0,
        helper.errors
    )?;
    match &helper.last_error {
        None => Ok(()),
        Some(last) => {
            writeln!(out, "              last failure {} {}: {}", time(last.at_ms, zone), last.node, clean(&last.error))
        }
    }
}

fn refusals(out: &mut impl Write, status: &Status, zone: &TimeZone) -> io::Result<()> {
    if status.refusals.is_empty() {
        return writeln!(out, "\nRefusals      none");
    }
    writeln!(out, "\nRefusals")?;
    for refusal in &status.refusals {
        let node = refusal.node.as_deref().map(|node| format!(" {}", clean(node))).unwrap_or_default();
        writeln!(out, "  {:18}{:>7}  last {}{node}", refusal.reason, refusal.count, time(refusal.last_ms, zone))?;
        writeln!(out, "  {:27}{}", "", clean(&refusal.last))?;
    }
    Ok(())
}

/// What is known about a node.
pub(crate) fn explanation(out: &mut impl Write, told: &Explanation, zone: &TimeZone) -> io::Result<()> {
    writeln!(out, "{}: {}", clean(&told.identity), told.state.replace('_', " "))?;
    let at = told.next.at_ms.map(|at| format!(" ({})", time(at, zone))).unwrap_or_default();
    writeln!(out, "{:8}{}{at}", "Next", clean(&told.next.text))?;
    if !told.nearest.is_empty() {
        let names: Vec<String> = told.nearest.iter().map(|name| clean(name)).collect();
        writeln!(out, "{:8}{}", "Known", names.join(", "))?;
    }
    for (index, seen) in told.seen.iter().enumerate() {
        let title = if index == 0 { "Seen" } else { "" };
        let (first, last) = (time(seen.first_ms, zone), time(seen.last_ms, zone));
        let when = match seen.count {
            1 => format!("once, {first}"),
            many => format!("{many} times, first {first}, last {last}"),
        };
        writeln!(out, "{title:8}by {:13}{when}", seen.by)?;
    }
    if told.attempts_total > 0 {
        writeln!(out, "\nAttempts ({})", told.attempts_total)?;
        told.attempts.iter().try_for_each(|attempt| self::attempt(out, attempt, zone))?;
    }
    if told.refusals_total > 0 {
        writeln!(out, "\nRefusals ({})", told.refusals_total)?;
        for refusal in &told.refusals {
            let often = if refusal.count > 1 { format!(", {} times", refusal.count) } else { String::new() };
            writeln!(out, "  {}  {}{often}", time(refusal.at_ms, zone), refusal.reason)?;
            writeln!(out, "      {}", clean(&refusal.detail))?;
        }
    }
    if !told.notes.is_empty() {
        writeln!(out, "\nAlso")?;
        for note in &told.notes {
            writeln!(out, "  {}  {}", time(note.at_ms, zone), clean(&note.text))?;
        }
    }
    Ok(())
}

fn attempt(out: &mut impl Write, attempt: &Attempt, zone: &TimeZone) -> io::Result<()> {
    let (began, took) = (time(attempt.started_ms, zone), span(attempt.took_s));
    match &attempt.outcome {
        None => writeln!(out, "  {}. {began}  under way for {took}", attempt.number)?,
        Some(outcome) => writeln!(out, "  {}. {began}  {} after {took}", attempt.number, outcome.replace('_', " "))?,
    }
    if let Some(detail) = &attempt.detail {
        let as_what = if attempt.outcome.as_deref() == Some("provisioned") { "as " } else { "" };
        writeln!(out, "      {as_what}{}", clean(detail))?;
    }
    attempt.steps.iter().try_for_each(|step| self::step(out, step))
}

fn step(out: &mut impl Write, step: &Step) -> io::Result<()> {
    let again = if step.attempt > 1 { format!(" (try {})", step.attempt) } else { String::new() };
    let took = step.took_s.map_or_else(|| "under way".to_owned(), span);
    writeln!(out, "      +{:<8} {:34}{took}", span(step.after_s), format!("{}{again}", step.what))?;
    match &step.fault {
        None => Ok(()),
        Some(fault) => writeln!(out, "{:16}{}", "", clean(fault)),
    }
}

/// A moment in the zone of whoever reads it.
fn time(unix_ms: i64, zone: &TimeZone) -> String {
    match Timestamp::from_millisecond(unix_ms) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => "at no time".to_owned(),
    }
}

/// `12ms`, `4.2s`, `3m20s`, `2h5m`, `12d3h`.
fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut to what a clock can show")]
    let whole = seconds.clamp(0.0, 1e12) as u64;
    match whole {
        0 => format!("{:.0}ms", seconds.max(0.0) * 1000.0),
        1..60 => format!("{seconds:.1}s"),
        60..3600 => format!("{}m{}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d{}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// Words of nodes and helpers for a terminal: no control characters.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
