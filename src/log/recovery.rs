//! Recovery: files to a log. Reads headers, judges the last segment's end, then folds all records in order.
//!
//! ```text
//! headers ──> the last segment, whole ──> the segments before it, oldest first ──> the last one's records ──> done
//! ```
//!
//! Nothing is written before [`Recovery::finish`]. Memory: the last segment, a chunk, and the values of streams and states.

use super::disk::{Disk, DiskReply, ReadId, SegmentId};
use super::error::{Damage, Unreadable};
use super::frame::{FRAME_HEADER, Found, Scanner, Step};
use super::index::Index;
use super::options::Options;
use super::record::{self, Entry, Holder, Kind, Location, MessageNumber, NO_ORIGIN, NO_STREAM, Origin};
use super::record::{StateId, StateKind, StreamId, StreamKind};
use super::segment::{DATA_START, FORMAT_VERSION, Headers, Segment, SegmentHeader, Segments, Use};
use super::tail::{self, Verdict};
use super::writer::{Life, Tail, Writer};
use super::{Log, Sequence};
use crate::base::{HashKey, VhostId, Wall};
use hashbrown::HashMap;
use std::collections::VecDeque;

const CHUNK_BYTES: u32 = 4 << 20;

/// A log and what its owner needs to go on.
#[derive(Debug)]
pub struct Recovered {
    /// The log, ready to be appended to.
    pub log: Log,
    /// All streams, the one that was opened last at the end.
    pub streams: Vec<RecoveredStream>,
    /// All states, the one that was written last (also by compaction) at the end.
    pub states: Vec<RecoveredState>,
    /// What was found besides.
    pub report: Report,
}

/// A stream as it was left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveredStream {
    /// Its id.
    pub id: StreamId,
    /// What it is.
    pub kind: StreamKind,
    /// Its virtual host.
    pub vhost: VhostId,
    /// Its last value.
    pub value: Box<[u8]>,
}

/// A state as it was left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveredState {
    /// Its id.
    pub id: StateId,
    /// What it is.
    pub kind: StateKind,
    /// Its virtual host.
    pub vhost: VhostId,
    /// The stream it belongs to.
    pub owner: Option<StreamId>,
    /// Its last value.
    pub value: Box<[u8]>,
}

/// What recovery met.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// What cannot be read, and should be: health is degraded.
    pub damage: Vec<Damage>,
    /// Segments of whose two headers one cannot be read. Nothing is lost: a power cut leaves it, or rot.
    pub worn: Vec<SegmentId>,
    /// What the crash left of a commit that was never acknowledged.
    pub cut: Option<Cut>,
    /// Streams whose records are there, but not what they are: their values are in what is damaged.
    pub orphan_count: usize,
    /// Bytes of segments read.
    pub bytes: u64,
}

/// A torn tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The file.
    pub segment: SegmentId,
    /// Where the log ends now.
    pub offset: u32,
}

#[derive(Clone, Copy, Debug)]
struct Chained {
    segment: SegmentId,
    header: SegmentHeader,
    /// Where its commits end.
    end: u32,
}

#[derive(Debug)]
enum Stage {
    Headers { missing: usize },
    Last { scanner: Scanner },
    Fold { at: usize, scanner: Scanner, expected: u32 },
    Done,
}

type Kept<K> = (K, VhostId, Option<StreamId>, Box<[u8]>);

/// A recovery on its way.
#[derive(Debug)]
pub struct Recovery {
    options: Options,
    key: HashKey,
    files: Vec<(SegmentId, u32)>,
    headers: Vec<(SegmentId, Headers)>,
    chain: Vec<Chained>,
    stage: Stage,
    /// The last segment's frames and their records.
    last: (Vec<Found>, Vec<Box<[u8]>>),
    is_torn_at: Option<u32>,
    verdict: Option<Verdict>,
    index: Index,
    streams: HashMap<StreamId, Kept<StreamKind>>,
    states: HashMap<StateId, Kept<StateKind>>,
    report: Report,
    outputs: VecDeque<Disk>,
    next_read: u64,
}

impl Recovery {
    /// Opens the log in `files`, each with its size in bytes; none for a new log. `key` is random and new at every start.
    #[must_use]
    pub fn new(options: Options, key: HashKey, files: &[(SegmentId, u32)]) -> Self {
        let usable = files.iter().copied().filter(|(_, bytes)| *bytes > DATA_START);
        let mut recovery = Self {
            options,
            key,
            files: usable.collect(),
            headers: Vec::new(),
            chain: Vec::new(),
            stage: Stage::Headers { missing: 0 },
            last: (Vec::new(), Vec::new()),
            is_torn_at: None,
            verdict: None,
            index: Index::new(key, true),
            streams: HashMap::new(),
            states: HashMap::new(),
            report: Report::default(),
            outputs: VecDeque::new(),
            next_read: 0,
        };
        recovery.stage = Stage::Headers { missing: recovery.files.len() };
        for at in 0..recovery.files.len() {
            let (segment, _) = recovery.files[at];
            // The number of the read is the file's place.
            recovery.read(segment, 0, DATA_START);
        }
        if recovery.files.is_empty() {
            recovery.stage = Stage::Done;
        }
        recovery
    }

    /// What is to be read next.
    pub fn poll_output(&mut self) -> Option<Disk> {
        self.outputs.pop_front()
    }

    /// Whether [`finish`](Self::finish) may be called.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Bytes read so far, and of all segments in use as far as that is known.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.report.bytes, self.chain.iter().map(|chained| u64::from(chained.end)).sum())
    }

    /// A read is answered. What cannot be read counts as zeros, and so as damaged where something should be.
    ///
    /// # Errors
    /// If a newer broker wrote the log.
    pub fn handle_disk(&mut self, reply: DiskReply) -> Result<(), Unreadable> {
        let DiskReply::Read { id, result } = reply else { return Ok(()) };
        match &mut self.stage {
            Stage::Headers { missing } => {
                *missing -= 1;
                let is_last = *missing == 0;
                let at = usize::try_from(id.0).ok().and_then(|at| self.files.get(at));
                let Some((segment, _)) = at.copied() else { return Ok(()) };
                let headers = result.map_or(Headers::Bad, |bytes| SegmentHeader::read(&bytes));
                if let Headers::Newer { version } = headers {
                    return Err(Unreadable::NewerFormat { segment, version, known: FORMAT_VERSION });
                }
                self.headers.push((segment, headers));
                if is_last {
                    self.begin_last();
                }
            }
            Stage::Last { scanner } | Stage::Fold { scanner, .. } => {
                let bytes = result.unwrap_or_default();
                self.report.bytes += bytes.len() as u64;
                scanner.feed(&bytes);
            }
            Stage::Done => {}
        }
        self.advance();
        Ok(())
    }

    fn read(&mut self, segment: SegmentId, offset: u32, bytes: u32) {
        let id = ReadId(self.next_read);
        self.next_read += 1;
        self.outputs.push_back(Disk::Read { id, segment, offset, bytes });
    }

    /// All headers are there: the one with the highest sequence is the last.
    fn begin_last(&mut self) {
        self.headers.sort_unstable_by_key(|(segment, _)| *segment);
        for (segment, headers) in &self.headers {
            if let Headers::Good { header, .. } = headers {
                self.chain.push(Chained { segment: *segment, header: *header, end: 0 });
            }
        }
        self.chain.sort_unstable_by_key(|chained| chained.header.sequence);
        let Some(last) = self.chain.last().copied() else {
            self.stage = Stage::Done;
            return;
        };
        let scanner = Scanner::new(last.header.tag, DATA_START..self.size(last.segment), CHUNK_BYTES);
        self.stage = Stage::Last { scanner };
    }

    /// Goes on until something has to be read.
    fn advance(&mut self) {
        loop {
            let step = match &mut self.stage {
                Stage::Last { scanner } | Stage::Fold { scanner, .. } => scanner.step(),
                Stage::Headers { .. } | Stage::Done => return,
            };
            match step {
                Step::Need { offset, bytes } => {
                    let segment = self.current();
                    return self.read(segment, offset, bytes);
                }
                Step::Frame(found) => self.on_frame(found),
                Step::Junk { offset, is_torn } => {
                    if matches!(self.stage, Stage::Last { .. }) && is_torn {
                        self.is_torn_at = Some(offset);
                    }
                }
                Step::End => self.on_end(),
            }
        }
    }

    /// The segment that is being read.
    fn current(&self) -> SegmentId {
        let at =
            if let Stage::Fold { at, .. } = self.stage { at } else { self.chain.len().saturating_sub(1) };
        self.chain.get(at).map_or(SegmentId(0), |chained| chained.segment)
    }

    fn on_frame(&mut self, found: Found) {
        match &mut self.stage {
            Stage::Last { scanner } => {
                let records = scanner.records(&found).into();
                self.last.0.push(found);
                self.last.1.push(records);
            }
            Stage::Fold { at, scanner, expected } => {
                let Some(chained) = self.chain.get(*at) else { return };
                let segment = chained.segment;
                if found.offset > *expected {
                    let bytes = found.offset - *expected;
                    self.report.damage.push(Damage::Bytes { segment, offset: *expected, bytes });
                }
                *expected = found.end();
                let records: Box<[u8]> = scanner.records(&found).into();
                self.fold(segment, &found, &records);
            }
            Stage::Headers { .. } | Stage::Done => {}
        }
    }

    fn on_end(&mut self) {
        match self.stage {
            Stage::Last { .. } => self.judge(),
            Stage::Fold { at, expected, .. } => {
                let Some(chained) = self.chain.get(at).copied() else { return };
                if expected < chained.end {
                    let (segment, bytes) = (chained.segment, chained.end - expected);
                    self.report.damage.push(Damage::Bytes { segment, offset: expected, bytes });
                }
                self.begin_fold(at + 1);
            }
            Stage::Headers { .. } | Stage::Done => {}
        }
    }

    /// The last segment is read: what counts of it says which segments are in use.
    fn judge(&mut self) {
        let Some(last) = self.chain.last_mut() else { return };
        let verdict = tail::judge(&last.header, &self.last.0);
        last.end = verdict.end;
        let segment = last.segment;
        for range in &verdict.damage {
            let bytes = range.end - range.start;
            self.report.damage.push(Damage::Bytes { segment, offset: range.start, bytes });
        }
        if verdict.is_cut || self.is_torn_at.is_some_and(|at| at >= verdict.end) {
            self.report.cut = Some(Cut { segment, offset: verdict.end });
        }
        self.chain.retain(|chained| chained.header.sequence >= verdict.first);
        let mut expected = verdict.first;
        for chained in &self.chain {
            let missing = expected..chained.header.sequence;
            self.report.damage.extend(missing.map(|sequence| Damage::Missing { sequence }));
            expected = chained.header.sequence + 1;
        }
        for at in 1..self.chain.len() {
            let after = self.chain[at].header;
            let size = self.size(self.chain[at - 1].segment);
            let before = &mut self.chain[at - 1];
            let is_next = before.header.sequence + 1 == after.sequence;
            before.end = if is_next { after.previous_end.min(size) } else { size };
        }
        self.verdict = Some(verdict);
        let is_worn = |segment: &SegmentId| {
            let is_half = |(other, headers): &(SegmentId, Headers)| {
                other == segment && matches!(headers, Headers::Good { is_damaged: true, .. })
            };
            self.headers.iter().any(is_half)
        };
        self.report.worn = self.chain.iter().map(|chained| chained.segment).filter(is_worn).collect();
        self.begin_fold(0);
    }

    fn begin_fold(&mut self, at: usize) {
        let Some(chained) = self.chain.get(at).copied() else { return };
        self.index.next_message = self.index.next_message.max(chained.header.next_message);
        self.index.next_generation = self.index.next_generation.max(chained.header.next_generation);
        if at + 1 < self.chain.len() {
            let scanner = Scanner::new(chained.header.tag, DATA_START..chained.end, CHUNK_BYTES);
            self.stage = Stage::Fold { at, scanner, expected: DATA_START };
            return;
        }
        let keep = self.verdict.as_ref().map_or(0, |verdict| verdict.keep);
        let (frames, records) = std::mem::take(&mut self.last);
        for (found, records) in frames.iter().zip(&records).take(keep) {
            self.fold(chained.segment, found, records);
        }
        self.stage = Stage::Done;
    }

    fn size(&self, segment: SegmentId) -> u32 {
        self.files.iter().find(|(id, _)| *id == segment).map_or(0, |(_, bytes)| *bytes)
    }

    /// Adds a frame's records.
    fn fold(&mut self, segment: SegmentId, found: &Found, records: &[u8]) {
        for (at, entry) in record::entries(records) {
            let offset = found.offset.saturating_add(FRAME_HEADER).saturating_add(at);
            let is_known = entry.is_some_and(|entry| {
                let location = Location { segment, offset, size: entry.size };
                self.apply(&entry, location).is_some()
            });
            if !is_known {
                self.report.damage.push(Damage::Record { segment, offset });
            }
        }
    }

    /// Adds a record; `None` if it makes no sense.
    fn apply(&mut self, entry: &Entry<'_>, location: Location) -> Option<()> {
        match entry.kind {
            Kind::Open => {
                let open = entry.access::<record::ArchivedOpen<'_>>()?;
                let (id, kind) = (StreamId::from(&open.stream), StreamKind::decode(open.kind)?);
                let vhost = VhostId(open.vhost.to_native());
                self.index.open(id, kind, vhost, location);
                self.streams.insert(id, (kind, vhost, None, open.value.as_ref().into()));
            }
            Kind::Close => {
                let close = entry.access::<record::ArchivedClose>()?;
                let id = StreamId::from(&close.stream);
                self.index.close(id);
                self.streams.remove(&id);
            }
            Kind::Put => {
                let put = entry.access::<record::ArchivedPut<'_>>()?;
                let (id, kind) = (StateId(put.id.to_native()), StateKind::decode(put.kind)?);
                let vhost = VhostId(put.vhost.to_native());
                let owner = Some(StreamId::from(&put.owner)).filter(|owner| *owner != NO_STREAM);
                if self.index.put(id, owner, location) {
                    self.states.insert(id, (kind, vhost, owner, put.value.as_ref().into()));
                }
            }
            Kind::Clear => {
                let clear = entry.access::<record::ArchivedClear>()?;
                let id = StateId(clear.id.to_native());
                self.index.clear(id);
                self.states.remove(&id);
            }
            Kind::Message => self.apply_message(entry, location)?,
            Kind::Acknowledged => {
                let acknowledged = entry.access::<record::ArchivedAcknowledged<'_>>()?;
                for range in acknowledged.ranges.iter() {
                    let (first, last) = (range.first.to_native(), range.last.to_native());
                    self.index.acknowledge(
                        StreamId::from(&range.stream),
                        MessageNumber(first),
                        MessageNumber(last),
                    );
                }
            }
            Kind::Mark => {
                let mark = entry.access::<record::ArchivedMark>()?;
                let number = MessageNumber(mark.number.to_native());
                self.index.mark(StreamId::from(&mark.stream), number, mark.tag.to_native());
            }
            Kind::Forget => {
                let forget = entry.access::<record::ArchivedForget<'_>>()?;
                for origin in forget.origins.iter() {
                    self.index.forget(Origin::from(origin));
                }
            }
            Kind::Origin => {
                let kept = entry.access::<record::ArchivedKeptOrigin>()?;
                self.index.keep_origin(Origin::from(&kept.origin), location);
            }
        }
        Some(())
    }

    fn apply_message(&mut self, entry: &Entry<'_>, location: Location) -> Option<()> {
        let message = entry.access::<record::ArchivedMessage<'_>>()?;
        let number = message.number.to_native();
        if number >= 1 << 48 {
            return None;
        }
        let origin = Some(Origin::from(&message.origin)).filter(|origin| *origin != NO_ORIGIN);
        let expires_at = Wall(message.expires_at.to_native());
        let holders = message.holders.iter().map(Holder::from);
        self.index.message(MessageNumber(number), expires_at, origin, holders, location);
        Some(())
    }

    /// The log and its contents.
    ///
    /// # Panics
    /// If it [is not done](Self::is_done).
    #[must_use]
    pub fn finish(mut self) -> Recovered {
        assert!(self.is_done(), "recovery is not done");
        self.report.orphan_count = self.index.finish();
        let streams = self.recovered_streams();
        let states = self.recovered_states();
        let segments = self.segments();
        let is_last_whole = self.report.cut.is_none();
        let tail = self.tail(is_last_whole);
        let free = segments.iter().filter(|(_, file)| matches!(file.used, Use::Empty { .. }));
        let mut free: Vec<_> = free.map(|(segment, file)| (file.used, segment)).collect();
        free.sort_by_key(|(used, _)| if let Use::Empty { last } = used { *last } else { None });
        let highest = self.headers.iter().filter_map(|(_, headers)| match headers {
            Headers::Good { header, .. } => Some(header.sequence),
            Headers::Newer { .. } | Headers::Blank | Headers::Bad => None,
        });
        let log = Log {
            writer: Writer::new(self.options.sync, tail),
            options: self.options,
            key: self.key,
            index: self.index,
            segments,
            chain: self.chain.iter().map(|chained| chained.segment).collect(),
            next_sequence: highest.max().map_or(1, |sequence| sequence + 1),
            free: free.into_iter().map(|(_, segment)| segment).collect(),
            unmade: Vec::new(),
            attempts: 0,
            is_poisoned: false,
            is_over_watermark: false,
            acks: Vec::new(),
            forgets: Vec::new(),
            fetches: Vec::new(),
            reads: Vec::new(),
            next_id: 0,
            compaction: None,
            compacted: 0,
            is_copying: false,
            copy_needs: 0,
            compaction_credit: 0,
            empty_since: None::<Sequence>,
            expiry_slot: 0,
            outputs: VecDeque::new(),
            events: VecDeque::new(),
        };
        Recovered { log, streams, states, report: self.report }
    }

    fn recovered_streams(&mut self) -> Vec<RecoveredStream> {
        let kept = std::mem::take(&mut self.streams).into_iter();
        let live = kept.filter(|(id, _)| self.index.streams.get(*id).is_some());
        let mut streams: Vec<_> =
            live.map(|(id, (kind, vhost, _, value))| RecoveredStream { id, kind, vhost, value }).collect();
        streams.sort_unstable_by_key(|stream| stream.id.generation);
        streams
    }

    fn recovered_states(&mut self) -> Vec<RecoveredState> {
        let places: HashMap<SegmentId, usize> =
            self.chain.iter().enumerate().map(|(at, chained)| (chained.segment, at)).collect();
        let written = |id: StateId| {
            let (location, _) = self.index.states.find(id)?;
            Some((*places.get(&location.segment)?, location.offset))
        };
        let kept = std::mem::take(&mut self.states).into_iter();
        let mut live: Vec<_> = kept.filter_map(|(id, kept)| Some((written(id)?, id, kept))).collect();
        live.sort_unstable_by_key(|(written, ..)| *written);
        let state = |(_, id, (kind, vhost, owner, value))| RecoveredState { id, kind, vhost, owner, value };
        live.into_iter().map(state).collect()
    }

    /// What each file is used for.
    fn segments(&self) -> Segments {
        let mut segments = Segments::default();
        let is_missing = self.report.damage.iter().any(|damage| matches!(damage, Damage::Missing { .. }));
        for (segment, headers) in &self.headers {
            let bytes = self.size(*segment);
            let chained = self.chain.iter().find(|chained| chained.segment == *segment);
            let used = match (chained, headers) {
                (Some(chained), _) => {
                    let SegmentHeader { sequence, tag, .. } = chained.header;
                    Use::Live { sequence, tag, end: chained.end }
                }
                (None, Headers::Good { header, .. }) => Use::Empty { last: Some(header.sequence) },
                // It may be the one that is missing.
                (None, Headers::Bad) if is_missing => Use::Quarantined,
                (None, Headers::Bad | Headers::Blank | Headers::Newer { .. }) => Use::Empty { last: None },
            };
            segments.add(*segment, Segment { bytes, used, reads: 0, is_made: true });
        }
        segments
    }

    /// Where the log goes on: in the last segment, or behind it if a torn commit lies there.
    fn tail(&self, is_last_whole: bool) -> Tail {
        let Some((last, verdict)) = self.chain.last().zip(self.verdict.as_ref()) else {
            return Tail::default();
        };
        let SegmentHeader { sequence, tag, .. } = last.header;
        let life = Life { segment: last.segment, sequence, tag, bytes: self.size(last.segment) };
        Tail {
            life: is_last_whole.then_some(life),
            segment: last.segment,
            end: verdict.end,
            crc: verdict.crc,
            commit: verdict.commit,
            synced: verdict.synced.min(verdict.commit),
            first: verdict.first,
        }
    }
}
