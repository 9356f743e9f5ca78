//! The ledger of a durable run: what was sent, what the broker has answered for, what came, and which promises that breaks.
//!
//! A *lane* is one publisher's messages on one topic; its sequence numbers have no gap. Each message of a lane is in one of three states:
//!
//! | state | by | must it come? |
//! |---|---|---|
//! | acknowledged | PUBACK, or PUBREC (PUBCOMP says it again) | yes; with QoS 2 once |
//! | refused | an acknowledgement with an error | it may |
//! | uncertain | sent, and the publisher's session was lost, or the run ended, before an answer | it may; with QoS 2 not twice |
//!
//! Only what is not acknowledged is remembered one by one. Pure: no clock, no socket.

use super::Stream;
use std::collections::BTreeSet;

/// Every so manieth message of a retained lane clears its topic.
const CLEAR_EVERY: u64 = 10;

/// One publisher's messages on one topic.
#[derive(Clone, Default, Debug)]
pub struct Lane {
    /// Messages sent: their sequence numbers are below.
    pub published: u64,
    /// Of these, the ones that nobody answers for.
    pub uncertain: BTreeSet<u64>,
}

impl Lane {
    /// The next message's number; it counts as acknowledged unless somebody says otherwise.
    pub fn publish(&mut self) -> u64 {
        self.published += 1;
        self.published - 1
    }

    /// Messages that must come.
    pub fn due(&self) -> u64 {
        self.published - self.uncertain.len() as u64
    }

    /// Messages that must come, of those that did not.
    pub fn lost(&self, stream: &Stream) -> u64 {
        stream
            .missing(self.published)
            .map(|(from, to)| (to - from) - self.uncertain.range(from..to).count() as u64)
            .sum()
    }
}

/// The retained message of one topic, all published by one publisher.
#[derive(Clone, Default, Debug)]
pub struct RetainedLane {
    /// Messages sent.
    pub published: u64,
    /// The last that the broker has answered for.
    acknowledged: Option<u64>,
}

/// What a new subscriber found under a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The message with this number.
    Message(u64),
    /// None.
    Nothing,
}

impl RetainedLane {
    /// Whether the message with this number has no payload.
    pub fn is_clear(sequence: u64) -> bool {
        sequence % CLEAR_EVERY == CLEAR_EVERY - 1
    }

    /// The next message's number.
    pub fn publish(&mut self) -> u64 {
        self.published += 1;
        self.published - 1
    }

    /// The broker answers for this message.
    pub fn acknowledge(&mut self, sequence: u64) {
        self.acknowledged = self.acknowledged.max(Some(sequence));
    }

    /// The oldest message a subscriber may find from now on; `None` if it may be nothing yet.
    pub fn floor(&self) -> Option<u64> {
        self.acknowledged
    }

    /// Whether it may be that there is nothing, for who subscribed when the floor was `floor`.
    pub fn may_be_nothing(&self, floor: Option<u64>) -> bool {
        floor.is_none_or(|floor| (floor..self.published).any(Self::is_clear))
    }

    /// Whether this is what a subscriber may find, who subscribed when the floor was `floor`.
    pub fn is_right(&self, floor: Option<u64>, found: Found) -> bool {
        match found {
            Found::Message(sequence) => {
                (floor.unwrap_or(0)..self.published).contains(&sequence) && !Self::is_clear(sequence)
            }
            Found::Nothing => self.may_be_nothing(floor),
        }
    }
}

/// Whether a subscription is in force, as far as the broker has said.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Force {
    /// SUBACK came last.
    On,
    /// UNSUBACK came last, or there never was one.
    #[default]
    Off,
    /// A request was sent, and the connection ended before its answer.
    Uncertain,
}

/// A subscription that comes and goes, and the messages sent to find out whether it is there.
#[derive(Clone, Default, Debug)]
pub struct Probed {
    /// What is known.
    pub force: Force,
    /// What was known when each probe was sent.
    expected: Vec<Force>,
    /// Probes that came, each once.
    seen: BTreeSet<u64>,
    /// Probes that came though the subscription had been taken back.
    pub phantoms: u64,
}

impl Probed {
    /// A probe is sent: its number.
    pub fn probe(&mut self) -> u64 {
        self.expected.push(self.force);
        self.expected.len() as u64 - 1
    }

    /// The broker does not answer for the last probe.
    pub fn unsure(&mut self) {
        if let Some(last) = self.expected.last_mut().filter(|last| **last == Force::On) {
            *last = Force::Uncertain;
        }
    }

    /// A probe came.
    pub fn take(&mut self, sequence: u64) {
        let Some(expected) = self.expected.get(sequence as usize) else { return };
        if self.seen.insert(sequence) && *expected == Force::Off {
            self.phantoms += 1;
        }
    }

    /// Whether the last probe must still come.
    pub fn is_waiting(&self) -> bool {
        let last = self.expected.len() as u64;
        last > 0 && self.expected.last() == Some(&Force::On) && !self.seen.contains(&(last - 1))
    }

    /// Probes that did not come though the subscription was in force.
    pub fn lost(&self) -> u64 {
        let missing = (0..).zip(&self.expected);
        missing.filter(|(number, expected)| **expected == Force::On && !self.seen.contains(number)).count()
            as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(sequences: &[u64]) -> Stream {
        let mut stream = Stream::default();
        for &sequence in sequences {
            stream.take(sequence);
        }
        stream
    }

    #[test]
    fn only_what_was_acknowledged_is_lost() {
        let lane = Lane { published: 6, uncertain: BTreeSet::from([2, 5]) };
        assert_eq!(lane.due(), 4);
        for (came, lost) in [
            (&[0, 1, 2, 3, 4, 5][..], 0),
            (&[0, 1, 3, 4], 0),
            (&[0, 1, 4], 1),
            (&[2, 5], 4),
            (&[], 4),
            (&[0, 1, 3, 4, 4], 0),
        ] {
            assert_eq!(lane.lost(&stream(came)), lost, "{came:?}");
        }
    }

    #[test]
    fn a_retained_message_is_the_last_acknowledged_or_a_later_one() {
        let mut lane = RetainedLane::default();
        assert!(lane.is_right(lane.floor(), Found::Nothing));
        for _ in 0..5 {
            lane.publish();
        }
        assert!(
            lane.is_right(lane.floor(), Found::Nothing) && lane.is_right(lane.floor(), Found::Message(4))
        );
        lane.acknowledge(2);
        let floor = lane.floor();
        let right = |found| lane.is_right(floor, found);
        assert!(right(Found::Message(2)) && right(Found::Message(4)));
        assert!(!right(Found::Message(1)) && !right(Found::Message(5)) && !right(Found::Nothing));
    }

    #[test]
    fn a_clear_leaves_nothing() {
        let mut lane = RetainedLane { published: 10, ..RetainedLane::default() };
        lane.acknowledge(8);
        assert!(RetainedLane::is_clear(9));
        assert!(lane.is_right(Some(8), Found::Nothing) && lane.is_right(Some(8), Found::Message(8)));
        lane.acknowledge(9);
        assert!(
            lane.is_right(lane.floor(), Found::Nothing) && !lane.is_right(lane.floor(), Found::Message(8))
        );
        lane.publish();
        lane.acknowledge(10);
        assert!(!lane.is_right(lane.floor(), Found::Nothing));
    }

    #[test]
    fn probes_show_what_is_in_force() {
        let mut probed = Probed::default();
        let off = probed.probe();
        assert!(!probed.is_waiting());
        probed.force = Force::On;
        let on = probed.probe();
        assert!(probed.is_waiting());
        probed.take(on);
        assert!(!probed.is_waiting());
        assert_eq!((probed.lost(), probed.phantoms), (0, 0));
        // Comes again, and one that nobody had asked for.
        probed.take(on);
        probed.take(off);
        probed.take(77);
        assert_eq!((probed.lost(), probed.phantoms), (0, 1));
        probed.probe();
        assert_eq!(probed.lost(), 1);
        probed.unsure();
        probed.force = Force::Uncertain;
        let either = probed.probe();
        assert_eq!(probed.lost(), 0);
        probed.take(either);
        assert_eq!((probed.lost(), probed.phantoms), (0, 1));
    }
}
