//! Log lines in nats-server's shape, which wrappers read: `[pid] 2026/11/29 15:45:35.808531 [INF] text` (spec 07 §23).
//!
//! A thread of its own writes them: whoever started the program and does not read its stderr, or a disk that is slow, must
//! not hold up those who move messages.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Lines that may wait for the thread that writes them: a burst of a whole fleet that reconnects. More are dropped, and
/// counted in a line of their own.
const WAITING: usize = 8192;
/// How long the end of the program waits for them.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// How and where lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogSettings {
    /// A file to append to; `None` = stderr.
    pub(crate) file: Option<PathBuf>,
    /// Lines have a time.
    pub(crate) has_time: bool,
    /// That time is in UTC instead of local time.
    pub(crate) is_utc: bool,
    /// Debug lines, too.
    pub(crate) debug: bool,
    /// Bytes after which the file is put aside under a name with the time; 0 = never.
    pub(crate) size_limit: u64,
    /// Logs that are kept, the present one included; 0 = all.
    pub(crate) max_files: u64,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { file: None, has_time: true, is_utc: false, debug: false, size_limit: 0, max_files: 0 }
    }
}

/// A log file that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the log file {path}: {source}")]
pub(crate) struct LogError {
    path: String,
    source: std::io::Error,
}

/// The log of the process. Clones write to the same place.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    lines: Arc<Mutex<Lines>>,
    queue: Queue,
    level: LevelHandle,
}

/// What is sent to the thread that writes.
enum Item {
    Line {
        time: jiff::Timestamp,
        level: &'static str,
        text: String,
    },
    /// Everything before this was written.
    Flush(SyncSender<()>),
}

/// The way to the thread that writes.
#[derive(Debug, Clone)]
struct Queue {
    sender: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    fn new(lines: Arc<Mutex<Lines>>) -> Self {
        let (sender, items) = sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        // Ends with the last sender. Without a thread nothing is written, and nothing else is wrong.
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&items, &lines, &counted));
        Self { sender, dropped }
    }

    /// Never waits.
    fn line(&self, level: &'static str, text: String) {
        let item = Item::Line { time: jiff::Timestamp::now(), level, text };
        if self.sender.try_send(item).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(items: &Receiver<Item>, lines: &Mutex<Lines>, dropped: &AtomicU64) {
    for item in items {
        match item {
            Item::Line { time, level, text } => {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.write(time, level, &text);
                let missing = dropped.swap(0, Ordering::Relaxed);
                if missing > 0 {
                    lines.write(
                        time,
                        "WRN",
                        &format!("{missing} lines are missing here: they came faster than they could be written"),
                    );
                }
            }
            Item::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

type Reload = tracing_subscriber::reload::Handle<Targets, tracing_subscriber::Registry>;

/// Changes the level of the running log; nothing in a process that had a log already.
#[derive(Clone)]
struct LevelHandle(Option<Reload>);

impl fmt::Debug for LevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LevelHandle").field(&self.0.is_some()).finish()
    }
}

#[derive(Debug)]
struct Lines {
    settings: LogSettings,
    file: Option<(File, u64)>,
}

impl Log {
    /// Starts logging for the whole process.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn start(settings: LogSettings) -> Result<Self, LogError> {
        let lines = Arc::new(Mutex::new(Lines::open(settings)?));
        let targets = targets(lines.lock().unwrap_or_else(PoisonError::into_inner).settings.debug);
        let (filter, level) = tracing_subscriber::reload::Layer::new(targets);
        let queue = Queue::new(Arc::clone(&lines));
        let layer = LogLayer { queue: queue.clone() };
        // A second start in one process, as in tests, keeps the first one.
        let is_first = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_ok();
        Ok(Self { lines, queue, level: LevelHandle(is_first.then_some(level)) })
    }

    /// Waits until what was said is written, but not for ever.
    pub(crate) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.sender.try_send(Item::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH_TIME);
        }
    }

    /// A line that says why the program ends.
    pub(crate) fn fatal(&self, text: &str) {
        self.queue.line("FTL", text.to_owned());
        self.flush();
    }

    /// Opens the file again, after it was moved away. The old one stays in use when that fails.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn reopen(&self) -> Result<(), LogError> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = lines.settings.file.clone() {
            lines.file = Some(open(&path)?);
        }
        Ok(())
    }

    /// Whether [`Log::change`] could open its file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn check(&self, settings: &LogSettings) -> Result<(), LogError> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match &settings.file {
            Some(path) if lines.settings.file != settings.file => open(path).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Other settings from now on.
    ///
    /// # Errors
    /// The file cannot be opened; nothing has changed then.
    pub(crate) fn change(&self, settings: LogSettings) -> Result<(), LogError> {
        let debug = settings.debug;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.settings.file == settings.file {
            lines.settings = settings;
        } else {
            *lines = Lines::open(settings)?;
        }
        drop(lines);
        if let Some(level) = &self.level.0 {
            // Fails only when the log is gone.
            let _ = level.reload(targets(debug));
        }
        Ok(())
    }
}

/// Which events become lines: ours and the broker's, and from libraries only what is wrong.
fn targets(debug: bool) -> Targets {
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("nats_broker", level)
        .with_target("nats_broker_program", level)
}

fn open(path: &Path) -> Result<(File, u64), LogError> {
    let failed = |source| LogError { path: path.display().to_string(), source };
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    Ok((file, size))
}

impl Lines {
    fn open(settings: LogSettings) -> Result<Self, LogError> {
        let file = settings.file.as_deref().map(open).transpose()?;
        Ok(Self { settings, file })
    }

    fn write(&mut self, time: jiff::Timestamp, level: &str, text: &str) {
        let line = line(&self.settings, time, level, text);
        // A full disk or a closed terminal must not stop the broker.
        let Some((file, size)) = &mut self.file else {
            let _ = std::io::stderr().write_all(line.as_bytes());
            return;
        };
        if file.write_all(line.as_bytes()).is_ok() {
            *size += line.len() as u64;
        }
        if self.settings.size_limit > 0 && *size > self.settings.size_limit {
            self.put_aside();
        }
    }

    /// Renames a file that has grown too large and begins a new one; on failure the old one is used on.
    fn put_aside(&mut self) {
        let Some(path) = self.settings.file.clone() else { return };
        let time = jiff::Zoned::now().strftime("%Y.%m.%d.%H.%M.%S.%6f").to_string();
        let aside = PathBuf::from(format!("{}.{time}", path.display()));
        if std::fs::rename(&path, aside).is_ok()
            && let Ok(fresh) = open(&path)
        {
            self.file = Some(fresh);
            self.remove_old(&path);
        }
    }

    /// Removes the oldest of those that were put aside when there are too many.
    fn remove_old(&self, path: &Path) {
        let keep = usize::try_from(self.settings.max_files).unwrap_or(usize::MAX);
        let (Some(name), true) = (path.file_name(), keep > 0) else { return };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let prefix = format!("{}.", name.to_string_lossy());
        // Names end with the time, so that their order is that of their age. Others with the same beginning stay.
        let is_ours = |rest: &str| rest.len() == 26 && rest.chars().all(|c| c.is_ascii_digit() || c == '.');
        let mut aside: Vec<PathBuf> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
                name.strip_prefix(&prefix).is_some_and(is_ours)
            })
            .collect();
        aside.sort();
        for old in aside.iter().rev().skip(keep - 1) {
            let _ = std::fs::remove_file(old);
        }
    }
}

/// One event is one line, whatever a peer or a file put into its text.
fn line(settings: &LogSettings, time: jiff::Timestamp, level: &str, text: &str) -> String {
    let mut line = format!("[{}] ", std::process::id());
    if settings.has_time {
        const FORM: &str = "%Y/%m/%d %H:%M:%S%.6f ";
        let time = if settings.is_utc {
            time.strftime(FORM).to_string()
        } else {
            time.to_zoned(jiff::tz::TimeZone::system()).strftime(FORM).to_string()
        };
        line.push_str(&time);
    }
    let _ = write!(line, "[{level}] ");
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

struct LogLayer {
    queue: Queue,
}

/// The message and what belongs to it: `text key=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        text.message.push_str(&text.fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "ERR",
            Level::WARN => "WRN",
            Level::INFO => "INF",
            Level::DEBUG => "DBG",
            Level::TRACE => "TRC",
        };
        self.queue.line(level, text.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid() -> u32 {
        std::process::id()
    }

    #[test]
    fn lines_have_the_shape_that_wrappers_read() {
        let settings = LogSettings { is_utc: true, ..LogSettings::default() };
        let text = line(&settings, jiff::Timestamp::now(), "INF", "Server is ready");
        let rest = text.strip_prefix(&format!("[{}] ", pid())).unwrap();
        let (time, rest) = rest.split_at("2026/11/29 15:45:35.808531".len());
        assert!(
            time.chars()
                .zip("dddd/dd/dd dd:dd:dd.dddddd".chars())
                .all(|(c, d)| c == d || (d == 'd' && c.is_ascii_digit())),
            "{time}"
        );
        assert_eq!(rest, " [INF] Server is ready\n");
        let bare = LogSettings { has_time: false, ..settings };
        assert_eq!(
            line(&bare, jiff::Timestamp::now(), "WRN", "a\r\n[INF] b"),
            format!("[{}] [WRN] a\\r\\n[INF] b\n", pid())
        );
    }

    #[test]
    fn whoever_logs_never_waits_and_what_is_dropped_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.log");
        let settings = LogSettings { file: Some(path.clone()), has_time: false, ..LogSettings::default() };
        let lines = Arc::new(Mutex::new(Lines::open(settings).unwrap()));
        let queue = Queue::new(Arc::clone(&lines));
        // The writing thread gets no further than here.
        let held = lines.lock().unwrap();
        for n in 0..WAITING + 100 {
            queue.line("INF", n.to_string());
        }
        let missing = queue.dropped.load(Ordering::Relaxed);
        assert!((99..=100).contains(&missing), "{missing}");
        drop(held);
        let (done, wait) = sync_channel(1);
        queue.sender.send(Item::Flush(done)).unwrap();
        wait.recv().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("[WRN] {missing} lines are missing here")), "{}", &text[..200]);
        assert_eq!(text.lines().count(), WAITING + 100 - usize::try_from(missing).unwrap() + 1);
    }

    #[test]
    fn a_file_that_grows_too_large_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.log");
        let settings = LogSettings { file: Some(path.clone()), size_limit: 100, ..LogSettings::default() };
        let mut lines = Lines::open(settings).unwrap();
        for n in 0..4 {
            lines.write(jiff::Timestamp::now(), "INF", &format!("line {n} {}", "x".repeat(60)));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 5);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        std::fs::write(dir.path().join("f.log.kept"), "").unwrap();
        lines.settings.max_files = 3;
        lines.write(jiff::Timestamp::now(), "INF", &"x".repeat(100));
        // The present one, two put aside, and a stranger.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
    }
}
