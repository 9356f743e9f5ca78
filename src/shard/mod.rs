//! One core's whole broker: composes the layers below; `handle_*` in, `poll_*` out.
//!
//! | file | what |
//! |---|---|
//! | `read` | bytes to packets, packets to handlers |
//! | `connect` | CONNECT: home, terms, takeover, resume |
//! | `publish` | PUBLISH in, and its acknowledgements |
//! | `routing` | one message to everybody who subscribes, here and on other shards |
//! | `deliver` | one message to one session: drop, queue or encode |
//! | `fan_out`, `deferred` | messages to many, worked off in steps; messages whose routing goes on later |
//! | `pump` | a session's queue into its window |
//! | `subscribe` | SUBSCRIBE and UNSUBSCRIBE, and when SUBACK may leave |
//! | `groups` | shared subscriptions |
//! | `durable` | what is on disk: sessions, subscriptions, messages; and who waits for it |
//! | `replay` | retained messages to new subscriptions |
//! | `slow` | who publishes while memory is short: paused, or read slowly |
//! | `limit` | the bounds clients meet, and what the log says then |
//! | `lifecycle` | the ends: of connections, sessions, the process; timers |
//! | `peers` | what other shards say |
//! | `counters`, `cause` | what is counted |
//! | `census` | the report: counters, and sums over all connections and sessions |
//!
//! Invariants: a session's connection and a connection's session name each other or nobody; an acknowledgement leaves after
//! all before it; everything a shard knows of another it was told in a [`PeerBatch`].

pub mod api;
pub mod cause;
mod census;
mod connect;
pub(crate) mod connection;
pub mod counters;
mod deferred;
mod deliver;
pub mod durable;
mod fan_out;
mod groups;
mod lifecycle;
mod limit;
pub mod options;
pub mod peer;
mod peers;
mod publish;
mod pump;
mod read;
mod replay;
mod routing;
mod run;
mod sessions;
mod slow;
mod subscribe;
#[cfg(test)]
mod tests;
pub mod view;

pub use api::{Accepted, HandOver, Output};
pub use cause::Cause;
pub use census::{Census, Report};
pub use counters::Counters;
pub use options::Options;
pub use peer::PeerBatch;

use crate::base::{ConnectionId, HashKey, Mono, Now, OutBuffer, ShardId, Slab, VhostId, Wheel};
use crate::route::{FilterId, Groups, Interest, Retained, Trie};
use connection::{Connection, Links, Phase};
use deferred::Deferred;
use durable::{Completing, Delivery, Durable, Gather};
use fan_out::FanOuts;
use peer::Mesh;
use replay::{HeldScan, Replay};
use routing::Scratch;
use sessions::Sessions;
use std::collections::VecDeque;
use subscribe::{Settling, Subscribing};

/// The virtual host `/`; the only one so far.
const VHOST: VhostId = VhostId(0);

/// The key of topics, filters and groups.
fn topics_key(key: HashKey) -> HashKey {
    key.derive("topics")
}

/// One core's broker, pure: no I/O, clock, lock or randomness.
///
/// Contract: `now` never goes back. After every `handle_*`, or once a turn after many, the driver polls
/// [`poll_output`](Self::poll_output), [`poll_send`](Self::poll_send) and [`poll_peer`](Self::poll_peer) until each is empty.
#[derive(Debug)]
pub struct Shard {
    options: Options,
    id: ShardId,
    shards: u16,
    key: HashKey,
    /// Key of topics, filters and groups; the same on every shard.
    topics: HashKey,
    now: Now,
    links: Links,
    /// Connections whose CONNECT was accepted and that are not being closed.
    established: usize,
    sessions: Sessions,
    trie: Trie,
    interest: Interest,
    groups: Groups,
    retained: Retained,
    /// Its log; without one everything is in memory only.
    durable: Option<Box<Durable>>,
    /// Memory that is used again for every message on disk.
    spare_deliveries: Vec<Delivery>,
    /// Messages that wait for a segment of the log, and their bytes.
    waiting: VecDeque<Deferred>,
    waiting_bytes: usize,
    gathers: Slab<Gather>,
    completing: Slab<Completing>,
    mesh: Mesh,
    wheel: Wheel,
    due: Vec<u64>,
    /// The last sweep for expired retained messages.
    swept_at: Mono,
    replays: Slab<Replay>,
    held_scans: VecDeque<HeldScan>,
    subscribing: Slab<Subscribing>,
    settling: VecDeque<Settling>,
    fan_outs: FanOuts,
    /// Sessions that ended while the fan-out that has begun may still name their slot.
    ended: Vec<u32>,
    /// Connections paused for overload.
    paused: Vec<ConnectionId>,
    counters: Counters,
    /// A report in the making, and one that is ready.
    walk: Option<census::Walk>,
    report: Option<Box<Report>>,
    scratch: Scratch,
    /// Deliveries to wide audiences since the driver polled last, in deliveries of small messages.
    spent: usize,
    /// Client identifiers assigned so far.
    assigned: u64,
    /// Over the memory watermark.
    pressure: bool,
    /// When it looks at paused connections next, while memory is short.
    look_at: Mono,
    /// Clients the network has sockets for, once it can open no more.
    sockets_max: Option<usize>,
    leaving: bool,
    /// Violations that may still be logged this second, and when it began.
    log_allowance: (u32, Mono),
    /// The same of the bounds that clients meet, one by one.
    quiet: limit::Quiet,
}

impl Shard {
    /// Shard `id` of `shards`; `key` is the process's secret, the same on every shard.
    ///
    /// # Panics
    /// If `id` is not below `shards`.
    #[must_use]
    pub fn new(options: Options, id: ShardId, shards: u16, key: HashKey, now: Now) -> Self {
        assert!(id.0 < shards, "shard {} of {shards}", id.0);
        let topics = topics_key(key);
        let mesh = Mesh::new(id, shards, &options.budgets);
        Self {
            options,
            id,
            shards,
            key,
            topics,
            now,
            links: Links::new(),
            established: 0,
            sessions: Sessions::new(key, id),
            trie: Trie::new(topics),
            interest: Interest::new(topics),
            groups: Groups::new(topics),
            retained: Retained::new(topics),
            durable: None,
            spare_deliveries: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            gathers: Slab::default(),
            completing: Slab::default(),
            mesh,
            wheel: Wheel::new(now.mono),
            due: Vec::new(),
            swept_at: Mono::default(),
            replays: Slab::default(),
            held_scans: VecDeque::new(),
            subscribing: Slab::default(),
            settling: VecDeque::new(),
            fan_outs: FanOuts::default(),
            ended: Vec::new(),
            paused: Vec::new(),
            counters: Counters::default(),
            walk: None,
            report: None,
            scratch: Scratch::default(),
            spent: 0,
            assigned: 0,
            pressure: false,
            look_at: Mono::NEVER,
            sockets_max: None,
            leaving: false,
            log_allowance: (0, Mono::default()),
            quiet: Default::default(),
        }
    }

    /// A socket was accepted. `None`: over a limit, close it.
    pub fn handle_accepted(&mut self, now: Now, accepted: Accepted) -> Option<ConnectionId> {
        self.now = now;
        self.counters.accepted += 1;
        if self.leaving || self.strangers_room() == 0 {
            let cause = if self.leaving { Cause::ShuttingDown } else { Cause::Quota };
            self.counters.refused_connections.count(cause);
            return None;
        }
        Some(self.open(accepted))
    }

    /// Another shard handed a connection over; its bytes are processed at once. `None`: over a limit, close it.
    pub fn handle_handed_over(&mut self, now: Now, hand_over: HandOver) -> Option<ConnectionId> {
        self.now = now;
        if self.leaving {
            self.counters.refused_connections.count(Cause::ShuttingDown);
            return None;
        }
        let id = self.open(hand_over.accepted);
        self.counters.handed_over += 1;
        self.read(id.slot, &hand_over.bytes);
        Some(id)
    }

    /// The socket could not be moved (the target's tables are full): the client is answered 0x97 from here and closed.
    pub fn handle_hand_over_failed(&mut self, now: Now, hand_over: &HandOver) -> Option<ConnectionId> {
        self.now = now;
        if self.leaving {
            self.counters.refused_connections.count(Cause::ShuttingDown);
            return None;
        }
        let id = self.open(hand_over.accepted);
        self.refuse_unread(id.slot, &hand_over.bytes);
        Some(id)
    }

    /// Bytes arrived. An unknown connection (closed meanwhile) is ignored.
    pub fn handle_bytes(&mut self, now: Now, connection: ConnectionId, bytes: &[u8]) {
        self.now = now;
        let is_read = |c: &Connection| !matches!(c.phase, Phase::Closing);
        if self.links.get(connection).is_some_and(is_read) {
            self.counters.bytes_in += bytes.len() as u64;
            self.read(connection.slot, bytes);
        }
    }

    /// The buffer that [`poll_send`](Self::poll_send) gave has been sent whole.
    pub fn handle_sent(&mut self, now: Now, connection: ConnectionId, buffer: Box<OutBuffer>) {
        self.now = now;
        if self.links.get(connection).is_some() {
            self.links.sent(connection.slot, buffer);
            self.after_sent(connection.slot);
        } else {
            self.links.pool.put(buffer);
        }
    }

    /// The peer closed, reset, or a send failed. `buffer`: one that was in flight, to be used again.
    /// The shard answers with [`Output::Close`].
    pub fn handle_closed(&mut self, now: Now, connection: ConnectionId, buffer: Option<Box<OutBuffer>>) {
        self.now = now;
        if let Some(buffer) = buffer {
            self.links.pool.put(buffer);
        }
        if self.links.get(connection).is_some() {
            self.lost(connection.slot);
        }
    }

    /// A batch from another shard. Returns it emptied, to be given back to the sender for reuse.
    pub fn handle_peer(&mut self, now: Now, from: ShardId, batch: Box<PeerBatch>) -> Box<PeerBatch> {
        self.now = now;
        self.on_batch(from, batch)
    }

    /// An emptied batch that this shard sent to `to` before came back.
    pub fn handle_batch_returned(&mut self, to: ShardId, batch: Box<PeerBatch>) {
        self.mesh.to(to).put_back(batch);
    }

    /// Time passed; call at [`next_deadline`](Self::next_deadline) or later. Calling early does no harm.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.on_timeout();
    }

    /// The process went over its memory watermark, or is below it again: over it publishers are paused or read
    /// slowly, new clients and subscriptions are refused.
    pub fn handle_pressure(&mut self, now: Now, over: bool) {
        self.now = now;
        self.set_pressure(over);
    }

    /// The network has sockets for so many clients and can open no more (`None`: it can); one more is refused.
    pub fn handle_sockets_max(&mut self, clients: Option<usize>) {
        self.sockets_max = clients;
    }

    /// How many more sockets it takes of clients that have not said who they are.
    #[must_use]
    pub fn room_for_strangers(&self) -> usize {
        self.strangers_room()
    }

    /// There is time to give memory back that nobody needs any more, after many clients have gone or a burst is over. Says
    /// whether it was much: then the allocator has something to give back to the system.
    ///
    /// Cheap unless a quarter of what there was has gone since the last time; then it looks at every entry once.
    pub fn handle_spare_time(&mut self, now: Now) -> bool {
        self.now = now;
        self.give_back_memory()
    }

    /// Leave: v5 clients get DISCONNECT 0x8B, wills of sessions that end fire, then every connection is closed by
    /// [`Output::Close`] once its last bytes are sent. Nothing new is accepted.
    pub fn handle_shutdown(&mut self, now: Now) {
        self.now = now;
        self.leave();
    }

    /// What the driver has to do next besides sending.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.spent = 0;
        self.links.poll_output()
    }

    /// A connection with something to send and nothing in flight, and the bytes. They are the driver's until
    /// [`handle_sent`](Self::handle_sent) or [`handle_closed`](Self::handle_closed).
    pub fn poll_send(&mut self) -> Option<(ConnectionId, Box<OutBuffer>)> {
        let (connection, buffer) = self.links.poll_send()?;
        self.counters.bytes_out += buffer.len() as u64;
        Some((connection, buffer))
    }

    /// A batch for another shard. The driver asks only if it can take one for `to`: a full mailbox is simply not polled, and
    /// the shard counts what waits.
    pub fn poll_peer(&mut self, to: ShardId) -> Option<Box<PeerBatch>> {
        let batch = self.mesh.to(to).poll()?;
        if !self.paused.is_empty() && self.mesh.backlog() == 0 {
            self.resume_publishers();
        }
        Some(batch)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` if nothing waits for time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        if !self.fan_outs.is_empty() || self.walk.is_some() {
            return Some(self.now.mono);
        }
        let all =
            [self.wheel.next_deadline(), self.sweep_deadline(), self.slow_deadline(), self.upkeep_deadline()];
        all.into_iter().flatten().min()
    }

    /// Connections that exist now.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.links.len()
    }

    /// Clients that are connected: CONNECT was accepted, and nothing has ended it.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.established
    }

    /// Sessions that exist now, connected or not.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len() - self.ended.len()
    }

    /// What this shard has counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn filter_ids(&self, session: u32) -> Vec<FilterId> {
        self.sessions.at(session).map(|s| s.filters.as_slice().to_vec()).unwrap_or_default()
    }
}
