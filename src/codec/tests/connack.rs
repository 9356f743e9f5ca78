//! CONNACK.

use super::*;
use crate::base::{QoS, ReasonCode};

#[test]
fn accepted_and_refused() {
    let (v3, v31, v5) = (Version::V311, Version::V310, Version::V5);
    let success = ConnAck::new(false, ReasonCode::Success);
    let resumed = ConnAck::new(true, ReasonCode::Success);
    for (version, body, expected) in [
        (v3, "00 00", Ok(success)),
        (v3, "01 00", Ok(resumed)),
        (v5, "01 00 00", Ok(resumed)),
        (v3, "00 01", Ok(ConnAck::new(false, ReasonCode::UnsupportedProtocolVersion))),
        (v3, "00 02", Ok(ConnAck::new(false, ReasonCode::ClientIdentifierNotValid))),
        (v3, "00 03", Ok(ConnAck::new(false, ReasonCode::ServerUnavailable))),
        (v3, "00 04", Ok(ConnAck::new(false, ReasonCode::BadUserNameOrPassword))),
        (v3, "00 05", Ok(ConnAck::new(false, ReasonCode::NotAuthorized))),
        (v3, "00 06", Err(Malformed::ReasonCodeInvalid)),
        (v3, "02 00", Err(Malformed::ConnAckFlagReserved)),
        (v5, "80 00 00", Err(Malformed::ConnAckFlagReserved)),
        (v3, "01 05", Err(Malformed::SessionPresentOnError)),
        (v5, "01 87 00", Err(Malformed::SessionPresentOnError)),
        // The whole byte is reserved in MQTT 3.1.
        (v31, "01 00", Ok(success)),
        (v31, "FF 05", Ok(ConnAck::new(false, ReasonCode::NotAuthorized))),
        (v3, "00", Err(Malformed::Truncated)),
        (v3, "00 00 00", Err(Malformed::TrailingBytes)),
        (v5, "00 00", Err(Malformed::Truncated)),
        (v5, "00 00 00 00", Err(Malformed::TrailingBytes)),
        (v5, "00 00 02 24 00", Ok(ConnAck { maximum_qos: Some(QoS::AtMostOnce), ..success })),
        (v5, "00 00 02 24 01", Ok(ConnAck { maximum_qos: Some(QoS::AtLeastOnce), ..success })),
        (v5, "00 00 02 24 02", Err(Malformed::MaximumQosInvalid)),
        (v5, "00 00 02 25 02", Err(Malformed::PropertyNotBoolean)),
        (v5, "00 00 02 28 02", Err(Malformed::PropertyNotBoolean)),
        (v5, "00 00 02 29 02", Err(Malformed::PropertyNotBoolean)),
        (v5, "00 00 02 2A 02", Err(Malformed::PropertyNotBoolean)),
        (v5, "00 00 03 21 0000", Err(Malformed::ReceiveMaximumZero)),
        (v5, "00 00 05 27 00000000", Err(Malformed::PacketSizeMaxZero)),
    ] {
        let input = packet(0x20, &bytes(body));
        assert_eq!(parse(&input, version, Sender::Server), expected.map(Packet::ConnAck), "{body}");
    }
}

#[test]
fn codes() {
    let allowed = [
        0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
        0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
    ];
    for code in 0..=u8::MAX {
        let input = [0x20, 3, 0, code, 0];
        assert_eq!(parse(&input, Version::V5, Sender::Server).is_ok(), allowed.contains(&code), "{code:02x}");
    }
}

#[test]
fn encoded_bytes() {
    let mut connack = ConnAck::new(true, ReasonCode::Success);
    connack.topic_alias_maximum = Some(16);
    connack.authentication_data = Some(b"secret");
    assert!(!format!("{connack:?}").contains("115, 101"), "authentication data are not shown");
    connack.authentication_data = None;
    for (version, expected) in [
        (Version::V310, "20 02 00 00"),
        (Version::V311, "20 02 01 00"),
        (Version::V5, "20 06 01 00 03 22 0010"),
    ] {
        let mut out = Vec::new();
        connack.encode(version, &mut out);
        assert_eq!(out, bytes(expected));
    }
    let mut out = Vec::new();
    ConnAck::new(false, ReasonCode::NotAuthorized).encode(Version::V311, &mut out);
    ConnAck::new(false, ReasonCode::NotAuthorized).encode(Version::V5, &mut out);
    assert_eq!(out, bytes("20 02 00 05 20 03 00 87 00"));
}
