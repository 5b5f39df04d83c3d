//! `choria tool event`: lifecycle events as they happen (spec 05 §7.3).

use std::io::{self, Write};
use std::path::Path;

use choria_protocol::lifecycle::Event;
use choria_protocol::subjects;
use jiff::Zoned;

use crate::cli::{EventArgs, EventType};
use crate::exit::{Exit, Failure, Outcome};
use crate::settings::ClientSettings;

/// Events that wait to be printed; a whole fleet may start at once.
const BUFFER: usize = 100_000;

/// Runs the command until it is interrupted.
pub(crate) fn run(args: &EventArgs, config: Option<&Path>, debug: bool) -> Outcome {
    let settings = ClientSettings::load_from(config, args.connect_timeout, debug)?;
    settings.run(async |client| {
        let subject = match (args.kind, &args.component) {
            (None, None) => subjects::LIFECYCLE_ALL.to_owned(),
            (kind, component) => subjects::lifecycle(kind.map_or("*", name), component.as_deref().unwrap_or("*")),
        };
        // Asked for by type and component, events of other nodes never cross the network.
        let mut events = client.connection().subscribe(&subject, None, BUFFER).await?;
        client.connection().flush().await?;
        let server = client.connected_server().unwrap_or_default();
        writeln!(io::stderr(), "Waiting for events from topic {subject} on {server}")?;
        let json = args.json || debug;
        loop {
            tokio::select! {
                message = events.next() => match message {
                    Some(message) => show(&message.payload, args, json)?,
                    None => return Err(Failure::new("the connection to the broker ended")),
                },
                () = client.cancelled() => return Ok(Exit::Ok),
            }
        }
    })
}

fn show(payload: &[u8], args: &EventArgs, json: bool) -> io::Result<()> {
    let Ok(event) = Event::parse(payload) else {
        tracing::debug!("skipping {} bytes that are no lifecycle event", payload.len());
        return Ok(());
    };
    if !wanted(&event, args) {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    if json {
        // Received as one document, shown as one line whatever its own line ends.
        let text = serde_json::from_slice::<serde_json::Value>(payload)?;
        writeln!(out, "{text}")
    } else {
        writeln!(out, "{}", line(&event, &Zoned::now()))
    }
}

fn wanted(event: &Event, args: &EventArgs) -> bool {
    args.kind.is_none_or(|kind| name(kind) == event.kind.name())
        && args.component.as_ref().is_none_or(|component| *component == event.component)
}

/// One event as people read it. The time is that of receipt.
fn line(event: &Event, now: &Zoned) -> String {
    format!("{} {event}", now.strftime("%H:%M:%S"))
}

fn name(kind: EventType) -> &'static str {
    match kind {
        EventType::Alive => "alive",
        EventType::Governor => "governor",
        EventType::Provisioned => "provisioned",
        EventType::Refused => "refused",
        EventType::Shutdown => "shutdown",
        EventType::Startup => "startup",
        EventType::Upgraded => "upgraded",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of `golden/cli/events.jsonl`.
    #[test]
    fn golden_events() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/cli/events.jsonl");
        let now: Zoned = "2026-11-20T12:34:56[UTC]".parse().unwrap();
        let mut rows = 0;
        for row in std::fs::read_to_string(path).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            let shown = Event::parse(row["event"].to_string().as_bytes()).ok().map(|event| line(&event, &now));
            let wanted = row["line"].as_str().map(|text| text.replace("HH:MM:SS", "12:34:56"));
            assert_eq!(shown, wanted, "{row}");
            rows += 1;
        }
        assert_eq!(rows, 12);
    }

    #[test]
    fn filters_look_at_the_event_too() {
        let payload = br#"{"protocol":"io.choria.lifecycle.v1.shutdown","id":"1","identity":"n1","timestamp":1,"component":"server"}"#;
        let event = Event::parse(payload).unwrap();
        let args = |component: Option<&str>, kind| EventArgs {
            component: component.map(str::to_owned),
            kind,
            json: false,
            connect_timeout: std::time::Duration::ZERO,
        };
        assert!(wanted(&event, &args(None, None)));
        assert!(wanted(&event, &args(Some("server"), Some(EventType::Shutdown))));
        assert!(!wanted(&event, &args(Some("broker"), None)));
        assert!(!wanted(&event, &args(None, Some(EventType::Startup))));
    }
}
