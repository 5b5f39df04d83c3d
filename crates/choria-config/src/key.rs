//! What a key of the table is made of: name, kind, default, documentation, environment variable.

use std::marker::PhantomData;

use crate::value::{Setting, Value};

/// How the text of a value is read and what is allowed (spec 03 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Any text.
    Text,
    /// A file or directory; a leading `~/` is the home directory.
    Path,
    /// Several paths, split on `:` (`;` on Windows). With `append`, each further line adds to the list.
    PathList {
        /// Whether a second line adds to the first.
        append: bool,
    },
    /// `stdout`, `stderr`, `discard` or a path.
    LogTarget,
    /// `1 yes true y t` or `0 no false n f`, in any case.
    Boolean,
    /// Decimal whole number within bounds.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// Whole number of seconds within bounds.
    Seconds {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// Duration with unit, see [`crate::duration`].
    Duration {
        /// Shortest, in milliseconds.
        min_ms: u64,
        /// Longest, in milliseconds.
        max_ms: u64,
    },
    /// Comma separated texts; a later line replaces an earlier one.
    List,
    /// One list entry per line.
    Lines,
    /// One of a closed set of words.
    Choice(&'static [&'static str]),
    /// The same, in any case: the original's "title" texts.
    ChoiceAnyCase(&'static [&'static str]),
    /// Comma separated words of a closed set.
    Choices(&'static [&'static str]),
    /// Name of a node: `[A-Za-z0-9._-]+`.
    Identity,
    /// Name of one collective, usable inside a subject.
    Collective,
    /// Comma separated collective names, at least one.
    Collectives,
    /// Comma separated broker addresses, see [`crate::hosts`].
    Hosts,
    /// One address told to others: `host`, `host:port` or `nats://host:port`.
    Address,
    /// Comma separated IP addresses and networks such as `192.0.2.0/24`.
    Networks,
    /// Octal file mode such as `0600`.
    FileMode,
}

/// Whether a key does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does what its documentation says.
    Active,
    /// Read and checked; belongs to a part that this version does not have.
    Planned,
    /// As [`Status::Planned`], but ignoring it would run another broker than the one asked for, so the broker refuses it.
    Refused,
    /// Once had a meaning in Choria or MCollective; read without complaint, without effect. Holds the reason.
    Legacy(&'static str),
}

/// One row of the key table.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// The key exactly as the file writes it.
    pub name: &'static str,
    /// Name of the constant in [`crate::keys`].
    pub constant: &'static str,
    /// How values are read.
    pub kind: Kind,
    /// Default in the file's own syntax; `None` when unset or worked out while loading.
    pub default: Option<&'static str>,
    /// For people: what the default is when it is worked out from something else.
    pub computed_default: Option<&'static str>,
    /// Environment variable that overrides the file.
    pub environment: Option<&'static str>,
    /// Older name that still works.
    pub alias: Option<&'static str>,
    /// The value must not be shown in errors or logs.
    pub secret: bool,
    /// A value of zero means the default, as in the original.
    pub zero_is_default: bool,
    /// Not known to the original.
    pub own: bool,
    /// Whether it does something.
    pub status: Status,
    /// What it is for.
    pub doc: &'static str,
    /// Whether a value reads as the Rust type of the key.
    pub(crate) fits: fn(Option<&Value>) -> bool,
}

impl Spec {
    pub(crate) const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            constant: "",
            kind,
            default: None,
            computed_default: None,
            environment: None,
            alias: None,
            secret: false,
            zero_is_default: false,
            own: false,
            status: Status::Active,
            doc: "",
            fits: |_| true,
        }
    }

    pub(crate) const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    pub(crate) const fn computed(mut self, text: &'static str) -> Self {
        self.computed_default = Some(text);
        self
    }

    pub(crate) const fn env(mut self, variable: &'static str) -> Self {
        self.environment = Some(variable);
        self
    }

    pub(crate) const fn alias(mut self, name: &'static str) -> Self {
        self.alias = Some(name);
        self
    }

    pub(crate) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(crate) const fn zero_is_default(mut self) -> Self {
        self.zero_is_default = true;
        self
    }

    pub(crate) const fn own(mut self) -> Self {
        self.own = true;
        self
    }

    pub(crate) const fn planned(mut self) -> Self {
        self.status = Status::Planned;
        self
    }

    pub(crate) const fn refused(mut self) -> Self {
        self.status = Status::Refused;
        self
    }

    pub(crate) const fn legacy(mut self, reason: &'static str) -> Self {
        self.status = Status::Legacy(reason);
        self
    }

    pub(crate) const fn named(mut self, constant: &'static str, doc: &'static str) -> Self {
        self.constant = constant;
        self.doc = doc;
        self
    }

    /// Whether a further line adds to the value instead of replacing it.
    #[must_use]
    pub const fn appends(&self) -> bool {
        matches!(self.kind, Kind::Lines | Kind::PathList { append: true })
    }
}

/// A setting with its Rust type. The constants are in [`crate::keys`].
#[derive(Debug, Clone, Copy)]
pub struct Key<T> {
    spec: Spec,
    value: PhantomData<fn() -> T>,
}

impl<T: Setting> Key<T> {
    pub(crate) const fn new(mut spec: Spec) -> Self {
        spec.fits = fits::<T>;
        Self { spec, value: PhantomData }
    }

    /// The key exactly as the file writes it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.spec.name
    }

    /// The row of the table.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(crate) fn read(value: Option<&Value>) -> Option<T> {
        T::read(value)
    }
}

/// A family of keys with a name of the user's own inside: `plugin.security.issuer.NAME.public`.
#[derive(Debug, Clone, Copy)]
pub struct Family<T> {
    spec: Spec,
    value: PhantomData<fn() -> T>,
}

impl<T: Setting> Family<T> {
    pub(crate) const fn new(mut spec: Spec) -> Self {
        spec.fits = fits::<T>;
        Self { spec, value: PhantomData }
    }

    /// The pattern; the word `NAME` stands for the user's name.
    #[must_use]
    pub const fn pattern(&self) -> &'static str {
        self.spec.name
    }

    /// The row of the table.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The key for one name.
    #[must_use]
    pub fn key_for(&self, name: &str) -> String {
        self.spec.name.replacen("NAME", name, 1)
    }

    pub(crate) fn read(value: Option<&Value>) -> Option<T> {
        T::read(value)
    }
}

/// The user's name inside `key`, when `key` belongs to the family `pattern`.
pub(crate) fn family_name<'k>(pattern: &str, key: &'k str) -> Option<&'k str> {
    let (before, after) = pattern.split_once("NAME")?;
    let name = key.strip_prefix(before)?.strip_suffix(after)?;
    (!name.is_empty()).then_some(name)
}

fn fits<T: Setting>(value: Option<&Value>) -> bool {
    T::read(value).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;
    use crate::keys;
    use crate::{Config, Environment, Mode};

    fn all() -> impl Iterator<Item = &'static Spec> {
        keys::ALL.iter().chain(keys::FAMILIES.iter())
    }

    /// `Config::get` relies on this.
    #[test]
    fn every_default_fits_its_type() {
        let loaded = Config::defaults(None, Mode::Server, &Environment::fixed("n1")).unwrap();
        for spec in all() {
            let value = match spec.default {
                Some(text) => Some(check::parse(spec, text, None).unwrap()),
                None => loaded.values.get(spec.name).cloned(),
            };
            assert!((spec.fits)(value.as_ref()), "{}: {value:?}", spec.name);
        }
    }

    /// `Config::get` relies on this.
    #[test]
    fn every_value_within_bounds_fits_its_type() {
        for spec in all() {
            let samples: Vec<String> = match spec.kind {
                Kind::Integer { min, max } | Kind::Seconds { min, max } => vec![min.to_string(), max.to_string()],
                Kind::Duration { min_ms, max_ms } => vec![format!("{min_ms}ms"), format!("{max_ms}ms")],
                Kind::Choice(words) | Kind::ChoiceAnyCase(words) | Kind::Choices(words) => {
                    words.iter().map(|word| (*word).to_owned()).collect()
                }
                Kind::Boolean => vec!["1".into(), "0".into()],
                Kind::FileMode => vec!["0".into(), "7777".into()],
                Kind::Hosts => vec!["a:1,b:2".into()],
                Kind::Networks => vec!["192.0.2.1, 2001:db8::/32".into()],
                _ => vec!["a".into()],
            };
            for text in samples {
                let value = check::parse(spec, &text, None).unwrap();
                assert!((spec.fits)(Some(&value)), "{} = {text}: {value:?}", spec.name);
            }
        }
    }

    #[test]
    fn constants_are_named_after_their_keys() {
        for spec in all().filter(|spec| !spec.constant.is_empty()) {
            let name = spec.name.strip_prefix("plugin.choria.").or_else(|| spec.name.strip_prefix("plugin."));
            let name = name.unwrap_or(spec.name).replace("NAME.", "").replace('.', "_").to_uppercase();
            assert_eq!(spec.constant, name, "{}", spec.name);
        }
    }

    #[test]
    fn names_are_unique_and_documented() {
        let mut names: Vec<&str> = all().map(|spec| spec.name).chain(all().filter_map(|spec| spec.alias)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for spec in all() {
            assert!(spec.doc.trim().ends_with('.'), "{} needs a sentence of documentation", spec.name);
        }
    }

    #[test]
    fn a_family_knows_its_keys() {
        let (family, name) = keys::find_family("plugin.security.issuer.acme.public").unwrap();
        assert_eq!((family.constant, name), ("SECURITY_ISSUER_PUBLIC", "acme"));
        assert_eq!(keys::SECURITY_ISSUER_PUBLIC.key_for("acme"), "plugin.security.issuer.acme.public");
        assert!(keys::find_family("plugin.security.issuer..public").is_none());
        assert!(keys::find_family("plugin.security.issuer.names").is_none());
    }

    #[test]
    fn slips_find_the_key_that_was_meant() {
        for (slip, meant) in [
            ("registerinterva", Some("registerinterval")),
            ("TTL", Some("ttl")),
            ("plugin.choria.midleware_hosts", Some("plugin.choria.middleware_hosts")),
            ("plugin.choria.network.client_prot", Some("plugin.choria.network.client_port")),
            ("plugin.choria.network.nonsense", None),
            ("plugin.parrot.words", None),
            ("xyz", None),
        ] {
            assert_eq!(keys::nearest(slip), meant, "{slip}");
        }
    }
}
