//! Page-aligned, zeroed memory that the kernel reads or writes behind the compiler's back.
//!
//! Never referenced as a whole: users go through raw pointers and make references only to parts they know to be theirs.
#![allow(unsafe_code, reason = "memory shared with the kernel is freed through a raw pointer")]

use std::mem::MaybeUninit;
use std::ptr::NonNull;

const PAGE_SIZE: usize = 4096;

#[repr(C, align(4096))]
struct Page([u8; PAGE_SIZE]);

/// An owned run of pages, untouched (so not resident) until somebody writes.
pub(super) struct Pages {
    pages: NonNull<[MaybeUninit<Page>]>,
}

impl Pages {
    /// At least `size` bytes of zeroes.
    pub(super) fn new(size: usize) -> Self {
        let pages = Box::<[Page]>::new_zeroed_slice(size.div_ceil(PAGE_SIZE));
        Self { pages: NonNull::from(Box::leak(pages)) }
    }

    /// The first byte; the pointer may be used for the whole run while `self` lives.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.pages.cast()
    }

    /// Gives the memory back to the system until somebody writes; reads as zeroes, or as what it was if the system refuses.
    pub(super) fn discard(&self) {
        // SAFETY: the range is the live allocation of `new`, whole pages, private and anonymous; whoever reads it reads zeroes
        // then, which are valid bytes, and no reference to any of it exists (`NetRing::release_buffers` sees to that).
        let result = unsafe { libc::madvise(self.base().as_ptr().cast(), self.size(), libc::MADV_DONTNEED) };
        debug_assert_eq!(result, 0, "the range is ours");
    }

    /// Bytes in the run.
    pub(super) fn size(&self) -> usize {
        self.pages.len() * PAGE_SIZE
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a leaked box in `new` and is given up here, once. The owner keeps `self` until the
        // kernel has let go of the memory (`NetRing::drop` waits for that, or leaks).
        drop(unsafe { Box::from_raw(self.pages.as_ptr()) });
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
