//! The agent `choria_util`: the server's connection and its autonomous agents, of which this version has none
//! (spec 03 §10.2).

use std::sync::Arc;

use async_trait::async_trait;
use choria_config::keys;
use choria_rpc::ddl::Ddl;
use choria_rpc::{Agent, Call, Metadata, Reply, StatusCode};
use serde_json::{Value, json};

use crate::context::ServerContext;
use crate::inputs::Inputs;
use crate::shared::Shared;

const NAME: &str = "choria_util";

const ACTIONS: [&str; 4] = ["info", "machine_state", "machine_states", "machine_transition"];

/// The agent.
#[derive(Debug)]
pub struct ChoriaUtil {
    metadata: Metadata,
    context: Arc<ServerContext>,
    shared: Arc<Shared>,
}

impl ChoriaUtil {
    /// The agent over this server's state.
    pub fn new(context: Arc<ServerContext>, shared: Arc<Shared>) -> Self {
        let version = &context.settings.build().version;
        Self { metadata: super::built_in(NAME, 10, crate::PROJECT_URL, "Choria Utilities", version), context, shared }
    }

    fn run(&self, call: &Call) -> Result<Reply, Reply> {
        let inputs = Inputs::of(NAME, call);
        match call.action.as_str() {
            "info" => Ok(Reply::ok(self.info())),
            "machine_states" => Ok(Reply::ok(json!({"machine_ids": [], "machine_names": [], "states": {}}))),
            "machine_state" => {
                let given = [inputs.text("name")?, inputs.text("instance")?, inputs.text("path")?];
                let asked = given.iter().any(|text| !text.is_empty());
                let text = if asked { "No running machines" } else { "No search criteria given" };
                Ok(Reply { code: StatusCode::Aborted, message: text.to_owned(), data: no_machine() })
            }
            "machine_transition" => self.transition(inputs),
            other => Err(Reply::fail(StatusCode::UnknownAction, format!("Unknown action {other} for agent {NAME}"))),
        }
    }

    fn transition(&self, inputs: Inputs<'_>) -> Result<Reply, Reply> {
        let text = |name| inputs.text(name);
        let message = format!(
            "Could not perform {} transition: could not find machine matching criteria name='{}', version='{}', path='{}', id='{}'",
            text("transition")?,
            text("name")?,
            text("version")?,
            text("path")?,
            text("instance")?
        );
        Ok(Reply { code: StatusCode::Aborted, message, data: json!({"success": false}) })
    }

    fn info(&self) -> Value {
        let context = &self.context;
        let config = context.config();
        let stats = context.connector.stats();
        let servers = config.get(&keys::MIDDLEWARE_HOSTS);
        let plain: Vec<&str> = servers.iter().map(|entry| entry.rsplit("://").next().unwrap_or(entry)).collect();
        let tls = context.settings.build().tls;
        json!({
            "security": "choria",
            "connector": "choria",
            "client_version": env!("CARGO_PKG_VERSION"),
            "client_flavour": "choria-connector",
            "client_options": {
                "servers": plain.iter().map(|entry| format!("nats://{entry}")).collect::<Vec<_>>(),
                "dont_randomize_servers": false,
                "name": context.settings.identity(),
                "pedantic": false,
                "secure": tls,
                "allow_reconnect": true,
                "max_reconnect_attempts": -1,
                "reconnect_time_wait": 2,
                "connect_timeout": config.get(&keys::NETWORK_CONNECT_TIMEOUT).as_secs_f64(),
                "ping_interval": 120,
                "max_outstanding_pings": 2,
            },
            "client_stats": {
                "in_msgs": stats.in_msgs,
                "out_msgs": stats.out_msgs,
                "in_bytes": stats.in_bytes,
                "out_bytes": stats.out_bytes,
                "reconnects": stats.reconnects,
            },
            "connected_server": context.connected_server(),
            "facter_domain": "",
            "facter_command": "",
            "srv_domain": config.get(&keys::SRV_DOMAIN).unwrap_or_default(),
            "using_srv": config.get(&keys::USE_SRV),
            "middleware_servers": plain,
            "path": std::env::var("PATH").unwrap_or_default(),
            "choria_version": format!("choria {}", context.settings.build().version),
            "secure_protocol": !context.settings.is_provisioning(),
            "connector_tls": tls,
        })
    }
}

/// The state object of a machine that does not exist.
fn no_machine() -> Value {
    json!({
        "name": "unknown machine",
        "version": "unknown machine",
        "state": "unknown machine",
        "path": "",
        "id": "",
        "start_time": 0,
        "available_transitions": null,
        "scout": false,
    })
}

#[async_trait]
impl Agent for ChoriaUtil {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn actions(&self) -> Vec<String> {
        ACTIONS.map(str::to_owned).to_vec()
    }

    fn ddl(&self) -> Option<&Ddl> {
        self.shared.choria_util()
    }

    async fn call(&self, call: Call) -> Reply {
        self.run(&call).unwrap_or_else(|refusal| refusal)
    }
}
