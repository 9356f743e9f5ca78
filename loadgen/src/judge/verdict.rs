//! From what publishers sent and subscribers got to counts, and from counts to the verdict.

use super::Stream;
use quelea::base::QoS;
use std::collections::BTreeSet;

/// Everything that is counted about messages.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Messages handed to the MQTT machine.
    pub published: u64,
    /// Messages of an open loop that should have been published before the end, and were not.
    pub unsent: u64,
    /// Publishes acknowledged to the end (QoS 1 and 2).
    pub acknowledged: u64,
    /// Publishes the broker answered with an error.
    pub refused: u64,
    /// Publishes never acknowledged though the connection lived.
    pub unacknowledged: u64,
    /// Acknowledgements in another order than the publishes.
    pub acknowledged_out_of_order: u64,
    /// Deliveries due: each message at each of its subscribers.
    pub expected: u64,
    /// Of these, what came, each once.
    pub received: u64,
    /// Due, and did not come.
    pub lost: u64,
    /// Did not come, but the publisher's or the subscriber's connection was dead or the publish refused.
    pub undeliverable: u64,
    /// Came again.
    pub duplicated: u64,
    /// Came after a later message of the same publisher.
    pub out_of_order: u64,
    /// Came with a payload that was never sent.
    pub corrupted: u64,
    /// Came under a wrong topic, or to a subscriber that had not asked for it.
    pub misrouted: u64,
    /// Came with another QoS than it should.
    pub wrong_qos: u64,
    /// Came with RETAIN, though it was sent live and not retained.
    pub wrong_retain: u64,
    /// Came from another run.
    pub foreign: u64,
}

impl Counts {
    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        for ((_, sum), (_, value)) in self.fields_mut().into_iter().zip(other.fields()) {
            *sum += value;
        }
    }

    /// Every count with its name.
    pub fn fields(&self) -> Vec<(&'static str, u64)> {
        self.clone().fields_mut().into_iter().map(|(name, count)| (name, *count)).collect()
    }

    fn fields_mut(&mut self) -> [(&'static str, &mut u64); 17] {
        [
            ("published", &mut self.published),
            ("unsent", &mut self.unsent),
            ("acknowledged", &mut self.acknowledged),
            ("refused", &mut self.refused),
            ("unacknowledged", &mut self.unacknowledged),
            ("acknowledged_out_of_order", &mut self.acknowledged_out_of_order),
            ("expected", &mut self.expected),
            ("received", &mut self.received),
            ("lost", &mut self.lost),
            ("undeliverable", &mut self.undeliverable),
            ("duplicated", &mut self.duplicated),
            ("out_of_order", &mut self.out_of_order),
            ("corrupted", &mut self.corrupted),
            ("misrouted", &mut self.misrouted),
            ("wrong_qos", &mut self.wrong_qos),
            ("wrong_retain", &mut self.wrong_retain),
            ("foreign", &mut self.foreign),
        ]
    }
}

/// A publisher at the end of the run.
#[derive(Default, Debug)]
pub struct PublisherEnd {
    /// Messages it published: their sequence numbers are below.
    pub published: u64,
    /// Its connection died, or never was.
    pub is_dead: bool,
    /// Sequence numbers the broker did not acknowledge (QoS 1 and 2).
    pub unacknowledged: BTreeSet<u64>,
    /// Sequence numbers the broker refused.
    pub refused: BTreeSet<u64>,
    /// If each message goes to one subscriber: how many went to each, by number; the sequence numbers are those of the pair then.
    pub lanes: Vec<u64>,
}

impl PublisherEnd {
    /// Messages that subscriber `number` must get.
    fn due(&self, number: usize) -> u64 {
        if self.lanes.is_empty() { self.published } else { self.lanes.get(number).copied().unwrap_or(0) }
    }
}

/// A subscriber at the end of the run.
#[derive(Debug)]
pub struct SubscriberEnd {
    /// The first publisher it hears; the others follow.
    pub first_publisher: u32,
    /// Its connection died, or never was.
    pub is_dead: bool,
    /// One for each publisher.
    pub streams: Vec<Stream>,
}

/// What it comes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// Every message came once, in order, unchanged.
    Exact,
    /// Not every message came, or some came again, but the QoS promised no more.
    Kept,
    /// A promise was broken.
    Broken,
}

impl Verdict {
    /// In the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Kept => "kept",
            Self::Broken => "broken",
        }
    }
}

/// Counts what is due, what came and what did not. `publishers` and `subscribers` are all, by number.
pub fn judge(publishers: &[&PublisherEnd], subscribers: &[&SubscriberEnd], qos: QoS, counts: &mut Counts) {
    counts.published += publishers.iter().map(|publisher| publisher.published).sum::<u64>();
    for publisher in publishers {
        if !publisher.is_dead {
            counts.unacknowledged += publisher.unacknowledged.len() as u64;
        }
    }
    for (number, subscriber) in subscribers.iter().enumerate() {
        let heard = publishers.iter().skip(subscriber.first_publisher as usize);
        for (publisher, stream) in heard.zip(&subscriber.streams) {
            let due = publisher.due(number);
            counts.expected += due;
            counts.received += stream.received();
            counts.duplicated += stream.duplicated();
            counts.out_of_order += stream.out_of_order();
            let missing: u64 = stream.missing(due).map(|(from, to)| to - from).sum();
            let lost = if subscriber.is_dead { 0 } else { lost(publisher, stream, due, qos) };
            counts.lost += lost;
            counts.undeliverable += missing - lost;
        }
    }
}

/// Of what did not come of the first `due` messages, what should have.
fn lost(publisher: &PublisherEnd, stream: &Stream, due: u64, qos: QoS) -> u64 {
    let mut lost = 0;
    for (from, to) in stream.missing(due) {
        // Whether a dead publisher's last QoS 0 messages ever reached the broker, nobody knows.
        let is_tail = to == due;
        if publisher.is_dead && is_tail && qos == QoS::AtMostOnce {
            continue;
        }
        let excused = publisher.refused.range(from..to).count()
            + if publisher.is_dead { publisher.unacknowledged.range(from..to).count() } else { 0 };
        lost += (to - from) - excused as u64;
    }
    lost
}

impl Counts {
    /// The promises that were broken, in words, for messages delivered with `qos`. `strict` asks for everything once and in order.
    pub fn broken(&self, qos: QoS, strict: bool) -> Vec<String> {
        let at_most_once = qos != QoS::AtLeastOnce || strict;
        let at_least_once = qos != QoS::AtMostOnce || strict;
        [
            (self.lost, at_least_once, "messages were lost"),
            (self.duplicated, at_most_once, "messages came again"),
            (self.out_of_order, true, "messages came after a later one of the same publisher"),
            (self.corrupted, true, "messages were corrupted"),
            (self.misrouted, true, "messages came where they do not belong"),
            (self.wrong_qos, true, "messages came with a wrong QoS"),
            (self.wrong_retain, true, "live messages came as retained"),
            (self.unacknowledged, true, "publishes were never acknowledged"),
            (self.refused, true, "publishes were refused"),
            (
                self.acknowledged_out_of_order,
                strict,
                "acknowledgements came in another order than the publishes",
            ),
        ]
        .into_iter()
        .filter(|&(count, is_promise, _)| count > 0 && is_promise)
        .map(|(count, _, what)| format!("{count} {what}"))
        .collect()
    }

    /// The verdict on messages delivered with `qos`; whether connections held is not in it.
    pub fn verdict(&self, qos: QoS, strict: bool) -> Verdict {
        if !self.broken(qos, strict).is_empty() {
            return Verdict::Broken;
        }
        let exact = self.received == self.expected && self.duplicated == 0 && self.foreign == 0;
        if exact { Verdict::Exact } else { Verdict::Kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher(published: u64) -> PublisherEnd {
        PublisherEnd { published, ..PublisherEnd::default() }
    }

    fn subscriber(sequences: &[u64]) -> SubscriberEnd {
        let mut stream = Stream::default();
        for &sequence in sequences {
            stream.take(sequence);
        }
        SubscriberEnd { first_publisher: 0, is_dead: false, streams: vec![stream] }
    }

    fn counts(publisher: PublisherEnd, subscriber: SubscriberEnd, qos: QoS) -> Counts {
        let mut counts = Counts::default();
        judge(&[&publisher], &[&subscriber], qos, &mut counts);
        counts
    }

    #[test]
    fn loss_breaks_qos_1_but_not_qos_0() {
        for (qos, verdict) in [
            (QoS::AtMostOnce, Verdict::Kept),
            (QoS::AtLeastOnce, Verdict::Broken),
            (QoS::ExactlyOnce, Verdict::Broken),
        ] {
            let counts = counts(publisher(5), subscriber(&[0, 1, 4]), qos);
            assert_eq!((counts.expected, counts.received, counts.lost), (5, 3, 2));
            assert_eq!(counts.verdict(qos, false), verdict);
            assert_eq!(counts.verdict(qos, true), Verdict::Broken);
        }
    }

    #[test]
    fn duplicates_break_qos_0_and_2_but_not_qos_1() {
        for (qos, verdict) in [
            (QoS::AtMostOnce, Verdict::Broken),
            (QoS::AtLeastOnce, Verdict::Kept),
            (QoS::ExactlyOnce, Verdict::Broken),
        ] {
            let counts = counts(publisher(3), subscriber(&[0, 1, 1, 2, 2, 0]), qos);
            assert_eq!((counts.received, counts.lost, counts.duplicated), (3, 0, 3));
            assert_eq!(counts.verdict(qos, false), verdict);
        }
    }

    #[test]
    fn order_is_promised_at_every_qos() {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let counts = counts(publisher(3), subscriber(&[0, 2, 1]), qos);
            assert_eq!((counts.received, counts.out_of_order), (3, 1));
            assert_eq!(counts.verdict(qos, false), Verdict::Broken);
        }
    }

    #[test]
    fn what_was_not_acknowledged_is_due_while_the_publisher_lives() {
        let mut end = publisher(4);
        end.unacknowledged.insert(3);
        let alive = counts(end, subscriber(&[0, 1, 2]), QoS::AtLeastOnce);
        assert_eq!((alive.lost, alive.unacknowledged, alive.undeliverable), (1, 1, 0));

        let mut end = PublisherEnd { is_dead: true, ..publisher(4) };
        end.unacknowledged.insert(3);
        let dead = counts(end, subscriber(&[0, 2]), QoS::AtLeastOnce);
        assert_eq!((dead.lost, dead.unacknowledged, dead.undeliverable), (1, 0, 1));
    }

    #[test]
    fn refused_and_undeliverable_messages_are_not_lost() {
        let mut end = publisher(4);
        end.refused.extend([1, 2]);
        let refused = counts(end, subscriber(&[0]), QoS::AtLeastOnce);
        assert_eq!((refused.lost, refused.undeliverable), (1, 2));

        let gone = SubscriberEnd { is_dead: true, ..subscriber(&[0]) };
        let dead = counts(publisher(4), gone, QoS::AtLeastOnce);
        assert_eq!((dead.lost, dead.undeliverable), (0, 3));

        let end = PublisherEnd { is_dead: true, ..publisher(10) };
        let tail = counts(end, subscriber(&[0, 1, 3]), QoS::AtMostOnce);
        assert_eq!((tail.lost, tail.undeliverable), (1, 6));
    }

    /// What went to one subscriber is not due at another.
    #[test]
    fn lanes_are_judged_one_by_one() {
        let end = PublisherEnd { lanes: vec![2, 3], ..publisher(5) };
        let mut counts = Counts::default();
        let subscribers = [subscriber(&[0, 1]), subscriber(&[0, 2])];
        judge(&[&end], &subscribers.iter().collect::<Vec<_>>(), QoS::AtMostOnce, &mut counts);
        assert_eq!((counts.published, counts.expected, counts.received, counts.lost), (5, 5, 4, 1));
    }

    #[test]
    fn every_count_has_a_name() {
        let mut counts = Counts::default();
        for (index, (_, count)) in counts.fields_mut().into_iter().enumerate() {
            *count = index as u64 + 1;
        }
        let mut twice = counts.clone();
        twice.add(&counts);
        let names: BTreeSet<_> = counts.fields().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len() * size_of::<u64>(), size_of::<Counts>());
        assert!(
            twice.fields().iter().enumerate().all(|(index, (_, count))| *count == 2 * (index as u64 + 1))
        );
    }
}
