//! Group commit: records gather in the open commit while the one before is on its way to the disk.
//!
//! ```text
//! open ──next one is due──> closed ──the disk is free──> sealed: Write ──> Sync ──> done: its sequence is committed
//! ```
//!
//! A commit lies in one segment and is one write; at a segment's end another one begins. Where a record will be is known when it
//! is appended. A failed write or sync poisons; a write without space is asked for again.

use super::disk::{Disk, DiskError, SegmentId};
use super::frame::{BLOCK, FRAME_HEADER, FrameHeader, pad};
use super::options::SyncMode;
use super::record::{self, Kind, Location};
use super::segment::{DATA_START, FORMAT_VERSION, SegmentHeader};
use rkyv::Serialize;
use rkyv::api::high::HighSerializer;
use rkyv::rancor::Panic;
use rkyv::ser::allocator::ArenaHandle;
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of records after which a frame ends and the next begins: what one damaged byte costs at most.
const FRAME_BYTES: u32 = 64 << 10;
/// Bytes after which no record is added to a commit: what a commit may cost its first waiter.
const COMMIT_BYTES: u32 = 4 << 20;

/// The number of a commit: what an acknowledgement waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Sequence(pub u64);

/// A segment's life, as far as its frames need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Life {
    pub(super) segment: SegmentId,
    pub(super) sequence: u64,
    pub(super) tag: u64,
    pub(super) bytes: u32,
}

#[derive(Debug)]
struct Commit {
    number: u64,
    life: Life,
    /// Where its bytes begin in the file.
    start: u32,
    /// Set if it begins the segment's life, with what is known only to the log.
    header: Option<(u64, u32)>,
    /// Where its frames begin and end in its bytes, without their padding.
    frames: Vec<(usize, usize)>,
    bytes: Arc<Vec<u8>>,
    /// Its headers are written: it is, or was, on its way.
    is_sealed: bool,
}

/// What the disk is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Flight {
    #[default]
    Idle,
    Writing,
    /// A write had no space.
    Stuck,
    /// Syncing everything up to this commit.
    Syncing(u64),
}

/// The end of a log.
#[derive(Debug)]
pub(super) struct Writer {
    mode: SyncMode,
    life: Option<Life>,
    commits: VecDeque<Commit>,
    flight: Flight,
    next_number: u64,
    /// Where the next commit begins in its segment, if it is not the start of a life.
    end: u32,
    written: u64,
    /// Where that was. What is unsynced is all in this segment.
    written_to: SegmentId,
    synced: u64,
    /// The last checksum and the end of the last commit that was sealed.
    chain: (u32, u32),
    /// `first` of the last sealed and of the last safe commit.
    first: (u64, u64),
    sync_wanted: bool,
    unused: Vec<u8>,
}

/// What recovery found at the end of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tail {
    /// The segment to go on in; `None` if another is to be begun.
    pub(super) life: Option<Life>,
    /// The last segment, and where and how it ends.
    pub(super) segment: SegmentId,
    pub(super) end: u32,
    pub(super) crc: u32,
    /// The last commit, and the last that is known to be safe.
    pub(super) commit: u64,
    pub(super) synced: u64,
    /// The oldest segment in use.
    pub(super) first: u64,
}

impl Writer {
    pub(super) fn new(mode: SyncMode, tail: Tail) -> Self {
        Self {
            mode,
            life: tail.life,
            commits: VecDeque::new(),
            flight: Flight::Idle,
            next_number: tail.commit + 1,
            end: tail.end,
            written: tail.commit,
            written_to: tail.segment,
            synced: tail.synced,
            chain: (tail.crc, tail.end),
            first: (tail.first, 0),
            // What was read may be in a cache only, and is built upon from here.
            sync_wanted: tail.synced < tail.commit,
            unused: Vec::new(),
        }
    }

    /// Everything up to here keeps its promise.
    pub(super) fn committed(&self) -> Sequence {
        Sequence(if self.mode == SyncMode::Commit { self.synced } else { self.written })
    }

    /// Everything up to here is safe from power cuts.
    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// What is older than this segment may be overwritten.
    pub(super) fn safe_first(&self) -> u64 {
        self.first.1
    }

    /// The commit of the last record.
    pub(super) fn last(&self) -> Sequence {
        Sequence(self.next_number - 1)
    }

    /// The segment records go to.
    pub(super) fn life(&self) -> Option<Life> {
        self.life
    }

    /// Where commits end in that segment so far.
    pub(super) fn end(&self) -> u32 {
        self.commits.back().map_or(self.end, Commit::end)
    }

    /// Bytes that wait or are on their way.
    pub(super) fn backlog(&self) -> usize {
        self.commits.iter().map(|commit| commit.bytes.len()).sum()
    }

    /// Whether a write may be next, of records to which more can be added.
    pub(super) fn is_due(&self) -> bool {
        self.flight == Flight::Idle && self.has_open()
    }

    /// Whether records wait.
    fn has_open(&self) -> bool {
        self.commits.back().is_some_and(|commit| !commit.is_sealed)
    }

    /// Whether a record of up to `size` bytes fits into this segment.
    pub(super) fn fits(&self, size: u32) -> bool {
        let Some(life) = self.life else { return false };
        // A new segment's commit is there before its first record, and counts its headers.
        end_of_frame(self.end(), size).is_some_and(|end| end <= life.bytes)
    }

    /// Records go to another segment from here. `next_message` and `next_generation` go into its header.
    pub(super) fn begin(&mut self, life: Life, next_message: u64, next_generation: u32) {
        self.life = Some(life);
        self.push(life, 0, Some((next_message, next_generation)));
    }

    /// Appends a record of at most `size` bytes, which [`fits`](Self::fits).
    pub(super) fn append<T>(&mut self, kind: Kind, value: &T, size: u32) -> Location
    where
        T: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Panic>>,
    {
        let life = self.life.expect("the caller saw that it fits");
        if !self.commits.back().is_some_and(|commit| commit.takes(size)) {
            let start = self.end();
            self.push(life, start, None);
        }
        let commit = self.commits.back_mut().expect("pushed above");
        let bytes = Arc::get_mut(&mut commit.bytes).expect("not given away yet");
        if commit.frames.last().is_none_or(|(start, end)| end - start > FRAME_BYTES as usize) {
            let start = bytes.len().next_multiple_of(BLOCK as usize);
            bytes.resize(start + FRAME_HEADER as usize, 0);
            commit.frames.push((start, bytes.len()));
        }
        let at = bytes.len();
        record::encode(kind, value, bytes);
        commit.frames.last_mut().expect("pushed above").1 = bytes.len();
        let taken = to_u32(bytes.len() - at);
        assert!(taken <= size, "a record is at most as large as was said");
        Location { segment: life.segment, offset: commit.start + to_u32(at), size: taken }
    }

    /// Whether commits to a segment are not written yet.
    pub(super) fn is_waiting(&self, segment: SegmentId) -> bool {
        self.commits.iter().any(|commit| commit.life.segment == segment)
    }

    /// The first commit to a segment that is not written yet.
    pub(super) fn first_waiting(&self, segment: SegmentId) -> Option<Sequence> {
        let first = self.commits.iter().find(|commit| commit.life.segment == segment);
        first.map(|commit| Sequence(commit.number))
    }

    /// Bytes of a record that is not known to be on disk.
    pub(super) fn bytes(&self, location: Location) -> Option<&[u8]> {
        let is_there = |commit: &&Commit| {
            commit.life.segment == location.segment && (commit.start..commit.end()).contains(&location.offset)
        };
        let commit = self.commits.iter().find(is_there)?;
        let at = (location.offset - commit.start) as usize;
        commit.bytes.get(at..at + location.size as usize)
    }

    /// What the disk is to do next, if it is free. `is_ready` says whether a segment can be written to, `first` is the oldest
    /// segment in use.
    pub(super) fn poll(&mut self, first: u64, is_ready: impl Fn(SegmentId) -> bool) -> Option<Disk> {
        if self.flight != Flight::Idle {
            return None;
        }
        let Some(commit) = self.commits.front() else { return self.sync() };
        // What a header says of the segment before is true for ever: it is safe before the header is written.
        if self.written > self.synced && (commit.header.is_some() || self.sync_wanted) {
            return self.sync();
        }
        if !is_ready(commit.life.segment) {
            return None;
        }
        self.seal(first);
        self.flight = Flight::Writing;
        let commit = self.commits.front().expect("found above");
        Some(Disk::Write {
            segment: commit.life.segment,
            offset: commit.start,
            bytes: Arc::clone(&commit.bytes),
        })
    }

    /// The write is answered.
    pub(super) fn written(&mut self, result: Result<(), DiskError>) {
        if self.flight != Flight::Writing {
            return;
        }
        self.flight = match result {
            Ok(()) => Flight::Idle,
            Err(_) => Flight::Stuck,
        };
        if result.is_err() {
            return;
        }
        let commit = self.commits.pop_front().expect("it was in flight");
        self.end = commit.end();
        (self.written, self.written_to) = (commit.number, commit.life.segment);
        if let Ok(mut bytes) = Arc::try_unwrap(commit.bytes) {
            bytes.clear();
            if bytes.capacity() <= COMMIT_BYTES as usize {
                self.unused = bytes;
            }
        }
        self.sync_wanted |= self.mode == SyncMode::Commit;
    }

    /// The sync is answered.
    pub(super) fn synced_up(&mut self) {
        if let Flight::Syncing(number) = self.flight {
            self.synced = self.synced.max(number);
            self.first.1 = self.first.0;
            self.flight = Flight::Idle;
        }
    }

    /// Asks for a sync of what was written.
    pub(super) fn want_sync(&mut self) {
        self.sync_wanted |= self.written > self.synced;
    }

    /// A write that had no space is tried again.
    pub(super) fn retry(&mut self) {
        if self.flight == Flight::Stuck {
            self.flight = Flight::Idle;
        }
    }

    /// Whether a write had no space.
    pub(super) fn is_stuck(&self) -> bool {
        self.flight == Flight::Stuck
    }

    /// Whether nothing is on its way and nothing more can be written, for want of anything or of space.
    pub(super) fn is_at_rest(&self, is_unmade: impl Fn(SegmentId) -> bool) -> bool {
        match self.flight {
            Flight::Stuck => true,
            Flight::Idle => {
                let is_synced = !self.sync_wanted || self.written == self.synced;
                is_synced && self.commits.front().is_none_or(|commit| is_unmade(commit.life.segment))
            }
            Flight::Writing | Flight::Syncing(_) => false,
        }
    }

    fn sync(&mut self) -> Option<Disk> {
        if self.written == self.synced || !self.sync_wanted && self.commits.is_empty() {
            return None;
        }
        self.sync_wanted = false;
        self.flight = Flight::Syncing(self.written);
        Some(Disk::Sync { segment: self.written_to })
    }

    fn push(&mut self, life: Life, start: u32, header: Option<(u64, u32)>) {
        let mut bytes = std::mem::take(&mut self.unused);
        bytes.resize(if header.is_some() { DATA_START as usize } else { 0 }, 0);
        let number = self.next_number;
        self.next_number += 1;
        let bytes = Arc::new(bytes);
        self.commits.push_back(Commit {
            number,
            life,
            start,
            header,
            frames: Vec::new(),
            bytes,
            is_sealed: false,
        });
    }

    /// Fills in the headers of the front commit.
    fn seal(&mut self, first: u64) {
        let commit = self.commits.front_mut().expect("the caller found it");
        if commit.is_sealed {
            return;
        }
        commit.is_sealed = true;
        self.first.0 = first;
        let bytes = Arc::get_mut(&mut commit.bytes).expect("not given away yet");
        let (mut crc, previous_end) = self.chain;
        if let Some((next_message, next_generation)) = commit.header {
            let header = SegmentHeader {
                version: FORMAT_VERSION,
                previous_crc: crc,
                sequence: commit.life.sequence,
                tag: commit.life.tag,
                first,
                next_commit: commit.number,
                next_message,
                next_generation,
                previous_end,
            };
            header.write(&mut bytes[..DATA_START as usize]);
        }
        let count = u16::try_from(commit.frames.len()).expect("a commit's size is bounded");
        for (index, (start, end)) in (0..).zip(&commit.frames) {
            let frame = &mut bytes[*start..*end];
            let header = FrameHeader {
                tag: commit.life.tag,
                commit: commit.number,
                synced: self.synced,
                first,
                index,
                count,
                previous: crc,
                ..FrameHeader::default()
            };
            crc = header.seal(frame);
        }
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        self.chain = (crc, commit.start + to_u32(bytes.len()));
    }
}

impl Commit {
    /// Where it ends in its segment, padded.
    fn end(&self) -> u32 {
        self.start + to_u32(self.bytes.len().next_multiple_of(BLOCK as usize))
    }

    /// Whether another record may go into it.
    fn takes(&self, size: u32) -> bool {
        let fits = end_of_frame(self.end(), size).is_some_and(|end| end <= self.life.bytes);
        !self.is_sealed && self.bytes.len() < COMMIT_BYTES as usize && fits
    }
}

/// Where a frame with one record ends that begins here; `None` beyond 4 GiB.
fn end_of_frame(start: u32, size: u32) -> Option<u32> {
    pad(start.checked_add(FRAME_HEADER)?.checked_add(size)?)
}

fn to_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("segments are below 4 GiB")
}
