//! Identity, collectives, logging: what every program reads.

use std::path::PathBuf;
use std::time::Duration;

use crate::key::{Kind, Spec};
use crate::keys::settings;
use crate::types::{LogLevel, LogTarget};

settings! {
    CORE_GROUP, "Identity, collectives and logging", "Read by every program.";
    keys {
        /// Name of this node: its subject, the sender of its replies and the name in its certificate. Letters, digits,
        /// dot, underscore and hyphen only.
        IDENTITY: String = Spec::new("identity", Kind::Identity)
            .computed("the host name if it holds two dots, else the name DNS gives for its first IPv4 address, else facter's `networking.fqdn`, else the bare host name");
        /// Collectives this node belongs to.
        COLLECTIVES: Vec<String> = Spec::new("collectives", Kind::Collectives)
            .computed("`mcollective` (a build setting); `choria` with the `choria` security provider");
        /// The collective used when none is named.
        MAIN_COLLECTIVE: String = Spec::new("main_collective", Kind::Collective).computed("the first of `collectives`");
        /// Where log lines go: `stdout`, `stderr`, `discard` or a file. Commands that print data log to `stderr` instead of `stdout`.
        LOGFILE: LogTarget = Spec::new("logfile", Kind::LogTarget)
            .default("stdout")
            .computed("`stderr` for the programs of this project; an embedder that asks gets the original's `stdout`");
        /// How much is logged.
        LOGLEVEL: LogLevel = Spec::new("loglevel", Kind::Choice(LogLevel::WORDS)).default("info");
        /// How long a message of this program may travel before its receiver refuses it.
        TTL: Duration = Spec::new("ttl", Kind::Seconds { min: 1, max: 86_400 }).default("60");
        /// How long a program may take to stop before it is ended. The broker has its own key.
        SOFT_SHUTDOWN_TIMEOUT: Duration = Spec::new("soft_shutdown_timeout", Kind::Seconds { min: 0, max: 3_600 }).default("2");
        /// Facts about this node: YAML for names that end in `yaml`, JSON for all others. Later files win.
        YAML: Vec<PathBuf> = Spec::new("plugin.yaml", Kind::PathList { append: false }).default("");
        /// Classes of this node, one per line.
        CLASSESFILE: PathBuf = Spec::new("classesfile", Kind::Path).default("/opt/puppetlabs/puppet/cache/state/classes.txt");
        /// Directories with DDL files.
        LIBDIR: Vec<PathBuf> = Spec::new("libdir", Kind::PathList { append: true }).default("");
        /// Colour on terminals.
        COLOR: bool = Spec::new("color", Kind::Boolean).default("1");
    }
    families {}
}
