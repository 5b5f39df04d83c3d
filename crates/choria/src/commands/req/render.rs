//! Talk while a request runs, and its results in the form that was asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use choria_client::{Discovered, RequestStats, RpcReply};
use choria_rpc::ddl::{self, Action, Aggregates};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::cli::{Display, OutputArgs, ReqArgs};
use crate::exit::Failure;
use crate::print::replies::{self as print, Line, Shown, Summary, Which};
use crate::text::{Palette, colour_stdout, live_stderr};

/// The forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Text,
    Json,
    Lines,
    Table,
    Senders,
    SendersJson,
}

impl Mode {
    /// `--json` wins over `--table`; `--senders` makes a list of either.
    pub(super) fn of(args: &OutputArgs) -> Self {
        match args {
            OutputArgs { senders: true, json: true, .. } => Self::SendersJson,
            OutputArgs { jsonl: true, .. } => Self::Lines,
            OutputArgs { senders: true, .. } => Self::Senders,
            OutputArgs { json: true, .. } => Self::Json,
            OutputArgs { table: true, .. } => Self::Table,
            _ => Self::Text,
        }
    }

    /// Whether people watch: then they are told what is going on, on stderr.
    fn talks(self) -> bool {
        matches!(self, Self::Text | Self::Table)
    }
}

/// Writes a failure as a line of `--jsonl`.
pub(super) fn error_line(failure: &Failure) -> io::Result<()> {
    let text = failure.to_string();
    write!(io::stdout(), "{}", print::line(&Line::Error(&text)))
}

/// Shows one request.
pub(super) struct Renderer<'a> {
    args: &'a ReqArgs,
    mode: Mode,
    action: &'a Action,
    palette: Palette,
    out: Box<dyn Write>,
    bar: Option<ProgressBar>,
}

impl<'a> Renderer<'a> {
    /// Opens the output file, when there is one, before anything is sent.
    pub(super) fn new(args: &'a ReqArgs, mode: Mode, action: &'a Action, colour: bool) -> Result<Self, Failure> {
        let (out, terminal): (Box<dyn Write>, bool) = match &args.output.output_file {
            Some(path) => {
                let file = File::create(path)
                    .map_err(|error| Failure::new(format!("could not write {}: {error}", path.display())))?;
                (Box::new(io::BufWriter::new(file)), false)
            }
            None => (Box::new(io::stdout()), true),
        };
        let palette = Palette(terminal && colour_stdout(colour));
        Ok(Self { args, mode, action, palette, out, bar: None })
    }

    pub(super) fn discovering(&mut self, method: &str) -> io::Result<()> {
        if self.mode == Mode::Lines {
            write!(self.out, "{}", print::line(&Line::Discovering { method }))?;
        } else if self.mode.talks() {
            write!(io::stderr(), "Discovering nodes using the {method} method .... ")?;
        }
        Ok(())
    }

    pub(super) fn discovered(&mut self, method: &str, found: &Discovered) -> io::Result<()> {
        let count = found.nodes.len();
        if self.mode == Mode::Lines {
            let line = Line::Discovered { method, count, seconds: found.took.as_secs_f64() };
            write!(self.out, "{}", print::line(&line))?;
        } else if self.mode.talks() {
            let how = if found.assumed { " (named, not asked)" } else { "" };
            writeln!(io::stderr(), "{count}{how}")?;
        }
        Ok(())
    }

    /// Draws a bar where somebody watches.
    pub(super) fn begin(&mut self, asked: usize) {
        if !self.mode.talks() || self.args.output.np || !live_stderr() {
            return;
        }
        let style = ProgressStyle::with_template("{pos} / {len} {elapsed:>5} [{bar:50}] {percent}%");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
        let bar = ProgressBar::new(asked as u64).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(100));
        self.bar = Some(bar);
    }

    pub(super) fn replied(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Shows a reply at once, where the form allows it.
    pub(super) fn stream(&mut self, reply: &RpcReply) -> io::Result<()> {
        if self.mode != Mode::Lines {
            return Ok(());
        }
        write!(self.out, "{}", print::line(&Line::Reply(reply)))?;
        if self.args.output.senders && reply.is_ok() {
            writeln!(self.out, "{}", reply.sender)?;
        }
        Ok(())
    }

    /// Shows everything.
    pub(super) fn end(&mut self, mut replies: Vec<RpcReply>, stats: &RequestStats) -> io::Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        for reply in replies.iter_mut().filter(|reply| reply.is_ok()) {
            if let Value::Object(data) = &mut reply.data {
                self.action.fill_output_defaults(data);
            }
        }
        if self.args.output.sort {
            replies.sort_by(|one, other| one.sender.cmp(&other.sender));
        }
        let labels: BTreeMap<String, String> =
            self.action.output.keys().map(|name| (name.clone(), self.action.label(name).to_owned())).collect();
        let summaries = summaries(self.action, &replies);
        let shown = Shown {
            agent: &self.args.agent,
            action: &self.args.action,
            labels: &labels,
            replies: &replies,
            summaries: &summaries,
            stats,
        };
        let text = match self.mode {
            Mode::Text => print::text(&shown, self.which(), self.args.output.verbose, self.palette),
            Mode::Json => print::document(&shown),
            Mode::Table => print::table(&shown),
            Mode::Senders => print::senders(&shown),
            Mode::SendersJson => print::senders_json(&shown),
            Mode::Lines if self.args.output.senders => String::new(),
            Mode::Lines => print::line(&Line::Summaries(&summaries)) + &print::line(&Line::Stats(stats)),
        };
        self.out.write_all(text.as_bytes())?;
        self.out.flush()?;
        // A box says nothing about those who are not in it.
        if self.mode == Mode::Table && (stats.failed > 0 || !stats.no_responses.is_empty()) {
            writeln!(io::stderr(), "{} failed, {} did not answer", stats.failed, stats.no_responses.len())?;
        }
        Ok(())
    }

    fn which(&self) -> Which {
        match (self.args.output.display, self.action.display) {
            (Some(Display::Ok), _) | (None, ddl::Display::Ok) => Which::Ok,
            (Some(Display::Failed), _) | (None, ddl::Display::Failed) => Which::Failed,
            (Some(Display::All), _) | (None, ddl::Display::Always) => Which::All,
            (Some(Display::None), _) => Which::None,
        }
    }
}

/// Summaries over the replies that worked (spec 05 §12 row 22).
fn summaries(action: &Action, replies: &[RpcReply]) -> Vec<Summary> {
    let mut aggregates = Aggregates::new(action);
    for reply in replies.iter().filter(|reply| reply.is_ok()) {
        if let Value::Object(data) = &reply.data {
            aggregates.add(data);
        }
    }
    aggregates
        .results()
        .into_iter()
        .map(|(output, result)| Summary {
            label: action.label(&output).to_owned(),
            output,
            lines: result.to_lines(),
            value: result.to_json(),
        })
        .collect()
}
