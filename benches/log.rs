//! What appending to the durable log costs, without a disk: `cargo bench --no-default-features --bench log`.
//!
//! Prints, for payloads of several sizes, bytes written per byte of payload, acknowledgements included, when 100 messages share a
//! commit and when each has its own; and what a queued message costs in memory.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quelea::base::{HashKey, VhostId, Wall};
use quelea::log::{
    Disk, DiskReply, Holder, Log, MessageNumber, NewMessage, Options, Recovery, StreamId, StreamKind,
};
use std::hint::black_box;
use std::time::Duration;

const KEY: HashKey = HashKey { k0: 1, k1: 2 };

fn new_log() -> Log {
    // Nothing is copied: the disk here has nothing to read back.
    let options = Options { segments_min: u16::MAX, ..Options::default() };
    Recovery::new(options, KEY, &[]).finish().log
}

/// A disk that takes everything at once. Gives the bytes written.
fn settle(log: &mut Log) -> usize {
    let mut written = 0;
    while let Some(output) = log.poll_output() {
        let reply = match output {
            Disk::Create { segment, .. } => DiskReply::Created { segment, result: Ok(()) },
            Disk::Write { bytes, .. } => {
                written += bytes.len();
                DiskReply::Written { result: Ok(()) }
            }
            Disk::Sync { .. } => DiskReply::Synced { result: Ok(()) },
            Disk::Remove { segment } => DiskReply::Removed { segment, result: Ok(()) },
            Disk::Read { .. } => unreachable!("nothing is copied, and nothing fetched"),
        };
        log.handle_disk(reply);
    }
    written
}

fn sessions(log: &mut Log, count: usize) -> Vec<StreamId> {
    let mut open = || log.open(StreamKind::Session, VhostId(0), b"client").expect("a sound log").0;
    (0..count).map(|_| open()).collect()
}

fn append(log: &mut Log, stream: StreamId, payload: &[u8], holders: &mut Vec<Holder>) -> MessageNumber {
    let head = b"site/device00000042/temperature";
    let message = NewMessage { vhost: VhostId(0), expires_at: Wall::NEVER, origin: None, head, payload };
    holders.clear();
    holders.push(Holder { stream, note: 1, tag: 0 });
    log.append(&message, holders).expect("a sound log").0
}

#[allow(clippy::print_stderr, reason = "a bench reports")]
fn amplification(payload: usize, batch: usize) {
    let mut log = new_log();
    let streams = sessions(&mut log, 100);
    settle(&mut log);
    let (body, mut holders, mut written) = (vec![1; payload], Vec::new(), 0);
    let (rounds, mut numbers) = (2000_usize.div_ceil(batch), Vec::new());
    for _ in 0..rounds {
        for at in 0..batch {
            let stream = streams[at % streams.len()];
            numbers.push((stream, append(&mut log, stream, &body, &mut holders)));
        }
        written += settle(&mut log);
        for (stream, number) in numbers.drain(..) {
            log.acknowledge(stream, number).expect("a sound log");
        }
    }
    let ratio = written as f64 / (rounds * batch * payload) as f64;
    eprintln!("{payload} B payloads, {batch} to a commit: {ratio:.2} bytes written per byte of payload");
}

#[allow(clippy::print_stderr, reason = "a bench reports")]
fn memory() {
    let mut log = new_log();
    let streams = sessions(&mut log, 10_000);
    let (before, mut holders) = (log.memory(), Vec::new());
    for _ in 0..20 {
        for stream in &streams {
            append(&mut log, *stream, &[1; 16], &mut holders);
        }
        settle(&mut log);
    }
    let each = (log.memory() - before) as f64 / 200_000.0;
    eprintln!("a queued message: {each:.1} B of memory, a stream: {} B", before / streams.len());
}

fn appending(criterion: &mut Criterion) {
    for (payload, batch) in [(64, 100), (1024, 100), (1024, 1), (16_384, 100)] {
        amplification(payload, batch);
    }
    memory();
    let mut group = criterion.benchmark_group("append");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for payload in [64, 1024, 16_384] {
        let mut log = new_log();
        let stream = sessions(&mut log, 1)[0];
        let (body, mut holders) = (vec![1; payload], Vec::new());
        group.throughput(Throughput::Bytes(payload as u64));
        group.bench_function(format!("{payload} B, acknowledged, 100 to a commit"), |bencher| {
            let mut waiting = Vec::new();
            bencher.iter(|| {
                waiting.push(append(&mut log, stream, &body, &mut holders));
                if waiting.len() == 100 {
                    black_box(settle(&mut log));
                    for number in waiting.drain(..) {
                        log.acknowledge(stream, number).expect("a sound log");
                    }
                }
            });
        });
    }
}

criterion_group!(benches, appending);
criterion_main!(benches);
