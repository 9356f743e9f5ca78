//! PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7): one layout, four types.
//!
//! MQTT 5 leaves out what says nothing: without reason code the packet is two bytes long as in MQTT 3, without properties three.

use super::properties::{self, UserProperties};
use super::reader::Reader;
use super::{Malformed, RawPacket, writer};
use crate::base::{PacketId, ReasonCode, Version};

/// A PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    /// The PUBLISH it is about.
    pub packet_id: PacketId,
    /// [`ReasonCode::Success`] before MQTT 5.
    pub reason: ReasonCode,
    /// For people to read.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

/// Which of the four.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum AckKind {
    /// Answers a QoS 1 PUBLISH.
    PubAck,
    /// Answers a QoS 2 PUBLISH.
    PubRec,
    /// Answers PUBREC.
    PubRel,
    /// Answers PUBREL.
    PubComp,
}

impl AckKind {
    fn first_byte(self) -> u8 {
        match self {
            Self::PubAck => 0x40,
            Self::PubRec => 0x50,
            // [MQTT-3.6.1-1]
            Self::PubRel => 0x62,
            Self::PubComp => 0x70,
        }
    }

    fn allows(self, reason: ReasonCode) -> bool {
        use ReasonCode as R;
        match self {
            // [MQTT-3.4.2-1] [MQTT-3.5.2-1]
            Self::PubAck | Self::PubRec => matches!(
                reason,
                R::Success
                    | R::NoMatchingSubscribers
                    | R::UnspecifiedError
                    | R::ImplementationSpecificError
                    | R::NotAuthorized
                    | R::TopicNameInvalid
                    | R::PacketIdentifierInUse
                    | R::QuotaExceeded
                    | R::PayloadFormatInvalid
            ),
            // [MQTT-3.6.2-1] [MQTT-3.7.2-1]
            Self::PubRel | Self::PubComp => matches!(reason, R::Success | R::PacketIdentifierNotFound),
        }
    }
}

#[inline]
pub(super) fn decode<'a>(kind: AckKind, raw: &RawPacket<'a>, version: Version) -> Result<Ack<'a>, Malformed> {
    let mut reader = Reader::new(raw.body);
    let packet_id = reader.packet_id()?;
    let mut ack = Ack {
        packet_id,
        reason: ReasonCode::Success,
        reason_string: None,
        user_properties: UserProperties::EMPTY,
    };
    if version.is_v5() && !reader.is_empty() {
        ack.reason = ReasonCode::from_byte(reader.u8()?)
            .filter(|&reason| kind.allows(reason))
            .ok_or(Malformed::ReasonCodeInvalid)?;
        if !reader.is_empty() {
            (ack.reason_string, ack.user_properties) = properties::reason_properties(&mut reader)?;
        }
    }
    reader.finish()?;
    Ok(ack)
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP in its shortest form. Before MQTT 5 only the packet id is sent.
///
/// # Panics
/// If the reason string is longer than 65,535 bytes.
#[inline]
pub fn encode_ack(
    kind: AckKind,
    packet_id: PacketId,
    reason: ReasonCode,
    reason_string: Option<&str>,
    version: Version,
    out: &mut Vec<u8>,
) {
    let first_byte = kind.first_byte();
    let [high, low] = packet_id.value().to_be_bytes();
    if !version.is_v5() || (reason == ReasonCode::Success && reason_string.is_none()) {
        out.extend_from_slice(&[first_byte, 2, high, low]);
    } else if reason_string.is_none() {
        out.extend_from_slice(&[first_byte, 3, high, low, reason.byte()]);
    } else {
        writer::put_packet(out, first_byte, |out| {
            out.extend_from_slice(&[high, low, reason.byte()]);
            properties::put_reason_properties(out, reason_string);
        });
    }
}
