//! The shared subscriptions whose home is this shard, by virtual host, share name and filter.
//!
//! A group keeps its slot while it exists, so that the slot can stand for it as a [`Subscriber`](super::Subscriber).

use super::shared::Group;
use super::slots::Slots;
use super::table::{SlotEntry, Table};
use crate::base::{HashKey, VhostId};

/// The hash of a shared subscription: its home shard is [`home`](crate::base::hash::home) of it. One hash for each part, the
/// second under a key made from the first, so that nothing needs to be joined.
#[must_use]
pub fn group_hash(key: HashKey, vhost: VhostId, group: &str, filter: &str) -> u64 {
    let k1 = key.hash(vhost, group.as_bytes());
    HashKey { k0: key.k0, k1 }.hash(vhost, filter.as_bytes())
}

/// Groups by name, under stable slots.
#[derive(Debug)]
pub struct Groups {
    key: HashKey,
    slots: Slots<Named>,
    table: Table<SlotEntry>,
    text_bytes: usize,
}

#[derive(Debug)]
struct Named {
    name: Box<str>,
    filter: Box<str>,
    vhost: VhostId,
    group: Group,
}

impl Groups {
    /// None yet.
    #[must_use]
    pub fn new(key: HashKey) -> Self {
        Self { key, slots: Slots::new(), table: Table::single(), text_bytes: 0 }
    }

    /// The slot of the group, which is made if need be; [`close`](Self::close) it when it is empty.
    pub fn open(&mut self, vhost: VhostId, group: &str, filter: &str) -> u32 {
        if let Some(slot) = self.find(vhost, group, filter) {
            return slot;
        }
        let named = Named { name: group.into(), filter: filter.into(), vhost, group: Group::new() };
        self.text_bytes += named.text_bytes();
        let slot = self.slots.insert(named);
        let hash = group_hash(self.key, vhost, group, filter);
        self.table.insert(hash, SlotEntry::new(hash, slot));
        slot
    }

    /// The slot of the group, if it exists.
    #[must_use]
    pub fn find(&self, vhost: VhostId, group: &str, filter: &str) -> Option<u32> {
        let is = |entry: &SlotEntry| {
            self.slots.get(entry.slot).is_some_and(|named| {
                named.vhost == vhost && *named.name == *group && *named.filter == *filter
            })
        };
        self.table.find(group_hash(self.key, vhost, group, filter), is).map(|entry| entry.slot)
    }

    /// The group of this [`group_hash`].
    #[must_use]
    pub fn find_hash(&self, hash: u64) -> Option<u32> {
        let is = |entry: &SlotEntry| {
            self.slots
                .get(entry.slot)
                .is_some_and(|named| group_hash(self.key, named.vhost, &named.name, &named.filter) == hash)
        };
        self.table.find(hash, is).map(|entry| entry.slot)
    }

    /// The group at `slot`.
    #[must_use]
    pub fn get(&self, slot: u32) -> Option<&Group> {
        self.slots.get(slot).map(|named| &named.group)
    }

    /// The group at `slot`.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Group> {
        self.slots.get_mut(slot).map(|named| &mut named.group)
    }

    /// Virtual host, share name and filter of the group at `slot`.
    #[must_use]
    pub fn name(&self, slot: u32) -> Option<(VhostId, &str, &str)> {
        self.slots.get(slot).map(|named| (named.vhost, &*named.name, &*named.filter))
    }

    /// Forgets the group at `slot` if nobody is left in it; says whether it did.
    ///
    /// # Panics
    /// Never: every group is in the table.
    pub fn close(&mut self, slot: u32) -> bool {
        if !self.get(slot).is_some_and(Group::is_empty) {
            return false;
        }
        let named = self.slots.remove(slot).expect("seen above");
        let hash = group_hash(self.key, named.vhost, &named.name, &named.filter);
        self.table.remove(hash, |entry| entry.slot == slot).expect("every group is in the table");
        self.text_bytes -= named.text_bytes();
        true
    }

    /// All groups with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Group)> {
        self.slots.iter().map(|(slot, named)| (slot, &named.group))
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives memory back after much was removed.
    pub fn shrink(&mut self) {
        self.slots.shrink();
    }

    /// Bytes held, without what the allocator adds.
    #[must_use]
    pub fn memory(&self) -> usize {
        let groups: usize = self.iter().map(|(_, group)| group.memory()).sum();
        self.slots.memory() + self.table.memory() + self.text_bytes + groups
    }
}

impl Named {
    fn text_bytes(&self) -> usize {
        self.name.len() + self.filter.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{SessionId, ShardId};
    use crate::route::{MemberId, SubscriptionOptions};

    const KEY: HashKey = HashKey { k0: 8, k1: 9 };

    #[test]
    fn groups_keep_their_slots() {
        let mut groups = Groups::new(KEY);
        let empty = groups.memory();
        let names = [(0, "g", "a/b"), (1, "g", "a/b"), (0, "h", "a/b"), (0, "g", "a/c"), (0, "ga", "/b")];
        let slots = names.map(|(vhost, group, filter)| groups.open(VhostId(vhost), group, filter));
        for ((vhost, group, filter), slot) in names.into_iter().zip(slots) {
            assert_eq!(groups.open(VhostId(vhost), group, filter), slot);
            assert_eq!(groups.find(VhostId(vhost), group, filter), Some(slot));
            assert_eq!(groups.name(slot), Some((VhostId(vhost), group, filter)));
        }
        assert_eq!((groups.len(), groups.find(VhostId(2), "g", "a/b")), (5, None));
        let session = SessionId { slot: 1, generation: 1, shard: ShardId(0) };
        let member = MemberId { shard: ShardId(0), session };
        groups.get_mut(slots[2]).unwrap().join(member, SubscriptionOptions::default());
        assert!(!groups.close(slots[2]), "a group with a member stays");
        groups.get_mut(slots[2]).unwrap().leave(member).unwrap();
        for slot in slots {
            assert!(groups.close(slot));
            assert!(!groups.close(slot));
        }
        assert!(groups.is_empty());
        assert_eq!((groups.memory(), groups.text_bytes), (empty, 0));
    }

    #[test]
    fn the_parts_of_a_name_do_not_run_together() {
        let hash = |vhost, group, filter| group_hash(KEY, VhostId(vhost), group, filter);
        let hashes = [hash(0, "g", "a/b"), hash(0, "ga", "/b"), hash(0, "a", "g/b"), hash(1, "g", "a/b")];
        for (index, one) in hashes.iter().enumerate() {
            assert!(hashes[index + 1..].iter().all(|other| other != one));
        }
    }
}
