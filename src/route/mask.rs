//! Sets of shards, and the pair of them that says who wants a topic's messages.

use crate::base::ShardId;

/// The most shards a process may have: one bit each in a [`ShardMask`].
pub const SHARDS_MAX: u16 = 64;

/// A set of shards.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug, Default)]
pub struct ShardMask(pub u64);

/// Which shards want a message.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug, Default)]
pub struct Masks {
    /// Those with any subscriber.
    pub any: ShardMask,
    /// Those with a durable one.
    pub durable: ShardMask,
}

impl ShardMask {
    /// No shard.
    pub const EMPTY: Self = Self(0);

    /// Just this shard.
    ///
    /// # Panics
    /// If there is no such shard: ids are below [`SHARDS_MAX`].
    #[must_use]
    pub fn only(shard: ShardId) -> Self {
        assert!(shard.0 < SHARDS_MAX, "shard ids are below {SHARDS_MAX}");
        Self(1 << shard.0)
    }

    /// Whether the shard is in the set.
    ///
    /// # Panics
    /// As [`only`](Self::only).
    #[must_use]
    pub fn contains(self, shard: ShardId) -> bool {
        self.0 & Self::only(shard).0 != 0
    }

    /// Puts a shard in.
    ///
    /// # Panics
    /// As [`only`](Self::only).
    pub fn insert(&mut self, shard: ShardId) {
        self.0 |= Self::only(shard).0;
    }

    /// Takes a shard out.
    ///
    /// # Panics
    /// As [`only`](Self::only).
    pub fn remove(&mut self, shard: ShardId) {
        self.0 &= !Self::only(shard).0;
    }

    /// The shards of either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether no shard is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many shards are in the set.
    #[must_use]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The shards, ascending.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let shard = u16::try_from(rest.trailing_zeros()).expect("a bit's number");
            (rest != 0).then(|| {
                rest &= rest - 1;
                ShardId(shard)
            })
        })
    }
}

impl Masks {
    /// Nobody.
    pub const NONE: Self = Self { any: ShardMask::EMPTY, durable: ShardMask::EMPTY };

    /// The shards of either pair.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { any: self.any.union(other.any), durable: self.durable.union(other.durable) }
    }

    /// Whether nobody wants it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.any.is_empty() && self.durable.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_a_set_of_shards() {
        let mut mask = ShardMask::EMPTY;
        assert_eq!((mask.iter().next(), mask.is_empty()), (None, true));
        for shard in [63, 0, 5, 5] {
            mask.insert(ShardId(shard));
        }
        assert_eq!(mask.iter().collect::<Vec<_>>(), [ShardId(0), ShardId(5), ShardId(63)]);
        assert_eq!((mask.len(), mask.contains(ShardId(5)), mask.contains(ShardId(6))), (3, true, false));
        mask.remove(ShardId(5));
        assert_eq!(mask.union(ShardMask::only(ShardId(1))), ShardMask(1 << 63 | 3));
    }
}
