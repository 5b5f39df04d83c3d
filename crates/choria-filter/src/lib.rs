//! Filters on the node: identities, agents, classes, facts and compound expressions (spec 01 §7, spec 03 §2.6,
//! spec 05 §3), and the files they look at.
//!
//! Filters come from other machines. Whatever they hold, [`matches()`] ends soon, does not panic and takes bounded memory:
//! paths, regular expressions and expressions have limits on length, nesting and work, and what cannot be evaluated does not match.
//! What must **not** be in this crate: sockets, the discovery methods of the client, agents' data.
//!
//! | Module | What |
//! |---|---|
//! | [`matches()`], [`FilterMatcher`], [`NodeView`] | does this node match this filter |
//! | [`facts`] | facts files and looking facts up |
//! | [`classes`] | classes files |
//! | [`regex`] | regular expressions as the original understands them |
//! | [`expr`] | the expression language, also for other environments (`--filter-replies`) |
//! | [`semver`] | version constraints |
//!
//! ```
//! use choria_filter::{NodeView, matches};
//! use choria_protocol::filter::{Filter, parse_fact};
//!
//! let facts = serde_json::json!({"os": {"family": "Debian"}});
//! let (agents, classes) = (vec!["rpcutil".to_owned()], vec!["Role::Web".to_owned()]);
//! let node = NodeView::new("web1.example.net", &agents, &classes, &facts);
//! let mut filter = Filter::default();
//! filter.add_class("role::web");
//! filter.add_fact(parse_fact("os.family=debian")?);
//! filter.add_compound("with('/web/') and not with('os.family=redhat')");
//! assert!(matches(&filter, &node)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod classes;
mod compound;
pub mod expr;
mod fact;
pub mod facts;
mod gjson;
mod matcher;
pub mod regex;
pub mod semver;

pub use compound::{DataSource, DataSources, common_function, common_scope};
pub use fact::FactMatcher;
pub use matcher::{FilterMatcher, MatchError, NodeView, matches};
