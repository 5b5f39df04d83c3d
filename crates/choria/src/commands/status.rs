//! `choria tool status`: is a server well, judged by the file it writes (spec 03 §4.2, spec 05 §7.6).

use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::cli::StatusArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::text::go_duration;

/// The keys of the status file that are looked at. Absent ones count as zero.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StatusFile {
    uptime: i64,
    connected_server: String,
    last_message: i64,
    provisioning_mode: bool,
    #[serde(deserialize_with = "timestamp")]
    certificate_expires: Option<Timestamp>,
    #[serde(deserialize_with = "timestamp")]
    token_expires: Option<Timestamp>,
}

/// An RFC 3339 time; null and the empty text are none.
fn timestamp<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
        None => Ok(None),
    }
}

/// Runs the command.
pub(crate) fn run(args: &StatusArgs) -> Outcome {
    let now = Timestamp::now();
    let file = args.status_file.display();
    let verdict = read(&args.status_file)
        .map_err(|reason| format!("{file} could not be read: {reason}"))
        .and_then(|(status, modified)| check(args, &status, age(modified), now));
    let mut out = std::io::stdout().lock();
    if args.json {
        let message = verdict.as_ref().err();
        writeln!(out, "{}", json!({"file": file.to_string(), "ok": verdict.is_ok(), "message": message}))?;
    } else {
        writeln!(out, "{file} {}", verdict.as_ref().err().map_or("OK", String::as_str))?;
    }
    Ok::<_, Failure>(if verdict.is_ok() { Exit::Ok } else { Exit::Failed })
}

fn read(path: &Path) -> Result<(StatusFile, SystemTime), String> {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(|e| e.to_string())?;
    let text = std::fs::read(path).map_err(|e| e.to_string())?;
    let status = serde_json::from_slice(&text)
        .map_err(|error| if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() })?;
    Ok((status, modified))
}

fn age(modified: SystemTime) -> Duration {
    SystemTime::now().duration_since(modified).unwrap_or_default()
}

/// The checks in their documented order; the first that fails is told.
fn check(args: &StatusArgs, status: &StatusFile, age: Duration, now: Timestamp) -> Result<(), String> {
    if !args.max_age.is_zero() && age > args.max_age {
        return Err(format!("older than {}", go_duration(args.max_age)));
    }
    expiry("certificate", status.certificate_expires, args.certificate_age, now)?;
    expiry("token", status.token_expires, args.token_age, now)?;
    if !args.no_disconnected && status.connected_server.is_empty() {
        return Err("connection check failed: not connected".to_owned());
    }
    last_message(status, args.message_since, now)?;
    if args.unprovisioned && !status.provisioning_mode {
        return Err("not in provisioning mode".to_owned());
    }
    if args.provisioned && status.provisioning_mode {
        return Err("in provisioning mode".to_owned());
    }
    Ok(())
}

fn expiry(what: &str, expires: Option<Timestamp>, limit: Duration, now: Timestamp) -> Result<(), String> {
    // Go writes its zero time, year 1, for "there is none".
    let Some(expires) = expires.filter(|expires| expires.as_second() > -62_000_000_000) else { return Ok(()) };
    let left = expires.as_second() - now.as_second();
    if limit.is_zero() || left >= i64::try_from(limit.as_secs()).unwrap_or(i64::MAX) {
        return Ok(());
    }
    let sign = if left < 0 { "-" } else { "" };
    let text = go_duration(Duration::from_secs(left.unsigned_abs()));
    Err(format!("{what} expires {} ({sign}{text})", go_time(expires)))
}

fn last_message(status: &StatusFile, limit: Duration, now: Timestamp) -> Result<(), String> {
    let limit_seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    if limit.is_zero() || (status.last_message == 0 && status.uptime < limit_seconds) {
        return Ok(());
    }
    if now.as_second().saturating_sub(status.last_message) <= limit_seconds {
        return Ok(());
    }
    let time = Timestamp::from_second(status.last_message).map_or_else(|_| status.last_message.to_string(), go_time);
    Err(format!("no recent messages: last message at {time}"))
}

fn go_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, ToolCommand};
    use serde_json::{Map, Value};

    fn arguments(file: &str, extra: &[&str]) -> StatusArgs {
        let line = ["choria", "tool", "status", "--status-file", file]
            .into_iter()
            .chain(extra.iter().copied())
            .map(str::to_owned);
        match crate::cli::parse("choria", line.collect()).unwrap().command {
            Some(Command::Tool(tool)) => match tool.command {
                ToolCommand::Status(status) => status,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn relative(value: &Value, now: Timestamp) -> Value {
        let Some(rest) = value.as_str().and_then(|text| text.strip_prefix("now")) else { return value.clone() };
        if let Some(hours) = rest.strip_suffix('h') {
            let hours: i64 = hours.parse().unwrap();
            return Timestamp::from_second(now.as_second() + hours * 3600).unwrap().to_string().into();
        }
        (now.as_second() + rest.parse::<i64>().unwrap()).into()
    }

    fn status_text(row: &Value, now: Timestamp) -> String {
        if let Some(raw) = row.get("raw") {
            return raw.as_str().unwrap().to_owned();
        }
        let mut status: Map<String, Value> = serde_json::from_value(json!({
            "identity": "n1", "uptime": 7200, "connected_server": "nats://b:4222", "provisioning_mode": false,
            "certificate_expires": "2036-01-01T00:00:00Z", "token_expires": "0001-01-01T00:00:00Z",
            "last_message": now.as_second() - 10, "stats": {"total": 1},
        }))
        .unwrap();
        for (key, value) in row["override"].as_object().unwrap() {
            status.insert(key.clone(), relative(value, now));
        }
        for key in row.get("remove").and_then(Value::as_array).into_iter().flatten() {
            status.remove(key.as_str().unwrap());
        }
        Value::Object(status).to_string()
    }

    /// Every row of `golden/cli/status.jsonl`.
    #[test]
    fn golden_status() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/cli/status.jsonl");
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let mut rows = 0;
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let extra: Vec<&str> = row["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
            let args = arguments("FILE", &extra);
            let age = Duration::from_secs(row["file_age_s"].as_u64().unwrap());
            let verdict = match serde_json::from_str::<StatusFile>(&status_text(&row, now)) {
                Ok(status) => check(&args, &status, age, now),
                Err(error) if error.is_eof() => Err("FILE could not be read: unexpected end of JSON input".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            assert_eq!(verdict.is_ok(), row["exit"] == 0, "{line}: {verdict:?}");
            let wanted = row["stdout"].as_str().unwrap();
            let got = format!("FILE {}", verdict.err().unwrap_or_else(|| "OK".to_owned()));
            match wanted.split_once("TIME") {
                Some((before, after)) => {
                    assert!(got.starts_with(before), "{line}: {got}");
                    assert_eq!(got.contains("(-"), after.contains("-LEFT"), "{line}: {got}");
                    assert_eq!(got.contains('('), after.contains("LEFT"), "{line}: {got}");
                }
                None => assert_eq!(got, wanted, "{line}"),
            }
            rows += 1;
        }
        assert_eq!(rows, 33);
    }

    /// Spec 05 §10.1: the spellings of the seeds, which the reference refuses.
    #[test]
    fn old_spellings_are_accepted() {
        let line = ["choria", "t", "check", "--status", "F", "--no-check-connection"].map(str::to_owned).to_vec();
        assert!(crate::cli::parse("choria", line).is_ok());
    }
}
