//! One hashed timer wheel for a whole shard: 16 bytes an entry, no cancel.
//!
//! An owner that no longer wants a timer lets it fire and looks at its own deadline (keep alive does this anyway: it only
//! writes down the last activity). Insert is O(1); `poll` visits the slots that time has passed over since the last one.

use super::time::Mono;

const SLOTS: usize = 2048;
const WORDS: usize = SLOTS / 64;

/// The resolution: a timer fires at its deadline or up to this many milliseconds later.
pub const TICK_MS: u64 = 64;

/// Timers that carry a 64-bit token.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<(Mono, u64)>>,
    occupied: [u64; WORDS],
    /// Ticks up to this one have been visited.
    tick: u64,
    /// A timer was set for `tick` since that was visited: it was due already. Others in its slot are whole rotations off.
    overdue: bool,
    len: usize,
}

impl Wheel {
    /// An empty wheel at `now`.
    #[must_use]
    pub fn new(now: Mono) -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS],
            occupied: [0; WORDS],
            tick: now.0 / TICK_MS,
            overdue: false,
            len: 0,
        }
    }

    /// How many timers are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets a timer. [`Mono::NEVER`] sets none.
    pub fn insert(&mut self, deadline: Mono, token: u64) {
        if deadline == Mono::NEVER {
            return;
        }
        let tick = deadline.0.div_ceil(TICK_MS).max(self.tick);
        self.overdue |= tick == self.tick;
        let slot = slot_of(tick);
        self.slots[slot].push((deadline, token));
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.len += 1;
    }

    /// Moves the tokens whose deadline has come to `due`.
    pub fn poll(&mut self, now: Mono, due: &mut Vec<u64>) {
        let last = now.0 / TICK_MS;
        if self.len == 0 || last < self.tick {
            self.tick = self.tick.max(last);
            return;
        }
        // A long pause passes over every slot once, not once a rotation.
        let first = self.tick.max(last.saturating_sub(SLOTS as u64 - 1));
        for tick in first..=last {
            let slot = slot_of(tick);
            if self.occupied[slot / 64] & (1 << (slot % 64)) != 0 {
                self.visit(slot, now, due);
            }
        }
        self.tick = last;
        self.overdue = false;
    }

    /// Forgets the timers whose token is not wanted any more. Looks at all of them.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(u64) -> bool) {
        for (slot, entries) in self.slots.iter_mut().enumerate().filter(|(_, entries)| entries.capacity() > 0)
        {
            let before = entries.len();
            entries.retain(|(_, token)| is_wanted(*token));
            self.len -= before - entries.len();
            if entries.is_empty() {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
            entries.shrink_to(2 * entries.len());
        }
    }

    /// When `poll` next has something to look at. May be early by whole rotations for timers further off than one, never late.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        if self.len == 0 {
            return None;
        }
        if self.overdue {
            return Some(Mono(self.tick * TICK_MS));
        }
        // The slot of `tick` itself comes last: what it holds is at least a rotation off.
        let tick = self.tick + 1;
        let start = slot_of(tick);
        for step in 0..=WORDS {
            let word = (start / 64 + step) % WORDS;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == WORDS {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let distance = (slot + SLOTS - start) % SLOTS;
                return Some(Mono((tick + distance as u64) * TICK_MS));
            }
        }
        None
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.slots.iter().map(|slot| slot.capacity() * size_of::<(Mono, u64)>()).sum::<usize>()
            + SLOTS * size_of::<Vec<(Mono, u64)>>()
    }

    fn visit(&mut self, slot: usize, now: Mono, due: &mut Vec<u64>) {
        let entries = &mut self.slots[slot];
        let before = entries.len();
        entries.retain(|(deadline, token)| {
            let later = *deadline > now;
            if !later {
                due.push(*token);
            }
            later
        });
        self.len -= before - entries.len();
        if entries.is_empty() {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            // A burst of timers in one slot does not keep its memory.
            if entries.capacity() > 64 {
                *entries = Vec::new();
            }
        }
    }
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % SLOTS as u64).expect("less than SLOTS")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn due(wheel: &mut Wheel, now: u64) -> Vec<u64> {
        let mut out = Vec::new();
        wheel.poll(Mono(now), &mut out);
        out.sort_unstable();
        out
    }

    #[test]
    fn fires_at_or_after_the_deadline_once() {
        let mut wheel = Wheel::new(Mono(1000));
        wheel.insert(Mono(1500), 7);
        assert!(due(&mut wheel, 1400).is_empty());
        assert_eq!(due(&mut wheel, 1500 + TICK_MS), [7]);
        assert!(due(&mut wheel, 9000).is_empty());
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_deadline_in_the_past_fires_next() {
        let mut wheel = Wheel::new(Mono(100_000));
        wheel.insert(Mono(5), 1);
        assert_eq!(due(&mut wheel, 100_000), [1]);
    }

    #[test]
    fn a_timer_a_rotation_off_is_not_looked_at_until_its_slot_comes_round() {
        let rotation = SLOTS as u64 * TICK_MS;
        let mut wheel = Wheel::new(Mono(0));
        wheel.insert(Mono(64 + rotation), 1);
        assert_eq!(wheel.next_deadline(), Some(Mono(64)));
        // In the very tick of its slot, and at each moment of it: nobody is to spin until the tick is over.
        for now in 64..64 + TICK_MS {
            assert!(due(&mut wheel, now).is_empty());
            assert_eq!(wheel.next_deadline(), Some(Mono(64 + rotation)));
        }
        wheel.insert(Mono(64), 2);
        assert_eq!(wheel.next_deadline(), Some(Mono(64)));
        assert_eq!(due(&mut wheel, 100), [2]);
        assert_eq!(due(&mut wheel, 64 + rotation), [1]);
    }

    #[test]
    fn unwanted_timers_are_forgotten_with_their_memory() {
        let mut wheel = Wheel::new(Mono(0));
        let empty = wheel.memory();
        for token in 0..10_000 {
            wheel.insert(Mono(1000 + token % 500), token);
        }
        wheel.retain(|token| token == 77);
        assert_eq!(wheel.len(), 1);
        assert!(wheel.memory() < empty + 100);
        assert_eq!(due(&mut wheel, 2000), [77]);
        assert_eq!(wheel.next_deadline(), None);
    }

    proptest! {
        #[test]
        fn every_timer_fires_in_time(deadlines in prop::collection::vec(0u64..500_000, 1..60), steps in prop::collection::vec(1u64..200_000, 1..40)) {
            let mut wheel = Wheel::new(Mono(0));
            for (token, deadline) in deadlines.iter().enumerate() {
                wheel.insert(Mono(*deadline), token as u64);
            }
            let mut now = 0;
            let mut fired = vec![None; deadlines.len()];
            for step in steps {
                let next = wheel.next_deadline();
                now += step;
                if let Some(next) = next {
                    prop_assert!(deadlines.iter().zip(&fired).all(|(d, f)| f.is_some() || d.div_ceil(TICK_MS) * TICK_MS >= next.0 || *d < TICK_MS));
                }
                for token in due(&mut wheel, now) {
                    let token = usize::try_from(token).unwrap();
                    prop_assert_eq!(fired[token], None);
                    fired[token] = Some(now);
                    prop_assert!(deadlines[token] <= now);
                }
                for (deadline, fired) in deadlines.iter().zip(&fired) {
                    prop_assert!(fired.is_some() || deadline + TICK_MS > now);
                }
            }
        }
    }
}
