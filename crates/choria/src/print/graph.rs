//! A small line plot for terminals: `ping --graph` and chart summaries (spec 05 §5.4, §7.1).

const WIDTH: usize = 60;
const HEIGHT: usize = 15;

/// Draws values from left to right as a line, 60 columns and 15 rows, with a caption below.
pub(crate) fn plot(values: &[f64], caption: &str) -> String {
    let values = resample(values);
    let (low, high) = values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
    let flat = values.is_empty() || high <= low;
    let rows = if flat { 1 } else { HEIGHT + 1 };
    let level = |value: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and HEIGHT by construction"
        )]
        let row = if flat { 0 } else { ((value - low) / (high - low) * HEIGHT as f64).round() as usize };
        row
    };
    let mut grid = vec![vec![' '; values.len()]; rows];
    for column in 1..values.len() {
        let (from, to) = (level(values[column - 1]), level(values[column]));
        let top = |row: usize| rows - 1 - row;
        if from == to {
            grid[top(from)][column] = '─';
            continue;
        }
        grid[top(from)][column] = if from < to { '╯' } else { '╮' };
        grid[top(to)][column] = if from < to { '╭' } else { '╰' };
        for between in from.min(to) + 1..from.max(to) {
            grid[top(between)][column] = '│';
        }
    }
    render(&grid, flat, low, high, &values, caption)
}

fn render(grid: &[Vec<char>], flat: bool, low: f64, high: f64, values: &[f64], caption: &str) -> String {
    let rows = grid.len();
    let label = |row: usize| match flat {
        true => format!("{:.2}", values.first().copied().unwrap_or_default()),
        false => format!("{:.2}", high - (high - low) * row as f64 / (rows - 1) as f64),
    };
    let width = (0..rows).map(|row| label(row).len()).max().unwrap_or(0);
    let first = values.first().copied().unwrap_or_default();
    let mut text = String::new();
    for (row, cells) in grid.iter().enumerate() {
        let starts_here = flat || ((first - low) / (high - low) * HEIGHT as f64).round() as usize == rows - 1 - row;
        let axis = if starts_here { '┼' } else { '┤' };
        let line: String = cells.iter().skip(1).collect();
        text.push_str(format!(" {:>width$} {axis}{line}", label(row)).trim_end());
        text.push('\n');
    }
    text.push_str(&format!("{:width$}   {caption}\n", ""));
    text
}

/// Stretches or shrinks values to the width of the plot, by straight lines between neighbours.
fn resample(values: &[f64]) -> Vec<f64> {
    if values.len() < 2 {
        return values.to_vec();
    }
    (0..WIDTH)
        .map(|column| {
            let position = column as f64 * (values.len() - 1) as f64 / (WIDTH - 1) as f64;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a position inside the list")]
            let left = position.floor() as usize;
            let right = (left + 1).min(values.len() - 1);
            let share = position - left as f64;
            values[left] * (1.0 - share) + values[right] * share
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_line_is_one_row() {
        assert_eq!(plot(&[3.0], "per 50ms"), " 3.00 ┼\n       per 50ms\n");
    }

    #[test]
    fn a_peak_reaches_top_and_bottom() {
        let text = plot(&[0.0, 10.0, 10.0, 0.0], "x");
        assert_eq!(text.lines().count(), HEIGHT + 2);
        assert!(text.starts_with(" 10.00 ┤"), "{text}");
        assert!(text.contains('╭') && text.contains('╮'), "{text}");
        assert!(text.lines().nth(HEIGHT).is_some_and(|line| line.starts_with("  0.00 ┼")), "{text}");
    }

    #[test]
    fn nothing_at_all_does_not_break_it() {
        assert!(plot(&[], "x").ends_with("x\n"));
    }
}
