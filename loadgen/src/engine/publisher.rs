//! One publisher: what it has published, what waits for its acknowledgement.

use quelea::base::{PacketId, ReasonCode};
use std::collections::{BTreeSet, VecDeque};

/// A publish without its last acknowledgement.
#[derive(Clone, Copy, Debug)]
struct Pending {
    packet_id: PacketId,
    sequence: u64,
    sent: u64,
}

/// A publisher of one thread.
pub struct Publisher {
    /// Its number in the run.
    pub id: u32,
    /// Its connection in the thread; none until it has one.
    pub slot: Option<u32>,
    pub topic: Box<str>,
    /// The next message's number.
    pub sequence: u64,
    /// If each message goes to one subscriber: the next number for each.
    pub lanes: Vec<u64>,
    /// Its connection died, or never came to be.
    pub is_dead: bool,
    /// It stands in the list of those that may publish.
    pub queued: bool,
    /// Deliveries that a closed loop does not wait for any more: the broker had long enough.
    pub forgiven: u64,
    /// What was seen at the last look, and whether the window was full then.
    pub last_seen: u64,
    pub was_blocked: bool,
    pending: VecDeque<Pending>,
    refused: BTreeSet<u64>,
    /// One more than the largest number that was acknowledged.
    acknowledged_end: u64,
}

/// What an acknowledgement was.
pub struct Acknowledged {
    /// When the publish was sent.
    pub sent: u64,
    /// A later publish was acknowledged before.
    pub out_of_order: bool,
}

impl Publisher {
    /// One that has published nothing.
    pub fn new(id: u32, topic: String, lanes: usize) -> Self {
        Self {
            id,
            slot: None,
            topic: topic.into(),
            sequence: 0,
            lanes: vec![0; lanes],
            is_dead: false,
            queued: false,
            forgiven: 0,
            last_seen: 0,
            was_blocked: false,
            pending: VecDeque::new(),
            refused: BTreeSet::new(),
            acknowledged_end: 0,
        }
    }

    /// Publishes that wait for their acknowledgement.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Message [`sequence`](Self::sequence) was published.
    pub fn on_published(&mut self, packet_id: Option<PacketId>, now: u64) {
        if let Some(packet_id) = packet_id {
            self.pending.push_back(Pending { packet_id, sequence: self.sequence, sent: now });
        }
        self.sequence += 1;
    }

    /// An acknowledgement that ends a publish. The MQTT machine has seen to it that there is one.
    pub fn on_acknowledged(&mut self, packet_id: PacketId, reason: ReasonCode) -> Option<Acknowledged> {
        let index = self.pending.iter().position(|pending| pending.packet_id == packet_id)?;
        let Pending { sequence, sent, .. } = self.pending.remove(index)?;
        if reason.is_error() {
            self.refused.insert(sequence);
        }
        let out_of_order = sequence < self.acknowledged_end;
        self.acknowledged_end = self.acknowledged_end.max(sequence + 1);
        Some(Acknowledged { sent, out_of_order })
    }

    /// Sequence numbers without acknowledgement, and those refused.
    pub fn end(self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        (self.pending.iter().map(|pending| pending.sequence).collect(), self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_find_their_publish() {
        let mut publisher = Publisher::new(0, "t".to_owned(), 0);
        let ids: Vec<PacketId> = (1..=4).map(|id| PacketId::new(id).unwrap()).collect();
        for (at, &id) in ids.iter().enumerate() {
            publisher.on_published(Some(id), at as u64 * 10);
        }
        let first = publisher.on_acknowledged(ids[0], ReasonCode::Success).unwrap();
        assert_eq!((first.sent, first.out_of_order), (0, false));
        let third = publisher.on_acknowledged(ids[2], ReasonCode::QuotaExceeded).unwrap();
        assert_eq!((third.sent, third.out_of_order), (20, false));
        assert!(publisher.on_acknowledged(ids[2], ReasonCode::Success).is_none());
        assert_eq!((publisher.sequence, publisher.pending()), (4, 2));
        let second = publisher.on_acknowledged(ids[1], ReasonCode::Success).unwrap();
        assert_eq!((second.sent, second.out_of_order), (10, true));
        assert_eq!(publisher.end(), (BTreeSet::from([3]), BTreeSet::from([2])));
    }
}
