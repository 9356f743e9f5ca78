//! A hash table of small `Copy` entries that never stalls long, never over-allocates much, and gives memory back.
//!
//! It is cut into parts by the low bits of the hash; each part is one array in which entries lie sorted by their
//! *fragment* (bits 6 to 38 of the hash), each at its home position `fragment * homes / 2^32` or, pushed by its
//! predecessors, a little behind it (linear probing kept in order, no wrap-around, a short tail for the last ones).
//! The table is told hashes; it keeps only what the entries keep. The bits above 38 stay free for
//! [`home`](crate::base::hash::home), so a shard's share of all hashes spreads over all parts.
//!
//! Invariants: within a part fragments ascend; between an entry and its home no position is vacant; a part is at most 7/8 full.
//!
//! Cost: a look-up reads about 4 neighbouring entries. A part grows by an eighth (between 7/9 and 7/8 of it is used while a
//! table only grows) and growing is one sequential copy of one part: 1M entries of 8 bytes in 64 parts are 140 KB each.

use std::fmt;

/// Parts of a table that may become large.
const PARTS: usize = 64;
/// Bits of the hash below the fragment.
const PART_BITS: u32 = PARTS.trailing_zeros();
/// Parts of at most so many homes are not shrunk before they are empty.
const SHRINK_HOMES_MIN: usize = 32;

/// What a [`Table`] holds.
pub(super) trait Entry: Copy {
    /// No entry.
    const VACANT: Self;

    /// Whether this is no entry.
    fn is_vacant(&self) -> bool;

    /// [`fragment`] of the hash this entry is found under; never changes while it is in a table.
    fn fragment(&self) -> u32;
}

/// The part of a hash that orders entries.
#[allow(clippy::cast_possible_truncation, reason = "the bits above are not used")]
pub(super) fn fragment(hash: u64) -> u32 {
    (hash >> PART_BITS) as u32
}

/// A hash of a number that no peer can choose (slots, ids): spreads, hides nothing.
pub(super) fn mix(value: u64) -> u64 {
    let mut hash = (value ^ (value >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

/// An entry that names a slot: what most tables hold. 8 bytes.
#[derive(Clone, Copy)]
pub(super) struct SlotEntry {
    fragment: u32,
    /// The slot.
    pub(super) slot: u32,
}

impl SlotEntry {
    /// The entry of `slot`, which is found under `hash`.
    pub(super) fn new(hash: u64, slot: u32) -> Self {
        Self { fragment: fragment(hash), slot }
    }
}

impl Entry for SlotEntry {
    const VACANT: Self = Self { fragment: 0, slot: u32::MAX };

    fn is_vacant(&self) -> bool {
        self.slot == u32::MAX
    }

    fn fragment(&self) -> u32 {
        self.fragment
    }
}

/// Entries by hash; equal hashes may occur, the caller tells entries apart.
pub(super) struct Table<E> {
    parts: Box<[Part<E>]>,
    len: usize,
}

struct Part<E> {
    /// Home positions, then the tail.
    slots: Box<[E]>,
    homes: u32,
    len: u32,
}

impl<E: Entry> Table<E> {
    /// A table that may become large.
    pub(super) fn new() -> Self {
        Self { parts: (0..PARTS).map(|_| Part::empty()).collect(), len: 0 }
    }

    /// A table of one part: for many tables that are mostly small.
    pub(super) fn single() -> Self {
        Self { parts: Box::new([Part::empty()]), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        let entries: usize = self.parts.iter().map(|part| part.slots.len() * size_of::<E>()).sum();
        entries + self.parts.len() * size_of::<Part<E>>()
    }

    /// The entry under `hash` for which `is` holds.
    pub(super) fn find(&self, hash: u64, is: impl FnMut(&E) -> bool) -> Option<&E> {
        let part = &self.parts[self.part_of(hash)];
        let index = part.position(fragment(hash), is)?;
        Some(&part.slots[index])
    }

    /// The same, to be changed; its fragment must stay.
    pub(super) fn find_mut(&mut self, hash: u64, is: impl FnMut(&E) -> bool) -> Option<&mut E> {
        let part = self.part_of(hash);
        let part = &mut self.parts[part];
        let index = part.position(fragment(hash), is)?;
        Some(&mut part.slots[index])
    }

    /// Puts an entry in, beside whatever is there under the same hash.
    pub(super) fn insert(&mut self, hash: u64, entry: E) {
        debug_assert!(
            !entry.is_vacant() && entry.fragment() == fragment(hash),
            "the entry belongs to the hash"
        );
        let part = self.part_of(hash);
        self.parts[part].insert(entry);
        self.len += 1;
    }

    /// Takes the entry out under `hash` for which `is` holds.
    pub(super) fn remove(&mut self, hash: u64, is: impl FnMut(&E) -> bool) -> Option<E> {
        let part = self.part_of(hash);
        let part = &mut self.parts[part];
        let index = part.position(fragment(hash), is)?;
        let entry = part.slots[index];
        part.remove(index);
        self.len -= 1;
        Some(entry)
    }

    #[allow(clippy::cast_possible_truncation, reason = "only the low bits count")]
    fn part_of(&self, hash: u64) -> usize {
        hash as usize & (self.parts.len() - 1)
    }
}

impl<E> fmt::Debug for Table<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<E: Entry> Part<E> {
    fn empty() -> Self {
        Self { slots: Box::new([]), homes: 0, len: 0 }
    }

    fn home(&self, fragment: u32) -> usize {
        home(fragment, self.homes)
    }

    fn position(&self, fragment: u32, mut is: impl FnMut(&E) -> bool) -> Option<usize> {
        let start = self.home(fragment);
        for (offset, entry) in self.slots.get(start..)?.iter().enumerate() {
            if entry.is_vacant() || entry.fragment() > fragment {
                return None;
            }
            if entry.fragment() == fragment && is(entry) {
                return Some(start + offset);
            }
        }
        None
    }

    fn insert(&mut self, entry: E) {
        if (u64::from(self.len) + 1) * 8 > u64::from(self.homes) * 7 {
            self.resize(grown(self.homes));
        }
        while !self.try_insert(entry) {
            self.resize(grown(self.homes));
        }
        self.len += 1;
    }

    /// `false` if the tail is too short.
    fn try_insert(&mut self, entry: E) -> bool {
        let fragment = entry.fragment();
        let home = self.home(fragment);
        let before = |other: &E| !other.is_vacant() && other.fragment() <= fragment;
        let Some(at) = self.slots[home..].iter().position(|other| !before(other)) else { return false };
        let at = home + at;
        let Some(gap) = self.slots[at..].iter().position(Entry::is_vacant) else { return false };
        self.slots.copy_within(at..at + gap, at + 1);
        self.slots[at] = entry;
        true
    }

    fn remove(&mut self, index: usize) {
        let homes = self.homes;
        let moves = |(offset, entry): (usize, &E)| {
            !entry.is_vacant() && home(entry.fragment(), homes) < index + 1 + offset
        };
        let count = self.slots[index + 1..].iter().enumerate().take_while(|next| moves(*next)).count();
        self.slots.copy_within(index + 1..=index + count, index);
        self.slots[index + count] = E::VACANT;
        self.len -= 1;
        if self.len == 0 {
            *self = Self::empty();
        } else if self.homes as usize > SHRINK_HOMES_MIN && self.len < self.homes / 2 {
            self.resize(self.len + self.len / 4 + 4);
        }
    }

    fn resize(&mut self, homes: u32) {
        let mut homes = homes;
        loop {
            if let Some(slots) = self.spread(homes) {
                self.slots = slots;
                self.homes = homes;
                return;
            }
            homes = grown(homes);
        }
    }

    /// The entries over so many homes; `None` if the tail is too short for that.
    fn spread(&self, homes: u32) -> Option<Box<[E]>> {
        let tail = 4 + (homes as usize / 8).min(28);
        let mut slots = vec![E::VACANT; homes as usize + tail].into_boxed_slice();
        let mut next = 0;
        for entry in self.slots.iter().filter(|entry| !entry.is_vacant()) {
            let at = home(entry.fragment(), homes).max(next);
            *slots.get_mut(at)? = *entry;
            next = at + 1;
        }
        Some(slots)
    }
}

fn home(fragment: u32, homes: u32) -> usize {
    ((u64::from(fragment) * u64::from(homes)) >> 32) as usize
}

fn grown(homes: u32) -> u32 {
    homes.checked_add((homes / 8).max(4)).expect("a part holds fewer than 2^32 entries")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(table: &Table<SlotEntry>) {
        let mut count = 0;
        for part in &table.parts {
            let mut last = 0;
            for (index, entry) in part.slots.iter().enumerate().filter(|(_, entry)| !entry.is_vacant()) {
                let home = part.home(entry.fragment);
                assert!(home <= index && last <= entry.fragment);
                assert!(part.slots[home..index].iter().all(|entry| !entry.is_vacant()));
                last = entry.fragment;
                count += 1;
            }
            assert!(part.len * 8 <= part.homes * 7);
        }
        assert_eq!(count, table.len());
    }

    proptest! {
        #[test]
        fn behaves_as_a_list(operations in prop::collection::vec((0u64..40, 0u32..4, any::<bool>()), 0..400), spread in any::<bool>()) {
            let mut table = Table::<SlotEntry>::new();
            let mut list: Vec<(u64, u32)> = Vec::new();
            for (hash, slot, add) in operations {
                // Without spreading everything falls on neighbouring fragments at one end of a part.
                let hash = if spread { mix(hash) } else { (u64::from(u32::MAX) << 6) - hash * 16 };
                let known = list.iter().position(|entry| *entry == (hash, slot));
                prop_assert_eq!(table.find(hash, |entry| entry.slot == slot).is_some(), known.is_some());
                match (add, known) {
                    (true, None) => {
                        table.insert(hash, SlotEntry::new(hash, slot));
                        list.push((hash, slot));
                    }
                    (false, _) => {
                        let removed = table.remove(hash, |entry| entry.slot == slot);
                        prop_assert_eq!(removed.is_some(), known.is_some());
                        list.retain(|entry| *entry != (hash, slot));
                    }
                    (true, Some(_)) => {}
                }
                check(&table);
            }
            for (hash, slot) in &list {
                prop_assert!(table.find(*hash, |entry| entry.slot == *slot).is_some());
            }
        }
    }

    #[test]
    fn is_filled_well_and_gives_memory_back() {
        let mut table = Table::new();
        let empty = table.memory();
        for slot in 0..200_000u32 {
            table.insert(mix(slot.into()), SlotEntry::new(mix(slot.into()), slot));
            if slot > 20_000 && slot % 1000 == 0 {
                assert!(table.memory() < 11 * slot as usize, "{} B for {slot}", table.memory());
            }
        }
        check(&table);
        for slot in 0..200_000u32 {
            assert!(table.remove(mix(slot.into()), |entry| entry.slot == slot).is_some());
        }
        assert_eq!((table.len(), table.memory()), (0, empty));
    }
}
