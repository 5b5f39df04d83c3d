//! Recorded scripts against the real program.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{DEADLINE, Raw};

/// Bytes with placeholders for what differs every time.
fn normal(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    for line in text.split_inclusive("\r\n") {
        if line.starts_with("INFO {") && line.ends_with("\r\n") {
            let is_second = line.contains("\"connect_info\":true");
            let is_farewell = line.contains("\"ldm\":true");
            out.push_str(if is_farewell {
                "<INFO-LDM>"
            } else if is_second {
                "<INFO-CONNECT>"
            } else {
                "<INFO>"
            });
            out.push_str("\r\n");
        } else if let Some((before, after)) = line.split_once("_R_.") {
            // Sizes follow from a round trip time that is in the text.
            out.push_str(before);
            out.push_str("_R_.<6>.<6>");
            out.push_str(if after.starts_with(|c: char| c.is_ascii_alphanumeric()) { " <n> <n>\r\n" } else { after });
        } else if let Some((before, _)) = line.split_once("\"rtt\":") {
            out.push_str(before);
            out.push_str("\"rtt\":<v>}\r\n");
        } else {
            out.push_str(line);
        }
    }
    out
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.split_inclusive("\r\n").collect();
    lines.sort_unstable();
    lines
}

/// Waits for bytes; lines may come in any order, because deliveries may.
pub fn receive(raw: &mut Raw, expected: &str) -> Result<(), String> {
    let expected = normal(expected.as_bytes());
    let deadline = Instant::now() + DEADLINE;
    loop {
        let got = normal(&raw.received);
        if got == expected || sorted(&got) == sorted(&expected) {
            raw.received.clear();
            return Ok(());
        }
        // What is longer will not become shorter.
        let is_hopeless = got.len() > expected.len() && !got.contains("INFO {");
        let left = deadline.saturating_duration_since(Instant::now());
        if is_hopeless || !raw.read(left.min(Duration::from_secs(5))) {
            return Err(format!(
                "wanted {expected:?}\n     got {got:?}{}",
                if raw.is_over { " and the end" } else { "" }
            ));
        }
    }
}

/// Runs the steps of a case.
pub fn run(addr: SocketAddr, case: &Value) -> Result<(), String> {
    let mut open: BTreeMap<String, Raw> = BTreeMap::new();
    let mut ended = Vec::new();
    for (number, step) in case["steps"].as_array().unwrap().iter().enumerate() {
        let at = |error: String| format!("step {number}: {error}");
        if let Some(name) = step.get("open").and_then(Value::as_str) {
            open.insert(name.to_owned(), Raw::connect(addr).0);
            continue;
        }
        // What is waited for comes within the deadline of the next step.
        let Some(name) = step.get("on").and_then(Value::as_str) else { continue };
        let raw = open.get_mut(name).unwrap();
        if let Some(sent) = step.get("send").and_then(Value::as_str) {
            raw.send(sent.as_bytes());
        } else if let Some(expected) = step.get("recv").and_then(Value::as_str) {
            receive(raw, expected).map_err(at)?;
        } else if step.get("eof").is_some() {
            let rest = raw.end();
            if !rest.is_empty() {
                return Err(at(format!("before the end: {rest:?}")));
            }
            ended.push(name.to_owned());
        }
    }
    for (name, raw) in &mut open {
        if !ended.contains(name) {
            raw.send(b"PING\r\n");
            receive(raw, "PONG\r\n").map_err(|error| format!("{name} was not quiet: {error}"))?;
        }
    }
    Ok(())
}
