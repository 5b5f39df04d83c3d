//! The `format` option of aggregates: printf with one or two values.

use choria_protocol::json::float_text;

/// A value to print.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg<'a> {
    Text(&'a str),
    Count(usize),
    Float(f64),
}

impl Arg<'_> {
    fn plain(self) -> String {
        match self {
            Self::Text(text) => text.to_owned(),
            Self::Count(number) => number.to_string(),
            Self::Float(number) => float_text(number),
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            #[expect(clippy::cast_precision_loss, reason = "counts of replies are small")]
            Self::Count(number) => Some(number as f64),
            Self::Float(number) => Some(number),
        }
    }
}

/// Fills `format` with `args` in their order. Understands `%s %v %d %f %g %q %%` with `-`, width and precision; what does
/// not fit its value is printed plainly, so that a summary is never lost to a bad format.
pub(super) fn printf(format: &str, args: &[Arg<'_>]) -> String {
    let mut out = String::new();
    let mut args = args.iter().copied();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let flags_end = rest.find(|c: char| !matches!(c, '-' | '+' | ' ' | '0' | '#')).unwrap_or(rest.len());
        let (flags, tail) = rest.split_at(flags_end);
        let width_end = tail.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(tail.len());
        let (size, tail) = tail.split_at(width_end);
        let Some(verb) = tail.chars().next() else {
            out.push('%');
            break;
        };
        rest = &tail[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(arg) = args.next() else {
            out.push('%');
            out.push(verb);
            continue;
        };
        let (width, precision) = size.split_once('.').map_or((size, None), |(width, digits)| (width, Some(digits)));
        // Nobody needs more, and a width is memory.
        let width: usize = width.parse().unwrap_or(0).min(200);
        let precision = precision.map(|digits| digits.parse::<usize>().unwrap_or(0).min(30));
        let text = match (verb, arg.number()) {
            ('f', Some(number)) => format!("{number:.*}", precision.unwrap_or(6)),
            ('d', Some(number)) if number.fract() == 0.0 => format!("{number:.0}"),
            ('q', _) => format!("{:?}", arg.plain()),
            ('s', _) => match precision {
                Some(length) => arg.plain().chars().take(length).collect(),
                None => arg.plain(),
            },
            _ => arg.plain(),
        };
        let missing = width.saturating_sub(text.chars().count());
        let padding = if flags.contains('0') && verb != 's' { "0" } else { " " }.repeat(missing);
        let (before, after) = if flags.contains('-') { ("", " ".repeat(missing)) } else { (&*padding, String::new()) };
        out.push_str(before);
        out.push_str(&text);
        out.push_str(&after);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formats() {
        let two = [Arg::Text("Enabled"), Arg::Count(2)];
        for (format, text) in [
            ("%s on %d node(s)", "Enabled on 2 node(s)"),
            ("%10s: %d", "   Enabled: 2"),
            ("%-10s|%03d", "Enabled   |002"),
            ("%s", "Enabled"),
            ("100%% %s", "100% Enabled"),
            ("%s %s %s", "Enabled 2 %s"),
            ("%d", "Enabled"),
            ("%q", "\"Enabled\""),
            ("%.3s", "Ena"),
            ("%", "%"),
            ("", ""),
        ] {
            assert_eq!(printf(format, &two), text, "{format}");
        }
        assert_eq!(printf("Average: %.3f", &[Arg::Float(25.775)]), "Average: 25.775");
        assert_eq!(printf("%d", &[Arg::Float(2.5)]), "2.5");
        assert_eq!(printf("%f", &[Arg::Text("1.5")]), "1.500000");
    }

    proptest! {
        #[test]
        fn no_format_panics(format in "[%sdfqv0-9. #+é-]{0,20}", text in ".{0,8}", count in any::<usize>()) {
            let _ = printf(&format, &[Arg::Text(&text), Arg::Count(count)]);
        }
    }
}
