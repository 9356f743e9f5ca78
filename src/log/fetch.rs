//! Reading back: messages of a stream, in order, in batches.
//!
//! What is not on disk yet is read from the commits that wait. The rest is read in as few operations as its places allow. A
//! segment is not overwritten while a read of it is outstanding.

use super::disk::{Disk, DiskError, ReadId, SegmentId};
use super::error::Damage;
use super::frame::BLOCK;
use super::record::{self, Entry, Kind, Location, MessageNumber, StreamId};
use super::{Event, Log};
use crate::base::{VhostId, Wall};

/// Records closer than this are read together, up to [`READ_BYTES`].
const GAP_BYTES: u32 = 4 * BLOCK;
const READ_BYTES: u32 = 1 << 20;

/// Names a fetch, so that its event finds whoever waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchId(pub u64);

/// A message read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Its virtual host.
    pub vhost: VhostId,
    /// When it expires.
    pub expires_at: Wall,
    /// How it is delivered to the stream it was fetched for.
    pub note: u32,
    /// As appended.
    pub head: Box<[u8]>,
    /// As appended.
    pub payload: Box<[u8]>,
}

/// One message of a fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// Its number.
    pub number: MessageNumber,
    /// Its tag in the stream, now.
    pub tag: u64,
    /// The message, or where it should be.
    pub stored: Result<Stored, Damage>,
}

#[derive(Debug)]
struct Item {
    stream: StreamId,
    number: MessageNumber,
    location: Location,
    got: Option<Result<Stored, Damage>>,
}

#[derive(Debug)]
pub(super) struct Fetch {
    id: FetchId,
    stream: StreamId,
    items: Vec<Item>,
    reads: usize,
}

/// A read that is outstanding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    id: ReadId,
    segment: SegmentId,
    offset: u32,
    bytes: u32,
    /// `None`: for compaction.
    fetch: Option<FetchId>,
}

impl Log {
    /// Reads back messages of a stream, from the first with this number or a larger one: up to `messages_max`, and no more than
    /// `bytes_max` unless the first alone is larger. [`Event::Fetched`] has them.
    pub fn fetch(
        &mut self,
        stream: StreamId,
        from: MessageNumber,
        messages_max: usize,
        bytes_max: u64,
    ) -> FetchId {
        let mut items = Vec::new();
        if let Some(found) = self.index.streams.get(stream) {
            let mut bytes = 0;
            let start = found.position_from(from, &self.index.bodies);
            for slot in found.entries().range(start..).take(messages_max) {
                let body = self.index.bodies.at(*slot);
                bytes += u64::from(body.location().size);
                if bytes > bytes_max && !items.is_empty() {
                    break;
                }
                let (number, location) = (body.number(), body.location());
                items.push(Item { stream, number, location, got: None });
            }
        }
        self.begin_fetch(items, stream)
    }

    fn begin_fetch(&mut self, mut items: Vec<Item>, stream: StreamId) -> FetchId {
        let id = FetchId(self.next_id());
        for item in &mut items {
            if let Some(bytes) = self.writer.bytes(item.location) {
                item.got = Some(decode(bytes, item));
            }
        }
        let mut missing: Vec<Location> =
            items.iter().filter(|item| item.got.is_none()).map(|item| item.location).collect();
        missing.sort_unstable_by_key(|location| (location.segment, location.offset));
        let spans = merge(&missing);
        let fetch = Fetch { id, stream, items, reads: spans.len() };
        for (segment, start, end) in spans {
            self.read(segment, start, end - start, Some(id));
        }
        if fetch.reads > 0 {
            self.fetches.push(fetch);
        } else {
            self.finish_fetch(fetch);
        }
        id
    }

    /// Asks for blocks of a segment.
    pub(super) fn read(&mut self, segment: SegmentId, offset: u32, bytes: u32, fetch: Option<FetchId>) {
        let id = ReadId(self.next_id());
        self.segments.at_mut(segment).reads += 1;
        self.reads.push(Read { id, segment, offset, bytes, fetch });
        self.outputs.push_back(Disk::Read { id, segment, offset, bytes });
    }

    /// A read is answered. Gives the bytes if they are for compaction.
    pub(super) fn on_read(
        &mut self,
        id: ReadId,
        result: Result<Vec<u8>, DiskError>,
    ) -> Option<Result<Vec<u8>, Damage>> {
        let at = self.reads.iter().position(|read| read.id == id)?;
        let read = self.reads.swap_remove(at);
        self.segments.at_mut(read.segment).reads -= 1;
        let damage = Damage::Bytes { segment: read.segment, offset: read.offset, bytes: read.bytes };
        let is_whole = |bytes: &Vec<u8>| bytes.len() == read.bytes as usize;
        let bytes = result.ok().filter(is_whole).ok_or(damage);
        let Some(fetch) = read.fetch else { return Some(bytes) };
        let at =
            self.fetches.iter().position(|other| other.id == fetch).expect("a fetch waits for its reads");
        let fetch = &mut self.fetches[at];
        let is_in = |location: &Location| {
            location.segment == read.segment
                && (read.offset..read.offset + read.bytes).contains(&location.offset)
        };
        for item in fetch.items.iter_mut().filter(|item| item.got.is_none() && is_in(&item.location)) {
            let start = (item.location.offset - read.offset) as usize;
            item.got = Some(match &bytes {
                Ok(bytes) => decode(bytes.get(start..).unwrap_or_default(), item),
                Err(damage) => Err(*damage),
            });
        }
        fetch.reads -= 1;
        if fetch.reads == 0 {
            let fetch = self.fetches.swap_remove(at);
            self.finish_fetch(fetch);
        }
        None
    }

    fn finish_fetch(&mut self, fetch: Fetch) {
        let Fetch { id, stream, items, .. } = fetch;
        let mut messages = Vec::new();
        for Item { number, got, .. } in items {
            let stored = got.expect("all reads are answered");
            // Settled in the meantime.
            let Some(found) = self.index.streams.get(stream) else { continue };
            if found.position(number, &self.index.bodies).is_some() {
                messages.push(Fetched { number, tag: found.tag(number), stored });
            }
        }
        self.events.push_back(Event::Fetched { id, stream, messages });
    }
}

/// Block ranges that cover these places, which are sorted.
fn merge(locations: &[Location]) -> Vec<(SegmentId, u32, u32)> {
    let mut spans: Vec<(SegmentId, u32, u32)> = Vec::new();
    for location in locations {
        let start = location.offset - location.offset % BLOCK;
        let end = (location.offset + location.size).next_multiple_of(BLOCK);
        match spans.last_mut() {
            Some((segment, first, last))
                if *segment == location.segment
                    && start <= last.saturating_add(GAP_BYTES)
                    && (end <= *last || end - *first <= READ_BYTES) =>
            {
                *last = end.max(*last);
            }
            _ => spans.push((location.segment, start, end)),
        }
    }
    spans
}

/// What was wanted, from the bytes at its place.
fn decode(bytes: &[u8], item: &Item) -> Result<Stored, Damage> {
    let stored = decode_message(bytes, item.stream, item.number);
    stored.ok_or(Damage::Record { segment: item.location.segment, offset: item.location.offset })
}

fn decode_message(bytes: &[u8], stream: StreamId, number: MessageNumber) -> Option<Stored> {
    let entry = Entry::decode(bytes).filter(|entry| entry.kind == Kind::Message)?;
    let message = entry.access::<record::ArchivedMessage<'_>>()?;
    if message.number != number.0 {
        return None;
    }
    let at = message.holders.binary_search_by_key(&stream, |holder| StreamId::from(&holder.stream)).ok()?;
    Some(Stored {
        vhost: VhostId(message.vhost.to_native()),
        expires_at: Wall(message.expires_at.to_native()),
        note: message.holders.as_ref().get(at)?.note.to_native(),
        head: message.head.as_ref().into(),
        payload: message.payload.as_ref().into(),
    })
}
