//! All shards' logs at start: found, and given to their shards to read back.

use super::recover::{self, Unrecovered};
use super::rehome::{self, Plan};
use super::{Layout, LogDisk, Maker, Making, Volume};
use crate::base::{HashKey, ShardId};
use crate::log::{Options, Recovered, SyncMode};
use anyhow::{Context, Result};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// All logs, opened but not read.
#[derive(Debug)]
pub struct Logs {
    layout: Layout,
    maker: Maker,
    options: Options,
    tags: HashKey,
}

/// One shard's.
#[derive(Debug)]
pub struct ShardLog {
    volume: Volume,
    making: Making,
    options: Options,
    tags: HashKey,
}

impl Logs {
    /// Finds or makes the logs below `data_dir`, which is locked, and moves everything if the number of shards has changed. `key` is
    /// the process's secret, `tags` is random and new at every start.
    ///
    /// # Errors
    /// Whatever keeps them from being used.
    pub fn open(
        data_dir: &Path,
        shards: u16,
        options: &Options,
        key: HashKey,
        tags: HashKey,
    ) -> Result<Self> {
        warn_of_memory(data_dir);
        let mut layout = Layout::open(data_dir, shards)?;
        for shard in 0..layout.shards() {
            let volume = layout.volume(ShardId(shard));
            volume.await_quiet().with_context(|| volume.folder().display().to_string())?;
        }
        if layout.shards() != shards {
            layout = rehome::rehome(data_dir, &layout, Plan { key, tags, shards, options })?;
        }
        let maker = Maker::start().context("the thread that makes files of the log")?;
        Ok(Self { layout, maker, options: options.clone(), tags })
    }

    /// The log of a shard that `event` wakes.
    #[must_use]
    pub fn of_shard(&self, shard: ShardId, event: Arc<OwnedFd>) -> ShardLog {
        let volume = self.layout.volume(shard);
        let making = self.maker.for_shard(volume.clone(), event);
        let tags = self.tags.derive(&format!("log-{}", shard.0));
        ShardLog { volume, making, options: self.options.clone(), tags }
    }
}

impl ShardLog {
    /// Reads it back.
    ///
    /// # Errors
    /// If that cannot be.
    pub fn recover(self) -> Result<(Recovered, LogDisk), Unrecovered> {
        let recovered = recover::recover(&self.volume, &self.options, self.tags)?;
        Ok((recovered, LogDisk::new(self.volume, self.making, self.options.sync)))
    }
}

/// Says what an acknowledgement is worth, where that is less than by default.
pub fn warn_of_sync(sync: SyncMode, interval_ms: u64) {
    match sync {
        SyncMode::Commit => {}
        SyncMode::Interval => tracing::warn!(
            "quelea.log.sync = interval: what is acknowledged survives a crash of the broker, but a power cut may take what was \
             acknowledged in the last {interval_ms} ms"
        ),
        SyncMode::None => tracing::warn!(
            "quelea.log.sync = none: what is acknowledged survives a crash of the broker, but a power cut may take whatever the \
             disk has not made safe by itself"
        ),
    }
}

/// A promise to keep something is worth nothing where nothing is kept.
fn warn_of_memory(data_dir: &Path) {
    let kind = statfs(data_dir).map(|found| found.filesystem_type());
    if kind == Ok(TMPFS_MAGIC) {
        tracing::warn!(
            "quelea.data_dir is in memory ({}): what is acknowledged does not survive the machine",
            data_dir.display()
        );
    }
}
