//! The log as a whole, over a disk in memory.

mod damage;
pub(crate) mod disk;
mod faults;
mod fixtures;
mod model;

use super::*;
use crate::base::Wall;
use disk::TestDisk;

fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES_MIN, segments_min: 2, spare_segments_max: 2, ..Options::default() }
}

/// Opens a log on what is on the disk.
fn open(disk: &mut TestDisk, options: Options, life: u64) -> Recovered {
    let mut recovery = Recovery::new(options, HashKey { k0: life, k1: 7 }, &disk.files());
    while !recovery.is_done() {
        let output = recovery.poll_output().expect("a recovery that is not done wants something");
        recovery.handle_disk(disk.carry_out(&output)).unwrap();
    }
    recovery.finish()
}

/// Lets the disk do all that is asked of it.
fn settle(log: &mut Log, disk: &mut TestDisk) {
    while let Some(output) = log.poll_output() {
        log.handle_disk(disk.carry_out(&output));
    }
}

fn message<'a>(head: &'a str, payload: &'a [u8]) -> NewMessage<'a> {
    let head = head.as_bytes();
    NewMessage { vhost: VhostId(3), expires_at: Wall::NEVER, origin: None, head, payload }
}

fn holder(stream: StreamId, note: u32) -> Holder {
    Holder { stream, note, tag: 0 }
}

fn session(log: &mut Log, name: &str) -> StreamId {
    log.open(StreamKind::Session, VhostId(3), name.as_bytes()).unwrap().0
}

/// Payloads of all that a stream holds, read back.
fn payloads(log: &mut Log, disk: &mut TestDisk, stream: StreamId) -> Vec<Vec<u8>> {
    log.fetch(stream, MessageNumber(0), usize::MAX, u64::MAX);
    settle(log, disk);
    let Some(Event::Fetched { messages, .. }) = log.poll_event() else { panic!("a fetch was asked for") };
    messages.into_iter().map(|fetched| fetched.stored.unwrap().payload.into_vec()).collect()
}

#[test]
fn a_commit_is_released_after_its_sync_and_the_next_one_gathers_meanwhile() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let (a, first) = log.open(StreamKind::Session, VhostId(0), b"a").unwrap();
    let create = log.poll_output().unwrap();
    assert!(matches!(create, Disk::Create { .. }), "{create:?}");
    assert_eq!(log.poll_output(), None);
    log.handle_disk(disk.carry_out(&create));
    let write = log.poll_output().unwrap();
    assert!(matches!(write, Disk::Write { offset: 0, .. }), "{write:?}");
    let (_, second) = log.append(&message("t", b"1"), &mut vec![holder(a, 0)]).unwrap();
    let (_, third) = log.append(&message("t", b"2"), &mut vec![holder(a, 0)]).unwrap();
    assert!(first < second && second == third);
    assert_eq!(log.poll_output(), None, "one commit is in flight");
    log.handle_disk(disk.carry_out(&write));
    assert!(log.committed() < first);
    let sync = log.poll_output().unwrap();
    assert!(matches!(sync, Disk::Sync { .. }), "{sync:?}");
    log.handle_disk(disk.carry_out(&sync));
    assert_eq!(log.committed(), first);
    let Some(Disk::Write { bytes, .. }) = log.poll_output() else { panic!("the next commit is due") };
    assert_eq!(bytes.len(), 4096, "a lone commit is one block");
}

#[test]
fn what_was_left_is_there_after_a_restart() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let (a, b) = (session(&mut log, "a"), session(&mut log, "b"));
    let (sub, _) = log.put(StateKind::Subscription, VhostId(3), Some(a), b"f/#").unwrap();
    let (gone, _) = log.put(StateKind::Subscription, VhostId(3), Some(a), b"gone").unwrap();
    let (retained, _) = log.put(StateKind::Retained, VhostId(3), None, b"old").unwrap();
    log.replace(retained, StateKind::Retained, VhostId(3), b"new").unwrap();
    log.clear(gone).unwrap();
    let origin = Origin { publisher: 9, packet_id: 4 };
    let origin_message = NewMessage { origin: Some(origin), ..message("t", b"one") };
    let (one, _) = log.append(&origin_message, &mut vec![holder(b, 2), holder(a, 1)]).unwrap();
    let (two, _) = log.append(&message("t", b"two"), &mut vec![holder(a, 1)]).unwrap();
    log.acknowledge(a, one).unwrap();
    log.mark(a, two, 77).unwrap();
    log.flush().unwrap();
    settle(&mut log, &mut disk);
    let recovered = open(&mut disk, options(), 2);
    assert_eq!(recovered.report, Report { bytes: recovered.report.bytes, ..Report::default() });
    let values: Vec<&[u8]> = recovered.streams.iter().map(|stream| &*stream.value).collect();
    assert_eq!(values, [b"a", b"b"]);
    let states: Vec<_> =
        recovered.states.iter().map(|state| (state.id, state.owner, &*state.value)).collect();
    assert_eq!(states, [(sub, Some(a), &b"f/#"[..]), (retained, None, &b"new"[..])]);
    let mut log = recovered.log;
    assert_eq!(log.messages(a).collect::<Vec<_>>(), [(two, 77)]);
    assert_eq!(log.messages(b).collect::<Vec<_>>(), [(one, 0)]);
    assert!(log.has_origin(origin));
    assert_eq!(payloads(&mut log, &mut disk, b), [b"one"]);
    assert!(log.forget(origin).unwrap());
    log.close(a).unwrap();
    log.flush().unwrap();
    settle(&mut log, &mut disk);
    let recovered = open(&mut disk, options(), 3);
    assert_eq!((recovered.streams.len(), recovered.states.len()), (1, 1));
    assert!(!recovered.log.has_origin(origin));
}

#[test]
fn what_was_settled_before_a_mark_is_not_there_again_with_its_tag() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let a = session(&mut log, "a");
    let [one, two] = [b"1", b"2"].map(|payload| log.append(&message("t", payload), &mut vec![holder(a, 0)]));
    let (one, two) = (one.unwrap().0, two.unwrap().0);
    log.mark(a, one, 5).unwrap();
    settle(&mut log, &mut disk);
    log.acknowledge(a, one).unwrap();
    let marked = log.mark(a, two, 5).unwrap();
    // Another segment, and another commit.
    let large = vec![0; SEGMENT_BYTES_MIN as usize - 10_000];
    let (_, later) = log.append(&message("t", &large), &mut vec![holder(a, 0)]).unwrap();
    assert!(marked < later);
    while log.committed() < marked {
        let output = log.poll_output().expect("the mark is not on disk yet");
        log.handle_disk(disk.carry_out(&output));
    }
    let log = open(&mut disk, options(), 2).log;
    assert_eq!(log.messages(a).collect::<Vec<_>>(), [(two, 5)]);
}

#[test]
fn a_message_is_stored_once_for_all_its_holders_and_costs_few_bytes_of_memory() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, Options { segment_bytes: 8 << 20, ..options() }, 1).log;
    let streams: Vec<_> = (0..1000).map(|n| session(&mut log, &n.to_string())).collect();
    settle(&mut log, &mut disk);
    let (before, memory) = (disk.bytes_written, log.memory());
    let mut holders: Vec<_> = streams.iter().map(|stream| holder(*stream, 0)).collect();
    log.append(&message("t", &[7; 100_000]), &mut holders).unwrap();
    settle(&mut log, &mut disk);
    assert!(disk.bytes_written - before < 130_000, "{}", disk.bytes_written - before);
    for n in 0..100 {
        for stream in &streams {
            log.append(&message("t", &[n]), &mut vec![holder(*stream, 0)]).unwrap();
        }
    }
    let each = (log.memory() - memory) as f64 / 100_000.0;
    assert!(each <= 32.0, "{each} B a queued message");
}

#[test]
fn a_record_larger_than_a_segment_has_one_of_its_own() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let a = session(&mut log, "a");
    let large = vec![5; 300_000];
    for _ in 0..2 {
        log.append(&message("t", b"small"), &mut vec![holder(a, 0)]).unwrap();
        log.append(&message("t", &large), &mut vec![holder(a, 0)]).unwrap();
    }
    settle(&mut log, &mut disk);
    let mut log = open(&mut disk, options(), 2).log;
    let expected = [&b"small"[..], &large, b"small", &large];
    assert_eq!(payloads(&mut log, &mut disk, a), expected);
}

#[test]
fn a_record_larger_than_a_segment_is_not_in_the_way_of_what_is_behind_it() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let (a, b) = (session(&mut log, "a"), session(&mut log, "b"));
    let large = vec![5; 300_000];
    log.append(&message("t", &large), &mut vec![holder(b, 0)]).unwrap();
    for _ in 0..2000 {
        let (number, _) = log.append(&message("t", &[1; 1000]), &mut vec![holder(a, 0)]).unwrap();
        settle(&mut log, &mut disk);
        log.acknowledge(a, number).unwrap();
    }
    assert!(disk.files().len() <= 8, "{} files", disk.files().len());
    assert_eq!(payloads(&mut log, &mut disk, b), [large]);
}

#[test]
fn segments_are_used_again_and_what_lives_moves_on() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let (a, b) = (session(&mut log, "a"), session(&mut log, "b"));
    let (keep, _) = log.append(&message("t", b"keep"), &mut vec![holder(a, 0), holder(b, 9)]).unwrap();
    log.mark(b, keep, 5).unwrap();
    for n in 0..5000_u32 {
        let (number, _) = log.append(&message("t", &[1; 1000]), &mut vec![holder(a, 0)]).unwrap();
        settle(&mut log, &mut disk);
        log.acknowledge(a, number).unwrap();
        if n == 2500 {
            log.acknowledge(a, keep).unwrap();
        }
    }
    assert!(disk.files().len() <= 6, "{} files", disk.files().len());
    assert_eq!(log.messages(b).collect::<Vec<_>>(), [(keep, 5)]);
    log.flush().unwrap();
    settle(&mut log, &mut disk);
    let mut log = open(&mut disk, options(), 2).log;
    assert_eq!((log.len(a), log.len(b)), (0, 1));
    assert_eq!(payloads(&mut log, &mut disk, b), [b"keep"]);
}

#[test]
fn expired_messages_leave() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let a = session(&mut log, "a");
    for n in 0..10_u8 {
        let expires_at = if n % 2 == 0 { Wall(5000) } else { Wall::NEVER };
        let new = NewMessage { expires_at, ..message("t", &[]) };
        log.append(&new, &mut vec![holder(a, 0)]).unwrap();
    }
    let first = log.messages(a).next().unwrap().0;
    log.mark(a, first, 1).unwrap();
    assert_eq!(log.expire(Wall(4999), 100), []);
    let dropped = log.expire(Wall(5000), 100);
    assert_eq!((dropped.len(), dropped[0].1.count, log.len(a)), (1, 4, 6), "what is marked stays");
    let left: Vec<_> = log.messages(a).map(|(number, _)| number.0 - first.0).collect();
    assert_eq!(left, [0, 1, 3, 5, 7, 9]);
    settle(&mut log, &mut disk);
    let log = open(&mut disk, options(), 2).log;
    assert_eq!(log.len(a), 10, "expiry is not written, and met again");
}

#[test]
fn acknowledgements_in_order_are_one_range() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let streams = [session(&mut log, "a"), session(&mut log, "b")];
    let mut numbers = Vec::new();
    for _ in 0..100 {
        for stream in streams {
            numbers.push((stream, log.append(&message("t", b""), &mut vec![holder(stream, 0)]).unwrap().0));
        }
    }
    for (stream, number) in &numbers {
        assert!(log.acknowledge(*stream, *number).unwrap());
        assert!(!log.acknowledge(*stream, *number).unwrap());
    }
    assert_eq!(log.acks.len(), 2);
}

#[test]
fn a_whole_message_names_who_holds_it_still() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let [a, b, c] = ["a", "b", "c"].map(|name| session(&mut log, name));
    let origin = Origin { publisher: 5, packet_id: 6 };
    let new = NewMessage { origin: Some(origin), ..message("head", b"first") };
    let (first, _) = log.append(&new, &mut vec![holder(a, 1), holder(b, 2), holder(c, 3)]).unwrap();
    let (second, _) = log.append(&message("head", b"second"), &mut vec![holder(b, 4)]).unwrap();
    let (gone, _) = log.append(&message("head", b"third"), &mut vec![holder(a, 5)]).unwrap();
    log.acknowledge(a, gone).unwrap();
    log.acknowledge(b, first).unwrap();
    log.mark(c, first, 77).unwrap();
    settle(&mut log, &mut disk);
    let places = log.places();
    assert_eq!(places.iter().map(|place| place.number).collect::<Vec<_>>(), [first, second]);
    let mut read = |place: &Place| {
        let start = place.offset / 4096 * 4096;
        let bytes = (place.offset + place.size).next_multiple_of(4096) - start;
        let reply =
            disk.carry_out(&Disk::Read { id: ReadId(1), segment: place.segment, offset: start, bytes });
        let DiskReply::Read { result: Ok(bytes), .. } = reply else { panic!("{reply:?}") };
        bytes[(place.offset - start) as usize..].to_vec()
    };
    let whole = log.whole(places[0], &read(&places[0])).unwrap();
    assert_eq!(whole.holders, [holder(a, 1), Holder { tag: 77, ..holder(c, 3) }]);
    assert_eq!((&*whole.payload, &*whole.head, whole.origin), (&b"first"[..], &b"head"[..], Some(origin)));
    assert_eq!(log.whole(places[1], &read(&places[1])).unwrap().holders, [holder(b, 4)]);
    log.forget(origin).unwrap();
    assert_eq!(log.whole(places[0], &read(&places[0])).unwrap().origin, None);
    assert!(log.whole(places[0], &read(&places[1])).is_err());
}
