//! Keyed hashes. Topics, filters and client ids are chosen by peers: every table over them is keyed.

use super::ids::{ShardId, VhostId};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// The process's secret hash key. The home of a session depends on it, so it is kept in the data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashKey {
    /// First half.
    pub k0: u64,
    /// Second half.
    pub k1: u64,
}

impl HashKey {
    /// SipHash-1-3 of `bytes` in `vhost`: about 1 ns a byte for short strings.
    #[must_use]
    pub fn hash(self, vhost: VhostId, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.k0 ^ u64::from(vhost.0), self.k1);
        hasher.write(bytes);
        hasher.finish()
    }

    /// Another key, derived from this one: for uses that must not show each other's values.
    #[must_use]
    pub fn derive(self, purpose: &str) -> Self {
        let k0 = self.hash(VhostId(0), purpose.as_bytes());
        Self { k0, k1: Self { k0, ..self }.hash(VhostId(1), purpose.as_bytes()) }
    }
}

/// The shard among `shards` that a hash falls on, evenly (multiply and shift, no division).
///
/// # Panics
/// If `shards` is 0.
#[must_use]
pub fn home(hash: u64, shards: u16) -> ShardId {
    assert!(shards > 0, "a process has at least one shard");
    let scaled = (u128::from(hash) * u128::from(shards)) >> 64;
    ShardId(u16::try_from(scaled).expect("less than the number of shards"))
}
