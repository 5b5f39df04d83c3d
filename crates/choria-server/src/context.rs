//! What agents, filters, registration and the status file can see of the server.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use choria_config::{Config, keys};
use choria_connector::{Connector, Status as Connection};
use choria_filter::{MatchError, NodeView, classes, facts, matches};
use choria_protocol::filter::Filter;
use choria_rpc::Metadata;
use choria_security::atomic;
use choria_security::cert;
use serde_json::Value;

use crate::clock::Clock;
use crate::counters::Counters;
use crate::data::ServerData;
use crate::go_text;
use crate::settings::ServerSettings;
use crate::status::Status;

/// Largest certificate file that is read for its expiry.
const MAX_CERTIFICATE: u64 = 256 * 1024;

/// One server's state, shared by everything that describes it.
pub struct ServerContext {
    /// Settings.
    pub settings: Arc<ServerSettings>,
    /// Counters.
    pub counters: Arc<Counters>,
    /// Clock.
    pub clock: Clock,
    /// Connection.
    pub connector: Arc<dyn Connector>,
    /// Unix seconds of the start.
    pub started: i64,
    /// Descriptions of the hosted agents by name; set once, when all are registered.
    agents: OnceLock<Vec<Metadata>>,
    names: OnceLock<Vec<String>>,
}

impl std::fmt::Debug for ServerContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerContext").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ServerContext {
    /// The state of a server that starts now.
    pub fn new(
        settings: Arc<ServerSettings>,
        counters: Arc<Counters>,
        clock: Clock,
        connector: Arc<dyn Connector>,
    ) -> Self {
        let started = clock.now();
        Self { settings, counters, clock, connector, started, agents: OnceLock::new(), names: OnceLock::new() }
    }

    /// Tells which agents are hosted. Later calls change nothing.
    pub(crate) fn set_agents(&self, mut agents: Vec<Metadata>) {
        agents.sort_by(|a, b| a.name.cmp(&b.name));
        let _ = self.names.set(agents.iter().map(|agent| agent.name.clone()).collect());
        let _ = self.agents.set(agents);
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        self.settings.config()
    }

    /// Descriptions of the hosted agents, sorted by name.
    pub fn agents(&self) -> &[Metadata] {
        self.agents.get().map_or(&[], Vec::as_slice)
    }

    /// Names of the hosted agents, sorted.
    pub fn agent_names(&self) -> &[String] {
        self.names.get().map_or(&[], Vec::as_slice)
    }

    /// The node's facts, read anew.
    pub fn facts(&self) -> Value {
        let loaded = facts::load(self.config().get(&keys::YAML));
        for problem in &loaded.problems {
            tracing::warn!("{problem}");
        }
        loaded.facts
    }

    /// The node's classes, read anew, sorted; an unreadable file gives none.
    pub fn classes(&self) -> Vec<String> {
        let path = self.config().get(&keys::CLASSESFILE);
        classes::load(&path).unwrap_or_default()
    }

    /// Whether a filter matches this node. Files are read only for filters that ask for what they hold.
    ///
    /// # Errors
    /// The filter cannot be evaluated.
    pub fn matches(&self, filter: &Filter) -> Result<bool, MatchError> {
        let compound = !filter.compound.is_empty();
        let classes = if compound || !filter.cf_class.is_empty() { self.classes() } else { Vec::new() };
        let facts = if compound || !filter.fact.is_empty() { self.facts() } else { Value::Null };
        let identity = self.settings.identity();
        let node = NodeView::new(&identity, self.agent_names(), &classes, &facts).at(self.clock.now());
        let data = ServerData::new(self);
        // A node that waits to be provisioned has no data plugins (spec 01 §7.3).
        let node = if compound && !self.settings.is_provisioning() { node.with_data(&data) } else { node };
        matches(filter, &node)
    }

    /// Seconds since the start.
    pub fn uptime(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.clock.now() - self.started).unwrap_or(0))
    }

    /// The broker as `nats://host:port`, empty while not connected.
    pub fn connected_server(&self) -> String {
        match &*self.connector.status().borrow() {
            Connection::Connected { server } => server.clone(),
            _ => String::new(),
        }
    }

    /// The content of the status file now.
    pub fn status(&self) -> Status {
        let (connected_server, connection_error) = match &*self.connector.status().borrow() {
            Connection::Connected { server } => (server.clone(), None),
            Connection::Connecting { last_error } => ("unknown".to_owned(), last_error.clone()),
            Connection::Disconnected { reason } => (String::new(), Some(reason.clone())),
            Connection::Closed => (String::new(), None),
        };
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Status {
            identity: self.settings.identity(),
            uptime: seconds(self.uptime()),
            connected_server,
            last_message: self.counters.last_message.load(std::sync::atomic::Ordering::Relaxed),
            provisioning_mode: self.settings.is_provisioning(),
            stats: self.counters.stats(),
            certificate_expires: go_text::rfc3339(self.certificate_expires()),
            token_expires: go_text::rfc3339(None),
            connection_error,
        }
    }

    /// Unix seconds of the end of the certificate, read anew: it may have been renewed.
    fn certificate_expires(&self) -> Option<i64> {
        if self.settings.is_provisioning() {
            return None;
        }
        let path = self.config().get(&keys::SECURITY_FILE_CERTIFICATE)?;
        let text = atomic::read_text(path, MAX_CERTIFICATE).ok()?;
        Some(cert::first_from_pem(&text).ok()?.not_after)
    }
}
