//! Who talks to whom. A scenario is a file beside this one that turns its arguments into a [`Topology`]; the engine and the
//! judge know nothing else about it.

mod conn;
mod fanin;
mod fanout;
mod pair;
mod topics;

pub use conn::ConnArgs;
pub use fanin::FaninArgs;
pub use fanout::FanoutArgs;
pub use pair::PairArgs;
pub use topics::{Topics, TopicsArgs};

use std::ops::Range;

/// Filters in one SUBSCRIBE at most.
pub const FILTERS_MAX: usize = 200;

/// The clients of a run, and which publishers a subscriber hears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    /// Clients that only hold their connection.
    pub idle: u32,
    /// Whether each of them subscribes to a topic of its own.
    pub idle_subscribe: bool,
    /// Clients that publish, each to a topic of its own.
    pub publishers: u32,
    /// Clients that subscribe.
    pub subscribers: u32,
    /// Who hears whom.
    pub wiring: Wiring,
}

/// Which publishers a subscriber hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wiring {
    /// Subscriber `n` hears publisher `n`.
    Pairs,
    /// Every subscriber hears every publisher.
    All,
    /// Every subscriber has many topics, and each message goes to one of all topics.
    Topics(Topics),
}

impl Topology {
    /// All clients.
    pub fn clients(&self) -> u64 {
        u64::from(self.idle) + u64::from(self.publishers) + u64::from(self.subscribers)
    }

    /// Subscribers that each message is delivered to.
    pub fn fan(&self) -> u64 {
        match self.wiring {
            Wiring::Pairs | Wiring::Topics(_) => 1,
            Wiring::All => u64::from(self.subscribers),
        }
    }

    /// The publishers that `subscriber` hears.
    pub fn hears(&self, subscriber: u32) -> Range<u32> {
        match self.wiring {
            Wiring::Pairs => subscriber..subscriber + 1,
            Wiring::All | Wiring::Topics(_) => 0..self.publishers,
        }
    }

    /// The filters of `subscriber`, from number `from` on, at most [`FILTERS_MAX`] of them: none if it has no more.
    pub fn filters(&self, prefix: &str, subscriber: u32, from: u32) -> Vec<String> {
        let all = match self.wiring {
            Wiring::Topics(topics) => {
                let own = topics.of(subscriber).skip(from as usize).take(FILTERS_MAX);
                return own.map(|topic| topics.filter(prefix, topic)).collect();
            }
            Wiring::Pairs => topic(prefix, subscriber),
            Wiring::All if self.publishers == 1 => topic(prefix, 0),
            Wiring::All => format!("{prefix}/+"),
        };
        if from == 0 { vec![all] } else { Vec::new() }
    }

    /// Pairs of a publisher and a subscriber that have sequence numbers of their own, for each publisher; 0 if what a publisher
    /// publishes goes to all who hear it.
    pub fn lanes(&self) -> usize {
        if matches!(self.wiring, Wiring::Topics(_)) { self.subscribers as usize } else { 0 }
    }

    /// The clients of thread `index` of `count`. Pairs stay together; a few subscribers of many publishers sit on the last threads.
    pub fn share(&self, index: u32, count: u32) -> Share {
        let part = |total: u32, index: u32| {
            let at = |index: u32| (u64::from(total) * u64::from(index) / u64::from(count)) as u32;
            at(index)..at(index + 1)
        };
        Share {
            idle: part(self.idle, index),
            publishers: part(self.publishers, index),
            subscribers: part(self.subscribers, index),
        }
    }
}

/// The topic of a publisher.
pub fn topic(prefix: &str, publisher: u32) -> String {
    format!("{prefix}/{publisher}")
}

/// Whether `topic` is that of `publisher`. Allocates nothing.
pub fn is_topic(topic: &str, prefix: &str, publisher: u32) -> bool {
    let number = topic.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
    number.is_some_and(|number| {
        (number == "0" || !number.starts_with(['0', '+'])) && number.parse() == Ok(publisher)
    })
}

/// The clients of one thread, as ranges of their numbers in the run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// Of the idle ones.
    pub idle: Range<u32>,
    /// Of the publishers.
    pub publishers: Range<u32>,
    /// Of the subscribers.
    pub subscribers: Range<u32>,
}

impl Share {
    /// How many.
    pub fn clients(&self) -> u32 {
        let len = |range: &Range<u32>| range.end - range.start;
        len(&self.idle) + len(&self.publishers) + len(&self.subscribers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_client_once() {
        for (idle, publishers, subscribers) in
            [(15_000, 0, 0), (0, 50, 50), (0, 50, 1), (0, 1, 1000), (0, 3, 7)]
        {
            let topology =
                Topology { idle, idle_subscribe: false, publishers, subscribers, wiring: Wiring::Pairs };
            for count in 1..9 {
                let shares: Vec<Share> = (0..count).map(|index| topology.share(index, count)).collect();
                assert_eq!(
                    shares.iter().map(|share| u64::from(share.clients())).sum::<u64>(),
                    topology.clients()
                );
                for pair in shares.windows(2) {
                    assert_eq!(pair[0].idle.end, pair[1].idle.start);
                    assert_eq!(pair[0].publishers.end, pair[1].publishers.start);
                    assert_eq!(pair[0].subscribers.end, pair[1].subscribers.start);
                }
            }
        }
    }

    #[test]
    fn topics_are_known_again() {
        assert!(is_topic("a/b/7", "a/b", 7));
        assert!(is_topic(&topic("x", u32::MAX), "x", u32::MAX));
        for bad in ["a/b/8", "a/b/07", "a/b/+7", "a/b/", "a/b", "a/b7", "a/c/7", "a/b/7/", ""] {
            assert!(!is_topic(bad, "a/b", 7), "{bad}");
        }
    }
}
