//! A disk without space: who is refused and when, who waits, and what goes on when there is space again.

use super::*;

/// Publishes until one is not answered at once; gives how many were.
fn fill_segment(world: &mut World, publisher: usize, payload: &str) -> u16 {
    for id in 1..100 {
        world.publish(publisher, "t", &format!("{id}{payload}"), QoS::AtLeastOnce, id, false);
        match &world.take(publisher)[..] {
            [] => return id - 1,
            answer => assert_eq!(answer, [format!("PUBACK {id} Success")]),
        }
    }
    panic!("more than a segment holds");
}

#[test]
fn what_waits_for_a_segment_is_kept_when_that_is_made_and_refused_when_it_cannot_be() {
    for (has_space, shards) in [(true, 1), (false, 1), (true, 2), (false, 2)] {
        let options = options();
        let mut world = World::durable(shards, &options);
        let subscriber = world.subscribed("subscriber", "t", QoS::ExactlyOnce);
        let shard = world.clients[subscriber].place.unwrap().0;
        world.drop_connection(subscriber);
        let five = world.connect(0, Version::V5, "five");
        let (two, _) = world.connect_durable(0, "two", true);
        let three = world.connect(0, Version::V311, "three");
        let payload = "x".repeat(5_000);
        world.disks[shard].holds_creates = true;
        let taken = fill_segment(&mut world, five, &payload);
        world.publish(two, "t", &payload, QoS::ExactlyOnce, 1, false);
        world.publish(three, "t", &payload, QoS::AtLeastOnce, 1, false);
        assert!(taken > 10 && world.take(two).is_empty() && world.take(three).is_empty());
        let error = (!has_space).then_some(DiskError::Full);
        (world.disks[shard].disk.create_error, world.disks[shard].holds_creates) = (error, false);
        world.settle();
        let waited = taken + 1;
        if has_space {
            assert_eq!(world.take(five), [format!("PUBACK {waited} Success")]);
            assert_eq!((world.take(two), world.take(three).len()), (vec!["PUBREC 1 Success".to_owned()], 1));
        } else {
            assert_eq!(world.take(five), [format!("PUBACK {waited} QuotaExceeded")]);
            assert_eq!(world.take(two), ["PUBREC 1 QuotaExceeded"]);
            assert!(world.clients[three].closed && world.take(three).is_empty());
            // Tried again, and still refused: what shrinks the log has its room.
            for id in 1..50 {
                world.advance(1_000);
                world.publish(five, "t", &payload, QoS::AtLeastOnce, id, false);
                assert_eq!(world.take(five), [format!("PUBACK {id} QuotaExceeded")]);
            }
            world.disks[shard].disk.create_error = None;
            world.advance(2_000);
            world.publish(five, "t", "last", QoS::AtLeastOnce, 99, false);
            assert_eq!(world.take(five), ["PUBACK 99 Success"]);
        }
        world.crash(&options);
        let subscriber = world.resumed("subscriber");
        let got = world.take(subscriber);
        assert_eq!(got.len(), usize::from(taken) + if has_space { 3 } else { 1 });
    }
}

#[test]
fn a_message_larger_than_a_segment_is_refused_if_there_is_no_space_for_its_own() {
    let options = options();
    let mut world = World::durable(1, &options);
    let subscriber = world.subscribed("subscriber", "t", QoS::AtLeastOnce);
    let publisher = world.connect(0, Version::V5, "publisher");
    let payload = "x".repeat(300_000);
    for (error, answer) in [(Some(DiskError::Full), "PUBACK 1 QuotaExceeded"), (None, "PUBACK 1 Success")] {
        world.disks[0].disk.create_error = error;
        world.advance(2_000);
        world.publish(publisher, "t", &payload, QoS::AtLeastOnce, 1, false);
        assert_eq!(world.take(publisher), [answer]);
    }
    assert_eq!(world.take(subscriber).len(), 1);
}

#[test]
fn who_waits_for_the_first_segment_is_refused_when_it_cannot_be_made() {
    let mut world = World::durable(1, &options());
    world.disks[0].disk.create_error = Some(DiskError::Full);
    let one = world.connect_kept(0, "one", true);
    assert_eq!(world.take(one), ["CONNACK QuotaExceeded false"]);
    assert!(world.clients[one].closed);
    let publisher = world.connect(0, Version::V5, "publisher");
    world.publish(publisher, "r", "1", QoS::AtLeastOnce, 1, true);
    assert_eq!(world.take(publisher), ["PUBACK 1 QuotaExceeded"]);
    world.disks[0].disk.create_error = None;
    world.advance(2_000);
    let one = world.subscribed("one", "t", QoS::AtLeastOnce);
    world.publish(publisher, "t", "1", QoS::AtLeastOnce, 2, true);
    assert_eq!(world.take(one).len(), 1);
    assert_eq!(world.take(publisher), ["PUBACK 2 Success"]);
}

#[test]
fn a_shard_that_leaves_does_not_wait_for_space() {
    let mut world = World::durable(1, &options());
    world.subscribed_and_away("subscriber", "t", QoS::AtLeastOnce);
    let publisher = world.connect(0, Version::V5, "publisher");
    world.disks[0].disk.write_error = Some(DiskError::Full);
    world.publish(publisher, "t", "1", QoS::AtLeastOnce, 1, false);
    assert!(world.take(publisher).is_empty());
    world.shards[0].handle_shutdown(world.now);
    world.settle();
    assert!(world.shards[0].is_disk_idle());
    // It does wait for what can be written.
    let mut world = World::durable(1, &options());
    world.hold_disks(true);
    world.connect_kept(0, "one", true);
    world.shards[0].handle_shutdown(world.now);
    world.settle();
    assert!(!world.shards[0].is_disk_idle());
    world.hold_disks(false);
    assert!(world.shards[0].is_disk_idle());
}

#[test]
fn what_a_full_disk_refuses_of_a_session_that_is_over_is_handed_on_when_there_is_space() {
    for shards in [1, 2, 3] {
        let options = options();
        let mut world = World::durable(shards, &options);
        world.subscribed_and_away("one", "$share/g/t", QoS::ExactlyOnce);
        let publisher = world.connect(0, Version::V5, "publisher");
        for n in 1..=300 {
            world.publish(publisher, "t", &n.to_string(), QoS::ExactlyOnce, n, false);
            world.ack(publisher, AckKind::PubRel, n);
        }
        assert_eq!(world.take(publisher).len(), 600);
        let mut connect = Connect::new(Version::V5, "two", true, 0);
        (connect.session_expiry, connect.receive_maximum) = (Some(60), None);
        let two = world.connect_with(0, &connect);
        world.take(two);
        world.subscribe(two, "$share/g/t", QoS::ExactlyOnce);
        let now = world.now;
        world.shards.iter_mut().for_each(|shard| shard.handle_disk_space(now, true));
        // Its session ends.
        world.connect(0, Version::V5, "one");
        world.advance(3_000);
        assert!(world.take(two).is_empty(), "there is no space for it");
        let now = world.now;
        world.shards.iter_mut().for_each(|shard| shard.handle_disk_space(now, false));
        world.advance(2_000);
        let got = world.take_all(two, &[AckKind::PubRec, AckKind::PubComp]);
        assert_eq!(got, (1..=300).collect::<Vec<u16>>(), "{shards} shards");
        let streams: usize = world.shards.iter().map(|shard| shard.log().unwrap().streams().count()).sum();
        assert_eq!(streams, 1, "only that of the other member");
    }
}

#[test]
fn what_waits_for_a_segment_for_a_member_that_is_over_by_then_goes_to_another() {
    for shards in [1, 2, 3] {
        let mut world = World::durable(shards, &options());
        let subscriber = world.subscribed("subscriber", "t", QoS::AtLeastOnce);
        let shard = world.clients[subscriber].place.unwrap().0;
        world.drop_connection(subscriber);
        // A member on the shard that is short of a segment, and another that takes its place.
        let name = (0..)
            .map(|n| format!("one-{n}"))
            .find(|name| {
                let one = world.connect(0, Version::V5, name);
                world.clients[one].place.unwrap().0 == shard
            })
            .unwrap();
        let one = world.subscribed(&name, "$share/g/s", QoS::AtLeastOnce);
        let publisher = world.connect(0, Version::V5, "publisher");
        world.disks[shard].holds_creates = true;
        fill_segment(&mut world, publisher, &"x".repeat(5_000));
        world.publish(publisher, "s", "1", QoS::AtLeastOnce, 100, false);
        assert!(world.take(publisher).is_empty() && world.take(one).is_empty());
        let two = world.connect(0, Version::V5, "two");
        world.subscribe(two, "$share/g/s", QoS::AtLeastOnce);
        world.connect(0, Version::V5, &name);
        world.disks[shard].holds_creates = false;
        world.settle();
        assert_eq!(world.take(two), ["PUBLISH s 1 q1 id=1"], "{shards} shards");
        assert_eq!(world.take(publisher).last().unwrap(), "PUBACK 100 Success");
    }
}

#[test]
fn connack_waits_for_the_end_of_the_session_before() {
    let options = options();
    let mut world = World::durable(1, &options);
    world.connect_durable(0, "client", true);
    let connect = Connect::new(Version::V5, "client", false, 0);
    let client = world.connect_with(0, &connect);
    assert_eq!(world.take(client), ["CONNACK Success true"]);
    world.hold_disks(true);
    world.drop_connection(client);
    let client = world.connect_with(0, &connect);
    assert!(world.take(client).is_empty(), "a crash would bring the session back");
    let other = world.connect_with(0, &Connect::new(Version::V5, "other", false, 0));
    assert_eq!(world.take(other), ["CONNACK Success false"]);
    world.hold_disks(false);
    assert_eq!(world.take(client), ["CONNACK Success false"]);
    world.crash(&options);
    let (_, is_present) = world.connect_durable(0, "client", false);
    assert!(!is_present);
}

#[test]
fn what_qos_0_displaces_from_a_queue_is_gone_from_the_log_too() {
    let mut options = options();
    options.queue =
        crate::queue::Options { queue_qos0_offline: true, session_messages_max: Some(2), ..options.queue };
    options.session.prefetch = 1;
    let mut world = World::durable(1, &options);
    let subscriber = world.subscribed("subscriber", "t", QoS::AtLeastOnce);
    let publisher = world.connect(0, Version::V5, "publisher");
    world.publish(publisher, "t", "1", QoS::AtLeastOnce, 1, false);
    assert_eq!(world.take(subscriber), ["PUBLISH t 1 q1 id=1"]);
    world.drop_connection(subscriber);
    world.publish(publisher, "t", "2", QoS::AtMostOnce, 0, false);
    world.publish(publisher, "t", "3", QoS::AtLeastOnce, 3, false);
    let subscriber = world.resumed("subscriber");
    assert_eq!(world.take(subscriber), ["PUBLISH t 1 q1 id=1 dup"]);
    // 2 and 3 are the oldest that wait.
    world.publish(publisher, "t", "4", QoS::AtMostOnce, 0, false);
    world.publish(publisher, "t", "5", QoS::AtMostOnce, 0, false);
    world.ack(subscriber, AckKind::PubAck, 1);
    assert_eq!(world.take(subscriber), ["PUBLISH t 4 q0", "PUBLISH t 5 q0"]);
    assert_eq!(world.shards[0].log().map(log::Log::message_count), Some(0));
    assert_eq!(world.shards[0].session_views().map(|view| view.ready).sum::<u64>(), 0);
}

#[test]
fn a_retained_message_that_a_disk_refuses_is_not_acknowledged() {
    for (is_failed, code) in [(false, "QuotaExceeded"), (true, "ImplementationSpecificError")] {
        let options = options();
        let mut world = World::durable(1, &options);
        let live = world.connect(0, Version::V5, "live");
        world.subscribe(live, "t", QoS::AtMostOnce);
        let new = world.connect(0, Version::V5, "new");
        world.publish(new, "t", "old", QoS::AtLeastOnce, 1, true);
        assert_eq!(world.take(new), ["PUBACK 1 Success"]);
        let old = world.connect_with(0, &Connect::new(Version::V311, "old", false, 0));
        world.drop_connection(old);
        if is_failed {
            world.disks[0].disk.sync_error = Some(DiskError::Failed);
            world.publish(new, "other", "x", QoS::AtLeastOnce, 2, true);
            world.take(new);
        } else {
            world.shards[0].handle_disk_space(world.now, true);
        }
        world.publish(new, "t", "new", QoS::AtLeastOnce, 3, true);
        assert_eq!(world.take(new), [format!("PUBACK 3 {code}")]);
        // The version cannot say no, however often.
        for _ in 0..2 {
            let old = world.connect_with(0, &Connect::new(Version::V311, "old", false, 0));
            world.take(old);
            world.publish(old, "t", "newer", QoS::ExactlyOnce, 1, true);
            assert_eq!(world.take(old), Vec::<String>::new());
            assert!(world.clients[old].closed);
        }
        let late = world.connect(0, Version::V311, "late");
        assert_eq!(world.subscribe(late, "t", QoS::AtMostOnce)[1..], ["PUBLISH t old q0 retain"]);
    }
}

#[test]
fn nothing_is_taken_behind_a_publish_that_is_refused_in_silence() {
    for (version, wants) in [(Version::V311, vec!["1"]), (Version::V5, vec!["1", "3"])] {
        let options = options();
        let mut world = World::durable(1, &options);
        let (subscriber, _) = world.connect_durable(0, "subscriber", true);
        world.subscribe(subscriber, "t", QoS::AtLeastOnce);
        let publisher = world.connect(0, version, "publisher");
        world.hold_disks(true);
        for (id, is_full) in [(1, false), (2, true), (3, false)] {
            world.shards[0].handle_disk_space(world.now, is_full);
            world.publish(publisher, "t", &id.to_string(), QoS::AtLeastOnce, id, false);
        }
        world.hold_disks(false);
        let wants: Vec<String> =
            (1..).zip(wants).map(|(id, payload)| format!("PUBLISH t {payload} q1 id={id}")).collect();
        assert_eq!(world.take(subscriber), wants);
        assert_eq!(world.clients[publisher].closed, !version.is_v5());
    }
}

#[test]
fn what_a_failed_log_does_not_forget_of_a_session_that_is_over_is_handed_on_once() {
    let mut world = World::durable(1, &options());
    world.subscribed_and_away("one", "$share/g/t", QoS::AtLeastOnce);
    let publisher = world.connect(0, Version::V5, "publisher");
    (1..=4).for_each(|n| world.publish(publisher, "t", &n.to_string(), QoS::AtLeastOnce, n, false));
    assert_eq!(world.take(publisher).len(), 4, "kept for the member that is away");
    let in_memory = world.connect(0, Version::V5, "in memory");
    world.subscribe(in_memory, "$share/g/t", QoS::AtLeastOnce);
    world.subscribed("on disk", "$share/g/t", QoS::AtLeastOnce);
    world.disks[0].disk.sync_error = Some(DiskError::Failed);
    world.publish(publisher, "u", "it fails", QoS::AtLeastOnce, 5, true);
    assert_eq!(world.shards[0].log_health(), Some(log::Health::Poisoned));

    // The session ends; what goes to the member on disk is refused, and handed on again every second.
    world.connect(0, Version::V5, "one");
    world.advance(10_000);
    let mut got = world.take_all(in_memory, &[AckKind::PubAck]);
    got.sort_unstable();
    assert_eq!(got, [1, 2, 3, 4]);
}
