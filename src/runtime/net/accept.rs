//! Accepting: single-shot accepts into auto-allocated direct descriptors, each with room for its peer's address.
//!
//! A multishot accept would not tell the address, and there is no `getpeername` for a direct descriptor.

use super::address::RawAddress;
use super::completion::Completion;
use super::ring::{Descriptor, NetRing};
use super::tag::{Op, Tag};
use crate::base::Slab;
use io_uring::{opcode, types};
use nix::errno::Errno;
use std::cell::UnsafeCell;
use std::os::fd::{AsFd, AsRawFd};

/// Accepts in flight. The kernel writes the address; nobody looks before the completion.
pub(super) type Accepts = Slab<Accepting>;

#[derive(Debug)]
pub(super) struct Accepting {
    listener: u32,
    address: Box<UnsafeCell<RawAddress>>,
}

impl NetRing {
    /// Accepts one socket from `socket`, a listening one. `listener` comes back with the completion.
    ///
    /// The descriptor must stay open until then.
    pub fn accept(&mut self, listener: u32, socket: &impl AsFd) {
        let address = Box::new(UnsafeCell::new(RawAddress::EMPTY));
        let raw = address.get();
        let (index, generation) = self.accepts.insert(Accepting { listener, address });
        let fd = types::Fd(socket.as_fd().as_raw_fd());
        let entry = opcode::Accept::new(fd, raw.cast(), len_of(raw))
            .file_index(Some(types::DestinationSlot::auto_target()))
            .build();
        self.push(Tag::new(Op::Accept, index, generation), entry);
    }

    /// Cancels every accept in flight; each completes with `ECANCELED`, or with the socket it already had.
    pub fn cancel_accepts(&mut self) {
        let tags: Vec<_> = self
            .accepts
            .iter()
            .map(|(index, generation, _)| Tag::new(Op::Accept, index, generation))
            .collect();
        for tag in tags {
            self.push_silent(opcode::AsyncCancel::new(tag.encode()).build());
        }
    }

    /// Accepts in flight.
    #[must_use]
    pub fn accepts(&self) -> usize {
        self.accepts.len()
    }

    pub(super) fn accepted(
        &mut self,
        tag: Tag,
        result: Result<u32, Errno>,
        completions: &mut Vec<Completion>,
    ) {
        let Accepting { listener, address } =
            self.accepts.remove(tag.index, tag.generation).expect("an accept completes once");
        let descriptor = match result {
            Ok(slot) => Descriptor(slot),
            Err(error) => return completions.push(Completion::AcceptFailed { listener, error }),
        };
        self.descriptor_opened();
        if let Some(peer) = address.into_inner().decode() {
            completions.push(Completion::Accepted { listener, descriptor, peer });
        } else {
            self.close(descriptor);
            completions.push(Completion::AcceptFailed { listener, error: Errno::EAFNOSUPPORT });
        }
    }
}

fn len_of(raw: *mut RawAddress) -> *mut libc::socklen_t {
    raw.wrapping_byte_add(std::mem::offset_of!(RawAddress, len)).cast()
}
