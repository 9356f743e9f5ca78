//! MQTT bytes to packets and back, versions 3.1, 3.1.1 and 5.0; one file a packet, versions side by side in it.
//!
//! [`frame()`] finds a packet at the front of the input, [`decode`] takes it apart. A decoded packet borrows everything from the
//! input; decoding allocates nothing and cannot panic. Encoders append to a `Vec` and trust their caller to keep strings,
//! packets and reason codes within what the protocol can express.
//!
//! Every rule that one packet shows is enforced here, by the line that cites it; a broken one is a [`Malformed`]. Rules that
//! need more than the packet (which packet may come now, packet ids in use, limits announced, filters and permissions) are the
//! session's.
//!
//! | | packet | sent by |
//! |---|---|---|
//! | [`Connect`], [`Subscribe`], [`Unsubscribe`] | requests | client |
//! | [`ConnAck`], [`SubAck`], [`UnsubAck`] | their answers | server |
//! | [`Publish`] in, [`Delivery`] out | messages | both |
//! | [`Ack`] | PUBACK, PUBREC, PUBREL, PUBCOMP | both |
//! | [`Disconnect`], [`Auth`] | | both (before MQTT 5: client, nobody) |
//!
//! Cost: PUBLISH of 64 bytes, a few tens of nanoseconds each way (`cargo bench --bench codec`).

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod frame;
mod malformed;
pub mod properties;
mod property;
mod publish;
mod reader;
mod suback;
mod subscribe;
#[cfg(test)]
pub(crate) mod tests;
mod unsubscribe;
mod writer;

pub use ack::{Ack, AckKind, encode_ack};
pub use auth::Auth;
pub use connack::ConnAck;
pub use connect::{Connect, Will, answer_version};
pub use disconnect::Disconnect;
pub use frame::{Frame, PacketType, RawPacket, frame};
pub use malformed::Malformed;
pub use properties::{MessageProperties, SubscriptionIds, UserProperties};
pub use property::Property;
pub use publish::{Delivery, Publish};
pub use suback::{SubAck, UnsubAck, encode_suback, encode_unsuback};
pub use subscribe::{RetainHandling, Subscribe, SubscribeFilter, encode_subscribe};
pub use unsubscribe::{Unsubscribe, encode_unsubscribe};

use crate::base::Version;

/// Who sent a packet: some packets, properties and reason codes are allowed from one side only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sender {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// A decoded packet; it borrows from the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// Connection request.
    Connect(Connect<'a>),
    /// Connection acknowledgement.
    ConnAck(ConnAck<'a>),
    /// A message.
    Publish(Publish<'a>),
    /// QoS 1 acknowledgement.
    PubAck(Ack<'a>),
    /// QoS 2, step 1.
    PubRec(Ack<'a>),
    /// QoS 2, step 2.
    PubRel(Ack<'a>),
    /// QoS 2, step 3.
    PubComp(Ack<'a>),
    /// Subscribe request.
    Subscribe(Subscribe<'a>),
    /// Its answer.
    SubAck(SubAck<'a>),
    /// Unsubscribe request.
    Unsubscribe(Unsubscribe<'a>),
    /// Its answer.
    UnsubAck(UnsubAck<'a>),
    /// Keep alive.
    PingReq,
    /// Its answer.
    PingResp,
    /// Notification that the connection ends.
    Disconnect(Disconnect<'a>),
    /// Authentication exchange.
    Auth(Auth<'a>),
}

/// Takes a packet that [`frame()`] found apart. CONNECT says itself which version it is; `version` is ignored there.
///
/// # Errors
/// [`Malformed`]: which rule the packet breaks.
#[inline]
pub fn decode<'a>(raw: RawPacket<'a>, version: Version, sender: Sender) -> Result<Packet<'a>, Malformed> {
    let packet_type = raw.packet_type();
    if packet_type != PacketType::Connect {
        raw.check_length_form(version)?;
    }
    match packet_type {
        PacketType::Publish => publish::decode(&raw, version, sender).map(Packet::Publish),
        PacketType::PubAck => ack::decode(AckKind::PubAck, &raw, version).map(Packet::PubAck),
        PacketType::PubRec => ack::decode(AckKind::PubRec, &raw, version).map(Packet::PubRec),
        PacketType::PubRel => {
            raw.check_dup(version)?;
            ack::decode(AckKind::PubRel, &raw, version).map(Packet::PubRel)
        }
        PacketType::PubComp => ack::decode(AckKind::PubComp, &raw, version).map(Packet::PubComp),
        _ => decode_rare(&raw, version, sender),
    }
}

/// The packets that are not part of a message's way.
fn decode_rare<'a>(raw: &RawPacket<'a>, version: Version, sender: Sender) -> Result<Packet<'a>, Malformed> {
    let packet_type = raw.packet_type();
    check_direction(packet_type, version, sender)?;
    match packet_type {
        PacketType::Connect => connect::decode(raw).map(Packet::Connect),
        PacketType::ConnAck => connack::decode(raw, version).map(Packet::ConnAck),
        PacketType::Subscribe => {
            raw.check_dup(version)?;
            subscribe::decode(raw, version).map(Packet::Subscribe)
        }
        PacketType::SubAck => suback::decode_suback(raw, version).map(Packet::SubAck),
        PacketType::Unsubscribe => {
            raw.check_dup(version)?;
            unsubscribe::decode(raw, version).map(Packet::Unsubscribe)
        }
        PacketType::UnsubAck => suback::decode_unsuback(raw, version).map(Packet::UnsubAck),
        PacketType::PingReq => raw.check_empty().map(|()| Packet::PingReq),
        PacketType::PingResp => raw.check_empty().map(|()| Packet::PingResp),
        PacketType::Disconnect => disconnect::decode(raw, version, sender).map(Packet::Disconnect),
        PacketType::Auth => auth::decode(raw, sender).map(Packet::Auth),
        PacketType::Publish
        | PacketType::PubAck
        | PacketType::PubRec
        | PacketType::PubRel
        | PacketType::PubComp => unreachable!("decode() takes the packets of a message's way"),
    }
}

fn check_direction(packet_type: PacketType, version: Version, sender: Sender) -> Result<(), Malformed> {
    let only_from = match packet_type {
        PacketType::Connect | PacketType::Subscribe | PacketType::Unsubscribe | PacketType::PingReq => {
            Sender::Client
        }
        PacketType::ConnAck | PacketType::SubAck | PacketType::UnsubAck | PacketType::PingResp => {
            Sender::Server
        }
        PacketType::Auth if !version.is_v5() => return Err(Malformed::ReservedPacketType),
        PacketType::Disconnect if !version.is_v5() => Sender::Client,
        _ => return Ok(()),
    };
    if only_from == sender { Ok(()) } else { Err(Malformed::WrongDirection) }
}

impl RawPacket<'_> {
    /// The remaining length has to be in its shortest form since MQTT 5.
    #[inline]
    fn check_length_form(&self, version: Version) -> Result<(), Malformed> {
        let length_size = self.size.saturating_sub(self.body.len()).saturating_sub(1);
        let remaining = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        if version.is_v5() && length_size != writer::variable_byte_integer_size(remaining) {
            // [MQTT-1.5.5-1]
            return Err(Malformed::VariableByteIntegerNotMinimal);
        }
        Ok(())
    }

    /// SUBSCRIBE, UNSUBSCRIBE and PUBREL may have DUP in MQTT 3.1 only.
    #[inline]
    fn check_dup(&self, version: Version) -> Result<(), Malformed> {
        if self.first_byte & 0x08 != 0 && version != Version::V310 {
            // [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
            return Err(Malformed::FlagsInvalid);
        }
        Ok(())
    }

    fn check_empty(&self) -> Result<(), Malformed> {
        if self.body.is_empty() { Ok(()) } else { Err(Malformed::TrailingBytes) }
    }
}

/// Appends a PINGREQ.
pub fn encode_pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xC0, 0]);
}

/// Appends a PINGRESP.
pub fn encode_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xD0, 0]);
}
