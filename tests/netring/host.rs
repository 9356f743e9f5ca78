//! An echo server on one small ring, as unsteady as can be: it pauses, throttles, cancels, leaves, holds on to buffers, and gives
//! connections away to the other host in mid-stream.
//!
//! Every turn it counts what the ring has in flight against what it knows of itself, and at the end nothing may be left.

use crate::link::{Link, Moving};
use crate::rng::Rng;
use crate::whole;
use nix::errno::Errno;
use quelea::base::{ConnectionId, OutBuffer, Slab};
use quelea::runtime::net::{
    Buffer, Completion, Descriptor, Ended, NetRing, ReceiveBuffers, RingFd, RingOptions,
};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

pub(crate) const OPTIONS: RingOptions = RingOptions { submissions: 8, completions: 8, descriptors: 16 };
pub(crate) const BUFFERS: u16 = 4;
pub(crate) const BUFFER_SIZE: u32 = 200;
/// Operations in flight for ever: the event descriptor's.
pub(crate) const PERMANENT: u32 = 1;
/// Accepts the listening host keeps in flight.
const ACCEPTS: usize = 3;
/// Nothing happens for so long only if something is broken.
const STALL: Duration = Duration::from_secs(10);
/// A turn of a host that has something to do by itself.
const TURN: Duration = Duration::from_millis(1);

/// What the hosts share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Connections that were accepted and not closed.
    pub(crate) live: AtomicUsize,
    /// No more clients come.
    pub(crate) stopping: AtomicBool,
    /// Rings are dropped together: a doorbell may still be on its way.
    pub(crate) end: Barrier,
}

/// The other host.
pub(crate) struct Other {
    pub(crate) ring: RingFd,
    pub(crate) door: Sender<Link>,
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
    pub(crate) hand_overs_refused: usize,
    /// Sends in flight for many turns.
    pub(crate) sends_stuck: usize,
    pub(crate) sends_cancelled: usize,
    /// Sends of more pieces than one message header takes.
    pub(crate) sends_in_parts: usize,
    pub(crate) failed: usize,
}

/// One server, one ring, one thread.
pub(crate) struct Host {
    ring: NetRing,
    shared: Arc<Shared>,
    other: Other,
    arrivals: Receiver<Link>,
    /// The listening host has one.
    listener: Option<TcpListener>,
    links: Slab<Link>,
    /// Buffers given back a turn late.
    held: Vec<Buffer>,
    accepts_cancelled: bool,
    rng: Rng,
    turn: u64,
    /// When something completed for the last time.
    active: Instant,
    seen: Seen,
}

impl Host {
    /// The ring of a host, on the thread that will run it.
    pub(crate) fn ring(event: Arc<OwnedFd>) -> NetRing {
        let (buffers, tokens) = ReceiveBuffers::new(BUFFERS, BUFFER_SIZE);
        let mut ring = NetRing::new(OPTIONS, buffers).expect("the kernel has io_uring");
        tokens.into_iter().for_each(|token| ring.publish(token));
        ring.watch(event);
        ring
    }

    pub(crate) fn new(
        ring: NetRing,
        shared: Arc<Shared>,
        other: Other,
        arrivals: Receiver<Link>,
        listener: Option<TcpListener>,
        rng: Rng,
    ) -> Self {
        Self {
            ring,
            shared,
            other,
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
        whole::check(&mut self.ring);
        self.shared.end.wait();
        self.seen
    }

    fn turn(&mut self) {
        self.turn += 1;
        self.wait();
        let mut completions = Vec::new();
        self.ring.reap(&mut completions);
        if !completions.is_empty() {
            self.active = Instant::now();
        }
        let mut buffers = std::mem::take(&mut self.held);
        for completion in completions {
            self.on_completion(completion);
        }
        while let Ok(link) = self.arrivals.try_recv() {
            self.ring.adopt(link.descriptor);
            self.insert(link);
        }
        if self.rng.chance(700) {
            buffers.append(&mut self.held);
        }
        buffers.into_iter().for_each(|buffer| self.ring.publish(buffer));
        self.feed_starved();
        let ids: Vec<_> = self.links.iter().map(|(slot, generation, _)| (slot, generation)).collect();
        for (slot, generation) in ids {
            self.step(ConnectionId { slot, generation });
        }
        self.keep_accepting();
        self.tally();
    }

    fn wait(&mut self) {
        let turn = self.turn;
        let is_busy = !self.held.is_empty()
            || self.links.iter().any(|(_, _, link)| {
                link.starved.is_some()
                    || link.paused_until >= turn
                    || link.is_to_be_left()
                    || (link.send.is_none() && !link.pending.is_empty())
            });
        if self.rng.chance(100) {
            return self.ring.submit().expect("the ring takes entries");
        }
        let timeout = if is_busy { TURN } else { STALL };
        self.ring.wait(Some(timeout)).expect("the ring takes entries");
        let is_stalled = self.active.elapsed() > STALL && !self.links.is_empty();
        assert!(!is_stalled, "nothing happens any more: {:#?}", self.links);
    }

    fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { listener: 7, descriptor, .. } => {
                self.seen.accepted += 1;
                self.shared.live.fetch_add(1, Ordering::SeqCst);
                self.insert(Link::new(descriptor));
            }
            Completion::AcceptFailed { listener: 7, error: Errno::ENFILE } => self.seen.accepts_refused += 1,
            Completion::AcceptFailed { listener: 7, error: Errno::ECANCELED } => {
                assert!(self.accepts_cancelled, "only what is cancelled ends so");
                self.seen.accepts_cancelled += 1;
            }
            Completion::Received { connection, buffer, last } => self.on_received(connection, buffer, last),
            Completion::ReceiveEnded { connection, ended } => self.on_receive_ended(connection, ended),
            Completion::Sent { connection, buffer, result } => self.on_sent(connection, &buffer, result),
            Completion::HandedOver { connection, result } => self.on_handed_over(connection, result),
            Completion::Woken => {}
            other => panic!("nobody asked for it: {other:?}"),
        }
    }

    fn on_received(&mut self, connection: ConnectionId, buffer: Buffer, last: bool) {
        let link = link_of(&mut self.links, connection);
        assert!(link.armed, "a receive was asked for: {link:?}");
        self.seen.late_bytes += usize::from(link.cancelled);
        link.receive(self.ring.buffers().bytes(&buffer));
        if last {
            (link.armed, link.cancelled) = (false, false);
        }
        if self.rng.chance(60) {
            link.paused_until = self.turn + self.rng.size(1, 4) as u64;
            if link.armed && !link.cancelled {
                // At once: more of it may have been reaped already.
                link.cancelled = true;
                self.ring.cancel_receive(connection);
            }
        }
        if self.rng.chance(40) && link.moving == Moving::No {
            link.moving = Moving::Wanted;
        }
        self.held.push(buffer);
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
        assert_eq!(link.moving, Moving::UnderWay, "it was asked for: {link:?}");
        match result {
            Ok(there) => {
                self.ring.close(link.descriptor);
                self.seen.handed_over += 1;
                self.seen.handed_over_with_bytes += usize::from(!link.pending.is_empty());
                let link = self.links.remove(connection.slot, connection.generation).expect("found above");
                self.other.door.send(link.moved(there)).expect("the other host lives as long");
                self.ring.ring_doorbell(self.other.ring);
            }
            Err(error) => {
                assert_eq!(error, Errno::ENFILE, "the other table is full");
                link.moving = Moving::No;
                self.seen.hand_overs_refused += 1;
            }
        }
    }

    /// Does what a connection wants next.
    fn step(&mut self, connection: ConnectionId) {
        let link = link_of(&mut self.links, connection);
        if link.moving == Moving::UnderWay {
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
        link.send = Some((self.ring.send(connection, link.descriptor, buffer), self.turn));
    }

    fn hand_over(&mut self, connection: ConnectionId) {
        let link = link_of(&mut self.links, connection);
        if link.moving == Moving::Wanted && !link.armed && link.send.is_none() {
            link.moving = Moving::UnderWay;
            self.ring.hand_over(connection, link.descriptor, self.other.ring);
        }
    }

    fn receive(&mut self, connection: ConnectionId) {
        let link = link_of(&mut self.links, connection);
        let wants_bytes = link.wants_bytes(self.turn);
        if link.armed && !wants_bytes && !link.cancelled {
            link.cancelled = true;
            self.ring.cancel_receive(connection);
        } else if link.armed && self.rng.chance(20) {
            // Cancels of the slot's last user come late, and must not reach this one.
            let stale = ConnectionId { generation: connection.generation.wrapping_sub(1), ..connection };
            self.ring.cancel_receive(stale);
            if let Some((send, _)) = link.send {
                self.ring.cancel_send(send, stale);
            }
        } else if !link.armed && wants_bytes {
            link.armed = true;
            if self.rng.chance(400) {
                self.seen.single_shots += 1;
                self.ring.receive(connection, link.descriptor);
            } else {
                self.seen.multishots += 1;
                self.ring.receive_multishot(connection, link.descriptor);
            }
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        let link = link_of(&mut self.links, connection);
        link.closing = true;
        if link.armed && !link.cancelled {
            link.cancelled = true;
            self.ring.cancel_receive(connection);
        }
        if let Some((send, _)) = link.send {
            self.ring.cancel_send(send, connection);
        }
        self.close_if_quiet(connection);
    }

    fn close_if_quiet(&mut self, connection: ConnectionId) {
        let link = link_of(&mut self.links, connection);
        if link.armed || link.send.is_some() {
            return;
        }
        self.ring.close(link.descriptor);
        self.links.remove(connection.slot, connection.generation).expect("found above");
        if self.shared.live.fetch_sub(1, Ordering::SeqCst) == 1 {
            // It may be what the other host waits for.
            self.ring.ring_doorbell(self.other.ring);
        }
    }

    fn insert(&mut self, link: Link) {
        let descriptor = link.descriptor;
        let is_taken = self.links.iter().any(|(_, _, link)| link.descriptor == descriptor);
        assert!(!is_taken, "{descriptor:?} is in use");
        self.links.insert(link);
    }

    /// Lets as many starved connections try again as there are buffers, in the order they starved.
    fn feed_starved(&mut self) {
        for _ in 0..self.ring.published() {
            let starved = self.links.iter().filter_map(|(slot, generation, link)| {
                link.starved.map(|since| (since, ConnectionId { slot, generation }))
            });
            let Some((_, connection)) = starved.min_by_key(|(since, _)| *since) else { return };
            link_of(&mut self.links, connection).starved = None;
        }
    }

    /// Mostly accepts no more than fit; now and then it does not look.
    fn keep_accepting(&mut self) {
        let Some(listener) = &self.listener else { return };
        self.seen.waits_for_room += usize::from(self.ring.descriptors_free() == 0);
        self.accepts_cancelled &= self.ring.accepts() > 0;
        if self.accepts_cancelled {
            return;
        }
        for _ in self.ring.accepts()..ACCEPTS {
            let fits = self.ring.descriptors_free() as usize > self.ring.accepts();
            if fits || self.rng.chance(2) {
                self.ring.accept(7, listener);
            }
        }
        if self.rng.chance(10) {
            self.accepts_cancelled = true;
            self.ring.cancel_accepts();
        }
    }

    fn stop_accepting(&mut self) {
        self.accepts_cancelled = true;
        self.ring.cancel_accepts();
        while self.ring.accepts() > 0 {
            self.wait();
            let mut completions = Vec::new();
            self.ring.reap(&mut completions);
            completions.into_iter().for_each(|completion| self.on_completion(completion));
        }
        // Accepted at the last moment: a client that had reset before.
        let late: Vec<_> = self.links.iter().map(|(slot, generation, _)| (slot, generation)).collect();
        for (slot, generation) in late {
            self.close(ConnectionId { slot, generation });
        }
        std::mem::take(&mut self.held).into_iter().for_each(|buffer| self.ring.publish(buffer));
        self.ring.submit().expect("the ring takes entries");
    }

    /// What the ring says it has, and what it must have.
    fn tally(&self) {
        let count = |is: fn(&Link) -> bool| self.links.iter().filter(|(_, _, link)| is(link)).count();
        let sends = count(|link| link.send.is_some());
        let others = count(|link| link.armed) + count(|link| link.moving == Moving::UnderWay);
        let in_flight = sends + others + self.ring.accepts() + PERMANENT as usize;
        assert_eq!(self.ring.sends(), sends, "sends in flight");
        assert_eq!(self.ring.outstanding() as usize, in_flight, "operations in flight");
        assert_eq!(self.ring.descriptors_used() as usize, self.links.len(), "descriptors in use");
        assert_eq!(usize::from(self.ring.published()) + self.held.len(), usize::from(BUFFERS), "buffers");
    }
}

/// The connection a completion is about: it is kept until nothing of it is in flight, so nothing comes late.
fn link_of(links: &mut Slab<Link>, connection: ConnectionId) -> &mut Link {
    links.get_mut(connection.slot, connection.generation).expect("completions are about connections in use")
}
