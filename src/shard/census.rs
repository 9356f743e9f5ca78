//! The report of a shard: what it has counted, what it holds, and what a walk over all connections and sessions adds up.
//!
//! The walk is made when somebody asks, in steps between the shard's other work, so that nothing on the way of a message keeps
//! sums up to date. What changes during a walk may be seen before or after it changed. Cost: about 40 ns a connection or session.

use super::Shard;
use super::connection::{Connection, Phase};
use super::counters::{Counters, add_each};
use super::sessions::Session;
use super::view::{self, MemoryView, Residue};
use crate::base::Now;
use crate::log::Log;

/// Connections or sessions looked at in one step: about 150 µs.
const STEP: u32 = 4096;

/// Everything a shard says about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Counted since the start.
    pub counters: Counters,
    /// Connections, whether or not their CONNECT was accepted.
    pub connections: u64,
    /// Sessions, connected or not.
    pub sessions: u64,
    /// Retained messages at home here.
    pub retained: u64,
    /// Filters of other shards known here.
    pub interest: u64,
    /// Shared subscription groups at home here.
    pub groups: u64,
    /// Memory by owner.
    pub memory: MemoryView,
    /// What is under way.
    pub residue: Residue,
    /// What the walk added up.
    pub census: Census,
}

/// Sums over all connections and sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Connected clients, by version.
    pub clients: [u64; 3],
    /// Those of them that have published, by version.
    pub publishers: [u64; 3],
    /// Connections that are being closed: their last bytes are on the way.
    pub closing: u64,
    /// Bytes that wait in out-buffers; shared payloads count for each buffer they are in.
    pub out_bytes: u64,
    /// Connections with a send on its way.
    pub sending: u64,
    /// Connections that are not read from, for whatever reason, or slowly.
    pub paused: u64,
    /// Subscriptions with QoS 0, and those with QoS 1 or 2.
    pub subscriptions: [u64; 2],
    /// Queues as RabbitMQ counts them: one a session for its QoS 0 subscriptions, one for the others.
    pub queues: [u64; 2],
    /// Such queues whose client is connected, by version.
    pub consumers: [u64; 3],
    /// Messages that wait, in out-buffers (QoS 0) and in session queues.
    pub ready: [u64; 2],
    /// Topics, properties and payloads in session queues; a message in many queues counts for each.
    pub ready_bytes: u64,
    /// Deliveries that clients have not settled.
    pub unacknowledged: u64,
}

/// How far a walk has come.
#[derive(Debug, Default)]
pub(super) struct Walk {
    connections: u32,
    sessions: u32,
    sums: Census,
}

impl Shard {
    /// Asks for a report, which [`poll_report`](Self::poll_report) gives when the walk for it is through. One walk at a time: a
    /// question during one gets the report of that.
    pub fn handle_query(&mut self, now: Now) {
        self.now = now;
        self.walk.get_or_insert_default();
    }

    /// The report that was asked for.
    pub fn poll_report(&mut self) -> Option<Box<Report>> {
        self.report.take()
    }

    /// Goes on with the walk, if there is one.
    pub(super) fn step_walk(&mut self) {
        let Some(mut walk) = self.walk.take() else { return };
        if walk.step(self) {
            self.report = Some(Box::new(self.report_with(walk.sums)));
        } else {
            self.walk = Some(walk);
        }
    }

    fn report_with(&self, census: Census) -> Report {
        Report {
            counters: self.counters,
            connections: self.connection_count() as u64,
            sessions: self.session_count() as u64,
            retained: self.retained_count(),
            interest: self.interest_count() as u64,
            groups: self.groups.len() as u64,
            memory: self.memory(),
            residue: self.residue(),
            census,
        }
    }
}

impl Walk {
    /// One step; whether it was the last.
    fn step(&mut self, shard: &Shard) -> bool {
        let end = shard.links.slot_end();
        if self.connections < end {
            let upto = end.min(self.connections.saturating_add(STEP));
            let slots = std::mem::replace(&mut self.connections, upto)..upto;
            slots
                .filter_map(|slot| shard.links.at(slot))
                .for_each(|connection| self.sums.connection(connection));
            return false;
        }
        let end = shard.sessions.slot_end();
        let upto = end.min(self.sessions.saturating_add(STEP));
        let slots = std::mem::replace(&mut self.sessions, upto)..upto;
        let log = shard.log();
        slots.filter_map(|slot| shard.sessions.at(slot)).for_each(|session| self.sums.session(session, log));
        self.sessions >= end
    }
}

impl Census {
    fn connection(&mut self, connection: &Connection) {
        match connection.phase {
            Phase::Established { .. } => {
                self.clients[connection.version.index()] += 1;
                self.publishers[connection.version.index()] += u64::from(connection.publishes);
            }
            Phase::Closing => self.closing += 1,
            Phase::Connecting(_) => {}
        }
        self.out_bytes += connection.out.as_ref().map_or(0, |out| out.len() as u64);
        self.ready[0] += u64::from(connection.qos0_waiting);
        self.sending += u64::from(connection.sending);
        self.paused += u64::from(connection.paused != 0 || connection.slow);
    }

    fn session(&mut self, session: &Session, log: Option<&Log>) {
        if session.ended {
            return;
        }
        for (of, filters) in [session.qos0_filters, session.acked_filters].into_iter().enumerate() {
            let queue = u64::from(filters > 0);
            self.subscriptions[of] += u64::from(filters);
            self.queues[of] += queue;
            self.consumers[session.version.index()] += if session.connection().is_some() { queue } else { 0 };
        }
        let (ready, ready_bytes) = view::ready(session, log);
        self.ready[1] += ready;
        self.ready_bytes += ready_bytes;
        if let Some(outgoing) = &session.outgoing {
            self.unacknowledged += outgoing.window.len() as u64;
        }
    }

    /// Adds another shard's.
    pub fn add(&mut self, other: &Self) {
        add_each(&mut self.clients, &other.clients);
        add_each(&mut self.publishers, &other.publishers);
        add_each(&mut self.subscriptions, &other.subscriptions);
        add_each(&mut self.queues, &other.queues);
        add_each(&mut self.consumers, &other.consumers);
        add_each(&mut self.ready, &other.ready);
        self.closing += other.closing;
        self.out_bytes += other.out_bytes;
        self.sending += other.sending;
        self.paused += other.paused;
        self.ready_bytes += other.ready_bytes;
        self.unacknowledged += other.unacknowledged;
    }
}
