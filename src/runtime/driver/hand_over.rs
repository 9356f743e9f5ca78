//! Moving a connection to the shard its session lives on: the socket by a message between rings, what was read by mailbox.

use super::Driver;
use super::sockets::{Flag, Socket};
use crate::base::{ConnectionId, ShardId};
use crate::runtime::mailbox::{Arrival, Mail};
use crate::runtime::net::Descriptor;
use crate::shard::HandOver;
use nix::errno::Errno;

/// How long to wait when the target has no room: it opens another ring as soon as it sees that one is filling up.
const RETRY_MS: u64 = 20;
/// How often its rings are all tried before the client is refused: about a second.
const ROUNDS_MAX: u8 = 50;

/// A connection between two shards.
#[derive(Debug)]
pub(super) struct Move {
    ring: usize,
    descriptor: Descriptor,
    to: ShardId,
    hand_over: HandOver,
    /// How many of the target's rings were full, or closed.
    attempt: usize,
    /// How often all of them were.
    rounds: u8,
    /// The ring of the target that is being tried.
    landing: usize,
}

impl Driver {
    /// The shard has given `connection` away.
    pub(super) fn hand_over(&mut self, connection: ConnectionId, to: ShardId, hand_over: HandOver) {
        let socket = self.sockets.remove(connection).expect("the shard gives away what it has");
        assert!(!socket.is(Flag::Armed) && socket.send().is_none(), "nothing is in flight before CONNECT");
        let (ring, descriptor) = (usize::from(socket.ring), socket.descriptor);
        let moving = Move { ring, descriptor, to, hand_over, attempt: 0, rounds: 0, landing: 0 };
        self.moves.insert(connection, moving);
        self.try_hand_over(connection);
    }

    fn try_hand_over(&mut self, connection: ConnectionId) {
        let Some(moving) = self.moves.get_mut(&connection) else { return };
        if let Some((landing, ring_fd)) = self.mesh.enter_ring(moving.to, &mut moving.attempt) {
            moving.landing = landing;
            self.rings.at(moving.ring).hand_over(connection, moving.descriptor, ring_fd);
        } else if moving.rounds < ROUNDS_MAX && self.leaving.is_none() {
            moving.rounds += 1;
            moving.attempt = 0;
            self.stalled.push_back((self.now.mono.plus_ms(RETRY_MS), connection));
        } else {
            self.keep(connection);
        }
    }

    /// Tries again to move what found no room.
    pub(super) fn retry_moves(&mut self) {
        while let Some((_, connection)) = self.stalled.pop_front_if(|(at, _)| *at <= self.now.mono) {
            self.try_hand_over(connection);
        }
    }

    pub(super) fn on_handed_over(&mut self, connection: ConnectionId, result: Result<Descriptor, Errno>) {
        let Ok(descriptor) = result else {
            // A full table, at worst: the target's next ring may have room.
            if let Some(moving) = self.moves.get_mut(&connection) {
                self.mesh.leave_ring(moving.to, moving.landing);
                moving.attempt += 1;
            }
            return self.try_hand_over(connection);
        };
        let Some(moving) = self.moves.remove(&connection) else { return };
        self.rings.at(moving.ring).close(moving.descriptor);
        let Move { to, hand_over, landing, .. } = moving;
        let arrival = Arrival { ring: landing, descriptor, hand_over };
        self.waiting[to.index()].push_back(Mail::Arrival(Box::new(arrival)));
    }

    /// No ring of the target has room: the client is told from here.
    fn keep(&mut self, connection: ConnectionId) {
        let Some(moving) = self.moves.remove(&connection) else { return };
        let (ring, descriptor) = (moving.ring, moving.descriptor);
        match self.shard.handle_hand_over_failed(self.now, &moving.hand_over) {
            Some(connection) => self.adopt(connection, ring, descriptor),
            None => self.rings.at(ring).close(descriptor),
        }
    }

    /// A connection of another shard whose session lives here.
    pub(super) fn on_arrival(&mut self, arrival: Arrival) {
        let Arrival { ring, descriptor, hand_over } = arrival;
        self.rings.at(ring).adopt(descriptor);
        // From here on the ring knows by itself that it has to stay open.
        self.mesh.leave_ring(self.id, ring);
        match self.shard.handle_handed_over(self.now, hand_over) {
            Some(connection) => self.adopt(connection, ring, descriptor),
            None => self.rings.at(ring).close(descriptor),
        }
    }

    fn adopt(&mut self, connection: ConnectionId, ring: usize, descriptor: Descriptor) {
        self.sockets.insert(connection, Socket::new(connection, ring, descriptor));
        self.rearm.push(connection);
    }
}
