//! SUBSCRIBE (section 3.8).
//!
//! Filters are checked as strings only: which are well-formed, and which may have No Local, is answered filter by filter in
//! SUBACK and therefore the session's.

use super::properties::{UserProperties, Walk};
use super::property::Property;
use super::reader::Reader;
use super::{Malformed, RawPacket, writer};
use crate::base::{PacketId, QoS, Version};
use std::num::NonZeroU32;

const FIRST_BYTE: u8 = 0x82;
const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;

/// A SUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscribe<'a> {
    /// To be repeated in SUBACK.
    pub packet_id: PacketId,
    /// Goes with every message that these subscriptions match.
    pub subscription_id: Option<NonZeroU32>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Filters and options, checked.
    payload: &'a [u8],
    version: Version,
}

/// When retained messages are sent in answer to a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// Always.
    #[default]
    SendAlways = 0,
    /// If the subscription did not exist before.
    SendIfNew = 1,
    /// Never.
    Never = 2,
}

impl RetainHandling {
    fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::SendAlways),
            1 => Some(Self::SendIfNew),
            2 => Some(Self::Never),
            _ => None,
        }
    }
}

/// One subscription asked for. Before MQTT 5 the options beyond QoS have their defaults.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SubscribeFilter<'a> {
    /// Topic filter.
    pub filter: &'a str,
    /// Maximum QoS.
    pub qos: QoS,
    /// Not to be sent what this client published itself.
    pub no_local: bool,
    /// To be sent RETAIN as it was published.
    pub retain_as_published: bool,
    /// Whether retained messages are sent now.
    pub retain_handling: RetainHandling,
}

impl<'a> SubscribeFilter<'a> {
    /// A subscription with default options.
    #[must_use]
    pub fn new(filter: &'a str, qos: QoS) -> Self {
        Self {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAlways,
        }
    }

    fn decode(reader: &mut Reader<'a>, version: Version) -> Result<Self, Malformed> {
        // [MQTT-3.8.3-1]
        let filter = reader.string()?;
        let options = reader.u8()?;
        let reserved = if version.is_v5() { 0b1100_0000 } else { 0b1111_1100 };
        if options & reserved != 0 {
            // [MQTT-3.8.3-5]
            return Err(Malformed::SubscriptionOptionReserved);
        }
        Ok(Self {
            filter,
            qos: QoS::from_bits(options & 0b11).ok_or(Malformed::SubscriptionQosInvalid)?,
            no_local: options & NO_LOCAL != 0,
            retain_as_published: options & RETAIN_AS_PUBLISHED != 0,
            retain_handling: RetainHandling::from_bits(options >> 4 & 0b11)
                .ok_or(Malformed::RetainHandlingInvalid)?,
        })
    }

    fn options(&self, version: Version) -> u8 {
        if !version.is_v5() {
            return self.qos.bits();
        }
        self.qos.bits()
            | if self.no_local { NO_LOCAL } else { 0 }
            | if self.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 }
            | (self.retain_handling as u8) << 4
    }
}

impl<'a> Subscribe<'a> {
    /// Filters with their options, in order; at least one.
    pub fn filters(&self) -> impl Iterator<Item = SubscribeFilter<'a>> + use<'a> {
        let mut reader = Reader::new(self.payload);
        let version = self.version;
        // Checked when the packet was decoded.
        std::iter::from_fn(move || {
            if reader.is_empty() { None } else { SubscribeFilter::decode(&mut reader, version).ok() }
        })
    }
}

pub(super) fn decode<'a>(raw: &RawPacket<'a>, version: Version) -> Result<Subscribe<'a>, Malformed> {
    let mut reader = Reader::new(raw.body);
    let packet_id = reader.packet_id()?;
    let mut subscription_id = None;
    let mut user_properties = UserProperties::EMPTY;
    if version.is_v5() {
        let mut walk = Walk::new(&mut reader)?;
        while let Some(property) = walk.next()? {
            match property {
                Property::SubscriptionIdentifier(_) if subscription_id.is_some() => {
                    return Err(Malformed::PropertyDuplicate);
                }
                Property::SubscriptionIdentifier(id) => subscription_id = Some(id),
                Property::UserProperty(..) => {}
                _ => return Err(Malformed::PropertyNotAllowed),
            }
        }
        user_properties = UserProperties::from_encoded(walk.block());
    }
    let payload = reader.rest();
    if payload.is_empty() {
        // [MQTT-3.8.3-2]
        return Err(Malformed::NoTopicFilter);
    }
    while !reader.is_empty() {
        SubscribeFilter::decode(&mut reader, version)?;
    }
    Ok(Subscribe { packet_id, subscription_id, user_properties, payload, version })
}

/// Appends a SUBSCRIBE. Before MQTT 5 only filters and QoS are sent.
///
/// # Panics
/// If there is no filter, or one is longer than 65,535 bytes.
pub fn encode_subscribe(
    packet_id: PacketId,
    subscription_id: Option<NonZeroU32>,
    filters: &[SubscribeFilter<'_>],
    version: Version,
    out: &mut Vec<u8>,
) {
    assert!(!filters.is_empty(), "SUBSCRIBE has at least one filter");
    writer::put_packet(out, FIRST_BYTE, |out| {
        writer::put_u16(out, packet_id.value());
        if version.is_v5() {
            writer::put_prefixed(out, |out| {
                if let Some(id) = subscription_id {
                    Property::SubscriptionIdentifier(id).encode(out);
                }
            });
        }
        for filter in filters {
            writer::put_string(out, filter.filter);
            out.push(filter.options(version));
        }
    });
}
