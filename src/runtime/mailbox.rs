//! The mailboxes between shards: for each ordered pair a bounded ring of what was sent, and one of emptied batches on their way
//! back; for each shard a flag that says whether it sleeps, and the rings it is reached by.
//!
//! Invariants: one shard posts to a line and one takes from it (the rings allow more, nobody does it); what was posted is
//! taken in order; a shard that sleeps is woken for what is posted, or for the room it waits for.
//!
//! Sleeping is Dekker's problem twice over, and solved the same way both times: each side writes its own flag, then a
//! sequentially consistent fence, then reads the other's. In the one total order of the two fences one comes first; whoever
//! comes second sees what the first has written. So either the poster sees the sleeper's flag and rings, or the sleeper sees
//! the mail and does not sleep:
//!
//! ```text
//! poster: push mail      ; fence ; read sleeping -> ring the doorbell
//! sleeper: sleeping = true; fence ; read mail     -> stay awake
//! ```
//!
//! and with `starved` and room in the place of `mail`, for a poster that found a line full and sleeps until there is room. Only
//! the poster takes `starved` back, when it has seen the room: a taker that did would leave a poster on its way to sleep
//! neither rung for (it did not sleep yet) nor waiting for anything.
//!
//! Cost: posting and taking are one compare-and-swap each; memory is two rings of `capacity` words a pair.

use super::gate::Gate;
use super::net::{Descriptor, RingFd};
use crate::base::ShardId;
use crate::shard::{HandOver, PeerBatch};
use crossbeam_queue::ArrayQueue;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// Network rings a shard may open: 64 tables of direct descriptors.
pub const RINGS_MAX: usize = 64;

/// What [`Mesh::set_landing`] is given when no ring has room.
pub const LANDING_NONE: usize = usize::MAX;

/// What one shard posts to another.
#[derive(Debug)]
pub enum Mail {
    /// Messages of the core.
    Batch(Box<PeerBatch>),
    /// A connection whose session lives there; its socket is in that shard's ring already.
    Arrival(Box<Arrival>),
}

/// A connection that was handed over.
#[derive(Debug)]
pub struct Arrival {
    /// Index of the receiving shard's ring.
    pub ring: usize,
    /// The socket there.
    pub descriptor: Descriptor,
    /// What travels with it.
    pub hand_over: HandOver,
}

/// All mailboxes of the process.
#[derive(Debug)]
pub struct Mesh {
    stations: Box<[Station]>,
    /// By sender, then receiver.
    lines: Box<[Line]>,
}

/// A shard, as the others see it. A cache line of its own: `sleeping` is read for every turn's mail.
#[derive(Debug)]
#[repr(align(128))]
struct Station {
    sleeping: AtomicBool,
    /// The ring that sockets are to be handed to.
    landing: AtomicUsize,
    rings: [Gate; RINGS_MAX],
}

#[derive(Debug)]
#[repr(align(128))]
struct Line {
    mail: ArrayQueue<Mail>,
    returned: ArrayQueue<Box<PeerBatch>>,
    /// The sender found `mail` full and has to hear when there is room. Only the sender writes it.
    starved: AtomicBool,
}

impl Mesh {
    /// Mailboxes of `shards` shards, each line with room for `capacity` batches.
    #[must_use]
    pub fn new(shards: u16, capacity: usize) -> Self {
        let n = usize::from(shards);
        let capacity = capacity.max(1);
        let line = |_| Line {
            mail: ArrayQueue::new(capacity),
            returned: ArrayQueue::new(capacity),
            starved: AtomicBool::new(false),
        };
        let station = |_| Station {
            sleeping: AtomicBool::new(false),
            landing: AtomicUsize::new(0),
            rings: std::array::from_fn(|_| Gate::default()),
        };
        Self { stations: (0..n).map(station).collect(), lines: (0..n * n).map(line).collect() }
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> u16 {
        u16::try_from(self.stations.len()).expect("made from a u16")
    }

    /// Whether a batch for `to` would find room. If not, `from` is rung for once there is.
    #[must_use]
    pub fn has_room(&self, from: ShardId, to: ShardId) -> bool {
        let line = self.line(from, to);
        if !line.mail.is_full() {
            line.sated();
            return true;
        }
        line.starved.store(true, Ordering::Relaxed);
        // Pairs with the fence in `take`.
        fence(Ordering::SeqCst);
        !line.mail.is_full()
    }

    /// Posts to `to`; gives the mail back if there is no room. The poster rings, once, after all of a turn's mail.
    ///
    /// # Errors
    /// The mail, if the line is full; then `from` is rung for once there is room.
    pub fn post(&self, from: ShardId, to: ShardId, mail: Mail) -> Result<(), Mail> {
        if self.has_room(from, to) { self.line(from, to).mail.push(mail) } else { Err(mail) }
    }

    /// Whether `shard` sleeps and is to be rung for now; then nobody else needs to.
    #[must_use]
    pub fn must_ring(&self, shard: ShardId) -> bool {
        let sleeping = &self.stations[shard.index()].sleeping;
        // Pairs with the fence in `may_sleep`: mail, or room, was made before.
        fence(Ordering::SeqCst);
        sleeping.load(Ordering::Relaxed) && sleeping.swap(false, Ordering::Relaxed)
    }

    /// The next mail from `from` to `me`, and whether `from` waits for room, as this made (ring for it, if it sleeps).
    #[must_use]
    pub fn take(&self, from: ShardId, me: ShardId) -> Option<(Mail, bool)> {
        let line = self.line(from, me);
        let mail = line.mail.pop()?;
        // Pairs with the fence in `has_room`: the pop comes before the look at the flag.
        fence(Ordering::SeqCst);
        Some((mail, line.starved.load(Ordering::Relaxed)))
    }

    /// Gives an emptied batch back to who sent it. Nobody is rung for that; over the capacity it is freed.
    pub fn give_back(&self, from: ShardId, me: ShardId, batch: Box<PeerBatch>) {
        drop(self.line(from, me).returned.push(batch));
    }

    /// An emptied batch that `me` had sent to `to`.
    #[must_use]
    pub fn returned(&self, me: ShardId, to: ShardId) -> Option<Box<PeerBatch>> {
        self.line(me, to).returned.pop()
    }

    /// `me` would sleep: whether it may. From here on it is rung for, until [`wake`](Self::wake).
    #[must_use]
    pub fn may_sleep(&self, me: ShardId) -> bool {
        self.stations[me.index()].sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence in `must_ring`.
        fence(Ordering::SeqCst);
        let has_mail = self.others(me).any(|from| !self.line(from, me).mail.is_empty());
        // A line it waits for may have got room since it looked. Then it looks again before it sleeps.
        let has_room = |to| {
            let line = self.line(me, to);
            line.starved.load(Ordering::Relaxed) && !line.mail.is_full() && line.sated()
        };
        let stays = has_mail || self.others(me).any(has_room);
        if stays {
            self.wake(me);
        }
        !stays
    }

    /// `me` does not sleep (any more).
    pub fn wake(&self, me: ShardId) {
        self.stations[me.index()].sleeping.store(false, Ordering::Relaxed);
    }

    /// Every shard but `me`.
    pub fn others(&self, me: ShardId) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards()).map(ShardId).filter(move |shard| *shard != me)
    }

    /// Makes `me`'s ring number `index` known to the others.
    pub fn publish_ring(&self, me: ShardId, index: usize, ring: RingFd) {
        self.stations[me.index()].rings[index].open(ring);
    }

    /// Takes a further ring of `me` back from the others, before it is closed. Says whether it could be: not while a socket is on its way there.
    #[must_use]
    pub fn withdraw_ring(&self, me: ShardId, index: usize) -> bool {
        assert!(index > 0, "a shard is rung for in its first ring");
        self.stations[me.index()].rings[index].close()
    }

    /// Makes known which ring of `me` sockets are to be handed to, or [`LANDING_NONE`].
    pub fn set_landing(&self, me: ShardId, ring: usize) {
        self.stations[me.index()].landing.store(ring, Ordering::Relaxed);
    }

    /// The ring by which `shard` is rung for.
    #[must_use]
    pub fn doorbell(&self, shard: ShardId) -> Option<RingFd> {
        self.stations[shard.index()].rings[0].ring()
    }

    /// The ring to try for handing a socket to `shard` for the `attempt`-th time, which counts on past those that are closed: first the
    /// landing one, then each. It stays open until [`leave_ring`](Self::leave_ring), by who hands over if that fails, else by who takes the mail.
    #[must_use]
    pub fn enter_ring(&self, shard: ShardId, attempt: &mut usize) -> Option<(usize, RingFd)> {
        let station = &self.stations[shard.index()];
        let first = station.landing.load(Ordering::Relaxed);
        if first == LANDING_NONE {
            return None;
        }
        loop {
            let index = match attempt.checked_sub(1) {
                None => first,
                Some(other) if other < first => other,
                Some(other) => other + 1,
            };
            if let Some(ring) = station.rings.get(index)?.enter() {
                return Some((index, ring));
            }
            *attempt += 1;
        }
    }

    /// The socket that was on its way to that ring of `shard` is there, or will not come.
    pub fn leave_ring(&self, shard: ShardId, index: usize) {
        self.stations[shard.index()].rings[index].leave();
    }

    fn line(&self, from: ShardId, to: ShardId) -> &Line {
        &self.lines[from.index() * self.stations.len() + to.index()]
    }
}

impl Line {
    /// The sender has seen room; says whether it had waited for it.
    fn sated(&self) -> bool {
        let starved = self.starved.load(Ordering::Relaxed);
        if starved {
            self.starved.store(false, Ordering::Relaxed);
        }
        starved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);

    fn batch() -> Mail {
        Mail::Batch(Box::default())
    }

    #[test]
    fn a_full_line_rings_its_sender_once_there_is_room() {
        let mesh = Mesh::new(2, 2);
        assert!(mesh.post(A, B, batch()).is_ok() && mesh.post(A, B, batch()).is_ok());
        assert!(mesh.post(A, B, batch()).is_err());
        assert!(mesh.may_sleep(A) && !mesh.may_sleep(B));
        assert!(matches!(mesh.take(A, B), Some((_, true))));
        assert!(mesh.must_ring(A) && !mesh.must_ring(A), "rung once");
        assert!(matches!(mesh.take(A, B), Some((_, true))), "it has not looked yet");
        assert!(mesh.take(A, B).is_none());
        assert!(mesh.post(A, B, batch()).is_ok());
        assert!(matches!(mesh.take(A, B), Some((_, false))));
    }

    #[test]
    fn room_made_on_the_way_to_sleep_is_not_slept_through() {
        let mesh = Mesh::new(2, 1);
        assert!(mesh.post(A, B, batch()).is_ok() && mesh.post(A, B, batch()).is_err());
        assert!(matches!(mesh.take(A, B), Some((_, true))) && !mesh.must_ring(A), "it does not sleep yet");
        assert!(!mesh.may_sleep(A), "there is room");
        assert!(mesh.may_sleep(A), "which it has seen");
    }

    #[test]
    fn who_has_mail_or_room_it_waits_for_does_not_sleep() {
        let mesh = Mesh::new(2, 1);
        mesh.post(A, B, batch()).unwrap();
        assert!(!mesh.may_sleep(B) && !mesh.must_ring(B));
        assert!(!mesh.has_room(A, B));
        let (Mail::Batch(back), true) = mesh.take(A, B).unwrap() else { panic!("a batch") };
        mesh.give_back(A, B, back);
        assert!(mesh.returned(A, B).is_some() && mesh.returned(A, B).is_none());
        assert!(!mesh.may_sleep(A), "the room it waited for");
        assert!(mesh.may_sleep(A) && mesh.may_sleep(B));
    }

    #[test]
    fn every_open_ring_is_tried_once() {
        let mesh = Mesh::new(1, 1);
        let tried = |mesh: &Mesh| -> Vec<usize> {
            let mut attempt = 0;
            let rings = std::iter::from_fn(|| {
                let (index, ring) = mesh.enter_ring(A, &mut attempt)?;
                assert_eq!(ring, RingFd::from_bits(100 + u32::try_from(index).unwrap()));
                mesh.leave_ring(A, index);
                attempt += 1;
                Some(index)
            });
            rings.take(10).collect()
        };
        assert!(tried(&mesh).is_empty());
        for index in 0..5 {
            mesh.publish_ring(A, index, RingFd::from_bits(100 + u32::try_from(index).unwrap()));
        }
        assert_eq!(tried(&mesh), [0, 1, 2, 3, 4]);
        mesh.set_landing(A, 2);
        assert_eq!(tried(&mesh), [2, 0, 1, 3, 4]);
        assert!(mesh.withdraw_ring(A, 1) && mesh.withdraw_ring(A, 2), "nobody is on the way");
        assert_eq!(tried(&mesh), [0, 3, 4], "also past the landing one");
        assert!(mesh.enter_ring(A, &mut 4).is_some_and(|(index, _)| index == 4) && !mesh.withdraw_ring(A, 4));
        mesh.leave_ring(A, 4);
        assert!(mesh.withdraw_ring(A, 4));
        mesh.publish_ring(A, 1, RingFd::from_bits(101));
        assert_eq!(tried(&mesh), [0, 1, 3]);
        mesh.set_landing(A, LANDING_NONE);
        assert!(tried(&mesh).is_empty());
    }

    /// Two threads, a tiny mailbox, sleeping whenever allowed: nobody sleeps through mail or room.
    #[test]
    fn nobody_oversleeps() {
        const MESSAGES: usize = 20_000;
        let mesh = &Mesh::new(2, 2);
        let (ring_a, bell_a) = mpsc::channel();
        let (ring_b, bell_b) = mpsc::channel();
        let sleep = |me, bell: &mpsc::Receiver<()>| {
            if mesh.may_sleep(me) {
                bell.recv_timeout(std::time::Duration::from_secs(5)).expect("was rung for");
                mesh.wake(me);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut sent = 0;
                while sent < MESSAGES {
                    if mesh.post(A, B, batch()).is_ok() {
                        sent += 1;
                        if mesh.must_ring(B) {
                            ring_b.send(()).unwrap();
                        }
                    } else {
                        sleep(A, &bell_a);
                    }
                }
            });
            scope.spawn(move || {
                let mut taken = 0;
                while taken < MESSAGES {
                    let Some((_, starved)) = mesh.take(A, B) else {
                        sleep(B, &bell_b);
                        continue;
                    };
                    taken += 1;
                    if starved && mesh.must_ring(A) {
                        ring_a.send(()).unwrap();
                    }
                }
            });
        });
    }
}
