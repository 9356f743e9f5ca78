//! `topics`: many filters, some of them with wildcards, and every message to a random topic, which one filter matches.
//!
//! Topic `t` is `PREFIX/g/t/v` with `g = t % 64`. Its one filter is the topic itself, or for some percent of them `PREFIX/+/t/v`,
//! `PREFIX/g/t/+` or `PREFIX/g/t/#`; so each message goes to exactly one subscriber, and on its way the broker looks at every kind.
//! Subscribers share the topics in contiguous ranges. Which topic a message goes to follows from its publisher, its subscriber and its
//! number among the messages between these two, so a subscriber can tell whether it came under the right one.
//!
//! Only QoS 0: it is the matching that is measured.

use super::{Topology, Wiring};
use crate::args::Common;
use anyhow::{Result, ensure};
use std::fmt::Write;
use std::ops::Range;

/// Values of the second level.
const GROUPS: u32 = 64;

/// Lanes (pairs of a publisher and a subscriber) that are followed at most: 64 bytes each.
const LANES_MAX: u64 = 1 << 22;

/// Arguments of `topics`.
#[derive(clap::Args, Clone, Debug)]
pub struct TopicsArgs {
    /// Subscriptions of all subscribers together.
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub filters: u32,
    /// Of these, how many have a wildcard, in percent.
    #[arg(long, default_value_t = 5, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub wildcards: u32,
    /// Of the clients, how many subscribe; the rest publishes [default: half]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub subscribers: Option<u32>,
    #[command(flatten)]
    pub common: Common,
}

impl TopicsArgs {
    /// Some subscribe, the rest publishes.
    ///
    /// # Errors
    /// If somebody stays alone, has no filter, or the QoS is not 0.
    pub fn topology(&self) -> Result<Topology> {
        let clients = self.common.clients;
        let subscribers = self.subscribers.unwrap_or(clients / 2);
        ensure!(
            subscribers >= 1 && clients > subscribers,
            "there must be subscribers and publishers: --clients {clients} - --subscribers {subscribers}"
        );
        let publishers = clients - subscribers;
        ensure!(
            self.filters >= subscribers,
            "{subscribers} subscribers need a filter each: --filters {}",
            self.filters
        );
        ensure!(self.common.qos == 0, "--qos {}: this scenario is for QoS 0", self.common.qos);
        ensure!(
            u64::from(publishers) * u64::from(subscribers) <= LANES_MAX,
            "{publishers} publishers x {subscribers} subscribers: at most {LANES_MAX} pairs of them are followed"
        );
        let topics = Topics { count: self.filters, wildcards: self.wildcards, subscribers };
        Ok(Topology {
            idle: 0,
            idle_subscribe: false,
            publishers,
            subscribers,
            wiring: Wiring::Topics(topics),
        })
    }
}

/// All topics of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topics {
    /// Topics, and filters.
    pub count: u32,
    /// Percent of the filters that have a wildcard.
    pub wildcards: u32,
    /// Who share them.
    pub subscribers: u32,
}

impl Topics {
    /// The topics of a subscriber.
    pub fn of(&self, subscriber: u32) -> Range<u32> {
        let at = |index: u32| (u64::from(self.count) * u64::from(index) / u64::from(self.subscribers)) as u32;
        at(subscriber)..at(subscriber + 1)
    }

    /// The subscriber of message `number` of a publisher.
    pub fn subscriber(&self, publisher: u32, number: u64) -> u32 {
        (mix(u64::from(publisher) << 40 ^ number) % u64::from(self.subscribers)) as u32
    }

    /// The topic of message `sequence` between a publisher and a subscriber.
    pub fn pick(&self, publisher: u32, subscriber: u32, sequence: u64) -> u32 {
        let Range { start, end } = self.of(subscriber);
        let pair = u64::from(publisher) << 32 | u64::from(subscriber);
        start + (mix(mix(pair) ^ sequence) % u64::from(end - start)) as u32
    }

    /// Writes the name of a topic over what is in `out`.
    pub fn write(&self, prefix: &str, topic: u32, out: &mut String) {
        out.clear();
        let _ = write!(out, "{prefix}/{}/{topic}/v", topic % GROUPS);
    }

    /// Whether `name` is that of `topic`. Allocates nothing.
    pub fn is(&self, name: &str, prefix: &str, topic: u32) -> bool {
        let number = |text: &str| text.parse::<u32>().ok();
        let levels = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
        let Some((group, rest)) = levels.and_then(|levels| levels.split_once('/')) else { return false };
        let Some((own, last)) = rest.split_once('/') else { return false };
        number(group) == Some(topic % GROUPS) && number(own) == Some(topic) && last == "v"
    }

    /// The filter that matches `topic`, and no other one.
    pub fn filter(&self, prefix: &str, topic: u32) -> String {
        let group = topic % GROUPS;
        match topic % 3 {
            _ if topic % 100 >= self.wildcards => format!("{prefix}/{group}/{topic}/v"),
            0 => format!("{prefix}/+/{topic}/v"),
            1 => format!("{prefix}/{group}/{topic}/+"),
            _ => format!("{prefix}/{group}/{topic}/#"),
        }
    }
}

/// Spreads numbers evenly: neighbours come to lie anywhere.
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPICS: Topics = Topics { count: 1000, wildcards: 5, subscribers: 7 };

    #[test]
    fn every_topic_has_one_subscriber_and_one_filter() {
        let mut next = 0;
        for subscriber in 0..TOPICS.subscribers {
            let range = TOPICS.of(subscriber);
            assert_eq!(range.start, next);
            next = range.end;
        }
        assert_eq!(next, TOPICS.count);
        let filters: Vec<String> = (0..TOPICS.count).map(|topic| TOPICS.filter("a/b", topic)).collect();
        assert_eq!(filters.iter().filter(|filter| filter.contains(['+', '#'])).count(), 50);
        let mut name = String::new();
        for topic in 0..200 {
            TOPICS.write("a/b", topic, &mut name);
            let matching: Vec<usize> =
                (0..filters.len()).filter(|&at| is_match(&filters[at], &name)).collect();
            assert_eq!(matching, [topic as usize], "{name}");
        }
    }

    /// As the specification says, level by level.
    fn is_match(filter: &str, topic: &str) -> bool {
        let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
        loop {
            match (filter.next(), topic.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some(wanted), Some(level)) if wanted == "+" || wanted == level => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn picks_are_random_and_known_again() {
        let mut seen = std::collections::BTreeSet::new();
        let mut name = String::new();
        for number in 0..20_000 {
            let subscriber = TOPICS.subscriber(3, number);
            let topic = TOPICS.pick(3, subscriber, number);
            assert!(TOPICS.of(subscriber).contains(&topic));
            TOPICS.write("x", topic, &mut name);
            assert!(TOPICS.is(&name, "x", topic));
            assert!(!TOPICS.is(&name, "x", topic + 64) && !TOPICS.is(&name, "y", topic));
            seen.insert(topic);
        }
        assert_eq!(seen.len(), 1000, "all topics get some");
    }
}
