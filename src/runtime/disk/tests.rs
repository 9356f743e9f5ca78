//! A log on a real disk, through a real ring: written, read back, recovered, and what the disk refuses.

use super::*;
use crate::base::{HashKey, VhostId, Wall};
use crate::log::{
    Damage, Event, Health, Holder, Log, MessageNumber, NewMessage, Options, Recovered, StreamId, StreamKind,
    SyncMode,
};
use crate::runtime::net::{Completion, NetRing, ReceiveBuffers, RingOptions};
use nix::sys::eventfd::EventFd;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const KEY: HashKey = HashKey { k0: 3, k1: 4 };
const SMALL: u32 = 1 << 20;

/// A folder of its own for each test, gone afterwards.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quelea-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A log, its disk, and the ring between.
struct Bench {
    log: Log,
    disk: LogDisk,
    ring: NetRing,
    /// Turns of the ring that were waited for.
    waits: u32,
}

fn recover_from(scratch: &Scratch, options: &Options) -> Recovered {
    recover::recover(&Volume::new(scratch.path().to_owned()), options, KEY).unwrap()
}

fn options(sync: SyncMode) -> Options {
    Options { sync, segment_bytes: SMALL, ..Options::default() }
}

impl Bench {
    fn new(scratch: &Scratch, sync: SyncMode) -> Self {
        let log = recover_from(scratch, &options(sync)).log;
        let event = Arc::new(OwnedFd::from(EventFd::new().unwrap()));
        let volume = Volume::new(scratch.path().to_owned());
        let making = Maker::start().unwrap().for_shard(volume.clone(), Arc::clone(&event));
        let (buffers, _) = ReceiveBuffers::new(1, 64);
        let ring_options = RingOptions { submissions: 16, completions: 32, descriptors: 1 };
        let mut ring = NetRing::new(ring_options, buffers).unwrap();
        ring.watch(event);
        Self { log, disk: LogDisk::new(volume, making, sync), ring, waits: 0 }
    }

    /// Goes on until `is_done`.
    fn run_until(&mut self, is_done: impl Fn(&Log) -> bool) {
        let mut completions = Vec::new();
        for _ in 0..1000 {
            self.turn();
            if is_done(&self.log) {
                return;
            }
            self.waits += 1;
            self.ring.wait(Some(Duration::from_secs(5))).unwrap();
            self.ring.reap(&mut completions);
            for completion in completions.drain(..) {
                match completion {
                    Completion::Transferred { token, transfer, result } => {
                        self.disk.on_transferred(token, transfer, result);
                    }
                    Completion::Woken => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("it takes too long");
    }

    fn turn(&mut self) {
        loop {
            let mut moved = false;
            while let Some(disk) = self.log.poll_output() {
                self.disk.start(&mut self.ring, disk);
            }
            while let Some(reply) = self.disk.poll_reply() {
                self.log.handle_disk(reply);
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    fn commit(&mut self) {
        let last = self.log.last();
        self.run_until(|log| log.committed() >= last);
    }

    fn session(&mut self) -> StreamId {
        self.log.open(StreamKind::Session, VhostId(0), b"me").unwrap().0
    }

    fn append(&mut self, stream: StreamId, payload: &[u8]) -> MessageNumber {
        let message =
            NewMessage { vhost: VhostId(0), expires_at: Wall::NEVER, origin: None, head: b"a/b", payload };
        self.log.append(&message, &mut vec![Holder { stream, note: 1, tag: 0 }]).unwrap().0
    }

    /// The payloads a stream holds, by their first bytes; `None` for one that cannot be read.
    fn fetch(&mut self, stream: StreamId) -> Vec<Option<u8>> {
        self.log.fetch(stream, MessageNumber(0), 1000, u64::MAX);
        let mut found = None;
        while found.is_none() {
            self.run_until(|_| true);
            while let Some(event) = self.log.poll_event() {
                if let Event::Fetched { messages, .. } = event {
                    found = Some(messages);
                }
            }
            if found.is_none() {
                self.ring.wait(Some(Duration::from_secs(5))).unwrap();
                let mut completions = Vec::new();
                self.ring.reap(&mut completions);
                for completion in completions {
                    if let Completion::Transferred { token, transfer, result } = completion {
                        self.disk.on_transferred(token, transfer, result);
                    }
                }
            }
        }
        let payload =
            |fetched: &crate::log::Fetched| fetched.stored.as_ref().ok().map(|stored| stored.payload[0]);
        found.unwrap().iter().map(payload).collect()
    }
}

#[test]
fn what_is_committed_is_read_back_and_recovered() {
    for sync in [SyncMode::Commit, SyncMode::Interval, SyncMode::None] {
        let scratch = Scratch::new(&format!("disk-{sync:?}"));
        let mut bench = Bench::new(&scratch, sync);
        let stream = bench.session();
        // More than a segment, so that files are made and the log goes from one to the next.
        for round in 0..30 {
            bench.append(stream, &[round; 100_000]);
            bench.commit();
        }
        let all: Vec<_> = (0..30).map(Some).collect();
        assert_eq!(bench.fetch(stream), all, "{sync:?}");
        bench.log.sync();
        bench.run_until(|log| log.backlog() == 0);
        drop(bench);
        let mut bench = Bench::new(&scratch, sync);
        assert_eq!(bench.fetch(stream), all, "{sync:?}");
        // The next one may be under way.
        assert!(fs::read_dir(scratch.path()).unwrap().count() >= 3);
    }
}

#[test]
fn a_commit_is_one_submission_and_one_completion() {
    let scratch = Scratch::new("disk-lone");
    let mut bench = Bench::new(&scratch, SyncMode::Commit);
    let stream = bench.session();
    bench.commit();
    bench.waits = 0;
    for _ in 0..10 {
        bench.append(stream, b"x");
        bench.commit();
    }
    assert_eq!(bench.waits, 10);
    let counters = bench.disk.counters();
    assert_eq!(counters.syncs.buckets.iter().sum::<u64>(), 11);
    assert_eq!((counters.writes, counters.written_bytes), (11, (2 + 11) * 4096));
}

#[test]
fn unfinished_files_are_deleted_and_strangers_left_alone() {
    let scratch = Scratch::new("disk-unfinished");
    for name in ["00003.new", "notes.txt"] {
        fs::write(scratch.path().join(name), "x").unwrap();
    }
    let mut bench = Bench::new(&scratch, SyncMode::Commit);
    bench.session();
    bench.commit();
    let exists = |name: &str| scratch.path().join(name).exists();
    assert!(!exists("00003.new") && exists("notes.txt") && exists("00000.log"));
    assert_eq!(fs::metadata(scratch.path().join("00000.log")).unwrap().len(), u64::from(SMALL));
}

#[test]
fn a_folder_that_is_gone_poisons() {
    let scratch = Scratch::new("disk-gone");
    let mut bench = Bench::new(&scratch, SyncMode::Commit);
    fs::remove_dir_all(scratch.path()).unwrap();
    bench.session();
    bench.run_until(|log| log.health() == Health::Poisoned);
    assert!(bench.log.open(StreamKind::Session, VhostId(0), b"").is_err());
}

#[test]
fn a_file_that_was_cut_short_fails_the_read_and_nothing_else() {
    let scratch = Scratch::new("disk-cut");
    let mut bench = Bench::new(&scratch, SyncMode::Commit);
    let stream = bench.session();
    for round in 0..4 {
        bench.append(stream, &[round; 5000]);
        bench.commit();
    }
    let file = fs::OpenOptions::new().write(true).open(scratch.path().join("00000.log")).unwrap();
    file.set_len(8192 + 3 * 8192).unwrap();
    let found = bench.fetch(stream);
    assert_eq!(found.len(), 4);
    assert!(found.contains(&None), "{found:?}");
    assert_eq!(bench.log.health(), Health::Good);
}

#[test]
fn damage_is_found_where_it_is() {
    let scratch = Scratch::new("disk-damage");
    let mut bench = Bench::new(&scratch, SyncMode::Commit);
    let stream = bench.session();
    for round in 0..5 {
        bench.append(stream, &[round; 3000]);
        bench.commit();
    }
    drop(bench);
    let path = scratch.path().join("00000.log");
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // The first two commits share a block each with nobody: headers, then one block a commit.
    file.write_all_at(&[0xff; 16], 8192 + 4096 + 200).unwrap();
    let recovered = recover_from(&scratch, &options(SyncMode::Commit));
    let damage = &recovered.report.damage;
    assert_eq!(*damage, [Damage::Bytes { segment: crate::log::SegmentId(0), offset: 12_288, bytes: 4096 }]);
    assert_eq!(recovered.log.message_count(), 4);
}

#[test]
fn a_newer_segment_is_refused() {
    let scratch = Scratch::new("disk-newer");
    let mut bench = Bench::new(&scratch, SyncMode::Commit);
    bench.session();
    bench.commit();
    drop(bench);
    let path = scratch.path().join("00000.log");
    let mut bytes = fs::read(&path).unwrap();
    for copy in [0, 4096] {
        bytes[copy + 8] = 2;
        let checksum = crc32c::crc32c(&bytes[copy..copy + 4092]);
        bytes[copy + 4092..copy + 4096].copy_from_slice(&checksum.to_le_bytes());
    }
    fs::write(&path, &bytes).unwrap();
    let error =
        recover::recover(&Volume::new(scratch.path().to_owned()), &Options::default(), KEY).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("00000.log has format version 2") && text.contains("quelea.data_dir"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn many_segments_are_not_all_kept_open() {
    let scratch = Scratch::new("disk-many");
    let mut bench = Bench::new(&scratch, SyncMode::None);
    let stream = bench.session();
    // A record larger than a segment gets one of its own.
    for round in 0..80 {
        bench.append(stream, &vec![round; 40_000]);
        bench.append(stream, &vec![round; SMALL as usize]);
        bench.commit();
    }
    let all: Vec<_> = (0..80).flat_map(|round| [Some(round); 2]).collect();
    assert_eq!(bench.fetch(stream), all);
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    let count = links.filter(|path| path.starts_with(scratch.path())).count();
    // Whoever makes the next file may have that one open as well.
    assert!((1..=65).contains(&count), "{count}");
}

#[test]
fn a_file_system_without_direct_io_is_gone_through_its_cache() {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    let (_, is_direct) = volume::open_direct(&mut options, Path::new("/proc/self/comm")).unwrap();
    assert!(!is_direct);
    assert!(volume::open_direct(&mut options, Path::new("/nonexistent")).is_err());
}

#[test]
fn what_is_under_way_is_waited_for() {
    let scratch = Scratch::new("disk-quiet");
    let volume = Volume::new(scratch.path().to_owned());
    fs::write(scratch.path().join("00000.log"), [0; 4096]).unwrap();
    let (held, _) = volume.open(crate::log::SegmentId(0)).unwrap();
    let (done, is_quiet) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        volume.await_quiet().unwrap();
        done.send(()).unwrap();
    });
    assert!(is_quiet.recv_timeout(Duration::from_millis(100)).is_err(), "the file is in use");
    drop(held);
    assert!(is_quiet.recv_timeout(Duration::from_secs(10)).is_ok());
    waiting.join().unwrap();
}
