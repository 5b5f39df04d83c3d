//! Embeddable NATS core broker: listeners, TLS, accounts, permissions, routing, outboxes, monitoring.
pub mod auth;
pub use auth::*;
