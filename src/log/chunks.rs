//! A vector in chunks: growing copies nothing and over-allocates by less than a chunk.

const CHUNK_LEN: usize = 256;

/// Values by index.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> Chunks<T> {
    /// One past the last index.
    pub(super) fn end(&self) -> u32 {
        let full = self.chunks.len().saturating_sub(1) * CHUNK_LEN;
        u32::try_from(full + self.chunks.last().map_or(0, Vec::len)).expect("indices are u32")
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.chunks.get(index as usize / CHUNK_LEN)?.get(index as usize % CHUNK_LEN)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.chunks.get_mut(index as usize / CHUNK_LEN)?.get_mut(index as usize % CHUNK_LEN)
    }

    /// Appends; gives the index.
    pub(super) fn push(&mut self, value: T) -> u32 {
        let index = self.end();
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LEN) {
            self.chunks.push(Vec::with_capacity(CHUNK_LEN));
        }
        self.chunks.last_mut().expect("pushed above").push(value);
        index
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    /// Bytes held, without what the values own.
    pub(super) fn memory(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<T>()).sum()
    }
}
