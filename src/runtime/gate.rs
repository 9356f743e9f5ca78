//! [`Gate`]: whether a ring of a shard is open to sockets of the others, and how many are on their way to it.
//!
//! A hand-over names its target by a descriptor of the process, which may be another file's once the ring is closed; and a socket
//! that has landed is known to the ring's shard only when its mail is taken. So who hands over enters first, and leaves when it
//! failed, or (the receiver) when the mail was taken; a ring is closed only by who finds nobody inside.
//!
//! Invariant: between `enter` and the `leave` that belongs to it the ring stays open. Cost: a compare-and-swap each; 8 bytes.

use super::net::RingFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// No ring: its descriptor would be -1.
const CLOSED: u64 = u64::MAX;

/// One word, so that no order of two has to be thought about: the descriptor above, who is inside below.
#[derive(Debug)]
pub struct Gate(AtomicU64);

impl Default for Gate {
    fn default() -> Self {
        Self(AtomicU64::new(CLOSED))
    }
}

impl Gate {
    /// Opens it to `ring`.
    ///
    /// # Panics
    /// If it is open.
    pub fn open(&self, ring: RingFd) {
        let word = u64::from(ring.bits()) << 32;
        let was = self.0.swap(word, Ordering::AcqRel);
        assert_eq!(was, CLOSED, "a gate leads to one ring");
    }

    /// Closes it if nobody is inside; says whether it did.
    pub fn close(&self) -> bool {
        let word = self.0.load(Ordering::Acquire);
        let is_empty = word != CLOSED && inside(word) == 0;
        is_empty && self.0.compare_exchange(word, CLOSED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The ring behind it, which from now on stays open until [`leave`](Self::leave).
    pub fn enter(&self) -> Option<RingFd> {
        let enter = |word| (word != CLOSED).then(|| word + 1);
        let word = self.0.try_update(Ordering::AcqRel, Ordering::Acquire, enter).ok()?;
        Some(ring(word))
    }

    /// Nothing is on its way any more of what entered once.
    ///
    /// # Panics
    /// If nobody is inside.
    pub fn leave(&self) {
        let was = self.0.fetch_sub(1, Ordering::AcqRel);
        assert!(was != CLOSED && inside(was) > 0, "who leaves has entered");
    }

    /// The ring behind it, of which the caller knows otherwise that it stays open.
    #[must_use]
    pub fn ring(&self) -> Option<RingFd> {
        let word = self.0.load(Ordering::Acquire);
        (word != CLOSED).then(|| ring(word))
    }
}

/// Low half: as many as there may be sockets, far below 2^32.
#[allow(clippy::cast_possible_truncation, reason = "takes the word apart")]
fn inside(word: u64) -> u32 {
    word as u32
}

fn ring(word: u64) -> RingFd {
    RingFd::from_bits(u32::try_from(word >> 32).expect("the upper half"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32};

    #[test]
    fn nobody_is_locked_in_or_out() {
        let gate = Gate::default();
        assert!(gate.enter().is_none() && gate.ring().is_none() && !gate.close(), "it leads nowhere");
        let ring = RingFd::from_bits(7);
        gate.open(ring);
        assert_eq!((gate.ring(), gate.enter(), gate.enter()), (Some(ring), Some(ring), Some(ring)));
        assert!(!gate.close());
        gate.leave();
        assert!(!gate.close(), "one is inside");
        gate.leave();
        assert!(gate.close() && !gate.close());
        assert!(gate.enter().is_none());
        gate.open(RingFd::from_bits(8));
        assert_eq!(gate.enter(), Some(RingFd::from_bits(8)));
    }

    /// One opens and closes, two go in and out: whoever is inside finds the ring that the gate named open.
    #[test]
    fn a_ring_stays_open_while_somebody_is_inside() {
        const ROUNDS: u32 = 2_000;
        const VISITS: u32 = 200;
        let gate = &Gate::default();
        let (open, visits, is_over) = (&AtomicU32::new(0), &AtomicU32::new(0), &AtomicBool::new(false));
        std::thread::scope(|scope| {
            let visitors = [(); 2].map(|()| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let Some(ring) = gate.enter() else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert_eq!(open.load(Ordering::Relaxed), ring.bits());
                        std::hint::spin_loop();
                        assert_eq!(open.load(Ordering::Relaxed), ring.bits(), "closed under a visitor");
                        gate.leave();
                        visits.fetch_add(1, Ordering::Relaxed);
                    }
                })
            });
            let mut round = 0;
            while round < ROUNDS || visits.load(Ordering::Relaxed) < VISITS {
                round += 1;
                open.store(round, Ordering::Relaxed);
                gate.open(RingFd::from_bits(round));
                // Some of the time for visitors only.
                if round.is_multiple_of(16) {
                    std::thread::yield_now();
                }
                while !gate.close() {
                    assert!(!visitors.iter().any(|visitor| visitor.is_finished()), "a visitor panicked");
                    std::thread::yield_now();
                }
                open.store(0, Ordering::Relaxed);
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }
}
