//! Out-buffers: bytes on their way to one connection, and the shard's pool of them.
//!
//! A connection has an out-buffer only while something waits to be sent. Small packets are copied behind each other; a large
//! payload stays where it is and is sent from the shared message.

use super::message::Message;
use std::io::IoSlice;
use std::sync::Arc;

/// Payloads of at least this many bytes are sent from the shared message instead of being copied: below, a copy is cheaper
/// than another iovec.
pub const SHARE_MIN: usize = 4096;

/// Packets that wait for one connection's socket.
#[derive(Default, Debug)]
pub struct OutBuffer {
    bytes: Vec<u8>,
    shared: Vec<Shared>,
    shared_size: usize,
}

#[derive(Debug)]
struct Shared {
    /// How many of `bytes` go before this payload.
    at: usize,
    message: Arc<Message>,
}

impl OutBuffer {
    /// Where packets are encoded.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Puts the payload of `message` behind what is there, without copying it.
    pub fn push_payload(&mut self, message: Arc<Message>) {
        self.shared_size += message.payload().len();
        self.shared.push(Shared { at: self.bytes.len(), message });
    }

    /// How many bytes wait, in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_size
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are in one piece.
    #[must_use]
    pub fn contiguous(&self) -> Option<&[u8]> {
        self.shared.is_empty().then_some(&self.bytes[..])
    }

    /// The bytes from `skip` on, in order, in at most `count_max` pieces (the rest is left out).
    #[must_use]
    pub fn slices(&self, mut skip: usize, count_max: usize) -> Vec<IoSlice<'_>> {
        let mut out = Vec::new();
        let mut from = 0;
        for shared in &self.shared {
            for piece in [&self.bytes[from..shared.at], shared.message.payload()] {
                take(&mut out, piece, &mut skip, count_max);
            }
            from = shared.at;
        }
        take(&mut out, &self.bytes[from..], &mut skip, count_max);
        out
    }

    /// Memory held, in bytes; shared payloads are counted in full.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity() + self.shared_size
    }

    /// Empties the buffer and keeps its memory.
    pub fn clear(&mut self) {
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
        buffer.push_payload(message(b"PAYLOAD1"));
        buffer.push_payload(message(b"PAYLOAD2"));
        buffer.bytes_mut().extend_from_slice(b"tail");
        let whole = b"head1PAYLOAD1PAYLOAD2tail";
        assert_eq!(buffer.len(), whole.len());
        for skip in 0..=whole.len() {
            let joined: Vec<u8> = buffer.slices(skip, 16).iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(joined, &whole[skip..]);
        }
        assert_eq!(buffer.slices(0, 2).len(), 2);
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
