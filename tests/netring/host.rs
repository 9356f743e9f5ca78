//! An echo server on small rings, as unsteady as can be: it pauses, throttles, cancels, leaves, holds on to buffers, and gives
//! connections away to the other host in mid-stream. It has one ring at first, opens others when that fills up, and closes those that are
//! empty, as a shard does, only sooner.
//!
//! Every turn it counts what each ring has in flight against what it knows of itself, and at the end nothing may be left.

use crate::link::{Link, Moving};
use crate::rng::Rng;
use crate::whole;
use nix::errno::Errno;
use quelea::base::{ConnectionId, OutBuffer, ShardId, Slab};
use quelea::runtime::mailbox::Mesh;
use quelea::runtime::net::{Buffer, Completion, Descriptor, Ended, RingShare, Rings, RingsOptions};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

pub(crate) const BUFFERS: u16 = 4;
pub(crate) const BUFFER_SIZE: u32 = 200;
/// Descriptors of each ring.
pub(crate) const DESCRIPTORS: u32 = 16;
const SHARE: RingShare = RingShare { submissions: 8, completions: 8, buffers: BUFFERS, granted: 2 };
const OPTIONS: RingsOptions = RingsOptions {
    first: SHARE,
    further: SHARE,
    descriptors: DESCRIPTORS,
    buffer_size: BUFFER_SIZE,
    count_max: RINGS,
};
/// Rings a host has at most.
pub(crate) const RINGS: usize = 3;
/// Operations in flight for ever in the first ring: the event descriptor's.
pub(crate) const PERMANENT: u32 = 1;
/// Accepts the listening host keeps in flight.
const ACCEPTS: usize = 3;
/// Nothing happens for so long only if something is broken.
const STALL: Duration = Duration::from_secs(60);
/// A turn of a host that has something to do by itself.
const TURN: Duration = Duration::from_millis(1);

/// What the hosts share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Connections that were accepted and not closed.
    pub(crate) live: AtomicUsize,
    /// The rings of each host: its mailboxes nobody uses.
    pub(crate) mesh: Mesh,
    /// No more clients come.
    pub(crate) stopping: AtomicBool,
    /// Rings are dropped together: a doorbell may still be on its way.
    pub(crate) end: Barrier,
}

/// What has happened; every one of these must have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) accepted: usize,
    /// Accepts that found the table full: a client was turned away.
    pub(crate) accepts_refused: usize,
    pub(crate) accepts_cancelled: usize,
    /// Turns in which no accept could be in flight.
    pub(crate) waits_for_room: usize,
    pub(crate) single_shots: usize,
    pub(crate) multishots: usize,
    pub(crate) no_buffers: usize,
    pub(crate) receives_cancelled: usize,
    /// Bytes that came between a cancel and its end.
    pub(crate) late_bytes: usize,
    pub(crate) handed_over: usize,
    pub(crate) handed_over_with_bytes: usize,
    /// Hand-overs that found a ring full and tried the host's next.
    pub(crate) hand_overs_again: usize,
    pub(crate) hand_overs_refused: usize,
    pub(crate) rings_opened: usize,
    pub(crate) rings_closed: usize,
    /// Rings that could have been closed, but for a connection on its way there.
    pub(crate) rings_kept: usize,
    /// Looks after which receive buffers of a burst had come back.
    pub(crate) buffers_returned: usize,
    /// Connections that further rings accepted.
    pub(crate) accepted_further: usize,
    /// Connections handed over into further rings.
    pub(crate) landed_further: usize,
    /// Buffers that further rings received into.
    pub(crate) received_further: usize,
    /// Sends in flight for many turns.
    pub(crate) sends_stuck: usize,
    pub(crate) sends_cancelled: usize,
    /// Sends of more pieces than one message header takes.
    pub(crate) sends_in_parts: usize,
    pub(crate) failed: usize,
}

/// One server, one thread.
pub(crate) struct Host {
    /// 0 or 1.
    me: usize,
    rings: Rings,
    shared: Arc<Shared>,
    /// The other host's.
    door: Sender<Link>,
    arrivals: Receiver<Link>,
    /// The listening host has one.
    listener: Option<TcpListener>,
    links: Slab<Link>,
    /// Buffers given back a turn late, each with its ring.
    held: Vec<(usize, Buffer)>,
    accepts_cancelled: bool,
    rng: Rng,
    turn: u64,
    /// When something completed for the last time.
    active: Instant,
    seen: Seen,
}

impl Host {
    /// A host with one ring, on the thread that will run it.
    pub(crate) fn new(
        me: usize,
        event: Arc<OwnedFd>,
        shared: Arc<Shared>,
        door: Sender<Link>,
        arrivals: Receiver<Link>,
        listener: Option<TcpListener>,
        rng: Rng,
    ) -> Self {
        let rings = Rings::new(OPTIONS, event).expect("the kernel has io_uring");
        shared.mesh.publish_ring(shard(me), 0, rings.ring_fd(0));
        Self {
            me,
            rings,
            shared,
            door,
            arrivals,
            listener,
            links: Slab::default(),
            held: Vec::new(),
            accepts_cancelled: false,
            rng,
            turn: 0,
            active: Instant::now(),
            seen: Seen::default(),
        }
    }

    /// Serves until no more clients come and none is left; asserts that the ring is as it was.
    pub(crate) fn run(mut self) -> Seen {
        self.keep_accepting();
        while !(self.shared.stopping.load(Ordering::SeqCst) && self.shared.live.load(Ordering::SeqCst) == 0) {
            self.turn();
        }
        self.stop_accepting();
        self.tally();
        whole::check(&mut self.rings);
        self.shared.end.wait();
        self.seen
    }

    fn turn(&mut self) {
        self.turn += 1;
        self.wait();
        let mut buffers = std::mem::take(&mut self.held);
        self.reap();
        while let Ok(link) = self.arrivals.try_recv() {
            self.seen.landed_further += usize::from(link.ring > 0);
            self.rings.at(link.ring).adopt(link.descriptor);
            self.shared.mesh.leave_ring(shard(self.me), link.ring);
            self.insert(link);
        }
        if self.rng.chance(700) {
            buffers.append(&mut self.held);
        }
        buffers.into_iter().for_each(|(ring, buffer)| self.rings.publish(ring, buffer));
        if self.rng.chance(50) {
            self.seen.buffers_returned += usize::from(self.rings.look_for_buffers());
            self.rings.release_buffers();
        }
        self.open_ring();
        if self.rng.chance(500) {
            self.close_rings();
        }
        self.feed_starved();
        let ids: Vec<_> = self.links.iter().map(|(slot, generation, _)| (slot, generation)).collect();
        for (slot, generation) in ids {
            self.step(ConnectionId { slot, generation });
        }
        self.keep_accepting();
        self.tally();
    }

    fn reap(&mut self) {
        for ring in 0..self.rings.end() {
            let mut completions = Vec::new();
            self.rings.reap(ring, &mut completions);
            for completion in completions {
                self.active = Instant::now();
                self.on_completion(ring, completion);
            }
        }
    }

    /// Opens another ring if it is time to, and tells the other host.
    fn open_ring(&mut self) {
        if self.rings.should_open() {
            let ring = self.rings.open().expect("the process has descriptors");
            self.shared.mesh.publish_ring(shard(self.me), ring, self.rings.ring_fd(ring));
            self.seen.rings_opened += 1;
        }
    }

    /// Closes what has been empty for a while, unless something is on its way there.
    fn close_rings(&mut self) {
        if !self.rings.look_for_unused() {
            return;
        }
        self.accepts_cancelled = true;
        while let Some(ring) = self.rings.closable() {
            if !self.shared.mesh.withdraw_ring(shard(self.me), ring) {
                self.seen.rings_kept += 1;
                return;
            }
            self.rings.close(ring);
            self.seen.rings_closed += 1;
        }
    }

    fn wait(&mut self) {
        let turn = self.turn;
        // Rings are looked at for being empty turn by turn.
        let is_busy = !self.held.is_empty()
            || self.rings.count() > 1
            || self.links.iter().any(|(_, _, link)| {
                link.starved.is_some()
                    || link.paused_until >= turn
                    || link.is_to_be_left()
                    || (link.send.is_none() && !link.pending.is_empty())
            });
        if self.rng.chance(100) {
            return self.rings.submit().expect("the rings take entries");
        }
        let timeout = if is_busy { TURN } else { STALL };
        self.rings.wait(Some(timeout)).expect("the rings take entries");
        self.rings.collect().expect("the rings take entries");
        let is_stalled = self.active.elapsed() > STALL && !self.links.is_empty();
        assert!(!is_stalled, "nothing happens any more: {:#?}", self.links);
    }

    fn on_completion(&mut self, ring: usize, completion: Completion) {
        match completion {
            Completion::Accepted { listener: 7, descriptor, .. } => {
                self.seen.accepted += 1;
                self.seen.accepted_further += usize::from(ring > 0);
                self.shared.live.fetch_add(1, Ordering::SeqCst);
                self.insert(Link::new(ring, descriptor));
            }
            Completion::AcceptFailed { listener: 7, error: Errno::ENFILE } => self.seen.accepts_refused += 1,
            Completion::AcceptFailed { listener: 7, error: Errno::ECANCELED } => {
                assert!(self.accepts_cancelled, "only what is cancelled ends so");
                self.seen.accepts_cancelled += 1;
            }
            Completion::Received { connection, buffer, last } => {
                self.on_received(ring, connection, buffer, last);
            }
            Completion::ReceiveEnded { connection, ended } => self.on_receive_ended(connection, ended),
            Completion::Sent { connection, buffer, result } => self.on_sent(connection, &buffer, result),
            Completion::HandedOver { connection, result } => self.on_handed_over(connection, result),
            Completion::Woken => {}
            other => panic!("nobody asked for it: {other:?}"),
        }
    }

    fn on_received(&mut self, ring: usize, connection: ConnectionId, buffer: Buffer, last: bool) {
        let link = link_of(&mut self.links, connection);
        assert!(link.armed && link.ring == ring, "a receive was asked for: {link:?}");
        self.seen.received_further += usize::from(ring > 0);
        self.seen.late_bytes += usize::from(link.cancelled);
        link.receive(self.rings.bytes(ring, &buffer));
        if last {
            (link.armed, link.cancelled) = (false, false);
        }
        if self.rng.chance(60) {
            link.paused_until = self.turn + self.rng.size(1, 4) as u64;
            if link.armed && !link.cancelled {
                // At once: more of it may have been reaped already.
                link.cancelled = true;
                self.rings.at(ring).cancel_receive(connection);
            }
        }
        if self.rng.chance(40) && link.moving == Moving::No {
            link.moving = Moving::Wanted;
        }
        self.held.push((ring, buffer));
    }

    fn on_receive_ended(&mut self, connection: ConnectionId, ended: Ended) {
        let link = link_of(&mut self.links, connection);
        assert!(link.armed, "a receive was asked for: {link:?}");
        match ended {
            Ended::Closed => link.ended = true,
            Ended::Cancelled => {
                assert!(link.cancelled, "only what is cancelled ends so: {link:?}");
                self.seen.receives_cancelled += 1;
            }
            Ended::NoBuffers => {
                link.starved = Some(self.turn);
                self.seen.no_buffers += 1;
            }
            Ended::Failed(error) => {
                assert!(matches!(error, Errno::ECONNRESET | Errno::EPIPE), "a client resets: {error}");
                link.over = true;
                self.seen.failed += 1;
            }
        }
        (link.armed, link.cancelled) = (false, false);
    }

    fn on_sent(&mut self, connection: ConnectionId, buffer: &OutBuffer, result: Result<(), Errno>) {
        let link = link_of(&mut self.links, connection);
        let (_, since) = link.send.take().expect("a send was asked for");
        assert!(!buffer.is_empty(), "the buffer comes back as it was");
        self.seen.sends_stuck += usize::from(self.turn - since > 20);
        match result {
            Ok(()) => {}
            Err(Errno::ECANCELED) => {
                assert!(link.closing, "only what is cancelled ends so: {link:?}");
                self.seen.sends_cancelled += 1;
            }
            Err(Errno::ECONNRESET | Errno::EPIPE) => {
                link.over = true;
                self.seen.failed += 1;
            }
            Err(error) => panic!("a client resets: {error}"),
        }
    }

    fn on_handed_over(&mut self, connection: ConnectionId, result: Result<Descriptor, Errno>) {
        let link = link_of(&mut self.links, connection);
        let Moving::UnderWay { to, attempt } = link.moving else { panic!("it was asked for: {link:?}") };
        let Ok(there) = result else {
            assert_eq!(result, Err(Errno::ENFILE), "the other table is full");
            self.shared.mesh.leave_ring(shard(1 - self.me), to);
            let begins = self.begin_hand_over(connection, attempt + 1);
            self.seen.hand_overs_again += usize::from(begins);
            self.seen.hand_overs_refused += usize::from(!begins);
            return;
        };
        self.rings.at(link.ring).close(link.descriptor);
        self.seen.handed_over += 1;
        self.seen.handed_over_with_bytes += usize::from(!link.pending.is_empty());
        let link = self.links.remove(connection.slot, connection.generation).expect("found above");
        self.door.send(link.moved(to, there)).expect("the other host lives as long");
        self.ring_doorbell();
    }

    /// Copies a socket to the ring of the other host that is the next to try, if there is one.
    fn begin_hand_over(&mut self, connection: ConnectionId, mut attempt: usize) -> bool {
        let link = link_of(&mut self.links, connection);
        let Some((to, ring)) = self.shared.mesh.enter_ring(shard(1 - self.me), &mut attempt) else {
            link.moving = Moving::No;
            return false;
        };
        link.moving = Moving::UnderWay { to, attempt };
        self.rings.at(link.ring).hand_over(connection, link.descriptor, ring);
        true
    }

    /// Wakes the other host, in the ring it waits in.
    fn ring_doorbell(&mut self) {
        if let Some(first) = self.shared.mesh.doorbell(shard(1 - self.me)) {
            self.rings.at(0).ring_doorbell(first);
        }
    }

    /// Does what a connection wants next.
    fn step(&mut self, connection: ConnectionId) {
        let link = link_of(&mut self.links, connection);
        if link.is_under_way() {
            return;
        }
        let is_stuck = link.send.is_some_and(|(_, since)| self.turn - since > 30);
        if link.is_to_be_left() && (is_stuck || self.rng.chance(10)) {
            link.over = true;
        }
        if link.is_done() || (link.over && !link.closing) {
            self.close(connection);
        } else if link.closing {
            self.close_if_quiet(connection);
        } else {
            self.send(connection);
            self.hand_over(connection);
            self.receive(connection);
        }
    }

    fn send(&mut self, connection: ConnectionId) {
        let link = link_of(&mut self.links, connection);
        if link.send.is_some() || link.pending.is_empty() || self.rng.chance(200) {
            return;
        }
        let buffer = link.take(&mut self.rng);
        self.seen.sends_in_parts += usize::from(buffer.slices(0, 1024).len() > 256);
        let send = self.rings.at(link.ring).send(connection, link.descriptor, buffer);
        link.send = Some((send, self.turn));
    }

    fn hand_over(&mut self, connection: ConnectionId) {
        let link = link_of(&mut self.links, connection);
        if link.moving == Moving::Wanted && !link.armed && link.send.is_none() {
            // Any of its rings, and those behind it. It may be about to begin, without one.
            let attempt = self.rng.size(0, RINGS - 1);
            self.begin_hand_over(connection, attempt);
        }
    }

    fn receive(&mut self, connection: ConnectionId) {
        let link = link_of(&mut self.links, connection);
        let wants_bytes = link.wants_bytes(self.turn);
        let ring = self.rings.at(link.ring);
        if link.armed && !wants_bytes && !link.cancelled {
            link.cancelled = true;
            ring.cancel_receive(connection);
        } else if link.armed && self.rng.chance(20) {
            // Cancels of the slot's last user come late, and must not reach this one.
            let stale = ConnectionId { generation: connection.generation.wrapping_sub(1), ..connection };
            ring.cancel_receive(stale);
            if let Some((send, _)) = link.send {
                ring.cancel_send(send, stale);
            }
        } else if !link.armed && wants_bytes {
            link.armed = true;
            if self.rng.chance(400) {
                self.seen.single_shots += 1;
                ring.receive(connection, link.descriptor);
            } else {
                self.seen.multishots += 1;
                ring.receive_multishot(connection, link.descriptor);
            }
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        let link = link_of(&mut self.links, connection);
        link.closing = true;
        let ring = self.rings.at(link.ring);
        if link.armed && !link.cancelled {
            link.cancelled = true;
            ring.cancel_receive(connection);
        }
        if let Some((send, _)) = link.send {
            ring.cancel_send(send, connection);
        }
        self.close_if_quiet(connection);
    }

    fn close_if_quiet(&mut self, connection: ConnectionId) {
        let link = link_of(&mut self.links, connection);
        if link.armed || link.send.is_some() {
            return;
        }
        self.rings.at(link.ring).close(link.descriptor);
        self.links.remove(connection.slot, connection.generation).expect("found above");
        if self.shared.live.fetch_sub(1, Ordering::SeqCst) == 1 {
            // It may be what the other host waits for.
            self.ring_doorbell();
        }
    }

    fn insert(&mut self, link: Link) {
        let place = (link.ring, link.descriptor);
        let is_taken = self.links.iter().any(|(_, _, link)| (link.ring, link.descriptor) == place);
        assert!(!is_taken, "{place:?} is in use");
        self.links.insert(link);
    }

    /// Lets as many starved connections of each ring try again as it has buffers, in the order they starved.
    fn feed_starved(&mut self) {
        for ring in 0..self.rings.end() {
            for _ in 0..self.rings.published(ring) {
                let starved = self.links.iter().filter(|(_, _, link)| link.ring == ring).filter_map(
                    |(slot, generation, link)| {
                        link.starved.map(|since| (since, ConnectionId { slot, generation }))
                    },
                );
                let Some((_, connection)) = starved.min_by_key(|(since, _)| *since) else { break };
                link_of(&mut self.links, connection).starved = None;
            }
        }
    }

    /// Mostly accepts no more than fit, where there is room; now and then it does not look.
    fn keep_accepting(&mut self) {
        if self.listener.is_none() {
            return;
        }
        let in_flight = self.accepts();
        let Some(listener) = &self.listener else { return };
        let (ring, _) = self.rings.roomy();
        self.seen.waits_for_room += usize::from(self.rings.at(ring).descriptors_free() == 0);
        self.accepts_cancelled &= in_flight > 0;
        if self.accepts_cancelled {
            return;
        }
        let ring = self.rings.at(ring);
        for _ in in_flight..ACCEPTS {
            let fits = ring.descriptors_free() as usize > ring.accepts();
            if fits || self.rng.chance(2) {
                ring.accept(7, listener);
            }
        }
        if self.rng.chance(10) {
            self.cancel_accepts();
        }
    }

    fn cancel_accepts(&mut self) {
        self.accepts_cancelled = true;
        self.rings.cancel_accepts();
    }

    fn accepts(&mut self) -> usize {
        let open = (0..self.rings.end()).filter(|ring| self.rings.is_open(*ring)).collect::<Vec<_>>();
        open.into_iter().map(|ring| self.rings.at(ring).accepts()).sum()
    }

    fn stop_accepting(&mut self) {
        self.cancel_accepts();
        while self.accepts() > 0 {
            self.wait();
            self.reap();
        }
        // Accepted at the last moment: a client that had reset before.
        let late: Vec<_> = self.links.iter().map(|(slot, generation, _)| (slot, generation)).collect();
        for (slot, generation) in late {
            self.close(ConnectionId { slot, generation });
        }
        let held = std::mem::take(&mut self.held);
        held.into_iter().for_each(|(ring, buffer)| self.rings.publish(ring, buffer));
        self.rings.submit().expect("the rings take entries");
    }

    /// What each ring says it has, and what it must have.
    fn tally(&mut self) {
        for index in 0..self.rings.end() {
            let links = self.links.iter().map(|(_, _, link)| link).filter(|link| link.ring == index);
            let (mut all, mut sends, mut others) = (0, 0, 0);
            for link in links {
                all += 1;
                sends += usize::from(link.send.is_some());
                others += usize::from(link.armed) + usize::from(link.is_under_way());
            }
            let held = self.held.iter().filter(|(ring, _)| *ring == index).count();
            if !self.rings.is_open(index) {
                assert_eq!(all + held, 0, "nothing is left of a ring that was closed");
                continue;
            }
            let reserved = self.rings.reserved(index);
            let ring = self.rings.at(index);
            let permanent = if index == 0 { PERMANENT as usize } else { 0 };
            let in_flight = sends + others + ring.accepts() + permanent;
            assert_eq!(ring.sends(), sends, "sends in flight");
            assert_eq!(ring.outstanding() as usize, in_flight, "operations in flight");
            assert_eq!(ring.descriptors_used() as usize, all, "descriptors in use");
            assert_eq!(usize::from(ring.published()) + reserved + held, usize::from(BUFFERS), "buffers");
        }
    }
}

fn shard(host: usize) -> ShardId {
    ShardId(u16::try_from(host).expect("there are two"))
}

/// The connection a completion is about: it is kept until nothing of it is in flight, so nothing comes late.
fn link_of(links: &mut Slab<Link>, connection: ConnectionId) -> &mut Link {
    links.get_mut(connection.slot, connection.generation).expect("completions are about connections in use")
}
