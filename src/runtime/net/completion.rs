//! What a ring reports.

use super::buffers::Buffer;
use super::file::Transfer;
use super::ring::Descriptor;
use crate::base::{ConnectionId, OutBuffer};
use nix::errno::Errno;
use std::net::SocketAddr;

/// One finished operation, or one delivery of a multishot receive.
#[derive(Debug)]
pub enum Completion {
    /// A socket was accepted into a direct descriptor.
    Accepted {
        /// What [`accept`](super::NetRing::accept) was given.
        listener: u32,
        /// The new socket.
        descriptor: Descriptor,
        /// The other end.
        peer: SocketAddr,
    },
    /// An accept ended without a socket.
    AcceptFailed {
        /// What [`accept`](super::NetRing::accept) was given.
        listener: u32,
        /// Why.
        error: Errno,
    },
    /// Bytes arrived.
    Received {
        /// Whose.
        connection: ConnectionId,
        /// The bytes; to be given back by [`publish`](super::NetRing::publish).
        buffer: Buffer,
        /// Whether the receive is over: single-shot, or a multishot that the kernel ended.
        last: bool,
    },
    /// A receive is over, without bytes.
    ReceiveEnded {
        /// Whose.
        connection: ConnectionId,
        /// Why.
        ended: Ended,
    },
    /// An out-buffer was sent whole, or cannot be.
    Sent {
        /// Whose.
        connection: ConnectionId,
        /// The buffer, back.
        buffer: Box<OutBuffer>,
        /// Whether all of it was handed to the socket.
        result: Result<(), Errno>,
    },
    /// The sending side was ended, or the socket had no such side any more.
    SendingEnded {
        /// What [`end_sending`](super::NetRing::end_sending) was given.
        connection: ConnectionId,
    },
    /// A socket was copied to another ring; here it is still open.
    HandedOver {
        /// What [`hand_over`](super::NetRing::hand_over) was given.
        connection: ConnectionId,
        /// The direct descriptor in the other ring. `ENFILE`: its table is full.
        result: Result<Descriptor, Errno>,
    },
    /// An outgoing connection was made, or not.
    Connected {
        /// What [`connect`](super::NetRing::connect) was given.
        connection: ConnectionId,
        /// The new socket.
        result: Result<Descriptor, Errno>,
    },
    /// A transfer from or to a file is over.
    Transferred {
        /// What [`transfer`](super::NetRing::transfer) was given.
        token: u64,
        /// What was transferred, back.
        transfer: Transfer,
        /// Whether all of it was. `EIO` also where the file has no more.
        result: Result<(), Errno>,
    },
    /// Somebody rang this ring's doorbell, or wrote to its event descriptor.
    Woken,
}

/// Why a receive is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The peer closed its side.
    Closed,
    /// [`cancel_receive`](super::NetRing::cancel_receive).
    Cancelled,
    /// No buffer was published. Nothing is lost: receive again when there is one.
    NoBuffers,
    /// The connection failed.
    Failed(Errno),
}
