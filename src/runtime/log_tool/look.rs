//! Reading the logs of all shards without changing anything, also while a broker writes them.

use super::Undone;
use crate::base::{HashKey, ShardId};
use crate::log::{Damage, Disk, DiskError, DiskReply, Event, Log, Options, Recovered, Recovery, SegmentId};
use crate::runtime::disk::recover::Unrecovered;
use crate::runtime::disk::{Layout, Volume};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// How often damage is looked at before it counts, and how long between.
const LOOKS: u32 = 4;
const BETWEEN: Duration = Duration::from_millis(150);

/// The logs below a data directory.
#[derive(Debug)]
pub(super) struct Look {
    layout: Layout,
}

impl Look {
    /// Finds them.
    pub(super) fn open(data_dir: &Path) -> Result<Self, Undone> {
        let Some(layout) = Layout::look(data_dir)? else {
            let folder = data_dir.join("log");
            let is_half = ["log.old", "log.new"].iter().any(|name| data_dir.join(name).exists());
            return Err(if is_half { Undone::HalfReplaced(folder) } else { Undone::NoLog(folder) });
        };
        Ok(Self { layout })
    }

    /// One for each shard, in order.
    pub(super) fn volumes(&self) -> impl Iterator<Item = Volume> {
        (0..self.layout.shards()).map(|shard| self.layout.volume(ShardId(shard)))
    }
}

/// What one shard's log is, at some moment.
pub(super) fn read(volume: &Volume) -> Result<(Recovered, Vec<(SegmentId, u32)>), Undone> {
    let mut look = 0;
    loop {
        look += 1;
        let files = list(volume)?;
        let recovered = read_once(volume, &files)?;
        let is_sound = recovered.report.damage.is_empty() && recovered.report.orphan_count == 0;
        if is_sound || look == LOOKS {
            return Ok((recovered, files));
        }
        // A segment may have been used again between the look at its header and the look at its records.
        std::thread::park_timeout(BETWEEN);
    }
}

fn read_once(volume: &Volume, files: &[(SegmentId, u32)]) -> Result<Recovered, Undone> {
    // Nothing is written, so nobody has to be kept from guessing tags.
    let mut recovery = Recovery::new(Options::default(), HashKey { k0: 0, k1: 0 }, files);
    while let Some(disk) = recovery.poll_output() {
        let Disk::Read { id, segment, offset, bytes } = disk else {
            unreachable!("nothing is written before it is done")
        };
        let result = read_bytes(volume, segment, offset, bytes).map_err(|_| DiskError::Failed);
        let handled = recovery.handle_disk(DiskReply::Read { id, result });
        handled.map_err(|error| Unrecovered::Newer { folder: volume.folder().to_owned(), error })?;
    }
    Ok(recovery.finish())
}

/// Lets a log that is not written to read back what it was asked for.
pub(super) fn serve(log: &mut Log, volume: &Volume) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(disk) = log.poll_output() {
        // Files it would make or delete if it were in use are none of our business.
        if let Disk::Read { id, segment, offset, bytes } = disk {
            let result = read_bytes(volume, segment, offset, bytes).map_err(|_| DiskError::Failed);
            log.handle_disk(DiskReply::Read { id, result });
        }
    }
    while let Some(event) = log.poll_event() {
        events.push(event);
    }
    events
}

fn read_bytes(volume: &Volume, segment: SegmentId, offset: u32, bytes: u32) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes as usize];
    File::open(volume.path(segment))?.read_exact_at(&mut buffer, u64::from(offset))?;
    Ok(buffer)
}

/// The segments and their sizes; unlike the broker, leaves unfinished ones alone.
fn list(volume: &Volume) -> Result<Vec<(SegmentId, u32)>, Undone> {
    let list = || {
        let mut files = Vec::new();
        for entry in fs::read_dir(volume.folder())? {
            let entry = entry?;
            let segment = Volume::segment(&entry.file_name().to_string_lossy());
            let size = entry.metadata().ok().and_then(|metadata| u32::try_from(metadata.len()).ok());
            files.extend(segment.zip(size));
        }
        files.sort_unstable();
        Ok(files)
    };
    list().map_err(|error| Unrecovered::Io { folder: volume.folder().to_owned(), error }.into())
}

/// Where the damage is, for people.
pub(super) fn damage_text(volume: &Volume, damage: &Damage) -> String {
    match *damage {
        Damage::Bytes { segment, offset, bytes } => {
            format!("{} at {offset}: {bytes} bytes cannot be read", volume.path(segment).display())
        }
        Damage::Missing { sequence } => {
            format!("segment {sequence} of {} is missing", volume.folder().display())
        }
        Damage::Record { segment, offset } => {
            format!("{} at {offset}: a record makes no sense", volume.path(segment).display())
        }
    }
}
