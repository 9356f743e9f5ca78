//! What a shard counts. Read by queries; the names it is shown under are `admin`'s.

/// Counters since the start, and a few that go up and down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// PUBLISH received, by QoS.
    pub received: [u64; 3],
    /// PUBLISH put on the way to a client, by QoS.
    pub delivered: [u64; 3],
    /// Publishes that nobody subscribed to.
    pub unroutable: u64,
    /// QoS 0 messages dropped because the client's socket was busy and its backlog over the bound.
    pub dropped_qos0: u64,
    /// Messages dropped from the head of a full session queue.
    pub dropped_head: u64,
    /// Messages a full session queue refused.
    pub refused: u64,
    /// Messages that expired before they were delivered.
    pub expired: u64,
    /// Messages larger than the client's Maximum Packet Size.
    pub dropped_too_large: u64,
    /// Messages a client refused with a negative PUBACK or PUBREC.
    pub refused_by_client: u64,
    /// QoS 0 messages for a session whose client was away.
    pub dropped_offline: u64,
    /// Retained messages that found the store full.
    pub not_retained: u64,
    /// Connections accepted by the socket.
    pub accepted: u64,
    /// CONNECT accepted.
    pub connected: u64,
    /// Connections ended by a violation.
    pub violations: u64,
    /// Sessions that expired.
    pub sessions_expired: u64,
    /// Wills published.
    pub wills: u64,
}
