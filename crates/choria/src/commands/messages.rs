//! `choria tool sub` and `choria tool pub`: single messages as they travel, for looking at a network (spec 05 §7.4).

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::Path;

use bytes::Bytes;
use choria_client::Client;
use choria_connector::Message;
use jiff::Zoned;
use serde_json::json;

use crate::cli::{PubArgs, SubArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::print::messages as print;
use crate::settings::ClientSettings;

/// Messages that wait to be printed. All that waits is printed in one go and the connection is read by the same thread,
/// so at most what one turn of reading brings can wait: half a megabyte of small messages, whose number this bounds, or
/// some large ones. While nobody takes the output nothing is read, and the broker deals with us as a slow consumer.
const BUFFER: usize = 50_000;

/// Largest message that any broker takes.
const MAX_BODY: u64 = 64 * 1024 * 1024;

/// Shows messages until it is interrupted or has seen as many as were asked for.
pub(crate) fn sub(args: &SubArgs, config: Option<&Path>, debug: bool) -> Outcome {
    let settings = ClientSettings::load_from(config, args.connect_timeout, debug)?;
    settings.run(async |client| {
        let connection = client.connection();
        let mut messages = connection.subscribe(&args.topic, args.queue.as_deref(), BUFFER).await?;
        connection.flush().await?;
        refused(client, "subscribe to", &args.topic)?;
        if !args.raw {
            writeln!(io::stderr(), "Waiting for messages from topic {} on {}", args.topic, server(client))?;
        }
        let mut printer = Printer::new(args);
        while !printer.done() {
            let first = tokio::select! {
                message = messages.next() => message,
                () = client.cancelled() => break,
            };
            let Some(first) = first else { return Err(Failure::new("the connection to the broker ended")) };
            printer.show(&first)?;
            while !printer.done()
                && let Some(message) = messages.try_next()
            {
                printer.show(&message)?;
            }
            printer.out.flush()?;
        }
        let lost = connection.stats().dropped;
        if lost > 0 {
            writeln!(io::stderr(), "warning: {lost} messages came faster than they could be shown, and are missing")?;
        }
        Ok(Exit::Ok)
    })
}

/// Writes messages in the form that was asked for, and counts them.
struct Printer<'a> {
    args: &'a SubArgs,
    out: BufWriter<io::StdoutLock<'static>>,
    terminal: bool,
    shown: u64,
}

impl<'a> Printer<'a> {
    fn new(args: &'a SubArgs) -> Self {
        let out = io::stdout();
        Self { args, terminal: out.is_terminal(), out: BufWriter::new(out.lock()), shown: 0 }
    }

    /// Whether as many were shown as were asked for.
    fn done(&self) -> bool {
        self.args.count.is_some_and(|count| self.shown >= count)
    }

    fn show(&mut self, message: &Message) -> io::Result<()> {
        self.shown += 1;
        let now = Zoned::now();
        let message =
            &print::Shown { subject: &message.subject, reply: message.reply.as_deref(), payload: &message.payload };
        if self.args.json {
            print::json(&mut self.out, message, &now)
        } else if self.args.raw {
            print::raw(&mut self.out, message, self.terminal)
        } else {
            print::text(&mut self.out, message, &self.args.topic, &now)
        }
    }
}

/// Publishes one message and waits until the broker has it.
pub(crate) fn publish(args: &PubArgs, config: Option<&Path>, debug: bool) -> Outcome {
    let body = body(args)?;
    if body.is_empty() {
        return Err(
            Failure::new("read 0 bytes from input").hint("write the message behind TOPIC, or name a file with --input")
        );
    }
    let bytes = body.len();
    let settings = ClientSettings::load_from(config, args.connect_timeout, debug)?;
    let server = settings.run(async |client| {
        client.connection().publish(&args.topic, Bytes::from(body)).await?;
        client.connection().flush().await?;
        refused(client, "publish to", &args.topic)?;
        Ok(server(client))
    })?;
    let topic = &args.topic;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json!({"subject": topic, "bytes": bytes, "server": server}))?;
    } else {
        writeln!(out, "Published {bytes} bytes to {topic} on {server}")?;
    }
    Ok(Exit::Ok)
}

fn body(args: &PubArgs) -> Result<Vec<u8>, Failure> {
    if let Some(text) = &args.body {
        return Ok(text.clone().into_bytes());
    }
    match args.input.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let file = File::open(path).map_err(|error| unreadable(path, &error))?;
            read(file).map_err(|error| unreadable(path, &error))
        }
        None => {
            if io::stdin().is_terminal() {
                writeln!(io::stderr(), "Type the message, and Ctrl-D at its end")?;
            }
            Ok(read(io::stdin().lock())?)
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("could not read {}: {error}", path.display()))
}

/// Reads one byte more than any broker takes at most: enough to be refused with the broker's own limit.
fn read(input: impl Read) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    input.take(MAX_BODY + 1).read_to_end(&mut body)?;
    Ok(body)
}

/// The broker answers rights that are missing with an error, which has arrived by the time a flush is answered. Its words
/// are in the log, on stderr.
fn refused(client: &Client, what: &str, topic: &str) -> Result<(), Failure> {
    if client.connection().stats().broker_errors == 0 {
        return Ok(());
    }
    Err(Failure::new(format!("the broker does not let {} {what} {topic}", client.caller().caller_id)))
}

fn server(client: &Client) -> String {
    client.connected_server().unwrap_or_default()
}
