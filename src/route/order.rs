//! Topics in the order of their levels, and where in that order a filter's matches can be.
//!
//! The order is that of bytes, except that `/` comes first: a topic is directly followed by all topics below it. So a filter
//! can leap: from a topic that does not match to the next place where one could. [`Order`] holds slots, sorted by topics that
//! the caller keeps.
//!
//! Cost: seeking is a binary search. Inserting and removing move at most a block of 2 KiB, and now and then the list of blocks.
//! A topic costs 4 to 8 bytes.

use crate::base::topic::has_wildcard;
use std::cmp::Ordering;

const BLOCK_LEN_MAX: usize = 512;

/// Slots, sorted by what the caller knows of them.
#[derive(Default, Debug)]
pub(super) struct Order {
    /// No block is empty.
    blocks: Vec<Vec<u32>>,
}

/// A place in an [`Order`]; void after a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    block: usize,
    index: usize,
}

/// Where to look on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leap {
    /// At this topic or after it.
    To,
    /// After this topic and everything below it.
    Past,
}

/// What a filter says to a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It matches.
    Match,
    /// It does not; the next topic may.
    Next,
    /// It does not; nothing before the key does.
    Seek(Leap),
    /// Nothing from here on matches.
    End,
}

impl Order {
    /// The first slot that is not `before`.
    pub(super) fn seek(&self, mut before: impl FnMut(u32) -> bool) -> Position {
        let block = self.blocks.partition_point(|block| block.last().is_some_and(|last| before(*last)));
        let index = self.blocks.get(block).map_or(0, |block| block.partition_point(|slot| before(*slot)));
        Position { block, index }
    }

    pub(super) fn at(&self, position: Position) -> Option<u32> {
        self.blocks.get(position.block)?.get(position.index).copied()
    }

    pub(super) fn after(&self, position: Position) -> Position {
        let Position { block, index } = position;
        if self.blocks.get(block).is_some_and(|slots| index + 1 < slots.len()) {
            return Position { block, index: index + 1 };
        }
        Position { block: block + 1, index: 0 }
    }

    /// Puts a slot in, after all that are `before`.
    pub(super) fn insert(&mut self, slot: u32, before: impl FnMut(u32) -> bool) {
        let Position { block, index } = self.seek(before);
        let Some(slots) = self.blocks.get_mut(block) else {
            // Behind everything: what comes in ascending order fills its blocks.
            match self.blocks.last_mut().filter(|last| last.len() < BLOCK_LEN_MAX) {
                Some(last) => last.push(slot),
                None => self.blocks.push(vec![slot]),
            }
            return;
        };
        slots.insert(index, slot);
        if slots.len() > BLOCK_LEN_MAX {
            let upper = slots.split_off(slots.len() / 2);
            slots.shrink_to_fit();
            self.blocks.insert(block + 1, upper);
        }
    }

    /// Takes out the slot at a position.
    pub(super) fn remove(&mut self, position: Position) {
        let Position { block, index } = position;
        let slots = &mut self.blocks[block];
        slots.remove(index);
        if slots.is_empty() {
            self.blocks.remove(block);
        } else if slots.len() < BLOCK_LEN_MAX / 4
            && let Some(following) = self.blocks.get(block + 1)
            && following.len() < BLOCK_LEN_MAX / 2
        {
            let following = self.blocks.remove(block + 1);
            self.blocks[block].extend(following);
        }
        if self.blocks.is_empty() {
            *self = Self::default();
        }
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        let slots: usize = self.blocks.iter().map(|block| block.capacity() * size_of::<u32>()).sum();
        slots + self.blocks.capacity() * size_of::<Vec<u32>>()
    }
}

/// Compares topics level by level.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    // Topics have no byte 0.
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(at) => rank(&a[at]).cmp(&rank(&b[at])),
        None => a.len().cmp(&b.len()),
    }
}

/// Whether a topic comes before the place.
pub(super) fn is_before(topic: &[u8], key: &[u8], leap: Leap) -> bool {
    match (compare(topic, key), leap) {
        (Ordering::Less, _) => true,
        (Ordering::Equal, leap) => leap == Leap::Past,
        (Ordering::Greater, Leap::To) => false,
        (Ordering::Greater, Leap::Past) => topic.strip_prefix(key).is_some_and(|rest| rest.starts_with(b"/")),
    }
}

/// What a well-formed filter says to a topic; `key` is set if the verdict is to seek.
pub(super) fn judge(filter: &str, topic: &[u8], key: &mut Vec<u8>) -> Verdict {
    key.clear();
    // [MQTT-4.7.2-1]
    if topic.starts_with(b"$") && filter.starts_with(['+', '#']) {
        // The byte after `$`: behind all topics that start with it.
        key.push(b'$' + 1);
        return Verdict::Seek(Leap::To);
    }
    // Where the last level ends that a `+` took: the nearest one that can be advanced.
    let mut open = None;
    let mut start = 0;
    for level in filter.split('/') {
        if level == "#" {
            return Verdict::Match;
        }
        let Some(rest) = topic.get(start..) else {
            // The topic ends above the filter's level.
            if level == "+" {
                return Verdict::Next;
            }
            key.extend_from_slice(topic);
            key.push(b'/');
            key.extend_from_slice(level.as_bytes());
            return Verdict::Seek(Leap::To);
        };
        let size = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        if level == "+" {
            open = Some(start + size);
        } else {
            match rest[..size].cmp(level.as_bytes()) {
                Ordering::Equal => {}
                Ordering::Less => {
                    key.extend_from_slice(&topic[..start]);
                    key.extend_from_slice(level.as_bytes());
                    return Verdict::Seek(Leap::To);
                }
                Ordering::Greater => return advance(topic, open, key),
            }
        }
        start += size + 1;
    }
    if start > topic.len() { Verdict::Match } else { advance(topic, open, key) }
}

/// The first place after `topic` with another level where the last `+` stands.
fn advance(topic: &[u8], open: Option<usize>, key: &mut Vec<u8>) -> Verdict {
    let Some(end) = open else { return Verdict::End };
    key.extend_from_slice(&topic[..end]);
    Verdict::Seek(Leap::Past)
}

/// The place before which no topic can match the filter.
pub(super) fn first_key(filter: &str) -> &[u8] {
    let literal = filter.split_inclusive('/').take_while(|level| !has_wildcard(level)).map(str::len).sum();
    let prefix = &filter[..literal];
    prefix.strip_suffix('/').unwrap_or(prefix).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::topic;
    use proptest::prelude::*;

    #[test]
    fn what_is_below_a_topic_follows_it() {
        let sorted = [
            "/", "/a", "a", "a/", "a//", "a/\u{1}", "a/b", "a/b/c", "a/b\u{1}", "a/ba", "a\u{1}", "a!", "aa",
            "b",
        ];
        for (a, b) in sorted.iter().zip(&sorted[1..]) {
            assert_eq!(compare(a.as_bytes(), b.as_bytes()), Ordering::Less, "{a:?} {b:?}");
        }
        assert!(is_before(b"a/b", b"a", Leap::Past) && is_before(b"a", b"a", Leap::Past));
        assert!(!is_before(b"a!", b"a", Leap::Past) && !is_before(b"a", b"a", Leap::To));
    }

    #[test]
    fn scans_begin_at_the_literal_levels() {
        for (filter, key) in
            [("a/b/+/c", "a/b"), ("a/b/#", "a/b"), ("#", ""), ("+/a", ""), ("/+", ""), ("a//#", "a/")]
        {
            assert_eq!(first_key(filter), key.as_bytes(), "{filter}");
        }
    }

    fn text(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(levels), 1..5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        /// Leaping from verdict to verdict finds what a scan of all topics finds, in order.
        #[test]
        fn no_leap_misses_a_match(
            topics in prop::collection::btree_set(text(&["a", "b", "ab", "", "$x", "!"]), 0..40),
            filter in text(&["a", "b", "ab", "", "$x", "+", "+"]),
            multi in any::<bool>(),
        ) {
            let filter = if multi { filter + "/#" } else { filter };
            let mut topics: Vec<_> = topics.into_iter().filter(|topic| !topic.is_empty()).collect();
            topics.sort_by(|a, b| compare(a.as_bytes(), b.as_bytes()));
            let mut found = Vec::new();
            let mut key = Vec::new();
            let mut at = topics.partition_point(|topic| is_before(topic.as_bytes(), first_key(&filter), Leap::To));
            while let Some(topic) = topics.get(at) {
                at = match judge(&filter, topic.as_bytes(), &mut key) {
                    Verdict::Match => { found.push(topic); at + 1 }
                    Verdict::Next => at + 1,
                    Verdict::Seek(leap) => {
                        let next = topics.partition_point(|topic| is_before(topic.as_bytes(), &key, leap));
                        prop_assert!(next > at, "{} at {} seeks {:?} {:?}", filter, topic, key, leap);
                        next
                    }
                    Verdict::End => break,
                };
            }
            let expected: Vec<_> = topics.iter().filter(|name| topic::matches(&filter, name)).collect();
            prop_assert_eq!(found, expected, "{}", filter);
        }

        #[test]
        fn slots_stay_sorted(operations in prop::collection::vec((0..3000u32, 0..4u8), 0..3000)) {
            let mut order = Order::default();
            let mut model = std::collections::BTreeSet::new();
            for (slot, operation) in operations {
                let position = order.seek(|other| other < slot);
                prop_assert_eq!(order.at(position), model.range(slot..).next().copied());
                if operation > 0 && model.insert(slot) {
                    order.insert(slot, |other| other < slot);
                } else if operation == 0 && model.remove(&slot) {
                    order.remove(position);
                }
            }
            let mut position = order.seek(|_| false);
            for slot in &model {
                prop_assert_eq!(order.at(position), Some(*slot));
                position = order.after(position);
            }
            prop_assert_eq!(order.at(position), None);
            for slot in &model {
                order.remove(order.seek(|other| other < *slot));
            }
            prop_assert_eq!(order.memory(), 0);
        }
    }
}
