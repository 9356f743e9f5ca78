//! The rules a packet can break: one variant a rule, and the reason code that tells the peer.

use crate::base::ReasonCode;
use thiserror::Error;

/// A rule of the protocol that the bytes of a packet break. The connection is to be closed (MQTT-4.13.1-1).
///
/// Only what a single packet shows; what depends on the session is not here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Malformed {
    /// Packet type 0, or AUTH before MQTT 5 (section 2.1.2).
    #[error("reserved packet type")]
    ReservedPacketType,
    /// Reserved bits of the fixed header are not as listed: MQTT-2.1.3-1, MQTT-3.6.1-1, MQTT-3.8.1-1, MQTT-3.10.1-1.
    #[error("reserved flags of the fixed header are set")]
    FlagsInvalid,
    /// A variable byte integer of more than four bytes (section 1.5.5).
    #[error("variable byte integer longer than four bytes")]
    VariableByteIntegerTooLong,
    /// MQTT-1.5.5-1.
    #[error("variable byte integer not in its shortest form")]
    VariableByteIntegerNotMinimal,
    /// The packet is larger than the receiver accepts: MQTT-3.1.2-24, MQTT-3.2.2-15.
    #[error("packet too large")]
    PacketTooLarge,
    /// The packet type is not sent by this side (section 2.1.2, table 2-1).
    #[error("packet sent in the wrong direction")]
    WrongDirection,
    /// A field reaches over the end of its packet or of its property block.
    #[error("field reaches over the end of the packet")]
    Truncated,
    /// Bytes are left after the last field.
    #[error("bytes after the last field")]
    TrailingBytes,
    /// MQTT-1.5.4-1.
    #[error("string is not well-formed UTF-8")]
    Utf8Invalid,
    /// MQTT-1.5.4-2.
    #[error("string contains U+0000")]
    NullCharacter,
    /// MQTT-2.2.1-3, MQTT-2.2.1-4.
    #[error("packet identifier is 0")]
    PacketIdZero,
    /// No such property (section 2.2.2.2).
    #[error("unknown property")]
    PropertyUnknown,
    /// The property does not belong to this packet type (section 2.2.2.2).
    #[error("property not allowed in this packet")]
    PropertyNotAllowed,
    /// A property that may occur once occurs twice.
    #[error("property occurs twice")]
    PropertyDuplicate,
    /// A byte that is 0 or 1 is something else (Payload Format Indicator, Request Problem Information and the like).
    #[error("property is neither 0 nor 1")]
    PropertyNotBoolean,
    /// Receive Maximum 0 (section 3.1.2.11.3).
    #[error("Receive Maximum is 0")]
    ReceiveMaximumZero,
    /// Maximum Packet Size 0 (section 3.1.2.11.4).
    #[error("Maximum Packet Size is 0")]
    PacketSizeMaxZero,
    /// MQTT-3.3.2-8.
    #[error("Topic Alias is 0")]
    TopicAliasZero,
    /// Subscription Identifier 0 (sections 3.3.2.3.8 and 3.8.2.1.2).
    #[error("Subscription Identifier is 0")]
    SubscriptionIdZero,
    /// MQTT-3.3.4-6.
    #[error("Subscription Identifier in a client's PUBLISH")]
    SubscriptionIdFromClient,
    /// MQTT-3.3.2-14.
    #[error("Response Topic contains a wildcard")]
    ResponseTopicInvalid,
    /// MQTT-3.14.2-2.
    #[error("Session Expiry Interval in a server's DISCONNECT")]
    SessionExpiryFromServer,
    /// Authentication Data without Authentication Method (sections 3.1.2.11.10 and 3.15.2.2.3).
    #[error("Authentication Data without Authentication Method")]
    AuthenticationDataWithoutMethod,
    /// AUTH without Authentication Method (section 3.15.2.2.2).
    #[error("AUTH without Authentication Method")]
    AuthenticationMethodMissing,
    /// The reason code or return code is none of this packet's: MQTT-3.2.2-8, MQTT-3.4.2-1, MQTT-3.9.3-2 and so on.
    #[error("reason code not valid for this packet")]
    ReasonCodeInvalid,
    /// MQTT-3.1.2-1. Not MQTT at all, most likely.
    #[error("protocol name is neither MQTT nor MQIsdp")]
    ProtocolNameInvalid,
    /// MQTT-3.1.2-2. The client may be answered CONNACK 0x84 (1 before MQTT 5).
    #[error("unsupported protocol version")]
    UnsupportedProtocolVersion,
    /// MQTT-3.1.2-3.
    #[error("reserved CONNECT flag is set")]
    ConnectFlagReserved,
    /// MQTT-3.1.2-11, MQTT-3.1.2-13.
    #[error("Will QoS or Will Retain without Will Flag")]
    WillFlagsWithoutWill,
    /// MQTT-3.1.2-12.
    #[error("Will QoS is 3")]
    WillQosInvalid,
    /// MQTT-3.1.2-22 of MQTT 3.1.1.
    #[error("password without user name")]
    PasswordWithoutUsername,
    /// MQTT-3.2.2-1.
    #[error("reserved CONNACK flag is set")]
    ConnAckFlagReserved,
    /// MQTT-3.2.2-6.
    #[error("Session Present in a CONNACK that refuses")]
    SessionPresentOnError,
    /// Maximum QoS is neither 0 nor 1 (section 3.2.2.3.4).
    #[error("Maximum QoS is neither 0 nor 1")]
    MaximumQosInvalid,
    /// MQTT-3.3.1-4.
    #[error("QoS is 3")]
    QosInvalid,
    /// MQTT-3.3.1-2.
    #[error("DUP with QoS 0")]
    DupWithQos0,
    /// MQTT-3.3.2-2, MQTT-4.7.3-1: a wildcard in a topic name, or an empty will topic.
    #[error("topic name invalid")]
    TopicNameInvalid,
    /// The topic name is empty and no Topic Alias stands for it (section 3.3.2.1; MQTT-4.7.3-1).
    #[error("empty topic name without Topic Alias")]
    TopicNameMissing,
    /// MQTT-3.8.3-2, MQTT-3.10.3-2.
    #[error("no topic filter")]
    NoTopicFilter,
    /// MQTT-3.8.3-5.
    #[error("reserved subscription option is set")]
    SubscriptionOptionReserved,
    /// QoS 3 asked for (section 3.8.3.1).
    #[error("subscription asks for QoS 3")]
    SubscriptionQosInvalid,
    /// Retain Handling 3 (section 3.8.3.1).
    #[error("Retain Handling is 3")]
    RetainHandlingInvalid,
}

impl Malformed {
    /// What the peer is told in CONNACK or DISCONNECT, if its version has a way.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::ReservedPacketType
            | Self::FlagsInvalid
            | Self::VariableByteIntegerTooLong
            | Self::VariableByteIntegerNotMinimal
            | Self::Truncated
            | Self::TrailingBytes
            | Self::Utf8Invalid
            | Self::NullCharacter
            | Self::PropertyUnknown
            | Self::PropertyNotAllowed
            | Self::ConnectFlagReserved
            | Self::WillQosInvalid
            | Self::ConnAckFlagReserved
            | Self::QosInvalid
            | Self::SubscriptionOptionReserved => ReasonCode::MalformedPacket,
            Self::WrongDirection
            | Self::PacketIdZero
            | Self::PropertyDuplicate
            | Self::PropertyNotBoolean
            | Self::ReceiveMaximumZero
            | Self::PacketSizeMaxZero
            | Self::SubscriptionIdZero
            | Self::SubscriptionIdFromClient
            | Self::ResponseTopicInvalid
            | Self::SessionExpiryFromServer
            | Self::AuthenticationDataWithoutMethod
            | Self::AuthenticationMethodMissing
            | Self::ReasonCodeInvalid
            | Self::WillFlagsWithoutWill
            | Self::PasswordWithoutUsername
            | Self::SessionPresentOnError
            | Self::MaximumQosInvalid
            | Self::DupWithQos0
            | Self::TopicNameMissing
            | Self::NoTopicFilter
            | Self::SubscriptionQosInvalid
            | Self::RetainHandlingInvalid => ReasonCode::ProtocolError,
            Self::PacketTooLarge => ReasonCode::PacketTooLarge,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::TopicNameInvalid => ReasonCode::TopicNameInvalid,
            Self::ProtocolNameInvalid | Self::UnsupportedProtocolVersion => {
                ReasonCode::UnsupportedProtocolVersion
            }
        }
    }
}
