//! A log as the first broker of this format wrote it, healthy and with a damaged commit: every later broker reads both.

use super::*;

const HEALTHY: &[u8] = include_bytes!("../../../tests/fixtures/log-v1/healthy.log");

/// What was written, in four commits: a session with a subscription, two messages, and the first one acknowledged.
fn write(disk: &mut TestDisk) {
    let mut log = open(disk, options(), 1).log;
    let a = session(&mut log, "a");
    log.put(StateKind::Subscription, VhostId(3), Some(a), b"f/#").unwrap();
    settle(&mut log, disk);
    let origin = Some(Origin { publisher: 9, packet_id: 4 });
    let first = NewMessage { origin, ..message("t", b"first") };
    let (first, _) = log.append(&first, &mut vec![holder(a, 7)]).unwrap();
    settle(&mut log, disk);
    log.append(&message("t", b"second"), &mut vec![holder(a, 7)]).unwrap();
    settle(&mut log, disk);
    log.acknowledge(a, first).unwrap();
    log.flush().unwrap();
    settle(&mut log, disk);
}

fn read(bytes: Vec<u8>) -> (Vec<Vec<u8>>, Recovered, TestDisk) {
    let mut disk = TestDisk::default();
    disk.files.insert(SegmentId(0), disk::File::of(bytes));
    let mut recovered = open(&mut disk, options(), 2);
    let a = recovered.streams[0].id;
    let found = payloads(&mut recovered.log, &mut disk, a);
    (found, recovered, disk)
}

#[test]
fn the_first_format_is_read_and_still_what_is_written() {
    let (found, recovered, _) = read(HEALTHY.to_vec());
    assert_eq!(found, [b"second"]);
    assert_eq!((&*recovered.streams[0].value, &*recovered.states[0].value), (&b"a"[..], &b"f/#"[..]));
    assert!(recovered.log.has_origin(Origin { publisher: 9, packet_id: 4 }));
    assert_eq!(recovered.report.damage, []);
    let mut disk = TestDisk::default();
    write(&mut disk);
    assert!(disk.files[&SegmentId(0)].bytes.starts_with(HEALTHY), "a change of the format is a new version");
}

#[test]
fn the_first_format_is_read_around_damage() {
    let mut bytes = HEALTHY.to_vec();
    bytes[4 * 4096 + 100] ^= 1;
    let (found, recovered, _) = read(bytes);
    assert_eq!(found, Vec::<Vec<u8>>::new());
    let damage = Damage::Bytes { segment: SegmentId(0), offset: 4 * 4096, bytes: 4096 };
    assert_eq!(recovered.report.damage, [damage]);
}
