//! The server: provisioning, registration, agents, authorization, audit (spec 03 §2.5).

use std::path::PathBuf;
use std::time::Duration;

use crate::key::{Kind, Spec};
use crate::keys::settings;
use crate::types::AuthorizationProvider;

settings! {
    SERVER_GROUP, "Server", "Provisioning, registration, agents, authorization and audit on every node.";
    keys {
        /// Wait to be provisioned (true) or never do (false). Unset leaves it to the provisioning token.
        SERVER_PROVISION: Option<bool> = Spec::new("plugin.choria.server.provision", Kind::Boolean);
        /// Let the provisioner replace the program with another version.
        SERVER_PROVISION_ALLOW_UPDATE: bool = Spec::new("plugin.choria.server.provision.allow_update", Kind::Boolean).default("0").planned();
        /// File with the state of the server, for monitoring.
        STATUS_FILE_PATH: Option<PathBuf> = Spec::new("plugin.choria.status_file_path", Kind::Path);
        /// How often that file is written; 0 writes it never.
        STATUS_UPDATE_INTERVAL: Duration = Spec::new("plugin.choria.status_update_interval", Kind::Seconds { min: 0, max: 86_400 }).default("30");
        /// What is published as registration data.
        REGISTRATION: Vec<String> = Spec::new("registration", Kind::Choices(&["file_content", "inventory_content"])).default("");
        /// Collective that registration data is published in.
        REGISTRATION_COLLECTIVE: String = Spec::new("registration_collective", Kind::Collective).computed("`main_collective`");
        /// How often registration data is published.
        REGISTERINTERVAL: Duration = Spec::new("registerinterval", Kind::Seconds { min: 1, max: 31_536_000 }).default("300");
        /// Wait a random part of the interval before the first publication, so that a fleet does not speak at once.
        REGISTRATION_SPLAY: bool = Spec::new("registration_splay", Kind::Boolean).default("1");
        /// File that `file_content` publishes.
        REGISTRATION_FILE_CONTENT_DATA: Option<PathBuf> = Spec::new("plugin.choria.registration.file_content.data", Kind::Path);
        /// Subject that `file_content` publishes to, in place of the registration agent's.
        REGISTRATION_FILE_CONTENT_TARGET: Option<String> = Spec::new("plugin.choria.registration.file_content.target", Kind::Text);
        /// Compress the content with gzip.
        REGISTRATION_FILE_CONTENT_COMPRESSION: bool = Spec::new("plugin.choria.registration.file_content.compression", Kind::Boolean).default("1");
        /// Subject that `inventory_content` publishes to.
        REGISTRATION_INVENTORY_CONTENT_TARGET: Option<String> = Spec::new("plugin.choria.registration.inventory_content.target", Kind::Text);
        /// Compress the inventory with gzip.
        REGISTRATION_INVENTORY_CONTENT_COMPRESSION: bool = Spec::new("plugin.choria.registration.inventory_content.compression", Kind::Boolean).default("1");
        /// Publish early when the file has grown to this many bytes; 0 turns that off.
        REGISTRATION_SIZE_TRIGGER: i64 = Spec::new("plugin.choria.registration.size_trigger", Kind::Integer { min: 0, max: i64::MAX }).default("0");
        /// How often the size is looked at.
        REGISTRATION_SIZE_INTERVAL: Duration = Spec::new("plugin.choria.registration.size_interval", Kind::Seconds { min: 1, max: 86_400 }).default("30");
        /// Ask a policy before any action runs.
        RPCAUTHORIZATION: bool = Spec::new("rpcauthorization", Kind::Boolean).default("1");
        /// Which kind of policy. This version implements `action_policy`.
        RPCAUTHPROVIDER: AuthorizationProvider = Spec::new("rpcauthprovider", Kind::ChoiceAnyCase(AuthorizationProvider::WORDS)).default("action_policy");
        /// Action policy: what an existing policy file without a default line means. An agent without any policy file is denied whatever this says.
        ACTIONPOLICY_ALLOW_UNCONFIGURED: bool = Spec::new("plugin.actionpolicy.allow_unconfigured", Kind::Boolean).default("n");
        /// Action policy: use the default policy file for agents that have none.
        ACTIONPOLICY_ENABLE_DEFAULT: bool = Spec::new("plugin.actionpolicy.enable_default", Kind::Boolean).default("n");
        /// Action policy: name of the default policy file, without `.policy`.
        ACTIONPOLICY_DEFAULT_NAME: String = Spec::new("plugin.actionpolicy.default_name", Kind::Text).default("default");
        /// Rego policy: log how decisions are reached.
        REGOPOLICY_TRACING: bool = Spec::new("plugin.regopolicy.tracing", Kind::Boolean).default("n").planned();
        /// Write an audit line for every request.
        RPCAUDIT: bool = Spec::new("rpcaudit", Kind::Boolean).default("0");
        /// The audit file.
        RPCAUDIT_LOGFILE: Option<PathBuf> = Spec::new("plugin.rpcaudit.logfile", Kind::Path);
        /// Group that owns the audit file.
        RPCAUDIT_LOGFILE_GROUP: Option<String> = Spec::new("plugin.rpcaudit.logfile.group", Kind::Text);
        /// File mode of the audit file, octal.
        RPCAUDIT_LOGFILE_MODE: u32 = Spec::new("plugin.rpcaudit.logfile.mode", Kind::FileMode).default("0600");
        /// Write lifecycle events in the plain encoding instead of CloudEvents.
        LEGACY_LIFECYCLE_FORMAT: bool = Spec::new("plugin.choria.legacy_lifecycle_format", Kind::Boolean).default("0");
        /// Directory that metric watchers of autonomous agents write to.
        PROMETHEUS_TEXTFILE_DIRECTORY: Option<PathBuf> = Spec::new("plugin.choria.prometheus_textfile_directory", Kind::Path).planned();
        /// Ruby shim for agents in Ruby.
        AGENT_PROVIDER_MCORPC_AGENT_SHIM: Option<PathBuf> = Spec::new("plugin.choria.agent_provider.mcorpc.agent_shim", Kind::Path).planned();
        /// Configuration file for agents in Ruby.
        AGENT_PROVIDER_MCORPC_CONFIG: Option<PathBuf> = Spec::new("plugin.choria.agent_provider.mcorpc.config", Kind::Path).planned();
        /// Directories with agents that are programs of their own. This version reads the DDL files in them.
        AGENT_PROVIDER_MCORPC_LIBDIR: Vec<PathBuf> = Spec::new("plugin.choria.agent_provider.mcorpc.libdir", Kind::PathList { append: true }).default("");
        /// Directory with autonomous agents.
        MACHINE_STORE: Option<PathBuf> = Spec::new("plugin.choria.machine.store", Kind::Path).planned();
        /// Public key that autonomous agents must be signed with, in hexadecimal.
        MACHINE_SIGNING_KEY: Option<String> = Spec::new("plugin.choria.machine.signing_key", Kind::Text).planned();
        /// Port of the HTTP switch watcher; 0 turns it off.
        MACHINE_HTTP_PORT: u16 = Spec::new("plugin.choria.machine.http_port", Kind::Integer { min: 0, max: 65_535 }).default("0").planned();
        /// Download autonomous agents.
        MACHINES_DOWNLOAD: bool = Spec::new("plugin.machines.download", Kind::Boolean).default("0").planned();
        /// Bucket they come from.
        MACHINES_BUCKET: String = Spec::new("plugin.machines.bucket", Kind::Text).default("CHORIA_PLUGINS").planned();
        /// Key of their list in that bucket.
        MACHINES_KEY: String = Spec::new("plugin.machines.key", Kind::Text).default("plugins").planned();
        /// Remove autonomous agents that are no longer listed.
        MACHINES_PURGE: bool = Spec::new("plugin.machines.purge", Kind::Boolean).default("1").planned();
        /// How often the list is looked at.
        MACHINES_POLL_INTERVAL: Duration = Spec::new("plugin.machines.poll_interval", Kind::Duration { min_ms: 1_000, max_ms: 31_536_000_000 }).default("1m").planned();
        /// How often installed autonomous agents are verified.
        MACHINES_CHECK_INTERVAL: Duration = Spec::new("plugin.machines.check_interval", Kind::Duration { min_ms: 1_000, max_ms: 31_536_000_000 }).default("30s").planned();
        /// Public key that the list must be signed with, in hexadecimal.
        MACHINES_SIGNING_KEY: Option<String> = Spec::new("plugin.machines.signing_key", Kind::Text).planned();
        /// File with overrides for Scout checks.
        SCOUT_OVERRIDES: Option<PathBuf> = Spec::new("plugin.scout.overrides", Kind::Path).planned();
        /// File with Scout tags of this node.
        SCOUT_TAGS: Option<PathBuf> = Spec::new("plugin.scout.tags", Kind::Path).planned();
        /// Do not offer the Scout agent.
        SCOUT_AGENT_DISABLED: bool = Spec::new("plugin.scout.agent_disabled", Kind::Boolean).default("0").planned();
        /// Goss resources refused in local checks.
        SCOUT_GOSS_DENIED_LOCAL_RESOURCES: Vec<String> = Spec::new("plugin.scout.goss.denied_local_resources", Kind::List).default("").planned();
        /// Goss resources refused in checks that come over the network.
        SCOUT_GOSS_DENIED_REMOTE_RESOURCES: Vec<String> = Spec::new("plugin.scout.goss.denied_remote_resources", Kind::List).default("command").planned();
        /// Directory with DDL files to serve to others; turns the registry service on.
        SERVICES_REGISTRY_STORE: Option<PathBuf> = Spec::new("plugin.choria.services.registry.store", Kind::Path).planned();
        /// Directory for messages that local programs submit.
        SUBMISSION_SPOOL: Option<PathBuf> = Spec::new("plugin.choria.submission.spool", Kind::Path).planned();
        /// Messages the spool may hold per priority.
        SUBMISSION_MAX_SPOOL_SIZE: i64 = Spec::new("plugin.choria.submission.max_spool_size", Kind::Integer { min: 1, max: 1_000_000 }).default("500").planned();
        /// Offer the executor.
        EXECUTOR_ENABLED: bool = Spec::new("plugin.choria.executor.enabled", Kind::Boolean).default("0").planned();
        /// Directory of the executor's jobs.
        EXECUTOR_SPOOL: Option<PathBuf> = Spec::new("plugin.choria.executor.spool", Kind::Path).planned();
    }
    families {
        /// Whether the agent of that name is started.
        ACTIVATE_AGENT: bool = Spec::new("plugin.NAME.activate_agent", Kind::Boolean).default("1");
    }
}
