//! What the client refuses to send, and what it does not let the server do.

use super::*;

#[test]
fn not_connected() {
    let mut client = Client::new(Options::new(Version::V5), "c");
    let publication = Publication::new("t", b"", QoS::AtMostOnce);
    let filter = codec::SubscribeFilter::new("t", QoS::AtMostOnce);
    for connecting in [false, true] {
        if connecting {
            client.connect(at(0));
            client.take_out();
        }
        let refused = Err(Refusal::NotConnected);
        assert_eq!(client.publish(at(0), &publication), Err(Refusal::NotConnected));
        assert_eq!(client.subscribe(at(0), &[filter], None), Err(Refusal::NotConnected));
        assert_eq!(client.unsubscribe(at(0), &["t"]), Err(Refusal::NotConnected));
        assert_eq!(client.ping(at(0)), refused);
        assert_eq!(client.acknowledge(at(0), id(1), QoS::AtLeastOnce, ReasonCode::Success), refused);
        let auth = codec::Auth::new(ReasonCode::ReAuthenticate);
        assert_eq!(client.authenticate(at(0), &auth).is_ok(), connecting);
        client.take_out();
        assert_eq!(client.next_deadline(), None);
    }
}

#[test]
fn the_servers_limits() {
    // Maximum QoS 1, no retained messages, packets of 12 bytes.
    let mut client = connected(Options::new(Version::V5), "20 0C 00 00 09 24 01 25 00 27 0000000C");
    let publication = Publication::new("t", b"", QoS::AtMostOnce);
    for (publication, refusal) in [
        (Publication { qos: QoS::ExactlyOnce, ..publication }, Refusal::QosNotSupported),
        (Publication { retain: true, ..publication }, Refusal::RetainNotSupported),
        (Publication { topic: "a/+", ..publication }, Refusal::TopicInvalid),
        (Publication { topic: "", ..publication }, Refusal::TopicInvalid),
        (Publication { payload: b"1234567", ..publication }, Refusal::PacketTooLarge),
        (Publication { payload: b"12345", qos: QoS::AtLeastOnce, ..publication }, Refusal::PacketTooLarge),
    ] {
        assert_eq!(client.publish(at(0), &publication), Err(refusal), "{publication:?}");
    }
    assert_eq!(client.publish(at(0), &Publication { payload: b"123456", ..publication }), Ok(None));
    assert_eq!(client.take_out().len(), 12);
    let filter = |filter| codec::SubscribeFilter::new(filter, QoS::AtMostOnce);
    assert_eq!(client.subscribe(at(0), &[filter("12345")], None), Err(Refusal::PacketTooLarge));
    assert_eq!(client.subscribe(at(0), &[], None), Err(Refusal::TopicInvalid));
    let long = "x".repeat(65_536);
    assert_eq!(client.subscribe(at(0), &[filter(&long)], None), Err(Refusal::TopicInvalid));
    assert_eq!(client.unsubscribe(at(0), &["123456"]), Err(Refusal::PacketTooLarge));
    assert!(client.subscribe(at(0), &[filter("1234")], None).is_ok());
    assert_eq!(client.take_out().len(), 12);
}

#[test]
fn the_server_breaks_rules() {
    let v5 = Version::V5;
    for (version, before, input, error, out) in [
        (v5, "", "30 04 0001't' 00", Error::Violation(Violation::WrongOrder), "E0 02 82 00"),
        (Version::V311, "", "30 03 0001't'", Error::Violation(Violation::WrongOrder), ""),
        (v5, "", "20 03 01 00 00", Error::Violation(Violation::SessionPresent), "E0 02 82 00"),
        (v5, "20 03 00 00 00", "20 03 00 00 00", Error::Violation(Violation::WrongOrder), "E0 02 82 00"),
        (v5, "20 03 00 00 00", "40 02 0001", Error::Violation(Violation::UnexpectedAck), "E0 02 82 00"),
        (v5, "20 03 00 00 00", "70 02 0001", Error::Violation(Violation::UnexpectedAck), "E0 02 82 00"),
        (
            v5,
            "20 03 00 00 00",
            "90 04 0001 00 00",
            Error::Violation(Violation::UnexpectedAnswer),
            "E0 02 82 00",
        ),
        (
            v5,
            "20 03 00 00 00",
            "B0 04 0001 00 00",
            Error::Violation(Violation::UnexpectedAnswer),
            "E0 02 82 00",
        ),
        (v5, "20 03 00 00 00", "00", Error::Malformed(codec::Malformed::ReservedPacketType), "E0 02 81 00"),
        (v5, "20 03 00 00 00", "C0 00", Error::Malformed(codec::Malformed::WrongDirection), "E0 02 82 00"),
        (v5, "20 03 00 00 00", "30 1F", Error::Malformed(codec::Malformed::PacketTooLarge), "E0 02 95 00"),
        (Version::V311, "20 02 00 00", "00", Error::Malformed(codec::Malformed::ReservedPacketType), ""),
    ] {
        let options = Options { packet_size_max: std::num::NonZeroU32::new(32), ..Options::new(version) };
        let mut client = Client::new(options, "c");
        client.connect(at(0));
        client.take_out();
        receive(&mut client, before);
        assert_eq!(client.handle_bytes(at(0), &bytes(input)), Err(error), "{before} {input}");
        expect_out(&mut client, out);
        assert!(!client.is_active());
        // What comes after the end is ignored.
        receive(&mut client, "00");
    }
}

#[test]
fn answers_go_with_their_requests() {
    for answer in ["90 05 0001 00 00 00", "B0 04 0001 00 00", "90 04 0002 00 00"] {
        let mut client = connected(Options::new(Version::V5), "20 03 00 00 00");
        let filter = codec::SubscribeFilter::new("t", QoS::AtMostOnce);
        assert_eq!(client.subscribe(at(0), &[filter], None), Ok(id(1)));
        let error = client.handle_bytes(at(0), &bytes(answer));
        assert_eq!(error, Err(Error::Violation(Violation::UnexpectedAnswer)), "{answer}");
    }
}
