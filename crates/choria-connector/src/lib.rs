//! Connections to brokers: the [`Connector`] trait, its NATS implementation, name resolution, back-off.
//!
//! Must not be in it: what Choria says over a connection (`choria-protocol`), and how trust is set up
//! (`choria-security` makes the `rustls::ClientConfig` that comes in).
//!
//! | Module | Holds |
//! |---|---|
//! | [`connector`] | the [`Connector`] trait that servers, provisioners and clients are written against |
//! | [`options`] | where to connect, as whom, how patiently |
//! | [`light`] | [`NatsConnector`], our NATS client; [`Probe`], one connection for diagnosis |
//! | [`target`] | broker addresses |
//! | [`srv`] | SRV look-up, ordering and cache |
//! | [`servers`] | Choria's order of broker sources: configuration, SRV, default |
//! | [`backoff`] | Choria's delay tables |
//! | [`failure`] | why a connection try failed and what to do |
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backoff;
pub mod connector;
pub mod failure;
pub mod light;
pub mod options;
pub mod servers;
pub mod srv;
pub mod target;

pub use connector::*;
pub use failure::{ConnectFailure, Stage};
pub use light::probe::{Probe, Right};
pub use light::{ConnectError, NatsConnector};
pub use options::{ConnectOptions, CredentialSource, Credentials, ServerResolver, ServerSource, TokenSource};
pub use target::{Target, TargetError};
