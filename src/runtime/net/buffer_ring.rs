//! The ring through which buffers are published to the kernel (one buffer group, number 0, a network ring).
//!
//! Only user space writes entries and the tail; the kernel reads them and keeps its head to itself. The tail is stored once
//! a turn, by [`BufferRing::commit`].
#![allow(unsafe_code, reason = "writes entries the kernel reads")]

use super::buffers::{Buffer, ReceiveBuffers};
use super::pages::Pages;
use io_uring::{IoUring, types::BufRingEntry};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The number of the one buffer group of a ring.
pub(super) const GROUP: u16 = 0;

pub(super) struct BufferRing {
    entries: Pages,
    mask: u16,
    tail: u16,
    published: u16,
}

impl BufferRing {
    /// Registers a ring with room for every buffer of `buffers`, with none in it.
    pub(super) fn register(ring: &IoUring, buffers: &ReceiveBuffers) -> io::Result<Self> {
        let count = buffers.count().next_power_of_two();
        let entries = Pages::new(usize::from(count) * size_of::<BufRingEntry>());
        let address = entries.base().as_ptr().addr() as u64;
        // SAFETY: the memory holds `count` entries, is page-aligned, and lives as long as the ring: both are in `NetRing`,
        // which drops the ring first.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0) }?;
        Ok(Self { entries, mask: count - 1, tail: 0, published: 0 })
    }

    /// Gives `buffer` to the kernel, visible to it after the next [`commit`](Self::commit).
    pub(super) fn push(&mut self, buffers: &ReceiveBuffers, buffer: Buffer) {
        assert!(self.published <= self.mask, "the ring has room for every buffer of the pool");
        let start = buffers.start(&buffer).as_ptr().addr() as u64;
        let slot = usize::from(self.tail & self.mask);
        let base: NonNull<BufRingEntry> = self.entries.base().cast();
        // SAFETY: `slot` is at most `mask`, and the pages hold `mask + 1` entries.
        let mut entry = unsafe { base.add(slot) };
        // SAFETY: the pages are zeroed, for which the entry is valid; the kernel does not look at this entry before the tail
        // passes it, and does not write entries at all; no other reference to it exists.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(start);
        entry.set_len(buffers.size());
        entry.set_bid(buffer.index());
        self.tail = self.tail.wrapping_add(1);
        self.published += 1;
    }

    /// Makes what was pushed visible to the kernel.
    pub(super) fn commit(&self) {
        let base = self.entries.base().cast::<BufRingEntry>().as_ptr();
        // SAFETY: `base` is the first entry of the ring, valid because the pages are zeroed.
        let tail = unsafe { BufRingEntry::tail(base) }.cast::<AtomicU16>();
        // SAFETY: the tail lies in the live pages and is aligned to 2; the kernel reads it as an atomic too. Release: the
        // entries written before it are visible to who reads the new tail.
        unsafe { &*tail }.store(self.tail, Ordering::Release);
    }

    /// The kernel has taken one buffer out.
    pub(super) fn taken(&mut self) {
        self.published = self.published.checked_sub(1).expect("the kernel takes published buffers only");
    }

    /// Buffers with the kernel.
    pub(super) fn published(&self) -> u16 {
        self.published
    }
}
