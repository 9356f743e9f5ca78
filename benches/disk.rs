//! What a commit costs on a real disk: a log, its disk and a ring, as a shard has them.
//!
//! `cargo bench --bench disk [-- DIR]` (about ten seconds; DIR is a folder on the disk to measure, default the build folder).
//!
//! Prints, for commits of one message and of many: the time from append to committed (percentiles), CPU and system calls of the
//! shard's thread, and bytes written a byte of payload; then how fast a log is read back.
#![allow(clippy::print_stdout, reason = "a benchmark prints its result")]

use nix::sys::eventfd::EventFd;
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use quelea::base::{HashKey, VhostId, Wall};
use quelea::log::{Holder, Log, NewMessage, Options, StreamId, StreamKind};
use quelea::runtime::disk::{LogDisk, Maker, Volume, recover};
use quelea::runtime::net::{Completion, NetRing, ReceiveBuffers, RingOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const KEY: HashKey = HashKey { k0: 1, k1: 2 };
/// Payload bytes and messages of a commit, and how many commits.
const CASES: [(usize, usize, usize); 5] =
    [(64, 1, 2000), (1024, 1, 2000), (1024, 100, 1000), (1024, 1000, 200), (16_384, 100, 200)];

fn main() {
    let named = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let folder = named.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder = folder.join(format!("disk-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder to write to");
    let mut bench = Bench::new(&folder);
    for (payload, messages, commits) in CASES {
        bench.measure(payload, messages, commits);
    }
    drop(bench);
    let since = now();
    let recovered = recover::recover(&Volume::new(folder.clone()), &Options::default(), KEY);
    let report = recovered.expect("the log is sound").report;
    let (mib, took) = (report.bytes as f64 / f64::from(1 << 20), (now() - since).as_secs_f64());
    println!("read back: {mib:.0} MiB in {took:.2} s");
    std::fs::remove_dir_all(&folder).expect("it is ours");
}

struct Bench {
    log: Log,
    disk: LogDisk,
    ring: NetRing,
    waits: u64,
    completions: Vec<Completion>,
}

impl Bench {
    fn new(folder: &Path) -> Self {
        let volume = Volume::new(folder.to_owned());
        let options = Options::default();
        let log = recover::recover(&volume, &options, KEY).expect("a new log").log;
        let event = Arc::new(OwnedFd::from(EventFd::new().expect("a descriptor")));
        let making = Maker::start().expect("a thread").for_shard(volume.clone(), Arc::clone(&event));
        let (buffers, _) = ReceiveBuffers::new(1, 64);
        let ring_options = RingOptions { submissions: 64, completions: 128, descriptors: 1 };
        let mut ring = NetRing::new(ring_options, buffers).expect("a ring");
        ring.watch(event);
        let disk = LogDisk::new(volume, making, options.sync);
        Self { log, disk, ring, waits: 0, completions: Vec::new() }
    }

    fn measure(&mut self, payload: usize, messages: usize, commits: usize) {
        let stream = self.log.open(StreamKind::Session, VhostId(0), b"client").expect("a sound log").0;
        self.commit();
        let (body, mut holders) = (vec![1; payload], Vec::new());
        let (written, waits, cpu, since) = (self.disk.counters().written_bytes, self.waits, cpu(), now());
        let mut times = Vec::with_capacity(commits);
        for _ in 0..commits {
            let began = now();
            let numbers: Vec<_> =
                (0..messages).map(|_| append(&mut self.log, stream, &body, &mut holders)).collect();
            self.commit();
            times.push((now() - began).as_secs_f64() * 1e6);
            for number in numbers {
                self.log.acknowledge(stream, number).expect("a sound log");
            }
        }
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        let each = |value: f64| value / commits as f64;
        let wall = (now() - since).as_secs_f64();
        println!(
            "{messages:4} x {payload:5} B: p50 {:5.0} us, p90 {:5.0}, p99 {:6.0}; {:6.0} messages/s, {:4.0} us CPU and {:.2} waits \
             a commit, {:.2} bytes written a byte",
            at(50),
            at(90),
            at(99),
            (messages * commits) as f64 / wall,
            each((crate::cpu() - cpu).as_secs_f64() * 1e6),
            each((self.waits - waits) as f64),
            (self.disk.counters().written_bytes - written) as f64 / (payload * messages * commits) as f64,
        );
    }

    /// What was appended, until it is committed.
    fn commit(&mut self) {
        let last = self.log.last();
        loop {
            self.turn();
            if self.log.committed() >= last {
                return;
            }
            self.waits += 1;
            self.ring.wait(None).expect("the ring works");
            self.ring.reap(&mut self.completions);
            for completion in self.completions.drain(..) {
                if let Completion::Transferred { token, transfer, result } = completion {
                    self.disk.on_transferred(token, transfer, result);
                }
            }
        }
    }

    fn turn(&mut self) {
        loop {
            while let Some(disk) = self.log.poll_output() {
                self.disk.start(&mut self.ring, disk);
            }
            let Some(reply) = self.disk.poll_reply() else { return };
            self.log.handle_disk(reply);
        }
    }
}

fn append(
    log: &mut Log,
    stream: StreamId,
    payload: &[u8],
    holders: &mut Vec<Holder>,
) -> quelea::log::MessageNumber {
    let head = b"site/device00000042/temperature";
    let message = NewMessage { vhost: VhostId(0), expires_at: Wall::NEVER, origin: None, head, payload };
    holders.clear();
    holders.push(Holder { stream, note: 1, tag: 0 });
    log.append(&message, holders).expect("a sound log").0
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock exists").into()
}

/// Of this thread.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("the system counts");
    let seconds = |time: nix::sys::time::TimeVal| {
        let (seconds, micros) = (time.tv_sec(), time.tv_usec());
        Duration::from_secs_f64(seconds as f64 + micros as f64 / 1e6)
    };
    seconds(usage.user_time()) + seconds(usage.system_time())
}
