//! The interest index: one shard's replica of all other shards' filters, told by [`Delta`]s, answering "who wants this topic?".
//!
//! A filter without wildcards is its 64-bit keyed hash and nothing else; a filter with wildcards is kept in full. Two filters
//! of one hash would be one entry: a message too many while both are there, and too few once one of them goes. The key is
//! secret and 10 million filters collide with a probability of 3 in a million, so that is accepted.
//!
//! Memory: 12 bytes an exact filter, 13.7 to 15.4 with the table's room. Nearly always one shard wants a filter, and stands in
//! the entry; several are a row in a table of mask pairs, each different pair once. A wildcard filter costs its nodes.
//!
//! Cost of a look-up: one probe, and the walk of the trie if there are wildcard filters in the virtual host.

use super::mask::{Masks, SHARDS_MAX, ShardMask};
use super::slots::Slots;
use super::table::{self, Entry, SlotEntry, Table};
use super::trie::Change;
use super::wildcard::Wildcards;
use crate::base::{HashKey, ShardId, VhostId, topic};

/// A filter, as other shards need to know it.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum DeltaFilter {
    /// The topic hash of a filter without wildcards.
    Exact(u64),
    /// The text of another filter.
    Wildcard(Box<str>),
}

/// What one shard tells the others when a filter gets its first or loses its last subscriber there.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Delta {
    /// The filter's virtual host.
    pub vhost: VhostId,
    /// The filter.
    pub filter: DeltaFilter,
    /// What happened.
    pub change: Change,
}

impl Delta {
    /// What to tell of `filter`'s change; `key` is the one of the tries.
    #[must_use]
    pub fn new(key: HashKey, vhost: VhostId, filter: &str, change: Change) -> Self {
        let filter = if topic::has_wildcard(filter) {
            DeltaFilter::Wildcard(filter.into())
        } else {
            DeltaFilter::Exact(key.hash(vhost, filter.as_bytes()))
        };
        Self { vhost, filter, change }
    }
}

/// Which other shards want which topics.
#[derive(Debug)]
pub struct Interest {
    exact: Table<Fingerprint>,
    /// Filter -> code of its masks.
    wildcards: Wildcards,
    masks: MaskTable,
}

impl Interest {
    /// Nobody wants anything. All shards use the same key.
    #[must_use]
    pub fn new(key: HashKey) -> Self {
        Self { exact: Table::new(), wildcards: Wildcards::new(key), masks: MaskTable::new() }
    }

    /// Takes note of what shard `from` told. Telling the same twice changes nothing.
    ///
    /// # Panics
    /// If `from` is not below [`SHARDS_MAX`].
    pub fn apply(&mut self, from: ShardId, delta: &Delta) {
        let old_code = match &delta.filter {
            DeltaFilter::Exact(hash) => {
                self.exact.find(*hash, |entry| entry.hash() == *hash).map(|entry| entry.code)
            }
            DeltaFilter::Wildcard(filter) => self.wildcards.get(delta.vhost, filter),
        };
        let old = old_code.map_or(Masks::NONE, |code| self.masks.decode(code));
        let new = changed(old, from, delta.change);
        if new == old {
            return;
        }
        let code = (!new.is_empty()).then(|| self.masks.encode(new));
        match &delta.filter {
            DeltaFilter::Exact(hash) => self.set_exact(*hash, code),
            DeltaFilter::Wildcard(filter) => {
                match code {
                    Some(code) => self.wildcards.insert(delta.vhost, filter, code),
                    None => self.wildcards.remove(delta.vhost, filter),
                };
            }
        }
        if let Some(old) = old_code {
            self.masks.release(old);
        }
    }

    /// Who wants the topic. `topic_hash` is [`Trie::topic_hash`](super::Trie::topic_hash)'s.
    #[must_use]
    pub fn lookup(&self, vhost: VhostId, topic: &str, topic_hash: u64) -> Masks {
        let exact = self.exact.find(topic_hash, |entry| entry.hash() == topic_hash);
        let mut masks = exact.map_or(Masks::NONE, |entry| self.masks.decode(entry.code));
        self.wildcards.matches(vhost, topic, |code| masks = masks.union(self.masks.decode(code)));
        masks
    }

    /// Exact filters that somebody wants.
    #[must_use]
    pub fn exact_count(&self) -> usize {
        self.exact.len()
    }

    /// Wildcard filters that somebody wants.
    #[must_use]
    pub fn wildcard_count(&self) -> usize {
        self.wildcards.len()
    }

    /// Different pairs of masks of more than one shard.
    #[must_use]
    pub fn mask_count(&self) -> usize {
        self.masks.rows.len()
    }

    /// Gives memory back after much was removed.
    pub fn shrink(&mut self) {
        self.wildcards.shrink();
    }

    /// Bytes held, without what the allocator adds.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.exact.memory() + self.wildcards.memory() + self.masks.rows.memory() + self.masks.index.memory()
    }

    fn set_exact(&mut self, hash: u64, code: Option<u32>) {
        let Some(code) = code else {
            self.exact.remove(hash, |entry| entry.hash() == hash);
            return;
        };
        match self.exact.find_mut(hash, |entry| entry.hash() == hash) {
            Some(entry) => entry.code = code,
            None => self.exact.insert(hash, Fingerprint::new(hash, code)),
        }
    }
}

fn changed(masks: Masks, shard: ShardId, change: Change) -> Masks {
    let set = |mut mask: ShardMask, change| {
        match change {
            Some(true) => mask.insert(shard),
            Some(false) => mask.remove(shard),
            None => {}
        }
        mask
    };
    Masks { any: set(masks.any, change.any), durable: set(masks.durable, change.durable) }
}

/// An exact filter: its hash, in halves so that 12 bytes are enough, and the code of its masks.
#[derive(Clone, Copy)]
struct Fingerprint {
    low: u32,
    high: u32,
    code: u32,
}

impl Fingerprint {
    #[allow(clippy::cast_possible_truncation, reason = "the halves")]
    fn new(hash: u64, code: u32) -> Self {
        Self { low: hash as u32, high: (hash >> 32) as u32, code }
    }

    fn hash(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }
}

impl Entry for Fingerprint {
    const VACANT: Self = Self { low: 0, high: 0, code: u32::MAX };

    fn is_vacant(&self) -> bool {
        self.code == u32::MAX
    }

    fn fragment(&self) -> u32 {
        table::fragment(self.hash())
    }
}

/// Pairs of masks as codes of 31 bits and a tag: one shard's pair is spelled out, others are rows of a table, counted.
#[derive(Debug)]
struct MaskTable {
    rows: Slots<Row>,
    index: Table<SlotEntry>,
}

#[derive(Debug)]
struct Row {
    masks: Masks,
    used_count: u32,
}

const ROW: u32 = 1 << 31;
const SHARD_SHIFT: u32 = 2;
const ANY: u32 = 2;
const DURABLE: u32 = 1;

impl MaskTable {
    fn new() -> Self {
        Self { rows: Slots::new(), index: Table::single() }
    }

    /// The code of a pair that is not empty; to be released.
    fn encode(&mut self, masks: Masks) -> u32 {
        let union = masks.any.union(masks.durable);
        assert!(!union.is_empty(), "what nobody wants has no entry");
        if union.len() == 1 {
            let flag = |mask: ShardMask, bit| if mask.is_empty() { 0 } else { bit };
            return union.0.trailing_zeros() << SHARD_SHIFT
                | flag(masks.any, ANY)
                | flag(masks.durable, DURABLE);
        }
        let hash = hash_of(masks);
        let rows = &self.rows;
        let is = |entry: &SlotEntry| rows.get(entry.slot).is_some_and(|row| row.masks == masks);
        let slot = match self.index.find(hash, is) {
            Some(entry) => entry.slot,
            None => {
                let slot = self.rows.insert(Row { masks, used_count: 0 });
                assert!(slot < !ROW, "rows fit 31 bits");
                self.index.insert(hash, SlotEntry::new(hash, slot));
                slot
            }
        };
        self.rows.get_mut(slot).expect("found or made above").used_count += 1;
        ROW | slot
    }

    fn decode(&self, code: u32) -> Masks {
        if code & ROW != 0 {
            return self.rows.get(code & !ROW).expect("rows live while they are used").masks;
        }
        let shard = ShardMask(1 << (code >> SHARD_SHIFT & u32::from(SHARDS_MAX - 1)));
        let part = |bit| if code & bit == 0 { ShardMask::EMPTY } else { shard };
        Masks { any: part(ANY), durable: part(DURABLE) }
    }

    fn release(&mut self, code: u32) {
        if code & ROW == 0 {
            return;
        }
        let slot = code & !ROW;
        let row = self.rows.get_mut(slot).expect("rows live while they are used");
        row.used_count -= 1;
        if row.used_count == 0 {
            let masks = row.masks;
            self.rows.remove(slot);
            self.index.remove(hash_of(masks), |entry| entry.slot == slot).expect("every row is in the index");
        }
    }
}

fn hash_of(masks: Masks) -> u64 {
    table::mix(masks.any.0 ^ table::mix(masks.durable.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const KEY: HashKey = HashKey { k0: 5, k1: 6 };
    const ON: Change = Change { any: Some(true), durable: None };

    fn lookup(interest: &Interest, vhost: VhostId, topic: &str) -> Masks {
        interest.lookup(vhost, topic, KEY.hash(vhost, topic.as_bytes()))
    }

    #[test]
    fn an_exact_filter_costs_at_most_16_bytes() {
        assert_eq!(size_of::<Fingerprint>(), 12);
        let mut interest = Interest::new(KEY);
        for n in 0..300_000u32 {
            let delta = Delta::new(KEY, VhostId(0), &format!("devices/{n}"), ON);
            interest.apply(ShardId(u16::try_from(n % 64).unwrap()), &delta);
            if n >= 50_000 && n % 1000 == 0 {
                assert!(interest.memory() <= 16 * n as usize, "{} B for {n}", interest.memory());
            }
        }
        assert_eq!((interest.exact_count(), interest.mask_count()), (300_000, 0));
    }

    type Model = BTreeMap<(u16, &'static str), [(bool, bool); 4]>;

    const FILTERS: [&str; 10] = ["a", "a/b", "/", "b/a", "#", "+", "a/#", "+/b", "a/+", "+/+"];
    const SHARDS: [u16; 4] = [0, 1, 7, 63];

    fn expected(model: &Model, vhost: u16, topic: &str) -> Masks {
        let mut masks = Masks::NONE;
        for ((_, filter), shards) in model.iter().filter(|((v, _), _)| *v == vhost) {
            for (shard, (any, durable)) in SHARDS.iter().zip(shards) {
                if topic::matches(filter, topic) {
                    masks.any.0 |= u64::from(*any) << shard;
                    masks.durable.0 |= u64::from(*durable) << shard;
                }
            }
        }
        masks
    }

    fn tell(
        interest: &mut Interest,
        model: &mut Model,
        vhost: u16,
        filter: usize,
        shard: usize,
        state: (bool, bool),
    ) {
        let entry = model.entry((vhost, FILTERS[filter])).or_default();
        let edge = |before: bool, after: bool| (before != after).then_some(after);
        let change = Change { any: edge(entry[shard].0, state.0), durable: edge(entry[shard].1, state.1) };
        entry[shard] = state;
        let delta = Delta::new(KEY, VhostId(vhost), FILTERS[filter], change);
        interest.apply(ShardId(SHARDS[shard]), &delta);
        interest.apply(ShardId(SHARDS[shard]), &delta);
    }

    proptest! {
        #[test]
        fn behaves_as_a_list(
            operations in prop::collection::vec((0..2u16, 0..FILTERS.len(), 0..4usize, any::<bool>(), any::<bool>()), 0..100),
        ) {
            let mut interest = Interest::new(KEY);
            let mut model = Model::new();
            for (vhost, filter, shard, any, durable) in operations {
                tell(&mut interest, &mut model, vhost, filter, shard, (any, any && durable));
                for topic in ["a", "a/b", "b/a", "/", "b", "a/b/c", "$x"] {
                    prop_assert_eq!(lookup(&interest, VhostId(vhost), topic), expected(&model, vhost, topic), "{}", topic);
                }
            }
            for (vhost, filter) in (0..2).flat_map(|vhost| (0..FILTERS.len()).map(move |filter| (vhost, filter))) {
                for shard in 0..4 {
                    tell(&mut interest, &mut model, vhost, filter, shard, (false, false));
                }
            }
            prop_assert_eq!((interest.exact_count(), interest.wildcard_count(), interest.mask_count()), (0, 0, 0));
        }
    }
}
