//! What goes into a shard and what comes out: the whole contract between the sync core and whoever drives it (the runtime, or
//! the simulator).

use crate::base::{ConnectionId, ShardId};
use std::net::SocketAddr;

/// What is known of a connection before its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// The client's address.
    pub peer: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// When it was accepted, on the monotonic clock of the process: the login timeout counts from here, also after a hand-over.
    pub at: crate::base::Mono,
}

/// A connection on its way to the home shard of its session.
#[derive(PartialEq, Eq, Debug)]
pub struct HandOver {
    /// What is known of the connection.
    pub accepted: Accepted,
    /// All bytes received so far: a complete CONNECT, and whatever came behind it.
    pub bytes: Vec<u8>,
}

/// What a shard asks of its driver. A connection's slot is used again only after the output that freed it was polled.
///
/// Sends and mailbox batches have their own polls.
#[derive(PartialEq, Eq, Debug)]
pub enum Output {
    /// Nothing more is to be sent or received here: shut down, wait for the last completions, free the slot. The shard has
    /// forgotten the connection: nothing about it may be handed in any more.
    Close {
        /// Which connection.
        connection: ConnectionId,
    },
    /// Move the socket to `to`, which gets it by [`handle_handed_over`](super::Shard::handle_handed_over). The shard has
    /// forgotten the connection; no receive of it is outstanding, because before CONNECT receives are single-shot.
    HandOver {
        /// Which connection.
        connection: ConnectionId,
        /// The session's home.
        to: ShardId,
        /// What travels with it.
        hand_over: HandOver,
    },
    /// CONNECT was accepted: receives may be multishot from here.
    Established {
        /// Which connection.
        connection: ConnectionId,
    },
    /// Receive no more until [`Output::Resume`]; what has been received already is still handed in.
    Pause {
        /// Which connection.
        connection: ConnectionId,
    },
    /// Receive again.
    Resume {
        /// Which connection.
        connection: ConnectionId,
    },
}
