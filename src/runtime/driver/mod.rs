//! One shard's loop: network completions, mail and time go into the [`Shard`], its outputs go to the network and the other
//! shards, once a turn; when nothing is left to do it waits in its own network ring.
//!
//! ```text
//! reap -> handle_* -> mail -> timers -> poll_send, poll_output, poll_peer -> re-arm -> doorbells -> submit and wait -+
//!   ^                                                                                                            |
//!   +------------------------------------------------------------------------------------------------------------+
//! ```
//!
//! It is the main task of a glommio executor, but does not park in it: parking there costs about 9 µs a message at 20,000
//! messages a second. Other tasks of the executor get their turn when its preempt timer says so
//! ([`glommio::yield_if_needed`]). The log's writes and reads go through the first network ring too ([`disk`](super::disk) says
//! why), so that a commit ends the same wait as a packet.
//!
//! It opens in two steps: nothing is listened on before every shard has its sessions back and knows the filters of all others.
//!
//! Invariants: what the shard has forgotten is not handed in again; a connection's socket is in `sockets`, in `closing` or in
//! `moves`, in one of them only; nothing waits (throttled, starved, closing, stalled) without something in flight or a deadline
//! that will look at it again.
//!
//! Cost: one system call a turn, and no allocation in steady state.

mod accept;
mod answer;
mod close;
mod disk;
mod drain;
mod hand_over;
mod mail;
mod receive;
mod sockets;
mod spare;

use super::clock;
use super::control::Control;
use super::desk::Desk;
use super::disk::LogDisk;
use super::listener::Unbound;
use super::mailbox::{Mail, Mesh, RINGS_MAX};
use super::net::{Completion, RingShare, Rings, RingsOptions};
use crate::base::{ConnectionId, HashKey, Mono, Now, ShardId};
use crate::shard::{Options, Shard};
use accept::Listener;
use close::Closing;
use hand_over::Move;
use hashbrown::HashMap;
use sockets::Sockets;
use spare::SpareTime;
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

/// How long connections may take to say goodbye when the process leaves: longer than the shard waits for a slow reader.
pub(super) const DRAIN_MAX_MS: u64 = 8_000;

/// Of a receive buffer, in bytes. Smaller ones cost a third in fan-in, larger ones gain nothing.
const BUFFER_SIZE: u32 = 4096;
/// 4 MiB of receive buffers, which most shards never exceed; 128 KiB and 256 KiB of queues.
const FIRST: RingShare = RingShare { submissions: 2048, completions: 16_384, buffers: 1024, granted: 64 };
/// 256 KiB of receive buffers.
const FURTHER: RingShare = RingShare { submissions: 1024, completions: 4096, buffers: 64, granted: 16 };

/// What a driver is made of.
pub(super) struct Setup {
    pub(super) id: ShardId,
    pub(super) key: HashKey,
    pub(super) options: Options,
    pub(super) mesh: Arc<Mesh>,
    pub(super) control: Arc<Control>,
    pub(super) desk: Arc<Desk>,
    /// Bound and not yet listening, each with its address.
    pub(super) listeners: Vec<(TcpListener, SocketAddr)>,
    /// Called once when it listens, or cannot.
    pub(super) opened: Opened,
    /// Direct descriptors a ring.
    pub(super) descriptors: u32,
}

/// Called once when a shard listens, or cannot.
pub(super) type Opened = Box<dyn FnOnce(Result<(), Unbound>) + Send>;

/// One shard and everything it is connected to.
pub(super) struct Driver {
    id: ShardId,
    shard: Shard,
    rings: Rings,
    mesh: Arc<Mesh>,
    control: Arc<Control>,
    desk: Arc<Desk>,
    /// Where its log is, once it has one.
    disk: Option<LogDisk>,
    /// Places found damaged when that was opened.
    damage_count: u64,
    /// This shard has all of its sessions back, and has said so.
    is_ready: bool,
    /// Until it listens.
    opened: Option<Opened>,
    /// The last question that wants a report.
    reporting: u64,
    listeners: Vec<Listener>,
    /// The ring that other shards are told to hand connections to.
    landing: usize,
    sockets: Sockets,
    closing: HashMap<ConnectionId, Closing>,
    /// Connections in `closing` that the peer still sends to, with the end of their time; in order.
    lingering: VecDeque<(Mono, ConnectionId)>,
    moves: HashMap<ConnectionId, Move>,
    /// Connections in `moves` that found no room, and when to try again; in order.
    stalled: VecDeque<(Mono, ConnectionId)>,
    /// Mail of the driver's own that found no room, by receiver.
    waiting: Vec<VecDeque<Mail>>,
    /// Connections whose receive is over and that may want another, this turn.
    rearm: Vec<ConnectionId>,
    throttled: Vec<ConnectionId>,
    /// Lost connections that the shard has not heard of, in order.
    ends: VecDeque<ConnectionId>,
    starved: VecDeque<ConnectionId>,
    /// Shards to be rung for at the end of the turn, a bit each.
    bells: u64,
    completions: Vec<Completion>,
    now: Now,
    /// Counts turns, wrapping.
    turn: u32,
    short_of_memory: bool,
    short_of_space: bool,
    leaving: Option<Mono>,
    finished: bool,
    /// No warning about full tables before this.
    quiet_until: Mono,
    spare: SpareTime,
}

impl Driver {
    /// Opens the first ring, on the thread that will run the driver.
    ///
    /// # Errors
    /// If the kernel refuses the ring.
    pub(super) fn new(setup: Setup) -> io::Result<Self> {
        let Setup { id, key, options, mesh, control, desk, listeners, opened, descriptors } = setup;
        let count_max = ring_count_max(&options, mesh.shards(), descriptors);
        let rings =
            RingsOptions { first: FIRST, further: FURTHER, descriptors, buffer_size: BUFFER_SIZE, count_max };
        let rings = Rings::new(rings, Arc::clone(control.event(id.index())))?;
        mesh.publish_ring(id, 0, rings.ring_fd(0));
        let now = clock::now();
        let mut driver = Self {
            id,
            shard: Shard::new(options, id, mesh.shards(), key, now),
            rings,
            waiting: (0..mesh.shards()).map(|_| VecDeque::new()).collect(),
            mesh,
            control,
            desk,
            disk: None,
            damage_count: 0,
            is_ready: false,
            opened: Some(opened),
            reporting: 0,
            listeners: listeners.into_iter().map(|(socket, local)| Listener::new(socket, local)).collect(),
            landing: 0,
            sockets: Sockets::default(),
            closing: HashMap::new(),
            lingering: VecDeque::new(),
            moves: HashMap::new(),
            stalled: VecDeque::new(),
            rearm: Vec::new(),
            throttled: Vec::new(),
            ends: VecDeque::new(),
            starved: VecDeque::new(),
            bells: 0,
            completions: Vec::new(),
            now,
            turn: 0,
            short_of_memory: false,
            short_of_space: false,
            leaving: None,
            finished: false,
            quiet_until: now.mono,
            spare: SpareTime::default(),
        };
        driver.limit_clients();
        Ok(driver)
    }

    /// Serves until the process leaves and every shard has finished.
    ///
    /// # Errors
    /// If the kernel refuses the ring its service: the process cannot go on.
    pub(super) async fn run(mut self) -> io::Result<()> {
        loop {
            self.turn();
            if self.is_over() {
                return self.rings.submit();
            }
            glommio::yield_if_needed().await;
            self.submit_and_wait()?;
        }
    }

    fn turn(&mut self) {
        self.now = clock::now();
        self.turn = self.turn.wrapping_add(1);
        self.unthrottle();
        let mut completions = mem::take(&mut self.completions);
        for ring in 0..self.rings.end() {
            self.rings.reap(ring, &mut completions);
            for completion in completions.drain(..) {
                self.on_completion(ring, completion);
            }
        }
        self.completions = completions;
        self.end_some();
        self.take_mail();
        self.obey();
        self.take_questions();
        self.retry_moves();
        self.open();
        if self.shard.next_deadline().is_some_and(|deadline| deadline <= self.now.mono) {
            self.shard.handle_timeout(self.now);
        }
        self.hand_in_report();
        self.drain();
        self.end_lingering();
        self.rearm();
        self.keep_accepting();
        self.use_spare_time();
        self.ring_doorbells();
    }

    fn on_completion(&mut self, ring: usize, completion: Completion) {
        match completion {
            Completion::Received { connection, buffer, last } => {
                self.on_received(ring, connection, buffer, last);
            }
            Completion::Sent { connection, buffer, result } => self.on_sent(connection, buffer, result),
            Completion::SendingEnded { connection } => self.on_sending_ended(connection),
            Completion::ReceiveEnded { connection, ended } => self.on_receive_ended(connection, ended),
            Completion::Accepted { listener, descriptor, peer } => {
                self.on_accepted(ring, listener, descriptor, peer);
            }
            Completion::AcceptFailed { listener, error } => self.on_accept_failed(listener, error),
            Completion::HandedOver { connection, result } => self.on_handed_over(connection, result),
            // Flags, mail and further rings are looked at every turn anyway.
            Completion::Woken => {}
            Completion::Connected { .. } => unreachable!("the broker does not connect"),
            Completion::Transferred { token, transfer, result } => {
                self.disk.as_mut().expect("it asked for it").on_transferred(token, transfer, result);
            }
        }
    }

    /// Does what the process asks of all shards.
    fn obey(&mut self) {
        let short = self.control.is_short_of_memory();
        if short != self.short_of_memory {
            self.short_of_memory = short;
            self.shard.handle_pressure(self.now, short);
        }
        let short = self.control.is_short_of_space();
        if short != self.short_of_space {
            self.short_of_space = short;
            self.shard.handle_disk_space(self.now, short);
        }
        if self.control.is_leaving() && self.leaving.is_none() {
            self.leaving = Some(self.now.mono.plus_ms(DRAIN_MAX_MS));
            self.stop_accepting();
            self.shard.handle_shutdown(self.now);
        }
    }

    /// Lets clients in, once every shard is ready.
    fn open(&mut self) {
        if self.opened.is_none() || self.leaving.is_some() {
            return;
        }
        if !self.is_ready && self.shard.is_ready() {
            self.is_ready = true;
            self.control.ready();
        }
        if !self.control.is_ready() {
            return;
        }
        self.shard.handle_ready(self.now);
        let listens = self.listeners.iter().try_for_each(Listener::listen);
        if let Some(opened) = self.opened.take() {
            opened(listens);
        }
    }

    /// Whether every shard has closed its connections, or ran out of time to.
    fn is_over(&mut self) -> bool {
        let Some(deadline) = self.leaving else { return false };
        let empty = self.sockets.len() == 0 && self.closing.is_empty() && self.moves.is_empty();
        let is_late = deadline <= self.now.mono;
        if !self.finished && (empty && self.shard.is_disk_idle() || is_late) {
            self.finished = true;
            if is_late {
                let connections = self.sockets.len() + self.closing.len() + self.moves.len();
                let log_is_idle = self.shard.is_disk_idle();
                tracing::warn!(
                    connections,
                    log_is_idle,
                    "leaving with work undone: it took over {DRAIN_MAX_MS} ms"
                );
            }
            self.control.finished();
        }
        self.finished && (self.control.is_finished() || is_late)
    }

    /// Submits what the turn asked for; waits for more unless there is still something to do.
    fn submit_and_wait(&mut self) -> io::Result<()> {
        let deadline = self.deadline();
        let is_due = deadline.is_some_and(|deadline| deadline <= self.now.mono);
        if is_due || !self.throttled.is_empty() || !self.ends.is_empty() || !self.mesh.may_sleep(self.id) {
            return self.rings.submit();
        }
        let timeout = deadline.map(|deadline| Duration::from_millis(deadline.since(self.now.mono)));
        let waited = self.rings.wait(timeout);
        self.mesh.wake(self.id);
        waited?;
        self.rings.collect()
    }

    /// When there is something to do though nothing happens.
    fn deadline(&self) -> Option<Mono> {
        let lingering = self.lingering.front().map(|(deadline, _)| *deadline);
        let stalled = self.stalled.front().map(|(at, _)| *at);
        let accepting = self.listeners.iter().filter_map(Listener::retry_at).min();
        let known =
            [self.shard.next_deadline(), lingering, stalled, accepting, self.leaving, self.spare.at()];
        known.into_iter().flatten().min()
    }
}

/// As many rings as the connections a shard may have fill, and one more for those that are being closed.
fn ring_count_max(options: &Options, shards: u16, descriptors: u32) -> usize {
    let share = options.process.connections_max.map(|max| max.div_ceil(u64::from(shards)));
    let rings = share.map(|share| share / u64::from(descriptors.max(1)) + 2);
    rings.and_then(|rings| usize::try_from(rings).ok()).unwrap_or(usize::MAX).clamp(1, RINGS_MAX)
}
