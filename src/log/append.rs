//! Records in: one function for each thing that can happen.

use super::record::{
    self, Holder, Kind, Location, MessageNumber, NO_ORIGIN, NO_STREAM, Origin, RECORD_BYTES_MAX,
    RECORD_HEADER,
};
use super::record::{StateId, StateKind, StreamId, StreamKind};
use super::{Log, Refused, Sequence};
use crate::base::{VhostId, Wall};

/// A message to be held by streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewMessage<'a> {
    /// Its virtual host.
    pub vhost: VhostId,
    /// When it expires; [`Wall::NEVER`] if it does not.
    pub expires_at: Wall,
    /// Of a QoS 2 message.
    pub origin: Option<Origin>,
    /// What its owner wants to know besides the payload: topic, properties.
    pub head: &'a [u8],
    /// Application message.
    pub payload: &'a [u8],
}

/// What had expired.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dropped {
    /// Messages.
    pub count: u32,
    /// Bytes of their records.
    pub bytes: u64,
}

/// Acknowledgements that wait for company, at most: 64 KiB of record.
const LAZY_MAX: usize = 2500;

impl Log {
    /// Opens a stream: it holds messages and owns states from here. `value` is what the owner wants back at recovery.
    ///
    /// # Errors
    /// If the record is not taken; nothing is opened then.
    pub fn open(
        &mut self,
        kind: StreamKind,
        vhost: VhostId,
        value: &[u8],
    ) -> Result<(StreamId, Sequence), Refused> {
        let size = bound(value.len())?;
        self.make_room(size, true)?;
        let generation = self.index.next_generation;
        let stream = self.index.streams.insert(generation);
        self.put_open(stream, kind, vhost, value, size);
        Ok((stream, self.writer.last()))
    }

    /// Gives a stream a new value: a session is resumed, or its client went away.
    ///
    /// # Errors
    /// If the record is not taken.
    pub fn reopen(&mut self, stream: StreamId, value: &[u8]) -> Result<Sequence, Refused> {
        let found = self.index.streams.get(stream).ok_or(Refused::NoStream)?;
        let (kind, vhost) = (found.kind, found.vhost);
        let size = bound(value.len())?;
        self.make_room(size, false)?;
        self.put_open(stream, kind, vhost, value, size);
        Ok(self.writer.last())
    }

    /// Closes a stream: its messages and states are gone in the same commit.
    ///
    /// # Errors
    /// If the record is not taken.
    pub fn close(&mut self, stream: StreamId) -> Result<Sequence, Refused> {
        if self.index.streams.get(stream).is_none() {
            return Err(Refused::NoStream);
        }
        let size = bound(0)?;
        self.make_room(size, false)?;
        self.writer.append(Kind::Close, &record::Close { stream }, size);
        self.acks.retain(|range| range.stream != stream);
        self.renumber_acks();
        self.index.close(stream);
        Ok(self.writer.last())
    }

    /// Keeps a state: of `owner`, with which it ends, or of nobody.
    ///
    /// # Errors
    /// If the record is not taken; nothing is kept then.
    pub fn put(
        &mut self,
        kind: StateKind,
        vhost: VhostId,
        owner: Option<StreamId>,
        value: &[u8],
    ) -> Result<(StateId, Sequence), Refused> {
        if owner.is_some_and(|owner| self.index.streams.get(owner).is_none()) {
            return Err(Refused::NoStream);
        }
        let size = bound(value.len())?;
        self.make_room(size, true)?;
        let id = self.index.states.reserve();
        let location = self.put_state(id, kind, vhost, owner, value, size);
        self.index.put(id, owner, location);
        Ok((id, self.writer.last()))
    }

    /// Gives a state that is there a new value, under the same kind, virtual host and owner.
    ///
    /// # Errors
    /// If the record is not taken; the old value stays then.
    ///
    /// # Panics
    /// If there is no such state.
    pub fn replace(
        &mut self,
        id: StateId,
        kind: StateKind,
        vhost: VhostId,
        value: &[u8],
    ) -> Result<Sequence, Refused> {
        let (_, slot) = self.index.states.find(id).expect("the owner of a state knows that it is there");
        let owner = slot.and_then(|slot| self.index.streams.id_at(slot));
        let size = bound(value.len())?;
        self.make_room(size, true)?;
        let location = self.put_state(id, kind, vhost, owner, value, size);
        self.index.put(id, owner, location);
        Ok(self.writer.last())
    }

    /// Ends a state; its id may be given to another one from here.
    ///
    /// # Errors
    /// If the record is not taken.
    pub fn clear(&mut self, id: StateId) -> Result<Sequence, Refused> {
        let size = bound(0)?;
        self.make_room(size, false)?;
        if self.index.clear(id) {
            self.writer.append(Kind::Clear, &record::Clear { id: id.0 }, size);
        }
        Ok(self.writer.last())
    }

    /// A message for `holders`, which come out sorted and each once. It is stored once.
    ///
    /// # Errors
    /// If the record is not taken; nobody holds it then.
    ///
    /// # Panics
    /// If it is for nobody.
    pub fn append(
        &mut self,
        message: &NewMessage<'_>,
        holders: &mut Vec<Holder>,
    ) -> Result<(MessageNumber, Sequence), Refused> {
        holders.sort_unstable_by_key(|holder| holder.stream);
        holders.dedup_by_key(|holder| holder.stream);
        assert!(!holders.is_empty(), "a message for nobody is not for the log");
        if holders.iter().any(|holder| self.index.streams.get(holder.stream).is_none()) {
            return Err(Refused::NoStream);
        }
        let size = bound(message_len(message.head.len() + message.payload.len(), holders.len()))?;
        self.make_room(size, true)?;
        let number = MessageNumber(self.index.next_message);
        let record = record::Message {
            number: number.0,
            expires_at: message.expires_at.0,
            vhost: message.vhost.0,
            origin: message.origin.unwrap_or(NO_ORIGIN),
            holders,
            head: message.head,
            payload: message.payload,
        };
        let location = self.writer.append(Kind::Message, &record, size);
        self.index.message(number, message.expires_at, message.origin, holders.iter().copied(), location);
        Ok((number, self.writer.last()))
    }

    /// A message is settled in a stream. Lazy: it is written together with what comes next, or at [`flush`](Self::flush); lost in
    /// a crash, the message is delivered again. `false` if the stream does not hold it.
    ///
    /// # Errors
    /// If the log is poisoned.
    pub fn acknowledge(&mut self, stream: StreamId, number: MessageNumber) -> Result<bool, Refused> {
        self.check_sound()?;
        let Some(found) = self.index.streams.get(stream) else { return Ok(false) };
        let Some(position) = found.position(number, &self.index.bodies) else { return Ok(false) };
        self.note_ack(stream, position);
        self.index.drop_entry(stream, position);
        self.spill()?;
        Ok(true)
    }

    /// Something has begun with a message in a stream, under a tag; 0 takes it back. What the stream has settled is on disk no later:
    /// the tag may have been that of one of those.
    ///
    /// # Errors
    /// If the record is not taken.
    pub fn mark(&mut self, stream: StreamId, number: MessageNumber, tag: u64) -> Result<Sequence, Refused> {
        // With what comes next is not soon enough where a new segment ends the commit.
        if self.index.streams.get(stream).is_some_and(|stream| stream.pending_ack != 0) {
            self.flush()?;
        }
        let size = bound(0)?;
        self.make_room(size, false)?;
        if self.index.mark(stream, number, tag) {
            self.writer.append(Kind::Mark, &record::Mark { stream, number: number.0, tag }, size);
        }
        Ok(self.writer.last())
    }

    /// Whether a message with this origin is here: then the publish is a repetition, and done when everything up to
    /// [`last`](Self::last) is committed.
    #[must_use]
    pub fn has_origin(&self, origin: Origin) -> bool {
        self.index.origin(origin).is_some()
    }

    /// An origin is released. Lazy, as [`acknowledge`](Self::acknowledge) is: if PUBCOMP must not leave before, flush and wait.
    ///
    /// # Errors
    /// If the log is poisoned.
    pub fn forget(&mut self, origin: Origin) -> Result<bool, Refused> {
        self.check_sound()?;
        let is_there = self.index.forget(origin);
        if is_there {
            self.forgets.push(origin);
            self.spill()?;
        }
        Ok(is_there)
    }

    /// Writes what is lazy with the next commit; that is on disk when the sequence is committed.
    ///
    /// # Errors
    /// If the log is poisoned.
    pub fn flush(&mut self) -> Result<Sequence, Refused> {
        if !self.acks.is_empty() {
            let size = bound(self.acks.len() * size_of::<record::ArchivedRange>())?;
            self.make_room(size, false)?;
            let ranges = std::mem::take(&mut self.acks);
            self.writer.append(Kind::Acknowledged, &record::Acknowledged { ranges: &ranges }, size);
            for range in &ranges {
                if let Some(stream) = self.index.streams.get_mut(range.stream) {
                    stream.pending_ack = 0;
                }
            }
            (self.acks = ranges, self.acks.clear()).1
        }
        if !self.forgets.is_empty() {
            let size = bound(self.forgets.len() * size_of::<record::ArchivedOrigin>())?;
            self.make_room(size, false)?;
            let origins = std::mem::take(&mut self.forgets);
            self.writer.append(Kind::Forget, &record::Forget { origins: &origins }, size);
        }
        self.check_sound()?;
        Ok(self.writer.last())
    }

    pub(super) fn put_open(
        &mut self,
        stream: StreamId,
        kind: StreamKind,
        vhost: VhostId,
        value: &[u8],
        size: u32,
    ) {
        let record = record::Open { stream, kind: kind as u8, vhost: vhost.0, value };
        let location = self.writer.append(Kind::Open, &record, size);
        self.index.open(stream, kind, vhost, location);
    }

    pub(super) fn put_state(
        &mut self,
        id: StateId,
        kind: StateKind,
        vhost: VhostId,
        owner: Option<StreamId>,
        value: &[u8],
        size: u32,
    ) -> Location {
        let owner = owner.unwrap_or(NO_STREAM);
        let record = record::Put { id: id.0, owner, kind: kind as u8, vhost: vhost.0, value };
        self.writer.append(Kind::Put, &record, size)
    }

    /// Notes that the entry at `position` is settled: in the stream's last range if nothing that lives is between.
    fn note_ack(&mut self, id: StreamId, position: usize) {
        let stream = self.index.streams.get_mut(id).expect("the caller found it");
        let number_of = |position: usize| {
            let slot = stream.entries().get(position)?;
            Some(self.index.bodies.at(*slot).number().0)
        };
        let number = number_of(position).expect("the caller found it");
        let before = position.checked_sub(1).and_then(number_of);
        let last = stream.pending_ack.checked_sub(1).and_then(|at| self.acks.get_mut(at as usize));
        if let Some(range) =
            last.filter(|range| range.last < number && before.is_none_or(|n| n < range.first))
        {
            range.last = number;
            return;
        }
        self.acks.push(record::Range { stream: id, first: number, last: number });
        stream.pending_ack = u32::try_from(self.acks.len()).expect("spilled long before");
    }

    fn renumber_acks(&mut self) {
        for (at, range) in (1..).zip(&self.acks) {
            if let Some(stream) = self.index.streams.get_mut(range.stream) {
                stream.pending_ack = at;
            }
        }
    }

    fn spill(&mut self) -> Result<(), Refused> {
        if self.acks.len() + self.forgets.len() > LAZY_MAX {
            self.flush()?;
        }
        Ok(())
    }
}

/// The size of a record with so many bytes besides its fixed part, at most.
pub(super) fn bound(len: usize) -> Result<u32, Refused> {
    const FIXED: u32 = 64;
    const _: () = assert!(size_of::<record::ArchivedMessage<'_>>() <= FIXED as usize);
    let size = u32::try_from(len).ok().and_then(|len| len.checked_add(RECORD_HEADER + FIXED));
    size.filter(|size| *size <= RECORD_BYTES_MAX).ok_or(Refused::TooLarge)
}

/// What a message adds to the fixed part of its record; `bytes`: its head and payload.
pub(super) fn message_len(bytes: usize, holders: usize) -> usize {
    bytes + holders * size_of::<record::ArchivedHolder>()
}
