//! `mappings` of an account. What the functions in them mean is up to the broker.

use std::collections::{HashMap, HashSet};

use super::{Entry, Key, Reader};
use crate::settings::{Destination, Mapping};
use crate::value::Kind;
use crate::{Located, subject};

#[derive(Default)]
struct Draft {
    subject: Option<Located<String>>,
    weight: Option<Located<u8>>,
    cluster: Option<Located<String>>,
}

const KEYS: &[Key<Draft>] = &[
    Key { names: &["destination", "dest"], read: |d, e, r| d.subject = r.text(e) },
    Key {
        names: &["weight"],
        read: |d, e, r| d.weight = r.percent(e).map(|weight| Located::new(weight, e.value.at.clone())),
    },
    Key { names: &["cluster"], read: |d, e, r| d.cluster = r.text(e) },
];

pub(super) fn read(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Vec<Mapping> {
    let mut mappings = Vec::new();
    let pairs = reader.map(entry).unwrap_or_default();
    for pair in reader.last_of_each(pairs).into_iter().filter(|pair| !pair.used) {
        if !subject::is_filter(&pair.key) {
            let hint = "tokens between the points must not be empty, `>` is the last";
            reader.problem(&pair.at, "this is not a valid subject", Some(hint));
            continue;
        }
        let destinations = destinations(&Entry { name: &pair.key, at: &pair.at, value: &pair.value }, reader);
        check_sum(&destinations, reader);
        if !destinations.is_empty() {
            let source = Located::new(pair.key.to_string(), pair.at.clone());
            mappings.push(Mapping { source, destinations });
        }
    }
    mappings
}

/// A subject, one destination, or a list of destinations.
fn destinations(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Vec<Destination> {
    match &entry.value.kind {
        Kind::Text(text) => {
            let subject = Located::new(text.to_string(), entry.value.at.clone());
            vec![Destination { subject, weight: 100, cluster: None }]
        }
        Kind::Map(_) => destination(entry, reader).into_iter().collect(),
        Kind::List(values) => {
            values.iter().filter_map(|value| destination(&Entry { value, ..*entry }, reader)).collect()
        }
        _ => reader
            .wrong(entry, "a subject, or a list of blocks of `destination` and `weight`", None)
            .unwrap_or_default(),
    }
}

fn destination(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Destination> {
    let before = reader.problems.len();
    let Draft { subject, weight, cluster } = reader.map_into("a destination", entry, KEYS)?;
    if reader.problems.len() != before {
        return None;
    }
    let Some(subject) = subject else {
        return reader.bad(entry, "there is no `destination`", None);
    };
    let Some(weight) = weight else {
        return reader.bad(entry, "a destination in a block needs its `weight`", None);
    };
    Some(Destination { subject, weight: weight.value, cluster })
}

/// The weights of one cluster are parts of a hundred.
fn check_sum(destinations: &[Destination], reader: &mut Reader<'_>) {
    let mut clusters: HashMap<Option<&str>, (u32, HashSet<&str>)> = HashMap::new();
    for destination in destinations {
        let cluster = destination.cluster.as_ref().map(|cluster| cluster.as_str());
        let (sum, subjects) = clusters.entry(cluster).or_default();
        *sum += u32::from(destination.weight);
        let message = if !subjects.insert(&destination.subject) {
            "this destination is there twice"
        } else if *sum > 100 {
            "the weights come to more than 100"
        } else {
            continue;
        };
        reader.problem(&destination.subject.at, message, None);
        return;
    }
}
