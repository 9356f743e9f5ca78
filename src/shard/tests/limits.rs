//! What happens at a bound and one past it: the client is told, everybody else goes on, and time makes room again.

use super::{World, accepted, delivery, encoded};
use crate::base::{QoS, Version};
use crate::codec::{ConnAck, Connect, Delivery};
use crate::session::Violation;
use crate::shard::{HandOver, Options};
use std::num::NonZeroU32;

#[test]
fn one_client_more_than_the_maximum_is_told_so() {
    let mut options = Options::default();
    options.process.connections_max = Some(2);
    let mut world = World::new(1, &options);
    let first = world.connect(0, Version::V5, "1");
    world.connect(0, Version::V5, "2");
    let third = world.connect_with(0, &Connect::new(Version::V5, "3", true, 0));
    assert_eq!(world.take(third), ["CONNACK QuotaExceeded false"]);
    assert!(world.clients[third].closed);
    let old = world.connect_with(0, &Connect::new(Version::V311, "4", true, 0));
    assert_eq!(world.take(old), ["CONNACK NotAuthorized false"], "return code 5");
    // Whoever takes its own session over is not one more.
    world.connect(0, Version::V5, "1");
    assert!(world.clients[first].closed);
    assert_eq!(world.shards[0].client_count(), 2);
}

#[test]
fn over_the_memory_watermark_publishers_wait_and_new_clients_are_refused() {
    let mut world = World::new(1, &Options::default());
    let publisher = world.connect(0, Version::V5, "p");
    let subscriber = world.connect(0, Version::V5, "s");
    world.subscribe(subscriber, "t", QoS::AtLeastOnce);
    let (shard, now) = (&mut world.shards[0], world.now);
    shard.handle_pressure(now, true);
    world.publish(publisher, "t", "x", QoS::AtLeastOnce, 1, false);
    assert_eq!(world.take(subscriber), ["PUBLISH t x q1 id=1"], "what was read already is not lost");
    assert_eq!(world.shards[0].residue().paused, 1);
    let stranger = world.connect_with(0, &Connect::new(Version::V5, "n", true, 0));
    assert_eq!(world.take(stranger), ["CONNACK QuotaExceeded false"]);
    let old = world.connect_with(0, &Connect::new(Version::V311, "o", true, 0));
    assert_eq!(world.take(old), ["CONNACK ServerUnavailable false"]);
    world.shards[0].handle_pressure(world.now, false);
    assert_eq!(world.shards[0].residue().paused, 0);
    world.connect(0, Version::V5, "n");
}

#[test]
fn the_retained_store_is_bounded_and_what_expired_makes_room() {
    let mut options = Options::default();
    options.route.retained_messages_max = Some(2);
    let mut world = World::new(1, &options);
    let publisher = world.connect(0, Version::V5, "p");
    let publish = |world: &mut World, topic: &str, expiry| retain(world, publisher, topic, expiry);
    assert_eq!(publish(&mut world, "a", None), ["PUBACK 1 NoMatchingSubscribers"]);
    assert_eq!(
        publish(&mut world, "b", Some(10)),
        ["PUBACK 1 NoMatchingSubscribers"],
        "the bound is reached"
    );
    assert_eq!(publish(&mut world, "c", None), ["PUBACK 1 QuotaExceeded"], "one more is over it");
    assert_eq!(world.shards[0].counters().not_retained, 1);
    world.advance(11_000);
    assert_eq!(publish(&mut world, "c", None), ["PUBACK 1 NoMatchingSubscribers"]);
    assert_eq!(world.shards[0].retained_count(), 2);
}

#[test]
fn a_client_is_refused_while_there_are_no_sockets() {
    let mut world = World::new(1, &Options::default());
    let first = world.connect(0, Version::V5, "1");
    world.shards[0].handle_sockets_max(Some(1));
    for (version, answer) in [
        (Version::V310, "CONNACK ServerUnavailable false"),
        (Version::V311, "CONNACK ServerUnavailable false"),
        (Version::V5, "CONNACK QuotaExceeded false"),
    ] {
        let client = world.connect_with(0, &Connect::new(version, "2", true, 0));
        assert_eq!(world.take(client), [answer]);
        assert!(world.clients[client].closed);
    }
    // Whoever takes its own session over is not one more.
    world.connect(0, Version::V5, "1");
    assert!(world.clients[first].closed);
    world.shards[0].handle_sockets_max(Some(2));
    world.connect(0, Version::V5, "2");
}

#[test]
fn a_client_that_cannot_move_to_its_home_is_refused() {
    for (version, answer) in [(Version::V311, vec![0x20, 2, 0, 3]), (Version::V5, vec![0x20, 3, 0, 0x97, 0])]
    {
        let mut world = World::new(1, &Options::default());
        let mut bytes = Vec::new();
        Connect::new(version, "c", true, 0).encode(&mut bytes);
        let hand_over = HandOver { accepted: accepted(world.now), bytes };
        let id = world.shards[0].handle_hand_over_failed(world.now, &hand_over).unwrap();
        let (to, buffer) = world.shards[0].poll_send().unwrap();
        assert_eq!((to, buffer.contiguous()), (id, Some(&answer[..])));
    }
}

/// [MQTT-3.1.2-24]
#[test]
fn a_refusal_larger_than_the_client_takes_is_not_sent() {
    let mut world = World::new(1, &Options::default());
    world.shards[0].handle_pressure(world.now, true);
    let mut answer = Vec::new();
    ConnAck::new(false, Violation::ServerFull.reason()).encode(Version::V5, &mut answer);
    let size = u32::try_from(answer.len()).unwrap();
    for (max, expected) in [(size - 1, &[][..]), (size, &["CONNACK QuotaExceeded false"])] {
        let mut connect = Connect::new(Version::V5, "tiny", true, 0);
        connect.packet_size_max = NonZeroU32::new(max);
        let client = world.connect_with(0, &connect);
        assert_eq!(world.take(client), expected);
        assert!(world.clients[client].closed);
    }
}

/// [MQTT-3.1.2-22]
#[test]
fn keep_alive_counts_packets_and_not_bytes() {
    let mut world = World::new(1, &Options::default());
    let whole = world.connect_with(0, &Connect::new(Version::V5, "whole", true, 10));
    let drip = world.connect_with(0, &Connect::new(Version::V5, "drip", true, 10));
    world.take(whole);
    world.take(drip);
    // One announces a PUBLISH of 127 bytes and sends a byte of it now and then.
    world.send(drip, &[0x30, 127]);
    for _ in 0..4 {
        world.advance(5_000);
        world.send(whole, &[0xC0, 0]);
        world.send(drip, &[0]);
    }
    assert!(!world.clients[whole].closed);
    assert_eq!(world.take(drip), ["DISCONNECT KeepAliveTimeout"]);
    assert!(world.clients[drip].closed);
}

#[test]
fn packets_that_never_end_fill_their_share_of_memory_and_no_more() {
    let mut options = Options::default();
    options.session.packet_size_max = 100_000;
    options.process.memory_max_bytes = Some(4_000_000);
    let mut world = World::new(1, &options);
    // Each sends most of a packet; ten of them are the bound.
    let half = vec![0; 99_000];
    let clients: Vec<usize> = (0..14)
        .map(|n| {
            let client = world.connect(0, Version::V5, &format!("c{n}"));
            world.send(client, &[&[0x30, 0xAC, 0x89, 0x06][..], &half].concat());
            client
        })
        .collect();
    let closed = clients.iter().filter(|client| world.clients[**client].closed).count();
    assert!((1..8).contains(&closed), "{closed}");
    assert_eq!(world.take(clients[13]), ["DISCONNECT QuotaExceeded"]);
    assert!(!world.clients[clients[0]].closed, "who came first goes on");
}

#[test]
fn retained_messages_expire_though_nothing_else_happens() {
    let mut world = World::new(1, &Options::default());
    let publisher = world.connect(0, Version::V5, "p");
    retain(&mut world, publisher, "t", Some(10));
    world.send(publisher, &[0xE0, 0]);
    // Only the driver's contract: it calls when a deadline has come.
    let mut calls = 0;
    while let Some(deadline) = world.shards[0].next_deadline() {
        calls += 1;
        assert!(calls < 100, "it sleeps in between");
        let passed = deadline.since(world.now.mono);
        world.now.mono = world.now.mono.plus_ms(passed);
        world.now.wall.0 += passed;
        world.shards[0].handle_timeout(world.now);
    }
    assert_eq!(world.shards[0].retained_count(), 0);
}

#[test]
fn all_that_has_expired_makes_room() {
    const COUNT: usize = 3_000;
    let mut options = Options::default();
    options.route.retained_messages_max = Some(COUNT as u64);
    let mut world = World::new(1, &options);
    let publisher = world.connect(0, Version::V5, "p");
    // Those that stay are all in front of the one that goes.
    for n in 1..COUNT {
        retain(&mut world, publisher, &format!("stays/{n}"), Some(1000));
    }
    retain(&mut world, publisher, "goes", Some(1));
    // Time passes and nobody has looked.
    world.now.mono = world.now.mono.plus_ms(2_000);
    world.now.wall.0 += 2_000;
    assert_eq!(retain(&mut world, publisher, "new", None), ["PUBACK 1 NoMatchingSubscribers"]);
    assert_eq!(retain(&mut world, publisher, "newer", None), ["PUBACK 1 QuotaExceeded"]);
}

/// What many clients took is free again when they have gone, also while others stay.
#[test]
fn memory_is_given_back() {
    let mut world = World::new(2, &Options::default());
    let witness = world.connect(0, Version::V5, "witness");
    world.subscribe(witness, "w", QoS::AtMostOnce);
    let total = |world: &World| -> usize {
        let of = |memory: crate::shard::view::MemoryView| {
            memory.connections + memory.sessions + memory.trie + memory.interest + memory.timers
        };
        world.shards.iter().map(|shard| of(shard.memory())).sum()
    };
    let before = total(&world);
    let ids: Vec<(usize, crate::base::ConnectionId)> = (0..20_000)
        .map(|n| {
            let connect = Connect::new(Version::V311, "x", true, 3600);
            let (id, shard) = direct(&mut world, &format!("c{n}"), &connect);
            (shard, id)
        })
        .collect();
    assert!(total(&world) > 4 * before);
    for (shard, id) in ids {
        world.shards[shard].handle_closed(world.now, id, None);
        while world.shards[shard].poll_output().is_some() {}
    }
    world.clients.truncate(1);
    world.settle();
    world.advance(12_000);
    for shard in 0..2 {
        world.shards[shard].handle_spare_time(world.now);
        world.shards[shard].handle_spare_time(world.now);
    }
    let after = total(&world);
    assert!(after < before + before / 2 + 100_000, "{before} before, {after} after");
    assert_eq!(world.subscribe(witness, "w", QoS::AtMostOnce), ["SUBACK 7 [Success]"]);
}

/// Connects and subscribes without the bookkeeping that is slow for many; where the client is.
fn direct(world: &mut World, id: &str, connect: &Connect<'_>) -> (crate::base::ConnectionId, usize) {
    let connect = Connect { client_id: id, ..*connect };
    let shard = world.shards[0].home_of(id).index();
    let connection = world.shards[shard].handle_accepted(world.now, accepted(world.now)).unwrap();
    let mut bytes = Vec::new();
    connect.encode(&mut bytes);
    bytes.extend([0x82, 5 + u8::try_from(id.len()).unwrap(), 0, 1, 0, u8::try_from(id.len()).unwrap()]);
    bytes.extend(id.as_bytes());
    bytes.push(0);
    world.shards[shard].handle_bytes(world.now, connection, &bytes);
    world.settle();
    (connection, shard)
}

/// Publishes a retained message; what comes back.
fn retain(world: &mut World, publisher: usize, topic: &str, expiry: Option<u32>) -> Vec<String> {
    let delivery = Delivery { retain: true, expiry, ..delivery(topic, b"x", QoS::AtLeastOnce, 1) };
    let bytes = encoded(&delivery, Version::V5);
    world.send(publisher, &bytes);
    world.take(publisher)
}

#[test]
fn a_second_connect_is_answered_with_what_disconnect_can_say() {
    let mut world = World::new(1, &Options::default());
    let client = world.connect(0, Version::V5, "client");
    let mut bytes = Vec::new();
    Connect::new(Version::V5, "client", true, 0).encode(&mut bytes);
    // The protocol level, one that does not exist.
    bytes[8] = 9;
    world.send(client, &bytes);
    assert_eq!(world.take(client), ["DISCONNECT ProtocolError"]);
}

/// Another protocol's client would wait for an answer as long as the broker for the rest of a packet. [MQTT-3.1.0-1]
#[test]
fn what_cannot_become_a_connect_is_closed_at_its_first_byte() {
    for (opening, is_closed) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], true),
        (b"G", true),
        (b"SSH-2.0-", true),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true),
        (b"\x16\x03\x01\x02\x00\x01", true),
        (b"AMQP\0\0\x09\x01", true),
        (b"\r\n\r\n\0\r\nQUIT\n", true),
        (b"\x30\x7f", true),
        (b"\x11", true),
        (b"\x10", false),
        (b"\x10\x7f\0\x04MQTT", false),
    ] {
        let mut world = World::new(1, &Options::default());
        let stranger = world.open(0, Version::V311);
        world.send(stranger, opening);
        assert_eq!(world.clients[stranger].closed, is_closed, "{opening:?}");
        assert_eq!(world.clients[stranger].received, [0; 0]);
        let counted = world.shards[0].counters().refused_connections.of(crate::shard::Cause::NotMqtt);
        assert_eq!(counted, u64::from(is_closed), "{opening:?}");
    }
}
