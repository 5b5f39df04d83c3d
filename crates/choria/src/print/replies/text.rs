//! Replies for people (spec 05 §6.2).

use std::time::Duration;

use choria_client::RpcReply;
use serde_json::Value;

use super::{Shown, Which, plain};
use crate::text::{Colour, Palette, columns, go_duration, go_millis};

/// Longer lists of silent nodes are cut, unless everything is asked for.
const MAX_NODES: usize = 200;

/// Everything at once: replies, summaries, closing lines.
pub(crate) fn text(shown: &Shown<'_>, which: Which, verbose: bool, palette: Palette) -> String {
    let mut out = String::new();
    for reply in shown.replies.iter().filter(|reply| which.shows(reply)) {
        push_reply(&mut out, shown, reply, verbose, palette);
    }
    push_summaries(&mut out, shown, palette);
    out.push('\n');
    if verbose {
        out.push_str(&verbose_stats(shown));
    } else {
        out.push_str(&footer(shown, palette));
    }
    push_nodes(&mut out, "No Responses from", &shown.stats.no_responses, verbose);
    push_nodes(&mut out, "Unexpected Responses from", &shown.stats.unexpected_responses, verbose);
    out
}

fn push_reply(out: &mut String, shown: &Shown<'_>, reply: &RpcReply, verbose: bool, palette: Palette) {
    let status = match reply.code {
        1 => palette.paint(Colour::Red, "Request Aborted"),
        2 => palette.paint(Colour::Yellow, "Unknown Action"),
        3 => palette.paint(Colour::Yellow, "Missing Request Data"),
        4 => palette.paint(Colour::Yellow, "Invalid Request Data"),
        5 => palette.paint(Colour::Red, "Unknown Request Status"),
        _ => String::new(),
    };
    out.push_str(&format!("{:<40} {status}\n\n", reply.sender));
    // The message of a failed reply is shown always; the reference hides it with -v (spec 05 §12 row 47).
    if !reply.is_ok() {
        out.push_str(&format!("    {}\n\n", palette.paint(Colour::Yellow, &reply.message)));
    }
    if verbose {
        let json = serde_json::to_string_pretty(&reply.data).unwrap_or_default();
        json.lines().for_each(|line| out.push_str(&format!("   {line}\n")));
        out.push('\n');
    } else if reply.is_ok() {
        push_data(out, shown, &reply.data);
    }
}

fn push_data(out: &mut String, shown: &Shown<'_>, data: &Value) {
    let Value::Object(data) = data else {
        out.push_str(&format!("   {}\n\n", plain(data)));
        return;
    };
    let mut rows: Vec<(&str, &Value)> = data.iter().map(|(key, value)| (key.as_str(), value)).collect();
    rows.sort_unstable_by_key(|(key, _)| *key);
    let width = rows.iter().map(|(key, _)| shown.label(key).chars().count()).max().unwrap_or(0) + 3;
    for (key, value) in &rows {
        let label = shown.label(key);
        let value = match value {
            Value::Array(_) | Value::Object(_) => pretty(value, width + 2, 0),
            other => plain(other),
        };
        out.push_str(&format!("{label:>width$}: {value}\n"));
    }
    if !rows.is_empty() {
        out.push('\n');
    }
}

/// JSON with sorted keys; what fits on a line of 80 columns stays on one.
fn pretty(value: &Value, indent: usize, depth: usize) -> String {
    let one_line = compact(value);
    if one_line.chars().count() + depth <= 80 && !matches!(value, Value::Object(map) if !map.is_empty()) {
        return one_line;
    }
    let (inner, outer) = (" ".repeat(indent + depth + 2), " ".repeat(indent + depth));
    match value {
        Value::Array(items) => {
            let items: Vec<String> =
                items.iter().map(|item| format!("{inner}{}", pretty(item, indent, depth + 2))).collect();
            format!("[\n{}\n{outer}]", items.join(",\n"))
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            let items: Vec<String> = keys
                .into_iter()
                .map(|key| format!("{inner}{}: {}", Value::from(key.as_str()), pretty(&map[key], indent, depth + 2)))
                .collect();
            format!("{{\n{}\n{outer}}}", items.join(",\n"))
        }
        _ => one_line,
    }
}

/// JSON on one line, with blanks after commas and colons.
fn compact(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(compact).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            let items: Vec<String> =
                keys.into_iter().map(|key| format!("{}: {}", Value::from(key.as_str()), compact(&map[key]))).collect();
            format!("{{{}}}", items.join(", "))
        }
        other => other.to_string(),
    }
}

fn push_summaries(out: &mut String, shown: &Shown<'_>, palette: Palette) {
    for summary in shown.summaries {
        let heading = palette.paint(Colour::White, &format!("Summary of {}:", summary.label));
        out.push_str(&format!("{heading}\n\n"));
        if summary.lines.is_empty() {
            out.push_str("   No summary received\n");
        }
        summary.lines.iter().for_each(|line| out.push_str(&format!("   {line}\n")));
        out.push('\n');
    }
}

fn footer(shown: &Shown<'_>, palette: Palette) -> String {
    let (responses, discovered) = (shown.stats.responses, shown.stats.discovered);
    let colour = match responses {
        0 => Colour::Red,
        all if all == discovered => Colour::Green,
        _ => Colour::Yellow,
    };
    format!(
        "Finished processing {} / {} hosts in {}\n",
        palette.paint(colour, &responses.to_string()),
        palette.paint(colour, &discovered.to_string()),
        go_millis(shown.total())
    )
}

/// The figures that `-v` shows in place of the closing line.
fn verbose_stats(shown: &Shown<'_>) -> String {
    let stats = shown.stats;
    let time = |nanos: u64| go_duration(Duration::from_nanos(nanos));
    let rows = [
        ("Nodes", format!("{} / {}", stats.responses, stats.discovered)),
        ("Pass / Fail", format!("{} / {}", stats.ok, stats.failed)),
        ("No Responses", stats.no_responses.len().to_string()),
        ("Unexpected Responses", stats.unexpected_responses.len().to_string()),
        ("Start Time", start_time(&stats.start_time_utc)),
        ("Discovery Time", time(stats.discover_time)),
        ("Publish Time", time(stats.publish_time)),
        ("Agent Time", time(stats.request_time.saturating_sub(stats.publish_time))),
        ("Total Time", go_duration(shown.total())),
    ];
    let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let mut out = String::from("---- request stats ----\n\n");
    for (label, value) in rows {
        out.push_str(&format!("{label:>width$}: {value}\n"));
    }
    out
}

fn start_time(utc: &str) -> String {
    match utc.parse::<jiff::Timestamp>() {
        Ok(time) => time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%z").to_string(),
        Err(_) => utc.to_owned(),
    }
}

fn push_nodes(out: &mut String, heading: &str, nodes: &[String], verbose: bool) {
    if nodes.is_empty() {
        return;
    }
    let shown = if verbose { nodes.len() } else { nodes.len().min(MAX_NODES) };
    let cut = if shown < nodes.len() { format!(" (showing first {MAX_NODES})") } else { String::new() };
    out.push_str(&format!("\n{heading}{cut}: {}\n\n", nodes.len()));
    for line in columns(&nodes[..shown], 3, 4) {
        out.push_str(&line);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lists_stay_on_one_line_and_objects_do_not() {
        let value = serde_json::json!({"b": [1, 2], "a": {"x": "y"}});
        assert_eq!(
            pretty(&value, 4, 0),
            "{\n      \"a\": {\n        \"x\": \"y\"\n      },\n      \"b\": [1, 2]\n    }"
        );
        assert_eq!(pretty(&serde_json::json!({}), 4, 0), "{}");
        let long: Vec<String> = (0..30).map(|n| format!("item{n}")).collect();
        assert!(pretty(&serde_json::json!(long), 0, 0).lines().count() > 30);
    }
}
