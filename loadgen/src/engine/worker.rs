//! One thread: its clients, its rings, and the turns in which it serves them.
//!
//! A turn takes what completed, lets publishers publish, sends what clients have to say, and waits. One send is in flight a
//! connection; what is said meanwhile goes with the next. Nothing is allocated in steady state.

use super::connection::{Connection, Role, Stage};
use super::histogram::Latency;
use super::pump::Schedule;
use super::ramp::Ramp;
use super::report::{ThreadReport, Waits};
use super::rings::Rings;
use super::roles::Roles;
use super::shared::{Phase, Shared, ThreadShared};
use crate::clock::{self, MILLISECOND, SECOND};
use crate::plan::Plan;
use crate::scenario::Share;
use anyhow::Result;
use quelea::base::BufferPool;
use quelea::client::Client;
use quelea::runtime::net::Completion;
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What is not done at every turn is done this often.
const TICK: u64 = 10 * MILLISECOND;

/// Spare out-buffers a thread keeps, in bytes.
const SPARE_MAX: usize = 4 << 20;

/// One thread of a run.
pub struct Worker {
    pub(super) plan: Arc<Plan>,
    pub(super) shared: Arc<Shared>,
    pub(super) index: usize,
    pub(super) share: Share,
    pub(super) rings: Rings,
    pub(super) connections: Vec<Connection>,
    pub(super) roles: Roles,
    pub(super) ramp: Ramp,
    pub(super) schedule: Schedule,
    /// Clients that may have something to send.
    pub(super) dirty: Vec<u32>,
    /// Memory for clients that say something, and for what is on its way.
    pub(super) spare: Vec<Vec<u8>>,
    pub(super) pool: BufferPool,
    pub(super) payload: Vec<u8>,
    pub(super) topic: String,
    /// Nanoseconds of the monotonic clock, read several times a turn.
    pub(super) now: u64,
    pub(super) phase: Phase,
    /// Sockets when the last one was closed in the end, and when that was.
    pub(super) leaving: usize,
    pub(super) left_at: u64,
    /// Those who were waited for in the end are waited for no longer.
    pub(super) closing: bool,
    next_tick: u64,
    next_second: u64,
    /// The next client whose timers are looked at.
    scan: usize,
    /// Idle clients before this one were asked whether they live, or have said good-bye.
    pub(super) rounds: usize,
    /// Sockets that are open, or about to be.
    pub(super) sockets: usize,
    pub(super) lost: BTreeMap<String, u64>,
    pub(super) lag: Latency,
    waits: Waits,
    completions: Vec<Completion>,
}

impl Worker {
    /// The worker of the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses a ring.
    pub fn new(plan: Arc<Plan>, shared: Arc<Shared>, index: usize) -> Result<Self> {
        let share = plan.topology.share(index as u32, plan.threads);
        let rings = Rings::new(share.clients(), plan.limits.ring_descriptors() as u32)?;
        shared.threads[index].ring.set(rings.ring_fd()).expect("set once");
        let now = clock::now();
        Ok(Self {
            roles: Roles::new(Arc::clone(&plan), Arc::clone(&shared), &share),
            connections: Vec::with_capacity(share.clients() as usize),
            ramp: Ramp::new(&plan, share.clients()),
            schedule: Schedule::new(&plan, &share),
            rings,
            dirty: Vec::new(),
            spare: Vec::new(),
            pool: BufferPool::new(SPARE_MAX),
            payload: Vec::new(),
            topic: String::new(),
            now,
            phase: Phase::Prepare,
            leaving: usize::MAX,
            left_at: now,
            closing: false,
            next_tick: now,
            next_second: now,
            scan: 0,
            rounds: 0,
            sockets: 0,
            lost: BTreeMap::new(),
            lag: Latency::new(),
            waits: Waits::default(),
            completions: Vec::new(),
            share,
            plan,
            shared,
            index,
        })
    }

    /// Takes part in the run, to its end.
    ///
    /// # Errors
    /// If the kernel does not serve the rings any more.
    pub fn run(mut self) -> Result<ThreadReport> {
        loop {
            self.take_completions();
            self.follow_phase();
            let more = match self.phase {
                Phase::Prepare => false,
                Phase::Setup => self.keep_connecting()?,
                Phase::Run => self.keep_publishing(),
                Phase::Drain => self.keep_asking(),
                Phase::Close => self.keep_leaving(),
            };
            if self.now >= self.next_tick {
                self.tick();
            }
            self.flush();
            self.tell();
            if self.phase == Phase::Close && self.has_left() {
                return Ok(self.report());
            }
            self.wait(more)?;
        }
    }

    fn take_completions(&mut self) {
        self.now = clock::now();
        let woke = self.now;
        let mut completions = mem::take(&mut self.completions);
        for ring in 0..self.rings.len() {
            self.rings.reap(ring, &mut completions);
            for completion in completions.drain(..) {
                self.on_completion(ring, completion);
            }
            self.feed(ring);
        }
        self.completions = completions;
        self.now = clock::now();
        if matches!(self.phase, Phase::Run) && self.schedule.is_closed() {
            // What arrived while this was done waited so long.
            self.lag.record(self.now - woke);
        }
    }

    fn on_completion(&mut self, ring: usize, completion: Completion) {
        match completion {
            Completion::Received { connection, buffer, last } => {
                self.on_received(ring, connection.slot, &buffer, last);
                self.rings.publish(ring, buffer);
            }
            Completion::Sent { connection, buffer, result } => self.on_sent(connection.slot, buffer, result),
            Completion::ReceiveEnded { connection, ended } => {
                self.on_receive_ended(ring, connection.slot, ended);
            }
            Completion::Connected { connection, result } => self.on_connected(connection.slot, result),
            // Flags and further rings are looked at every turn anyway.
            Completion::Woken => {}
            Completion::Accepted { .. }
            | Completion::AcceptFailed { .. }
            | Completion::HandedOver { .. }
            | Completion::SendingEnded { .. }
            | Completion::Transferred { .. } => {
                unreachable!("nothing listens, closes one side or opens a file here")
            }
        }
    }

    fn follow_phase(&mut self) {
        let phase = self.shared.phase();
        if phase == self.phase {
            return;
        }
        if phase == Phase::Setup {
            self.ramp.begin(self.now);
        }
        if phase == Phase::Run {
            self.waits = Waits::begin();
            let load = |time: &std::sync::atomic::AtomicU64| time.load(Ordering::Acquire);
            let (start, stop) = (load(&self.shared.start), load(&self.shared.stop));
            self.roles.measure(load(&self.shared.measure_from), stop);
            self.schedule.begin(start, stop);
            for index in 0..self.roles.publishers.len() {
                self.roles.queue(index as u32);
            }
        }
        if self.phase == Phase::Run {
            self.waits.end();
            self.finish_publishing();
        }
        self.phase = phase;
        self.rounds = 0;
    }

    /// What is done a hundred times a second: timers of the clients, a part of them each time.
    fn tick(&mut self) {
        self.next_tick = self.now + TICK;
        self.expire_connecting();
        let keep_alive = u64::from(self.plan.options.keep_alive_secs) * SECOND;
        if keep_alive > 0 && !self.connections.is_empty() && self.phase < Phase::Close {
            // Everybody once in an eighth of the keep alive, so a PINGREQ is at most so much late.
            let share = self.connections.len() as u128 * u128::from(TICK) * 8 / u128::from(keep_alive);
            for _ in 0..=share.min(self.connections.len() as u128 - 1) {
                self.scan = (self.scan + 1) % self.connections.len();
                self.check_timers(self.scan as u32);
            }
        }
        if self.now >= self.next_second {
            self.next_second = self.now + SECOND;
            self.forgive();
            let own = &self.shared.threads[self.index];
            own.p50.store(self.roles.latency.micros(0.5) as u64, Ordering::Relaxed);
            own.p99.store(self.roles.latency.micros(0.99) as u64, Ordering::Relaxed);
        }
    }

    /// Sends what clients have to say, each connection with no send in flight.
    fn flush(&mut self) {
        while let Some(slot) = self.dirty.pop() {
            let connection = &mut self.connections[slot as usize];
            connection.dirty = false;
            if connection.sending || !connection.open || connection.client.out_mut().is_empty() {
                continue;
            }
            let mut buffer = self.pool.take();
            let bytes = mem::replace(buffer.bytes_mut(), connection.client.take_out());
            keep(&mut self.spare, bytes);
            connection.sending = true;
            let ring = self.rings.at(usize::from(connection.ring));
            connection.send = ring.send(id(slot), connection.descriptor, buffer);
        }
    }

    /// Publishes the thread's counters, and wakes those who wait for them.
    fn tell(&mut self) {
        let own = &self.shared.threads[self.index];
        let counts = &self.roles.counts;
        own.published.store(self.schedule.published, Ordering::Release);
        own.acknowledged.store(counts.acknowledged, Ordering::Release);
        own.received.store(counts.received, Ordering::Release);
        own.heard.store(self.roles.heard.len() as u64, Ordering::Release);
        own.sockets.store(self.sockets as u64, Ordering::Relaxed);
        for (thread, bell) in self.roles.bells.iter_mut().enumerate() {
            if !mem::take(bell) || thread == self.index {
                continue;
            }
            let ThreadShared { sleeping, ring, .. } = &self.shared.threads[thread];
            if let (true, Some(ring)) = (sleeping.swap(false, Ordering::SeqCst), ring.get()) {
                self.rings.at(0).ring_doorbell(*ring);
            }
        }
    }

    /// Waits for something to happen, unless there is `more` to do.
    fn wait(&mut self, more: bool) -> Result<()> {
        if more {
            return self.rings.wait(Duration::ZERO);
        }
        let next = self.next_tick.min(self.schedule.due().unwrap_or(u64::MAX));
        let own = &self.shared.threads[self.index].sleeping;
        own.store(true, Ordering::SeqCst);
        // What others did before they could see this is seen here, and makes this a short wait.
        let timeout = if self.has_room_again() { 0 } else { next.saturating_sub(clock::now()) };
        self.rings.wait(Duration::from_nanos(timeout))?;
        self.shared.threads[self.index].sleeping.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn report(self) -> ThreadReport {
        ThreadReport::new(self.roles, self.ramp, self.lost, self.lag, &self.waits)
    }
}

/// How a connection is named to its ring: there is one in each slot, ever.
pub(super) fn id(slot: u32) -> quelea::base::ConnectionId {
    quelea::base::ConnectionId { slot, generation: 0 }
}

/// Gives a client memory to say something, if it has none.
pub(super) fn lend(spare: &mut Vec<Vec<u8>>, client: &mut Client) {
    if client.out_mut().capacity() == 0 {
        *client.out_mut() = spare.pop().unwrap_or_default();
    }
}

/// Takes it back if the client said nothing.
pub(super) fn reclaim(spare: &mut Vec<Vec<u8>>, client: &mut Client) {
    if client.out_mut().is_empty() && client.out_mut().capacity() > 0 {
        keep(spare, client.take_out());
    }
}

fn keep(spare: &mut Vec<Vec<u8>>, mut bytes: Vec<u8>) {
    if bytes.capacity() > 0 && spare.len() < 256 {
        bytes.clear();
        spare.push(bytes);
    }
}

impl Worker {
    /// The client in `slot` may have something to send.
    pub(super) fn touch(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !connection.dirty && !connection.client.out_mut().is_empty() {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// What the client in `slot` of this thread is for: subscribers come first, then idle ones, then publishers.
    pub(super) fn role(&self, slot: u32) -> Role {
        let (subscribers, idle) = (self.share.subscribers.len() as u32, self.share.idle.len() as u32);
        if slot < subscribers {
            Role::Subscriber(slot)
        } else if slot - subscribers < idle {
            Role::Idle(slot - subscribers)
        } else {
            Role::Publisher(slot - subscribers - idle)
        }
    }

    /// The client's number in the run among those of its role, and the role's letter.
    pub(super) fn number(&self, role: Role) -> (char, u32) {
        match role {
            Role::Idle(index) => ('i', self.share.idle.start + index),
            Role::Publisher(index) => ('p', self.share.publishers.start + index),
            Role::Subscriber(index) => ('s', self.share.subscribers.start + index),
        }
    }

    /// Sends PINGREQ if it is due; ends a connection that did not answer one.
    fn check_timers(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if connection.stage != Stage::Ready {
            return;
        }
        lend(&mut self.spare, &mut connection.client);
        let result = connection.client.handle_timeout(clock::mqtt(self.now));
        reclaim(&mut self.spare, &mut connection.client);
        match result {
            Ok(()) => self.touch(slot),
            Err(error) => self.end(slot, error.to_string()),
        }
    }
}
