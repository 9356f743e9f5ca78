//! The network rings of one shard: one at first, more when its descriptor table fills up, fewer again when their clients have left.
//!
//! Sockets go to the first ring that has room, so that those behind it empty. One that stays empty is closed, wherever it is, and its index is given
//! to the next that is opened; that nothing is on its way there is the caller's to know ([`Gate`](crate::runtime::gate::Gate)).
//!
//! The first ring is where the shard waits; a further one reports there through the shard's event descriptor. Each ring has
//! receive buffers of its own: what is published cannot be taken back, so a ring could starve beside an idle one that has all. It is given few at
//! first, and twice as many whenever a turn used more than half: the kernel takes them in turn, so all it has become resident. What comes
//! back after a burst is kept from it again.

use super::buffers::{Buffer, ReceiveBuffers};
use super::completion::Completion;
use super::ring::{NetRing, RingFd, RingOptions};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

/// With fewer free descriptors than this another ring is opened (half of a smaller table): other shards hand connections over
/// without asking, and may be many turns ahead.
const FREE_MIN: u32 = 1024;

/// Free descriptors that are not for accepts, at most half of those that are left: connections that other shards hand over are on
/// their way, and an accept that finds no descriptor loses its client.
const HAND_OVERS: u32 = 16;

/// A ring with room for so many sockets (a quarter of a smaller table) takes them before one with a higher index does: more than
/// [`FREE_MIN`], so that it does not fill up in the same turns.
const ROOM_MIN: u32 = 2 * FREE_MIN;

/// A ring without sockets is closed when so many looks have found it so: at the driver's five seconds between two, clients who come back after a
/// fault of their network find it open.
const UNUSED_LOOKS: u8 = 2;

/// The sizes of a shard's rings.
#[derive(Clone, Copy, Debug)]
pub struct RingsOptions {
    /// Of the first.
    pub first: RingShare,
    /// Of each further one: it serves fewer connections than the first.
    pub further: RingShare,
    /// Sockets of each ring at most; the process's descriptor limit bounds it.
    pub descriptors: u32,
    /// Bytes of a receive buffer.
    pub buffer_size: u32,
    /// How many rings may be opened, at least 1.
    pub count_max: usize,
}

/// What one ring has.
#[derive(Clone, Copy, Debug)]
pub struct RingShare {
    /// Operations between two submissions.
    pub submissions: u32,
    /// Completions between two reaps.
    pub completions: u32,
    /// Receive buffers, a power of two.
    pub buffers: u16,
    /// Of these, those it has from the start.
    pub granted: usize,
}

/// All rings of a shard.
#[derive(Debug)]
pub struct Rings {
    /// By index. Neither the first nor the last is empty.
    places: Vec<Option<Place>>,
    event: Arc<OwnedFd>,
    options: RingsOptions,
    is_thorough: bool,
}

#[derive(Debug)]
struct Place {
    ring: NetRing,
    /// Receive buffers that it has not needed yet, or does not need any more.
    reserve: Vec<Buffer>,
    /// Receive buffers it is to have; after a burst it has more until they come back.
    wanted: usize,
    /// The fewest of these.
    wanted_min: usize,
    /// Most receive buffers that were in use together since the last look.
    used_max: usize,
    /// Receive buffers that came back and were kept since the last look.
    returned: usize,
    /// Looks that found it unused, one after the other.
    unused: u8,
}

impl Rings {
    /// The first ring, watching `event`; on the thread that uses them.
    ///
    /// # Errors
    /// Whatever the kernel says to its set-up.
    pub fn new(options: RingsOptions, event: Arc<OwnedFd>) -> io::Result<Self> {
        let mut first = Place::new(options, options.first)?;
        first.ring.watch(Arc::clone(&event));
        Ok(Self { places: vec![Some(first)], event, options, is_thorough: false })
    }

    /// Opens a further ring; gives its index.
    ///
    /// # Errors
    /// Whatever the kernel says to its set-up: mostly that the process has no descriptor left.
    pub fn open(&mut self) -> io::Result<usize> {
        let mut place = Place::new(self.options, self.options.further)?;
        place.ring.report_to(&self.event)?;
        let index = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        if index == self.places.len() {
            self.places.push(Some(place));
        } else {
            self.places[index] = Some(place);
        }
        Ok(index)
    }

    /// How many rings are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places.iter().flatten().count()
    }

    /// One past the last index.
    #[must_use]
    pub fn end(&self) -> usize {
        self.places.len()
    }

    /// Whether there is a ring of this index.
    #[must_use]
    pub fn is_open(&self, ring: usize) -> bool {
        self.places.get(ring).is_some_and(Option::is_some)
    }

    /// Slots of each ring.
    #[must_use]
    pub fn descriptors(&self) -> u32 {
        self.options.descriptors
    }

    /// One of them, by index.
    ///
    /// # Panics
    /// If it is not open.
    #[must_use]
    pub fn at(&mut self, ring: usize) -> &mut NetRing {
        &mut self.places[ring].as_mut().expect(OPEN).ring
    }

    /// The name under which other rings of the process reach one.
    #[must_use]
    pub fn ring_fd(&self, ring: usize) -> RingFd {
        self.place(ring).ring.ring_fd()
    }

    /// Receive buffers of all rings, in bytes.
    #[must_use]
    pub fn receive_buffer_bytes(&self) -> u64 {
        let count: u64 = self.open_rings().map(|(_, place)| u64::from(place.ring.buffers().count())).sum();
        count * u64::from(self.options.buffer_size)
    }

    /// Of the receive buffers of `ring`, those it has not needed yet.
    #[must_use]
    pub fn reserved(&self, ring: usize) -> usize {
        self.place(ring).reserve.len()
    }

    /// Of the receive buffers of `ring`, those with the kernel; none if it is closed.
    #[must_use]
    pub fn published(&self, ring: usize) -> u16 {
        self.places[ring].as_ref().map_or(0, |place| place.ring.published())
    }

    /// What was received into `buffer` of `ring`.
    #[must_use]
    pub fn bytes<'a>(&'a self, ring: usize, buffer: &'a Buffer) -> &'a [u8] {
        self.place(ring).ring.buffers().bytes(buffer)
    }

    /// The ring that sockets are to go to, and how many it has room for: its free descriptors but for those that its accepts in flight may
    /// take, and a few for hand-overs. The first with enough room, or that with most.
    #[must_use]
    pub fn roomy(&self) -> (usize, u32) {
        let enough = self.room_min();
        let first =
            self.open_rings().map(|(index, place)| (index, place.room())).find(|(_, room)| *room >= enough);
        // The first of equals.
        let most = || {
            self.open_rings().map(|(index, place)| (index, place.room())).rev().max_by_key(|(_, room)| *room)
        };
        first.or_else(most).expect("there is a first ring")
    }

    /// Sockets in all rings together, once no further one can be opened.
    #[must_use]
    pub fn descriptors_max(&self) -> Option<usize> {
        let all = self.count().saturating_mul(self.options.descriptors as usize);
        (!self.may_open()).then_some(all)
    }

    /// Gives the pages of receive buffers back that hold nothing: they are resident again where traffic is.
    pub fn release_buffers(&mut self) {
        for Place { ring, reserve, .. } in self.places.iter_mut().flatten() {
            ring.release_buffers(reserve.len());
        }
    }

    /// Whether another ring should be opened, and may.
    #[must_use]
    pub fn should_open(&self) -> bool {
        let enough = FREE_MIN.min(self.options.descriptors / 2);
        // All of them: the one that sockets go to may be filling up beside others with room.
        self.may_open() && self.open_rings().all(|(_, place)| place.ring.descriptors_free() < enough)
    }

    /// Whether another ring may be opened.
    #[must_use]
    pub fn may_open(&self) -> bool {
        self.count() < self.options.count_max
    }

    /// Gives up opening more: the system refused.
    pub fn stop_opening(&mut self) {
        self.options.count_max = self.count();
    }

    /// Gives a receive buffer (back) to `ring`: to the kernel, unless it has enough.
    pub fn publish(&mut self, ring: usize, buffer: Buffer) {
        self.places[ring].as_mut().expect(OPEN).publish(buffer);
    }

    /// A look at how many receive buffers were needed since the last one, every few seconds: more than four times as many are taken back as they come. Says
    /// whether some came since the last look, so that their pages can be released.
    pub fn look_for_buffers(&mut self) -> bool {
        let mut found = false;
        for place in self.places.iter_mut().flatten() {
            found |= place.look_for_buffers();
        }
        found
    }

    /// A look for further rings without sockets that are not needed, every few seconds: what they have in flight is cancelled. Says whether
    /// there are any, so that another look finds one to be closed.
    pub fn look_for_unused(&mut self) -> bool {
        let mut found = false;
        for index in 1..self.places.len() {
            let is_unused = self.is_unused(index);
            let Some(place) = &mut self.places[index] else { continue };
            place.unused = if is_unused { (place.unused + 1).min(UNUSED_LOOKS) } else { 0 };
            if is_unused {
                place.ring.cancel_accepts();
                found = true;
            }
        }
        found
    }

    /// A ring that was unused for a while, and has nothing in flight.
    #[must_use]
    pub fn closable(&mut self) -> Option<usize> {
        (1..self.places.len()).rev().find(|&index| {
            let was_unused = self.places[index].as_ref().is_some_and(|place| place.unused == UNUSED_LOOKS);
            was_unused && self.is_unused(index) && self.at(index).is_idle()
        })
    }

    /// Closes a further ring, of which the caller knows that no socket is on its way there.
    ///
    /// # Panics
    /// If it has something to do.
    pub fn close(&mut self, ring: usize) {
        assert!(ring > 0, "a shard waits in its first ring");
        let place = self.places[ring].as_mut().expect(OPEN);
        assert!(place.ring.is_unused(place.reserve.len()) && place.ring.is_idle(), "nothing is lost with it");
        self.places[ring] = None;
        while self.places.pop_if(|place| place.is_none()).is_some() {}
    }

    /// Whether a ring has no sockets, and is not the next to get some: one before it has more room than will soon be needed.
    fn is_unused(&self, ring: usize) -> bool {
        let has_stead = self.open_rings().take_while(|(index, _)| *index < ring).any(|(_, place)| {
            place.ring.descriptors_free() >= self.options.descriptors / 2 && place.room() >= self.room_min()
        });
        has_stead && self.places[ring].as_ref().is_some_and(|place| place.ring.is_unused(place.reserve.len()))
    }

    /// Submits every ring's operations, without waiting.
    ///
    /// # Errors
    /// Only what cannot be mended by trying again.
    pub fn submit(&mut self) -> io::Result<()> {
        let is_thorough = self.is_thorough;
        self.places.iter_mut().flatten().try_for_each(|place| submit(&mut place.ring, is_thorough))
    }

    /// Whether much of what happened is still with the kernel, most likely: what others sent waits behind it.
    pub fn set_thorough(&mut self, is_thorough: bool) {
        self.is_thorough = is_thorough;
    }

    /// Submits, then waits on the first ring; not at all if a further one has something. [`collect`](Self::collect) follows.
    ///
    /// # Errors
    /// Only what cannot be mended by trying again.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let is_thorough = self.is_thorough;
        let mut rings = self.places.iter_mut().flatten().map(|place| &mut place.ring);
        let first = rings.next().expect("there is a first ring");
        let mut is_busy = false;
        for ring in rings {
            submit(ring, is_thorough)?;
            // What completes after this look writes to the event descriptor, which the first ring reads.
            is_busy |= ring.is_complete() || ring.is_pending();
        }
        if is_thorough {
            first.submit_thoroughly()?;
            is_busy |= first.is_complete();
        }
        if is_busy { first.submit() } else { first.wait(timeout) }
    }

    /// Runs what the kernel has deferred on further rings, which the wait on the first did not.
    ///
    /// # Errors
    /// Only what cannot be mended by trying again.
    pub fn collect(&mut self) -> io::Result<()> {
        let is_thorough = self.is_thorough;
        self.places.iter_mut().skip(1).flatten().try_for_each(|place| submit(&mut place.ring, is_thorough))
    }

    /// Appends what completed in `ring` since the last time, in order: nothing if it is closed.
    pub fn reap(&mut self, ring: usize, completions: &mut Vec<Completion>) {
        if let Some(place) = &mut self.places[ring] {
            place.ring.reap(completions);
            place.grant();
        }
    }

    /// Cancels every accept in flight.
    pub fn cancel_accepts(&mut self) {
        self.places.iter_mut().flatten().for_each(|place| place.ring.cancel_accepts());
    }

    fn room_min(&self) -> u32 {
        ROOM_MIN.min(self.options.descriptors / 4)
    }

    fn place(&self, ring: usize) -> &Place {
        self.places[ring].as_ref().expect(OPEN)
    }

    fn open_rings(&self) -> impl DoubleEndedIterator<Item = (usize, &Place)> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(index, place)| place.as_ref().map(|place| (index, place)))
    }
}

/// Of sockets and buffers, whose ring is not closed before them.
const OPEN: &str = "a ring in use is open";

impl Place {
    fn new(options: RingsOptions, share: RingShare) -> io::Result<Self> {
        let RingShare { submissions, completions, buffers, granted } = share;
        let RingsOptions { descriptors, buffer_size, .. } = options;
        let (buffers, mut reserve) = ReceiveBuffers::new(buffers, buffer_size);
        let mut ring = NetRing::new(RingOptions { submissions, completions, descriptors }, buffers)?;
        let wanted = granted.min(reserve.len());
        reserve.drain(..wanted).for_each(|token| ring.publish(token));
        Ok(Self { ring, reserve, wanted, wanted_min: wanted, used_max: 0, returned: 0, unused: 0 })
    }

    /// Sockets it has room for.
    fn room(&self) -> u32 {
        let free = self.ring.descriptors_free();
        let accepts = u32::try_from(self.ring.accepts()).unwrap_or(u32::MAX);
        free.saturating_sub(HAND_OVERS.min(free / 2)).saturating_sub(accepts)
    }

    /// Receive buffers that it has: with the kernel, or received into.
    fn granted(&self) -> usize {
        usize::from(self.ring.buffers().count()) - self.reserve.len()
    }

    /// Gives the ring more buffers if more than half of those it has are in use.
    fn grant(&mut self) {
        let granted = self.granted();
        let used = granted - usize::from(self.ring.published());
        self.used_max = self.used_max.max(used);
        if used > granted.div_ceil(2) && !self.reserve.is_empty() {
            let rest = self.reserve.len().saturating_sub(granted);
            self.reserve.drain(rest..).for_each(|buffer| self.ring.publish(buffer));
            self.wanted = self.granted();
        }
    }

    fn publish(&mut self, buffer: Buffer) {
        if self.granted() > self.wanted {
            self.reserve.push(buffer);
            self.returned += 1;
        } else {
            self.ring.publish(buffer);
        }
    }

    fn look_for_buffers(&mut self) -> bool {
        // Twice what makes it ask for more.
        let enough = (4 * mem::take(&mut self.used_max)).next_power_of_two().max(self.wanted_min);
        self.wanted = self.wanted.min(enough);
        mem::take(&mut self.returned) > 0
    }
}

fn submit(ring: &mut NetRing, is_thorough: bool) -> io::Result<()> {
    if is_thorough { ring.submit_thoroughly() } else { ring.submit() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ConnectionId;
    use crate::runtime::net::{Completion, Descriptor};
    use nix::errno::Errno;
    use nix::sys::eventfd::EventFd;
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    const SHARE: RingShare = RingShare { submissions: 8, completions: 8, buffers: 4, granted: 2 };
    const OPTIONS: RingsOptions =
        RingsOptions { first: SHARE, further: SHARE, descriptors: 8, buffer_size: 64, count_max: 3 };

    struct World {
        rings: Rings,
        listener: TcpListener,
        clients: Vec<TcpStream>,
    }

    impl World {
        fn new() -> Self {
            let event = Arc::new(OwnedFd::from(EventFd::new().unwrap()));
            let rings = Rings::new(OPTIONS, event).unwrap();
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            Self { rings, listener, clients: Vec::new() }
        }

        fn next(&mut self, ring: usize) -> Completion {
            let mut completions = Vec::new();
            for _ in 0..100 {
                self.rings.wait(Some(Duration::from_millis(50))).unwrap();
                self.rings.collect().unwrap();
                self.rings.reap(0, &mut completions);
                completions.retain(|completion| !matches!(completion, Completion::Woken));
                if ring > 0 {
                    self.rings.reap(ring, &mut completions);
                }
                if let Some(completion) = completions.pop() {
                    assert!(completions.is_empty(), "one at a time: {completions:?}");
                    return completion;
                }
            }
            panic!("nothing completed in time");
        }

        fn client(&mut self, ring: usize) -> Descriptor {
            self.clients.push(TcpStream::connect(self.listener.local_addr().unwrap()).unwrap());
            self.rings.at(ring).accept(0, &self.listener);
            let Completion::Accepted { descriptor, .. } = self.next(ring) else { panic!("accepted") };
            descriptor
        }

        fn close(&mut self, ring: usize, descriptor: Descriptor) {
            self.rings.at(ring).close(descriptor);
            self.rings.submit().unwrap();
        }

        fn close_unused(&mut self) -> Vec<usize> {
            let closed = std::iter::from_fn(|| {
                let ring = self.rings.closable()?;
                self.rings.close(ring);
                Some(ring)
            });
            closed.collect()
        }
    }

    #[test]
    fn rings_without_sockets_are_closed_and_their_index_is_used_again() {
        let mut world = World::new();
        let first: Vec<_> = (0..5).map(|_| world.client(0)).collect();
        assert!(world.rings.should_open());
        assert_eq!((world.rings.open().unwrap(), world.rings.roomy()), (1, (0, 2)));
        assert!(!world.rings.should_open(), "one is enough, also while sockets go to the first");
        assert_eq!(world.rings.open().unwrap(), 2);
        assert!(!world.rings.may_open() && world.rings.descriptors_max() == Some(24));
        let (second, third) = (world.client(1), world.client(2));
        assert!(!world.rings.look_for_unused(), "all have sockets");
        world.close(1, second);
        assert!(!world.rings.look_for_unused(), "the first could not do without it");
        world.close(0, first[0]);
        // What it has in flight is cancelled.
        let listener = world.listener.try_clone().unwrap();
        world.rings.at(1).accept(0, &listener);
        assert!(world.rings.look_for_unused() && world.close_unused().is_empty(), "not yet");
        let cancelled = world.next(1);
        assert!(
            matches!(cancelled, Completion::AcceptFailed { error: Errno::ECANCELED, .. }),
            "{cancelled:?}"
        );
        assert!(world.rings.look_for_unused());
        assert_eq!(world.close_unused(), [1]);
        assert_eq!((world.rings.count(), world.rings.end(), world.rings.is_open(1)), (2, 3, false));
        assert_eq!((world.rings.published(1), world.rings.receive_buffer_bytes()), (0, 2 * 4 * 64));
        assert_eq!(world.rings.descriptors_max(), None);
        world.rings.reap(1, &mut Vec::new());
        world.rings.cancel_accepts();
        // Another in its place, which serves.
        assert_eq!(world.rings.open().unwrap(), 1);
        let again = world.client(1);
        world.close(1, again);
        world.close(2, third);
        for looks in [false, true] {
            assert!(world.rings.look_for_unused());
            assert_eq!(world.close_unused(), if looks { vec![2, 1] } else { vec![] });
        }
        assert_eq!((world.rings.count(), world.rings.end()), (1, 1));
        assert!(!world.rings.look_for_unused());
    }

    #[test]
    fn a_ring_that_is_used_again_stays_open() {
        let mut world = World::new();
        let ring = world.rings.open().unwrap();
        assert!(world.rings.look_for_unused());
        let descriptor = world.client(ring);
        assert!(!world.rings.look_for_unused() && world.rings.closable().is_none());
        world.close(ring, descriptor);
        assert!(world.rings.look_for_unused() && world.rings.closable().is_none(), "it begins anew");
        world.rings.look_for_unused();
        // After the look, before the end.
        world.client(ring);
        assert_eq!(world.rings.closable(), None);
    }

    #[test]
    fn buffers_of_a_burst_are_kept_from_the_kernel_again() {
        let mut world = World::new();
        let descriptor = world.client(0);
        let id = ConnectionId { slot: 0, generation: 0 };
        world.rings.at(0).receive_multishot(id, descriptor);
        let receive = |world: &mut World, count: usize| -> Vec<Buffer> {
            let received = (0..count).map(|_| {
                world.clients[0].write_all(&[1; 64]).unwrap();
                match world.next(0) {
                    Completion::Received { buffer, .. } if buffer.len() == 64 => buffer,
                    other => panic!("64 bytes: {other:?}"),
                }
            });
            received.collect()
        };
        let state = |world: &World| (world.rings.published(0), world.rings.reserved(0));
        assert_eq!(state(&world), (2, 2));
        // Both at once: then it has four.
        let mut held = receive(&mut world, 1);
        assert_eq!(state(&world), (1, 2));
        held.append(&mut receive(&mut world, 1));
        assert_eq!(state(&world), (2, 0));
        held.append(&mut receive(&mut world, 1));
        held.drain(..).for_each(|buffer| world.rings.publish(0, buffer));
        assert_eq!((state(&world), world.rings.look_for_buffers()), ((4, 0), false), "three were in use");
        // One at a time needs four; none needs two, but only what is received into comes back.
        receive(&mut world, 1).into_iter().for_each(|buffer| world.rings.publish(0, buffer));
        assert_eq!((world.rings.look_for_buffers(), world.rings.look_for_buffers()), (false, false));
        assert_eq!(state(&world), (4, 0));
        for left in [3, 2, 2, 2] {
            receive(&mut world, 1).into_iter().for_each(|buffer| world.rings.publish(0, buffer));
            assert_eq!(state(&world), (left, 4 - usize::from(left)));
        }
        assert!(world.rings.look_for_buffers() && !world.rings.look_for_buffers(), "said once");
        world.rings.release_buffers();
        let again = receive(&mut world, 2);
        assert!(again.iter().all(|buffer| world.rings.bytes(0, buffer) == [1; 64]));
        again.into_iter().for_each(|buffer| world.rings.publish(0, buffer));
        assert_eq!(state(&world), (4, 0));
    }

    #[test]
    fn sockets_go_to_the_first_ring_with_room() {
        let mut world = World::new();
        let sockets: Vec<_> = (0..6).map(|_| world.client(0)).collect();
        assert_eq!(
            (world.rings.roomy(), world.rings.open().unwrap(), world.rings.roomy()),
            ((0, 1), 1, (1, 4))
        );
        world.close(0, sockets[0]);
        assert_eq!(world.rings.roomy(), (0, 2), "enough, though the second has more");
    }
}
