//! Log lines (spec 03 §4.4): JSON in files, text on the console.
//!
//! Logs never go to stdout unless `logfile = stdout` says so: stdout is for data.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use choria_config::{LogLevel, LogTarget};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sink {
    /// Standard output, only when `logfile = stdout` asks for it.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere.
    Discard,
    /// Appended to this file, as JSON.
    File(PathBuf),
}

impl From<LogTarget> for Sink {
    fn from(target: LogTarget) -> Self {
        match target {
            LogTarget::Stdout => Self::Stdout,
            LogTarget::Stderr => Self::Stderr,
            LogTarget::Discard => Self::Discard,
            LogTarget::File(path) => Self::File(path),
        }
    }
}

/// The level that `loglevel` stands for.
pub(crate) fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error | LogLevel::Fatal => LevelFilter::ERROR,
    }
}

/// A log file that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("could not open the log file {path}: {source}")]
pub(crate) struct LogError {
    path: String,
    source: std::io::Error,
}

/// Keeps the log file; a clone re-opens it after it was rotated away.
#[derive(Debug, Clone)]
pub(crate) struct LogHandle {
    output: Arc<Mutex<Output>>,
}

#[derive(Debug)]
enum Output {
    Stdout,
    Stderr,
    Discard,
    File { path: PathBuf, file: File },
}

impl LogHandle {
    /// Opens the log file again, for log rotation. Keeps the old one when that fails.
    pub(crate) fn reopen(&self) -> Result<(), LogError> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        if let Output::File { path, file } = &mut *output {
            *file = open(path)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, LogError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| LogError { path: path.display().to_string(), source })
}

/// Starts logging for the whole process.
pub(crate) fn init(sink: &Sink, level: LevelFilter) -> Result<LogHandle, LogError> {
    let (output, style) = match sink {
        Sink::Stdout => (Output::Stdout, console_style(std::io::stdout().is_terminal())),
        Sink::Stderr => (Output::Stderr, console_style(std::io::stderr().is_terminal())),
        Sink::Discard => (Output::Discard, Style::Pairs),
        Sink::File(path) => (Output::File { path: path.clone(), file: open(path)? }, Style::Json),
    };
    let output = Arc::new(Mutex::new(output));
    let lines = Lines { style, started: Instant::now(), output: Arc::clone(&output) };
    // Libraries talk a lot below warning; TRACE=1 lets them (spec 05 §1.4).
    let others = if std::env::var_os("TRACE").is_some() { level } else { level.min(LevelFilter::WARN) };
    let targets = Targets::new().with_default(others).with_target("choria", level).with_target("nats_broker", level);
    // A second start in one process, as in tests, keeps the first one.
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
    Ok(LogHandle { output })
}

fn console_style(terminal: bool) -> Style {
    if terminal { Style::Terminal } else { Style::Pairs }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Json,
    Pairs,
    Terminal,
}

#[derive(Debug)]
struct Lines {
    style: Style,
    started: Instant,
    output: Arc<Mutex<Output>>,
}

/// Fields of one event or span, sorted by name.
#[derive(Debug, Default, Clone)]
struct Fields(BTreeMap<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.0.insert(name.to_owned(), value);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut extensions = span.extensions_mut();
            if let Some(fields) = extensions.get_mut::<Fields>() {
                record.record(fields);
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root() {
                if let Some(inherited) = span.extensions().get::<Fields>() {
                    fields.0.extend(inherited.0.clone());
                }
            }
        }
        event.record(&mut fields);
        fields.0.entry("component".to_owned()).or_insert_with(|| component(event.metadata().target()).into());
        let line = self.line(*event.metadata().level(), fields);
        self.write(&line);
    }
}

impl Lines {
    fn line(&self, level: Level, mut fields: Fields) -> String {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let message = match fields.0.remove("msg") {
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        match self.style {
            Style::Json => {
                fields.0.insert("time".to_owned(), time.into());
                fields.0.insert("level".to_owned(), level_name(level).into());
                fields.0.insert("msg".to_owned(), message.into());
                let mut line = serde_json::to_string(&fields.0).unwrap_or_default();
                line.push('\n');
                line
            }
            Style::Pairs => {
                let mut line = format!("time=\"{time}\" level={} msg={}", level_name(level), quoted(&message));
                pairs(&mut line, &fields);
                line
            }
            Style::Terminal => {
                let word = level_name(level).to_ascii_uppercase();
                let colour = level_colour(level);
                let seconds = self.started.elapsed().as_secs();
                let mut line = format!("\u{1b}[{colour}m{:.4}\u{1b}[0m[{seconds:04}] {message:<44}", word);
                pairs(&mut line, &fields);
                line
            }
        }
    }

    fn write(&self, line: &str) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk or a closed terminal must not stop the program.
        let _ = match &mut *output {
            Output::Stdout => std::io::stdout().write_all(line.as_bytes()),
            Output::Stderr => std::io::stderr().write_all(line.as_bytes()),
            Output::Discard => Ok(()),
            Output::File { file, .. } => file.write_all(line.as_bytes()),
        };
    }
}

fn pairs(line: &mut String, fields: &Fields) {
    for (name, value) in &fields.0 {
        let text = match value {
            Value::String(text) => quoted(text),
            other => other.to_string(),
        };
        let _ = write!(line, " {name}={text}");
    }
    line.push('\n');
}

/// Text that has blanks or anything odd inside is quoted, so that one event is always one line.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._/@^+:".contains(c));
    if plain { text.to_owned() } else { format!("{text:?}") }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

fn level_colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 36,
        _ => 37,
    }
}

/// The room that speaks, when it does not say so itself: `choria_server::run` is `server`.
fn component(target: &str) -> String {
    let room = target.split("::").next().unwrap_or(target);
    room.strip_prefix("choria_").unwrap_or(room).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(style: Style) -> Lines {
        Lines { style, started: Instant::now(), output: Arc::new(Mutex::new(Output::Discard)) }
    }

    fn fields() -> Fields {
        Fields(BTreeMap::from([
            ("msg".to_owned(), Value::from("hello \"you\"\nthere")),
            ("component".to_owned(), Value::from("server")),
        ]))
    }

    #[test]
    fn files_get_json_with_sorted_keys() {
        let line = lines(Style::Json).line(Level::WARN, fields());
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "warning");
        assert_eq!(value["msg"], "hello \"you\"\nthere");
        assert_eq!(value["component"], "server");
        let time = value["time"].as_str().unwrap();
        assert_eq!((time.len(), time.ends_with('Z')), (20, true), "{time}");
        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["component", "level", "msg", "time"]);
    }

    #[test]
    fn the_console_gets_one_line_of_pairs() {
        let line = lines(Style::Pairs).line(Level::INFO, fields());
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.ends_with(" level=info msg=\"hello \\\"you\\\"\\nthere\" component=server\n"), "{line}");
    }

    #[test]
    fn the_room_is_the_component() {
        assert_eq!(component("choria_server::run"), "server");
        assert_eq!(component("nats_broker"), "nats_broker");
    }
}
