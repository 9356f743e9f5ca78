//! SUBACK and UNSUBACK (sections 3.9 and 3.11): one layout, two sets of reason codes.

use super::properties::{self, UserProperties};
use super::reader::Reader;
use super::{Malformed, RawPacket, writer};
use crate::base::{PacketId, ReasonCode, Version};

const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xB0;

/// A SUBACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubAck<'a> {
    /// The SUBSCRIBE it answers.
    pub packet_id: PacketId,
    /// For people to read.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Checked.
    codes: &'a [u8],
}

impl<'a> SubAck<'a> {
    /// A code for each filter, in order: the granted QoS or an error ([`ReasonCode::UnspecifiedError`] before MQTT 5).
    pub fn codes(&self) -> impl ExactSizeIterator<Item = ReasonCode> + use<'a> {
        reason_codes(self.codes)
    }
}

/// An UNSUBACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnsubAck<'a> {
    /// The UNSUBSCRIBE it answers.
    pub packet_id: PacketId,
    /// For people to read.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Checked.
    codes: &'a [u8],
}

impl<'a> UnsubAck<'a> {
    /// A code for each filter, in order; none at all before MQTT 5.
    pub fn codes(&self) -> impl ExactSizeIterator<Item = ReasonCode> + use<'a> {
        reason_codes(self.codes)
    }
}

fn reason_codes(bytes: &[u8]) -> impl ExactSizeIterator<Item = ReasonCode> {
    bytes.iter().map(|&byte| ReasonCode::from_byte(byte).expect("checked when the packet was decoded"))
}

/// What both packets begin with: packet id, reason string, User Properties.
type Head<'a> = (PacketId, Option<&'a str>, UserProperties<'a>);

fn head<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Head<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    let (reason_string, user_properties) = match version {
        Version::V5 => properties::reason_properties(reader)?,
        Version::V310 | Version::V311 => (None, UserProperties::EMPTY),
    };
    Ok((packet_id, reason_string, user_properties))
}

pub(super) fn decode_suback<'a>(raw: &RawPacket<'a>, version: Version) -> Result<SubAck<'a>, Malformed> {
    let mut reader = Reader::new(raw.body);
    let (packet_id, reason_string, user_properties) = head(&mut reader, version)?;
    let codes = reader.rest();
    // [MQTT-3.9.3-2]
    check(codes, |reason| is_suback_reason(reason, version))?;
    Ok(SubAck { packet_id, reason_string, user_properties, codes })
}

pub(super) fn decode_unsuback<'a>(raw: &RawPacket<'a>, version: Version) -> Result<UnsubAck<'a>, Malformed> {
    let mut reader = Reader::new(raw.body);
    let (packet_id, reason_string, user_properties) = head(&mut reader, version)?;
    if !version.is_v5() {
        reader.finish()?;
    }
    let codes = reader.rest();
    // [MQTT-3.11.3-2]
    check(codes, is_unsuback_reason)?;
    Ok(UnsubAck { packet_id, reason_string, user_properties, codes })
}

fn check(codes: &[u8], allows: impl Fn(ReasonCode) -> bool) -> Result<(), Malformed> {
    let fine = codes.iter().all(|&byte| ReasonCode::from_byte(byte).is_some_and(&allows));
    if fine { Ok(()) } else { Err(Malformed::ReasonCodeInvalid) }
}

fn is_suback_reason(reason: ReasonCode, version: Version) -> bool {
    use ReasonCode as R;
    match reason {
        R::Success | R::GrantedQos1 | R::GrantedQos2 => true,
        // MQTT 3.1 has no way to refuse, but servers do.
        R::UnspecifiedError => true,
        R::ImplementationSpecificError
        | R::NotAuthorized
        | R::TopicFilterInvalid
        | R::PacketIdentifierInUse
        | R::QuotaExceeded
        | R::SharedSubscriptionsNotSupported
        | R::SubscriptionIdentifiersNotSupported
        | R::WildcardSubscriptionsNotSupported => version.is_v5(),
        _ => false,
    }
}

fn is_unsuback_reason(reason: ReasonCode) -> bool {
    use ReasonCode as R;
    matches!(
        reason,
        R::Success
            | R::NoSubscriptionExisted
            | R::UnspecifiedError
            | R::ImplementationSpecificError
            | R::NotAuthorized
            | R::TopicFilterInvalid
            | R::PacketIdentifierInUse
    )
}

/// Appends a SUBACK. Before MQTT 5 every error is 0x80, and nothing but the codes is sent.
///
/// # Panics
/// If the reason string is longer than 65,535 bytes.
pub fn encode_suback(
    packet_id: PacketId,
    codes: &[ReasonCode],
    reason_string: Option<&str>,
    version: Version,
    out: &mut Vec<u8>,
) {
    writer::put_packet(out, SUBACK, |out| {
        writer::put_u16(out, packet_id.value());
        if version.is_v5() {
            properties::put_reason_properties(out, reason_string);
            out.extend(codes.iter().map(|code| code.byte()));
        } else {
            out.extend(codes.iter().map(|code| code.byte().min(0x80)));
        }
    });
}

/// Appends an UNSUBACK. Before MQTT 5 it has no codes.
pub fn encode_unsuback(packet_id: PacketId, codes: &[ReasonCode], version: Version, out: &mut Vec<u8>) {
    writer::put_packet(out, UNSUBACK, |out| {
        writer::put_u16(out, packet_id.value());
        if version.is_v5() {
            out.push(0);
            out.extend(codes.iter().map(|code| code.byte()));
        }
    });
}
