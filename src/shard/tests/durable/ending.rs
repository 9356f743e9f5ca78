//! Sessions that end, and crashes in the middle of that.

use super::*;

/// Lets a shard's disk, which is held, do what is asked of it up to the next sync.
fn sync_once(world: &mut World, shard: usize) {
    loop {
        world.settle();
        let output = world.disks[shard].waiting.remove(0);
        let reply = world.disks[shard].disk.carry_out(&output);
        world.shards[shard].handle_disk(world.now, reply);
        if matches!(output, Disk::Sync { .. }) {
            return world.settle();
        }
    }
}

#[test]
fn a_session_ends_with_all_its_subscriptions_or_with_none() {
    const FILTERS: u32 = 8_000;
    for syncs in [0, 1] {
        let mut options = options();
        options.log.segment_bytes = 64 << 10;
        let mut world = World::durable(1, &options);
        let (client, _) = world.connect_durable(0, "client", true);
        for n in 0..FILTERS {
            world.subscribe(client, &format!("t/{n}"), QoS::AtLeastOnce);
        }
        world.drop_connection(client);
        world.hold_disks(true);
        // Were each taken out by itself, that would not fit into one commit.
        world.connect_with(0, &Connect::new(Version::V5, "client", true, 0));
        (0..syncs).for_each(|_| sync_once(&mut world, 0));
        world.crash(&options);
        let counts: Vec<u32> = world.shards[0].session_views().map(|view| view.acked_subscriptions).collect();
        assert!(counts.is_empty() || counts == [FILTERS], "{counts:?}");
    }
}

#[test]
fn nothing_that_waited_for_the_disk_is_sent_behind_the_last_packet() {
    let mut world = World::durable(1, &options());
    let subscriber = world.subscribed("subscriber", "t", QoS::ExactlyOnce);
    let publisher = world.connect(0, Version::V5, "publisher");
    world.publish(publisher, "t", "1", QoS::ExactlyOnce, 1, false);
    assert_eq!(world.take(subscriber), ["PUBLISH t 1 q2 id=1"]);
    world.hold_disks(true);
    world.ack(subscriber, AckKind::PubRec, 1);
    let mut bytes = Vec::new();
    codec::encode_unsubscribe(packet_id(8), &["t"], Version::V5, &mut bytes);
    world.send(subscriber, &bytes);
    world.take(publisher);
    world.drop_connection(publisher);
    assert!(world.take(subscriber).is_empty(), "PUBREL and UNSUBACK wait");

    world.shards[0].handle_shutdown(world.now);
    let (id, buffer) = world.shards[0].poll_send().expect("DISCONNECT");
    world.hold_disks(false);
    world.shards[0].handle_sent(world.now, id, buffer);
    assert!(world.shards[0].poll_send().is_none());
}
