//! Target `codec`: bytes of a peer, in every version, from either side, cut anywhere.
//!
//! Besides that nothing panics: it does not matter where the input is cut; what a packet holds can be read; and a packet
//! that is written again and read again is written the same once more.

use crate::input::Input;
use quelea::base::Version;
use quelea::codec::{self, AckKind, Delivery, Frame, Malformed, Packet, Sender, SubscribeFilter};

const VERSIONS: [Version; 3] = [Version::V310, Version::V311, Version::V5];

/// What a sequence of bytes is to a peer: its packets as first byte and size, and what is wrong in the end.
type Seen = (Vec<(u8, usize)>, Option<Malformed>);

/// Byte 0: version, sender, size limit, size of the pieces. The rest is what the peer sends.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let version = VERSIONS[usize::from(choice % 3)];
    let sender = if choice & 0x04 == 0 { Sender::Client } else { Sender::Server };
    let size_max = if choice & 0x08 == 0 { 100_000 } else { 64 };
    let piece = usize::from(choice >> 4) + 1;
    let bytes = input.take(usize::MAX);
    let whole = feed(bytes, bytes.len().max(1), size_max, version, sender);
    assert_eq!(feed(bytes, piece, size_max, version, sender), whole, "cut into pieces of {piece}");
}

/// Takes packets from the front of what has arrived, as the shard does.
fn feed(bytes: &[u8], piece: usize, size_max: u32, version: Version, sender: Sender) -> Seen {
    let mut seen = Vec::new();
    let mut from = 0;
    let mut arrived = 0;
    while arrived < bytes.len() {
        arrived = (arrived + piece).min(bytes.len());
        loop {
            match codec::frame(&bytes[from..arrived], size_max) {
                Err(malformed) => return (seen, Some(malformed)),
                Ok(Frame::Incomplete { size }) => {
                    assert!(size.is_none_or(|size| size > arrived - from && size <= size_max as usize));
                    break;
                }
                Ok(Frame::Complete(raw)) => {
                    assert!(raw.size <= size_max as usize, "over the limit");
                    let _ = codec::answer_version(&raw);
                    match codec::decode(raw, version, sender) {
                        Err(malformed) => {
                            let _ = malformed.reason();
                            return (seen, Some(malformed));
                        }
                        Ok(packet) => check_again(&packet, version, sender),
                    }
                    seen.push((raw.first_byte, raw.size));
                    from += raw.size;
                }
            }
        }
    }
    (seen, None)
}

/// Writes a packet, reads it, and writes it again.
fn check_again(packet: &Packet<'_>, version: Version, sender: Sender) {
    // CONNECT says itself which version it is.
    let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
    let mut first = Vec::new();
    write(packet, version, &mut first);
    let Ok(Frame::Complete(raw)) = codec::frame(&first, u32::MAX) else {
        panic!("{packet:?} was written as {first:02x?}");
    };
    assert_eq!(raw.size, first.len(), "{packet:?} was written as {first:02x?}");
    let again = codec::decode(raw, version, sender)
        .unwrap_or_else(|malformed| panic!("{packet:?} was written as {first:02x?}: {malformed}"));
    let mut second = Vec::new();
    write(&again, version, &mut second);
    assert_eq!(first, second, "{packet:?}");
}

fn write(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) {
    let ack = |kind, ack: &codec::Ack<'_>, out: &mut Vec<u8>| {
        codec::encode_ack(kind, ack.packet_id, ack.reason, ack.reason_string, version, out);
    };
    match packet {
        Packet::Connect(connect) => connect.encode(out),
        Packet::ConnAck(connack) => connack.encode(version, out),
        Packet::Publish(publish) => write_publish(publish, version, out),
        Packet::PubAck(packet) => ack(AckKind::PubAck, packet, out),
        Packet::PubRec(packet) => ack(AckKind::PubRec, packet, out),
        Packet::PubRel(packet) => ack(AckKind::PubRel, packet, out),
        Packet::PubComp(packet) => ack(AckKind::PubComp, packet, out),
        Packet::Subscribe(subscribe) => {
            let filters: Vec<SubscribeFilter<'_>> = subscribe.filters().collect();
            codec::encode_subscribe(subscribe.packet_id, subscribe.subscription_id, &filters, version, out);
        }
        Packet::SubAck(suback) => {
            let codes: Vec<_> = suback.codes().collect();
            codec::encode_suback(suback.packet_id, &codes, None, version, out);
        }
        Packet::Unsubscribe(unsubscribe) => {
            let filters: Vec<&str> = unsubscribe.filters().collect();
            codec::encode_unsubscribe(unsubscribe.packet_id, &filters, version, out);
        }
        Packet::UnsubAck(unsuback) => {
            let codes: Vec<_> = unsuback.codes().collect();
            codec::encode_unsuback(unsuback.packet_id, &codes, version, out);
        }
        Packet::PingReq => codec::encode_pingreq(out),
        Packet::PingResp => codec::encode_pingresp(out),
        Packet::Disconnect(disconnect) => disconnect.encode(version, out),
        Packet::Auth(auth) => auth.encode(out),
    }
}

fn write_publish(publish: &codec::Publish<'_>, version: Version, out: &mut Vec<u8>) {
    let mut scratch = Vec::new();
    let subscription_ids: Vec<u32> = publish.subscription_ids.iter().map(u32::from).collect();
    let delivery = Delivery {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        topic: publish.topic,
        topic_alias: publish.topic_alias,
        packet_id: publish.packet_id,
        expiry: publish.expiry,
        subscription_ids: &subscription_ids,
        properties: publish.properties.forward(&mut scratch),
        payload: publish.payload,
    };
    let before = out.len();
    delivery.encode(version, out);
    assert_eq!(delivery.size(version), out.len() - before, "{delivery:?}");
}
