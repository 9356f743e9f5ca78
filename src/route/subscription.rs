//! Who subscribes to a filter, and how: subscriptions of 8 bytes, and the list of one filter's subscriptions.
//!
//! A list of up to [`SCAN_MAX`] is searched; a longer one has a table of positions, so that subscribing and unsubscribing
//! stay O(1) with 100,000 subscribers. Order means nothing: removal swaps the last one in.

use super::table::{self, Entry, Table};
use crate::base::QoS;

/// Longest list that is searched one by one: 256 bytes, four cache lines.
const SCAN_MAX: usize = 32;
const SUBSCRIBER_BITS: u32 = 30;
const NO_LOCAL: u32 = 1 << 30;
const RETAIN_AS_PUBLISHED: u32 = 1 << 31;
const IDENTIFIER_BITS: u32 = 28;
const QOS_SHIFT: u32 = 28;
const DURABLE: u32 = 1 << 30;

/// Who gets the messages; below 2^30. Opaque: the shard gives it meaning (a session's slot, or a shared group's).
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct Subscriber(pub u32);

/// How a subscriber wants a filter's messages.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct SubscriptionOptions {
    /// The highest QoS it is sent.
    pub qos: QoS,
    /// Not its own messages.
    pub no_local: bool,
    /// The RETAIN flag as published.
    pub retain_as_published: bool,
    /// The Subscription Identifier, 1 to 268,435,455; 0 if there is none.
    pub subscription_id: u32,
    /// Whether acknowledgements to publishers wait until this subscriber's copy is on disk.
    pub durable: bool,
}

/// One subscriber on one filter.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Subscription {
    /// Subscriber, No Local, Retain As Published.
    subscriber: u32,
    /// Subscription Identifier, QoS, durable.
    options: u32,
}

impl Subscription {
    /// # Panics
    /// If the subscriber or the identifier is out of range.
    pub(super) fn new(subscriber: Subscriber, options: SubscriptionOptions) -> Self {
        assert!(subscriber.0 >> SUBSCRIBER_BITS == 0, "subscribers are below 2^30");
        assert!(options.subscription_id >> IDENTIFIER_BITS == 0, "identifiers are at most 268,435,455");
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        Self {
            subscriber: subscriber.0
                | flag(options.no_local, NO_LOCAL)
                | flag(options.retain_as_published, RETAIN_AS_PUBLISHED),
            options: options.subscription_id
                | u32::from(options.qos.bits()) << QOS_SHIFT
                | flag(options.durable, DURABLE),
        }
    }

    /// Who.
    #[must_use]
    pub fn subscriber(self) -> Subscriber {
        Subscriber(self.subscriber & !(NO_LOCAL | RETAIN_AS_PUBLISHED))
    }

    /// How.
    ///
    /// # Panics
    /// Never: the QoS was one when it was put in.
    #[must_use]
    pub fn options(self) -> SubscriptionOptions {
        let qos = self.options.to_be_bytes()[0] >> (QOS_SHIFT - 24) & 3;
        SubscriptionOptions {
            qos: QoS::from_bits(qos).expect("was a QoS"),
            no_local: self.subscriber & NO_LOCAL != 0,
            retain_as_published: self.subscriber & RETAIN_AS_PUBLISHED != 0,
            subscription_id: self.options & ((1 << IDENTIFIER_BITS) - 1),
            durable: self.is_durable(),
        }
    }

    /// Whether acknowledgements to publishers wait for this subscriber's copy.
    #[must_use]
    pub fn is_durable(self) -> bool {
        self.options & DURABLE != 0
    }
}

/// Two and more subscriptions of one filter.
#[derive(Debug)]
pub(super) struct List {
    entries: Vec<Subscription>,
    positions: Option<Box<Table<Position>>>,
    durable_count: u32,
}

impl List {
    pub(super) fn new(first: Subscription) -> Self {
        Self { entries: vec![first], positions: None, durable_count: first.is_durable().into() }
    }

    pub(super) fn as_slice(&self) -> &[Subscription] {
        &self.entries
    }

    pub(super) fn durable_count(&self) -> u32 {
        self.durable_count
    }

    pub(super) fn get(&self, subscriber: Subscriber) -> Option<Subscription> {
        self.position(subscriber).map(|position| self.entries[position])
    }

    /// Puts a subscription in, in place of the subscriber's old one, which is returned.
    pub(super) fn insert(&mut self, subscription: Subscription) -> Option<Subscription> {
        self.durable_count += u32::from(subscription.is_durable());
        if let Some(position) = self.position(subscription.subscriber()) {
            let old = std::mem::replace(&mut self.entries[position], subscription);
            self.durable_count -= u32::from(old.is_durable());
            return Some(old);
        }
        if self.entries.len() == self.entries.capacity() {
            // By an eighth: a filter of a million subscribers must not hold room for two.
            self.entries.reserve_exact((self.entries.len() / 8).max(4));
        }
        self.entries.push(subscription);
        if self.positions.is_some() {
            self.index(self.entries.len() - 1);
        } else if self.entries.len() > SCAN_MAX {
            self.positions = Some(Box::new(Table::single()));
            (0..self.entries.len()).for_each(|position| self.index(position));
        }
        None
    }

    pub(super) fn remove(&mut self, subscriber: Subscriber) -> Option<Subscription> {
        let position = self.position(subscriber)?;
        let removed = self.entries.swap_remove(position);
        self.durable_count -= u32::from(removed.is_durable());
        if let Some(positions) = &mut self.positions {
            let hash = table::mix(subscriber.0.into());
            positions
                .remove(hash, |entry| entry.subscriber == subscriber.0)
                .expect("every subscriber has a position");
            if let Some(moved) = self.entries.get(position) {
                let moved = moved.subscriber().0;
                let entry = positions.find_mut(table::mix(moved.into()), |entry| entry.subscriber == moved);
                entry.expect("every subscriber has a position").position = position_of(position);
            }
        }
        if self.entries.len() < SCAN_MAX / 2 {
            self.positions = None;
        }
        if self.entries.len() < self.entries.capacity() / 2 {
            self.entries.shrink_to(self.entries.len() + self.entries.len() / 4);
        }
        Some(removed)
    }

    /// Bytes owned, without the list itself.
    pub(super) fn memory(&self) -> usize {
        let positions =
            self.positions.as_ref().map_or(0, |positions| positions.memory() + size_of::<Table<Position>>());
        self.entries.capacity() * size_of::<Subscription>() + positions
    }

    fn position(&self, subscriber: Subscriber) -> Option<usize> {
        let Some(positions) = &self.positions else {
            return self.entries.iter().position(|entry| entry.subscriber() == subscriber);
        };
        let hash = table::mix(subscriber.0.into());
        positions.find(hash, |entry| entry.subscriber == subscriber.0).map(|entry| entry.position as usize)
    }

    fn index(&mut self, position: usize) {
        let subscriber = self.entries[position].subscriber().0;
        let entry = Position { subscriber, position: position_of(position) };
        self.positions.as_mut().expect("called for long lists").insert(table::mix(subscriber.into()), entry);
    }
}

/// Where a subscriber stands in a long list.
#[derive(Clone, Copy)]
struct Position {
    subscriber: u32,
    position: u32,
}

impl Entry for Position {
    const VACANT: Self = Self { subscriber: 0, position: u32::MAX };

    fn is_vacant(&self) -> bool {
        self.position == u32::MAX
    }

    fn fragment(&self) -> u32 {
        table::fragment(table::mix(self.subscriber.into()))
    }
}

fn position_of(position: usize) -> u32 {
    u32::try_from(position).expect("subscribers are below 2^30")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_keeps_everything_in_8_bytes() {
        assert_eq!(size_of::<Subscription>(), 8);
        for bits in 0..24u8 {
            let options = SubscriptionOptions {
                qos: QoS::from_bits(bits / 8).unwrap(),
                no_local: bits & 1 != 0,
                retain_as_published: bits & 2 != 0,
                subscription_id: if bits % 2 == 0 { 268_435_455 } else { 0 },
                durable: bits & 4 != 0,
            };
            for subscriber in [0, 1, (1 << 30) - 1] {
                let subscription = Subscription::new(Subscriber(subscriber), options);
                assert_eq!(
                    (subscription.subscriber(), subscription.options()),
                    (Subscriber(subscriber), options)
                );
            }
        }
    }

    #[test]
    fn a_list_finds_everyone_at_every_length() {
        let durable =
            |n: u32| SubscriptionOptions { durable: n.is_multiple_of(3), ..SubscriptionOptions::default() };
        let subscription = |n: u32| Subscription::new(Subscriber(n), durable(n));
        let mut list = List::new(subscription(0));
        for n in 1..200 {
            assert_eq!(list.insert(subscription(n)), None);
            assert_eq!(list.insert(subscription(n)), Some(subscription(n)));
            for known in 0..200 {
                assert_eq!(list.get(Subscriber(known)).is_some(), known <= n);
            }
        }
        assert_eq!(list.durable_count(), 67);
        for n in 0..200 {
            let n = n * 77 % 200;
            assert_eq!(list.remove(Subscriber(n)), Some(subscription(n)));
            assert_eq!(list.remove(Subscriber(n)), None);
            for entry in list.as_slice() {
                assert_eq!(list.get(entry.subscriber()), Some(*entry));
            }
        }
        assert_eq!((list.as_slice().len(), list.durable_count()), (0, 0));
    }
}
