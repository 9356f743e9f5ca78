//! Everything a shard is configured with.

use crate::{auth, queue, route, session};

/// One shard's configuration; the same on every shard.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
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
