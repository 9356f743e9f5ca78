//! One property of MQTT 5 (section 2.2.2): its value rules, its bytes.
//!
//! Which packet may carry which property is decided in the file of each packet.

use super::Malformed;
use super::reader::Reader;
use super::writer::{put_binary, put_string, put_u16, put_u32, put_variable_byte_integer};
use crate::base::QoS;
use std::num::{NonZeroU16, NonZeroU32};

/// A property with its value; value rules that hold in every packet are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Property<'a> {
    /// Whether the payload says it is UTF-8 (it is not checked).
    PayloadFormatIndicator(bool),
    /// Lifetime of a message, in seconds.
    MessageExpiryInterval(u32),
    /// What the payload is.
    ContentType(&'a str),
    /// Topic name for the response.
    ResponseTopic(&'a str),
    /// What the requester recognises the response by.
    CorrelationData(&'a [u8]),
    /// The number the subscriber gave its subscription.
    SubscriptionIdentifier(NonZeroU32),
    /// Lifetime of the session without a connection, in seconds.
    SessionExpiryInterval(u32),
    /// The client identifier the server chose.
    AssignedClientIdentifier(&'a str),
    /// The keep alive the server wants instead, in seconds.
    ServerKeepAlive(u16),
    /// Name of the extended authentication.
    AuthenticationMethod(&'a str),
    /// Its data.
    AuthenticationData(&'a [u8]),
    /// Whether reason strings and user properties may be sent with other packets than PUBLISH, CONNACK and DISCONNECT.
    RequestProblemInformation(bool),
    /// How long the will waits after the connection, in seconds.
    WillDelayInterval(u32),
    /// Whether the client asks for Response Information.
    RequestResponseInformation(bool),
    /// What the client builds response topics from.
    ResponseInformation(&'a str),
    /// Where to go instead.
    ServerReference(&'a str),
    /// For people to read.
    ReasonString(&'a str),
    /// QoS 1 and 2 messages that may be in flight towards the sender of the property.
    ReceiveMaximum(NonZeroU16),
    /// Topic aliases that may be used towards the sender of the property.
    TopicAliasMaximum(u16),
    /// Stands for a topic name.
    TopicAlias(NonZeroU16),
    /// The highest QoS the server takes: 0 or 1.
    MaximumQos(QoS),
    /// Whether the server keeps retained messages.
    RetainAvailable(bool),
    /// Name and value, whatever they mean.
    UserProperty(&'a str, &'a str),
    /// The largest packet the sender of the property takes, in bytes.
    MaximumPacketSize(NonZeroU32),
    /// Whether the server takes wildcards in filters.
    WildcardSubscriptionAvailable(bool),
    /// Whether the server takes Subscription Identifiers.
    SubscriptionIdentifierAvailable(bool),
    /// Whether the server has shared subscriptions.
    SharedSubscriptionAvailable(bool),
}

impl<'a> Property<'a> {
    /// Takes one property from the front.
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match reader.variable_byte_integer()? {
            0x01 => Self::PayloadFormatIndicator(boolean(reader)?),
            0x02 => Self::MessageExpiryInterval(reader.u32()?),
            0x03 => Self::ContentType(reader.string()?),
            0x08 => Self::ResponseTopic(response_topic(reader)?),
            0x09 => Self::CorrelationData(reader.binary()?),
            0x0B => {
                let id = NonZeroU32::new(reader.variable_byte_integer()?);
                Self::SubscriptionIdentifier(id.ok_or(Malformed::SubscriptionIdZero)?)
            }
            0x11 => Self::SessionExpiryInterval(reader.u32()?),
            0x12 => Self::AssignedClientIdentifier(reader.string()?),
            0x13 => Self::ServerKeepAlive(reader.u16()?),
            0x15 => Self::AuthenticationMethod(reader.string()?),
            0x16 => Self::AuthenticationData(reader.binary()?),
            0x17 => Self::RequestProblemInformation(boolean(reader)?),
            0x18 => Self::WillDelayInterval(reader.u32()?),
            0x19 => Self::RequestResponseInformation(boolean(reader)?),
            0x1A => Self::ResponseInformation(reader.string()?),
            0x1C => Self::ServerReference(reader.string()?),
            0x1F => Self::ReasonString(reader.string()?),
            0x21 => {
                let maximum = NonZeroU16::new(reader.u16()?);
                Self::ReceiveMaximum(maximum.ok_or(Malformed::ReceiveMaximumZero)?)
            }
            0x22 => Self::TopicAliasMaximum(reader.u16()?),
            0x23 => {
                // [MQTT-3.3.2-8]
                Self::TopicAlias(NonZeroU16::new(reader.u16()?).ok_or(Malformed::TopicAliasZero)?)
            }
            0x24 => Self::MaximumQos(match reader.u8()? {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                _ => return Err(Malformed::MaximumQosInvalid),
            }),
            0x25 => Self::RetainAvailable(boolean(reader)?),
            // [MQTT-1.5.7-1]
            0x26 => Self::UserProperty(reader.string()?, reader.string()?),
            0x27 => {
                let maximum = NonZeroU32::new(reader.u32()?);
                Self::MaximumPacketSize(maximum.ok_or(Malformed::PacketSizeMaxZero)?)
            }
            0x28 => Self::WildcardSubscriptionAvailable(boolean(reader)?),
            0x29 => Self::SubscriptionIdentifierAvailable(boolean(reader)?),
            0x2A => Self::SharedSubscriptionAvailable(boolean(reader)?),
            _ => return Err(Malformed::PropertyUnknown),
        })
    }

    /// Appends the property's bytes.
    ///
    /// # Panics
    /// If a string or binary value is longer than 65,535 bytes, or a Subscription Identifier over 268,435,455.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.id());
        match *self {
            Self::PayloadFormatIndicator(value)
            | Self::RequestProblemInformation(value)
            | Self::RequestResponseInformation(value)
            | Self::RetainAvailable(value)
            | Self::WildcardSubscriptionAvailable(value)
            | Self::SubscriptionIdentifierAvailable(value)
            | Self::SharedSubscriptionAvailable(value) => out.push(u8::from(value)),
            Self::MaximumQos(qos) => out.push(qos.bits()),
            Self::ServerKeepAlive(value) | Self::TopicAliasMaximum(value) => put_u16(out, value),
            Self::ReceiveMaximum(value) | Self::TopicAlias(value) => put_u16(out, value.get()),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value) => put_u32(out, value),
            Self::MaximumPacketSize(value) => put_u32(out, value.get()),
            Self::SubscriptionIdentifier(value) => put_variable_byte_integer(out, value.get() as usize),
            Self::ContentType(value)
            | Self::ResponseTopic(value)
            | Self::AssignedClientIdentifier(value)
            | Self::AuthenticationMethod(value)
            | Self::ResponseInformation(value)
            | Self::ServerReference(value)
            | Self::ReasonString(value) => put_string(out, value),
            Self::CorrelationData(value) | Self::AuthenticationData(value) => put_binary(out, value),
            Self::UserProperty(name, value) => {
                put_string(out, name);
                put_string(out, value);
            }
        }
    }

    /// The property's identifier. It is a variable byte integer, but all are below 128.
    #[must_use]
    pub fn id(&self) -> u8 {
        match self {
            Self::PayloadFormatIndicator(_) => 0x01,
            Self::MessageExpiryInterval(_) => 0x02,
            Self::ContentType(_) => 0x03,
            Self::ResponseTopic(_) => 0x08,
            Self::CorrelationData(_) => 0x09,
            Self::SubscriptionIdentifier(_) => 0x0B,
            Self::SessionExpiryInterval(_) => 0x11,
            Self::AssignedClientIdentifier(_) => 0x12,
            Self::ServerKeepAlive(_) => 0x13,
            Self::AuthenticationMethod(_) => 0x15,
            Self::AuthenticationData(_) => 0x16,
            Self::RequestProblemInformation(_) => 0x17,
            Self::WillDelayInterval(_) => 0x18,
            Self::RequestResponseInformation(_) => 0x19,
            Self::ResponseInformation(_) => 0x1A,
            Self::ServerReference(_) => 0x1C,
            Self::ReasonString(_) => 0x1F,
            Self::ReceiveMaximum(_) => 0x21,
            Self::TopicAliasMaximum(_) => 0x22,
            Self::TopicAlias(_) => 0x23,
            Self::MaximumQos(_) => 0x24,
            Self::RetainAvailable(_) => 0x25,
            Self::UserProperty(..) => 0x26,
            Self::MaximumPacketSize(_) => 0x27,
            Self::WildcardSubscriptionAvailable(_) => 0x28,
            Self::SubscriptionIdentifierAvailable(_) => 0x29,
            Self::SharedSubscriptionAvailable(_) => 0x2A,
        }
    }

    /// Whether the property travels with a message from publisher to subscriber, unaltered.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-20] [MQTT-3.3.2-7]
        matches!(
            self,
            Self::PayloadFormatIndicator(_)
                | Self::ContentType(_)
                | Self::ResponseTopic(_)
                | Self::CorrelationData(_)
                | Self::UserProperty(..)
        )
    }
}

fn boolean(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::PropertyNotBoolean),
    }
}

fn response_topic<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    let topic = reader.string()?;
    if crate::base::topic::has_wildcard(topic) {
        // [MQTT-3.3.2-14]
        return Err(Malformed::ResponseTopicInvalid);
    }
    Ok(topic)
}
