//! What is encoded decodes to the same, in every version.

use super::*;
use crate::base::{PacketId, QoS, ReasonCode, Version};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::num::{NonZeroU16, NonZeroU32};

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V310), Just(Version::V311), Just(Version::V5)]
}

fn sender() -> impl Strategy<Value = Sender> {
    prop_oneof![Just(Sender::Client), Just(Sender::Server)]
}

fn qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|bits| QoS::from_bits(bits).unwrap())
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|value| PacketId::new(value).unwrap())
}

/// Any string but U+0000: also the characters that are legal and odd.
fn text() -> impl Strategy<Value = String> {
    let odd = prop_oneof![Just('\u{FEFF}'), Just('\u{FFFE}'), Just('\u{1}'), Just('\u{10FFFF}'), Just('ü')];
    let one = prop_oneof![8 => prop::char::range('a', 'z'), 1 => any::<char>(), 1 => odd];
    vec(one.prop_filter("U+0000 is not allowed", |&c| c != '\0'), 0..24)
        .prop_map(|chars| chars.into_iter().collect())
}

fn topic_name() -> impl Strategy<Value = String> {
    text().prop_map(|text| format!("t/{}", text.replace(['+', '#'], "_")))
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![9 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 100..400)]
}

/// Encoded User Properties.
fn user_properties() -> impl Strategy<Value = Vec<u8>> {
    vec((text(), text()), 0..4).prop_map(|pairs| {
        let mut out = Vec::new();
        for (name, value) in &pairs {
            properties::push_user_property(&mut out, name, value);
        }
        out
    })
}

/// Encoded properties that travel with a message.
fn message_properties() -> impl Strategy<Value = Vec<u8>> {
    let parts = (
        option::of(any::<bool>()),
        option::of(text()),
        option::of(topic_name()),
        option::of(data()),
        user_properties(),
    );
    parts.prop_map(|(utf8, content_type, response_topic, correlation, user)| {
        let mut out = user;
        if let Some(utf8) = utf8 {
            properties::push_payload_format(&mut out, utf8);
        }
        if let Some(content_type) = &content_type {
            properties::push_content_type(&mut out, content_type);
        }
        if let Some(topic) = &response_topic {
            properties::push_response_topic(&mut out, topic);
        }
        if let Some(data) = &correlation {
            properties::push_correlation_data(&mut out, data);
        }
        out
    })
}

fn non_zero_u16() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|value| NonZeroU16::new(value).unwrap())
}

fn non_zero_u32() -> impl Strategy<Value = NonZeroU32> {
    (1..=u32::MAX).prop_map(|value| NonZeroU32::new(value).unwrap())
}

fn subscription_id() -> impl Strategy<Value = u32> {
    prop_oneof![1..200_u32, 16_000..17_000_u32, 1..=writer::VARIABLE_BYTE_INTEGER_MAX]
}

fn codes(codes: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    (0..codes.len()).prop_map(|index| ReasonCode::from_byte(codes[index]).unwrap())
}

proptest! {
    #[test]
    fn publish(
        version in version(), sender in sender(), qos in qos(), dup in any::<bool>(), retain in any::<bool>(),
        topic in topic_name(), alias in option::of(non_zero_u16()), empty_topic in any::<bool>(),
        id in packet_id(), expiry in option::of(any::<u32>()), ids in vec(subscription_id(), 0..3),
        properties in message_properties(), payload in data(),
    ) {
        let v5 = version.is_v5();
        let delivery = Delivery {
            dup: dup && qos != QoS::AtMostOnce,
            qos,
            retain,
            topic: if v5 && alias.is_some() && empty_topic { "" } else { &topic },
            topic_alias: alias,
            packet_id: (qos != QoS::AtMostOnce).then_some(id),
            expiry,
            subscription_ids: if sender == Sender::Server { &ids } else { &[] },
            properties: &properties,
            payload: &payload,
        };
        let mut out = vec![0xEE];
        delivery.encode(version, &mut out);
        prop_assert_eq!(out.len() - 1, delivery.size(version));
        let mut head = Vec::new();
        delivery.encode_head(version, &mut head);
        let tail = if v5 { [&properties[..], &payload].concat() } else { payload.clone() };
        prop_assert_eq!(tail.len(), delivery.tail_size(version));
        prop_assert_eq!(&out[1..], [head, tail].concat());

        let Ok(Packet::Publish(publish)) = parse(&out[1..], version, sender) else {
            return Err(TestCaseError::fail("not a PUBLISH"));
        };
        prop_assert_eq!((publish.dup, publish.qos, publish.retain), (delivery.dup, qos, retain));
        prop_assert_eq!((publish.topic, publish.packet_id), (delivery.topic, delivery.packet_id));
        prop_assert_eq!(publish.payload, delivery.payload);
        let mut scratch = Vec::new();
        let forwarded = publish.properties.forward(&mut scratch).to_vec();
        if v5 {
            prop_assert_eq!((publish.topic_alias, publish.expiry), (alias, expiry));
            let decoded: Vec<u32> = publish.subscription_ids.iter().map(NonZeroU32::get).collect();
            prop_assert_eq!(&decoded[..], delivery.subscription_ids);
            prop_assert_eq!(forwarded, properties);
            prop_assert!(scratch.is_empty(), "what stands together is not copied");
        } else {
            prop_assert_eq!((publish.topic_alias, publish.expiry), (None, None));
            prop_assert_eq!(forwarded, Vec::<u8>::new());
        }
    }

    #[test]
    fn forwarded_properties_among_others(order in Just([0, 1, 2, 3, 4, 5, 6]).prop_shuffle(), user in text()) {
        let (mut block, mut expected) = (Vec::new(), Vec::new());
        for kind in order {
            let property = match kind {
                0 => Property::MessageExpiryInterval(7),
                1 => Property::TopicAlias(NonZeroU16::MIN),
                2 => Property::SubscriptionIdentifier(NonZeroU32::MIN),
                3 => Property::PayloadFormatIndicator(true),
                4 => Property::ContentType("c"),
                5 => Property::UserProperty("first", &user),
                _ => Property::UserProperty("second", &user),
            };
            property.encode(&mut block);
            if property.is_forwarded() {
                property.encode(&mut expected);
            }
        }
        let delivery = Delivery {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "t",
            topic_alias: None,
            packet_id: None,
            expiry: None,
            subscription_ids: &[],
            properties: &block,
            payload: b"p",
        };
        let mut out = Vec::new();
        delivery.encode(Version::V5, &mut out);
        let Ok(Packet::Publish(publish)) = parse(&out, Version::V5, Sender::Server) else {
            return Err(TestCaseError::fail("not a PUBLISH"));
        };
        let mut scratch = b"old".to_vec();
        prop_assert_eq!(publish.properties.forward(&mut scratch), &expected[..]);
        prop_assert_eq!((publish.expiry, publish.topic_alias), (Some(7), Some(NonZeroU16::MIN)));
        prop_assert_eq!(publish.subscription_ids.iter().count(), 1);
        prop_assert_eq!(publish.properties.iter().count(), 4);
    }

    #[test]
    fn connect(
        version in version(), clean_start in any::<bool>(), keep_alive in any::<u16>(), client_id in text(),
        will in option::of((qos(), any::<bool>(), topic_name(), data(), any::<u32>(), option::of(any::<u32>()))),
        will_properties in message_properties(),
        credentials in (option::of(text()), option::of(data())),
        numbers in (option::of(any::<u32>()), option::of(non_zero_u16()), option::of(non_zero_u32()), any::<u16>()),
        requests in any::<(bool, bool)>(),
        auth in option::of((text(), option::of(data()))), user in user_properties(),
    ) {
        let v5 = version.is_v5();
        let mut connect = Connect::new(version, &client_id, clean_start, keep_alive);
        connect.will = will.as_ref().map(|(qos, retain, topic, payload, delay, expiry)| Will {
            qos: *qos,
            retain: *retain,
            topic,
            payload,
            delay: if v5 { *delay } else { 0 },
            expiry: expiry.filter(|_| v5),
            properties: MessageProperties::from_encoded(if v5 { &will_properties } else { &[] }),
        });
        connect.username = credentials.0.as_deref();
        connect.password = credentials.1.as_deref().filter(|_| v5 || connect.username.is_some());
        if v5 {
            (connect.session_expiry, connect.receive_maximum) = (numbers.0, numbers.1);
            (connect.packet_size_max, connect.topic_alias_maximum) = (numbers.2, numbers.3);
            (connect.request_response_information, connect.request_problem_information) = requests;
            connect.authentication_method = auth.as_ref().map(|(method, _)| &method[..]);
            connect.authentication_data = auth.as_ref().and_then(|(_, data)| data.as_deref());
            connect.user_properties = UserProperties::from_encoded(&user);
        }
        let mut out = Vec::new();
        connect.encode(&mut out);
        // CONNECT says itself which version it is.
        prop_assert_eq!(parse(&out, Version::V310, Sender::Client), Ok(Packet::Connect(connect)));
    }

    #[test]
    fn connack(
        version in version(),
        reason in codes(&[
            0, 0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
            0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ]),
        present in any::<bool>(),
        numbers in (option::of(any::<u32>()), option::of(non_zero_u16()), option::of(non_zero_u32()),
            option::of(any::<u16>()), option::of(any::<u16>())),
        flags in any::<(Option<bool>, Option<bool>, Option<bool>, Option<bool>, Option<bool>)>(),
        strings in vec(option::of(text()), 5), data in option::of(data()), user in user_properties(),
    ) {
        let success = reason == ReasonCode::Success;
        let mut connack = ConnAck::new(present && success && version != Version::V310, reason);
        if version.is_v5() {
            (connack.session_expiry, connack.receive_maximum) = (numbers.0, numbers.1);
            (connack.packet_size_max, connack.topic_alias_maximum) = (numbers.2, numbers.3);
            connack.server_keep_alive = numbers.4;
            connack.maximum_qos = flags.0.map(|one| if one { QoS::AtLeastOnce } else { QoS::AtMostOnce });
            (connack.retain_available, connack.wildcard_available) = (flags.1, flags.2);
            (connack.subscription_ids_available, connack.shared_available) = (flags.3, flags.4);
            connack.assigned_client_id = strings[0].as_deref();
            connack.reason_string = strings[1].as_deref();
            connack.response_information = strings[2].as_deref();
            connack.server_reference = strings[3].as_deref();
            connack.authentication_method = strings[4].as_deref();
            connack.authentication_data = data.as_deref();
            connack.user_properties = UserProperties::from_encoded(&user);
        }
        let mut out = Vec::new();
        connack.encode(version, &mut out);
        if !version.is_v5() {
            let v3 = [
                ReasonCode::Success,
                ReasonCode::UnsupportedProtocolVersion,
                ReasonCode::ClientIdentifierNotValid,
                ReasonCode::ServerUnavailable,
                ReasonCode::BadUserNameOrPassword,
                ReasonCode::NotAuthorized,
            ];
            connack.reason = v3[usize::from(reason.connack_v3())];
        }
        prop_assert_eq!(parse(&out, version, Sender::Server), Ok(Packet::ConnAck(connack)));
    }

    #[test]
    fn acks(
        version in version(), sender in sender(), id in packet_id(), which in 0..4_usize,
        publish_reason in codes(&[0, 0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
        release_reason in codes(&[0, 0x92]), reason_string in option::of(text()),
    ) {
        let kind = [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp][which];
        let reason = if which < 2 { publish_reason } else { release_reason };
        let mut out = Vec::new();
        encode_ack(kind, id, reason, reason_string.as_deref(), version, &mut out);
        let v5 = version.is_v5();
        let expected = Ack {
            packet_id: id,
            reason: if v5 { reason } else { ReasonCode::Success },
            reason_string: reason_string.as_deref().filter(|_| v5),
            user_properties: UserProperties::EMPTY,
        };
        let expected = match kind {
            AckKind::PubAck => Packet::PubAck(expected),
            AckKind::PubRec => Packet::PubRec(expected),
            AckKind::PubRel => Packet::PubRel(expected),
            AckKind::PubComp => Packet::PubComp(expected),
        };
        prop_assert_eq!(parse(&out, version, sender), Ok(expected));
    }

    #[test]
    fn subscribe(
        version in version(), id in packet_id(), subscription in option::of(subscription_id()),
        filters in vec((text(), qos(), any::<bool>(), any::<bool>(), 0..3_usize), 1..6),
    ) {
        let v5 = version.is_v5();
        let handling = [RetainHandling::SendAlways, RetainHandling::SendIfNew, RetainHandling::Never];
        let filters: Vec<SubscribeFilter<'_>> = filters
            .iter()
            .map(|(filter, qos, no_local, retain_as_published, retain_handling)| SubscribeFilter {
                filter,
                qos: *qos,
                no_local: *no_local && v5,
                retain_as_published: *retain_as_published && v5,
                retain_handling: if v5 { handling[*retain_handling] } else { RetainHandling::SendAlways },
            })
            .collect();
        let subscription = subscription.and_then(NonZeroU32::new).filter(|_| v5);
        let mut out = Vec::new();
        encode_subscribe(id, subscription, &filters, version, &mut out);
        let Ok(Packet::Subscribe(decoded)) = parse(&out, version, Sender::Client) else {
            return Err(TestCaseError::fail("not a SUBSCRIBE"));
        };
        prop_assert_eq!((decoded.packet_id, decoded.subscription_id), (id, subscription));
        prop_assert!(decoded.filters().eq(filters.iter().copied()));

        let names: Vec<&str> = filters.iter().map(|filter| filter.filter).collect();
        out.clear();
        encode_unsubscribe(id, &names, version, &mut out);
        let Ok(Packet::Unsubscribe(decoded)) = parse(&out, version, Sender::Client) else {
            return Err(TestCaseError::fail("not an UNSUBSCRIBE"));
        };
        prop_assert_eq!(decoded.packet_id, id);
        prop_assert_eq!(decoded.filters().collect::<Vec<_>>(), names);
    }

    #[test]
    fn suback_and_unsuback(
        version in version(), id in packet_id(), reason_string in option::of(text()),
        granted in vec(codes(&[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]), 0..200),
        removed in vec(codes(&[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]), 0..200),
    ) {
        let v5 = version.is_v5();
        let mut out = Vec::new();
        encode_suback(id, &granted, reason_string.as_deref(), version, &mut out);
        let Ok(Packet::SubAck(decoded)) = parse(&out, version, Sender::Server) else {
            return Err(TestCaseError::fail("not a SUBACK"));
        };
        prop_assert_eq!(decoded.packet_id, id);
        prop_assert_eq!(decoded.reason_string, reason_string.as_deref().filter(|_| v5));
        let v3 = |code: &ReasonCode| if code.is_error() { ReasonCode::UnspecifiedError } else { *code };
        let expected: Vec<_> = granted.iter().map(|code| if v5 { *code } else { v3(code) }).collect();
        prop_assert_eq!(decoded.codes().collect::<Vec<_>>(), expected);

        out.clear();
        encode_unsuback(id, &removed, version, &mut out);
        let Ok(Packet::UnsubAck(decoded)) = parse(&out, version, Sender::Server) else {
            return Err(TestCaseError::fail("not an UNSUBACK"));
        };
        prop_assert_eq!(decoded.packet_id, id);
        let expected = if v5 { removed } else { Vec::new() };
        prop_assert_eq!(decoded.codes().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn disconnect(
        version in version(), sender in sender(), from_client in codes(&[0, 4, 0x80, 0x81, 0x82, 0x93, 0x98]),
        from_server in codes(&[0, 0x81, 0x87, 0x8B, 0x8D, 0x8E, 0x9C, 0xA2]), expiry in option::of(any::<u32>()),
        strings in (option::of(text()), option::of(text())), user in user_properties(),
    ) {
        let client = sender == Sender::Client;
        let mut disconnect = Disconnect::new(if client { from_client } else { from_server });
        disconnect.session_expiry = expiry.filter(|_| client);
        disconnect.reason_string = strings.0.as_deref();
        disconnect.server_reference = strings.1.as_deref().filter(|_| !client);
        disconnect.user_properties = UserProperties::from_encoded(&user);
        let mut out = Vec::new();
        disconnect.encode(version, &mut out);
        let expected = match version {
            Version::V5 => Ok(Packet::Disconnect(disconnect)),
            _ if client => Ok(Packet::Disconnect(Disconnect::new(ReasonCode::Success))),
            _ => Err(Malformed::WrongDirection),
        };
        prop_assert_eq!(parse(&out, version, sender), expected);
    }

    #[test]
    fn auth(
        sender in sender(), which in any::<bool>(), method in text(), data in option::of(data()),
        reason_string in option::of(text()), user in user_properties(),
    ) {
        let reason = match (which, sender) {
            (true, _) => ReasonCode::ContinueAuthentication,
            (false, Sender::Client) => ReasonCode::ReAuthenticate,
            (false, Sender::Server) => ReasonCode::Success,
        };
        let mut auth = Auth::new(reason);
        auth.method = Some(&method);
        auth.data = data.as_deref();
        auth.reason_string = reason_string.as_deref();
        auth.user_properties = UserProperties::from_encoded(&user);
        let mut out = Vec::new();
        auth.encode(&mut out);
        prop_assert_eq!(parse(&out, Version::V5, sender), Ok(Packet::Auth(auth)));
    }
}
