//! The agent `rpcutil`: what a node knows about itself (spec 03 §10.1).

use std::sync::Arc;

use async_trait::async_trait;
use choria_config::keys;
use choria_filter::facts;
use choria_rpc::ddl::Ddl;
use choria_rpc::{Agent, Call, Metadata, Reply, StatusCode};
use serde_json::{Map, Value, json};

use crate::context::ServerContext;
use crate::data::{self, ServerData};
use crate::inputs::Inputs;
use crate::shared::Shared;

const NAME: &str = "rpcutil";

const ACTIONS: [&str; 9] = [
    "agent_inventory",
    "collective_info",
    "daemon_stats",
    "get_config_item",
    "get_data",
    "get_fact",
    "get_facts",
    "inventory",
    "ping",
];

/// The agent.
#[derive(Debug)]
pub struct RpcUtil {
    metadata: Metadata,
    context: Arc<ServerContext>,
    shared: Arc<Shared>,
}

impl RpcUtil {
    /// The agent over this server's state.
    pub fn new(context: Arc<ServerContext>, shared: Arc<Shared>) -> Self {
        let version = &context.settings.build().version;
        Self {
            metadata: super::built_in(NAME, 2, crate::PROJECT_URL, "Choria RPC Utilities", version),
            context,
            shared,
        }
    }

    fn run(&self, call: &Call) -> Result<Value, Reply> {
        let inputs = Inputs::of(NAME, call);
        match call.action.as_str() {
            "ping" => Ok(json!({"pong": self.context.clock.now()})),
            "get_fact" => {
                let fact = inputs.text("fact")?;
                Ok(json!({"fact": fact, "value": lookup(&self.context.facts(), fact)}))
            }
            "get_facts" => {
                let names = inputs.text("facts")?;
                let facts = self.context.facts();
                let values: Map<String, Value> =
                    names.split(',').map(str::trim).map(|name| (name.to_owned(), lookup(&facts, name))).collect();
                Ok(json!({"values": values}))
            }
            "inventory" => Ok(self.inventory()),
            "agent_inventory" => Ok(self.agent_inventory()),
            "collective_info" => Ok(json!({
                "main_collective": self.context.config().get(&keys::MAIN_COLLECTIVE),
                "collectives": self.context.config().get(&keys::COLLECTIVES),
            })),
            "daemon_stats" => Ok(self.daemon_stats()),
            "get_config_item" => {
                let item = inputs.text("item")?;
                match data::config_item(&self.context, item) {
                    Some(value) => Ok(json!({"item": item, "value": value})),
                    None => Err(Reply::aborted("Unknown key")),
                }
            }
            "get_data" => self.get_data(inputs),
            other => Err(Reply::fail(StatusCode::UnknownAction, format!("Unknown action {other} for agent {NAME}"))),
        }
    }

    fn inventory(&self) -> Value {
        let context = &self.context;
        let data_plugins: &[&str] = if context.settings.is_provisioning() { &[] } else { &data::NAMES };
        json!({
            "agents": context.agent_names(),
            "classes": context.classes(),
            "collectives": context.config().get(&keys::COLLECTIVES),
            "data_plugins": data_plugins,
            "facts": context.facts(),
            "machines": [],
            "main_collective": context.config().get(&keys::MAIN_COLLECTIVE),
            "version": context.settings.build().version,
            "upgradable": context.config().get(&keys::SERVER_PROVISION_ALLOW_UPDATE),
        })
    }

    fn agent_inventory(&self) -> Value {
        let agents: Vec<Value> = self
            .context
            .agents()
            .iter()
            .map(|metadata| {
                let mut entry = Map::new();
                entry.insert("agent".to_owned(), Value::from(metadata.name.clone()));
                if let Ok(Value::Object(fields)) = serde_json::to_value(metadata) {
                    entry.extend(fields);
                }
                Value::Object(entry)
            })
            .collect();
        json!({"agents": agents})
    }

    fn daemon_stats(&self) -> Value {
        let context = &self.context;
        let stats = context.counters.stats();
        json!({
            "agents": context.agent_names(),
            "configfile": data::config_file(context),
            "filtered": stats.filtered,
            "pid": std::process::id(),
            "passed": stats.passed,
            "threads": [format!("Rust, {} cores", std::thread::available_parallelism().map_or(1, std::num::NonZero::get))],
            "replies": stats.replies,
            "starttime": context.started,
            "ttlexpired": stats.ttlexpired,
            "events": stats.events,
            "times": {"cstime": 0, "cutime": 0, "stime": 0, "utime": 0},
            "total": stats.total,
            "unvalidated": stats.invalid,
            "validated": stats.valid,
            "version": context.settings.build().version,
        })
    }

    fn get_data(&self, inputs: Inputs<'_>) -> Result<Value, Reply> {
        let (source, query) = (inputs.text("source")?, inputs.text("query")?);
        if self.context.settings.is_provisioning() {
            return Err(Reply::aborted("Could not load data sources"));
        }
        ServerData::new(&self.context).get(source, query).ok_or_else(|| Reply::aborted("Unknown data plugin"))
    }
}

fn lookup(facts: &Value, path: &str) -> Value {
    facts::lookup(facts, path).map(std::borrow::Cow::into_owned).unwrap_or_default()
}

#[async_trait]
impl Agent for RpcUtil {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn actions(&self) -> Vec<String> {
        ACTIONS.map(str::to_owned).to_vec()
    }

    fn ddl(&self) -> Option<&Ddl> {
        self.shared.rpcutil()
    }

    async fn call(&self, call: Call) -> Reply {
        self.run(&call).map_or_else(|refusal| refusal, Reply::ok)
    }
}
