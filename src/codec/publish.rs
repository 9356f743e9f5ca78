//! PUBLISH (section 3.3): the hot path. Decoding borrows everything; encoding is one reservation and a few copies.
//!
//! Decoding gives a [`Publish`]; what is encoded is a [`Delivery`], because what a subscriber gets differs from what was
//! published in everything but topic, payload and the forwarded properties.

use super::properties::{ForwardSpan, MessageProperties, SubscriptionIds, Walk};
use super::property::Property;
use super::reader::Reader;
use super::{Malformed, RawPacket, Sender, writer};
use crate::base::{PacketId, QoS, Version};
use std::num::NonZeroU16;

const FIRST_BYTE: u8 = 0x30;
const DUP: u8 = 0x08;
const RETAIN: u8 = 0x01;

/// A PUBLISH as it came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publish<'a> {
    /// Whether it may have been sent before.
    pub dup: bool,
    /// The message's QoS.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// Topic name; empty if `topic_alias` stands for it.
    pub topic: &'a str,
    /// Present if QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// Topic Alias. Whether it is within the announced maximum is the session's to check.
    pub topic_alias: Option<NonZeroU16>,
    /// Message Expiry Interval, in seconds.
    pub expiry: Option<u32>,
    /// From a server: the identifiers of the subscriptions that matched.
    pub subscription_ids: SubscriptionIds<'a>,
    /// What travels with the message.
    pub properties: MessageProperties<'a>,
    /// Application message.
    pub payload: &'a [u8],
}

#[inline]
pub(super) fn decode<'a>(
    raw: &RawPacket<'a>,
    version: Version,
    sender: Sender,
) -> Result<Publish<'a>, Malformed> {
    // [MQTT-3.3.1-4]
    let qos = QoS::from_bits(raw.first_byte >> 1 & 0b11).ok_or(Malformed::QosInvalid)?;
    let dup = raw.first_byte & DUP != 0;
    if dup && qos == QoS::AtMostOnce {
        // [MQTT-3.3.1-2]
        return Err(Malformed::DupWithQos0);
    }
    let mut reader = Reader::new(raw.body);
    // [MQTT-3.3.2-1]
    let topic = reader.string_maybe_null()?;
    // [MQTT-2.2.1-2]
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_id()?) };
    let mut publish = Publish {
        dup,
        qos,
        retain: raw.first_byte & RETAIN != 0,
        topic,
        packet_id,
        topic_alias: None,
        expiry: None,
        subscription_ids: SubscriptionIds::EMPTY,
        properties: MessageProperties::EMPTY,
        payload: &[],
    };
    if version.is_v5() {
        decode_properties(&mut reader, sender, &mut publish)?;
    }
    check_topic(&publish)?;
    publish.payload = reader.rest();
    Ok(publish)
}

#[inline]
fn decode_properties<'a>(
    reader: &mut Reader<'a>,
    sender: Sender,
    publish: &mut Publish<'a>,
) -> Result<(), Malformed> {
    let mut walk = Walk::new(reader)?;
    if walk.block().is_empty() {
        return Ok(());
    }
    let mut span = ForwardSpan::default();
    let mut start = 0;
    while let Some(property) = walk.next()? {
        let end = walk.offset();
        match property {
            Property::TopicAlias(alias) => publish.topic_alias = Some(alias),
            Property::MessageExpiryInterval(secs) => publish.expiry = Some(secs),
            Property::SubscriptionIdentifier(_) => {
                if sender == Sender::Client {
                    // [MQTT-3.3.4-6]
                    return Err(Malformed::SubscriptionIdFromClient);
                }
                publish.subscription_ids = SubscriptionIds::new(walk.block());
            }
            property if property.is_forwarded() => span.add(start, end),
            _ => return Err(Malformed::PropertyNotAllowed),
        }
        start = end;
    }
    publish.properties = span.finish(walk.block());
    Ok(())
}

#[inline]
fn check_topic(publish: &Publish<'_>) -> Result<(), Malformed> {
    if publish.topic.is_empty() {
        // [MQTT-4.7.3-1]
        return if publish.topic_alias.is_some() { Ok(()) } else { Err(Malformed::TopicNameMissing) };
    }
    // No early exit: the loop is vectorised, and almost every topic is fine.
    let bad =
        publish.topic.bytes().fold(false, |bad, byte| bad | (byte == 0) | (byte == b'+') | (byte == b'#'));
    if !bad {
        return Ok(());
    }
    if publish.topic.contains('\0') {
        // [MQTT-1.5.4-2]
        return Err(Malformed::NullCharacter);
    }
    // [MQTT-3.3.2-2]
    Err(Malformed::TopicNameInvalid)
}

/// A PUBLISH to be sent.
///
/// The caller answers for its parts: a topic that is a topic name (or empty, with an alias), a packet id exactly if QoS is
/// above 0, well-formed properties, and a size within the receiver's limit. Before MQTT 5, `topic_alias`, `expiry`,
/// `subscription_ids` and `properties` are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery<'a> {
    /// Whether it may have been sent before.
    pub dup: bool,
    /// QoS of this delivery.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// Topic name; may be empty if there is an alias.
    pub topic: &'a str,
    /// Topic Alias.
    pub topic_alias: Option<NonZeroU16>,
    /// Present if QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// Message Expiry Interval, in seconds.
    pub expiry: Option<u32>,
    /// Identifiers of the matching subscriptions, 1 to 268,435,455.
    pub subscription_ids: &'a [u32],
    /// Properties that travel with the message, encoded, without a length in front.
    pub properties: &'a [u8],
    /// Application message.
    pub payload: &'a [u8],
}

#[allow(clippy::arithmetic_side_effects, reason = "sizes of what is in memory")]
impl Delivery<'_> {
    /// The whole packet, in bytes.
    #[must_use]
    pub fn size(&self, version: Version) -> usize {
        let remaining = self.remaining(version, self.properties_size(version));
        let remaining_u32 = u32::try_from(remaining).unwrap_or(u32::MAX);
        1 + writer::variable_byte_integer_size(remaining_u32) + remaining
    }

    /// Appends the packet.
    ///
    /// # Panics
    /// If the topic is over 65,535 bytes, the packet over 256 MiB, or the packet id does not go with the QoS.
    #[inline]
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        self.encode_with_room(version, self.tail_size(version), out);
        if version.is_v5() {
            out.extend_from_slice(self.properties);
        }
        out.extend_from_slice(self.payload);
    }

    /// Appends the packet without its tail, which the lengths include.
    ///
    /// # Panics
    /// As [`encode`](Self::encode).
    #[inline]
    pub fn encode_head(&self, version: Version, out: &mut Vec<u8>) {
        self.encode_with_room(version, 0, out);
    }

    /// How large the packet's tail is, in bytes: what travels with the message, which before MQTT 5 is the payload only, and from there
    /// on the properties as well. All subscribers get the same.
    #[inline]
    #[must_use]
    pub fn tail_size(&self, version: Version) -> usize {
        self.payload.len() + if version.is_v5() { self.properties.len() } else { 0 }
    }

    /// Appends all but the tail, and reserves `room` bytes behind it.
    #[inline]
    fn encode_with_room(&self, version: Version, room: usize, out: &mut Vec<u8>) {
        assert!(self.packet_id.is_some() == (self.qos != QoS::AtMostOnce), "QoS 1 and 2 have packet ids");
        let properties_size = self.properties_size(version);
        let remaining = self.remaining(version, properties_size);
        out.reserve(1 + 4 + remaining - self.tail_size(version) + room);

        let flags = u8::from(self.dup) << 3 | self.qos.bits() << 1 | u8::from(self.retain);
        out.push(FIRST_BYTE | flags);
        writer::put_variable_byte_integer(out, remaining);
        writer::put_string(out, self.topic);
        if let Some(packet_id) = self.packet_id {
            writer::put_u16(out, packet_id.value());
        }
        if version.is_v5() {
            writer::put_variable_byte_integer(out, properties_size);
            if properties_size > self.properties.len() {
                self.encode_own_properties(out);
            }
        }
    }

    /// Appends the properties that the subscriber gets besides the message's.
    fn encode_own_properties(&self, out: &mut Vec<u8>) {
        if let Some(secs) = self.expiry {
            Property::MessageExpiryInterval(secs).encode(out);
        }
        if let Some(alias) = self.topic_alias {
            Property::TopicAlias(alias).encode(out);
        }
        for &id in self.subscription_ids {
            out.push(0x0B);
            writer::put_variable_byte_integer(out, id as usize);
        }
    }

    /// The property block without its length, in bytes.
    #[inline]
    fn properties_size(&self, version: Version) -> usize {
        if !version.is_v5() {
            return 0;
        }
        let ids: usize =
            self.subscription_ids.iter().map(|&id| 1 + writer::variable_byte_integer_size(id)).sum();
        usize::from(self.expiry.is_some()) * 5
            + usize::from(self.topic_alias.is_some()) * 3
            + ids
            + self.properties.len()
    }

    /// The remaining length.
    #[inline]
    fn remaining(&self, version: Version, properties_size: usize) -> usize {
        let property_length = match version {
            Version::V5 => {
                writer::variable_byte_integer_size(u32::try_from(properties_size).unwrap_or(u32::MAX))
            }
            Version::V310 | Version::V311 => 0,
        };
        2 + self.topic.len()
            + usize::from(self.packet_id.is_some()) * 2
            + property_length
            + properties_size
            + self.payload.len()
    }
}
