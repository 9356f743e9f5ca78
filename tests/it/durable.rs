//! The durable log under the real binary: killed, damaged, full, of another format.
//!
//! Processes are ended by SIGKILL: nothing is flushed, told or tidied up.

use crate::DEADLINE;
use crate::broker::{Broker, Process};
use crate::watch::{metrics, request};
use crate::wire::{Packet, Wire, packet, text};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A data folder that outlives brokers, gone afterwards.
struct Folder {
    path: PathBuf,
    is_mounted: bool,
}

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder under target/ can be made");
        Self { path, is_mounted: false }
    }

    /// On a file system of its own, of so many bytes; `None` where this may not be done.
    fn of_size(name: &str, size: &str) -> Option<Self> {
        let mut folder = Self::new(name);
        let options = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&folder.path).status();
        folder.is_mounted = mount.is_ok_and(|status| status.success());
        folder.is_mounted.then_some(folder)
    }

    fn setting(&self) -> String {
        format!("quelea.data_dir={}", self.path.join("data").display())
    }

    fn start(&self, settings: &[&str]) -> Broker {
        let data = self.setting();
        Broker::start(&[&[data.as_str(), "quelea.log.segment_size=1MiB", "quelea.http=0"], settings].concat())
    }

    /// All segments of all shards.
    fn segments(&self) -> Vec<PathBuf> {
        let shards = fs::read_dir(self.path.join("data/log"))
            .expect("logs are there")
            .map(|entry| entry.expect("readable").path());
        let files =
            shards.filter(|path| path.is_dir()).flat_map(|path| fs::read_dir(path).expect("readable"));
        let mut files: Vec<_> = files.map(|entry| entry.expect("readable").path()).collect();
        files.sort();
        files
    }

    /// The segment with these bytes in it, and where in it they are.
    fn find(&self, bytes: &[u8]) -> (PathBuf, usize) {
        let found = self.segments().into_iter().find_map(|path| {
            let content = fs::read(&path).expect("readable");
            let at = content.windows(bytes.len()).position(|window| window == bytes)?;
            Some((path, at))
        });
        found.expect("it was acknowledged, so it is on disk")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A client whose session is kept for an hour; whether it was there already.
fn connect(broker: SocketAddr, id: &str) -> (Wire, bool) {
    let mut wire = Wire::open(broker);
    let properties = [5, 0x11, 0, 0, 0x0E, 0x10];
    wire.send(&packet(0x10, &[&text("MQTT")[..], &[5, 0, 0, 60], &properties, &text(id)].concat()));
    let connack = wire.receive().expect("CONNACK");
    assert_eq!((connack.first, connack.body[1]), (0x20, 0), "accepted");
    (wire, connack.body[0] == 1)
}

fn subscribe(wire: &mut Wire, filter: &str, qos: u8) {
    wire.send(&packet(0x82, &[&[0, 1, 0][..], &text(filter), &[qos]].concat()));
    let suback = wire.receive().expect("SUBACK");
    assert_eq!((suback.first, suback.body.last()), (0x90, Some(&qos)));
}

/// PUBLISH at QoS 1, retained or not; its reason code.
fn publish(wire: &mut Wire, topic: &str, payload: &[u8], is_retained: bool) -> u8 {
    wire.send(&packet(0x32 | u8::from(is_retained), &[&text(topic)[..], &[0, 7, 0], payload].concat()));
    let puback = wire.receive().expect("PUBACK");
    assert_eq!((puback.first, &puback.body[..2]), (0x40, &[0, 7][..]));
    puback.body.get(2).copied().unwrap_or(0)
}

/// The payload of a QoS 1 PUBLISH, which is acknowledged.
fn take(wire: &mut Wire) -> Vec<u8> {
    let Packet { first, body } = wire.receive().expect("PUBLISH");
    assert_eq!(first & 0xF6, 0x32, "PUBLISH at QoS 1");
    let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let behind = &body[2 + topic_len..];
    wire.send(&packet(0x40, &behind[..2]));
    let properties_len = usize::from(behind[2]);
    behind[3 + properties_len..].to_vec()
}

/// Ends the connection; what was on its way stays unacknowledged.
fn leave(mut wire: Wire) {
    wire.send(&[0xE0, 0]);
    while wire.receive().is_some() {}
}

/// A session that is away, with these messages, each acknowledged before the next.
fn keep(broker: SocketAddr, payloads: &[&[u8]]) {
    let (mut subscriber, was_there) = connect(broker, "kept");
    assert!(!was_there);
    subscribe(&mut subscriber, "t/#", 1);
    leave(subscriber);
    let mut publisher = Wire::connected(broker, 5, "publisher");
    for payload in payloads {
        assert_eq!(publish(&mut publisher, "t/1", payload, false), 0);
    }
}

const FIVE: [&[u8]; 5] = [b"payload one", b"payload two", b"payload three", b"payload four", b"payload five"];

#[test]
fn what_is_acknowledged_survives_kill_9() {
    for (shards, sync) in [(1, "commit"), (3, "commit"), (2, "interval"), (2, "none")] {
        let folder = Folder::new("kill");
        let settings = [format!("quelea.shards={shards}"), format!("quelea.log.sync={sync}")];
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let broker = folder.start(&settings);
        assert_eq!(broker.lines().iter().any(|line| line.contains("power cut")), sync != "commit");
        keep(broker.address(), &FIVE);
        let mut publisher = Wire::connected(broker.address(), 5, "other");
        assert_eq!(publish(&mut publisher, "r/1", b"retained", true), 0x10, "nobody has subscribed");
        drop(broker);

        // Twice: what was read back is there the next time too.
        for _ in 0..2 {
            let broker = folder.start(&settings);
            let mut late = Wire::connected(broker.address(), 5, "late");
            subscribe(&mut late, "r/#", 1);
            assert_eq!(take(&mut late), b"retained");
            drop(broker);
        }
        let broker = folder.start(&settings);
        let (mut subscriber, was_there) = connect(broker.address(), "kept");
        assert!(was_there, "{shards} shards");
        for payload in FIVE {
            assert_eq!(take(&mut subscriber), payload, "{shards} shards");
        }
        let mut publisher = Wire::connected(broker.address(), 5, "publisher");
        assert_eq!(publish(&mut publisher, "t/2", b"last", false), 0);
        assert_eq!(take(&mut subscriber), b"last");
        broker.stop();
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let folder = Folder::new("newer");
    let broker = folder.start(&["quelea.shards=1"]);
    keep(broker.address(), &FIVE);
    drop(broker);
    let refused = |changed: &Path, text: &str| {
        let before = fs::read(changed).expect("readable");
        let args = [format!("--set={}", folder.setting()), "--set=quelea.shards=1".to_owned()];
        let listener = "--set=mqtt.listeners.tcp.default=127.0.0.1:0";
        let (status, lines) = Process::start(&[&args[0], &args[1], listener]).wait();
        assert_eq!(status.code(), Some(1), "{lines:#?}");
        let is_it = |line: &String| line.contains(text) && line.contains("format version 2");
        assert!(lines.iter().any(is_it), "{lines:#?}");
        assert_eq!(fs::read(changed).expect("readable"), before);
    };
    let meta = folder.path.join("data/log/meta");
    let good = fs::read(&meta).expect("it is there");
    fs::write(&meta, "quelea-log 2\nwhatever\n").expect("writable");
    refused(&meta, "log/meta");
    fs::write(&meta, good).expect("writable");
    let segment = folder.segments().remove(0);
    let mut bytes = fs::read(&segment).expect("readable");
    for copy in [0, 4096] {
        bytes[copy + 8] = 2;
        let checksum = crc32c::crc32c(&bytes[copy..copy + 4092]);
        bytes[copy + 4092..copy + 4096].copy_from_slice(&checksum.to_le_bytes());
    }
    fs::write(&segment, bytes).expect("writable");
    refused(&segment, "00000.log");
}

#[test]
fn damage_is_named_and_the_rest_served() {
    let folder = Folder::new("damaged");
    let broker = folder.start(&["quelea.shards=1"]);
    keep(broker.address(), &FIVE);
    drop(broker);
    let (segment, at) = folder.find(FIVE[2]);
    let mut bytes = fs::read(&segment).expect("readable");
    bytes[at] ^= 1;
    fs::write(&segment, bytes).expect("writable");

    let broker = folder.start(&["quelea.shards=1"]);
    let place = format!("00000.log at {},", at / 4096 * 4096);
    let lines = broker.lines();
    assert!(lines.iter().any(|line| line.contains("ERROR") && line.contains(&place)), "{place}: {lines:#?}");
    let health = request(broker.http().expect("asked for"), "GET", "/healthz");
    assert_eq!(health.status, 200);
    wait_until(|| {
        request(broker.http().expect("asked for"), "GET", "/status").body.contains(r#""health":"damaged""#)
    });
    let (mut subscriber, was_there) = connect(broker.address(), "kept");
    assert!(was_there);
    for payload in [FIVE[0], FIVE[1], FIVE[3], FIVE[4]] {
        assert_eq!(take(&mut subscriber), payload);
    }
    broker.stop();
}

#[test]
fn a_torn_end_is_cut() {
    let folder = Folder::new("torn");
    let broker = folder.start(&["quelea.shards=1"]);
    keep(broker.address(), &FIVE);
    drop(broker);
    // The last block that counts loses its second half, as if the power had failed while it was written.
    let (segment, at) = folder.find(FIVE[4]);
    let mut bytes = fs::read(&segment).expect("readable");
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
    assert!(at > last / 4096 * 4096, "nothing was committed behind it");
    bytes[at..last + 1].fill(0);
    fs::write(&segment, bytes).expect("writable");

    let broker = folder.start(&["quelea.shards=1"]);
    let lines = broker.lines();
    assert!(lines.iter().any(|line| line.contains("torn, and cut")), "{lines:#?}");
    let (mut subscriber, was_there) = connect(broker.address(), "kept");
    assert!(was_there);
    for payload in &FIVE[..4] {
        assert_eq!(take(&mut subscriber), *payload);
    }
    // The log goes on.
    let mut publisher = Wire::connected(broker.address(), 5, "publisher");
    assert_eq!(publish(&mut publisher, "t/2", b"last", false), 0);
    assert_eq!(take(&mut subscriber), b"last");
    broker.stop();
}

#[test]
fn below_the_watermark_only_what_is_not_kept_goes_on() {
    let folder = Folder::new("watermark");
    let broker = folder.start(&["quelea.shards=2"]);
    keep(broker.address(), &FIVE);
    drop(broker);
    let broker = folder.start(&["quelea.shards=2", "disk_free_limit.absolute=1152921504606846976"]);
    assert!(broker.lines().iter().any(|line| line.contains("less space than disk_free_limit.absolute")));
    let http = broker.http().expect("asked for");
    let health = request(http, "GET", "/healthz");
    assert!(health.status == 200 && health.body.contains("the log of shard 1 is full"), "{}", health.body);
    assert_eq!(metrics(http)["rabbitmq_alarms_free_disk_space_watermark"], 1.0);
    let mut publisher = Wire::connected(broker.address(), 5, "publisher");
    assert_eq!(publish(&mut publisher, "t/1", b"more", false), 0x97);
    let mut passing = Wire::connected(broker.address(), 5, "passing");
    subscribe(&mut passing, "p/#", 1);
    assert_eq!(publish(&mut publisher, "p/1", b"passes", false), 0);
    assert_eq!(take(&mut passing), b"passes");
    // What is there is delivered, and its acknowledgements taken.
    let (mut subscriber, was_there) = connect(broker.address(), "kept");
    assert!(was_there);
    for payload in FIVE {
        assert_eq!(take(&mut subscriber), payload);
    }
    broker.stop();
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    let Some(folder) = Folder::of_size("full", "8m") else {
        assert!(std::env::var_os("CI").is_none(), "a file system cannot be mounted");
        eprintln!("SKIPPED: a full disk: mounting a tmpfs needs privileges");
        return;
    };
    let filler = folder.path.join("filler");
    fs::write(&filler, vec![1; 4 << 20]).expect("there is room");
    let broker = folder.start(&["quelea.shards=1", "disk_free_limit.absolute=0"]);
    keep(broker.address(), &[]);
    let mut kept = Vec::new();
    let mut send = |publisher: &mut Wire, number: usize| {
        let mut payload = vec![7; 50_000];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        publisher.send(&packet(0x32, &[&text("t/1")[..], &[0, 7, 0], &payload].concat()));
        let reason = publisher.receive().expect("PUBACK").body.get(2).copied().unwrap_or(0);
        if reason == 0 {
            kept.push(number);
        }
        reason
    };
    let mut publisher = Wire::connected(broker.address(), 5, "publisher");
    let refused =
        (0..200).find(|number| send(&mut publisher, *number) != 0).expect("8 MiB hold less than 10 MB");
    assert!(refused > 20, "{refused}");
    // It is tried again every second, and every publish is answered all the while.
    let start = Instant::now();
    let mut number = 300;
    while start.elapsed() < Duration::from_secs(3) {
        number += 1;
        assert_eq!(send(&mut publisher, number), 0x97);
    }
    let http = broker.http().expect("asked for");
    wait_until(|| request(http, "GET", "/healthz").body.contains("the log of shard 0 is full"));
    let mut other = Wire::connected(broker.address(), 5, "other");
    assert_eq!(send(&mut other, 999_999), 0x97);
    fs::remove_file(&filler).expect("it is there");
    let mut next = 1_000_000;
    wait_until(|| {
        next += 1;
        send(&mut other, next) == 0
    });
    drop(broker);
    let broker = folder.start(&["quelea.shards=1", "disk_free_limit.absolute=0"]);
    let (mut subscriber, _) = connect(broker.address(), "kept");
    for number in kept {
        assert_eq!(take(&mut subscriber)[..8], number.to_be_bytes());
    }
    broker.stop();
}

/// Not even the first file of the log can be made: clients are told so, and the process ends when it is asked to.
#[test]
fn a_disk_that_was_full_from_the_start_keeps_nobody_waiting() {
    let Some(folder) = Folder::of_size("tiny", "700k") else {
        assert!(std::env::var_os("CI").is_none(), "a file system cannot be mounted");
        eprintln!("SKIPPED: a full disk: mounting a tmpfs needs privileges");
        return;
    };
    let broker = folder.start(&["quelea.shards=1", "disk_free_limit.absolute=0"]);
    for number in 0..3 {
        let mut wire = Wire::open(broker.address());
        let properties = [5, 0x11, 0, 0, 0x0E, 0x10];
        let id = text(&format!("session-{number}"));
        wire.send(&packet(0x10, &[&text("MQTT")[..], &[5, 0, 0, 60], &properties, &id].concat()));
        let connack = wire.receive().expect("CONNACK");
        assert_eq!((connack.first, connack.body[1]), (0x20, 0x97));
    }
    let (mut publisher, mut passing) =
        (Wire::connected(broker.address(), 5, "publisher"), Wire::connected(broker.address(), 5, "passing"));
    assert_eq!(publish(&mut publisher, "r/1", b"retained", true), 0x97);
    subscribe(&mut passing, "p/#", 1);
    assert_eq!(publish(&mut publisher, "p/1", b"passes", false), 0);
    assert_eq!(take(&mut passing), b"passes");
    drop((publisher, passing));
    let start = Instant::now();
    broker.stop();
    assert!(start.elapsed() < Duration::from_secs(4), "it waited for space: {:?}", start.elapsed());
}

/// A payload is on disk once for each shard, however many sessions hold it: 1000 of them on two shards.
#[test]
fn a_fan_out_writes_its_payload_once_a_shard() {
    const SESSIONS: usize = 1000;
    let folder = Folder::new("fan-out");
    let broker = folder.start(&["quelea.shards=2"]);
    for number in 0..SESSIONS {
        let (mut session, _) = connect(broker.address(), &format!("session-{number}"));
        subscribe(&mut session, "t/#", 1);
        leave(session);
    }
    let http = broker.http().expect("asked for");
    let written = || metrics(http)["rabbitmq_io_write_bytes_total"];
    wait_until(|| metrics(http)["quelea_log_backlog_bytes"] == 0.0);
    let mut publisher = Wire::connected(broker.address(), 5, "publisher");
    for payload in [4 << 10, 64 << 10] {
        // What is written from time to time may come between: the least of a few.
        let cost = (0..5).map(|_| {
            let before = written();
            assert_eq!(publish(&mut publisher, "t/1", &vec![7; payload], false), 0);
            written() - before
        });
        let cost = cost.fold(f64::MAX, f64::min);
        // Once for each shard, 24 bytes a session, and a block of 4 KiB for the rest.
        assert!(cost < (2 * payload + SESSIONS * 24 + 4 * 4096) as f64, "{cost} bytes for {payload}");
        assert!(cost >= (2 * payload) as f64, "both shards have sessions: {cost} bytes for {payload}");
    }
    broker.stop();
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "it does not happen");
        std::thread::yield_now();
    }
}

/// Sessions, queued messages and retained ones, after each of several changes of the number of shards.
#[test]
fn another_number_of_shards_finds_everything() {
    const SESSIONS: usize = 12;
    let folder = Folder::new("rehomed");
    let mut queued: Vec<Vec<u8>> = Vec::new();
    for (round, shards) in [1, 3, 2, 2, 5].into_iter().enumerate() {
        let setting = format!("quelea.shards={shards}");
        let broker = folder.start(&[&setting]);
        let shard_folders = fs::read_dir(folder.path.join("data/log")).expect("logs are there").count() - 1;
        assert_eq!(shard_folders, shards);
        for number in 0..SESSIONS {
            let (mut session, was_there) = connect(broker.address(), &format!("session-{number}"));
            assert_eq!(was_there, round > 0, "session {number} in round {round}");
            if round == 0 {
                subscribe(&mut session, "t/#", 1);
                subscribe(&mut session, &format!("own/{number}"), 1);
            }
            // Half of them take what waits, and have the rest of the rounds nothing old.
            if number % 2 == 0 {
                let first = if round == 0 { queued.len() } else { 5 * (round - 1) };
                for payload in &queued[first..] {
                    assert_eq!(take(&mut session), *payload, "session {number} in round {round}");
                }
                session.send(&[0xC0, 0]);
                assert_eq!(session.receive().map(|pong| pong.first), Some(0xD0), "nothing more");
            }
            leave(session);
        }
        let mut publisher = Wire::connected(broker.address(), 5, "publisher");
        for number in 0..5 {
            let payload = format!("message {number} of round {round}").into_bytes();
            assert_eq!(publish(&mut publisher, "t/1", &payload, false), 0);
            queued.push(payload);
        }
        let topic = format!("r/{round}");
        assert_eq!(publish(&mut publisher, &topic, topic.as_bytes(), true), 0x10);
        drop(broker);
    }
    let broker = folder.start(&["quelea.shards=1"]);
    for number in (1..SESSIONS).step_by(2) {
        let (mut session, _) = connect(broker.address(), &format!("session-{number}"));
        for payload in &queued {
            assert_eq!(take(&mut session), *payload, "session {number}");
        }
        let own = format!("own/{number}");
        let mut publisher = Wire::connected(broker.address(), 5, "publisher");
        assert_eq!(publish(&mut publisher, &own, b"mine", false), 0);
        assert_eq!(take(&mut session), b"mine");
    }
    let mut late = Wire::connected(broker.address(), 5, "late");
    subscribe(&mut late, "r/#", 1);
    let mut retained: Vec<_> = (0..5).map(|_| take(&mut late)).collect();
    retained.sort();
    assert_eq!(retained, ["r/0", "r/1", "r/2", "r/3", "r/4"].map(|topic| topic.as_bytes().to_vec()));
    broker.stop();
}
