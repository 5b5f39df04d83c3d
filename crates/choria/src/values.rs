//! Values on the command line: numbers, durations, pairs and argument files (spec 05 §1.1).

use std::path::Path;
use std::time::Duration;

/// A whole number. Fractions are cut off as in the reference: `1.5` is 1.
pub(crate) fn whole_number(text: &str) -> Result<i64, String> {
    if let Ok(number) = text.parse::<i64>() {
        return Ok(number);
    }
    match text.parse::<f64>() {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "cutting the fraction off is the point; the range is checked"
        )]
        Ok(number) if number.is_finite() && number.abs() < 9e15 => Ok(number.trunc() as i64),
        _ => Err(format!("expected a number, got {text:?}")),
    }
}

/// A duration such as `90s`, `1h30m`, `2d`, `1w`; `0` is none.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    choria_config::duration::parse(text).map_err(|error| error.to_string())
}

/// `KEY=VALUE`; split at the first `=`, and at the first `:` only when there is no `=`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    choria_rpc::ddl::parse_pair(text).map_err(|error| error.to_string())
}

/// Replaces arguments of the form `@FILE` by the lines of FILE; blank lines and lines that begin with `#` are skipped. Values
/// of flags stay as they are (`-F @this.x=1`), and nothing after `--` is touched. `takes_value` tells which flags have values.
pub(crate) fn expand_files(arguments: Vec<String>, takes_value: impl Fn(&str) -> bool) -> Result<Vec<String>, String> {
    let mut expanded = Vec::with_capacity(arguments.len());
    let mut value_follows = false;
    let mut literal = false;
    for (index, argument) in arguments.into_iter().enumerate() {
        let is_value = std::mem::replace(&mut value_follows, false);
        if literal || is_value || index == 0 {
            expanded.push(argument);
            continue;
        }
        match argument.strip_prefix('@') {
            Some(file) if !file.is_empty() => expanded.extend(argument_lines(Path::new(file))?),
            _ => {
                literal = argument == "--";
                value_follows = argument.starts_with('-') && !argument.contains('=') && takes_value(&argument);
                expanded.push(argument);
            }
        }
    }
    Ok(expanded)
}

fn argument_lines(file: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("failed to open arguments file \"{}\": {error}", file.display()))?;
    Ok(text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_cut_fractions() {
        assert_eq!(whole_number("1.5"), Ok(1));
        assert_eq!(whole_number("-1"), Ok(-1));
        assert_eq!(whole_number("1e2"), Ok(100));
        assert!(whole_number("abc").is_err_and(|error| error.contains("\"abc\"")));
        assert!(whole_number("NaN").is_err());
    }

    #[test]
    fn pairs_split_at_the_equals_sign_first() {
        assert_eq!(pair("url=http://x:1"), Ok(("url".into(), "http://x:1".into())));
        assert_eq!(pair("url:8080=x"), Ok(("url:8080".into(), "x".into())));
        assert_eq!(pair("s:abc"), Ok(("s".into(), "abc".into())));
        assert_eq!(pair("abc"), Err("expected KEY=VALUE got 'abc'".into()));
    }

    #[test]
    fn argument_files_replace_arguments_but_not_values() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("args");
        std::fs::write(&file, "# people\nrpcutil\n\nping\n").unwrap();
        let at = format!("@{}", file.display());
        let run = |arguments: &[&str]| {
            expand_files(arguments.iter().map(|&a| a.to_owned()).collect(), |flag| flag == "-F").unwrap()
        };
        assert_eq!(run(&["choria", "req", &at]), ["choria", "req", "rpcutil", "ping"]);
        assert_eq!(run(&["choria", "-F", "@this.x=1"]), ["choria", "-F", "@this.x=1"]);
        assert_eq!(run(&["choria", "--", &at]), ["choria", "--", at.as_str()]);
        assert!(expand_files(vec!["choria".into(), "@/nowhere".into()], |_| false).is_err());
    }
}
