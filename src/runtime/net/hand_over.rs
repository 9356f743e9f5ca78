//! Messages between rings: moving a socket to another shard's ring, and ringing its doorbell.

use super::ring::{Descriptor, NetRing, RingFd};
use super::tag::{Op, Tag};
use crate::base::ConnectionId;
use io_uring::{opcode, types};

/// The target is told by a mailbox message, not by a completion of its own.
const CQE_SKIP: u32 = 1;

impl NetRing {
    /// Copies a socket into a free descriptor of another ring (of the same process, not this one); the descriptor here stays
    /// open until it is closed. [`Completion::HandedOver`](super::Completion::HandedOver) names the new one.
    ///
    /// The kernel does the work on the other ring's thread, interrupting it; ring and thread must be alive.
    pub fn hand_over(&mut self, connection: ConnectionId, descriptor: Descriptor, to: RingFd) {
        let entry = opcode::MsgRingSendFd::new(
            types::Fd(to.0),
            types::Fixed(descriptor.0),
            types::DestinationSlot::auto_target(),
            0,
        )
        .opcode_flags(CQE_SKIP)
        .build();
        self.push(Tag::of(Op::HandOver, connection), entry);
    }

    /// Wakes the thread that waits in another ring.
    pub fn ring_doorbell(&mut self, of: RingFd) {
        let bell = Tag::new(Op::Doorbell, 0, 0).encode();
        self.push_silent(opcode::MsgRingData::new(types::Fd(of.0), 0, bell, None).build());
    }
}
