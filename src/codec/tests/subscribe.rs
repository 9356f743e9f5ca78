//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK; and which properties belong to which packet.

use super::*;
use crate::base::{PacketId, QoS, ReasonCode};
use std::num::NonZeroU32;

/// Every property there is, with its identifier.
pub(super) const EVERY_PROPERTY: &[(u8, &str)] = &[
    (0x01, "01 01"),
    (0x02, "02 00000001"),
    (0x03, "03 0001'c'"),
    (0x08, "08 0001'r'"),
    (0x09, "09 0001 00"),
    (0x0B, "0B 01"),
    (0x11, "11 00000001"),
    (0x12, "12 0001'a'"),
    (0x13, "13 0001"),
    (0x15, "15 0001'm'"),
    (0x16, "16 0001 00"),
    (0x17, "17 01"),
    (0x18, "18 00000001"),
    (0x19, "19 01"),
    (0x1A, "1A 0001'i'"),
    (0x1C, "1C 0001's'"),
    (0x1F, "1F 0001'r'"),
    (0x21, "21 0001"),
    (0x22, "22 0001"),
    (0x23, "23 0001"),
    (0x24, "24 01"),
    (0x25, "25 01"),
    (0x26, "26 0001'n' 0001'v'"),
    (0x27, "27 00000001"),
    (0x28, "28 01"),
    (0x29, "29 01"),
    (0x2A, "2A 01"),
];

/// `head`, then a block of properties, then `tail`.
fn with_properties(first_byte: u8, head: &str, properties: &str, tail: &str) -> Vec<u8> {
    let properties = bytes(properties);
    let mut body = bytes(head);
    writer::put_prefixed(&mut body, |out| out.extend_from_slice(&properties));
    body.extend_from_slice(&bytes(tail));
    packet(first_byte, &body)
}

#[test]
fn each_packet_has_its_properties() {
    use Sender::{Client, Server};
    let message = [0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26];
    let connack = [
        0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A,
    ];
    let packets: &[(u8, &str, &str, Sender, &[u8])] = &[
        (0x20, "00 00", "", Server, &connack),
        (0x30, "0001't'", "'payload'", Client, &message),
        (0x32, "0001't' 0001", "", Client, &message),
        (0x40, "0001 00", "", Client, &[0x1F, 0x26]),
        (0x50, "0001 00", "", Server, &[0x1F, 0x26]),
        (0x62, "0001 00", "", Client, &[0x1F, 0x26]),
        (0x70, "0001 00", "", Server, &[0x1F, 0x26]),
        (0x82, "0001", "0001'f' 00", Client, &[0x0B, 0x26]),
        (0x90, "0001", "00", Server, &[0x1F, 0x26]),
        (0xA2, "0001", "0001'f'", Client, &[0x26]),
        (0xB0, "0001", "00", Server, &[0x1F, 0x26]),
        (0xE0, "00", "", Client, &[0x11, 0x1F, 0x26]),
        (0xE0, "00", "", Server, &[0x1C, 0x1F, 0x26]),
        (0xF0, "18", "", Client, &[0x15, 0x16, 0x1F, 0x26]),
    ];
    for (first_byte, head, tail, sender, allowed) in packets {
        for (id, property) in EVERY_PROPERTY {
            let input = with_properties(*first_byte, head, property, tail);
            let result = parse(&input, Version::V5, *sender).map(|_| ());
            let expected = match (first_byte, id, sender) {
                (0x30 | 0x32, 0x0B, Client) => Err(Malformed::SubscriptionIdFromClient),
                (0xE0, 0x11, Server) => Err(Malformed::SessionExpiryFromServer),
                (0xF0, _, _) if allowed.contains(id) && *id != 0x15 => {
                    Err(Malformed::AuthenticationMethodMissing)
                }
                _ if allowed.contains(id) => Ok(()),
                _ => Err(Malformed::PropertyNotAllowed),
            };
            assert_eq!(result, expected, "{property} in {first_byte:02x} from {sender:?}");
            if expected.is_ok() {
                let twice = format!("{property} {property}");
                let input = with_properties(*first_byte, head, &twice, tail);
                let result = parse(&input, Version::V5, *sender).map(|_| ());
                let expected = if *id == 0x26 { Ok(()) } else { Err(Malformed::PropertyDuplicate) };
                assert_eq!(result, expected, "{twice} in {first_byte:02x} from {sender:?}");
            }
        }
    }
}

fn subscribe(version: Version, body: &str) -> Result<Vec<SubscribeFilter<'static>>, Malformed> {
    let input = packet(0x82, &bytes(body)).leak();
    match parse(input, version, Sender::Client)? {
        Packet::Subscribe(subscribe) => Ok(subscribe.filters().collect()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn subscribe_accepted() {
    let a = SubscribeFilter::new("a", QoS::AtLeastOnce);
    let b = SubscribeFilter::new("b/#", QoS::ExactlyOnce);
    for version in [Version::V310, Version::V311] {
        assert_eq!(subscribe(version, "000A 0001'a'01 0003'b/#'02"), Ok(vec![a, b]));
    }
    assert_eq!(subscribe(Version::V5, "000A 00 0001'a'01 0003'b/#'02"), Ok(vec![a, b]));
    let options = SubscribeFilter {
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::Never,
        ..a
    };
    assert_eq!(subscribe(Version::V5, "000A 00 0001'a'2D"), Ok(vec![options]));
    let options = SubscribeFilter { retain_handling: RetainHandling::SendIfNew, ..a };
    assert_eq!(subscribe(Version::V5, "000A 00 0001'a'11"), Ok(vec![options]));
    // Which filters are well-formed is for SUBACK to say.
    assert_eq!(subscribe(Version::V311, "000A 0003'#/a'00").map(|filters| filters.len()), Ok(1));

    let input = with_properties(0x82, "000A", "0B FFFFFF7F 26 0000 0000", "0001'a'00");
    let Ok(Packet::Subscribe(packet)) = parse(&input, Version::V5, Sender::Client) else { panic!("refused") };
    assert_eq!(packet.packet_id, PacketId::new(10).unwrap());
    assert_eq!(packet.subscription_id, NonZeroU32::new(268_435_455));
    assert_eq!(packet.user_properties.iter().collect::<Vec<_>>(), [("", "")]);
}

#[test]
fn subscribe_refused() {
    let (v3, v5) = (Version::V311, Version::V5);
    for (version, body, malformed) in [
        (v3, "0000 0001'a'00", Malformed::PacketIdZero),
        (v3, "00", Malformed::Truncated),
        (v3, "0001", Malformed::NoTopicFilter),
        (v5, "0001 00", Malformed::NoTopicFilter),
        (v5, "0001", Malformed::Truncated),
        (v3, "0001 0001'a'", Malformed::Truncated),
        (v3, "0001 0002'a'00 00", Malformed::NullCharacter),
        (v3, "0001 0001 FF 00", Malformed::Utf8Invalid),
        (v3, "0001 0001'a'03", Malformed::SubscriptionQosInvalid),
        (v5, "0001 00 0001'a'03", Malformed::SubscriptionQosInvalid),
        (v3, "0001 0001'a'04", Malformed::SubscriptionOptionReserved),
        (v3, "0001 0001'a'10", Malformed::SubscriptionOptionReserved),
        (Version::V310, "0001 0001'a'80", Malformed::SubscriptionOptionReserved),
        (v5, "0001 00 0001'a'40", Malformed::SubscriptionOptionReserved),
        (v5, "0001 00 0001'a'80", Malformed::SubscriptionOptionReserved),
        (v5, "0001 00 0001'a'30", Malformed::RetainHandlingInvalid),
        (v3, "0001 0001'a'00 0001'b'", Malformed::Truncated),
        (v5, "0001 02 0B00 0001'a'00", Malformed::SubscriptionIdZero),
        (v5, "0001 04 0B010B02 0001'a'00", Malformed::PropertyDuplicate),
        (v5, "0001 05 0BFFFFFFFF 0001'a'00", Malformed::VariableByteIntegerTooLong),
        (v5, "0001 03 0B8100 0001'a'00", Malformed::VariableByteIntegerNotMinimal),
        (v5, "0001 8000 0001'a'00", Malformed::VariableByteIntegerNotMinimal),
    ] {
        assert_eq!(subscribe(version, body), Err(malformed), "{body}");
    }
}

#[test]
fn unsubscribe() {
    for (version, body, expected) in [
        (Version::V310, "0001 0001'a' 0002'#b'", Ok(vec!["a", "#b"])),
        (Version::V311, "0001 0001'a'", Ok(vec!["a"])),
        (Version::V5, "0001 00 0001'a'", Ok(vec!["a"])),
        (Version::V5, "0001 05 2600000000 0001'a'", Ok(vec!["a"])),
        (Version::V311, "0001", Err(Malformed::NoTopicFilter)),
        (Version::V5, "0001 00", Err(Malformed::NoTopicFilter)),
        (Version::V311, "0000 0001'a'", Err(Malformed::PacketIdZero)),
        (Version::V311, "0001 0002'a'", Err(Malformed::Truncated)),
        (Version::V311, "0001 0001 00", Err(Malformed::NullCharacter)),
        (Version::V311, "0001 0001 80", Err(Malformed::Utf8Invalid)),
    ] {
        let input = packet(0xA2, &bytes(body));
        let result = parse(&input, version, Sender::Client).map(|packet| match packet {
            Packet::Unsubscribe(unsubscribe) => unsubscribe.filters().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        });
        assert_eq!(result, expected, "{body}");
    }
}

#[test]
fn suback() {
    let (v3, v5) = (Version::V311, Version::V5);
    for (version, body, expected) in [
        (v3, "0001 00010280", Ok(vec![0, 1, 2, 0x80])),
        (Version::V310, "0001 0001", Ok(vec![0, 1])),
        (v5, "0001 00 00010280838F", Ok(vec![0, 1, 2, 0x80, 0x83, 0x8F])),
        (v3, "0001 03", Err(Malformed::ReasonCodeInvalid)),
        (v3, "0001 87", Err(Malformed::ReasonCodeInvalid)),
        (v5, "0001 00 11", Err(Malformed::ReasonCodeInvalid)),
        (v5, "0001 00 FF", Err(Malformed::ReasonCodeInvalid)),
        (v5, "0001", Err(Malformed::Truncated)),
        (v3, "0000 00", Err(Malformed::PacketIdZero)),
    ] {
        let input = packet(0x90, &bytes(body));
        let result = parse(&input, version, Sender::Server).map(|packet| match packet {
            Packet::SubAck(suback) => suback.codes().map(ReasonCode::byte).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        });
        assert_eq!(result, expected, "{body}");
    }
    let id = PacketId::FIRST;
    let codes = [ReasonCode::GrantedQos2, ReasonCode::NotAuthorized];
    for (version, expected) in
        [(Version::V310, "90 04 0001 0280"), (v3, "90 04 0001 0280"), (v5, "90 08 0001 03 1F 0000 0287")]
    {
        let mut out = Vec::new();
        encode_suback(id, &codes, Some(""), version, &mut out);
        assert_eq!(out, bytes(expected), "{version:?}");
    }
}

#[test]
fn unsuback() {
    let (v3, v5) = (Version::V311, Version::V5);
    for (version, body, expected) in [
        (v3, "0001", Ok(vec![])),
        (v3, "0001 00", Err(Malformed::TrailingBytes)),
        (v5, "0001 00 00118F", Ok(vec![0, 0x11, 0x8F])),
        (v5, "0001 00 01", Err(Malformed::ReasonCodeInvalid)),
        (v5, "0001", Err(Malformed::Truncated)),
        (v3, "0000", Err(Malformed::PacketIdZero)),
    ] {
        let input = packet(0xB0, &bytes(body));
        let result = parse(&input, version, Sender::Server).map(|packet| match packet {
            Packet::UnsubAck(unsuback) => unsuback.codes().map(ReasonCode::byte).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        });
        assert_eq!(result, expected, "{body}");
    }
    for (version, expected) in [(v3, "B0 02 0001"), (v5, "B0 05 0001 00 0011")] {
        let mut out = Vec::new();
        let codes = [ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
        encode_unsuback(PacketId::FIRST, &codes, version, &mut out);
        assert_eq!(out, bytes(expected), "{version:?}");
    }
}
