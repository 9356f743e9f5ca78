//! What sockets do: connected, received, sent, ended; and how a client gets from one stage to the next.

use super::connection::{Role, Stage};
use super::roles::Note;
use super::shared::Phase;
use super::worker::{Worker, id, lend, reclaim};
use crate::clock::{self, SECOND};
use crate::plan::Leave;
use crate::scenario::topic;
use nix::errno::Errno;
use quelea::base::{OutBuffer, ReasonCode};
use quelea::codec::SubscribeFilter;
use quelea::runtime::net::{Buffer, Descriptor, Ended};

/// How long clients that said good-bye wait for the broker to close, which leaves the broker with the sockets in TIME_WAIT.
const LEAVING_MAX: u64 = SECOND;
/// After it everything is closed; when no socket was closed for so long, the rest is left to the kernel.
const CLOSING_MAX: u64 = SECOND;

/// Idle clients asked, or clients that leave, in one turn.
const BATCH: usize = 1000;

impl Worker {
    pub(super) fn on_connected(&mut self, slot: u32, result: Result<Descriptor, Errno>) {
        let connection = &mut self.connections[slot as usize];
        match result {
            Ok(descriptor) => {
                connection.descriptor = descriptor;
                connection.open = true;
                if connection.stage != Stage::Opening {
                    // It took too long.
                    return self.try_close(slot);
                }
                connection.stage = Stage::Greeting;
                connection.receiving = true;
                lend(&mut self.spare, &mut connection.client);
                connection.client.connect(clock::mqtt(self.now));
                let ring = usize::from(connection.ring);
                self.rings.at(ring).receive_multishot(id(slot), descriptor);
                self.touch(slot);
            }
            Err(error) => {
                self.rings.release(usize::from(connection.ring));
                self.sockets -= 1;
                self.end(slot, format!("connect: {}", error.desc()));
            }
        }
    }

    pub(super) fn on_received(&mut self, ring: usize, slot: u32, buffer: &Buffer, last: bool) {
        self.now = clock::now();
        let connection = &mut self.connections[slot as usize];
        if last {
            connection.receiving = false;
        }
        if connection.stage == Stage::Gone {
            return self.try_close(slot);
        }
        let buffers = self.rings.buffers();
        let (role, now, roles) = (connection.role, self.now, &mut self.roles);
        lend(&mut self.spare, &mut connection.client);
        let result =
            connection.client.handle_bytes_with(clock::mqtt(now), buffers.bytes(buffer), &mut |incoming| {
                roles.on_incoming(role, now, &incoming);
            });
        reclaim(&mut self.spare, &mut connection.client);
        if last {
            connection.receiving = true;
            let descriptor = connection.descriptor;
            self.rings.at(ring).receive_multishot(id(slot), descriptor);
        }
        while let Some(note) = self.roles.notes.pop() {
            self.on_note(slot, role, note);
        }
        match result {
            Ok(()) => self.touch(slot),
            Err(error) => self.end(slot, error.to_string()),
        }
    }

    fn on_note(&mut self, slot: u32, role: Role, note: Note) {
        match note {
            Note::Connected => self.on_greeted(slot, role),
            Note::Refused(reason) => self.end(slot, format!("CONNACK: {reason:?}")),
            Note::Subscribed(reason) if reason.is_error() => self.end(slot, format!("SUBACK: {reason:?}")),
            Note::Subscribed(reason) if reason.byte() < self.plan.sub_qos.bits() => {
                self.end(slot, format!("SUBACK: {reason:?} instead of QoS {}", self.plan.sub_qos.bits()));
            }
            Note::Subscribed(_) => self.subscribe(slot, role, false),
            Note::Pong => {
                let (connection, own) =
                    (&mut self.connections[slot as usize], &self.shared.threads[self.index]);
                own.pongs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if std::mem::take(&mut connection.asked) {
                    own.alive.fetch_add(1, std::sync::atomic::Ordering::Release);
                }
            }
            Note::Disconnected(reason) => self.end(slot, format!("DISCONNECT: {reason:?}")),
        }
    }

    /// CONNACK came: subscribes if the role says so.
    fn on_greeted(&mut self, slot: u32, role: Role) {
        if let Role::Publisher(index) = role {
            self.roles.publishers[index as usize].slot = Some(slot);
        }
        self.connections[slot as usize].stage = Stage::Subscribing;
        self.subscribe(slot, role, true);
    }

    /// Subscribes to its first filters or to the next ones; if there are none, it is ready.
    fn subscribe(&mut self, slot: u32, role: Role, is_first: bool) {
        let (_, number) = self.number(role);
        let filters = match role {
            Role::Subscriber(index) => {
                let subscriber = &mut self.roles.subscribers[index as usize];
                let from = subscriber.subscribed;
                let filters = self.plan.topology.filters(&self.plan.prefix, number, from);
                subscriber.subscribed += filters.len() as u32;
                filters
            }
            Role::Idle(_) if self.plan.topology.idle_subscribe && is_first => {
                vec![topic(&self.plan.idle_prefix(), number)]
            }
            Role::Idle(_) | Role::Publisher(_) => Vec::new(),
        };
        if filters.is_empty() {
            return self.become_ready(slot);
        }
        let connection = &mut self.connections[slot as usize];
        lend(&mut self.spare, &mut connection.client);
        let filters: Vec<_> =
            filters.iter().map(|filter| SubscribeFilter::new(filter, self.plan.sub_qos)).collect();
        if let Err(refusal) = connection.client.subscribe(clock::mqtt(self.now), &filters, None) {
            self.end(slot, format!("SUBSCRIBE: {refusal}"));
        }
    }

    pub(super) fn on_sent(&mut self, slot: u32, buffer: Box<OutBuffer>, result: Result<(), Errno>) {
        self.pool.put(buffer);
        let connection = &mut self.connections[slot as usize];
        connection.sending = false;
        if connection.stage == Stage::Gone {
            return self.try_close(slot);
        }
        match result {
            Ok(()) => {
                if let Role::Publisher(index) = connection.role {
                    self.roles.queue(index);
                }
                self.touch(slot);
            }
            Err(error) => self.end(slot, format!("send: {}", error.desc())),
        }
    }

    pub(super) fn on_receive_ended(&mut self, ring: usize, slot: u32, ended: Ended) {
        let connection = &mut self.connections[slot as usize];
        connection.receiving = false;
        if connection.stage == Stage::Gone {
            return self.try_close(slot);
        }
        match ended {
            Ended::NoBuffers => self.rings.starve(ring, slot),
            Ended::Closed if connection.stage.is_setup() => {
                let waits_for = connection.stage.waits_for();
                self.end(slot, format!("closed by the broker instead of {waits_for}"));
            }
            Ended::Closed => self.end(slot, "closed by the broker".to_owned()),
            Ended::Cancelled => self.end(slot, "cancelled".to_owned()),
            Ended::Failed(error) => self.end(slot, format!("receive: {}", error.desc())),
        }
    }

    /// Clients whose receive found no buffer receive again, as many as there are buffers now.
    pub(super) fn feed(&mut self, ring: usize) {
        let mut taken = 0;
        while let Some(slot) = self.rings.next_starved(ring, taken) {
            let connection = &mut self.connections[slot as usize];
            if connection.open && connection.stage != Stage::Gone {
                taken += 1;
                connection.receiving = true;
                self.rings.at(ring).receive_multishot(id(slot), connection.descriptor);
            }
        }
    }

    /// The client in `slot` is over. The reason is counted, unless it was leaving anyway.
    pub(super) fn end(&mut self, slot: u32, reason: String) {
        let connection = &mut self.connections[slot as usize];
        let stage = std::mem::replace(&mut connection.stage, Stage::Gone);
        match stage {
            Stage::Gone => return,
            Stage::Leaving => {}
            Stage::Ready => {
                *self.lost.entry(reason).or_default() += 1;
                self.shared.threads[self.index].died.fetch_add(1, std::sync::atomic::Ordering::Release);
            }
            Stage::Opening | Stage::Greeting | Stage::Subscribing => {
                self.ramp.settle(slot, self.now, Some(reason));
            }
        }
        if stage != Stage::Leaving {
            match connection.role {
                Role::Publisher(index) => self.roles.publishers[index as usize].is_dead = true,
                Role::Subscriber(index) => self.roles.subscribers[index as usize].is_dead = true,
                Role::Idle(_) => {}
            }
        }
        let connection = &mut self.connections[slot as usize];
        connection.client.handle_disconnected();
        drop(connection.client.take_out());
        if connection.open && connection.receiving {
            let ring = usize::from(connection.ring);
            self.rings.at(ring).cancel_receive(id(slot));
        }
        let connection = &self.connections[slot as usize];
        if connection.open && connection.sending {
            let (ring, send) = (usize::from(connection.ring), connection.send);
            self.rings.at(ring).cancel_send(send, id(slot));
        }
        self.try_close(slot);
    }

    /// Closes the socket once nothing is in flight on it.
    fn try_close(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if connection.open && !connection.receiving && !connection.sending {
            connection.open = false;
            let ring = usize::from(connection.ring);
            self.rings.at(ring).close(connection.descriptor);
            self.rings.release(ring);
            self.sockets -= 1;
        }
    }

    /// Asks idle clients whether they live, some each turn.
    pub(super) fn keep_asking(&mut self) -> bool {
        let end = (self.rounds + BATCH).min(self.connections.len());
        for slot in self.rounds..end {
            let connection = &mut self.connections[slot];
            if !matches!(connection.role, Role::Idle(_)) || connection.stage != Stage::Ready {
                continue;
            }
            lend(&mut self.spare, &mut connection.client);
            if connection.client.ping(clock::mqtt(self.now)).is_ok() {
                connection.asked = true;
                self.shared.threads[self.index].asked.fetch_add(1, std::sync::atomic::Ordering::Release);
            }
            self.touch(slot as u32);
        }
        self.rounds = end;
        end < self.connections.len()
    }

    /// Says good-bye, or just closes, some clients each turn; after a while closes what the broker has not.
    pub(super) fn keep_leaving(&mut self) -> bool {
        let end = (self.rounds + BATCH).min(self.connections.len());
        for slot in self.rounds..end {
            let connection = &mut self.connections[slot];
            if connection.stage != Stage::Ready {
                self.end(slot as u32, "the run ended".to_owned());
                continue;
            }
            connection.stage = Stage::Leaving;
            if self.plan.leave == Leave::Drop {
                self.end(slot as u32, String::new());
                continue;
            }
            lend(&mut self.spare, &mut connection.client);
            connection.client.disconnect(ReasonCode::Success);
            self.touch(slot as u32);
        }
        if self.rounds < end || self.sockets < self.leaving {
            self.left_at = self.now;
            self.leaving = self.sockets;
        }
        self.rounds = end;
        if self.said_good_bye() && self.now - self.left_at > LEAVING_MAX && !self.closing {
            self.closing = true;
            self.left_at = self.now;
            for slot in 0..self.connections.len() {
                if self.connections[slot].stage == Stage::Leaving {
                    self.end(slot as u32, String::new());
                }
            }
        }
        !self.said_good_bye()
    }

    fn said_good_bye(&self) -> bool {
        self.rounds == self.connections.len()
    }

    /// Whether every socket is closed, or had long enough to.
    pub(super) fn has_left(&self) -> bool {
        debug_assert!(self.phase == Phase::Close, "nobody leaves before");
        let is_stuck = self.closing && self.now - self.left_at > CLOSING_MAX;
        self.said_good_bye() && (self.sockets == 0 || is_stuck)
    }
}
