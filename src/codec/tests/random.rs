//! Whatever the bytes, nothing panics; and it does not matter where the input is cut.

use super::*;
use crate::base::{PacketId, QoS, ReasonCode, Version};
use proptest::collection::vec;
use proptest::prelude::*;

const VERSIONS: [Version; 3] = [Version::V310, Version::V311, Version::V5];
const SENDERS: [Sender; 2] = [Sender::Client, Sender::Server];

/// Reads everything a packet gives.
fn exhaust(packet: &Packet<'_>) -> usize {
    let debug = format!("{packet:?}").len();
    debug
        + match packet {
            Packet::Connect(connect) => {
                connect.user_properties.iter().count()
                    + connect.will.map_or(0, |will| will.properties.iter().count())
            }
            Packet::Publish(publish) => {
                let mut scratch = Vec::new();
                publish.properties.forward(&mut scratch).len() + publish.subscription_ids.iter().count()
            }
            Packet::Subscribe(subscribe) => subscribe.filters().count(),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.filters().count(),
            Packet::SubAck(suback) => suback.codes().len(),
            Packet::UnsubAck(unsuback) => unsuback.codes().len(),
            _ => 0,
        }
}

/// One packet of every kind, to be cut and damaged.
fn samples(version: Version) -> Vec<Vec<u8>> {
    let id = PacketId::new(0x1234).unwrap();
    let mut out = vec![Vec::new(); 14];
    let mut connect = Connect::new(version, "client", true, 60);
    connect.username = Some("user");
    connect.password = Some(b"password");
    connect.session_expiry = Some(100);
    connect.will = Some(Will {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "will/topic",
        payload: b"gone",
        delay: 5,
        expiry: Some(6),
        properties: MessageProperties::EMPTY,
    });
    connect.encode(&mut out[0]);
    let mut connack = ConnAck::new(false, ReasonCode::Success);
    connack.assigned_client_id = Some("chosen");
    connack.encode(version, &mut out[1]);
    let mut forwarded = Vec::new();
    properties::push_user_property(&mut forwarded, "name", "value");
    let delivery = Delivery {
        dup: true,
        qos: QoS::ExactlyOnce,
        retain: true,
        topic: "a/b/c",
        topic_alias: None,
        packet_id: Some(id),
        expiry: Some(10),
        subscription_ids: &[],
        properties: &forwarded,
        payload: &[7; 200],
    };
    delivery.encode(version, &mut out[2]);
    let kinds = [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp];
    for (kind, out) in kinds.into_iter().zip(&mut out[3..]) {
        encode_ack(kind, id, ReasonCode::Success, Some("because"), version, out);
    }
    let filters = [SubscribeFilter::new("a/+", QoS::AtMostOnce), SubscribeFilter::new("#", QoS::ExactlyOnce)];
    encode_subscribe(id, None, &filters, version, &mut out[7]);
    encode_suback(id, &[ReasonCode::Success, ReasonCode::UnspecifiedError], None, version, &mut out[8]);
    encode_unsubscribe(id, &["a", "b/c"], version, &mut out[9]);
    encode_unsuback(id, &[ReasonCode::Success], version, &mut out[10]);
    encode_pingreq(&mut out[11]);
    encode_pingresp(&mut out[12]);
    Disconnect::new(ReasonCode::ProtocolError).encode(version, &mut out[13]);
    if version.is_v5() {
        let mut auth = Auth::new(ReasonCode::ContinueAuthentication);
        auth.method = Some("method");
        auth.data = Some(b"data");
        out.push(Vec::new());
        auth.encode(&mut out[14]);
    }
    out
}

#[test]
fn every_prefix_is_incomplete() {
    for sample in VERSIONS.into_iter().flat_map(samples) {
        for cut in 0..sample.len() {
            let Ok(Frame::Incomplete { size }) = frame(&sample[..cut], u32::MAX) else {
                panic!("{:02x?} is not incomplete", &sample[..cut]);
            };
            let header = sample.iter().skip(1).take_while(|&&byte| byte & 0x80 != 0).count() + 2;
            assert_eq!(size, (cut >= header).then_some(sample.len()), "{cut} of {sample:02x?}");
        }
        assert!(matches!(frame(&sample, u32::MAX), Ok(Frame::Complete(raw)) if raw.size == sample.len()));
    }
}

#[test]
fn every_sample_decodes_from_one_side_at_least() {
    for version in VERSIONS {
        for sample in samples(version) {
            assert!(
                SENDERS.iter().any(|&sender| parse(&sample, version, sender).is_ok()),
                "{sample:02x?} in {version:?}"
            );
        }
    }
}

/// Feeds `input` in the pieces that `cuts` make, and gives the packets' first bytes and sizes until something is wrong.
fn feed(input: &[u8], cuts: &[usize], version: Version) -> (Vec<(u8, usize)>, Option<Malformed>) {
    let mut seen = Vec::new();
    let mut from = 0;
    for &cut in cuts {
        loop {
            match frame(&input[from..cut], 100_000) {
                Err(malformed) => return (seen, Some(malformed)),
                Ok(Frame::Incomplete { .. }) => break,
                Ok(Frame::Complete(raw)) => {
                    if let Err(malformed) = decode(raw, version, Sender::Client) {
                        return (seen, Some(malformed));
                    }
                    seen.push((raw.first_byte, raw.size));
                    from += raw.size;
                }
            }
        }
    }
    (seen, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes(first_byte in any::<u8>(), body in vec(any::<u8>(), 0..60), raw in vec(any::<u8>(), 0..60)) {
        for input in [raw, packet(first_byte, &body)] {
            if let Ok(Frame::Complete(raw)) = frame(&input, 100_000) {
                let _ = answer_version(&raw);
                for version in VERSIONS {
                    for sender in SENDERS {
                        if let Ok(packet) = decode(raw, version, sender) {
                            prop_assert!(exhaust(&packet) > 0);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn damaged_packets(
        version in 0..3_usize, which in any::<prop::sample::Index>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let samples = samples(VERSIONS[version]);
        let mut input = which.get(&samples).clone();
        for (at, byte) in damage {
            let at = at.index(input.len());
            input[at] = byte;
        }
        if let Ok(Frame::Complete(raw)) = frame(&input, 100_000) {
            for sender in SENDERS {
                if let Ok(packet) = decode(raw, VERSIONS[version], sender) {
                    prop_assert!(exhaust(&packet) > 0);
                }
            }
        }
    }

    #[test]
    fn cut_anywhere(
        version in 0..3_usize, picks in vec(any::<prop::sample::Index>(), 1..6),
        cuts in vec(any::<prop::sample::Index>(), 0..12), garbage in vec(any::<u8>(), 0..4),
    ) {
        let samples = samples(VERSIONS[version]);
        let mut input: Vec<u8> = picks.iter().flat_map(|pick| pick.get(&samples).clone()).collect();
        input.extend_from_slice(&garbage);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(input.len());
        prop_assert_eq!(
            feed(&input, &cuts, VERSIONS[version]),
            feed(&input, &[input.len()], VERSIONS[version])
        );
    }
}
