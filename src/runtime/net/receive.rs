//! Receiving into provided buffers: one receive in flight a connection, single-shot or multishot.

use super::buffer_ring::GROUP;
use super::completion::{Completion, Ended};
use super::ring::{Descriptor, NetRing};
use super::tag::{Op, Tag};
use crate::base::ConnectionId;
use io_uring::{opcode, squeue, types};
use nix::errno::Errno;

impl NetRing {
    /// Receives once: one [`Completion::Received`] with `last`, or one [`Completion::ReceiveEnded`].
    pub fn receive(&mut self, connection: ConnectionId, descriptor: Descriptor) {
        let entry = opcode::Recv::new(types::Fixed(descriptor.0), std::ptr::null_mut(), 0)
            .buf_group(GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(Tag::of(Op::Receive, connection), entry);
    }

    /// Receives until cancelled, or until the kernel ends it (peer closed, no buffer, completion queue full).
    pub fn receive_multishot(&mut self, connection: ConnectionId, descriptor: Descriptor) {
        let entry = opcode::RecvMulti::new(types::Fixed(descriptor.0), GROUP).build();
        self.push(Tag::of(Op::Receive, connection), entry);
    }

    /// Ends the receive in flight, if there is one: what was received before still comes, then [`Ended::Cancelled`] or
    /// whatever ended it first.
    pub fn cancel_receive(&mut self, connection: ConnectionId) {
        self.push_silent(opcode::AsyncCancel::new(Tag::of(Op::Receive, connection).encode()).build());
    }

    pub(super) fn received(
        &mut self,
        tag: Tag,
        result: Result<u32, Errno>,
        buffer: Option<u16>,
        more: bool,
        completions: &mut Vec<Completion>,
    ) {
        let connection = tag.connection();
        let len = result.unwrap_or(0);
        if let Some(index) = buffer {
            self.buffer_ring.taken();
            let buffer = self.buffers.filled(index, len);
            if len > 0 {
                completions.push(Completion::Received { connection, buffer, last: !more });
                return;
            }
            self.publish(buffer);
        }
        let ended = match result {
            Ok(_) => Ended::Closed,
            Err(Errno::ECANCELED) => Ended::Cancelled,
            Err(Errno::ENOBUFS) => Ended::NoBuffers,
            Err(error) => Ended::Failed(error),
        };
        completions.push(Completion::ReceiveEnded { connection, ended });
    }
}
