//! Keys of older Choria and MCollective releases: read without complaint, without effect.

use crate::key::{Kind, Spec, Status};
use crate::keys::Group;

const MCOLLECTIVE: &str = "an MCollective setting that Choria does not use";

const fn gone(name: &'static str, reason: &'static str) -> Spec {
    let mut spec = Spec::new(name, Kind::Text).named("", "No effect.");
    spec.status = Status::Legacy(reason);
    spec
}

/// Not settings of this program, so there are no typed constants.
pub(crate) static GROUP: Group = Group {
    title: "Without effect",
    intro: "Keys of older Choria and MCollective releases. A file that holds them loads; the debug log names each.",
    keys: &[
        gone("plugin.security.file.cache", "certificates come with every request; there is no cache"),
        gone("plugin.security.always_overwrite_cache", "certificates come with every request; there is no cache"),
        gone(
            "plugin.choria.security.request_signer.token_environment",
            "use `plugin.choria.security.request_signer.token_file`",
        ),
        gone("plugin.choria.security.request_signing_certificate", "use a remote request signer"),
        gone("plugin.choria.security.serializer", "messages are JSON"),
        gone("plugin.choria.federation.instance", "instances of a federation broker need no name"),
        gone("plugin.choria.network.monitor_port", "use `plugin.choria.stats_port`"),
        gone("plugin.choria.network.system_account", "use `plugin.choria.network.system.user`"),
        gone("plugin.choria.network.operator_account", "use `plugin.choria.network.system.user`"),
        gone("plugin.choria.network.client_anon_tls", "use token signers"),
        gone("plugin.choria.adapter.queue_len", "use `plugin.choria.adapter.NAME.queue_len`"),
        gone("logger_type", MCOLLECTIVE),
        gone("rpcauditprovider", "`rpcaudit` has one provider"),
        gone("securityprovider", "use `plugin.security.provider`"),
        gone("factsource", "facts come from `plugin.yaml`"),
        gone("connector", MCOLLECTIVE),
        gone("daemonize", "a service manager keeps the program running"),
        gone("direct_addressing", MCOLLECTIVE),
        gone("direct_addressing_threshold", MCOLLECTIVE),
        gone("keeplogs", "the log file is rotated by the system"),
        gone("max_log_size", "the log file is rotated by the system"),
        gone("logfacility", MCOLLECTIVE),
        gone("activate_agents", "use `plugin.NAME.activate_agent`"),
        gone("fact_cache_time", "facts are read when they are needed"),
        gone("helptemplatedir", MCOLLECTIVE),
        gone("rpchelptemplate", MCOLLECTIVE),
        gone("ssl_cipher", MCOLLECTIVE),
        gone("threaded", MCOLLECTIVE),
        gone("publish_timeout", MCOLLECTIVE),
    ],
    families: &[],
};
