//! Identifiers: one newtype for every id that crosses a function boundary.

use std::fmt;
use std::num::NonZeroU16;

/// A virtual host, interned; 0 is `/`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct VhostId(pub u16);

/// One of the process's shards, `0..shards`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard as an index into per-shard tables.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A connection of one shard: its slot, and how often that slot was used before.
///
/// Every completion and every reply about a connection carries both, so that a late one never reaches the slot's next user.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnectionId {
    /// Index into the shard's connection slab.
    pub slot: u32,
    /// Incarnation of the slot.
    pub generation: u32,
}

/// A session, unique over the process: its home shard, its slot there, and the slot's incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SessionId {
    /// Index into the home shard's session slab.
    pub slot: u32,
    /// Incarnation of the slot.
    pub generation: u32,
    /// The home shard.
    pub shard: ShardId,
}

/// An MQTT packet identifier, 1 to 65535.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PacketId(pub NonZeroU16);

impl PacketId {
    /// The identifier 1.
    pub const FIRST: Self = Self(NonZeroU16::MIN);

    /// The identifier of this value, unless it is 0.
    #[must_use]
    pub fn new(value: u16) -> Option<Self> {
        NonZeroU16::new(value).map(Self)
    }

    /// The number on the wire.
    #[must_use]
    pub fn value(self) -> u16 {
        self.0.get()
    }

    /// The identifier after this one; 1 follows 65535.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(NonZeroU16::MIN))
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
