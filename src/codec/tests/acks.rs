//! PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT and AUTH.

use super::*;
use crate::base::{PacketId, ReasonCode};

const ACKS: [(u8, AckKind); 4] =
    [(0x40, AckKind::PubAck), (0x50, AckKind::PubRec), (0x62, AckKind::PubRel), (0x70, AckKind::PubComp)];

fn ack(first_byte: u8, body: &str, version: Version) -> Result<Ack<'static>, Malformed> {
    let input = packet(first_byte, &bytes(body)).leak();
    match parse(input, version, Sender::Client)? {
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => Ok(ack),
        other => panic!("{other:?}"),
    }
}

#[test]
fn acks_of_every_length() {
    let plain = Ack {
        packet_id: PacketId::new(0x1234).unwrap(),
        reason: ReasonCode::Success,
        reason_string: None,
        user_properties: UserProperties::EMPTY,
    };
    let (v3, v5) = (Version::V311, Version::V5);
    for (first_byte, kind) in ACKS {
        let error =
            if first_byte < 0x60 { ReasonCode::NotAuthorized } else { ReasonCode::PacketIdentifierNotFound };
        let code = format!("{:02x}", error.byte());
        let failed = Ack { reason: error, ..plain };
        let explained = Ack { reason_string: Some("x"), ..failed };
        for (version, body, expected) in [
            (v3, "1234".to_owned(), Ok(plain)),
            (Version::V310, "1234".to_owned(), Ok(plain)),
            (v3, "1234 00".to_owned(), Err(Malformed::TrailingBytes)),
            (v3, "12".to_owned(), Err(Malformed::Truncated)),
            (v3, String::new(), Err(Malformed::Truncated)),
            (v3, "0000".to_owned(), Err(Malformed::PacketIdZero)),
            (v5, "1234".to_owned(), Ok(plain)),
            (v5, "1234 00".to_owned(), Ok(plain)),
            (v5, "1234 00 00".to_owned(), Ok(plain)),
            (v5, "0000".to_owned(), Err(Malformed::PacketIdZero)),
            (v5, format!("1234 {code}"), Ok(failed)),
            (v5, format!("1234 {code} 00"), Ok(failed)),
            (v5, format!("1234 {code} 04 1F0001'x'"), Ok(explained)),
            (v5, format!("1234 {code} 04 1F0001'x' 00"), Err(Malformed::TrailingBytes)),
            (v5, format!("1234 {code} 05 1F0001'x'"), Err(Malformed::Truncated)),
            (v5, format!("1234 {code} 08 1F0001'x'1F0001'x'"), Err(Malformed::PropertyDuplicate)),
            (v5, "1234 01".to_owned(), Err(Malformed::ReasonCodeInvalid)),
            (v5, "1234 FF".to_owned(), Err(Malformed::ReasonCodeInvalid)),
            (v5, "1234 82".to_owned(), Err(Malformed::ReasonCodeInvalid)),
        ] {
            assert_eq!(ack(first_byte, &body, version), expected, "{first_byte:02x} {body}");
        }
        let mut out = Vec::new();
        for (version, reason, reason_string, body) in [
            (v3, error, Some("x"), "1234".to_owned()),
            (v5, ReasonCode::Success, None, "1234".to_owned()),
            (v5, error, None, format!("1234 {code}")),
            (v5, error, Some("x"), format!("1234 {code} 04 1F0001'x'")),
        ] {
            out.clear();
            encode_ack(kind, plain.packet_id, reason, reason_string, version, &mut out);
            assert_eq!(out, packet(first_byte, &bytes(&body)), "{kind:?}");
        }
    }
}

#[test]
fn each_ack_has_its_codes() {
    let publish = [0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    let release = [0, 0x92];
    for (first_byte, _) in ACKS {
        let allowed: &[u8] = if first_byte < 0x60 { &publish } else { &release };
        for code in 0..=u8::MAX {
            let result = ack(first_byte, &format!("0001 {code:02x}"), Version::V5);
            assert_eq!(result.is_ok(), allowed.contains(&code), "{code:02x} in {first_byte:02x}");
        }
    }
}

#[test]
fn disconnect() {
    let (client, server) = (Sender::Client, Sender::Server);
    let normal = Disconnect::new(ReasonCode::Success);
    for (version, body, sender, expected) in [
        (Version::V310, "", client, Ok(normal)),
        (Version::V311, "", client, Ok(normal)),
        (Version::V311, "00", client, Err(Malformed::TrailingBytes)),
        (Version::V5, "", client, Ok(normal)),
        (Version::V5, "", server, Ok(normal)),
        (Version::V5, "00", client, Ok(normal)),
        (Version::V5, "00 00", client, Ok(normal)),
        (Version::V5, "04", client, Ok(Disconnect::new(ReasonCode::DisconnectWithWill))),
        (Version::V5, "04", server, Err(Malformed::ReasonCodeInvalid)),
        (Version::V5, "8B 00", server, Ok(Disconnect::new(ReasonCode::ServerShuttingDown))),
        (Version::V5, "8B 00", client, Err(Malformed::ReasonCodeInvalid)),
        (Version::V5, "00 05 11 00000009", client, Ok(Disconnect { session_expiry: Some(9), ..normal })),
        (Version::V5, "00 05 11 00000009", server, Err(Malformed::SessionExpiryFromServer)),
        (Version::V5, "00 04 1C 0001's'", server, Ok(Disconnect { server_reference: Some("s"), ..normal })),
        (Version::V5, "00 04 1C 0001's'", client, Err(Malformed::PropertyNotAllowed)),
        (Version::V5, "00 00 00", client, Err(Malformed::TrailingBytes)),
        (Version::V5, "00 01", client, Err(Malformed::Truncated)),
    ] {
        let input = packet(0xE0, &bytes(body));
        assert_eq!(parse(&input, version, sender), expected.map(Packet::Disconnect), "{body}");
    }
    for (disconnect, version, expected) in [
        (Disconnect::new(ReasonCode::Success), Version::V5, "E0 00"),
        (Disconnect::new(ReasonCode::SessionTakenOver), Version::V5, "E0 02 8E 00"),
        (Disconnect::new(ReasonCode::DisconnectWithWill), Version::V311, "E0 00"),
        (Disconnect { session_expiry: Some(0), ..normal }, Version::V5, "E0 07 00 05 11 00000000"),
    ] {
        let mut out = Vec::new();
        disconnect.encode(version, &mut out);
        assert_eq!(out, bytes(expected));
    }
}

#[test]
fn each_side_disconnects_with_its_codes() {
    let client = [0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    let server = [
        0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
        0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ];
    for code in 0..=u8::MAX {
        let input = [0xE0, 1, code];
        assert_eq!(parse(&input, Version::V5, Sender::Client).is_ok(), client.contains(&code), "{code:02x}");
        assert_eq!(parse(&input, Version::V5, Sender::Server).is_ok(), server.contains(&code), "{code:02x}");
    }
}

#[test]
fn auth() {
    let (client, server) = (Sender::Client, Sender::Server);
    let with_method = |reason| Auth { method: Some("m"), ..Auth::new(reason) };
    let continued = with_method(ReasonCode::ContinueAuthentication);
    for (body, sender, expected) in [
        ("18 04 15 0001'm'", client, Ok(continued)),
        ("18 04 15 0001'm'", server, Ok(continued)),
        ("18 08 15 0001'm' 16 0001 00", server, Ok(Auth { data: Some(&[0]), ..continued })),
        ("19 04 15 0001'm'", client, Ok(with_method(ReasonCode::ReAuthenticate))),
        ("19 04 15 0001'm'", server, Err(Malformed::ReasonCodeInvalid)),
        ("00 04 15 0001'm'", server, Ok(with_method(ReasonCode::Success))),
        ("00 04 15 0001'm'", client, Err(Malformed::ReasonCodeInvalid)),
        ("", server, Ok(Auth::new(ReasonCode::Success))),
        ("", client, Err(Malformed::ReasonCodeInvalid)),
        ("18", client, Err(Malformed::Truncated)),
        ("18 00", client, Err(Malformed::AuthenticationMethodMissing)),
        ("18 04 16 0001 00", client, Err(Malformed::AuthenticationMethodMissing)),
        ("87 04 15 0001'm'", client, Err(Malformed::ReasonCodeInvalid)),
        ("18 04 15 0001'm' 00", client, Err(Malformed::TrailingBytes)),
        ("18 08 15 0001'm' 15 0001'm'", client, Err(Malformed::PropertyDuplicate)),
    ] {
        let input = packet(0xF0, &bytes(body));
        assert_eq!(parse(&input, Version::V5, sender), expected.map(Packet::Auth), "{body}");
    }
    let mut out = Vec::new();
    Auth::new(ReasonCode::Success).encode(&mut out);
    continued.encode(&mut out);
    assert_eq!(out, bytes("F0 00 F0 06 18 04 15 0001'm'"));
    let secret = Auth { data: Some(b"secret"), ..continued };
    assert!(!format!("{secret:?}").contains("115, 101"), "authentication data are not shown");
}
