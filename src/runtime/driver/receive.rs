//! Receiving: one receive in flight a connection that wants bytes, a fair share of each turn, and patience when buffers run out.

use super::Driver;
use super::sockets::Flag;
use crate::base::{ConnectionId, OutBuffer};
use crate::runtime::mailbox::RINGS_MAX;
use crate::runtime::net::{Buffer, Ended};
use nix::errno::Errno;

/// Bytes a connection may receive in a turn; beyond, it is cancelled until the next.
const SHARE_BYTES: usize = 64 << 10;
/// A completion counts as at least so many bytes: 16 small ones are a share too.
const COMPLETION_BYTES: usize = SHARE_BYTES / 16;

/// Lost connections that are ended in a turn: closing a socket takes the kernel about 10 µs.
const ENDS_A_TURN: usize = 64;

impl Driver {
    pub(super) fn on_received(&mut self, ring: usize, connection: ConnectionId, buffer: Buffer, last: bool) {
        if let Some(socket) = self.sockets.get_mut(connection) {
            if last {
                socket.clear(Flag::Armed);
                socket.clear(Flag::Cancelled);
                self.rearm.push(connection);
            }
            let share = socket.count(self.turn, buffer.len().max(COMPLETION_BYTES));
            if share > SHARE_BYTES && !socket.is(Flag::Throttled) {
                socket.set(Flag::Throttled);
                self.throttled.push(connection);
                self.cancel_receive(connection);
            }
            let bytes = self.rings.bytes(ring, &buffer);
            self.shard.handle_bytes(self.now, connection, bytes);
        } else if last {
            self.on_closing_receive(connection, None);
        }
        self.rings.publish(ring, buffer);
    }

    pub(super) fn on_receive_ended(&mut self, connection: ConnectionId, ended: Ended) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return self.on_closing_receive(connection, Some(ended));
        };
        socket.clear(Flag::Armed);
        socket.clear(Flag::Cancelled);
        match ended {
            Ended::Cancelled => self.rearm.push(connection),
            Ended::NoBuffers => {
                socket.set(Flag::Starved);
                self.starved.push_back(connection);
            }
            Ended::Closed | Ended::Failed(_) => {
                socket.set(Flag::Ended);
                self.ends.push_back(connection);
            }
        }
    }

    /// Tells the shard of connections that are lost, behind everything else that came, and not of all at once: when very many are
    /// lost together, closing them takes a core for seconds, and others are to be served meanwhile.
    pub(super) fn end_some(&mut self) {
        // Behind losses that are still with the kernel others wait.
        self.rings.set_thorough(!self.ends.is_empty());
        for connection in self.ends.drain(..self.ends.len().min(ENDS_A_TURN)) {
            // The shard may have closed it by itself since.
            if self.sockets.get_mut(connection).is_some() {
                self.shard.handle_closed(self.now, connection, None);
            }
        }
    }

    pub(super) fn on_sent(
        &mut self,
        connection: ConnectionId,
        buffer: Box<OutBuffer>,
        result: Result<(), Errno>,
    ) {
        if let Some(socket) = self.sockets.get_mut(connection) {
            socket.clear_send(self.turn);
            if result.is_err() {
                socket.set(Flag::Ended);
                return self.shard.handle_closed(self.now, connection, Some(buffer));
            }
        } else {
            self.on_closing_sent(connection);
        }
        // Of a connection the shard has forgotten it takes the buffer only.
        self.shard.handle_sent(self.now, connection, buffer);
    }

    /// Ends the receive in flight, if there is one.
    pub(super) fn cancel_receive(&mut self, connection: ConnectionId) {
        let Some(socket) = self.sockets.get_mut(connection) else { return };
        if socket.is(Flag::Armed) && !socket.is(Flag::Cancelled) {
            socket.set(Flag::Cancelled);
            self.rings.at(usize::from(socket.ring)).cancel_receive(connection);
        }
    }

    /// A new turn: who had more than a share may go on.
    pub(super) fn unthrottle(&mut self) {
        for connection in self.throttled.drain(..) {
            if let Some(socket) = self.sockets.get_mut(connection) {
                socket.clear(Flag::Throttled);
                self.rearm.push(connection);
            }
        }
    }

    /// Receives again wherever a receive is over and another is wanted. After the shard's outputs: a connection that moves or
    /// closes is gone by now.
    pub(super) fn rearm(&mut self) {
        self.feed_starved();
        let Self { rearm, sockets, rings, .. } = self;
        for connection in rearm.drain(..) {
            let Some(socket) = sockets.get_mut(connection) else { continue };
            if socket.is(Flag::Armed) || !socket.wants() {
                continue;
            }
            socket.set(Flag::Armed);
            let ring = rings.at(usize::from(socket.ring));
            if socket.is(Flag::Established) {
                ring.receive_multishot(connection, socket.descriptor);
            } else {
                ring.receive(connection, socket.descriptor);
            }
        }
    }

    /// Lets as many starved connections try again as there are buffers, in the order they starved.
    fn feed_starved(&mut self) {
        if self.starved.is_empty() {
            return;
        }
        let mut buffers = [0u16; RINGS_MAX];
        for (ring, count) in buffers.iter_mut().enumerate().take(self.rings.end()) {
            *count = self.rings.published(ring);
        }
        for _ in 0..self.starved.len() {
            let connection = self.starved.pop_front().expect("counted");
            let Some(socket) = self.sockets.get_mut(connection) else { continue };
            let left = &mut buffers[usize::from(socket.ring)];
            if *left == 0 {
                self.starved.push_back(connection);
                continue;
            }
            *left -= 1;
            socket.clear(Flag::Starved);
            self.rearm.push(connection);
        }
    }
}
