//! One shard's step, in process: decode, match, encode, without the system calls around it.
//!
//! `cargo bench --bench shard`

mod world;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quelea::base::{QoS, Version};
use quelea::codec::{self, AckKind};
use world::{World, publish};

const PAYLOAD: [u8; 64] = [7; 64];

/// One publisher, one subscriber, one topic; `run` packets arrive together.
fn pairs(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish to one subscriber, 64 B");
    for (name, publisher, subscriber, run) in [
        ("3.1.1 to 3.1.1, alone", Version::V311, Version::V311, 1),
        ("3.1.1 to 3.1.1, 32 in a row", Version::V311, Version::V311, 32),
        ("5.0 to 5.0, alone", Version::V5, Version::V5, 1),
        ("5.0 to 5.0, 32 in a row", Version::V5, Version::V5, 32),
    ] {
        let mut world = World::new();
        let from = world.connect(publisher, "publisher");
        let to = world.connect(subscriber, "subscriber");
        world.subscribe(to, subscriber, "sensors/building-1/room-12/temp", QoS::AtMostOnce);
        let packet = publish(publisher, "sensors/building-1/room-12/temp", QoS::AtMostOnce, 0, &PAYLOAD);
        let bytes = packet.repeat(run);
        group.throughput(Throughput::Elements(run as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                world.shard.handle_bytes(world.now, from, &bytes);
                assert!(world.turn() >= bytes.len());
            });
        });
    }
    group.finish();
}

/// Every message another of 10,000 topics, each with its own subscriber; 5 % of these by wildcard.
fn many_topics(c: &mut Criterion) {
    let mut world = World::new();
    let from = world.connect(Version::V311, "publisher");
    let mut packets = Vec::new();
    for n in 0..10_000u32 {
        let client = world.connect(Version::V311, &format!("s{n}"));
        let filter =
            if n % 20 == 0 { format!("sensors/{n}/+/temp") } else { format!("sensors/{n}/room/temp") };
        world.subscribe(client, Version::V311, &filter, QoS::AtMostOnce);
        packets.push(publish(Version::V311, &format!("sensors/{n}/room/temp"), QoS::AtMostOnce, 0, &PAYLOAD));
    }
    let mut next = 0usize;
    c.bench_function("publish to 10,000 topics in turn, one subscriber each", |b| {
        b.iter(|| {
            next = (next + 7919) % packets.len();
            world.shard.handle_bytes(world.now, from, &packets[next]);
            assert!(world.turn() > 0);
        });
    });
}

/// QoS 1 both ways: PUBLISH in, PUBACK and PUBLISH out, PUBACK in.
fn qos1(c: &mut Criterion) {
    let mut world = World::new();
    let from = world.connect(Version::V311, "publisher");
    let to = world.connect(Version::V311, "subscriber");
    world.subscribe(to, Version::V311, "t", QoS::AtLeastOnce);
    let packet = publish(Version::V311, "t", QoS::AtLeastOnce, 1, &PAYLOAD);
    let mut delivered: u16 = 0;
    c.bench_function("publish to one subscriber, QoS 1, acknowledged", |b| {
        b.iter_batched(
            || {
                delivered = delivered.checked_add(1).unwrap_or(1);
                let mut ack = Vec::new();
                let id = quelea::base::PacketId::new(delivered).expect("not 0");
                let reason = quelea::base::ReasonCode::Success;
                codec::encode_ack(AckKind::PubAck, id, reason, None, Version::V311, &mut ack);
                ack
            },
            |ack| {
                world.shard.handle_bytes(world.now, from, &packet);
                world.turn();
                world.shard.handle_bytes(world.now, to, &ack);
            },
            BatchSize::SmallInput,
        );
    });
}

/// 1 to 1000.
fn fan_out(c: &mut Criterion) {
    let mut world = World::new();
    let from = world.connect(Version::V311, "publisher");
    for n in 0..1000 {
        let client = world.connect(Version::V311, &format!("s{n}"));
        world.subscribe(client, Version::V311, "all", QoS::AtMostOnce);
    }
    let packet = publish(Version::V311, "all", QoS::AtMostOnce, 0, &PAYLOAD);
    let mut group = c.benchmark_group("fan-out to 1000, 64 B");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("3.1.1", |b| {
        b.iter(|| {
            world.shard.handle_bytes(world.now, from, &packet);
            world.turn()
        });
    });
    group.finish();
}

criterion_group!(benches, pairs, many_topics, qos1, fan_out);
criterion_main!(benches);
