//! `golden/server/provisioning-decision.jsonl`: one start of the original per row, and what ours makes of the same files.
//! Differences are named here one by one and explained in `docs/differences/choria-server.md`.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use choria_config::{BuildSettings, Environment};
use choria_connector::srv::{Resolver, SrvError, SrvRecord};
use choria_connector::{ServerResolver, Target};
use choria_security::provider::FileProvider;
use choria_server::settings::{ConfigureError, ProvisioningSource};
use choria_server::{Mode, ServerSettings};
use choria_testkit::golden;
use choria_tokens::Seed;
use common::{NOW, token};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Member,
    Provisioning,
    /// In provisioning mode without brokers to connect to: waits, and says for what.
    Waiting,
    /// Does not start.
    Exit,
}

struct NoDns;

#[async_trait]
impl Resolver for NoDns {
    async fn srv(&self, _: &str) -> Result<Vec<SrvRecord>, SrvError> {
        Ok(Vec::new())
    }
}

fn build(name: &str) -> BuildSettings {
    let plain = BuildSettings { provision_jwt_file: None, ..BuildSettings::default() };
    match name {
        "jwt-path" => BuildSettings { provision_jwt_file: Some("provisioning.jwt".into()), ..plain },
        "no-provisioning" => plain,
        "urls-default-on" => BuildSettings {
            provision_broker_urls: vec!["nats://localhost:25200".into()],
            provision_mode_default: true,
            ..plain
        },
        other => panic!("unknown build {other}"),
    }
}

fn put_token(row: &Value, path: &Path) {
    let mut claims = row["token_claims"].clone();
    if claims.is_null() {
        claims = common::provisioning_claims();
        claims["chpd"] = json!(row["token"] != "nodefault");
    }
    let good = token(&claims);
    let head = good.rsplit_once('.').unwrap().0;
    let text = match golden::member(row, "token") {
        "missing" => return,
        "dir" => return fs::create_dir(path).unwrap(),
        "garbage" => "garbage".to_owned(),
        "empty" => String::new(),
        "newline" => format!("{good}\n"),
        "trailing" => format!("{good}\nmore"),
        "nosig" => format!("{head}."),
        "algnone" => format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", head.split_once('.').unwrap().1),
        _ => good,
    };
    fs::write(path, text).unwrap();
}

/// Server tokens of the rows are placeholders: each is made to be what its row says of it.
fn put_files(row: &Value, directory: &Path) {
    let name = golden::member(row, "name");
    let seed = Seed::from_bytes([7; 32]);
    for (file, content) in row["files"].as_object().unwrap() {
        let path = directory.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = content.as_str().unwrap();
        let text = match (file.as_str(), content) {
            ("server.seed", text) if text.len() == 64 => hex::encode([7; 32]),
            ("server.jwt", text) if text.starts_with('<') => {
                let public = if name.contains("mismatch") { "00".repeat(32) } else { seed.public_hex() };
                let exp = if name.contains("expired") { NOW - 3600 } else { NOW + 3600 };
                token(&json!({"identity": "n1.lab.test", "purpose": "choria_server", "public_key": public, "exp": exp}))
            }
            (_, text) => text.to_owned(),
        };
        fs::write(path, text).unwrap();
    }
}

fn put_config(row: &Value, directory: &Path) {
    let path = directory.join("server.conf");
    if row["name"] == "config unreadable, as nobody" {
        // Root reads everything; a link to itself nobody can read.
        return symlink("server.conf", path).unwrap();
    }
    match row["config"].as_str() {
        None => {}
        Some("DIRECTORY") => fs::create_dir(path).unwrap(),
        Some(text) => fs::write(path, text.replace("DIR", &directory.display().to_string())).unwrap(),
    }
}

fn start(row: &Value, directory: &Path) -> (Outcome, Result<ServerSettings, ConfigureError>) {
    put_config(row, directory);
    put_token(row, &directory.join("provisioning.jwt"));
    put_files(row, directory);
    let environment = Environment::fixed(golden::member(row, "hostname"))
        .with_working_directory(directory)
        .with_build_settings(build(golden::member(row, "build")));
    let settings = ServerSettings::load(Path::new("server.conf"), None, &environment, NOW);
    let outcome = match &settings {
        Err(_) => Outcome::Exit,
        Ok(settings) if settings.mode() == Mode::Member => match FileProvider::from_config(settings.config()) {
            Ok(_) => Outcome::Member,
            Err(_) => Outcome::Exit,
        },
        Ok(settings) if settings.token().current().is_none() => Outcome::Waiting,
        Ok(_) => Outcome::Provisioning,
    };
    (outcome, settings)
}

/// Rows where ours does something else, and why.
const DIFFERENCES: &[(&str, Outcome, &str)] = &[
    ("no file, nodefault", Outcome::Exit, "never runs on defaults against puppet:4222"),
    ("no file, garbage token", Outcome::Waiting, "an unusable token is waited out, not ignored"),
    ("no file, token with both", Outcome::Waiting, "an unusable token is waited out, not ignored"),
    ("no file, token path is a directory", Outcome::Waiting, "an unusable token is waited out, not ignored"),
    ("bad bool, default", Outcome::Exit, "a bad value of a known key is an error"),
    (
        "client_anon_tls parse error",
        Outcome::Provisioning,
        "a broken configuration that asks for provisioning leads there",
    ),
    ("provider choria, no seed, nodefault token", Outcome::Exit, "configuration kept; its provider needs protocol v2"),
    ("provider choria, no seed, no token file", Outcome::Exit, "configuration kept; its provider needs protocol v2"),
    ("choria provider, good token, key absent, default off", Outcome::Exit, "its provider needs protocol v2"),
    ("urls build default, no file", Outcome::Waiting, "without a token every action would obey anyone"),
    ("urls build default, absent key", Outcome::Waiting, "without a token every action would obey anyone"),
    ("urls build default, true", Outcome::Waiting, "without a token every action would obey anyone"),
];

fn expected(row: &Value) -> Outcome {
    let name = golden::member(row, "name");
    if let Some((_, outcome, _)) = DIFFERENCES.iter().find(|(row, _, _)| *row == name) {
        return *outcome;
    }
    match golden::member(&row["result"], "mode") {
        "provisioning" | "provisioning-resolving" => Outcome::Provisioning,
        "provisioning-fallback-brokers" => Outcome::Waiting,
        "normal" => Outcome::Member,
        "exit" => Outcome::Exit,
        other => panic!("unknown mode {other}"),
    }
}

/// The configured name, else the host's.
fn expected_identity(row: &Value) -> String {
    let config = row["config"].as_str().unwrap_or_default();
    let configured = config.lines().find_map(|line| line.strip_prefix("identity = "));
    configured.unwrap_or_else(|| golden::member(row, "hostname")).to_owned()
}

#[test]
fn every_row_of_the_golden_table() {
    let rows = golden::lines("server/provisioning-decision.jsonl");
    assert_eq!(rows.len(), 71);
    for row in &rows {
        let name = golden::member(row, "name");
        if name == "no --config" {
            // The type asks for a path; the program refuses to be started without one.
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let (outcome, settings) = start(row, directory.path());
        let shown = settings.as_ref().map(|settings| settings.notes().to_vec()).map_err(ToString::to_string);
        assert_eq!(outcome, expected(row), "{name}: {shown:?}");
        if let (Ok(settings), true) = (&settings, outcome != Outcome::Exit) {
            assert_eq!(settings.identity(), expected_identity(row), "{name}");
            assert!(settings.config_file().unwrap().is_absolute(), "{name}");
        }
        for file in row["files"].as_object().unwrap().keys() {
            assert!(directory.path().join(file).exists(), "{name}: {file} was deleted");
        }
    }
    for (name, ..) in DIFFERENCES {
        assert!(rows.iter().any(|row| row["name"] == *name), "there is no row {name}");
    }
}

fn row(name: &str) -> Value {
    golden::lines("server/provisioning-decision.jsonl").into_iter().find(|row| row["name"] == name).unwrap()
}

fn source(settings: &ServerSettings) -> ProvisioningSource {
    ProvisioningSource { token: Arc::clone(settings.token()), resolver: Arc::new(NoDns) }
}

fn loaded(name: &str) -> (TempDir, ServerSettings) {
    let directory = tempfile::tempdir().unwrap();
    let (_, settings) = start(&row(name), directory.path());
    (directory, settings.unwrap())
}

#[tokio::test]
async fn design6_unusable_tokens_never_lead_to_other_brokers() {
    let (mut told, mut waiting) = (0, 0);
    for row in golden::lines("server/provisioning-decision.jsonl") {
        let directory = tempfile::tempdir().unwrap();
        let (outcome, Ok(settings)) = start(&row, directory.path()) else { continue };
        if settings.mode() != Mode::Provisioning {
            continue;
        }
        let name = golden::member(&row, "name");
        // Without DNS an SRV domain is waited for as well.
        let has_brokers = outcome == Outcome::Provisioning && row["result"]["mode"] != "provisioning-resolving";
        match (source(&settings).servers().await, row["token_claims"]["chu"].as_str()) {
            (Ok(targets), Some(urls)) => {
                let shown: Vec<String> = targets.iter().map(Target::url).collect();
                let wanted: Vec<&str> = urls.split(',').map(str::trim).collect();
                assert_eq!(shown, wanted, "{name}");
                assert!(has_brokers, "{name}");
                told += 1;
            }
            (Ok(targets), None) => {
                assert_eq!(targets[0].url(), "nats://localhost:25200", "{name}");
                assert!(has_brokers, "{name}");
                told += 1;
            }
            (Err(reason), _) => {
                assert!(reason.starts_with("waiting to be provisioned: "), "{name}: {reason}");
                assert!(!has_brokers, "{name}: {reason}");
                waiting += 1;
            }
        }
    }
    assert_eq!((told, waiting), (33, 17));
}

#[tokio::test]
async fn design6_waiting_for_a_usable_token_ends_when_there_is_one() {
    use choria_connector::CredentialSource;

    let (directory, settings) = loaded("true, token garbage");
    let source = source(&settings);
    assert!(source.servers().await.unwrap_err().contains("cannot be used: token is malformed"));
    assert!(source.credentials().unwrap_err().contains("cannot be used"));
    let good = token(&common::provisioning_claims());
    fs::write(directory.path().join("provisioning.jwt"), format!("{good}\n")).unwrap();
    assert_eq!(source.servers().await.unwrap()[0].to_string(), "localhost:25200");
    assert_eq!(source.credentials().unwrap().token, Some(good));
    assert!(settings.token().action_token().unwrap().matches("toomanysecrets"));
    // The agent stays active when the file goes away.
    fs::remove_file(directory.path().join("provisioning.jwt")).unwrap();
    assert!(source.servers().await.unwrap_err().contains("there is no provisioning token"));
    assert!(settings.token().action_token().is_some());
}

#[test]
fn design6_the_configured_identity_is_used_while_provisioning() {
    let (_keep, settings) = loaded("true, default");
    assert_eq!(settings.identity(), "n1.lab.test");
    let (_keep, settings) = loaded("no file, default");
    assert_eq!(settings.identity(), "mx.lab.test");
}

#[test]
fn design6_a_node_scoped_token_names_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let mut claims = common::provisioning_claims();
    claims["extensions"] = json!({"identity": "scoped.lab.test", "key_type": "rsa"});
    fs::write(directory.path().join("provisioning.jwt"), token(&claims)).unwrap();
    fs::write(directory.path().join("server.conf"), "identity = configured.lab.test\n").unwrap();
    let environment = common::environment(directory.path(), "host.lab.test");
    let settings = ServerSettings::load(Path::new("server.conf"), None, &environment, NOW).unwrap();
    assert_eq!(settings.identity(), "scoped.lab.test");
    assert_eq!(settings.key_kind(), choria_security::keys::KeyKind::Rsa2048);
    claims["extensions"] = json!({"identity": "a.>"});
    fs::write(directory.path().join("provisioning.jwt"), token(&claims)).unwrap();
    let refused = ServerSettings::load(Path::new("server.conf"), None, &environment, NOW);
    assert!(matches!(refused, Err(ConfigureError::Identity { .. })), "{refused:?}");
}

#[test]
fn design6_ssldir_is_absolute_and_beside_the_configuration() {
    let (directory, settings) = loaded("config relative path");
    assert_eq!(settings.ssl_directory().unwrap(), directory.path().join("ssl"));
}

#[test]
fn design6_token_path_of_command_line_and_environment() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, secret: &str| {
        let mut claims = common::provisioning_claims();
        claims["cht"] = json!(secret);
        fs::write(directory.path().join(name), token(&claims)).unwrap();
    };
    put("provisioning.jwt", "build");
    put("variable.jwt", "variable");
    put("line.jwt", "line");
    let secret = |line: Option<&str>, variable: Option<&str>| {
        let mut environment = common::environment(directory.path(), "h.lab.test");
        if let Some(path) = variable {
            environment = environment.with_variable("CHORIA_PROVISIONING_JWT", path);
        }
        let line = line.map(PathBuf::from);
        let settings = ServerSettings::load(Path::new("server.conf"), line.as_deref(), &environment, NOW).unwrap();
        settings.token().action_token().unwrap().expose().to_owned()
    };
    assert_eq!(secret(None, None), "build");
    assert_eq!(secret(None, Some("variable.jwt")), "variable");
    assert_eq!(secret(Some("line.jwt"), Some("variable.jwt")), "line");
}

#[test]
fn a_broken_configuration_leads_back_to_provisioning_where_the_settings_say_so() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("provisioning.jwt"), token(&common::provisioning_claims())).unwrap();
    let environment = common::environment(directory.path(), "h.lab.test");
    let load = |text: &str| {
        fs::write(directory.path().join("server.conf"), text).unwrap();
        ServerSettings::load(Path::new("server.conf"), None, &environment, NOW)
    };
    let settings = load("identity = kept.lab.test\nregisterinterval = 5m\nloglevel = debug\n").unwrap();
    assert!(settings.is_provisioning());
    assert_eq!(settings.identity(), "kept.lab.test");
    assert!(
        settings.notes().iter().any(|note| note.contains("server.conf:2: registerinterval")),
        "{:?}",
        settings.notes()
    );

    let refused = load("registerinterval = 5m\nplugin.choria.server.provision = false\n").unwrap_err().to_string();
    assert!(refused.contains("server.conf:1: registerinterval") && refused.contains("is false"), "{refused}");

    // What plugin.d says counts although the main file is broken.
    fs::create_dir(directory.path().join("plugin.d")).unwrap();
    fs::write(directory.path().join("plugin.d/choria.cfg"), "server.provision = false\n").unwrap();
    assert!(load("registerinterval = 5m\n").is_err());
}

#[test]
fn provisioning_settings_are_forced() {
    use choria_config::keys;
    let directory = tempfile::tempdir().unwrap();
    let mut claims = common::provisioning_claims();
    claims["chf"] = json!("/facts.yaml");
    claims["chrd"] = json!("/data.json");
    fs::write(directory.path().join("provisioning.jwt"), token(&claims)).unwrap();
    let text = "identity = n1.lab.test\ncollectives = a, b\nrpcauthorization = true\nregistration = inventory_content\n\
                plugin.choria.status_file_path = /status.json\nplugin.choria.middleware_hosts = other:4222\n\
                plugin.yaml = /mine.yaml\nplugin.choria.ssldir = /elsewhere\nlogfile = /log\n";
    fs::write(directory.path().join("server.conf"), text).unwrap();
    let environment = common::environment(directory.path(), "h.lab.test");
    let settings = ServerSettings::load(Path::new("server.conf"), None, &environment, NOW).unwrap();
    let config = settings.config();
    assert_eq!(config.get(&keys::COLLECTIVES), ["provisioning"]);
    assert_eq!(config.get(&keys::MAIN_COLLECTIVE), "provisioning");
    assert!(!config.get(&keys::RPCAUTHORIZATION));
    assert_eq!(config.get(&keys::YAML), [PathBuf::from("/facts.yaml")]);
    assert_eq!(config.get(&keys::REGISTRATION), ["file_content"]);
    assert_eq!(config.get(&keys::REGISTRATION_FILE_CONTENT_TARGET).unwrap(), "provisioning.registration.data");
    assert_eq!(config.get(&keys::REGISTERINTERVAL).as_secs(), 120);
    assert!(config.get(&keys::MIDDLEWARE_HOSTS).is_empty());
    assert_eq!(settings.ssl_directory().unwrap(), directory.path().join("ssl"));
    // What tells people about the node stays as it was configured.
    assert_eq!(config.get(&keys::STATUS_FILE_PATH).unwrap(), PathBuf::from("/status.json"));
    assert_eq!(config.get(&keys::LOGFILE).to_string(), "/log");
}
