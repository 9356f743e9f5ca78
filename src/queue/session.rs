//! The `session` queue type: messages that wait until their session's window has room.
//!
//! Bounded by the operator's limits; where none is set, by the process's memory watermark, at which publishers are paused.
//! Push and pop are O(1). Expired messages leave when they reach the head, or when room is needed.

use super::options::{Options, Overflow};
use crate::base::{Message, QoS, SessionId, ShardId, Wall};
use std::collections::VecDeque;
use std::sync::Arc;

/// The subscription identifiers a delivery carries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Identifiers {
    /// None.
    #[default]
    None,
    /// One.
    One(u32),
    /// Several filters of the session matched.
    Many(Box<[u32]>),
}

impl Identifiers {
    /// As a slice.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    /// From a slice.
    #[must_use]
    pub fn from_slice(ids: &[u32]) -> Self {
        match ids {
            [] => Self::None,
            [id] => Self::One(*id),
            ids => Self::Many(ids.into()),
        }
    }
}

/// The shared subscription a delivery came through, to be told when it is settled, or given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupRef {
    /// The group's home.
    pub shard: ShardId,
    /// Its slot there; one that does not exist if it is not known any more.
    pub slot: u32,
    /// The group's hash: tells whether the slot is still the same group's.
    pub hash: u64,
    /// The member it was given to.
    pub member: SessionId,
}

/// A message on its way to one session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The message.
    pub message: Arc<Message>,
    /// The QoS it is delivered with.
    pub qos: QoS,
    /// The RETAIN flag it is delivered with.
    pub retain: bool,
    /// Subscription identifiers.
    pub identifiers: Identifiers,
    /// The shared subscription it came through.
    pub group: Option<GroupRef>,
    /// Its number in the durable log; 0 if it is only in memory.
    pub number: u64,
}

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits.
    Queued,
    /// It waits; these were dropped from the head to make room.
    Dropped(Vec<Item>),
    /// It was refused.
    Refused,
}

/// One session's waiting messages.
#[derive(Default, Debug)]
pub struct SessionQueue {
    items: VecDeque<Item>,
    bytes: u64,
    qos0_len: u32,
}

impl SessionQueue {
    /// Puts an item at the end, within the bounds of `options`. A message larger than the bound in bytes is refused by either
    /// policy.
    pub fn push(&mut self, item: Item, options: &Options) -> Pushed {
        let size = size_of_item(&item);
        let fits = |len: usize, bytes: u64| {
            options.session_messages_max.is_none_or(|max| (len as u64) < u64::from(max))
                && options.session_bytes_max.is_none_or(|max| bytes + size <= max)
        };
        if fits(self.items.len(), self.bytes) {
            self.put(item, size);
            return Pushed::Queued;
        }
        if options.overflow == Overflow::RejectPublish || !fits(0, 0) {
            return Pushed::Refused;
        }
        let mut dropped = Vec::new();
        while !fits(self.items.len(), self.bytes) {
            dropped.extend(self.pop());
        }
        self.put(item, size);
        Pushed::Dropped(dropped)
    }

    /// The next item, expired or not.
    pub fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= size_of_item(&item);
        self.qos0_len -= u32::from(item.qos == QoS::AtMostOnce);
        if self.items.is_empty() && self.items.capacity() > 64 {
            self.items = VecDeque::new();
        }
        Some(item)
    }

    /// Takes out what expired at the head.
    pub fn drop_expired(&mut self, wall: Wall) -> Vec<Item> {
        let mut expired = Vec::new();
        while self.items.front().is_some_and(|item| item.message.head().expires_at <= wall) {
            expired.extend(self.pop());
        }
        expired
    }

    /// The next item.
    #[must_use]
    pub fn front(&self) -> Option<&Item> {
        self.items.front()
    }

    /// Puts an item at the end that is kept elsewhere within its bounds.
    pub fn push_kept(&mut self, item: Item) {
        let size = size_of_item(&item);
        self.put(item, size);
    }

    /// Takes out everything that is kept elsewhere; gives the number of the first.
    pub fn drop_kept(&mut self) -> Option<u64> {
        let first = self.items.iter().map(|item| item.number).find(|number| *number != 0)?;
        let kept = std::mem::take(self);
        for item in kept.items.into_iter().filter(|item| item.number == 0) {
            self.push_kept(item);
        }
        Some(first)
    }

    /// Whether QoS 0 messages wait: what comes after them has to wait too.
    #[must_use]
    pub fn has_qos0(&self) -> bool {
        self.qos0_len > 0
    }

    /// Messages that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Topics, properties and payloads of what waits, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All items, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Item> {
        self.items.iter()
    }

    fn put(&mut self, item: Item, size: u64) {
        self.bytes += size;
        self.qos0_len += u32::from(item.qos == QoS::AtMostOnce);
        self.items.push_back(item);
    }
}

fn size_of_item(item: &Item) -> u64 {
    item.message.as_ref().as_ref().size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{MessageHead, MessageRef, VhostId};

    fn item(payload: &str, expires_at: Wall) -> Item {
        let head = MessageHead {
            vhost: VhostId(0),
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at,
            publisher: None,
        };
        let message =
            MessageRef { head, topic: "t", properties: &[], payload: payload.as_bytes() }.to_shared();
        Item {
            message,
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: Identifiers::None,
            group: None,
            number: 0,
        }
    }

    fn payloads(queue: &SessionQueue) -> Vec<String> {
        queue.iter().map(|i| String::from_utf8(i.message.payload().to_vec()).unwrap()).collect()
    }

    #[test]
    fn drop_head_makes_room_at_the_bound_and_not_before() {
        let options = Options { session_messages_max: Some(2), ..Options::default() };
        let mut queue = SessionQueue::default();
        assert_eq!(queue.push(item("a", Wall::NEVER), &options), Pushed::Queued);
        assert_eq!(queue.push(item("b", Wall::NEVER), &options), Pushed::Queued);
        assert!(matches!(queue.push(item("c", Wall::NEVER), &options), Pushed::Dropped(d) if d.len() == 1));
        assert_eq!(payloads(&queue), ["b", "c"]);
    }

    #[test]
    fn reject_publish_keeps_what_waits() {
        let options =
            Options { session_bytes_max: Some(4), overflow: Overflow::RejectPublish, ..Options::default() };
        let mut queue = SessionQueue::default();
        assert_eq!(queue.push(item("abc", Wall::NEVER), &options), Pushed::Queued);
        assert_eq!(queue.push(item("d", Wall::NEVER), &options), Pushed::Refused);
        assert_eq!((payloads(&queue), queue.bytes()), (vec!["abc".to_string()], 4));
    }

    #[test]
    fn a_message_that_can_never_fit_drops_nobody() {
        let options = Options { session_bytes_max: Some(4), ..Options::default() };
        let mut queue = SessionQueue::default();
        queue.push(item("a", Wall::NEVER), &options);
        assert_eq!(queue.push(item("abcdef", Wall::NEVER), &options), Pushed::Refused);
        assert_eq!(payloads(&queue), ["a"]);
    }

    #[test]
    fn expired_messages_leave_from_the_head() {
        let mut queue = SessionQueue::default();
        queue.push(item("a", Wall(10)), &Options::default());
        queue.push(item("b", Wall::NEVER), &Options::default());
        assert!(queue.drop_expired(Wall(9)).is_empty());
        assert_eq!(queue.drop_expired(Wall(10)).len(), 1);
        assert_eq!((payloads(&queue), queue.bytes()), (vec!["b".to_string()], 2));
    }
}
