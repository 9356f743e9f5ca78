//! `compact`: a log of its own, without a shard: what lives is copied together, what is free given back.

use super::{Answer, Undone, Verdict};
use crate::admin::json::Json;
use crate::base::{ShardId, VhostId};
use crate::log::{Disk, DiskError, DiskReply, Log, Options, SegmentId, StreamKind};
use crate::runtime::data_dir;
use crate::runtime::disk::{Layout, Volume, create_segment, recover};
use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

/// Compacts each shard's log. The caller has the lock.
pub(super) fn compact(layout: &Layout) -> Result<(Answer, Verdict), Undone> {
    let mut answer = Answer { json: Json::Null, text: String::new() };
    let mut shards = Vec::new();
    let mut verdict = Verdict::Sound;
    // As much as the log allows: all but the segment that is written to, as soon as a tenth of it is dead.
    let options =
        Options { live_percent_min: 90, segments_min: 1, spare_segments_max: 1, ..Options::default() };
    for shard in 0..layout.shards() {
        let volume = layout.volume(ShardId(shard));
        let before = size(&volume)?;
        let key = data_dir::draw_key()?;
        let recovered = recover::recover(&volume, &options, key)?;
        let mut log = recovered.log;
        log.allow_compaction();
        // What was freed may be given back once a commit is safe that does not count it in any more.
        for _ in 0..2 {
            if let Some((segment, error)) = carry_out(&mut log, &volume) {
                return Err(Undone::Io { path: volume.path(segment), error });
            }
            // A full disk takes no record; then what is freed is given back by the next start.
            if let Ok((stream, _)) = log.open(StreamKind::Queue, VhostId(0), &[]) {
                let _ = log.close(stream);
            }
        }
        if let Some((segment, error)) = carry_out(&mut log, &volume) {
            return Err(Undone::Io { path: volume.path(segment), error });
        }
        if !recovered.report.damage.is_empty() {
            verdict = Verdict::Damaged;
        }
        let after = size(&volume)?;
        let _ = writeln!(
            answer.text,
            "  shard {shard:<8} {} KiB before, {} KiB after",
            before >> 10,
            after >> 10
        );
        shards.push(Json::Object(vec![
            ("shard", u64::from(shard).into()),
            ("bytes_before", before.into()),
            ("bytes_after", after.into()),
        ]));
    }
    answer.json = Json::Object(vec![("shards", Json::List(shards))]);
    Ok((answer, verdict))
}

/// Does what the log asks for, one thing after the other, until it rests. Gives what failed.
pub(super) fn carry_out(log: &mut Log, volume: &Volume) -> Option<(SegmentId, io::Error)> {
    let mut failed = None;
    while let Some(disk) = log.poll_output() {
        let mut done = |segment, result: io::Result<()>| {
            result.map_err(|error| {
                failed = Some((segment, error));
                DiskError::Failed
            })
        };
        let reply = match disk {
            Disk::Create { segment, bytes } => {
                DiskReply::Created { segment, result: done(segment, create_segment(volume, segment, bytes)) }
            }
            Disk::Write { segment, offset, bytes } => {
                let write = || {
                    let file = OpenOptions::new().write(true).open(volume.path(segment))?;
                    file.write_all_at(&bytes, u64::from(offset))
                };
                DiskReply::Written { result: done(segment, write()) }
            }
            Disk::Sync { segment } => {
                let sync = || OpenOptions::new().write(true).open(volume.path(segment))?.sync_data();
                DiskReply::Synced { result: done(segment, sync()) }
            }
            Disk::Read { id, segment, offset, bytes } => {
                let mut buffer = vec![0; bytes as usize];
                let mut read =
                    || fs::File::open(volume.path(segment))?.read_exact_at(&mut buffer, u64::from(offset));
                let result = read().map_err(|_| DiskError::Failed);
                DiskReply::Read { id, result: result.map(|()| buffer) }
            }
            Disk::Remove { segment } => {
                DiskReply::Removed { segment, result: done(segment, fs::remove_file(volume.path(segment))) }
            }
        };
        log.handle_disk(reply);
        if failed.is_some() {
            break;
        }
    }
    failed
}

fn size(volume: &Volume) -> Result<u64, Undone> {
    let files = volume.list().map_err(|error| Undone::Io { path: volume.folder().to_owned(), error })?;
    Ok(files.into_iter().map(|(_, bytes)| u64::from(bytes)).sum())
}
