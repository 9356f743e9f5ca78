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
    assert_eq!((log.health(), log.wants_retry()), (Health::Full, true));
    assert_eq!(log.append(&message("t", b""), &mut vec![holder(a, 0)]), Err(Refused::Full));
    disk.create_error = None;
    log.retry();
    settle(&mut log, &mut disk);
    assert!(log.committed() >= sequence);
    assert_eq!((log.health(), log.wants_retry()), (Health::Good, false));
    assert_eq!(payloads(&mut log, &mut disk, a).last(), Some(&large));
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
