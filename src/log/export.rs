//! Messages with all that is known of them, to be appended to other logs: when the number of shards changes.

use super::Log;
use super::disk::SegmentId;
use super::error::Damage;
use super::record::{self, Entry, Holder, Kind, MessageNumber, NO_ORIGIN, Origin};
use crate::base::{VhostId, Wall};

/// Where a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its number.
    pub number: MessageNumber,
    /// The file.
    pub segment: SegmentId,
    /// Where in it.
    pub offset: u32,
    /// How many bytes.
    pub size: u32,
}

/// A message and who holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whole {
    /// Its virtual host.
    pub vhost: VhostId,
    /// When it expires.
    pub expires_at: Wall,
    /// If it is not released.
    pub origin: Option<Origin>,
    /// Those that hold it still, with their tags of now.
    pub holders: Vec<Holder>,
    /// As appended.
    pub head: Box<[u8]>,
    /// As appended.
    pub payload: Box<[u8]>,
}

impl Log {
    /// Where the messages are that somebody holds, in order. Costs 16 bytes of memory each.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let place = |body: &super::bodies::Body| {
            let location = body.location();
            let (segment, offset, size) = (location.segment, location.offset, location.size);
            Place { number: body.number(), segment, offset, size }
        };
        let mut places: Vec<_> = self.index.bodies.iter().map(place).collect();
        places.sort_unstable_by_key(|place| place.number);
        places
    }

    /// The message whose record these bytes are.
    ///
    /// # Errors
    /// If they are not that record.
    pub fn whole(&self, place: Place, bytes: &[u8]) -> Result<Whole, Damage> {
        let damage = Damage::Record { segment: place.segment, offset: place.offset };
        self.decode_whole(place.number, bytes).ok_or(damage)
    }

    fn decode_whole(&self, number: MessageNumber, bytes: &[u8]) -> Option<Whole> {
        let entry = Entry::decode(bytes).filter(|entry| entry.kind == Kind::Message)?;
        let message = entry.access::<record::ArchivedMessage<'_>>()?;
        if message.number != number.0 {
            return None;
        }
        let holders = message.holders.iter().map(Holder::from).filter_map(|holder| {
            let stream = self.index.streams.get(holder.stream)?;
            stream.position(number, &self.index.bodies)?;
            Some(Holder { tag: stream.tag(number), ..holder })
        });
        let origin = Some(Origin::from(&message.origin));
        Some(Whole {
            vhost: VhostId(message.vhost.to_native()),
            expires_at: Wall(message.expires_at.to_native()),
            origin: origin.filter(|origin| *origin != NO_ORIGIN && self.has_origin(*origin)),
            holders: holders.collect(),
            head: message.head.as_ref().into(),
            payload: message.payload.as_ref().into(),
        })
    }
}
