//! The filters of one shard's subscribers, and which of them match a topic.
//!
//! Filters without wildcards are found through a table by topic hash (and compared in full), the others through
//! [`Wildcards`](super::wildcard). A filter exists while it has subscribers; its [`FilterId`] is used again after that.
//! It knows neither sessions nor shared groups: both are [`Subscriber`]s to it.
//!
//! Memory: a filter of its own with one subscriber is a slot of 64 bytes, which has room for 46 bytes of text (a longer one
//! is outside), and about 10 bytes in the table; a further subscriber is 8 bytes (from the second on in a list), and 10 more where the list is long. Cost: matching is one
//! probe, and the walk of [`Wildcards`](super::wildcard) if there are any in the virtual host.

use super::slots::Slots;
use super::subscription::{List, Subscriber, Subscription, SubscriptionOptions};
use super::table::{SlotEntry, Table};
use super::text::Text;
use super::wildcard::Wildcards;
use crate::base::{HashKey, VhostId, topic};
use std::slice;

/// A filter that has subscribers.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct FilterId(pub u32);

/// What an operation did to this shard's count of a filter's subscribers: what other shards must hear of.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct Change {
    /// Subscribers: `Some(true)` if it has its first one now, `Some(false)` if it has none any more, `None` if neither.
    pub any: Option<bool>,
    /// The same of durable subscribers.
    pub durable: Option<bool>,
}

/// What [`Trie::insert`] did.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Inserted {
    /// The filter.
    pub filter: FilterId,
    /// The options of the subscription that this one replaced.
    pub replaced: Option<SubscriptionOptions>,
    /// What other shards must hear of.
    pub change: Change,
}

/// What [`Trie::remove`] did.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Removed {
    /// The options of the subscription that is gone.
    pub options: SubscriptionOptions,
    /// What other shards must hear of.
    pub change: Change,
    /// The filter's text, if it went with its last subscriber (it is not to be had any more then).
    pub filter: Option<Box<str>>,
}

/// The filters of one shard's subscribers.
#[derive(Debug)]
pub struct Trie {
    key: HashKey,
    filters: Slots<FilterSlot>,
    lists: Slots<List>,
    /// Filters without wildcards by topic hash.
    exact: Table<SlotEntry>,
    wildcards: Wildcards,
    generation: u64,
    subscription_count: usize,
    text_bytes: usize,
    list_bytes: usize,
}

/// One cache line: finding a filter of up to 46 bytes and its only subscription reads nothing else.
#[derive(Debug)]
#[repr(align(64))]
struct FilterSlot {
    text: Text<46>,
    subscribers: Subscribers,
    vhost: VhostId,
}

#[derive(Clone, Copy, Debug)]
enum Subscribers {
    One(Subscription),
    /// Two and more: index of the list.
    Many(u32),
}

impl Change {
    /// Whether nobody needs to hear of it.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.any.is_none() && self.durable.is_none()
    }

    fn between(before: (usize, usize), after: (usize, usize)) -> Self {
        let edge = |before: usize, after: usize| ((before == 0) != (after == 0)).then_some(after != 0);
        Self { any: edge(before.0, after.0), durable: edge(before.1, after.1) }
    }
}

impl Trie {
    /// No filters yet. All shards use the same key: topic hashes travel between them.
    #[must_use]
    pub fn new(key: HashKey) -> Self {
        Self {
            key,
            filters: Slots::new(),
            lists: Slots::new(),
            exact: Table::new(),
            wildcards: Wildcards::new(key),
            generation: 0,
            subscription_count: 0,
            text_bytes: 0,
            list_bytes: 0,
        }
    }

    /// The hash of a topic name or of a filter without wildcards; to be computed once a publish.
    #[must_use]
    pub fn topic_hash(&self, vhost: VhostId, topic: &str) -> u64 {
        self.key.hash(vhost, topic.as_bytes())
    }

    /// Subscribes to a well-formed filter, or replaces the subscriber's options on it.
    ///
    /// # Panics
    /// If the subscriber is not below 2^30 or the Subscription Identifier is above 268,435,455.
    pub fn insert(
        &mut self,
        vhost: VhostId,
        filter: &str,
        subscriber: Subscriber,
        options: SubscriptionOptions,
    ) -> Inserted {
        debug_assert!(topic::is_topic_filter(filter), "filters are checked where they come in");
        let subscription = Subscription::new(subscriber, options);
        self.generation += 1;
        let Some(id) = self.find(vhost, filter) else {
            let id = self.add(vhost, filter, subscription);
            let change = Change::between((0, 0), self.counts(id));
            return Inserted { filter: id, replaced: None, change };
        };
        let before = self.counts(id);
        let old = self.put(id, subscription);
        let change = Change::between(before, self.counts(id));
        Inserted { filter: id, replaced: old.map(Subscription::options), change }
    }

    /// Ends a subscription; `None` if there is none. The filter goes with its last subscriber.
    pub fn remove(&mut self, filter: FilterId, subscriber: Subscriber) -> Option<Removed> {
        self.get(filter, subscriber)?;
        self.generation += 1;
        self.subscription_count -= 1;
        let before = self.counts(filter);
        match self.slot(filter)?.subscribers {
            Subscribers::One(one) => {
                let text = self.drop_filter(filter);
                let change = Change::between(before, (0, 0));
                Some(Removed { options: one.options(), change, filter: Some(text) })
            }
            Subscribers::Many(index) => {
                let removed = self.with_list(index, |list| list.remove(subscriber)).expect("got above");
                if let [last] = *self.list(index).as_slice() {
                    self.list_bytes -= self.lists.remove(index).expect("has one entry").memory();
                    self.slot_mut(filter).subscribers = Subscribers::One(last);
                }
                let change = Change::between(before, self.counts(filter));
                Some(Removed { options: removed.options(), change, filter: None })
            }
        }
    }

    /// Says whether a subscription is durable from now on. Nothing happens if there is none.
    pub fn set_durable(&mut self, filter: FilterId, subscriber: Subscriber, durable: bool) -> Change {
        let Some(options) = self.get(filter, subscriber) else { return Change::default() };
        self.generation += 1;
        let before = self.counts(filter);
        self.put(filter, Subscription::new(subscriber, SubscriptionOptions { durable, ..options }));
        Change::between(before, self.counts(filter))
    }

    /// The filter, if it has subscribers.
    #[must_use]
    pub fn find(&self, vhost: VhostId, filter: &str) -> Option<FilterId> {
        if topic::has_wildcard(filter) {
            return self.wildcards.get(vhost, filter).map(FilterId);
        }
        self.find_exact(vhost, filter, self.topic_hash(vhost, filter))
    }

    /// How the subscriber wants the filter's messages, if it does.
    #[must_use]
    pub fn get(&self, filter: FilterId, subscriber: Subscriber) -> Option<SubscriptionOptions> {
        let found = match self.slot(filter)?.subscribers {
            Subscribers::One(one) => Some(one).filter(|one| one.subscriber() == subscriber),
            Subscribers::Many(index) => self.list(index).get(subscriber),
        };
        found.map(Subscription::options)
    }

    /// Appends the filter's text to `out` and gives its virtual host; `None` if there is no such filter.
    pub fn filter_text(&self, filter: FilterId, out: &mut String) -> Option<VhostId> {
        let slot = self.slot(filter)?;
        out.push_str(slot.text.as_str());
        Some(slot.vhost)
    }

    /// Appends the filters that match the topic, each once, in no particular order. `topic_hash` is [`Self::topic_hash`]'s.
    pub fn matches(&self, vhost: VhostId, topic: &str, topic_hash: u64, out: &mut Vec<FilterId>) {
        out.extend(self.find_exact(vhost, topic, topic_hash));
        self.wildcards.matches(vhost, topic, |value| out.push(FilterId(value)));
    }

    /// The filter's subscriptions, in no particular order; none if there is no such filter.
    #[must_use]
    pub fn subscriptions(&self, filter: FilterId) -> &[Subscription] {
        match self.slot(filter).map(|slot| &slot.subscribers) {
            Some(Subscribers::One(one)) => slice::from_ref(one),
            Some(Subscribers::Many(index)) => self.list(*index).as_slice(),
            None => &[],
        }
    }

    /// Changes with every insert, removal and change of options: what was matched under the same generation still holds.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Filters that have subscribers.
    #[must_use]
    pub fn filter_count(&self) -> usize {
        self.filters.len()
    }

    /// Filters with wildcards that have subscribers.
    #[must_use]
    pub fn wildcard_count(&self) -> usize {
        self.wildcards.len()
    }

    /// Subscriptions over all filters.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.subscription_count
    }

    /// Gives memory back after much was removed.
    pub fn shrink(&mut self) {
        self.filters.shrink();
        self.lists.shrink();
        self.wildcards.shrink();
    }

    /// Bytes held, without what the allocator adds.
    #[must_use]
    pub fn memory(&self) -> usize {
        let tables =
            self.filters.memory() + self.lists.memory() + self.exact.memory() + self.wildcards.memory();
        tables + self.text_bytes + self.list_bytes
    }

    /// All filters.
    pub fn iter_filters(&self) -> impl Iterator<Item = FilterId> {
        self.filters.iter().map(|(index, _)| FilterId(index))
    }

    fn find_exact(&self, vhost: VhostId, text: &str, hash: u64) -> Option<FilterId> {
        let is = |entry: &SlotEntry| {
            self.filters
                .get(entry.slot)
                .is_some_and(|slot| slot.vhost == vhost && slot.text.as_bytes() == text.as_bytes())
        };
        self.exact.find(hash, is).map(|entry| FilterId(entry.slot))
    }

    fn add(&mut self, vhost: VhostId, filter: &str, first: Subscription) -> FilterId {
        let slot = FilterSlot { text: Text::new(filter), subscribers: Subscribers::One(first), vhost };
        self.text_bytes += slot.text.heap_bytes();
        let index = self.filters.insert(slot);
        if topic::has_wildcard(filter) {
            self.wildcards.insert(vhost, filter, index);
        } else {
            let hash = self.topic_hash(vhost, filter);
            self.exact.insert(hash, SlotEntry::new(hash, index));
        }
        self.subscription_count += 1;
        FilterId(index)
    }

    fn put(&mut self, id: FilterId, subscription: Subscription) -> Option<Subscription> {
        let slot = self.slot_mut(id);
        let index = match &mut slot.subscribers {
            Subscribers::One(one) if one.subscriber() == subscription.subscriber() => {
                return Some(std::mem::replace(one, subscription));
            }
            Subscribers::One(one) => {
                let list = List::new(*one);
                self.list_bytes += list.memory();
                let index = self.lists.insert(list);
                self.slot_mut(id).subscribers = Subscribers::Many(index);
                index
            }
            Subscribers::Many(index) => *index,
        };
        let old = self.with_list(index, |list| list.insert(subscription));
        self.subscription_count += usize::from(old.is_none());
        old
    }

    fn drop_filter(&mut self, id: FilterId) -> Box<str> {
        let slot = self.filters.remove(id.0).expect("the caller saw it");
        let text = slot.text.as_str();
        if topic::has_wildcard(text) {
            let value = self.wildcards.remove(slot.vhost, text);
            assert_eq!(value, Some(id.0), "the filter is in the trie");
        } else {
            let hash = self.topic_hash(slot.vhost, text);
            self.exact.remove(hash, |entry| entry.slot == id.0).expect("the filter is in the table");
        }
        self.text_bytes -= slot.text.heap_bytes();
        text.into()
    }

    /// Subscribers and durable ones among them.
    fn counts(&self, id: FilterId) -> (usize, usize) {
        match self.slot(id).map(|slot| slot.subscribers) {
            Some(Subscribers::One(one)) => (1, one.is_durable().into()),
            Some(Subscribers::Many(index)) => {
                let list = self.list(index);
                (list.as_slice().len(), list.durable_count() as usize)
            }
            None => (0, 0),
        }
    }

    fn with_list<R>(&mut self, index: u32, change: impl FnOnce(&mut List) -> R) -> R {
        let list = self.lists.get_mut(index).expect("the filter's list exists");
        self.list_bytes -= list.memory();
        let result = change(list);
        self.list_bytes += list.memory();
        result
    }

    fn list(&self, index: u32) -> &List {
        self.lists.get(index).expect("the filter's list exists")
    }

    fn slot(&self, id: FilterId) -> Option<&FilterSlot> {
        self.filters.get(id.0)
    }

    fn slot_mut(&mut self, id: FilterId) -> &mut FilterSlot {
        self.filters.get_mut(id.0).expect("the caller saw the filter")
    }
}

#[cfg(test)]
mod tests;
