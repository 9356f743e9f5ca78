//! Connections of one shard: what is read in part, what waits to be sent, and what the driver has to do about them.

use super::api::{Accepted, Output};
use super::slow::Slow;
use crate::base::{BufferPool, ConnectionId, Mono, OutBuffer, Slab, Version};
use crate::queue::qos0::Backlog;
use crate::session::aliases;
use std::collections::{BTreeMap, VecDeque};

/// What a connection is in.
#[derive(Debug)]
pub(super) enum Phase {
    /// CONNECT was not accepted yet.
    Connecting(Box<Accepted>),
    /// It carries the session in this slot.
    Established {
        /// Index into the session table.
        session: u32,
    },
    /// Its last bytes are being sent; whatever still arrives is ignored.
    Closing,
}

/// One connection. A struct in a slab, not a task.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) phase: Phase,
    /// The beginning of a packet whose rest has not arrived.
    #[allow(clippy::box_collection, reason = "one word while nothing is partial, which is nearly always")]
    pub(super) partial: Option<Box<Vec<u8>>>,
    /// Exists only while something waits.
    pub(super) out: Option<Box<OutBuffer>>,
    pub(super) aliases: Option<Box<Aliases>>,
    /// When its last whole packet came.
    pub(super) last_packet_at: Mono,
    /// The largest packet the client takes.
    pub(super) packet_size_max: u32,
    /// QoS 0 messages in `out`.
    pub(super) qos0_waiting: u32,
    /// Deliveries in flight the client takes.
    pub(super) window: u16,
    pub(super) keep_alive_secs: u16,
    pub(super) version: Version,
    /// Whether reason strings may be sent.
    pub(super) problem_information: bool,
    /// A buffer is on its way to the socket.
    pub(super) sending: bool,
    /// Listed in `Links::dirty`.
    dirty: bool,
    /// CONNACK waits for the disk, and everything behind it.
    held: bool,
    /// Why it is not read from, as bits; 0 is read from.
    pub(super) paused: u8,
    /// It has published: it is what overload pauses.
    pub(super) publishes: bool,
    /// It is in `Links::slow`.
    pub(super) slow: bool,
}

/// Paused because its own out-buffer is full: it does not read what it asked for.
pub(super) const PAUSED_OUT: u8 = 1;
/// Paused because the process is over a watermark, or another shard is behind.
pub(super) const PAUSED_OVERLOAD: u8 = 2;

/// Topic aliases both ways.
#[derive(Debug)]
pub(super) struct Aliases {
    pub(super) incoming: aliases::Incoming,
    pub(super) outgoing: aliases::Outgoing,
}

impl Connection {
    /// The aliases, made at the first use: a client may define some although it takes none.
    pub(super) fn aliases_mut(&mut self) -> &mut Aliases {
        self.aliases.get_or_insert_with(|| {
            Box::new(Aliases { incoming: aliases::Incoming::default(), outgoing: aliases::Outgoing::new(0) })
        })
    }
}

/// All connections, and their buffers.
#[derive(Debug)]
pub(super) struct Links {
    connections: Slab<Connection>,
    pub(super) pool: BufferPool,
    dirty: VecDeque<u32>,
    pub(super) outputs: VecDeque<Output>,
    /// Bytes of packets that have not arrived whole.
    pub(super) partial_bytes: usize,
    /// Connections that are read slowly, by slot.
    pub(super) slow: BTreeMap<u32, Slow>,
    /// Bytes of packets that are kept for them.
    pub(super) held_bytes: usize,
}

/// Spare out-buffers a shard keeps: enough that a busy one never allocates, small against everything else.
const POOL_BYTES_MAX: usize = 8 << 20;

impl Links {
    pub(super) fn new() -> Self {
        Self {
            connections: Slab::default(),
            pool: BufferPool::new(POOL_BYTES_MAX),
            dirty: VecDeque::new(),
            outputs: VecDeque::new(),
            partial_bytes: 0,
            slow: BTreeMap::new(),
            held_bytes: 0,
        }
    }

    pub(super) fn insert(&mut self, accepted: Accepted) -> ConnectionId {
        let (slot, generation) = self.connections.insert(Connection {
            last_packet_at: accepted.at,
            phase: Phase::Connecting(Box::new(accepted)),
            partial: None,
            out: None,
            aliases: None,
            packet_size_max: u32::MAX,
            qos0_waiting: 0,
            window: 0,
            keep_alive_secs: 0,
            version: Version::V311,
            problem_information: true,
            sending: false,
            dirty: false,
            held: false,
            paused: 0,
            publishes: false,
            slow: false,
        });
        ConnectionId { slot, generation }
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(id.slot, id.generation)
    }

    /// The connection, unless it was refused or sent its last packet.
    pub(super) fn established(&self, id: ConnectionId) -> Option<&Connection> {
        self.get(id).filter(|connection| matches!(connection.phase, Phase::Established { .. }))
    }

    pub(super) fn at(&self, slot: u32) -> Option<&Connection> {
        self.connections.at(slot)
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.connections.at_mut(slot)
    }

    pub(super) fn id_at(&self, slot: u32) -> Option<ConnectionId> {
        self.connections.generation_at(slot).map(|generation| ConnectionId { slot, generation })
    }

    /// One past the largest slot ever used.
    pub(super) fn slot_end(&self) -> u32 {
        self.connections.index_end()
    }

    pub(super) fn slots(&self) -> Vec<u32> {
        self.connections.iter().map(|(slot, _, _)| slot).collect()
    }

    /// The end of a connection's out-buffer; it will be polled for sending.
    ///
    /// # Panics
    /// If there is no such connection: sessions and connections name each other only while both exist.
    pub(super) fn out(&mut self, slot: u32) -> &mut OutBuffer {
        let connection = self.connections.at_mut(slot).expect("a session's connection exists");
        if !connection.dirty && !connection.sending {
            connection.dirty = true;
            self.dirty.push_back(slot);
        }
        connection.out.get_or_insert_with(|| self.pool.take())
    }

    pub(super) fn backlog(connection: &Connection) -> Backlog {
        Backlog {
            bytes: connection.out.as_ref().map_or(0, |out| out.len()),
            messages: connection.qos0_waiting,
            socket_busy: connection.sending || connection.held,
        }
    }

    /// The next connection with something to send and nothing on its way.
    pub(super) fn poll_send(&mut self) -> Option<(ConnectionId, Box<OutBuffer>)> {
        while let Some(slot) = self.dirty.pop_front() {
            let Some(id) = self.id_at(slot) else { continue };
            let connection = self.connections.at_mut(slot).expect("has an id");
            connection.dirty = false;
            if connection.sending || connection.held {
                continue;
            }
            if let Some(out) = connection.out.take() {
                if out.is_empty() {
                    self.pool.put(out);
                    continue;
                }
                connection.sending = true;
                connection.qos0_waiting = 0;
                return Some((id, out));
            }
        }
        None
    }

    /// Nothing is sent until [`let_go`](Self::let_go).
    pub(super) fn hold_back(&mut self, slot: u32) {
        if let Some(connection) = self.connections.at_mut(slot) {
            connection.held = true;
        }
    }

    /// What was held back may be sent.
    pub(super) fn let_go(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.slot, id.generation) else { return };
        connection.held = false;
        if connection.out.is_some() && !connection.dirty && !connection.sending {
            connection.dirty = true;
            self.dirty.push_back(id.slot);
        }
    }

    /// A buffer has been sent; lists the connection again if more waits.
    pub(super) fn sent(&mut self, slot: u32, buffer: Box<OutBuffer>) {
        self.pool.put(buffer);
        let Some(connection) = self.connections.at_mut(slot) else { return };
        connection.sending = false;
        if connection.out.is_some() {
            connection.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    /// Forgets a connection and tells the driver to close it.
    pub(super) fn close(&mut self, slot: u32) {
        if let Some(id) = self.forget(slot) {
            self.outputs.push_back(Output::Close { connection: id });
        }
    }

    /// Forgets a connection; the driver hears of it in another way.
    pub(super) fn forget(&mut self, slot: u32) -> Option<ConnectionId> {
        let id = self.id_at(slot)?;
        drop(self.end_slow(slot));
        // The driver still knows the slot by its old connection until it has polled what happened to that.
        let connection = self.connections.retire(slot, id.generation)?;
        if let Some(out) = connection.out {
            self.pool.put(out);
        }
        if let Some(partial) = connection.partial {
            self.partial_bytes -= partial.capacity();
        }
        Some(id)
    }

    /// What the driver has to do next. From here on the slot of a connection that is closed or handed over may be used again.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front()?;
        if let Output::Close { connection } | Output::HandOver { connection, .. } = &output {
            self.connections.recycle(connection.slot);
        }
        Some(output)
    }

    /// Takes the beginning of a packet out, to be completed.
    #[allow(clippy::box_collection, reason = "moved as it is kept")]
    pub(super) fn take_partial(&mut self, slot: u32) -> Option<Box<Vec<u8>>> {
        let partial = self.connections.at_mut(slot)?.partial.take()?;
        self.partial_bytes -= partial.capacity();
        Some(partial)
    }

    /// Keeps the beginning of a packet until more arrives.
    #[allow(clippy::box_collection, reason = "moved as it is kept")]
    pub(super) fn keep_partial(&mut self, slot: u32, partial: Box<Vec<u8>>) {
        if let Some(connection) = self.connections.at_mut(slot) {
            self.partial_bytes += partial.capacity();
            connection.partial = Some(partial);
        }
    }

    /// A connection is read slowly from here.
    pub(super) fn begin_slow(&mut self, slot: u32) {
        if let Some(connection) = self.connections.at_mut(slot) {
            connection.slow = true;
            self.slow.entry(slot).or_default();
        }
    }

    /// Keeps a packet of a connection that is read slowly; how many bytes are kept for it.
    pub(super) fn hold(&mut self, slot: u32, packet: &[u8]) -> usize {
        let slow = self.slow.entry(slot).or_default();
        let before = slow.memory();
        slow.held.extend_from_slice(packet);
        self.held_bytes += slow.memory() - before;
        slow.held.len()
    }

    /// A connection is read as always from here; gives what was kept.
    pub(super) fn end_slow(&mut self, slot: u32) -> Option<Vec<u8>> {
        let connection = self.connections.at_mut(slot).filter(|connection| connection.slow)?;
        connection.slow = false;
        let slow = self.slow.remove(&slot)?;
        self.held_bytes -= slow.memory();
        Some(slow.held)
    }

    /// Stops reading for `reason`.
    pub(super) fn pause(&mut self, slot: u32, reason: u8) {
        let Some(id) = self.id_at(slot) else { return };
        let connection = self.connections.at_mut(slot).expect("has an id");
        if connection.paused == 0 {
            self.outputs.push_back(Output::Pause { connection: id });
        }
        connection.paused |= reason;
    }

    /// Reads again, if no other reason is left.
    pub(super) fn resume(&mut self, slot: u32, reason: u8) {
        let Some(id) = self.id_at(slot) else { return };
        let connection = self.connections.at_mut(slot).expect("has an id");
        if connection.paused & reason == 0 {
            return;
        }
        connection.paused &= !reason;
        if connection.paused == 0 {
            self.outputs.push_back(Output::Resume { connection: id });
        }
    }

    /// Gives memory back that nobody needs; says whether it was much.
    pub(super) fn shrink(&mut self) -> bool {
        self.pool.shrink();
        self.dirty.shrink_to(2 * self.dirty.len());
        self.outputs.shrink_to(2 * self.outputs.len());
        self.connections.shrink()
    }

    /// Memory held, in bytes: connections, spare buffers, packets in part, packets that wait for memory.
    pub(super) fn memory(&self) -> usize {
        self.connections.memory() + self.pool.memory() + self.partial_bytes + self.held_bytes
    }
}
