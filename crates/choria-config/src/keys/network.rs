//! How programs find and reach a broker.

use std::path::PathBuf;
use std::time::Duration;

use crate::key::{Kind, Spec};
use crate::keys::settings;

settings! {
    NETWORK_GROUP, "Finding and reaching a broker",
    "In this order: federation hosts when federated, `plugin.choria.middleware_hosts`, DNS SRV records, `puppet:4222`. A server that waits to be provisioned uses none of them but what its token says.";
    keys {
        /// Brokers, each `host:port` or `nats://host:port`.
        MIDDLEWARE_HOSTS: Vec<String> = Spec::new("plugin.choria.middleware_hosts", Kind::Hosts).default("");
        /// Look brokers up in DNS when none are listed.
        USE_SRV: bool = Spec::new("plugin.choria.use_srv", Kind::Boolean).default("1");
        /// Domain of the SRV records.
        SRV_DOMAIN: Option<String> = Spec::new("plugin.choria.srv_domain", Kind::Text)
            .env("CHORIA_SRV_DOMAIN")
            .computed("facter's `networking.domain`");
        /// How long one attempt to reach a broker may take.
        NETWORK_CONNECT_TIMEOUT: Duration = Spec::new("plugin.choria.network.connect_timeout", Kind::Duration { min_ms: 1, max_ms: 120_000 })
            .default("2s")
            .zero_is_default();
        /// User name for brokers that ask for one.
        NATS_USER: Option<String> = Spec::new("plugin.nats.user", Kind::Text).env("MCOLLECTIVE_NATS_USERNAME");
        /// Password for that user.
        NATS_PASS: Option<String> = Spec::new("plugin.nats.pass", Kind::Text).env("MCOLLECTIVE_NATS_PASSWORD").secret();
        /// NATS credentials file.
        NATS_CREDENTIALS: Option<PathBuf> = Spec::new("plugin.nats.credentials", Kind::Path).env("MCOLLECTIVE_NATS_CREDENTIALS").planned();
        /// Federation clusters that requests are sent through. Must be unset on a federation broker.
        FEDERATION_COLLECTIVES: Vec<String> = Spec::new("plugin.choria.federation.collectives", Kind::List)
            .default("")
            .env("CHORIA_FED_COLLECTIVE")
            .planned();
        /// Brokers of the federation network.
        FEDERATION_MIDDLEWARE_HOSTS: Vec<String> = Spec::new("plugin.choria.federation_middleware_hosts", Kind::Hosts).default("").planned();
    }
    families {}
}
