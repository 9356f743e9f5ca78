//! Everything a shard is configured with.

use crate::{auth, log, queue, route, session};

/// One shard's configuration; the same on every shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Sessions.
    pub session: session::Options,
    /// Queues.
    pub queue: queue::Options,
    /// Routing.
    pub route: route::Options,
    /// Access.
    pub auth: auth::Options,
    /// What is bounded over the whole process.
    pub process: ProcessOptions,
    /// The log; the runtime opens it.
    pub log: log::Options,
    /// `quelea.log.sync_interval`: milliseconds between two syncs under [`log::SyncMode::Interval`].
    pub log_sync_interval_ms: u64,
    /// How much is done in one go.
    pub budgets: Budgets,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            session: Default::default(),
            queue: Default::default(),
            route: Default::default(),
            auth: Default::default(),
            process: Default::default(),
            log: Default::default(),
            log_sync_interval_ms: 1_000,
            budgets: Default::default(),
        }
    }
}

/// How much a shard does in one go, and what may wait before it slows publishers down. Not for operators: the defaults are
/// measured. They are options so that the simulation reaches what lies behind them with few clients and small messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budgets {
    /// Deliveries of one message made in one go (about 1.5 ms); a wider fan-out is worked off in steps of this size. At least 1.
    pub fan_out_step: usize,
    /// Deliveries beyond the first few of each message that one turn makes at once (about 6 ms); what is over waits. Many a
    /// turn pay: a connection then gets many messages with one send.
    pub turn_deliveries: usize,
    /// A message with at most this many subscribers is not wide.
    pub narrow: usize,
    /// Fan-outs of one publisher that may wait before it is paused; once as many wait of all together, whoever has one waiting is.
    pub fan_outs_max: usize,
    /// A batch for another shard with this many bytes of messages is full; at most 1 GiB.
    pub batch_bytes: usize,
    /// A batch with this many messages is full. At least 1.
    pub batch_messages: usize,
    /// Batches that may wait for other shards, all together, before publishers are paused.
    pub backlog_batches_max: usize,
    /// Bytes that may wait for the disk before publishers are paused.
    pub disk_backlog_bytes_max: usize,
    /// Retained messages in one batch of a replay. At least 1.
    pub replay_batch: usize,
    /// Topics a replay notes before live messages wait for its end.
    pub replay_noted_max: usize,
    /// Messages a session's queue may hold while a replay goes on filling it. At least 1.
    pub replay_queue_high: usize,
    /// A connection with this many bytes waiting and its socket busy is given no more from its session's queue.
    pub out_bytes_high: usize,
    /// A connection with this many bytes of answers and deliveries waiting is not read from.
    pub out_bytes_pause: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            fan_out_step: 16_384,
            turn_deliveries: 65_536,
            narrow: 16,
            fan_outs_max: 64,
            batch_bytes: 64 * 1024,
            batch_messages: 1024,
            backlog_batches_max: 64,
            disk_backlog_bytes_max: 64 << 20,
            replay_batch: 64,
            replay_noted_max: 4096,
            replay_queue_high: 64,
            out_bytes_high: 256 * 1024,
            out_bytes_pause: 1 << 20,
        }
    }
}

/// Bounds of the whole process; a shard keeps its share of each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessOptions {
    /// `quelea.memory.max_bytes`: messages, queues and buffers together; over it publishers are paused and new clients refused.
    /// `None` is unbounded here; the configuration derives the default from the machine's memory.
    pub memory_max_bytes: Option<u64>,
    /// `mqtt.max_connections`: over all shards; `None` is `infinity`.
    pub connections_max: Option<u64>,
    /// `quelea.mailbox.capacity`: batches that may wait between two shards before the sender's overflow list is used.
    pub mailbox_capacity: usize,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self { memory_max_bytes: None, connections_max: None, mailbox_capacity: 64 }
    }
}
