//! Who listens to what in one account.
//!
//! One entry per filter with its plain subscribers and queue groups. Entries are copy-on-write: a publisher
//! with many targets keeps its reference and lets go of the index, so that a SUB never waits for a thousand
//! writes. There is no cache and nothing to invalidate (spec 07 §22.3).

use std::sync::Arc;

use nats_proto::trie::SubjectTrie;

use crate::subscription::Subscription;

/// Members of one queue group on one filter.
#[derive(Debug, Clone)]
pub(crate) struct QueueGroup {
    pub(crate) name: Arc<str>,
    pub(crate) members: Vec<Arc<Subscription>>,
}

/// Everyone on one filter.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    filter: Arc<str>,
    pub(crate) plain: Vec<Arc<Subscription>>,
    pub(crate) queues: Vec<QueueGroup>,
}

impl Entry {
    /// Number of deliveries that one message can cause here.
    pub(crate) fn targets(&self) -> usize {
        self.plain.len() + self.queues.len()
    }

    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.queues.is_empty()
    }

    pub(crate) fn subscriptions(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.plain.iter().chain(self.queues.iter().flat_map(|group| group.members.iter()))
    }
}

/// The subscriptions of one account.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: SubjectTrie<Arc<Entry>>,
    subscriptions: usize,
    pub(crate) inserts: u64,
    pub(crate) removes: u64,
}

impl Index {
    pub(crate) fn len(&self) -> usize {
        self.subscriptions
    }

    /// Whether any filter is left.
    #[cfg(test)]
    pub(crate) fn has_entries(&self) -> bool {
        !self.entries.is_empty()
    }

    /// The shared text of a filter, so that many subscriptions to it keep one copy.
    pub(crate) fn intern(&self, filter: &str) -> Arc<str> {
        self.entries.get(filter).map_or_else(|| filter.into(), |entry| Arc::clone(&entry.filter))
    }

    pub(crate) fn add(&mut self, sub: &Arc<Subscription>) {
        if self.entries.get(&sub.filter).is_none() {
            let entry = Entry { filter: Arc::clone(&sub.filter), plain: Vec::new(), queues: Vec::new() };
            self.entries.insert(&sub.filter, Arc::new(entry));
        }
        let entry = self.entries.get_mut(&sub.filter).expect("the entry was just inserted");
        let entry = Arc::make_mut(entry);
        let list = match sub.queue() {
            None => &mut entry.plain,
            Some(name) => {
                let at = entry.queues.iter().position(|group| group.name == *name).unwrap_or_else(|| {
                    entry.queues.push(QueueGroup { name: Arc::clone(name), members: Vec::new() });
                    entry.queues.len() - 1
                });
                &mut entry.queues[at].members
            }
        };
        sub.set_slot(list.len());
        list.push(Arc::clone(sub));
        self.subscriptions += 1;
        self.inserts += 1;
    }

    /// Takes a subscription out. Cheap however many others share its filter.
    pub(crate) fn remove(&mut self, sub: &Arc<Subscription>) -> bool {
        let Some(entry) = self.entries.get_mut(&sub.filter) else {
            return false;
        };
        let entry = Arc::make_mut(entry);
        let removed = match sub.queue() {
            None => remove_from(&mut entry.plain, sub),
            Some(name) => match entry.queues.iter().position(|group| group.name == *name) {
                Some(at) => {
                    let removed = remove_from(&mut entry.queues[at].members, sub);
                    if entry.queues[at].members.is_empty() {
                        entry.queues.swap_remove(at);
                    }
                    removed
                }
                None => false,
            },
        };
        if entry.is_empty() {
            self.entries.remove(&sub.filter);
        }
        if removed {
            self.subscriptions -= 1;
            self.removes += 1;
        }
        removed
    }

    /// Calls `visit` with the entry of every filter that matches.
    pub(crate) fn for_each_match<'a>(&'a self, subject: &str, visit: impl FnMut(&'a Arc<Entry>)) {
        self.entries.for_each_match(subject, visit);
    }

    /// Calls `visit` with every subscription.
    pub(crate) fn for_each<'a>(&'a self, mut visit: impl FnMut(&'a Arc<Subscription>)) {
        self.entries.for_each(|entry| entry.subscriptions().for_each(&mut visit));
    }
}

fn remove_from(list: &mut Vec<Arc<Subscription>>, sub: &Arc<Subscription>) -> bool {
    let slot = sub.slot();
    if !list.get(slot).is_some_and(|found| Arc::ptr_eq(found, sub)) {
        return false;
    }
    list.swap_remove(slot);
    sub.set_ended();
    if let Some(moved) = list.get(slot) {
        moved.set_slot(slot);
    }
    if list.capacity() > 64 && list.len() * 4 < list.capacity() {
        list.shrink_to_fit();
    }
    true
}
