//! CONNECT and wills.

use super::*;
use crate::base::QoS;
use std::num::{NonZeroU16, NonZeroU32};

/// A CONNECT from what follows the fixed header.
fn connect(body: &str) -> Vec<u8> {
    packet(0x10, &bytes(body))
}

fn decoded(input: &[u8]) -> Connect<'_> {
    match parse(input, Version::V311, Sender::Client) {
        Ok(Packet::Connect(connect)) => connect,
        other => panic!("{input:02x?} gives {other:?}"),
    }
}

fn refused(body: &str) -> Malformed {
    parse(&connect(body), Version::V311, Sender::Client).expect_err(body)
}

/// A MQTT 5 CONNECT without payload fields but an empty client id.
fn with_properties(properties: &str) -> Vec<u8> {
    let properties = bytes(properties);
    let mut body = bytes("0004'MQTT' 05 02 0000");
    writer::put_prefixed(&mut body, |out| out.extend_from_slice(&properties));
    body.extend_from_slice(&[0, 0]);
    packet(0x10, &body)
}

fn with_will_properties(properties: &str) -> Vec<u8> {
    let properties = bytes(properties);
    let mut body = bytes("0004'MQTT' 05 06 0000 00 0000");
    writer::put_prefixed(&mut body, |out| out.extend_from_slice(&properties));
    body.extend_from_slice(&bytes("0001'w' 0001'x'"));
    packet(0x10, &body)
}

#[test]
fn minimal_of_each_version() {
    for (body, version) in [
        ("0006'MQIsdp' 03 02 003C 0002'id'", Version::V310),
        ("0004'MQTT' 04 02 003C 0002'id'", Version::V311),
        ("0004'MQTT' 05 02 003C 00 0002'id'", Version::V5),
    ] {
        assert_eq!(decoded(&connect(body)), Connect::new(version, "id", true, 60), "{body}");
    }
    assert_eq!(decoded(&connect("0004'MQTT' 04 00 0000 0000")), Connect::new(Version::V311, "", false, 0));
}

#[test]
fn everything_at_once() {
    let input = connect(
        "0004'MQTT' 05 F6 000A
         2A 11 00000064 21 0005 27 00000400 22 000A 19 01 17 00 15 0001'm' 16 0002 FF00
            26 0001'a' 0001'b' 26 0001'a' 0000
         0002'id'
         1E 18 00000007 02 00000008 01 01 03 0001't' 08 0001'r' 09 0001 00 26 0000 0001'v'
         0003'w/t' 0002 0001 0001'u' 0002 00FF",
    );
    let connect = decoded(&input);
    let will = connect.will.unwrap();
    assert_eq!((will.qos, will.retain), (QoS::ExactlyOnce, true));
    assert_eq!((will.topic, will.payload), ("w/t", &[0, 1][..]));
    assert_eq!((will.delay, will.expiry), (7, Some(8)));
    let expected = [
        Property::PayloadFormatIndicator(true),
        Property::ContentType("t"),
        Property::ResponseTopic("r"),
        Property::CorrelationData(&[0]),
        Property::UserProperty("", "v"),
    ];
    assert!(will.properties.iter().eq(expected));
    assert_eq!((connect.username, connect.password), (Some("u"), Some(&[0, 0xFF][..])));
    assert_eq!(connect.session_expiry, Some(100));
    assert_eq!(connect.receive_maximum, NonZeroU16::new(5));
    assert_eq!(connect.packet_size_max, NonZeroU32::new(1024));
    assert_eq!(connect.topic_alias_maximum, 10);
    assert!(connect.request_response_information && !connect.request_problem_information);
    assert_eq!(connect.authentication_method, Some("m"));
    assert_eq!(connect.authentication_data, Some(&[0xFF, 0][..]));
    assert_eq!(connect.user_properties.iter().collect::<Vec<_>>(), [("a", "b"), ("a", "")]);
    let debug = format!("{connect:?}");
    assert!(!debug.contains("password") && !debug.contains("authentication_data"), "{debug}");
}

#[test]
fn names_and_levels() {
    for (body, malformed, answer) in [
        ("0004'MQTX' 04 02 0000 0000", Malformed::ProtocolNameInvalid, None),
        ("0003'MQT' 04 02 0000 0000", Malformed::ProtocolNameInvalid, None),
        ("0004'mqtt' 04 02 0000 0000", Malformed::ProtocolNameInvalid, None),
        ("0006'MQisdp' 03 02 0000 0000", Malformed::ProtocolNameInvalid, None),
        ("0000 04 02 0000 0000", Malformed::ProtocolNameInvalid, None),
        ("0004'MQTT' 03 02 0000 0000", Malformed::UnsupportedProtocolVersion, Some(Version::V311)),
        ("0004'MQTT' 06 02 0000 0000", Malformed::UnsupportedProtocolVersion, Some(Version::V5)),
        ("0004'MQTT' 84 02 0000 0000", Malformed::UnsupportedProtocolVersion, Some(Version::V5)),
        ("0006'MQIsdp' 04 02 0000 0000", Malformed::UnsupportedProtocolVersion, Some(Version::V310)),
        ("0004'MQTT'", Malformed::Truncated, None),
        ("0004'MQ'", Malformed::Truncated, None),
        ("0004'MQTT' 05 03 0000 00 0000", Malformed::ConnectFlagReserved, Some(Version::V5)),
        ("0004'MQTT' 04 03 0000 0000", Malformed::ConnectFlagReserved, Some(Version::V311)),
    ] {
        let input = connect(body);
        assert_eq!(refused(body), malformed, "{body}");
        let Ok(Frame::Complete(raw)) = frame(&input, 1000) else { panic!("{body} is no packet") };
        assert_eq!(answer_version(&raw), answer, "{body}");
    }
}

#[test]
fn flags() {
    for (body, malformed) in [
        // Will QoS, Will Retain without Will Flag.
        ("0004'MQTT' 04 0A 0000 0000", Malformed::WillFlagsWithoutWill),
        ("0004'MQTT' 04 12 0000 0000", Malformed::WillFlagsWithoutWill),
        ("0004'MQTT' 04 22 0000 0000", Malformed::WillFlagsWithoutWill),
        ("0004'MQTT' 05 22 0000 00 0000", Malformed::WillFlagsWithoutWill),
        ("0004'MQTT' 04 1E 0000 0000 0001'w' 0000", Malformed::WillQosInvalid),
        ("0004'MQTT' 05 1E 0000 00 0000 00 0001'w' 0000", Malformed::WillQosInvalid),
        ("0006'MQIsdp' 03 1E 0000 0001'a' 0001'w' 0000", Malformed::WillQosInvalid),
        ("0004'MQTT' 04 42 0000 0000 0001'p'", Malformed::PasswordWithoutUsername),
        ("0006'MQIsdp' 03 42 0000 0001'a' 0001'p'", Malformed::PasswordWithoutUsername),
    ] {
        assert_eq!(refused(body), malformed, "{body}");
    }
    // A password alone is MQTT 5's.
    let input = connect("0004'MQTT' 05 42 0000 00 0000 0001'p'");
    assert_eq!(decoded(&input).password, Some(&b"p"[..]));
    // MQTT 3.1 does not use these bits.
    let input = connect("0006'MQIsdp' 03 2B 0000 0001'a'");
    assert_eq!(decoded(&input), Connect::new(Version::V310, "a", true, 0));
}

#[test]
fn payload_fields_are_what_the_flags_say() {
    for (body, malformed) in [
        ("0004'MQTT' 04 02 0000", Malformed::Truncated),
        ("0004'MQTT' 04 02 0000 0001", Malformed::Truncated),
        ("0004'MQTT' 04 02 0000 0000 00", Malformed::TrailingBytes),
        ("0004'MQTT' 04 02 0000 0000 0001'u'", Malformed::TrailingBytes),
        ("0004'MQTT' 04 82 0000 0000", Malformed::Truncated),
        ("0004'MQTT' 04 C2 0000 0000 0001'u'", Malformed::Truncated),
        ("0004'MQTT' 04 06 0000 0000 0001'w'", Malformed::Truncated),
        ("0004'MQTT' 05 06 0000 00 0000 00 0001'w'", Malformed::Truncated),
        ("0004'MQTT' 05 02 0000", Malformed::Truncated),
        ("0004'MQTT' 05 02 0000 05 0000", Malformed::Truncated),
        // Strings.
        ("0004'MQTT' 04 02 0000 0001 00", Malformed::NullCharacter),
        ("0004'MQTT' 04 02 0000 0001 FF", Malformed::Utf8Invalid),
        ("0004'MQTT' 04 02 0000 0003 EDA080", Malformed::Utf8Invalid),
        ("0004'MQTT' 04 02 0000 0002 C080", Malformed::Utf8Invalid),
        ("0004'MQTT' 04 82 0000 0000 0001 00", Malformed::NullCharacter),
        ("0004'MQTT' 04 82 0000 0000 0001 80", Malformed::Utf8Invalid),
        // Will topics.
        ("0004'MQTT' 04 06 0000 0000 0001'#' 0000", Malformed::TopicNameInvalid),
        ("0004'MQTT' 04 06 0000 0000 0003'a/+' 0000", Malformed::TopicNameInvalid),
        ("0004'MQTT' 05 06 0000 00 0000 00 0000 0000", Malformed::TopicNameInvalid),
        ("0004'MQTT' 04 06 0000 0000 0001 00 0000", Malformed::NullCharacter),
    ] {
        assert_eq!(refused(body), malformed, "{body}");
    }
    // Passwords and will messages are binary; U+FEFF and U+FFFE are characters.
    let input = connect("0004'MQTT' 04 C6 0000 0003 EFBBBF 0001'w' 0001 00 0003 EFBFBE 0001 00");
    let packet = decoded(&input);
    assert_eq!((packet.client_id, packet.username), ("\u{FEFF}", Some("\u{FFFE}")));
    assert_eq!((packet.password, packet.will.unwrap().payload), (Some(&[0][..]), &[0][..]));
}

#[test]
fn the_end_of_an_mqtt_3_1_packet_takes_precedence_over_its_flags() {
    let input = connect("0006'MQIsdp' 03 C2 0000 0001'a'");
    assert_eq!((decoded(&input).username, decoded(&input).password), (None, None));
    let input = connect("0006'MQIsdp' 03 C2 0000 0001'a' 0001'u'");
    assert_eq!((decoded(&input).username, decoded(&input).password), (Some("u"), None));
    assert_eq!(refused("0006'MQIsdp' 03 C2 0000 0001'a' 0001"), Malformed::Truncated);
}

#[test]
fn properties_accepted() {
    for properties in [
        "11 00000000",
        "11 FFFFFFFF",
        "21 0001",
        "21 FFFF",
        "27 00000001",
        "27 FFFFFFFF",
        "22 0000",
        "22 FFFF",
        "19 00",
        "19 01",
        "17 00",
        "17 01",
        "15 0000",
        "15 0001'm' 16 0000",
        "16 0001 00 15 0001'm'",
        "26 0000 0000 26 0000 0000",
    ] {
        let input = with_properties(properties);
        assert!(parse(&input, Version::V5, Sender::Client).is_ok(), "{properties}");
    }
    for properties in [
        "18 00000000",
        "18 FFFFFFFF",
        "01 00",
        "01 01",
        "02 00000000",
        "03 0000",
        "08 0001'r'",
        "09 0000",
        "26 0001'a' 0001'b' 26 0001'a' 0001'b'",
    ] {
        let input = with_will_properties(properties);
        assert!(parse(&input, Version::V5, Sender::Client).is_ok(), "{properties}");
    }
}

#[test]
fn properties_refused() {
    for (properties, malformed) in [
        ("11 00000001 11 00000001", Malformed::PropertyDuplicate),
        ("21 0001 21 0001", Malformed::PropertyDuplicate),
        ("27 00000001 27 00000001", Malformed::PropertyDuplicate),
        ("22 0000 22 0000", Malformed::PropertyDuplicate),
        ("19 00 19 00", Malformed::PropertyDuplicate),
        ("17 00 17 00", Malformed::PropertyDuplicate),
        ("15 0000 15 0000", Malformed::PropertyDuplicate),
        ("15 0000 16 0000 16 0000", Malformed::PropertyDuplicate),
        ("21 0000", Malformed::ReceiveMaximumZero),
        ("27 00000000", Malformed::PacketSizeMaxZero),
        ("19 02", Malformed::PropertyNotBoolean),
        ("17 FF", Malformed::PropertyNotBoolean),
        ("16 0000", Malformed::AuthenticationDataWithoutMethod),
        ("11 000000", Malformed::Truncated),
        ("26 0001'a'", Malformed::Truncated),
        ("26 0001'a' 0001 00", Malformed::NullCharacter),
        ("26 0001 FF 0000", Malformed::Utf8Invalid),
        ("15 0001 00", Malformed::NullCharacter),
        ("00", Malformed::PropertyUnknown),
        ("04 00", Malformed::PropertyUnknown),
        ("2B 00", Malformed::PropertyUnknown),
        ("FF 7F", Malformed::PropertyUnknown),
        ("91 00 00000001", Malformed::VariableByteIntegerNotMinimal),
    ] {
        let input = with_properties(properties);
        assert_eq!(parse(&input, Version::V5, Sender::Client), Err(malformed), "{properties}");
    }
    for (properties, malformed) in [
        ("18 00000000 18 00000000", Malformed::PropertyDuplicate),
        ("01 00 01 00", Malformed::PropertyDuplicate),
        ("02 00000000 02 00000000", Malformed::PropertyDuplicate),
        ("03 0000 03 0000", Malformed::PropertyDuplicate),
        ("08 0001'r' 08 0001'r'", Malformed::PropertyDuplicate),
        ("09 0000 09 0000", Malformed::PropertyDuplicate),
        ("01 02", Malformed::PropertyNotBoolean),
        ("08 0001'+'", Malformed::ResponseTopicInvalid),
        ("08 0003'a/#'", Malformed::ResponseTopicInvalid),
    ] {
        let input = with_will_properties(properties);
        assert_eq!(parse(&input, Version::V5, Sender::Client), Err(malformed), "{properties}");
    }
}

#[test]
fn properties_of_other_packets() {
    let every = subscribe::EVERY_PROPERTY;
    let (connects, wills) =
        ([0x11, 0x15, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27], [0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]);
    for (id, property) in every {
        let input = with_properties(property);
        let allowed = connects.contains(id) || *id == 0x16;
        let result = parse(&input, Version::V5, Sender::Client).map(|_| ());
        let expected = match id {
            0x16 => Err(Malformed::AuthenticationDataWithoutMethod),
            _ if allowed => Ok(()),
            _ => Err(Malformed::PropertyNotAllowed),
        };
        assert_eq!(result, expected, "{property}");
        let input = with_will_properties(property);
        let result = parse(&input, Version::V5, Sender::Client).map(|_| ());
        let expected = if wills.contains(id) { Ok(()) } else { Err(Malformed::PropertyNotAllowed) };
        assert_eq!(result, expected, "{property}");
    }
}

#[test]
fn encoded_bytes() {
    let mut connect = Connect::new(Version::V311, "id", true, 60);
    connect.username = Some("u");
    connect.password = Some(b"p");
    connect.session_expiry = Some(1);
    let mut out = Vec::new();
    connect.encode(&mut out);
    assert_eq!(out, bytes("10 14 0004'MQTT' 04 C2 003C 0002'id' 0001'u' 0001'p'"));
    connect.version = Version::V5;
    connect.clean_start = false;
    out.clear();
    connect.encode(&mut out);
    assert_eq!(out, bytes("10 1A 0004'MQTT' 05 C0 003C 05 11 00000001 0002'id' 0001'u' 0001'p'"));
}
