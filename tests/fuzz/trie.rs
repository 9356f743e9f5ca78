//! Target `trie`: subscriptions, interest and retained messages against lists that are searched from front to back with
//! [`topic::matches`], which is the specification's rules read literally.

use crate::input::Input;
use quelea::base::{HashKey, Message, MessageHead, MessageRef, QoS, ShardId, VhostId, Wall, topic};
use quelea::route::{
    Change, Cursor, Delta, FilterId, Interest, Limits, Retained, SetOutcome, Subscriber, SubscriptionOptions,
    Trie,
};
use std::collections::BTreeMap;
use std::sync::Arc;

const KEY: HashKey = HashKey { k0: 1, k1: 2 };
const LEVELS: [&str; 8] =
    ["a", "b", "", "$x", "+", "#", "c d", "a level longer than any label inside a node"];
const SHARDS: u16 = 4;

type Subscriptions = BTreeMap<(u16, String, u32), SubscriptionOptions>;

/// The real things, and the lists.
struct Fixture {
    trie: Trie,
    subscriptions: Subscriptions,
    interest: Interest,
    /// `(vhost, filter, shard)`: any subscriber, a durable one.
    wanted: BTreeMap<(u16, String, u16), (bool, bool)>,
    retained: Retained,
    messages: BTreeMap<(u16, String), Arc<Message>>,
    wall: Wall,
}

/// Operations until the input ends; every topic and filter seen is tried at the end.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut fixture = Fixture {
        trie: Trie::new(KEY),
        subscriptions: Subscriptions::new(),
        interest: Interest::new(KEY),
        wanted: BTreeMap::new(),
        retained: Retained::new(KEY),
        messages: BTreeMap::new(),
        wall: Wall(1_000),
    };
    while !input.is_empty() {
        fixture.step(&mut input);
    }
    fixture.check_counts();
    fixture.drain();
}

impl Fixture {
    fn step(&mut self, input: &mut Input<'_>) {
        let operation = input.byte();
        let vhost = VhostId(u16::from(operation >> 7));
        match operation % 8 {
            0 | 1 => self.insert(vhost, input),
            2 => self.remove(input),
            3 => self.set_durable(input),
            4 => self.want(vhost, input),
            5 => self.retain(vhost, input),
            6 => self.publish(vhost, input),
            _ => self.scan(vhost, input),
        }
    }

    fn insert(&mut self, vhost: VhostId, input: &mut Input<'_>) {
        let Some(filter) = filter(input) else { return };
        let flags = input.byte();
        let subscriber = u32::from(input.byte() % 40);
        let options = SubscriptionOptions {
            qos: QoS::from_bits(flags % 3).expect("below 3"),
            no_local: flags & 0x10 != 0,
            retain_as_published: flags & 0x20 != 0,
            subscription_id: if flags & 0x40 == 0 { 0 } else { 268_435_455 },
            durable: flags & 0x80 != 0,
        };
        let before = self.counts(vhost, &filter);
        let inserted = self.trie.insert(vhost, &filter, Subscriber(subscriber), options);
        let replaced = self.subscriptions.insert((vhost.0, filter.clone(), subscriber), options);
        assert_eq!(inserted.replaced, replaced, "{filter}");
        assert_eq!(inserted.change, edges(before, self.counts(vhost, &filter)), "{filter}");
        assert_eq!(self.trie.find(vhost, &filter), Some(inserted.filter), "{filter}");
    }

    /// One of the subscriptions there are.
    fn pick(&self, input: &mut Input<'_>) -> Option<(FilterId, (u16, String, u32))> {
        let at = usize::from(input.byte());
        let key = self.subscriptions.keys().nth(at % self.subscriptions.len().max(1))?.clone();
        let id = self.trie.find(VhostId(key.0), &key.1).expect("it has a subscriber");
        Some((id, key))
    }

    fn remove(&mut self, input: &mut Input<'_>) {
        let Some((id, key)) = self.pick(input) else { return };
        let vhost = VhostId(key.0);
        let before = self.counts(vhost, &key.1);
        let removed = self.trie.remove(id, Subscriber(key.2)).expect("it is there");
        assert_eq!(Some(removed.options), self.subscriptions.remove(&key));
        let after = self.counts(vhost, &key.1);
        assert_eq!(removed.change, edges(before, after));
        assert_eq!(removed.filter.as_deref(), (after.0 == 0).then_some(&*key.1));
        assert_eq!(self.trie.remove(id, Subscriber(key.2)), None, "twice");
    }

    fn set_durable(&mut self, input: &mut Input<'_>) {
        let Some((id, key)) = self.pick(input) else { return };
        let durable = input.byte() & 1 != 0;
        let before = self.counts(VhostId(key.0), &key.1);
        let change = self.trie.set_durable(id, Subscriber(key.2), durable);
        self.subscriptions.get_mut(&key).expect("picked from them").durable = durable;
        assert_eq!(change, edges(before, self.counts(VhostId(key.0), &key.1)));
    }

    /// Another shard's interest in a filter changes.
    fn want(&mut self, vhost: VhostId, input: &mut Input<'_>) {
        let Some(filter) = filter(input) else { return };
        let flags = input.byte();
        let shard = u16::from(flags) % SHARDS;
        let any = flags & 0x10 != 0;
        let durable = any && flags & 0x20 != 0;
        let key = (vhost.0, filter, shard);
        let before = self.wanted.get(&key).copied().unwrap_or_default();
        let change = Change {
            any: (before.0 != any).then_some(any),
            durable: (before.1 != durable).then_some(durable),
        };
        self.interest.apply(ShardId(shard), &Delta::new(KEY, vhost, &key.1, change));
        if any {
            self.wanted.insert(key, (any, durable))
        } else {
            self.wanted.remove(&key)
        };
    }

    fn retain(&mut self, vhost: VhostId, input: &mut Input<'_>) {
        let Some(topic) = topic_name(input) else { return };
        let flags = input.byte();
        let payload = vec![flags; usize::from(flags % 5) * 30];
        let expires_at = if flags & 0x80 == 0 { Wall::NEVER } else { Wall(self.wall.0 + u64::from(flags)) };
        let head = MessageHead { vhost, qos: QoS::AtMostOnce, retain: true, expires_at, publisher: None };
        let message = MessageRef { head, topic: &topic, properties: &[], payload: &payload }.to_shared();
        let outcome = self.retained.set(Arc::clone(&message), &Limits::default());
        let key = (vhost.0, topic);
        let expected = match (payload.is_empty(), self.messages.contains_key(&key)) {
            (true, true) => SetOutcome::Cleared,
            (true, false) => SetOutcome::Absent,
            (false, true) => SetOutcome::Replaced,
            (false, false) => SetOutcome::Added,
        };
        // An expired message may have been swept away before.
        let is_gone = |old: &Arc<Message>| old.head().expires_at <= self.wall;
        if !self.messages.get(&key).is_some_and(is_gone) {
            assert_eq!(outcome, Ok(expected), "{}", key.1);
        }
        if payload.is_empty() {
            self.messages.remove(&key)
        } else {
            self.messages.insert(key, message)
        };
    }

    fn publish(&self, vhost: VhostId, input: &mut Input<'_>) {
        let Some(topic) = topic_name(input) else { return };
        self.check_matches(vhost, &topic);
        let live = self.messages.get(&(vhost.0, topic.clone())).filter(|m| m.head().expires_at > self.wall);
        let found = self.retained.get(vhost, &topic, self.wall);
        assert_eq!(found.map(|m| m.payload()), live.map(|m| m.payload()), "{topic}");
    }

    fn check_matches(&self, vhost: VhostId, topic: &str) {
        let hash = self.trie.topic_hash(vhost, topic);
        let mut found = Vec::new();
        self.trie.matches(vhost, topic, hash, &mut found);
        let mut texts: Vec<String> = found.iter().map(|id| self.text(*id, vhost)).collect();
        texts.sort();
        let is_match =
            |(of, filter, _): &&(u16, String, u32)| *of == vhost.0 && topic::matches(filter, topic);
        let mut expected: Vec<String> =
            self.subscriptions.keys().filter(is_match).map(|(_, filter, _)| filter.clone()).collect();
        expected.dedup();
        assert_eq!(texts, expected, "{topic}");
        let masks = self.interest.lookup(vhost, topic, hash);
        for shard in 0..SHARDS {
            let matching = self.wanted.iter().filter(|((of, filter, by), _)| {
                *of == vhost.0 && *by == shard && topic::matches(filter, topic)
            });
            let (any, durable) = matching.fold((false, false), |sum, (_, it)| (sum.0 | it.0, sum.1 | it.1));
            let id = ShardId(shard);
            assert_eq!((masks.any.contains(id), masks.durable.contains(id)), (any, durable), "{topic}");
        }
    }

    /// Retained messages for a filter, in steps; in between the sweep may run.
    fn scan(&mut self, vhost: VhostId, input: &mut Input<'_>) {
        let Some(filter) = filter(input) else { return };
        let flags = input.byte();
        self.wall = Wall(self.wall.0 + u64::from(flags & 0x3F));
        let mut cursor = Cursor::default();
        let mut found = Vec::new();
        let budget = usize::from(flags >> 6) + 1;
        for _ in 0..=self.messages.len() + 1 {
            if self.retained.scan(vhost, &filter, &mut cursor, budget, self.wall, &mut found) {
                break;
            }
            self.retained.expire(self.wall, 1);
        }
        assert!(cursor.is_finished(), "a scan looks at one topic a step at least");
        let mut found: Vec<String> = found.iter().map(|m| m.as_ref().as_ref().topic.to_owned()).collect();
        found.sort();
        let is_match = |((of, topic), message): &(&(u16, String), &Arc<Message>)| {
            *of == vhost.0 && topic::matches(&filter, topic) && message.head().expires_at > self.wall
        };
        let expected: Vec<String> =
            self.messages.iter().filter(is_match).map(|((_, topic), _)| topic.clone()).collect();
        assert_eq!(found, expected, "{filter}");
    }

    fn text(&self, id: FilterId, vhost: VhostId) -> String {
        let mut text = String::new();
        assert_eq!(self.trie.filter_text(id, &mut text), Some(vhost));
        text
    }

    fn counts(&self, vhost: VhostId, filter: &str) -> (usize, usize) {
        let of_filter = || self.subscriptions.iter().filter(|((v, f, _), _)| *v == vhost.0 && f == filter);
        (of_filter().count(), of_filter().filter(|(_, options)| options.durable).count())
    }

    fn check_counts(&self) {
        assert_eq!(self.trie.subscription_count(), self.subscriptions.len());
        let filters: std::collections::BTreeSet<_> =
            self.subscriptions.keys().map(|(vhost, filter, _)| (*vhost, filter)).collect();
        assert_eq!(self.trie.filter_count(), filters.len());
        for ((vhost, filter, subscriber), options) in &self.subscriptions {
            let id = self.trie.find(VhostId(*vhost), filter).expect("it has a subscriber");
            assert_eq!(self.trie.get(id, Subscriber(*subscriber)), Some(*options));
        }
        for (vhost, topic) in self.messages.keys() {
            self.check_matches(VhostId(*vhost), topic);
        }
    }

    /// Takes everything out again: nothing may be left.
    fn drain(mut self) {
        for (vhost, filter, subscriber) in std::mem::take(&mut self.subscriptions).into_keys() {
            let id = self.trie.find(VhostId(vhost), &filter).expect("it has a subscriber");
            self.trie.remove(id, Subscriber(subscriber)).expect("it is there");
        }
        assert_eq!((self.trie.filter_count(), self.trie.wildcard_count()), (0, 0));
        assert_eq!(self.trie.subscription_count(), 0);
        for ((vhost, filter, shard), (any, durable)) in std::mem::take(&mut self.wanted) {
            let change = Change { any: any.then_some(false), durable: durable.then_some(false) };
            self.interest.apply(ShardId(shard), &Delta::new(KEY, VhostId(vhost), &filter, change));
        }
        let left = (self.interest.exact_count(), self.interest.wildcard_count(), self.interest.mask_count());
        assert_eq!(left, (0, 0, 0));
        for (vhost, topic) in std::mem::take(&mut self.messages).into_keys() {
            self.retained.clear(VhostId(vhost), &topic);
        }
        assert_eq!((self.retained.total_len(), self.retained.bytes(VhostId(0))), (0, 0));
    }
}

/// What others must hear of when a filter's subscribers, and durable ones, go from `before` to `after`.
fn edges(before: (usize, usize), after: (usize, usize)) -> Change {
    let edge = |before: usize, after: usize| ((before > 0) != (after > 0)).then_some(after > 0);
    Change { any: edge(before.0, after.0), durable: edge(before.1, after.1) }
}

fn levels(input: &mut Input<'_>) -> String {
    let count = usize::from(input.byte() % 6) + 1;
    let levels: Vec<&str> = (0..count).map(|_| input.pick(&LEVELS)).collect();
    levels.join("/")
}

fn filter(input: &mut Input<'_>) -> Option<String> {
    Some(levels(input)).filter(|filter| topic::is_topic_filter(filter))
}

fn topic_name(input: &mut Input<'_>) -> Option<String> {
    Some(levels(input)).filter(|topic| topic::is_topic_name(topic))
}
