//! One connection on the server's side: what it has in flight, and what it wants next.

use crate::plan::ABORT;
use crate::rng::Rng;
use quelea::base::{Message, MessageHead, MessageRef, OutBuffer, QoS, VhostId, Wall};
use quelea::runtime::net::{Descriptor, SendId};
use std::fmt;
use std::sync::Arc;

/// So many bytes wait to be echoed, and no more are received.
const PENDING_MAX: usize = 8 << 10;

/// A connection. Moves between hosts as a whole, with nothing in flight.
pub(crate) struct Link {
    /// The ring it is in, by index.
    pub(crate) ring: usize,
    pub(crate) descriptor: Descriptor,
    /// Received and not yet in a send.
    pub(crate) pending: Vec<u8>,
    /// A receive is in flight.
    pub(crate) armed: bool,
    /// That receive was cancelled.
    pub(crate) cancelled: bool,
    /// The send in flight, and the turn it began in.
    pub(crate) send: Option<(SendId, u64)>,
    /// The receive found no buffer, in this turn; it is not asked for again before there is one.
    pub(crate) starved: Option<u64>,
    /// Nothing is received before this turn.
    pub(crate) paused_until: u64,
    /// The peer has sent everything.
    pub(crate) ended: bool,
    /// The connection failed, or is left.
    pub(crate) over: bool,
    /// Everything in flight was cancelled; closed when it is.
    pub(crate) closing: bool,
    pub(crate) moving: Moving,
    /// What the client asked for in its first byte.
    command: Option<u8>,
}

/// Where a connection stands between two rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moving {
    No,
    /// Once nothing is in flight.
    Wanted,
    /// The socket is being copied into this ring of the other host, which is the one for this attempt.
    UnderWay {
        to: usize,
        attempt: usize,
    },
}

impl Link {
    pub(crate) fn new(ring: usize, descriptor: Descriptor) -> Self {
        Self {
            ring,
            descriptor,
            pending: Vec::new(),
            armed: false,
            cancelled: false,
            send: None,
            starved: None,
            paused_until: 0,
            ended: false,
            over: false,
            closing: false,
            moving: Moving::No,
            command: None,
        }
    }

    /// The same connection in another ring.
    pub(crate) fn moved(self, ring: usize, descriptor: Descriptor) -> Self {
        assert!(!self.armed && self.send.is_none(), "nothing is in flight: {self:?}");
        Self { ring, descriptor, starved: None, paused_until: 0, moving: Moving::No, ..self }
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        assert!(!self.ended && !bytes.is_empty(), "bytes, and before the end: {self:?}");
        self.command = self.command.or_else(|| bytes.first().copied());
        self.pending.extend_from_slice(bytes);
    }

    /// Whether its socket is being copied.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.moving, Moving::UnderWay { .. })
    }

    /// Whether the client asked to be left.
    pub(crate) fn is_to_be_left(&self) -> bool {
        self.command == Some(ABORT)
    }

    /// Whether everything was echoed and nothing is in flight.
    pub(crate) fn is_done(&self) -> bool {
        self.ended && !self.armed && self.send.is_none() && self.pending.is_empty()
    }

    /// Whether it would receive in this turn.
    pub(crate) fn wants_bytes(&self, turn: u64) -> bool {
        !self.ended
            && !self.over
            && self.moving == Moving::No
            && self.starved.is_none()
            && self.paused_until <= turn
            && self.pending.len() < PENDING_MAX
    }

    /// Takes what waits, or a part of it, in one piece or in hundreds.
    pub(crate) fn take(&mut self, rng: &mut Rng) -> Box<OutBuffer> {
        let part = if rng.chance(300) { rng.size(1, self.pending.len()) } else { self.pending.len() };
        let rest = self.pending.split_off(part);
        let bytes = std::mem::replace(&mut self.pending, rest);
        let mut buffer = Box::<OutBuffer>::default();
        if rng.chance(600) {
            buffer.bytes_mut().extend_from_slice(&bytes);
            return buffer;
        }
        let piece_max = [4, 40, 4_000][rng.size(0, 2)];
        let mut left = &bytes[..];
        while !left.is_empty() {
            let (piece, behind) = left.split_at(rng.size(1, piece_max.min(left.len())));
            if rng.chance(500) {
                buffer.push_tail(message(piece), piece.len());
            } else {
                buffer.bytes_mut().extend_from_slice(piece);
            }
            left = behind;
        }
        buffer
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("descriptor", &(self.ring, self.descriptor))
            .field("pending", &self.pending.len())
            .field("armed", &(self.armed, self.cancelled))
            .field("send", &self.send)
            .field("waits", &(self.starved, self.paused_until))
            .field("ends", &(self.ended, self.over, self.closing))
            .field("moving", &self.moving)
            .finish_non_exhaustive()
    }
}

fn message(payload: &[u8]) -> Arc<Message> {
    let head = MessageHead {
        vhost: VhostId(0),
        qos: QoS::AtMostOnce,
        retain: false,
        expires_at: Wall::NEVER,
        publisher: None,
    };
    MessageRef { head, topic: "t", properties: &[], payload }.to_shared()
}
