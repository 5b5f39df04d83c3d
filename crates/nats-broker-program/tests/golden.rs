//! Recordings of nats-server that need configuration files, users and signals, through the real program.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, unreachable_pub)]
mod common;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use common::wire::{receive, run};
use common::{Raw, Running, golden, output, page, rows};
use nix::sys::signal::Signal;
use nkeys::KeyPair;
use serde_json::{Value, json};

fn config(name: &str) -> String {
    std::fs::read_to_string(golden(&format!("configs/{name}.conf"))).unwrap()
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap()
}

#[test]
fn wire_auth_through_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let mut programs: BTreeMap<String, Running> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut ran = 0;
    for case in rows("wire-auth.jsonl") {
        let name = text(&case, "config");
        let program = programs.entry(name.to_owned()).or_insert_with(|| Running::configured(dir.path(), &config(name)));
        let addr = program.clients();
        let result = if case.get("how").is_some() { nkey_case(addr, &case) } else { run(addr, &case) };
        if let Err(error) = result {
            failures.push(format!("{}: {error}", text(&case, "case")));
        }
        ran += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(ran, 52);
}

/// A login with a key: the recording says in words what is signed, and how it is written.
fn nkey_case(addr: std::net::SocketAddr, case: &Value) -> Result<(), String> {
    let keys: Value = serde_json::from_slice(&std::fs::read(golden("nkey.json")).unwrap()).unwrap();
    let key = KeyPair::from_seed(text(&keys, "seed")).unwrap();
    let other = KeyPair::new_from_raw(nkeys::KeyPairType::User, [7; 32]).unwrap();
    let (mut raw, info) = Raw::connect(addr);
    let nonce = text(&info, "nonce");
    assert_eq!(nonce.len(), 15);
    let sign = |key: &KeyPair, text: &[u8]| key.sign(text).unwrap();
    let usual = || sign(&key, nonce.as_bytes());
    let mut public = text(&keys, "public").to_owned();
    let signature = match text(case, "case") {
        "nkey/ok" => URL_SAFE_NO_PAD.encode(usual()),
        "nkey/sig-std-base64" => STANDARD.encode(usual()),
        "nkey/sig-url-base64-padded" => URL_SAFE.encode(usual()),
        "nkey/sig-of-decoded-nonce" => URL_SAFE_NO_PAD.encode(sign(&key, &URL_SAFE_NO_PAD.decode(nonce).unwrap())),
        "nkey/no-sig" => String::new(),
        "nkey/bad-sig" => URL_SAFE_NO_PAD.encode(sign(&other, nonce.as_bytes())),
        "nkey/unknown-key" => {
            public = other.public_key();
            URL_SAFE_NO_PAD.encode(sign(&other, nonce.as_bytes()))
        }
        "nkey/replayed-nonce" => {
            let (_other, info) = Raw::connect(addr);
            URL_SAFE_NO_PAD.encode(sign(&key, text(&info, "nonce").as_bytes()))
        }
        "nkey/lower-case-key" => {
            public = public.to_lowercase();
            URL_SAFE_NO_PAD.encode(usual())
        }
        unknown => panic!("{unknown}"),
    };
    let mut connect = json!({"verbose": true, "pedantic": false, "protocol": 1, "nkey": public});
    if !signature.is_empty() {
        connect["sig"] = signature.into();
    }
    raw.send(format!("CONNECT {connect}\r\nPING\r\n").as_bytes());
    receive(&mut raw, text(case, "recv"))?;
    if case["eof"] == true && !raw.end().is_empty() {
        return Err("more before the end".to_owned());
    }
    Ok(())
}

/// Checks that are content with what a start would refuse, or with what cannot be meant.
const STRICTER: [&str; 10] = [
    "import-self",
    "no-auth-user-unknown",
    "no-auth-user-without-users",
    "system-account-undefined",
    "user-without-password",
    "weight-0",
    "no-destination",
    "partition-zero",
    "random-zero",
    "unclosed",
];

#[test]
fn checks_of_accounts_and_mappings_through_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ran, mut stricter, mut failures) = (0, 0, Vec::new());
    for file in ["config-accounts-check.jsonl", "config-mappings-check.jsonl"] {
        for row in rows(file) {
            let case = text(&row, "case");
            std::fs::write(dir.path().join("c.conf"), text(&row, "config")).unwrap();
            let said = output(dir.path(), &["-t", "-c", "c.conf"]);
            let wanted = row["exit"].as_i64().unwrap() as i32;
            let is_stricter = said.code == Some(1) && wanted == 0;
            if is_stricter && STRICTER.contains(&case) {
                stricter += 1;
            } else if said.code != Some(wanted) {
                failures.push(format!("{case}: {said:?}"));
            }
            if said.code == Some(1) && !said.stderr.starts_with("nats-server: c.conf:") {
                failures.push(format!("{case} names no place: {said:?}"));
            }
            ran += 1;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!((ran, stricter), (73, 10));
}

#[test]
fn every_recorded_configuration_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut ran = 0;
    for entry in std::fs::read_dir(golden("configs")).unwrap() {
        let path = entry.unwrap().path();
        ran += 1;
        if path.ends_with("accounts.conf") {
            // One import of it can only be a mistake (`wire-accounts`, `service-wildcard-map`).
            let said = output(dir.path(), &["-t", "-c", path.to_str().unwrap()]);
            assert!(said.code == Some(1) && said.stderr.contains("accounts.conf:9:"), "{said:?}");
            continue;
        }
        let mut program = Running::start(dir.path(), &["-c", path.to_str().unwrap(), "-m", "-1"]);
        let varz = page(program.address("Starting http monitor on "), "/varz");
        assert_eq!(varz["connections"], 0, "{path:?}");
        program.signal(Signal::SIGTERM);
        assert!(program.end().0.success(), "{path:?}");
    }
    assert_eq!(ran, 21);
}

/// What a client had subscribed before a reload; the recording only shows the sids.
fn subscriptions(case: &str, client: &str) -> &'static str {
    match (case, client) {
        ("permissions-added", "a") => "SUB ok.1 1\r\nSUB no.1 2\r\nSUB > 3\r\n",
        ("permissions-added", "b") => "SUB no.1 1\r\n",
        ("max-subscriptions-lowered", _) => "SUB a 1\r\nSUB b 2\r\n",
        ("mappings-added", _) => "SUB bar 1\r\n",
        ("import-added" | "import-removed", "a") => "SUB svc 1\r\n",
        ("import-added" | "import-removed", "b") => "SUB s.> 1\r\nSUB in 2\r\n",
        _ => "",
    }
}

/// What clients see of a reload, and after it.
fn check_clients(case: &Value, clients: &mut BTreeMap<&str, Raw>) -> Result<(), String> {
    let (name, recorded) = (text(case, "case"), case["connections"].as_object().unwrap());
    // Whoever imports speaks first: the exporter's side shows what came.
    let mut order: Vec<&String> = recorded.keys().collect();
    if name.starts_with("import") {
        order.sort();
        order.reverse();
    }
    for user in order {
        let (connection, raw) = (&recorded[user], clients.get_mut(user.as_str()).unwrap());
        let at = |error: String| format!("{user}: {error}");
        let mut received = text(connection, "received_on_reload");
        if received.is_empty() && connection["eof"] == true {
            // The words that ours sends where nats-server closes without any.
            received = "-ERR 'Authorization Violation'\r\n";
        }
        receive(raw, received).map_err(at)?;
        if connection["eof"] == true {
            assert_eq!(raw.end(), "", "{name}, {user}");
        }
        let Some(sent) = connection["then_sends"].as_str() else { continue };
        raw.send(sent.as_bytes());
        if connection["then_eof"] == false {
            raw.send(b"PING\r\n");
        }
        receive(raw, text(connection, "then_receives")).map_err(at)?;
        if connection["then_eof"] == true {
            assert_eq!(raw.end(), "", "{name}, {user}");
        }
    }
    Ok(())
}

fn reload_case(case: &Value) -> Result<(), String> {
    let name = text(case, "case");
    let dir = tempfile::tempdir().unwrap();
    let mut program = Running::configured(dir.path(), text(case, "before"));
    let addr = program.clients();
    let recorded = case["connections"].as_object().unwrap();
    let mut clients: BTreeMap<&str, Raw> = BTreeMap::new();
    for user in recorded.keys() {
        let login = match text(case, "before").contains("user") {
            true => format!(",\"user\":\"{user}\",\"pass\":\"x\""),
            false => String::new(),
        };
        let mut raw = Raw::connect(addr).0;
        let connect = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true{login}}}\r\n"
        );
        raw.send(format!("{connect}{}PING\r\n", subscriptions(name, user)).as_bytes());
        receive(&mut raw, "PONG\r\n")?;
        clients.insert(user, raw);
    }
    std::fs::write(dir.path().join("test.conf"), text(case, "after")).unwrap();
    let seen = program.log.len();
    program.signal(Signal::SIGHUP);
    let log = case["log"].as_array().unwrap().last().unwrap().as_str().unwrap();
    let wanted = match log.split_once("config reload not supported") {
        Some((_, what)) => format!("[ERR] Failed to reload server configuration: config reload not supported{what}"),
        // Syntax errors have words of their own.
        None if log.starts_with("[ERR]") => "[ERR] Failed to reload server configuration: test.conf:1:".to_owned(),
        None => "[INF] Reloaded server configuration (sha256:".to_owned(),
    };
    let found = program.wait_from(seen, &wanted);
    found.ok_or_else(|| format!("no {wanted:?} in {:#?}", program.log))?;
    check_clients(case, &mut clients)?;
    let (_, info) = Raw::connect(addr);
    for (key, wanted) in case["new_connection_info"].as_object().unwrap() {
        if info.get(key) != Some(wanted) {
            return Err(format!("INFO has {key} {:?}", info.get(key)));
        }
    }
    Ok(())
}

#[test]
fn golden_reload_through_the_program() {
    let mut failures = Vec::new();
    let mut ran = 0;
    for case in rows("reload/reload.jsonl") {
        if let Err(error) = reload_case(&case) {
            failures.push(format!("{}: {error}", text(&case, "case")));
        }
        ran += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(ran, 19);
}

#[test]
fn lame_duck_through_the_program() {
    let recorded: Value = serde_json::from_slice(&std::fs::read(golden("reload/lame-duck.json")).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = "lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"0s\"\n";
    let mut program = Running::configured(dir.path(), config);
    let addr = program.clients();
    let mut modern = Raw::connect(addr).0;
    modern.send(b"CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n");
    receive(&mut modern, "PONG\r\n<INFO-CONNECT>\r\n").unwrap();
    let mut old = Raw::connect(addr).0;
    old.send(b"CONNECT {\"verbose\":false}\r\nPING\r\n");
    receive(&mut old, "PONG\r\n").unwrap();
    let said = output(dir.path(), &["--signal", &format!("ldm={}", program.pid())]);
    assert_eq!(said.code, Some(0), "{said:?}");
    receive(&mut modern, text(&recorded, "protocol1_receives")).unwrap();
    program.wait_for("[INF] Entering lame duck mode, stop accepting new clients");
    assert_eq!(std::net::TcpStream::connect(addr).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(old.end(), text(&recorded, "protocol0_receives"));
    assert_eq!(modern.end(), "");
    let (status, log) = program.end();
    assert_eq!(status.code().map(i64::from), recorded["exit"].as_i64());
    let last = recorded["log"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert!(log.last().unwrap().ends_with(last), "{log:#?}");
    let empty = Running::configured(dir.path(), "max_payload: 1MB");
    empty.signal(Signal::SIGUSR2);
    assert_eq!(empty.end().0.code().map(i64::from), recorded["no_clients_exit"].as_i64());
}

/// Texts that start here and not there, or the other way round; the pages of differences have the reasons.
const OTHER_START: [&str; 8] = [
    "size 1kbb",
    "duration 5m",
    "syntax extra-brace",
    "syntax bom",
    "syntax size-bad-suffix-between",
    "syntax stray-brace-between",
    "include include-absolute",
    // Nobody could log in with it.
    "variable var-bcrypt-like",
];

/// Values below zero: none, or the usual one, instead of a number that no timer can keep.
const OTHER_VALUE: [&str; 4] = ["size -1", "duration -1", "duration \"-1s\"", "auth timeout -1"];

#[test]
fn golden_grammar_through_the_program() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    for (name, text) in [
        ("a.inc", "max_payload: 2048\n"),
        ("sub/b.inc", "include \"c.inc\"\n"),
        ("sub/c.inc", "max_payload: 3072\n"),
        ("users.inc", "users: [{user: a, password: b}]\n"),
        ("var.inc", "XX: 4096\n"),
        ("usesvar.inc", "max_payload: $XX\n"),
        ("loop.inc", "include \"loop.inc\"\n"),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let (mut ran, mut differ, mut failures) = (0, 0, Vec::new());
    for row in rows("config-grammar.jsonl") {
        let case = text(&row, "case");
        let config = text(&row, "config").replace("<dir>", dir.path().to_str().unwrap());
        // Two were written in Latin-1.
        let bytes = match case {
            "syntax bom" | "syntax latin1" => config.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect(),
            _ => config.into_bytes(),
        };
        std::fs::write(dir.path().join("test.conf"), bytes).unwrap();
        let mut command = common::command("nats-server");
        command.current_dir(dir.path()).args(["-a", "127.0.0.1", "-p", "-1", "-m", "-1", "-c", "test.conf"]);
        for (name, value) in row["env"].as_object().into_iter().flatten() {
            command.env(name, value.as_str().unwrap());
        }
        let mut program = Running::of(&mut command);
        let has_started = program.wait_from(0, "Server is ready").is_some();
        let effective = row["effective"].as_object();
        if has_started != effective.is_some() {
            differ += 1;
            if !OTHER_START.contains(&case) {
                failures.push(format!("{case}: started {has_started}: {:#?}", program.log));
            }
        }
        if let Some(effective) = effective.filter(|_| has_started) {
            let wrong = wrong_values(&mut program, effective);
            if OTHER_VALUE.contains(&case) {
                differ += 1;
            } else if !wrong.is_empty() {
                failures.push(format!("{case}: {wrong:?}"));
            }
        }
        ran += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!((ran, differ), (180, 12));
}

/// Values of the monitoring page and of INFO that are not as recorded.
fn wrong_values(program: &mut Running, effective: &serde_json::Map<String, Value>) -> Vec<String> {
    let varz = page(program.address("Starting http monitor on "), "/varz");
    let (_, info) = Raw::connect(program.clients());
    let mut wrong = Vec::new();
    for (key, wanted) in effective {
        let ours = match key.strip_prefix("INFO ") {
            Some(key) => info.get(key),
            None => varz.get(key),
        };
        let is_right = match wanted {
            Value::Null => ours.is_none(),
            // Made at the start.
            Value::String(text) if text == "<id>" => ours.is_some(),
            Value::Bool(false) if key == "auth_required" => ours.is_none_or(|ours| *ours == false),
            wanted if wanted.is_f64() || ours.is_some_and(Value::is_f64) => {
                ours.and_then(Value::as_f64) == wanted.as_f64()
            }
            wanted => ours == Some(wanted),
        };
        if !is_right {
            wrong.push(format!("{key}: {ours:?}, not {wanted}"));
        }
    }
    wrong
}
