//! Fixed headers: types, flags, lengths, limits.

use super::*;

fn framed(vector: &str, packet_size_max: u32) -> Result<Option<usize>, Malformed> {
    Ok(match frame(&bytes(vector), packet_size_max)? {
        Frame::Complete(raw) => Some(raw.size),
        Frame::Incomplete { .. } => None,
    })
}

#[test]
fn flags_of_each_type() {
    for first_byte in 0..=u8::MAX {
        let flags = first_byte & 0x0F;
        let expected = match first_byte >> 4 {
            0 => Err(Malformed::ReservedPacketType),
            3 if matches!(flags, 6 | 7 | 14 | 15) => Err(Malformed::QosInvalid),
            3 => Ok(()),
            // DUP passes here, MQTT 3.1 has it.
            6 | 8 | 10 if matches!(flags, 2 | 10) => Ok(()),
            6 | 8 | 10 => Err(Malformed::FlagsInvalid),
            _ if flags == 0 => Ok(()),
            _ => Err(Malformed::FlagsInvalid),
        };
        // Refused as soon as the first byte is there, whatever follows.
        assert_eq!(frame(&[first_byte], 100).map(|_| ()), expected, "{first_byte:02x}");
        assert_eq!(frame(&[first_byte, 0], 100).map(|_| ()), expected, "{first_byte:02x}");
    }
}

#[test]
fn dup_is_for_mqtt_3_1() {
    for (vector, sender) in [
        ("6A 02 00 01", Sender::Client),
        ("6A 02 00 01", Sender::Server),
        ("8A 06 00 01 00 01'a'00", Sender::Client),
        ("AA 05 00 01 00 01'a'", Sender::Client),
    ] {
        let input = bytes(vector);
        assert!(parse(&input, Version::V310, sender).is_ok(), "{vector}");
        assert_eq!(parse(&input, Version::V311, sender), Err(Malformed::FlagsInvalid), "{vector}");
        assert_eq!(parse(&input, Version::V5, sender), Err(Malformed::FlagsInvalid), "{vector}");
    }
}

#[test]
fn lengths() {
    assert_eq!(framed("", 10), Ok(None));
    assert_eq!(framed("C0", 10), Ok(None));
    assert_eq!(framed("C0 00", 10), Ok(Some(2)));
    assert_eq!(framed("C0 00 C0 00", 10), Ok(Some(2)));
    assert_eq!(framed("30 80", u32::MAX), Ok(None));
    assert_eq!(framed("30 FF FF FF", u32::MAX), Ok(None));
    // Five bytes: known at the fourth.
    assert_eq!(framed("30 FF FF FF FF", u32::MAX), Err(Malformed::VariableByteIntegerTooLong));
    assert_eq!(framed("30 80 80 80 80 00", u32::MAX), Err(Malformed::VariableByteIntegerTooLong));
}

#[test]
fn a_packet_too_large_is_refused_at_its_header() {
    // 2 bytes of header and 8 of body.
    assert_eq!(framed("30 08", 10), Ok(None));
    assert_eq!(framed("30 08", 9), Err(Malformed::PacketTooLarge));
    assert_eq!(framed("30 FF FF FF 7F", 268_435_460), Ok(None));
    assert_eq!(framed("30 FF FF FF 7F", 268_435_459), Err(Malformed::PacketTooLarge));
    let Ok(Frame::Incomplete { size }) = frame(&bytes("30 80 01"), 131) else { panic!("refused") };
    assert_eq!(size, Some(131));
    assert_eq!(Malformed::PacketTooLarge.reason().byte(), 0x95);
}

#[test]
fn the_length_is_in_its_shortest_form_since_mqtt_5() {
    for (vector, sender) in [("C0 80 00", Sender::Client), ("D0 80 80 00", Sender::Server)] {
        let input = bytes(vector);
        let Ok(Frame::Complete(raw)) = frame(&input, 100) else { panic!("{vector} is incomplete") };
        assert_eq!(raw.size, input.len());
        assert!(decode(raw, Version::V311, sender).is_ok(), "{vector}");
        assert_eq!(decode(raw, Version::V5, sender), Err(Malformed::VariableByteIntegerNotMinimal));
    }
    let connect = |level: u8| [&bytes("10 8D 00 00 04'MQTT'")[..], &[level, 2, 0, 0, 0, 0, 0]].concat();
    let v5 = connect(5);
    assert_eq!(parse(&v5, Version::V311, Sender::Client), Err(Malformed::VariableByteIntegerNotMinimal));
    let v4 = [&bytes("10 8C 00")[..], &connect(4)[3..15]].concat();
    assert!(parse(&v4, Version::V5, Sender::Client).is_ok());
}

#[test]
fn pings_are_empty() {
    for version in [Version::V310, Version::V311, Version::V5] {
        assert_eq!(parse(&[0xC0, 0], version, Sender::Client), Ok(Packet::PingReq));
        assert_eq!(parse(&[0xD0, 0], version, Sender::Server), Ok(Packet::PingResp));
        assert_eq!(parse(&[0xC0, 1, 0], version, Sender::Client), Err(Malformed::TrailingBytes));
        assert_eq!(parse(&[0xD0, 1, 0], version, Sender::Server), Err(Malformed::TrailingBytes));
    }
    let mut out = Vec::new();
    encode_pingreq(&mut out);
    encode_pingresp(&mut out);
    assert_eq!(out, [0xC0, 0, 0xD0, 0]);
}

#[test]
fn each_side_sends_its_own_packets() {
    let (client, server) = (Sender::Client, Sender::Server);
    for (vector, version, sender) in [
        ("10 0D 00 04'MQTT'05 02 00 00 00 00 00", Version::V5, server),
        ("20 03 00 00 00", Version::V5, client),
        ("20 02 00 00", Version::V311, client),
        ("82 07 00 01 00 00 01'a'00", Version::V5, server),
        ("90 04 00 01 00 00", Version::V5, client),
        ("A2 06 00 01 00 00 01'a'", Version::V5, server),
        ("B0 04 00 01 00 00", Version::V5, client),
        ("C0 00", Version::V311, server),
        ("D0 00", Version::V311, client),
        ("E0 00", Version::V311, server),
        ("E0 00", Version::V310, server),
    ] {
        let input = bytes(vector);
        assert_eq!(parse(&input, version, sender), Err(Malformed::WrongDirection), "{vector}");
        let other = if sender == client { server } else { client };
        assert!(parse(&input, version, other).is_ok(), "{vector}");
    }
    assert_eq!(parse(&[0xF0, 0], Version::V311, server), Err(Malformed::ReservedPacketType));
    assert_eq!(parse(&[0xF0, 0], Version::V310, client), Err(Malformed::ReservedPacketType));
}

#[test]
fn integers_of_every_size() {
    for value in [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455] {
        let mut out = Vec::new();
        writer::put_variable_byte_integer(&mut out, value as usize);
        assert_eq!(out.len(), writer::variable_byte_integer_size(value));
        assert_eq!(reader::variable_byte_integer(&out), Ok(Some((value, out.len()))));
        let mut reader = reader::Reader::new(&out);
        assert_eq!(reader.variable_byte_integer(), Ok(value));
        assert_eq!(reader.finish(), Ok(()));
    }
    for (vector, value) in
        [("80 01", 128), ("FF 7F", 16_383), ("80 80 01", 16_384), ("FF FF FF 7F", 268_435_455)]
    {
        assert_eq!(reader::Reader::new(&bytes(vector)).variable_byte_integer(), Ok(value));
    }
}

#[test]
fn reasons() {
    use crate::base::ReasonCode as R;
    for (malformed, reason) in [
        (Malformed::FlagsInvalid, R::MalformedPacket),
        (Malformed::WillQosInvalid, R::MalformedPacket),
        (Malformed::PropertyNotAllowed, R::MalformedPacket),
        (Malformed::PropertyDuplicate, R::ProtocolError),
        (Malformed::WillFlagsWithoutWill, R::ProtocolError),
        (Malformed::DupWithQos0, R::ProtocolError),
        (Malformed::UnsupportedProtocolVersion, R::UnsupportedProtocolVersion),
        (Malformed::ProtocolNameInvalid, R::UnsupportedProtocolVersion),
        (Malformed::TopicNameInvalid, R::TopicNameInvalid),
        (Malformed::TopicAliasZero, R::TopicAliasInvalid),
        (Malformed::PacketTooLarge, R::PacketTooLarge),
    ] {
        assert_eq!(malformed.reason(), reason, "{malformed}");
    }
}
