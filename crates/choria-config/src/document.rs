//! Renders the key table as Markdown: `docs/configuration.md` is this text, and a test keeps it so.

use std::fmt::Write;

use crate::duration;
use crate::key::{Kind, Spec, Status};
use crate::keys;

const INTRO: &str = "\
# Configuration

<!-- Generated from the key table in crates/choria-config. Change it there, then run
     CHORIA_UPDATE_DOCS=1 cargo test -p choria-config --test documentation -->

Every program reads one file of `key = value` lines. A line that starts with `#` is a comment; there are no quotes, no
sections and no comments behind a value. Beside the file, `plugin.d/NAME.cfg` holds keys that all begin with
`plugin.NAME.`, written without that prefix. Clients also read `choria.conf` in the root directory and in every
directory from there down to the working one. Later files win, and environment variables win over files.

A value that cannot be what its key needs is an error that names file, line, key and value; all errors are shown at
once. Unknown keys are warnings with the nearest known name. Keys of parts that this version does not have are checked and
answered with a warning. How this differs from the original program, and why, is in
[differences/choria-config.md](differences/choria-config.md).

Kinds of values: a *boolean* is `1 yes true y t` or `0 no false n f` in any case. A *duration* is a number of seconds, or
numbers with units: `30s`, `5m`, `1h30m`, `2d`, `1w`, `1M` (30 days), `1y` (365 days). In a *path*, a leading `~/` is the
home directory. A *list* is separated by commas, a *path list* by `:`.
";

/// The whole table as one Markdown page.
#[must_use]
pub fn markdown() -> String {
    let mut page = INTRO.to_owned();
    for group in keys::GROUPS {
        let _ = write!(page, "\n## {}\n\n{}\n\n", group.title, group.intro);
        if group.keys.iter().all(|spec| matches!(spec.status, Status::Legacy(_))) {
            page.push_str("| Key | Why |\n|---|---|\n");
            for spec in group.keys {
                if let Status::Legacy(reason) = spec.status {
                    let _ = writeln!(page, "| `{}` | {reason} |", spec.name);
                }
            }
            continue;
        }
        page.push_str("| Key | Kind | Default | Meaning |\n|---|---|---|---|\n");
        for spec in group.keys.iter().chain(group.families) {
            let Entry { name, kind, default, meaning } = entry(spec);
            let _ = writeln!(page, "| `{name}` | {kind} | {default} | {meaning} |");
        }
    }
    page
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: String,
    /// Its default; empty when there is none.
    pub default: String,
    /// What it is for.
    pub meaning: String,
}

/// The row of one key, with the marks of a Markdown table.
#[must_use]
pub fn entry(spec: &Spec) -> Entry {
    Entry { name: spec.name, kind: kind(&spec.kind), default: default(spec), meaning: meaning(spec) }
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Text => "text".into(),
        Kind::Path => "path".into(),
        Kind::PathList { append: false } => "path list".into(),
        Kind::PathList { append: true } => "path list; further lines add to it".into(),
        Kind::LogTarget => "`stdout`, `stderr`, `discard` or path".into(),
        Kind::Boolean => "boolean".into(),
        Kind::Integer { min, max: i64::MAX } => format!("number, {min} or more"),
        Kind::Integer { min, max } => format!("number, {min} to {max}"),
        Kind::Seconds { min, max } => format!("seconds, {min} to {max}"),
        Kind::Duration { min_ms, max_ms } => {
            let text = |ms: &u64| duration::to_text(std::time::Duration::from_millis(*ms));
            // The bound of the number's representation says nothing to a reader.
            if *max_ms > 31_536_000_000 {
                "duration".into()
            } else {
                format!("duration, {} to {}", text(min_ms), text(max_ms))
            }
        }
        Kind::List => "list".into(),
        Kind::Lines => "text; further lines add to it".into(),
        Kind::Choice(words) | Kind::ChoiceAnyCase(words) => words.map_words(" or "),
        Kind::Choices(words) => format!("list of {}", words.map_words(", ")),
        Kind::Identity | Kind::Collective => "name".into(),
        Kind::Collectives => "list of names".into(),
        Kind::Hosts => "list of `host:port`".into(),
        Kind::Address => "`host` or `host:port`".into(),
        Kind::Networks => "list of addresses and networks".into(),
        Kind::FileMode => "octal file mode".into(),
    }
}

trait Words {
    fn map_words(&self, separator: &str) -> String;
}

impl Words for &[&str] {
    fn map_words(&self, separator: &str) -> String {
        self.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(separator)
    }
}

fn default(spec: &Spec) -> String {
    match (spec.computed_default, spec.default, &spec.kind) {
        (Some(text), _, _) => text.to_owned(),
        (None, None | Some(""), _) => String::new(),
        (None, Some(text), Kind::Boolean) => {
            if crate::check::boolean(text) == Some(true) {
                "yes".into()
            } else {
                "no".into()
            }
        }
        (None, Some(text), _) => format!("`{}`", text.replace('|', "\\|")),
    }
}

fn meaning(spec: &Spec) -> String {
    let mut text = spec.doc.trim().replace('|', "\\|").replace("  ", " ");
    if spec.zero_is_default {
        text.push_str(" 0 means the default.");
    }
    if let Some(variable) = spec.environment {
        let _ = write!(text, " Variable `{variable}`.");
    }
    if let Some(alias) = spec.alias {
        let _ = write!(text, " Old name `{alias}`.");
    }
    match spec.status {
        Status::Active => {}
        Status::Planned => text.push_str(" *Not part of this version.*"),
        Status::Refused => text.push_str(" *Not part of this version: the broker refuses to start with it.*"),
        Status::Legacy(reason) => {
            let _ = write!(text, " *Without effect: {reason}.*");
        }
    }
    if spec.own {
        text.push_str(" *Not known to the original.*");
    }
    text
}
