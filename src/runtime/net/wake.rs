//! Event descriptors: how ordinary threads (signals, control) and a shard's further rings wake its first one.

use super::completion::Completion;
use super::ring::NetRing;
use super::tag::{Op, Tag};
use crate::base::Slab;
use io_uring::{opcode, types};
use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

/// Event descriptors being read.
pub(super) type Wakes = Slab<Waking>;

#[derive(Debug)]
pub(super) struct Waking {
    fd: Arc<OwnedFd>,
    /// The counter the kernel reads; its value says nothing.
    count: Box<UnsafeCell<u64>>,
}

impl NetRing {
    /// From now on a write to `event` completes as [`Completion::Woken`].
    pub fn watch(&mut self, event: Arc<OwnedFd>) {
        let count = Box::new(UnsafeCell::new(0));
        let (index, generation) = self.wakes.insert(Waking { fd: event, count });
        self.read_event(Tag::new(Op::Wake, index, generation));
    }

    /// Has the kernel write to `event` when something completes here: how a further ring reports to a shard's first.
    ///
    /// # Errors
    /// If one is registered already, or memory is short.
    pub fn report_to(&mut self, event: &impl AsFd) -> io::Result<()> {
        self.ring.submitter().register_eventfd(event.as_fd().as_raw_fd())
    }

    pub(super) fn woken(&mut self, tag: Tag, completions: &mut Vec<Completion>) {
        if self.closing {
            self.wakes.remove(tag.index, tag.generation);
            return;
        }
        // Whatever the result (a shortage at worst): look, and read again.
        completions.push(Completion::Woken);
        self.read_event(tag);
    }

    fn read_event(&mut self, tag: Tag) {
        let waking = self.wakes.get(tag.index, tag.generation).expect("watched until the ring is dropped");
        let fd = types::Fd(waking.fd.as_raw_fd());
        let entry = opcode::Read::new(fd, waking.count.get().cast(), 8).build();
        self.push(tag, entry);
    }
}
