//! Test helpers for every room: a certificate authority, provisioning tokens, golden files, the files of a whole
//! network for end-to-end runs, and waits with a deadline.
//!
//! Everything here is for tests, so it panics with a plain sentence instead of returning errors. It must not depend on a
//! program room (broker, server, provisioner, client), so that they can all use it.
//!
//! | Module | Holds |
//! |---|---|
//! | [`ca`] | [`TestCa`]: certificates for brokers, nodes, clients and provisioners in a directory |
//! | [`tokens`] | [`TokenSigner`]: provisioning tokens, RS256 and EdDSA, good and bad |
//! | [`lab`] | [`Lab`]: certificates, tokens and configuration files of a whole network |
//! | [`golden`] | reading `testdata/` |
//! | [`dashboard`] | reading `dashboards/` |
//! | [`wait`] | [`wait_until`] and [`wait_until_async`] |
//! | [`net`] | listeners on free loopback ports |

pub mod ca;
pub mod dashboard;
pub mod golden;
pub mod lab;
pub mod net;
pub mod tokens;
pub mod wait;

pub use ca::{Files, TestCa};
pub use lab::Lab;
pub use net::{free_listener, free_port};
pub use tokens::TokenSigner;
pub use wait::{wait_until, wait_until_async};

/// The system clock in Unix seconds, for tests that drive real connections.
pub fn unix_now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is after 1970");
    i64::try_from(now.as_secs()).expect("the clock is before the year 292277026596")
}
