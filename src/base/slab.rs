//! A generational slab in chunks: growing copies nothing and never over-allocates by more than one chunk.
//!
//! Insert, look-up and removal are O(1). A removed slot is reused last in, first out, under a new generation.

const CHUNK_LEN: usize = 256;

/// A table of `T` under small, reusable indices.
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Vec<Vec<Entry<T>>>,
    free_head: u32,
    len: u32,
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

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free_head: END, len: 0 }
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
    /// At 2^32 - 1 entries.
    pub fn insert(&mut self, value: T) -> (u32, u32) {
        self.len += 1;
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
        assert!(index < END, "slab is full");
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LEN) {
            self.chunks.push(Vec::with_capacity(CHUNK_LEN));
        }
        let chunk = self.chunks.last_mut().expect("pushed above");
        chunk.push(Entry { generation: 0, state: State::Occupied(value) });
        (index, 0)
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
        let State::Occupied(value) = std::mem::replace(&mut entry.state, State::Vacant { next: END }) else {
            unreachable!("checked above")
        };
        entry.generation = generation.wrapping_add(1);
        self.len -= 1;
        Some(value)
    }

    /// Lets the index of a retired entry be used again; once for each.
    ///
    /// # Panics
    /// If something lives there.
    pub fn recycle(&mut self, index: u32) {
        let next = self.free_head;
        let entry = self.entry_mut(index).expect("was retired");
        assert!(matches!(entry.state, State::Vacant { .. }), "what lives is not recycled");
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
        (0u32..).zip(self.chunks.iter().flatten()).filter_map(|(index, entry)| match &entry.state {
            State::Occupied(value) => Some((index, entry.generation, value)),
            State::Vacant { .. } => None,
        })
    }

    /// Memory held, in bytes, without what the entries own.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<Entry<T>>()).sum()
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
