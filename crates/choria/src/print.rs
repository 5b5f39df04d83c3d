//! What people and scripts read on stdout. Printers get finished values and write text; they decide nothing.

pub(crate) mod bench;
pub(crate) mod buildinfo;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod graph;
pub(crate) mod messages;
pub(crate) mod ping;
pub(crate) mod provisioner;
pub(crate) mod replies;
pub(crate) mod rules;
pub(crate) mod token;
