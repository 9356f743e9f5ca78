//! QoS 2 packet identifiers that came in and were not released yet: a PUBLISH with one of them is a repetition.

use crate::base::PacketId;

/// A small sorted set; empty it holds no memory.
#[derive(Default, Debug, Clone, PartialEq, Eq)]
pub struct Received {
    ids: Vec<u16>,
}

impl Received {
    /// Notes an identifier; `false` if it is there already. [MQTT-4.3.3-10]
    pub fn insert(&mut self, packet_id: PacketId) -> bool {
        let value = packet_id.value();
        match self.ids.last() {
            Some(last) if *last >= value => match self.ids.binary_search(&value) {
                Ok(_) => return false,
                Err(at) => self.ids.insert(at, value),
            },
            _ => self.ids.push(value),
        }
        true
    }

    /// Whether the identifier is there.
    #[must_use]
    pub fn contains(&self, packet_id: PacketId) -> bool {
        self.ids.binary_search(&packet_id.value()).is_ok()
    }

    /// PUBREL: releases the identifier; `false` if it is not there.
    pub fn remove(&mut self, packet_id: PacketId) -> bool {
        match self.ids.binary_search(&packet_id.value()) {
            Ok(at) => {
                self.ids.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// Those that are not released.
    pub fn iter(&self) -> impl Iterator<Item = PacketId> {
        self.ids.iter().filter_map(|id| PacketId::new(*id))
    }

    /// How many are not released.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether all are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_is_noticed_until_release() {
        let mut received = Received::default();
        let id = |n| PacketId::new(n).unwrap();
        for n in [5, 3, 9, 4] {
            assert!(received.insert(id(n)));
        }
        assert!(!received.insert(id(3)));
        assert!(received.remove(id(3)));
        assert!(!received.remove(id(3)));
        assert!(received.insert(id(3)));
        assert_eq!(received.len(), 4);
    }
}
