//! What a client tells its application: borrowed for who wants speed, owned for who wants to keep it.

use crate::base::{PacketId, QoS, ReasonCode};
use crate::codec::{Auth, ConnAck, MessageProperties, SubAck, SubscriptionIds, UnsubAck};

/// Something that happened; borrowed from the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Incoming<'a> {
    /// The server accepted CONNECT.
    Connected(&'a ConnAck<'a>),
    /// The server refused CONNECT; the connection is over.
    Refused(&'a ConnAck<'a>),
    /// A message; a QoS 2 message comes once.
    Message(Message<'a>),
    /// The server sent PUBREC: it has the QoS 2 message.
    Received {
        /// The publish.
        packet_id: PacketId,
        /// Success or No matching subscribers.
        reason: ReasonCode,
    },
    /// A publish is done: PUBACK, PUBCOMP, or PUBREC with an error.
    Acknowledged {
        /// The publish.
        packet_id: PacketId,
        /// How it ended.
        reason: ReasonCode,
    },
    /// The server sent PUBREL: it will not send the QoS 2 message again.
    Released {
        /// The message's.
        packet_id: PacketId,
    },
    /// SUBACK.
    Subscribed(&'a SubAck<'a>),
    /// UNSUBACK.
    Unsubscribed(&'a UnsubAck<'a>),
    /// PINGRESP.
    Pong,
    /// AUTH.
    Auth(&'a Auth<'a>),
    /// The server sent DISCONNECT; the connection is over.
    Disconnected {
        /// Why.
        reason: ReasonCode,
    },
}

/// A received message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Topic name, aliases resolved.
    pub topic: &'a str,
    /// Application message.
    pub payload: &'a [u8],
    /// QoS of this delivery.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// DUP flag.
    pub dup: bool,
    /// Present if QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// Message Expiry Interval, in seconds.
    pub expiry: Option<u32>,
    /// Which subscriptions matched, if they have identifiers.
    pub subscription_ids: SubscriptionIds<'a>,
    /// The properties that travel with the message.
    pub properties: MessageProperties<'a>,
}

/// Something that happened; see [`Incoming`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The server accepted CONNECT.
    Connected {
        /// Whether it had the session.
        session_present: bool,
    },
    /// The server refused CONNECT; the connection is over.
    Refused {
        /// Why.
        reason: ReasonCode,
    },
    /// A message.
    Message(OwnedMessage),
    /// PUBREC.
    Received {
        /// The publish.
        packet_id: PacketId,
        /// Success or No matching subscribers.
        reason: ReasonCode,
    },
    /// A publish is done.
    Acknowledged {
        /// The publish.
        packet_id: PacketId,
        /// How it ended.
        reason: ReasonCode,
    },
    /// PUBREL.
    Released {
        /// The message's.
        packet_id: PacketId,
    },
    /// SUBACK.
    Subscribed {
        /// The request.
        packet_id: PacketId,
        /// One for each filter.
        codes: Vec<ReasonCode>,
    },
    /// UNSUBACK.
    Unsubscribed {
        /// The request.
        packet_id: PacketId,
        /// One for each filter; none before MQTT 5.
        codes: Vec<ReasonCode>,
    },
    /// PINGRESP.
    Pong,
    /// AUTH.
    Auth {
        /// Success, Continue authentication.
        reason: ReasonCode,
        /// Authentication Data.
        data: Vec<u8>,
    },
    /// The server sent DISCONNECT; the connection is over.
    Disconnected {
        /// Why.
        reason: ReasonCode,
    },
}

/// A [`Message`] that owns its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnedMessage {
    /// Topic name.
    pub topic: Box<str>,
    /// Application message.
    pub payload: Box<[u8]>,
    /// QoS of this delivery.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// DUP flag.
    pub dup: bool,
    /// Present if QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// Message Expiry Interval, in seconds.
    pub expiry: Option<u32>,
    /// Which subscriptions matched, if they have identifiers.
    pub subscription_ids: Box<[u32]>,
    /// The properties that travel with the message, encoded.
    pub properties: Box<[u8]>,
}

impl Message<'_> {
    /// Copies the bytes.
    #[must_use]
    pub fn to_owned(&self) -> OwnedMessage {
        let mut scratch = Vec::new();
        OwnedMessage {
            topic: self.topic.into(),
            payload: self.payload.into(),
            qos: self.qos,
            retain: self.retain,
            dup: self.dup,
            packet_id: self.packet_id,
            expiry: self.expiry,
            subscription_ids: self.subscription_ids.iter().map(std::num::NonZeroU32::get).collect(),
            properties: self.properties.forward(&mut scratch).into(),
        }
    }
}

impl Incoming<'_> {
    /// Copies what it borrows.
    #[must_use]
    pub fn to_event(&self) -> Event {
        match *self {
            Self::Connected(connack) => Event::Connected { session_present: connack.session_present },
            Self::Refused(connack) => Event::Refused { reason: connack.reason },
            Self::Message(message) => Event::Message(message.to_owned()),
            Self::Received { packet_id, reason } => Event::Received { packet_id, reason },
            Self::Acknowledged { packet_id, reason } => Event::Acknowledged { packet_id, reason },
            Self::Released { packet_id } => Event::Released { packet_id },
            Self::Subscribed(suback) => {
                Event::Subscribed { packet_id: suback.packet_id, codes: suback.codes().collect() }
            }
            Self::Unsubscribed(unsuback) => {
                Event::Unsubscribed { packet_id: unsuback.packet_id, codes: unsuback.codes().collect() }
            }
            Self::Pong => Event::Pong,
            Self::Auth(auth) => {
                Event::Auth { reason: auth.reason, data: auth.data.unwrap_or_default().to_vec() }
            }
            Self::Disconnected { reason } => Event::Disconnected { reason },
        }
    }
}
