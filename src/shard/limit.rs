//! The bounds clients meet, and the line in the log that names what to change.
//!
//! At most one line a bound, shard and ten seconds, so that one bound does not drown another. How often a bound was met, the
//! counters say.

use super::Shard;
use crate::base::Mono;

/// Between two lines about one bound.
const QUIET_MS: u64 = 10_000;

/// A bound on what clients may make the broker keep or do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Limit {
    /// One client more than may be connected.
    Connections,
    /// No socket is left for a client.
    Sockets,
    /// A client while the process is short of memory.
    MemoryForClient,
    /// A publish by a client that is read slowly while the process is short of memory.
    MemoryForPublish,
    /// A subscription while the process is short of memory.
    MemoryForSubscription,
    /// Packets that have arrived in part take too much.
    Partial,
    /// One subscription more than a session may have.
    Subscriptions,
    /// A QoS 0 message for a client that is slow to read.
    Qos0,
    /// A message for a session whose queue is full: the oldest one goes.
    QueueDropped,
    /// The same: the new one is refused.
    QueueRefused,
    /// One retained message more than are kept.
    Retained,
    /// More waits for the disk than is let wait.
    DiskBehind,
    /// What makes the log grow, without space on the disk.
    DiskFull,
    /// The same, after a write or a sync failed.
    LogFailed,
}

/// How many there are.
const LIMITS: usize = Limit::LogFailed as usize + 1;

/// When the next line about each bound may be logged.
pub(super) type Quiet = [Mono; LIMITS];

impl Limit {
    fn line(self) -> &'static str {
        match self {
            Self::Connections => "a client is refused: raise mqtt.max_connections",
            Self::Sockets => {
                "a client is refused: the descriptor tables of its shard are full; raise the descriptor limit (`ulimit -n`, \
                 systemd LimitNOFILE) or lower mqtt.max_connections"
            }
            Self::MemoryForClient => "a client is refused: the process is over quelea.memory.max_bytes",
            Self::MemoryForPublish => {
                "publishes are dropped, refused or kept waiting: the process is over quelea.memory.max_bytes"
            }
            Self::MemoryForSubscription => {
                "a subscription is refused: the process is over quelea.memory.max_bytes"
            }
            Self::Partial => {
                "a client is closed: packets that have arrived in part fill their share of memory; raise \
                 quelea.memory.max_bytes or lower mqtt.max_packet_size_authenticated"
            }
            Self::Subscriptions => "a session is over its subscriptions: raise quelea.mqtt.subscriptions_max",
            Self::Qos0 => {
                "QoS 0 messages for a client that is slow to read are dropped: raise mqtt.mailbox_soft_limit or \
                 quelea.qos0.max_bytes"
            }
            Self::QueueDropped => {
                "a session's queue is full and loses its oldest messages: raise quelea.session.queue.max_messages or max_bytes"
            }
            Self::QueueRefused => {
                "a session's queue is full and publishes are refused: raise quelea.session.queue.max_messages or max_bytes"
            }
            Self::Retained => {
                "retained message store is full: raise mqtt.retained_message_store.max_messages or max_size_bytes"
            }
            Self::DiskBehind => {
                "publishers are paused: the disk of quelea.data_dir does not keep up with what is to be on it; a faster disk helps, \
                 or another quelea.log.sync"
            }
            Self::DiskFull => {
                "durable publishes, subscriptions and sessions are refused: the disk of quelea.data_dir is full or below \
                 disk_free_limit.absolute; make space, and it goes on by itself"
            }
            Self::LogFailed => {
                "durable publishes, subscriptions and sessions are refused: a write to the log in quelea.data_dir failed; \
                 restart on a sound disk"
            }
        }
    }
}

impl Shard {
    /// A bound was met: logs it, unless it was logged just now.
    pub(super) fn met(&mut self, limit: Limit) {
        self.met_by(limit, None);
    }

    /// The same, and by whose session.
    pub(super) fn met_by(&mut self, limit: Limit, session: Option<u32>) {
        let quiet_until = &mut self.quiet[limit as usize];
        if *quiet_until > self.now.mono {
            return;
        }
        *quiet_until = self.now.mono.plus_ms(QUIET_MS);
        match session.and_then(|session| self.sessions.at(session)) {
            Some(session) => tracing::warn!(client_id = &*session.client_id, "{}", limit.line()),
            None => tracing::warn!("{}", limit.line()),
        }
    }
}
