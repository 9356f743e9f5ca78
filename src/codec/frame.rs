//! Where a packet begins and ends: the fixed header (section 2.1).
//!
//! Needs no version and no body, so that a packet that is too large or of a wrong type is refused when its first bytes arrive.
//! What depends on the version (DUP on SUBSCRIBE, UNSUBSCRIBE and PUBREL in MQTT 3.1; the shortest form of the length in
//! MQTT 5) is left to [`decode`](super::decode). Cost: a few nanoseconds, independent of the body.

use super::Malformed;
use super::reader;

/// Packet types; the numbers are the wire's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum PacketType {
    /// Connection request.
    Connect = 1,
    /// Connection acknowledgement.
    ConnAck = 2,
    /// A message.
    Publish = 3,
    /// QoS 1 acknowledgement.
    PubAck = 4,
    /// QoS 2, step 1.
    PubRec = 5,
    /// QoS 2, step 2.
    PubRel = 6,
    /// QoS 2, step 3.
    PubComp = 7,
    /// Subscribe request.
    Subscribe = 8,
    /// Its answer.
    SubAck = 9,
    /// Unsubscribe request.
    Unsubscribe = 10,
    /// Its answer.
    UnsubAck = 11,
    /// Keep alive.
    PingReq = 12,
    /// Its answer.
    PingResp = 13,
    /// Notification that the connection ends.
    Disconnect = 14,
    /// Authentication exchange, MQTT 5.
    Auth = 15,
}

impl PacketType {
    /// The type in the upper four bits of a packet's first byte; `None` for the reserved type 0.
    #[must_use]
    #[inline]
    pub fn from_first_byte(first_byte: u8) -> Option<Self> {
        Some(match first_byte >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }
}

/// A whole packet, not looked into yet. [`frame`] makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawPacket<'a> {
    /// Type and flags.
    pub first_byte: u8,
    /// What follows the fixed header.
    pub body: &'a [u8],
    /// The whole packet with its fixed header, in bytes: how far the input advances.
    pub size: usize,
}

/// What is at the front of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// More bytes are needed.
    Incomplete {
        /// The size of the whole packet, if its length has arrived.
        size: Option<usize>,
    },
    /// A whole packet.
    Complete(RawPacket<'a>),
}

impl RawPacket<'_> {
    /// The packet's type.
    ///
    /// # Panics
    /// If the packet is not [`frame`]'s and has the reserved type 0.
    #[must_use]
    #[inline]
    pub fn packet_type(&self) -> PacketType {
        PacketType::from_first_byte(self.first_byte).expect("frame() refuses the reserved type")
    }
}

/// Finds the packet at the front of `input`, which may be empty, partial, or many packets.
///
/// # Errors
/// [`Malformed`] if the fixed header is wrong, or announces a packet of more than `packet_size_max` bytes (header included).
#[inline]
pub fn frame(input: &[u8], packet_size_max: u32) -> Result<Frame<'_>, Malformed> {
    let Some((&first_byte, after_type)) = input.split_first() else {
        return Ok(Frame::Incomplete { size: None });
    };
    check_first_byte(first_byte)?;
    let Some((remaining, length_size)) = reader::variable_byte_integer(after_type)? else {
        return Ok(Frame::Incomplete { size: None });
    };
    let size = (remaining as usize).saturating_add(length_size).saturating_add(1);
    if size > packet_size_max as usize {
        // [MQTT-3.1.2-24] [MQTT-3.2.2-15]
        return Err(Malformed::PacketTooLarge);
    }
    let body = after_type.get(length_size..size.saturating_sub(1));
    Ok(body.map_or(Frame::Incomplete { size: Some(size) }, |body| {
        Frame::Complete(RawPacket { first_byte, body, size })
    }))
}

/// Type and flags as far as they are the same in all versions.
#[inline]
fn check_first_byte(first_byte: u8) -> Result<(), Malformed> {
    let flags = first_byte & 0x0F;
    let fine = match PacketType::from_first_byte(first_byte).ok_or(Malformed::ReservedPacketType)? {
        // [MQTT-3.3.1-4]
        PacketType::Publish if flags & 0b0110 == 0b0110 => return Err(Malformed::QosInvalid),
        PacketType::Publish => true,
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => flags & 0b0111 == 0b0010,
        _ => flags == 0,
    };
    // [MQTT-2.1.3-1]
    if fine { Ok(()) } else { Err(Malformed::FlagsInvalid) }
}
