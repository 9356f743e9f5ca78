//! What a log's records add up to: streams, messages, states, origins, and how much of each segment still counts.
//!
//! Each kind of record has one function here, used when it is appended and again when it is read at recovery: what is recovered
//! is what was there. In recovery a stream may be named before its `Open` record is found, which compaction moved behind.

use super::bodies::Bodies;
use super::disk::SegmentId;
use super::record::{Holder, Location, MessageNumber, NO_STREAM, Origin, StateId, StreamId, StreamKind};
use super::states::States;
use super::stream::{Stream, Streams};
use crate::base::{HashKey, VhostId, Wall};
use hashbrown::{HashMap, HashTable};

/// How much of each segment is live.
#[derive(Default, Debug)]
pub(super) struct Usage {
    segments: Vec<(u64, u32)>,
    bytes: u64,
}

impl Usage {
    fn add(&mut self, location: Location) {
        let index = location.segment.index();
        if self.segments.len() <= index {
            self.segments.resize(index + 1, (0, 0));
        }
        let (bytes, count) = &mut self.segments[index];
        *bytes += u64::from(location.size);
        *count += 1;
        self.bytes += u64::from(location.size);
    }

    fn sub(&mut self, location: Location) {
        let (bytes, count) = &mut self.segments[location.segment.index()];
        *bytes -= u64::from(location.size);
        *count -= 1;
        self.bytes -= u64::from(location.size);
    }

    /// Live records of a segment.
    pub(super) fn count(&self, segment: SegmentId) -> u32 {
        self.segments.get(segment.index()).map_or(0, |(_, count)| *count)
    }

    /// Bytes of live records.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The sum of all records.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) streams: Streams,
    pub(super) bodies: Bodies,
    pub(super) states: States,
    origins: HashTable<(Origin, Location)>,
    key: HashKey,
    pub(super) usage: Usage,
    pub(super) next_message: u64,
    pub(super) next_generation: u32,
    /// Only in recovery: the slots of messages by number.
    recovering: Option<HashMap<u64, u32>>,
}

impl Index {
    pub(super) fn new(key: HashKey, is_recovering: bool) -> Self {
        Self {
            streams: Streams::default(),
            bodies: Bodies::default(),
            states: States::default(),
            origins: HashTable::new(),
            key,
            usage: Usage::default(),
            next_message: 1,
            next_generation: 0,
            recovering: is_recovering.then(HashMap::new),
        }
    }

    /// A stream begins, or has a new value.
    pub(super) fn open(&mut self, id: StreamId, kind: StreamKind, vhost: VhostId, location: Location) {
        self.next_generation = self.next_generation.max(id.generation.wrapping_add(1));
        let Some(stream) = self.stream(id) else { return };
        (stream.kind, stream.vhost) = (kind, vhost);
        let old = stream.opened.replace(location);
        self.usage.add(location);
        if let Some(old) = old {
            self.usage.sub(old);
        }
    }

    /// A stream ends. `false` if it is not there.
    pub(super) fn close(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get(id) else { return false };
        let mut next = States::first(stream.states);
        while let Some(state) = next {
            next = self.states.next(state);
            self.clear(state);
        }
        let stream = self.streams.remove(id).expect("found above");
        for slot in stream.entries() {
            self.release(*slot);
        }
        if let Some(location) = stream.opened {
            self.usage.sub(location);
        }
        true
    }

    /// A state begins, or has a new value.
    /// `false` if its owner is closed, which only recovery meets.
    pub(super) fn put(&mut self, id: StateId, owner: Option<StreamId>, location: Location) -> bool {
        if self.recovering.is_some() {
            self.states.make_room(id);
            if owner.is_some_and(|owner| self.stream(owner).is_none()) {
                return false;
            }
        }
        match self.states.find(id) {
            Some((old, slot)) if slot == owner.map(|owner| owner.slot) => {
                self.states.relocate(id, location);
                self.usage.sub(old);
            }
            found => {
                if found.is_some() {
                    self.clear(id);
                }
                let owned =
                    owner.and_then(|owner| self.streams.get_mut(owner)).map(|stream| &mut stream.states);
                self.states.insert(id, location, owner.map(|owner| owner.slot).zip(owned));
            }
        }
        self.usage.add(location);
        true
    }

    /// A state ends. `false` if it is not there.
    pub(super) fn clear(&mut self, id: StateId) -> bool {
        let Some((location, owner)) = self.states.find(id) else { return false };
        let owned = owner.and_then(|slot| self.streams.at_mut(slot)).map(|stream| &mut stream.states);
        self.states.remove(id, owned);
        self.usage.sub(location);
        true
    }

    /// A message arrives, or is found again where compaction put it.
    pub(super) fn message(
        &mut self,
        number: MessageNumber,
        expires_at: Wall,
        origin: Option<Origin>,
        holders: impl Iterator<Item = Holder>,
        location: Location,
    ) {
        self.next_message = self.next_message.max(number.0 + 1);
        if let Some(origin) = origin {
            self.keep_origin(origin, location);
        }
        let known = self.recovering.as_ref().and_then(|slots| slots.get(&number.0).copied());
        if let Some(slot) = known {
            return self.relocate(slot, holders.map(|holder| holder.stream), location);
        }
        let slot = self.bodies.insert(number, location, expires_at);
        let mut is_held = false;
        for holder in holders {
            self.stream(holder.stream);
            let Some(stream) = self.streams.get_mut(holder.stream) else { continue };
            if stream.insert(slot, &self.bodies) {
                stream.mark(number, holder.tag);
                self.bodies.hold(slot);
                is_held = true;
            }
        }
        if !is_held {
            self.bodies.remove(slot);
            return;
        }
        self.usage.add(location);
        if let Some(slots) = &mut self.recovering {
            slots.insert(number.0, slot);
        }
    }

    /// A message was copied; `holders` are all that hold it.
    pub(super) fn relocate(
        &mut self,
        slot: u32,
        holders: impl Iterator<Item = StreamId>,
        location: Location,
    ) {
        let old = self.bodies.at(slot).location();
        for id in holders {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.resize(old.size, location.size);
            }
        }
        self.bodies.relocate(slot, location);
        self.usage.sub(old);
        self.usage.add(location);
    }

    /// Everything a stream holds with numbers from `first` to `last` is settled. Gives how many there were.
    pub(super) fn acknowledge(&mut self, id: StreamId, first: MessageNumber, last: MessageNumber) -> u32 {
        self.next_message = self.next_message.max(last.0.saturating_add(1)).min(1 << 48);
        let mut count = 0;
        while let Some(stream) = self.streams.get_mut(id) {
            let position = stream.position_from(first, &self.bodies);
            let Some(slot) = stream.entries().get(position) else { break };
            if self.bodies.at(*slot).number() > last {
                break;
            }
            self.drop_entry(id, position);
            count += 1;
        }
        count
    }

    /// A stream gives up the entry at `position`.
    pub(super) fn drop_entry(&mut self, id: StreamId, position: usize) {
        let stream = self.streams.get_mut(id).expect("the caller found it");
        let slot = stream.remove(position, &self.bodies);
        self.release(slot);
    }

    /// Something has begun with a message. `false` if the stream does not hold it.
    pub(super) fn mark(&mut self, id: StreamId, number: MessageNumber, tag: u64) -> bool {
        let Some(stream) = self.streams.get_mut(id) else { return false };
        if stream.position(number, &self.bodies).is_none() {
            return false;
        }
        stream.mark(number, tag);
        true
    }

    /// Whether a message with this origin came, and is not released.
    pub(super) fn origin(&self, origin: Origin) -> Option<Location> {
        let hash = self.hash(origin);
        self.origins.find(hash, |(other, _)| *other == origin).map(|(_, location)| *location)
    }

    /// An origin is at this place.
    pub(super) fn keep_origin(&mut self, origin: Origin, location: Location) {
        self.forget(origin);
        let (hash, key) = (self.hash(origin), self.key);
        self.origins.insert_unique(hash, (origin, location), |(origin, _)| hash_of(key, *origin));
        self.usage.add(location);
    }

    /// An origin is released. `false` if it is not there.
    pub(super) fn forget(&mut self, origin: Origin) -> bool {
        let hash = self.hash(origin);
        let Ok(entry) = self.origins.find_entry(hash, |(other, _)| *other == origin) else { return false };
        let ((_, location), _) = entry.remove();
        self.usage.sub(location);
        true
    }

    /// All origins that are not released, and where they are.
    pub(super) fn origins(&self) -> impl Iterator<Item = (Origin, Location)> {
        self.origins.iter().copied()
    }

    /// Recovery is over: streams that were named but never opened are dropped; gives how many.
    pub(super) fn finish(&mut self) -> usize {
        let orphans: Vec<StreamId> =
            self.streams.iter().filter(|(_, stream)| stream.opened.is_none()).map(|(id, _)| id).collect();
        for id in &orphans {
            self.close(*id);
        }
        self.recovering = None;
        self.streams.collect_free();
        self.states.collect_free();
        orphans.len()
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.streams.memory() + self.bodies.memory() + self.states.memory() + self.origins.allocation_size()
    }

    /// The stream; in recovery made if it is not there, in place of one of an earlier generation.
    fn stream(&mut self, id: StreamId) -> Option<&mut Stream> {
        if self.recovering.is_none() || id == NO_STREAM {
            return self.streams.get_mut(id);
        }
        // Also of one whose `Open` record is lost: whoever had its id next would be taken for it at the next start.
        self.next_generation = self.next_generation.max(id.generation.wrapping_add(1));
        if let Err(earlier) = self.streams.place(id) {
            self.close(earlier?);
            return self.streams.place(id).ok();
        }
        self.streams.get_mut(id)
    }

    fn release(&mut self, slot: u32) {
        let number = self.bodies.at(slot).number();
        if let Some(location) = self.bodies.release(slot) {
            self.usage.sub(location);
            if let Some(slots) = &mut self.recovering {
                slots.remove(&number.0);
            }
        }
    }

    fn hash(&self, origin: Origin) -> u64 {
        hash_of(self.key, origin)
    }
}

fn hash_of(key: HashKey, origin: Origin) -> u64 {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&origin.publisher.to_le_bytes());
    bytes[8..].copy_from_slice(&origin.packet_id.to_le_bytes());
    key.hash(VhostId(0), &bytes)
}
