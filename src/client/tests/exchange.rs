//! Exchanges, byte by byte.

use super::*;
use proptest::prelude::*;

fn options(version: Version) -> Options {
    Options { keep_alive_secs: 0, ..Options::new(version) }
}

/// Options whose session outlives the connection.
fn lasting(version: Version) -> Options {
    Options { clean_start: false, session_expiry: Some(100), ..options(version) }
}

fn message(topic: &str, payload: &[u8], qos: QoS, packet_id: u16) -> OwnedMessage {
    OwnedMessage {
        topic: topic.into(),
        payload: payload.into(),
        qos,
        retain: false,
        dup: false,
        packet_id: PacketId::new(packet_id),
        expiry: None,
        subscription_ids: Box::default(),
        properties: Box::default(),
    }
}

#[test]
fn connect() {
    for (version, connect) in [
        (Version::V310, "10 0F 0006'MQIsdp' 03 02 0000 0001'c'"),
        (Version::V311, "10 0D 0004'MQTT' 04 02 0000 0001'c'"),
        (Version::V5, "10 0E 0004'MQTT' 05 02 0000 00 0001'c'"),
    ] {
        let mut client = Client::new(options(version), "c");
        client.connect(at(0));
        expect_out(&mut client, connect);
        assert!(client.is_active() && !client.is_connected());
        receive(&mut client, accepted(version));
        assert_eq!(events(&mut client), [Event::Connected { session_present: false }]);
        assert!(client.is_connected());
        client.disconnect(ReasonCode::Success);
        expect_out(&mut client, "E0 00");
        assert!(!client.is_active());
    }
}

#[test]
fn connect_with_everything() {
    let mut client = Client::new(
        Options {
            will: Some(Will {
                topic: "w".into(),
                payload: b"x".to_vec(),
                qos: QoS::AtLeastOnce,
                retain: true,
                delay: 5,
                expiry: None,
                properties: bytes("01 01"),
            }),
            username: Some("u".into()),
            password: Some(b"p".to_vec()),
            topic_alias_maximum: 3,
            authentication: Some(("m".into(), b"d".to_vec())),
            ..lasting(Version::V5)
        },
        "",
    );
    client.connect(at(0));
    expect_out(
        &mut client,
        "10 31 0004'MQTT' 05 EC 0000 10 11 00000064 22 0003 15 0001'm' 16 0001'd'
         0000 07 18 00000005 0101 0001'w' 0001'x' 0001'u' 0001'p'",
    );
    receive(&mut client, "F0 0A 18 08 15 0001'm' 16 0001'e'");
    assert_eq!(
        events(&mut client),
        [Event::Auth { reason: ReasonCode::ContinueAuthentication, data: b"e".to_vec() }]
    );
    let mut auth = codec::Auth::new(ReasonCode::ContinueAuthentication);
    auth.method = Some("m");
    client.authenticate(at(0), &auth).unwrap();
    expect_out(&mut client, "F0 06 18 04 15 0001'm'");
    receive(&mut client, "20 17 00 00 14 12 0003'new' 21 0005 13 0007 27 00000080 22");
    receive(&mut client, "00 09");
    assert_eq!(events(&mut client), [Event::Connected { session_present: false }]);
    assert_eq!(client.client_id(), "new");
    let expected = Server {
        packet_size_max: 128,
        receive_maximum: 5,
        topic_alias_maximum: 9,
        keep_alive_secs: 7,
        maximum_qos: QoS::ExactlyOnce,
        retain_available: true,
        keeps_session: true,
    };
    assert_eq!(*client.server(), expected);
}

#[test]
fn refused() {
    for (version, connack, reason) in [
        (Version::V311, "20 02 00 05", ReasonCode::NotAuthorized),
        (Version::V5, "20 03 00 8A 00", ReasonCode::Banned),
    ] {
        let mut client = Client::new(options(version), "c");
        client.connect(at(0));
        receive(&mut client, connack);
        assert_eq!(events(&mut client), [Event::Refused { reason }]);
        assert!(!client.is_active());
        // Another attempt.
        client.handle_disconnected();
        client.connect(at(1));
        receive(&mut client, accepted(version));
        assert!(client.is_connected());
    }
}

#[test]
fn publish_at_every_qos() {
    for version in VERSIONS {
        let block = if version.is_v5() { "00" } else { "" };
        let length = if version.is_v5() { 1 } else { 0 };
        let mut client = connected(options(version), accepted(version));
        let mut publication = Publication::new("t", b"p", QoS::AtMostOnce);
        assert_eq!(client.publish(at(0), &publication), Ok(None));
        expect_out(&mut client, &format!("30 0{} 0001't' {block} 'p'", 4 + length));
        publication.qos = QoS::AtLeastOnce;
        publication.retain = true;
        assert_eq!(client.publish(at(0), &publication), Ok(Some(id(1))));
        expect_out(&mut client, &format!("33 0{} 0001't' 0001 {block} 'p'", 6 + length));
        publication.qos = QoS::ExactlyOnce;
        assert_eq!(client.publish(at(0), &publication), Ok(Some(id(2))));
        expect_out(&mut client, &format!("35 0{} 0001't' 0002 {block} 'p'", 6 + length));
        assert_eq!(client.in_flight().collect::<Vec<_>>(), [id(1), id(2)]);

        receive(&mut client, "50 02 0002");
        expect_out(&mut client, "62 02 0002");
        receive(&mut client, "70 02 0002 40 02 0001");
        expect_out(&mut client, "");
        let success = ReasonCode::Success;
        assert_eq!(
            events(&mut client),
            [
                Event::Received { packet_id: id(2), reason: success },
                Event::Acknowledged { packet_id: id(2), reason: success },
                Event::Acknowledged { packet_id: id(1), reason: success },
            ]
        );
        assert_eq!(client.in_flight().count(), 0);
    }
}

#[test]
fn negative_acknowledgements_end_a_publish() {
    let mut client = connected(options(Version::V5), "20 06 00 00 03 21 0002");
    let two = Publication::new("t", b"", QoS::ExactlyOnce);
    let one = Publication::new("t", b"", QoS::AtLeastOnce);
    assert_eq!(client.publish(at(0), &two), Ok(Some(id(1))));
    assert_eq!(client.publish(at(0), &one), Ok(Some(id(2))));
    assert_eq!(client.publish(at(0), &one), Err(Refusal::WindowFull));
    assert!(!client.can_publish());
    client.take_out();
    receive(&mut client, "50 03 0001 97 40 03 0002 87");
    expect_out(&mut client, "");
    assert_eq!(
        events(&mut client),
        [
            Event::Acknowledged { packet_id: id(1), reason: ReasonCode::QuotaExceeded },
            Event::Acknowledged { packet_id: id(2), reason: ReasonCode::NotAuthorized },
        ]
    );
    assert!(client.can_publish());
}

#[test]
fn messages_at_every_qos() {
    for version in VERSIONS {
        let block = if version.is_v5() { "00" } else { "" };
        let length = if version.is_v5() { 1 } else { 0 };
        let mut client = connected(options(version), accepted(version));
        receive(&mut client, &format!("31 0{} 0001't' {block} 'p'", 4 + length));
        expect_out(&mut client, "");
        receive(&mut client, &format!("32 0{} 0001't' 0009 {block} 'p'", 6 + length));
        expect_out(&mut client, "40 02 0009");
        let two = format!("34 0{} 0001't' 0009 {block} 'p'", 6 + length);
        receive(&mut client, &two);
        expect_out(&mut client, "50 02 0009");
        // Sent again: answered again, but given to the application once.
        receive(&mut client, &two.replace("34", "3C"));
        expect_out(&mut client, "50 02 0009");
        receive(&mut client, "62 02 0009");
        expect_out(&mut client, "70 02 0009");
        let retained = OwnedMessage { retain: true, ..message("t", b"p", QoS::AtMostOnce, 0) };
        assert_eq!(
            events(&mut client),
            [
                Event::Message(retained),
                Event::Message(message("t", b"p", QoS::AtLeastOnce, 9)),
                Event::Message(message("t", b"p", QoS::ExactlyOnce, 9)),
                Event::Released { packet_id: id(9) },
            ]
        );
        // Released twice, and PUBREC of nothing.
        receive(&mut client, "62 02 0009 50 02 0008");
        let not_found = if version.is_v5() { "70 03 0009 92 62 03 0008 92" } else { "70 02 0009 62 02 0008" };
        expect_out(&mut client, not_found);
    }
}

#[test]
fn properties_and_aliases_of_messages() {
    let mut client = connected(Options { topic_alias_maximum: 2, ..options(Version::V5) }, "20 03 00 00 00");
    receive(&mut client, "30 17 0001't' 13 0B 05 23 0002 0B C801 02 00000007 03 0001'x' 01 01");
    receive(&mut client, "30 07 0000 03 23 0002 'p'");
    // The alias changes its meaning.
    receive(&mut client, "30 07 0001'u' 03 23 0002");
    receive(&mut client, "30 06 0000 03 23 0002");
    let rich = OwnedMessage {
        expiry: Some(7),
        subscription_ids: [5, 200].into(),
        properties: bytes("03 0001'x' 01 01").into(),
        ..message("t", b"", QoS::AtMostOnce, 0)
    };
    let plain = |topic, payload: &[u8]| Event::Message(message(topic, payload, QoS::AtMostOnce, 0));
    assert_eq!(
        events(&mut client),
        [Event::Message(rich), plain("t", b"p"), plain("u", b""), plain("u", b"")]
    );
    for bad in ["30 06 0000 03 23 0001", "30 07 0001't' 03 23 0003"] {
        let mut client =
            connected(Options { topic_alias_maximum: 2, ..options(Version::V5) }, "20 03 00 00 00");
        let error = client.handle_bytes(at(0), &bytes(bad));
        assert_eq!(error, Err(Error::Violation(Violation::TopicAlias)), "{bad}");
        expect_out(&mut client, "E0 02 94 00");
    }
}

#[test]
fn topics_are_published_by_alias() {
    let options = Options { use_topic_aliases: true, ..lasting(Version::V5) };
    let mut client = connected(options, "20 06 00 00 03 22 0001");
    let mut publication = Publication::new("t", b"", QoS::AtMostOnce);
    client.publish(at(0), &publication).unwrap();
    expect_out(&mut client, "30 07 0001't' 03 23 0001");
    publication.qos = QoS::AtLeastOnce;
    client.publish(at(0), &publication).unwrap();
    expect_out(&mut client, "32 08 0000 0001 03 23 0001");
    publication.topic = "other";
    publication.qos = QoS::AtMostOnce;
    client.publish(at(0), &publication).unwrap();
    expect_out(&mut client, "30 08 0005'other' 00");
    // The new connection knows no alias: what is sent again has its topic.
    client.handle_disconnected();
    client.connect(at(0));
    client.take_out();
    receive(&mut client, "20 06 01 00 03 22 0001");
    expect_out(&mut client, "3A 06 0001't' 0001 00");
}

#[test]
fn subscribe_and_unsubscribe() {
    for version in VERSIONS {
        let mut client = connected(options(version), accepted(version));
        let filters = ["a", "b/#"].map(|filter| codec::SubscribeFilter::new(filter, QoS::AtLeastOnce));
        let subscription = std::num::NonZeroU32::new(9);
        assert_eq!(client.subscribe(at(0), &filters, subscription), Ok(id(1)));
        assert_eq!(client.unsubscribe(at(0), &["a"]), Ok(id(2)));
        let (sent, answers) = if version.is_v5() {
            (
                "82 0F 0001 02 0B09 0001'a'01 0003'b/#'01  A2 06 0002 00 0001'a'",
                "B0 04 0002 00 11 90 05 0001 00 01 87",
            )
        } else {
            ("82 0C 0001 0001'a'01 0003'b/#'01  A2 05 0002 0001'a'", "B0 02 0002 90 04 0001 01 80")
        };
        expect_out(&mut client, sent);
        receive(&mut client, answers);
        let (removed, failed) = if version.is_v5() {
            (vec![ReasonCode::NoSubscriptionExisted], ReasonCode::NotAuthorized)
        } else {
            (vec![], ReasonCode::UnspecifiedError)
        };
        assert_eq!(
            events(&mut client),
            [
                Event::Unsubscribed { packet_id: id(2), codes: removed },
                Event::Subscribed { packet_id: id(1), codes: vec![ReasonCode::GrantedQos1, failed] },
            ]
        );
    }
}

#[test]
fn what_was_in_flight_is_sent_again() {
    for version in VERSIONS {
        let block = if version.is_v5() { "00" } else { "" };
        let length = if version.is_v5() { 1 } else { 0 };
        let mut client = connected(lasting(version), accepted(version));
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce, QoS::AtLeastOnce] {
            client.publish(at(0), &Publication::new("t", b"p", qos)).unwrap();
        }
        receive(&mut client, "50 02 0002 40 02 0004");
        // A message was received and not released.
        receive(&mut client, &format!("34 0{} 0001't' 0009 {block} 'p'", 6 + length));
        client.take_out();
        events(&mut client);
        client.handle_disconnected();
        assert_eq!(client.in_flight().collect::<Vec<_>>(), [id(1), id(2), id(3)]);

        client.connect(at(1));
        client.take_out();
        receive(&mut client, resumed(version));
        let size = 6 + length;
        expect_out(
            &mut client,
            &format!("3A 0{size} 0001't' 0001 {block} 'p' 62 02 0002 3C 0{size} 0001't' 0003 {block} 'p'"),
        );
        receive(&mut client, &format!("3C 0{size} 0001't' 0009 {block} 'p' 62 02 0009"));
        expect_out(&mut client, "50 02 0009 70 02 0009");
        let all = events(&mut client);
        assert!(!all.iter().any(|event| matches!(event, Event::Message(_))), "{all:?}");
        assert_eq!(all[1..], [Event::Released { packet_id: id(9) }]);
        // The next publish has an id that is free.
        assert_eq!(client.publish(at(1), &Publication::new("t", b"", QoS::AtLeastOnce)), Ok(Some(id(5))));
    }
}

#[test]
fn a_smaller_window_after_resumption() {
    let mut client = connected(lasting(Version::V5), accepted(Version::V5));
    for _ in 0..3 {
        client.publish(at(0), &Publication::new("t", b"", QoS::AtLeastOnce)).unwrap();
    }
    client.handle_disconnected();
    client.connect(at(0));
    client.take_out();
    receive(&mut client, "20 06 01 00 03 21 0001");
    expect_out(&mut client, "3A 06 0001't' 0001 00");
    assert!(!client.can_publish());
    receive(&mut client, "40 02 0001");
    expect_out(&mut client, "3A 06 0001't' 0002 00");
    // Not sent on this connection.
    let error = client.handle_bytes(at(0), &bytes("40 02 0003"));
    assert_eq!(error, Err(Error::Violation(Violation::UnexpectedAck)));
}

#[test]
fn a_lost_session_is_forgotten() {
    for version in [Version::V311, Version::V5] {
        let mut client = connected(lasting(version), accepted(version));
        client.publish(at(0), &Publication::new("t", b"", QoS::AtLeastOnce)).unwrap();
        client.handle_disconnected();
        client.connect(at(0));
        client.take_out();
        receive(&mut client, accepted(version));
        expect_out(&mut client, "");
        assert_eq!(client.in_flight().count(), 0);

        // One that does not outlive the connection is forgotten with it, one cleaned with CONNECT.
        let mut client = connected(options(version), accepted(version));
        client.publish(at(0), &Publication::new("t", b"", QoS::AtLeastOnce)).unwrap();
        client.handle_disconnected();
        assert_eq!(client.in_flight().count(), 0);
        let mut client = connected(lasting(version), accepted(version));
        client.publish(at(0), &Publication::new("t", b"", QoS::AtLeastOnce)).unwrap();
        client.handle_disconnected();
        client.connect_with(at(0), true);
        assert_eq!(client.in_flight().count(), 0);
    }
}

#[test]
fn manual_acknowledgements() {
    let options =
        Options { manual_ack: true, receive_maximum: std::num::NonZeroU16::new(2), ..lasting(Version::V5) };
    let mut client = connected(options, accepted(Version::V5));
    receive(&mut client, "32 06 0001't' 0001 00 34 06 0001't' 0002 00");
    expect_out(&mut client, "");
    client.acknowledge(at(0), id(1), QoS::AtLeastOnce, ReasonCode::Success).unwrap();
    client.acknowledge(at(0), id(2), QoS::ExactlyOnce, ReasonCode::Success).unwrap();
    expect_out(&mut client, "40 02 0001 50 02 0002");
    receive(&mut client, "62 02 0002");
    expect_out(&mut client, "70 02 0002");
    // Both places are free again; what is refused needs no release.
    receive(&mut client, "34 06 0001't' 0003 00 34 06 0001't' 0004 00");
    client.acknowledge(at(0), id(3), QoS::ExactlyOnce, ReasonCode::QuotaExceeded).unwrap();
    expect_out(&mut client, "50 03 0003 97");
    receive(&mut client, "34 06 0001't' 0005 00");
    let error = client.handle_bytes(at(0), &bytes("32 06 0001't' 0006 00"));
    assert_eq!(error, Err(Error::Violation(Violation::ReceiveMaximum)));
    expect_out(&mut client, "E0 02 93 00");
}

#[test]
fn the_server_disconnects() {
    let mut client = connected(options(Version::V5), accepted(Version::V5));
    receive(&mut client, "E0 01 8E 30 04 0001't' 00");
    assert_eq!(events(&mut client), [Event::Disconnected { reason: ReasonCode::SessionTakenOver }]);
    assert!(!client.is_active());
    assert_eq!(client.ping(at(0)), Err(Refusal::NotConnected));
}

proptest! {
    #[test]
    fn it_does_not_matter_where_the_input_is_cut(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let input = bytes(
            "20 03 00 00 00 30 05 0001't' 00'p' 32 06 0001't' 0001 00 34 06 0001't' 0002 00 62 02 0002
             D0 00 30 85 01 0001't' 00",
        );
        let input = [&input[..], &[b'x'; 129], &bytes("E0 02 8B 00")].concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len())).collect();
        cuts.sort_unstable();
        cuts.push(input.len());
        let run = |cuts: &[usize]| {
            let mut client = Client::new(options(Version::V5), "c");
            client.connect(at(0));
            let (mut from, mut seen) = (0, Vec::new());
            for &cut in cuts {
                let visit = &mut |incoming: Incoming<'_>| seen.push(incoming.to_event());
                client.handle_bytes_with(at(0), &input[from..cut], visit).unwrap();
                from = cut;
            }
            (seen, client.take_out())
        };
        let (whole, out) = run(&[input.len()]);
        prop_assert_eq!(whole.len(), 8);
        prop_assert_eq!((whole, out), run(&cuts));
    }
}
