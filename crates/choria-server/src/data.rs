//! Data plugins: named look-ups for compound filters and `rpcutil#get_data` (spec 03 §11.3). Two of them belong to the
//! server itself: `choria` and `config_item`.

use choria_config::{Value as Setting, keys};
use choria_filter::{DataSource, DataSources};
use serde_json::{Value, json};

use crate::context::ServerContext;

/// Names of the plugins, sorted.
pub const NAMES: [&str; 2] = ["choria", "config_item"];

/// The plugins of one server.
#[derive(Debug, Clone)]
pub struct ServerData<'a> {
    context: &'a ServerContext,
    sources: [DataSource; 2],
}

impl<'a> ServerData<'a> {
    /// The plugins over this server's state.
    pub fn new(context: &'a ServerContext) -> Self {
        let source = |name: &str, takes_query| DataSource { name: name.to_owned(), takes_query };
        Self { context, sources: [source("choria", false), source("config_item", true)] }
    }

    /// What the plugin answers; `None` if there is no such plugin.
    pub fn get(&self, plugin: &str, query: &str) -> Option<Value> {
        match plugin {
            "choria" => Some(self.choria()),
            "config_item" => {
                let value = config_item(self.context, query);
                Some(json!({"present": value.is_some(), "value": value}))
            }
            _ => None,
        }
    }

    fn choria(&self) -> Value {
        let context = self.context;
        let (agents, classes) = (context.agent_names(), context.classes());
        let stats = context.counters.stats();
        let build = context.settings.build();
        json!({
            "agents": agents,
            "agents_count": agents.len(),
            "built": build.build_date,
            "classes": classes,
            "classes_count": classes.len(),
            "commit": build.sha,
            "configfile": config_file(context),
            "connected_broker": context.connected_server(),
            "cpus": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            "events": stats.events,
            "filtered": stats.filtered,
            "go_version": "",
            "goroutines": 0,
            "license": "Apache-2.0",
            "machines": [],
            "machines_count": 0,
            "passed": stats.passed,
            "pid": std::process::id(),
            "provisioning": context.settings.is_provisioning(),
            "replies": stats.replies,
            "total": stats.total,
            "ttlexpired": stats.ttlexpired,
            "unvalidated": stats.invalid,
            "uptime": context.uptime().as_secs(),
            "validated": stats.valid,
            "version": build.version,
        })
    }
}

/// The configuration file's path as text.
pub(crate) fn config_file(context: &ServerContext) -> String {
    context.settings.config_file().map(|path| path.display().to_string()).unwrap_or_default()
}

/// The value of a known key in its native type; durations with units in nanoseconds, as the original sends them.
/// Secrets are hidden (spec 03 §17 row 6).
pub(crate) fn config_item(context: &ServerContext, name: &str) -> Option<Value> {
    let spec = keys::find(name)?;
    let value = context.config().value_of(name);
    if spec.secret {
        return Some(Value::from(if value.is_some() { "(hidden)" } else { "" }));
    }
    Some(match value {
        Some(Setting::Text(text)) => Value::from(text),
        Some(Setting::Integer(number)) => Value::from(number),
        Some(Setting::Boolean(flag)) => Value::from(flag),
        Some(Setting::List(list)) if matches!(spec.kind, choria_config::Kind::PathList { .. }) => {
            Value::from(list.join(":"))
        }
        Some(Setting::List(list)) => Value::from(list),
        Some(Setting::Duration(duration)) if matches!(spec.kind, choria_config::Kind::Seconds { .. }) => {
            Value::from(duration.as_secs())
        }
        Some(Setting::Duration(duration)) => Value::from(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        None => zero(&spec.kind),
    })
}

/// What Go sends for a setting that is not set.
fn zero(kind: &choria_config::Kind) -> Value {
    use choria_config::Kind;
    match kind {
        Kind::Boolean => Value::from(false),
        Kind::Integer { .. } | Kind::Seconds { .. } | Kind::Duration { .. } | Kind::FileMode => Value::from(0),
        Kind::List | Kind::Lines | Kind::Choices(_) | Kind::Collectives | Kind::Hosts | Kind::Networks => {
            Value::Array(Vec::new())
        }
        _ => Value::from(""),
    }
}

impl DataSources for ServerData<'_> {
    fn sources(&self) -> &[DataSource] {
        &self.sources
    }

    fn query(&self, name: &str, query: Option<&str>) -> Option<Value> {
        self.get(name, query.unwrap_or_default())
    }
}
