//! Bits rot, files are cut short: damage is told with its place, and everything else is served.

use super::*;

/// A log of several commits, one message each, and where the last one begins.
fn written() -> (TestDisk, StreamId) {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let a = session(&mut log, "a");
    settle(&mut log, &mut disk);
    for n in 0..4_u8 {
        log.append(&message("topic", &[n; 40]), &mut vec![holder(a, 0)]).unwrap();
        settle(&mut log, &mut disk);
    }
    (disk, a)
}

fn recovered(disk: &mut TestDisk, a: StreamId) -> (Vec<u8>, Report) {
    let recovered = open(disk, options(), 2);
    let mut log = recovered.log;
    let firsts =
        if log.is_empty(a) { Vec::new() } else { payloads(&mut log, disk, a).iter().map(|p| p[0]).collect() };
    (firsts, recovered.report)
}

/// Blocks of the file: two headers, the stream, four messages.
const FIRST_MESSAGE: usize = 3 * 4096;
const LAST_MESSAGE: usize = 6 * 4096;
const END: usize = 7 * 4096;
/// Frames with one record, without padding: headers, fixed part, and what varies.
const STREAM_FRAME: usize = 48 + 9 + 19 + 1;
const MESSAGE_FRAME: usize = 48 + 9 + 52 + 20 + 5 + 40;

#[test]
fn a_flipped_bit_anywhere_is_told_or_harmless() {
    let (disk, a) = written();
    let all = [0, 1, 2, 3];
    for at in (0..END).filter(|at| at % 4096 < 200 || at % 509 == 0) {
        let mut disk = disk.clone();
        disk.files.get_mut(&SegmentId(0)).unwrap().bytes[at] ^= 1 << (at % 8);
        let (found, report) = recovered(&mut disk, a);
        let block = at - at % 4096;
        let is_harmless = found == all && report.damage.is_empty() && report.cut.is_none();
        if block < 8192 {
            assert_eq!(found, all);
            assert_eq!((report.damage, report.worn), (vec![], vec![SegmentId(0)]), "byte {at}");
        } else if block == LAST_MESSAGE {
            // At the end it cannot be told from a commit that was never whole.
            assert!(is_harmless || found == [0, 1, 2], "byte {at}: {found:?} {report:?}");
            assert!(report.damage.is_empty());
        } else if !is_harmless {
            let offset = u32::try_from(block).unwrap();
            let damage = Damage::Bytes { segment: SegmentId(0), offset, bytes: 4096 };
            assert_eq!(report.damage, [damage], "byte {at}");
            let lost =
                (block >= FIRST_MESSAGE).then(|| u8::try_from((block - FIRST_MESSAGE) / 4096).unwrap());
            // Without the record that opens it, the stream is gone: its messages name nobody.
            let expected: Vec<u8> = all.into_iter().filter(|n| lost.is_some_and(|lost| *n != lost)).collect();
            assert_eq!(found, expected, "byte {at}");
            assert_eq!(report.orphan_count, usize::from(lost.is_none()));
        } else {
            let frame = if block < FIRST_MESSAGE { STREAM_FRAME } else { MESSAGE_FRAME };
            assert!(at % 4096 >= frame, "byte {at} of a frame is not padding");
        }
    }
}

#[test]
fn a_file_cut_short_anywhere_is_a_shorter_log() {
    let (disk, a) = written();
    for len in (0..=END).step_by(512) {
        let mut disk = disk.clone();
        let file = disk.files.get_mut(&SegmentId(0)).unwrap();
        file.bytes[len..].fill(0);
        let (found, report) = recovered(&mut disk, a);
        let whole = (len.saturating_sub(FIRST_MESSAGE) / 4096).min(4);
        // Frames here are shorter than a sector: the first sector of a block has all of it.
        let started = (len.saturating_sub(FIRST_MESSAGE)).div_ceil(4096).min(4);
        assert!(found.len() == whole || found.len() == started, "{len}: {found:?}");
        assert!(report.damage.is_empty() || len < 8192, "{len}: {report:?}");
    }
    // And really shorter, in whole blocks.
    for blocks in 0..END / 4096 {
        let mut disk = disk.clone();
        disk.files.get_mut(&SegmentId(0)).unwrap().bytes.truncate(blocks * 4096);
        let (found, _) = recovered(&mut disk, a);
        assert_eq!(found.len(), blocks.saturating_sub(3), "{blocks} blocks");
    }
}

#[test]
fn a_log_goes_on_behind_damage_and_behind_a_torn_commit() {
    for block in [FIRST_MESSAGE, LAST_MESSAGE] {
        let (mut disk, a) = written();
        disk.files.get_mut(&SegmentId(0)).unwrap().bytes[block + 60] ^= 1;
        let mut log = open(&mut disk, options(), 2).log;
        for n in 10..13 {
            log.append(&message("topic", &[n; 40]), &mut vec![holder(a, 0)]).unwrap();
            settle(&mut log, &mut disk);
        }
        let (found, report) = recovered(&mut disk, a);
        if block == FIRST_MESSAGE {
            assert_eq!((found, report.damage.len()), (vec![1, 2, 3, 10, 11, 12], 1));
        } else {
            assert_eq!((found, report.damage), (vec![0, 1, 2, 10, 11, 12], vec![]));
        }
    }
}

#[test]
fn a_stream_that_was_lost_leaves_nothing_to_the_next_one() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let lost = session(&mut log, "lost");
    settle(&mut log, &mut disk);
    log.put(StateKind::Subscription, VhostId(0), Some(lost), b"of another").unwrap();
    log.append(&message("topic", b"for another"), &mut vec![holder(lost, 0)]).unwrap();
    settle(&mut log, &mut disk);
    // Where it was opened.
    disk.files.get_mut(&SegmentId(0)).unwrap().bytes[2 * 4096 + 60] ^= 1;
    let recovered = open(&mut disk, options(), 2);
    assert_eq!((recovered.streams.len(), recovered.report.orphan_count), (0, 1));
    let mut log = recovered.log;
    let next = session(&mut log, "next");
    settle(&mut log, &mut disk);
    assert_ne!(next, lost);
    let recovered = open(&mut disk, options(), 3);
    let values: Vec<_> = recovered.streams.iter().map(|stream| stream.value.to_vec()).collect();
    assert_eq!((values, recovered.states.len()), (vec![b"next".to_vec()], 0));
    assert!(recovered.log.is_empty(next));
}

#[test]
fn a_lost_segment_is_told() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let a = session(&mut log, "a");
    for n in 0..200_u8 {
        log.append(&message("topic", &[n; 1000]), &mut vec![holder(a, 0)]).unwrap();
        settle(&mut log, &mut disk);
    }
    let second = log.chain[1];
    let Use::Live { sequence, .. } = log.segments.at(second).used else { panic!("is in use") };
    disk.files.remove(&second);
    let (found, report) = recovered(&mut disk, a);
    assert_eq!(report.damage, [Damage::Missing { sequence }]);
    assert!(found.ends_with(&[198, 199]) && found.len() < 200);
}

#[test]
fn what_rots_under_a_running_log_is_told_by_compaction_and_does_not_stop_it() {
    let mut disk = TestDisk::default();
    let mut log = open(&mut disk, options(), 1).log;
    let a = session(&mut log, "a");
    let (state, _) = log.put(StateKind::Retained, VhostId(0), None, b"kept").unwrap();
    let (rotten, _) = log.append(&message("topic", b"rots"), &mut vec![holder(a, 0)]).unwrap();
    settle(&mut log, &mut disk);
    disk.files.get_mut(&SegmentId(0)).unwrap().bytes[8192 + 60] ^= 1;
    for _ in 0..300 {
        let (number, _) = log.append(&message("topic", &[1; 1000]), &mut vec![holder(a, 0)]).unwrap();
        log.acknowledge(a, number).unwrap();
        settle(&mut log, &mut disk);
        while let Some(event) = log.poll_event() {
            match event {
                Event::LostMessage { stream, number: lost } => assert_eq!((stream, lost), (a, rotten)),
                Event::LostStream(stream) => drop(log.reopen(stream, b"a").unwrap()),
                Event::LostState(lost) => {
                    assert_eq!(lost, state);
                    log.replace(state, StateKind::Retained, VhostId(0), b"kept").unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(disk.files().len() <= 6, "{} files", disk.files().len());
    log.flush().unwrap();
    settle(&mut log, &mut disk);
    let recovered = open(&mut disk, options(), 2);
    assert_eq!(recovered.report.damage, []);
    assert_eq!(
        (recovered.streams.len(), &*recovered.states[0].value, recovered.log.len(a)),
        (1, &b"kept"[..], 0)
    );
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let (mut disk, _) = written();
    let file = disk.files.get_mut(&SegmentId(0)).unwrap();
    for copy in [0, 4096] {
        file.bytes[copy + 8] = 2;
        let checksum = crc32c::crc32c(&file.bytes[copy..copy + 4092]);
        file.bytes[copy + 4092..copy + 4096].copy_from_slice(&checksum.to_le_bytes());
    }
    let before = file.bytes.clone();
    let mut recovery = Recovery::new(options(), HashKey { k0: 2, k1: 2 }, &disk.files());
    let read = recovery.poll_output().unwrap();
    let refused = recovery.handle_disk(disk.carry_out(&read)).unwrap_err();
    assert_eq!(refused, Unreadable::NewerFormat { segment: SegmentId(0), version: 2, known: 1 });
    assert_eq!(disk.files[&SegmentId(0)].bytes, before);
}
