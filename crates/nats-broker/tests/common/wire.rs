//! Runs the wire scripts of the golden data (`golden/nats-core/README`).

use std::collections::BTreeMap;
use std::time::Duration;

use nats_broker::Broker;
use regex::bytes::Regex;
use serde_json::Value;

use super::configs::setup;
use super::{DEADLINE, Raw, start};

/// Puts `{{rep:a:4094}}` in.
pub fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("{{rep:") {
        let (what, after) = behind.split_once("}}").unwrap();
        let (unit, count) = what.rsplit_once(':').unwrap();
        out.push_str(before);
        out.push_str(&unit.repeat(count.parse().unwrap()));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The bytes of `key` or `key_hex` in a step.
fn bytes(step: &Value, key: &str) -> Option<Vec<u8>> {
    if let Some(text) = step.get(key).and_then(Value::as_str) {
        return Some(expand(text).into_bytes());
    }
    let hex = step.get(format!("{key}_hex"))?.as_str().unwrap();
    Some((0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect())
}

/// A pattern for expected bytes with placeholders in them.
fn pattern(expected: &[u8]) -> Regex {
    let mut out = String::from("(?s-u)^");
    let mut at = 0;
    'bytes: while at < expected.len() {
        for (placeholder, with) in [
            ("<INFO-CONNECT>", r#"INFO \{[^\r\n]*"connect_info":true[^\r\n]*\} ?"#),
            ("<INFO>", r"INFO \{[^\r\n]*\} ?"),
            ("<6>", "[A-Za-z0-9]{6}"),
            ("<8>", "[A-Za-z0-9]{8}"),
            ("<n>", "[0-9]+"),
            ("<v>", r#"(?:"[^"]*"|[0-9]+)"#),
        ] {
            if expected[at..].starts_with(placeholder.as_bytes()) {
                out.push_str(with);
                at += placeholder.len();
                continue 'bytes;
            }
        }
        out.push_str(&format!("\\x{:02x}", expected[at]));
        at += 1;
    }
    Regex::new(&out).unwrap()
}

/// Cuts a byte stream into lines and messages, for comparing without order.
fn units(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Ok(Some((_, length))) = nats_proto::server_op::parse(stream, 1 << 20) {
        all.push(stream[..length].to_vec());
        stream = &stream[length..];
    }
    all.push(stream.to_vec());
    all.sort();
    all
}

/// Waits for the expected bytes on a connection; several messages may come in any order.
pub async fn receive(raw: &mut Raw, expected: &[u8]) -> Result<(), String> {
    let pattern = pattern(expected);
    loop {
        if let Some(found) = pattern.find(raw.received()) {
            let length = found.end();
            raw.take(length);
            return Ok(());
        }
        if raw.received().len() >= expected.len() && units(&raw.received()[..expected.len()]) == units(expected) {
            raw.take(expected.len());
            return Ok(());
        }
        // A different answer need not be waited for in full.
        let patience = if raw.received().len() > expected.len() + 2000 { Duration::ZERO } else { DEADLINE / 4 };
        if !raw.read_more(patience).await {
            return Err(format!(
                "wanted {:?}\n     got {:?}{}",
                String::from_utf8_lossy(expected),
                String::from_utf8_lossy(raw.received()),
                if raw.is_over() { " and the end" } else { "" }
            ));
        }
    }
}

/// Waits for the expected bytes on any of several connections: members of a queue group.
async fn receive_on_one(open: &mut BTreeMap<String, Raw>, names: &[&str], expected: &[u8]) -> Result<(), String> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while tokio::time::Instant::now() < deadline {
        for name in names {
            // Some are opened later.
            let Some(raw) = open.get_mut(*name) else { continue };
            if raw.received().starts_with(expected) {
                raw.take(expected.len());
                return Ok(());
            }
            raw.read_more(Duration::from_millis(20)).await;
        }
    }
    Err(format!("none of {names:?} got {:?}", String::from_utf8_lossy(expected)))
}

/// Waits for the end of a connection with nothing before it.
async fn receive_end(raw: &mut Raw) -> Result<(), String> {
    while raw.read_more(DEADLINE / 4).await {}
    if !raw.is_over() {
        return Err("the connection stayed open".to_owned());
    }
    if raw.received().is_empty() {
        Ok(())
    } else {
        Err(format!("unexpected before the end: {:?}", String::from_utf8_lossy(raw.received())))
    }
}

/// Nothing but the PONG may come.
async fn is_quiet(name: &str, raw: &mut Raw) -> Result<(), String> {
    if raw.is_over() {
        return Ok(());
    }
    raw.send("PING\r\n").await;
    receive(raw, b"PONG\r\n").await.map_err(|error| format!("{name} was not quiet in the end: {error}"))
}

/// Runs one case against a broker of its own.
pub async fn run_case(case: &Value) -> Result<(), String> {
    let config = case["config"].as_str().unwrap();
    let setup = setup(config).ok_or_else(|| format!("no setup for {config}"))?;
    let broker = start(setup.config, setup.accounts, setup.authenticator);
    let result = run_steps(&broker, case).await;
    broker.shutdown().await;
    result
}

async fn run_steps(broker: &Broker, case: &Value) -> Result<(), String> {
    let addr = broker.local_addr(0).unwrap();
    let mut open: BTreeMap<String, Raw> = BTreeMap::new();
    let mut ended = Vec::new();
    let any_one_of: Vec<&str> =
        case["any_one_of"].as_array().map(|names| names.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
    for (number, step) in case["steps"].as_array().unwrap().iter().enumerate() {
        let at = |error: String| format!("step {number}: {error}");
        if let Some(name) = step.get("open").and_then(Value::as_str) {
            open.insert(name.to_owned(), Raw::connect(addr).await);
            continue;
        }
        if let Some(name) = step.get("close").and_then(Value::as_str) {
            open.remove(name);
            continue;
        }
        if let Some(millis) = step.get("wait_ms").and_then(Value::as_u64) {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            continue;
        }
        let name = step["on"].as_str().unwrap();
        let raw = open.get_mut(name).unwrap();
        if let Some(sent) = bytes(step, "send") {
            raw.send(&sent).await;
        }
        if let Some(expected) = bytes(step, "recv") {
            let outcome = if any_one_of.contains(&name) {
                receive_on_one(&mut open, &any_one_of, &expected).await
            } else {
                receive(raw, &expected).await
            };
            outcome.map_err(at)?;
        } else if step.get("eof").is_some() {
            receive_end(raw).await.map_err(at)?;
            ended.push(name.to_owned());
        }
    }
    for (name, raw) in &mut open {
        if !ended.contains(name) {
            // A half line would swallow the PING.
            if case["case"].as_str().is_some_and(|case| case.starts_with("ctl-unterminated")) {
                continue;
            }
            is_quiet(name, raw).await?;
        }
    }
    Ok(())
}
