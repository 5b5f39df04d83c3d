//! Closed sets of values. Each has its text as the configuration file writes it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Defines an enum whose variants are words of the configuration file.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $name {
            /// The words a file may hold, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word in the file.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Reads a word; exact, in lower case.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// How much is logged: `loglevel`.
    LogLevel {
        /// Everything.
        Debug = "debug",
        /// What a person watching would want to see.
        Info = "info",
        /// What deserves a look.
        Warn = "warn",
        /// What failed.
        Error = "error",
        /// Only what ends the process.
        Fatal = "fatal",
    }
}

words! {
    /// Who vouches for identities: `plugin.security.provider` (spec 01 §10).
    SecurityProvider {
        /// Certificates in Puppet's directory layout.
        Puppet = "puppet",
        /// Certificate, key and CA at configured paths.
        File = "file",
        /// Keys on a hardware token.
        Pkcs11 = "pkcs11",
        /// Certificates from cert-manager in Kubernetes.
        Certmanager = "certmanager",
        /// Signed tokens of an organisation issuer.
        Choria = "choria",
    }
}

words! {
    /// Which replies `--limit` keeps: `rpclimitmethod`.
    LimitMethod {
        /// The first discovered nodes.
        First = "first",
        /// A random choice of them.
        Random = "random",
    }
}

words! {
    /// How a client finds nodes: `default_discovery_method` (spec 05 §4).
    DiscoveryMethod {
        /// Network broadcast, under its MCollective name.
        Mc = "mc",
        /// Network broadcast.
        Broadcast = "broadcast",
        /// A query to PuppetDB.
        Puppetdb = "puppetdb",
        /// PuppetDB, under its Choria name.
        Choria = "choria",
        /// A program that prints node names.
        External = "external",
        /// A YAML or JSON file.
        Inventory = "inventory",
    }
}

words! {
    /// Who decides about RPC requests: `rpcauthprovider` (spec 03 §8).
    AuthorizationProvider {
        /// Policy files per agent.
        ActionPolicy = "action_policy",
        /// Open Policy Agent rules.
        RegoPolicy = "rego_policy",
        /// Policy inside the caller's token.
        Aaasvc = "aaasvc",
        /// The same, under its longer name.
        AaasvcPolicy = "aaasvc_policy",
    }
}

/// Where log lines go: `logfile`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere.
    Discard,
    /// A file, appended to.
    File(PathBuf),
}

impl LogTarget {
    /// Reads the three special words in any case; everything else is a path.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            "discard" => Self::Discard,
            _ => Self::File(PathBuf::from(text)),
        }
    }

    /// The log file, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Stdout | Self::Stderr | Self::Discard => None,
        }
    }
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::Discard => f.write_str("discard"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}
