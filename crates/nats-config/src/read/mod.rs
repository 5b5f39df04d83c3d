//! From tree to settings: which names a block has, and what their values must be.
//!
//! Each block has one table of [`Key`]s, and nothing else knows its names. Everything that is wrong is collected.

mod account;
mod authorization;
mod check;
mod exchange;
mod jetstream;
mod mapping;
mod tls;
mod top;
mod values;
mod websocket;

use std::collections::HashMap;

pub(crate) use check::start_problems;

use crate::parse::shown;
use crate::settings::{Settings, Unsupported};
use crate::source::Sources;
use crate::value::{Kind, Pair, Value};
use crate::{Position, Problem, Warning};

/// Problems and warnings of which more would help nobody.
const MAX_PROBLEMS: usize = 50;

/// A setting of a block and how it is read into what the block becomes.
struct Key<T: 'static> {
    /// Its names in small letters, the usual one first.
    names: &'static [&'static str],
    read: fn(&mut T, &Entry<'_>, &mut Reader<'_>),
}

/// A setting as it was found.
struct Entry<'a> {
    /// Its name as written.
    name: &'a str,
    /// Where the name stands.
    at: &'a Position,
    value: &'a Value,
}

/// Collects what is wrong.
pub(crate) struct Reader<'a> {
    sources: &'a Sources,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
    unsupported: Vec<Unsupported>,
}

/// What reading came to.
pub(crate) struct Outcome {
    pub(crate) settings: Settings,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Warning>,
}

/// Reads the settings of a whole configuration.
pub(crate) fn read(pairs: &[Pair], sources: &Sources, start: Position) -> Outcome {
    let mut reader = Reader { sources, problems: Vec::new(), warnings: Vec::new(), unsupported: Vec::new() };
    if pairs.is_empty() {
        reader.warn_check(&start, "the configuration is empty", None);
    }
    let mut settings = Settings::default();
    reader.block("the configuration", pairs, top::KEYS, &mut settings);
    // What is missing or wrong already would only be told twice.
    if reader.problems.is_empty() {
        check::check(&settings, &mut reader);
    }
    let Reader { mut problems, mut warnings, mut unsupported, .. } = reader;
    problems.sort_by_key(|problem| sources.order(&problem.at));
    warnings.sort_by_key(|warning| sources.order(&warning.problem.at));
    unsupported.sort_by_key(|unsupported| sources.order(&unsupported.at));
    settings.unsupported = unsupported;
    Outcome { settings, problems, warnings }
}

impl Reader<'_> {
    fn problem(&mut self, at: &Position, message: impl Into<String>, hint: Option<&str>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(self.sources.problem(at.clone(), message.into(), hint.map(str::to_owned)));
        }
    }

    fn warn(&mut self, at: &Position, message: impl Into<String>, hint: Option<&str>) {
        self.add_warning(at, message.into(), hint, false);
    }

    /// A warning by which a check of the file fails.
    fn warn_check(&mut self, at: &Position, message: impl Into<String>, hint: Option<&str>) {
        self.add_warning(at, message.into(), hint, true);
    }

    fn add_warning(&mut self, at: &Position, message: String, hint: Option<&str>, fails_check: bool) {
        // One by which the check fails must not be lost behind others.
        if self.warnings.len() < MAX_PROBLEMS || fails_check && !self.warnings.iter().any(|warning| warning.fails_check)
        {
            let problem = self.sources.problem(at.clone(), message, hint.map(str::to_owned));
            self.warnings.push(Warning { problem, fails_check });
        }
    }

    /// Something that this broker has not.
    fn unsupported(&mut self, name: impl Into<String>, at: &Position) {
        if self.unsupported.len() < MAX_PROBLEMS {
            self.unsupported.push(Unsupported { name: name.into(), at: at.clone() });
        }
    }

    /// Reads a block by its table. A name that is there twice counts where it stands last.
    fn block<T>(&mut self, what: &str, pairs: &[Pair], keys: &[Key<T>], into: &mut T) {
        let mut found: Vec<(usize, &Pair)> = Vec::new();
        let mut last: Vec<Option<&Pair>> = vec![None; keys.len()];
        for pair in pairs {
            let name = pair.key.to_lowercase();
            match keys.iter().position(|key| key.names.contains(&name.as_str())) {
                Some(key) => {
                    found.push((key, pair));
                    if let Some(earlier) = last[key].replace(pair) {
                        self.repeated(earlier, pair);
                    }
                }
                None if pair.used => {}
                None => self.unknown(what, pair, keys.iter().flat_map(|key| key.names)),
            }
        }
        for (key, pair) in found {
            if last[key].is_some_and(|last| std::ptr::eq(last, pair)) {
                (keys[key].read)(into, &Entry { name: &pair.key, at: &pair.at, value: &pair.value }, self);
            }
        }
    }

    /// Pairs whose names are not settings. A name that is there twice counts where it stands last.
    fn last_of_each<'e>(&mut self, pairs: &'e [Pair]) -> Vec<&'e Pair> {
        let mut last: HashMap<&str, &Pair> = HashMap::new();
        for pair in pairs {
            if let Some(earlier) = last.insert(&pair.key, pair) {
                self.repeated(earlier, pair);
            }
        }
        pairs.iter().filter(|pair| last.get(&*pair.key).is_some_and(|last| std::ptr::eq(*last, *pair))).collect()
    }

    /// Files may override what they include; the same file twice is a slip.
    fn repeated(&mut self, earlier: &Pair, later: &Pair) {
        if earlier.at.file == later.at.file && earlier.at != later.at {
            let message =
                format!("{} is set again in line {}, and only that counts", shown(&earlier.key), later.at.line);
            self.warn(&earlier.at, message, None);
        }
    }

    fn unknown<'k>(&mut self, what: &str, pair: &Pair, names: impl Iterator<Item = &'k &'static str>) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let name = pair.key.to_lowercase();
        // The distance of long words costs time and would be large.
        let nearest = names
            .filter(|_| name.len() <= 40)
            .map(|known| (strsim::damerau_levenshtein(&name, known), known))
            .min_by_key(|(distance, _)| *distance)
            .filter(|(distance, known)| *distance <= known.len().div_ceil(4).max(2) && *distance < known.len());
        let hint = nearest.map(|(_, known)| format!("did you mean `{known}`?"));
        self.problem(&pair.at, format!("{what} has no setting {}", shown(&pair.key)), hint.as_deref());
    }

    /// The pairs of a block.
    fn map<'e>(&mut self, entry: &Entry<'e>) -> Option<&'e [Pair]> {
        match &entry.value.kind {
            Kind::Map(pairs) => Some(pairs),
            _ => self.wrong(entry, "a block in `{ }`", None),
        }
    }

    /// Reads a block into its default.
    fn map_into<T: Default>(&mut self, what: &str, entry: &Entry<'_>, keys: &[Key<T>]) -> Option<T> {
        let pairs = self.map(entry)?;
        let mut into = T::default();
        self.block(what, pairs, keys, &mut into);
        Some(into)
    }

    /// A value of the wrong kind. Never says the value: it may be a secret.
    fn wrong<T>(&mut self, entry: &Entry<'_>, expected: &str, hint: Option<&str>) -> Option<T> {
        let message = format!("{} is {}, expected {expected}", shown(entry.name), entry.value.name());
        self.problem(&entry.value.at, message, hint);
        None
    }

    /// A value that is not good for its setting.
    fn bad<T>(&mut self, entry: &Entry<'_>, message: &str, hint: Option<&str>) -> Option<T> {
        self.problem(&entry.value.at, format!("{}: {message}", shown(entry.name)), hint);
        None
    }
}
