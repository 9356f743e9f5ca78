//! One shared subscription on its home shard: its members, and which of them gets the next message.
//!
//! It does not know sessions or deliveries: the shard tells who comes, goes, connects and acknowledges, and what a
//! [`MemberId`] means. A member that is away is picked only when all are.
//!
//! Cost: joining, leaving and going on- or offline are O(1). Picking is O(1) round robin and sticky, O(log members) by hash
//! (consistent: when one of n members comes or goes, about 2 of n hashes move) and by least in flight; that one's order is
//! built at the first such pick and kept up from then on. A member costs about 70 bytes.

use super::options::Strategy;
use super::slots::Slots;
use super::subscription::SubscriptionOptions;
use super::table::{self, SlotEntry, Table};
use crate::base::{SessionId, ShardId};
use std::collections::BTreeSet;

const NONE: u32 = u32::MAX;

/// A member: a session and its home shard.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct MemberId {
    /// Where it lives.
    pub shard: ShardId,
    /// The session.
    pub session: SessionId,
}

/// What the hashing strategies pick by: keyed hashes of the publisher's client id and of the topic name.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct PickInput {
    /// Of the publisher's client id.
    pub client_hash: u64,
    /// Of the topic name.
    pub topic_hash: u64,
}

/// A member as the group knows it.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Member {
    /// Who.
    pub id: MemberId,
    /// How it wants the messages.
    pub options: SubscriptionOptions,
    /// Deliveries it has not acknowledged.
    pub in_flight_count: u32,
    /// Whether its client is connected.
    pub online: bool,
}

/// A shared subscription's members.
#[derive(Debug)]
pub struct Group {
    members: Slots<Seat>,
    index: Table<SlotEntry>,
    online: Ring,
    offline: Ring,
    durable_count: u32,
    /// The seat of the sticky strategy.
    sticky: u32,
    /// Counts picks by load, so that equals take turns.
    turn: u64,
    by_load: Option<BTreeSet<Load>>,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    member: Member,
    /// Index in its ring.
    position: u32,
    /// When it was last picked by load.
    turn: u64,
}

/// Sorts the best member by load first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Load {
    offline: bool,
    in_flight_count: u32,
    turn: u64,
    seat: u32,
}

/// Seats in turn: those before the cursor had theirs in this round.
#[derive(Default, Debug)]
struct Ring {
    seats: Vec<u32>,
    cursor: usize,
}

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}

impl Group {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            members: Slots::new(),
            index: Table::single(),
            online: Ring::default(),
            offline: Ring::default(),
            durable_count: 0,
            sticky: NONE,
            turn: 0,
            by_load: None,
        }
    }

    /// A member comes, or subscribes again; it is online. Gives the options it had.
    pub fn join(&mut self, id: MemberId, options: SubscriptionOptions) -> Option<SubscriptionOptions> {
        if let Some(seat) = self.seat_of(id) {
            self.set_online(id, true);
            let member = &mut self.seat_mut(seat).member;
            let old = std::mem::replace(&mut member.options, options);
            self.durable_count += u32::from(options.durable);
            self.durable_count -= u32::from(old.durable);
            return Some(old);
        }
        let member = Member { id, options, in_flight_count: 0, online: true };
        let seat = self.members.insert(Seat { member, position: NONE, turn: self.turn });
        let hash = hash_of(id);
        self.index.insert(hash, SlotEntry::new(hash, seat));
        self.durable_count += u32::from(options.durable);
        self.sit(seat);
        None
    }

    /// A member goes; what it had in flight is the caller's to give to others.
    pub fn leave(&mut self, id: MemberId) -> Option<Member> {
        let seat = self.seat_of(id)?;
        self.stand(seat);
        self.index.remove(hash_of(id), |entry| entry.slot == seat).expect("every member is in the index");
        let gone = self.members.remove(seat).expect("found above").member;
        self.durable_count -= u32::from(gone.options.durable);
        if self.sticky == seat {
            self.sticky = NONE;
        }
        Some(gone)
    }

    /// A member's client connected or went away. Unknown members are ignored.
    pub fn set_online(&mut self, id: MemberId, online: bool) {
        self.change(id, |member| member.online = online);
    }

    /// Whether a member's subscription is durable from now on. Unknown members are ignored.
    pub fn set_durable(&mut self, id: MemberId, durable: bool) {
        let Some(seat) = self.seat_of(id) else { return };
        let old = std::mem::replace(&mut self.seat_mut(seat).member.options.durable, durable);
        self.durable_count += u32::from(durable);
        self.durable_count -= u32::from(old);
    }

    /// The member has one more delivery to acknowledge. Unknown members are ignored.
    pub fn assigned(&mut self, id: MemberId) {
        self.change(id, |member| member.in_flight_count += 1);
    }

    /// The member has acknowledged a delivery. Unknown members (that left meanwhile) are ignored, and so is what was
    /// assigned before a member left and came again.
    pub fn settled(&mut self, id: MemberId) {
        self.change(id, |member| member.in_flight_count = member.in_flight_count.saturating_sub(1));
    }

    /// Who gets the next message; `None` if there is nobody.
    pub fn pick(&mut self, strategy: Strategy, input: PickInput) -> Option<MemberId> {
        let seat = match strategy {
            Strategy::RoundRobin => self.candidates().next(),
            Strategy::LeastInFlight => self.pick_least_in_flight(),
            Strategy::Sticky => self.pick_sticky(),
            Strategy::HashClientId => self.candidates().by_hash(input.client_hash),
            Strategy::HashTopic => self.candidates().by_hash(input.topic_hash),
        }?;
        Some(self.seat(seat).member.id)
    }

    /// What is known of a member.
    #[must_use]
    pub fn get(&self, id: MemberId) -> Option<Member> {
        self.seat_of(id).map(|seat| self.seat(seat).member)
    }

    /// All members.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|(_, seat)| &seat.member)
    }

    /// How many members there are.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// How many of them are online.
    #[must_use]
    pub fn online_count(&self) -> usize {
        self.online.seats.len()
    }

    /// How many of them are durable.
    #[must_use]
    pub fn durable_count(&self) -> usize {
        self.durable_count as usize
    }

    /// Whether nobody is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.len() == 0
    }

    /// Bytes owned, without the group itself; the order by load is estimated.
    #[must_use]
    pub fn memory(&self) -> usize {
        let rings = (self.online.seats.capacity() + self.offline.seats.capacity()) * size_of::<u32>();
        let by_load = self.by_load.as_ref().map_or(0, |loads| loads.len() * size_of::<Load>() * 3 / 2);
        self.members.memory() + self.index.memory() + rings + by_load
    }

    fn pick_least_in_flight(&mut self) -> Option<u32> {
        if self.by_load.is_none() {
            self.by_load = Some(self.members.iter().map(|(index, seat)| seat.load(index)).collect());
        }
        let loads = self.by_load.as_mut().expect("built above");
        let best = loads.pop_first()?;
        self.turn += 1;
        loads.insert(Load { turn: self.turn, ..best });
        self.seat_mut(best.seat).turn = self.turn;
        Some(best.seat)
    }

    fn pick_sticky(&mut self) -> Option<u32> {
        let someone_online = !self.online.seats.is_empty();
        if self.sticky == NONE || self.seat(self.sticky).member.online != someone_online {
            self.sticky = self.candidates().next().unwrap_or(NONE);
        }
        Some(self.sticky).filter(|seat| *seat != NONE)
    }

    fn candidates(&mut self) -> &mut Ring {
        if self.online.seats.is_empty() { &mut self.offline } else { &mut self.online }
    }

    /// Changes a member, and its place in ring and order with it.
    fn change(&mut self, id: MemberId, change: impl FnOnce(&mut Member)) {
        let Some(index) = self.seat_of(id) else { return };
        let before = *self.seat(index);
        let mut after = before;
        change(&mut after.member);
        if before.member.online != after.member.online {
            self.stand(index);
            self.seat_mut(index).member = after.member;
            self.sit(index);
            return;
        }
        self.seat_mut(index).member = after.member;
        if let Some(loads) = &mut self.by_load {
            loads.remove(&before.load(index));
            loads.insert(after.load(index));
        }
    }

    /// Gives a seat its place in ring and order.
    fn sit(&mut self, index: u32) {
        let seat = self.members.get_mut(index).expect("the caller has it");
        let ring = if seat.member.online { &mut self.online } else { &mut self.offline };
        seat.position = u32::try_from(ring.seats.len()).expect("seats are u32");
        ring.seats.push(index);
        if let Some(loads) = &mut self.by_load {
            loads.insert(seat.load(index));
        }
    }

    /// Takes a seat out of ring and order.
    fn stand(&mut self, index: u32) {
        let seat = *self.seat(index);
        if let Some(loads) = &mut self.by_load {
            loads.remove(&seat.load(index));
        }
        let ring = if seat.member.online { &mut self.online } else { &mut self.offline };
        for position in ring.remove(seat.position as usize).into_iter().flatten() {
            let moved = ring.seats[position];
            let moved = self.members.get_mut(moved).expect("rings hold seats");
            moved.position = u32::try_from(position).expect("seats are u32");
        }
    }

    fn seat_of(&self, id: MemberId) -> Option<u32> {
        let is = |entry: &SlotEntry| self.seat(entry.slot).member.id == id;
        self.index.find(hash_of(id), is).map(|entry| entry.slot)
    }

    fn seat(&self, index: u32) -> &Seat {
        self.members.get(index).expect("seats exist while something names them")
    }

    fn seat_mut(&mut self, index: u32) -> &mut Seat {
        self.members.get_mut(index).expect("seats exist while something names them")
    }
}

impl Seat {
    fn load(&self, seat: u32) -> Load {
        let Member { in_flight_count, online, .. } = self.member;
        Load { offline: !online, in_flight_count, turn: self.turn, seat }
    }
}

impl Ring {
    fn next(&mut self) -> Option<u32> {
        if self.cursor >= self.seats.len() {
            self.cursor = 0;
        }
        let seat = self.seats.get(self.cursor).copied()?;
        self.cursor += 1;
        Some(seat)
    }

    fn by_hash(&self, hash: u64) -> Option<u32> {
        self.seats.get(jump(hash, self.seats.len())?).copied()
    }

    /// Takes a seat out so that nobody gains or loses a turn; gives the positions whose seats are new there.
    fn remove(&mut self, position: usize) -> [Option<usize>; 2] {
        let mut hole = position;
        let mut moved = [None, None];
        if position < self.cursor {
            // The hole goes to the end of those who had their turn.
            self.cursor -= 1;
            if hole != self.cursor {
                self.seats[hole] = self.seats[self.cursor];
                moved[0] = Some(hole);
            }
            hole = self.cursor;
        }
        self.seats.swap_remove(hole);
        if hole < self.seats.len() {
            moved[1] = Some(hole);
        }
        if self.seats.len() < self.seats.capacity() / 4 {
            self.seats.shrink_to(self.seats.len() * 2);
        }
        moved
    }
}

/// Jump consistent hash (Lamping, Veach 2014): a bucket below `count`, in O(log count); growing by a bucket moves only what
/// goes to it. `None` if there is none.
fn jump(hash: u64, count: usize) -> Option<usize> {
    let mut key = hash;
    let mut bucket = None;
    let mut next = 0;
    while next < count as u64 {
        bucket = Some(next);
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((next + 1) << 31) / ((key >> 33) + 1);
    }
    bucket.map(|bucket| usize::try_from(bucket).expect("below count"))
}

fn hash_of(id: MemberId) -> u64 {
    let session = u64::from(id.session.generation) << 32 | u64::from(id.session.slot);
    table::mix(session ^ table::mix(u64::from(id.shard.0)))
}

#[cfg(test)]
mod tests;
