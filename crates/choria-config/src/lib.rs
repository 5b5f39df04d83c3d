//! Choria configuration: file grammar, the one key table, typed settings, build settings.
//!
//! Every setting is declared once, in [`keys`], with its name, type, default, environment variable and documentation.
//! Loading is strict: a bad value of a known key is an error with file and line, all of them at once; an unknown key is
//! a warning with the nearest known name. What other programs would make of the same file is in
//! `docs/differences/choria-config.md`.
//!
//! This crate reads configuration files and nothing else: it opens no key, certificate or token, binds no port and
//! knows no network. What it needs from its surroundings comes in through [`Environment`].
//!
//! ```
//! use choria_config::{Config, Environment, Mode, keys};
//! use std::time::Duration;
//!
//! let text = "identity = n1.example.net\nttl = 30\n";
//! let config = Config::from_text(text, Mode::Server, &Environment::fixed("unused"))?;
//! assert_eq!(config.get(&keys::IDENTITY), "n1.example.net");
//! assert_eq!(config.get(&keys::TTL), Duration::from_secs(30));
//! assert_eq!(config.get(&keys::SERVER_PROVISION), None);
//! # Ok::<(), choria_config::ConfigError>(())
//! ```
//!
//! | Module | Holds |
//! |---|---|
//! | [`keys`] | the key table |
//! | `config`, `load` | a loaded configuration; how it is put together |
//! | `grammar`, `check` | lines of a file; text of one value |
//! | [`duration`], [`hosts`] | the two small languages inside values |
//! | [`types`] | closed sets of words |
//! | `environment`, `identity` | variables, directories, host names; the default identity |
//! | [`search`] | where client configurations lie |
//! | `build_settings` | what a custom build fixes at compile time |
//! | [`document`] | the key table as a Markdown page |

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod build_settings;
mod check;
mod config;
pub mod document;
pub mod duration;
mod environment;
mod error;
mod grammar;
pub mod hosts;
mod identity;
mod key;
pub mod keys;
mod load;
pub mod search;
pub mod types;
mod value;

pub use build_settings::{BuildSettings, BuildSettingsError, PROVISIONING_JWT_VARIABLE};
pub use config::{Config, Inspection, Mode};
pub use environment::{Environment, HostNames};
pub use error::{ConfigError, Problem, ProblemKind, Source, Warning};
pub use key::{Family, Key, Kind, Spec, Status};
pub use types::{AuthorizationProvider, DiscoveryMethod, LimitMethod, LogLevel, LogTarget, SecurityProvider};
pub use value::{Setting, Value};
