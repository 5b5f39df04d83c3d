use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::agent::Metadata;
use crate::audit::AuditSettings;
use crate::authz::{ActionPolicy, ActionPolicySettings, Provider};
use crate::ddl::{Ddl, embedded};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

struct Echo {
    ddl: Ddl,
}

impl Echo {
    fn new() -> Self {
        Self { ddl: embedded("rpcutil").unwrap() }
    }
}

#[async_trait]
impl Agent for Echo {
    fn metadata(&self) -> &Metadata {
        &self.ddl.metadata
    }

    fn actions(&self) -> Vec<String> {
        let mut actions = self.ddl.action_names();
        actions.extend(["slow".to_owned(), "nothing".to_owned()]);
        actions
    }

    fn ddl(&self) -> Option<&Ddl> {
        Some(&self.ddl)
    }

    async fn call(&self, call: Call) -> Reply {
        match call.action.as_str() {
            "slow" => std::future::pending().await,
            "nothing" => Reply::ok(Value::Null),
            _ => Reply::ok(Value::Object(call.data)),
        }
    }
}

fn context(caller: &str) -> CallContext {
    CallContext {
        request_id: "6ee38d45b3b34147841c5b48481bdad0".to_owned(),
        sender: "tester.mcollective".to_owned(),
        caller: format!("choria={caller}.mcollective"),
        collective: "mcollective".to_owned(),
        agent: "rpcutil".to_owned(),
        ttl: 60,
        time: 1_795_170_647,
    }
}

async fn run(dispatcher: &Dispatcher, caller: &str, payload: &str) -> ReplyBody {
    let facts = choria_filter::facts::load([testdata("server/facts.yaml")]).facts;
    let classes = choria_filter::classes::load(&testdata("server/classes.txt")).unwrap();
    let agents = ["rpcutil".to_owned()];
    let node = NodeView::new("n1.lab.test", &agents, &classes, &facts);
    dispatcher.dispatch(&Echo::new(), context(caller), payload.as_bytes(), &node, Timestamp::UNIX_EPOCH).await
}

fn code(body: &ReplyBody) -> (u8, &str) {
    (body.statuscode, &body.statusmsg)
}

#[tokio::test]
async fn refusals_have_the_recorded_codes_and_words() {
    let open = Dispatcher::default();
    for (payload, status, text) in [
        (
            "hello",
            4,
            "Could not process request: could not parse incoming message as a MCollective SimpleRPC Request: ",
        ),
        ("[]", 4, "Could not process request: could not parse incoming message as a MCollective SimpleRPC Request: "),
        (r#"{"agent":"rpcutil","action":"ping","data":"x"}"#, 4, "Could not process request: "),
        (r#"{"agent":"rpcutil","action":"nosuch"}"#, 2, "Unknown action nosuch for agent rpcutil"),
        (r#"{"agent":"rpcutil","action":"PING"}"#, 2, "Unknown action PING for agent rpcutil"),
        (r#"{"agent":"rpcutil"}"#, 2, "Unknown action  for agent rpcutil"),
        (r#"{"action":"get_fact"}"#, 4, "Validation failed: input 'fact' is required"),
        (
            r#"{"action":"get_fact","data":{"fact":5}}"#,
            4,
            "Validation failed: validation failed for input 'fact': is not a string",
        ),
        (r#"{"action":"ping","data":{"nosuch":1,"process_results":true}}"#, 0, "OK"),
        (r#"{"action":"get_fact","data":{"FACT":"a;b"}}"#, 0, "OK"),
        (r#"{"action":"nothing"}"#, 0, "OK"),
    ] {
        let body = run(&open, "tester", payload).await;
        assert_eq!(body.statuscode, status, "{payload}");
        assert!(body.statusmsg.starts_with(text), "{payload}: {}", body.statusmsg);
        assert!(body.data.is_object(), "{payload}");
    }
    assert_eq!(run(&open, "tester", "hello").await.action, "");
    assert_eq!(run(&open, "tester", r#"{"action":"nosuch"}"#).await.action, "nosuch");
}

#[tokio::test(start_paused = true)]
async fn design6_an_agent_that_takes_too_long_is_answered_for() {
    let started = tokio::time::Instant::now();
    let body = run(&Dispatcher::default(), "tester", r#"{"action":"slow"}"#).await;
    assert_eq!(code(&body), (5, "agent did not answer within 2s"));
    assert_eq!(body.action, "slow");
    assert_eq!(started.elapsed().as_secs(), Duration::from_secs(2).as_secs());
}

/// A dispatcher whose configuration directory holds the files of a recorded case.
fn dispatcher(dir: &Path, case: &Value) -> Dispatcher {
    for (name, text) in case["files"].as_object().unwrap() {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.as_str().unwrap()).unwrap();
    }
    let config = case["config"].as_str().unwrap();
    let value = |key: &str| {
        let line = config.lines().find_map(|line| line.split_once(" = ").filter(|(name, _)| *name == key));
        line.map(|(_, value)| value.to_owned())
    };
    let on = |key: &str| value(key).is_some_and(|value| matches!(value.as_str(), "1" | "y" | "yes"));
    let policy = ActionPolicy::new(ActionPolicySettings {
        directory: dir.join("policies"),
        allow_unconfigured: on("plugin.actionpolicy.allow_unconfigured"),
        enable_default: on("plugin.actionpolicy.enable_default"),
        default_name: value("plugin.actionpolicy.default_name").unwrap_or_else(|| "default".to_owned()),
    });
    let audit = AuditSettings { path: dir.join("audit.log"), mode: 0o600, group: None };
    Dispatcher { authorizer: Some(Arc::new(policy)), audit: Some(Arc::new(AuditLog::new(audit))) }
}

#[tokio::test]
async fn policies_decide_as_recorded() {
    let text = std::fs::read_to_string(testdata("server/authz.jsonl")).unwrap();
    let mut checked = 0;
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        let config = case["config"].as_str().unwrap();
        let provider = config.lines().find_map(|line| line.strip_prefix("rpcauthprovider = ")).unwrap();
        if provider != "action_policy" {
            assert!(Provider::parse(provider).is_err(), "{name}: a reason not to start");
            continue;
        }
        checked += 1;
        let dir = tempfile::tempdir().unwrap();
        let dispatcher = dispatcher(dir.path(), &case);
        // Classes with capitals can be found here (spec 01 sharp edge 16).
        let different = name == "classes mixed case exact";
        let mut allowed = 0;
        for call in case["calls"].as_array().unwrap() {
            let [caller, action] = [&call[0], &call[1]].map(|value| value.as_str().unwrap());
            let data = if action == "get_fact" { json!({"fact": "os.family"}) } else { json!({}) };
            let payload = json!({"agent": "rpcutil", "action": action, "data": data}).to_string();
            let body = run(&dispatcher, caller, &payload).await;
            let expected =
                if different { (0, "OK") } else { (call[2].as_u64().unwrap() as u8, call[3].as_str().unwrap()) };
            assert_eq!(code(&body), expected, "{name}: {caller} {action}");
            allowed += usize::from(body.statuscode == 0);
        }
        let lines = std::fs::read_to_string(dir.path().join("audit.log")).map_or(0, |text| text.lines().count());
        assert_eq!(lines, allowed, "{name}: only calls that ran are in the audit log");
        assert_eq!(lines as u64, if different { 2 } else { case["audit_lines"].as_u64().unwrap() }, "{name}");
    }
    assert_eq!(checked, 38);
}

#[tokio::test]
async fn with_authorization_the_body_must_name_the_agent_it_was_sent_to() {
    let dir = tempfile::tempdir().unwrap();
    let case = json!({"files": {"policies/rpcutil.policy": "policy default allow\n"}, "config": ""});
    let dispatcher = dispatcher(dir.path(), &case);
    for (payload, status) in [
        (r#"{"agent":"rpcutil","action":"ping"}"#, 0),
        (r#"{"agent":"other","action":"ping"}"#, 1),
        (r#"{"action":"ping"}"#, 1),
    ] {
        assert_eq!(run(&dispatcher, "tester", payload).await.statuscode, status, "{payload}");
    }
    let denied = std::fs::read_to_string(dir.path().join("audit.log.denied")).unwrap();
    assert_eq!(denied.lines().count(), 2);
}
