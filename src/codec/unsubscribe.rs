//! UNSUBSCRIBE (section 3.10).

use super::properties::{UserProperties, Walk};
use super::property::Property;
use super::reader::Reader;
use super::{Malformed, RawPacket, writer};
use crate::base::{PacketId, Version};

const FIRST_BYTE: u8 = 0xA2;

/// An UNSUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsubscribe<'a> {
    /// To be repeated in UNSUBACK.
    pub packet_id: PacketId,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Filters, checked.
    payload: &'a [u8],
}

impl<'a> Unsubscribe<'a> {
    /// Topic filters, in order; at least one.
    pub fn filters(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = Reader::new(self.payload);
        // Checked when the packet was decoded.
        std::iter::from_fn(move || if reader.is_empty() { None } else { reader.string().ok() })
    }
}

pub(super) fn decode<'a>(raw: &RawPacket<'a>, version: Version) -> Result<Unsubscribe<'a>, Malformed> {
    let mut reader = Reader::new(raw.body);
    let packet_id = reader.packet_id()?;
    let mut user_properties = UserProperties::EMPTY;
    if version.is_v5() {
        let mut walk = Walk::new(&mut reader)?;
        while let Some(property) = walk.next()? {
            if !matches!(property, Property::UserProperty(..)) {
                return Err(Malformed::PropertyNotAllowed);
            }
        }
        user_properties = UserProperties::from_encoded(walk.block());
    }
    let payload = reader.rest();
    if payload.is_empty() {
        // [MQTT-3.10.3-2]
        return Err(Malformed::NoTopicFilter);
    }
    while !reader.is_empty() {
        // [MQTT-3.10.3-1]
        reader.string()?;
    }
    Ok(Unsubscribe { packet_id, user_properties, payload })
}

/// Appends an UNSUBSCRIBE.
///
/// # Panics
/// If there is no filter, or one is longer than 65,535 bytes.
pub fn encode_unsubscribe(packet_id: PacketId, filters: &[&str], version: Version, out: &mut Vec<u8>) {
    assert!(!filters.is_empty(), "UNSUBSCRIBE has at least one filter");
    writer::put_packet(out, FIRST_BYTE, |out| {
        writer::put_u16(out, packet_id.value());
        if version.is_v5() {
            out.push(0);
        }
        for filter in filters {
            writer::put_string(out, filter);
        }
    });
}
