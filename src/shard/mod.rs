//! One core's whole broker: composes the layers below; `handle_*` in, `poll_*` out.

pub mod api;
pub mod options;
pub mod peer;

pub use api::{Accepted, HandOver, Output};
pub use options::Options;
pub use peer::PeerBatch;

use crate::base::{ConnectionId, HashKey, Mono, Now, OutBuffer, ShardId};

/// One core's broker, pure: no I/O, clock, lock or randomness.
///
/// Contract: `now` never goes back. After every `handle_*`, or once a turn after many, the driver polls
/// [`poll_output`](Self::poll_output), [`poll_send`](Self::poll_send) and [`poll_peer`](Self::poll_peer) until each is empty.
#[derive(Debug)]
pub struct Shard {}

#[allow(unused_variables, clippy::needless_pass_by_ref_mut, clippy::unused_self, reason = "signatures first")]
impl Shard {
    /// Shard `id` of `shards`; `key` is the process's secret, the same on every shard.
    #[must_use]
    pub fn new(options: Options, id: ShardId, shards: u16, key: HashKey, now: Now) -> Self {
        Self {}
    }

    /// A socket was accepted. `None`: over a limit, close it.
    pub fn handle_accepted(&mut self, now: Now, accepted: Accepted) -> Option<ConnectionId> {
        None
    }

    /// Another shard handed a connection over; its bytes are processed at once. `None`: over a limit, close it.
    pub fn handle_handed_over(&mut self, now: Now, hand_over: HandOver) -> Option<ConnectionId> {
        None
    }

    /// The socket could not be moved (the target's tables are full): the client is answered 0x97 from here and closed.
    pub fn handle_hand_over_failed(&mut self, now: Now, hand_over: HandOver) -> Option<ConnectionId> {
        None
    }

    /// Bytes arrived. An unknown connection (closed meanwhile) is ignored.
    pub fn handle_bytes(&mut self, now: Now, connection: ConnectionId, bytes: &[u8]) {}

    /// The buffer that [`poll_send`](Self::poll_send) gave has been sent whole.
    pub fn handle_sent(&mut self, now: Now, connection: ConnectionId, buffer: Box<OutBuffer>) {}

    /// The peer closed, reset, or a send failed. `buffer`: one that was in flight, to be used again.
    /// The shard answers with [`Output::Close`].
    pub fn handle_closed(&mut self, now: Now, connection: ConnectionId, buffer: Option<Box<OutBuffer>>) {}

    /// A batch from another shard. Returns it emptied, to be given back to the sender for reuse.
    pub fn handle_peer(&mut self, now: Now, from: ShardId, batch: Box<PeerBatch>) -> Box<PeerBatch> {
        batch
    }

    /// An emptied batch that this shard sent to `to` before came back.
    pub fn handle_batch_returned(&mut self, to: ShardId, batch: Box<PeerBatch>) {}

    /// Time passed; call at [`next_deadline`](Self::next_deadline) or later. Calling early does no harm.
    pub fn handle_timeout(&mut self, now: Now) {}

    /// Leave: v5 clients get DISCONNECT 0x8B, wills of sessions that end fire, then every connection is closed by
    /// [`Output::Close`] once its last bytes are sent. Nothing new is accepted.
    pub fn handle_shutdown(&mut self, now: Now) {}

    /// What the driver has to do next besides sending.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// A connection with something to send and nothing in flight, and the bytes. They are the driver's until
    /// [`handle_sent`](Self::handle_sent) or [`handle_closed`](Self::handle_closed).
    pub fn poll_send(&mut self) -> Option<(ConnectionId, Box<OutBuffer>)> {
        None
    }

    /// A batch for another shard. The driver asks only if it can take one for `to`: a full mailbox is simply not polled, and
    /// the shard counts what waits.
    pub fn poll_peer(&mut self, to: ShardId) -> Option<Box<PeerBatch>> {
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` if nothing waits for time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        None
    }

    /// Connections that exist now.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        0
    }
}
