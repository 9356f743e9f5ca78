//! The durable log of one shard, as a value: records in, operations for a disk out. No I/O, no clock, no MQTT.
//!
//! ```text
//! Recovery ──finish──> Log:  open, put, append, acknowledge ... ──> Sequence
//!                            poll_output ──> Disk ──(runtime, simulator)──> DiskReply ──> handle_disk
//!                            committed() >= Sequence: the acknowledgement may leave
//!                            fetch ──> Event::Fetched
//! ```
//!
//! # What it holds
//!
//! - **Streams** ([`StreamId`]): queues of messages, in order. A durable session, a shared subscription with a durable member, a
//!   named queue. A stream has a value its owner gets back at recovery.
//! - **Messages**: stored once, whoever holds them. In memory 24 bytes for each, and 4 for each stream that holds it.
//! - **States** ([`StateId`]): bytes in a durable slot, of a stream or of nobody: subscriptions, retained messages, wills, packet
//!   identifiers received and released, bindings.
//! - **Origins**: which QoS 2 messages came, until they are released.
//!
//! # Invariants
//!
//! - A commit is on disk whole or not at all; commits survive in order: what is recovered is the log as it was at some commit, none
//!   before the last one that was released.
//! - A block that holds a committed record is never written again, until no record in its segment counts and that is itself safe.
//! - Only the oldest segment is ever freed: a record that takes something back outlives what it takes back.
//! - The index is the sum of the records by the same functions when they are appended and when they are recovered.
//! - After a failed write or sync nothing is promised any more.
//!
//! # Cost
//!
//! Append: one copy of the payload and two checksums of it. Acknowledge: a look at the stream's head, or a binary search; on disk
//! one range of 24 bytes a stream and commit, however many messages it covers. Recovery reads all segments in use once.
//!
//! # How a shard uses it
//!
//! A shard owns a `Log`. After each turn it polls outputs and hands them to the runtime, which carries out at most one write or
//! sync at a time, and reads beside it; replies come back in by `handle_disk`, after which whoever waits for a sequence up to
//! [`committed`](Log::committed) goes on, and the shard polls again.
//!
//! - **PUBACK**: a publish with durable targets is one [`append`](Log::append) in each shard that has some, once it need not wait for a
//!   segment that is being made ([`must_wait`](Log::must_wait)); each answers the
//!   publisher's shard when its sequence is committed, and the FIFO of acknowledgements there counts the answers. Without a
//!   durable target nothing touches the log. Durable sessions that are online are delivered to after the commit, from memory.
//! - **QoS 2 in**: [`has_origin`](Log::has_origin) says "committed, not again" (once [`last`](Log::last) is). When all targets
//!   have answered, the publisher's shard puts a [`StateKind::Received`] owned by the session's stream, waits, and sends PUBREC.
//!   PUBREL: [`forget`](Log::forget) on all targets and [`clear`](Log::clear) of the state, [`flush`](Log::flush), wait, PUBCOMP.
//! - **QoS 2 out**: the packet identifier is a [`mark`](Log::mark), or the [`Holder::tag`] if the window had room, that is
//!   committed before PUBLISH leaves. PUBREC: another mark says "released", which is taken on a full disk too; PUBREL leaves after
//!   the commit. PUBCOMP acknowledges, lazily. QoS 1 needs no mark.
//! - **Sessions**: [`open`](Log::open) at the first CONNECT with expiry greater than 0, [`reopen`](Log::reopen) with new terms or
//!   a new deadline (wall time) at each resume and disconnect, [`close`](Log::close) at expiry: subscriptions, will, identifiers
//!   and messages are gone in the same commit. Subscriptions are states of the stream; SUBACK waits for them.
//! - **Retained messages** are states of nobody on the topic's home; [`replace`](Log::replace) in place.
//! - **Wills** are states of the session's stream; when a will with a delay is due at recovery its session's value says so.
//! - **Shared subscriptions** with a durable member are streams at the group's home: members are states, an assignment is a mark
//!   whose tag names the member's state, settled by an acknowledgement.
//! - **Offline queues**: [`expire`](Log::expire) from a timer, [`fetch`](Log::fetch) in batches on resume: what was appended meanwhile is part of later batches, in order.
//! - **Another number of shards**: each old log is recovered as it is, by any shard; streams, states and messages whose home is
//!   elsewhere are read back and appended to new logs, by old shard and number, in another directory, which takes the place of the
//!   old one when all are committed. Numbers and ids are new then; nothing outside a log names them.
//!
//! # Not here
//!
//! Files, directories, locks and their names; when to retry, to sync, to expire. Values are opaque.

pub mod append;
mod bodies;
mod chunks;
mod compact;
pub mod disk;
pub mod error;
mod expiry;
pub mod export;
pub mod fetch;
mod frame;
mod index;
pub mod options;
pub mod record;
pub mod recovery;
pub mod segment;
mod states;
mod stream;
mod tail;
pub mod writer;

pub use append::{Dropped, NewMessage};
pub use disk::{Disk, DiskError, DiskReply, ReadId, SegmentId};
pub use error::{Damage, Health, Refused, Unreadable};
pub use export::{Place, Whole};
pub use fetch::{FetchId, Fetched, Stored};
pub use options::{Options, SEGMENT_BYTES_MIN, SyncMode};
pub use record::{Holder, MessageNumber, Origin, StateId, StateKind, StreamId, StreamKind};
pub use recovery::{Cut, Recovered, RecoveredState, RecoveredStream, Recovery, Report};
pub use segment::FORMAT_VERSION;
pub use writer::Sequence;

use crate::base::{HashKey, VhostId};
use compact::Compaction;
use fetch::{Fetch, Read};
use frame::{FRAME_HEADER, pad};
use index::Index;
use segment::{DATA_START, Segment, Segments, Use};
use std::collections::VecDeque;
use writer::{Life, Writer};

/// Messages leave this share of the last segment to what shrinks the log.
const RESERVED_SHARE: u32 = 8;

/// What the log has to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A fetch is complete. Messages settled in the meantime are left out.
    Fetched {
        /// Which.
        id: FetchId,
        /// Of which stream.
        stream: StreamId,
        /// In order.
        messages: Vec<Fetched>,
    },
    /// Records of this commit and later ones wait for a segment that cannot be made for want of space: they are written when there
    /// is some. Said again whenever it was tried again.
    NoSpace(Sequence),
    /// Records that were there when the log was opened cannot be read any more.
    Damaged(Damage),
    /// A message was in them: the stream has lost it.
    LostMessage {
        /// Which stream.
        stream: StreamId,
        /// Which message.
        number: MessageNumber,
    },
    /// A state was in them: [`Log::replace`] it, and nothing is lost.
    LostState(StateId),
    /// A stream's value was in them: [`Log::reopen`] it, and nothing is lost.
    LostStream(StreamId),
}

/// One shard's log.
#[derive(Debug)]
pub struct Log {
    options: Options,
    /// For tags: new at every start.
    key: HashKey,
    index: Index,
    writer: Writer,
    segments: Segments,
    /// Segments in use, by sequence.
    chain: VecDeque<SegmentId>,
    next_sequence: u64,
    /// Segments to be used again, the longest free first.
    free: VecDeque<SegmentId>,
    /// Segments that could not be made for want of space, until they are; `attempts` of them are being tried again.
    unmade: Vec<SegmentId>,
    attempts: usize,
    is_poisoned: bool,
    is_over_watermark: bool,
    /// Settled messages and released origins that are not written yet.
    acks: Vec<record::Range>,
    forgets: Vec<Origin>,
    fetches: Vec<Fetch>,
    reads: Vec<Read>,
    next_id: u64,
    compaction: Option<Compaction>,
    /// The last segment that was compacted.
    compacted: u64,
    is_copying: bool,
    /// The size of the segment for want of which the last compaction was given up; 0: none.
    copy_needs: u32,
    /// Compactions that may begin before something else is appended: once round, and a log that is left alone rests.
    compaction_credit: usize,
    /// The commit after which the oldest segment, which is empty, is no longer needed.
    empty_since: Option<Sequence>,
    /// The stream whose messages are looked at next for expiry.
    expiry_slot: u32,
    outputs: VecDeque<Disk>,
    events: VecDeque<Event>,
}

impl Log {
    /// What the disk is to do next. Call until `None` after every turn that changed something, and after
    /// [`handle_disk`](Self::handle_disk): what was appended since the last call is one commit, written as soon as the one before
    /// is done.
    pub fn poll_output(&mut self) -> Option<Disk> {
        if !self.is_poisoned {
            self.maintain();
        }
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if self.is_poisoned {
            return None;
        }
        if self.writer.is_due() {
            // The log is sound, and what shrinks it is taken while there is a segment to write to.
            let _ = self.flush();
        }
        let first = self.first();
        let segments = &self.segments;
        self.writer.poll(first, |segment| segments.at(segment).is_made).or_else(|| self.outputs.pop_front())
    }

    /// What the log has to say next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The disk answered.
    pub fn handle_disk(&mut self, reply: DiskReply) {
        match reply {
            DiskReply::Created { segment, result } => self.on_created(segment, result),
            DiskReply::Written { result } => {
                self.is_poisoned |= result == Err(DiskError::Failed);
                self.writer.written(result);
            }
            DiskReply::Synced { result } => {
                // Whatever the error: the kernel may have thrown the pages away, and would say that all is well next time.
                self.is_poisoned |= result.is_err();
                if result.is_ok() {
                    self.writer.synced_up();
                }
            }
            DiskReply::Read { id, result } => {
                if let Some(bytes) = self.on_read(id, result) {
                    self.feed_compaction(bytes);
                }
            }
            DiskReply::Removed { segment, result } => {
                let gone = if result.is_ok() { Use::None } else { Use::Quarantined };
                self.segments.at_mut(segment).used = gone;
            }
        }
    }

    /// Asks for a sync of what was written; with [`SyncMode::Interval`] to be called once an interval.
    pub fn sync(&mut self) {
        self.writer.want_sync();
    }

    /// Tries again what had no space. To be called about once a second while [`health`](Self::health) is `Full`.
    pub fn retry(&mut self) {
        // Until there is an answer they count as not to be made: else what grows the log would be taken now and then, until there
        // is no room left for what shrinks it.
        if self.attempts == 0 {
            self.attempts = self.unmade.len();
            for segment in &self.unmade {
                let bytes = self.segments.at(*segment).bytes;
                self.outputs.push_back(Disk::Create { segment: *segment, bytes });
            }
        }
        self.writer.retry();
    }

    /// Whether something waits for [`retry`](Self::retry): also where the log has another segment to go on in meanwhile.
    #[must_use]
    pub fn wants_retry(&self) -> bool {
        !self.unmade.is_empty() || self.writer.is_stuck()
    }

    /// Says whether the disk is over the operator's watermark: then only what shrinks the log is taken.
    pub fn set_over_watermark(&mut self, is_over: bool) {
        self.is_over_watermark = is_over;
    }

    /// Compaction may begin though nothing is appended: for a log that is opened to be compacted.
    pub fn allow_compaction(&mut self) {
        self.compaction_credit = self.chain.len() + 1;
    }

    /// Everything appended up to this sequence keeps the promise of [`Options::sync`].
    #[must_use]
    pub fn committed(&self) -> Sequence {
        self.writer.committed()
    }

    /// The sequence of the last record.
    #[must_use]
    pub fn last(&self) -> Sequence {
        self.writer.last()
    }

    /// Whether everything is written, or as much as there is space for: nothing comes of waiting.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.is_poisoned || self.writer.is_at_rest(|segment| self.unmade.contains(&segment))
    }

    /// How the log is.
    #[must_use]
    pub fn health(&self) -> Health {
        if self.is_poisoned {
            Health::Poisoned
        } else if self.is_full() {
            Health::Full
        } else {
            Health::Good
        }
    }

    /// What it promises.
    #[must_use]
    pub fn sync_mode(&self) -> SyncMode {
        self.options.sync
    }

    /// Whether a stream is there.
    #[must_use]
    pub fn is_open(&self, stream: StreamId) -> bool {
        self.index.streams.get(stream).is_some()
    }

    /// The number the next message gets.
    #[must_use]
    pub fn next_number(&self) -> MessageNumber {
        MessageNumber(self.index.next_message)
    }

    /// A stream's first message with this number or a larger one of which nothing has begun.
    #[must_use]
    pub fn first_from(&self, stream: StreamId, from: MessageNumber) -> Option<MessageNumber> {
        let found = self.index.streams.get(stream)?;
        let start = found.position_from(from, &self.index.bodies);
        let numbers = found.entries().range(start..).map(|slot| self.index.bodies.at(*slot).number());
        numbers.into_iter().find(|number| found.tag(*number) == 0)
    }

    /// Whether a stream holds this message.
    #[must_use]
    pub fn holds(&self, stream: StreamId, number: MessageNumber) -> bool {
        let found = self.index.streams.get(stream);
        found.is_some_and(|found| found.position(number, &self.index.bodies).is_some())
    }

    /// Messages a stream holds.
    #[must_use]
    pub fn len(&self, stream: StreamId) -> usize {
        self.index.streams.get(stream).map_or(0, |stream| stream.entries().len())
    }

    /// Whether a stream holds nothing.
    #[must_use]
    pub fn is_empty(&self, stream: StreamId) -> bool {
        self.len(stream) == 0
    }

    /// Bytes of the records of a stream's messages.
    #[must_use]
    pub fn bytes(&self, stream: StreamId) -> u64 {
        self.index.streams.get(stream).map_or(0, |stream| stream.bytes)
    }

    /// A stream's messages, in order, each with its tag.
    pub fn messages(&self, stream: StreamId) -> impl Iterator<Item = (MessageNumber, u64)> {
        let found = self.index.streams.get(stream).into_iter();
        found.flat_map(|stream| {
            stream.entries().iter().map(|slot| {
                let number = self.index.bodies.at(*slot).number();
                (number, stream.tag(number))
            })
        })
    }

    /// All open streams with what they are.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, StreamKind, VhostId)> {
        self.index.streams.iter().map(|(id, stream)| (id, stream.kind, stream.vhost))
    }

    /// Whether something is settled or released that is not written yet: [`flush`](Self::flush) writes it.
    #[must_use]
    pub fn has_lazy(&self) -> bool {
        !self.acks.is_empty() || !self.forgets.is_empty()
    }

    /// Whether some message expires. Visits them all.
    #[must_use]
    pub fn has_expiring(&self) -> bool {
        self.index.bodies.any_expires()
    }

    /// Messages held by anybody.
    #[must_use]
    pub fn message_count(&self) -> usize {
        self.index.bodies.len()
    }

    /// States there are.
    #[must_use]
    pub fn state_count(&self) -> usize {
        self.index.states.len()
    }

    /// Origins that are not released.
    pub fn origins(&self) -> impl Iterator<Item = Origin> {
        self.index.origins().map(|(origin, _)| origin)
    }

    /// Bytes that wait for the disk: over a bound, publishers are to be paused.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.writer.backlog()
    }

    /// Bytes of live records, and of the segments in use.
    #[must_use]
    pub fn disk_bytes(&self) -> (u64, u64) {
        let used = self.chain.iter().map(|segment| u64::from(self.segments.at(*segment).bytes)).sum();
        (self.index.usage.bytes(), used)
    }

    /// Bytes of memory held by the index.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.index.memory()
    }

    fn check_sound(&self) -> Result<(), Refused> {
        if self.is_poisoned { Err(Refused::Poisoned) } else { Ok(()) }
    }

    /// No space, and no free segment that would do without: not if records are already waiting for one that could not be made.
    fn is_full(&self) -> bool {
        let has_spare = self.free.iter().any(|segment| self.is_usable(*segment));
        self.is_over_watermark
            || self.writer.is_stuck()
            || (!self.unmade.is_empty() && !has_spare)
            || self.waits_for_space()
    }

    /// Whether records wait for a segment that could not be made.
    fn waits_for_space(&self) -> bool {
        let is_waited_for =
            |segment: &SegmentId| self.writer.life().is_some_and(|life| life.segment == *segment);
        self.unmade.iter().any(is_waited_for)
    }

    /// Sees that a record of at most `size` bytes can be appended. What `grows` the log is refused while it is full.
    fn make_room(&mut self, size: u32, grows: bool) -> Result<(), Refused> {
        self.check_sound()?;
        // Copies do not wait for a file that may never be: what waits behind them would wait too.
        if grows && self.is_full() || self.is_copying && self.waits_for_space() {
            return Err(Refused::Full);
        }
        if !self.is_copying {
            self.compaction_credit = self.chain.len() + 1;
        }
        if self.writer.fits(size) { Ok(()) } else { self.rotate(size, grows) }
    }

    /// Whether a message should wait for a segment that is being made: to be asked again after the next
    /// [`handle_disk`](Self::handle_disk). If not, [`append`](Self::append) takes it or says why it does not. `bytes`: its head and
    /// payload, at most.
    ///
    /// So no message is in a commit that may never be written, and what shrinks the log has room until it is known whether there
    /// will be more.
    pub fn must_wait(&mut self, bytes: usize, holders: usize) -> bool {
        let Ok(size) = append::bound(append::message_len(bytes, holders)) else { return false };
        if self.is_poisoned || self.is_full() || self.has_room(size) {
            return false;
        }
        let Ok(needed) = segment_for(size) else { return false };
        if self.fit(needed).is_some() || self.cannot_make(needed) {
            return false;
        }
        let is_in_the_making = |file: &Segment| {
            !file.is_made && file.bytes >= needed && matches!(file.used, Use::Creating | Use::Live { .. })
        };
        self.segments.iter().any(|(_, file)| is_in_the_making(file))
            || self.create(needed.max(self.options.segment_bytes)).is_some()
    }

    /// Whether a record of `size` bytes fits into this segment, which is made, and leaves room in it for what shrinks the log, if
    /// there is no other.
    fn has_room(&self, size: u32) -> bool {
        let Some(life) = self.writer.life().filter(|life| self.segments.at(life.segment).is_made) else {
            return false;
        };
        let reserve = life.bytes / RESERVED_SHARE;
        let has_spare = self.free.iter().any(|segment| self.is_usable(*segment));
        self.writer.fits(if has_spare { size } else { size.saturating_add(reserve) })
    }

    /// A free segment that a record fits into.
    fn fit(&self, needed: u32) -> Option<usize> {
        let is_fit = |id: &SegmentId| self.segments.at(*id).bytes >= needed && self.is_usable(*id);
        self.free.iter().position(is_fit)
    }

    /// Whether there was no space for such a segment.
    fn cannot_make(&self, needed: u32) -> bool {
        self.unmade.iter().any(|segment| self.segments.at(*segment).bytes >= needed)
    }

    /// Begins another segment, one that a record of `size` bytes fits into.
    fn rotate(&mut self, size: u32, grows: bool) -> Result<(), Refused> {
        let needed = segment_for(size)?;
        let segment = match self.fit(needed).and_then(|at| self.free.remove(at)) {
            Some(segment) => segment,
            None if self.is_copying => {
                self.want_for_copies(needed);
                return Err(Refused::Full);
            }
            None if grows && self.cannot_make(needed) => return Err(Refused::Full),
            None => self.create(needed.max(self.options.segment_bytes)).ok_or(Refused::Full)?,
        };
        if let Some(life) = self.writer.life() {
            let end = self.writer.end();
            self.segments.at_mut(life.segment).used =
                Use::Live { sequence: life.sequence, tag: life.tag, end };
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let tag = self.key.hash(VhostId(0), &sequence.to_le_bytes());
        let file = self.segments.at_mut(segment);
        file.used = Use::Live { sequence, tag, end: file.bytes };
        let life = Life { segment, sequence, tag, bytes: file.bytes };
        self.chain.push_back(segment);
        self.writer.begin(life, self.index.next_message, self.index.next_generation);
        Ok(())
    }

    /// Has a segment made for copies, which do not wait for it in the log: compaction goes on when it is there.
    fn want_for_copies(&mut self, needed: u32) {
        self.copy_needs = needed;
        let is_on_its_way =
            self.segments.iter().any(|(_, file)| file.used == Use::Creating && file.bytes >= needed);
        if !is_on_its_way && !self.is_full() {
            self.create(needed.max(self.options.segment_bytes));
        }
    }

    /// Has a file made.
    fn create(&mut self, bytes: u32) -> Option<SegmentId> {
        let segment = self.segments.unused()?;
        self.segments.add(segment, Segment { bytes, used: Use::Creating, ..Segment::NONE });
        self.outputs.push_back(Disk::Create { segment, bytes });
        Some(segment)
    }

    fn on_created(&mut self, segment: SegmentId, result: Result<(), DiskError>) {
        let file = self.segments.at_mut(segment);
        let tried = self.unmade.iter().position(|unmade| *unmade == segment);
        self.attempts -= usize::from(tried.is_some());
        match result {
            Ok(()) => {
                tried.map(|at| self.unmade.swap_remove(at));
                file.is_made = true;
                if file.used == Use::Creating {
                    file.used = Use::Empty { last: None };
                    self.free.push_back(segment);
                }
            }
            Err(DiskError::Full) => {
                if tried.is_none() {
                    self.unmade.push(segment);
                }
                self.events.extend(self.writer.first_waiting(segment).map(Event::NoSpace));
            }
            Err(DiskError::Failed) => self.is_poisoned = true,
        }
    }

    /// Whether a free segment may be overwritten now.
    fn is_usable(&self, segment: SegmentId) -> bool {
        let file = self.segments.at(segment);
        let Use::Empty { last } = file.used else { return false };
        file.is_made && file.reads == 0 && last.is_none_or(|last| last < self.writer.safe_first())
    }

    /// The sequence of the oldest segment in use.
    fn first(&self) -> u64 {
        let oldest = self.chain.front().map(|segment| self.segments.at(*segment).used);
        match oldest {
            Some(Use::Live { sequence, .. }) => sequence,
            _ => self.next_sequence,
        }
    }

    /// Frees what is empty, copies what is in the way, and sees that the next segment is there in time.
    fn maintain(&mut self) {
        self.release_oldest();
        self.compact();
        let is_creating = self.segments.iter().any(|(_, file)| file.used == Use::Creating);
        let is_half_full = self.writer.life().is_some_and(|life| self.writer.end() > life.bytes / 2);
        if is_half_full && !is_creating && !self.free.iter().any(|segment| self.is_usable(*segment)) {
            self.create(self.options.segment_bytes);
        }
        let usable = self.free.iter().filter(|segment| self.is_usable(**segment)).count();
        let is_surplus = usable > usize::from(self.options.spare_segments_max).max(1);
        let surplus = self.free.iter().position(|segment| self.is_usable(*segment)).filter(|_| is_surplus);
        if let Some(segment) = surplus.and_then(|at| self.free.remove(at)) {
            self.segments.at_mut(segment).used = Use::Removing;
            self.outputs.push_back(Disk::Remove { segment });
        }
    }

    /// Takes segments without a live record off the old end, once what emptied them is safe.
    fn release_oldest(&mut self) {
        while self.chain.len() > 1 {
            let oldest = self.chain[0];
            if self.index.usage.count(oldest) > 0 {
                self.empty_since = None;
                return;
            }
            if self.empty_since.is_none() {
                let Ok(sequence) = self.flush() else { return };
                self.empty_since = Some(sequence);
            }
            if self.empty_since.is_some_and(|since| self.writer.synced() < since.0) {
                return;
            }
            let Use::Live { sequence, .. } = self.segments.at(oldest).used else {
                unreachable!("the chain is of live segments")
            };
            self.segments.at_mut(oldest).used = Use::Empty { last: Some(sequence) };
            self.chain.pop_front();
            self.free.push_back(oldest);
            self.empty_since = None;
            self.stop_compaction(oldest);
        }
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// What a segment is to have for a record of `size` bytes.
fn segment_for(size: u32) -> Result<u32, Refused> {
    let needed = pad(size + FRAME_HEADER).and_then(|size| size.checked_add(DATA_START));
    needed.ok_or(Refused::TooLarge)
}

#[cfg(test)]
pub(crate) mod tests;
