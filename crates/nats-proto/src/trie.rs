//! An index of subject filters: a hash map for literal filters and a tree of tokens for those with wildcards.
//!
//! Nodes lie in one arena, so neither matching nor dropping recurses: the depth of a filter that a peer
//! chooses never becomes stack depth. Hashing is seeded per index.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use rustc_hash::FxSeededState;
use slab::Slab;
use smallvec::SmallVec;

use crate::subject::has_wildcard;

const ROOT: usize = 0;

/// Maps subject filters to values; a lookup finds all filters that match a subject.
///
/// Filters must be valid ([`crate::subject::is_valid_filter`]), subjects must have no empty token.
pub struct SubjectTrie<T> {
    literals: HashMap<Box<str>, T, FxSeededState>,
    nodes: Slab<Node<T>>,
    wildcards: usize,
    hasher: FxSeededState,
}

struct Node<T> {
    children: Children,
    star: Option<u32>,
    /// Value of the filter that ends with `>` below this node.
    tail: Option<T>,
    /// Value of the filter that ends at this node.
    value: Option<T>,
}

/// Most inner nodes have one child: no map for those.
#[expect(clippy::box_collection, reason = "keeps nodes small; few nodes have many children")]
enum Children {
    None,
    One(Box<str>, u32),
    Many(Box<HashMap<Box<str>, u32, FxSeededState>>),
}

impl Children {
    fn get(&self, token: &str) -> Option<u32> {
        match self {
            Self::None => None,
            Self::One(name, node) => (&**name == token).then_some(*node),
            Self::Many(map) => map.get(token).copied(),
        }
    }

    fn insert(&mut self, token: &str, node: u32, hasher: &FxSeededState) {
        *self = match std::mem::replace(self, Self::None) {
            Self::None => Self::One(token.into(), node),
            Self::One(name, first) => {
                let mut map = HashMap::with_hasher(hasher.clone());
                map.insert(name, first);
                map.insert(token.into(), node);
                Self::Many(Box::new(map))
            }
            Self::Many(mut map) => {
                map.insert(token.into(), node);
                Self::Many(map)
            }
        };
    }

    fn remove(&mut self, token: &str) {
        match self {
            Self::None => {}
            Self::One(name, _) if &**name == token => *self = Self::None,
            Self::One(..) => {}
            Self::Many(map) => {
                map.remove(token);
                if map.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl<T> Node<T> {
    fn new() -> Self {
        Self { children: Children::None, star: None, tail: None, value: None }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.star.is_none() && self.tail.is_none() && self.value.is_none()
    }
}

impl<T> Default for SubjectTrie<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> SubjectTrie<T> {
    /// An empty index with a hash seed of its own.
    pub fn new() -> Self {
        let seed = RandomState::new().hash_one(0x6e61_7473_u64);
        let hasher = FxSeededState::with_seed(seed as usize);
        let mut nodes = Slab::new();
        nodes.insert(Node::new());
        Self { literals: HashMap::with_hasher(hasher.clone()), nodes, wildcards: 0, hasher }
    }

    /// Number of filters.
    pub fn len(&self) -> usize {
        self.literals.len() + self.wildcards
    }

    /// Whether there is no filter.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the value of a filter and returns the one it had.
    pub fn insert(&mut self, filter: &str, value: T) -> Option<T> {
        if !has_wildcard(filter) {
            return self.literals.insert(filter.into(), value);
        }
        let (node, is_tail) = self.make_path(filter);
        let node = &mut self.nodes[node];
        let slot = if is_tail { &mut node.tail } else { &mut node.value };
        let before = slot.replace(value);
        if before.is_none() {
            self.wildcards += 1;
        }
        before
    }

    /// The value of exactly this filter.
    pub fn get(&self, filter: &str) -> Option<&T> {
        if !has_wildcard(filter) {
            return self.literals.get(filter);
        }
        let (node, is_tail) = self.find(filter)?;
        let node = &self.nodes[node];
        if is_tail { node.tail.as_ref() } else { node.value.as_ref() }
    }

    /// The value of exactly this filter, to change it.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut T> {
        if !has_wildcard(filter) {
            return self.literals.get_mut(filter);
        }
        let (node, is_tail) = self.find(filter)?;
        let node = &mut self.nodes[node];
        if is_tail { node.tail.as_mut() } else { node.value.as_mut() }
    }

    /// Takes a filter out and gives its value back. Branches that became empty go too.
    pub fn remove(&mut self, filter: &str) -> Option<T> {
        if !has_wildcard(filter) {
            let value = self.literals.remove(filter);
            if self.literals.capacity() > 1024 && self.literals.len() * 8 < self.literals.capacity() {
                self.literals.shrink_to_fit();
            }
            return value;
        }
        let mut path: SmallVec<[(usize, &str); 16]> = SmallVec::new();
        let mut node = ROOT;
        let mut is_tail = false;
        for token in filter.split('.') {
            if token == ">" {
                is_tail = true;
                break;
            }
            path.push((node, token));
            let next = if token == "*" { self.nodes[node].star } else { self.nodes[node].children.get(token) };
            node = next? as usize;
        }
        let found = &mut self.nodes[node];
        let value = if is_tail { found.tail.take() } else { found.value.take() }?;
        self.wildcards -= 1;
        while let Some((parent, token)) = path.pop() {
            if !self.nodes[node].is_empty() {
                break;
            }
            self.nodes.remove(node);
            let parent_node = &mut self.nodes[parent];
            if token == "*" {
                parent_node.star = None;
            } else {
                parent_node.children.remove(token);
            }
            node = parent;
        }
        Some(value)
    }

    /// Calls `visit` with the value of every filter that matches the subject, in no particular order.
    ///
    /// Wildcards in the subject are ordinary tokens. The subject must not have an empty token.
    pub fn for_each_match<'a>(&'a self, subject: &str, mut visit: impl FnMut(&'a T)) {
        self.walk(subject, |value| {
            visit(value);
            true
        });
    }

    /// Whether any filter matches the subject.
    pub fn any_match(&self, subject: &str) -> bool {
        let mut found = false;
        self.walk(subject, |_| {
            found = true;
            false
        });
        found
    }

    /// Calls `visit` with every value, in no particular order.
    pub fn for_each<'a>(&'a self, mut visit: impl FnMut(&'a T)) {
        self.literals.values().for_each(&mut visit);
        for (_, node) in &self.nodes {
            if let Some(value) = &node.tail {
                visit(value);
            }
            if let Some(value) = &node.value {
                visit(value);
            }
        }
    }

    /// Visits matches until `visit` says `false`.
    fn walk<'a>(&'a self, subject: &str, mut visit: impl FnMut(&'a T) -> bool) {
        if let Some(value) = self.literals.get(subject)
            && !visit(value)
        {
            return;
        }
        if self.wildcards == 0 {
            return;
        }
        let bytes = subject.as_bytes();
        // Nodes to look at with the byte where their next token starts; one past the end means none is left.
        let mut open: SmallVec<[(u32, usize); 16]> = SmallVec::new();
        open.push((ROOT as u32, 0));
        while let Some((index, start)) = open.pop() {
            let node = &self.nodes[index as usize];
            if start > bytes.len() {
                if let Some(value) = &node.value
                    && !visit(value)
                {
                    return;
                }
                continue;
            }
            if let Some(value) = &node.tail
                && !visit(value)
            {
                return;
            }
            if node.star.is_none() && node.children.is_empty() {
                continue;
            }
            let end = memchr::memchr(b'.', &bytes[start..]).map_or(bytes.len(), |dot| start + dot);
            if let Some(star) = node.star {
                open.push((star, end + 1));
            }
            // A subject with wildcards as tokens finds the filter's wildcards through `star` and `tail`.
            if let Some(child) = node.children.get(&subject[start..end]) {
                open.push((child, end + 1));
            }
        }
    }

    /// The node of a wildcard filter, and whether its value is the tail's.
    fn find(&self, filter: &str) -> Option<(usize, bool)> {
        let mut node = ROOT;
        for token in filter.split('.') {
            node = match token {
                ">" => return Some((node, true)),
                "*" => self.nodes[node].star? as usize,
                _ => self.nodes[node].children.get(token)? as usize,
            };
        }
        Some((node, false))
    }

    fn make_path(&mut self, filter: &str) -> (usize, bool) {
        let mut node = ROOT;
        for token in filter.split('.') {
            if token == ">" {
                return (node, true);
            }
            let known = if token == "*" { self.nodes[node].star } else { self.nodes[node].children.get(token) };
            node = match known {
                Some(next) => next as usize,
                None => {
                    let next = self.nodes.insert(Node::new());
                    let hasher = self.hasher.clone();
                    let parent = &mut self.nodes[node];
                    if token == "*" {
                        parent.star = Some(next as u32);
                    } else {
                        parent.children.insert(token, next as u32, &hasher);
                    }
                    next
                }
            };
        }
        (node, false)
    }
}

impl<T> fmt::Debug for SubjectTrie<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectTrie")
            .field("literals", &self.literals.len())
            .field("wildcards", &self.wildcards)
            .field("nodes", &self.nodes.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::{has_no_empty_token, matches};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn found(trie: &SubjectTrie<String>, subject: &str) -> Vec<String> {
        let mut all = Vec::new();
        trie.for_each_match(subject, |value| all.push(value.clone()));
        all.sort();
        all
    }

    #[test]
    fn finds_literals_and_wildcards() {
        let mut trie = SubjectTrie::new();
        for filter in ["foo.bar", "foo.*", "foo.>", ">", "*.bar", "*.*", "*", "foo.bar.>"] {
            assert!(trie.insert(filter, filter.to_owned()).is_none());
        }
        assert_eq!(found(&trie, "foo.bar"), ["*.*", "*.bar", ">", "foo.*", "foo.>", "foo.bar"]);
        assert_eq!(found(&trie, "foo.*"), ["*.*", ">", "foo.*", "foo.>"]);
        assert!(trie.any_match("x.y.z"));
        assert_eq!(trie.len(), 8);
    }

    #[test]
    fn removing_everything_leaves_only_the_root() {
        let mut trie = SubjectTrie::new();
        let filters = ["a.*.c", "a.>", "a.*.>", "*.b", "x.*", "y.*", "z.*.q.>", "lit"];
        for filter in filters {
            trie.insert(filter, ());
        }
        for filter in filters {
            assert_eq!(trie.remove(filter), Some(()), "{filter}");
            assert_eq!(trie.remove(filter), None, "{filter}");
        }
        assert!(trie.is_empty());
        assert_eq!(trie.nodes.len(), 1);
    }

    #[test]
    fn very_deep_filters_do_not_use_the_stack() {
        let deep = vec!["a"; 200_000].join(".");
        let mut trie = SubjectTrie::new();
        trie.insert(&format!("{deep}.*"), 1);
        assert!(trie.any_match(&format!("{deep}.x")));
        drop(trie);
    }

    fn token() -> impl Strategy<Value = String> {
        prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("*".to_owned()), Just("ab".to_owned())]
    }

    fn filter() -> impl Strategy<Value = String> {
        (proptest::collection::vec(token(), 1..5), any::<bool>()).prop_map(|(mut tokens, tail)| {
            if tail {
                tokens.push(">".to_owned());
            }
            tokens.join(".")
        })
    }

    proptest! {
        #[test]
        fn trie_agrees_with_matching_one_by_one(
            filters in proptest::collection::vec(filter(), 0..24),
            removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
            subject in proptest::collection::vec(token(), 1..6).prop_map(|tokens| tokens.join(".")),
        ) {
            let mut trie = SubjectTrie::new();
            let mut model = BTreeMap::new();
            for filter in &filters {
                trie.insert(filter, filter.clone());
                model.insert(filter.clone(), ());
            }
            for index in removed {
                if !filters.is_empty() {
                    let filter = index.get(&filters);
                    prop_assert_eq!(trie.remove(filter).is_some(), model.remove(filter).is_some());
                }
            }
            prop_assert!(has_no_empty_token(&subject));
            let expected: Vec<String> = model.keys().filter(|filter| matches(filter, &subject)).cloned().collect();
            prop_assert_eq!(trie.any_match(&subject), !expected.is_empty());
            prop_assert_eq!(found(&trie, &subject), expected);
            prop_assert_eq!(trie.len(), model.len());
        }
    }
}
