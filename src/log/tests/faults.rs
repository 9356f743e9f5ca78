//! The disk fails: what the log says then, and what it never loses.

use super::*;

fn filled(disk: &mut TestDisk) -> (Log, StreamId) {
    let mut log = open(disk, options(), 1).log;
    let a = session(&mut log, "a");
    log.append(&message("t", b"safe"), &mut vec![holder(a, 0)]).unwrap();
    settle(&mut log, disk);
    (log, a)
}

#[test]
fn a_failed_write_or_sync_poisons_and_reads_are_still_served() {
    for is_sync in [false, true] {
        let mut disk = TestDisk::default();
        let (mut log, a) = filled(&mut disk);
        let error = if is_sync { &mut disk.sync_error } else { &mut disk.write_error };
        *error = Some(DiskError::Failed);
        let (_, sequence) = log.append(&message("t", b"lost"), &mut vec![holder(a, 0)]).unwrap();
        settle(&mut log, &mut disk);
        (disk.sync_error, disk.write_error) = (None, None);
        settle(&mut log, &mut disk);
        assert!(log.committed() < sequence);
        assert_eq!(log.health(), Health::Poisoned);
        assert_eq!(log.append(&message("t", b""), &mut vec![holder(a, 0)]), Err(Refused::Poisoned));
        assert_eq!(log.acknowledge(a, MessageNumber(1)), Err(Refused::Poisoned));
        assert_eq!(log.flush(), Err(Refused::Poisoned));
        let read = payloads(&mut log, &mut disk, a);
        assert_eq!(read[0], b"safe");
        disk.crash(|| true);
        let mut log = open(&mut disk, options(), 2).log;
        assert_eq!(payloads(&mut log, &mut disk, a), [b"safe"]);
    }
}

#[test]
fn a_full_disk_refuses_what_grows_and_recovers_by_itself() {
    let mut disk = TestDisk::default();
    let (mut log, a) = filled(&mut disk);
    disk.create_error = Some(DiskError::Full);
    let mut taken = vec![MessageNumber(1)];
    loop {
        match log.append(&message("t", &[0; 2000]), &mut vec![holder(a, 0)]) {
            Ok((number, sequence)) => {
                taken.push(number);
                settle(&mut log, &mut disk);
                assert_eq!(log.committed(), sequence, "what is taken is committed");
            }
            Err(refused) => break assert_eq!((refused, log.health()), (Refused::Full, Health::Full)),
        }
        assert!(taken.len() < 1000);
    }
    assert_eq!(log.open(StreamKind::Session, VhostId(0), b""), Err(Refused::Full));
    // What shrinks the log is taken, and kept.
    assert!(log.acknowledge(a, taken[0]).unwrap());
    let sequence = log.flush().unwrap();
    settle(&mut log, &mut disk);
    assert_eq!(log.committed(), sequence);
    assert_eq!(payloads(&mut log, &mut disk, a).len(), taken.len() - 1);
    log.retry();
    settle(&mut log, &mut disk);
    assert_eq!(log.health(), Health::Full);
    disk.create_error = None;
    log.retry();
    settle(&mut log, &mut disk);
    assert_eq!(log.health(), Health::Good);
    log.append(&message("t", b"more"), &mut vec![holder(a, 0)]).unwrap();
    settle(&mut log, &mut disk);
    let mut log = open(&mut disk, options(), 2).log;
    assert_eq!(payloads(&mut log, &mut disk, a).len(), taken.len());
}

/// A free segment does not help a record that is larger than it: the log is full until there is space for one of the record's own.
#[test]
fn a_large_record_without_space_is_written_later_also_where_a_small_segment_is_free() {
    let mut disk = TestDisk::default();
    let (mut log, a) = filled(&mut disk);
    let files = disk.files.len();
    while disk.files.len() == files {
        log.append(&message("t", &[0; 2000]), &mut vec![holder(a, 0)]).unwrap();
        settle(&mut log, &mut disk);
    }
    disk.create_error = Some(DiskError::Full);
    let large = vec![7; SEGMENT_BYTES_MIN as usize];
    let (_, sequence) = log.append(&message("t", &large), &mut vec![holder(a, 0)]).unwrap();
    settle(&mut log, &mut disk);
    assert!(log.committed() < sequence);
    assert_eq!(log.poll_event(), Some(Event::NoSpace(sequence)));
    assert_eq!((log.health(), log.wants_retry()), (Health::Full, true));
    assert_eq!(log.append(&message("t", b""), &mut vec![holder(a, 0)]), Err(Refused::Full));
    disk.create_error = None;
    log.retry();
    settle(&mut log, &mut disk);
    assert!(log.committed() >= sequence);
    assert_eq!((log.health(), log.wants_retry()), (Health::Good, false));
    assert_eq!(payloads(&mut log, &mut disk, a).last(), Some(&large));
}

/// A segment that could not be made is tried again also where there is another one meanwhile; what waits for it counts as full.
#[test]
fn a_segment_that_could_not_be_made_is_tried_again_also_where_there_is_another() {
    let mut disk = TestDisk::default();
    let (mut log, a) = filled(&mut disk);
    let live = log.writer.life().unwrap().segment;
    // A second segment is free. A record that does not fit into it has one of its own begun, which cannot be made.
    let mut sequence = log.last();
    while log.free.is_empty() {
        sequence = log.append(&message("t", &[0; 2000]), &mut vec![holder(a, 0)]).unwrap().1;
        settle(&mut log, &mut disk);
    }
    assert_eq!((log.committed(), log.writer.life().unwrap().segment), (sequence, live));
    disk.create_error = Some(DiskError::Full);
    let (_, waits) = log.append(&message("t", &[5; 100_000]), &mut vec![holder(a, 0)]).unwrap();
    settle(&mut log, &mut disk);
    assert!(!log.free.is_empty() && log.committed() < waits);
    assert_eq!((log.health(), log.wants_retry()), (Health::Full, true));
    assert_eq!(log.poll_event(), Some(Event::NoSpace(waits)));
    assert_eq!(log.append(&message("t", b""), &mut vec![holder(a, 0)]), Err(Refused::Full));
    log.retry();
    // Nor while it is tried again.
    assert_eq!((log.health(), log.wants_retry()), (Health::Full, true));
    settle(&mut log, &mut disk);
    assert_eq!(log.poll_event(), Some(Event::NoSpace(waits)));
    disk.create_error = None;
    log.retry();
    settle(&mut log, &mut disk);
    assert_eq!((log.committed(), log.health(), log.wants_retry()), (waits, Health::Good, false));
    log.append(&message("t", b"more"), &mut vec![holder(a, 0)]).unwrap();
    settle(&mut log, &mut disk);
    assert_eq!(log.committed(), log.last());
}

#[test]
fn a_message_waits_for_a_segment_in_the_making_and_leaves_room_for_what_shrinks_the_log() {
    let mut disk = TestDisk::default();
    let (mut log, a) = filled(&mut disk);
    let mut create = None;
    let mut count = 0;
    while !log.must_wait(2_000, 1) {
        log.append(&message("t", &[0; 1_900]), &mut vec![holder(a, 0)]).unwrap();
        while let Some(output) = log.poll_output() {
            match output {
                Disk::Create { .. } => create = Some(output),
                _ => log.handle_disk(disk.carry_out(&output)),
            }
        }
        assert_eq!(log.committed(), log.last(), "message {count}");
        count += 1;
    }
    let life = log.writer.life().unwrap();
    assert!(life.bytes - log.writer.end() >= life.bytes / 8, "{} of {}", log.writer.end(), life.bytes);
    disk.create_error = Some(DiskError::Full);
    log.handle_disk(disk.carry_out(&create.expect("the next one is in the making")));
    assert!(!log.must_wait(2_000, 1), "there is nothing to wait for");
    assert_eq!(log.append(&message("t", b""), &mut vec![holder(a, 0)]), Err(Refused::Full));
    assert_eq!(log.poll_event(), None, "nobody waits for it");
    log.retry();
    assert!(!log.must_wait(2_000, 1), "nor while it is tried again");
    disk.create_error = None;
    settle(&mut log, &mut disk);
    assert!(!log.must_wait(2_000, 1));
    // One that needs a segment of its own has that made, and waits for it.
    assert!(log.must_wait(200_000, 1) && log.must_wait(200_000, 1));
    settle(&mut log, &mut disk);
    assert!(!log.must_wait(200_000, 1));
    log.append(&message("t", &[0; 199_000]), &mut vec![holder(a, 0)]).unwrap();
    settle(&mut log, &mut disk);
    assert_eq!((log.committed(), log.unmade.len()), (log.last(), 0));
}

#[test]
fn a_write_without_space_is_made_again_and_the_watermark_refuses() {
    let mut disk = TestDisk::default();
    let (mut log, a) = filled(&mut disk);
    disk.write_error = Some(DiskError::Full);
    let (_, sequence) = log.append(&message("t", b"waits"), &mut vec![holder(a, 0)]).unwrap();
    settle(&mut log, &mut disk);
    assert!(log.committed() < sequence);
    assert_eq!(log.append(&message("t", b""), &mut vec![holder(a, 0)]), Err(Refused::Full));
    disk.write_error = None;
    log.retry();
    settle(&mut log, &mut disk);
    assert_eq!((log.committed(), log.health()), (sequence, Health::Good));
    log.set_over_watermark(true);
    assert_eq!(log.append(&message("t", b""), &mut vec![holder(a, 0)]), Err(Refused::Full));
    log.set_over_watermark(false);
    assert_eq!(payloads(&mut log, &mut disk, a), [&b"safe"[..], b"waits"]);
}

#[test]
fn a_failed_read_is_told_and_loses_nothing() {
    let mut disk = TestDisk::default();
    let (mut log, a) = filled(&mut disk);
    disk.read_error = Some(DiskError::Failed);
    log.fetch(a, MessageNumber(0), 10, u64::MAX);
    settle(&mut log, &mut disk);
    let Some(Event::Fetched { messages, .. }) = log.poll_event() else { panic!("a fetch was asked for") };
    assert!(matches!(messages[0].stored, Err(Damage::Bytes { .. })), "{messages:?}");
    disk.read_error = None;
    assert_eq!(payloads(&mut log, &mut disk, a), [b"safe"]);
}

#[test]
fn what_compaction_could_not_read_does_not_come_back() {
    for is_settled in [true, false] {
        let mut disk = TestDisk::default();
        let (mut log, a) = filled(&mut disk);
        let (begun, _) = log.append(&message("t", b"begun"), &mut vec![holder(a, 0)]).unwrap();
        log.mark(a, begun, 7).unwrap();
        disk.read_error = Some(DiskError::Failed);
        let mut lost = 0;
        while lost < 2 {
            let (number, _) = log.append(&message("t", &[1; 1000]), &mut vec![holder(a, 0)]).unwrap();
            log.acknowledge(a, number).unwrap();
            settle(&mut log, &mut disk);
            let events = std::iter::from_fn(|| log.poll_event());
            lost += events.filter(|event| matches!(event, Event::LostMessage { .. })).count();
        }
        assert_eq!(log.messages(a).collect::<Vec<_>>(), [(begun, 7)], "its tag is still the owner's");
        let mut kept = vec![(begun, 7)];
        if is_settled {
            // The tag is free: another has it now.
            log.acknowledge(a, begun).unwrap();
            let (next, _) = log.append(&message("t", b"next"), &mut vec![holder(a, 0)]).unwrap();
            log.mark(a, next, 7).unwrap();
            kept = vec![(next, 7)];
        }
        settle(&mut log, &mut disk);
        disk.read_error = None;
        disk.crash(|| false);
        let log = open(&mut disk, options(), 2).log;
        assert_eq!(log.messages(a).collect::<Vec<_>>(), kept);
    }
}
