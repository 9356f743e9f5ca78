//! QoS 2 publishes that are repeated after a crash in which only some of their targets had them.

use super::*;

const PLAIN: [&str; 5] = ["one", "two", "three", "four", "five"];
const MEMBERS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// How often each of them has got a message that is on `t`.
fn count(world: &mut World, client_ids: &[&str], payload: &str) -> Vec<usize> {
    let begin = format!("PUBLISH t {payload} ");
    let mut count_of = |client_id: &&str| {
        let (client, is_present) = world.connect_durable(0, client_id, false);
        assert!(is_present);
        world.settle();
        world.take(client).iter().filter(|packet| packet.starts_with(&begin)).count()
    };
    client_ids.iter().map(&mut count_of).collect()
}

/// The home of a group may have the message for somebody else, and the member it was given to may not: it must not be taken for
/// known everywhere. Who subscribes without a group gets it once.
#[test]
fn what_is_known_for_others_still_reaches_a_shared_subscription() {
    for (slow, before, after) in (0..3).flat_map(|slow| [(slow, 0, 0), (slow, 1, 0), (slow, 0, 1)]) {
        let options = options();
        let mut world = World::durable(3, &options);
        for (client_ids, filter) in [(PLAIN, "t"), (MEMBERS, "$share/g/t")] {
            for client_id in client_ids {
                world.subscribed_and_away(client_id, filter, QoS::ExactlyOnce);
            }
        }
        let (publisher, _) = world.connect_durable(0, "publisher", true);
        (1..=before).for_each(|id| world.publish(publisher, "t", "before", QoS::AtLeastOnce, id, false));
        assert_eq!(world.take(publisher).len(), usize::from(before));
        world.disks[slow].is_held = true;
        world.publish(publisher, "t", "it", QoS::ExactlyOnce, 9, false);
        assert!(world.take(publisher).is_empty(), "not kept by all");
        world.crash(&options);
        let publisher = world.resumed("publisher");
        (1..=after).for_each(|id| world.publish(publisher, "t", "after", QoS::AtLeastOnce, id, false));
        world.publish(publisher, "t", "it", QoS::ExactlyOnce, 9, false);
        assert_eq!(world.take(publisher).pop().as_deref(), Some("PUBREC 9 Success"));
        assert_eq!(count(&mut world, &PLAIN, "it"), [1; 5], "{slow} {before} {after}");
        let taken = count(&mut world, &MEMBERS, "it").iter().sum::<usize>();
        assert!((1..=2).contains(&taken), "{taken} of a group: {slow} {before} {after}");
    }
}

/// A client subscribes while a message is on its way that was sent to its shard for somebody else: its publisher does not wait for it, but
/// the client has it, and does not get it again.
#[test]
fn who_was_just_subscribing_does_not_get_a_repetition() {
    let mut is_elsewhere = false;
    for client_id in ["a", "b", "c", "d"] {
        let options = options();
        let mut world = World::durable(2, &options);
        let (publisher, _) = world.connect_durable(0, "publisher", true);
        let (subscriber, _) = world.connect_durable(0, client_id, true);
        let (home, of_publisher) = world.clients[publisher].place.unwrap();
        let (shard, of_subscriber) = world.clients[subscriber].place.unwrap();
        if shard == home {
            continue;
        }
        is_elsewhere = true;
        for name in ["one", "two", "three", "four"] {
            let other = world.connect(0, Version::V5, name);
            world.subscribe(other, "t", QoS::AtMostOnce);
        }
        world.disks[home].is_held = true;
        world.shards[shard].handle_bytes(
            world.now,
            of_subscriber,
            &subscribe_bytes(["+"], QoS::ExactlyOnce, Version::V5),
        );
        let publish = "\x34\x07\0\x01t\0\x09\0x".as_bytes();
        world.shards[home].handle_bytes(world.now, of_publisher, publish);
        world.settle();
        assert!(world.take(publisher).is_empty(), "its identifier is not kept yet");
        world.crash(&options);
        let publisher = world.resumed("publisher");
        world.publish(publisher, "t", "x", QoS::ExactlyOnce, 9, false);
        assert_eq!(world.take(publisher).len(), 1);
        assert_eq!(count(&mut world, &[client_id], "x"), [1], "{client_id}");
        world.ack(publisher, AckKind::PubRel, 9);
        assert_eq!(world.take(publisher), ["PUBCOMP 9 Success"]);
        assert_eq!(origins(&world), 0);
    }
    assert!(is_elsewhere);
}

#[test]
fn a_session_that_a_crash_brings_back_may_repeat_what_it_published() {
    let options = options();
    let mut world = World::durable(2, &options);
    let subscriber = world.subscribed("subscriber", "t", QoS::ExactlyOnce);
    let there = world.clients[subscriber].place.unwrap().0;
    let client_ids = ["a", "b", "c", "d", "e"];
    let publishers = client_ids.map(|id| (id, world.connect_durable(0, id, true).0));
    let elsewhere = publishers.iter().find(|(_, client)| world.clients[*client].place.unwrap().0 != there);
    let (client_id, publisher) = *elsewhere.expect("not all five are of one shard");
    let home = world.clients[publisher].place.unwrap().0;
    // Neither its packet identifier nor the end of its session is on disk yet, but whatever the other shard makes of them is.
    world.disks[home].is_held = true;
    world.publish(publisher, "t", "1", QoS::ExactlyOnce, 1, false);
    assert!(world.take(publisher).is_empty());
    world.connect_with(0, &Connect::new(Version::V5, client_id, true, 0));
    world.advance(2_000);
    world.crash(&options);
    let (publisher, is_present) = world.connect_durable(0, client_id, false);
    assert!(is_present);
    world.publish(publisher, "t", "1", QoS::ExactlyOnce, 1, false);
    assert_eq!(world.take(publisher), ["PUBREC 1 Success"]);
    let subscriber = world.resumed("subscriber");
    assert_eq!(world.take(subscriber).len(), 1, "taken once");
}
