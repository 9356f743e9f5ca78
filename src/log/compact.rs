//! Compaction: what still counts in the oldest segment is copied behind, and the segment is free.
//!
//! Only the oldest: a record that takes something back is never older than what it takes back, so once it is in the oldest
//! segment it has nothing left to do. The log is a ring whose dead part is cut off at the old end.
//!
//! A copy is an ordinary record. The original counts until the copy is committed, and is there until the segment is used again,
//! so a crash at any moment leaves at least one. Found twice, the later one is the place.

use super::append::{bound, message_len};
use super::error::Damage;
use super::frame::{Found, Scanner, Step};
use super::record::{self, Entry, Holder, Kind, Location, MessageNumber, NO_ORIGIN, NO_STREAM, Origin};
use super::record::{StateId, StateKind, StreamId, StreamKind};
use super::segment::{DATA_START, Use};
use super::{Event, Health, Log, Refused, Sequence};
use crate::base::{VhostId, Wall};
use std::collections::BTreeMap;

const CHUNK_BYTES: u32 = 256 << 10;
/// Bytes copied before the next are waited for.
const COPY_BYTES: u32 = 1 << 20;
/// A full log is compacted while this share is dead.
const FULL_LIVE_PERCENT_MAX: u64 = 90;

/// A compaction on its way.
#[derive(Debug)]
pub(super) struct Compaction {
    segment: super::SegmentId,
    sequence: u64,
    scanner: Scanner,
    is_reading: bool,
    /// Goes on when this is committed: copies leave room for others.
    resume_at: Sequence,
    /// Copied since. Many frames' records go into one commit: what lone commits wasted is what is won.
    copied: u32,
}

impl Log {
    /// Goes on with a compaction, or begins one if it is worth it.
    pub(super) fn compact(&mut self) {
        if self.compaction.is_none() {
            self.begin_compaction();
        }
        while let Some(compaction) = &mut self.compaction {
            if compaction.is_reading || compaction.resume_at > self.writer.committed() {
                return;
            }
            let segment = compaction.segment;
            match compaction.scanner.step() {
                Step::Need { offset, bytes } => {
                    compaction.is_reading = true;
                    self.read(segment, offset, bytes, None);
                    return;
                }
                Step::Frame(found) => {
                    if self.copy_frame(&found).is_err() {
                        // No room even for copies: later.
                        self.compaction = None;
                        return;
                    }
                }
                Step::Junk { .. } => {}
                Step::End => {
                    self.compacted = compaction.sequence;
                    self.compaction = None;
                    self.give_up(segment);
                }
            }
        }
    }

    /// The segment is not in use any more.
    pub(super) fn stop_compaction(&mut self, segment: super::SegmentId) {
        if self
            .compaction
            .as_ref()
            .is_some_and(|compaction| compaction.segment == segment && !compaction.is_reading)
        {
            self.compaction = None;
        }
    }

    /// What compaction asked for.
    pub(super) fn feed_compaction(&mut self, bytes: Result<Vec<u8>, Damage>) {
        let Some(compaction) = &mut self.compaction else { return };
        compaction.is_reading = false;
        match bytes {
            Ok(bytes) => compaction.scanner.feed(&bytes),
            Err(damage) => {
                self.events.push_back(Event::Damaged(damage));
                let Damage::Bytes { bytes, .. } = damage else { return };
                compaction.scanner.feed(&vec![0; bytes as usize]);
            }
        }
    }

    fn begin_compaction(&mut self) {
        let Some(oldest) = self.chain.front().copied().filter(|_| self.chain.len() > 1) else { return };
        let Use::Live { sequence, tag, end } = self.segments.at(oldest).used else { return };
        let (live, used) = self.disk_bytes();
        let is_wasteful = self.chain.len() > usize::from(self.options.segments_min)
            && live * 100 < used * u64::from(self.options.live_percent_min);
        let is_pressed = self.health() == Health::Full && live * 100 < used * FULL_LIVE_PERCENT_MAX;
        let is_done = self.compacted == sequence || self.index.usage.count(oldest) == 0;
        // What is not written yet cannot be read.
        let is_done = is_done || self.writer.is_waiting(oldest);
        // It would be read for nothing again.
        let is_done = is_done || (self.copy_needs > 0 && self.fit(self.copy_needs).is_none());
        if is_done || self.compaction_credit == 0 || !(is_wasteful || is_pressed) {
            return;
        }
        self.compaction_credit -= 1;
        self.copy_needs = 0;
        let scanner = Scanner::new(tag, DATA_START..end, CHUNK_BYTES);
        self.compaction = Some(Compaction {
            segment: oldest,
            sequence,
            scanner,
            is_reading: false,
            resume_at: Sequence(0),
            copied: 0,
        });
    }

    /// Copies what counts in a frame.
    fn copy_frame(&mut self, found: &Found) -> Result<(), Refused> {
        // So that a copy's holders are those that the records before it leave.
        self.flush()?;
        let Some(mut compaction) = self.compaction.take() else { return Ok(()) };
        let records = compaction.scanner.records(found);
        let mut result = Ok(());
        self.is_copying = true;
        for (at, entry) in record::entries(records) {
            let Some(entry) = entry else { break };
            let offset = found.offset + super::frame::FRAME_HEADER + at;
            let location = Location { segment: compaction.segment, offset, size: entry.size };
            match self.copy(&entry, location) {
                Ok(Some(true)) => compaction.copied += entry.size,
                Ok(_) => {}
                Err(refused) => {
                    result = Err(refused);
                    break;
                }
            }
        }
        self.is_copying = false;
        if compaction.copied >= COPY_BYTES {
            compaction.resume_at = self.writer.last();
            compaction.copied = 0;
        }
        self.compaction = Some(compaction);
        result
    }

    /// Copies a record if it counts; says whether it did. `None` if it makes no sense.
    fn copy(&mut self, entry: &Entry<'_>, location: Location) -> Result<Option<bool>, Refused> {
        match entry.kind {
            Kind::Open => self.copy_open(entry, location),
            Kind::Put => self.copy_put(entry, location),
            Kind::Message => self.copy_message(entry, location),
            Kind::Origin => {
                let Some(kept) = entry.access::<record::ArchivedKeptOrigin>() else { return Ok(None) };
                self.copy_origin(Origin::from(&kept.origin), location).map(Some)
            }
            Kind::Close | Kind::Clear | Kind::Acknowledged | Kind::Mark | Kind::Forget => Ok(Some(false)),
        }
    }

    fn copy_open(&mut self, entry: &Entry<'_>, location: Location) -> Result<Option<bool>, Refused> {
        let Some(open) = entry.access::<record::ArchivedOpen<'_>>() else { return Ok(None) };
        let Some(kind) = StreamKind::decode(open.kind) else { return Ok(None) };
        let id = StreamId::from(&open.stream);
        if self.index.streams.get(id).is_none_or(|stream| stream.opened != Some(location)) {
            return Ok(Some(false));
        }
        let size = bound(open.value.len())?;
        self.make_room(size, false)?;
        self.put_open(id, kind, VhostId(open.vhost.to_native()), &open.value, size);
        Ok(Some(true))
    }

    fn copy_put(&mut self, entry: &Entry<'_>, location: Location) -> Result<Option<bool>, Refused> {
        let Some(put) = entry.access::<record::ArchivedPut<'_>>() else { return Ok(None) };
        let Some(kind) = StateKind::decode(put.kind) else { return Ok(None) };
        let id = StateId(put.id.to_native());
        if self.index.states.find(id).is_none_or(|(current, _)| current != location) {
            return Ok(Some(false));
        }
        let owner = Some(StreamId::from(&put.owner)).filter(|owner| *owner != NO_STREAM);
        let size = bound(put.value.len())?;
        self.make_room(size, false)?;
        let copy = self.put_state(id, kind, VhostId(put.vhost.to_native()), owner, &put.value, size);
        self.index.put(id, owner, copy);
        Ok(Some(true))
    }

    fn copy_message(&mut self, entry: &Entry<'_>, location: Location) -> Result<Option<bool>, Refused> {
        let Some(message) = entry.access::<record::ArchivedMessage<'_>>() else { return Ok(None) };
        let number = MessageNumber(message.number.to_native());
        let origin = Origin::from(&message.origin);
        let mut slot = None;
        let mut holders = Vec::new();
        for holder in message.holders.iter().map(Holder::from) {
            let Some(stream) = self.index.streams.get(holder.stream) else { continue };
            let Some(position) = stream.position(number, &self.index.bodies) else { continue };
            slot = Some(stream.entries()[position]);
            holders.push(Holder { tag: stream.tag(number), ..holder });
        }
        let slot = slot.filter(|slot| self.index.bodies.at(*slot).location() == location);
        let Some(slot) = slot else { return self.copy_origin(origin, location).map(Some) };
        let is_origin_here = origin != NO_ORIGIN && self.index.origin(origin) == Some(location);
        let size = bound(message_len(message.head.len() + message.payload.len(), holders.len()))?;
        self.make_room(size, false)?;
        let record = record::Message {
            number: number.0,
            expires_at: message.expires_at.to_native(),
            vhost: message.vhost.to_native(),
            origin: if is_origin_here { origin } else { NO_ORIGIN },
            holders: &holders,
            head: &message.head,
            payload: &message.payload,
        };
        let copy = self.writer.append(Kind::Message, &record, size);
        if is_origin_here {
            self.index.keep_origin(origin, copy);
        }
        self.index.relocate(slot, holders.iter().map(|holder| holder.stream), copy);
        Ok(Some(true))
    }

    /// Copies an origin without its message.
    fn copy_origin(&mut self, origin: Origin, location: Location) -> Result<bool, Refused> {
        if origin == NO_ORIGIN || self.index.origin(origin) != Some(location) {
            return Ok(false);
        }
        let size = bound(0)?;
        self.make_room(size, false)?;
        let copy = self.writer.append(Kind::Origin, &record::KeptOrigin { origin }, size);
        self.index.keep_origin(origin, copy);
        Ok(true)
    }

    /// A segment was read from end to end: what still points there is in what cannot be read any more.
    fn give_up(&mut self, segment: super::SegmentId) {
        let is_oldest = self.chain.front() == Some(&segment);
        if !is_oldest || self.index.usage.count(segment) == 0 {
            return;
        }
        let mut lost = Vec::new();
        for (id, stream) in self.index.streams.iter() {
            if stream.opened.is_some_and(|location| location.segment == segment) {
                self.events.push_back(Event::LostStream(id));
            }
            let bodies = stream.entries().iter().map(|slot| self.index.bodies.at(*slot));
            lost.extend(
                bodies.filter(|body| body.location().segment == segment).map(|body| (id, body.number())),
            );
        }
        let mut begun: BTreeMap<MessageNumber, Vec<Holder>> = BTreeMap::new();
        for (stream, number) in lost {
            let tag = self.index.streams.get(stream).map_or(0, |stream| stream.tag(number));
            if tag == 0 {
                // What could not be read now may be after a restart.
                let _ = self.acknowledge(stream, number);
            } else {
                begun.entry(number).or_default().push(Holder { stream, note: 0, tag });
            }
            self.events.push_back(Event::LostMessage { stream, number });
        }
        for (number, holders) in begun {
            // Refused, it stays where it is, and with it the segment.
            let _ = self.keep_begun(number, &holders);
        }
        let _ = self.flush();
        let origins = self.index.origins().filter(|(_, location)| location.segment == segment);
        for (origin, location) in origins.collect::<Vec<_>>() {
            // Refused, it stays where it is, and with it the segment.
            let _ = self.copy_origin(origin, location);
        }
        let states = self.index.states.iter().filter(|(_, location)| location.segment == segment);
        self.events.extend(states.map(|(id, _)| Event::LostState(id)));
    }

    /// A message is lost with which something has begun: its tag is its holders' until they settle it. What is kept has neither head
    /// nor payload.
    fn keep_begun(&mut self, number: MessageNumber, holders: &[Holder]) -> Result<(), Refused> {
        let Some(found) = holders.first().and_then(|holder| self.index.streams.get(holder.stream)) else {
            return Ok(());
        };
        let Some(position) = found.position(number, &self.index.bodies) else { return Ok(()) };
        let slot = found.entries()[position];
        let size = bound(message_len(0, holders.len()))?;
        self.make_room(size, false)?;
        let record = record::Message {
            number: number.0,
            expires_at: Wall::NEVER.0,
            vhost: 0,
            origin: NO_ORIGIN,
            holders,
            head: &[],
            payload: &[],
        };
        let kept = self.writer.append(Kind::Message, &record, size);
        self.index.relocate(slot, holders.iter().map(|holder| holder.stream), kept);
        Ok(())
    }
}
