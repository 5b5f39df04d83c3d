//! The one key table: every setting with its name, type, default, environment variable and documentation.
//!
//! A constant is named after its key, in upper snake case, without the prefix `plugin.choria.` or `plugin.`:
//! `plugin.choria.network.client_port` is [`NETWORK_CLIENT_PORT`]. `docs/configuration.md` is generated from here.

mod broker;
mod client;
mod core;
mod legacy;
mod network;
mod security;
mod server;

pub use self::broker::*;
pub use self::client::*;
pub use self::core::*;
pub use self::network::*;
pub use self::security::*;
pub use self::server::*;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::key::{Spec, family_name};

/// Keys that belong together, for the documentation.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// Heading.
    pub title: &'static str,
    /// One sentence under it.
    pub intro: &'static str,
    /// Keys with a fixed name.
    pub keys: &'static [Spec],
    /// Keys with a name of the user's own inside.
    pub families: &'static [Spec],
}

/// All groups, in the order of the documentation.
pub static GROUPS: &[&Group] = &[
    &CORE_GROUP,
    &NETWORK_GROUP,
    &SECURITY_GROUP,
    &SERVER_GROUP,
    &CLIENT_GROUP,
    &BROKER_GROUP,
    &STREAMS_GROUP,
    &CLUSTER_GROUP,
    &FEDERATION_GROUP,
    &legacy::GROUP,
];

/// Every key with a fixed name.
pub static ALL: LazyLock<Vec<Spec>> = LazyLock::new(|| GROUPS.iter().flat_map(|group| group.keys).copied().collect());

/// Every key family.
pub static FAMILIES: LazyLock<Vec<Spec>> =
    LazyLock::new(|| GROUPS.iter().flat_map(|group| group.families).copied().collect());

static BY_NAME: LazyLock<HashMap<&'static str, Spec>> = LazyLock::new(|| {
    let names = ALL.iter().map(|spec| (spec.name, *spec));
    let aliases = ALL.iter().filter_map(|spec| spec.alias.map(|alias| (alias, *spec)));
    names.chain(aliases).collect()
});

/// The row of a key, found by its name or an older name of it.
#[must_use]
pub fn find(name: &str) -> Option<&'static Spec> {
    BY_NAME.get(name)
}

/// The family a key belongs to, with the user's name inside the key.
#[must_use]
pub fn find_family(key: &str) -> Option<(&'static Spec, &str)> {
    FAMILIES.iter().find_map(|spec| family_name(spec.name, key).map(|name| (spec, name)))
}

/// The known key closest to a misspelt one, if any is close enough to be meant.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let folded = name.to_ascii_lowercase();
    let (distance, nearest) = ALL
        .iter()
        .map(|spec| (strsim::damerau_levenshtein(&folded, spec.name), spec.name))
        .min_by_key(|(distance, _)| *distance)?;
    // A third of the name wrong is no slip of the keyboard any more.
    (distance <= (name.len() / 6).clamp(1, 4)).then_some(nearest)
}

/// Defines the constants of one group and their rows at once.
macro_rules! settings {
    (
        $group:ident, $title:literal, $intro:literal;
        keys { $($(#[doc = $doc:literal])+ $constant:ident: $type:ty = $spec:expr;)* }
        families { $($(#[doc = $family_doc:literal])+ $family:ident: $family_type:ty = $family_spec:expr;)* }
    ) => {
        $(
            $(#[doc = $doc])+
            pub const $constant: crate::key::Key<$type> =
                crate::key::Key::new($spec.named(stringify!($constant), concat!($($doc),+)));
        )*
        $(
            $(#[doc = $family_doc])+
            pub const $family: crate::key::Family<$family_type> =
                crate::key::Family::new($family_spec.named(stringify!($family), concat!($($family_doc),+)));
        )*

        pub(crate) static $group: super::Group = super::Group {
            title: $title,
            intro: $intro,
            keys: &[$(*$constant.spec()),*],
            families: &[$(*$family.spec()),*],
        };
    };
}
use settings;
