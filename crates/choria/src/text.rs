//! Text for people: tables, durations, colours (spec 05 §1.6, §6.2).

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::ProgressBar;

/// Whether stdout may be coloured: a terminal that can, and nobody said no.
pub(crate) fn colour_stdout(configured: bool) -> bool {
    configured && std::io::stdout().is_terminal() && terminal_takes_colour()
}

/// Whether stderr is a terminal that may be redrawn.
pub(crate) fn live_stderr() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Something that moves on stderr while people wait; it draws nothing where nobody watches.
pub(crate) fn waiting(message: &'static str) -> ProgressBar {
    if !live_stderr() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

fn terminal_takes_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Colours that the printers use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Colour {
    /// Bad.
    Red = 31,
    /// Good.
    Green = 32,
    /// Take care.
    Yellow = 33,
    /// Headings.
    White = 97,
}

/// Paints text, or leaves it plain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Palette(pub bool);

impl Palette {
    /// The text in a colour, when colours are on.
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        if self.0 { format!("\u{1b}[{}m{text}\u{1b}[0m", colour as u8) } else { text.to_owned() }
    }
}

/// A box of rows with a heading (spec 05 §1.6). Cells may hold several lines.
pub(crate) fn table(heading: &[String], rows: &[Vec<String>]) -> String {
    let cell_width = |cell: &String| cell.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| {
            let cells = std::iter::once(heading).chain(rows.iter().map(Vec::as_slice));
            cells.filter_map(|row| row.get(column)).map(cell_width).max().unwrap_or(0)
        })
        .collect();
    let rule = |left: char, joint: &str, right: char| {
        let parts: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", parts.join(joint))
    };
    let mut text = rule('╭', "┬", '╮');
    push_row(&mut text, heading, &widths);
    text.push_str(&rule('├', "┼", '┤'));
    for row in rows {
        push_row(&mut text, row, &widths);
    }
    text.push_str(rule('╰', "┴", '╯').trim_end());
    text
}

fn push_row(text: &mut String, cells: &[String], widths: &[usize]) {
    let height = cells.iter().map(|cell| cell.lines().count()).max().unwrap_or(0).max(1);
    for line in 0..height {
        for (column, width) in widths.iter().enumerate() {
            let part = cells.get(column).and_then(|cell| cell.lines().nth(line)).unwrap_or_default();
            text.push_str(&format!("│ {part:<width$} "));
        }
        text.push_str("│\n");
    }
}

/// A duration as Go prints it: `31ms`, `1.2s`, `1m0.5s`, `1h0m0s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}µs", decimal(nanos, 1_000));
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", decimal(nanos, 1_000_000));
    }
    let minutes = nanos / 60_000_000_000;
    let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A duration rounded to milliseconds, as Go prints it.
pub(crate) fn go_millis(duration: Duration) -> String {
    let micros = duration.as_micros();
    go_duration(Duration::from_millis(u64::try_from((micros + 500) / 1000).unwrap_or(u64::MAX)))
}

fn decimal(nanos: u128, unit: u128) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    format!("{whole}.{rest:0digits$}").trim_end_matches('0').to_owned()
}

/// A moment in Unix seconds: `2026-11-20 12:34:56 UTC`.
pub(crate) fn utc(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds);
    time.map_or_else(|_| format!("Unix second {seconds}"), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// How far a moment is from now, in the largest unit that says enough: `in 264 days`, `3 hours ago`.
pub(crate) fn distance(seconds: i64, now: i64) -> String {
    let apart = seconds.abs_diff(now);
    let (count, unit) = match apart {
        0..120 => (apart, "seconds"),
        120..7_200 => (apart / 60, "minutes"),
        7_200..172_800 => (apart / 3_600, "hours"),
        _ => (apart / 86_400, "days"),
    };
    if seconds >= now { format!("in {count} {unit}") } else { format!("{count} {unit} ago") }
}

/// Names in columns, three per row, every cell as wide as its column's longest and four blanks (spec 05 §6.2).
pub(crate) fn columns(names: &[String], per_row: usize, indent: usize) -> Vec<String> {
    let widths: Vec<usize> = (0..per_row)
        .map(|column| {
            names.iter().skip(column).step_by(per_row).map(|name| name.chars().count()).max().unwrap_or(0) + 4
        })
        .collect();
    names
        .chunks(per_row)
        .map(|row| {
            let mut line = " ".repeat(indent);
            for (name, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{name:<width$}"));
            }
            line
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_in_go() {
        for (millis, text) in [
            (0, "0s"),
            (31, "31ms"),
            (1200, "1.2s"),
            (2345, "2.345s"),
            (60_000, "1m0s"),
            (3_600_000, "1h0m0s"),
            (5_400_500, "1h30m0.5s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(go_duration(Duration::from_nanos(1500)), "1.5µs");
        assert_eq!(go_millis(Duration::from_micros(31_499)), "31ms");
        assert_eq!(go_millis(Duration::from_micros(31_500)), "32ms");
    }

    #[test]
    fn moments_are_near_or_far() {
        assert_eq!(utc(1_790_000_000), "2026-09-21 14:13:20 UTC");
        assert_eq!(utc(i64::MAX), format!("Unix second {}", i64::MAX));
        for (seconds, text) in [
            (90, "in 90 seconds"),
            (-300, "5 minutes ago"),
            (10_800, "in 3 hours"),
            (-86_400 * 40, "40 days ago"),
            (86_400 * 365, "in 365 days"),
        ] {
            assert_eq!(distance(1_790_000_000 + seconds, 1_790_000_000), text);
        }
    }

    #[test]
    fn tables_have_round_corners() {
        let text = table(&["Fact".into(), "Matches".into()], &[vec!["Debian".into(), "2".into()]]);
        assert_eq!(
            text,
            "╭────────┬─────────╮\n│ Fact   │ Matches │\n├────────┼─────────┤\n│ Debian │ 2       │\n╰────────┴─────────╯"
        );
    }

    #[test]
    fn cells_of_several_lines_stay_in_their_box() {
        let text = table(&["a".into(), "b".into()], &[vec!["1\n22".into(), "x".into()], vec![]]);
        assert_eq!(text, "╭────┬───╮\n│ a  │ b │\n├────┼───┤\n│ 1  │ x │\n│ 22 │   │\n│    │   │\n╰────┴───╯");
    }

    #[test]
    fn columns_are_padded() {
        let names = ["a", "bbb", "c", "dd"].map(str::to_owned);
        assert_eq!(columns(&names, 3, 4), ["    a     bbb    c    ", "    dd    "]);
    }
}
