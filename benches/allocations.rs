//! Heap allocations a QoS 0 message costs in steady state: none, or this bench fails. Counted, not timed.
//!
//! `cargo bench --bench allocations`

#![allow(clippy::print_stdout, reason = "a bench prints what it found")]

mod world;

use quelea::base::{QoS, Version};
use world::{World, publish};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const MESSAGES: u64 = 10_000;

/// Blocks allocated while `world` forwards, after a warm-up that fills the pools.
fn count(world: &mut World, from: quelea::base::ConnectionId, bytes: &[u8]) -> u64 {
    for _ in 0..100 {
        world.shard.handle_bytes(world.now, from, bytes);
        world.turn();
    }
    let before = dhat::HeapStats::get().total_blocks;
    for _ in 0..MESSAGES {
        world.shard.handle_bytes(world.now, from, bytes);
        assert!(world.turn() > 0);
    }
    dhat::HeapStats::get().total_blocks - before
}

fn main() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut failed = false;
    for (version, subscribers, filter) in [
        (Version::V311, 1, "a/b/c"),
        (Version::V311, 1, "a/+/#"),
        (Version::V311, 100, "a/b/c"),
        (Version::V5, 1, "a/b/c"),
        (Version::V5, 100, "a/+/c"),
    ] {
        let mut world = World::new();
        let from = world.connect(version, "publisher");
        for n in 0..subscribers {
            let client = world.connect(version, &format!("subscriber{n}"));
            world.subscribe(client, version, filter, QoS::AtMostOnce);
        }
        let bytes = publish(version, "a/b/c", QoS::AtMostOnce, 0, &[1; 64]);
        let blocks = count(&mut world, from, &bytes);
        println!(
            "{version:?}, {subscribers} subscriber(s) of {filter}: {blocks} allocations in {MESSAGES} messages"
        );
        failed |= blocks > 0;
    }
    if failed {
        std::process::exit(1);
    }
}
