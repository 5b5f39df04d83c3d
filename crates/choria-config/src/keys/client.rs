//! The client (spec 05 §9).

use std::path::PathBuf;
use std::time::Duration;

use crate::key::{Kind, Spec};
use crate::keys::settings;
use crate::types::{DiscoveryMethod, LimitMethod};

settings! {
    CLIENT_GROUP, "Client", "Read by commands that speak to a fleet.";
    keys {
        /// How long discovery waits for nodes.
        DISCOVERY_TIMEOUT: Duration = Spec::new("discovery_timeout", Kind::Seconds { min: 1, max: 3_600 }).default("2");
        /// How nodes are found. This version has `mc` and `broadcast`.
        DEFAULT_DISCOVERY_METHOD: DiscoveryMethod = Spec::new("default_discovery_method", Kind::Choice(DiscoveryMethod::WORDS)).default("mc");
        /// Options of the discovery method, one `key=value` per line.
        DEFAULT_DISCOVERY_OPTIONS: Vec<String> = Spec::new("default_discovery_options", Kind::Lines).default("").planned();
        /// Which nodes a limit keeps.
        RPCLIMITMETHOD: LimitMethod = Spec::new("rpclimitmethod", Kind::Choice(LimitMethod::WORDS)).default("first");
        /// Refuse requests without any filter.
        REQUIRE_CLIENT_FILTER: bool = Spec::new("plugin.choria.require_client_filter", Kind::Boolean).default("0");
        /// End broadcast discovery when answers stop coming instead of at the time-out.
        DISCOVERY_BROADCAST_WINDOWED_TIMEOUT: bool = Spec::new("plugin.choria.discovery.broadcast.windowed_timeout", Kind::Boolean).default("0");
        /// Program of the external discovery method.
        DISCOVERY_EXTERNAL_COMMAND: Option<PathBuf> = Spec::new("plugin.choria.discovery.external.command", Kind::Path).planned();
        /// File of the inventory discovery method.
        DISCOVERY_INVENTORY_SOURCE: Option<PathBuf> = Spec::new("plugin.choria.discovery.inventory.source", Kind::Path).planned();
        /// Host of PuppetDB.
        PUPPETDB_HOST: Option<String> = Spec::new("plugin.choria.puppetdb_host", Kind::Text).planned();
        /// Port of PuppetDB.
        PUPPETDB_PORT: u16 = Spec::new("plugin.choria.puppetdb_port", Kind::Integer { min: 1, max: 65_535 }).default("8081").planned();
        /// Directory where DDL files from the registry are kept.
        SERVICES_REGISTRY_CACHE: Option<PathBuf> = Spec::new("plugin.choria.services.registry.cache", Kind::Path).env("CHORIA_REGISTRY").planned();
    }
    families {}
}
