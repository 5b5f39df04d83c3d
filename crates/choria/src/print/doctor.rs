//! What `choria doctor` shows.

use std::fmt::Write;

use crate::cli::Role;
use crate::commands::doctor::finding::{Finding, Findings, Status};
use crate::text::{Colour, Palette};

/// Columns of the names of checks; the longest has as many.
const NAMES: usize = 20;

/// All findings, one after the other, and a line that sums up.
pub(crate) fn text(role: Role, findings: &Findings, quiet: bool, colour: bool) -> String {
    let palette = Palette(colour);
    let mut out = String::new();
    for finding in findings.shown(quiet) {
        push(&mut out, finding, palette);
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = write!(out, "{}: ", role.name());
    let sum = [
        (Status::Failed, "failed", Colour::Red),
        (Status::Warning, "warnings", Colour::Yellow),
        (Status::Ok, "ok", Colour::Green),
        (Status::Skipped, "skipped", Colour::White),
    ];
    let sum = sum.map(|(status, word, colour)| match findings.count(status) {
        0 => format!("0 {word}"),
        1 => palette.paint(colour, &format!("1 {}", word.trim_end_matches('s'))),
        count => palette.paint(colour, &format!("{count} {word}")),
    });
    let _ = writeln!(out, "{}", sum.join(", "));
    out
}

fn push(out: &mut String, finding: &Finding, palette: Palette) {
    let (word, colour) = match finding.status {
        Status::Ok => ("ok", Colour::Green),
        Status::Warning => ("warning", Colour::Yellow),
        Status::Failed => ("failed", Colour::Red),
        Status::Skipped => ("skipped", Colour::White),
    };
    let word = palette.paint(colour, &format!("{word:<8}"));
    let subject = if finding.subject.is_empty() { String::new() } else { format!("{}: ", finding.subject) };
    let because = if finding.status == Status::Skipped { "because " } else { "" };
    let indent = " ".repeat(8 + NAMES + 1);
    // Error texts may have several lines.
    let detail = finding.detail.trim_end().replace('\n', &format!("\n{indent}"));
    let _ = writeln!(out, "{word}{:<NAMES$} {subject}{because}{detail}", finding.id);
    if let Some(advice) = &finding.advice {
        let _ = writeln!(out, "{indent}-> {advice}");
    }
}
