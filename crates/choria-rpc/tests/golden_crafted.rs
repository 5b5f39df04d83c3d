//! Crafted requests whose fate is decided by their RPC body (`testdata/protocol/v1/crafted`): what a server with the policy
//! of the recording answers.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use choria_filter::NodeView;
use choria_protocol::rpc::{ReplyBody, decode_payload};
use choria_protocol::v1;
use choria_rpc::authz::{ActionPolicy, ActionPolicySettings};
use choria_rpc::ddl::{Ddl, embedded};
use choria_rpc::dispatch::Dispatcher;
use choria_rpc::{Agent, Call, CallContext, Metadata, Reply};
use serde_json::{Value, json};

struct RpcUtil(Ddl);

#[async_trait]
impl Agent for RpcUtil {
    fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    fn actions(&self) -> Vec<String> {
        self.0.action_names()
    }

    fn ddl(&self) -> Option<&Ddl> {
        Some(&self.0)
    }

    async fn call(&self, _: Call) -> Reply {
        Reply::ok(json!({}))
    }
}

async fn answer(name: &str) -> (ReplyBody, Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/protocol/v1/crafted").join(name);
    let row: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let request = v1::decode_request(row["wire"].as_str().unwrap().as_bytes()).unwrap().request;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rpcutil.policy"), "policy default allow\n").unwrap();
    let policy = ActionPolicy::new(ActionPolicySettings {
        directory: dir.path().to_owned(),
        allow_unconfigured: false,
        enable_default: false,
        default_name: "default".to_owned(),
    });
    let dispatcher = Dispatcher { authorizer: Some(Arc::new(policy)), audit: None };
    let envelope = request.envelope;
    let context = CallContext {
        request_id: envelope.request_id,
        sender: envelope.sender_id,
        caller: envelope.caller_id,
        collective: envelope.collective,
        agent: envelope.agent,
        ttl: envelope.ttl,
        time: envelope.time,
    };
    let facts = json!({"country": "mt"});
    let node = NodeView::new("node0.lab.test", &[], &[], &facts);
    let agent = RpcUtil(embedded("rpcutil").unwrap());
    let payload = decode_payload(&request.message);
    (dispatcher.dispatch(&agent, context, &payload, &node, jiff::Timestamp::UNIX_EPOCH).await, row)
}

#[tokio::test]
async fn bodies_are_answered_as_recorded() {
    for name in [
        "valid.json",
        "action-missing.json",
        "action-unknown.json",
        "body-agent-differs-from-envelope-agent.json",
        "body-agent-missing.json",
        "body-json-array.json",
        "body-not-json.json",
        "body-std64-of-valid-json.json",
        "data-missing.json",
        "data-null.json",
        "process-results-and-caller-ruby-extras.json",
        "unknown-input-key.json",
        // These pass the DDL as it is documented: up to 512 characters of any kind.
        "input-too-long.json",
        "input-shellsafe-violation.json",
    ] {
        let (body, row) = answer(name).await;
        let recorded: Value = serde_json::from_str(row["replies"][0]["payload_text"].as_str().unwrap()).unwrap();
        assert_eq!(body.statuscode, recorded["statuscode"], "{name}");
        assert_eq!(body.action, recorded["action"].as_str().unwrap(), "{name}");
        // Behind the colon are words of a JSON library.
        let fixed = |text: &str| text.split("SimpleRPC Request: ").next().unwrap().to_owned();
        assert_eq!(fixed(&body.statusmsg), fixed(recorded["statusmsg"].as_str().unwrap()), "{name}");
        assert!(body.data.is_object(), "{name}");
    }
}

#[tokio::test]
async fn inputs_are_checked_on_the_server() {
    for (name, text) in [
        ("required-input-missing.json", "Validation failed: input 'fact' is required"),
        (
            "data-string.json",
            "Could not process request: could not parse incoming message as a MCollective SimpleRPC Request: data is not an object",
        ),
    ] {
        let (body, row) = answer(name).await;
        assert_eq!((body.statuscode, body.statusmsg.as_str()), (4, text), "{name}");
        assert_eq!(row["original"], "replied", "{name}: the original runs it");
    }
}
