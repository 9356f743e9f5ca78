//! Page-aligned, zeroed memory that the kernel reads or writes behind the compiler's back.
//!
//! Never referenced as a whole: users go through raw pointers and make references only to parts they know to be theirs.
//!
//! A mapping of its own and not the allocator's memory, which the system backs with pages of 2 MiB: the first byte received would make
//! so much resident.
#![allow(unsafe_code, reason = "memory shared with the kernel is mapped and freed through raw pointers")]

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::{self, NonNull};

const PAGE_SIZE: usize = 4096;

/// An owned run of pages, untouched (so not resident) until somebody writes.
pub(super) struct Pages {
    base: NonNull<u8>,
    size: usize,
}

impl Pages {
    /// At least `size` bytes of zeroes. Ends the process as any allocation does if there is no memory.
    pub(super) fn new(size: usize) -> Self {
        let size = size.next_multiple_of(PAGE_SIZE);
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever the system finds room.
        let base = unsafe { libc::mmap(ptr::null_mut(), size, access, kind, -1, 0) };
        let layout = Layout::from_size_align(size, PAGE_SIZE).expect("a size in memory");
        let base = if base == libc::MAP_FAILED { None } else { NonNull::new(base.cast::<u8>()) };
        let Some(base) = base else { handle_alloc_error(layout) };
        // SAFETY: the range was just mapped. A system without large pages refuses, and has none to be kept from.
        unsafe { libc::madvise(base.as_ptr().cast(), size, libc::MADV_NOHUGEPAGE) };
        Self { base, size }
    }

    /// The first byte; the pointer may be used for the whole run while `self` lives.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Gives the memory back to the system until somebody writes; reads as zeroes, or as what it was if the system refuses.
    pub(super) fn discard(&self) {
        // SAFETY: the range is the live mapping of `new`, whole pages, private and anonymous; whoever reads it reads zeroes
        // then, which are valid bytes, and no reference to any of it exists (`NetRing::release_buffers` sees to that).
        let result = unsafe { libc::madvise(self.base().as_ptr().cast(), self.size(), libc::MADV_DONTNEED) };
        debug_assert_eq!(result, 0, "the range is ours");
    }

    /// Bytes in the run.
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, whole, given up here, once. The owner keeps `self` until the kernel has let go of the memory
        // (`NetRing::drop` waits for that, or leaks).
        let result = unsafe { libc::munmap(self.base().as_ptr().cast(), self.size()) };
        debug_assert_eq!(result, 0, "the range is ours");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discarded_pages_are_zero_again() {
        let pages = Pages::new(1 << 20);
        let at = pages.base();
        // SAFETY: inside the run, and nobody else uses it.
        unsafe { at.write(7) };
        pages.discard();
        // SAFETY: as above.
        assert_eq!(unsafe { at.read() }, 0);
    }

    #[test]
    fn pages_are_aligned_and_enough() {
        for size in [1, 4096, 4097, 1 << 20] {
            let pages = Pages::new(size);
            assert_eq!(pages.base().as_ptr().addr() % PAGE_SIZE, 0);
            assert!(pages.size() >= size && pages.size() < size + PAGE_SIZE);
        }
    }
}
