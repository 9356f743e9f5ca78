//! What is in flight, and what is read back behind it.

use super::*;

#[test]
fn what_waits_before_a_delivery_that_had_begun_is_not_passed_over() {
    let options = options();
    let mut world = World::durable(2, &options);
    let subscriber = world.subscribed("subscriber", "t", QoS::ExactlyOnce);
    let publisher = world.connect(0, Version::V5, "publisher");
    for (n, qos) in (1..).zip([QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce]) {
        world.publish(publisher, "t", &n.to_string(), qos, n, false);
    }
    assert_eq!(world.take(subscriber).len(), 3);
    world.crash(&options);
    let subscriber = world.resumed("subscriber");
    assert_eq!(
        world.take(subscriber),
        ["PUBLISH t 2 q2 id=2 dup", "PUBLISH t 1 q1 id=1", "PUBLISH t 3 q1 id=3"]
    );
}

#[test]
fn a_window_of_large_messages_is_a_small_one() {
    let mut options = options();
    options.log.segment_bytes = 1 << 20;
    let mut world = World::durable(1, &options);
    let subscriber = world.subscribed("subscriber", "t", QoS::AtLeastOnce);
    let publisher = world.connect(0, Version::V5, "publisher");
    let large = "x".repeat(70_000);
    (1..=300).for_each(|n| world.publish(publisher, "t", &large, QoS::AtLeastOnce, n, false));
    assert_eq!(world.take(subscriber).len(), 256);
    world.ack(subscriber, AckKind::PubAck, 1);
    assert_eq!(world.take(subscriber).len(), 1);
    (1..=500).for_each(|n| world.publish(publisher, "t", "small", QoS::AtLeastOnce, n, false));
    (2..=100).for_each(|n| world.ack(subscriber, AckKind::PubAck, n));
    assert_eq!(world.take(subscriber).len(), 43 + 500);
}

#[test]
fn what_waits_behind_a_batch_of_deliveries_that_had_begun_is_read_back() {
    let options = options();
    let mut world = World::durable(1, &options);
    let subscriber = world.subscribed("subscriber", "t", QoS::ExactlyOnce);
    let publisher = world.connect(0, Version::V5, "publisher");
    let large = "x".repeat(60_000);
    world.publish(publisher, "t", "first", QoS::AtLeastOnce, 1, false);
    (2..=6).for_each(|n| world.publish(publisher, "t", &large, QoS::ExactlyOnce, n, false));
    world.publish(publisher, "t", "last", QoS::AtLeastOnce, 7, false);
    assert_eq!(world.take(subscriber).len(), 7);
    world.crash(&options);
    let subscriber = world.resumed("subscriber");
    let got = world.take(subscriber);
    assert_eq!(got.len(), 7);
    assert_eq!(got[5..], ["PUBLISH t first q1 id=1", "PUBLISH t last q1 id=7"]);
}

#[test]
fn a_long_queue_is_read_back_in_order() {
    let options = options();
    let mut world = World::durable(2, &options);
    world.subscribed_and_away("subscriber", "t", QoS::AtLeastOnce);
    let publisher = world.connect(0, Version::V5, "publisher");
    for n in 0..700u16 {
        world.publish(publisher, "t", &n.to_string(), QoS::AtLeastOnce, n + 1, false);
    }
    assert_eq!(world.take(publisher).len(), 700);
    let subscriber = world.resumed("subscriber");
    let got = world.take_all(subscriber, &[AckKind::PubAck]);
    assert_eq!(got, (0..700).collect::<Vec<u16>>());
}
