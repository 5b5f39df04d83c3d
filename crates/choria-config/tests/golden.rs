//! Every row of `testdata/server/config-grammar.jsonl` (210 files as the original's configuration package read them)
//! and of `testdata/broker/config-values.jsonl` is a case. Rows where this program is stricter on purpose are listed
//! below with what it says; `docs/differences/choria-config.md` gives the reasons.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its data must stop")]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use base64::Engine;
use choria_config::{Config, ConfigError, Environment, Kind, Mode, Value, keys};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Row {
    name: String,
    files: BTreeMap<String, String>,
    #[serde(default)]
    files_base64: BTreeMap<String, String>,
    #[serde(default)]
    env: HashMap<String, String>,
    mode: String,
    result: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    raw: BTreeMap<String, String>,
    changed: BTreeMap<String, serde_json::Value>,
    parsed_files: Option<Vec<String>>,
    error: Option<String>,
}

/// What this program makes of a row on purpose, where that differs from the original.
enum Ours {
    /// The load fails and every one of these texts occurs in the message.
    Refused(&'static [&'static str]),
    /// The load works with these typed values (JSON) in place of the original's.
    Typed(&'static [(&'static str, &'static str)]),
    /// The load works and reads these files, which gives these further raw options and typed values.
    Reads(&'static [&'static str], &'static [(&'static str, &'static str)]),
}

/// Rows that differ on purpose, by name. A name that ends in `*` stands for all rows that begin so.
const DIFFERENCES: &[(&str, Ours)] = &[
    (
        "bad bool *",
        Ours::Refused(&[
            "plugin.choria.server.provision",
            "rpcauthorization",
            "registration_splay",
            "expected yes or no",
        ]),
    ),
    (
        "inline hash comment",
        Ours::Refused(&[
            "server.conf:1: ttl = 30 # seconds",
            "server.conf:2: identity",
            "a comment needs a line of its own",
        ]),
    ),
    (
        "duplicate scalar, last is bad",
        Ours::Refused(&["server.conf:2: ttl = abc is not valid, expected a whole number of seconds from 1 to 86400"]),
    ),
    ("lone cr is not a line end", Ours::Refused(&["server.conf:1: ttl = 31\\rloglevel = warn"])),
    ("int 0", Ours::Refused(&["server.conf:1: ttl = 0", "server.conf:2: registerinterval = 0"])),
    ("int -1", Ours::Refused(&["ttl = -1", "registerinterval = -1", "plugin.choria.status_update_interval = -1"])),
    (
        "int 0x10",
        Ours::Refused(&["ttl = 0x10", "registerinterval = 0x10", "plugin.choria.status_update_interval = 0x10"]),
    ),
    ("int 1e3", Ours::Refused(&["ttl = 1e3", "registerinterval = 1e3", "plugin.choria.status_update_interval = 1e3"])),
    ("int 5.5", Ours::Refused(&["ttl = 5.5", "registerinterval = 5.5", "plugin.choria.status_update_interval = 5.5"])),
    ("int 60s", Ours::Refused(&["ttl = 60s", "this key takes no unit; write 60"])),
    ("int abc", Ours::Refused(&["ttl = abc", "registerinterval = abc", "plugin.choria.status_update_interval = abc"])),
    (
        "int 9223372036854775808",
        Ours::Refused(&["ttl = 9223372036854775808", "expected a whole number of seconds from 1 to 86400"]),
    ),
    ("int 12 13", Ours::Refused(&["ttl = 12 13"])),
    ("int \u{ff11}\u{ff12}", Ours::Refused(&["ttl = \u{ff11}\u{ff12}"])),
    ("duration -5", Ours::Refused(&["\"-5\" is negative"])),
    ("duration +5", Ours::Refused(&["= +5 is not valid"])),
    ("duration 5S", Ours::Refused(&["= 5S is not valid, expected a duration"])),
    ("duration 5H", Ours::Refused(&["= 5H is not valid, expected a duration"])),
    ("duration 1d12h", Ours::Refused(&["= 1d12h is not valid"])),
    ("duration 1d 12h", Ours::Refused(&["= 1d 12h is not valid"])),
    ("duration 2d3d", Ours::Refused(&["= 2d3d is not valid"])),
    ("duration 1e3s", Ours::Refused(&["= 1e3s is not valid"])),
    ("duration 5 s", Ours::Refused(&["= 5 s is not valid"])),
    ("duration 5 m", Ours::Refused(&["= 5 m is not valid"])),
    ("duration 5 d", Ours::Refused(&["= 5 d is not valid"])),
    ("duration s", Ours::Refused(&["= s is not valid"])),
    ("duration d", Ours::Refused(&["= d is not valid"])),
    ("duration m", Ours::Refused(&["= m is not valid"])),
    ("duration 5x", Ours::Refused(&["= 5x is not valid"])),
    ("duration 5min", Ours::Refused(&["= 5min is not valid"])),
    ("duration 5mins", Ours::Refused(&["= 5mins is not valid"])),
    ("duration 5sec", Ours::Refused(&["= 5sec is not valid"])),
    ("duration 5days", Ours::Refused(&["= 5days is not valid"])),
    ("duration five", Ours::Refused(&["= five is not valid"])),
    ("duration -5m", Ours::Refused(&["\"-5m\" is negative"])),
    ("duration .", Ours::Refused(&["= . is not valid"])),
    ("duration 1,5h", Ours::Refused(&["= 1,5h is not valid"])),
    ("duration 99999999999999999999", Ours::Refused(&["is longer than 292 years"])),
    ("duration 106752d", Ours::Refused(&["\"106752d\" is longer than 292 years"])),
    ("duration 300y", Ours::Refused(&["\"300y\" is longer than 292 years"])),
    ("duration 1h 30m", Ours::Refused(&["= 1h 30m is not valid"])),
    ("connect timeout text", Ours::Refused(&["connect_timeout = 1d is not valid, expected a duration from 1ms to 2m"])),
    ("latin1 byte in value", Ours::Refused(&["server.conf:1: the line is not valid UTF-8"])),
    ("long line 65536 bytes", Ours::Refused(&["server.conf:2: the line is longer than 65535 bytes"])),
    ("long line at end without newline", Ours::Refused(&["server.conf:2: the line is longer than 65535 bytes"])),
    (
        "utf8 value",
        Ours::Refused(&[
            "server.conf:1: identity = knoten-\u{e4}\u{f6}\u{fc}.example.net is not valid, expected a node name",
        ]),
    ),
    ("value only quotes", Ours::Refused(&["server.conf:1: identity"])),
    ("env interpolation not done", Ours::Refused(&["identity = $HOSTNAME is not valid"])),
    ("template text not interpreted", Ours::Refused(&["identity = {{ hostname }} is not valid"])),
    (
        "backslash continuation is not supported",
        Ours::Refused(&["server.conf:1: collectives", "expected collective names"]),
    ),
    ("comma list empty items", Ours::Refused(&["\"\" is not such a name"])),
    ("comma list with tabs and inner spaces", Ours::Refused(&["\"a b\" is not such a name"])),
    ("comma list quoted", Ours::Refused(&["collectives = \\\"a,b\\\" is not valid"])),
    ("semicolon does not split", Ours::Refused(&["\"a;b\" is not such a name"])),
    ("collectives space first", Ours::Refused(&["\"\" is not such a name"])),
    (
        "enum bad",
        Ours::Refused(&[
            "4 problems",
            "loglevel = verbose",
            "plugin.security.provider = vault",
            "rpclimitmethod = all",
            "default_discovery_method = magic",
            "expected one of first, random",
        ]),
    ),
    ("enum upper case", Ours::Refused(&["did you mean warn?", "did you mean file?"])),
    (
        "loglevel trace",
        Ours::Refused(&["loglevel = trace is not valid, expected one of debug, info, warn, error, fatal"]),
    ),
    (
        "title string non ascii",
        Ours::Refused(&["rpcauthprovider = \u{e4}ction is not valid, expected one of action_policy"]),
    ),
    ("path string home", Ours::Refused(&["plugin.yaml = ~user/facts.yaml", "not the home of another user"])),
    ("home missing", Ours::Refused(&["logfile = ~/x.log", "needs the environment variable HOME"])),
    ("path string facts list", Ours::Typed(&[("plugin.yaml", r#""/home/lab/a.yaml:/home/lab/b.json""#)])),
    ("path list home is not expanded", Ours::Typed(&[("libdir", r#"["/home/lab/a","/home/lab/b"]"#)])),
    ("path list empty items", Ours::Typed(&[("libdir", r#"["/a","/b"]"#)])),
    (
        "plugin.d raw plugin",
        Ours::Typed(&[
            ("plugin.actionpolicy.allow_unconfigured", "true"),
            ("plugin.actionpolicy.enable_default", "true"),
        ]),
    ),
    ("plugin.d conf and cfg", Ours::Reads(&["server.conf", "plugin.d/a.cfg"], &[])),
    ("plugin.d directory named cfg", Ours::Reads(&["server.conf"], &[])),
    ("plugin.d skipped *", Ours::Reads(&["server.conf", "plugin.d/choria.cfg"], &[("plugin.choria.stats_port", "9")])),
    (
        "env nats user without key",
        Ours::Typed(&[("plugin.nats.user", r#""envuser""#), ("plugin.nats.pass", r#""envpass""#)]),
    ),
];

fn environment(row: &Row, directory: &Path) -> Environment {
    let mut environment = Environment::fixed("golden.lab.example.net")
        .with_variable("HOME", "/home/lab")
        .with_working_directory(directory.join("work"));
    for (name, value) in &row.env {
        environment = environment.with_variable(name, value.replace("ETC", &directory.to_string_lossy()));
    }
    environment
}

/// Writes the files of a row; `{{x*N}}` stands for N letters x.
fn write_files(row: &Row, directory: &Path) {
    let decoded = row
        .files_base64
        .iter()
        .map(|(name, text)| (name, base64::engine::general_purpose::STANDARD.decode(text).unwrap()));
    let plain = row.files.iter().map(|(name, text)| {
        let text = match text.split_once("{{x*") {
            Some((before, rest)) => {
                let (count, after) = rest.split_once("}}").unwrap();
                format!("{before}{}{after}", "x".repeat(count.parse().unwrap()))
            }
            None => text.clone(),
        };
        (name, text.into_bytes())
    });
    for (name, content) in decoded.chain(plain) {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// A typed value in the shape of the golden file.
fn shown(kind: &Kind, value: &Value) -> serde_json::Value {
    match (kind, value) {
        (Kind::FileMode, Value::Integer(mode)) => json!(format!("{mode:04o}")),
        (Kind::Seconds { .. }, Value::Duration(span)) => json!(span.as_secs()),
        (_, Value::Duration(span)) => json!(u64::try_from(span.as_nanos()).unwrap()),
        (Kind::PathList { append: false }, Value::List(list)) => json!(list.join(":")),
        (_, Value::List(list)) => json!(list),
        (_, Value::Text(text)) => json!(text),
        (_, Value::Integer(number)) => json!(number),
        (_, Value::Boolean(flag)) => json!(flag),
    }
}

/// The golden value in the same shape: durations as nanoseconds, title texts in the lower case they are compared in.
fn expected(key: &str, value: &serde_json::Value) -> serde_json::Value {
    match (key, value.get("duration_ns"), value.as_str()) {
        (_, Some(nanoseconds), _) => nanoseconds.clone(),
        ("rpcauthprovider", _, Some(text)) => json!(text.to_lowercase()),
        _ => value.clone(),
    }
}

/// Every known key whose value is not its default, as the golden file shows it.
fn changed(config: &Config, defaults: &Config) -> BTreeMap<String, serde_json::Value> {
    let mut changed = BTreeMap::new();
    for spec in keys::ALL.iter() {
        let (value, default) = (config.value_of(spec.name), defaults.value_of(spec.name));
        // The original's boolean cannot tell "false" from "unset"; ours can, and the golden file does not show it.
        let only_set = spec.name == keys::SERVER_PROVISION.name() && value == Some(Value::Boolean(false));
        if value != default && !only_set {
            let empty = Value::Text(String::new());
            changed.insert(spec.name.to_owned(), shown(&spec.kind, value.as_ref().unwrap_or(&empty)));
        }
    }
    changed
}

fn load(row: &Row, directory: &Path) -> Result<Config, ConfigError> {
    let mode = match row.mode.as_str() {
        "server" => Mode::Server,
        "client" => Mode::Client,
        other => panic!("{}: unknown mode {other}", row.name),
    };
    Config::load(directory.join("server.conf"), mode, &environment(row, directory))
}

fn ours(name: &str) -> Option<&'static Ours> {
    DIFFERENCES.iter().find_map(|(pattern, ours)| {
        let fits = pattern.strip_suffix('*').map_or(name == *pattern, |start| name.starts_with(start));
        fits.then_some(ours)
    })
}

fn check(row: &Row) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let etc = directory.path();
    std::fs::create_dir_all(etc.join("work")).unwrap();
    write_files(row, etc);
    let result = load(row, etc);
    let difference = ours(&row.name);
    if let Some(Ours::Refused(texts)) = difference {
        let message = result.err().map(|error| error.to_string()).ok_or("loaded, but should be refused")?;
        return match texts.iter().find(|text| !message.contains(*text)) {
            Some(missing) => Err(format!("{missing:?} does not occur in: {message}")),
            None => Ok(()),
        };
    }
    if row.result.error.is_some() {
        return result.map_or(Ok(()), |_| Err("loaded, but the original refuses".into()));
    }
    let config = result.map_err(|error| error.to_string())?;
    let mut raw = row.result.raw.clone();
    if let Some(Ours::Reads(_, further)) = difference {
        raw.extend(further.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())));
    }
    if *config.raw_options() != raw {
        return Err(format!("raw options are {:?}", config.raw_options()));
    }
    let in_etc = |text: &str| text.replace("ETC", &etc.to_string_lossy());
    let mut wanted: BTreeMap<String, serde_json::Value> =
        row.result.changed.iter().map(|(key, value)| (key.clone(), expected(key, value))).collect();
    for value in wanted.values_mut() {
        if let Some(text) = value.as_str() {
            *value = json!(in_etc(text));
        }
    }
    if let Some(Ours::Typed(values) | Ours::Reads(_, values)) = difference {
        for (key, value) in *values {
            wanted.insert((*key).to_owned(), serde_json::from_str(value).unwrap());
        }
    }
    let plain = Environment::fixed("golden.lab.example.net").with_variable("HOME", "/home/lab");
    let defaults = Config::defaults(None, Mode::Server, &plain).unwrap();
    let found = changed(&config, &defaults);
    if found != wanted {
        return Err(format!("typed values are {found:?}, wanted {wanted:?}"));
    }
    let mut files: Vec<PathBuf> = match difference {
        Some(Ours::Reads(files, _)) => files.iter().map(PathBuf::from).collect(),
        _ => row.result.parsed_files.iter().flatten().map(PathBuf::from).collect(),
    };
    for file in &mut files {
        *file = etc.join(&file);
    }
    if config.parsed_files() != files {
        return Err(format!("read files are {:?}", config.parsed_files()));
    }
    Ok(())
}

fn rows(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(path)).unwrap()
}

#[test]
fn design6_every_golden_file_reads_as_in_the_original_or_is_refused_with_file_and_line() {
    let text = rows("server/config-grammar.jsonl");
    let rows: Vec<Row> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 210);
    let failures: Vec<String> =
        rows.iter().filter_map(|row| check(row).err().map(|failure| format!("{}: {failure}", row.name))).collect();
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
    for (pattern, _) in DIFFERENCES {
        let start = pattern.trim_end_matches('*');
        assert!(rows.iter().any(|row| row.name.starts_with(start)), "{pattern} names no row");
    }
}

#[test]
fn every_difference_has_its_reason_in_docs() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/differences/choria-config.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (pattern, _) in DIFFERENCES {
        assert!(page.contains(&format!("`{pattern}`")), "{pattern:?} is not in docs/differences/choria-config.md");
    }
}

/// Lines of a broker's configuration with the effect they have in the original.
#[derive(Deserialize)]
struct BrokerRow {
    line: String,
    effect: String,
}

/// What this program makes of a line.
enum Line {
    /// The load fails with this text.
    Refused(&'static str),
    /// The line is a setting with this typed value (JSON).
    Value(&'static str, &'static str),
    /// The load works with a warning that holds this text.
    Warned(&'static str),
    /// Not decided here: files, ports and combinations are the business of the program that uses them.
    Elsewhere,
}

const N: &str = "plugin.choria.network.";

/// In the order of the file.
const BROKER_LINES: [Line; 55] = [
    Line::Refused("deny_server_connections = on is not valid, expected yes or no"),
    Line::Refused("deny_server_connections = maybe is not valid"),
    Line::Value("deny_server_connections", "true"),
    Line::Value("deny_server_connections", "true"),
    Line::Value("deny_server_connections", "true"),
    Line::Refused("deny_server_connections = enabled is not valid"),
    Line::Refused("stream.manage_streams = on is not valid"),
    Line::Refused("gateway_port = abc is not valid, expected a whole number from 0 to 65535"),
    Line::Warned("websocket_port has no value; the line is ignored"),
    Line::Value("write_deadline", "5000000000"),
    Line::Value("write_deadline", "86400000000000"),
    Line::Refused("write_deadline = soon is not valid"),
    Line::Refused("a comment needs a line of its own"),
    Line::Value("write_deadline", "10000000000"),
    Line::Refused("\"-5s\" is negative"),
    Line::Value("write_deadline", "4000000000"),
    Line::Warned("did you mean plugin.choria.network.write_deadline?"),
    Line::Warned("unknown key plugin.choria.network.nonsense"),
    Line::Warned("the line is neither a setting (key = value) nor a comment"),
    Line::Refused("tls_timeout = 61s is not valid, expected a duration from 1ms to 1m"),
    Line::Refused("auth_timeout = 61s is not valid"),
    Line::Value("tls_timeout", "60000000000"),
    Line::Value("tls_timeout", "2000000000"),
    Line::Value("public_url", "\"b.example.net:4222\""),
    Line::Value("public_url", "\"b.example.net\""),
    Line::Refused("public_url = \\\"b:1\\\" is not valid"),
    Line::Value("client_port", "4222"),
    Line::Value("client_port", "-1"),
    Line::Refused("client_port = 99999 is not valid, expected a whole number from -1 to 65535"),
    Line::Elsewhere,
    Line::Elsewhere,
    Line::Value("listen_address", "\"localhost\""),
    Line::Elsewhere,
    Line::Elsewhere,
    Line::Elsewhere,
    Line::Elsewhere,
    Line::Elsewhere,
    Line::Refused("plugin.security.provider = nope is not valid"),
    Line::Refused("client_hosts = 300.0.0.0/99 is not valid"),
    Line::Elsewhere,
    Line::Refused("stream.leader_election_ttl = 0s is not valid"),
    Line::Refused("stream.leader_election_ttl = 50ms is not valid"),
    Line::Elsewhere,
    Line::Elsewhere,
    Line::Elsewhere,
    Line::Elsewhere,
    Line::Elsewhere,
    Line::Elsewhere,
    Line::Elsewhere,
    Line::Refused("entry \"b2.example.net\": the port is missing"),
    Line::Elsewhere,
    Line::Elsewhere,
    Line::Refused("loglevel = chatty is not valid"),
    Line::Elsewhere,
    Line::Value("broker_network", "false"),
];

/// The golden file describes some lines in words; this is the text a user would have written.
fn written(line: &str) -> String {
    let line = line.strip_suffix(", nothing else enabled").unwrap_or(line);
    let line = line.replace(", then the same key = ", &format!("\n{N}write_deadline = "));
    line.strip_suffix(" (no port)").map(str::to_owned).unwrap_or(line)
}

fn check_line(row: &BrokerRow, ours: &Line) -> Result<(), String> {
    let environment = Environment::fixed("broker.example.net");
    let loaded = Config::from_text(&written(&row.line), Mode::Broker, &environment).map_err(|error| error.to_string());
    match (ours, loaded) {
        (Line::Elsewhere, _) => Ok(()),
        (Line::Refused(text), Err(message)) if message.contains(text) => Ok(()),
        (Line::Refused(text), other) => Err(format!("{text:?} expected, got {other:?}")),
        (_, Err(message)) => Err(message),
        (Line::Warned(text), Ok(config)) => {
            let told = config.warnings().iter().any(|warning| warning.to_string().contains(text));
            if told { Ok(()) } else { Err(format!("warnings are {:?}", config.warnings())) }
        }
        (Line::Value(key, value), Ok(config)) => {
            let spec =
                keys::find(&format!("{N}{key}")).or_else(|| keys::find(&format!("plugin.choria.{key}"))).unwrap();
            let found = config.value_of(spec.name).map(|value| shown(&spec.kind, &value));
            let wanted = serde_json::from_str(value).ok();
            if found == wanted { Ok(()) } else { Err(format!("is {found:?}")) }
        }
    }
}

#[test]
fn design6_broker_lines_mean_what_they_say_or_are_refused() {
    let text = rows("broker/config-values.jsonl");
    let rows: Vec<BrokerRow> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), BROKER_LINES.len());
    let failures: Vec<String> = rows
        .iter()
        .zip(&BROKER_LINES)
        .filter_map(|(row, ours)| {
            let failure = check_line(row, ours).err()?;
            Some(format!("{} (original: {}): {failure}", row.line, row.effect))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
