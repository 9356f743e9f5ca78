//! Over the memory watermark: who publishes is paused, or read slowly while it has something to acknowledge.

use super::{World, delivery, encoded, subscribe_bytes};
use crate::base::{QoS, Version};
use crate::codec::{AckKind, Connect};
use crate::shard::Options;
use crate::shard::slow::HELD_BYTES_MAX;

const PINGREQ: [u8; 2] = [0xC0, 0];
/// More than the time between two looks at paused connections.
const A_LOOK_MS: u64 = 200;

/// A shard over its watermark with a client that publishes and has one QoS 1 delivery, number 1, to acknowledge. It is paused.
fn under_pressure(version: Version, options: &Options) -> (World, usize) {
    let mut world = World::new(1, options);
    let client = world.connect(0, version, "c");
    world.subscribe(client, "mine", QoS::AtLeastOnce);
    let other = world.connect(0, version, "other");
    world.publish(other, "mine", "x", QoS::AtLeastOnce, 1, false);
    world.take(client);
    world.shards[0].handle_pressure(world.now, true);
    world.publish(client, "t", "first", QoS::AtMostOnce, 0, false);
    assert!(world.clients[client].paused);
    (world, client)
}

fn publish_bytes(version: Version, payload: &[u8], qos: QoS, id: u16) -> Vec<u8> {
    encoded(&delivery("t", payload, qos, id), version)
}

#[test]
fn a_client_that_has_to_acknowledge_is_heard_and_its_publishes_are_refused() {
    let (mut world, client) = under_pressure(Version::V5, &Options::default());
    let witness = world.connect_with(0, &Connect::new(Version::V5, "late", true, 0));
    assert_eq!(world.take(witness), ["CONNACK QuotaExceeded false"]);
    world.advance(A_LOOK_MS);
    assert!(!world.clients[client].paused, "read for a moment");
    assert_eq!(world.shards[0].residue().slow, 1);
    let flood: Vec<u8> = [
        publish_bytes(Version::V5, b"x", QoS::AtLeastOnce, 11),
        publish_bytes(Version::V5, b"x", QoS::ExactlyOnce, 12),
        publish_bytes(Version::V5, b"x", QoS::AtMostOnce, 0),
        PINGREQ.to_vec(),
    ]
    .concat();
    world.send(client, &flood);
    assert!(world.clients[client].paused, "no more than a moment");
    assert_eq!(world.take(client), ["PUBACK 11 QuotaExceeded", "PUBREC 12 QuotaExceeded", "PingResp"]);
    let counters = world.shards[0].counters();
    assert_eq!((counters.refused_overload, counters.dropped_overload), (2, 1));
    world.advance(A_LOOK_MS);
    assert!(!world.clients[client].paused);
    world.ack(client, AckKind::PubAck, 1);
    assert!(world.clients[client].paused, "a slow connection is not read on");
    world.advance(10 * A_LOOK_MS);
    assert!(world.clients[client].paused, "nothing is left to be acknowledged");
    world.shards[0].handle_pressure(world.now, false);
    world.settle();
    assert!(!world.clients[client].paused);
    world.publish(client, "t", "x", QoS::ExactlyOnce, 12, false);
    assert_eq!(
        world.take(client),
        ["PUBREC 12 NoMatchingSubscribers"],
        "the exchange that was refused is over"
    );
    assert_eq!((world.shards[0].residue().slow, world.shards[0].residue().paused), (0, 0));
}

#[test]
fn what_version_3_cannot_be_refused_waits_in_order() {
    let (mut world, client) = under_pressure(Version::V311, &Options::default());
    world.advance(A_LOOK_MS);
    let second = publish_bytes(Version::V311, b"half", QoS::ExactlyOnce, 12);
    let (head, rest) = second.split_at(4);
    let flood: Vec<u8> = [
        publish_bytes(Version::V311, b"x", QoS::AtLeastOnce, 11),
        publish_bytes(Version::V311, b"x", QoS::AtMostOnce, 0),
        subscribe_bytes(["mine"], QoS::AtMostOnce, Version::V311),
        PINGREQ.to_vec(),
        vec![0x40, 2, 0, 1],
        head.to_vec(),
    ]
    .concat();
    world.send(client, &flood);
    assert_eq!(world.take(client), ["PingResp"]);
    let session = world.shards[0].session_views().find(|view| view.client_id == "c").unwrap();
    assert_eq!(session.unacknowledged, 0, "the acknowledgement was heard");
    assert_eq!(world.shards[0].counters().dropped_overload, 1);
    world.shards[0].handle_pressure(world.now, false);
    world.settle();
    assert_eq!(world.take(client), ["PUBACK 11 Success", "SUBACK 7 [Success]"]);
    world.send(client, rest);
    assert_eq!(world.take(client), ["PUBREC 12 Success"]);
    let residue = world.shards[0].residue();
    assert_eq!((residue.slow, residue.paused, residue.partial_bytes), (0, 0, 0));
}

#[test]
fn what_waits_is_bounded() {
    let empty = publish_bytes(Version::V311, &vec![0; 1 << 15], QoS::AtLeastOnce, 11).len() - (1 << 15);
    for (size, is_full) in [(HELD_BYTES_MAX - 1, false), (HELD_BYTES_MAX, true)] {
        let (mut world, client) = under_pressure(Version::V311, &Options::default());
        world.advance(A_LOOK_MS);
        world.send(client, &publish_bytes(Version::V311, &vec![0; size - empty], QoS::AtLeastOnce, 11));
        world.advance(A_LOOK_MS);
        assert_eq!(world.clients[client].paused, is_full, "{size}");
        // What was on its way is kept as well, whatever it is.
        world.send(client, &PINGREQ);
        assert_eq!(world.take(client), if is_full { &[][..] } else { &["PingResp"] });
        world.shards[0].handle_pressure(world.now, false);
        world.settle();
        let expected = if is_full { &["PUBACK 11 Success", "PingResp"][..] } else { &["PUBACK 11 Success"] };
        assert_eq!(world.take(client), expected, "{size}");
        assert!(!world.clients[client].paused);
    }
}

#[test]
fn what_waits_for_all_clients_together_is_bounded() {
    let mut options = Options::default();
    options.session.packet_size_max = 1000;
    options.process.memory_max_bytes = Some(8000);
    for (size, is_full) in [(900, false), (900 + 1200, true)] {
        let (mut world, client) = under_pressure(Version::V311, &options);
        world.advance(A_LOOK_MS);
        for id in 0..u16::try_from(size / 300).unwrap() {
            world.send(client, &publish_bytes(Version::V311, &[0; 300], QoS::AtLeastOnce, 11 + id));
        }
        world.advance(A_LOOK_MS);
        assert_eq!(world.clients[client].paused, is_full, "{size}");
        assert!(!world.clients[client].closed);
    }
}

#[test]
fn who_leaves_is_not_left_unanswered() {
    let (mut world, client) = under_pressure(Version::V311, &Options::default());
    world.advance(A_LOOK_MS);
    world.send(client, &publish_bytes(Version::V311, b"x", QoS::AtLeastOnce, 11));
    assert_eq!(world.take(client), [""; 0]);
    world.send(client, &[0xE0, 0]);
    assert_eq!(world.take(client), ["PUBACK 11 Success"]);
    assert!(world.clients[client].closed);
    assert_eq!(world.shards[0].residue().slow, 0);
}

#[test]
fn who_is_lost_leaves_nothing_behind() {
    let (mut world, client) = under_pressure(Version::V311, &Options::default());
    world.advance(A_LOOK_MS);
    let before = world.shards[0].memory().connections;
    world.send(client, &publish_bytes(Version::V311, &[0; 3000], QoS::AtLeastOnce, 11));
    assert!(world.shards[0].memory().connections >= before + 3000);
    world.drop_connection(client);
    assert!(world.shards[0].memory().connections < before + 3000);
    world.shards[0].handle_pressure(world.now, false);
    world.settle();
    assert_eq!((world.shards[0].residue().slow, world.shards[0].residue().paused), (0, 0));
}

/// Short of memory again before everything that was kept could be handled.
#[test]
fn pressure_comes_back_before_all_is_handled() {
    let (mut world, client) = under_pressure(Version::V311, &Options::default());
    world.advance(A_LOOK_MS);
    world.send(client, &publish_bytes(Version::V311, b"x", QoS::AtLeastOnce, 11));
    world.shards[0].handle_pressure(world.now, false);
    world.shards[0].handle_pressure(world.now, true);
    world.settle();
    assert_eq!(world.take(client), [""; 0]);
    world.advance(A_LOOK_MS);
    assert!(!world.clients[client].paused, "it is still looked at");
    world.send(client, &publish_bytes(Version::V311, b"x", QoS::AtLeastOnce, 12));
    world.shards[0].handle_pressure(world.now, false);
    world.settle();
    assert_eq!(world.take(client), ["PUBACK 11 Success", "PUBACK 12 Success"]);
}

/// Whoever is not read from cannot be seen to be alive; nor at the moment when it is read again.
#[test]
fn keep_alive_is_suspended_while_paused_and_begins_anew() {
    let mut world = World::new(1, &Options::default());
    let client = world.connect_with(0, &Connect::new(Version::V5, "c", true, 10));
    world.take(client);
    world.shards[0].handle_pressure(world.now, true);
    world.publish(client, "t", "x", QoS::AtMostOnce, 0, false);
    assert!(world.clients[client].paused);
    // Its timer goes off at 15 s, 30 s, 45 s; it is resumed right before that.
    world.advance(44_900);
    world.shards[0].handle_pressure(world.now, false);
    world.settle();
    world.advance(14_000);
    assert!(!world.clients[client].closed);
    world.send(client, &PINGREQ);
    world.advance(14_000);
    assert_eq!(world.take(client), ["PingResp"]);
    world.advance(16_000);
    assert_eq!(world.take(client), ["DISCONNECT KeepAliveTimeout"]);
}

#[test]
fn new_subscriptions_are_refused_and_known_ones_are_not() {
    for (version, refusal) in [(Version::V5, "QuotaExceeded"), (Version::V311, "UnspecifiedError")] {
        let mut world = World::new(1, &Options::default());
        let client = world.connect(0, version, "c");
        world.subscribe(client, "old", QoS::AtMostOnce);
        world.subscribe(client, "$share/g/old", QoS::AtMostOnce);
        world.shards[0].handle_pressure(world.now, true);
        for (filter, answer) in [
            ("new", refusal),
            ("$share/g/new", refusal),
            ("old", "GrantedQos1"),
            ("$share/g/old", "GrantedQos1"),
        ] {
            let suback = world.subscribe(client, filter, QoS::AtLeastOnce);
            assert_eq!(suback, [format!("SUBACK 7 [{answer}]")], "{filter}");
        }
        world.shards[0].handle_pressure(world.now, false);
        assert_eq!(world.subscribe(client, "new", QoS::AtMostOnce), ["SUBACK 7 [Success]"]);
    }
}

/// The refusal waits for an older acknowledgement and is lost with the connection: the client sends the message again, and it is new.
#[test]
fn a_refused_exchange_is_over_though_nobody_heard_of_it() {
    let mut world = World::new(2, &Options::default());
    let id_on = |world: &World, shard: usize| {
        (0..).map(|n| format!("c{n}")).find(|id| world.shards[0].home_of(id).index() == shard).unwrap()
    };
    let (here, there) = (id_on(&world, 0), id_on(&world, 1));
    let mut connect = Connect::new(Version::V5, &here, false, 0);
    connect.session_expiry = Some(1000);
    let client = world.connect_with(0, &connect);
    world.subscribe(client, "mine", QoS::AtLeastOnce);
    // Its acknowledgements wait for the other shard only because it is durable.
    let subscriber = world.connect_with(0, &Connect { client_id: &there, ..connect });
    assert_eq!(world.clients[subscriber].place.map(|(shard, _)| shard), Some(1));
    world.subscribe(subscriber, "t", QoS::ExactlyOnce);
    world.publish(subscriber, "mine", "x", QoS::AtLeastOnce, 1, false);
    let (_, id) = world.clients[client].place.unwrap();
    let send = |world: &mut World, qos, packet_id| {
        let bytes = publish_bytes(Version::V5, b"x", qos, packet_id);
        world.shards[0].handle_bytes(world.now, id, &bytes);
    };
    // Nothing moves between the shards meanwhile.
    send(&mut world, QoS::AtLeastOnce, 5);
    world.shards[0].handle_pressure(world.now, true);
    send(&mut world, QoS::AtMostOnce, 0);
    world.now.mono = world.now.mono.plus_ms(A_LOOK_MS);
    world.shards[0].handle_timeout(world.now);
    send(&mut world, QoS::ExactlyOnce, 6);
    assert_eq!(world.shards[0].counters().refused_overload, 1);
    assert_eq!(world.shards[0].counters().confirmed, [0; 3], "the older one is not answered yet");
    world.drop_connection(client);
    world.shards[0].handle_pressure(world.now, false);
    world.settle();
    world.take(subscriber);
    let client = world.connect_with(0, &connect);
    assert_eq!(world.take(client)[0], "CONNACK Success true");
    world.publish(client, "t", "x", QoS::ExactlyOnce, 6, false);
    assert_eq!(world.take(client), ["PUBREC 6 Success"]);
    assert_eq!(world.take(subscriber), ["PUBLISH t x q2 id=2"]);
}
