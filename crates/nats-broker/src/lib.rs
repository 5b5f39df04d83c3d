//! Embeddable NATS core broker: listeners, TLS, accounts, permissions, routing, outboxes, monitoring.
//!
//! A broker in your own program, with a user, a subscription inside the program and a clean end:
//!
//! ```
//! use std::sync::Arc;
//!
//! use nats_broker::{AccountConfig, Broker, BrokerConfig, Listener, Permissions, StaticAuthenticator};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let listener = Listener::plain("127.0.0.1:0".parse()?);
//!     let config = BrokerConfig { listen: vec![listener], ..BrokerConfig::default() };
//!     let users = StaticAuthenticator::new().user("ops", "secret", "PLANT", Permissions::unlimited());
//!     let accounts = vec![AccountConfig::new("PLANT")];
//!     let broker = Broker::start(config, accounts, Arc::new(users), Vec::new(), Arc::new(()))?;
//!     println!("nats://ops:secret@{}", broker.local_addr(0).ok_or("no listener")?);
//!
//!     let mut orders = broker.subscribe("PLANT", "orders.>", 100)?;
//!     broker.publish("PLANT", "orders.new", None, None, b"42 pumps")?;
//!     let order = orders.recv().await.ok_or("the broker has stopped")?;
//!     assert_eq!(&order.payload[..], b"42 pumps");
//!     broker.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! It carries out decisions and makes none: an embedder's [`Authenticator`] says who may connect and what they
//! may do, a [`PublishGuard`] looks into messages on the few subjects it names, an [`Observer`] is told what
//! happened. Nothing here knows Choria, files, configuration keys or tokens. Wire facts: spec 07.
//!
//! The engine does no I/O (`session` takes received bytes and appends to outboxes). Around it, whoever produces output
//! writes the target's socket itself; on Linux the connections are served by threads of the broker's own on one
//! readiness queue, elsewhere by the tokio runtime it was started in ([`IoEngine`]; spec 07 §22, shapes D and A2).
//!
//! | Module | What |
//! |---|---|
//! | `auth` | the traits an embedder implements |
//! | `static_auth` | two simple authenticators |
//! | `config` | settings, accounts, exports, imports, start errors |
//! | `broker` | start, stop, publish and subscribe from inside, deadlines |
//! | `connection`, `opening`, `handshake`, `reader` | the async shell of a connection: TLS, greeting, reading |
//! | `upgrade`, `framing`, `unframe` | WebSocket: the HTTP request, frames both ways |
//! | `authorize`, `claims` | CONNECT, exclusive names |
//! | `resumption`, `descriptors` | TLS tickets; how many files may be open |
//! | `turns` | who may compute a handshake next |
//! | `lame_duck` | leaving slowly |
//! | `session` | the engine: operations of one client |
//! | `route`, `service`, `latency` | matching and delivery, crossing between accounts, how long that took |
//! | `sys`, `advisories` | answers of the broker itself, what it tells of itself and of connections |
//! | `transform` | subjects that are replaced when they are published |
//! | `checks` | what is refused about exports and imports |
//! | `account`, `mapping`, `index`, `subscription` | what is known of accounts and who listens |
//! | `io` | sockets, and the threads that serve them |
//! | `conn`, `outbox`, `tls` | the shared side of a connection and its output |
//! | `permission`, `responses` | carrying out a grant |
//! | `live`, `reload` | what may change while the broker runs, and changing it |
//! | `timers`, `local`, `shared` | deadlines, receivers inside this process, the running broker |
//! | `totals` | what accounts have carried |
//! | `trace` | telling where a message went |
//! | `monitor` | `/varz`, `/connz`, `/subsz`, `/accountz`, … |

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account;
mod advisories;
pub mod auth;
mod authorize;
mod broker;
mod checks;
mod claims;
mod config;
mod conn;
mod connection;
mod descriptors;
mod framing;
mod handshake;
mod index;
mod io;
mod lame_duck;
mod latency;
mod live;
mod local;
mod mapping;
pub mod monitor;
mod opening;
mod outbox;
mod permission;
mod reader;
mod reload;
mod responses;
mod resumption;
mod route;
mod service;
mod session;
mod shared;
mod static_auth;
mod subscription;
mod sys;
mod timers;
mod tls;
mod totals;
mod trace;
mod transform;
mod turns;
mod unframe;
mod upgrade;

pub use auth::*;
pub use broker::{Broker, ConnectionInfo, LocalError};
pub use config::{
    AccountConfig, BrokerConfig, Export, Import, IoEngine, LatencySampling, Listener, MappingTarget, ResponseKind,
    ServiceExport, ServiceImport, ServiceLatency, StartError, StreamExport, StreamImport, SubjectMapping, TlsStart,
    TransformError, WebSocketSettings,
};
pub use descriptors::descriptor_limit;
pub use local::{LocalMessage, LocalSubscription};
pub use monitor::Monitor;
pub use reload::{Reload, ReloadError, Reloaded};
pub use static_auth::{OpenAuthenticator, StaticAuthenticator};
pub use totals::AccountStats;
