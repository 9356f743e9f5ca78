//! CONNACK (section 3.2).
//!
//! Reason codes are MQTT 5's in all versions; the return codes of MQTT 3 are translated here.

use super::properties::{UserProperties, Walk};
use super::property::Property;
use super::reader::Reader;
use super::{Malformed, RawPacket, writer};
use crate::base::{QoS, ReasonCode, Version};
use std::num::{NonZeroU16, NonZeroU32};

const FIRST_BYTE: u8 = 0x20;
const SESSION_PRESENT: u8 = 0x01;

/// A CONNACK. A property that is `None` is left out; what its absence means is in the specification.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the server had a session. MQTT 3.1 cannot say.
    pub session_present: bool,
    /// Success, or why not.
    pub reason: ReasonCode,
    /// Session Expiry Interval the server uses instead, in seconds.
    pub session_expiry: Option<u32>,
    /// QoS 1 and 2 messages the server takes unacknowledged.
    pub receive_maximum: Option<NonZeroU16>,
    /// Maximum QoS: 0 or 1.
    pub maximum_qos: Option<QoS>,
    /// Retain Available.
    pub retain_available: Option<bool>,
    /// Maximum Packet Size, in bytes.
    pub packet_size_max: Option<NonZeroU32>,
    /// The client identifier that the server chose.
    pub assigned_client_id: Option<&'a str>,
    /// Topic aliases the server takes.
    pub topic_alias_maximum: Option<u16>,
    /// For people to read.
    pub reason_string: Option<&'a str>,
    /// Wildcard Subscription Available.
    pub wildcard_available: Option<bool>,
    /// Subscription Identifiers Available.
    pub subscription_ids_available: Option<bool>,
    /// Shared Subscription Available.
    pub shared_available: Option<bool>,
    /// Keep alive the client has to use instead, in seconds.
    pub server_keep_alive: Option<u16>,
    /// What the client builds response topics from.
    pub response_information: Option<&'a str>,
    /// Where to go instead.
    pub server_reference: Option<&'a str>,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data.
    pub authentication_data: Option<&'a [u8]>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl ConnAck<'_> {
    /// A CONNACK without properties.
    #[must_use]
    pub fn new(session_present: bool, reason: ReasonCode) -> Self {
        Self {
            session_present,
            reason,
            session_expiry: None,
            receive_maximum: None,
            maximum_qos: None,
            retain_available: None,
            packet_size_max: None,
            assigned_client_id: None,
            topic_alias_maximum: None,
            reason_string: None,
            wildcard_available: None,
            subscription_ids_available: None,
            shared_available: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
            user_properties: UserProperties::EMPTY,
        }
    }

    /// Appends the packet. Before MQTT 5 it has no properties, and the reason becomes a return code.
    ///
    /// # Panics
    /// If the session is present and the reason is not Success, or a string is longer than 65,535 bytes.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        // [MQTT-3.2.2-6]
        assert!(!self.session_present || self.reason == ReasonCode::Success, "no session when refused");
        let flags = match version {
            // MQTT 3.1 reserves the byte.
            Version::V310 => 0,
            Version::V311 | Version::V5 => u8::from(self.session_present),
        };
        if !version.is_v5() {
            out.extend_from_slice(&[FIRST_BYTE, 2, flags, self.reason.connack_v3()]);
            return;
        }
        writer::put_packet(out, FIRST_BYTE, |out| {
            out.extend_from_slice(&[flags, self.reason.byte()]);
            writer::put_prefixed(out, |out| {
                self.properties().iter().flatten().for_each(|property| property.encode(out));
                self.user_properties.encode(out);
            });
        });
    }

    fn properties(&self) -> [Option<Property<'_>>; 16] {
        [
            self.session_expiry.map(Property::SessionExpiryInterval),
            self.receive_maximum.map(Property::ReceiveMaximum),
            self.maximum_qos.map(Property::MaximumQos),
            self.retain_available.map(Property::RetainAvailable),
            self.packet_size_max.map(Property::MaximumPacketSize),
            self.assigned_client_id.map(Property::AssignedClientIdentifier),
            self.topic_alias_maximum.map(Property::TopicAliasMaximum),
            self.reason_string.map(Property::ReasonString),
            self.wildcard_available.map(Property::WildcardSubscriptionAvailable),
            self.subscription_ids_available.map(Property::SubscriptionIdentifierAvailable),
            self.shared_available.map(Property::SharedSubscriptionAvailable),
            self.server_keep_alive.map(Property::ServerKeepAlive),
            self.response_information.map(Property::ResponseInformation),
            self.server_reference.map(Property::ServerReference),
            self.authentication_method.map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
        ]
    }
}

impl std::fmt::Debug for ConnAck<'_> {
    /// Only what is there, and no authentication data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("ConnAck");
        out.field("session_present", &self.session_present).field("reason", &self.reason);
        for property in self.properties().iter().flatten() {
            if !matches!(property, Property::AuthenticationData(_)) {
                out.field("property", property);
            }
        }
        out.field("user_properties", &self.user_properties).finish_non_exhaustive()
    }
}

pub(super) fn decode<'a>(raw: &RawPacket<'a>, version: Version) -> Result<ConnAck<'a>, Malformed> {
    let mut reader = Reader::new(raw.body);
    let flags = reader.u8()?;
    let code = reader.u8()?;
    if flags & !SESSION_PRESENT != 0 && version != Version::V310 {
        // [MQTT-3.2.2-1]
        return Err(Malformed::ConnAckFlagReserved);
    }
    let reason = match version {
        // [MQTT-3.2.2-8]
        Version::V5 => ReasonCode::from_byte(code).filter(|&reason| allows(reason)),
        Version::V310 | Version::V311 => from_return_code(code),
    };
    let reason = reason.ok_or(Malformed::ReasonCodeInvalid)?;
    let session_present = flags & SESSION_PRESENT != 0 && version != Version::V310;
    if session_present && reason != ReasonCode::Success {
        // [MQTT-3.2.2-6]
        return Err(Malformed::SessionPresentOnError);
    }
    let mut connack = ConnAck::new(session_present, reason);
    if version.is_v5() {
        decode_properties(&mut reader, &mut connack)?;
    }
    reader.finish()?;
    Ok(connack)
}

fn decode_properties<'a>(reader: &mut Reader<'a>, connack: &mut ConnAck<'a>) -> Result<(), Malformed> {
    let mut walk = Walk::new(reader)?;
    while let Some(property) = walk.next()? {
        match property {
            Property::SessionExpiryInterval(value) => connack.session_expiry = Some(value),
            Property::ReceiveMaximum(value) => connack.receive_maximum = Some(value),
            Property::MaximumQos(value) => connack.maximum_qos = Some(value),
            Property::RetainAvailable(value) => connack.retain_available = Some(value),
            Property::MaximumPacketSize(value) => connack.packet_size_max = Some(value),
            Property::AssignedClientIdentifier(value) => connack.assigned_client_id = Some(value),
            Property::TopicAliasMaximum(value) => connack.topic_alias_maximum = Some(value),
            Property::ReasonString(value) => connack.reason_string = Some(value),
            Property::WildcardSubscriptionAvailable(value) => connack.wildcard_available = Some(value),
            Property::SubscriptionIdentifierAvailable(value) => {
                connack.subscription_ids_available = Some(value);
            }
            Property::SharedSubscriptionAvailable(value) => connack.shared_available = Some(value),
            Property::ServerKeepAlive(value) => connack.server_keep_alive = Some(value),
            Property::ResponseInformation(value) => connack.response_information = Some(value),
            Property::ServerReference(value) => connack.server_reference = Some(value),
            Property::AuthenticationMethod(value) => connack.authentication_method = Some(value),
            Property::AuthenticationData(value) => connack.authentication_data = Some(value),
            Property::UserProperty(..) => {}
            _ => return Err(Malformed::PropertyNotAllowed),
        }
    }
    connack.user_properties = UserProperties::from_encoded(walk.block());
    Ok(())
}

fn from_return_code(code: u8) -> Option<ReasonCode> {
    Some(match code {
        0 => ReasonCode::Success,
        1 => ReasonCode::UnsupportedProtocolVersion,
        2 => ReasonCode::ClientIdentifierNotValid,
        3 => ReasonCode::ServerUnavailable,
        4 => ReasonCode::BadUserNameOrPassword,
        5 => ReasonCode::NotAuthorized,
        _ => return None,
    })
}

fn allows(reason: ReasonCode) -> bool {
    use ReasonCode as R;
    matches!(
        reason,
        R::Success
            | R::UnspecifiedError
            | R::MalformedPacket
            | R::ProtocolError
            | R::ImplementationSpecificError
            | R::UnsupportedProtocolVersion
            | R::ClientIdentifierNotValid
            | R::BadUserNameOrPassword
            | R::NotAuthorized
            | R::ServerUnavailable
            | R::ServerBusy
            | R::Banned
            | R::BadAuthenticationMethod
            | R::TopicNameInvalid
            | R::PacketTooLarge
            | R::QuotaExceeded
            | R::PayloadFormatInvalid
            | R::RetainNotSupported
            | R::QosNotSupported
            | R::UseAnotherServer
            | R::ServerMoved
            | R::ConnectionRateExceeded
    )
}
