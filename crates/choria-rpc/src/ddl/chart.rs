//! A line plot of text, 60 columns wide and 15 rows high.

const WIDTH: usize = 60;
const HEIGHT: usize = 15;

/// Plots numbers in the order they came; more than fit are averaged per column. Empty without numbers.
pub(super) fn plot(numbers: &[f64]) -> String {
    let columns = columns(numbers);
    let (Some(low), Some(high)) = (columns.iter().copied().reduce(f64::min), columns.iter().copied().reduce(f64::max))
    else {
        return String::new();
    };
    let span = if high > low { high - low } else { 1.0 };
    let top = HEIGHT - 1;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "0 to 14")]
    let row_of = |value: f64| top - (((value - low) / span) * top as f64).round().clamp(0.0, top as f64) as usize;
    let mut grid = vec![vec![' '; columns.len()]; HEIGHT];
    for (column, value) in columns.iter().enumerate() {
        let row = row_of(*value);
        let next = columns.get(column + 1).map_or(row, |value| row_of(*value));
        if next == row {
            grid[row][column] = '─';
            continue;
        }
        let (leave, arrive) = if next < row { ('╯', '╭') } else { ('╮', '╰') };
        grid[row][column] = leave;
        grid[next][column] = arrive;
        for between in grid.iter_mut().take(row.max(next)).skip(row.min(next) + 1) {
            between[column] = '│';
        }
    }
    let label = |row: usize| {
        #[expect(clippy::cast_precision_loss, reason = "0 to 14")]
        let share = (top - row) as f64 / top as f64;
        format!("{:.2}", low + share * (high - low))
    };
    let width = (0..HEIGHT).map(|row| label(row).len()).max().unwrap_or(0);
    let lines: Vec<String> = grid
        .iter()
        .enumerate()
        .map(|(row, cells)| {
            let line: String = cells.iter().collect();
            format!("{:>width$} ┤{}", label(row), line.trim_end())
        })
        .collect();
    lines.join("\n")
}

/// At most [`WIDTH`] values: means of neighbours when there are more.
fn columns(numbers: &[f64]) -> Vec<f64> {
    let count = numbers.len().min(WIDTH);
    (0..count)
        .map(|column| {
            let part = &numbers[column * numbers.len() / count..(column + 1) * numbers.len() / count];
            #[expect(clippy::cast_precision_loss, reason = "a part of at most a million")]
            let length = part.len() as f64;
            part.iter().sum::<f64>() / length
        })
        .filter(|value| value.is_finite())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plot_has_its_size_and_bounds() {
        let numbers: Vec<f64> = (0..500).map(|n| f64::from(n % 100)).collect();
        let plot = plot(&numbers);
        let lines: Vec<&str> = plot.lines().collect();
        assert_eq!(lines.len(), HEIGHT);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH + 10 && line.contains('┤')), "{plot}");
        assert_eq!(super::plot(&[]), "");
    }

    #[test]
    fn steps_are_joined() {
        let plot = plot(&[1.0, 2.0]);
        let lines: Vec<&str> = plot.lines().collect();
        assert_eq!(lines[0], "2.00 ┤╭─");
        assert_eq!(lines[1], "1.93 ┤│");
        assert_eq!(lines[14], "1.00 ┤╯");
    }

    proptest! {
        #[test]
        fn no_numbers_panic(numbers in proptest::collection::vec(any::<f64>(), 0..200)) {
            let _ = plot(&numbers);
        }
    }
}
