//! Another number of shards: everything to the logs of the shards that are its home now, which [`Rehoming`] knows.
//!
//! ```text
//! log (as it was) ──read back, shard by shard──> log.new ──all synced──> takes the place of log
//! ```
//!
//! Until then nothing is changed in the old logs: whatever goes wrong, a start with the old number of shards finds everything.
//! It takes as much space again as what lives. If something in the old logs was damaged, they are kept as `log.damaged`.
//!
//! Of QoS 2 publishes that were not released, those are recognised when they are sent again that still wait for somebody and came
//! from the only old log; others may come twice.

use super::layout::Layout;
use super::maker;
use super::recover::{self, tell_damage};
use super::volume::Volume;
use crate::base::{HashKey, Mono, ShardId};
use crate::log::{Damage, Disk, DiskReply, Health, Log, Options, Recovered, SegmentId};
use crate::runtime::clock;
use crate::shard::durable::Rehoming;
use anyhow::{Context, Result, bail};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that gather for a new log before they are written.
const GATHER_BYTES: usize = 4 << 20;
/// Between two lines about the progress.
const TOLD_EVERY_MS: u64 = 1_000;

/// What everything moves by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    /// The process's secret: homes follow from it.
    pub(super) key: HashKey,
    /// Random, and new at every start.
    pub(super) tags: HashKey,
    /// How many shards there are now.
    pub(super) shards: u16,
    pub(super) options: &'a Options,
}

/// Moves everything in `old`, below `data_dir`, to logs for `plan.shards` shards.
pub(super) fn rehome(data_dir: &Path, old: &Layout, plan: Plan<'_>) -> Result<Layout> {
    let began = clock::now().mono;
    tracing::info!("quelea.shards is {}, and was {}: the durable log is re-homed", plan.shards, old.shards());
    let draft = Layout::draft(data_dir, plan.shards)?;
    let files = (0..plan.shards).map(|shard| Files::new(draft.volume(ShardId(shard)))).collect();
    let Plan { key, tags, shards, options } = plan;
    let rehoming = Rehoming::new(key, tags, old.shards(), shards, options);
    let mut moving = Moving { rehoming, files, moved: 0, told_at: began, is_damaged: false };
    for shard in 0..old.shards() {
        let volume = old.volume(ShardId(shard));
        let recovered = recover::recover(&volume, plan.options, plan.tags)?;
        let moved = moving.take(shard, &recovered, &volume);
        moved.with_context(|| {
            let (was, folder) = (old.shards(), volume.folder().display());
            format!("re-homing {folder}: nothing is lost; make space or set quelea.shards = {was} again")
        })?;
    }
    moving.finish().context("re-homing the durable log")?;
    draft.complete()?;
    let layout = Layout::replace(draft, data_dir, moving.is_damaged)?;
    let took_ms = clock::now().mono.since(began);
    tracing::info!("the durable log is re-homed: {} messages, in {took_ms} ms", moving.moved);
    Ok(layout)
}

#[derive(Debug)]
struct Moving {
    rehoming: Rehoming,
    /// Of the new logs.
    files: Vec<Files>,
    moved: usize,
    told_at: Mono,
    is_damaged: bool,
}

impl Moving {
    /// All of one old log.
    fn take(&mut self, shard: u16, recovered: &Recovered, volume: &Volume) -> Result<()> {
        let Recovered { log, streams, states, report } = recovered;
        self.is_damaged |= !report.damage.is_empty() || report.orphan_count > 0;
        self.rehoming.begin(shard);
        for stream in streams {
            self.rehoming.take_stream(stream)?;
            self.work()?;
        }
        for state in states {
            self.rehoming.take_state(state)?;
            self.work()?;
        }
        self.take_messages(log, volume)
    }

    fn take_messages(&mut self, log: &Log, volume: &Volume) -> Result<()> {
        let mut files = Files::new(volume.clone());
        let places = log.places();
        for (at, place) in places.iter().enumerate() {
            let bytes = files.read(place.segment, place.offset, place.size);
            let bytes = bytes.with_context(|| volume.path(place.segment).display().to_string())?;
            match log.whole(*place, &bytes) {
                Ok(whole) => self.rehoming.take_message(&whole)?,
                Err(damage) => self.lose(volume, &damage),
            }
            self.work()?;
            self.tell_progress(volume, at, places.len());
        }
        self.moved += places.len();
        Ok(())
    }

    /// Writes what has gathered, where that is much.
    fn work(&mut self) -> Result<()> {
        for (log, files) in self.rehoming.logs().iter_mut().zip(&mut self.files) {
            if log.backlog() >= GATHER_BYTES {
                settle(log, files)?;
            }
        }
        Ok(())
    }

    /// Writes and syncs everything.
    fn finish(&mut self) -> Result<()> {
        for (log, files) in self.rehoming.logs().iter_mut().zip(&mut self.files) {
            log.flush()?;
            settle(log, files)?;
            log.sync();
            settle(log, files)?;
        }
        Ok(())
    }

    fn lose(&mut self, volume: &Volume, damage: &Damage) {
        self.is_damaged = true;
        tell_damage(volume, damage);
    }

    fn tell_progress(&mut self, volume: &Volume, done: usize, all: usize) {
        // Looking at the clock costs as much as a small message.
        if !done.is_multiple_of(1024) {
            return;
        }
        let now = clock::now().mono;
        if now.since(self.told_at) >= TOLD_EVERY_MS {
            self.told_at = now;
            let folder = volume.folder().display();
            tracing::info!("re-homing the durable log in {folder}: {done} of {all} messages");
        }
    }
}

fn settle(log: &mut Log, files: &mut Files) -> Result<()> {
    while let Some(disk) = log.poll_output() {
        let reply = files.carry_out(disk);
        log.handle_disk(reply);
    }
    match log.health() {
        Health::Good if log.backlog() == 0 => Ok(()),
        Health::Good | Health::Full => bail!("no space left for {}", files.volume.folder().display()),
        Health::Poisoned => bail!("writing to {} failed", files.volume.folder().display()),
    }
}

/// The files of one log, used one operation at a time.
#[derive(Debug)]
struct Files {
    volume: Volume,
    open: Option<(SegmentId, File)>,
}

impl Files {
    fn new(volume: Volume) -> Self {
        Self { volume, open: None }
    }

    fn read(&mut self, segment: SegmentId, offset: u32, size: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; size as usize];
        self.file(segment)?.read_exact_at(&mut bytes, u64::from(offset))?;
        Ok(bytes)
    }

    fn carry_out(&mut self, disk: Disk) -> DiskReply {
        let told = |what, segment, error| maker::told(what, &self.volume.path(segment), &error);
        match disk {
            Disk::Create { segment, bytes } => {
                let result = maker::create_segment(&self.volume, segment, bytes);
                DiskReply::Created { segment, result: result.map_err(|error| told("making", segment, error)) }
            }
            Disk::Remove { segment } => {
                let result = fs::remove_file(self.volume.path(segment));
                DiskReply::Removed {
                    segment,
                    result: result.map_err(|error| told("deleting", segment, error)),
                }
            }
            Disk::Write { segment, offset, bytes } => {
                let file = self.file(segment);
                let result = file.and_then(|file| file.write_all_at(&bytes, u64::from(offset)));
                let volume = &self.volume;
                DiskReply::Written {
                    result: result.map_err(|error| maker::told("writing", &volume.path(segment), &error)),
                }
            }
            Disk::Sync { segment } => {
                let result = self.file(segment).and_then(|file| file.sync_data());
                let volume = &self.volume;
                DiskReply::Synced {
                    result: result.map_err(|error| maker::told("syncing", &volume.path(segment), &error)),
                }
            }
            Disk::Read { id, segment, offset, bytes } => {
                let result = self.read(segment, offset, bytes);
                let volume = &self.volume;
                DiskReply::Read {
                    id,
                    result: result.map_err(|error| maker::told("reading", &volume.path(segment), &error)),
                }
            }
        }
    }

    fn file(&mut self, segment: SegmentId) -> io::Result<&File> {
        let file = match self.open.take() {
            Some((open, file)) if open == segment => file,
            _ => OpenOptions::new().read(true).write(true).open(self.volume.path(segment))?,
        };
        Ok(&self.open.insert((segment, file)).1)
    }
}
