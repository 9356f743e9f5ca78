//! PUBLISH.

use super::*;
use crate::base::{PacketId, QoS};
use std::num::NonZeroU16;

const PLAIN: Publish<'static> = Publish {
    dup: false,
    qos: QoS::AtMostOnce,
    retain: false,
    topic: "t",
    packet_id: None,
    topic_alias: None,
    expiry: None,
    subscription_ids: SubscriptionIds::EMPTY,
    properties: MessageProperties::EMPTY,
    payload: b"",
};

fn publish(first_byte: u8, body: &str, version: Version) -> Result<Publish<'static>, Malformed> {
    let input = packet(first_byte, &bytes(body)).leak();
    match parse(input, version, Sender::Client)? {
        Packet::Publish(publish) => Ok(publish),
        other => panic!("{other:?}"),
    }
}

#[test]
fn accepted() {
    let (v3, v5) = (Version::V311, Version::V5);
    let one = Publish { qos: QoS::AtLeastOnce, packet_id: PacketId::new(1), ..PLAIN };
    let two = Publish { qos: QoS::ExactlyOnce, packet_id: PacketId::new(0xFFFF), ..PLAIN };
    let alias = NonZeroU16::new(3);
    for (version, first_byte, body, expected) in [
        (v3, 0x30, "0001't'", PLAIN),
        (Version::V310, 0x30, "0001't'", PLAIN),
        (v3, 0x31, "0001't' 00FF", Publish { retain: true, payload: &[0, 0xFF], ..PLAIN }),
        (v3, 0x32, "0001't' 0001'p'", Publish { payload: b"p", ..one }),
        (v3, 0x3A, "0001't' 0001", Publish { dup: true, ..one }),
        (v3, 0x34, "0001't' FFFF", two),
        (v3, 0x3D, "0001't' FFFF", Publish { dup: true, retain: true, ..two }),
        (v5, 0x30, "0001't' 00", PLAIN),
        (v5, 0x32, "0001't' 0001 00 'p'", Publish { payload: b"p", ..one }),
        (v5, 0x30, "0000 03 23 0003", Publish { topic: "", topic_alias: alias, ..PLAIN }),
        (v5, 0x30, "0001't' 03 23 0003", Publish { topic_alias: alias, ..PLAIN }),
        (v5, 0x30, "0001't' 05 02 00000000", Publish { expiry: Some(0), ..PLAIN }),
        (v5, 0x30, "0001't' 05 02 FFFFFFFF", Publish { expiry: Some(u32::MAX), ..PLAIN }),
        (v3, 0x30, "0004'$a/ '", Publish { topic: "$a/ ", ..PLAIN }),
        (v3, 0x30, "0003 EFBFBF", Publish { topic: "\u{FFFF}", ..PLAIN }),
    ] {
        assert_eq!(publish(first_byte, body, version), Ok(expected), "{first_byte:02x} {body}");
    }
    // A payload is not checked, even if it says that it is UTF-8.
    let utf8 = publish(0x30, "0001't' 02 01 01 FF", v5).unwrap();
    assert!(utf8.properties.iter().eq([Property::PayloadFormatIndicator(true)]));
    assert_eq!(utf8.payload, [0xFF]);
}

/// They are checked in one go: none is lost, whatever stands between them.
#[test]
fn user_properties_behind_each_other() {
    let (short, long) = ("0123456789abcdef".repeat(2), "0123456789abcdefg".repeat(2));
    let texts = ["", "v", "\u{1}", "\u{7f}", "ü", &short, &long, "\u{FFFF}"];
    let mut many = Vec::new();
    for (name, value) in texts.iter().flat_map(|name| texts.map(|value| (*name, value))) {
        properties::push_user_property(&mut many, name, value);
    }
    let expiry = bytes("02 00000009");
    for (between, forwarded) in [(&[][..], &[][..]), (&expiry, &[]), (&[1, 1], &[1, 1])] {
        let mut body = bytes("0001't'");
        writer::put_prefixed(&mut body, |out| out.extend([&many[..], between, &many].concat()));
        let input = packet(0x30, &body);
        let Ok(Packet::Publish(publish)) = parse(&input, Version::V5, Sender::Client) else {
            panic!("{between:?}")
        };
        assert_eq!(publish.properties.forward(&mut Vec::new()), [&many[..], forwarded, &many].concat());
        assert_eq!(publish.properties.iter().count(), 2 * texts.len().pow(2) + forwarded.len() / 2);
    }
}

/// One that is wrong is refused for the same reason wherever it stands.
#[test]
fn a_wrong_user_property_behind_others() {
    for (wrong, reason) in [
        ("26 0001'k' 0001 00", Malformed::NullCharacter),
        ("26 0001 00 0001'v'", Malformed::NullCharacter),
        ("26 0001'k' 0001 FF", Malformed::Utf8Invalid),
        ("26 0001 C3 0001 BC", Malformed::Utf8Invalid),
        ("26 0003 EDA080 0001'v'", Malformed::Utf8Invalid),
        ("26 0001'k' 0002'v'", Malformed::Truncated),
        ("26 0001'k' 00", Malformed::Truncated),
        ("26 0001'k'", Malformed::Truncated),
        ("26", Malformed::Truncated),
        ("A600 0001'k' 0001'v'", Malformed::VariableByteIntegerNotMinimal),
        ("27 00000000", Malformed::PacketSizeMaxZero),
        ("21 0001", Malformed::PropertyNotAllowed),
    ] {
        for before in ["", "26 0001'k' 0001'v'", "26 0001'k' 0001'v' 26 0000 0002'ab'"] {
            let mut body = bytes("0001't'");
            writer::put_prefixed(&mut body, |out| out.extend([bytes(before), bytes(wrong)].concat()));
            let input = packet(0x30, &body);
            assert_eq!(parse(&input, Version::V5, Sender::Client).err(), Some(reason), "{before} {wrong}");
        }
    }
}

#[test]
fn refused() {
    let (v3, v5) = (Version::V311, Version::V5);
    for (version, first_byte, body, malformed) in [
        (v3, 0x36, "0001't' 0001", Malformed::QosInvalid),
        (v3, 0x38, "0001't'", Malformed::DupWithQos0),
        (v5, 0x39, "0001't' 00", Malformed::DupWithQos0),
        (v3, 0x30, "", Malformed::Truncated),
        (v3, 0x30, "00", Malformed::Truncated),
        (v3, 0x30, "0002't'", Malformed::Truncated),
        (v3, 0x32, "0001't' 00", Malformed::Truncated),
        (v3, 0x32, "0001't' 0000", Malformed::PacketIdZero),
        (v5, 0x34, "0001't' 0000 00", Malformed::PacketIdZero),
        (v3, 0x30, "0000", Malformed::TopicNameMissing),
        (v5, 0x30, "0000 00", Malformed::TopicNameMissing),
        (v3, 0x30, "0001'+'", Malformed::TopicNameInvalid),
        (v3, 0x30, "0003'a/#'", Malformed::TopicNameInvalid),
        (v5, 0x30, "0003'a+b' 00", Malformed::TopicNameInvalid),
        (v5, 0x30, "0001'#' 03 23 0001", Malformed::TopicNameInvalid),
        (v3, 0x30, "0002't'00", Malformed::NullCharacter),
        (v3, 0x30, "0002'+'00", Malformed::NullCharacter),
        (v3, 0x30, "0001 FF", Malformed::Utf8Invalid),
        (v3, 0x30, "0003 EDBFBF", Malformed::Utf8Invalid),
        (v5, 0x30, "0001't'", Malformed::Truncated),
        (v5, 0x30, "0001't' 01", Malformed::Truncated),
        (v5, 0x30, "0001't' 80", Malformed::Truncated),
        (v5, 0x30, "0001't' 8000", Malformed::VariableByteIntegerNotMinimal),
        (v5, 0x30, "0001't' FFFFFFFF", Malformed::VariableByteIntegerTooLong),
        (v5, 0x30, "0001't' 03 23 0000", Malformed::TopicAliasZero),
        (v5, 0x30, "0001't' 06 23 0001 23 0001", Malformed::PropertyDuplicate),
        (v5, 0x30, "0001't' 02 01 02", Malformed::PropertyNotBoolean),
        (v5, 0x30, "0001't' 02 0B 01", Malformed::SubscriptionIdFromClient),
        (v5, 0x30, "0001't' 04 08 0001'+'", Malformed::ResponseTopicInvalid),
        (v5, 0x30, "0001't' 04 08 0001 00", Malformed::NullCharacter),
        (v5, 0x30, "0001't' 04 03 0001 FF", Malformed::Utf8Invalid),
        // A property that reaches over the end of its block, but not of the packet.
        (v5, 0x30, "0001't' 02 23 0001", Malformed::Truncated),
    ] {
        assert_eq!(publish(first_byte, body, version), Err(malformed), "{first_byte:02x} {body}");
    }
}

#[test]
fn a_server_names_subscriptions() {
    let input = packet(0x30, &bytes("0001't' 05 0B 01 0B 8001 'p'"));
    let Ok(Packet::Publish(publish)) = parse(&input, Version::V5, Sender::Server) else { panic!("refused") };
    let ids: Vec<u32> = publish.subscription_ids.iter().map(std::num::NonZeroU32::get).collect();
    assert_eq!((ids, publish.payload), (vec![1, 128], &b"p"[..]));
    let zero = packet(0x30, &bytes("0001't' 02 0B 00"));
    assert_eq!(parse(&zero, Version::V5, Sender::Server), Err(Malformed::SubscriptionIdZero));
}

#[test]
fn forwarded_properties_are_borrowed_where_they_stand_together() {
    let user = bytes("26 0001'a' 0001'b' 03 0001'c'");
    for (properties, copied) in [
        ("0E 23 0001 26 0001'a' 0001'b' 03 0001'c'", false),
        ("10 26 0001'a' 0001'b' 03 0001'c' 02 00000001", false),
        ("0E 26 0001'a' 0001'b' 23 0001 03 0001'c'", true),
    ] {
        let publish = publish(0x30, &format!("0001't' {properties} 'payload'"), Version::V5).unwrap();
        let mut scratch = Vec::new();
        assert_eq!(publish.properties.forward(&mut scratch), user, "{properties}");
        assert_eq!(!scratch.is_empty(), copied, "{properties}");
        assert_eq!(publish.payload, b"payload");
    }
    let none = publish(0x30, "0001't' 03 23 0001", Version::V5).unwrap();
    assert!(none.properties.is_empty() && none.properties.forward(&mut Vec::new()).is_empty());
}

#[test]
fn encoded_bytes() {
    let delivery = Delivery {
        dup: true,
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "t",
        topic_alias: NonZeroU16::new(2),
        packet_id: PacketId::new(0x0102),
        expiry: Some(3),
        subscription_ids: &[1, 200],
        properties: &bytes("03 0001'c'"),
        payload: b"pay",
    };
    for (version, expected) in [
        (Version::V311, "3B 08 0001't' 0102 'pay'"),
        (Version::V5, "3B 1A 0001't' 0102 11 02 00000003 23 0002 0B 01 0B C801 03 0001'c' 'pay'"),
    ] {
        let mut out = Vec::new();
        delivery.encode(version, &mut out);
        assert_eq!(out, bytes(expected));
    }
    for payload_size in [0, 123, 124, 16_379, 16_380, 2_097_147, 2_097_148] {
        let payload = vec![1; payload_size];
        let large =
            Delivery { qos: QoS::AtMostOnce, dup: false, packet_id: None, payload: &payload, ..delivery };
        let mut out = Vec::new();
        large.encode(Version::V311, &mut out);
        assert_eq!(out.len(), large.size(Version::V311));
        assert!(
            matches!(parse(&out, Version::V311, Sender::Server), Ok(Packet::Publish(publish)) if publish.payload == payload)
        );
    }
}
