//! Load for any NATS server: publishers and subscribers, requests, idle connections, and what they measured.
//!
//! The load must cost less than what it measures, because both share a machine: a publisher sends rendered blocks, a subscriber
//! counts messages of a known length and looks at no more than their first byte. So this is no client: it speaks just as much
//! of the protocol (spec 07 §1 to §5) as the load needs. It does not start servers, reads no settings and prints nothing; there
//! is no Choria word in it.
//!
//! | Module | |
//! |---|---|
//! | [`target`] | which server, how to log in |
//! | [`peer`] | one connection: TLS, CONNECT, PING and PONG |
//! | [`frames`] | counts messages of one length in a stream |
//! | [`flow`] | from publishers to subscribers: one to one, fan-out, many to one, many subjects |
//! | [`request`] | pairs that ask and answer, one request after the other |
//! | [`connections`] | connections that do nothing |
//! | [`report`] | figures that all of them give |

pub mod connections;
pub mod flow;
pub mod frames;
pub mod peer;
pub mod report;
pub mod request;
pub mod target;

pub use report::{Quantiles, Report};
pub use target::{LoadError, Target};
