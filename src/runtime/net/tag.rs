//! The 64 bits an operation carries and its completion brings back: which operation, on what, in which incarnation.
//!
//! ```text
//! 63      56 55              32 31                         0
//! | op (8)  | index (24)       | generation (32)            |
//! ```
//!
//! `index` and `generation` are a connection's, or those of the ring's own table of the operation (sends, accepts, connects).

use crate::base::ConnectionId;

/// One past the largest slot a connection may have: indices take 24 bits, 16.7 million connections a shard.
pub const INDEX_END: u32 = 1 << 24;

/// What was asked of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Op {
    Accept = 1,
    Receive,
    Send,
    HandOver,
    Doorbell,
    Wake,
    Socket,
    Bind,
    Connect,
    EndSending,
    /// A read or write of a file.
    Transfer,
    /// A sync of a file.
    Sync,
    /// Operations whose success says nothing: cancel, close, options, ringing. Only failures complete.
    Silent,
}

impl Op {
    const ALL: [Self; 13] = [
        Self::Accept,
        Self::Receive,
        Self::Send,
        Self::HandOver,
        Self::Doorbell,
        Self::Wake,
        Self::Socket,
        Self::Bind,
        Self::Connect,
        Self::EndSending,
        Self::Transfer,
        Self::Sync,
        Self::Silent,
    ];
}

/// An operation's `user_data`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag {
    pub(super) op: Op,
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl Tag {
    /// # Panics
    /// If `index` needs more than 24 bits.
    pub(super) fn new(op: Op, index: u32, generation: u32) -> Self {
        assert!(index < INDEX_END, "an index takes 24 bits");
        Self { op, index, generation }
    }

    pub(super) fn of(op: Op, connection: ConnectionId) -> Self {
        Self::new(op, connection.slot, connection.generation)
    }

    pub(super) fn connection(self) -> ConnectionId {
        ConnectionId { slot: self.index, generation: self.generation }
    }

    pub(super) fn encode(self) -> u64 {
        (u64::from(self.op as u8) << 56) | (u64::from(self.index) << 32) | u64::from(self.generation)
    }

    /// # Panics
    /// If this is nothing that [`encode`](Self::encode) gave: only this module writes `user_data`.
    #[allow(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub(super) fn decode(word: u64) -> Self {
        let op = usize::from((word >> 56) as u8);
        let op = *op.checked_sub(1).and_then(|op| Op::ALL.get(op)).expect("the ring wrote the word");
        Self { op, index: (word >> 32) as u32 & (INDEX_END - 1), generation: word as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_gives_back_what_it_was_made_of() {
        for (position, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, position + 1);
            for (index, generation) in [(0, 0), (INDEX_END - 1, u32::MAX), (12_345, 7), (1, 1 << 31)] {
                let tag = Tag::new(op, index, generation);
                assert_eq!(Tag::decode(tag.encode()), tag);
            }
        }
    }
}
