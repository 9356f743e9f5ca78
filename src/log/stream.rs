//! Streams: who holds which messages, in order. A held message costs 4 bytes here, and [`Body`](super::bodies::Body) once.

use super::bodies::Bodies;
use super::record::{Location, MessageNumber, StreamId, StreamKind};
use super::states::Owned;
use crate::base::VhostId;
use std::collections::VecDeque;

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) generation: u32,
    /// Where its `Open` record is. In recovery a stream may be named before that is found.
    pub(super) opened: Option<Location>,
    pub(super) kind: StreamKind,
    pub(super) vhost: VhostId,
    /// Slots in [`Bodies`], by number.
    entries: VecDeque<u32>,
    /// Sizes of the records of its messages.
    pub(super) bytes: u64,
    /// By number: what is in flight, mostly settled from the front.
    pub(super) marks: VecDeque<(MessageNumber, u64)>,
    pub(super) states: Owned,
    /// Its last range among the acknowledgements that wait to be written, plus 1.
    pub(super) pending_ack: u32,
}

impl Stream {
    pub(super) fn new(generation: u32) -> Self {
        Self {
            generation,
            opened: None,
            kind: StreamKind::Session,
            vhost: VhostId(0),
            entries: VecDeque::new(),
            bytes: 0,
            marks: VecDeque::new(),
            states: Owned::default(),
            pending_ack: 0,
        }
    }

    /// Slots of its messages, in order.
    pub(super) fn entries(&self) -> &VecDeque<u32> {
        &self.entries
    }

    /// Holds a message, at its place by number. `false` if it does so already.
    pub(super) fn insert(&mut self, slot: u32, bodies: &Bodies) -> bool {
        let number = bodies.at(slot).number();
        if self.entries.len() == self.entries.capacity() {
            // An eighth, not twice: what waits for offline sessions is most of a broker's memory.
            self.entries.reserve_exact((self.entries.len() / 8).max(4));
        }
        if self.entries.back().is_none_or(|last| bodies.at(*last).number() < number) {
            self.entries.push_back(slot);
        } else {
            match self.entries.binary_search_by_key(&number, |other| bodies.at(*other).number()) {
                Ok(_) => return false,
                Err(at) => self.entries.insert(at, slot),
            }
        }
        self.bytes += u64::from(bodies.at(slot).location().size);
        true
    }

    /// Where the message is among its entries.
    pub(super) fn position(&self, number: MessageNumber, bodies: &Bodies) -> Option<usize> {
        let first = bodies.at(*self.entries.front()?).number();
        if first == number {
            return Some(0);
        }
        self.entries.binary_search_by_key(&number, |slot| bodies.at(*slot).number()).ok()
    }

    /// The first entry with this number or a larger one.
    pub(super) fn position_from(&self, number: MessageNumber, bodies: &Bodies) -> usize {
        self.entries.partition_point(|slot| bodies.at(*slot).number() < number)
    }

    /// Gives up the entry at `position`; gives its slot. The caller releases the body.
    pub(super) fn remove(&mut self, position: usize, bodies: &Bodies) -> u32 {
        let slot = if position == 0 { self.entries.pop_front() } else { self.entries.remove(position) };
        let slot = slot.expect("the caller found it");
        let body = bodies.at(slot);
        // A copy made by compaction has fewer holders and a smaller record: see `resize`.
        self.bytes = self.bytes.saturating_sub(u64::from(body.location().size));
        if self.entries.is_empty() {
            self.bytes = 0;
        }
        self.unmark(body.number());
        if self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        slot
    }

    /// The record of a message it holds has another size now.
    pub(super) fn resize(&mut self, old: u32, new: u32) {
        self.bytes = (self.bytes + u64::from(new)).saturating_sub(u64::from(old));
    }

    /// The message's tag; 0 if nothing has begun with it.
    pub(super) fn tag(&self, number: MessageNumber) -> u64 {
        let found = self.marks.binary_search_by_key(&number, |(number, _)| *number);
        found.map_or(0, |at| self.marks[at].1)
    }

    /// Sets a message's tag.
    pub(super) fn mark(&mut self, number: MessageNumber, tag: u64) {
        match self.marks.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) if tag == 0 => drop(self.marks.remove(at)),
            Ok(at) => self.marks[at].1 = tag,
            Err(_) if tag == 0 => {}
            Err(at) => self.marks.insert(at, (number, tag)),
        }
    }

    fn unmark(&mut self, number: MessageNumber) {
        if !self.marks.is_empty() {
            self.mark(number, 0);
        }
    }

    /// Bytes it owns.
    pub(super) fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<u32>() + self.marks.capacity() * size_of::<(MessageNumber, u64)>()
    }
}

/// All streams by slot.
#[derive(Default, Debug)]
pub(super) struct Streams {
    slots: super::chunks::Chunks<Option<Stream>>,
    free: Vec<u32>,
}

impl Streams {
    /// Puts a new stream in.
    pub(super) fn insert(&mut self, generation: u32) -> StreamId {
        let slot = self.free.pop().unwrap_or_else(|| self.slots.push(None));
        *self.slots.get_mut(slot).expect("free or pushed above") = Some(Stream::new(generation));
        StreamId { slot, generation }
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.slots.get(id.slot)?.as_ref().filter(|stream| stream.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.slots.get_mut(id.slot)?.as_mut().filter(|stream| stream.generation == id.generation)
    }

    /// Whatever lives in the slot.
    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut Stream> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let slot = self.slots.get_mut(id.slot)?;
        if slot.as_ref()?.generation != id.generation {
            return None;
        }
        self.free.push(id.slot);
        slot.take()
    }

    /// In recovery, where streams come in any order: the stream, made if it is not there. `None` if a later generation is; an
    /// earlier one is to be removed first.
    pub(super) fn place(&mut self, id: StreamId) -> Result<&mut Stream, Option<StreamId>> {
        while self.slots.end() <= id.slot {
            self.slots.push(None);
        }
        let slot = self.slots.get_mut(id.slot).expect("pushed above");
        let stream = slot.get_or_insert_with(|| Stream::new(id.generation));
        match stream.generation.cmp(&id.generation) {
            std::cmp::Ordering::Equal => Ok(stream),
            std::cmp::Ordering::Less => Err(Some(StreamId { slot: id.slot, generation: stream.generation })),
            std::cmp::Ordering::Greater => Err(None),
        }
    }

    /// After recovery: finds the free slots.
    pub(super) fn collect_free(&mut self) {
        let is_free = |slot: &u32| self.slots.get(*slot).is_none_or(Option::is_none);
        self.free = (0..self.slots.end()).rev().filter(is_free).collect();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (StreamId, &Stream)> {
        (0..).zip(self.slots.iter()).filter_map(|(slot, stream)| {
            let stream = stream.as_ref()?;
            Some((StreamId { slot, generation: stream.generation }, stream))
        })
    }

    /// One past the last slot.
    pub(super) fn end(&self) -> u32 {
        self.slots.end()
    }

    /// The stream that lives in the slot.
    pub(super) fn id_at(&self, slot: u32) -> Option<StreamId> {
        let stream = self.slots.get(slot)?.as_ref()?;
        Some(StreamId { slot, generation: stream.generation })
    }

    pub(super) fn memory(&self) -> usize {
        self.slots.memory() + self.iter().map(|(_, stream)| stream.memory()).sum::<usize>()
    }
}
