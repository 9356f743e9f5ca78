//! Packet identifiers of a client's requests: one after the other, leaving out what is in use.

use crate::base::PacketId;

/// How many packet identifiers there are.
const COUNT: u32 = 65_535;

/// Hands out identifiers. What is in use is looked at only when the run of free ones known from last time is used up: once in
/// 65,535 identifiers if requests are answered in order.
#[derive(Debug)]
pub(super) struct PacketIds {
    next: PacketId,
    /// `next` and what follows it: so many are free.
    free: u16,
}

impl PacketIds {
    pub(super) fn new() -> Self {
        Self { next: PacketId::FIRST, free: 0 }
    }

    /// An identifier that is not `in_use`; `None` if all are.
    pub(super) fn allocate(&mut self, in_use: impl Iterator<Item = PacketId>) -> Option<PacketId> {
        if self.free == 0 {
            self.look(in_use);
        }
        // [MQTT-2.2.1-3]
        self.free = self.free.checked_sub(1)?;
        let id = self.next;
        self.next = id.next();
        Some(id)
    }

    /// Moves `next` to the first free identifier, and counts the free ones from there.
    fn look(&mut self, in_use: impl Iterator<Item = PacketId>) {
        let from = u32::from(self.next.value());
        let mut distances: Vec<u32> =
            in_use.map(|id| (u32::from(id.value()) + COUNT - from) % COUNT).collect();
        distances.sort_unstable();
        let used = (0..).zip(&distances).take_while(|&(index, &distance)| index == distance).count();
        let end = distances.get(used).copied().unwrap_or(COUNT);
        for _ in 0..used {
            self.next = self.next.next();
        }
        let free = end - u32::try_from(used).expect("there are 65535 packet ids");
        self.free = u16::try_from(free).expect("there are 65535 packet ids");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_in_use_are_left_out() {
        let mut ids = PacketIds::new();
        let mut in_use: BTreeSet<PacketId> = BTreeSet::new();
        // Three stay in use for ever, one of them at the end of the range, the others come and go.
        for round in 0..200_000_u32 {
            let id = ids.allocate(in_use.iter().copied()).unwrap();
            assert!(in_use.insert(id), "{id} is in use");
            if !matches!(round, 5 | 6 | 65_534) {
                in_use.remove(&id);
            }
        }
        assert_eq!(in_use.len(), 3);
    }

    #[test]
    fn all_in_use() {
        let mut ids = PacketIds::new();
        let mut in_use = BTreeSet::new();
        for _ in 0..COUNT {
            assert!(in_use.insert(ids.allocate(in_use.iter().copied()).unwrap()));
        }
        assert_eq!(ids.allocate(in_use.iter().copied()), None);
        let freed = PacketId::new(777).unwrap();
        in_use.remove(&freed);
        assert_eq!(ids.allocate(in_use.iter().copied()), Some(freed));
    }
}
