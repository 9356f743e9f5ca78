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
