//! The commands on directories made of the frozen log, healthy and damaged, and of logs written here.

use super::*;
use crate::base::{HashKey, MessageHead, MessageRef, QoS, ShardId, Version, VhostId, Wall};
use crate::log::{Holder, Log, NewMessage, Options, StateKind, StreamKind};
use crate::route::SubscriptionOptions;
use crate::runtime::disk::recover;
use crate::shard::durable::format::{self, SessionValue, Standing, SubscriptionValue};
use std::fs;

/// A directory of its own for each test, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quelea-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const HEALTHY: &[u8] = include_bytes!("../../../tests/fixtures/log-v1/healthy.log");

/// A data directory with one shard, whose log is `bytes`.
fn directory(name: &str, bytes: &[u8]) -> Scratch {
    let scratch = Scratch::new(name);
    let layout = Layout::open(scratch.path(), 1).unwrap();
    fs::write(layout.volume(ShardId(0)).folder().join("00000.log"), bytes).unwrap();
    scratch
}

fn ask(scratch: &Scratch, command: LogCommand, json: bool) -> (Verdict, String) {
    let mut out = Vec::new();
    let request = LogRequest { command, json };
    let verdict = run(scratch.path(), &request, &mut out).unwrap();
    (verdict, String::from_utf8(out).unwrap())
}

#[test]
fn the_frozen_log_is_sound() {
    let scratch = directory("tool-frozen", HEALTHY);
    let (verdict, text) = ask(&scratch, LogCommand::Inspect, false);
    assert_eq!(verdict, Verdict::Sound, "{text}");
    assert!(text.contains("1 stored, 1 queued") && text.ends_with("sound\n"), "{text}");
    let (_, json) = ask(&scratch, LogCommand::Inspect, true);
    for part in [
        r#"{"verdict":"sound","shards":[{"shard":0,"#,
        r#""sessions":1"#,
        r#""messages_stored":1"#,
        r#""subscriptions":1"#,
        r#""origins":1"#,
        r#""damage":[]"#,
    ] {
        assert!(json.contains(part), "{part}: {json}");
    }
}

/// Its values are not a broker's: `verify` looks at them, `inspect` does not.
#[test]
fn values_that_make_no_sense_are_damage() {
    let scratch = directory("tool-senseless", HEALTHY);
    let (verdict, text) = ask(&scratch, LogCommand::Verify, false);
    assert_eq!(verdict, Verdict::Damaged);
    for what in
        ["session 0 makes no sense", "state 0 (Subscription) makes no sense", "message 2 makes no sense"]
    {
        assert!(text.contains(what), "{what}: {text}");
    }
}

#[test]
fn damage_is_told_with_its_place_and_changes_nothing() {
    let mut bytes = HEALTHY.to_vec();
    bytes[4 * 4096 + 100] ^= 1;
    let scratch = directory("tool-damaged", &bytes);
    for command in [LogCommand::Inspect, LogCommand::Verify] {
        let (verdict, text) = ask(&scratch, command, false);
        assert_eq!(verdict, Verdict::Damaged);
        assert!(text.contains("00000.log at 16384: 4096 bytes cannot be read"), "{text}");
    }
    let (_, json) = ask(&scratch, LogCommand::Inspect, true);
    assert!(json.starts_with(r#"{"verdict":"damaged""#), "{json}");
    assert_eq!(fs::read(scratch.path().join("log/000/00000.log")).unwrap(), bytes);
}

#[test]
fn a_torn_tail_is_no_damage() {
    let mut bytes = HEALTHY.to_vec();
    let last = bytes.len() - 4096;
    bytes[last + 60] ^= 1;
    let scratch = directory("tool-torn", &bytes);
    let (verdict, text) = ask(&scratch, LogCommand::Inspect, false);
    assert_eq!(verdict, Verdict::Sound, "{text}");
    assert!(text.contains("torn tail"), "{text}");
}

#[test]
fn what_is_no_log_is_refused() {
    let scratch = Scratch::new("tool-none");
    let request = LogRequest { command: LogCommand::Inspect, json: false };
    let error = run(scratch.path(), &request, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Undone::NoLog(_)) && error.to_string().contains("--data-dir"), "{error}");
    for command in [LogCommand::Compact, LogCommand::Dump { client_id: "x".into() }] {
        let request = LogRequest { command, json: false };
        assert!(run(scratch.path(), &request, &mut Vec::new()).is_err());
    }
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "a look makes nothing");
}

/// A log of two sessions with messages, most of which are settled, in several segments.
fn written(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    let layout = Layout::open(scratch.path(), 1).unwrap();
    let volume = layout.volume(ShardId(0));
    let options = Options { segment_bytes: 1 << 20, segments_min: 100, ..Options::default() };
    let mut log = recover::recover(&volume, &options, HashKey { k0: 1, k1: 2 }).unwrap().log;
    let sessions = ["here", "away"].map(|client_id| open_session(&mut log, client_id));
    for number in 0..400_u32 {
        let holders = sessions.iter().map(|stream| Holder { stream: *stream, note: 1, tag: 0 });
        let message = MessageRef {
            head: MessageHead {
                vhost: VhostId(0),
                qos: QoS::AtLeastOnce,
                retain: false,
                expires_at: Wall::NEVER,
                publisher: None,
            },
            topic: "a/b",
            properties: &[],
            payload: &[b'x'; 10_000],
        };
        let mut head = Vec::new();
        format::put_head(&message, &[], &mut head);
        let new = NewMessage {
            vhost: VhostId(0),
            expires_at: Wall::NEVER,
            origin: None,
            head: &head,
            payload: message.payload,
        };
        let (at, _) = log.append(&new, &mut holders.collect()).unwrap();
        if number < 397 {
            for stream in sessions {
                log.acknowledge(stream, at).unwrap();
            }
        }
        log.flush().unwrap();
        assert!(compact::carry_out(&mut log, &volume).is_none());
    }
    scratch
}

fn open_session(log: &mut Log, client_id: &str) -> crate::log::StreamId {
    let value = SessionValue {
        client_id,
        publisher: 7,
        expiry_secs: 60,
        standing: Standing::Offline { expires_at: Wall(99), will_at: Wall::NEVER },
        has_groups: false,
        version: Version::V5,
    };
    let mut bytes = Vec::new();
    format::put_session(&value, &mut bytes);
    let (stream, _) = log.open(StreamKind::Session, VhostId(0), &bytes).unwrap();
    let options =
        SubscriptionOptions { qos: QoS::AtLeastOnce, durable: true, ..SubscriptionOptions::default() };
    format::put_subscription(&SubscriptionValue { filter: "a/#", group: "", options }, &mut bytes);
    log.put(StateKind::Subscription, VhostId(0), Some(stream), &bytes).unwrap();
    stream
}

#[test]
fn a_session_is_dumped() {
    let scratch = written("tool-dump");
    let dump = |json| ask(&scratch, LogCommand::Dump { client_id: "away".into() }, json);
    let (verdict, text) = dump(false);
    assert_eq!(verdict, Verdict::Sound, "{text}");
    assert!(
        text.starts_with("session \"away\" on shard 0: offline, expiry 60 s, protocol level 5\n"),
        "{text}"
    );
    assert!(text.contains("subscription a/# QoS 1"), "{text}");
    assert_eq!(text.matches("\"a/b\", QoS 1, 10000 bytes").count(), 3, "{text}");
    let (_, json) = dump(true);
    assert!(json.contains(r#""client_id":"away""#) && json.contains(r#""expires_at_ms":99"#), "{json}");
    assert_eq!(json.matches(&"78".repeat(10_000)).count(), 3);
    let request = LogRequest { command: LogCommand::Dump { client_id: "nobody".into() }, json: false };
    assert!(matches!(run(scratch.path(), &request, &mut Vec::new()), Err(Undone::NoSession(_))));
}

#[test]
fn compaction_gives_back_what_is_dead() {
    let scratch = written("tool-compact");
    let size = || -> u64 {
        let files = fs::read_dir(scratch.path().join("log/000")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let before = size();
    let (sound, listed) = ask(&scratch, LogCommand::Verify, false);
    assert_eq!(sound, Verdict::Sound, "{listed}");
    let lock = DataDir::open(scratch.path()).unwrap();
    let request = LogRequest { command: LogCommand::Compact, json: false };
    assert!(matches!(run(scratch.path(), &request, &mut Vec::new()), Err(Undone::Unusable(_))));
    drop(lock);
    let (verdict, text) = ask(&scratch, LogCommand::Compact, false);
    assert_eq!(verdict, Verdict::Sound, "{text}");
    assert!(size() < before, "{before} before, {} after: {text}", size());
    let (sound, text) = ask(&scratch, LogCommand::Verify, false);
    assert_eq!(sound, Verdict::Sound, "{text}");
    assert!(text.contains("3 stored, 6 queued") && text.contains("2 subscriptions"), "{text}");
}
