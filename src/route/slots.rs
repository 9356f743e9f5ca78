//! A table under small reusable indices, in chunks, without generations: an entry costs its own size and nothing else when
//! its type has a niche. [`Slab`](crate::base::Slab) is for what others hold references to; here every holder knows when
//! its slot goes.
//!
//! Insert, look-up and removal are O(1); growing copies at most the first chunk; the last removal frees everything, and
//! [`Slots::shrink`] the chunks in which nothing is used.

use std::mem;

/// Chunks are at most this large: 1M filters of 64 bytes are a thousand chunks, whose list stays in the nearest caches.
const CHUNK_BYTES: usize = 64 << 10;
const END: u32 = u32::MAX;

/// Values under indices below `u32::MAX`.
#[derive(Debug)]
pub(super) struct Slots<T> {
    /// Each full but the last, or empty: freed.
    chunks: Vec<Vec<Slot<T>>>,
    free_head: u32,
    len: u32,
    /// Chunks that were freed with others behind them.
    holes: Vec<u32>,
    /// Values taken out since the last look for chunks to free.
    removed: u32,
}

#[derive(Debug)]
pub(super) enum Slot<T> {
    Vacant { next: u32 },
    Used(T),
}

impl<T> Slots<T> {
    /// Slots a chunk, a power of two.
    const CHUNK_LEN: usize = 1 << (CHUNK_BYTES / size_of::<Slot<T>>()).ilog2();
    /// The same, to count indices with.
    const INDEX_STEP: u32 = 1 << (CHUNK_BYTES / size_of::<Slot<T>>()).ilog2();

    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), free_head: END, len: 0, holes: Vec::new(), removed: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// One past the largest index in use or free.
    pub(super) fn end(&self) -> u32 {
        let full = self.chunks.len().saturating_sub(1) * Self::CHUNK_LEN;
        u32::try_from(full + self.chunks.last().map_or(0, Vec::len)).expect("indices are u32")
    }

    /// Puts a value in; gives its index.
    ///
    /// # Panics
    /// At 2^32 - 1 values.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.free_head == END
            && let Some(chunk) = self.holes.pop()
        {
            self.refill(chunk);
        }
        if self.free_head != END {
            let index = self.free_head;
            let slot = self.slot_mut(index).expect("a free slot exists");
            let Slot::Vacant { next } = mem::replace(slot, Slot::Used(value)) else {
                unreachable!("the free list holds vacant slots")
            };
            self.free_head = next;
            return index;
        }
        let index = self.end();
        assert!(index < END, "slots are full");
        if self.chunks.last().is_none_or(|chunk| chunk.len() == Self::CHUNK_LEN) {
            // The first one grows as it needs, by powers of two: most tables of a small broker stay small.
            self.chunks.push(Vec::with_capacity(if self.chunks.is_empty() { 4 } else { Self::CHUNK_LEN }));
        }
        self.chunks.last_mut().expect("pushed above").push(Slot::Used(value));
        index
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let free_head = self.free_head;
        let slot = self.slot_mut(index)?;
        if matches!(slot, Slot::Vacant { .. }) {
            return None;
        }
        let Slot::Used(value) = mem::replace(slot, Slot::Vacant { next: free_head }) else {
            unreachable!("checked above")
        };
        self.free_head = index;
        self.len -= 1;
        self.removed += 1;
        if self.len == 0 {
            *self = Self::new();
        }
        Some(value)
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        match self.chunks.get(index as usize / Self::CHUNK_LEN)?.get(index as usize % Self::CHUNK_LEN)? {
            Slot::Used(value) => Some(value),
            Slot::Vacant { .. } => None,
        }
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.slot_mut(index)? {
            Slot::Used(value) => Some(value),
            Slot::Vacant { .. } => None,
        }
    }

    /// All values with their index, by index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let chunks = (0u32..).step_by(Self::CHUNK_LEN).zip(&self.chunks);
        chunks.flat_map(|(start, chunk)| (start..).zip(chunk)).filter_map(|(index, slot)| match slot {
            Slot::Used(value) => Some((index, value)),
            Slot::Vacant { .. } => None,
        })
    }

    /// Frees the chunks in which nothing is used, and prefers low indices from then on. Looks, at every slot, only when a
    /// quarter of them was emptied since the last time, or as many as are left.
    pub(super) fn shrink(&mut self) {
        let removed = self.removed as usize;
        if removed == 0 || (removed * 4 < self.chunks.len() * Self::CHUNK_LEN && removed < self.len()) {
            return;
        }
        self.removed = 0;
        for chunk in &mut self.chunks {
            if chunk.iter().all(Slot::is_vacant) {
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
            let start = number * Self::INDEX_STEP;
            for (index, slot) in
                (start..start + Self::INDEX_STEP).zip(chunk).rev().filter(|(_, slot)| slot.is_vacant())
            {
                *slot = Slot::Vacant { next: self.free_head };
                self.free_head = index;
            }
        }
    }

    /// Fills a freed chunk with vacant slots.
    fn refill(&mut self, number: u32) {
        let start = number * Self::INDEX_STEP;
        let end = start + Self::INDEX_STEP;
        let next = |index| if index + 1 < end { index + 1 } else { END };
        self.chunks[number as usize] = (start..end).map(|index| Slot::Vacant { next: next(index) }).collect();
        self.free_head = start;
    }

    /// Bytes held, without what the values own.
    pub(super) fn memory(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<Slot<T>>()).sum();
        chunks + self.chunks.capacity() * size_of::<Vec<Slot<T>>>()
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        self.chunks.get_mut(index as usize / Self::CHUNK_LEN)?.get_mut(index as usize % Self::CHUNK_LEN)
    }
}

impl<T> Slot<T> {
    fn is_vacant(&self) -> bool {
        matches!(self, Self::Vacant { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_used_again_and_memory_is_freed() {
        let mut slots = Slots::new();
        assert_eq!(
            (0..20_000).map(|value| slots.insert(value)).collect::<Vec<_>>(),
            (0..20_000).collect::<Vec<_>>()
        );
        assert!(slots.memory() <= 3 * CHUNK_BYTES + 4 * size_of::<Vec<u32>>());
        assert_eq!(slots.remove(300), Some(300));
        assert_eq!(slots.remove(300), None);
        assert_eq!((slots.get(300), slots.len()), (None, 19_999));
        assert_eq!(slots.insert(7), 300);
        assert_eq!(slots.iter().map(|(_, value)| *value).sum::<u32>(), (0..20_000).sum::<u32>() - 300 + 7);
        for index in 0..20_000 {
            assert!(slots.remove(index).is_some());
        }
        assert_eq!((slots.len(), slots.memory(), slots.end()), (0, 0, 0));
    }

    #[test]
    fn chunks_are_given_back_while_others_stay() {
        let mut slots = Slots::new();
        let all: Vec<u32> = (0..100_000).map(|value| slots.insert(value)).collect();
        let full = slots.memory();
        let stays = 60_000;
        for index in all.iter().filter(|index| **index != stays) {
            slots.remove(*index);
        }
        slots.shrink();
        assert!(
            slots.memory() <= full / 6 && slots.get(stays) == Some(&stays),
            "{} of {full}",
            slots.memory()
        );
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(stays, &stays)]);
        let again: std::collections::BTreeSet<u32> = (0..99_999).map(|value| slots.insert(value)).collect();
        assert_eq!((again.len(), again.contains(&stays)), (99_999, false));
        assert!(again.last() < Some(&110_000), "holes are filled");
        assert_eq!(slots.memory(), full);
    }
}
