//! `golden/server/provision-configure.jsonl` and `provision-actions.jsonl`: every call of the original's recordings, made
//! to a running server of ours. Differences are named here and explained in `docs/differences/choria-server.md`.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use choria_protocol::rpc::ReplyBody;
use choria_security::csr;
use choria_security::keys::PublicKeyKind;
use choria_server::Exit;
use choria_server::provision::configure::ProviderCheck;
use choria_testkit::golden::{self, member};
use common::{Lab, NOW, token};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Directory of the recordings.
const LAB: &str = "/tmp/choria-lab-server/t1";

/// Name -> mode and text; directories end in a slash and have no text.
type Tree = BTreeMap<String, (String, Option<Vec<u8>>)>;

fn tree(root: &Path) -> Tree {
    fn walk(root: &Path, at: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let mode = format!("{:04o}", path.metadata().unwrap().permissions().mode() & 0o7777);
            if path.is_dir() {
                tree.insert(format!("{name}/"), (mode, None));
                walk(root, &path, tree);
            } else {
                tree.insert(name, (mode, Some(fs::read(&path).unwrap())));
            }
        }
    }
    let mut found = Tree::new();
    walk(root, root, &mut found);
    // The token belongs to the set-up, the recordings have it elsewhere.
    found.remove("provisioning.jwt");
    found
}

/// Replaces `{{x*N}}` by N letters and the recording's directory by the test's.
fn adapt(value: &Value, root: &Path) -> Value {
    let text = value.to_string();
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("{{x*") {
        let (count, after) = after.split_once("}}").unwrap();
        out.push_str(before);
        out.push_str(&"x".repeat(count.parse().unwrap()));
        rest = after;
    }
    out.push_str(rest);
    serde_json::from_str(&out.replace(LAB, &root.display().to_string())).unwrap()
}

/// A fresh directory as before each recorded `configure` call.
fn configure_world() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let put = |name: &str, text: &str| {
        fs::write(root.join(name), text).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o644)).unwrap();
    };
    for name in ["policies", "policies/rego"] {
        fs::create_dir(root.join(name)).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    put("server.conf", "old = 1\n");
    put("policies/old.policy", "old");
    put("policies/groups", "g a");
    put("policies/rego/old.rego", "old");
    directory
}

/// A lab whose token does not provision by default, as an embedder's with security of its own: then a configuration
/// needs neither the provision key nor a provider, as in the original.
async fn lenient(directory: TempDir) -> Lab {
    let mut claims = common::provisioning_claims();
    claims["chpd"] = json!(false);
    fs::write(directory.path().join("provisioning.jwt"), token(&claims)).unwrap();
    // With the default off only the key leads to provisioning; the call overwrites the file anyway.
    fs::write(directory.path().join("server.conf"), "plugin.choria.server.provision = true\nold = 1\n").unwrap();
    Lab::provisioning(directory, ProviderCheck::Embedded).await
}

/// What a differing row answers, and why.
struct Difference {
    row: &'static str,
    text: &'static str,
}

/// Rows where a call that the original accepts (or half carries out) is refused as a whole, with the start of our text.
const REFUSED: &[Difference] = &[
    Difference { row: "config empty key", text: "Could not write config: \"\" is not a configuration key" },
    Difference {
        row: "config newline in value",
        text: "Could not write config: the value of identity holds a line end",
    },
    Difference { row: "config newline in key", text: "Could not write config: \"a\\nb\" is not a configuration key" },
    Difference { row: "config hash key", text: "Could not write config: \"#a\" is not a configuration key" },
    Difference { row: "config key with spaces", text: "Could not write config: \" a \" is not a configuration key" },
    Difference {
        row: "config bad bool value",
        text: "Could not write config: generated configuration could not be parsed: ",
    },
    Difference {
        row: "config bad enum",
        text: "Could not write config: generated configuration could not be parsed: ",
    },
    Difference {
        row: "config 500 kB value",
        text: "Could not write config: generated configuration could not be parsed: ",
    },
    Difference {
        row: "config 70000 byte value",
        text: "Could not write config: generated configuration could not be parsed: ",
    },
    Difference {
        row: "cert without ca",
        text: "TLS Setup Failed: certificate, ca and ssldir belong together and ca is missing",
    },
    Difference {
        row: "ca without cert",
        text: "TLS Setup Failed: certificate, ca and ssldir belong together and certificate is missing",
    },
    Difference {
        row: "cert ca without ssldir",
        text: "TLS Setup Failed: certificate, ca and ssldir belong together and ssldir is missing",
    },
    Difference { row: "cert garbage", text: "TLS Setup Failed: the CA cannot be used: " },
    Difference {
        row: "policy escape",
        text: "Could not save Action Policies: \"../esc.policy\" is not a plain file name",
    },
    Difference {
        row: "policy sub dir",
        text: "Could not save Action Policies: \"sub/esc.policy\" is not a plain file name",
    },
    Difference { row: "policy only ext", text: "Could not save Action Policies: \".policy\" is not a plain file name" },
];

fn check_reply(name: &str, reply: &ReplyBody, expected: &Value, root: &Path) {
    let code = u8::try_from(expected["statuscode"].as_u64().unwrap()).unwrap();
    let expected_text = member(expected, "statusmsg").replace(LAB, &root.display().to_string());
    if let Some(difference) = REFUSED.iter().find(|difference| difference.row == name) {
        assert_eq!(reply.statuscode, 1, "{name}: {}", reply.statusmsg);
        assert!(reply.statusmsg.starts_with(difference.text), "{name}: {}", reply.statusmsg);
        return;
    }
    assert_eq!(reply.statuscode, code, "{name}: {} instead of {expected_text}", reply.statusmsg);
    // The words after these are those of a JSON or system library.
    let common = [
        "Could not write config: generated configuration could not be parsed: ",
        "Could not decode configuration data: ",
        "Could not parse request data for ",
        "Could not process request: ",
    ];
    let prefix = common.iter().find(|text| expected_text.starts_with(**text));
    match prefix {
        Some(prefix) => assert!(reply.statusmsg.starts_with(prefix), "{name}: {}", reply.statusmsg),
        None => {
            let fixed = expected_text.split(": mkdir").next().unwrap().split(": open").next().unwrap();
            assert!(reply.statusmsg.starts_with(fixed), "{name}: {} is not {expected_text}", reply.statusmsg);
        }
    }
}

/// The configuration file's text after its first line, in no order.
fn lines_of(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let mut lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
    lines.sort();
    lines
}

fn check_tree(name: &str, found: &Tree, expected: &Value) {
    let expected = expected.as_object().unwrap();
    let names: Vec<&String> = found.keys().collect();
    let wanted: Vec<&String> = expected.keys().collect();
    assert_eq!(names, wanted, "{name}");
    for (file, (mode, content)) in found {
        let (wanted_mode, wanted_content) = match &expected[file] {
            Value::String(mode) => (mode.as_str(), &Value::Null),
            Value::Array(pair) => (pair[0].as_str().unwrap(), &pair[1]),
            other => panic!("{name}: {other}"),
        };
        assert_eq!(mode, wanted_mode, "{name}: {file}");
        match (content, wanted_content) {
            (Some(bytes), Value::String(text)) if file == "server.conf" && text.starts_with("# configuration") => {
                let first = String::from_utf8_lossy(bytes).lines().next().unwrap().to_owned();
                assert!(first.starts_with("# configuration file written in request "), "{first}");
                assert!(first.contains(" from choria=provisioner.choria (provisioner.choria) at 20"), "{first}");
                assert_eq!(lines_of(bytes), lines_of(text.as_bytes()), "{name}");
            }
            (Some(bytes), Value::String(text)) => assert_eq!(bytes, text.as_bytes(), "{name}: {file}"),
            (Some(bytes), Value::Number(_)) => assert!(!bytes.is_empty(), "{name}: {file}"),
            (None, Value::Null) => {}
            other => panic!("{name}: {file}: {other:?}"),
        }
    }
}

/// Files as after a good `configure`, where ours keeps what the original wipes: `groups` and the Rego policies.
fn expected_files(name: &str, row: &Value) -> Value {
    let mut files = row["files_after"].clone();
    if name == "rego good, then action policy wipes" {
        // The original leaves the rego directory of an older call; so does ours.
        return files;
    }
    let map = files.as_object_mut().unwrap();
    if map.contains_key("policies/") && !map.contains_key("policies/groups") {
        map.insert("policies/groups".into(), json!(["0644", "g a"]));
    }
    files
}

#[tokio::test(start_paused = true)]
async fn every_recorded_configure_call() {
    let rows = golden::lines("server/provision-configure.jsonl");
    assert_eq!(rows.len(), 50);
    for row in &rows {
        let name = member(row, "name");
        let lab = lenient(configure_world()).await;
        fs::write(lab.path().join("server.conf"), "old = 1\n").unwrap();
        fs::set_permissions(lab.path().join("server.conf"), fs::Permissions::from_mode(0o644)).unwrap();
        let before = tree(lab.path());
        let row = adapt(row, lab.path());
        let reply = lab.call("choria_provision", "configure", row["input"].clone()).await.unwrap();
        check_reply(name, &reply, &row["reply"], lab.path());
        let after = tree(lab.path());
        if reply.statuscode == 0 {
            check_tree(name, &after, &expected_files(name, &row));
            assert_eq!(lab.events(), ["provisioned.provision_mode_server"], "{name}");
        } else {
            // Whatever the original left behind in this case: here a refused call changes nothing.
            assert_eq!(after, before, "{name}: {}", reply.statusmsg);
            assert!(lab.events().is_empty(), "{name}");
        }
    }
    for difference in REFUSED {
        assert!(rows.iter().any(|row| row["name"] == difference.row), "there is no row {}", difference.row);
    }
}

/// The stock server asks more of a configuration than the recordings hold: it must be able to start with it.
#[tokio::test(start_paused = true)]
async fn design6_the_stock_server_refuses_configurations_it_could_not_start_with() {
    let (mut refused, mut anyway) = (0, 0);
    for row in golden::lines("server/provision-configure.jsonl") {
        let name = member(&row, "name");
        let lab = Lab::provisioning(configure_world(), ProviderCheck::Required).await;
        let before = tree(lab.path());
        let row = adapt(&row, lab.path());
        let reply = lab.call("choria_provision", "configure", row["input"].clone()).await.unwrap();
        assert_ne!(reply.statuscode, 0, "{name}");
        assert_eq!(tree(lab.path()), before, "{name}");
        if row["reply"]["statuscode"] != 0 || REFUSED.iter().any(|difference| difference.row == name) {
            // Refused for what it is, whichever check comes first.
            anyway += 1;
            continue;
        }
        let text = &reply.statusmsg;
        let expected = if row["input"]["config"].as_str().unwrap().contains("plugin.choria.server.provision") {
            "Could not write config: plugin.security.provider is puppet, with which this server could not start again"
        } else {
            "Could not write config: nodes are provisioned by default"
        };
        assert!(reply.statuscode == 1 && text.starts_with(expected), "{name}: {text}");
        refused += 1;
    }
    assert_eq!((refused, anyway), (14, 36));
}

/// Rows of the action sequence that ours answers differently, with our code and text.
const ACTION_DIFFERENCES: &[(&str, u8, &str)] = &[
    // The token comes before everything else.
    ("release_update wrong token, not enabled", 1, "Incorrect provision token supplied"),
    // Other words for data that is no object, and the body's action is not looked for.
    (
        "jwt data string",
        4,
        "Could not process request: could not parse incoming message as a MCollective SimpleRPC Request: data is not an object",
    ),
    // Payload keys are read as they are written; no client writes them otherwise.
    ("payload upper case keys", 2, "Unknown action  for agent choria_provision"),
    // Incomplete sets are refused, not dropped.
    (
        "configure key without certificate: key silently dropped",
        1,
        "TLS Setup Failed: certificate, ca and ssldir belong together and certificate is missing",
    ),
];

/// Rows whose key material is encrypted for a key of the recording.
fn needs_the_recordings_key(name: &str) -> bool {
    name == "configure with key" || name == "configure final"
}

#[tokio::test(start_paused = true)]
async fn every_recorded_action_while_provisioning() {
    let rows = golden::lines("server/provision-actions.jsonl");
    assert_eq!(rows.len(), 55);
    let directory = tempfile::tempdir().unwrap();
    let lab = Lab::provisioning(directory, ProviderCheck::Embedded).await;
    let (mut public_keys, mut trees) = (Vec::new(), 0);
    for row in rows.iter().filter(|row| row["state"] == "provisioning") {
        let name = member(row, "name");
        let row = adapt(row, lab.path());
        prepare_config(name, lab.path());
        if needs_the_recordings_key(name) {
            write_final_config(lab.path());
            continue;
        }
        let payload = match row["payload"].as_str() {
            Some(payload) => payload.to_owned(),
            None => json!({"agent": row["agent"], "action": row["action"], "data": row["input"]}).to_string(),
        };
        let mut ask = lab.ask(member(&row, "agent"), payload);
        (ask.caller, ask.sender) = (member(&row, "caller"), member(&row, "sender"));
        let reply = lab.send(&ask).await.unwrap_or_else(|| panic!("{name}: no reply"));
        match ACTION_DIFFERENCES.iter().find(|(row, ..)| *row == name) {
            Some((_, code, text)) => {
                assert_eq!((reply.statuscode, reply.statusmsg.as_str()), (*code, *text), "{name}");
            }
            None => check_reply(name, &reply, &row["reply"], lab.path()),
        }
        if !["payload upper case keys", "jwt data string"].contains(&name) {
            assert_eq!(reply.action, member(&row["reply"], "action"), "{name}");
        }
        check_data(name, &reply, &row, &lab, &mut public_keys);
        if name == "restart splay 1" {
            continue;
        }
        // Nothing is announced: the two rows of the original that are need its key, and one that drops a key is refused.
        assert!(lab.events().is_empty(), "{name}");
        if let Some(expected) = row["files_after"].as_object() {
            check_names_and_modes(name, &tree(lab.path()), expected);
            trees += 1;
        }
    }
    assert_eq!(trees, 34, "rows whose files were recorded");
    // A restart ends the server after its splay, with the shutdown event published right before.
    let exit = tokio::time::timeout(common::DEADLINE, lab.task).await.unwrap().unwrap().unwrap();
    assert_eq!(exit, Exit::Restart);
    let events: Vec<String> = lab.connector.take_events().iter().map(|event| event.kind.name().to_owned()).collect();
    assert_eq!(events.last().unwrap(), "shutdown", "{events:?}");
}

/// The same files with the same modes; the configuration, which the test puts there, with the same text.
fn check_names_and_modes(name: &str, found: &Tree, expected: &serde_json::Map<String, Value>) {
    let mode = |entry: &Value| entry.as_str().unwrap_or_else(|| entry[0].as_str().unwrap()).to_owned();
    let ours: Vec<(&str, &str)> = found.iter().map(|(file, (mode, _))| (file.as_str(), mode.as_str())).collect();
    let theirs: Vec<(String, String)> = expected.iter().map(|(file, entry)| (file.clone(), mode(entry))).collect();
    let theirs: Vec<(&str, &str)> = theirs.iter().map(|(file, mode)| (file.as_str(), mode.as_str())).collect();
    assert_eq!(ours, theirs, "{name}");
    if let Some((_, content)) = found.get("server.conf") {
        let wanted = expected["server.conf"][1].as_str().unwrap();
        assert_eq!(content.as_deref(), Some(wanted.as_bytes()), "{name}");
    }
}

/// The recordings change the file behind the server's back for these rows.
fn prepare_config(name: &str, root: &Path) {
    let file = root.join("server.conf");
    match name {
        "restart, provision=1 on disk" => fs::write(file, "plugin.choria.server.provision = 1\n").unwrap(),
        "restart, no config file" => fs::remove_file(file).unwrap(),
        "configure key, ecdh not hex" => fs::write(file, "old = 1\n").unwrap(),
        _ => {}
    }
}

fn write_final_config(root: &Path) {
    fs::write(root.join("server.conf"), "plugin.choria.server.provision=false\nidentity=t1.lab.test\n").unwrap();
}

fn check_data(name: &str, reply: &ReplyBody, row: &Value, lab: &Lab, public_keys: &mut Vec<String>) {
    let expected = row["reply"]["data"].as_object().unwrap();
    let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
    if reply.statuscode == 0 {
        let mut data = reply.data.as_object().unwrap().clone();
        // Ours in addition: it lets a provisioner ask all nodes for their requests with one signature.
        if member(&row["reply"], "action") == "jwt" {
            assert_eq!(data.remove("identity_csr"), Some(true.into()), "{name}");
        }
        assert_eq!(keys(&data), keys(expected), "{name}");
    } else {
        assert_eq!(reply.data, json!({}), "{name}");
        return;
    }
    let text = |key: &str| reply.data[key].as_str().unwrap().to_owned();
    match member(&row["reply"], "action") {
        "jwt" => {
            assert_eq!(text("jwt"), fs::read_to_string(lab.path().join("provisioning.jwt")).unwrap());
            assert_eq!(text("ecdh_public").len(), 64, "{name}");
            assert!(!public_keys.contains(&text("ecdh_public")), "{name}: the same key again");
            public_keys.push(text("ecdh_public"));
        }
        "gen25519" => {
            let nonce = row["input"]["nonce"].as_str().unwrap_or_default();
            let (public, signature) =
                (hex::decode(text("public_key")).unwrap(), hex::decode(text("signature")).unwrap());
            assert!(choria_tokens::keyfile::verify_ed25519(&public, nonce.as_bytes(), &signature), "{name}");
            assert_eq!(text("directory"), lab.path().display().to_string());
            check_mode(&lab.path().join("server.seed"), 0o600);
            assert_eq!(fs::read_to_string(lab.path().join("server.seed")).unwrap().len(), 64);
        }
        "gencsr" => check_csr(name, &text("csr"), &text("public_key"), row, lab),
        "restart" => assert_eq!(reply.data, row["reply"]["data"], "{name}"),
        other => panic!("{name}: {other}"),
    }
}

fn check_mode(path: &Path, mode: u32) {
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, mode, "{}", path.display());
}

fn check_csr(name: &str, text: &str, public: &str, row: &Value, lab: &Lab) {
    let facts = csr::inspect(text).unwrap();
    let input = |key: &str| row["input"][key].as_str().unwrap_or_default().to_owned();
    let cn = if input("cn").is_empty() { "t1.lab.test".to_owned() } else { input("cn") };
    // C, L, O, OU, CN in this order, without those that are empty; ST is ignored.
    let wanted: Vec<String> =
        ["C", "L", "O", "OU"].map(input).into_iter().chain([cn]).filter(|value| !value.is_empty()).collect();
    assert_eq!(facts.subject_values, wanted, "{name}");
    assert!(facts.alternative_names.is_empty(), "{name}");
    assert_eq!(facts.key, PublicKeyKind::P256, "{name}");
    let key = choria_security::keys::PrivateKey::load(lab.path().join("ssl/private.pem")).unwrap();
    assert!(key.matches(&facts.public_der), "{name}");
    assert_eq!(public, key.public_pem(), "{name}");
    assert_eq!(text, fs::read_to_string(lab.path().join("ssl/csr.pem")).unwrap(), "{name}");
    check_mode(&lab.path().join("ssl/private.pem"), 0o600);
    check_mode(&lab.path().join("ssl/csr.pem"), 0o644);
    check_mode(&lab.path().join("ssl"), 0o751);
}

#[tokio::test(start_paused = true)]
async fn every_recorded_action_after_provisioning() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("provisioning.jwt"), token(&common::provisioning_claims())).unwrap();
    let extra = format!("rpcauthorization = false\nlogfile = {LAB}/server.log\n");
    let fleet = common::member_in(directory, &extra, Vec::new()).await;
    let rows = golden::lines("server/provision-actions.jsonl");
    let mut last = None;
    for row in rows.iter().filter(|row| row["state"] == "normal") {
        let name = format!("{} {}", member(row, "name"), row["input"]);
        let reply = fleet.call("choria_provision", member(row, "action"), &row["input"]).await.unwrap();
        assert_eq!(u64::from(reply.statuscode), row["reply"]["statuscode"].as_u64().unwrap(), "{name}");
        assert_eq!(reply.statusmsg, member(&row["reply"], "statusmsg"), "{name}");
        last = Some((reply, row["files_after"]["server.conf"][1].as_str().map(str::to_owned)));
    }
    // The last row is the good reprovision.
    let (reply, written) = last.unwrap();
    let text = reply.data["message"].as_str().unwrap();
    let seconds: u32 = text.strip_prefix("Restarting after ").unwrap().strip_suffix('s').unwrap().parse().unwrap();
    assert!((2..=11).contains(&seconds), "{text}");
    let file = fleet.lab.path().join("server.conf");
    check_mode(&file, 0o600);
    let found = lines_of(&fs::read(&file).unwrap());
    let mut expected = lines_of(written.unwrap().as_bytes());
    // The name is kept (spec 03 §17 row 40).
    expected.push("identity=n1.lab.test".to_owned());
    expected.sort();
    assert_eq!(found, expected);
    // The wrong token of the same three actions was refused before anything happened; this one ends the server.
    let exit = tokio::time::timeout(common::DEADLINE, fleet.lab.task).await.unwrap().unwrap().unwrap();
    assert_eq!(exit, Exit::Restart);
    let environment = common::environment(fleet.lab.directory.path(), "mx.lab.test");
    let settings = choria_server::ServerSettings::load(Path::new("server.conf"), None, &environment, NOW).unwrap();
    assert!(settings.is_provisioning());
    assert_eq!(settings.identity(), "n1.lab.test");
}

#[tokio::test(start_paused = true)]
async fn the_written_file_looks_like_the_recording() {
    let golden = golden::text("server/written-server.conf");
    let lab = lenient(tempfile::tempdir().unwrap()).await;
    let config = json!({"plugin.choria.server.provision": "false", "identity": "n1.lab.test", "collectives": "a, b"});
    let input = json!({"token": "toomanysecrets", "config": config.to_string()});
    assert_eq!(lab.call("choria_provision", "configure", input).await.unwrap().statuscode, 0);
    let written = fs::read_to_string(lab.path().join("server.conf")).unwrap();
    let rest = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(rest(&written), rest(&golden));
    // Ours has no monotonic part and whole seconds.
    let shape = |text: &str| {
        let first = text.lines().next().unwrap().split(" m=").next().unwrap().to_owned();
        let words: Vec<&str> = first.split(' ').collect();
        let id = words[6].len();
        let time = words[words.len() - 3].split('.').next().unwrap().len();
        (words.len(), words[..6].join(" "), id, words[7..11].join(" "), time, words[words.len() - 2..].join(" "))
    };
    assert_eq!(shape(&written), shape(&golden));
}

#[tokio::test(start_paused = true)]
async fn design6_a_newline_in_a_value_injects_nothing() {
    let lab = lenient(tempfile::tempdir().unwrap()).await;
    for injected in ["n1\nrpcauthorization=0", "n1\r\nrpcauthorization=0", "n1\rrpcauthorization=0", "n1\u{0}x"] {
        let config = json!({"identity": injected}).to_string();
        let input = json!({"token": "toomanysecrets", "config": config});
        let reply = lab.call("choria_provision", "configure", input).await.unwrap();
        assert_eq!(reply.statuscode, 1, "{injected:?}");
        assert!(reply.statusmsg.contains("the value of identity holds a line end"), "{}", reply.statusmsg);
    }
    // Nor through the names in the first line, which come from an unsigned request.
    let config = json!({"identity": "n1"}).to_string();
    let payload = json!({"agent": "choria_provision", "action": "configure", "data": {"token": "toomanysecrets", "config": config}});
    let mut ask = lab.ask("choria_provision", payload.to_string());
    ask.caller = "choria=x\nrpcauthorization=0";
    if let Some(reply) = lab.send(&ask).await {
        assert_eq!(reply.statuscode, 0, "{}", reply.statusmsg);
        let written = fs::read_to_string(lab.path().join("server.conf")).unwrap();
        assert_eq!(written.lines().count(), 2, "{written}");
    }
}

#[tokio::test(start_paused = true)]
async fn files_of_gencsr_and_gen25519_get_their_modes_back() {
    let lab = Lab::provisioning(tempfile::tempdir().unwrap(), ProviderCheck::Required).await;
    fs::create_dir(lab.path().join("ssl")).unwrap();
    for name in ["ssl/private.pem", "server.seed"] {
        fs::write(lab.path().join(name), "open to everyone").unwrap();
        fs::set_permissions(lab.path().join(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    fs::write(lab.path().join("server.jwt"), "old").unwrap();
    for action in ["gencsr", "gen25519"] {
        let reply = lab.call("choria_provision", action, json!({"token": "toomanysecrets"})).await.unwrap();
        assert_eq!(reply.statuscode, 0, "{}", reply.statusmsg);
    }
    check_mode(&lab.path().join("ssl/private.pem"), 0o600);
    check_mode(&lab.path().join("server.seed"), 0o600);
    assert!(!lab.path().join("server.jwt").exists());
}

#[tokio::test(start_paused = true)]
async fn design6_wrong_tokens_neither_lock_nor_learn_anything() {
    let lab = Lab::provisioning(tempfile::tempdir().unwrap(), ProviderCheck::Required).await;
    let call = async |caller: &str, action: &str, token: &str| {
        let payload = json!({"agent": "choria_provision", "action": action, "data": {"token": token}}).to_string();
        let mut ask = lab.ask("choria_provision", payload);
        ask.caller = caller;
        lab.send(&ask).await.unwrap()
    };
    for action in ["jwt", "gen25519", "gencsr", "configure", "release_update", "restart", "reprovision", "shutdown"] {
        let reply = call("choria=attacker.choria", action, "wrong").await;
        assert_eq!((reply.statuscode, reply.statusmsg.as_str()), (1, "Incorrect provision token supplied"), "{action}");
    }
    let reply = call("choria=provisioner.choria", "jwt", "toomanysecrets").await;
    assert_eq!(reply.statuscode, 0, "the attacker holds the lock: {}", reply.statusmsg);
    // And who holds it is not locked out by others' wrong tokens.
    call("choria=attacker.choria", "jwt", "wrong").await;
    assert_eq!(call("choria=provisioner.choria", "jwt", "toomanysecrets").await.statuscode, 0);
    assert_eq!(
        call("choria=other.choria", "jwt", "toomanysecrets").await.statusmsg,
        "Could not obtain provisioning lock"
    );
}

#[tokio::test(start_paused = true)]
async fn design6_splay_is_bounded_and_does_not_block_other_actions() {
    let directory = tempfile::tempdir().unwrap();
    let lab = Lab::provisioning(directory, ProviderCheck::Required).await;
    let restart =
        |splay: i64| lab.call("choria_provision", "restart", json!({"token": "toomanysecrets", "splay": splay}));
    for splay in [-1, 100_000, i64::MIN, i64::MAX] {
        let reply = restart(splay).await.unwrap();
        assert_eq!(reply.statuscode, 4, "{splay}: {}", reply.statusmsg);
        assert!(reply.statusmsg.contains("splay must be from 0 to 3600 seconds"), "{}", reply.statusmsg);
    }
    let first = restart(3600).await.unwrap();
    assert_eq!(first.statuscode, 0, "{}", first.statusmsg);
    // Other actions answer while it waits, and a second wish learns when the first comes true.
    let reply = lab.call("choria_provision", "jwt", json!({"token": "toomanysecrets"})).await.unwrap();
    assert_eq!(reply.statuscode, 0);
    let again = restart(1).await.unwrap();
    assert_eq!((again.statusmsg.as_str(), &again.data), ("OK", &first.data));
}

#[tokio::test(start_paused = true)]
async fn shutdown_answers_then_announces_then_ends() {
    let lab = Lab::provisioning(tempfile::tempdir().unwrap(), ProviderCheck::Required).await;
    let reply = lab.call("choria_provision", "shutdown", json!({"token": "toomanysecrets"})).await.unwrap();
    let text = reply.data["message"].as_str().unwrap();
    assert!(text.starts_with("Shutting Choria Server down after "), "{text}");
    let exit = tokio::time::timeout(common::DEADLINE, lab.task).await.unwrap().unwrap().unwrap();
    assert_eq!(exit, Exit::Shutdown);
    let events: Vec<String> = lab.connector.take_events().iter().map(|event| event.subject()).collect();
    assert_eq!(events.last().unwrap(), "choria.lifecycle.event.shutdown.provision_mode_server");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_travels_is_checked_against_its_certificate() {
    use choria_security::ca::IssueRequest;
    use choria_security::keys::KeyKind;
    use choria_security::transfer::{TransferKey, encrypt_key};
    use choria_testkit::TestCa;

    let directory = tempfile::tempdir().unwrap();
    let ca = TestCa::at(directory.path().join("pki"), NOW);
    let lab = Lab::provisioning(directory, ProviderCheck::Required).await;
    let issued = ca.issue(&IssueRequest::new("t1.lab.test", KeyKind::P256));
    let other = ca.issue(&IssueRequest::new("t1.lab.test", KeyKind::P256));
    let jwt = lab.call("choria_provision", "jwt", json!({"token": "toomanysecrets"})).await.unwrap();
    let node = jwt.data["ecdh_public"].as_str().unwrap().to_owned();
    let own = TransferKey::generate().unwrap();
    let ssl = lab.path().join("ssl");
    let config = json!({
        "plugin.choria.server.provision": "false",
        "identity": "t1.lab.test",
        "plugin.security.provider": "file",
        "plugin.security.file.certificate": ssl.join("certificate.pem"),
        "plugin.security.file.key": ssl.join("private.pem"),
        "plugin.security.file.ca": ssl.join("ca.pem"),
    });
    let input = |key: &choria_security::keys::PrivateKey| {
        json!({
            "token": "toomanysecrets", "config": config.to_string(), "ssldir": ssl,
            "certificate": issued.certificate.pem, "ca": ca.certificate_pem(),
            "key": encrypt_key(&key.to_pem(), &own, &node).unwrap(), "ecdh_public": own.public_hex(),
        })
    };
    let reply = lab.call("choria_provision", "configure", input(&other.key)).await.unwrap();
    assert_eq!(reply.statusmsg, "TLS Setup Failed: the certificate is not for the private key that came with it");
    assert!(!ssl.exists());
    let reply = lab.call("choria_provision", "configure", input(&issued.key)).await.unwrap();
    assert_eq!(reply.statuscode, 0, "{}", reply.statusmsg);
    check_mode(&ssl.join("private.pem"), 0o600);
    check_mode(&ssl.join("certificate.pem"), 0o644);
    assert_eq!(fs::read_to_string(ssl.join("private.pem")).unwrap(), *issued.key.to_pem());

    // The next start is a member's.
    let (directory, _) = lab.stop().await;
    let environment = common::environment(directory.path(), "t1.lab.test");
    let settings = choria_server::ServerSettings::load(Path::new("server.conf"), None, &environment, NOW).unwrap();
    assert!(!settings.is_provisioning());
    choria_server::Server::builder(settings).build().unwrap();
}
