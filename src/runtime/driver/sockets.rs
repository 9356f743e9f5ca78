//! What the driver knows of each connection, in a table indexed by the connection's slot in the shard.
//!
//! Invariant: at most one receive and one send in flight a connection; which, the entry says. Cost: 24 bytes a connection.

use crate::base::ConnectionId;
use crate::runtime::net::{Descriptor, SendId};

const CHUNK_LEN: usize = 1024;

/// No send is in flight.
const NONE: u32 = u32::MAX;

/// A connection's socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    generation: u32,
    pub(super) descriptor: Descriptor,
    send: u32,
    /// The turn `share` was counted in.
    turn: u32,
    /// Bytes received in that turn.
    share: u32,
    /// Index of the ring the socket is in.
    pub(super) ring: u8,
    flags: u8,
    /// Low half of the turn of the last completed send.
    sent_turn: u16,
}

/// What is true of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Flag {
    /// The entry is in use.
    Open = 1,
    /// A receive is in flight.
    Armed = 1 << 1,
    /// Receives are multishot.
    Established = 1 << 2,
    /// The shard wants nothing.
    Paused = 1 << 3,
    /// Has had its share of this turn.
    Throttled = 1 << 4,
    /// Waits for a receive buffer.
    Starved = 1 << 5,
    /// The receive in flight was cancelled.
    Cancelled = 1 << 6,
    /// The peer closed, or the connection failed: never receive again.
    Ended = 1 << 7,
}

impl Socket {
    pub(super) fn new(connection: ConnectionId, ring: usize, descriptor: Descriptor) -> Self {
        Self {
            generation: connection.generation,
            descriptor,
            send: NONE,
            turn: 0,
            share: 0,
            ring: u8::try_from(ring).expect("at most RINGS_MAX rings"),
            flags: Flag::Open as u8,
            sent_turn: 0,
        }
    }

    pub(super) fn is(&self, flag: Flag) -> bool {
        self.flags & flag as u8 != 0
    }

    pub(super) fn set(&mut self, flag: Flag) {
        self.flags |= flag as u8;
    }

    pub(super) fn clear(&mut self, flag: Flag) {
        self.flags &= !(flag as u8);
    }

    /// The send in flight.
    pub(super) fn send(&self) -> Option<SendId> {
        (self.send != NONE).then_some(SendId(self.send))
    }

    pub(super) fn set_send(&mut self, send: SendId) {
        assert_eq!(self.send, NONE, "one send in flight a connection");
        self.send = send.0;
    }

    /// The send completed in this turn.
    #[allow(clippy::cast_possible_truncation, reason = "the low half is what is kept")]
    pub(super) fn clear_send(&mut self, turn: u32) {
        self.send = NONE;
        self.sent_turn = turn as u16;
    }

    /// Whether a send completed in this turn: then a close that follows comes after last words.
    #[allow(clippy::cast_possible_truncation, reason = "the low half is what is kept")]
    pub(super) fn has_sent_in(&self, turn: u32) -> bool {
        self.sent_turn == turn as u16
    }

    /// Whether it would receive if nothing were in flight.
    pub(super) fn wants(&self) -> bool {
        const HELD: u8 = Flag::Paused as u8 | Flag::Throttled as u8 | Flag::Starved as u8 | Flag::Ended as u8;
        self.flags & HELD == 0
    }

    /// Counts received bytes; gives the sum of this turn.
    pub(super) fn count(&mut self, turn: u32, bytes: usize) -> usize {
        if self.turn != turn {
            (self.turn, self.share) = (turn, 0);
        }
        self.share = self.share.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.share as usize
    }
}

/// All sockets of a shard. Grows in chunks; never copies.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Empty ones hold nothing yet, or nothing any more.
    chunks: Vec<Box<[Socket]>>,
    len: usize,
    /// Taken out since the last look for chunks to free.
    removed: usize,
}

const VACANT: Socket = Socket {
    generation: 0,
    descriptor: Descriptor(0),
    send: NONE,
    turn: 0,
    share: 0,
    ring: 0,
    flags: 0,
    sent_turn: 0,
};

impl Sockets {
    /// # Panics
    /// If the slot is in use: the shard forgets a connection before it gives its slot away.
    pub(super) fn insert(&mut self, connection: ConnectionId, socket: Socket) {
        let index = connection.slot as usize;
        while self.chunks.len() <= index / CHUNK_LEN {
            self.chunks.push(Box::default());
        }
        let chunk = &mut self.chunks[index / CHUNK_LEN];
        if chunk.is_empty() {
            *chunk = vec![VACANT; CHUNK_LEN].into_boxed_slice();
        }
        let entry = &mut chunk[index % CHUNK_LEN];
        assert!(!entry.is(Flag::Open), "slot {index} is in use");
        *entry = socket;
        self.len += 1;
    }

    pub(super) fn get_mut(&mut self, connection: ConnectionId) -> Option<&mut Socket> {
        let index = connection.slot as usize;
        let entry = self.chunks.get_mut(index / CHUNK_LEN)?.get_mut(index % CHUNK_LEN)?;
        (entry.is(Flag::Open) && entry.generation == connection.generation).then_some(entry)
    }

    pub(super) fn remove(&mut self, connection: ConnectionId) -> Option<Socket> {
        let entry = self.get_mut(connection)?;
        let socket = std::mem::replace(entry, VACANT);
        self.len -= 1;
        self.removed += 1;
        Some(socket)
    }

    /// Frees the chunks in which no socket is. Looks at every entry, when much has gone since the last time.
    pub(super) fn shrink(&mut self) {
        if self.removed == 0 || self.removed * 4 < self.chunks.len() * CHUNK_LEN {
            return;
        }
        self.removed = 0;
        for chunk in &mut self.chunks {
            if !chunk.iter().any(|socket| socket.is(Flag::Open)) {
                *chunk = Box::default();
            }
        }
        while self.chunks.pop_if(|chunk| chunk.is_empty()).is_some() {}
        self.chunks.shrink_to_fit();
    }

    /// Sockets in use.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_takes_24_bytes() {
        assert_eq!(size_of::<Socket>(), 24);
    }

    #[test]
    fn late_ids_find_nothing() {
        let mut sockets = Sockets::default();
        let old = ConnectionId { slot: 5000, generation: 1 };
        let new = ConnectionId { generation: 2, ..old };
        sockets.insert(old, Socket::new(old, 0, Descriptor(1)));
        assert!(sockets.remove(old).is_some() && sockets.remove(old).is_none());
        sockets.insert(new, Socket::new(new, 0, Descriptor(2)));
        assert!(sockets.get_mut(old).is_none());
        assert_eq!(sockets.get_mut(new).unwrap().descriptor, Descriptor(2));
        assert_eq!(sockets.len(), 1);
    }

    #[test]
    fn chunks_without_sockets_are_freed() {
        let mut sockets = Sockets::default();
        let id = |slot| ConnectionId { slot, generation: 0 };
        for slot in 0..100_000 {
            sockets.insert(id(slot), Socket::new(id(slot), 0, Descriptor(slot)));
        }
        for slot in (0..100_000).filter(|slot| *slot != 5000) {
            sockets.remove(id(slot));
        }
        sockets.shrink();
        assert_eq!(sockets.chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), CHUNK_LEN);
        assert!(sockets.get_mut(id(5000)).is_some() && sockets.get_mut(id(0)).is_none());
        sockets.insert(id(0), Socket::new(id(0), 0, Descriptor(0)));
        assert_eq!(sockets.len(), 2);
    }

    #[test]
    fn shares_are_counted_by_turn() {
        let id = ConnectionId { slot: 0, generation: 0 };
        let mut socket = Socket::new(id, 0, Descriptor(0));
        assert_eq!((socket.count(1, 10), socket.count(1, 5), socket.count(2, 7)), (10, 15, 7));
    }
}
