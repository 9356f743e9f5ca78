//! Out-buffers: bytes on their way to one connection, and the shard's pool of them.
//!
//! A connection has an out-buffer only while something waits to be sent. Small packets are copied behind each other; what is large of
//! a message stays where it is and is sent from the shared message. What waits grows by pieces: doubling megabytes for many slow
//! connections in one go would hold up everybody else for as long as the copies take.

use super::message::Message;
use std::io::IoSlice;
use std::sync::Arc;

/// Properties and payload of at least this many bytes together are sent from the shared message instead of being copied: below, a
/// copy is cheaper than another iovec.
pub const SHARE_MIN: usize = 4096;

/// Memory of a piece; one large packet may need more.
const PIECE_SIZE: usize = 32 << 10;
/// A piece with less room than this is full, whatever comes next.
const PIECE_ROOM: usize = 512;

/// Packets that wait for one connection's socket.
#[derive(Default, Debug)]
pub struct OutBuffer {
    /// Full pieces, which go before `bytes`, and what is in them.
    full: Vec<Vec<u8>>,
    full_size: usize,
    bytes: Vec<u8>,
    shared: Vec<Shared>,
    shared_size: usize,
}

#[derive(Debug)]
struct Shared {
    /// How many bytes that are not shared go before it.
    at: usize,
    message: Arc<Message>,
    /// How much of the message's end.
    size: usize,
}

impl OutBuffer {
    /// Where packets are encoded: each whole, behind what is there.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.bytes_for(PIECE_ROOM)
    }

    /// The same, for so many bytes: if the piece has no room for them and is half full, they go into another.
    pub fn bytes_for(&mut self, size: usize) -> &mut Vec<u8> {
        let len = self.bytes.len();
        if len + size > PIECE_SIZE && len >= PIECE_SIZE / 2 {
            self.full_size += self.bytes.len();
            self.full.push(std::mem::replace(&mut self.bytes, Vec::with_capacity(PIECE_SIZE)));
        }
        &mut self.bytes
    }

    /// Puts the last `size` bytes of topic, properties and payload of `message` behind what is there, without copying them.
    pub fn push_tail(&mut self, message: Arc<Message>, size: usize) {
        debug_assert!(size <= message.size(), "a part of the message");
        self.shared_size += size;
        self.shared.push(Shared { at: self.full_size + self.bytes.len(), message, size });
    }

    /// How many bytes wait, in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.full_size + self.bytes.len() + self.shared_size
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are in one piece.
    #[must_use]
    pub fn contiguous(&self) -> Option<&[u8]> {
        (self.shared.is_empty() && self.full.is_empty()).then_some(&self.bytes[..])
    }

    /// The bytes from `skip` on, in order, in at most `count_max` pieces (the rest is left out).
    #[must_use]
    pub fn slices(&self, mut skip: usize, count_max: usize) -> Vec<IoSlice<'_>> {
        let mut out = Vec::new();
        let mut shared = self.shared.iter().peekable();
        // How many bytes that are not shared go before the piece.
        let mut before = 0;
        for piece in self.full.iter().chain([&self.bytes]) {
            let mut from = 0;
            while let Some(next) = shared.next_if(|next| next.at <= before + piece.len()) {
                take(&mut out, &piece[from..next.at - before], &mut skip, count_max);
                take(&mut out, next.message.tail(next.size), &mut skip, count_max);
                from = next.at - before;
            }
            take(&mut out, &piece[from..], &mut skip, count_max);
            before += piece.len();
        }
        out
    }

    /// Memory held, in bytes; shared payloads are counted in full.
    #[must_use]
    pub fn memory(&self) -> usize {
        let full: usize = self.full.iter().map(Vec::capacity).sum();
        size_of::<Self>() + full + self.bytes.capacity() + self.shared_size
    }

    /// Empties the buffer and keeps its memory, but for full pieces.
    pub fn clear(&mut self) {
        self.full = Vec::new();
        self.full_size = 0;
        self.bytes.clear();
        self.shared.clear();
        self.shared_size = 0;
    }
}

fn take<'a>(out: &mut Vec<IoSlice<'a>>, piece: &'a [u8], skip: &mut usize, count_max: usize) {
    if *skip >= piece.len() {
        *skip -= piece.len();
    } else if out.len() < count_max {
        out.push(IoSlice::new(&piece[*skip..]));
        *skip = 0;
    }
}

/// The shard's spare out-buffers, last in, first out, so that the next user gets a warm one.
#[derive(Debug)]
pub struct BufferPool {
    // Boxed: connection and socket hold one word, not a buffer.
    #[allow(clippy::vec_box, reason = "buffers move between owners as one word")]
    free: Vec<Box<OutBuffer>>,
    retained: usize,
    retained_max: usize,
    /// The fewest spare buffers there were since the last look: so many nobody needed.
    idle: usize,
}

impl BufferPool {
    /// A pool that keeps at most `retained_max` bytes of spare buffers.
    #[must_use]
    pub fn new(retained_max: usize) -> Self {
        Self { free: Vec::new(), retained: 0, retained_max, idle: 0 }
    }

    /// An empty buffer, with memory from earlier use where there is one.
    pub fn take(&mut self) -> Box<OutBuffer> {
        let Some(buffer) = self.free.pop() else { return Box::default() };
        self.retained -= buffer.memory();
        self.idle = self.idle.min(self.free.len());
        buffer
    }

    /// Frees the spare buffers that nobody needed since the last time.
    pub fn shrink(&mut self) {
        let freed: usize = self.free.drain(..self.idle).map(|buffer| buffer.memory()).sum();
        self.retained -= freed;
        self.free.shrink_to(2 * self.free.len());
        self.idle = self.free.len();
    }

    /// Takes a buffer back; over the pool's bound its memory is freed.
    pub fn put(&mut self, mut buffer: Box<OutBuffer>) {
        buffer.clear();
        let memory = buffer.memory();
        if self.retained + memory <= self.retained_max {
            self.retained += memory;
            self.free.push(buffer);
        }
    }

    /// Memory of the spare buffers, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.retained
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{MessageHead, MessageRef, QoS, VhostId, Wall};

    fn message(payload: &[u8]) -> Arc<Message> {
        let head = MessageHead {
            vhost: VhostId(0),
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: Wall::NEVER,
            publisher: None,
        };
        MessageRef { head, topic: "t", properties: &[], payload }.to_shared()
    }

    #[test]
    fn pieces_are_in_order_from_any_offset() {
        let mut buffer = OutBuffer::default();
        buffer.bytes_mut().extend_from_slice(b"head1");
        buffer.push_tail(message(b"PAYLOAD1"), 8);
        buffer.push_tail(message(b"PAYLOAD2"), 8);
        buffer.push_tail(message(b"PAYLOAD3"), 4);
        buffer.push_tail(message(b"PAYLOAD4"), 9);
        buffer.bytes_mut().extend_from_slice(b"tail");
        let whole = b"head1PAYLOAD1PAYLOAD2OAD3tPAYLOAD4tail";
        assert_eq!(buffer.len(), whole.len());
        for skip in 0..=whole.len() {
            let joined: Vec<u8> = buffer.slices(skip, 16).iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(joined, &whole[skip..]);
        }
        assert_eq!(buffer.slices(0, 2).len(), 2);
    }

    #[test]
    fn what_waits_grows_without_being_moved() {
        let mut buffer = OutBuffer::default();
        let mut whole = Vec::new();
        let mut first = None;
        for n in 0..6000_u32 {
            let packet = [n.to_le_bytes(); 25].concat();
            whole.extend_from_slice(&packet);
            buffer.bytes_mut().extend_from_slice(&packet);
            if n % 500 == 0 {
                whole.extend_from_slice(b"shared");
                buffer.push_tail(message(b"shared"), 6);
            }
            let start = buffer.slices(0, 1)[0].as_ptr();
            if buffer.contiguous().is_none() && whole.len() > 2 * PIECE_SIZE {
                assert_eq!(*first.get_or_insert(start), start, "the first piece stays where it is");
            }
        }
        assert_eq!(buffer.len(), whole.len());
        assert!(buffer.memory() < whole.len() + 2 * PIECE_SIZE);
        for skip in (0..=whole.len()).step_by(9_973).chain([PIECE_SIZE - PIECE_ROOM, PIECE_SIZE]) {
            let joined: Vec<u8> = buffer.slices(skip, usize::MAX).iter().flat_map(|s| s.to_vec()).collect();
            assert!(joined == whole[skip..], "from {skip} on");
        }
        buffer.clear();
        assert!(buffer.is_empty() && buffer.slices(0, 1).is_empty());
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_bound() {
        let mut pool = BufferPool::new(10_000);
        for _ in 0..10 {
            let mut buffer = pool.take();
            buffer.bytes_mut().reserve(4000);
            let second = pool.take();
            pool.put(second);
            pool.put(buffer);
            assert!(pool.memory() <= 10_000);
        }
        // Only one is in use at a time: the others are not needed.
        pool.shrink();
        let buffer = pool.take();
        pool.put(buffer);
        pool.shrink();
        assert_eq!(pool.free.len(), 1);
        pool.shrink();
        assert_eq!((pool.free.len(), pool.memory()), (0, 0));
        let mut large = pool.take();
        large.bytes_mut().reserve(1 << 20);
        pool.put(large);
        assert!(pool.memory() <= 10_000);
    }
}
