//! Replays that run long, several to a session: budgets of one message, a client with a window of one.

use super::*;
use crate::shard::options::Budgets;
use std::num::NonZeroU16;

const TOPICS: [&str; 5] = ["r/a", "r/b", "r/c", "r/d", "r/e"];

/// A publisher that has retained "old" on every topic, and a subscriber that takes one message at a time.
fn slow_world() -> (World, usize, usize) {
    let budgets =
        Budgets { replay_batch: 1, replay_noted_max: 0, replay_queue_high: 1, ..Budgets::default() };
    let mut world = World::new(1, &Options { budgets, ..Options::default() });
    let publisher = world.connect(0, Version::V5, "publisher");
    for topic in TOPICS {
        world.publish(publisher, topic, "old", QoS::AtLeastOnce, 1, true);
    }
    let mut connect = Connect::new(Version::V5, "subscriber", true, 0);
    connect.receive_maximum = NonZeroU16::new(1);
    let subscriber = world.connect_with(0, &connect);
    world.take(subscriber);
    (world, publisher, subscriber)
}

fn unsubscribe(world: &mut World, client: usize, filter: &str) {
    let mut bytes = Vec::new();
    codec::encode_unsubscribe(packet_id(8), &[filter], Version::V5, &mut bytes);
    world.send(client, &bytes);
}

/// Acknowledges until nothing comes any more; gives what came as "topic payload".
fn drain(world: &mut World, client: usize) -> Vec<String> {
    let mut got = Vec::new();
    loop {
        let lines = world.take(client);
        let publishes: Vec<&String> = lines.iter().filter(|line| line.starts_with("PUBLISH")).collect();
        if publishes.is_empty() {
            return got;
        }
        for line in publishes {
            let words: Vec<&str> = line.split(' ').collect();
            got.push(format!("{} {}", words[1], words[2]));
            let id = words.iter().find_map(|word| word.strip_prefix("id=")).unwrap().parse().unwrap();
            world.ack(client, AckKind::PubAck, id);
        }
    }
}

#[test]
fn what_waited_for_one_replay_is_newer_than_what_another_has() {
    let (mut world, publisher, subscriber) = slow_world();
    for _ in 0..3 {
        world.send(subscriber, &subscribe_bytes(["r/#"], QoS::AtLeastOnce, Version::V5));
    }
    for topic in TOPICS {
        world.publish(publisher, topic, "new", QoS::AtLeastOnce, 1, true);
    }
    let got = drain(&mut world, subscriber);
    for topic in TOPICS {
        let last = got.iter().rfind(|line| line.starts_with(topic)).unwrap();
        assert_eq!(*last, format!("{topic} new"), "{got:?}");
    }
}

#[test]
fn unsubscribing_loses_nothing_that_another_filter_matched() {
    let (mut world, publisher, subscriber) = slow_world();
    let never = SubscribeFilter {
        retain_handling: codec::RetainHandling::Never,
        ..SubscribeFilter::new("r/a", QoS::AtLeastOnce)
    };
    world.subscribe_with(subscriber, never, None);
    world.send(subscriber, &subscribe_bytes(["r/#"], QoS::AtLeastOnce, Version::V5));
    world.publish(publisher, "r/a", "new", QoS::AtLeastOnce, 1, true);
    unsubscribe(&mut world, subscriber, "r/#");
    let got = drain(&mut world, subscriber);
    assert!(got.contains(&"r/a new".to_string()), "{got:?}");
}

#[test]
fn what_waits_for_several_replays_stays_in_order() {
    let budgets =
        Budgets { replay_batch: 1, replay_noted_max: 1, replay_queue_high: 1, ..Budgets::default() };
    let mut world = World::new(1, &Options { budgets, ..Options::default() });
    let publisher = world.connect(0, Version::V5, "publisher");
    for topic in ["r/1/a", "r/1/b", "r/1/c", "r/1/d", "r/2/c"] {
        world.publish(publisher, topic, "old", QoS::AtLeastOnce, 1, true);
    }
    let mut connect = Connect::new(Version::V5, "subscriber", true, 0);
    connect.receive_maximum = NonZeroU16::new(1);
    let subscriber = world.connect_with(0, &connect);
    world.take(subscriber);
    for filter in ["r/1/#", "r/#"] {
        world.send(subscriber, &subscribe_bytes([filter], QoS::AtLeastOnce, Version::V5));
    }
    // The second replay has no room for another topic after the first of these, the first one after the second.
    for (topic, payload) in [("r/2/c", "new"), ("r/1/a", "first"), ("r/1/b", "new"), ("r/1/a", "second")] {
        world.publish(publisher, topic, payload, QoS::AtLeastOnce, 1, true);
    }
    unsubscribe(&mut world, subscriber, "r/#");
    let got = drain(&mut world, subscriber);
    let at = |what: &str| got.iter().position(|line| line == what);
    assert!(at("r/1/a first").is_some() && at("r/1/a first") < at("r/1/a second"), "{got:?}");
}

/// A member of a shared subscription for whom a message waits behind a replay, and another member.
fn parked_member() -> (World, usize, usize) {
    let (mut world, publisher, subscriber) = slow_world();
    let filters = ["r/#", "$share/g/r/a"];
    world.send(subscriber, &subscribe_bytes(filters, QoS::AtLeastOnce, Version::V5));
    // Only the first one is away from the replay: the group has one member yet.
    world.publish(publisher, "r/a", "new", QoS::AtLeastOnce, 1, true);
    let other = world.connect(0, Version::V5, "other");
    world.subscribe(other, "$share/g/r/a", QoS::AtLeastOnce);
    (world, subscriber, other)
}

fn assigned(world: &World) -> u32 {
    let shard = &world.shards[0];
    let slot = shard.groups.find(crate::base::VhostId(0), "g", "r/a").unwrap();
    shard.groups.get(slot).unwrap().iter().map(|member| member.in_flight_count).sum()
}

#[test]
fn what_waited_for_a_replay_is_settled_for_its_group() {
    let (mut world, subscriber, _) = parked_member();
    assert_eq!(assigned(&world), 1);
    let got = drain(&mut world, subscriber);
    assert_eq!(got.iter().filter(|line| *line == "r/a new").count(), 2, "its own, and the group's: {got:?}");
    assert_eq!(assigned(&world), 0);
}

#[test]
fn what_waited_for_a_replay_goes_to_another_member_when_the_session_ends() {
    let (mut world, subscriber, other) = parked_member();
    world.drop_connection(subscriber);
    assert_eq!(drain(&mut world, other), ["r/a new"]);
    assert_eq!(assigned(&world), 0);
}

#[test]
fn the_send_quota_begins_anew_with_each_connection() {
    let mut options = Options::default();
    options.session.receive_maximum = 2;
    let mut world = World::new(1, &options);
    let mut connect = Connect::new(Version::V5, "publisher", true, 0);
    connect.session_expiry = Some(100);
    let first = world.connect_with(0, &connect);
    world.publish(first, "t", "1", QoS::ExactlyOnce, 1, false);
    world.publish(first, "t", "2", QoS::ExactlyOnce, 2, false);
    world.drop_connection(first);
    connect.clean_start = false;
    let second = world.connect_with(0, &connect);
    world.take(second);
    // Neither of the first two is released yet.
    world.publish(second, "t", "3", QoS::ExactlyOnce, 3, false);
    world.publish(second, "t", "4", QoS::AtLeastOnce, 4, false);
    world.ack(second, AckKind::PubRel, 1);
    let got = world.take(second);
    let heads: Vec<&str> = got.iter().map(|line| line.split_once(' ').unwrap().0).collect();
    assert_eq!(heads, ["PUBREC", "PUBACK", "PUBCOMP"], "{got:?}");
    for id in 5..7 {
        world.publish(second, "t", "5", QoS::ExactlyOnce, id, false);
    }
    let got = world.take(second).concat();
    assert!(got.starts_with("PUBREC 5") && !got.contains("DISCONNECT"), "two are in flight: {got}");
    world.publish(second, "t", "6", QoS::ExactlyOnce, 7, false);
    let got = world.take(second).concat();
    assert!(got.contains("DISCONNECT ReceiveMaximumExceeded"), "a third is one too many: {got}");
}

#[test]
fn what_waits_of_a_subscription_that_was_gone_for_a_while_comes_before_what_is_retained_since() {
    let (mut world, publisher, subscriber) = slow_world();
    for filter in ["r/#", "r/b"] {
        world.subscribe(subscriber, filter, QoS::AtLeastOnce);
    }
    world.publish(publisher, "r/b", "new", QoS::AtLeastOnce, 1, true);
    world.publish(publisher, "r/e", "new", QoS::AtLeastOnce, 1, true);
    unsubscribe(&mut world, subscriber, "r/#");
    world.publish(publisher, "r/e", "newer", QoS::AtLeastOnce, 1, true);
    let mut bytes = Vec::new();
    let filter = SubscribeFilter::new("r/e", QoS::AtLeastOnce);
    codec::encode_subscribe(packet_id(7), None, &[filter], Version::V5, &mut bytes);
    world.send(subscriber, &bytes);
    let mut got = Vec::new();
    // What came so far was taken when it subscribed: the window is full.
    world.ack(subscriber, AckKind::PubAck, 1);
    got.extend(drain(&mut world, subscriber));
    let last = |topic: &str| got.iter().rfind(|line| line.starts_with(topic)).map(String::as_str);
    assert_eq!((last("r/b"), last("r/e")), (Some("r/b new"), Some("r/e newer")), "{got:?}");
}
