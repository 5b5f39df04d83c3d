//! Provisioning: the agent `choria_provision` and what it does to the node (spec 03 §7).
//!
//! | Module | Holds |
//! |---|---|
//! | [`agent`] | the agent |
//! | [`actions`] | what its actions do (sans-io but for the disk) |
//! | [`lock`] | one provisioner at a time |
//! | [`configure`] | staged, checked and atomic configuration |

pub mod actions;
pub mod agent;
pub mod configure;
pub mod lock;

pub use agent::{ProvisionAgent, ProvisionContext};
