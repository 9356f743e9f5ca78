//! The Will of a session: a message the broker publishes when the connection ends in any other way than the client's wish.

use crate::base::{Message, MessageHead, MessageRef, Now, VhostId, Wall};
use crate::codec;

/// A will as CONNECT left it.
#[derive(PartialEq, Eq, Debug)]
pub struct Will {
    message: Message,
    /// Will Delay Interval, in seconds.
    pub delay_secs: u32,
    expiry_secs: Option<u32>,
}

impl Will {
    /// Copies a CONNECT's will. [MQTT-3.1.2-7]
    #[must_use]
    pub fn new(vhost: VhostId, will: &codec::Will<'_>) -> Self {
        let mut scratch = Vec::new();
        let properties = will.properties.forward(&mut scratch);
        let head = MessageHead {
            vhost,
            qos: will.qos,
            retain: will.retain,
            expires_at: Wall::NEVER,
            publisher: None,
        };
        let message = MessageRef { head, topic: will.topic, properties, payload: will.payload };
        Self { message: Message::new(&message), delay_secs: will.delay, expiry_secs: will.expiry }
    }

    /// A will that was kept elsewhere.
    #[must_use]
    pub fn restored(message: Message, delay_secs: u32, expiry_secs: Option<u32>) -> Self {
        Self { message, delay_secs, expiry_secs }
    }

    /// The message as CONNECT left it.
    #[must_use]
    pub fn message(&self) -> MessageRef<'_> {
        self.message.as_ref()
    }

    /// Its Message Expiry Interval, in seconds.
    #[must_use]
    pub fn expiry_secs(&self) -> Option<u32> {
        self.expiry_secs
    }

    /// The message, published now: its expiry counts from here. [MQTT-3.1.3-11]
    #[must_use]
    pub fn publish(&self, now: Now) -> MessageRef<'_> {
        let mut message = self.message.as_ref();
        message.head.expires_at = self.expiry_secs.map_or(Wall::NEVER, |secs| now.wall.plus_secs(secs));
        message
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.message.memory()
    }
}
