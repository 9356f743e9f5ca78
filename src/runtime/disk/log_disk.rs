//! One shard's disk: what its log asks for, as transfers of the shard's network ring; and the answers.

use super::maker::{Making, told};
use super::volume::Volume;
use crate::admin::overview::DiskCounters;
use crate::log::{Disk, DiskError, DiskReply, ReadId, SegmentId, SyncMode};
use crate::runtime::net::{Blocks, NetRing, Transfer};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Files that are kept open: those written to and read from last.
const OPEN_MAX: usize = 64;
/// Memory kept for the next write, in bytes; what a larger one took is given back.
const KEPT_BYTES: usize = 1 << 20;
/// The token of writes and syncs; those of reads count up from 1.
const WRITE: u64 = 0;

/// The disk of one shard's log.
#[derive(Debug)]
pub struct LogDisk {
    volume: Volume,
    making: Making,
    /// A write is made safe with the same request.
    is_safe_at_once: bool,
    files: Vec<Option<Open>>,
    open_count: usize,
    /// Counts uses of files.
    uses: u64,
    /// The write or sync in flight: of which file, since when.
    flight: Option<(SegmentId, Duration)>,
    /// A write that is safe already, and for which the log has not asked for a sync yet.
    safe: Option<SegmentId>,
    reads: Vec<(ReadId, SegmentId, u32)>,
    replies: VecDeque<DiskReply>,
    kept: Blocks,
    counters: DiskCounters,
    is_direct: bool,
    is_full: bool,
}

#[derive(Debug)]
struct Open {
    file: Arc<File>,
    used: u64,
}

impl LogDisk {
    /// The disk behind a log that was opened with `mode`.
    #[must_use]
    pub fn new(volume: Volume, making: Making, mode: SyncMode) -> Self {
        Self {
            volume,
            making,
            is_safe_at_once: mode == SyncMode::Commit,
            files: Vec::new(),
            open_count: 0,
            uses: 0,
            flight: None,
            safe: None,
            reads: Vec::new(),
            replies: VecDeque::new(),
            kept: Blocks::default(),
            counters: DiskCounters::default(),
            is_direct: true,
            is_full: false,
        }
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> &DiskCounters {
        &self.counters
    }

    /// Whether writes, syncs or reads are on their way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.flight.is_some() || !self.reads.is_empty()
    }

    /// Begins an operation. [`poll_reply`](Self::poll_reply) has the answer, perhaps at once.
    ///
    /// # Panics
    /// If two writes or syncs are asked for at a time: the log has one.
    pub fn start(&mut self, ring: &mut NetRing, disk: Disk) {
        match disk {
            Disk::Create { segment, bytes } => self.making.create(segment, bytes),
            Disk::Remove { segment } => {
                let open = self.files.get_mut(usize::from(segment.0));
                self.open_count -= usize::from(open.and_then(Option::take).is_some());
                self.making.remove(segment);
            }
            Disk::Write { segment, offset, bytes } => {
                let mut blocks = std::mem::take(&mut self.kept);
                blocks.fill(&bytes);
                // The log may want its buffer back as soon as this is answered.
                drop(bytes);
                let write = if self.is_safe_at_once { Transfer::Commit } else { Transfer::Write };
                self.begin(ring, segment, offset, write(blocks));
            }
            Disk::Sync { segment } => {
                if self.safe.take() == Some(segment) {
                    self.replies.push_back(DiskReply::Synced { result: Ok(()) });
                } else {
                    self.begin(ring, segment, 0, Transfer::Sync);
                }
            }
            Disk::Read { id, segment, offset, bytes } => {
                assert_ne!(id.0, WRITE, "reads count up from 1");
                match self.open(segment) {
                    Ok(file) => {
                        self.reads.push((id, segment, offset));
                        let blocks = Blocks::zeroed(bytes as usize);
                        ring.transfer(id.0, file, u64::from(offset), Transfer::Read(blocks));
                    }
                    Err(error) => {
                        let result = Err(told("opening", &self.volume.path(segment), &error));
                        self.replies.push_back(DiskReply::Read { id, result });
                    }
                }
            }
        }
    }

    /// A transfer of the ring is over.
    pub fn on_transferred(&mut self, token: u64, transfer: Transfer, result: Result<(), Errno>) {
        if token == WRITE {
            self.on_written(transfer, result);
            return;
        }
        let at = self.reads.iter().position(|(id, ..)| id.0 == token).expect("the read was asked for");
        let (id, segment, offset) = self.reads.swap_remove(at);
        let bytes = transfer.into_blocks().expect("a read has blocks");
        self.close_surplus(OPEN_MAX);
        self.counters.reads += 1;
        self.counters.read_bytes += bytes.size() as u64;
        let result = match result {
            Ok(()) => Ok(bytes.to_vec()),
            Err(error) => {
                let path = self.volume.path(segment);
                tracing::error!("reading {} at {offset} failed: {error}", path.display());
                Err(DiskError::Failed)
            }
        };
        self.replies.push_back(DiskReply::Read { id, result });
    }

    /// The next answer. Costs nothing while nothing is asked for.
    pub fn poll_reply(&mut self) -> Option<DiskReply> {
        self.replies.pop_front().or_else(|| self.making.poll())
    }

    fn begin(&mut self, ring: &mut NetRing, segment: SegmentId, offset: u32, transfer: Transfer) {
        assert!(self.flight.is_none(), "one write or sync at a time");
        self.safe = None;
        self.flight = Some((segment, now()));
        match self.open(segment) {
            Ok(file) => ring.transfer(WRITE, file, u64::from(offset), transfer),
            Err(error) => {
                let error = Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32));
                self.on_written(transfer, Err(error));
            }
        }
    }

    fn on_written(&mut self, transfer: Transfer, result: Result<(), Errno>) {
        let (segment, since) = self.flight.take().expect("a write or sync is in flight");
        let is_safe = result.is_ok() && !matches!(transfer, Transfer::Write(_));
        if is_safe {
            let took = now().saturating_sub(since).as_micros();
            self.counters.syncs.record(u64::try_from(took).unwrap_or(u64::MAX));
        }
        let is_sync = matches!(transfer, Transfer::Sync);
        let result = result.map_err(|error| {
            let what = if is_sync { "syncing" } else { "writing" };
            told(what, &self.volume.path(segment), &io::Error::from(error))
        });
        if is_sync {
            self.replies.push_back(DiskReply::Synced { result });
            return;
        }
        let blocks = transfer.into_blocks().expect("a write has blocks");
        self.tell_room(result);
        if result.is_ok() {
            self.counters.writes += 1;
            self.counters.written_bytes += blocks.size() as u64;
        }
        self.safe = is_safe.then_some(segment);
        if blocks.capacity() <= KEPT_BYTES {
            self.kept = blocks;
        }
        self.replies.push_back(DiskReply::Written { result });
    }

    /// Says once that a write had no room, and once that it has again.
    fn tell_room(&mut self, result: Result<(), DiskError>) {
        let is_full = result == Err(DiskError::Full);
        let folder = self.volume.folder().display();
        if is_full && !self.is_full {
            tracing::error!("no space left for {folder}: nothing durable is taken until there is");
        } else if self.is_full && result.is_ok() {
            tracing::info!("there is space again for {folder}");
        }
        self.is_full = is_full || self.is_full && result.is_err();
    }

    fn open(&mut self, segment: SegmentId) -> io::Result<Arc<File>> {
        let index = usize::from(segment.0);
        if self.files.len() <= index {
            self.files.resize_with(index + 1, || None);
        }
        self.uses += 1;
        let used = self.uses;
        if let Some(open) = &mut self.files[index] {
            open.used = used;
            return Ok(Arc::clone(&open.file));
        }
        let (file, is_direct) = self.volume.open(segment)?;
        if self.is_direct && !is_direct {
            let folder = self.volume.folder().display();
            tracing::warn!("the file system of {folder} has no direct I/O: the log goes through its cache");
            self.is_direct = false;
        }
        let file = Arc::new(file);
        self.close_surplus(OPEN_MAX - 1);
        self.open_count += 1;
        self.files[index] = Some(Open { file: Arc::clone(&file), used });
        Ok(file)
    }

    /// Closes files that were used longest ago, as far as the ring is not at work on them, until `max` are open.
    fn close_surplus(&mut self, max: usize) {
        while self.open_count > max {
            let idle = self
                .files
                .iter_mut()
                .filter(|open| open.as_ref().is_some_and(|open| Arc::strong_count(&open.file) == 1));
            let Some(oldest) = idle.min_by_key(|open| open.as_ref().map_or(u64::MAX, |open| open.used))
            else {
                return;
            };
            *oldest = None;
            self.open_count -= 1;
        }
    }
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock exists").into()
}
