//! Acknowledgements a publisher waits for, in the order its packets arrived. [MQTT-4.6.0-2] [MQTT-4.6.0-3]
//!
//! A publish whose targets are all done when it was routed is acknowledged at once if nothing is before it, and never comes
//! here. One that waits for other shards or for the disk holds back those behind it. Replies name a sequence number, which is
//! never used again, so that a late one finds nothing. When the connection ends, what waits is muted: a QoS 2 publish that is
//! repeated on the next one while the first copy's targets are still at it waits for those.

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
    /// It is kept on disk for somebody.
    pub kept: bool,
    /// It should have been kept for somebody, and was not.
    pub refused_durably: bool,
    /// Because a log has failed.
    pub failed: bool,
    /// A disk refused it for somebody, or as the retained message of its topic: it cannot be said to be kept, whoever else has it.
    pub unkept: bool,
    /// It was refused, and nobody knows its origin any more.
    pub forgotten: bool,
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
            kept: self.kept | other.kept,
            refused_durably: self.refused_durably | other.refused_durably,
            failed: self.failed | other.failed,
            unkept: self.unkept | other.unkept,
            forgotten: self.forgotten | other.forgotten,
        }
    }

    /// Whether the publisher is told that its message was not taken: a limit refused it, and nobody it would have been kept for
    /// has it; or a disk did.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        (self.refused && !self.taken) || (self.refused_durably && !self.kept) || self.unkept
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
    /// Nobody is there to hear of it.
    is_muted: bool,
    /// The one that waits for it.
    repetition: Option<u64>,
}

/// The acknowledgements of a session.
#[derive(Default, Debug)]
pub struct Acks {
    waiting: VecDeque<Waiting>,
    /// Sequence number of the first one that waits.
    first: u64,
    /// One that waits, and will be sent, is a refusal.
    has_refused: bool,
}

impl Acks {
    /// Puts one at the end that waits for `missing` targets more; gives its sequence number.
    pub fn push(&mut self, ready: Ready, missing: u32) -> u64 {
        self.has_refused |= ready.outcome.is_refusal();
        self.waiting.push_back(Waiting { ready, missing, is_muted: false, repetition: None });
        self.first + self.waiting.len() as u64 - 1
    }

    /// The sequence number the next one gets.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    /// A target answered: gives the acknowledgement if that was the last one it waited for. An unknown sequence number is ignored.
    pub fn settle(&mut self, sequence: u64, outcome: Outcome) -> Option<Ready> {
        let waiting = self.at_mut(sequence)?;
        waiting.ready.outcome = waiting.ready.outcome.and(outcome);
        waiting.missing = waiting.missing.saturating_sub(1);
        let ready = (waiting.missing == 0).then_some(waiting.ready);
        self.has_refused |= !waiting.is_muted && waiting.ready.outcome.is_refusal();
        ready
    }

    /// There is something more to wait for.
    pub fn wait_for_more(&mut self, sequence: u64) {
        if let Some(waiting) = self.at_mut(sequence) {
            waiting.missing += 1;
        }
    }

    /// The next one that waits for nothing any more, and whether it may be sent: not if its connection is gone.
    pub fn pop_ready(&mut self) -> Option<(Ready, bool)> {
        if self.waiting.front()?.missing > 0 {
            return None;
        }
        self.first += 1;
        let done = self.waiting.pop_front()?;
        if let Some(repetition) = done.repetition {
            self.settle(repetition, done.ready.outcome);
        }
        Some((done.ready, !done.is_muted))
    }

    /// The connection is gone: nothing that waits is sent.
    pub fn mute(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.is_muted = true);
        self.has_refused = false;
    }

    /// Whether this connection has sent a publish that is refused. Where that closes it, nothing behind it may be taken: it all comes
    /// again, in its order.
    #[must_use]
    pub fn has_refused(&self) -> bool {
        self.has_refused
    }

    /// A packet was sent again. Whether an acknowledgement of it waits, and will be sent: on this connection it does; or it was
    /// muted and is of QoS 2, and this one, behind all others, waits for that. With QoS 1 it is a publish of its own.
    pub fn repeat(&mut self, ready: Ready) -> bool {
        let is_it = |waiting: &Waiting| waiting.ready.packet_id == ready.packet_id;
        let Some(at) = self.waiting.iter().rposition(is_it) else { return false };
        if !self.waiting[at].is_muted {
            return true;
        }
        if ready.qos != QoS::ExactlyOnce || self.waiting[at].ready.qos != QoS::ExactlyOnce {
            return false;
        }
        let repetition = self.push(ready, 1);
        self.waiting[at].repetition = Some(repetition);
        true
    }

    fn at_mut(&mut self, sequence: u64) -> Option<&mut Waiting> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.waiting.get_mut(index)
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
        let (first, _) = acks.pop_ready().unwrap();
        assert_eq!(first.packet_id.value(), 1);
        assert!(first.outcome.taken && first.outcome.refused);
        assert_eq!(acks.pop_ready().unwrap().0.packet_id.value(), 2);
        acks.settle(b, Outcome::default());
        assert_eq!(acks.pop_ready(), None);
        acks.settle(c, Outcome::default());
        assert_eq!(acks.pop_ready().unwrap().0.packet_id.value(), 3);
        assert!(acks.is_empty());
    }

    #[test]
    fn what_was_muted_is_sent_if_a_qos_2_publish_is_repeated() {
        let id = |n| PacketId::new(n).unwrap();
        let ready = |n, qos| Ready { packet_id: id(n), qos, outcome: Outcome::default() };
        let mut acks = Acks::default();
        let one = acks.push(ready(1, QoS::ExactlyOnce), 1);
        let two = acks.push(ready(2, QoS::AtLeastOnce), 1);
        acks.mute();
        assert!(!acks.repeat(ready(2, QoS::AtLeastOnce)), "published anew");
        let three = acks.push(ready(2, QoS::AtLeastOnce), 0);
        assert!(acks.repeat(ready(1, QoS::ExactlyOnce)));
        assert!(acks.repeat(ready(1, QoS::ExactlyOnce)), "once more");
        assert_eq!((two, three, acks.len()), (one + 1, one + 2, 4));
        assert!(acks.settle(one, Outcome::default()).is_some());
        acks.wait_for_more(one);
        assert_eq!(acks.pop_ready(), None);
        assert!(
            acks.settle(one, Outcome::default()).is_some() && acks.settle(two, Outcome::default()).is_some()
        );
        let popped: Vec<_> = std::iter::from_fn(|| acks.pop_ready())
            .map(|(ready, is_heard)| (ready.packet_id.value(), is_heard))
            .collect();
        assert_eq!(popped, [(1, false), (2, false), (2, true), (1, true)]);
    }
}
