//! The world of one run: shards, clients, one virtual clock, and a heap of events.
//!
//! Events are ordered by virtual time and then by a seeded draw. Everything that has an order of its own (bytes of a socket,
//! batches between two shards) lives in a queue; its events only say that the queue moves. Time moves only from event to event.

use crate::clients::Client;
use crate::crash::Crash;
use crate::disk::{Drive, Kind};
use crate::mailbox::Mailboxes;
use crate::network::Network;
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::rot::Rot;
use crate::swarm::Swarm;
use crate::trace::Trace;
use quelea::base::{HashKey, Mono, Now, ShardId, Wall};
use quelea::shard::Shard;
use quelea::shard::view::{MemoryView, Residue};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

/// Something that happens at its time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Event {
    /// A shard's driver polls it.
    Turn(usize),
    Timeout(usize),
    Accept(usize),
    Land(usize),
    Up(usize),
    Down(usize),
    Sent(usize),
    Reset(usize),
    Stall(usize),
    TellServer(usize),
    TellClient(usize),
    Mail {
        from: usize,
        to: usize,
    },
    BatchReturned {
        from: usize,
        to: usize,
    },
    Act(usize),
    Pressure(bool),
    /// An operation of a shard's disk completes.
    Disk {
        shard: usize,
        number: u64,
    },
    Space(bool),
    Watermark(bool),
    /// The process dies.
    Crash,
    Restart,
}

impl Event {
    /// It dies with the process.
    pub(crate) fn is_of_process(&self) -> bool {
        matches!(
            self,
            Self::Turn(_)
                | Self::Timeout(_)
                | Self::Land(_)
                | Self::Mail { .. }
                | Self::BatchReturned { .. }
                | Self::Disk { .. }
                | Self::Restart
        )
    }
}

/// One run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) swarm: Swarm,
    pub(crate) shards: Vec<Shard>,
    /// What a shard holds before anything happened.
    pub(crate) fresh_memory: MemoryView,
    /// A turn of the shard is scheduled.
    pub(crate) is_awake: Vec<bool>,
    timeout_at: Vec<Option<u64>>,
    /// Taken out while it acts.
    pub(crate) clients: Vec<Option<Client>>,
    pub(crate) network: Network,
    pub(crate) mailboxes: Mailboxes,
    /// One a shard, if the seed has disks.
    pub(crate) drives: Vec<Drive>,
    pub(crate) crashes: Vec<Crash>,
    /// The process dies after this event.
    pub(crate) is_dying: bool,
    /// What it has sent arrives then.
    pub(crate) is_told: bool,
    /// Bits that have changed.
    pub(crate) rot: Vec<Rot>,
    /// Packets of each kind that left for clients whose session is on disk.
    pub(crate) packets: BTreeMap<Kind, u64>,
    /// Ends of such connections and sessions.
    pub(crate) endings: u64,
    /// Listeners are open.
    pub(crate) is_serving: bool,
    pub(crate) key: HashKey,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) now: Now,
    /// The number of the event.
    pub(crate) step: u64,
    events: BinaryHeap<Reverse<(u64, u64, u64, Event)>>,
    pushed: u64,
    pub(crate) schedule_rng: Rng,
    pub(crate) network_rng: Rng,
    pub(crate) mailbox_rng: Rng,
    pub(crate) disk_rng: Rng,
    /// Clients act: faults have begun.
    pub(crate) is_busy: bool,
    /// Faults have stopped: clients come back and finish.
    pub(crate) is_healing: bool,
    error: Option<String>,
}

const START_MS: u64 = 1_000_000;

impl World {
    pub(crate) fn new(seed: u64, swarm: Swarm, is_printed: bool) -> Self {
        let now = Now { mono: Mono(START_MS), wall: Wall(1_700_000_000_000) };
        let mut key = Rng::stream(seed, "key");
        let key = HashKey { k0: key.next(), k1: key.next() };
        let count = swarm.shards;
        let shards: Vec<Shard> =
            (0..count).map(|id| Shard::new(swarm.options.clone(), ShardId(id), count, key, now)).collect();
        let queue = &swarm.options.queue;
        // Live messages wait for replays that have noted too many topics; what waited may come after UNSUBACK. [MQTT-3.10.4-2]
        let parks = swarm.options.budgets.replay_noted_max < 100;
        let oracle = Oracle {
            queues_qos0: queue.queue_qos0_offline || parks,
            refuses: swarm.refuses() || swarm.disk_refuses(),
            fails: swarm.disk.as_ref().is_some_and(|faults| faults.fails.is_some()),
            drops: swarm.has_queue_limits(),
            may_refuse: swarm.refuses() || swarm.pressure || swarm.disk_refuses(),
            ..Oracle::default()
        };
        Self {
            fresh_memory: shards[0].memory(),
            is_awake: vec![false; shards.len()],
            timeout_at: vec![None; shards.len()],
            mailboxes: Mailboxes::new(shards.len()),
            drives: swarm.disk.iter().flat_map(|_| &shards).map(|_| Drive::default()).collect(),
            crashes: Vec::new(),
            is_dying: false,
            is_told: false,
            rot: Vec::new(),
            packets: BTreeMap::new(),
            endings: 0,
            is_serving: swarm.disk.is_none(),
            key,
            shards,
            swarm,
            clients: Vec::new(),
            network: Network::default(),
            oracle,
            trace: Trace::new(is_printed),
            now,
            step: 0,
            events: BinaryHeap::new(),
            pushed: 0,
            schedule_rng: Rng::stream(seed, "schedule"),
            network_rng: Rng::stream(seed, "network"),
            mailbox_rng: Rng::stream(seed, "mailbox"),
            disk_rng: Rng::stream(seed, "disk"),
            is_busy: false,
            is_healing: false,
            error: None,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now.mono.0
    }

    /// A line of the trace.
    pub(crate) fn note(&mut self, text: fmt::Arguments<'_>) {
        self.trace.line(self.now.mono.0, text);
    }

    /// The run has failed; the first reason counts.
    pub(crate) fn fail(&mut self, error: String) {
        self.trace.line(self.now.mono.0, format_args!("FAILED: {error}"));
        let at = self.now.mono.0;
        self.error.get_or_insert_with(|| format!("at {at} ms: {error}"));
    }

    pub(crate) fn result(&mut self) -> Result<(), String> {
        self.error.take().map_or(Ok(()), Err)
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.pushed += 1;
        let tie = self.schedule_rng.next();
        self.events.push(Reverse((self.now.mono.0 + ms, tie, self.pushed, event)));
    }

    /// A shard was told something: its driver will poll it.
    pub(crate) fn wake(&mut self, shard: usize) {
        if !self.is_awake[shard] {
            self.is_awake[shard] = true;
            self.after(0, Event::Turn(shard));
        }
    }

    /// Handles events until `until` says so, or time runs out. Gives whether it did say so.
    pub(crate) fn run(&mut self, ms: u64, until: impl Fn(&Self) -> bool) -> Result<bool, String> {
        let end = self.now.mono.0 + ms;
        loop {
            if until(self) {
                return Ok(true);
            }
            let Some(Reverse((at, _, _, event))) = self.events.peek().copied() else { break };
            if at > end {
                break;
            }
            self.events.pop();
            self.advance_to(at);
            self.step += 1;
            self.handle(event);
            if self.is_dying {
                self.on_crash();
            }
            self.result()?;
        }
        self.advance_to(end);
        Ok(false)
    }

    fn advance_to(&mut self, at: u64) {
        let ms = at.saturating_sub(self.now.mono.0);
        self.now = self.now + std::time::Duration::from_millis(ms);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Turn(shard) => self.turn(shard),
            Event::Timeout(shard) => {
                self.timeout_at[shard] = None;
                let now = self.now;
                self.shards[shard].handle_timeout(now);
                self.wake(shard);
            }
            Event::Accept(socket) => self.on_accept(socket),
            Event::Land(socket) => self.on_land(socket),
            Event::Up(socket) => self.on_up(socket),
            Event::Down(socket) => self.on_down(socket),
            Event::Sent(socket) => self.on_sent(socket),
            Event::Reset(socket) => self.on_reset(socket),
            Event::Stall(socket) => self.on_stall(socket),
            Event::TellServer(socket) => self.tell_server(socket),
            Event::TellClient(socket) => self.tell_client(socket),
            Event::Mail { from, to } => self.on_mail(from, to),
            Event::BatchReturned { from, to } => self.on_batch_returned(from, to),
            Event::Act(client) => match &self.clients[client] {
                Some(Client::Polite(_)) => self.act_polite(client),
                Some(Client::Rude(_)) => self.act_rude(client),
                None => unreachable!("clients act one at a time"),
            },
            Event::Pressure(over) => self.on_pressure(over),
            Event::Disk { shard, number } => self.on_disk(shard, number),
            Event::Space(is_full) => self.on_space(is_full),
            Event::Watermark(is_over) => self.on_watermark(is_over),
            Event::Crash => self.on_crash(),
            Event::Restart => self.restart(),
        }
    }

    /// One turn of a shard's driver.
    fn turn(&mut self, shard: usize) {
        self.is_awake[shard] = false;
        self.poll_disk(shard);
        self.poll_outputs(shard);
        self.poll_peers(shard);
        // Emptying the mailbox may have let publishers go on.
        self.poll_outputs(shard);
        self.poll_disk(shard);
        self.poll_outputs(shard);
        self.poll_peers(shard);
        self.serve();
        if let Some(at) = self.shards[shard].next_deadline().map(|at| at.0.max(self.now.mono.0))
            && self.timeout_at[shard].is_none_or(|scheduled| at < scheduled)
        {
            self.timeout_at[shard] = Some(at);
            let late = self.schedule_rng.below(8) * self.schedule_rng.below(8);
            let late = if self.shards[shard].residue().fan_outs > 0 { 0 } else { late };
            self.after(at - self.now.mono.0 + late, Event::Timeout(shard));
        }
        self.check_shard(shard);
    }

    /// Takes back what is scheduled, where `is_moot`.
    pub(crate) fn forget_events(&mut self, is_moot: impl Fn(&Event) -> bool) {
        self.events.retain(|Reverse((_, _, _, event))| !is_moot(event));
    }

    /// No shard has a turn or a timeout to come.
    pub(crate) fn reset_turns(&mut self) {
        self.is_awake = vec![false; self.shards.len()];
        self.timeout_at = vec![None; self.shards.len()];
    }

    fn on_pressure(&mut self, over: bool) {
        if over && self.is_healing {
            return;
        }
        self.note(format_args!("pressure {over}"));
        for shard in 0..self.shards.len() {
            let now = self.now;
            self.shards[shard].handle_pressure(now, over);
            self.wake(shard);
        }
        let wait = self.schedule_rng.between(100, if over { 2_000 } else { 8_000 });
        self.after(wait, Event::Pressure(!over));
    }

    /// Bytes reached the client's end of a socket.
    pub(crate) fn client_bytes(&mut self, socket: usize, bytes: &[u8]) {
        let client = self.network.sockets[socket].client;
        match &self.clients[client] {
            // Of a connection it has left behind it reads no more than its end.
            Some(Client::Polite(polite)) if polite.socket == Some(socket) => {
                let forgives = !self.oracle.excused.is_empty() && self.oracle.crashes > 0;
                self.with_polite(client, |polite, _| {
                    if forgives {
                        polite.machine.forgive();
                    }
                    polite.machine.handle_bytes(bytes)
                });
            }
            _ => {}
        }
    }

    /// The client's end of a socket closed.
    pub(crate) fn client_closed(&mut self, socket: usize) {
        let client = self.network.sockets[socket].client;
        match &mut self.clients[client] {
            Some(Client::Polite(polite)) if polite.socket == Some(socket) => {
                self.note(format_args!("client {client} lost its connection"));
                self.with_polite(client, |polite, world| {
                    polite.closed(world);
                    Ok(())
                });
            }
            Some(Client::Rude(rude)) if rude.socket == Some(socket) => rude.socket = None,
            _ => {}
        }
    }

    /// Nothing moves any more, but timers and clients that act.
    pub(crate) fn is_quiet(&self) -> bool {
        self.network.is_idle()
            && self.mailboxes.is_empty()
            && !self.is_awake.contains(&true)
            && self.is_serving
            && self.drives.iter().all(Drive::is_idle)
            && self.shards.iter().all(Shard::is_disk_idle)
            && self.shards.iter().all(|shard| {
                let residue = shard.residue();
                residue == Residue { clients: residue.clients, ..Residue::default() }
            })
    }
}
