//! The Choria client: who is there, and doing something on all of them.
//!
//! One connection per client, one signed document per request however many nodes it goes to, and books that say who
//! answered, who did not and who should not have. Nothing that a replier sends can do more than be counted as refused.
//!
//! What must not be here: rendering and exit statuses (the binary), what agents do (`choria-rpc`, `choria-server`),
//! sockets and reconnecting (`choria-connector`), keys (`choria-security`).
//!
//! | Module | Holds |
//! |---|---|
//! | `client` | [`Client`], [`Caller`]: how requests are made and replies awaited |
//! | `connect` | from a configuration to a connected client, within bounded time |
//! | `discovery` | ping and broadcast discovery |
//! | `rpc` | calls of actions: directed, in batches, to services, with replies elsewhere |
//! | `replies` | the books of one request (sans-io) |
//! | `reply_filter` | which replies are shown and summarised |
//! | `window` | how long a broadcast listens (sans-io) |
//! | [`limits`] | how many of the discovered nodes are asked (sans-io) |
//! | [`nodes`] | node lists from files and earlier results |
//! | [`sign`] | how requests are sealed |
//!
//! ```no_run
//! use choria_client::{Broadcast, Client, ClientOptions, Wait};
//! use choria_config::{Config, Environment};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::load_client(None, &Environment::from_process())?;
//! let client = Client::connect(&config, ClientOptions::default()).await?;
//! let everybody = Broadcast {
//!     filter: Default::default(),
//!     collective: None,
//!     wait: Wait::fixed(std::time::Duration::from_secs(2)),
//!     expect: None,
//! };
//! client.ping(&everybody, |reply| println!("{} after {:?}", reply.sender, reply.after)).await?;
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
mod connect;
mod discovery;
pub mod limits;
pub mod nodes;
mod replies;
mod reply_filter;
mod rpc;
pub mod sign;
mod window;

pub use client::{Caller, Client, RequestError};
pub use connect::{ClientOptions, ConnectError, connection};
pub use discovery::{Broadcast, BroadcastStats, Discovered, PingReply};
pub use limits::{Limit, LimitError, LimitMethod};
pub use replies::{Expected, Outcome, Refused, ReplySet, RequestStats, RpcReply, rpc_reply};
pub use reply_filter::{ReplyFilter, ReplyFilterError};
pub use rpc::{Batches, Finished, Progress, RpcRequest, Targets};
pub use window::{Wait, Window};
