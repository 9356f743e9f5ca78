//! What durable sessions cost a shard, without a disk: a publish to an offline session, and a start with many sessions.
//!
//! `cargo bench --no-default-features --bench durable`

#![allow(
    clippy::print_stdout,
    clippy::disallowed_types,
    reason = "a bench measures, and prints what it found"
)]

#[allow(dead_code, reason = "this bench makes its own clients")]
mod world;

use quelea::base::{ConnectionId, HashKey, QoS, ShardId, Version};
use quelea::codec::Connect;
use quelea::log::{Disk, DiskReply, Recovered, Recovery, SegmentId};
use quelea::shard::{Accepted, Options, Shard};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use world::{World, publish};

const KEY: HashKey = HashKey { k0: 1, k1: 2 };
const SESSIONS: usize = 1_000_000;
/// Of the start with queued messages.
const QUEUES: usize = 100_000;
const QUEUED: usize = 10;

/// A disk in memory that is done at once.
#[derive(Default)]
struct TestDisk {
    files: BTreeMap<SegmentId, Vec<u8>>,
    written: usize,
}

impl TestDisk {
    fn carry_out(&mut self, output: Disk) -> DiskReply {
        match output {
            Disk::Create { segment, bytes } => {
                self.files.insert(segment, vec![0; bytes as usize]);
                DiskReply::Created { segment, result: Ok(()) }
            }
            Disk::Write { segment, offset, bytes } => {
                self.written += bytes.len();
                let file = self.files.get_mut(&segment).expect("made before");
                file[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                DiskReply::Written { result: Ok(()) }
            }
            Disk::Sync { .. } => DiskReply::Synced { result: Ok(()) },
            Disk::Read { id, segment, offset, bytes } => {
                let range = offset as usize..(offset + bytes) as usize;
                DiskReply::Read { id, result: Ok(self.files[&segment][range].to_vec()) }
            }
            Disk::Remove { segment } => {
                self.files.remove(&segment);
                DiskReply::Removed { segment, result: Ok(()) }
            }
        }
    }

    fn recover(&mut self) -> Recovered {
        let files: Vec<_> = self
            .files
            .iter()
            .map(|(segment, bytes)| (*segment, u32::try_from(bytes.len()).expect("segments are small")))
            .collect();
        let mut recovery = Recovery::new(Options::default().log, KEY, &files);
        while let Some(output) = recovery.poll_output() {
            recovery.handle_disk(self.carry_out(output)).expect("this version's");
        }
        recovery.finish()
    }
}

struct Durable {
    world: World,
    disk: TestDisk,
}

impl Durable {
    fn start(mut disk: TestDisk) -> (Self, Duration, Duration) {
        let mut world = World::new();
        world.shard = Shard::new(Options::default(), ShardId(0), 1, KEY, world.now);
        let begun = Instant::now();
        let recovered = disk.recover();
        let read = begun.elapsed();
        world.shard.handle_recovered(world.now, recovered);
        assert!(world.shard.is_ready());
        world.shard.handle_ready(world.now);
        let taken = begun.elapsed();
        (Self { world, disk }, read, taken)
    }

    fn turn(&mut self) {
        while let Some(output) = self.world.shard.poll_disk() {
            let reply = self.disk.carry_out(output);
            self.world.shard.handle_disk(self.world.now, reply);
        }
        self.world.turn();
    }

    fn send(&mut self, client: ConnectionId, bytes: &[u8]) {
        self.world.shard.handle_bytes(self.world.now, client, bytes);
    }

    fn connect(&mut self, client_id: &str, clean: bool) -> ConnectionId {
        let peer = "127.0.0.1:1".parse().expect("an address");
        let accepted = Accepted { peer, local: peer, at: self.world.now.mono };
        let id = self.world.shard.handle_accepted(self.world.now, accepted).expect("no limit is near");
        let mut bytes = Vec::new();
        Connect::new(Version::V311, client_id, clean, 0).encode(&mut bytes);
        self.send(id, &bytes);
        id
    }

    /// Sessions that were there, with a subscription each, and are away.
    fn leave_sessions(&mut self, count: usize) {
        for n in 0..count {
            let client = self.connect(&format!("device-{n:08}"), false);
            let filter = format!("devices/device-{n:08}/commands");
            self.world.subscribe(client, Version::V311, &filter, QoS::AtLeastOnce);
            self.world.shard.handle_closed(self.world.now, client, None);
            if n % 256 == 0 {
                self.turn();
            }
        }
        self.turn();
    }
}

fn per(count: usize, took: Duration) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(u32::try_from(count).expect("small"))
}

/// Each publish is appended, committed and acknowledged.
fn publishes(payload: usize, window: u16) {
    let (mut durable, ..) = Durable::start(TestDisk::default());
    durable.leave_sessions(20);
    let publisher = durable.connect("publisher", true);
    durable.turn();
    let batch: Vec<Vec<u8>> = (1..=window)
        .map(|id| {
            let topic = format!("devices/device-{:08}/commands", id % 20);
            publish(Version::V311, &topic, QoS::AtLeastOnce, id, &vec![7; payload])
        })
        .collect();
    let batch = batch.concat();
    let before = durable.disk.written;
    let (rounds, begun) = (200_000 / usize::from(window), Instant::now());
    for _ in 0..rounds {
        durable.send(publisher, &batch);
        durable.turn();
    }
    let count = rounds * usize::from(window);
    let written = (durable.disk.written - before) / count;
    println!(
        "QoS 1 to an offline session, {payload} B, {window} to a commit: {:.0} ns, {written} B written a publish",
        per(count, begun.elapsed())
    );
}

fn starts() {
    let (mut durable, ..) = Durable::start(TestDisk::default());
    durable.leave_sessions(SESSIONS);
    let (durable, read, taken) = Durable::start(durable.disk);
    assert_eq!(durable.world.shard.session_count(), SESSIONS);
    let log = durable.world.shard.log().expect("has one");
    println!(
        "a start with {SESSIONS} sessions of one subscription, one shard: {:.2} s, of which the log {:.2} s; {} MB on disk; \
         the log's index {} B a session",
        taken.as_secs_f64(),
        read.as_secs_f64(),
        log.disk_bytes().1 >> 20,
        log.memory() / SESSIONS
    );
    drop(durable);
    let (mut durable, ..) = Durable::start(TestDisk::default());
    durable.leave_sessions(QUEUES);
    let publisher = durable.connect("publisher", true);
    durable.turn();
    for n in 0..QUEUES * QUEUED {
        let topic = format!("devices/device-{:08}/commands", n % QUEUES);
        let id = u16::try_from(n % 200 + 1).expect("small");
        let bytes = publish(Version::V311, &topic, QoS::AtLeastOnce, id, &[7; 64]);
        durable.send(publisher, &bytes);
        if n % 100 == 99 {
            durable.turn();
        }
    }
    let (durable, read, taken) = Durable::start(durable.disk);
    let log = durable.world.shard.log().expect("has one");
    assert_eq!(log.message_count(), QUEUES * QUEUED);
    println!(
        "a start with {QUEUES} sessions and {} queued messages, one shard: {:.2} s, of which the log {:.2} s; {} MB on disk",
        QUEUES * QUEUED,
        taken.as_secs_f64(),
        read.as_secs_f64(),
        log.disk_bytes().1 >> 20
    );
}

fn main() {
    for (payload, window) in [(64, 1), (64, 64), (1024, 64)] {
        publishes(payload, window);
    }
    starts();
}
