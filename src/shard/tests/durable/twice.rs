//! What damage leaves twice, as the record that ended the first one is lost.

use super::*;
use crate::base::{Message, MessageHead, MessageRef, VhostId, Wall};
use crate::log::{Log, StateKind, StreamKind};
use crate::route::SubscriptionOptions;
use crate::session::Will as StoredWill;
use crate::shard::durable::format::{self, SessionValue, Standing, SubscriptionValue};

const NOBODY: VhostId = VhostId(0);

fn message(payload: &str, expires_at: Wall) -> Message {
    let head =
        MessageHead { vhost: NOBODY, qos: QoS::AtLeastOnce, retain: true, expires_at, publisher: None };
    Message::new(&MessageRef { head, topic: "retained", properties: &[], payload: payload.as_bytes() })
}

fn put_session_value(standing: Standing, has_groups: bool, out: &mut Vec<u8>) {
    let (client_id, publisher, expiry_secs, version) = ("client", 77, EXPIRY_NEVER, Version::V5);
    format::put_session(
        &SessionValue { client_id, publisher, expiry_secs, standing, has_groups, version },
        out,
    );
}

/// Another session of the same client, and of whatever can be there once only two.
fn put_all_twice(log: &mut Log) {
    let mut value = Vec::new();
    let standing = Standing::Offline { expires_at: Wall::NEVER, will_at: Wall::NEVER };
    put_session_value(standing, true, &mut value);
    let (stream, _) = log.open(StreamKind::Session, NOBODY, &value).unwrap();
    for (id, payload) in [(5, "earlier"), (6, "later")] {
        let mut put = |kind, owner, value: &[u8]| log.put(kind, NOBODY, owner, value).unwrap();
        for (group, filter) in [("", "new"), ("group", "shared")] {
            let options =
                SubscriptionOptions { qos: QoS::AtLeastOnce, subscription_id: id, ..Default::default() };
            format::put_subscription(&SubscriptionValue { filter, group, options }, &mut value);
            put(StateKind::Subscription, Some(stream), &value);
        }
        format::put_will(&StoredWill::new(NOBODY, &will(payload.as_bytes(), 0)), &mut value);
        put(StateKind::Will, Some(stream), &value);
        format::put_packet_id(9, &mut value);
        put(StateKind::Received, Some(stream), &value);
        format::put_retained(&message(payload, Wall::NEVER).as_ref(), &mut value);
        put(StateKind::Retained, None, &value);
    }
}

#[test]
fn what_is_twice_on_a_disk_is_there_once_and_the_later_one_counts() {
    let options = options();
    let mut world = World::durable(1, &options);
    world.subscribed_and_away("client", "old", QoS::AtLeastOnce);
    put_all_twice(&mut world.shards[0].durable.as_mut().unwrap().log);
    world.settle();
    world.crash(&options);

    assert_eq!(world.shards[0].session_views().map(|view| view.acked_subscriptions).collect::<Vec<_>>(), [2]);
    let log = world.shards[0].log().unwrap();
    assert_eq!(
        (log.streams().count(), log.state_count()),
        (1, 5),
        "two filters, a will, an identifier, a message"
    );

    let publisher = world.connect(0, Version::V5, "publisher");
    world.publish(publisher, "old", "0", QoS::AtLeastOnce, 1, false);
    world.publish(publisher, "new", "1", QoS::AtLeastOnce, 2, false);
    world.publish(publisher, "shared", "2", QoS::AtLeastOnce, 3, false);
    let client = world.resumed("client");
    assert_eq!(world.take(client), ["PUBLISH new 1 q1 id=1 ids=[6]", "PUBLISH shared 2 q1 id=2 ids=[6]"]);
    let answer = world.subscribe(client, "retained", QoS::AtMostOnce);
    assert!(answer.iter().any(|packet| packet.starts_with("PUBLISH retained later")), "{answer:?}");

    world.connect_with(0, &Connect::new(Version::V5, "client", true, 0));
    world.publish(publisher, "retained", "", QoS::AtLeastOnce, 4, true);
    world.crash(&options);
    let log = world.shards[0].log().unwrap();
    assert_eq!((log.streams().count(), log.state_count(), log.origins().count()), (0, 0, 0));
}

#[test]
fn an_earlier_session_of_a_client_whose_later_one_is_over_is_over_too() {
    for has_groups in [false, true] {
        let options = options();
        let mut world = World::durable(1, &options);
        let log = &mut world.shards[0].durable.as_mut().unwrap().log;
        for standing in [Standing::Connected, Standing::Ended] {
            let mut value = Vec::new();
            put_session_value(standing, has_groups, &mut value);
            log.open(StreamKind::Session, NOBODY, &value).unwrap();
        }
        world.settle();
        world.crash(&options);
        assert_eq!(world.shards[0].session_count(), 0);
        assert_eq!(world.shards[0].log().unwrap().streams().count(), 0);
    }
}

#[test]
fn an_expired_message_is_not_retained_nor_the_one_before_it() {
    let options = options();
    let mut world = World::durable(1, &options);
    let log = &mut world.shards[0].durable.as_mut().unwrap().log;
    for (payload, expires_at) in [("earlier", Wall::NEVER), ("later", Wall(1))] {
        let mut value = Vec::new();
        format::put_retained(&message(payload, expires_at).as_ref(), &mut value);
        log.put(StateKind::Retained, NOBODY, None, &value).unwrap();
    }
    world.settle();
    world.crash(&options);
    assert_eq!(world.shards[0].retained_count(), 0);
    assert_eq!(world.shards[0].log().unwrap().state_count(), 0);
}

#[test]
fn of_two_deliveries_with_one_identifier_the_later_one_goes_on() {
    let options = options();
    let mut world = World::durable(1, &options);
    world.subscribed_and_away("subscriber", "t", QoS::ExactlyOnce);
    let publisher = world.connect(0, Version::V5, "publisher");
    (1..=3).for_each(|n| world.publish(publisher, "t", &n.to_string(), QoS::ExactlyOnce, n, false));
    // As if the record that settled the first one were damaged.
    let log = &mut world.shards[0].durable.as_mut().unwrap().log;
    let stream = log.streams().map(|(stream, ..)| stream).next().unwrap();
    let numbers: Vec<_> = log.messages(stream).map(|(number, _)| number).collect();
    let tag = format::tag(packet_id(7), false);
    for number in &numbers[..2] {
        log.mark(stream, *number, tag).unwrap();
    }
    world.settle();
    world.crash(&options);
    let subscriber = world.resumed("subscriber");
    assert_eq!(world.take(subscriber), ["PUBLISH t 2 q2 id=7 dup", "PUBLISH t 3 q2 id=1"]);
}
