//! A disk in memory: what was written and not synced may be lost in any part at a crash, in sectors of 512 bytes.

use crate::log::{Disk, DiskError, DiskReply, SegmentId};
use std::collections::BTreeMap;

const SECTOR: usize = 512;

#[derive(Default, Clone, Debug)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    /// What the sectors were that were written since the last sync, by place.
    before: BTreeMap<usize, Vec<u8>>,
}

#[derive(Default, Clone, Debug)]
pub(crate) struct TestDisk {
    pub(crate) files: BTreeMap<SegmentId, File>,
    pub(crate) bytes_written: usize,
    /// What the next operations of a kind answer instead.
    pub(crate) create_error: Option<DiskError>,
    pub(crate) write_error: Option<DiskError>,
    pub(crate) sync_error: Option<DiskError>,
    pub(crate) read_error: Option<DiskError>,
}

impl File {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, before: BTreeMap::new() }
    }
}

impl TestDisk {
    pub(crate) fn files(&self) -> Vec<(SegmentId, u32)> {
        let size = |file: &File| u32::try_from(file.bytes.len()).unwrap();
        self.files.iter().map(|(segment, file)| (*segment, size(file))).collect()
    }

    pub(crate) fn carry_out(&mut self, output: &Disk) -> DiskReply {
        match output {
            Disk::Create { segment, bytes } => {
                let result = self.create_error.map_or(Ok(()), Err);
                if result.is_ok() {
                    let bytes = vec![0; *bytes as usize];
                    self.files.insert(*segment, File { bytes, ..File::default() });
                }
                DiskReply::Created { segment: *segment, result }
            }
            Disk::Write { segment, offset, bytes } => {
                assert_eq!((*offset % 4096, bytes.len() % 4096), (0, 0), "whole blocks");
                let result = self.write_error.map_or(Ok(()), Err);
                if result.is_ok() {
                    self.write(*segment, *offset as usize, bytes);
                }
                DiskReply::Written { result }
            }
            Disk::Sync { segment } => {
                let result = self.sync_error.map_or(Ok(()), Err);
                if result.is_ok() {
                    self.files.get_mut(segment).unwrap().before.clear();
                }
                DiskReply::Synced { result }
            }
            Disk::Read { id, segment, offset, bytes } => {
                assert_eq!((offset % 4096, bytes % 4096), (0, 0), "whole blocks");
                let range = *offset as usize..(offset + bytes) as usize;
                let result = self.read_error.map_or(Ok(()), Err);
                let bytes = self.files[segment].bytes[range].to_vec();
                DiskReply::Read { id: *id, result: result.map(|()| bytes) }
            }
            Disk::Remove { segment } => {
                self.files.remove(segment).expect("only what is there is removed");
                DiskReply::Removed { segment: *segment, result: Ok(()) }
            }
        }
    }

    pub(crate) fn write(&mut self, segment: SegmentId, offset: usize, bytes: &[u8]) {
        let file = self.files.get_mut(&segment).expect("only what was made is written");
        self.bytes_written += bytes.len();
        for at in (offset..offset + bytes.len()).step_by(SECTOR) {
            file.before.entry(at).or_insert_with(|| file.bytes[at..at + SECTOR].to_vec());
        }
        file.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// The power is cut: of what was not synced, each sector `is_lost` or not.
    pub(crate) fn crash(&mut self, mut is_lost: impl FnMut() -> bool) {
        for file in self.files.values_mut() {
            for (at, bytes) in std::mem::take(&mut file.before) {
                if is_lost() {
                    file.bytes[at..at + SECTOR].copy_from_slice(&bytes);
                }
            }
        }
    }
}
