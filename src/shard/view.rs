//! What queries may see of a shard. Nothing here changes anything.

use super::Shard;
use super::sessions::Session;
use crate::base::{Version, VhostId};
use crate::log::Log;

/// One session, as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionView {
    /// Virtual host.
    pub vhost: VhostId,
    /// Client identifier.
    pub client_id: String,
    /// The version its client spoke last.
    pub version: Version,
    /// Whether its client is connected.
    pub connected: bool,
    /// Session expiry, in seconds; `u32::MAX` never.
    pub expiry_secs: u32,
    /// Subscriptions with QoS 0.
    pub qos0_subscriptions: u32,
    /// Subscriptions with QoS 1 or 2.
    pub acked_subscriptions: u32,
    /// Messages that wait in the session's queue.
    pub ready: u64,
    /// Their bytes: topics, properties, payloads; of a session on disk the records of these and of what is in flight.
    pub ready_bytes: u64,
    /// Deliveries the client has not settled.
    pub unacknowledged: u64,
    /// QoS 0 messages that wait for the client's socket.
    pub qos0_ready: u64,
}

/// Deliveries of shared subscriptions that no member has settled. When nothing is on its way between shards, `assigned` and
/// `held` of all shards together are the same number, unless a member left a group and came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SharedView {
    /// As the groups whose home is here count them.
    pub assigned: u64,
    /// As the sessions here hold them: in their windows, in their queues, behind a replay.
    pub held: u64,
}

/// Memory of a shard by owner, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryView {
    /// Connections, their buffers, packets received in part.
    pub connections: usize,
    /// Session tables.
    pub sessions: usize,
    /// The trie of this shard's subscribers.
    pub trie: usize,
    /// The replica of the other shards' filters.
    pub interest: usize,
    /// Retained messages.
    pub retained: usize,
    /// The timer wheel.
    pub timers: usize,
}

/// What must be back at zero when nothing is going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Residue {
    /// Bytes of packets received in part.
    pub partial_bytes: usize,
    /// Retained replays that run.
    pub replays: usize,
    /// Questions for retained messages that wait.
    pub held_scans: usize,
    /// SUBSCRIBEs that wait for other shards.
    pub subscribing: usize,
    /// Fan-outs that are not through.
    pub fan_outs: usize,
    /// Batches that wait for other shards.
    pub outgoing_batches: usize,
    /// Connections paused for overload.
    pub paused: usize,
    /// Connections read slowly.
    pub slow: usize,
    /// Clients that count as connected.
    pub clients: usize,
}

impl Shard {
    /// Every session of this shard.
    pub fn session_views(&self) -> impl Iterator<Item = SessionView> {
        self.sessions.iter().map(|(_, session)| {
            let outgoing = session.outgoing.as_deref();
            let (ready, ready_bytes) = ready(session, self.log());
            let connection = session.connection().and_then(|link| self.links.at(link));
            SessionView {
                vhost: session.vhost,
                client_id: session.client_id.to_string(),
                version: session.version,
                connected: connection.is_some(),
                expiry_secs: session.expiry_secs,
                qos0_subscriptions: session.qos0_filters,
                acked_subscriptions: session.acked_filters,
                ready,
                ready_bytes,
                unacknowledged: outgoing.map_or(0, |outgoing| outgoing.window.len() as u64),
                qos0_ready: connection.map_or(0, |connection| u64::from(connection.qos0_waiting)),
            }
        })
    }

    /// Subscriptions of this shard's sessions, and filters they are on.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.trie.subscription_count()
    }

    /// Retained messages whose home is this shard.
    #[must_use]
    pub fn retained_count(&self) -> u64 {
        self.retained.len(super::VHOST)
    }

    /// Entries of the interest index: other shards' exact and wildcard filters.
    #[must_use]
    pub fn interest_count(&self) -> usize {
        self.interest.exact_count() + self.interest.wildcard_count()
    }

    /// Memory by owner.
    #[must_use]
    pub fn memory(&self) -> MemoryView {
        MemoryView {
            connections: self.links.memory(),
            sessions: self.sessions.memory(),
            trie: self.trie.memory(),
            interest: self.interest.memory(),
            retained: self.retained.memory(),
            timers: self.wheel.memory(),
        }
    }

    /// Deliveries of shared subscriptions, from both ends. Visits every group and delivery.
    #[must_use]
    pub fn shared_view(&self) -> SharedView {
        let members = self.groups.iter().flat_map(|(_, group)| group.iter());
        let outgoing = self.sessions.iter().filter_map(|(_, session)| session.outgoing.as_deref());
        let held = outgoing.map(|outgoing| {
            let in_window = outgoing.window.iter().filter_map(|entry| entry.item.as_ref()?.item.as_ref());
            in_window.chain(outgoing.queue.iter()).filter(|item| item.group.is_some()).count()
        });
        SharedView {
            assigned: members.map(|member| u64::from(member.in_flight_count)).sum(),
            held: held.map(|count| count as u64).sum::<u64>() + self.parked_for_groups(),
        }
    }

    /// What is under way.
    #[must_use]
    pub fn residue(&self) -> Residue {
        Residue {
            partial_bytes: self.links.partial_bytes,
            replays: self.replays.len(),
            held_scans: self.held_scans.len(),
            subscribing: self.subscribing.len(),
            fan_outs: self.fan_outs.len(),
            outgoing_batches: self.mesh.backlog(),
            paused: self.paused.len(),
            slow: self.links.slow.len(),
            clients: self.established,
        }
    }
}

/// Messages that wait for a session's client, and their bytes.
pub(super) fn ready(session: &Session, log: Option<&Log>) -> (u64, u64) {
    let outgoing = session.outgoing.as_deref();
    let in_memory = outgoing.map_or((0, 0), |outgoing| (outgoing.queue.len() as u64, outgoing.queue.bytes()));
    let (Some(kept), Some(log)) = (&session.durable, log) else { return in_memory };
    let in_flight = outgoing.map_or(0, |outgoing| outgoing.window.len());
    match log.len(kept.stream).saturating_sub(in_flight) as u64 {
        0 => in_memory,
        waiting => (waiting.max(in_memory.0), log.bytes(kept.stream)),
    }
}
