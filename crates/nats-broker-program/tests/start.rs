//! Starting and ending the real program as wrappers of nats-server do (spec 07 §23).

#![allow(clippy::unwrap_used)]

#[allow(dead_code, unreachable_pub)]
mod common;

use std::net::SocketAddr;
use std::path::Path;

use common::{Raw, Running, command, golden, output, page, rows};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Rows that end at once and are answered otherwise on purpose, with our status.
const OTHER_STATUS: [(&str, i32); 6] = [
    ("help", 2),
    ("unknown-flag", 2),
    ("missing-value", 2),
    ("bad-port", 2),
    ("bad-bool", 2),
    // A check looks at what a start would.
    ("port-range", 1),
];

#[test]
fn flags_are_understood_as_recorded() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ok.conf"), "max_payload: 2048\n").unwrap();
    let mut run = 0;
    for row in rows("flags.jsonl") {
        let case = row["case"].as_str().unwrap();
        if row.get("effective").is_some() {
            check_running(dir.path(), &row);
        } else {
            check_ending(dir.path(), case, &row);
        }
        run += 1;
    }
    assert_eq!(run, 32);
}

fn arguments(row: &Value) -> Vec<&str> {
    // The recording chose its ports; these are chosen by the system.
    row["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect()
}

fn check_ending(dir: &Path, case: &str, row: &Value) {
    let said = output(dir, &arguments(row));
    let differs = OTHER_STATUS.iter().find(|(name, _)| *name == case);
    let status = differs.map_or_else(|| row["exit"].as_i64().unwrap() as i32, |(_, status)| *status);
    assert_eq!(said.code, Some(status), "{case}: {said:?}");
    match row["stdout"].as_str().unwrap() {
        "<usage text>" => assert!(said.stdout.contains("Usage: nats-server"), "{case}: {said:?}"),
        "" => assert_eq!(said.stdout, "", "{case}"),
        // The version is another one.
        text => assert_eq!(said.stdout.rsplit_once(' ').unwrap().0, text.rsplit_once(' ').unwrap().0, "{case}"),
    }
    let wanted = row["stderr"].as_str().unwrap();
    match case {
        "port-range" => assert!(said.stderr.contains("70000"), "{said:?}"),
        "signal-bad" => assert!(said.stderr.starts_with(wanted), "{said:?}"),
        // The digest is of the text, not of the values.
        "t-ok" => assert_eq!(said.stderr.split(" (sha256:").next(), wanted.split(" (sha256:").next(), "{said:?}"),
        _ => assert_eq!(said.stderr.trim_end(), wanted.trim_end(), "{case}"),
    }
}

fn check_running(dir: &Path, row: &Value) {
    let case = row["case"].as_str().unwrap();
    let arguments: Vec<String> =
        arguments(row).iter().map(|argument| argument.replace("PORT", "-1").replace("MON", "-1")).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let effective = &row["effective"];
    if effective.is_null() {
        // An address with its port in it.
        let arguments: Vec<String> = arguments.iter().map(|argument| argument.replace(":-1", ":4222")).collect();
        let said = output(dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(said.code, Some(1), "{case}: {said:?}");
        return;
    }
    let log_file = dir.join("f.log");
    let mut running = Running::spawn(dir, &arguments);
    if arguments.contains(&"-l") {
        let deadline = std::time::Instant::now() + common::DEADLINE;
        while !std::fs::read_to_string(&log_file).unwrap_or_default().contains("Server is ready") {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        running.log = std::fs::read_to_string(&log_file).unwrap().lines().map(str::to_owned).collect();
        assert_eq!(std::fs::read_to_string(dir.join("f.pid")).unwrap(), running.pid().to_string());
    } else {
        running.wait_for("Server is ready");
    }
    let clients = running.clients();
    let monitor = running.address("Starting http monitor on ");
    let (_raw, info) = Raw::connect(clients);
    let varz = page(monitor, "/varz");
    assert_eq!(varz["port"], clients.port(), "{case}");
    for key in ["max_payload", "host", "auth_required"] {
        let wanted = &effective[key];
        assert_eq!(info.get(key).unwrap_or(&Value::Null), wanted, "{case} {key}");
    }
    let name = effective["server_name"].as_str().unwrap();
    if name.len() < 50 {
        assert_eq!(info["server_name"], name, "{case}");
    }
    running.signal(Signal::SIGTERM);
    assert!(running.end().0.success(), "{case}");
}

#[test]
fn the_log_has_the_lines_that_wrappers_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), &["-m", "-1"]);
    let pid = running.pid();
    let wanted = std::fs::read_to_string(golden("startup-log.txt")).unwrap();
    running.clients();
    running.signal(Signal::SIGTERM);
    let (status, log) = running.end();
    assert_eq!(status.code(), Some(0));
    let mut rest = log.iter();
    let mut run = 0;
    for line in wanted.lines() {
        let text = line.strip_prefix("[<pid>] <date> <time> ").unwrap();
        // Our name, our version, addresses of this run.
        let text = match text {
            "[INF]   Git:      [b2fd3ef]" => "[INF]   Program:  ",
            text => text.split(['<', '1', '2']).next().unwrap(),
        };
        let text = text.replace("nats-server", "nats-broker");
        let found = rest.find(|line| line.contains(&text)).unwrap_or_else(|| panic!("no {text:?} in {log:#?}"));
        assert!(found.starts_with(&format!("[{pid}] 20")), "{found}");
        run += 1;
    }
    assert_eq!(run, 11);
}

#[test]
fn files_tell_the_process_and_its_ports() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let mut running = Running::start(dir.path(), &["-m", "-1", "-P", "x.pid", "--ports_file_dir", path]);
    let ports = dir.path().join(format!("nats-server_{}.ports", running.pid()));
    let listed: Value = serde_json::from_slice(&std::fs::read(&ports).unwrap()).unwrap();
    assert_eq!(listed["nats"][0], format!("nats://{}", running.clients()));
    assert_eq!(listed["monitoring"][0], format!("http://{}", running.address("Starting http monitor on ")));
    assert_eq!(listed.as_object().unwrap().len(), 2);
    assert_eq!(std::fs::read_to_string(dir.path().join("x.pid")).unwrap(), running.pid().to_string());
    running.signal(Signal::SIGINT);
    assert_eq!(running.end().0.code(), Some(0));
    assert!(!ports.exists());
    assert!(dir.path().join("x.pid").exists());
}

#[test]
fn clients_see_the_end_without_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut running = Running::start(dir.path(), &[]);
        let (mut raw, _) = Raw::connect(running.clients());
        raw.send(b"CONNECT {\"verbose\":false}\r\nPING\r\n");
        assert_eq!(raw.line(), "PONG");
        running.signal(signal);
        assert_eq!(raw.end(), "");
        assert_eq!(running.end().0.code(), Some(0));
    }
}

#[test]
fn signals_are_sent_by_the_program_itself() {
    let dir = tempfile::tempdir().unwrap();
    for (signal, code) in [("quit", Some(0)), ("term", Some(0)), ("stop", None)] {
        let running = Running::start(dir.path(), &["-P", "x.pid"]);
        let said = output(dir.path(), &["--signal", &format!("{signal}=x.pid")]);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(running.end().0.code(), code, "{signal}");
    }
}

#[test]
fn a_log_file_that_was_moved_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::spawn(dir.path(), &["-a", "127.0.0.1", "-p", "-1", "-l", "x.log"]);
    let holds = |name: &str, text: &str| {
        let deadline = std::time::Instant::now() + common::DEADLINE;
        while !std::fs::read_to_string(dir.path().join(name)).unwrap_or_default().contains(text) {
            assert!(std::time::Instant::now() < deadline, "no {text:?} in {name}");
            std::thread::yield_now();
        }
    };
    holds("x.log", "Server is ready");
    std::fs::rename(dir.path().join("x.log"), dir.path().join("old.log")).unwrap();
    let said = output(dir.path(), &["-sl", &format!("reopen={}", running.pid())]);
    assert_eq!(said.code, Some(0), "{said:?}");
    holds("x.log", "File log re-opened");
    running.signal(Signal::SIGTERM);
    assert!(running.end().0.success());
    holds("x.log", "Server Exiting..");
}

#[test]
fn what_is_not_here_is_a_start_error_or_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let said = output(dir.path(), &["-a", "127.0.0.1", "-p", "-1", "-js", "--routes", "nats://127.0.0.1:1"]);
    assert_eq!(said.code, Some(1));
    for text in ["-routes is not supported", "JetStream is not supported", "--skip_unsupported"] {
        assert!(said.stderr.contains(text), "{said:?}");
    }
    let mut running = Running::start(dir.path(), &["-js", "-sd=x", "--skip_unsupported"]);
    running.wait_for("[WRN] command line: JetStream is not supported: started without it");
    let mut quiet = command("nats-server");
    quiet.env("NATS_BROKER_SKIP_UNSUPPORTED", "1").current_dir(dir.path());
    let mut running = Running::of(quiet.args(["-a", "127.0.0.1", "-p", "-1", "-js"]));
    running.wait_for("[WRN] command line: JetStream is not supported: started without it");
    let _: SocketAddr = running.clients();
}

#[test]
fn a_port_that_is_taken_ends_the_start_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Running::start(dir.path(), &["-m", "-1"]);
    let (clients, monitor) = (first.clients().port(), first.address("Starting http monitor on ").port());
    let said = output(dir.path(), &["-a", "127.0.0.1", "-p", &clients.to_string()]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("[FTL] ") && said.stderr.contains("cannot listen on 127.0.0.1:"), "{said:?}");
    let said = output(dir.path(), &["-a", "127.0.0.1", "-p", "-1", "-m", &monitor.to_string()]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("[FTL] Can't start monitoring"), "{said:?}");
}

#[test]
fn the_system_account_can_ask_for_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let config = "accounts { SYS { users: [{user: s, password: x}] }, A { users: [{user: a, password: x}] } }\nsystem_account: SYS\n";
    let mut running = Running::configured(dir.path(), config);
    let (mut raw, info) = Raw::connect(running.clients());
    let id = info["server_id"].as_str().unwrap();
    std::fs::write(dir.path().join("test.conf"), format!("{config}max_payload: 2048\n")).unwrap();
    let request = format!("SUB r 1\r\nPUB $SYS.REQ.SERVER.{id}.RELOAD r 0\r\n\r\n");
    raw.send(format!("CONNECT {{\"verbose\":false,\"user\":\"s\",\"pass\":\"x\"}}\r\n{request}").as_bytes());
    assert!(raw.line().starts_with("MSG r 1 "));
    let reply: Value = serde_json::from_str(&raw.line()).unwrap();
    assert!(reply.get("error").is_none() && reply["server"]["id"] == id, "{reply}");
    running.wait_for("Reloaded server configuration");
    assert_eq!(Raw::connect(running.clients()).1["max_payload"], 2048);
}

#[test]
fn websocket_is_a_listener_of_its_own_with_its_own_users() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let config = format!(
        "ports_file_dir: \"{path}\"\nwebsocket {{ listen: \"127.0.0.1:-1\", no_tls: true, authorization {{ user: w, password: p }} }}\n"
    );
    let mut running = Running::configured(dir.path(), &config);
    let websocket = running.address("Listening for websocket clients on ws://");
    let ports = std::fs::read(dir.path().join(format!("nats-server_{}.ports", running.pid()))).unwrap();
    let ports: Value = serde_json::from_slice(&ports).unwrap();
    assert_eq!(ports["websocket"][0], format!("ws://{websocket}"));
    running.wait_for("[WRN] Websocket not configured with TLS");
    for (login, answer) in [(",\"user\":\"w\",\"pass\":\"p\"", "PONG"), ("", "-ERR 'Authorization Violation'")] {
        let mut stream = std::net::TcpStream::connect(websocket).unwrap();
        stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
        let request = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        let text = format!("CONNECT {{\"verbose\":false{login}}}\r\nPING\r\n");
        // A frame whose mask changes nothing.
        let mut frame = vec![0x82, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        std::io::Write::write_all(&mut stream, &frame).unwrap();
        let mut received = Vec::new();
        while !String::from_utf8_lossy(&received).contains(answer) {
            let mut buffer = [0; 4096];
            let count = std::io::Read::read(&mut stream, &mut buffer).unwrap();
            assert!(count > 0, "{:?}", String::from_utf8_lossy(&received));
            received.extend_from_slice(&buffer[..count]);
        }
    }
    // Clients over TCP need nothing, not even CONNECT.
    let (mut raw, info) = Raw::connect(running.clients());
    assert_eq!(info.get("auth_required"), None);
    raw.send(b"PING\r\n");
    assert_eq!(raw.line(), "PONG");
}

#[test]
fn files_without_users_of_ordinary_accounts_let_everybody_in() {
    let dir = tempfile::tempdir().unwrap();
    let admin = "users: [{user: s, password: x}]";
    for (config, nobody, somebody) in [
        ("authorization { users: [] }".to_owned(), true, true),
        ("accounts { A { } }".to_owned(), true, true),
        (format!("accounts {{ $SYS {{ {admin} }} }}"), true, false),
        (format!("accounts {{ SYS {{ {admin} }} }}\nsystem_account: SYS"), true, false),
        (format!("accounts {{ SYS {{ {admin} }}, A {{ }} }}\nsystem_account: SYS"), false, false),
        (
            format!("accounts {{ SYS {{ {admin} }} }}\nsystem_account: SYS\nauthorization {{ timeout: 3 }}"),
            false,
            false,
        ),
    ] {
        let mut running = Running::configured(dir.path(), &config);
        for (login, is_let_in) in [("", nobody), (",\"user\":\"u\",\"pass\":\"p\"", somebody)] {
            let (mut raw, _) = Raw::connect(running.clients());
            raw.send(format!("CONNECT {{\"verbose\":false{login}}}\r\nPING\r\n").as_bytes());
            let answer = raw.line();
            assert_eq!(answer == "PONG", is_let_in, "{config} {login} {answer}");
        }
    }
}

#[test]
fn many_logins_with_hashes_wait_for_each_other_and_for_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let config = "authorization { timeout: 20, users: [\
        { user: h, password: \"$2a$04$PEoUKB.ab0U.ms4jKWuh2..sUqipBUjKOfM9pyOZ5gzMOD2U99yvm\" }, { user: p, password: x } ] }";
    let mut running = Running::configured(dir.path(), config);
    let addr = running.clients();
    let login = |user: &str, password: &str| {
        let (mut raw, _) = Raw::connect(addr);
        let connect = format!("CONNECT {{\"verbose\":false,\"user\":\"{user}\",\"pass\":\"{password}\"}}\r\nPING\r\n");
        raw.send(connect.as_bytes());
        raw
    };
    let mut hashed: Vec<Raw> = (0..200).map(|n| login("h", if n % 2 == 0 { "bcpass" } else { "wrong" })).collect();
    assert_eq!(login("p", "x").line(), "PONG");
    for (n, raw) in hashed.iter_mut().enumerate() {
        assert_eq!(raw.line(), if n % 2 == 0 { "PONG" } else { "-ERR 'Authorization Violation'" });
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("test.conf"), "authorization { user: u, password: p }").unwrap();
    let mut command = command("nats-broker");
    let arguments = ["-a", "127.0.0.1", "-p", "-1", "-c", "test.conf", "--ports_file_dir", "."];
    let mut child =
        command.current_dir(dir.path()).args(arguments).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let ports = dir.path().join(format!("nats-server_{}.ports", child.id()));
    let deadline = std::time::Instant::now() + common::DEADLINE;
    while !ports.exists() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    let ports: Value = serde_json::from_slice(&std::fs::read(ports).unwrap()).unwrap();
    let addr: SocketAddr = ports["nats"][0].as_str().unwrap().strip_prefix("nats://").unwrap().parse().unwrap();
    // Each is a line of the log; together they are more than a pipe holds.
    for _ in 0..1500 {
        let (mut raw, _) = Raw::connect(addr);
        raw.send(b"CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"wrong\"}\r\n");
        assert_eq!(raw.line(), "-ERR 'Authorization Violation'");
    }
    let (mut raw, _) = Raw::connect(addr);
    raw.send(b"CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"p\"}\r\nPING\r\n");
    assert_eq!(raw.line(), "PONG");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(raw.end(), "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn exports_with_the_importers_name_in_them_are_imported_under_it_only() {
    let dir = tempfile::tempdir().unwrap();
    for (subject, code) in [("ask.B", 0), ("ask.C", 1), ("ask.*", 1)] {
        let config = format!(
            "accounts {{ A {{ exports: [{{service: \"ask.*\", account_token_position: 2}}] }}, B {{ imports: [{{service: {{account: A, subject: \"{subject}\"}}}}] }} }}"
        );
        std::fs::write(dir.path().join("c.conf"), config).unwrap();
        let said = output(dir.path(), &["-t", "-c", "c.conf"]);
        assert_eq!(said.code, Some(code), "{subject}: {said:?}");
    }
}
