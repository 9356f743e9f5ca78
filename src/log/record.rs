//! Records: the facts a log consists of, as they are in a frame.
//!
//! ```text
//! 0  kind      u8
//! 1  len       u32   of the archive
//! 5  checksum  u32   CRC32C of kind, len and archive: a record can be read alone
//! 9  archive         rkyv, unaligned, little endian, validated before it is looked at
//! ```
//!
//! What streams, states and messages mean is their owner's business: values, heads, payloads, notes and tags are not looked at.
//! Acknowledgements and forgotten origins are collected and written many to a record.

use super::disk::SegmentId;
use super::frame::u32_at;
use rkyv::api::{high::HighSerializer, serialize_using};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Panic;
use rkyv::ser::{Serializer, allocator::ArenaHandle, sharing::Share};
use rkyv::util::with_arena;
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Portable, Serialize};

/// Bytes in front of an archive.
pub(super) const RECORD_HEADER: u32 = 9;
/// The largest record: what MQTT's largest packet needs with its holders, and far from where sizes overflow.
pub(super) const RECORD_BYTES_MAX: u32 = 1 << 29;

/// A queue of messages: a durable session, a shared subscription with a durable member, a named queue.
///
/// The generation is never used twice, so that a record about a closed stream finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Serialize)]
#[rkyv(attr(allow(missing_docs, reason = "the archived twin")))]
pub struct StreamId {
    /// Index into the log's table; used again.
    pub slot: u32,
    /// Counted over all streams of the log.
    pub generation: u32,
}

/// A piece of state: a durable slot that holds bytes. Used again after it was cleared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StateId(pub u32);

/// A message's number: unique in its log, rising in the order of arrival, and kept when the message is copied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MessageNumber(pub u64);

/// Where a QoS 2 message comes from: a message with an origin that is already there is the same one, sent again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Serialize)]
#[rkyv(attr(allow(missing_docs, reason = "the archived twin")))]
pub struct Origin {
    /// The incarnation of the publisher's session: a number that is not used again by another one, also over restarts.
    pub publisher: u64,
    /// Its packet identifier.
    pub packet_id: u16,
}

/// A stream that holds a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize)]
#[rkyv(attr(allow(missing_docs, reason = "the archived twin")))]
pub struct Holder {
    /// Which.
    pub stream: StreamId,
    /// How the message is delivered there: kept on disk, and given back with the message.
    pub note: u32,
    /// What has begun with it there, say a packet identifier: kept in memory too; 0 is nothing.
    pub tag: u64,
}

/// What a stream is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StreamKind {
    /// A session with expiry greater than 0.
    Session = 1,
    /// A shared subscription with a durable member.
    Group = 2,
    /// A queue with a name.
    Queue = 3,
}

/// What a state is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StateKind {
    /// A subscription of a session, or a member of a group.
    Subscription = 1,
    /// The retained message of a topic.
    Retained = 2,
    /// A will, waiting for its session to be lost or for its delay to pass.
    Will = 3,
    /// A QoS 2 packet identifier that came in and is not released.
    Received = 4,
    /// A binding of a named queue. 5 was never written.
    Binding = 6,
}

impl StreamKind {
    const ALL: [Self; 3] = [Self::Session, Self::Group, Self::Queue];

    pub(super) fn decode(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl StateKind {
    const ALL: [Self; 5] = [Self::Subscription, Self::Retained, Self::Will, Self::Received, Self::Binding];

    pub(super) fn decode(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What kind of record an entry is. The numbers are the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Open = 1,
    Close = 2,
    Put = 3,
    Clear = 4,
    Message = 5,
    Acknowledged = 6,
    Mark = 7,
    Forget = 8,
    Origin = 9,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Open,
        Self::Close,
        Self::Put,
        Self::Clear,
        Self::Message,
        Self::Acknowledged,
        Self::Mark,
        Self::Forget,
        Self::Origin,
    ];
}

/// A stream begins, or its value changes.
#[derive(Archive, Serialize)]
pub(super) struct Open<'a> {
    pub(super) stream: StreamId,
    pub(super) kind: u8,
    pub(super) vhost: u16,
    #[rkyv(with = InlineAsBox)]
    pub(super) value: &'a [u8],
}

/// A stream ends, with everything it holds and owns.
#[derive(Archive, Serialize)]
pub(super) struct Close {
    pub(super) stream: StreamId,
}

/// A state begins, or its value changes.
#[derive(Archive, Serialize)]
pub(super) struct Put<'a> {
    pub(super) id: u32,
    /// [`NO_STREAM`] if it belongs to none.
    pub(super) owner: StreamId,
    pub(super) kind: u8,
    pub(super) vhost: u16,
    #[rkyv(with = InlineAsBox)]
    pub(super) value: &'a [u8],
}

/// States end.
#[derive(Archive, Serialize)]
pub(super) struct Clear {
    pub(super) id: u32,
}

/// A message and who holds it, by slot.
#[derive(Archive, Serialize)]
pub(super) struct Message<'a> {
    pub(super) number: u64,
    /// Wall time in milliseconds.
    pub(super) expires_at: u64,
    pub(super) vhost: u16,
    /// All zeros is none: a packet identifier is never 0.
    pub(super) origin: Origin,
    #[rkyv(with = InlineAsBox)]
    pub(super) holders: &'a [Holder],
    #[rkyv(with = InlineAsBox)]
    pub(super) head: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    pub(super) payload: &'a [u8],
}

/// All messages a stream held with numbers from `first` to `last` are settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize)]
pub(super) struct Range {
    pub(super) stream: StreamId,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// Messages are settled.
#[derive(Archive, Serialize)]
pub(super) struct Acknowledged<'a> {
    #[rkyv(with = InlineAsBox)]
    pub(super) ranges: &'a [Range],
}

/// Something has begun with a message in a stream.
#[derive(Archive, Serialize)]
pub(super) struct Mark {
    pub(super) stream: StreamId,
    pub(super) number: u64,
    pub(super) tag: u64,
}

/// Origins are released.
#[derive(Archive, Serialize)]
pub(super) struct Forget<'a> {
    #[rkyv(with = InlineAsBox)]
    pub(super) origins: &'a [Origin],
}

/// An origin whose message is gone, but which is not released.
#[derive(Archive, Serialize)]
pub(super) struct KeptOrigin {
    pub(super) origin: Origin,
}

/// The owner of what belongs to no stream.
pub(super) const NO_STREAM: StreamId = StreamId { slot: u32::MAX, generation: u32::MAX };
/// The origin of what has none.
pub(super) const NO_ORIGIN: Origin = Origin { publisher: 0, packet_id: 0 };

impl From<&ArchivedStreamId> for StreamId {
    fn from(archived: &ArchivedStreamId) -> Self {
        Self { slot: archived.slot.to_native(), generation: archived.generation.to_native() }
    }
}

impl From<&ArchivedOrigin> for Origin {
    fn from(archived: &ArchivedOrigin) -> Self {
        Self { publisher: archived.publisher.to_native(), packet_id: archived.packet_id.to_native() }
    }
}

impl From<&ArchivedHolder> for Holder {
    fn from(archived: &ArchivedHolder) -> Self {
        let stream = StreamId::from(&archived.stream);
        Self { stream, note: archived.note.to_native(), tag: archived.tag.to_native() }
    }
}

/// Where a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Location {
    pub(super) segment: SegmentId,
    pub(super) offset: u32,
    pub(super) size: u32,
}

/// Appends a record to `out`.
pub(super) fn encode<T>(kind: Kind, value: &T, out: &mut Vec<u8>)
where
    T: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Panic>>,
{
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEADER as usize]);
    let bytes = std::mem::take(out);
    *out = with_arena(|arena| {
        let mut serializer = Serializer::new(bytes, arena.acquire(), Share::new());
        let Ok(_) = serialize_using::<_, Panic>(value, &mut serializer);
        serializer.into_writer()
    });
    let len = out.len() - start - RECORD_HEADER as usize;
    let len = u32::try_from(len).expect("records are bounded");
    let (head, archive) = out[start..].split_at_mut(RECORD_HEADER as usize);
    head[0] = kind as u8;
    head[1..5].copy_from_slice(&len.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[..5]), archive);
    head[5..].copy_from_slice(&checksum.to_le_bytes());
}

/// A record of a frame or read alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry<'a> {
    pub(super) kind: Kind,
    /// With its header, in bytes.
    pub(super) size: u32,
    archive: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The record at the start of `bytes`, if its checksum is right.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (kind, len, checksum) = (*bytes.first()?, u32_at(bytes, 1)?, u32_at(bytes, 5)?);
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind)?;
        let size = RECORD_HEADER.checked_add(len)?;
        let archive = bytes.get(RECORD_HEADER as usize..size as usize)?;
        if crc32c::crc32c_append(crc32c::crc32c(bytes.get(..5)?), archive) != checksum {
            return None;
        }
        Some(Self { kind, size, archive })
    }

    /// The record as what it is.
    pub(super) fn access<T>(&self) -> Option<&'a T>
    where
        T: Portable + for<'b> CheckBytes<rkyv::api::high::HighValidator<'b, rkyv::rancor::Failure>>,
    {
        rkyv::access::<T, rkyv::rancor::Failure>(self.archive).ok()
    }
}

/// The records of a frame with their places in it; a broken one ends it with `None`.
pub(super) fn entries(records: &[u8]) -> impl Iterator<Item = (u32, Option<Entry<'_>>)> {
    let mut at = 0_usize;
    std::iter::from_fn(move || {
        let rest = records.get(at..).filter(|rest| !rest.is_empty())?;
        let entry = Entry::decode(rest);
        let offset = u32::try_from(at).ok()?;
        at = entry.map_or(records.len(), |entry| at.saturating_add(entry.size as usize));
        Some((offset, entry))
    })
}
