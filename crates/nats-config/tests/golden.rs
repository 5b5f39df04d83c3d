//! Every row of `testdata/nats-core/config-grammar.jsonl`, `config-accounts-check.jsonl` and
//! `config-mappings-check.jsonl` is a case: what nats-server accepted or refused, and which values came into effect. Rows
//! where ours differs on purpose are listed below; `docs/differences/nats-broker.md` gives the reasons.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its data must stop")]

mod common;

use common::{DIRECTORY, Stage};
use nats_config::settings::{Limit, Settings};
use serde_json::{Value, json};

fn rows(name: &str) -> Vec<Value> {
    let path = format!("{}/../../testdata/nats-core/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What ours makes of a row of the grammar on purpose.
enum Ours {
    /// Refused, and this text occurs in the reason.
    Refused(&'static str),
    /// Accepted with this effect.
    Accepted(&'static str, i64),
    /// Accepted with this name.
    Named(&'static str),
}

const GRAMMAR_DIFFERENCES: &[(&str, Ours)] = &[
    ("size 1kbb", Ours::Refused("main.conf:1:14: this is neither a number nor a size")),
    ("syntax size-bad-suffix-between", Ours::Refused("main.conf:2:14: this is neither a number nor a size")),
    ("duration 5m", Ours::Refused("write minutes in quotes: \"5m\"")),
    ("syntax extra-brace", Ours::Refused("main.conf:1:16: no block is open")),
    ("syntax stray-brace-between", Ours::Refused("main.conf:1:16: no block is open")),
    ("include include-absolute", Ours::Accepted("max_payload", 2048)),
    ("include include-loop", Ours::Refused("includes itself")),
    ("syntax bom", Ours::Named("x")),
];

/// Texts that were not UTF-8 when they were recorded.
const LATIN: [&str; 2] = ["syntax bom", "syntax latin1"];

fn grammar_stage(row: &Value) -> Stage {
    let config = row["config"].as_str().unwrap().replace("<dir>", DIRECTORY);
    let config = if LATIN.contains(&row["case"].as_str().unwrap()) {
        let bytes: Vec<u8> = config.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        config
    };
    let mut stage = Stage::new(&config)
        .file("a.inc", "max_payload: 2048")
        .file("sub/b.inc", "include \"c.inc\"")
        .file("sub/c.inc", "max_payload: 3072")
        .file("users.inc", "users: [{user: u, password: p}]")
        .file("var.inc", "XX: 4096")
        .file("usesvar.inc", "max_payload: $XX")
        .file("loop.inc", "include \"loop.inc\"");
    for (name, value) in row["env"].as_object().into_iter().flatten() {
        stage = stage.variable(name, value.as_str().unwrap());
    }
    stage
}

/// A setting as `/varz` and INFO of the reference show it.
fn effective(settings: &Settings, field: &str) -> Value {
    let authorization = settings.authorization.as_deref();
    match field {
        "max_payload" => match settings.max_payload.as_deref() {
            None | Some(Limit::Of(0)) => json!(1_048_576),
            Some(Limit::Of(bytes)) => json!(bytes),
            Some(Limit::None) => json!(-1),
        },
        "max_connections" => match settings.max_connections.as_deref() {
            Some(Limit::Of(number)) => json!(number),
            other => panic!("{other:?}"),
        },
        "server_name" => settings.server_name.as_ref().map_or_else(|| json!("<id>"), |name| json!(name.value)),
        "ping_interval" => {
            let nanos = settings.ping_interval.as_ref().map_or(0, |interval| interval.nanos);
            json!(if nanos == 0 { 120_000_000_000 } else { nanos })
        }
        "write_deadline" => json!(u64::try_from(settings.write_deadline.as_ref().unwrap().as_nanos()).unwrap()),
        "tags" if settings.server_tags.is_empty() => Value::Null,
        "tags" => json!(settings.server_tags),
        "INFO headers" => json!(settings.no_header_support != Some(true)),
        "auth_timeout" => {
            let timeout = authorization.and_then(|block| block.timeout.as_deref()).map_or(0, |span| span.nanos);
            json!(if timeout == 0 { 2_000_000_000 } else { timeout })
        }
        "auth_required" if authorization.is_some() => json!(true),
        "auth_required" => Value::Null,
        _ => panic!("no field {field}"),
    }
}

fn assert_effective(case: &str, settings: &Settings, field: &str, wanted: &Value) {
    let ours = effective(settings, field);
    match field {
        // Seconds there, nanoseconds here.
        "auth_timeout" => {
            let seconds = wanted.as_f64().unwrap();
            assert!((ours.as_f64().unwrap() / 1e9 - seconds).abs() < 1e-9, "{case}: {field} {ours}, not {seconds} s");
        }
        _ => assert_eq!(ours, *wanted, "{case}: {field}"),
    }
}

#[test]
fn golden_grammar() {
    let rows = rows("config-grammar.jsonl");
    let (mut same, mut different) = (0, 0);
    for row in &rows {
        let case = row["case"].as_str().unwrap();
        let loaded = grammar_stage(row).load();
        if let Some((_, ours)) = GRAMMAR_DIFFERENCES.iter().find(|(name, _)| *name == case) {
            different += 1;
            match (ours, loaded) {
                (Ours::Refused(text), Err(error)) => assert!(error.to_string().contains(text), "{case}: {error}"),
                (Ours::Accepted(field, value), Ok(loaded)) => {
                    assert_effective(case, &loaded.settings, field, &json!(value));
                }
                (Ours::Named(name), Ok(loaded)) => {
                    assert_effective(case, &loaded.settings, "server_name", &json!(name))
                }
                (_, other) => panic!("{case}: {other:?}"),
            }
            continue;
        }
        same += 1;
        let Some(wanted) = row["effective"].as_object() else {
            assert!(loaded.is_err(), "{case}: accepted, the reference says {}", row["start_says"]);
            continue;
        };
        let loaded = loaded.unwrap_or_else(|error| panic!("{case}: {error}"));
        for (field, value) in wanted {
            assert_effective(case, &loaded.settings, field, value);
        }
        let check_fails = loaded.warnings.iter().any(|warning| warning.fails_check);
        assert_eq!(check_fails, row["check_exit"] != 0, "{case}: {:?}", loaded.warnings);
    }
    assert_eq!((rows.len(), same, different), (180, 172, 8));
}

/// Accepted by the reference, a mistake for ours.
const CHECK_DIFFERENCES: &[(&str, &str)] = &[
    ("import-self", "an account cannot import from itself"),
    ("user-without-password", "the user z has no password"),
    ("weight-0", "percent are 1 to 100"),
    ("no-destination", "there is no `destination`"),
];

/// Refused when accounts are joined or mappings are compiled, which is the broker's part: the text alone is good.
const DECIDED_BY_THE_BROKER: &[&str] = &[
    // What is exported to whom, and whether imports go round in a circle.
    "cycle-two-services",
    "cycle-wildcard",
    "cycle-three",
    "cycle-stream-two",
    "import-not-exported",
    "import-stream-not-exported",
    "import-private-not-listed",
    "import-superset-of-export",
    // What wildcards and functions of a subject mean.
    "service-wildcard-to-literal",
    "stream-wildcard-to-wrong-count",
    "unknown-function",
    "wildcard-index-too-big",
    "wildcard-not-in-source",
    "gt-only-source",
    "gt-only-destination",
    "destination-star",
    "bad-destination",
    "partition-missing-arg",
    "wildcard-missing-arg",
    "split-missing",
    "dollar-2",
];

fn check(file: &str) -> (usize, usize, usize, usize) {
    let rows = rows(file);
    let (mut same, mut different, mut later) = (0, 0, 0);
    for row in &rows {
        let case = row["case"].as_str().unwrap();
        let loaded = Stage::new(row["config"].as_str().unwrap()).load();
        if let Some((_, text)) = CHECK_DIFFERENCES.iter().find(|(name, _)| *name == case) {
            different += 1;
            let error = loaded.expect_err(case).to_string();
            assert!(error.contains(text), "{case}: {error}");
        } else if DECIDED_BY_THE_BROKER.contains(&case) {
            later += 1;
            assert_eq!(row["exit"], 1, "{case}");
            loaded.unwrap_or_else(|error| panic!("{case}: {error}"));
        } else {
            same += 1;
            let accepted =
                loaded.as_ref().is_ok_and(|loaded| !loaded.warnings.iter().any(|warning| warning.fails_check));
            assert_eq!(accepted, row["exit"] == 0, "{case}: {loaded:?}, the reference says {}", row["says"]);
        }
    }
    (rows.len(), same, different, later)
}

#[test]
fn golden_accounts_check() {
    assert_eq!(check("config-accounts-check.jsonl"), (50, 38, 2, 10));
}

#[test]
fn golden_mappings_check() {
    assert_eq!(check("config-mappings-check.jsonl"), (23, 10, 2, 11));
}

/// The configurations that the recorded wire scripts ran with.
#[test]
fn golden_configurations() {
    let directory = format!("{}/../../testdata/nats-core/configs", env!("CARGO_MANIFEST_DIR"));
    let mut read = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let loaded = Stage::new(&std::fs::read_to_string(&path).unwrap()).load();
        match path.file_name().and_then(|name| name.to_str()).unwrap() {
            // `$1` in the import's own subject is in here on purpose.
            "accounts.conf" => assert!(loaded.unwrap_err().to_string().contains("`$1` has no meaning")),
            name => {
                let loaded = loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(loaded.settings.unsupported.is_empty() && loaded.start_problems().is_empty(), "{name}");
            }
        }
        read += 1;
    }
    assert!(read >= 13, "{read}");
}
