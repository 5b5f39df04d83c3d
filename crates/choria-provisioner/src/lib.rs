//! The Choria provisioner: finds unprovisioned servers and takes them through enrolment.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
pub mod config;
pub mod engine;
pub mod flow;
pub mod helper;
pub mod inbox;
pub mod metrics;
pub mod queue;
pub mod requests;
pub mod rules;
