//! Where the states are: 28 bytes for each, linked by owner. Their values are on disk and with the log's owner.

use super::chunks::Chunks;
use super::record::{Location, StateId};

const END: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct State {
    location: Location,
    /// The owner's slot; [`END`] if it has none.
    owner: u32,
    /// The owner's next and previous state; of a free slot the next free one.
    next: u32,
    previous: u32,
    is_used: bool,
}

/// All states by slot.
#[derive(Debug)]
pub(super) struct States {
    slots: Chunks<State>,
    free: u32,
    len: usize,
}

/// The states of one owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owned {
    first: u32,
}

impl Default for Owned {
    fn default() -> Self {
        Self { first: END }
    }
}

impl Default for States {
    fn default() -> Self {
        Self { slots: Chunks::default(), free: END, len: 0 }
    }
}

const FREE: State = State {
    location: Location { segment: super::disk::SegmentId(0), offset: 0, size: 0 },
    owner: END,
    next: END,
    previous: END,
    is_used: false,
};

impl States {
    /// The slot the next new state gets.
    pub(super) fn reserve(&mut self) -> StateId {
        if self.free == END {
            self.free = self.slots.push(FREE);
        }
        StateId(self.free)
    }

    /// Puts a state in a free slot, the one [`reserve`](Self::reserve) gave or, in recovery, any. `owner` is the owner's slot and
    /// the list of its states.
    pub(super) fn insert(&mut self, id: StateId, location: Location, owner: Option<(u32, &mut Owned)>) {
        if self.free == id.0 {
            self.free = self.at(id.0).next;
        }
        self.len += 1;
        let mut state = State { location, is_used: true, ..FREE };
        if let Some((slot, owned)) = owner {
            (state.owner, state.next) = (slot, owned.first);
            if owned.first != END {
                self.at_mut(owned.first).previous = id.0;
            }
            owned.first = id.0;
        }
        *self.at_mut(id.0) = state;
    }

    /// Whether there is such a state, where it is, and its owner's slot.
    pub(super) fn find(&self, id: StateId) -> Option<(Location, Option<u32>)> {
        let state = self.slots.get(id.0).filter(|state| state.is_used)?;
        Some((state.location, (state.owner != END).then_some(state.owner)))
    }

    pub(super) fn relocate(&mut self, id: StateId, location: Location) {
        self.at_mut(id.0).location = location;
    }

    /// Takes a state out; `owned` is the list of its owner.
    pub(super) fn remove(&mut self, id: StateId, owned: Option<&mut Owned>) {
        let state = *self.at(id.0);
        assert!(state.is_used, "the caller found it");
        if state.next != END {
            self.at_mut(state.next).previous = state.previous;
        }
        if state.previous != END {
            self.at_mut(state.previous).next = state.next;
        } else if let Some(owned) = owned {
            owned.first = state.next;
        }
        self.len -= 1;
        let free = self.free;
        *self.at_mut(id.0) = State { next: free, ..FREE };
        self.free = id.0;
    }

    /// Some state of an owner.
    pub(super) fn first(owned: Owned) -> Option<StateId> {
        (owned.first != END).then_some(StateId(owned.first))
    }

    /// The owner's state after this one.
    pub(super) fn next(&self, id: StateId) -> Option<StateId> {
        let next = self.at(id.0).next;
        (next != END).then_some(StateId(next))
    }

    /// In recovery, where states come in any order: makes room for a slot.
    pub(super) fn make_room(&mut self, id: StateId) {
        while self.slots.end() <= id.0 {
            self.slots.push(FREE);
        }
    }

    /// After recovery: finds the free slots.
    pub(super) fn collect_free(&mut self) {
        self.free = END;
        for slot in (0..self.slots.end()).rev() {
            if !self.at(slot).is_used {
                let free = self.free;
                self.at_mut(slot).next = free;
                self.free = slot;
            }
        }
    }

    /// All states and where they are.
    pub(super) fn iter(&self) -> impl Iterator<Item = (StateId, Location)> {
        let states = (0..).map(StateId).zip(self.slots.iter());
        states.filter(|(_, state)| state.is_used).map(|(id, state)| (id, state.location))
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory(&self) -> usize {
        self.slots.memory()
    }

    fn at(&self, slot: u32) -> &State {
        self.slots.get(slot).expect("a slot the caller knows")
    }

    fn at_mut(&mut self, slot: u32) -> &mut State {
        self.slots.get_mut(slot).expect("a slot the caller knows")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owners_states_are_found_and_slots_are_used_again() {
        let mut states = States::default();
        let mut owned = Owned::default();
        let ids: Vec<_> = (0..5)
            .map(|n| {
                let id = states.reserve();
                let owner = (n != 2).then_some((7, &mut owned));
                states.insert(id, Location { offset: n, ..Location::default() }, owner);
                id
            })
            .collect();
        states.remove(ids[1], Some(&mut owned));
        states.remove(ids[4], Some(&mut owned));
        let mut found = Vec::new();
        let mut next = States::first(owned);
        while let Some(id) = next {
            found.push(id);
            next = states.next(id);
        }
        assert_eq!(found, [ids[3], ids[0]]);
        assert_eq!(states.find(ids[2]).unwrap().1, None);
        assert_eq!((states.find(ids[1]), states.len()), (None, 3));
        assert_eq!(states.reserve(), ids[4]);
        states.insert(ids[4], Location::default(), None);
        assert_eq!(states.reserve(), ids[1]);
    }
}
