//! What a custom build fixes at compile time (spec 03 §13).
//!
//! A company that ships its own `choria` sets environment variables while compiling:
//!
//! ```text
//! CHORIA_BUILD_DEFAULT_COLLECTIVES=acme CHORIA_BUILD_PROVISION_JWT_FILE=/etc/acme/provisioning.jwt \
//!     cargo build --release -p choria
//! ```
//!
//! | Variable | Field | Stock value |
//! |---|---|---|
//! | `CHORIA_BUILD_VERSION` | `version` | the version of the workspace |
//! | `CHORIA_BUILD_SHA` | `sha` | `unknown` |
//! | `CHORIA_BUILD_DATE` | `build_date` | `unknown` |
//! | `CHORIA_BUILD_TLS` | `tls` | `true` |
//! | `CHORIA_BUILD_SECURE` | `secure` | `true` |
//! | `CHORIA_BUILD_MAX_BROKER_CLIENTS` | `max_broker_clients` | `50000` |
//! | `CHORIA_BUILD_DEFAULT_COLLECTIVES` | `default_collectives` | `mcollective` |
//! | `CHORIA_BUILD_CLIENT_IDENTITY_SUFFIX` | `client_identity_suffix` | `mcollective` |
//! | `CHORIA_BUILD_PROVISION_BROKER_URLS` | `provision_broker_urls` | none |
//! | `CHORIA_BUILD_PROVISION_BROKER_SRV_DOMAIN` | `provision_broker_srv_domain` | none |
//! | `CHORIA_BUILD_PROVISION_MODE_DEFAULT` | `provision_mode_default` | `false` |
//! | `CHORIA_BUILD_PROVISION_AGENT` | `provision_agent` | `true` |
//! | `CHORIA_BUILD_PROVISION_SECURE` | `provision_secure` | `true` |
//! | `CHORIA_BUILD_PROVISION_REGISTRATION_DATA` | `provision_registration_data` | none |
//! | `CHORIA_BUILD_PROVISION_FACTS` | `provision_facts` | none |
//! | `CHORIA_BUILD_PROVISION_TOKEN` | `provision_token` | none |
//! | `CHORIA_BUILD_PROVISION_JWT_FILE` | `provision_jwt_file` | `/etc/choria/provisioning.jwt`; empty for none |
//! | `CHORIA_BUILD_PROVISION_STATUS_FILE` | `provision_status_file` | none |
//! | `CHORIA_BUILD_PROVISIONING_BROKER_USERNAME` | `provisioning_broker_username` | none |
//! | `CHORIA_BUILD_PROVISIONING_BROKER_PASSWORD` | `provisioning_broker_password` | none |
//! | `CHORIA_BUILD_PROVISION_ALLOW_SERVER_UPDATE` | `provision_allow_server_update` | `false` |
//!
//! A text that cannot be what it should be (a boolean that is none, a number with letters, a collective with a space)
//! stops the compiler with its name, so no binary with a broken setting comes into being.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::check;
use crate::environment::Environment;
use crate::hosts::{self, HostError};

/// Environment variable that names another provisioning token than the build does.
pub const PROVISIONING_JWT_VARIABLE: &str = "CHORIA_PROVISIONING_JWT";

/// The values a build fixes. `Default` is the stock build; [`BuildSettings::compiled`] is this one.
#[derive(Clone, PartialEq, Eq)]
pub struct BuildSettings {
    /// Version shown to people and sent in events.
    pub version: String,
    /// Commit the build was made from.
    pub sha: String,
    /// When the build was made.
    pub build_date: String,
    /// Connections use TLS. Only laboratories turn it off.
    pub tls: bool,
    /// Messages are signed and verified. Only laboratories turn it off.
    pub secure: bool,
    /// Client connections one broker accepts.
    pub max_broker_clients: usize,
    /// Collectives of a configuration that names none.
    pub default_collectives: Vec<String>,
    /// Appended to the user's name to form a client's certificate name: `lisa.mcollective`.
    pub client_identity_suffix: String,
    /// Brokers that unprovisioned servers connect to, `host:port` each.
    pub provision_broker_urls: Vec<String>,
    /// Domain whose SRV records name those brokers.
    pub provision_broker_srv_domain: Option<String>,
    /// Servers whose configuration does not say want to be provisioned.
    pub provision_mode_default: bool,
    /// The agent `choria_provision` is part of the program.
    pub provision_agent: bool,
    /// Messages of unprovisioned servers use the secure form of the protocol.
    pub provision_secure: bool,
    /// File whose content unprovisioned servers publish.
    pub provision_registration_data: Option<PathBuf>,
    /// Facts file of unprovisioned servers.
    pub provision_facts: Option<PathBuf>,
    /// Token that provisioning requests must carry.
    pub provision_token: Option<String>,
    /// Where the provisioning token file lies.
    pub provision_jwt_file: Option<PathBuf>,
    /// Status file of unprovisioned servers.
    pub provision_status_file: Option<PathBuf>,
    /// NATS user of unprovisioned servers.
    pub provisioning_broker_username: Option<String>,
    /// NATS password of unprovisioned servers.
    pub provisioning_broker_password: Option<String>,
    /// The provisioner may replace the program with another version.
    pub provision_allow_server_update: bool,
}

/// A build setting that cannot be what it should be; only embedders who fill the struct themselves can meet it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildSettingsError {
    /// A collective that fits no subject.
    #[error(
        "build setting default_collectives holds {0:?}; a collective is made of letters, digits, dots, hyphens and underscores"
    )]
    Collective(String),
    /// No collective at all.
    #[error("build setting default_collectives is empty")]
    NoCollective,
    /// A suffix that makes no certificate name.
    #[error(
        "build setting client_identity_suffix is {0:?}; it is made of letters, digits, dots, hyphens and underscores"
    )]
    Suffix(String),
    /// A broker address that cannot be used.
    #[error("build setting provision_broker_urls: {0}")]
    Broker(#[from] HostError),
    /// Two ways to find the provisioning brokers.
    #[error("build settings provision_broker_urls and provision_broker_srv_domain exclude each other")]
    TwoTargets,
    /// A broker for nobody.
    #[error("build setting max_broker_clients is 0")]
    NoClients,
}

impl fmt::Debug for BuildSettings {
    /// Secrets show only whether they are set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildSettings")
            .field("version", &self.version)
            .field("tls", &self.tls)
            .field("secure", &self.secure)
            .field("default_collectives", &self.default_collectives)
            .field("provision_broker_urls", &self.provision_broker_urls)
            .field("provision_broker_srv_domain", &self.provision_broker_srv_domain)
            .field("provision_mode_default", &self.provision_mode_default)
            .field("provision_jwt_file", &self.provision_jwt_file)
            .field("provision_token_set", &self.provision_token.is_some())
            .finish_non_exhaustive()
    }
}

impl Default for BuildSettings {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sha: "unknown".to_owned(),
            build_date: "unknown".to_owned(),
            tls: true,
            secure: true,
            max_broker_clients: 50_000,
            default_collectives: vec!["mcollective".to_owned()],
            client_identity_suffix: "mcollective".to_owned(),
            provision_broker_urls: Vec::new(),
            provision_broker_srv_domain: None,
            provision_mode_default: false,
            provision_agent: true,
            provision_secure: true,
            provision_registration_data: None,
            provision_facts: None,
            provision_token: None,
            provision_jwt_file: Some(PathBuf::from(if cfg!(windows) {
                r"C:\ProgramData\Choria\etc\provisioning.jwt"
            } else {
                "/etc/choria/provisioning.jwt"
            })),
            provision_status_file: None,
            provisioning_broker_username: None,
            provisioning_broker_password: None,
            provision_allow_server_update: false,
        }
    }
}

impl BuildSettings {
    /// The settings this binary was compiled with.
    #[must_use]
    pub fn compiled() -> Self {
        let stock = Self::default();
        Self {
            version: text(option_env!("CHORIA_BUILD_VERSION")).unwrap_or(stock.version),
            sha: text(option_env!("CHORIA_BUILD_SHA")).unwrap_or(stock.sha),
            build_date: text(option_env!("CHORIA_BUILD_DATE")).unwrap_or(stock.build_date),
            tls: compiled::TLS,
            secure: compiled::SECURE,
            max_broker_clients: compiled::MAX_BROKER_CLIENTS,
            default_collectives: list(compiled::DEFAULT_COLLECTIVES),
            client_identity_suffix: compiled::CLIENT_IDENTITY_SUFFIX.to_owned(),
            provision_broker_urls: list(compiled::PROVISION_BROKER_URLS),
            provision_broker_srv_domain: text(compiled::PROVISION_BROKER_SRV_DOMAIN),
            provision_mode_default: compiled::PROVISION_MODE_DEFAULT,
            provision_agent: compiled::PROVISION_AGENT,
            provision_secure: compiled::PROVISION_SECURE,
            provision_registration_data: path(option_env!("CHORIA_BUILD_PROVISION_REGISTRATION_DATA")),
            provision_facts: path(option_env!("CHORIA_BUILD_PROVISION_FACTS")),
            provision_token: text(option_env!("CHORIA_BUILD_PROVISION_TOKEN")),
            provision_jwt_file: match option_env!("CHORIA_BUILD_PROVISION_JWT_FILE") {
                None => stock.provision_jwt_file,
                given => path(given),
            },
            provision_status_file: path(option_env!("CHORIA_BUILD_PROVISION_STATUS_FILE")),
            provisioning_broker_username: text(option_env!("CHORIA_BUILD_PROVISIONING_BROKER_USERNAME")),
            provisioning_broker_password: text(option_env!("CHORIA_BUILD_PROVISIONING_BROKER_PASSWORD")),
            provision_allow_server_update: compiled::PROVISION_ALLOW_SERVER_UPDATE,
        }
    }

    /// Checks settings that an embedder filled in.
    ///
    /// # Errors
    /// The first setting that cannot be what it should be.
    pub fn validate(&self) -> Result<(), BuildSettingsError> {
        if self.default_collectives.is_empty() {
            return Err(BuildSettingsError::NoCollective);
        }
        if let Some(bad) = self.default_collectives.iter().find(|name| !check::is_name(name)) {
            return Err(BuildSettingsError::Collective(bad.clone()));
        }
        if !check::is_name(&self.client_identity_suffix) {
            return Err(BuildSettingsError::Suffix(self.client_identity_suffix.clone()));
        }
        hosts::parse_list(&self.provision_broker_urls)?;
        if !self.provision_broker_urls.is_empty() && self.provision_broker_srv_domain.is_some() {
            return Err(BuildSettingsError::TwoTargets);
        }
        if self.max_broker_clients == 0 {
            return Err(BuildSettingsError::NoClients);
        }
        Ok(())
    }

    /// The provisioning token file to use: the command line's, else the one `CHORIA_PROVISIONING_JWT` names, else the
    /// build's. An empty variable means none at all.
    #[must_use]
    pub fn provisioning_jwt(&self, command_line: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
        if let Some(path) = command_line {
            return Some(path.to_owned());
        }
        match environment.variable(PROVISIONING_JWT_VARIABLE) {
            Some("") => None,
            Some(path) => Some(PathBuf::from(path)),
            None => self.provision_jwt_file.clone(),
        }
    }
}

fn text(value: Option<&str>) -> Option<String> {
    value.filter(|value| !value.is_empty()).map(str::to_owned)
}

fn path(value: Option<&str>) -> Option<PathBuf> {
    value.filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// Checks that run inside the compiler: a panic here is a compile error in a custom build, never one at run time.
mod compiled {
    pub(super) const TLS: bool = flag(option_env!("CHORIA_BUILD_TLS"), true);
    pub(super) const SECURE: bool = flag(option_env!("CHORIA_BUILD_SECURE"), true);
    pub(super) const MAX_BROKER_CLIENTS: usize = number(option_env!("CHORIA_BUILD_MAX_BROKER_CLIENTS"), 50_000);
    pub(super) const DEFAULT_COLLECTIVES: &str = names(option_env!("CHORIA_BUILD_DEFAULT_COLLECTIVES"), "mcollective");
    pub(super) const CLIENT_IDENTITY_SUFFIX: &str =
        names(option_env!("CHORIA_BUILD_CLIENT_IDENTITY_SUFFIX"), "mcollective");
    pub(super) const PROVISION_BROKER_URLS: &str = addresses(option_env!("CHORIA_BUILD_PROVISION_BROKER_URLS"));
    pub(super) const PROVISION_BROKER_SRV_DOMAIN: Option<&str> = one_of_two(
        option_env!("CHORIA_BUILD_PROVISION_BROKER_SRV_DOMAIN"),
        option_env!("CHORIA_BUILD_PROVISION_BROKER_URLS"),
    );
    pub(super) const PROVISION_MODE_DEFAULT: bool = flag(option_env!("CHORIA_BUILD_PROVISION_MODE_DEFAULT"), false);
    pub(super) const PROVISION_AGENT: bool = flag(option_env!("CHORIA_BUILD_PROVISION_AGENT"), true);
    pub(super) const PROVISION_SECURE: bool = flag(option_env!("CHORIA_BUILD_PROVISION_SECURE"), true);
    pub(super) const PROVISION_ALLOW_SERVER_UPDATE: bool =
        flag(option_env!("CHORIA_BUILD_PROVISION_ALLOW_SERVER_UPDATE"), false);

    const fn flag(value: Option<&str>, stock: bool) -> bool {
        match value {
            None => stock,
            Some(value) => match value.as_bytes() {
                b"true" | b"1" | b"yes" => true,
                b"false" | b"0" | b"no" => false,
                _ => panic!("a CHORIA_BUILD_ switch must be true or false"),
            },
        }
    }

    const fn number(value: Option<&str>, stock: usize) -> usize {
        let Some(value) = value else { return stock };
        let bytes = value.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= 9, "CHORIA_BUILD_MAX_BROKER_CLIENTS must be a number");
        let (mut index, mut number) = (0, 0);
        while index < bytes.len() {
            assert!(bytes[index].is_ascii_digit(), "CHORIA_BUILD_MAX_BROKER_CLIENTS must be a number");
            number = number * 10 + (bytes[index] - b'0') as usize;
            index += 1;
        }
        assert!(number > 0, "CHORIA_BUILD_MAX_BROKER_CLIENTS must not be 0");
        number
    }

    const fn names(value: Option<&'static str>, stock: &'static str) -> &'static str {
        let Some(value) = value else { return stock };
        let bytes = value.as_bytes();
        assert!(!bytes.is_empty(), "CHORIA_BUILD_ names must not be empty");
        let mut index = 0;
        while index < bytes.len() {
            let good = bytes[index].is_ascii_alphanumeric() || matches!(bytes[index], b'.' | b'_' | b'-' | b',');
            assert!(good, "CHORIA_BUILD_ names hold letters, digits, dots, hyphens, underscores and commas only");
            index += 1;
        }
        value
    }

    const fn addresses(value: Option<&'static str>) -> &'static str {
        let Some(value) = value else { return "" };
        let bytes = value.as_bytes();
        // Every entry needs a port; the last thing in an entry is therefore a digit.
        let mut index = 0;
        while index < bytes.len() {
            let end = index + 1 == bytes.len() || bytes[index + 1] == b',';
            assert!(
                !end || bytes[index].is_ascii_digit(),
                "CHORIA_BUILD_PROVISION_BROKER_URLS must be host:port entries, separated by commas"
            );
            index += 1;
        }
        value
    }

    const fn one_of_two(domain: Option<&'static str>, addresses: Option<&str>) -> Option<&'static str> {
        assert!(
            domain.is_none() || addresses.is_none(),
            "CHORIA_BUILD_PROVISION_BROKER_URLS and CHORIA_BUILD_PROVISION_BROKER_SRV_DOMAIN exclude each other"
        );
        domain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_settings_are_valid() {
        assert_eq!(BuildSettings::compiled().validate(), Ok(()));
        assert_eq!(BuildSettings::default().validate(), Ok(()));
    }

    #[test]
    fn settings_of_embedders_are_checked() {
        let with = |change: fn(&mut BuildSettings)| {
            let mut settings = BuildSettings::default();
            change(&mut settings);
            settings.validate()
        };
        assert_eq!(with(|s| s.default_collectives.clear()), Err(BuildSettingsError::NoCollective));
        assert_eq!(
            with(|s| s.default_collectives.push("a b".into())),
            Err(BuildSettingsError::Collective("a b".into()))
        );
        assert_eq!(with(|s| s.client_identity_suffix = "x>".into()), Err(BuildSettingsError::Suffix("x>".into())));
        assert!(matches!(with(|s| s.provision_broker_urls.push("broker".into())), Err(BuildSettingsError::Broker(_))));
        assert_eq!(
            with(|s| {
                s.provision_broker_urls.push("broker:4222".into());
                s.provision_broker_srv_domain = Some("example.net".into());
            }),
            Err(BuildSettingsError::TwoTargets)
        );
        assert_eq!(with(|s| s.max_broker_clients = 0), Err(BuildSettingsError::NoClients));
    }

    #[test]
    fn command_line_then_variable_then_build_name_the_token() {
        let settings = BuildSettings::default();
        let plain = Environment::fixed("n1");
        let variable = plain.clone().with_variable(PROVISIONING_JWT_VARIABLE, "/env.jwt");
        let none = plain.clone().with_variable(PROVISIONING_JWT_VARIABLE, "");
        let stock = settings.provision_jwt_file.clone();
        assert!(stock.is_some());
        assert_eq!(settings.provisioning_jwt(None, &plain), stock);
        assert_eq!(settings.provisioning_jwt(None, &variable), Some(PathBuf::from("/env.jwt")));
        assert_eq!(settings.provisioning_jwt(None, &none), None);
        let flag = Path::new("/flag.jwt");
        assert_eq!(settings.provisioning_jwt(Some(flag), &variable), Some(flag.to_owned()));
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let settings = BuildSettings {
            provision_token: Some("s3cret".into()),
            provisioning_broker_password: Some("s3cret".into()),
            ..BuildSettings::default()
        };
        assert!(!format!("{settings:?}").contains("s3cret"));
    }
}
