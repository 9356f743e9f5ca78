//! Reading a log back at start: blocking, on the thread of the shard that will own it. The kernel reads ahead while records are
//! folded.
//!
//! Cost: each byte in use is read once; about 4 MiB of memory besides what is recovered.

use super::volume::Volume;
use crate::base::{HashKey, Mono};
use crate::log::{Damage, Disk, DiskError, DiskReply, Options, Recovered, Recovery, SegmentId, Unreadable};
use crate::runtime::clock;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Between two lines about the progress.
const TOLD_EVERY_MS: u64 = 1_000;

/// Why a log cannot be read back. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Unrecovered {
    /// A newer broker wrote it.
    #[error("the durable log in {folder} (quelea.data_dir): {error}")]
    Newer {
        /// Where.
        folder: PathBuf,
        /// Which file, and which version.
        error: Unreadable,
    },
    /// The file system said no.
    #[error("the durable log (quelea.data_dir): {folder}: {error}")]
    Io {
        /// Where.
        folder: PathBuf,
        /// What was said.
        error: io::Error,
    },
}

/// Reads back the log in `volume`; an empty one is a new log. What is damaged is reported, and the rest served. `key` is random.
///
/// # Errors
/// If it is of a newer format, or the folder not readable.
pub fn recover(volume: &Volume, options: &Options, key: HashKey) -> Result<Recovered, Unrecovered> {
    let folder = || volume.folder().to_owned();
    let files = volume.list().map_err(|error| Unrecovered::Io { folder: folder(), error })?;
    let began = clock::now().mono;
    let mut recovery = Recovery::new(options.clone(), key, &files);
    let mut reader = Reader { volume, open: None };
    let mut told_at = began;
    while let Some(disk) = recovery.poll_output() {
        let Disk::Read { id, segment, offset, bytes } = disk else {
            unreachable!("nothing is written before it is done")
        };
        let result = reader.read(segment, offset, bytes);
        let handled = recovery.handle_disk(DiskReply::Read { id, result });
        handled.map_err(|error| Unrecovered::Newer { folder: folder(), error })?;
        told_at = tell_progress(&recovery, volume, told_at);
    }
    let recovered = recovery.finish();
    tell_result(&recovered, volume, clock::now().mono.since(began));
    Ok(recovered)
}

/// Reads one file after the other.
struct Reader<'a> {
    volume: &'a Volume,
    open: Option<(SegmentId, File)>,
}

impl Reader<'_> {
    fn read(&mut self, segment: SegmentId, offset: u32, bytes: u32) -> Result<Vec<u8>, DiskError> {
        self.try_read(segment, offset, bytes).map_err(|error| {
            let path = self.volume.path(segment);
            tracing::error!("reading {} at {offset} failed: {error}", path.display());
            DiskError::Failed
        })
    }

    fn try_read(&mut self, segment: SegmentId, offset: u32, bytes: u32) -> io::Result<Vec<u8>> {
        let file = match self.open.take() {
            Some((open, file)) if open == segment => file,
            _ => File::open(self.volume.path(segment))?,
        };
        let (_, file) = self.open.insert((segment, file));
        let mut buffer = vec![0; bytes as usize];
        file.read_exact_at(&mut buffer, u64::from(offset))?;
        Ok(buffer)
    }
}

fn tell_progress(recovery: &Recovery, volume: &Volume, told_at: Mono) -> Mono {
    let now = clock::now().mono;
    if now.since(told_at) < TOLD_EVERY_MS {
        return told_at;
    }
    let (done, all) = recovery.progress();
    let folder = volume.folder().display();
    tracing::info!("reading the durable log in {folder}: {} of {} MiB", done >> 20, all.max(done) >> 20);
    now
}

fn tell_result(recovered: &Recovered, volume: &Volume, took_ms: u64) {
    let report = &recovered.report;
    let folder = volume.folder().display();
    for damage in &report.damage {
        tell_damage(volume, damage);
    }
    for segment in &report.worn {
        let path = volume.path(*segment);
        tracing::warn!("one of two headers of {} cannot be read: nothing is lost", path.display());
    }
    if let Some(cut) = report.cut {
        let path = volume.path(cut.segment);
        tracing::warn!(
            "the end of the durable log is torn, and cut: {} at {}; nothing acknowledged was there",
            path.display(),
            cut.offset
        );
    }
    if report.orphan_count > 0 {
        let count = report.orphan_count;
        tracing::error!(
            "{folder}: what {count} sessions or queues were is lost; their messages are not served"
        );
    }
    let (streams, states) = (recovered.streams.len(), recovered.states.len());
    let messages = recovered.log.message_count();
    if report.bytes > 0 {
        let size = report.bytes >> 20;
        tracing::info!(
            "durable log in {folder}: {streams} sessions, {messages} messages and {states} states in {size} MiB, read in \
             {took_ms} ms"
        );
    }
}

/// One line for something that should be there and is not.
pub fn tell_damage(volume: &Volume, damage: &Damage) {
    match *damage {
        Damage::Bytes { segment, offset, bytes } => {
            let path = volume.path(segment);
            tracing::error!(
                "the durable log is damaged: {} at {offset}, {bytes} bytes; the rest is served",
                path.display()
            );
        }
        Damage::Missing { sequence } => {
            let folder = volume.folder().display();
            tracing::error!(
                "the durable log is damaged: segment {sequence} of {folder} is missing; the rest is served"
            );
        }
        Damage::Record { segment, offset } => {
            let path = volume.path(segment);
            tracing::error!(
                "the durable log is damaged: the record in {} at {offset} makes no sense; the rest is served",
                path.display()
            );
        }
    }
}
