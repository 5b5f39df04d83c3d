//! Connections to brokers: the Connector trait, its NATS implementation, name resolution, back-off.
pub mod connector;
pub use connector::*;
