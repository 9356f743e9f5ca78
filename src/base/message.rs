//! Neutral messages: what MQTT and AMQP front ends both speak.
//!
//! [`MessageRef`] borrows from the receive buffer and costs nothing; [`Message`] owns its bytes and is what queues and the
//! retained store hold, shared by `Arc` (also between cores: the one reviewed exception to "shards share nothing", sound
//! because a message never changes after it was built).

use super::ids::{SessionId, VhostId};
use super::qos::QoS;
use super::time::Wall;
use std::sync::Arc;

/// What is known of a message besides its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageHead {
    /// The virtual host it was published in.
    pub vhost: VhostId,
    /// The publisher's QoS.
    pub qos: QoS,
    /// The RETAIN flag as published.
    pub retain: bool,
    /// When the message expires; [`Wall::NEVER`] if it does not.
    pub expires_at: Wall,
    /// Who published it; `None` if the broker did (a will) or another protocol.
    pub publisher: Option<Publisher>,
}

/// The session a message came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publisher {
    /// For No Local.
    pub session: SessionId,
    /// Keyed hash of the client identifier, for shared subscriptions that go by it.
    pub client_hash: u32,
}

/// A message whose bytes are somebody else's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageRef<'a> {
    /// Everything but the bytes.
    pub head: MessageHead,
    /// Topic name.
    pub topic: &'a str,
    /// The properties that travel with the message, encoded as in MQTT 5 PUBLISH, without Topic Alias, Message Expiry
    /// Interval and Subscription Identifier, and without the length in front. Order is kept.
    pub properties: &'a [u8],
    /// Application message.
    pub payload: &'a [u8],
}

/// A message with its own bytes, immutable.
#[derive(PartialEq, Eq, Debug)]
pub struct Message {
    head: MessageHead,
    topic_size: u32,
    properties_size: u32,
    /// Topic, properties, payload.
    bytes: Box<[u8]>,
}

impl MessageRef<'_> {
    /// Copies the bytes into a message of its own.
    #[must_use]
    pub fn to_shared(&self) -> Arc<Message> {
        Arc::new(Message::new(self))
    }

    /// Whether the message has expired at `wall`.
    #[must_use]
    pub fn is_expired(&self, wall: Wall) -> bool {
        self.head.expires_at <= wall
    }

    /// Topic, properties and payload together, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }
}

impl Message {
    /// Copies a borrowed message.
    ///
    /// # Panics
    /// If topic or properties are 4 GiB or larger; the packet size limit is far below.
    #[must_use]
    pub fn new(message: &MessageRef<'_>) -> Self {
        let mut bytes = Vec::with_capacity(message.size());
        bytes.extend_from_slice(message.topic.as_bytes());
        bytes.extend_from_slice(message.properties);
        bytes.extend_from_slice(message.payload);
        Self {
            head: message.head,
            topic_size: u32::try_from(message.topic.len()).expect("a topic is at most 65535 bytes"),
            properties_size: u32::try_from(message.properties.len()).expect("a packet is at most 256 MiB"),
            bytes: bytes.into_boxed_slice(),
        }
    }

    /// The message, borrowed.
    ///
    /// # Panics
    /// Never: the topic was a string when it came in, and nothing changes it.
    #[must_use]
    pub fn as_ref(&self) -> MessageRef<'_> {
        let (topic, rest) = self.bytes.split_at(self.topic_size as usize);
        let (properties, payload) = rest.split_at(self.properties_size as usize);
        let topic = std::str::from_utf8(topic).expect("was a string when it was copied in");
        MessageRef { head: self.head, topic, properties, payload }
    }

    /// Everything but the bytes.
    #[must_use]
    pub fn head(&self) -> &MessageHead {
        &self.head
    }

    /// Topic name: what [`as_ref`](Self::as_ref) gives, without checking again that it is a string.
    #[must_use]
    pub fn topic_bytes(&self) -> &[u8] {
        &self.bytes[..self.topic_size as usize]
    }

    /// Topic, properties and payload together, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Application message.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.topic_size as usize + self.properties_size as usize..]
    }

    /// The last bytes of topic, properties and payload: so many, but no more than there are.
    #[must_use]
    pub fn tail(&self, size: usize) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(size)..]
    }

    /// What the message costs in memory, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bytes.len() + size_of::<Self>() + 2 * size_of::<usize>()
    }
}
