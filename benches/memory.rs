//! Memory of idle clients by owner: heap bytes asked for, in process, without what the runtime and the kernel add.
//!
//! `cargo bench --bench memory`

#![allow(clippy::print_stdout, reason = "a bench prints what it found")]

#[allow(dead_code, reason = "this bench publishes nothing")]
mod world;

use quelea::base::{QoS, Version};
use quelea::shard::view::MemoryView;
use world::World;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CLIENTS: usize = 100_000;

fn per_client(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).expect("under 4 GiB")) / f64::from(u32::try_from(CLIENTS).expect("small"))
}

fn measure(name: &str, subscription: Option<QoS>) {
    let mut world = World::new();
    let before = dhat::HeapStats::get().curr_bytes;
    for n in 0..CLIENTS {
        let client = world.connect(Version::V311, &format!("device-{n:08}"));
        if let Some(qos) = subscription {
            world.subscribe(client, Version::V311, &format!("devices/device-{n:08}/commands"), qos);
        }
    }
    // The login timers of clients that are in long ago are gone.
    world.now = world.now + std::time::Duration::from_secs(60);
    world.shard.handle_timeout(world.now);
    let bytes = dhat::HeapStats::get().curr_bytes - before;
    println!("{name}: {:.0} B a client", per_client(bytes));
    let MemoryView { connections, sessions, trie, interest, retained, timers } = world.shard.memory();
    let tables = connections + sessions + trie + interest + retained + timers;
    for (owner, owned) in [
        ("connection slab and spare buffers", connections),
        ("session slab and client index", sessions),
        ("trie, with filter texts", trie),
        ("timer wheel", timers),
        ("what sessions own (client identifiers)", bytes.saturating_sub(tables)),
    ] {
        println!("  {owner}: {:.0} B", per_client(owned));
    }
}

fn main() {
    let _profiler = dhat::Profiler::builder().testing().build();
    measure("idle, no subscription", None);
    measure("idle, own QoS 0 subscription of 32 B", Some(QoS::AtMostOnce));
    measure("idle, own QoS 1 subscription of 32 B", Some(QoS::AtLeastOnce));
}
