//! Thousands of real Choria servers in one process, and what is measured with them.
//!
//! Must not be in it: a second implementation of anything that a server does (`choria-server` does it), and starting
//! other programs (the binary's business).
#![cfg_attr(test, allow(clippy::unwrap_used))]
