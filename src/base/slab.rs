//! A generational slab in chunks: growing copies nothing and never over-allocates by more than one chunk.
//!
//! Insert, look-up and removal are O(1). A removed slot is reused last in, first out, under a new generation.
//! [`Slab::shrink`] frees chunks in which nothing lives; whatever comes in their place starts above every generation that was
//! there, so that late references still find nothing.

const CHUNK_LEN: usize = 256;
/// The same, to count indices with.
const INDEX_STEP: u32 = 256;

/// A table of `T` under small, reusable indices.
#[derive(Debug)]
pub struct Slab<T> {
    /// Each full but the last, or empty: freed.
    chunks: Vec<Vec<Entry<T>>>,
    free_head: u32,
    len: u32,
    /// Chunks that were freed with others behind them.
    holes: Vec<u32>,
    /// What fresh entries start at.
    first_generation: u32,
    /// Entries taken out since the last look for chunks to free.
    removed: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Vacant { next: u32 },
    Occupied(T),
}

const END: u32 = u32::MAX;
/// `next` of an entry that is retired and not recycled.
const RETIRED: u32 = u32::MAX - 1;

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free_head: END,
            len: 0,
            holes: Vec::new(),
            first_generation: 0,
            removed: 0,
        }
    }
}

impl<T> Slab<T> {
    /// How many entries are in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One past the largest index ever used.
    #[must_use]
    pub fn index_end(&self) -> u32 {
        let full = self.chunks.len().saturating_sub(1) * CHUNK_LEN;
        u32::try_from(full + self.chunks.last().map_or(0, Vec::len)).expect("indices are u32")
    }

    /// Puts `value` in; gives its index and generation.
    ///
    /// # Panics
    /// At 2^32 - 2 entries.
    pub fn insert(&mut self, value: T) -> (u32, u32) {
        self.len += 1;
        if self.free_head == END
            && let Some(chunk) = self.holes.pop()
        {
            self.refill(chunk);
        }
        if self.free_head != END {
            let index = self.free_head;
            let entry = self.entry_mut(index).expect("a free slot exists");
            let State::Vacant { next } = entry.state else {
                unreachable!("the free list holds vacant slots")
            };
            entry.state = State::Occupied(value);
            let generation = entry.generation;
            self.free_head = next;
            return (index, generation);
        }
        let index = self.index_end();
        assert!(index < RETIRED, "slab is full");
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LEN) {
            self.chunks.push(Vec::with_capacity(CHUNK_LEN));
        }
        let chunk = self.chunks.last_mut().expect("pushed above");
        let generation = self.first_generation;
        chunk.push(Entry { generation, state: State::Occupied(value) });
        (index, generation)
    }

    /// Takes the entry out if it is still this incarnation.
    pub fn remove(&mut self, index: u32, generation: u32) -> Option<T> {
        let value = self.retire(index, generation)?;
        self.recycle(index);
        Some(value)
    }

    /// Takes the entry out, but its index is not used again before [`recycle`](Self::recycle).
    pub fn retire(&mut self, index: u32, generation: u32) -> Option<T> {
        let entry = self.entry_mut(index)?;
        if entry.generation != generation || matches!(entry.state, State::Vacant { .. }) {
            return None;
        }
        let State::Occupied(value) = std::mem::replace(&mut entry.state, State::Vacant { next: RETIRED })
        else {
            unreachable!("checked above")
        };
        entry.generation = generation.wrapping_add(1);
        self.len -= 1;
        self.removed += 1;
        Some(value)
    }

    /// Lets the index of a retired entry be used again; once for each.
    ///
    /// # Panics
    /// If something lives there.
    pub fn recycle(&mut self, index: u32) {
        let next = self.free_head;
        let entry = self.entry_mut(index).expect("was retired");
        assert!(matches!(entry.state, State::Vacant { next: RETIRED }), "only what was retired, once");
        entry.state = State::Vacant { next };
        self.free_head = index;
    }

    /// The entry, if it is still this incarnation.
    #[must_use]
    pub fn get(&self, index: u32, generation: u32) -> Option<&T> {
        match self.entry(index) {
            Some(Entry { generation: g, state: State::Occupied(value) }) if *g == generation => Some(value),
            _ => None,
        }
    }

    /// The entry, if it is still this incarnation.
    pub fn get_mut(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        match self.entry_mut(index) {
            Some(Entry { generation: g, state: State::Occupied(value) }) if *g == generation => Some(value),
            _ => None,
        }
    }

    /// Whatever lives at `index` now.
    #[must_use]
    pub fn at(&self, index: u32) -> Option<&T> {
        match self.entry(index) {
            Some(Entry { state: State::Occupied(value), .. }) => Some(value),
            _ => None,
        }
    }

    /// Whatever lives at `index` now.
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entry_mut(index) {
            Some(Entry { state: State::Occupied(value), .. }) => Some(value),
            _ => None,
        }
    }

    /// The generation of whatever lives at `index` now.
    #[must_use]
    pub fn generation_at(&self, index: u32) -> Option<u32> {
        match self.entry(index) {
            Some(Entry { generation, state: State::Occupied(_) }) => Some(*generation),
            _ => None,
        }
    }

    /// All entries with their index and generation, by index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, &T)> {
        let chunks = (0u32..).step_by(CHUNK_LEN).zip(&self.chunks);
        chunks.flat_map(|(start, chunk)| (start..).zip(chunk)).filter_map(|(index, entry)| {
            match &entry.state {
                State::Occupied(value) => Some((index, entry.generation, value)),
                State::Vacant { .. } => None,
            }
        })
    }

    /// Frees the chunks in which nothing lives, and prefers low indices from then on; says whether it looked. It looks, at every
    /// entry, only when a quarter of them was taken out since the last time, or as many as are left.
    pub fn shrink(&mut self) -> bool {
        let removed = self.removed as usize;
        if removed == 0 || (removed * 4 < self.chunks.len() * CHUNK_LEN && removed < self.len()) {
            return false;
        }
        self.removed = 0;
        for chunk in &mut self.chunks {
            if chunk.iter().all(Entry::is_free) {
                let generations = chunk.iter().map(|entry| entry.generation);
                self.first_generation = generations.fold(self.first_generation, u32::max);
                *chunk = Vec::new();
            }
        }
        while self.chunks.pop_if(|chunk| chunk.is_empty()).is_some() {}
        self.chunks.shrink_to_fit();
        self.holes.clear();
        self.free_head = END;
        let count = u32::try_from(self.chunks.len()).expect("indices are u32");
        for (number, chunk) in (0..count).zip(&mut self.chunks).rev() {
            if chunk.is_empty() {
                self.holes.push(number);
            }
            let start = number * INDEX_STEP;
            for (index, entry) in
                (start..start + INDEX_STEP).zip(chunk).rev().filter(|(_, entry)| entry.is_free())
            {
                entry.state = State::Vacant { next: self.free_head };
                self.free_head = index;
            }
        }
        true
    }

    /// Memory held, in bytes, without what the entries own.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<Entry<T>>()).sum()
    }

    /// Fills a freed chunk with free entries.
    fn refill(&mut self, number: u32) {
        let start = number * INDEX_STEP;
        let next = |index| if index + 1 < start + INDEX_STEP { index + 1 } else { END };
        let vacant =
            |index| Entry { generation: self.first_generation, state: State::Vacant { next: next(index) } };
        self.chunks[number as usize] = (start..start + INDEX_STEP).map(vacant).collect();
        self.free_head = start;
    }

    fn entry(&self, index: u32) -> Option<&Entry<T>> {
        let index = index as usize;
        self.chunks.get(index / CHUNK_LEN)?.get(index % CHUNK_LEN)
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let index = index as usize;
        self.chunks.get_mut(index / CHUNK_LEN)?.get_mut(index % CHUNK_LEN)
    }
}

impl<T> Entry<T> {
    /// Whether it is vacant and may be used again.
    fn is_free(&self) -> bool {
        matches!(self.state, State::Vacant { next } if next != RETIRED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_late_reference_never_reaches_the_next_user_of_a_slot() {
        let mut slab = Slab::default();
        let (index, generation) = slab.insert('a');
        assert_eq!(slab.remove(index, generation), Some('a'));
        let (again, next) = slab.insert('b');
        assert_eq!(again, index);
        assert_ne!(next, generation);
        assert_eq!(slab.get(index, generation), None);
        assert_eq!(slab.remove(index, generation), None);
        assert_eq!(slab.get(index, next), Some(&'b'));
    }

    #[test]
    fn a_retired_index_rests_until_it_is_recycled() {
        let mut slab = Slab::default();
        let (first, generation) = slab.insert('a');
        assert_eq!(slab.retire(first, generation), Some('a'));
        assert_eq!((slab.get(first, generation), slab.len()), (None, 0));
        let (second, _) = slab.insert('b');
        assert_ne!(second, first);
        slab.recycle(first);
        assert_eq!(slab.insert('c').0, first);
    }

    #[test]
    fn grows_over_chunks_and_counts() {
        let mut slab = Slab::default();
        let ids: Vec<_> = (0..1000).map(|i| slab.insert(i)).collect();
        assert_eq!((slab.len(), slab.index_end()), (1000, 1000));
        for (value, (index, generation)) in ids.iter().enumerate() {
            if value % 3 == 0 {
                assert_eq!(slab.remove(*index, *generation), Some(value));
            }
        }
        assert_eq!(
            slab.iter().map(|(_, _, v)| *v).collect::<Vec<_>>(),
            (0..1000).filter(|v| v % 3 != 0).collect::<Vec<_>>()
        );
        for (index, generation) in ids {
            slab.remove(index, generation);
        }
        assert!(slab.is_empty());
    }

    #[test]
    fn the_last_few_that_go_give_their_memory_back_too() {
        let mut slab = Slab::default();
        let all: Vec<_> = (0..8 * CHUNK_LEN).map(|n| slab.insert(n)).collect();
        // Some are left in every chunk, and are less than a quarter of all.
        let (last, first): (Vec<_>, Vec<_>) = all.into_iter().partition(|(index, _)| index % 16 == 0);
        assert!(first.iter().all(|(index, generation)| slab.remove(*index, *generation).is_some()));
        assert!(slab.shrink());
        assert!(slab.memory() > 0);
        assert!(last.iter().all(|(index, generation)| slab.remove(*index, *generation).is_some()));
        assert!(slab.shrink());
        assert_eq!(slab.memory(), 0);
    }

    #[test]
    fn memory_is_given_back_and_late_references_still_find_nothing() {
        let mut slab = Slab::default();
        let ids: Vec<_> = (0..10_000).map(|value| slab.insert(value)).collect();
        let full = slab.memory();
        // One stays, in the middle; one rests.
        let (stays, rests) = (ids[5_000], ids[9_000]);
        for (index, generation) in ids.iter().filter(|id| **id != stays && **id != rests) {
            slab.remove(*index, *generation);
        }
        slab.retire(rests.0, rests.1);
        assert!(slab.shrink() && !slab.shrink(), "nothing was removed since");
        assert!(slab.memory() <= full / 16, "{} of {full}", slab.memory());
        assert_eq!(slab.get(stays.0, stays.1), Some(&5_000));
        let again: Vec<_> = (0..10_000).map(|value| slab.insert(value)).collect();
        assert!(!again.iter().any(|(index, _)| *index == rests.0 || *index == stays.0));
        assert!(again.iter().map(|(index, _)| *index).max() < Some(10_300), "holes are filled");
        for (index, generation) in ids.iter().filter(|id| **id != stays) {
            assert_eq!(slab.get(*index, *generation), None);
        }
        slab.recycle(rests.0);
        assert_eq!(slab.insert(1).0, rests.0);
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(operations in prop::collection::vec((0u8..8, any::<prop::sample::Index>()), 0..3000)) {
            let mut slab = Slab::default();
            let mut map = BTreeMap::new();
            let mut gone = Vec::new();
            for (number, (kind, which)) in operations.into_iter().enumerate() {
                match kind {
                    0..4 => prop_assert_eq!(map.insert(slab.insert(number), number), None),
                    4..7 if !map.is_empty() => {
                        let id = *map.keys().nth(which.index(map.len())).unwrap();
                        prop_assert_eq!(slab.remove(id.0, id.1), map.remove(&id));
                        gone.push(id);
                    }
                    _ => {
                        slab.shrink();
                    }
                }
                prop_assert_eq!(slab.len(), map.len());
            }
            let all: BTreeMap<_, _> = slab.iter().map(|(index, generation, value)| ((index, generation), *value)).collect();
            prop_assert_eq!(&all, &map);
            for (index, generation) in gone {
                prop_assert_eq!(slab.get(index, generation), None);
            }
        }
    }
}
