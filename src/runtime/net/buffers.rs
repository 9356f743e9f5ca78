//! The shard's receive buffers: one block of memory, cut into equal buffers, each owned by exactly one [`Buffer`] token or
//! published to the kernel in one ring.
//!
//! Invariant: whoever holds the token of a buffer may read it and nobody else touches it; publishing consumes the token, a
//! completion gives it back. Tokens cannot be copied, and one of another pool is refused.
//!
//! Cost: no allocation after start; 4 MiB of address space a shard, resident only where traffic has been.
#![allow(unsafe_code, reason = "the kernel writes the buffers")]

use super::pages::Pages;
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The memory of a pool of receive buffers, shared by the rings of a shard.
pub struct ReceiveBuffers {
    pages: Pages,
    size: u32,
    count: u16,
    pool: u32,
}

/// A receive buffer that is not with the kernel, and how many bytes of it were received.
#[derive(PartialEq, Eq)]
pub struct Buffer {
    pool: u32,
    index: u16,
    len: u32,
}

impl ReceiveBuffers {
    /// A pool of `count` buffers of `size` bytes, and the token of each.
    ///
    /// # Panics
    /// If `count` or `size` is 0, or `count` is over 32768 (the kernel's bound).
    #[must_use]
    pub fn new(count: u16, size: u32) -> (Rc<Self>, Vec<Buffer>) {
        static POOLS: AtomicU32 = AtomicU32::new(0);
        assert!((1..=32_768).contains(&count), "a buffer ring has 1 to 32768 entries");
        assert!(size > 0, "a buffer holds something");
        let pool = POOLS.fetch_add(1, Ordering::Relaxed);
        let pages = Pages::new(usize::from(count) * size as usize);
        let tokens = (0..count).map(|index| Buffer { pool, index, len: 0 }).collect();
        (Rc::new(Self { pages, size, count, pool }), tokens)
    }

    /// What was received into `buffer`.
    ///
    /// # Panics
    /// If the token is another pool's.
    #[must_use]
    pub fn bytes<'a>(&'a self, buffer: &'a Buffer) -> &'a [u8] {
        let start = self.start(buffer);
        // SAFETY: the range lies in the pool (index < count and len <= size, checked where tokens are made), is initialised
        // (zeroed pages), and nobody writes it while the token exists and is borrowed: the kernel gets the buffer only by
        // `NetRing::publish`, which consumes the token.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), buffer.len as usize) }
    }

    /// How many buffers there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Bytes a buffer holds.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Forgets what is in all buffers; nobody may need any of it.
    pub(super) fn discard(&self) {
        self.pages.discard();
    }

    /// Where the kernel is to write.
    pub(super) fn start(&self, buffer: &Buffer) -> NonNull<u8> {
        assert_eq!(buffer.pool, self.pool, "the buffer is another pool's");
        let offset = usize::from(buffer.index) * self.size as usize;
        assert!(offset + self.size as usize <= self.pages.size(), "the buffer lies in the pool");
        // SAFETY: the offset is inside the allocation, asserted above.
        unsafe { self.pages.base().add(offset) }
    }

    /// The token of the buffer the kernel has just given back with `len` bytes in it.
    pub(super) fn filled(&self, index: u16, len: u32) -> Buffer {
        assert!(index < self.count && len <= self.size, "the kernel fills published buffers only");
        Buffer { pool: self.pool, index, len }
    }
}

impl Buffer {
    /// Bytes received.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing was received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn index(&self) -> u16 {
        self.index
    }
}

impl fmt::Debug for ReceiveBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveBuffers")
            .field("count", &self.count)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}, {} bytes)", self.index, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_lie_behind_each_other() {
        let (pool, tokens) = ReceiveBuffers::new(8, 1000);
        let starts: Vec<_> = tokens.iter().map(|token| pool.start(token).as_ptr().addr()).collect();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == 1000));
        assert_eq!(pool.bytes(&pool.filled(7, 1000)), [0; 1000]);
    }

    #[test]
    fn tokens_of_another_pool_are_told_apart() {
        let (_, first) = ReceiveBuffers::new(1, 16);
        let (_, second) = ReceiveBuffers::new(1, 16);
        assert_ne!(first, second);
    }
}
