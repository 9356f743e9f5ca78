//! Acknowledgements a publisher waits for, in the order its packets arrived. [MQTT-4.6.0-2] [MQTT-4.6.0-3]
//!
//! A publish whose targets are all done when it was routed is acknowledged at once if nothing is before it, and never comes
//! here. One that waits for other shards holds back those behind it. The list belongs to one incarnation of the session (one
//! connection); replies name the incarnation and a sequence number, so that a late one finds nothing.

use crate::base::{PacketId, QoS};
use std::collections::VecDeque;

/// What the targets of a publish said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Somebody subscribes.
    pub matched: bool,
    /// A queue took it.
    pub taken: bool,
    /// A queue's limit refused it.
    pub refused: bool,
    /// The retained store was full.
    pub not_retained: bool,
}

impl Outcome {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            matched: self.matched | other.matched,
            taken: self.taken | other.taken,
            refused: self.refused | other.refused,
            not_retained: self.not_retained | other.not_retained,
        }
    }
}

/// An acknowledgement that may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// Of which packet.
    pub packet_id: PacketId,
    /// 1: PUBACK, 2: PUBREC.
    pub qos: QoS,
    /// What its targets said.
    pub outcome: Outcome,
}

#[derive(Debug)]
struct Waiting {
    ready: Ready,
    missing: u32,
}

/// The acknowledgements of one incarnation.
#[derive(Default, Debug)]
pub struct Acks {
    waiting: VecDeque<Waiting>,
    /// Sequence number of the first one that waits.
    first: u64,
}

impl Acks {
    /// Puts one at the end that waits for `missing` targets more; gives its sequence number.
    pub fn push(&mut self, ready: Ready, missing: u32) -> u64 {
        self.waiting.push_back(Waiting { ready, missing });
        self.first + self.waiting.len() as u64 - 1
    }

    /// The sequence number the next one gets.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    /// A target answered. An unknown sequence number is ignored.
    pub fn settle(&mut self, sequence: u64, outcome: Outcome) {
        let index = sequence.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(waiting) = index.and_then(|index| self.waiting.get_mut(index)) {
            waiting.ready.outcome = waiting.ready.outcome.and(outcome);
            waiting.missing = waiting.missing.saturating_sub(1);
        }
    }

    /// The next one that may be sent.
    pub fn pop_ready(&mut self) -> Option<Ready> {
        if self.waiting.front()?.missing > 0 {
            return None;
        }
        self.first += 1;
        self.waiting.pop_front().map(|waiting| waiting.ready)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether an acknowledgement of this packet waits.
    #[must_use]
    pub fn contains(&self, packet_id: PacketId) -> bool {
        self.waiting.iter().any(|waiting| waiting.ready.packet_id == packet_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_leave_in_the_order_of_arrival() {
        let ready = |n| Ready {
            packet_id: PacketId::new(n).unwrap(),
            qos: QoS::AtLeastOnce,
            outcome: Outcome::default(),
        };
        let mut acks = Acks::default();
        let a = acks.push(ready(1), 2);
        let b = acks.push(ready(2), 0);
        let c = acks.push(ready(3), 1);
        assert_eq!(acks.pop_ready(), None);
        acks.settle(a, Outcome { taken: true, ..Outcome::default() });
        assert_eq!(acks.pop_ready(), None);
        acks.settle(a, Outcome { refused: true, ..Outcome::default() });
        let first = acks.pop_ready().unwrap();
        assert_eq!(first.packet_id.value(), 1);
        assert!(first.outcome.taken && first.outcome.refused);
        assert_eq!(acks.pop_ready().unwrap().packet_id.value(), 2);
        acks.settle(b, Outcome::default());
        assert_eq!(acks.pop_ready(), None);
        acks.settle(c, Outcome::default());
        assert_eq!(acks.pop_ready().unwrap().packet_id.value(), 3);
        assert!(acks.is_empty());
    }
}
