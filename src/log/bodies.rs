//! Where the messages are: one entry of 24 bytes for each message, however many streams hold it. The bodies are on disk.

use super::chunks::Chunks;
use super::disk::SegmentId;
use super::record::{Location, MessageNumber};
use crate::base::Wall;

/// A message somebody holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    /// The number in the upper 48 bits (a million a second for nine years), the segment in the lower 16.
    place: u64,
    offset: u32,
    size: u32,
    /// Streams that hold it; 0 if the slot is free, `offset` then names the next free one.
    holders: u32,
    /// Seconds since the Unix epoch, rounded up; the exact deadline is in the record.
    expires: u32,
}

const _: () = assert!(size_of::<Body>() == 24);

const END: u32 = u32::MAX;
const NEVER: u32 = u32::MAX;

/// All messages somebody holds, by a slot that is used again.
#[derive(Debug)]
pub(super) struct Bodies {
    slots: Chunks<Body>,
    free: u32,
    len: usize,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { slots: Chunks::default(), free: END, len: 0 }
    }
}

impl Body {
    pub(super) fn number(&self) -> MessageNumber {
        MessageNumber(self.place >> 16)
    }

    pub(super) fn location(&self) -> Location {
        let segment = SegmentId((self.place & 0xffff) as u16);
        Location { segment, offset: self.offset, size: self.size }
    }

    pub(super) fn expires(&self) -> bool {
        self.expires != NEVER
    }

    /// Whether it has expired; up to a second late.
    pub(super) fn is_expired(&self, wall: Wall) -> bool {
        u64::from(self.expires) <= wall.0 / 1000 && self.expires()
    }
}

impl Bodies {
    /// A new message, held by nobody yet: [`hold`](Self::hold) it.
    pub(super) fn insert(&mut self, number: MessageNumber, location: Location, expires_at: Wall) -> u32 {
        let expires = if expires_at == Wall::NEVER {
            NEVER
        } else {
            u32::try_from(expires_at.0.div_ceil(1000)).unwrap_or(NEVER)
        };
        let body = Body {
            place: place(number, location),
            offset: location.offset,
            size: location.size,
            holders: 0,
            expires,
        };
        self.len += 1;
        if self.free == END {
            return self.slots.push(body);
        }
        let slot = self.free;
        let free = self.at_mut(slot);
        let next = std::mem::replace(free, body).offset;
        self.free = next;
        slot
    }

    /// Messages somebody holds, by slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Body> {
        self.slots.iter().filter(|body| body.holders > 0)
    }

    pub(super) fn at(&self, slot: u32) -> &Body {
        self.slots.get(slot).expect("a holder keeps its message's slot")
    }

    pub(super) fn relocate(&mut self, slot: u32, location: Location) {
        let body = self.at_mut(slot);
        body.place = place(body.number(), location);
        (body.offset, body.size) = (location.offset, location.size);
    }

    pub(super) fn hold(&mut self, slot: u32) {
        self.at_mut(slot).holders += 1;
    }

    /// One holder less; gives the location if it was the last, and frees the slot.
    pub(super) fn release(&mut self, slot: u32) -> Option<Location> {
        let body = self.at_mut(slot);
        body.holders -= 1;
        (body.holders == 0).then(|| self.remove(slot))
    }

    /// Frees the slot of a message nobody holds.
    pub(super) fn remove(&mut self, slot: u32) -> Location {
        let free = self.free;
        let body = self.at_mut(slot);
        assert_eq!(body.holders, 0, "somebody holds the message");
        let location = body.location();
        body.offset = free;
        self.free = slot;
        self.len -= 1;
        location
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether some message expires.
    pub(super) fn any_expires(&self) -> bool {
        self.slots.iter().any(|body| body.holders > 0 && body.expires())
    }

    pub(super) fn memory(&self) -> usize {
        self.slots.memory()
    }

    fn at_mut(&mut self, slot: u32) -> &mut Body {
        self.slots.get_mut(slot).expect("a holder keeps its message's slot")
    }
}

fn place(number: MessageNumber, location: Location) -> u64 {
    assert!(number.0 < 1 << 48, "numbers last for years");
    number.0 << 16 | u64::from(location.segment.0)
}
