//! Sessions of one shard, and the index from client identifiers to them.

use super::durable::DurableSession;
use super::replay::Parking;
use crate::base::{HashKey, Mono, PacketId, QoS, SessionId, ShardId, Slab, Version, VhostId};
use crate::log::{Sequence, StateId};
use crate::queue::{Item, SessionQueue};
use crate::route::{FilterId, SubscriptionOptions};
use crate::session::{Acks, Received, Will, Window};
use hashbrown::HashTable;

/// No connection.
pub(super) const NONE: u32 = u32::MAX;

/// One client's session: it may outlive its connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client_id: Box<str>,
    pub(super) filters: Filters,
    /// Deliveries with QoS 1 and 2, and whatever waits.
    pub(super) outgoing: Option<Box<Outgoing>>,
    /// Publishes with QoS 1 and 2 that are not acknowledged to the end.
    pub(super) incoming: Option<Box<Incoming>>,
    pub(super) will: Option<Box<Will>>,
    pub(super) extra: Option<Box<Extra>>,
    /// What is on disk.
    pub(super) durable: Option<Box<DurableSession>>,
    /// Slot of its connection, or [`NONE`].
    pub(super) connection: u32,
    /// Counts connections: acknowledgements belong to one.
    pub(super) incarnation: u32,
    /// Session expiry in force, in seconds.
    pub(super) expiry_secs: u32,
    /// Keyed hash of the client identifier.
    pub(super) client_hash: u32,
    /// Ordinary and shared subscriptions with QoS 0.
    pub(super) qos0_filters: u32,
    /// Those with QoS 1 or 2.
    pub(super) acked_filters: u32,
    pub(super) vhost: VhostId,
    pub(super) version: Version,
    /// It is over; the slot stays until no fan-out can name it.
    pub(super) ended: bool,
}

/// The filters a session is subscribed to; most have one.
#[derive(Debug, Default)]
pub(super) enum Filters {
    #[default]
    None,
    One(FilterId),
    #[allow(clippy::box_collection, reason = "one word: most sessions have one filter")]
    Many(Box<Vec<FilterId>>),
}

/// The way out.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) queue: SessionQueue,
    pub(super) window: Window<Box<Kept>>,
}

/// What is kept of a delivery in the window.
#[derive(Debug)]
pub(super) struct Kept {
    /// What to send; `None` if it is to be read back first.
    pub(super) item: Option<Item>,
    /// Its number in the log; 0 if it is only in memory.
    pub(super) number: u64,
    /// The commit before which it must not be sent.
    pub(super) ready: Sequence,
    /// It was sent before, perhaps on another connection.
    pub(super) was_sent: bool,
}

/// The way in.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) received: Received,
    pub(super) acks: Acks,
    /// What the client's send quota lacks: PUBLISHes of this connection that are not acknowledged to the end (section 4.9).
    pub(super) unacknowledged: u32,
}

/// What few sessions have.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) shared: Vec<SharedSubscription>,
    /// Slots of retained replays that run.
    pub(super) replays: Vec<u32>,
    pub(super) offline: Option<Offline>,
    /// Live messages that wait for replays.
    pub(super) parking: Option<Box<Parking>>,
    /// Packet identifiers of QoS 2 publishes that shards knew at the last start, whether or not they are still in use.
    pub(super) strays: Vec<PacketId>,
}

/// A session's part in a shared subscription.
#[derive(Debug)]
pub(super) struct SharedSubscription {
    pub(super) group: Box<str>,
    pub(super) filter: Box<str>,
    /// What [`GroupRef`](crate::queue::GroupRef) calls the group.
    pub(super) hash: u64,
    pub(super) options: SubscriptionOptions,
    pub(super) state: Option<StateId>,
}

/// What a session without a connection waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offline {
    /// When its delayed will is due.
    pub(super) will_at: Mono,
    /// When it ends.
    pub(super) expires_at: Mono,
}

impl Kept {
    /// Of a delivery that is sent now and is in memory only.
    pub(super) fn in_memory(item: Item) -> Box<Self> {
        Box::new(Self { item: Some(item), number: 0, ready: Sequence::default(), was_sent: true })
    }
}

impl Session {
    pub(super) fn connection(&self) -> Option<u32> {
        (self.connection != NONE).then_some(self.connection)
    }

    /// Whether it outlives its connection.
    pub(super) fn is_durable(&self) -> bool {
        self.expiry_secs > 0
    }

    pub(super) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Gives back the memory of what few sessions have, when this one has none of it any more.
    pub(super) fn drop_empty_extra(&mut self) {
        let is_empty = |extra: &Extra| {
            extra.shared.is_empty()
                && extra.replays.is_empty()
                && extra.offline.is_none()
                && extra.parking.is_none()
                && extra.strays.is_empty()
        };
        if self.extra.as_deref().is_some_and(is_empty) {
            self.extra = None;
        }
    }

    pub(super) fn shared(&self) -> &[SharedSubscription] {
        self.extra.as_ref().map_or(&[], |extra| &extra.shared)
    }

    /// Counts a subscription of this QoS in or out.
    pub(super) fn count_filter(&mut self, qos: QoS, by: i32) {
        let count = if qos == QoS::AtMostOnce { &mut self.qos0_filters } else { &mut self.acked_filters };
        *count = count.checked_add_signed(by).expect("what was counted in is counted out once");
    }

    pub(super) fn subscription_count(&self) -> usize {
        self.filters.as_slice().len() + self.shared().len()
    }
}

impl Filters {
    pub(super) fn as_slice(&self) -> &[FilterId] {
        match self {
            Self::None => &[],
            Self::One(filter) => std::slice::from_ref(filter),
            Self::Many(filters) => filters,
        }
    }

    pub(super) fn push(&mut self, filter: FilterId) {
        match self {
            Self::None => *self = Self::One(filter),
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, filter])),
            Self::Many(filters) => filters.push(filter),
        }
    }

    pub(super) fn remove(&mut self, filter: FilterId) {
        match self {
            Self::One(only) if *only == filter => *self = Self::None,
            Self::Many(filters) => {
                if let Some(at) = filters.iter().position(|f| *f == filter) {
                    filters.swap_remove(at);
                }
            }
            Self::None | Self::One(_) => {}
        }
    }
}

/// How many parts the index has: each grows alone, so that none stalls the shard for long.
const PARTS: usize = 64;

/// All sessions, by slot and by client identifier.
#[derive(Debug)]
pub(super) struct Sessions {
    slab: Slab<Session>,
    index: Vec<HashTable<(u32, u32)>>,
    key: HashKey,
    shard: ShardId,
}

impl Sessions {
    pub(super) fn new(key: HashKey, shard: ShardId) -> Self {
        let index = (0..PARTS).map(|_| HashTable::new()).collect();
        Self { slab: Slab::default(), index, key: key.derive("client index"), shard }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// One past the largest slot ever used.
    pub(super) fn slot_end(&self) -> u32 {
        self.slab.index_end()
    }

    pub(super) fn at(&self, slot: u32) -> Option<&Session> {
        self.slab.at(slot)
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut Session> {
        self.slab.at_mut(slot)
    }

    /// The session, if it is still this incarnation of the slot and not over.
    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.slab.get_mut(id.slot, id.generation).filter(|session| !session.ended)
    }

    pub(super) fn id_at(&self, slot: u32) -> Option<SessionId> {
        let generation = self.slab.generation_at(slot)?;
        Some(SessionId { slot, generation, shard: self.shard })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Session)> {
        self.slab.iter().filter(|(_, _, session)| !session.ended).map(|(slot, _, session)| (slot, session))
    }

    /// The slot of this client's session.
    pub(super) fn find(&self, vhost: VhostId, client_id: &str) -> Option<u32> {
        let (part, hash) = self.place(vhost, client_id);
        let is_it = |(_, slot): &(u32, u32)| {
            self.slab.at(*slot).is_some_and(|s| s.vhost == vhost && *s.client_id == *client_id)
        };
        self.index[part].find(spread(hash), is_it).map(|(_, slot)| *slot)
    }

    /// Puts a new session in.
    pub(super) fn insert(&mut self, session: Session) -> u32 {
        let (part, hash) = self.place(session.vhost, &session.client_id);
        let (slot, _) = self.slab.insert(session);
        self.index[part].insert_unique(spread(hash), (hash, slot), |(hash, _)| spread(*hash));
        slot
    }

    /// Takes the session's name out of the index: the next CONNECT does not find it.
    pub(super) fn unlist(&mut self, slot: u32) {
        let Some(session) = self.slab.at(slot) else { return };
        let (part, hash) = self.place(session.vhost, &session.client_id);
        if let Ok(entry) = self.index[part].find_entry(spread(hash), |(_, s)| *s == slot) {
            entry.remove();
        }
    }

    /// Frees the slot.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Session> {
        let generation = self.slab.generation_at(slot)?;
        self.slab.remove(slot, generation)
    }

    /// Keyed hash of a client identifier, for whoever needs one.
    pub(super) fn client_hash(&self, vhost: VhostId, client_id: &str) -> u32 {
        self.place(vhost, client_id).1
    }

    /// Gives memory back that nobody needs; says whether it was much.
    pub(super) fn shrink(&mut self) -> bool {
        let is_much = self.slab.shrink();
        if is_much {
            for part in &mut self.index {
                part.shrink_to(2 * part.len(), |(hash, _)| spread(*hash));
            }
        }
        is_much
    }

    /// Memory of the tables, in bytes, without what sessions own.
    pub(super) fn memory(&self) -> usize {
        self.slab.memory() + self.index.iter().map(HashTable::allocation_size).sum::<usize>()
    }

    fn place(&self, vhost: VhostId, client_id: &str) -> (usize, u32) {
        let hash = self.key.hash(vhost, client_id.as_bytes());
        let (high, low) = ((hash >> 32) as u32, hash & (PARTS as u64 - 1));
        (usize::try_from(low).expect("less than PARTS"), high)
    }
}

/// A 64-bit table hash of a 32-bit hash: the table takes buckets from the low bits and tags from the high ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
